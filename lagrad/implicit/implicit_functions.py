"""Fixed points, roots and argmins, inside or outside a traced function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, InvalidValue, NotConverged, SingularSystem
from lagrad.expressions.expression import Expression
from lagrad.implicit.approach import ImplicitApproach
from lagrad.implicit.kinds import ArgMin, FixedPoint, Root, Stationary
from lagrad.implicit.unrolled import Reversible, Unrolled, unrolled
from lagrad.implicit.warm_start import WarmStart
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.krylov import CG, Krylov
from lagrad.linear_solvers.modified import Centered
from lagrad.linear_solvers.neumann import Neumann
from lagrad.transforms.trace import Trace, at_hand, name_of, trace
from lagrad.transforms.trace_checks import require_followed, where_not_finite
from lagrad.transforms.tracing_graph import Guards, Tracing, tracing
from lagrad.trees import flatten
from lagrad.typing import Array, Function

# How often a function may take other branches at its solution than on the way there.
BRANCHES = 50
# How near to the border of a branch a solution has no derivative, relative to its size.
BORDER = 1e-9


def fixed_point(
    step: Function,
    start: Any,
    *args: Any,
    solver: Any = "anderson",
    linear: LinearSolver | None = None,
    preconditioner: Any = None,
    damping: float = 0.0,
    differentiate: str | Neumann | Unrolled | Reversible = "implicit",
    tol: float | None = None,
) -> Any:
    """Return the z with `z = step(z, *args)`.

    Parameters
    ----------
    step : callable
        Written in NumPy; its result has the structure, shapes and dtypes of `z`.
    start : nested arrays or WarmStart
        Where the iteration starts.
    *args
        Passed on; they may be traced, as may all that `step` closes over.
    solver : {"anderson", "picard", "newton"} or Anderson or Picard
    linear : LinearSolver, optional
        The solver of the linear systems of Newton's method and of the derivatives. By default LU
        factorisation of a small one, and of a large one the Neumann series, restricted to what
        a proximal step leaves free.
    preconditioner : optional
        An approximate inverse of the system's matrix, as of `GMRES`, which it chooses.
    damping : float
        Added to the diagonal of the derivatives' system.
    differentiate : "implicit" or Neumann or Unrolled or Reversible
        The solution of the derivatives' system, a truncated series for it, or the derivative of
        so many steps, which are then what is computed.
    tol : float, optional
        The relative error at which the iteration ends; 1e-10 by default. What a looser one does
        to a derivative is in its certificate.

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
    if isinstance(differentiate, (Unrolled, Reversible)):
        return unrolled("fixed_point", step, start, args, differentiate)
    how = FixedPoint.options(solver, linear, preconditioner, damping, differentiate, tol)
    return implicit(FixedPoint, step, start, args, how)


def root(
    residual: Function,
    start: Any,
    *args: Any,
    solver: Any = "newton",
    linear: LinearSolver | None = None,
    preconditioner: Any = None,
    damping: float = 0.0,
    differentiate: str | Neumann | Unrolled | Reversible = "implicit",
    tol: float | None = None,
) -> Any:
    """Return the z with `residual(z, *args) = 0`.

    Parameters
    ----------
    residual : callable
        Written in NumPy; it returns as many numbers as `z` has.
    start : nested arrays or WarmStart
        Where Newton's method starts.
    *args
        Passed on; they may be traced, as may all that `residual` closes over.
    solver : {"newton", "newton-krylov"}
        How the linear systems are solved, unless `linear` says it: factored, or by GMRES.
    linear, preconditioner, damping, differentiate, tol
        As of `fixed_point`.

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
    if isinstance(differentiate, (Unrolled, Reversible)):
        return unrolled("root", residual, start, args, differentiate)
    how = Root.options(solver, linear, preconditioner, damping, differentiate, tol)
    return implicit(Root, residual, start, args, how)


def argmin(
    objective: Function,
    start: Any,
    *args: Any,
    solver: Any = "newton",
    gradient: Function | None = None,
    linear: LinearSolver | None = None,
    products: str = "exact",
    preconditioner: Any = None,
    damping: float = 0.0,
    differentiate: str | Neumann | Unrolled | Reversible = "implicit",
    tol: float | None = None,
) -> Any:
    """Return the z at which `objective(z, *args)` is smallest nearby.

    Parameters
    ----------
    objective : callable
        Written in NumPy; it returns a scalar.
    start : nested arrays or WarmStart
        Where the search starts.
    *args
        Passed on; they may be traced, as may all that `objective` closes over.
    solver : {"newton"} or a method of `scipy.optimize.minimize` or Minimize
        Newton's method goes over to a trust region where the Hessian is not positive definite.
    gradient : callable, optional
        `gradient(z, *args)`, in the place of the objective's derivative. For a black box:
        `lg.primitive(f, jvp="centered")`.
    linear : LinearSolver, optional
        The solver of the Hessian's systems. By default Cholesky factorisation, or conjugate
        gradients with products alone where the Hessian is too large to be written down.
    products : {"exact", "centered"}
        Hessian-vector products, or centred differences of the gradient in their place.
    preconditioner : optional
        An approximate inverse of the Hessian, as of `GMRES`; conjugate gradients take it.
    damping : float
        Added to the Hessian's diagonal wherever it is solved with: for one that is singular.
    differentiate : "implicit" or Neumann or Unrolled or Reversible
        The solution of the derivatives' system, a truncated series for it, or the derivative of
        so many steps, which are then what is computed.
    tol : float, optional
        The relative error at which the iteration ends; 1e-10 by default. What a looser one does
        to a derivative is in its certificate.

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
    if products not in ("exact", "centered"):
        raise InvalidValue(f"products={products!r}; expected 'exact' or 'centered'.")
    if isinstance(differentiate, (Unrolled, Reversible)):
        kind, function = ("argmin", objective) if gradient is None else ("gradient", gradient)
        return unrolled(kind, function, start, args, differentiate)
    how = ArgMin.options(solver, linear, preconditioner, damping, differentiate, tol)
    if products == "centered":
        base = how["linear"] or CG(tol=1e-8, positive=True)
        if not isinstance(base, Krylov):
            raise InvalidValue(f"products='centered' needs CG or MINRES, not linear={base!r}.")
        how["linear"] = Centered(base)
    if gradient is not None:
        if how["method"] is not None:
            raise InvalidValue("argmin(gradient=…) is solved by Newton's method; leave solver out.")
        return implicit(Stationary, gradient, start, args, how)
    return implicit(ArgMin, objective, start, args, how)


