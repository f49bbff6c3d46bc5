"""How far a point may be from the solution, to first order, and what that does to the Jacobian.

A residual is known to rounding of its terms only: it may be off by w, and the point then by
|J⁻¹|w (the bound of LAPACK's gerfs).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import NotPositiveDefinite
from lagrad.linear_solvers.base import ESTIMATE, Factors
from lagrad.linear_solvers.jacobian import Jacobian, signed
from lagrad.solving.block_equations import LocalEquations, Measure, largest
from lagrad.solving.failure_messages import named
from lagrad.systems.reduced_block import SMALL
from lagrad.typing import Array

# An unknown that is so much smaller than others may be nearly zero by chance, as a temperature in
# degrees is.
NEARLY_ZERO = 1e-6
# What of an entry may be in doubt before it is computed in a wider precision.
HIDDEN = 1e-8
# The relative error of what is surely no zero.
KNOWN = 1e-8
# Of a step: how much of it smooth equations may bend by, and how much less over a thousandth.
SMOOTH, FLATTER = 1e-4, 0.1
# How much less an equation is rounded around a pole than at it.
STEEPER = 1e-3


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
    each : ndarray
        The relative error of each unknown.
    matters : ndarray
        What each unknown is measured by where others are asked for: no less than what would be
        felt in its equations.
    lost : bool
        Whether some of them cannot be told from zero.
    pole : bool
        Whether the equations have one there.
    hidden : bool
        Whether entries of an array are known to fewer digits, each beside itself.
    """

    direction: Array
    sizes: Array
    error: float
    curvature: float
    each: Array
    matters: Array
    lost: bool = False
    pole: bool = False
    hidden: bool = False


