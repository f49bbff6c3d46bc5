"""What a sweep carries from a solution, and how far that can be trusted.

The same sweeps with other roundings, each block's solution corrected once, show what the error of
the solution and rounding on the way do to the result. At a kink it is the mean over the sides.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import repeats
from lagrad.solving.adjoint_sweep import Carried
from lagrad.solving.block_equations import largest
from lagrad.solving.finer_derivatives import TOO_MANY, first_off, is_small, wider
from lagrad.solving.last_bits import DIVIDES, doubting, in_last_bits, moving
from lagrad.solving.relative_change import (
    ALL_BUT_ZERO,
    EXACTLY,
    MANY,
    UNSEEN,
    Units,
    hidden,
    relative_change,
)
from lagrad.solving.rounding_samples import (
    CLOSER,
    COARSE,
    FURTHER,
    SAFETY,
    SAMPLES,
    SPACINGS,
    stepping,
)
from lagrad.solving.sides import at_kink, first_side
from lagrad.solving.solved_point import SAMPLED_AT_MOST, SolvedPoint
from lagrad.solving.wider_point import wider_point
from lagrad.solving.wider_precision import CLOSE, FINER
from lagrad.typing import Array

# What seeds a sweep, runs it, and reads what has arrived.
Carry: TypeAlias = Callable[[Any], dict[Any, Array]]
# Of what the sides of a kink differ by: a jump.
JUMPED = 1e-2
# How far around it is seen whether something vanishes at a point; relative, by moves of last bits.
AROUND, STEP = 1e-3, 8 * float(np.finfo(float).eps)
# So many samples tell whether something is zero, and what rounding does at the most.
ENOUGH = SAMPLES + FURTHER
# Changes that are none of rounding alone, but magnified.
LITTLE = 1e-10
# How many times what the numbers given explain, from which a change is the operations'.
UNEXPLAINED = 20.0
# How many times what a wider precision makes of something rounding may be, where that is no zero.
CLEAR = FINER / 4
# In how many samples, and by how many of their last bits, these move to tell.
MOVED, FAR = 5, 300.0


@dataclass(frozen=True)
class Taken:
    """What a sweep carried.

    Attributes
    ----------
    found : dict
    sweep : Carried
    error : float
        A first-order bound of the relative error.
    jump : float
        By how much of itself it differs between the sides of a kink.
    lost : float
        What rounding has spoilt of it where nothing was solved for, and `where`; `gradual` where
        no sum has cancelled at once.
    """

    found: dict[Any, Array]
    sweep: Carried
    error: float
    jump: float
    lost: float = 0.0
    where: Expression | None = None
    gradual: bool = False


@dataclass(frozen=True)
class CertifiedSweep:
    """Something that a sweep carries, and how it is asked for.

    Parameters
    ----------
    point : SolvedPoint
    carry : callable
    width : int or None
        Of the right sides that it carries at once.
    units : dict
        The sizes of what is differentiated, and of what it is differentiated by.
    accuracy : float
        What is asked for.
    """

    point: SolvedPoint
    carry: Carry
    width: int | None
    units: Units
    accuracy: float

    def __call__(self) -> Taken:
        """What it carries, and a first-order bound of its relative error."""
        with np.errstate(all="ignore"):
            taken = self._taken()
            known = [taken.error, *taken.found.values()]
            if (
                all(np.isfinite(a).all() for a in known)
                or not self.point.solved
                or self.point.regular
            ):
                return taken
            # Rules say 0·∞, on the way to the result or in the samples of rounding.
            return replace(self, point=self.point.beside_itself())._taken()

    def _taken(self) -> Taken:
        point, carry, width = self.point, self.carry, self.width
        with doubting() as doubts:
            sweep, jump = point.sweep(width), 0.0
            first = found = carry(sweep)
            if not all(np.isfinite(array).all() for array in found.values()):
                first = found = carry(sweep := point.sweep(width, careful=True))
        # Where rules say 0·∞, on the sides there may be a number. Equal eigenvalues have
        # sides of their own.
        lost = not (point.solved or point.parted or all_finite(found.values()))
        if point.tied or lost:
            taken = lambda there: list(carry(there.sweep(width)).values())
            arrays, jump = point.mean(list(found.values()), taken)
            found = dict(zip(found, arrays, strict=True))
            if point.solved:
                point = first_side(point)
                first = carry(sweep := point.sweep(width))
        # The refinement's last correction is one sample of rounding, not the worst.
        kinds = {a.dtype for a in found.values() if a.dtype.kind == "f"}
        error = 4 * max([sweep.error, *(float(np.finfo(kind).eps) for kind in kinds)])
        if not all(np.isfinite(s.bound.error) for s in point.solved.values()):
            error = np.inf  # of blocks that were given up
        if not all(np.isfinite(array).all() for array in first.values()):
            return Taken(found, sweep, error, jump)  # there is nothing to compare with
        # Where any accuracy will do, rounding is looked at when the bound is asked for.
        asked, unclear = self.accuracy < np.inf, False
        if point.doubtful and asked:
            change, unclear = self._rounding(point, first, sweep)
            error += change
        if any(solved.at_kink for solved in point.solved.values()):
            error = np.inf
        if point.solved and (self.accuracy < error or unclear):
            finer = self._in_wider(point, first)
            if finer is not None:
                return finer
        for there in point.beyond:
            change = self._change(first, [self._near(there, sweep)])
            error += change if change > JUMPED else 0.0
        if point.compiled.iterates and not self.point.tied:
            doubts.append(f"the program {point.compiled.system.name!r} {DIVIDES}")
        if doubts:
            sweep.rounding = self._explained(point, first, sweep)
            sweep.doubts = tuple(dict.fromkeys(doubts))
            error += sweep.rounding
        if asked and not (point.doubtful or point.tied or point.side is not None):
            return Taken(found, sweep, error, jump, *self._lost(first, sweep))
        return Taken(found, sweep, error, jump)

    def _in_wider(self, point: SolvedPoint, found: Mapping[Any, Array]) -> Taken | None:
        """What is carried where blocks are solved in a wider precision, where there is one."""
        there = wider_point(point)
        if there is None:
            return None
        sweep = there.sweep(self.width)
        kinds = {key: np.asarray(array).dtype for key, array in found.items()}
        finer = {key: np.asarray(a, kinds[key]) for key, a in self.carry(sweep).items()}
        if sweep.fault or not all(np.isfinite(array).all() for array in finer.values()):
            return None
        others = [closer(finer, self._near(other, sweep)) for other in there.others(range(ENOUGH))]
        change = self._change(finer, others)
        # Nor is it known here what some of it is.
        change = max(change, hidden(finer, others, self.units, point.scale, UNSEEN, EXACTLY))
        spacing = max(float(np.finfo(kind).eps) for kind in kinds.values())
        return Taken(finer, sweep, 4 * max(sweep.error, spacing) + CLOSER * change, 0.0)

    def rounding(self, found: Mapping[Any, Array], sweep: Carried) -> float:
        """What the errors of the solution and rounding change of what was found."""
        return self._rounding(self.point, found, sweep)[0]

    def _rounding(
        self, point: SolvedPoint, found: Mapping[Any, Array], sweep: Carried
    ) -> tuple[float, bool]:
        """The same, and whether it leaves open what some of it is, of few numbers."""
        if not point.doubtful and (point.tied or point.compiled.operations > SAMPLED_AT_MOST):
            return 0.0, False

        def near(numbers: range) -> Iterator[dict[Any, Array]]:
            return (closer(found, self._near(point.sample(k), sweep)) for k in numbers)

        with np.errstate(all="ignore"):
            others = [closer(found, self._near(there, sweep)) for there in point.samples]
            near_zero = set[Any]()
            more = near(range(SAMPLES, ENOUGH))
            change = SAFETY * self._change(found, others, more, near_zero=near_zero)
            if LITTLE < change < np.inf:
                # By chance a few samples are small, all of them.
                others += near(range(len(others), MANY))
                change = SAFETY * self._change(found, others, near(range(MANY, ENOUGH)))
            if self.accuracy < change < np.inf:
                others += near(range(MANY, ENOUGH))
                change = CLOSER * self._change(found, others)
            if self.accuracy < change < np.inf:
                # Of a gradient that vanishes all that is left is rounding.
                around = self._around(point, found, sweep)
                return CLOSER * self._change(found, others, least=around), False
        if not near_zero or point.compiled.operations > TOO_MANY:
            return change, False
        return change, hidden(found, others, self.units, point.scale) > 0

    def _around(
        self, point: SolvedPoint, found: Mapping[Any, Array], sweep: Carried
    ) -> dict[Any, float]:
        """How large a gradient that vanishes here is close by; of others nothing.

        At an optimum it is what is left of much larger numbers, by every parameter, and rounding
        is theirs. Where what was given is a little different it is in proportion to that.
        """
        if not all(getattr(key, "role", "") == "parameter" for key in found):
            return {}
        whole, half = (next(self._moved(point, sweep, 1, s / STEP)) for s in (AROUND, AROUND / 2))
        sizes = {key: (largest(whole[key]), largest(half[key])) for key in found}
        vanishes = all(0.4 * a <= b <= 0.6 * a < np.inf for a, b in sizes.values())
        return {k: a for k, (a, _) in sizes.items()} if vanishes else {}

    def _explained(self, point: SolvedPoint, found: Mapping[Any, Array], sweep: Carried) -> float:
        """What of it changes where all that was given moves by its last bits.

        Or where the steps of loops are rounded otherwise.
        """
        change = max(self._change(found, [there]) for there in self._moved(point, sweep, MANY))
        if not repeats(point.compiled.system.arena.nodes):
            return change
        others = [closer(found, self._near(point.sample(k), sweep)) for k in range(MANY)]
        return max(change, SAFETY * self._change(found, others))

    def _moved(
        self, point: SolvedPoint, sweep: Carried, samples: int = SAMPLES, times: float = 1.0
    ) -> Iterator[dict[Any, Array]]:
        """What is carried where all that was given moves by its last bits, or by more."""
        rng = np.random.default_rng(0)
        for _ in range(samples):
            move = lambda array: in_last_bits(np.asarray(array), rng, True, times)
            with moving(rng):
                yield self._near(point.in_last_bits(rng, times), sweep, move)

    def _lost(
        self, found: dict[Any, Array], sweep: Carried
    ) -> tuple[float, Expression | None, bool]:
        """What rounding has spoilt of what is carried where nothing is solved for.

        With the operation that shows it, and whether no sum has cancelled at once.
        """
        point = self.point
        finer = None
        if is_small(point.compiled) or point.cancels[0] is not None:
            finer = self._finer(sweep)
        if finer is None and point.cancels[0] is None:
            return 0.0, None, False
        if finer is None:
            return self._unexplained(found, sweep), point.cancels[0], False
        found, finer = flushed(found), flushed(finer)
        lost = relative_change(found, [finer], self.units, 0.0, sure=set(found))
        if lost <= CLOSE:
            return self._hidden(found, sweep), point.cancels[0], False
        if at_kink(point):
            return 0.0, None, False
        others = self._rounded(found, sweep)
        # By chance what was found may be close to what the wider precision makes of it.
        spoilt = self._spoilt(found, sweep, [finer, *others])
        # In a wider precision it is seen what is zero, and what is small.
        rounding = {k: max(largest(o[k] - found[k]) for o in others) for k in spoilt}
        sure = {k for k in spoilt if rounding[k] < CLEAR * largest(finer[k])}
        loose = set(found) - spoilt
        own = {k: self._unit_of_value(k) for k in spoilt}
        lost = self._change(found, [finer], sure=sure, loose=loose, spoilt=own)
        if lost > self.accuracy:
            around = self._around(point, found, sweep)
            lost = self._change(found, [finer], (), around, sure, loose, own)
        if point.cancels[0] is None:
            return lost, first_off(point, self.accuracy), True
        return lost, point.cancels[0], False

    def _hidden(self, found: dict[Any, Array], sweep: Carried) -> float:
        """What is off though a wider precision, which rounds as well, agrees with it."""
        units = {key: self._unit_of_value(key) for key in found}
        usual = all(largest(a) > units[k] for k, a in found.items())
        if (usual and self.point.cancels[0] is None) or at_kink(self.point):
            return 0.0
        zeros, others = {k for k, a in found.items() if not np.any(a)}, self._rounded(found, sweep)
        noise = {k: max(largest(o[k] - a) for o in others) / FINER for k, a in found.items()}
        off, rest = {k: noise[k] / units[k] for k in zeros}, set(found) - zeros
        lost = {k: noise[k] / largest(found[k]) for k in rest}
        if max(lost.values(), default=0.0) > self.accuracy:
            off |= {k: lost[k] for k in rest & self._spoilt(found, sweep, others)}
        return max(off.values(), default=0.0)

    def _unit_of_value(self, key: Any) -> float:
        """What is no more than zero beside the program's values, over a parameter's, or one."""
        values = (a for v, a in self.point.values.items() if v.role != "data" and not v.derivative)
        top = max((size for size in map(largest, values) if np.isfinite(size)), default=1.0)
        return ALL_BUT_ZERO * max(top, 1.0) / max(self.units.get(key, (1.0, 1.0))[1], 1.0)

    def _finer(self, sweep: Carried) -> dict[Any, Array] | None:
        """What is carried in a wider precision, where there is one."""
        try:
            there = wider(self.point)
            return None if there is None else self._near(there, sweep)
        except TypeError:  # LAPACK knows doubles only
            return None

    def _rounded(self, found: dict[Any, Array], sweep: Carried) -> list[dict[Any, Array]]:
        """What is carried where sums, and all operations, are rounded otherwise."""
        point = self.point
        others = [closer(found, self._near(point.sample(k), sweep)) for k in range(MANY)]
        if point.cancels[0] is None:
            return others
        terms = [self._near(point.cancelled(k), sweep) for k in range(MANY)]
        return others + [closer(found, there, COARSE) for there in terms]

    def _unexplained(self, found: dict[Any, Array], sweep: Carried) -> float:
        """What rounding changes, where moves of what was given explain nothing of the kind."""
        others = self._rounded(found, sweep)
        spoilt = self._spoilt(found, sweep, others)
        others = [{k: a if k in spoilt else found[k] for k, a in o.items()} for o in others]
        return SAFETY * self._change(found, others)

    def _spoilt(
        self, found: dict[Any, Array], sweep: Carried, others: Sequence[Mapping[Any, Array]]
    ) -> set[Any]:
        """Of which moves of what was given do not explain how others differ."""
        # Moved so far that the roundings there, which are others, count for little beside it. One
        # sample may be anything where they are all that there is, or along a valley.
        moved = list(self._moved(self.point, sweep, MOVED, FAR))
        spoilt = set()
        for key, array in found.items():
            _, explained, *_ = sorted(largest(there[key] - array) / FAR for there in moved)
            change = max(largest(there[key] - array) for there in others)
            if not change <= UNEXPLAINED * explained:
                spoilt.add(key)
        return spoilt

    def _near(
        self, there: SolvedPoint, sweep: Carried, seeded: Callable[[Array], Array] = np.asarray
    ) -> dict[Any, Array]:
        """What is carried from a point close to where `sweep` was made."""
        for careful in (False, True):
            again = there.sweep(self.width, near=sweep, careful=careful)
            again.seeded = seeded
            with stepping(getattr(there, "rounded", None)):
                found = self.carry(again)
            if all(np.isfinite(array).all() for array in found.values()):
                break
        return found

    def _change(
        self,
        found: Mapping[Any, Array],
        others: Iterable[Mapping[Any, Array]],
        more: Iterable[Mapping[Any, Array]] = (),
        least: Mapping[Any, float] | None = None,
        sure: Set[Any] = frozenset(),
        loose: Set[Any] = frozenset(),
        spoilt: Mapping[Any, float] | None = None,
        near_zero: set[Any] | None = None,
    ) -> float:
        scale = max(self.point.scale, self.point.cancels[1])
        how = (more, least, sure, loose, spoilt, near_zero)
        return relative_change(found, others, self.units, scale, *how)


def flushed(arrays: Mapping[Any, Array]) -> dict[Any, Array]:
    """Arrays with zeros for what is less than numbers of a variable's precision can be."""

    def tiny(key: Any, array: Array) -> float:
        dtype = getattr(key[0] if isinstance(key, tuple) else key, "dtype", array.dtype)
        return float(np.finfo(str(dtype)).tiny) if dtype.kind == "f" else 0.0

    return {k: np.where(np.abs(a) < tiny(k, a), 0, a) for k, a in arrays.items()}


def closer(
    found: Mapping[Any, Array], other: Mapping[Any, Array], times: float = SPACINGS
) -> dict[Any, Array]:
    """What a spacing would have done, where numbers were rounded to so many of them."""
    return {key: array + (other[key] - array) / times for key, array in found.items()}
