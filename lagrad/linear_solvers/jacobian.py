"""A Jacobian, as far as it is known: its entries, dense or sparse, or its products alone."""

import functools
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.linear_solvers.base import Factors, dense
from lagrad.typing import Array

# How often what is left of a vector is taken as the next, and of how little none is made.
POWERS, FAINT = 4, 1e-6


class Jacobian:
    """A square matrix whose entries are known.

    Parameters
    ----------
    matrix : ndarray or csr_array
    """

    known = True  # whether the entries are

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    @staticmethod
    def of(matrix: Any) -> "Jacobian":
        """A matrix, or an operator, as what it is."""
        operator = isinstance(matrix, sparse_linalg.LinearOperator)
        return Operator(matrix) if operator else Jacobian(matrix)

    @property
    def size(self) -> int:
        return int(self.matrix.shape[0])

    @cached_property
    def transposed(self) -> "Jacobian":
        return type(self)(self.matrix.T)

    def mv(self, x: Array) -> Array:
        return self.matrix @ x

    def absolute_mv(self, x: Array) -> Array:
        """The product of the entries' sizes with a vector; zero of what is not known."""
        return abs(self.matrix) @ x

    def typical(self, sizes: Array) -> Array | None:
        """For each column the size of an unknown that matters in rows of these sizes."""
        size = abs(self.matrix)
        squares = size.multiply(size) if sparse.issparse(size) else size * size
        return np.asarray((size.T @ sizes) / np.maximum(squares.sum(axis=0), 1e-300))

    def felt(self, sizes: Array) -> Array | None:
        """For each column the least size of an unknown that makes up a row of these sizes."""
        size = abs(self.matrix)
        if not sparse.issparse(size):
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(np.where(size > 0, sizes[:, None] / size, np.inf).min(axis=0))
        entries, found = size.tocoo(), np.full(self.size, np.inf)
        some = entries.data > 0
        row, column = entries.row[some], entries.col[some]
        np.minimum.at(found, column, sizes[row] / entries.data[some])
        return found

    def dense(self) -> Array:
        return dense(self.matrix)

    def one_norm(self) -> float:
        """The 1-norm: the largest sum of a column's absolute values."""
        return float(abs(self.matrix).sum(axis=0).max()) if self.size else 0.0

    def shifted(self, damping: float) -> "Jacobian":
        """J + damping·I."""
        sparse_one = sparse.issparse(self.matrix)
        eye = sparse.eye_array(self.size, format="csr") if sparse_one else np.eye(self.size)
        return Jacobian(self.matrix + damping * eye)

    def operator(self) -> Any:
        """The same by its products."""
        return sparse_linalg.aslinearoperator(self.matrix)

    def condition(self, factors: Factors) -> float:
        """An estimate of the 1-norm condition number."""
        return self.one_norm() * factors.inverse_norm()

    def scaled_condition(self, factors: Factors) -> float:
        """The condition number that is left when rows and columns are scaled.

        Bad units make a large condition number, and no system singular.
        """
        size = abs(self.matrix)
        found = np.inf
        for scaling in (to_largest_one, to_sizes_of_one):
            rows, columns = scaling(size)
            scaled = size * rows[:, None] * columns
            norm = float(scaled.sum(axis=0).max())
            found = min(found, norm * Equilibrated(factors, rows, columns).inverse_norm())
            if found < GOOD:
                break
        return found


# A condition number for which no better scaling is looked for.
GOOD = 1e14


def to_largest_one(size: Any) -> tuple[Array, Array]:
    """Factors of rows, then of columns, that make the largest entry of each one."""
    rows = 1.0 / np.maximum(np.ravel(dense(size.max(axis=1))), 1e-300)
    columns = 1.0 / np.maximum(np.ravel(dense((size * rows[:, None]).max(axis=0))), 1e-300)
    return rows, columns


