"""A traced function called again with numbers, to see what its trace has missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lagrad.differences import along
from lagrad.errors import TracedValueError
from lagrad.expressions.expression import Expression
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_system import SolvedSystem
from lagrad.transforms.trace import Trace
from lagrad.transforms.tracing_graph import Tracing
from lagrad.trees import flatten
from lagrad.typing import Array

# A derivative that is off by more than this was not followed.
OFF = 1e-6


def require_followed(trace: Trace, solution: SolvedSystem | None) -> None:
    """TracedValueError where `float()` of a traced value took a part of the derivative with it.

    Python's floats carry no derivative. Where they only decide something, nothing is lost; where
    they are computed with, the derivative along a random direction differs from the function's.
    """
    if not trace.asked_floats:
        return
    if solution is None:
        solution = solve_named(trace.program.compiled(), trace.values, trace.starts)
    elif trace.symbolic:
        return  # the function traced around it is followed as a whole
    rng = np.random.default_rng(0)
    values = {name: np.asarray(trace.values[name]) for name in trace.parameters}
    direction = {
        name: rng.standard_normal(v.shape) * (float(np.abs(v).max(initial=0.0)) or 1.0)
        for name, v in values.items()
    }
    with np.errstate(all="ignore"):
        tangent = solution.tangent(
            {trace.program.variables[n]: d.astype(values[n].dtype) for n, d in direction.items()}
        )
    expected = np.concatenate([np.ravel(tangent[name]) for name in trace.outputs])
    known = np.concatenate([np.ravel(solution[name]) for name in trace.outputs])

    def moved(share: Array) -> Array:
        at = {name: v + share * direction[name] for name, v in values.items()}
        return np.concatenate([np.ravel(number(x)) for x in replayed(trace, at)])

    found = expected
    for step in (1e-4, 1e-6):
        try:
            with np.errstate(all="ignore"):
                found = along(moved, np.array(0.0), np.array(1.0), step)
        except (ValueError, ArithmeticError, TypeError) as error:
            raise TracedValueError(
                f"{trace.program.name!r} computes with float() of a traced value, and broke off "
                f"where its derivative was to be compared with differences: {error}. {REMEDY}"
            ) from error
        size = np.abs(expected).max(initial=0.0)
        noise = 100 * float(np.finfo(float).eps) * np.abs(known).max(initial=0.0) / step
        if np.abs(found - expected).max(initial=0.0) <= OFF * size + noise:
            return
    raise TracedValueError(
        f"{trace.program.name!r} computes with float() of a traced value, and a float carries "
        f"no derivative: along a random direction the trace has {expected[0]:.9g}, and the "
        f"function {found[0]:.9g}. {REMEDY}"
    )


REMEDY = (
    "Use NumPy's functions, not math's, leave float() out, or hold the value constant on purpose "
    "by lg.stop_gradient outside of the function."
)


def number(value: Any) -> Array:
    """A leaf of a result, which a function traced around may have a part in."""
    if isinstance(value, Expression) and isinstance(value.graph, Tracing):
        value = value.graph.value(value)
    return np.asarray(value, dtype=float)


def replayed(trace: Trace, values: Mapping[str, Array]) -> list[Any]:
    """The leaves of the function's result at other values of its parameters."""
    args = list(trace.call.args)
    for position, argument in zip(trace.call.positions, trace.arguments, strict=True):
        args[position] = argument.tree.unflatten([values[name][()] for name in argument.names])
    return flatten(trace.call.function(*args, **trace.call.kwargs))[0]
