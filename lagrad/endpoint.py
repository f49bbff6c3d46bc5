"""What is known of the point that a nonlinear solve ended at."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.blocks import SMALL, BlockEquations, Local
from lagrad.errors import NotPositiveDefinite
from lagrad.histories import REMEDY, NewtonStep
from lagrad.linear import ESTIMATE, Factors, LeastSquares, LinearSolver, Singular, Transposed
from lagrad.spending import Spent

__all__ = [
    "Measure",
    "Solved",
    "beyond_kinks",
    "condition_of",
    "contraction",
    "errors",
    "one_norm",
    "residual_jumps",
    "scaled_condition",
    "signed",
    "uncertainty",
]

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
    error: float  # first-order estimate, relative
    curvature: float  # relative change of the Jacobian across the error
    direction: Array  # the error estimated, as a vector
    against: Array  # what the error of each unknown is measured by
    top: float  # the largest value on the way
    contraction: float  # what one refinement with the factors leaves of an error
    jump: Array | None = None  # where equations have kinks: how far to look beyond them
    at_kink: bool = False  # whether the equations themselves bend there
    truncated: str = ""  # what stands in the place of the multipliers' equation, if anything
    warm: Any = None  # what remembers multipliers
    spent: Spent = field(default_factory=Spent)  # on the way here

    @cached_property
    def condition(self) -> float:
        """An estimate of the Jacobian's 1-norm condition number."""
        if isinstance(self.factors, LeastSquares):
            return np.inf
        return condition_of(self.jacobian, self.factors)

    @cached_property
    def adjoint(self) -> Any:
        """The transposed Jacobian."""
        return self.jacobian.T

    @cached_property
    def exact(self) -> Factors | None:
        """Factors of the true Jacobian, made where the others are too far off to refine with."""
        if isinstance(self.jacobian, sparse_linalg.LinearOperator):
            return None
        try:
            return self.solver.factor(self.jacobian)
        except Singular:
            return None

    def transposed(self, point: Array, against: Array) -> Solved:
        """The linear block, at its solution, whose Jacobian is the transpose of this one's."""
        return replace(
            self,
            point=point,
            against=against,
            direction=np.zeros_like(point),
            jacobian=self.jacobian.T,
            factors=Transposed(self.factors),
        )


# Unknowns of one number each, up to so many, are measured by Python.
FEW = 16


class Measure:
    """Lengths of vectors, each unknown measured against its own size."""

    def __init__(self, equations: BlockEquations, start: Array) -> None:
        self.sizes = [v.size for v in equations.unknowns]
        self.starts = np.cumsum([0, *self.sizes[:-1]])
        # A few numbers: in Python, since calls of NumPy would cost more than what they do.
        self.numbers = len(self.sizes) <= FEW and set(self.sizes) == {1}
        self.epsilon = float(np.finfo(equations.dtype).eps)
        self.top = self.largest(start)

    def largest(self, vector: Array) -> Array:
        """The largest entry of each unknown."""
        if self.numbers:
            return np.abs(vector).astype(float, copy=False)
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
        if self.numbers:
            tops = against.tolist()
            most = max(tops)
            pairs = zip(vector.tolist(), tops, strict=True)
            lengths = [abs(v) / max(t or most, 1e-300) for v, t in pairs]
            return float(max([0.0, *(length for length in lengths if length > 0)]))
        if len(self.sizes) == 1:
            top = float(np.abs(vector).max(initial=0.0))
            return top / max(float(against[0]), 1e-300) if top else 0.0
        # An unknown that has no size of its own is measured by the others.
        against = np.where(against > 0, against, against.max(initial=0.0))
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


def beyond_kinks(direction: Array, against: Array, scale: Measure) -> Array:
    """The direction of an error, no shorter than a billionth of each unknown.

    Where the Jacobian jumps within that, a derivative is one of several.
    """
    # An unknown that is zero has no size but that of the others, or one.
    largest = float(against.max(initial=0.0))
    sizes = np.where(against > 0, against, largest or 1.0)
    lengths = np.repeat(sizes, scale.sizes) * max(1e-9, 1e3 * scale.epsilon)
    found: Array = direction + np.copysign(lengths, signed(lengths))
    return found


def residual_jumps(
    equations: BlockEquations, here: Local, factors: Factors, jacobian: Any, jump: Array
) -> bool:
    """Whether the equations themselves jump, or bend sharply, within a step to either side."""
    for step in (jump, -jump):
        beyond = equations.residual(here.outer, (here.point + step).astype(here.point.dtype))
        change = beyond - here.residual - jacobian @ step
        moved = factors.solve(change, tol=ESTIMATE)
        if not np.abs(moved).max(initial=0.0) <= 0.1 * np.abs(step).max(initial=0.0) + (
            1e4 * float(np.finfo(here.point.dtype).eps) * np.abs(here.point).max(initial=0.0)
        ):
            return True
    return False


