"""Linear solvers behind one protocol: factor a Jacobian once, solve with it and its transpose.

`DenseLU` and `SparseLU` factor a matrix; `GMRES` and `CG` know it by its products alone.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from scipy.linalg import lapack

from lagrad.errors import InvalidValue, NotConverged, SingularSystem

__all__ = ["CG", "GMRES", "DenseLU", "Factors", "LinearSolver", "Singular", "SparseLU", "automatic"]

Array = Any


class Singular(SingularSystem):
    """A factorisation met a zero pivot; the caller knows the names."""


class Factors(ABC):
    """What solves with one matrix and its transpose, for one or many right sides."""

    shape: tuple[int, int]

    @abstractmethod
    def solve(self, right: Array, transposed: bool = False) -> Array:
        """The solution for a right side of shape (n,), or of shape (n, k)."""

    def inverse_norm(self) -> float:
        """An estimate of the 1-norm of the inverse (Higham and Tisseur 2000)."""
        n = self.shape[0]
        if n == 0:
            return 0.0
        operator = sparse_linalg.LinearOperator(
            (n, n),
            matvec=self.solve,
            rmatvec=lambda b: self.solve(b, transposed=True),
            matmat=self.solve,
            rmatmat=lambda b: self.solve(b, transposed=True),
            dtype=float,
        )
        if n <= 4:
            return float(np.abs(self.solve(np.eye(n))).sum(axis=0).max())
        return float(sparse_linalg.onenormest(operator, t=1))


class Transposed(Factors):
    """The factors of a matrix, as those of its transpose."""

    def __init__(self, base: Factors) -> None:
        self.base = base
        self.shape = base.shape

    def solve(self, right: Array, transposed: bool = False) -> Array:
        return self.base.solve(right, not transposed)


class LeastSquares(Factors):
    """The pseudo-inverse of a singular matrix, for those who insist on a result."""

    def __init__(self, matrix: Any) -> None:
        dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
        self.shape = dense.shape
        self.inverse = np.linalg.pinv(np.nan_to_num(dense))

    def solve(self, right: Array, transposed: bool = False) -> Array:
        product: Array = (self.inverse.T if transposed else self.inverse) @ right
        return product


class LinearSolver(ABC):
    """A way to solve with a Jacobian; `matrix_free` ones are given products, not entries."""

    matrix_free = False

    @abstractmethod
    def factor(self, matrix: Any) -> Factors:
        """What solves with `matrix`; `Singular` where it has no inverse."""


@dataclass(frozen=True, slots=True)
class DenseLU(LinearSolver):
    """LU factorisation of the whole matrix, by LAPACK.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.DenseLU().factor(2.0 * np.eye(2)).solve(np.ones(2)).tolist()
    [0.5, 0.5]
    """

    def factor(self, matrix: Any) -> Factors:
        return DenseFactors(matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix))


class DenseFactors(Factors):
    def __init__(self, matrix: Array) -> None:
        self.shape = matrix.shape
        if not np.isfinite(matrix).all():
            raise Singular("not finite")
        self.norm = float(np.abs(matrix).sum(axis=0).max()) if matrix.size else 0.0
        getrf, self.getrs, self.gecon = lapack.get_lapack_funcs(
            ("getrf", "getrs", "gecon"), (matrix,)
        )
        self.lu, self.pivots, info = getrf(matrix)
        if info > 0:
            raise Singular("a zero pivot")

    def solve(self, right: Array, transposed: bool = False) -> Array:
        if right.size == 0:
            return right
        solution, _ = self.getrs(self.lu, self.pivots, right, trans=int(transposed))
        return solution.reshape(right.shape)

    def inverse_norm(self) -> float:
        if not self.norm:
            return 0.0
        reciprocal, _ = self.gecon(self.lu, self.norm)
        return 1.0 / (reciprocal * self.norm) if reciprocal > 0 else math.inf


@dataclass(frozen=True, slots=True)
class SparseLU(LinearSolver):
    """Sparse LU factorisation, by SuperLU.

    Parameters
    ----------
    ordering : str, optional
        SuperLU's `permc_spec`. By default minimum degree on AᵀA's pattern (COLAMD), and on
        Aᵀ + A's where the pattern is symmetric.

    Examples
    --------
    >>> import scipy.sparse as sparse, numpy as np, lagrad as lg
    >>> lg.SparseLU().factor(sparse.eye_array(2, format="csr")).solve(np.ones(2)).tolist()
    [1.0, 1.0]
    """

    ordering: str | None = None

    def factor(self, matrix: Any) -> Factors:
        matrix = sparse.csr_array(matrix)
        n = matrix.shape[0]
        if matrix.nnz == n and np.array_equal(matrix.indices, np.arange(n)):
            return DiagonalFactors(matrix.data)
        return SparseFactors(matrix, self.ordering)


class DiagonalFactors(Factors):
    """Division: no factorisation is needed."""

    def __init__(self, diagonal: Array) -> None:
        self.shape = (diagonal.size, diagonal.size)
        if not np.isfinite(diagonal).all() or not diagonal.all():
            raise Singular("a zero on the diagonal")
        self.diagonal = diagonal

    def solve(self, right: Array, transposed: bool = False) -> Array:
        return right / (self.diagonal if right.ndim == 1 else self.diagonal[:, None])


def symmetries(matrix: sparse.csr_array) -> tuple[bool, bool]:
    """Whether the pattern is symmetric with a full diagonal, and whether the matrix is."""
    matrix.sort_indices()
    other = matrix.tocsc()
    pattern = bool(
        np.array_equal(matrix.indptr, other.indptr)
        and np.array_equal(matrix.indices, other.indices)
        and matrix.diagonal().all()
    )
    return pattern, pattern and np.array_equal(matrix.data, other.data)


class SparseFactors(Factors):
    def __init__(self, matrix: sparse.csr_array, ordering: str | None) -> None:
        self.shape = matrix.shape
        if not np.isfinite(matrix.data).all():
            raise Singular("not finite")
        options: dict[str, Any] = {}
        pattern, self.symmetric = symmetries(matrix)
        if ordering is None and pattern:
            ordering, options = "MMD_AT_PLUS_A", {"SymmetricMode": True}
        # The rows of A are the columns of Aᵀ: SuperLU reads them where they are, and the roles
        # of a solve and a transposed solve change places.
        columns = sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=self.shape)
        try:
            self.lu = sparse_linalg.splu(
                columns,
                permc_spec=ordering or "COLAMD",
                diag_pivot_thresh=0.1 if options else None,
                options=options,
            )
        except RuntimeError as error:
            raise Singular(str(error)) from None

    def solve(self, right: Array, transposed: bool = False) -> Array:
        # SuperLU is quicker by half with the transpose of what it factored.
        mode = "N" if transposed and not self.symmetric else "T"
        solution: Array = self.lu.solve(np.asarray(right, dtype=float), mode)
        return solution


@dataclass(frozen=True, slots=True)
class Krylov(LinearSolver):
    """A solver that needs products with the matrix and its transpose only.

    Parameters
    ----------
    tol : float
        Residual over right side at which a solve ends.
    max_steps : int
        Products with the matrix before `NotConverged` is raised.
    preconditioner : callable, optional
        `preconditioner(vector, transposed)` approximates the inverse's product.
    """

    tol: float = 1e-12
    max_steps: int = 2000
    preconditioner: Callable[[Array, bool], Array] | None = None

    matrix_free = True

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1 or getattr(self, "restart", 1) < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), max_steps and restart ≥ 1.")

    def factor(self, matrix: Any) -> Factors:
        return KrylovFactors(matrix, self)

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Array:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class GMRES(Krylov):
    """Generalised minimal residuals, matrix-free, by SciPy.

    Parameters
    ----------
    tol, max_steps, preconditioner
        Residual over right side at which a solve ends; how many products it may take; and
        `preconditioner(vector, transposed)`, an approximate inverse.
    restart : int
        The dimension of the Krylov space.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.GMRES().factor(2.0 * np.eye(2)).solve(np.ones(2)).round(12).tolist()
    [0.5, 0.5]
    """

    restart: int = 60

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Array:
        restart = min(self.restart, right.size)
        cycles = max(1, self.max_steps // restart)
        solution, _ = sparse_linalg.gmres(
            operator, right, rtol=tol, atol=0.0, restart=restart, maxiter=cycles, M=preconditioner
        )
        return solution


@dataclass(frozen=True, slots=True)
class CG(Krylov):
    """Conjugate gradients, matrix-free, by SciPy, for symmetric definite Jacobians.

    A Jacobian that is not symmetric is refused. One that is negative definite is solved with
    its sign changed.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.CG().factor(2.0 * np.eye(2)).solve(np.ones(2)).tolist()
    [0.5, 0.5]
    """

    def factor(self, matrix: Any) -> Factors:
        factors = KrylovFactors(matrix, self)
        forth, back, scale = probed(factors.operator)
        if abs(forth - back) > 1e-8 * scale:
            raise NotConverged(
                "CG needs a symmetric Jacobian, and this one is not "
                f"(xᵀJy = {forth:.6g}, yᵀJx = {back:.6g}); use GMRES or SparseLU."
            )
        return factors

    def iterate(self, operator: Any, right: Array, preconditioner: Any, tol: float) -> Array:
        solution, _ = sparse_linalg.cg(
            operator, right, rtol=tol, atol=0.0, maxiter=self.max_steps, M=preconditioner
        )
        return solution


@dataclass(frozen=True, slots=True)
class MatrixFree(LinearSolver):
    """CG where products show a symmetric definite Jacobian, and GMRES elsewhere.

    What products cannot show, CG's residual does: GMRES then takes over.
    """

    matrix_free = True

    def factor(self, matrix: Any) -> Factors:
        operator = sparse_linalg.aslinearoperator(matrix)
        forth, back, scale = probed(operator)
        probes = np.random.default_rng(1).standard_normal((4, operator.shape[0]))
        signs = {float(np.sign(probe @ operator.matvec(probe))) for probe in probes}
        if abs(forth - back) <= 1e-8 * scale and len(signs) == 1:
            return KrylovFactors(operator, CG(), otherwise=GMRES())
        return KrylovFactors(operator, GMRES())


def probed(operator: Any) -> tuple[float, float, float]:
    """xᵀJy, yᵀJx and their scale for two vectors without a pattern: equal if J is symmetric."""
    x, y = np.random.default_rng(0).standard_normal((2, operator.shape[0]))
    product = operator.matvec(x)
    scale = float(np.abs(product) @ np.abs(x))
    return float(x @ operator.matvec(y)), float(y @ product), scale


class KrylovFactors(Factors):
    def __init__(self, matrix: Any, solver: Krylov, otherwise: Krylov | None = None) -> None:
        self.operator = sparse_linalg.aslinearoperator(matrix)
        self.shape = self.operator.shape
        self.solver = solver
        self.otherwise = otherwise
        # No residual can be told from rounding of the products below this.
        self.tol = max(solver.tol, 50 * float(np.finfo(self.operator.dtype).eps))

    def _one(self, right: Array, transposed: bool) -> Array:
        scale = float(np.abs(right).max(initial=0.0))
        if scale == 0.0:
            return np.zeros_like(right)
        operator = self.operator.T if transposed else self.operator
        preconditioner = None
        if (given := self.solver.preconditioner) is not None:
            preconditioner = sparse_linalg.LinearOperator(
                self.shape, matvec=lambda v: given(v, transposed), dtype=float
            )
        # Scaled to one, so that a right side of 1e-300 is like any other.
        unit = right / scale
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            solution = self.solver.iterate(operator, unit, preconditioner, self.tol)
            residual = np.linalg.norm(unit - operator.matvec(solution)) / np.linalg.norm(unit)
        if not residual <= 10 * self.tol:
            if self.otherwise is not None:
                self.solver, self.otherwise = self.otherwise, None
                return self._one(right, transposed)
            raise NotConverged(
                f"{type(self.solver).__name__} stopped at a relative residual of {residual:.1e} "
                f"(asked: {self.tol:.1e}) after at most {self.solver.max_steps} steps; "
                "raise max_steps or restart, loosen tol, give a preconditioner, or use SparseLU."
            )
        return solution * scale

    def solve(self, right: Array, transposed: bool = False) -> Array:
        if right.ndim == 1:
            return self._one(right, transposed)
        columns = [self._one(column, transposed) for column in right.T]
        return np.stack(columns, axis=1) if columns else right


DENSE_UP_TO = 64
DENSE_FRACTION = 0.2
DENSE_AT_MOST = 8_000
FACTORABLE_ENTRIES = 60_000_000


def automatic(size: int, entries: int) -> LinearSolver:
    """The solver for a Jacobian of so many rows and at most so many entries.

    Dense LU where the block is small or mostly full, sparse LU where its entries fit in memory,
    and neither where it does not: CG or GMRES, by products alone.
    """
    if size <= DENSE_UP_TO or (entries >= DENSE_FRACTION * size * size and size <= DENSE_AT_MOST):
        return DenseLU()
    if entries <= FACTORABLE_ENTRIES:
        return SparseLU()
    return MatrixFree()


def null_weights(matrix: Any) -> Array | None:
    """Weights of the rows whose combination is smallest, or None where that costs too much."""
    if matrix.shape[0] > 1500:
        return None
    dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.isfinite(dense).all():
        return None
    rows, _, _ = scipy.linalg.svd(dense)
    return np.abs(rows[:, -1])


__all__ += ["LeastSquares", "Transposed", "null_weights", "symmetries"]
