"""Linear solvers that know a matrix by its products alone, by SciPy."""

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import InvalidValue, NotConverged, NotPositiveDefinite
from lagrad.linear_solvers.base import Factors, LinearSolver
from lagrad.linear_solvers.jacobian import Products
from lagrad.typing import Array

# A relative residual that refinement can start from.
REFINABLE = 1e-9

# A solution, and whether the method itself says that it has reached what was asked.
Iterated: TypeAlias = tuple[Array, bool]


@dataclass(frozen=True, slots=True)
class Krylov(LinearSolver):
    """A solver that needs products with the matrix and its transpose only.

    Parameters
    ----------
    tol : float
        Residual over right side at which a solve ends.
    max_steps : int
        Products with the matrix before `NotConverged` is raised.
    preconditioner : callable, matrix, operator, "jacobi" or "ilu", optional
        An approximate inverse: `preconditioner(vector, transposed)`, or a matrix or operator,
        which is transposed where the system is; or the inverse of the diagonal, or an incomplete
        LU factorisation, made from the matrix.
    """

    tol: float = 1e-12
    max_steps: int = 2000
    preconditioner: Any = None

    matrix_free = True

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1 or getattr(self, "restart", 1) < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), max_steps and restart ≥ 1.")
        if not usable(self.preconditioner):
            raise InvalidValue(
                f"preconditioner={self.preconditioner!r}; expected 'jacobi', 'ilu', a matrix, an "
                "operator or a function of (vector, transposed)."
            )

    def factor(self, matrix: Any) -> Factors:
        return KrylovFactors(matrix, self)

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Iterated:
        """The solution, and whether the method itself says that it has reached `tol`."""
        raise NotImplementedError


def usable(given: Any) -> bool:
    if given is None or isinstance(given, str):
        return given in (None, "jacobi", "ilu")
    return callable(given) or hasattr(given, "solve") or is_matrix(given)


def is_matrix(given: Any) -> bool:
    kinds = (np.ndarray, sparse_linalg.LinearOperator)
    return bool(sparse.issparse(given)) or isinstance(given, kinds)


