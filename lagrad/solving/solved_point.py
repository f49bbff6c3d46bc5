"""A system at its solution: where sweeps start from, and how far their results can be trusted."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.solving.adjoint_sweep import Carried, ScalarPoint, ScalarSweep, Sweep
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import largest
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.last_bits import doubting, in_last_bits, moving
from lagrad.solving.matrix_conditions import HARMLESS
from lagrad.solving.rounding_samples import SAFETY, SAMPLES, Roundings
from lagrad.systems.linearization import Linearization, split
from lagrad.systems.structure import Block
from lagrad.typing import Array

# What seeds a sweep, runs it, and reads what has arrived.
Carry: TypeAlias = Callable[[Any], dict[Any, Array]]
# Roles of variables that nothing solves for.
GIVEN = ("parameter", "data")
# How far parameters are moved where equations have kinks, and which change is a jump.
JUMP, JUMPED = 1e-9, 1e-2
# Operations of a program without equations whose rounding is sampled when somebody asks.
SAMPLED_AT_MOST = 100_000


@dataclass(frozen=True, eq=False)
class SolvedPoint:
    """Values of all variables, and the factors of every implicit block."""

    compiled: CompiledSystem
    values: dict[Variable, Array]
    solved: dict[Block, Solved]
    flat: ScalarPoint | None = None

    def __post_init__(self) -> None:
        for array in self.values.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    @cached_property
    def linearization(self) -> Linearization:
        """All local partials at this point."""
        return self.compiled.linearize(self.values)

    def sweep(self, width: int | None = None, near: Any = None) -> Carried:
        """A new sweep from here."""
        if self.flat is not None and width is None:
            return ScalarSweep(self.compiled, self.flat)
        return Sweep(self.compiled, self.linearization, self.solved, width, near)

    @cached_property
    def samples(self) -> "tuple[RoundedPoint, ...]":
        """The point as other roundings might have left it: all that is off at random, at once.

        Each block's unknowns are moved by their error, one way or the other, and what that does
        to the blocks after it is carried on.
        """
        # The error of one block alone has nothing to cancel with.
        with np.errstate(all="ignore"):
            return tuple(self._sample(k) for k in range(1 if len(self.solved) == 1 else SAMPLES))

    @cached_property
    def condition(self) -> float:
        """The largest condition number of the blocks' Jacobians and the definitions' matrices."""
        matrices = self.compiled.conditioned
        found = [s.condition for s in self.solved.values()]
        if matrices is not None:
            found.append(matrices.condition(self.values))
        return max(found, default=1.0)

    @cached_property
    def doubtful(self) -> bool:
        """Whether rounding may be magnified: where something was solved for, or would be."""
        if self.solved:
            return True
        matrices = self.compiled.conditioned
        return matrices is not None and not self.condition < HARMLESS

    def _sample(self, number: int) -> "RoundedPoint":
        rounded = Roundings(number)
        directions = {
            block: solved.bound.direction * rounded.share() for block, solved in self.solved.items()
        }
        there = self._moved(directions, 0.0)
        if not all(np.isfinite(a).all() for a in there.values.values() if a.dtype.kind == "f"):
            # At the edge of an equation's domain only one sign of an error stays within it.
            there = self._moved({block: -move for block, move in directions.items()}, 0.0)
        others, data = self.compiled.rounded(there.values, rounded)
        return RoundedPoint(
            self.compiled, {**there.values, **others}, self.solved, None, data, rounded
        )

    @cached_property
    def beyond(self) -> "tuple[SolvedPoint, ...]":
        """The points on both sides of the kinks at which this one may be."""
        if all(solved.jump is None for solved in self.solved.values()):
            return ()
        jumps = {b: s.bound.direction if s.jump is None else s.jump for b, s in self.solved.items()}
        back = {block: -jump for block, jump in jumps.items()}
        # A kink may lie where the unknowns are zero, and have no size to be moved by.
        return self._moved(jumps, JUMP), self._moved(back, -JUMP)

    def in_last_bits(self, rng: np.random.Generator) -> "SolvedPoint":
        """The point with all that is given moved by rounding, and what that makes of the rest."""
        given = [(v, a) for v, a in self.values.items() if v.role in GIVEN]
        other = {v: in_last_bits(a, rng, whole=v.role == "parameter") for v, a in given}
        return self._moved({b: np.zeros_like(s.point) for b, s in self.solved.items()}, 0.0, other)

    def _moved(
        self,
        directions: Mapping[Block, Array],
        share: float,
        given: Mapping[Variable, Array] | None = None,
    ) -> "SolvedPoint":
        values = {v: a for v, a in self.values.items() if v.role in GIVEN or v.size == 0}
        values |= given or {}
        memory: Any = None
        if share:
            for v, array in values.items():
                if v.role == "parameter":
                    step = share * max(1.0, 1e12 * float(np.finfo(v.dtype).eps))
                    size = np.abs(array)
                    size = np.where(size > 0, size, largest(array) or 1.0)
                    values[v] = (array + step * size).astype(v.dtype)
        for run in self.compiled.runs:
            if isinstance(run, ImplicitRun):
                solved, unknowns = self.solved[run.block], run.block.unknowns
                point = solved.point + directions[run.block] + self._response(run, values)
                values.update(zip(unknowns, split(point, unknowns), strict=True))
            memory = run.evaluate(values)
        flat = None if self.flat is None else ScalarPoint(self.flat.tape, memory)
        return SolvedPoint(self.compiled, values, self.solved, flat)

    def drift(self) -> float:
        """The largest relative change of an unknown when errors are carried from block to block.

        Of definitions too, where these solve with matrices.
        """
        if not self.doubtful and self.compiled.operations > SAMPLED_AT_MOST:
            return 0.0
        return max(self._change_to(sample) for sample in self.samples)

    def _change_to(self, other: "SolvedPoint") -> float:
        pairs = (
            (largest(other.values[unknown] - self.values[unknown]), size)
            for block, solved in self.solved.items()
            for unknown, size in zip(block.unknowns, solved.bound.sizes, strict=True)
        )
        if self.solved and self.compiled.conditioned is None:
            return worst_share(pairs, NEGLIGIBLE * self.scale)
        defined = self.compiled.rounded.variables
        changes = (
            (largest(other.values[v] - self.values[v]), largest(self.values[v])) for v in defined
        )
        return worst_share(itertools.chain(pairs, changes), NEGLIGIBLE * self.scale)

    @cached_property
    def scale(self) -> float:
        """The largest value of all but data, those on the way to the solution among them."""
        if self.flat is not None:
            return largest(self.flat.values)
        sizes = [largest(array) for v, array in self.values.items() if v.role != "data"]
        sizes = [size for size in sizes if np.isfinite(size)]
        return max(
            [*sizes, *(largest(s.problem.scale.top) for s in self.solved.values())], default=0.0
        )

    def seconds_of_evaluation(self) -> float:
        """How long all definitions and residuals take, once, the best of three times."""
        best = np.inf
        for _ in range(3):
            values, began = dict(self.values), time.perf_counter()
            for run in self.compiled.runs:
                if isinstance(run, ImplicitRun):
                    outer = run.equations.outer_values(values)
                    run.equations.residual(outer, self.solved[run.block].point)
                run.evaluate(values)
            best = min(best, time.perf_counter() - began)
        return best

    def _response(self, run: ImplicitRun, values: Mapping[Variable, Array]) -> Array:
        """What a block's unknowns make of the moves before it: one step with its factors."""
        equations, solved = run.equations, self.solved[run.block]
        if all(values[v] is self.values[v] for v in equations.outer):
            return 0.0
        here, there = (
            equations.residual(equations.outer_values(at), solved.point)
            for at in (self.values, values)
        )
        return -solved.factors.solve(there - here, tol=ESTIMATE)

    def culprit(self) -> str:
        """The first constraint whose local partials are not finite."""
        slots, steps = self.compiled.tape.slots, self.linearization.steps
        for stretch in self.compiled.stretches:
            constraints = [c for block in stretch.run.blocks for c in block.constraints]
            for step in (steps[k] for k in stretch.steps):
                data = () if step.map is None else step.map.data
                if all(np.isfinite(value).all() for value in data):
                    continue
                for constraint in constraints:
                    if slots.get(constraint.root.index, -1) >= step.target:
                        return f"at this point the constraint {constraint.name!r}"
        return "the program"

    def kinks(self) -> str:
        """A line that names the blocks with kinks, if any."""
        names = [block.label for block, solved in self.solved.items() if solved.jump is not None]
        if not names:
            return ""
        return (
            f"  The equations of {', '.join(names)} have kinks (abs, maximum, where, prox), and "
            "the solution may be at one, where the derivative jumps.\n"
        )

    def carried(
        self,
        carry: Callable[[Any], dict[Any, Array]],
        width: int | None,
        units: Mapping[Any, float],
    ) -> tuple[dict[Any, Array], Carried, float]:
        """What a sweep carries, the sweep, and a first-order bound of its relative error.

        The same sweeps with other roundings, each block's solution corrected once, show what the
        error of the solution and rounding on the way do to the result.
        """
        with np.errstate(all="ignore"):
            with doubting() as doubts:
                sweep = self.sweep(width)
                found = carry(sweep)
            # The refinement's last correction is one sample of rounding, not the worst.
            error = 4 * sweep.error
            if not all(np.isfinite(array).all() for array in found.values()):
                return found, sweep, error  # there is nothing to compare with
            if self.doubtful:
                error += self.rounding(carry, width, units, found, sweep)
            if any(solved.at_kink for solved in self.solved.values()):
                error = np.inf
            for point in self.beyond:
                other = carry(point.sweep(width, near=sweep))
                change = relative_change(found, other, units, self.scale)
                error += change if change > JUMPED else 0.0
            if self.compiled.iterates:
                doubts.append(f"the program {self.compiled.system.name!r}")
            if doubts:
                rng = np.random.default_rng(0)
                for _ in range(SAMPLES):
                    with moving(rng):
                        other = carry(self.in_last_bits(rng).sweep(width, near=sweep))
                    change = relative_change(found, other, units, self.scale)
                    sweep.rounding = max(sweep.rounding, change)
                sweep.doubts = tuple(dict.fromkeys(doubts))
                error += sweep.rounding
        return found, sweep, error

    def rounding(
        self,
        carry: Carry,
        width: int | None,
        units: Mapping[Any, float],
        found: Mapping[Any, Array],
        sweep: Carried,
    ) -> float:
        """What the errors of the solution and rounding change of what a sweep has found."""
        if not self.doubtful and self.compiled.operations > SAMPLED_AT_MOST:
            return 0.0
        with np.errstate(all="ignore"):
            others = [carry(sample.sweep(width, near=sweep)) for sample in self.samples]
        changes = (relative_change(found, other, units, self.scale) for other in others)
        return SAFETY * max(changes)

    @property
    def beside(self) -> "SolvedPoint":
        """The point with equal eigenvalues moved apart, where that is asked for."""
        return self._moved(dict.fromkeys(self.solved, np.zeros(())), 0.0)