def uncertainty(
    equations: BlockEquations,
    outer: list[Array],
    factors: Factors,
    scale: Measure,
    here: Local,
    jacobian: Any,
) -> tuple[Array, Array, float, float]:
    """The error of a point to first order, and what it does to the Jacobian there.

    A residual is known to rounding of its terms only: it may be off by w, and the point then by
    |J⁻¹|w (the bound of LAPACK's gerfs). A step δ = J⁻¹(±w) of changing signs shows the
    curvature: how far r(z + Kδ) − r(z) is from KJδ is what the Jacobian changes by across Kδ. K
    makes the step a millionth, so that it stands out of rounding.
    """
    point, residual, terms = here.point, here.residual, here.terms
    entries = not isinstance(jacobian, sparse_linalg.LinearOperator)
    size = abs(jacobian) if entries else None
    if size is not None:
        terms = np.maximum(terms, size @ np.abs(point))
    rounding = scale.epsilon * terms
    doubt = np.abs(residual) + rounding
    # Where every solve is an iteration, the residual itself shows what it does.
    seen = residual + signed(rounding) if factors.iterative else signed(doubt)
    try:
        direction = factors.solve(seen, tol=factors.estimate)
        if factors.iterative and not seen.any():
            # In search directions that follow no pattern there is curvature to be seen.
            probe = np.random.default_rng(1).standard_normal(seen.size)
            factors.solve(probe, tol=factors.estimate)
    except NotPositiveDefinite as found:
        label = equations.block.label
        raise NotPositiveDefinite(f"the block {label}: {found}. {REMEDY}") from None
    if not np.isfinite(direction).all():
        return direction, scale.top, np.inf, np.inf
    if not doubt.any():
        return direction.astype(point.dtype), scale.top, 0.0, 0.0
    # What is sixteen digits smaller than it was on the way is zero.
    against = np.maximum(scale.largest(point), scale.epsilon * scale.top)
    lost = against <= 10 * scale.largest(errors(factors, doubt, direction))
    if lost.any():
        # A value that cannot be told from zero is measured by what matters in its equations.
        matter = np.full(point.size, np.abs(point).max(initial=0.0))
        if size is not None:
            squares = size.multiply(size) if sparse.issparse(size) else size * size
            matter = (size.T @ terms) / np.maximum(squares.sum(axis=0), 1e-300)
        against = np.where(lost, np.maximum(against, scale.largest(matter)), against)
    # Twice: the norm is an estimate, and the terms are what they are after rounding.
    sizes = np.repeat(np.maximum(against, 1e-300), scale.sizes)
    if factors.iterative:
        error = 4 * float((np.abs(direction) / sizes).max(initial=0.0))
    else:
        error = 2 * forward_error(factors, doubt, sizes)
    length = scale.length(direction, against)
    if length > 0:
        # One direction shows less than the worst: it is taken as long as that.
        direction, length = direction * (error / length), error
    if equations.linear or length == 0.0:
        return direction.astype(point.dtype), against, error, 0.0
    factor = max(1.0, max(1e-6, 1e3 * scale.epsilon) / length)
    step = factor * direction
    for sign in (1.0, -1.0):
        beyond = equations.residual(outer, (point + sign * step).astype(point.dtype))
        change = (beyond - residual) - jacobian @ (sign * step)
        if np.isfinite(change).all():
            bend = scale.length(factors.solve(change, tol=ESTIMATE), against) / (factor * length)
            # What rounding alone would have made of it is taken off.
            curvature = max(bend - 10 / factor, 0.0) / factor
            return direction.astype(point.dtype), against, error, curvature
    return direction.astype(point.dtype), against, error, np.inf


def contraction(factors: Factors, jacobian: Any) -> float:
    """How much of a vector is left when the factors undo the true Jacobian's product with it."""
    if factors.iterative:
        return 10 * factors.tol
    probe = signed(np.ones(factors.shape[0]))
    left = factors.solve(jacobian @ probe) - probe
    return float(np.abs(left).max(initial=0.0))


def errors(factors: Factors, doubt: Array, sample: Array) -> Array:
    """|J⁻¹| doubt, entry by entry: exact for small systems, from one sample for large ones."""
    if doubt.size <= SMALL:
        found: Array = np.abs(factors.solve(np.eye(doubt.size))) @ doubt
        return found
    # No entry of a sample is trusted to be small by chance.
    return np.maximum(np.abs(sample), np.median(np.abs(sample)))


def forward_error(factors: Factors, doubt: Array, against: Array) -> float:
    """The largest entry of |J⁻¹| doubt over `against`: a norm of J⁻¹ between two scalings."""
    n = doubt.size
    if n <= SMALL:
        return float((errors(factors, doubt, doubt) / against).max(initial=0.0))

    def forth(x: Array) -> Array:
        return doubt * factors.solve(np.ravel(x) / against, transposed=True)

    def back(x: Array) -> Array:
        return factors.solve(doubt * np.ravel(x)) / against

    operator = sparse_linalg.LinearOperator((n, n), matvec=forth, rmatvec=back, dtype=float)
    return float(sparse_linalg.onenormest(operator, t=1))
