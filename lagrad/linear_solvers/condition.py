"""Norms and condition numbers of matrices with the factors at hand."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.linear_solvers.base import Factors
from lagrad.typing import Array


def one_norm(jacobian: Any) -> float:
    """The 1-norm: the largest sum of a column's absolute values."""
    if isinstance(jacobian, sparse_linalg.LinearOperator):
        if jacobian.shape[0] <= 4:
            return float(np.abs(jacobian @ np.eye(jacobian.shape[0])).sum(axis=0).max(initial=0.0))
        return float(sparse_linalg.onenormest(jacobian, t=1))
    return float(abs(jacobian).sum(axis=0).max()) if jacobian.shape[0] else 0.0


def condition_of(jacobian: Any, factors: Factors) -> float:
    """An estimate of the 1-norm condition number."""
    return one_norm(jacobian) * factors.inverse_norm()


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
    found: Array = size * signs(size.size)
    return found


@functools.lru_cache(maxsize=64)
def signs(count: int) -> Array:
    found = np.random.default_rng(0).choice([-1.0, 1.0], size=count)
    found.flags.writeable = False
    return found


def contraction(factors: Factors, jacobian: Any) -> float:
    """How much of a vector is left when the factors undo the true Jacobian's product with it."""
    if factors.iterative:
        return 10 * factors.tol
    probe = signed(np.ones(factors.shape[0]))
    left = factors.solve(jacobian @ probe) - probe
    return float(np.abs(left).max(initial=0.0))
