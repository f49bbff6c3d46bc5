"""What rounding has spoilt of derivatives where nothing is solved for.

A wider precision shows it, where there is one; elsewhere, and where terms are so large that the
wider precision rounds them as well, other roundings do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.solving.block_equations import largest
from lagrad.solving.finer_derivatives import first_off, is_small, wider
from lagrad.solving.relative_change import (
    ALL_BUT_ZERO,
    MAGNIFIED,
    MANY,
    coarseness,
    precision,
    relative_change,
)
from lagrad.solving.rounding_samples import COARSE, SAFETY, closer
from lagrad.solving.sides import at_kink
from lagrad.solving.solved_point import SAMPLED_AT_MOST
from lagrad.solving.wider_precision import CLOSE, FINER, close
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.solving.adjoint_sweep import Carried
    from lagrad.solving.certified_sweep import CertifiedSweep

# How many times what the numbers given explain, from which a change is the operations'.
UNEXPLAINED = 20.0
# How many times what a wider precision makes of something rounding may be, where that is no zero.
CLEAR = FINER / 4
# In how many samples, and by how many of their last bits, these move to tell.
MOVED, FAR = 5, 300.0
# Numbers of a program without wider ones that are rounded otherwise all the same.
NUMBERS = 2_000_000


@dataclass(frozen=True)
class ExplicitRounding:
    """Derivatives that a sweep has carried, to be looked at.

    Attributes
    ----------
    of : CertifiedSweep
    found : dict
    sweep : Carried
    """

    of: CertifiedSweep
    found: dict[Any, Array]
    sweep: Carried

    def lost(self) -> tuple[float, Expression | None, bool]:
        """What rounding has spoilt, relative.

        With the operation that shows it, and whether no sum has cancelled at once.
        """
        point, where = self.of.point, self.of.point.cancels[0]
        finer = self._finer() if where is not None or is_small(point.compiled) else None
        if finer is None:
            if where is None:
                few = is_small(point.compiled, NUMBERS)
                return max(self._magnified(), self._unexplained() if few else 0.0), None, True
            return self._unexplained(), where, False
        found, finer = flushed(self.found), flushed(finer)
        lost = relative_change(found, [finer], self.of.units, 0.0, sure=set(found))
        if lost <= max((close(precision(k, a)) for k, a in found.items()), default=CLOSE):
            return self._hidden(), where, where is None
        if at_kink(point):
            return 0.0, None, False
        # By chance what was found may be close to what the wider precision makes of it.
        spoilt = self._spoilt([finer, *self.others])
        # In a wider precision it is seen what is zero, and what is small.
        rounding = {k: max(largest(o[k] - found[k]) for o in self.others) for k in spoilt}
        sure = {k for k in spoilt if rounding[k] < CLEAR * largest(finer[k])}
        loose = set(found) - spoilt
        own = {k: self.units[k] for k in spoilt}
        lost = self.of.change(found, [finer], sure=sure, loose=loose, spoilt=own)
        if lost > self.of.accuracy:
            around = self.of.around(point, found, self.sweep)
            lost = self.of.change(found, [finer], (), around, sure, loose, own)
        if where is None:
            return lost, first_off(point, self.of.accuracy), True
        return lost, where, False

    @cached_property
    def others(self) -> list[dict[Any, Array]]:
        """What is carried where sums, and all operations, are rounded otherwise."""
        point, near, found = self.of.point, self.of.near, self.found
        others = [closer(found, near(point.sample(k), self.sweep)) for k in range(MANY)]
        if point.cancels[0] is None:
            return others
        terms = [near(point.cancelled(k), self.sweep) for k in range(MANY)]
        return others + [closer(found, there, COARSE) for there in terms]

    @cached_property
    def units(self) -> dict[Any, float]:
        """What is no more than zero beside the program's values, over a parameter's, or one."""
        values = self.of.point.values.items()
        sizes = (largest(a) for v, a in values if v.role != "data" and not v.derivative)
        top = max((size for size in sizes if np.isfinite(size)), default=1.0)
        by = {k: self.of.units.get(k, (1.0, 1.0))[1] for k in self.found}
        by = {k: max(size, 1.0) if np.isfinite(size) else 1.0 for k, size in by.items()}
        of = {k: ALL_BUT_ZERO * coarseness(precision(k, a)) for k, a in self.found.items()}
        return {k: of[k] * max(top, 1.0) / size for k, size in by.items()}

    def _finer(self) -> dict[Any, Array] | None:
        """What is carried in a wider precision, where there is one."""
        try:
            there = wider(self.of.point)
            return None if there is None else self.of.near(there, self.sweep, widened)
        except TypeError:  # LAPACK knows doubles only
            return None

    def _magnified(self) -> float:
        """What rounding changes of derivatives so large that it is magnified; of others nothing."""
        point, top = self.of.point, max(1.0, self.of.point.scale)
        by = {k: self.of.units.get(k, (1.0, 1.0))[1] for k in self.found}
        large = any(largest(a) * by[k] > MAGNIFIED * top for k, a in self.found.items())
        if not large or point.compiled.operations > SAMPLED_AT_MOST:
            return 0.0
        return SAFETY * self.of.change(self.found, self.others)

    def _hidden(self) -> float:
        """What is off though a wider precision, which rounds as well, agrees with it."""
        found, units, point = self.found, self.units, self.of.point
        usual = all(largest(a) > units[k] for k, a in found.items())
        if (usual and point.cancels[0] is None) or at_kink(point):
            return 0.0
        zeros = {k for k, a in found.items() if not np.any(a)}
        noise = {k: max(largest(o[k] - a) for o in self.others) / FINER for k, a in found.items()}
        off, rest = {k: noise[k] / units[k] for k in zeros}, set(found) - zeros
        lost = {k: noise[k] / largest(found[k]) for k in rest}
        if max(lost.values(), default=0.0) > self.of.accuracy:
            off |= {k: lost[k] for k in rest & self._spoilt(self.others)}
        return max(off.values(), default=0.0)

    def _unexplained(self) -> float:
        """What rounding changes, where moves of what was given explain nothing of the kind."""
        if at_kink(self.of.point):  # other roundings fall to its sides
            return 0.0
        found, spoilt = self.found, self._spoilt(self.others)
        others = [{k: a if k in spoilt else found[k] for k, a in o.items()} for o in self.others]
        # Where a sum has cancelled, what is left of it is no zero beside the sum's own terms.
        cancelled = self.of.point.cancels[0] is not None
        own = {k: self.units[k] for k in spoilt if cancelled}
        return SAFETY * self.of.change(found, others, spoilt=own)

    def _spoilt(self, others: Sequence[Mapping[Any, Array]]) -> set[Any]:
        """Of which moves of what was given do not explain how others differ."""
        # Moved so far that the roundings there, which are others, count for little beside it. One
        # sample may be anything where they are all that there is, or along a valley.
        moved = list(self.of.moved(self.of.point, self.sweep, MOVED, FAR))
        spoilt = set()
        for key, array in self.found.items():
            _, explained, *_ = sorted(largest(there[key] - array) / FAR for there in moved)
            change = max(largest(there[key] - array) for there in others)
            if not change <= UNEXPLAINED * explained:
                spoilt.add(key)
        return spoilt


def flushed(arrays: Mapping[Any, Array]) -> dict[Any, Array]:
    """Arrays with zeros for what is less than numbers of a variable's precision can be."""

    def tiny(key: Any, array: Array) -> float:
        dtype = precision(key, array)
        return float(np.finfo(str(dtype)).tiny) if dtype.kind == "f" else 0.0

    return {k: np.where(np.abs(a) < tiny(k, a), 0, a) for k, a in arrays.items()}


def widened(seed: Array) -> Array:
    """A seed whose sums are rounded as the numbers are that it is multiplied by."""
    return np.asarray(seed, np.longdouble) if seed.dtype.kind == "f" else seed
