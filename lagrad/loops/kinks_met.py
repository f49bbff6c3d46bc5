"""Whether a loop meets a kink on its way: a tie of selectors in one of its steps."""

from collections.abc import Callable, Sequence

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression
from lagrad.loops.chain import Chain
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.kinks import Kinks
from lagrad.systems.constraint import definitions
from lagrad.typing import Array, Parameters


def ties_of(
    system: CompiledSystem, given: tuple[str, ...], after: tuple[str, ...], partials: bool
) -> Plan | None:
    """The states after a step and its ties; None without selectors, or with equations."""
    variables = system.system.variables
    inputs, results = ([variables[name] for name in names] for names in (given, after))
    outputs: list[Expression] = [*variables.values(), *(system.tape.data if partials else ())]
    defined = definitions(system.system)
    kinks = Kinks(inputs, outputs, defined, still="")
    if system.system.with_role("unknown") or not kinks.selectors:
        return None
    return Plan(inputs, [*results, *kinks.ties], defined)


def meets(parameters: Parameters) -> Callable[[Sequence[Array]], bool] | None:
    """Of a loop that makes derivatives: whether a selector in one of its steps is tied."""
    return ties_met(parameters[0], False)


def meets_backwards(parameters: Parameters) -> Callable[[Sequence[Array]], bool] | None:
    """The same of a loop that is run in reverse, whose derivatives are those of its step."""
    found = ties_met(parameters[0], True)
    return None if found is None else lambda arguments: found(arguments[2:])


def ties_met(chain: Chain, partials: bool) -> Callable[[Sequence[Array]], bool] | None:
    system = chain.step.compiled()
    plan = system.once(ties_of, system, chain.given, chain.after, partials)
    if plan is None:
        return None

    def met(arguments: Sequence[Array]) -> bool:
        m, given = len(chain.states), chain.given_at(arguments)
        state = arguments[:m]
        with np.errstate(all="ignore"):
            for t in chain.order():
                found = plan.evaluate([*state, *given(t)])
                if any(tie.any() for tie in found[m:]):
                    return True
                state = found[:m]
        return False

    return met
