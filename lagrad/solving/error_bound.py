"""How far a point may be from the solution, to first order, and what that does to the Jacobian.

A residual is known to rounding of its terms only: it may be off by w, and the point then by
|J⁻¹|w (the bound of LAPACK's gerfs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import NotPositiveDefinite
from lagrad.linear_solvers.base import ESTIMATE, Factors
from lagrad.linear_solvers.jacobian import Jacobian, signed
from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.solving.failures import REMEDY
from lagrad.solving.relative_length import Measure
from lagrad.systems.reduced_block import SMALL
from lagrad.typing import Array


@dataclass(frozen=True)
class ErrorBound:
    """What is known of a point's distance from the solution.

    Attributes
    ----------
    direction : ndarray
        The error estimated, as a vector.
    sizes : ndarray
        What the error of each unknown is measured by.
    error : float
        First-order estimate, relative.
    curvature : float
        Relative change of the Jacobian across the error.
    """

    direction: Array
    sizes: Array
    error: float
    curvature: float


def error_bound(
    equations: BlockEquations,
    here: LocalEquations,
    factors: Factors,
    scale: Measure,
    jacobian: Jacobian,
) -> ErrorBound:
    """The bound for a point, with factors of the Jacobian there or nearby."""
    kind = here.point.dtype
    terms = np.maximum(here.terms, jacobian.absolute_mv(np.abs(here.point)))
    rounding = scale.epsilon * terms
    doubt = np.abs(here.residual) + rounding
    # Where every solve is an iteration, the residual itself shows what it does.
    seen = here.residual + signed(rounding) if factors.iterative else signed(doubt)
    direction = _response(equations, factors, seen)
    if not np.isfinite(direction).all():
        return ErrorBound(direction, scale.top, np.inf, np.inf)
    if not doubt.any():
        return ErrorBound(direction.astype(kind), scale.top, 0.0, 0.0)
    sizes = _sizes(here, factors, scale, jacobian, doubt, direction, terms)
    error = _relative_error(factors, scale, doubt, direction, sizes)
    length = scale.length(direction, sizes)
    curvature = 0.0
    if length > 0:
        # One direction shows less than the worst: it is taken as long as that.
        direction = direction * (error / length)
        if not equations.linear and error > 0:
            curvature = _curvature(equations, here, factors, scale, jacobian, direction, sizes)
    return ErrorBound(direction.astype(kind), sizes, error, curvature)


def _response(equations: BlockEquations, factors: Factors, doubt: Array) -> Array:
    """J⁻¹ of what the residual may be off by."""
    try:
        direction = factors.solve(doubt, tol=factors.estimate)
        if factors.iterative and not doubt.any():
            # In search directions that follow no pattern there is curvature to be seen.
            probe = np.random.default_rng(1).standard_normal(doubt.size)
            factors.solve(probe, tol=factors.estimate)
    except NotPositiveDefinite as found:
        label = equations.block.label
        raise NotPositiveDefinite(f"the block {label}: {found}. {REMEDY}") from None
    return direction


def _sizes(
    here: LocalEquations,
    factors: Factors,
    scale: Measure,
    jacobian: Jacobian,
    doubt: Array,
    direction: Array,
    terms: Array,
) -> Array:
    """What the error of each unknown is measured by: its own size, if it has one."""
    # What is sixteen digits smaller than it was on the way is zero.
    sizes = np.maximum(scale.largest(here.point), scale.epsilon * scale.top)
    lost = sizes <= 10 * scale.largest(errors(factors, doubt, direction))
    if lost.any():
        # A value that cannot be told from zero is measured by what matters in its equations.
        matter = jacobian.typical(terms)
        if matter is None:
            matter = np.full(here.point.size, np.abs(here.point).max(initial=0.0))
        sizes = np.where(lost, np.maximum(sizes, scale.largest(matter)), sizes)
    return sizes


def _relative_error(
    factors: Factors, scale: Measure, doubt: Array, direction: Array, sizes: Array
) -> float:
    """The largest entry of |J⁻¹| doubt, each unknown against its size."""
    # Twice: the norm is an estimate, and the terms are what they are after rounding.
    against = np.repeat(np.maximum(sizes, 1e-300), scale.sizes)
    if factors.iterative:
        return 4 * float((np.abs(direction) / against).max(initial=0.0))
    return 2 * forward_error(factors, doubt, against)


def _curvature(
    equations: BlockEquations,
    here: LocalEquations,
    factors: Factors,
    scale: Measure,
    jacobian: Jacobian,
    direction: Array,
    sizes: Array,
) -> float:
    """How much of itself the Jacobian changes by across the error δ.

    How far r(z + Kδ) − r(z) is from KJδ is what it changes by across Kδ; K makes the step a
    millionth, so that it stands out of rounding.
    """
    length = scale.length(direction, sizes)
    factor = max(1.0, max(1e-6, 1e3 * scale.epsilon) / length)
    for step in (factor * direction, -factor * direction):
        beyond = equations.residual(here.outer, (here.point + step).astype(here.point.dtype))
        change = (beyond - here.residual) - jacobian.mv(step)
        if np.isfinite(change).all():
            bend = scale.length(factors.solve(change, tol=ESTIMATE), sizes) / (factor * length)
            # What rounding alone would have made of it is taken off.
            return max(bend - 10 / factor, 0.0) / factor
    return np.inf


def errors(factors: Factors, doubt: Array, sample: Array) -> Array:
    """|J⁻¹| doubt, entry by entry: exact for small systems, from one sample for large ones."""
    if doubt.size <= SMALL:
        return np.abs(factors.solve(np.eye(doubt.size))) @ doubt
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


def beyond_kinks(bound: ErrorBound, scale: Measure) -> Array:
    """The direction of an error, no shorter than a billionth of each unknown.

    Where the Jacobian jumps within that, a derivative is one of several.
    """
    # An unknown that is zero has no size but that of the others, or one.
    largest = float(bound.sizes.max(initial=0.0))
    sizes = np.where(bound.sizes > 0, bound.sizes, largest or 1.0)
    lengths = np.repeat(sizes, scale.sizes) * max(1e-9, 1e3 * scale.epsilon)
    return bound.direction + np.copysign(lengths, signed(lengths))


def residual_jumps(
    equations: BlockEquations,
    here: LocalEquations,
    factors: Factors,
    jacobian: Jacobian,
    jump: Array,
) -> bool:
    """Whether the equations themselves jump, or bend sharply, within a step to either side."""
    for step in (jump, -jump):
        beyond = equations.residual(here.outer, (here.point + step).astype(here.point.dtype))
        change = beyond - here.residual - jacobian.mv(step)
        moved = factors.solve(change, tol=ESTIMATE)
        if not np.abs(moved).max(initial=0.0) <= 0.1 * np.abs(step).max(initial=0.0) + (
            1e4 * float(np.finfo(here.point.dtype).eps) * np.abs(here.point).max(initial=0.0)
        ):
            return True
    return False