@dataclass(frozen=True, eq=False)
class PathEnd:
    """Where a path ended: the equations and the Jacobian there, and factors from nearby.

    Where the residual has been computed in a wider precision, it is `finer`, and `sampled` is what
    other roundings of it do to the point, if that has been looked at.
    """

    here: LocalEquations
    jacobian: Jacobian
    factors: Factors
    scale: Measure
    finer: Array | None = None
    sampled: Array | None = None

    @cached_property
    def rounding(self) -> Array:
        """What rounding may have done to each residual."""
        if self.finer is None:
            return self.scale.epsilon * self.terms
        return float(np.finfo(str(self.finer.dtype)).eps) * self.terms

    @cached_property
    def terms(self) -> Array:
        """The size of what each residual adds up."""
        return np.maximum(self.here.terms, self.jacobian.absolute_mv(np.abs(self.here.point)))

    @cached_property
    def doubt(self) -> Array:
        """What each residual may be off by: what is left of it, and rounding of its terms."""
        return self.rounding if self.finer is not None else self.rounding + np.abs(self._left)

    @cached_property
    def _left(self) -> Array:
        """What is left of the equations."""
        here = self.here
        return here.residual if self.finer is None else self.finer.astype(here.point.dtype)

    @cached_property
    def _off(self) -> Array:
        """How far from the solution the point is known to be."""
        if self.finer is None:
            return np.zeros_like(self.here.point)
        return self.factors.solve(self._left, tol=self.factors.estimate)

    def bound(self) -> ErrorBound:
        """How far the solution may be from here."""
        here, factors, scale = self.here, self.factors, self.scale
        kind = here.point.dtype
        # Where every solve is an iteration, the residual itself shows what it does.
        seen = self._left + signed(self.rounding) if factors.iterative else signed(self.doubt)
        direction = self._response(seen)
        if not np.isfinite(direction).all():
            return without_bound(direction, scale.top)
        if not (self.doubt.any() or self._off.any()):
            return ErrorBound(direction.astype(kind), scale.top, 0.0, 0.0, 0 * scale.top, scale.top)
        if self.sampled is None:
            spread = errors(factors, self.doubt, direction, scale.units) + np.abs(self._off)
        else:
            spread = self.sampled + np.abs(self._off)
        own, sizes = scale.largest(here.point), self._sizes(spread)
        worst = self._relative_error(spread, direction, sizes)
        # A spacing for each operation, and rounding is half of one; twice, where it is an estimate.
        exact = self.doubt.size <= SMALL and not factors.iterative
        error = worst if exact else 2 * worst
        length = scale.length(direction, sizes)
        curvature, pole = 0.0, False
        if length > 0:
            # One direction shows less than the worst: it is taken as long as that, twice, so that
            # an error of rounding is no less than a spacing of the unknown.
            direction = direction * (2 * worst / length)
            if not here.equations.linear and error > 0:
                curvature, pole = self._curvature(direction, sizes)
        each = scale.largest(spread) / np.maximum(sizes, 1e-300)
        small = sizes < NEARLY_ZERO * largest(here.point)
        matters: Array = np.where(small, np.maximum(sizes, self._felt()), sizes)
        # One that is zero beside what it was on the way is measured by that.
        zero = scale.largest(here.point) <= scale.epsilon * scale.top
        matters = np.where(zero, np.maximum(matters, scale.top), matters)
        told = np.maximum(np.maximum(own, scale.epsilon * scale.top), scale.declared)
        lost = bool((sizes > told).any())
        found, entries = direction.astype(kind), np.abs(here.point)
        hidden = len(sizes) < entries.size and bool(
            (spread > HIDDEN * entries).any(where=entries > 0)
        )
        return ErrorBound(found, sizes, error, curvature, each, matters, lost, pole, hidden)

    def _felt(self) -> Array:
        """The size that each unknown would have to be felt in an equation, no more than others are.

        The least of its equations': to be small in one of them is not to be small.
        """
        sizes, scale = self.jacobian.felt(self.terms), self.scale
        if sizes is None or not sizes.size:
            return np.zeros(len(scale.sizes))
        top = largest(self.here.point)
        return np.minimum(np.minimum.reduceat(sizes, scale.starts), top)

    @cached_property
    def _matter(self) -> Array:
        """The size that each number would have to be felt in its equations."""
        matter, point = self.jacobian.typical(self.terms), self.here.point
        return np.full(point.size, largest(point)) if matter is None else matter

    def _response(self, doubt: Array) -> Array:
        """J⁻¹ of what the residual may be off by."""
        factors = self.factors
        try:
            direction = factors.solve(doubt, tol=factors.estimate)
            if factors.iterative and not doubt.any():
                # In search directions that follow no pattern there is curvature to be seen.
                probe = np.random.default_rng(1).standard_normal(doubt.size)
                factors.solve(probe, tol=factors.estimate)
        except NotPositiveDefinite as error:
            raise named(self.here.equations, error) from None
        return direction

    def _sizes(self, spread: Array) -> Array:
        """What the error of each unknown is measured by: its own size, if it has one."""
        scale, point = self.scale, self.here.point
        # What is sixteen digits smaller than it was on the way is zero, unless all the same known.
        own, error = scale.largest(point), scale.largest(spread)
        sizes = np.where(error < KNOWN * own, own, np.maximum(own, scale.epsilon * scale.top))
        sizes = np.maximum(sizes, scale.declared)
        lost = sizes <= 10 * error
        if lost.any():
            # A value that cannot be told from zero is measured by what matters in its equations.
            sizes = np.where(lost, np.maximum(sizes, scale.largest(self._matter)), sizes)
        return sizes

    def _relative_error(self, spread: Array, direction: Array, sizes: Array) -> float:
        """The largest entry of |J⁻¹| doubt, each unknown against its size."""
        factors, doubt, n = self.factors, self.doubt, self.doubt.size
        against = np.repeat(np.maximum(sizes, 1e-300), self.scale.sizes)
        if factors.iterative and self.sampled is None:
            return 2 * largest(direction / against)
        if n <= SMALL or self.sampled is not None:
            return largest(spread / against)
        # A norm of J⁻¹ between two scalings.
        operator = sparse_linalg.LinearOperator(
            (n, n),
            matvec=lambda x: doubt * factors.solve(np.ravel(x) / against, transposed=True),
            rmatvec=lambda x: factors.solve(doubt * np.ravel(x)) / against,
            dtype=float,
        )
        return float(sparse_linalg.onenormest(operator, t=1)) + largest(self._off / against)

    def _bend(self, step: Array) -> Array:
        """What the residual changes by across a step, beyond the Jacobian's product with it."""
        here, kind = self.here, self.here.point.dtype
        there = (here.point + step).astype(kind)
        if self.finer is None:
            change = here.equations.residual(here.outer, there) - here.residual
        else:
            beyond = here.equations.finer_residual(here.outer, there)
            assert beyond is not None
            change = (beyond - self.finer).astype(kind)
        found: Array = change - self.jacobian.mv(there - here.point)
        return found

    def _curvature(self, direction: Array, sizes: Array) -> tuple[float, bool]:
        """How much of itself the Jacobian changes by across the error δ, and whether at a pole.

        How far r(z + Kδ) − r(z) is from KJδ is what it changes by across Kδ; K makes the step a
        millionth, so that it stands out of rounding.
        """
        scale = self.scale
        length = scale.length(direction, sizes)
        factor = max(1.0, max(1e-6, 1e3 * scale.epsilon) / length)
        for step in (factor * direction, -factor * direction):
            change = self._bend(step)
            if np.isfinite(change).all():
                moved = self.factors.solve(change, tol=ESTIMATE)
                bend = scale.length(moved, sizes) / (factor * length)
                # What rounding alone would have made of it is taken off.
                found = max(bend - 10 / factor, 0.0) / factor
                return found, bend > 0.5 and self._is_pole(step)
        return np.inf, False

    def _is_pole(self, step: Array) -> bool:
        """Whether an equation is rounded far more at the point than on both sides of it.

        Near a pole a residual may be any number, and a correction is no longer than what the
        distance is known to.
        """
        here, kind = self.here, self.here.point.dtype
        points = ((here.point + move).astype(kind) for move in (step, -step))
        around = [LocalEquations(here.equations, here.outer, point).terms for point in points]
        return bool((np.maximum(*around) < STEEPER * here.terms).any())

    def beyond_kinks(self, bound: ErrorBound) -> tuple[Array, float]:
        """The direction of an error, no shorter than a billionth of each unknown.

        And the share of that which is taken of those that are zero.

        Where the Jacobian jumps within that, a derivative is one of several.
        """
        # An unknown that is zero has no size but that of the others, or one: far too large a one,
        # maybe, where equations bend smoothly within it, which they do less the shorter it is.
        sizes = np.where(bound.sizes > 0, bound.sizes, largest(bound.sizes) or 1.0)
        lengths = np.repeat(sizes, self.scale.sizes) * max(1e-9, 1e3 * self.scale.epsilon)
        borrowed = np.repeat(sizes > self.scale.largest(self.here.point), self.scale.sizes)
        signs, least = signed(np.ones(lengths.size)), np.inf
        first = bound.direction + signs * lengths
        for share in (1.0, 1e-3, 1e-6, 1e-9) if borrowed.any() else ():
            step = bound.direction + signs * np.where(borrowed, share, 1.0) * lengths
            bend = max(self._bent(step), self._bent(-step))
            if not bend <= least:
                break
            if bend < SMOOTH:
                return step, share
            least = FLATTER * bend
        return first, 1.0

    def jumps(self, step: Array) -> bool:
        """Whether the equations themselves jump, or bend sharply, within a step to either side."""
        return not max(self._bent(step), self._bent(-step)) <= 0.1

    def _bent(self, step: Array) -> float:
        """How far from linear the equations are across a step, relative to it."""
        rounding = 1e4 * self.scale.epsilon * largest(self.here.point)
        moved = largest(self.factors.solve(self._bend(step), tol=ESTIMATE))
        return max(moved - rounding, 0.0) / largest(step) if np.isfinite(moved) else np.inf


def without_bound(direction: Array, sizes: Array) -> ErrorBound:
    """Of a point of which nothing is known."""
    unknown = np.full(sizes.shape, np.inf)
    return ErrorBound(direction, sizes, np.inf, np.inf, unknown, sizes)


def errors(factors: Factors, doubt: Array, sample: Array, units: Array) -> Array:
    """|J⁻¹| doubt, entry by entry: exact for small systems, from one sample for large ones."""
    if doubt.size <= SMALL:
        return np.abs(factors.solve(np.eye(doubt.size))) @ doubt
    # No entry of a sample is trusted to be small by chance, each in its own unit.
    found = np.abs(sample)
    share = np.median(found[units > 0] / units[units > 0]) if (units > 0).any() else 0.0
    return np.maximum(found, share * units)