def to_sizes_of_one(size: Any) -> tuple[Array, Array]:
    """Factors of rows and columns with which entries are as near to one as they can be.

    The sum of squares of their logarithms is least (Curtis and Reid, On the Automatic Scaling of
    Matrices for Gaussian Elimination, 1972): what units alone have made is undone.
    """
    entries = sparse.coo_array(size)
    entries.eliminate_zeros()
    count, (n, m) = entries.nnz, entries.shape
    each = np.arange(count)
    places = np.concatenate([entries.coords[0], n + entries.coords[1]])
    ones = np.ones(2 * count)
    which = sparse.csr_array((ones, (np.tile(each, 2), places)), shape=(count, n + m))
    found = sparse_linalg.lsmr(which, -np.log(entries.data), atol=1e-9, btol=1e-9)[0]
    factors = np.exp(np.clip(found, -600, 600))
    return factors[:n], factors[n:]


class Operator(Jacobian):
    """A square matrix that is known by its products."""

    known = False

    def absolute_mv(self, x: Array) -> Array:
        return np.zeros_like(x)

    def typical(self, sizes: Array) -> Array | None:
        return None

    def felt(self, sizes: Array) -> Array | None:
        return None

    def one_norm(self) -> float:
        if self.size <= 4:
            return float(np.abs(self.matrix @ np.eye(self.size)).sum(axis=0).max(initial=0.0))
        return float(sparse_linalg.onenormest(self.matrix, t=1))

    def shifted(self, damping: float) -> Jacobian:
        # A preconditioner made from the entries is that of J itself.
        base = self.matrix
        forward = lambda x: base.matvec(x) + damping * x
        backward = lambda x: base.rmatvec(x) + damping * x
        return Operator(base.replaced(forward, backward, base.dtype))

    def operator(self) -> Any:
        return self.matrix

    def scaled_condition(self, factors: Factors) -> float:
        return self.condition(factors)


class Products(sparse_linalg.LinearOperator):  # type: ignore[misc]
    """A Jacobian by its products; it can be put together, and knows what it is the Jacobian of."""

    def __init__(
        self,
        forward: Callable[[Array], Array],
        backward: Callable[[Array], Array],
        size: int,
        dtype: Any,
        assemble: Callable[[], Any],
        residual: Callable[[Array], Array],
        point: Array,
    ) -> None:
        super().__init__(np.dtype(dtype), (size, size))
        self.forward, self.backward, self.assemble = forward, backward, assemble
        self.residual, self.point = residual, point

    def replaced(
        self, forward: Callable[[Array], Array], backward: Callable[[Array], Array], dtype: Any
    ) -> "Products":
        """The same Jacobian by other products."""
        known = (self.assemble, self.residual, self.point)
        return Products(forward, backward, self.shape[0], dtype, *known)

    def _matvec(self, x: Array) -> Array:
        return self.forward(np.ravel(x))

    def _rmatvec(self, x: Array) -> Array:
        return self.backward(np.ravel(x))


class Equilibrated(Factors):
    """The factors of a matrix with its rows and columns scaled."""

    def __init__(self, base: Factors, rows: Array, columns: Array) -> None:
        self.base, self.rows, self.columns = base, rows, columns
        self.shape = base.shape

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        inner, outer = (self.columns, self.rows) if transposed else (self.rows, self.columns)
        if right.ndim == 2:
            inner, outer = inner[:, None], outer[:, None]
        return self.base.solve(right / inner, transposed, tol) / outer


def signed(size: Array) -> Array:
    """A vector of the given sizes, and of signs that follow no pattern."""
    return size * _signs(size.size)


@functools.lru_cache(maxsize=64)
def _signs(count: int) -> Array:
    found = np.random.default_rng(0).choice([-1.0, 1.0], size=count)
    found.flags.writeable = False
    return found


def contraction(factors: Factors, jacobian: Jacobian) -> float:
    """How much of a vector is left when the factors undo the true Jacobian's product with it.

    Of the vector of which most is left: factors may be far off along one direction alone (a
    common level, say), of which a first vector has next to nothing.
    """
    if factors.iterative:
        return 10 * factors.tol
    probe, most = signed(np.ones(factors.shape[0])), 0.0
    for _ in range(POWERS):
        left = factors.solve(jacobian.mv(probe)) - probe
        size = float(np.abs(left).max(initial=0.0))
        most = max(most, size)
        if not FAINT < size < 1:
            break
        probe = left / size
    return most
