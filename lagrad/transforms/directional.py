"""Products with a function's Jacobian, its transpose and its Hessian."""

from collections.abc import Callable, Sequence
from typing import Any

from lagrad.errors import InvalidFunction, LagradError, LeakedValue, ShapeMismatch
from lagrad.programs.hessian_vector import hessian_vector
from lagrad.transforms.gradient import grad
from lagrad.transforms.source_lines import raise_with_line
from lagrad.transforms.trace import name_of
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.tracing_graph import tracing
from lagrad.transforms.transform import (
    Backend,
    Numbers,
    Symbols,
    backend,
    leaves_by_name,
    plain,
    scalar_output,
)
from lagrad.typing import Function


def pulling(at: Backend, f: Function, primals: Sequence[Any]) -> Callable[[Any], Any]:
    """The function from cotangents of a result to cotangents of the arguments."""
    trace = at.trace

    def pullback(cotangent: Any) -> Any:
        cotangents = leaves_by_name(trace, "cotangent", trace.result, cotangent, "the cotangent")
        outer = tracing()
        if isinstance(at, Symbols) and (outer is None or at.outer.ended):
            raise LeakedValue(
                f"the pull-back of {trace.program.name!r} was made in a traced function that "
                "is over; call it there, or make it outside."
            )
        here = backend(trace, *cotangents.values())
        # One of numbers keeps its solution and its factors.
        try:
            found = (here if isinstance(here, Symbols) else at).pullback(cotangents)
        except LagradError as error:
            raise_with_line(error, f, primals)
        structure = trace.structure(len(trace.arguments) == 1)
        return structure.unflatten([found[name] for name in trace.parameters])

    return pullback


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
    try:
        at = backend(trace)
        return trace.tree.unflatten(at.values()), pulling(at, f, primals)
    except LagradError as error:
        raise_with_line(error, f, primals)


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
    directions: dict[str, Any] = {}
    for k, (argument, tangent) in enumerate(zip(trace.arguments, tangents, strict=True)):
        directions |= leaves_by_name(trace, "tangent", argument, tangent, f"tangent {k}")
    at = backend(trace, *directions.values())
    try:
        moved = at.tangent(directions)
    except LagradError as error:
        raise_with_line(error, f, primals)
    return trace.tree.unflatten(at.values()), trace.tree.unflatten(moved)


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
        (argument,) = trace.arguments
        given = leaves_by_name(trace, "direction", argument, v, "the direction")
        at = Numbers(trace)
        at.require_inside()
        directions = at.fitting("direction", given)
        try:
            found = hessian_vector(at.solution, trace.program.variables[name], directions)
        except LagradError as error:
            raise_with_line(error, f, (x,))
        return argument.tree.unflatten([plain(found[n]) for n in argument.names])
    return jvp(grad(f), (x,), (v,))[1]