def implicit(
    kind: type[ImplicitApproach],
    function: Function,
    start: Any,
    args: Sequence[Any],
    how: Mapping[str, Any],
) -> Any:
    """The solution of an implicit function, as numbers or as unknowns of the outer trace."""
    if not callable(function):
        raise InvalidFunction(f"{kind.kind} takes a function; got {function!r}.")
    warm = start if isinstance(start, WarmStart) else None
    leaves, tree = flatten(start if warm is None else warm.value)
    if not leaves:
        raise InvalidFunction(f"{kind.kind} needs a start with at least one array; got {start!r}.")
    starts = [at_hand(leaf, f"the start of {kind.kind}") for leaf in leaves]
    traced = [leaf if isinstance(leaf, Expression) else None for leaf in leaves]
    outer = tracing()
    for _ in range(BRANCHES):
        inner = trace(function, (tree.unflatten(starts), *args), {}, (0,))
        kind.check(inner, starts, name_of(function))
        approach = kind.of(inner, {**how, "warm": warm})
        begin = [*starts, *(inner.starts.get(name, 0.0) for name in approach.inner)]
        begin = [
            np.broadcast_to(
                np.asarray(b, dtype=approach.program.variables[n].dtype),
                approach.program.variables[n].shape,
            )
            for b, n in zip(begin, (*approach.varied, *approach.inner), strict=True)
        ]
        # Which solution is found may depend on a start alone: that is no number either.
        open_ = bool(inner.captured) or any(node is not None for node in traced)
        if open_ and not inner.guards:
            break
        data = values_at_hand(inner, approach)
        try:
            found = approach.finish(data, begin)
        except ArithmeticError as error:
            if (culprit := where_not_finite(inner)) is not None:
                raise culprit from error
            raise
        require_followed(at_values(inner, approach, found, data), None)
        if not open_ and agrees(inner, approach, found):
            return tree.unflatten([f[()] if f.ndim == 0 else f for f in found[: len(starts)]])
        if agrees(inner, approach, found):
            require_interior(inner, approach, found)
            begin, traced = found, []
            break
        starts = found[: len(starts)]
    else:
        raise NotConverged(
            f"{kind.kind} of {name_of(function)!r}: the branches that it takes at each solution "
            f"are not those on which it was found, {BRANCHES} times over. It has no solution on "
            "any of them, or jumps there; make it continuous."
        )
    assert outer is not None
    arguments = outer_values(inner, approach, outer)
    nodes = [None if node is None else outer.lift(node) for node in traced]
    unknowns = approach.state(outer.system, arguments, begin, nodes)
    values = dict(zip((*approach.varied, *approach.inner), unknowns, strict=True))
    outer.inherit(
        inner.program, inner.guards, values | dict(zip(approach.data, arguments, strict=True))
    )
    return tree.unflatten(list(unknowns[: len(starts)]))


def values_at_hand(inner: Trace, approach: ImplicitApproach) -> list[Array]:
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


def outer_values(inner: Trace, approach: ImplicitApproach, outer: Tracing) -> list[Expression]:
    """An approach's data as values of the outer trace."""
    return [
        outer.lift(inner.captured[name] if name in inner.captured else inner.values[name])
        for name in approach.data
    ]


def at_values(
    inner: Trace, approach: ImplicitApproach, found: Sequence[Array], data: Sequence[Array]
) -> Trace:
    """The trace of an implicit function at its solution, all that it closes over as numbers."""
    names = (*approach.varied, *approach.data)
    values = dict(zip(names, (*found[: len(approach.varied)], *data), strict=True))
    starts = dict(zip(approach.inner, found[len(approach.varied) :], strict=True))
    known = inner.program.variables
    return replace(
        inner,
        values={name: value for name, value in values.items() if name in known},
        starts={name: value for name, value in starts.items() if name in known},
    )


def require_interior(inner: Trace, approach: ImplicitApproach, found: Sequence[Array]) -> None:
    """SingularSystem at a solution where another branch begins: there is no one derivative."""
    for sign in (1.0, -1.0):
        near = [f * (1 + sign * BORDER) + sign * BORDER * (f == 0) for f in found]
        if not agrees(inner, approach, near):
            raise SingularSystem(
                f"the solution of {inner.program.name!r} is where an `if` or `while` on it changes "
                "its branch, so that its derivative is not one. Move it, or make both branches "
                "agree in slope."
            )


def agrees(inner: Trace, approach: ImplicitApproach, found: Sequence[Array]) -> bool:
    """Whether what was asked while tracing has the same answers at the values found."""
    if not inner.guards:
        return True
    names = [*approach.varied, *approach.inner, *approach.data]
    numbers = [*found, *values_at_hand(inner, approach)]
    values = dict(zip(names, numbers, strict=True))
    return Guards(inner.program, inner.guards).hold(values)
