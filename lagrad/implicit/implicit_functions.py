"""Fixed points, roots and argmins, inside or outside a traced function."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import (
    InvalidFunction,
    InvalidValue,
    LagradError,
    NotConverged,
    NotFinite,
    SingularSystem,
)
from lagrad.expressions.expression import Expression
from lagrad.implicit.approach import ImplicitApproach
from lagrad.implicit.root import Root
from lagrad.implicit.root_fixed_point_argmin import ArgMin, FixedPoint, Stationary
from lagrad.implicit.unrolled import Reversible, Unrolled, unrolled
from lagrad.implicit.warm_start import WarmStart
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.neumann import Neumann
from lagrad.solving.certificate import Policy
from lagrad.transforms.trace import Trace, name_of, start_of, trace
from lagrad.transforms.trace_checks import require_followed, where_not_finite
from lagrad.transforms.tracing_graph import Guards, numbers, tracing
from lagrad.trees import Tree
from lagrad.typing import Array, Function

# How often a function may take other branches at its solution than on the way there.
BRANCHES = 50
# How near to the border of a branch a solution has no derivative, relative to its size.
BORDER = 1e-9


def fixed_point(
    step: Function,
    start: Any,
    *args: Any,
    solver: Any = None,
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
    solver : {"anderson", "picard", "newton"} or Anderson or Picard, optional
        By default Anderson's, and where the iteration goes round in circles, as that of a layer
        that contracts no longer, Newton's method, its systems solved by products.
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
        The fixed point is one of many, and what is differentiated depends on which it is. Totals
        that the step keeps, as of a reaction or a Markov chain, are those of the start.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lambda theta: lg.fixed_point(lambda z: np.cos(theta * z), 1.0)
    >>> round(float(f(1.0)), 10), round(float(lg.grad(f)(1.0)), 10)
    (0.7390851332, -0.2974743415)
    """
    how = (solver, linear, preconditioner, damping, tol, "exact")
    return implicit(FixedPoint, step, start, args, differentiate, *how)


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
        Written in NumPy; it returns as many numbers as `z` has, or more: what follows from other
        equations, as a conservation law or the closure of a mechanism does.
    start : nested arrays or WarmStart
        Where Newton's method starts; with more equations, their least squares.
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
    NotConverged
        No root was found, or equations that are more than the unknowns contradict one another.
    ShapeMismatch
        Fewer equations than unknowns.
    SingularSystem
        A multiple root; or one of many, where what is differentiated depends on which it is.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> kepler = lambda M: lg.root(lambda E: E - 0.5 * np.sin(E) - M, 1.0)
    >>> round(float(kepler(1.0)), 10), round(float(lg.grad(kepler)(1.0)), 10)
    (1.4987011335, 1.0373620219)
    """
    how = (solver, linear, preconditioner, damping, tol, "exact")
    return implicit(Root, residual, start, args, differentiate, *how)


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
    how = (solver, linear, preconditioner, damping, tol, products)
    if gradient is not None:
        return implicit(Stationary, gradient, start, args, differentiate, *how)
    return implicit(ArgMin, objective, start, args, differentiate, *how)


def implicit(
    kind: type[ImplicitApproach],
    function: Function,
    start: Any,
    args: Sequence[Any],
    differentiate: str | Neumann | Unrolled | Reversible,
    *options: Any,
) -> Any:
    """The solution of an implicit function, as numbers or as unknowns of the outer trace."""
    warm = start if isinstance(start, WarmStart) else None
    first = start if warm is None else warm.value
    if isinstance(differentiate, (Unrolled, Reversible)):
        return unrolled(kind.kind, function, first, args, differentiate)
    how = kind.options(*options) | {"differentiate": kind.series_of(differentiate), "warm": warm}
    if not callable(function):
        raise InvalidFunction(f"{kind.kind} takes a function; got {function!r}.")
    leaves, tree, starts = start_of(first, kind.kind)
    traced = [leaf if isinstance(leaf, Expression) else None for leaf in leaves]
    outer = tracing()
    for _ in range(BRANCHES):
        stated = function if not kind.like_start else ordered(function, tree)
        inner = trace(stated, (tree.unflatten(starts), *args), {}, (0,))
        kind.check(inner, starts, name_of(function))
        approach = kind.of(inner, how)
        begin = [*starts, *(inner.starts.get(name, 0.0) for name in approach.inner)]
        variables = [approach.program.variables[name] for name in approach.unknowns]
        pairs = zip(begin, variables, strict=True)
        begin = [np.broadcast_to(np.asarray(b, dtype=v.dtype), v.shape) for b, v in pairs]
        known = inner.enclosed
        enclosed = [known[name] for name in approach.data]
        # Which solution is found may depend on a start alone: that is no number either.
        open_ = bool(inner.captured) or any(node is not None for node in traced)
        if open_ and not inner.guards:
            break
        data = [numbers(value) for value in enclosed]
        try:
            found = solution_or_way(approach, inner, data, begin)
        except ArithmeticError as error:
            if (said := where_not_finite(inner)) is not None:
                raise NotFinite(said) from error
            raise
        values = approach.by_name(found, data)
        holds = agrees(inner, values)
        # A float holds at its own value alone, a side of a kink wherever it was chosen.
        if inner.unfollowed and (holds or any(g.kind == "float()" for g in inner.guards)):
            require_followed(at_values(inner, values), None)
        if holds:
            if not open_:
                return tree.unflatten([f[()] if f.ndim == 0 else f for f in found[: len(starts)]])
            for sign in (BORDER, -BORDER):
                near = [f * (1 + sign) + sign * (f == 0) for f in found]
                require_interior(inner, approach.by_name(near, data))
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
    arguments = [outer.lift(value) for value in enclosed]
    nodes = [None if node is None else outer.lift(node) for node in traced]
    unknowns = approach.state(outer.system, arguments, begin, nodes)
    # Whether the solution is inside of its branch is known; where the trace began does not matter.
    guards = [replace(guard, border=False) for guard in inner.guards]
    outer.inherit(inner.program, guards, approach.by_name(unknowns, arguments))
    return tree.unflatten(list(unknowns[: len(starts)]))


def ordered(function: Function, tree: Tree) -> Function:
    """A function whose result has the keys of dicts in the order of its start."""

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        return tree.ordered(function(*args))

    return called


def solution_or_way(
    approach: ImplicitApproach, inner: Trace, data: Sequence[Array], begin: Sequence[Array]
) -> list[Array]:
    """The solution on the branch of the start; where it has none, a place on another branch."""
    try:
        return approach.finish(data, begin)
    except (NotConverged, SingularSystem):
        if not inner.guards:
            raise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reached = approach.finish(data, begin, Policy(np.inf, "warn"))
        except LagradError:
            reached = list(begin)
        finite = all(np.isfinite(value).all() for value in reached)
        if finite and not agrees(inner, approach.by_name(reached, data)):
            return reached
        raise


def at_values(inner: Trace, values: Mapping[str, Array]) -> Trace:
    """The trace of an implicit function at its solution, all that it closes over as numbers."""
    known = [v.name for v in inner.program.variables.values() if v.role in ("parameter", "data")]
    return replace(inner, values={name: values[name] for name in known}, starts=dict(values))


def require_interior(inner: Trace, near: Mapping[str, Array]) -> None:
    """SingularSystem at a solution where another branch begins: there is no one derivative."""
    if not agrees(inner, near):
        raise SingularSystem(
            f"the solution of {inner.program.name!r} is where an `if` or `while` on it changes "
            "its branch, so that its derivative is not one. Move it, or make both branches "
            "agree in slope."
        )


def agrees(inner: Trace, values: Mapping[str, Array]) -> bool:
    """Whether what was asked while tracing has the same answers at these values."""
    return not inner.guards or Guards(inner.program, inner.guards).hold(values)
