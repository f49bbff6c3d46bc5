"""What a sweep carries from a solution, and how far that can be trusted.

The same sweeps with other roundings, each block's solution corrected once, show what the error of
the solution and rounding on the way do to the result. At a kink it is the mean over the sides.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import repeats
from lagrad.solving.adjoint_sweep import Carried
from lagrad.solving.block_equations import largest
from lagrad.solving.explicit_rounding import ExplicitRounding
from lagrad.solving.finer_derivatives import TOO_MANY
from lagrad.solving.last_bits import DIVIDES, doubting, in_last_bits, moving
from lagrad.solving.relative_change import EXACTLY, MANY, UNSEEN, Units, hidden, relative_change
from lagrad.solving.rounding_samples import CLOSER, FURTHER, SAFETY, SAMPLES, closer, stepping
from lagrad.solving.sides import first_side, sweep_around
from lagrad.solving.solved_point import SAMPLED_AT_MOST, SolvedPoint
from lagrad.solving.values_on_the_way import scale_of
from lagrad.solving.wider_point import wider_point
from lagrad.typing import Array

# What seeds a sweep, runs it, and reads what has arrived.
Carry: TypeAlias = Callable[[Any], dict[Any, Array]]
# Of what the sides of a kink differ by: a jump.
JUMPED = 1e-2
# How far around it is seen whether something vanishes at a point; relative, by moves of last bits.
AROUND, STEP = 1e-3, 8 * float(np.finfo(float).eps)
# So many samples tell whether something is zero, and what rounding does at the most.
ENOUGH = SAMPLES + FURTHER
# Variables that are differentiated, each looked at by itself.
FEW = 8
# Of the largest value: changes that a wider precision may tell from a zero's.
BELOW = 1e-19
# A change of no more than last bits: of differences a few samples are all zero by chance.
UNMOVED = 2 * float(np.finfo(float).eps)
# So many times as far from a kink: what share of derivatives there is left, where they vanish.
FURTHER_OFF, ALIKE = 8, 0.2
# Changes that are none of rounding alone, but magnified.
LITTLE = 1e-10


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
    of : tuple of Variable
        What is differentiated, where what is carried is not that.
    """

    point: SolvedPoint
    carry: Carry
    width: int | None
    units: Units
    accuracy: float
    of: tuple[Variable, ...] = ()

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
            around = lambda there: list(carry(sweep_around(there, width)).values())
            arrays, jump = point.mean(list(found.values()), taken, around)
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
        # A block through which nothing was carried has no part in it.
        passed = [s for b, s in point.solved.items() if b in sweep.solutions]
        if any(s.at_kink for s in passed) and not self._is_still(first, sweep):
            error = np.inf
        if point.solved and (self.accuracy < error or unclear):
            finer = self._in_wider(point, first, sweep)
            if finer is not None:
                return finer
        for there in point.beyond:
            change = self.change(first, [self.near(there, sweep)])
            error += change if change > JUMPED else 0.0
        if point.compiled.iterates and not self.point.tied:
            doubts.append(f"the program {point.compiled.system.name!r} {DIVIDES}")
        if doubts:
            sweep.rounding = self._explained(point, first, sweep)
            sweep.doubts = tuple(dict.fromkeys(doubts))
            error += sweep.rounding
        if asked and not (point.doubtful or point.tied or point.side is not None):
            return Taken(found, sweep, error, jump, *ExplicitRounding(self, first, sweep).lost())
        return Taken(found, sweep, error, jump)

    def _is_still(self, found: Mapping[Any, Array], sweep: Carried) -> bool:
        """Whether derivatives are zero on both sides of a kink: what does not move has no jump.

        There they are in proportion to how far parameters are moved.
        """
        if any(np.any(a) for a in found.values()):
            return False
        sides, further = (
            [self.near(there, sweep) for there in self.point.sides(times)]
            for times in (1.0, FURTHER_OFF)
        )
        return all(
            largest(a) <= ALIKE * largest(far[key])
            for side, far in zip(sides, further, strict=True)
            for key, a in side.items()
        )

    def _in_wider(
        self, point: SolvedPoint, found: Mapping[Any, Array], first: Carried
    ) -> Taken | None:
        """What is carried where blocks are solved in a wider precision, where there is one."""
        there = wider_point(point)
        if there is None:
            return None
        sweep = there.sweep(self.width)
        kinds = {key: np.asarray(array).dtype for key, array in found.items()}
        finer = {key: np.asarray(a, kinds[key]) for key, a in self.carry(sweep).items()}
        if sweep.fault or not all(np.isfinite(array).all() for array in finer.values()):
            return None
        others = [closer(finer, self.near(other, sweep)) for other in there.others(range(ENOUGH))]
        change = self.change(finer, others)
        if self.accuracy < change < np.inf:  # of a gradient that vanishes, say
            around = self.around(point, found, first)
            change = self.change(finer, others, least=around)
        # Nor is it known here what some of it is.
        change = max(change, hidden(finer, others, self.units, self._scale(finer), UNSEEN, EXACTLY))
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
            return (closer(found, self.near(point.sample(k), sweep)) for k in numbers)

        with np.errstate(all="ignore"):
            others = [closer(found, self.near(there, sweep)) for there in point.samples]
            near_zero = set[Any]()
            more = near(range(SAMPLES, ENOUGH))
            change = SAFETY * self.change(found, others, more, near_zero=near_zero)
            if LITTLE < change < np.inf or change <= SAFETY * UNMOVED:
                # By chance a few samples are small, all of them.
                others += near(range(len(others), MANY))
                change = SAFETY * self.change(found, others, near(range(MANY, ENOUGH)))
            if self.accuracy < change < np.inf:
                others += near(range(MANY, ENOUGH))
                change = CLOSER * self.change(found, others)
            if self.accuracy < change < np.inf:
                # Of a gradient that vanishes all that is left is rounding.
                around = self.around(point, found, sweep)
                least = CLOSER * self.change(found, others, least=around)
                return least, False
        if not near_zero or point.compiled.operations > TOO_MANY:
            return change, False
        unclear = hidden(found, others, self.units, self._scale(found), BELOW) > 0
        return change, unclear

    def around(
        self, point: SolvedPoint, found: Mapping[Any, Array], sweep: Carried
    ) -> dict[Any, float]:
        """How large a gradient that vanishes here is close by; of others nothing.

        At an optimum it is what is left of much larger numbers, by every parameter, and rounding
        is theirs. Where what was given is a little different it is in proportion to that.
        """
        if not all(getattr(key, "role", "") == "parameter" for key in found):
            return {}
        whole, half = (next(self.moved(point, sweep, 1, s / STEP)) for s in (AROUND, AROUND / 2))
        sizes = {key: (largest(whole[key]), largest(half[key])) for key in found}
        vanishes = all(0.4 * a <= b <= 0.6 * a < np.inf for a, b in sizes.values())
        return {k: a for k, (a, _) in sizes.items()} if vanishes else {}

    def _explained(self, point: SolvedPoint, found: Mapping[Any, Array], sweep: Carried) -> float:
        """What of it changes where all that was given moves by its last bits.

        Or where the steps of loops are rounded otherwise.
        """
        change = max(self.change(found, [there]) for there in self.moved(point, sweep, MANY))
        if not repeats(point.compiled.system.arena.nodes):
            return change
        others = [closer(found, self.near(point.sample(k), sweep)) for k in range(MANY)]
        return max(change, SAFETY * self.change(found, others))

    def moved(
        self, point: SolvedPoint, sweep: Carried, samples: int = SAMPLES, times: float = 1.0
    ) -> Iterator[dict[Any, Array]]:
        """What is carried where all that was given moves by its last bits, or by more."""
        rng = np.random.default_rng(0)
        for _ in range(samples):
            move = lambda array: in_last_bits(np.asarray(array), rng, True, times)
            with moving(rng):
                yield self.near(point.in_last_bits(rng, times), sweep, move)

    def near(
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

    def change(
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
        scale = self._scale(found)
        how = (more, least, sure, loose, spoilt, near_zero)
        return relative_change(found, others, self.units, max(scale, self.point.cancels[1]), *how)

    def _scale(self, found: Mapping[Any, Array]) -> float:
        """The largest value that what is differentiated is made of."""
        outputs = set(self.of) or {key[0] if isinstance(key, tuple) else key for key in found}
        if len(outputs) > FEW or not all(isinstance(v, Variable) for v in outputs):
            return self.point.scale
        return max((scale_of(self.point, v) for v in outputs), default=self.point.scale)
