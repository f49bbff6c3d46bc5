"""Linear solvers behind one protocol: factor a Jacobian once, solve with it and its transpose."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from scipy.linalg import lapack

from lagrad.errors import SingularSystem

__all__ = [
    "ESTIMATE",
    "Cholesky",
    "DenseLU",
    "Factors",
    "Indefinite",
    "LeastSquares",
    "LinearSolver",
    "Singular",
    "SparseLU",
    "Transposed",
    "null_weights",
    "symmetries",
]

Array = Any
# The relative residual of solves that estimate the size of an error.
ESTIMATE = 0.1


class Singular(SingularSystem):
    """A factorisation met a zero pivot; the caller knows the names."""


class Factors(ABC):
    """What solves with one matrix and its transpose, for one or many right sides."""

    shape: tuple[int, int]
    # Whether each solve is an iteration of its own, which costs what is asked of it.
    iterative = False
    tol = 0.0

    @abstractmethod
    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        """The solution for a right side of shape (n,), or of shape (n, k).

        Where every solve is an iteration, it may end at this relative residual.
        """

    def inverse_norm(self) -> float:
        """An estimate of the 1-norm of the inverse (Higham and Tisseur 2000)."""
        n = self.shape[0]
        if n == 0:
            return 0.0
        operator = sparse_linalg.LinearOperator(
            (n, n),
            matvec=lambda b: self.solve(b, tol=ESTIMATE),
            rmatvec=lambda b: self.solve(b, transposed=True, tol=ESTIMATE),
            matmat=lambda b: self.solve(b, tol=ESTIMATE),
            rmatmat=lambda b: self.solve(b, transposed=True, tol=ESTIMATE),
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

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        return self.base.solve(right, not transposed, tol)


class LeastSquares(Factors):
    """The pseudo-inverse of a singular matrix, for those who insist on a result."""

    def __init__(self, matrix: Any) -> None:
        dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
        self.shape = dense.shape
        self.inverse = np.linalg.pinv(np.nan_to_num(dense))

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        product: Array = (self.inverse.T if transposed else self.inverse) @ right
        return product


class LinearSolver(ABC):
    """A way to solve with a Jacobian; `matrix_free` ones are given products, not entries."""

    matrix_free = False

    @abstractmethod
    def factor(self, matrix: Any) -> Factors:
        """What solves with `matrix`; `Singular` where it has no inverse."""


def largest_column(matrix: Array) -> float:
    """The 1-norm of a dense matrix."""
    return float(np.abs(matrix).sum(axis=0).max()) if matrix.size else 0.0


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
        self.matrix = matrix
        getrf, self.getrs, self.gecon = lapack.get_lapack_funcs(
            ("getrf", "getrs", "gecon"), (matrix,)
        )
        self.lu, self.pivots, info = getrf(matrix)
        if info > 0:
            raise Singular("a zero pivot")

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        if right.size == 0:
            return right
        solution, _ = self.getrs(self.lu, self.pivots, right, trans=int(transposed))
        return solution.reshape(right.shape)

    def inverse_norm(self) -> float:
        norm = largest_column(self.matrix)
        if not norm:
            return 0.0
        reciprocal, _ = self.gecon(self.lu, norm)
        return 1.0 / (reciprocal * norm) if reciprocal > 0 else math.inf


class Indefinite(Singular):
    """A Cholesky factorisation met a pivot that is not positive."""


@dataclass(frozen=True, slots=True)
class Cholesky(LinearSolver):
    """Cholesky factorisation of a symmetric positive definite matrix, dense or sparse.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.Cholesky().factor(4.0 * np.eye(2)).solve(np.ones(2)).tolist()
    [0.25, 0.25]
    """

    def factor(self, matrix: Any) -> Factors:
        if not sparse.issparse(matrix):
            matrix = np.asarray(matrix)
            middling = THREADED < matrix.shape[0] <= INVERTED
            return InverseFactors(matrix) if middling else CholeskyFactors(matrix)
        factors = SparseFactors(sparse.csr_array(matrix), "MMD_AT_PLUS_A", symmetric=True)
        # Without pivoting L·U is L·D·Lᵀ, and the signs of D are those of the eigenvalues.
        if not (factors.lu.U.diagonal() > 0).all():
            raise Indefinite("a pivot that is not positive")
        return factors


# NumPy and SciPy bring a BLAS each, whose threads wait for each other's on a machine of few cores:
# between products by NumPy a factorisation by SciPy takes ten times as long. Below the first size
# neither uses threads; above the second the inverse itself takes too long.
THREADED, INVERTED = 64, 1024


class InverseFactors(Factors):
    """The inverse of a symmetric positive definite matrix, all of it by NumPy."""

    def __init__(self, matrix: Array) -> None:
        self.shape = matrix.shape
        if not np.isfinite(matrix).all():
            raise Singular("not finite")
        try:
            np.linalg.cholesky(matrix)
            self.inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError as error:
            raise Indefinite(str(error)) from None

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        product: Array = self.inverse @ right
        return product

    def inverse_norm(self) -> float:
        return largest_column(self.inverse)


class CholeskyFactors(Factors):
    def __init__(self, matrix: Array) -> None:
        self.shape = matrix.shape
        if not np.isfinite(matrix).all():
            raise Singular("not finite")
        self.matrix = matrix
        potrf, self.potrs, self.pocon = lapack.get_lapack_funcs(
            ("potrf", "potrs", "pocon"), (matrix,)
        )
        self.lower, info = potrf(matrix, lower=1, clean=0)
        if info > 0:
            raise Indefinite(f"the leading minor {info} is not positive")

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        if right.size == 0:
            return right
        solution, _ = self.potrs(self.lower, right, lower=1)
        return np.reshape(solution, right.shape)

    def inverse_norm(self) -> float:
        norm = largest_column(self.matrix)
        if not norm:
            return 0.0
        reciprocal, _ = self.pocon(self.lower, norm, uplo="L")
        return 1.0 / (reciprocal * norm) if reciprocal > 0 else math.inf


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

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
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
    def __init__(
        self, matrix: sparse.csr_array, ordering: str | None, symmetric: bool = False
    ) -> None:
        self.shape = matrix.shape
        if not np.isfinite(matrix.data).all():
            raise Singular("not finite")
        options: dict[str, Any] = {}
        pattern, self.symmetric = symmetries(matrix)
        if symmetric:
            options = {"SymmetricMode": True}
        if ordering is None and pattern:
            ordering, options = "MMD_AT_PLUS_A", {"SymmetricMode": True}
        # The rows of A are the columns of Aᵀ: SuperLU reads them where they are, and the roles
        # of a solve and a transposed solve change places.
        columns = sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=self.shape)
        known = Ordering.of(columns, ordering or "COLAMD", both=bool(options))
        self.order = known.order  # once: another thread may learn it meanwhile
        try:
            self.lu = sparse_linalg.splu(
                columns if self.order is None else known.applied(columns),
                permc_spec=known.name if self.order is None else "NATURAL",
                diag_pivot_thresh=(0.0 if symmetric else 0.1) if options else None,
                options=options,
            )
        except RuntimeError as error:
            raise Singular(str(error)) from None
        known.learn(self.lu)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        # SuperLU is quicker by half with the transpose of what it factored.
        mode = "N" if transposed and not self.symmetric else "T"
        right = np.asarray(right, dtype=float)
        if self.order is None:
            plain: Array = self.lu.solve(right, mode)
            return plain
        solution = np.empty_like(right)
        solution[self.order] = self.lu.solve(right[self.order], mode)
        return solution


class Ordering:
    """A fill-reducing ordering of a symmetric pattern, found by the first factorisation.

    Later matrices of the pattern are factored in that order, and their numbers only are moved.
    """

    # Those of the last patterns; a pattern is compared entry by entry.
    RECENT: ClassVar[OrderedDict[Any, Ordering]] = OrderedDict()
    AT_MOST = 8

    def __init__(self, name: str, indptr: Array, indices: Array) -> None:
        self.name, self.indptr, self.indices = name, indptr, indices
        self.order: Array | None = None

    @classmethod
    def of(cls, columns: Any, name: str, both: bool) -> Ordering:
        """The ordering for a matrix; a new one, to be learned, for a pattern that is new."""
        if not both:
            return cls(name, columns.indptr, columns.indices)
        key = (name, columns.shape, zlib.crc32(columns.indices), zlib.crc32(columns.indptr))
        found = cls.RECENT.get(key)
        if (
            found is None
            or not np.array_equal(found.indices, columns.indices)
            or not np.array_equal(found.indptr, columns.indptr)
        ):
            found = cls(name, columns.indptr.copy(), columns.indices.copy())
            cls.RECENT[key] = found
            while len(cls.RECENT) > cls.AT_MOST:
                cls.RECENT.popitem(last=False)
        return found

    def learn(self, lu: Any) -> None:
        """Take the ordering over from a factorisation."""
        if self.order is None and self.name == "MMD_AT_PLUS_A":
            self._moved(np.argsort(lu.perm_c))

    def _moved(self, order: Array) -> None:
        """Where the entries of a matrix go when its rows and columns are put in order."""
        positions = sparse.csc_array(
            (np.arange(self.indices.size), self.indices, self.indptr), shape=(order.size,) * 2
        )
        moved = sparse.csc_array(positions[order][:, order])
        moved.sort_indices()
        self.pattern = (moved.indices, moved.indptr)
        self.entries = moved.data
        self.order = order

    def applied(self, columns: Any) -> Any:
        """The matrix in order."""
        return sparse.csc_array((columns.data[self.entries], *self.pattern), shape=columns.shape)


def null_weights(matrix: Any) -> Array | None:
    """Weights of the rows whose combination is smallest, or None where that costs too much."""
    if matrix.shape[0] > 1500:
        return None
    dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.isfinite(dense).all():
        return None
    rows, _, _ = scipy.linalg.svd(dense)
    return np.abs(rows[:, -1])
