"""Gradient descent with momentum in whole numbers, which can be run backwards bit for bit.

Maclaurin, Duvenaud and Adams (Gradient-based hyperparameter optimization through reversible
learning, 2015, arXiv:1502.03492). Points and velocities are multiples of 2⁻⁵⁰. Additions lose
nothing. A decay n/d destroys log₂(d/n) bits of each velocity at each step: they are the digits of a
buffer, which grows by that much, and which fills the digits that the factor n makes room for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from lagrad.errors import InvalidValue, NotFinite
from lagrad.loops.chain import Chain
from lagrad.loops.state_storage import State
from lagrad.typing import Array

SCALE = 2.0**50
LARGEST = 2.0**62
WORD = np.uint64(32)
LOW = np.uint64(2**32 - 1)


def ratio(decay: float) -> tuple[int, int]:
    """A decay as a fraction of small numbers."""
    for limit in (100, 10_000, 1_000_000):
        found = Fraction(float(decay)).limit_denominator(limit)
        if found > 0 and abs(float(found) - decay) <= 1e-15:
            break
    if not 0 < found <= 1:
        raise InvalidValue(f"a decay of {decay!r} cannot be reversed; expected one in (0, 1].")
    return found.numerator, found.denominator


@dataclass
class Digits:
    """What decays have destroyed of an array: one number for each entry, in words of 32 bits."""

    rest: Array
    words: list[tuple[int, Array]] = field(default_factory=list)

    def decay(self, step: int, v: Array, n: int, d: int) -> Array:
        """v · n/d, rounded, its lost digits kept."""
        if self.rest.size and int(self.rest.max()) >= 2**62 // d:
            self.words.append((step, (self.rest & LOW).astype(np.uint32)))
            self.rest >>= WORD
        return self._exchanged(v, n, d)

    def undo(self, step: int, v: Array, n: int, d: int) -> Array:
        """The v before."""
        v = self._exchanged(v, d, n)
        if self.words and self.words[-1][0] == step:
            self.rest = (self.rest << WORD) | self.words.pop()[1].astype(np.uint64)
        return v

    def _exchanged(self, v: Array, n: int, d: int) -> Array:
        """v · n/d: the digits that d takes off go to the buffer, and those for n come from it."""
        self.rest *= np.uint64(d)
        self.rest += (v % d).astype(np.uint64)
        v = (v // d) * n + (self.rest % np.uint64(n)).astype(np.int64)
        self.rest //= np.uint64(n)
        return v

    @property
    def bits(self) -> int:
        """Those stored for each entry."""
        return 32 * len(self.words) + int(self.rest.max(initial=0)).bit_length()


def held(numbers: Array) -> Array:
    """The numbers, none of which is so large that a sum of two could overflow."""
    if not (np.abs(numbers) < LARGEST).all():
        raise NotFinite(
            f"reversible momentum: a value is not finite, or beyond {LARGEST / SCALE:.3g}, "
            "which whole numbers cannot hold. Use a smaller rate, or lg.Unrolled."
        )
    return numbers


def whole(array: Array) -> Array:
    """An array as multiples of 1 / SCALE."""
    found: Array = held(np.rint(np.asarray(array, float) * SCALE)).astype(np.int64)
    return found


class ExactMomentum:
    """A run of a chain whose states are points and velocities, and whose inputs rate and decay."""

    def __init__(self, chain: Chain, arguments: Sequence[Array]) -> None:
        self.chain = chain
        first, inputs, self.constants = chain.split(arguments)
        half = len(first) // 2
        self.rates, self.decays = (np.asarray(a, float) for a in inputs)
        self.ratios = [ratio(decay) for decay in self.decays]
        self.z, self.v = ([whole(a) for a in part] for part in (first[:half], first[half:]))
        self.begin = [a.copy() for a in (*self.z, *self.v)]
        self.digits = [Digits(np.zeros(a.shape, np.uint64)) for a in self.v]
        self.run()

    def state(self) -> State:
        return [a / SCALE for a in (*self.z, *self.v)]

    def _pushes(self, t: int) -> State:
        """What the gradient takes off the velocities in a step."""
        n, d = self.ratios[t]
        given = [*self.state(), self.rates[t], self.decays[t], *self.constants]
        plan = self.chain.inverse.plan
        # By the same calls both ways: another engine may round otherwise.
        gradient = self.chain.inverse(given) if plan is None else plan.interpreted(given)
        return [whole((1 - n / d) * g) for g in gradient]

    def run(self) -> None:
        """All steps forwards."""
        for t in range(self.chain.length):
            for k, push in enumerate(self._pushes(t)):
                decayed = self.digits[k].decay(t, self.v[k], *self.ratios[t])
                self.v[k] = held(decayed - push)
                self.z[k] = held(self.z[k] + whole(self.rates[t] * (self.v[k] / SCALE)))

    def back(self) -> Iterator[tuple[int, State]]:
        """The states before each step, the last one first."""
        for t in range(self.chain.length - 1, -1, -1):
            for k, v in enumerate(self.v):
                self.z[k] = self.z[k] - whole(self.rates[t] * (v / SCALE))
            for k, push in enumerate(self._pushes(t)):
                self.v[k] = self.digits[k].undo(t, self.v[k] + push, *self.ratios[t])
            yield t, self.state()
        same = zip(self.begin, (*self.z, *self.v), strict=True)
        assert all(np.array_equal(a, b) for a, b in same), "not reversed bit for bit"
