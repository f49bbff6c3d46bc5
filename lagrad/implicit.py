"""Fixed points, roots and argmins, inside or outside a traced function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.approaches import Anderson, Approach, Minimize, Picard
from lagrad.derive import adjoint
from lagrad.errors import InvalidFunction, NotConverged, ShapeMismatch, UnsupportedType
from lagrad.expression import Expression
from lagrad.guards import Guards
from lagrad.linear import LinearSolver
from lagrad.program import Program
from lagrad.traced import Trace, at_hand, name_of, trace
from lagrad.tracing import Tracing, tracing
from lagrad.trees import flatten

__all__ = ["argmin", "fixed_point", "root"]

Array = Any
SOLVERS: dict[str, Callable[[], Any]] = {"anderson": Anderson, "picard": Picard}
# How often a function may take other branches at its solution than on the way there.
BRANCHES = 50


def fixed_point(
    step: Callable[..., Any],
    start: Any,
    *args: Any,
    solver: Any = "anderson",
    linear: LinearSolver | None = None,
) -> Any:
    """Return the z with `z = step(z, *args)`.

    Parameters
    ----------
    step : callable
        Written in NumPy; its result has the structure, shapes and dtypes of `z`.
    start : nested arrays
        Where the iteration starts.
    *args
        Passed on; they may be traced, as may all that `step` closes over.
    solver : {"anderson", "picard", "newton"} or Anderson or Picard
    linear : LinearSolver, optional
        The solver of the linear systems of Newton's method and of the derivatives.

    Returns
    -------
    nested arrays
        In the structure of `start`; traced where something in `step` is.

    Raises
    ------
    NotContractive
        The iteration does not approach a fixed point.
    ShapeMismatch, StructureMismatch
        `step` returns other shapes than it was given.
    SingularSystem
        The fixed point is not isolated, so that it has no derivative.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lambda theta: lg.fixed_point(lambda z: np.cos(theta * z), 1.0)
    >>> round(float(f(1.0)), 10), round(float(lg.grad(f)(1.0)), 10)
    (0.7390851332, -0.2974743415)
    """
    return implicit("fixed_point", step, start, args, method_of(solver, "fixed_point"), linear)


def root(
    residual: Callable[..., Any],
    start: Any,
    *args: Any,
    solver: Any = "newton",
    linear: LinearSolver | None = None,
) -> Any:
    """Return the z with `residual(z, *args) = 0`.

    Parameters
    ----------
    residual : callable
        Written in NumPy; it returns as many numbers as `z` has.
    start : nested arrays
        Where Newton's method starts.
    *args
        Passed on; they may be traced, as may all that `residual` closes over.
    solver : {"newton"}
    linear : LinearSolver, optional
        The solver of its linear systems; `lg.GMRES()` makes it a Newton–Krylov method.

    Returns
    -------
    nested arrays
        In the structure of `start`; traced where something in `residual` is.

    Raises
    ------
    NotConverged, SingularSystem, ShapeMismatch

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> kepler = lambda M: lg.root(lambda E: E - 0.5 * np.sin(E) - M, 1.0)
    >>> round(float(kepler(1.0)), 10), round(float(lg.grad(kepler)(1.0)), 10)
    (1.4987011335, 1.0373620219)
    """
    return implicit("root", residual, start, args, method_of(solver, "root"), linear)


def argmin(
    objective: Callable[..., Any],
    start: Any,
    *args: Any,
    solver: Any = "newton",
    linear: LinearSolver | None = None,
) -> Any:
    """Return the z at which `objective(z, *args)` is smallest nearby.

    Parameters
    ----------
    objective : callable
        Written in NumPy; it returns a scalar.
    start : nested arrays
        Where the search starts.
    *args
        Passed on; they may be traced, as may all that `objective` closes over.
    solver : {"newton"} or a method of `scipy.optimize.minimize` or Minimize
    linear : LinearSolver, optional
        The solver of the Hessian's linear systems.

    Returns
    -------
    nested arrays
        In the structure of `start`; traced where something in `objective` is. Its derivative
        solves one linear system with the Hessian.

    Raises
    ------
    NotPositiveDefinite
        The point found is no isolated minimum.
    NotConverged, InvalidFunction

    References
    ----------
    Bengio (2000), Gradient-based optimization of hyperparameters,
    doi:10.1162/089976600300015187.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> theta = lambda lam: lg.argmin(lambda z: (z - 3.0) ** 2 + lam * z**2, 0.0)
    >>> float(theta(1.0)), float(lg.grad(theta)(1.0))
    (1.5, -0.75)
    """
    return implicit("argmin", objective, start, args, method_of(solver, "argmin"), linear)


def method_of(solver: Any, kind: str) -> Any:
    """The iteration that a solver's name stands for; None for Newton's method alone."""
    if solver in (None, "newton"):
        return None
    if kind == "argmin" and isinstance(solver, str):
        return Minimize(solver)
    wanted: tuple[type, ...] = {
        "argmin": (Minimize,),
        "fixed_point": (Picard, Anderson),
        "root": (),
    }[kind]
    if kind == "fixed_point" and solver in SOLVERS:
        return SOLVERS[solver]()
    if isinstance(solver, wanted) and wanted:
        return solver
    names = ["'newton'", *(map(repr, SOLVERS) if kind == "fixed_point" else ())]
    raise UnsupportedType(
        f"{kind}(solver={solver!r}); expected {', '.join(names)}"
        + "".join(f" or lg.{w.__name__}(…)" for w in wanted)
        + "."
    )


def implicit(
    kind: str,
    function: Callable[..., Any],
    start: Any,
    args: Sequence[Any],
    method: Any,
    linear: LinearSolver | None,
) -> Any:
    """The solution of an implicit function, as numbers or as unknowns of the outer trace."""
    leaves, tree = flatten(start)
    if not leaves:
        raise InvalidFunction(f"{kind} needs a start with at least one array; got {start!r}.")
    starts = [at_hand(leaf, f"the start of {kind}") for leaf in leaves]
    outer = tracing()
    for _ in range(BRANCHES):
        inner = trace(function, (tree.unflatten(starts), *args), {}, (0,))
        checked(inner, kind, starts, name_of(function))
        approach = stated(inner, kind, method, linear)
        begin = [*starts, *(inner.starts.get(name, 0.0) for name in approach.inner)]
        begin = [
            np.broadcast_to(
                np.asarray(b, dtype=approach.program.variables[n].dtype),
                approach.program.variables[n].shape,
            )
            for b, n in zip(begin, (*approach.varied, *approach.inner), strict=True)
        ]
        if inner.captured and not inner.guards:
            break
        found = approach.finish(values_at_hand(inner, approach), begin)
        if not inner.captured and agrees(inner, approach, found):
            return tree.unflatten([f[()] if f.ndim == 0 else f for f in found[: len(starts)]])
        if agrees(inner, approach, found):
            begin = found
            break
        starts = found[: len(starts)]
    else:
        raise NotConverged(
            f"{kind} of {name_of(function)!r}: the branches that it takes at each solution are not "
            f"those on which it was found, {BRANCHES} times over. It has no solution on any of "
            "them, or jumps there; make it continuous."
        )
    assert outer is not None
    arguments = outer_values(inner, approach, outer)
    unknowns = approach.state(outer.system, arguments, begin)
    values = dict(zip((*approach.varied, *approach.inner), unknowns, strict=True))
    outer.inherit(
        inner.program, inner.guards, values | dict(zip(approach.data, arguments, strict=True))
    )
    return tree.unflatten(list(unknowns[: len(starts)]))


def checked(inner: Trace, kind: str, starts: Sequence[Array], name: str) -> None:
    """An error where a function does not return what its kind must."""
    program = inner.program
    outputs = [program.variables[name] for name in inner.outputs]
    shapes = [v.shape for v in outputs]
    if kind == "argmin":
        if len(outputs) != 1 or outputs[0].size != 1:
            raise InvalidFunction(
                f"the objective {name!r} returned values of shapes {shapes}; expected one scalar: "
                "np.sum or np.mean makes one."
            )
    elif kind == "fixed_point":
        found = inner.arguments[0].tree.difference(inner.tree, f"the result of {name!r}")
        if found:
            raise ShapeMismatch(found + ": a step returns what it was given.")
        for path, start, v in zip(inner.arguments[0].names, starts, outputs, strict=True):
            if v.shape != start.shape or v.dtype != start.dtype:
                raise ShapeMismatch(
                    f"the step {name!r} takes {path!r} of shape {start.shape} and dtype "
                    f"{start.dtype} to shape {v.shape} and dtype {v.dtype}; it must keep both."
                )
    elif sum(v.size for v in outputs) != sum(s.size for s in starts):
        raise ShapeMismatch(
            f"the residual {name!r} has shapes {shapes}, {sum(v.size for v in outputs)} numbers, "
            f"for {sum(s.size for s in starts)} unknowns; expected as many."
        )


def stated(inner: Trace, kind: str, method: Any, linear: LinearSolver | None) -> Approach:
    """The approach of an implicit function, from the trace of what it is given."""
    program, outputs = inner.program, inner.outputs
    if kind == "argmin":
        derived = adjoint(program.compiled(), outputs[0])
        assert isinstance(derived.system, Program)
        program = derived.system
        outputs = (*outputs, *(derived.gradients[name] for name in inner.parameters))
    return Approach(
        kind,
        program,
        tuple(inner.parameters),
        tuple(v.name for v in program.with_role("data")),
        tuple(outputs),
        tuple(v.name for v in program.with_role("unknown")),
        method,
        linear,
    )


def values_at_hand(inner: Trace, approach: Approach) -> list[Array]:
    """The values of an approach's data."""
    found = []
    for name in approach.data:
        if name in inner.captured:
            node = inner.captured[name]
            assert isinstance(node.graph, Tracing)
            found.append(node.graph.value(node))
        else:
            found.append(inner.values[name])
    return found


def outer_values(inner: Trace, approach: Approach, outer: Tracing) -> list[Expression]:
    """An approach's data as values of the outer trace."""
    return [
        outer.lift(inner.captured[name] if name in inner.captured else inner.values[name])
        for name in approach.data
    ]


def agrees(inner: Trace, approach: Approach, found: Sequence[Array]) -> bool:
    """Whether what was asked while tracing has the same answers at the values found."""
    if not inner.guards:
        return True
    names = [*approach.varied, *approach.inner, *approach.data]
    numbers = [*found, *values_at_hand(inner, approach)]
    values = dict(zip(names, numbers, strict=True))
    return Guards(inner.program, inner.guards).hold(values)
