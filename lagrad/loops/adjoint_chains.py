"""The tangent and the adjoint of a chain, which are chains.

The adjoint system of a chain is block bidiagonal: multipliers run back through the transposed
steps, which is a chain again, in reverse over the states. So is its tangent. Nothing but chains
comes out, to any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lagrad.expressions.expression import Constant, Variable
from lagrad.expressions.graph import ancestors
from lagrad.loops.chain import Chain
from lagrad.programs.derived_programs import pullback, tangent
from lagrad.programs.program import Program
from lagrad.systems.constraint import definitions
from lagrad.systems.rewriting import copied, given
from lagrad.typing import Array, Indices


def tangent_chain(chain: Chain, ks: Indices) -> Chain:
    """The chain with the tangents of its states after them, and those of its outputs only.

    Its further inputs and constants are the tangents of those among the arguments `ks`.
    """
    active = chain.active(ks)
    derived = tangent(chain.differentiable(active))
    assert isinstance(derived.system, Program)

    m, how = len(chain.states), chain.execution.plain
    tangents = range(m, 2 * m)

    def moving(names: tuple[str, ...]) -> tuple[str, ...]:
        return (*names, *(derived.seeds[n] for n in names if n in active))

    return replace(
        chain,
        step=derived.system,
        states=(*chain.states, *(derived.seeds[n] for n in chain.states)),
        inputs=moving(chain.inputs),
        constants=moving(chain.constants),
        after=(*chain.after, *(derived.tangents[n] for n in chain.after)),
        outputs=tuple(derived.tangents[n] for n in chain.outputs),
        execution=replace(
            how,
            moving=(*how.moving, *tangents),
            of=how.of or chain.step.name,
            original=how.original or chain.once,
        ),
    )


@dataclass(frozen=True, eq=False)
class AdjointStep:
    """A step's pull-back, with what flows to constants added to what did before.

    Attributes
    ----------
    program : Program
        It takes states after the step as data where it uses them: they need not be computed from
        those before again.
    seeds : dict
        By what becomes of the states, and by the outputs, their cotangents.
    sums : dict
        By the constants, what has flowed to them before the step.
    flows : dict
        By what is given, what flows back to it; to a constant in sum.
    known : dict
        By the number of a state, the data that it is after the step.
    """

    program: Program
    seeds: dict[str, str]
    sums: dict[str, str]
    flows: dict[str, str]
    known: dict[int, str]
    chain: Chain  # of one step, that it is the pull-back of

    @classmethod
    def of(cls, chain: Chain, active: tuple[str, ...]) -> "AdjointStep":
        """That of a chain, by its states and by active inputs and constants."""
        derived = pullback(chain.differentiable(active), tuple(dict.fromkeys(chain.results)))
        system = derived.system
        free: dict[int, tuple[str, str]] = {}
        # With equations in it, all that it defines is computed.
        for k, name in enumerate(() if system.with_role("unknown") else chain.after):
            stated = system.constraints.get(name)  # or it is given
            if stated is not None and not isinstance(stated.rhs, (Variable, Constant)):
                free[k] = (name, system.free(f"after_{name}"))
        program = copied(system, system.name, instead=given(system, dict(free.values())))
        assert isinstance(program, Program)
        flows = {name: derived.gradients[name] for name in (*chain.states, *active)}
        sums = {}
        for name in active:
            if name in chain.constants:
                gradient = program.variables[flows[name]]
                sums[name] = program.free(f"sum_{name}")
                total = program.leaf(sums[name], "data", gradient.shape, gradient.dtype, None)
                flows[name] = program.free(f"next_sum_{name}")
                program.define(flows[name], total + gradient)
        asked = [program.variables[name] for name in flows.values()]
        needed = ancestors(asked, lambda node: False, definitions(program))
        used = {node.name for node in needed if isinstance(node, Variable)}
        known = {k: data for k, (_, data) in free.items() if data in used}
        return cls(program, derived.seeds, sums, flows, known, chain)

    def complete(self, given: dict[str, Array]) -> list[Array]:
        """What the step makes of what it is given; of that, what the pull-back uses, in place."""
        made = self.chain.evaluation([given[name] for name in self.chain.given])
        given.update((data, made[k]) for k, data in self.known.items())
        return made


class AdjointChain:
    """The chain of a chain's multipliers, and of what flows back to its arguments `ks`.

    Attributes
    ----------
    chain : Chain
        Its states are the cotangents of the other's, the sums that flow to constants, and the
        states after the step that use them; its inputs what each step was given, and the
        cotangents of its outputs.
    """

    def __init__(self, of: Chain, ks: Indices) -> None:
        active = of.active(ks)
        step = of.step.compiled().once(AdjointStep.of, of.once, active)
        self.step, self.wanted = step, [step.flows[of.given[k]] for k in ks]
        self.chain = replace(
            of,
            step=step.program,
            states=(*(step.seeds[n] for n in of.after), *step.sums.values(), *step.known.values()),
            inputs=(*of.states, *of.inputs, *(step.seeds[n] for n in of.outputs)),
            after=(
                *(step.flows[n] for n in (*of.states, *step.sums)),
                *(of.states[k] for k in step.known),
            ),
            outputs=tuple(step.flows[n] for n in active if n in of.inputs),
            backwards=not of.backwards,
            execution=replace(
                of.execution.plain,
                moving=tuple(range(len(of.states))),
                of=of.execution.of or of.step.name,
                last=not of.execution.last,
                complete=step.complete,
                original=of.execution.original or of.once,
            ),
        )

    def first(self, cotangents: Sequence[Any], last: Sequence[Any]) -> list[Any]:
        """Its first states, for the cotangents of the other's results and its last states."""
        sums: list[Array] = [self.chain.zeros(name) for name in self.step.sums.values()]
        return [*cotangents[: len(last)], *sums, *(last[k] for k in self.step.known)]

    def gathered(self, results: Sequence[Any]) -> list[Any]:
        """What has come back to each of the arguments `ks`, from its last states and outputs."""
        found = dict(zip(self.chain.results, results, strict=True))
        return [found[name] for name in self.wanted]
