"""Cholesky factorisation, of dense and of sparse matrices."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import NotConverged
from lagrad.linear_solvers.base import (
    Factors,
    Indefinite,
    LapackFactors,
    LinearSolver,
    canonical,
    largest_column,
    require_finite,
    right_side,
    square,
)
from lagrad.linear_solvers.sparse_lu import Layout, SparseFactors
from lagrad.typing import Array, Function

# How far the two triangles of a Hessian may be apart, relative to its largest entry.
SYMMETRIC = 1e-8


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
            matrix = square(np.asarray(matrix))
            unlike = np.abs(matrix - matrix.T).max(initial=0.0)
            if unlike > UNLIKE * np.abs(matrix).max(initial=0.0):  # one half of it would be taken
                raise NotConverged(
                    "Cholesky needs a symmetric Jacobian, and this one is not: entries that mirror "
                    f"each other differ by {unlike:.3g}; use DenseLU or SparseLU."
                )
            middling = THREADED < matrix.shape[0] <= INVERTED
            return InverseFactors(matrix) if middling else CholeskyFactors(matrix)
        matrix = canonical(matrix)
        if not matrix.shape[0]:
            return CholeskyFactors(matrix.toarray())
        layout = Layout.of(matrix)
        if layout.mirror is None:
            raise Indefinite("the pattern is not symmetric, or a diagonal entry is missing")
        unlike = np.abs(matrix.data - matrix.data[layout.mirror]).max(initial=0.0)
        if unlike > SYMMETRIC * np.abs(matrix.data).max(initial=0.0):
            raise Indefinite("the matrix is not symmetric")
        factors = SparseFactors(layout, matrix.data, "MMD_AT_PLUS_A", symmetric=True)
        # Without pivoting L·U is L·D·Lᵀ, and the signs of D are those of the eigenvalues. Where a
        # pivot is zero SuperLU exchanges rows all the same.
        straight = np.array_equal(factors.lu.perm_r, factors.lu.perm_c)
        if not straight or not (factors.lu.U.diagonal() > 0).all():
            raise Indefinite("a pivot that is not positive")
        return factors


# NumPy and SciPy bring a BLAS each, whose threads wait for each other's on a machine of few cores:
# between products by NumPy a factorisation by SciPy takes ten times as long. Below the first size
# neither uses threads; above the second the inverse itself takes too long.
THREADED, INVERTED = 64, 1024
# Of the largest entry: how far two that mirror each other may be apart.
UNLIKE = 1e-6


class InverseFactors(Factors):
    """The inverse of a symmetric positive definite matrix, all of it by NumPy."""

    def __init__(self, matrix: Array) -> None:
        self.shape = matrix.shape
        require_finite(matrix)
        try:
            np.linalg.cholesky(matrix)
            self.inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError as error:
            raise Indefinite(str(error)) from None

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        return self.inverse @ right_side(right, self.shape[0])

    def inverse_norm(self) -> float:
        return largest_column(self.inverse)


class CholeskyFactors(LapackFactors):
    ROUTINES = ("potrf", "potrs", "pocon")

    def factorise(self, factor: Function, solve: Function, condition: Function) -> None:
        lower, info = factor(self.matrix, lower=1, clean=0)
        if info > 0:
            raise Indefinite(f"the leading minor {info} is not positive")
        self.solution = lambda right, transposed: solve(lower, right, lower=1)
        self.reciprocal = functools.partial(condition, lower, uplo="L")
