"""Linear solvers behind one protocol: factor a Jacobian once, solve with it and its transpose."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from scipy.linalg import lapack

from lagrad.errors import ShapeMismatch, SingularSystem, UnsupportedType
from lagrad.public import Public
from lagrad.typing import Array, Function

# The relative residual of solves that estimate the size of an error.
ESTIMATE = 0.1


class Singular(SingularSystem):
    """A factorisation met a zero pivot; the caller knows the names."""


class Factors(Public, ABC):
    """What solves with one matrix and its transpose, for one or many right sides."""

    PUBLIC = ("shape", "solve", "inverse_norm")

    shape: tuple[int, int]
    # Whether each solve is an iteration of its own, which costs what is asked of it.
    iterative = False
    tol = 0.0
    # The relative residual to which a solve shows the size of an error.
    estimate = ESTIMATE

    @abstractmethod
    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        """The solution for a right side of shape (n,), or of shape (n, k).

        Where every solve is an iteration, it may end at this relative residual.
        """

    def inverse_norm(self) -> float:
        """An estimate of the 1-norm of the inverse (Higham and Tisseur 2000)."""
        n = self.shape[0]
        if n <= 4:
            return largest_column(self.solve(np.eye(n)))
        forth = functools.partial(self.solve, tol=ESTIMATE)
        back = functools.partial(forth, transposed=True)
        operator = sparse_linalg.LinearOperator((n, n), forth, back, forth, float, back)
        return float(sparse_linalg.onenormest(operator, t=1))


def square(matrix: Any) -> Any:
    """A matrix of doubles, which has as many rows as columns."""
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeMismatch(
            f"a matrix of shape {matrix.shape} was to be factored; expected (n, n)."
        )
    if matrix.dtype.kind not in "biuf":
        raise UnsupportedType(f"a matrix of {matrix.dtype} was to be factored; expected floats.")
    return matrix if matrix.dtype == float else matrix.astype(float)


def canonical(matrix: Any) -> sparse.csr_array:
    """A square matrix by rows, its entries in order and each once; the caller's stays as it is."""
    found = square(sparse.csr_array(matrix))
    if not found.has_canonical_format:
        found = found.copy()
        found.sum_duplicates()
    require_finite(found.data)
    return found


def require_finite(entries: Array) -> None:
    if not np.isfinite(entries).all():
        raise Singular("not finite")


def dense(matrix: Any) -> Array:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def right_side(right: Array, n: int) -> Array:
    """One right side, or many in columns."""
    right = np.asarray(right, dtype=float)
    if right.ndim not in (1, 2) or right.shape[0] != n:
        raise ShapeMismatch(f"a right side of shape {right.shape} for {n} equations.")
    return right


class Transposed(Factors):
    """The factors of a matrix, as those of its transpose."""

    def __init__(self, base: Factors) -> None:
        self.base = base
        self.shape = base.shape

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        return self.base.solve(right, not transposed, tol)


class Indefinite(Singular):
    """A Cholesky factorisation met a pivot that is not positive."""


class LeastSquares(Factors):
    """The pseudo-inverse of a singular matrix, for those who insist on a result."""

    def __init__(self, matrix: Any) -> None:
        self.shape = matrix.shape
        self.inverse = np.linalg.pinv(np.nan_to_num(dense(matrix)))

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        return (self.inverse.T if transposed else self.inverse) @ right


class LinearSolver(Public, ABC):
    """A way to solve with a Jacobian; `matrix_free` ones are given products, not entries."""

    PUBLIC = ("factor", "matrix_free")
    matrix_free = False

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *getattr(self, "__dataclass_fields__", ())]

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
        return DenseFactors(square(dense(matrix)))


class LapackFactors(Factors):
    """Factors of a whole matrix, by LAPACK's routines for its kind."""

    # They factor, solve, and estimate the condition; SciPy remembers them by a tuple of names.
    ROUTINES: ClassVar[tuple[str, str, str]]
    # Of a right side, and whether the matrix is transposed: the solution, and LAPACK's `info`.
    solution: Function
    # Of the 1-norm: the reciprocal of the condition number, and `info`.
    reciprocal: Function

    def __init__(self, matrix: Array) -> None:
        self.shape = matrix.shape
        require_finite(matrix)
        self.matrix = matrix
        if matrix.size:
            self.factorise(*lapack.get_lapack_funcs(self.ROUTINES, (matrix,)))

    @abstractmethod
    def factorise(self, factor: Function, solve: Function, condition: Function) -> None:
        """Find the factors by the first routine, and give them to the others."""

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        right = right_side(right, self.shape[0])
        if right.size == 0:
            return right
        found, _ = self.solution(right, transposed)
        return found.reshape(right.shape)

    def inverse_norm(self) -> float:
        norm = largest_column(self.matrix)
        if not norm:
            return 0.0
        reciprocal, _ = self.reciprocal(norm)
        return 1.0 / (reciprocal * norm) if reciprocal > 0 else math.inf


class DenseFactors(LapackFactors):
    ROUTINES = ("getrf", "getrs", "gecon")

    def factorise(self, factor: Function, solve: Function, condition: Function) -> None:
        lu, pivots, info = factor(self.matrix)
        if info > 0:
            raise Singular("a zero pivot")
        self.solution = lambda right, transposed: solve(lu, pivots, right, trans=int(transposed))
        self.reciprocal = functools.partial(condition, lu)


def null_weights(matrix: Any) -> Array | None:
    """Weights of the rows whose combination is smallest, or None where that costs too much."""
    if matrix.shape[0] > 1500:
        return None
    full = dense(matrix)
    if not np.isfinite(full).all():
        return None
    rows, _, _ = scipy.linalg.svd(full)
    found: Array = rows[:, -1]
    return found
