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

from lagrad.linear_solvers.base import DenseLU, Factors, LinearSolver, Singular, dense, square
from lagrad.typing import Array

# Singular values, relative to the largest, below which they are zero, and above which none is. On
# the way to a solution those in between count as zero; one there is only nearly singular by them.
ZERO, NONE = 1e-12, 1e-8
# The least angle between what is free and what is kept, from which keeping that fixes it.
APART = 1e-3


@dataclass(frozen=True, slots=True)
class Bordered(LinearSolver):
    """LU factorisation of a whole matrix, with a border where it is singular."""

    strict: bool = False

    def factor(self, matrix: Any) -> "BorderedFactors":
        return BorderedFactors(square(dense(matrix)), self.strict)


class BorderedFactors(Factors):
    """Factors of a matrix with a border.

    Attributes
    ----------
    kept, free : ndarray
        The columns m and n, (n, k), of unit length: none where the matrix has an inverse.
    """

    def __init__(self, matrix: Array, strict: bool) -> None:
        self.shape = matrix.shape
        self.kept, self.free = null_vectors(matrix, strict)
        self.count = self.kept.shape[1]
        least = np.linalg.svd(self.kept.T @ self.free, compute_uv=False).min(initial=1.0)
        fixing = self.kept if least > APART else self.free
        # In the units of the matrix, so that pivots compare like with like.
        size = np.abs(matrix).max(initial=0.0) or 1.0
        border = np.zeros((self.count, self.count))
        self.base = DenseLU().factor(
            np.block([[matrix, size * self.kept], [size * fixing.T, border]])
        )

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        right = np.asarray(right, dtype=float)
        below = np.zeros((self.count, *right.shape[1:]))
        return self.base.solve(np.concatenate([right, below]), transposed)[: self.shape[0]]


def null_vectors(matrix: Array, strict: bool) -> tuple[Array, Array]:
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
    top = values.max(initial=0.0)
    rank = int(np.sum(values > NONE * top))
    if strict and np.any(values[rank:] > ZERO * top):
        raise Singular("nearly so")
    kept, free = left[:, rank:] * rows[:, None], right[rank:].T * columns[:, None]
    return np.linalg.qr(kept)[0], np.linalg.qr(free)[0]


def largest_of(matrix: Array, axis: int) -> Array:
    """The largest absolute entry of each row or column; one of what is zero."""
    found = np.abs(matrix).max(axis=axis, initial=0.0)
    return np.where(found > 0, found, 1.0)
