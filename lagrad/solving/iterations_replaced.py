"""A system with the equations that its iterations approach the solution of, in their place."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Equation, Expression, Variable
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
