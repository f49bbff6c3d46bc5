"""Derivatives of what is defined, once more in a wider precision: what rounding has made of them.

There is nothing to solve, and the same sweeps run over partials in the machine's long doubles.
"""

import weakref

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.solved_point import RoundedPoint, SolvedPoint
from lagrad.solving.wider_precision import SMALL, WideNodes
from lagrad.systems.constraint import definitions
from lagrad.typing import Array

# Operations of a program, its partials among them, that are too many.
TOO_MANY = 5 * SMALL


def wider_data(of: "weakref.ref[CompiledSystem]") -> WideNodes:
    """A tape's data from what is given, in a wider precision."""
    compiled = of()
    assert compiled is not None
    usual = np.result_type(*[v.dtype for v in compiled.given], np.float32)
    with compiled.system.arena.reopened():
        return WideNodes(compiled.given, compiled.tape.data, definitions(compiled.system), usual)


def plan_of(compiled: CompiledSystem) -> WideNodes:
    # It is kept by the system, which would hold itself in a circle.
    return compiled.once(wider_data, weakref.ref(compiled))


def is_small(compiled: CompiledSystem, limit: int = SMALL) -> bool:
    """Whether a program has few numbers, and all of them a wider precision."""
    if compiled.operations > TOO_MANY:
        return False  # to write them down again would take longer than to derive them
    plan = plan_of(compiled)
    return plan.dtype is not None and plan.size <= limit


def given(point: SolvedPoint) -> list[Array]:
    return [point.values[v] for v in point.compiled.given]


def wider(point: SolvedPoint) -> SolvedPoint | None:
    """A point with local partials in a wider precision, where there is one."""
    data = plan_of(point.compiled)(given(point))
    if data is None:
        return None
    return RoundedPoint(point.compiled, point.values, point.solved, data=data)


def first_off(point: SolvedPoint, share: float) -> Expression | None:
    """The first operation of which rounding has taken more than a share."""
    return plan_of(point.compiled).first_off(given(point), share)
