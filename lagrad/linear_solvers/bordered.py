"""Matrices that are singular because something is free: bordered by what is.

An energy does not change with a shift of everything, a flow keeps a total: J n = 0 and mᵀJ = 0
along some n and m. Where the right side is consistent, mᵀb = 0, there is one solution of J x = b
with mᵀx = 0, which

    [ J   m ] [x]   [b]
    [ mᵀ  0 ] [ν] = [0]

has, a matrix with an inverse (Keller, The Bordering Algorithm and Path Following Near Singular
Points of Higher Nullity, 1983). Steps that it gives keep the totals mᵀx of the start. Where m and
n are at right angles, as in a Jordan block, nᵀ takes the place of mᵀ in the last row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.linear_solvers.base import (
    DenseLU,
    Factors,
    LinearSolver,
    Singular,
    canonical,
    dense,
    square,
)
from lagrad.linear_solvers.sparse_lu import SparseLU
from lagrad.typing import Array

# Singular values, relative to the largest, below which they are zero, and above which none is. On
# the way to a solution those in between count as zero; one there is only nearly singular by them.
ZERO, NONE = 1e-12, 1e-8
# Rows of a matrix that is taken as a whole; of larger ones, directions that are found at the most,
# and the shift by which they are.
WHOLE, AT_MOST, SHIFT = 500, 7, 1e-9
# The least angle between what is free and what is kept, from which keeping that fixes it.
APART = 1e-3


@dataclass(frozen=True, slots=True)
class Bordered(LinearSolver):
    """LU factorisation, with a border where a matrix is singular.

    Attributes
    ----------
    strict : bool
        Whether what is neither singular nor regular is refused.
    epsilon : float
        The spacing of the numbers that the matrix is computed in.
    """

    strict: bool = False
    epsilon: float = float(np.finfo(float).eps)

    def factor(self, matrix: Any) -> "BorderedFactors":
        small = matrix.shape[0] <= WHOLE
        matrix = square(dense(matrix)) if small else canonical(matrix)
        return BorderedFactors(matrix, self.strict, self.epsilon)


class BorderedFactors(Factors):
    """Factors of a matrix with a border.

    Attributes
    ----------
    kept, free : ndarray
        The columns m and n, (n, k), of unit length: none where the matrix has an inverse.
    """

    def __init__(self, matrix: Any, strict: bool, epsilon: float) -> None:
        self.shape = matrix.shape
        whole = isinstance(matrix, np.ndarray)
        vectors = null_vectors if whole else sparse_null_vectors
        self.kept, self.free = vectors(matrix, strict, epsilon)
        self.count = self.kept.shape[1]
        least = np.linalg.svd(self.kept.T @ self.free, compute_uv=False).min(initial=1.0)
        fixing = self.kept if least > APART else self.free
        # In the units of the matrix, so that pivots compare like with like.
        size = float(abs(matrix).max()) or 1.0
        right, below = size * self.kept, size * fixing.T
        if whole:
            border = np.zeros((self.count, self.count))
            self.base = DenseLU().factor(np.block([[matrix, right], [below, border]]))
        elif self.count:
            parts = [[matrix, sparse.csr_array(right)], [sparse.csr_array(below), None]]
            self.base = SparseLU().factor(sparse.block_array(parts, format="csr"))
        else:
            self.base = SparseLU().factor(matrix)
        if self.count:
            # Jᵀ m + f β = 0 with a border f, and β next to zero: as exact as J is in its own units.
            unit = np.concatenate([np.zeros((matrix.shape[0], self.count)), np.eye(self.count)])
            better = [self.base.solve(unit, side)[: matrix.shape[0]] for side in (True, False)]
            if all(np.isfinite(vectors).all() for vectors in better):
                self.kept, self.free = (np.linalg.qr(vectors)[0] for vectors in better)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        right = np.asarray(right, dtype=float)
        below = np.zeros((self.count, *right.shape[1:]))
        return self.base.solve(np.concatenate([right, below]), transposed)[: self.shape[0]]


def limits(columns: Array, epsilon: float) -> tuple[float, float]:
    """Below which singular values are zero, and above which none is, relative to the largest.

    An entry is known to rounding of its row's largest, which is one, before columns are scaled: of
    1 − p with p next to one all may be rounding.
    """
    none = max(NONE, 1e3 * epsilon)
    return min(none, max(ZERO, 8 * epsilon * float(columns.max(initial=1.0)))), none


def null_vectors(matrix: Array, strict: bool, epsilon: float) -> tuple[Array, Array]:
    """Orthonormal m with mᵀJ = 0 and n with J n = 0, in columns; `Singular` where that is unclear.

    The rank is that of the matrix with rows and columns scaled to a largest entry of one: bad
    units make no system singular.
    """
    if not np.isfinite(matrix).all():
        raise Singular("not finite")
    rows = 1 / largest_of(matrix, 1)
    columns = 1 / largest_of(rows[:, None] * matrix, 0)
    try:
        left, values, right = np.linalg.svd(rows[:, None] * matrix * columns)
    except np.linalg.LinAlgError:
        raise Singular("no singular values") from None
    top, (zero, none) = values.max(initial=0.0), limits(columns, epsilon)
    rank = int(np.sum(values > none * top))
    if strict and np.any(values[rank:] > zero * top):
        raise Singular("nearly so")
    kept, free = left[:, rank:] * rows[:, None], right[rank:].T * columns[:, None]
    return np.linalg.qr(kept)[0], np.linalg.qr(free)[0]


def sparse_null_vectors(matrix: Any, strict: bool, epsilon: float) -> tuple[Array, Array]:
    """The same of a sparse matrix, up to a few, by inverse iteration.

    With M m = 0 = Mᵀn and D at random, (M + σD)⁻¹ = n (mᵀDn)⁻¹ mᵀ/σ + O(1): what it makes of any
    vectors is along n but for σ over the least singular value that is not zero.
    """
    size = abs(matrix)
    rows = 1 / filled(np.ravel(dense(size.max(axis=1))))
    size = sparse.csr_array(size.multiply(rows[:, None]))
    columns = 1 / filled(np.ravel(dense(size.max(axis=0))))
    scaled = sparse.csr_array(matrix.multiply(rows[:, None]).multiply(columns))
    rng = np.random.default_rng(0)
    shift = SHIFT * rng.uniform(1.0, 2.0, scaled.shape[0])
    solver = SparseLU().factor(sparse.csr_array(scaled + sparse.diags_array(shift)))
    start = rng.standard_normal((scaled.shape[0], AT_MOST + 1))
    top, (zero, none) = sparse_linalg.norm(scaled, 1), limits(columns, epsilon)

    def along(transposed: bool) -> Array:
        """An orthonormal basis of what the matrix, or its transpose, makes zero."""
        vectors = start
        for _ in range(3):
            vectors = np.linalg.qr(solver.solve(shift[:, None] * vectors, transposed))[0]
        image = (scaled.T if transposed else scaled) @ vectors
        _, values, turned = np.linalg.svd(image, full_matrices=False)
        null = values <= none * top
        if null.all() or (strict and np.any(values[null] > zero * top)):
            raise Singular("nearly so")
        return vectors @ turned[null].T

    kept, free = along(True), along(False)
    if kept.shape != free.shape:
        raise Singular("nearly so")
    return np.linalg.qr(kept * rows[:, None])[0], np.linalg.qr(free * columns[:, None])[0]


def filled(sizes: Array) -> Array:
    """Sizes, and one in the place of zero."""
    return np.where(sizes > 0, sizes, 1.0)


def largest_of(matrix: Array, axis: int) -> Array:
    """The largest absolute entry of each row or column; one of what is zero."""
    return filled(np.abs(matrix).max(axis=axis, initial=0.0))
