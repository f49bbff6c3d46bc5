"""Products with a function's Jacobian, its transpose and its Hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, LeakedValue, ShapeMismatch
from lagrad.expressions.expression import Expression, Variable
from lagrad.programs.derived_programs import pullback
from lagrad.programs.hessian_vector import hessian_vector
from lagrad.programs.tangent_program import tangent
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.system import fitted
from lagrad.transforms.gradient import (
    grad,
    numeric,
    placed,
    plain,
    require_floats,
    returned,
    scalar_output,
    solved,
)
from lagrad.transforms.trace import Trace, name_of
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.tracing_graph import Tracing, tracing
from lagrad.typing import Array, Function, Shape


class Pullback:
    """The function from cotangents of a result to cotangents of the arguments."""

    def __init__(self, trace: Trace, solution: SolvedSystem | None, outer: Tracing | None) -> None:
        self.trace = trace
        self.solution = solution
        self.outer = outer

    def __call__(self, cotangent: Any) -> Any:
        trace = self.trace
        leaves = trace.tree.leaves_of(cotangent, "the cotangent")
        shapes = [trace.program.variables[name].shape for name in trace.outputs]
        require_shapes("cotangent", trace.outputs, leaves, shapes)
        outer = tracing()
        if self.solution is None or (
            outer is not None and any(isinstance(leaf, Expression) for leaf in leaves)
        ):
            if outer is None or (self.outer is not None and self.outer.ended):
                raise LeakedValue(
                    f"the pull-back of {trace.program.name!r} was made in a traced function that "
                    "is over; call it there, or make it outside."
                )
            derived = pullback(trace.program.compiled(), trace.outputs)
            seeds = {
                derived.seeds[n]: outer.lift(leaf)
                for n, leaf in zip(trace.outputs, leaves, strict=True)
            }
            found = placed(derived.system, trace, seeds, outer)
            values: Mapping[str, Any] = {n: found[g] for n, g in derived.gradients.items()}
            results = [a.tree.unflatten([values[n] for n in a.names]) for a in trace.arguments]
        else:
            values = self.solution.pullback(fitting(trace, "cotangent", trace.outputs, leaves))
            results = [numeric(values, a) for a in trace.arguments]
        return results[0] if len(results) == 1 else tuple(results)


def fitting(
    trace: Trace, what: str, names: Iterable[str], leaves: Iterable[Any]
) -> dict[Variable, Array]:
    """Arrays for variables of a trace, in their dtypes."""
    variables = [trace.program.variables[name] for name in names]
    return {
        v: fitted(f"the {what} of {v.name!r}", leaf, v)
        for v, leaf in zip(variables, leaves, strict=True)
    }


def require_shapes(
    what: str, names: Sequence[str], leaves: Sequence[Any], shapes: Sequence[Shape]
) -> None:
    for name, leaf, shape in zip(names, leaves, shapes, strict=True):
        if np.shape(leaf) != shape:
            raise ShapeMismatch(
                f"the {what} of {name!r} has shape {np.shape(leaf)}; expected {shape}."
            )


def vjp(f: Function, *primals: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the value of a function and its pull-back.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    *primals
        All its arguments.

    Returns
    -------
    value
        `f(*primals)`.
    pullback : callable
        From a cotangent in the structure of the value to one in that of the argument, or to a
        tuple of them for several. All calls share one solution and its factors.

    Raises
    ------
    ShapeMismatch, StructureMismatch
        A cotangent that does not fit.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> value, pullback = lg.vjp(lambda x: x**2, np.array([1.0, 3.0]))
    >>> pullback(np.array([1.0, 10.0])).tolist()
    [2.0, 60.0]
    """
    trace = traced(f, primals, {}, range(len(primals)))
    require_floats(trace)
    outer = tracing()
    if outer is not None and trace.symbolic:
        found = placed(trace.program, trace, {}, outer)
        value = trace.tree.unflatten([found[name] for name in trace.outputs])
        return value, Pullback(trace, None, outer)
    solution = solved(trace, None)
    return returned(trace, solution), Pullback(trace, solution, None)


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return the value of a function and its derivative along a direction.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    primals, tangents : tuples
        Its arguments, and a tangent in the structure of each.

    Returns
    -------
    value, tangent
        `f(*primals)`, and its derivative in the same structure.

    Raises
    ------
    ShapeMismatch, StructureMismatch
        A tangent that does not fit.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> value, tangent = lg.jvp(np.sin, (0.0,), (2.0,))
    >>> float(value), float(tangent)
    (0.0, 2.0)
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise InvalidFunction("jvp(f, primals, tangents) takes a tuple of each: (x,), (t,).")
    if len(primals) != len(tangents):
        raise ShapeMismatch(f"jvp was given {len(primals)} primals and {len(tangents)} tangents.")
    trace = traced(f, primals, {}, range(len(primals)))
    require_floats(trace)
    directions: dict[str, Any] = {}
    for k, (argument, tangent_) in enumerate(zip(trace.arguments, tangents, strict=True)):
        leaves = argument.tree.leaves_of(tangent_, f"tangent {k}")
        shapes = [trace.program.variables[name].shape for name in argument.names]
        require_shapes("tangent", argument.names, leaves, shapes)
        directions.update(zip(argument.names, leaves, strict=True))
    outer = tracing()
    if outer is not None and (
        trace.symbolic or any(isinstance(d, Expression) for d in directions.values())
    ):
        derived = tangent(trace.program.compiled())
        seeds = {derived.seeds[name]: outer.lift(d) for name, d in directions.items()}
        found = placed(derived.system, trace, seeds, outer)
        names = [derived.tangents[name] for name in trace.outputs]
        return (
            trace.tree.unflatten([found[name] for name in trace.outputs]),
            trace.tree.unflatten([found[name] for name in names]),
        )
    solution = solved(trace, None)
    moved = solution.tangent(fitting(trace, "direction", directions, directions.values()))
    return (
        returned(trace, solution),
        trace.tree.unflatten([plain(moved[name]) for name in trace.outputs]),
    )


def hvp(f: Function, x: Any, v: Any) -> Any:
    """Return the Hessian of a scalar function times a direction.

    Parameters
    ----------
    f : callable
        A function in NumPy of one argument, with a scalar result.
    x, v : nested arrays
        The argument, and a direction in its structure.

    Returns
    -------
    nested arrays
        In the structure of `x`. No Hessian is formed.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    if tracing() is None:
        trace = traced(f, (x,), {}, (0,))
        name = scalar_output(trace, name_of(f), "hvp")
        argument = trace.arguments[0]
        leaves = argument.tree.leaves_of(v, "the direction")
        shapes = [trace.program.variables[n].shape for n in argument.names]
        require_shapes("direction", argument.names, leaves, shapes)
        directions = fitting(trace, "direction", argument.names, leaves)
        found = hessian_vector(solved(trace, None), trace.program.variables[name], directions)
        return numeric(found, argument)
    return jvp(grad(f), (x,), (v,))[1]