@dataclass(frozen=True, slots=True)
class GMRES(Krylov):
    """Generalised minimal residuals, matrix-free, by SciPy.

    Parameters
    ----------
    tol, max_steps, preconditioner
        Residual over right side at which a solve ends; how many products it may take; and an
        approximate inverse: `preconditioner(vector, transposed)`, a matrix or operator, "jacobi"
        or "ilu".
    restart : int
        The dimension of the Krylov space.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.GMRES().factor(2.0 * np.eye(2)).solve(np.ones(2)).round(12).tolist()
    [0.5, 0.5]
    """

    restart: int = 60

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Iterated:
        restart = min(self.restart, right.size)
        cycles = max(1, self.max_steps // restart)
        solution, info = sparse_linalg.gmres(
            operator, right, rtol=tol, atol=0.0, restart=restart, maxiter=cycles, M=preconditioner
        )
        return solution, info == 0


@dataclass(frozen=True, slots=True)
class Symmetric(Krylov):
    """A solver for symmetric matrices, which refuses others."""

    def factor(self, matrix: Any) -> Factors:
        factors = KrylovFactors(matrix, self)
        forth, back, scale = probed(factors.operator)
        if abs(forth - back) > 1e-8 * scale:
            raise NotConverged(
                f"{type(self).__name__} needs a symmetric Jacobian, and this one is not "
                f"(xᵀJy = {forth:.6g}, yᵀJx = {back:.6g}); use GMRES or SparseLU."
            )
        return factors


@dataclass(frozen=True, slots=True)
class CG(Symmetric):
    """Conjugate gradients, matrix-free, by SciPy, for symmetric definite Jacobians.

    A Jacobian that is not symmetric is refused. One that is negative definite is solved with
    its sign changed, unless it must be positive.

    Parameters
    ----------
    tol, max_steps, preconditioner
        As of `GMRES`.
    positive : bool
        Whether a direction without positive curvature is an error.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.CG().factor(2.0 * np.eye(2)).solve(np.ones(2)).tolist()
    [0.5, 0.5]
    """

    positive: bool = False

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Iterated:
        if self.positive:
            operator = curved(operator)
        solution, info = sparse_linalg.cg(
            operator, right, rtol=tol, atol=0.0, maxiter=self.max_steps, M=preconditioner
        )
        return solution, info == 0


def curved(operator: Any) -> Any:
    """The operator, with an error at a search direction that it has no positive curvature along."""

    def product(direction: Array) -> Array:
        found = operator.matvec(direction)
        curvature = float(direction @ found)
        if not curvature > 0.0 and direction.any():
            raise NotPositiveDefinite(
                "the curvature along a search direction is "
                f"{curvature / (direction @ direction):.3e}"
            )
        return found

    return sparse_linalg.LinearOperator(operator.shape, matvec=product, dtype=operator.dtype)


@dataclass(frozen=True, slots=True)
class MINRES(Symmetric):
    """Minimal residuals, matrix-free, by SciPy, for symmetric Jacobians, indefinite ones too.

    Parameters
    ----------
    tol, max_steps, preconditioner
        As of `GMRES`.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.MINRES().factor(np.diag([2.0, -1.0])).solve(np.ones(2)).round(12).tolist()
    [0.5, -1.0]
    """

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Iterated:
        solution = np.zeros_like(right)
        # SciPy stops by an estimate of the backward error, so the residual is asked again.
        for _ in range(4):
            residual = right - operator.matvec(solution)
            size = np.linalg.norm(residual)
            if size <= tol * np.linalg.norm(right):
                break
            step, _ = sparse_linalg.minres(
                operator, residual, rtol=tol / 10, maxiter=self.max_steps, M=preconditioner
            )
            solution = solution + step
        return solution, False


class NotReached(NotConverged):
    """An iteration that ended above the residual that was asked for."""


class ByColumns(Factors):
    """Factors that solve for one right side after the other."""

    @abstractmethod
    def one(self, right: Array, transposed: bool, tol: float) -> Array:
        """The solution for a right side of shape (n,)."""

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        if right.ndim == 1:
            return self.one(right, transposed, tol)
        columns = [self.one(column, transposed, tol) for column in right.T]
        return np.stack(columns, axis=1) if columns else right


class Iterative(ByColumns):
    """Iterations with a matrix's products, each to a relative residual of `tol`."""

    iterative = True

    def __init__(self, matrix: Any, tol: float) -> None:
        self.operator = sparse_linalg.aslinearoperator(matrix)
        self.shape = self.operator.shape
        # No residual can be told from rounding of the products below this.
        self.tol = max(tol, 50 * float(np.finfo(self.operator.dtype).eps))


class KrylovFactors(Iterative):
    def __init__(self, matrix: Any, solver: Krylov) -> None:
        super().__init__(matrix, solver.tol)
        self.solver = solver
        self.preconditioner = preconditioned(solver.preconditioner, matrix)
        if getattr(solver, "positive", False):
            # The search directions are what shows curvature downwards: further ones than an
            # estimate needs.
            self.estimate = 1e-2

    def one(self, right: Array, transposed: bool, tol: float) -> Array:
        scale = float(np.abs(right).max(initial=0.0))
        if scale == 0.0:
            return np.zeros_like(right)
        operator = self.operator.T if transposed else self.operator
        preconditioner = None
        if (given := self.preconditioner) is not None:
            preconditioner = sparse_linalg.LinearOperator(
                self.shape, matvec=lambda v: given(np.ravel(v), transposed), dtype=float
            )
        # Scaled to one, so that a right side of 1e-300 is like any other.
        unit = right / scale
        tol = max(self.tol, tol)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            solution, said = self.solver.iterate(operator, unit, preconditioner, tol)
            if said and tol > self.tol:
                return solution * scale  # of an estimate that is enough
            residual = np.linalg.norm(unit - operator.matvec(solution)) / np.linalg.norm(unit)
        # Where rounding ends an iteration early, refinement shows what that leaves.
        if not residual <= max(10 * self.tol, 2 * tol if tol > self.tol else REFINABLE):
            raise NotReached(
                f"{type(self.solver).__name__} stopped at a relative residual of {residual:.1e} "
                f"(asked: {tol:.1e}) after at most {self.solver.max_steps} steps; "
                "raise max_steps or restart, loosen tol, give a preconditioner, or use SparseLU."
            )
        return solution * scale


class Successive(Factors):
    """Factors by the first of several solvers that reaches what is asked of it.

    A solver that once did not is not asked again.
    """

    iterative = True

    def __init__(self, matrix: Any, first: Krylov, *others: LinearSolver) -> None:
        self.matrix, self.others = matrix, list(others)
        self.current: Factors
        self.current = begin = KrylovFactors(matrix, first)
        self.shape, self.tol, self.estimate = begin.shape, begin.tol, begin.estimate

    @property
    def solver(self) -> Any:
        """The one that is asked now."""
        return getattr(self.current, "solver", self.current)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        while True:
            try:
                return self.current.solve(right, transposed, tol)
            except NotReached:
                if not self.others:
                    raise
                following = self.others.pop(0)
                free = following.matrix_free
                self.current = following.factor(self.matrix if free else self.matrix.assemble())


def preconditioned(given: Any, matrix: Any) -> Callable[[Array, bool], Array] | None:
    """A preconditioner as a function of a vector, and of whether it is to be transposed."""
    if given is None:
        return None
    if isinstance(given, str):
        entries = matrix.assemble() if isinstance(matrix, Products) else matrix
        if given == "jacobi":
            diagonal = np.asarray(entries.diagonal(), dtype=float)
            inverse = 1.0 / np.where(diagonal == 0.0, 1.0, diagonal)
            return lambda vector, transposed: inverse * vector
        given = sparse_linalg.spilu(sparse.csc_array(entries, dtype=float))
    if hasattr(given, "solve"):
        return lambda vector, transposed: given.solve(vector, "T" if transposed else "N")
    if is_matrix(given):
        operator = sparse_linalg.aslinearoperator(given)
        return lambda vector, transposed: (operator.T if transposed else operator).matvec(vector)
    try:
        count = len(inspect.signature(given).parameters)
    except (TypeError, ValueError):
        count = 2
    if count == 1:
        # A function of the vector alone stands for a symmetric operator.
        return lambda vector, transposed: np.asarray(given(vector))
    return lambda vector, transposed: np.asarray(given(vector, transposed))


def probed(operator: Any) -> tuple[float, float, float]:
    """xᵀJy, yᵀJx and their scale for two vectors without a pattern: equal if J is symmetric."""
    x, y = np.random.default_rng(0).standard_normal((2, operator.shape[0]))
    product = operator.matvec(x)
    scale = float(np.abs(product) @ np.abs(x))
    return float(x @ operator.matvec(y)), float(y @ product), scale
