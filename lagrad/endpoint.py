"""What is known of the point that a nonlinear solve ended at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.blocks import BlockEquations
from lagrad.histories import NewtonStep
from lagrad.linear import Factors, LinearSolver, Transposed

__all__ = ["Scale", "Solved", "one_norm", "scaled_condition", "signed", "uncertainty"]

Array = Any


@dataclass(frozen=True, eq=False)
class Solved:
    """A block at its solution, with the factors of a Jacobian near it."""

    point: Array
    jacobian: Any  # at the solution: an ndarray, a csr_array or a LinearOperator
    factors: Factors  # at the point before the last step
    solver: LinearSolver
    history: tuple[NewtonStep, ...]
    factorisations: int
    residual: float
    condition: float
    error: float  # first-order estimate, relative
    curvature: float  # relative change of the Jacobian across the error
    direction: Array  # the error estimated, as a vector

    def transposed(self) -> Solved:
        """The block whose Jacobian is the transpose of this one's."""
        return replace(self, jacobian=self.jacobian.T, factors=Transposed(self.factors))


class Scale:
    """Lengths of vectors, each unknown measured against its own size."""

    def __init__(self, equations: BlockEquations, start: Array) -> None:
        self.sizes = [v.size for v in equations.unknowns]
        self.starts = np.cumsum([0, *self.sizes[:-1]])
        self.epsilon = float(np.finfo(equations.dtype).eps)
        self.top = self.largest(start)
        self.begun = self.top

    def largest(self, vector: Array) -> Array:
        """The largest entry of each unknown."""
        if len(self.sizes) == 1:
            return np.array([np.abs(vector).max(initial=0.0)], dtype=float)
        if min(self.sizes) == 0:
            pieces = np.split(np.abs(vector), self.starts[1:])
            return np.array([piece.max(initial=0.0) for piece in pieces], dtype=float)
        return np.maximum.reduceat(np.abs(vector), self.starts).astype(float)

    def see(self, point: Array) -> None:
        """Take note of how large the unknowns have been."""
        self.top = np.maximum(self.top, self.largest(point))

    def length(self, vector: Array, against: Array | None = None) -> float:
        """The length of a vector, against the largest values seen unless told otherwise."""
        against = self.top if against is None else against
        largest = self.largest(vector)
        some = largest > 0
        return float((largest[some] / np.maximum(against[some], 1e-300)).max(initial=0.0))


def one_norm(jacobian: Any) -> float:
    """The 1-norm: the largest sum of a column's absolute values."""
    if isinstance(jacobian, sparse_linalg.LinearOperator):
        if jacobian.shape[0] <= 4:
            return float(np.abs(jacobian @ np.eye(jacobian.shape[0])).sum(axis=0).max(initial=0.0))
        return float(sparse_linalg.onenormest(jacobian, t=1))
    return float(abs(jacobian).sum(axis=0).max()) if jacobian.shape[0] else 0.0


class Equilibrated(Factors):
    """The factors of a matrix with its rows and columns scaled."""

    def __init__(self, base: Factors, rows: Array, columns: Array) -> None:
        self.base, self.rows, self.columns = base, rows, columns
        self.shape = base.shape

    def solve(self, right: Array, transposed: bool = False) -> Array:
        inner, outer = (self.columns, self.rows) if transposed else (self.rows, self.columns)
        if right.ndim == 2:
            inner, outer = inner[:, None], outer[:, None]
        return self.base.solve(right / inner, transposed) / outer