@dataclass(frozen=True, eq=False)
class RoundedPoint(SolvedPoint):
    """A point with the data of its tape, both as other roundings might have left them."""

    data: Sequence[Array] = ()
    rounded: Roundings | None = None

    @cached_property
    def linearization(self) -> Linearization:
        return self.compiled.tape.at(self.data, self.rounded)


# Of the largest value: what a result that should be zero is measured by.
NEGLIGIBLE = 1e-6


def relative_change(
    found: Mapping[Any, Array], other: Mapping[Any, Array], units: Mapping[Any, float], scale: float
) -> float:
    """The largest relative change among arrays, each measured by its own largest entry.

    One that cannot be told from zero is measured by the largest of all, in the given units, or by
    a millionth of the largest value in the program: by symmetry, say, it may be zero, and its
    rounding is that of what cancelled.
    """
    sizes = {key: largest(array) for key, array in found.items()}
    changes = [largest(np.asarray(other[k]) - a) if np.size(a) else 0.0 for k, a in found.items()]
    if not np.isfinite(changes).all():
        return np.inf
    unit = {key: units.get(key) or 1.0 for key in found}
    top = max((sizes[key] / unit[key] for key in found), default=0.0)
    widest = max(unit.values(), default=1.0)
    pairs = zip(changes, sizes.values(), strict=True)
    return worst_share(pairs, max(top, NEGLIGIBLE * scale) * widest)


def worst_share(pairs: Iterable[tuple[float, float]], floor: float) -> float:
    """The largest of some changes, each over its size.

    A size that cannot be told from zero is taken as no less than the floor. NaN, of a point that
    left the equations' domain, says nothing of the others, and is infinitely large.
    """
    worst = 0.0
    for change, size in pairs:
        if size <= 10 * change:
            size = max(size, floor)
        if change:
            worst = max(worst, change / size if size and not np.isnan(change) else np.inf)
    return worst
