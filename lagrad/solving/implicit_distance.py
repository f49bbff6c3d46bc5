"""Derivatives of iterations beside those of what they approach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import LagradError
from lagrad.expressions.expression import Equation, Expression, Variable
from lagrad.solving.block_equations import largest
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.systems.constraint import definitions
from lagrad.systems.iterate_limit import APPROACHED, Statement, labels
from lagrad.systems.rewriting import Instead, copied, inlined
from lagrad.systems.system import System
from lagrad.typing import Array


def implicit(system: System, values: Mapping[Variable, Array]) -> System | None:
    """The system with the equations that iterations approach the solution of, in their place.

    `values` are those at the solution; iterations start from there. None where an iteration came
    with no equation, or stands within a loop.
    """
    ends = [node for node in system.arena.nodes if node.primitive is APPROACHED]
    within = [node for node in system.arena.nodes if node.primitive is not APPROACHED]
    if any(node.parameters[0].system is None for node in ends) or labels(within):
        return None
    plan = Plan(list(values), ends, definitions(system))
    starts = dict(zip([node.index for node in ends], plan(list(values.values())), strict=True))

    def instead(copy: System) -> Instead:
        stated: dict[Any, list[Variable]] = {}

        def other(old: Expression, node: dict[int, Expression]) -> Expression | None:
            if old.primitive is not APPROACHED:
                return None
            statement, k = old.parameters
            key = (statement, *(a.index for a in old.arguments))
            if key not in stated:
                stated[key] = state(copy, system, statement, old, node)
            unknown = stated[key][k]
            unknown.start = np.array(starts[old.index])
            return unknown

        return other

    found = copied(system, f"{system.name}_solved", instead=instead)
    for k, group in enumerate(found.groups):
        if group.approach.differentiate is not None or group.approach.damping:
            exact = replace(group.approach, differentiate=None, damping=0.0)
            found.groups[k] = replace(group, approach=exact)
    return found


def state(
    copy: System, system: System, statement: Statement, old: Expression, node: dict[int, Expression]
) -> list[Variable]:
    """New unknowns, and the equations that they solve."""
    assert statement.system is not None
    count = len(statement.values)

    def free(stem: str) -> str:
        name = copy.free(stem)
        while name in system.variables or name in system.constraints:
            name = copy.free(f"{name}_")
        return name

    unknowns = [
        copy.unknown(free("approached"), a.shape, 0.0, a.dtype) for a in old.arguments[:count]
    ]
    others = [node[a.index] for a in old.arguments[count:]]
    given = dict(zip((*statement.values, *statement.others), [*unknowns, *others], strict=True))
    found = inlined(statement.system, copy, given, {})
    for name in statement.residuals:
        copy.subject_to(Equation(copy.arena.constant(0.0), found[name]), name=free("stationary"))
    return unknowns


def distance(
    system: System,
    values: Mapping[Variable, Array],
    found: Mapping[Any, Array],
    again: Callable[[Any], Mapping[str, Array]] | None,
    solve: Callable[..., Any],
) -> float | None:
    """How far a derivative is from the implicit one, relative to the latter's largest entry.

    `again` asks another solution for it, which `solve` finds. None where there is no such
    derivative.
    """
    if again is None or system.with_role("data"):
        return None
    given = {v.name: values[v] for v in system.with_role("parameter")}
    start = {v.name: values[v] for v in system.with_role("unknown")}
    try:
        exact = implicit(system, values)
        if exact is None:
            return None
        others = again(solve(CompiledSystem(exact), given, start))
    except LagradError:
        return None
    size = max((largest(others[key.name]) for key in found), default=0.0)
    off = max((largest(value - others[key.name]) for key, value in found.items()), default=0.0)
    return off / size if size else (np.inf if off else 0.0)