def scaled_condition(jacobian: Any, factors: Factors) -> float:
    """The condition number that is left when rows and columns are scaled to largest entries one.

    Bad units make a large condition number, and no system singular.
    """
    if isinstance(jacobian, sparse_linalg.LinearOperator):
        return one_norm(jacobian) * factors.inverse_norm()
    size = abs(jacobian)
    dense = not sparse.issparse(size)
    rows = 1.0 / np.maximum(size.max(axis=1) if dense else size.max(axis=1).toarray(), 1e-300)
    rows = np.ravel(rows)
    size = size * rows[:, None] if dense else sparse.csr_array(size.multiply(rows[:, None]))
    columns = np.ravel(size.max(axis=0) if dense else size.max(axis=0).toarray())
    columns = 1.0 / np.maximum(columns, 1e-300)
    norm = float((size.sum(axis=0) * columns).max())
    return norm * Equilibrated(factors, rows, columns).inverse_norm()


def signed(size: Array) -> Array:
    """A vector of the given sizes, and of signs that follow no pattern."""
    return size * np.random.default_rng(0).choice([-1.0, 1.0], size=size.size)


def uncertainty(
    equations: BlockEquations,
    outer: list[Array],
    factors: Factors,
    scale: Scale,
    point: Array,
    residual: Array,
    terms: Array,
    jacobian: Any,
) -> tuple[Array, float, float]:
    """The error of a point to first order, and what it does to the Jacobian there.

    A residual is known to rounding of its terms only: it may be off by w, and the point then by
    |J⁻¹|w (the bound of LAPACK's gerfs). A step δ = J⁻¹(±w) of changing signs shows the
    curvature: how far r(z + Kδ) − r(z) is from KJδ is what the Jacobian changes by across Kδ. K
    makes the step a millionth, so that it stands out of rounding.
    """
    entries = not isinstance(jacobian, sparse_linalg.LinearOperator)
    size = abs(jacobian) if entries else None
    if size is not None:
        terms = np.maximum(terms, size @ np.abs(point))
    doubt = np.abs(residual) + scale.epsilon * terms
    direction = factors.solve(signed(doubt))
    if not np.isfinite(direction).all():
        return direction, np.inf, np.inf
    against = np.maximum(scale.largest(point), scale.epsilon * scale.begun)
    if size is not None:
        # A value near zero is measured by what matters in its equations.
        squares = size.multiply(size) if sparse.issparse(size) else size * size
        matter = (size.T @ terms) / np.maximum(squares.sum(axis=0), 1e-300)
        against = np.maximum(against, scale.largest(matter))
    else:
        against = np.maximum(against, against.max(initial=0.0))
    if not doubt.any():
        return direction.astype(point.dtype), 0.0, 0.0
    error = forward_error(factors, doubt, np.repeat(np.maximum(against, 1e-300), scale.sizes))
    length = scale.length(direction, against)
    if equations.linear or length == 0.0:
        return direction.astype(point.dtype), error, 0.0
    factor = max(1.0, max(1e-6, 1e3 * scale.epsilon) / length)
    step = factor * direction
    for sign in (1.0, -1.0):
        beyond = equations.residual(outer, (point + sign * step).astype(point.dtype))
        change = (beyond - residual) - jacobian @ (sign * step)
        if np.isfinite(change).all():
            bend = scale.length(factors.solve(change), against) / (factor * length)
            # What rounding alone would have made of it is taken off.
            curvature = max(bend - 10 / factor, 0.0) * error / (factor * length)
            return direction.astype(point.dtype), error, curvature
    return direction.astype(point.dtype), error, np.inf


def forward_error(factors: Factors, doubt: Array, against: Array) -> float:
    """The largest entry of |J⁻¹| doubt over `against`: a norm of J⁻¹ between two scalings."""
    n = doubt.size
    if n <= 64:
        inverse = np.abs(factors.solve(np.eye(n)))
        return float(((inverse @ doubt) / against).max(initial=0.0))

    def forth(x: Array) -> Array:
        return doubt * factors.solve(np.ravel(x) / against, transposed=True)

    def back(x: Array) -> Array:
        return factors.solve(doubt * np.ravel(x)) / against

    operator = sparse_linalg.LinearOperator((n, n), matvec=forth, rmatvec=back, dtype=float)
    return float(sparse_linalg.onenormest(operator, t=1))
