"""Anderson's acceleration of a fixed-point iteration, which ends where plain steps would.

Where a step has several fixed points, the one meant is that to which plain steps lead from the
start. A combination of steps extrapolates them, and may land in the basin of another point, or on
one that plain steps leave. So it is tried only once plain steps shrink; it may go no farther than
they would, shrinking on at that rate; and it must shrink the residual. Near a saddle all that
holds: plain steps come near, and leave on a side that a combination may mistake. It shows when the
residual grows again, and the path goes back to where plain steps alone had led.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from lagrad.typing import Array

# Plain steps in a row that shrink, before a combination is tried.
SHRINKING = 3
# A combination goes at most so many times as far as the geometric series of plain steps,
REACH = 1.2
# and leaves at most so much of the residual.
LEFT = 0.9
# Growth of the residual, from its least, after which what was combined is given up.
GROWN = 2.0


@dataclass(frozen=True, slots=True)
class Iterate:
    """A point's image under the step, and how far that is from the point."""

    image: Array
    residual: Array
    size: float

    @classmethod
    def of(cls, step: Callable[[Array], Array], point: Array) -> "Iterate":
        image = step(point)
        residual = image - point
        return cls(image, residual, float(np.sqrt(residual @ residual)))


class Accelerated:
    """A path of the iteration z ← step(z), by plain and by combined steps.

    Attributes
    ----------
    here : Iterate
    evaluations : int
        How often the step was evaluated.
    rate : float
        Of the last plain step's residual, to the one before.
    """

    def __init__(self, step: Callable[[Array], Array], point: Array, memory: int) -> None:
        self.step, self.past = step, Differences(memory)
        self.evaluations, self.rate, self.patience = 0, 1.0, SHRINKING
        self.arrive(self.evaluated(point))

    @property
    def image(self) -> Array:
        return self.here.image

    @property
    def change(self) -> float:
        """The relative length of the step from here."""
        return relative(self.here.residual, self.here.image)

    def evaluated(self, point: Array) -> Iterate:
        self.evaluations += 1
        return Iterate.of(self.step, point)

    def arrive(self, here: Iterate) -> None:
        """Be where plain steps alone have led, without a past."""
        self.here, self.least, self.shrunk = here, here.size, 0
        self.plain: Iterate | None = None  # where the first combination left plain steps
        self.past.clear()

    def move(self, there: Iterate) -> None:
        here, self.here = self.here, there
        self.past.add(there.image - here.image, there.residual - here.residual)
        self.least = min(self.least, there.size)

    def advance(self) -> None:
        """One combined step, or else a plain one."""
        if self.shrunk >= self.patience:
            if (there := self.combined()) is not None:
                self.plain = self.plain or self.here
                self.move(there)
                return
            self.past.clear()
            self.shrunk = 0
        before = self.here.size
        self.move(self.evaluated(self.here.image))
        self.rate = self.here.size / before if before else inf
        self.shrunk += 1
        if not self.rate < 1:
            self.past.clear()
            self.shrunk = 0
        if self.plain is not None and self.here.size > GROWN * self.least:
            self.arrive(self.plain)
            self.patience *= 2

    def combined(self) -> Iterate | None:
        """Where a combination of the last steps leads; None where that is not to be trusted."""
        here = self.here
        point = self.past.combined(here.image, here.residual)
        reach = REACH * here.size * self.rate / max(1 - self.rate, 1e-12)
        if not np.abs(point - here.image).max(initial=0.0) <= reach:
            return None
        there = self.evaluated(point)
        return there if there.size <= LEFT * here.size else None


class Differences:
    """The last differences of images and of residuals, with the products of the latter."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.images = self.changes = np.zeros((0, 0))
        self.products = np.zeros((memory, memory))
        self.count = 0

    def clear(self) -> None:
        self.count = 0

    def add(self, image: Array, change: Array) -> None:
        if not self.images.size:
            self.images, self.changes = np.zeros((2, self.memory, image.size), image.dtype)
        # The oldest makes room; the order of the rest does not matter.
        place = self.count % self.memory
        self.count += 1
        self.images[place], self.changes[place] = image, change
        row = self.changes @ change
        self.products[place], self.products[:, place] = row, row

    def combined(self, after: Array, residual: Array) -> Array:
        """The combination of images whose residual is smallest, to first order."""
        kept = min(self.count, self.memory)
        if not kept:
            return after
        right = self.changes[:kept] @ residual
        # A minimum-norm solution: nearly parallel differences are not told apart.
        weights = np.linalg.lstsq(self.products[:kept, :kept], right, rcond=1e-12)[0]
        return after - weights @ self.images[:kept]


def relative(change: Array, against: Array) -> float:
    """The largest entry of a change over the largest of a point; NaN where one is not finite."""
    size = float(np.abs(against).max(initial=0.0))
    length = float(np.abs(change).max(initial=0.0))
    return length / size if size else length


# Steps with momentum, and how many of them must bring the point nearer: more of few numbers.
MOMENTUM_AT_MOST, WITHIN, FEW = 100_000, 3_000, 2_000


def with_momentum(step: Callable[[Array], Array], start: Array, tol: float) -> Array | None:
    """Where steps with Nesterov's momentum lead, begun anew where it points back; None if nowhere.

    For proximal gradient steps that contract by next to nothing, as of a lasso with more features
    than rows (O'Donoghue and Candès, Adaptive Restart for Accelerated Gradient Schemes, 2015).
    """
    point = ahead = start
    within = WITHIN if start.size > FEW else 5 * WITHIN
    weight, least, patience = 1.0, inf, within
    for _ in range(MOMENTUM_AT_MOST):
        after = step(ahead)
        change = after - point
        if (ahead - after) @ change > 0:
            weight = 1.0
        following = (1 + (1 + 4 * weight * weight) ** 0.5) / 2
        ahead = after + (weight - 1) / following * change
        weight, point = following, after
        length = relative(change, point)
        if length <= tol and relative(step(point) - point, point) <= tol:
            return point
        patience = within if length < 0.9 * least else patience - 1
        least = min(least, length)
        if not (patience and np.isfinite(length)):
            return None
    return None
