"""How far a point may be from the solution, and what that does to derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import NotPositiveDefinite
from lagrad.linear_solvers.base import ESTIMATE, Factors
from lagrad.linear_solvers.condition import signed
from lagrad.solving.block_equations import SMALL, BlockEquations, Local
from lagrad.solving.failures import REMEDY
from lagrad.solving.relative_length import Measure
from lagrad.typing import Array


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
