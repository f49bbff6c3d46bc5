"""A system at its solution: where sweeps start from, and how far their results can be trusted."""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.expressions.expression import Expression, Variable
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.primitives.repeated_eigenvalues import watching
from lagrad.solving.adjoint_sweep import Carried, ScalarPoint, ScalarSweep, Sweep
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import largest, nudge
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.kinks import Side
from lagrad.solving.last_bits import by_a_share, in_last_bits
from lagrad.solving.matrix_conditions import HARMLESS
from lagrad.solving.not_finite import mended
from lagrad.solving.relative_change import (
    ALL_BUT_ZERO,
    NEGLIGIBLE,
    UNSEEN,
    of_each,
    parts,
    shares,
    sized,
    worst_share,
)
from lagrad.solving.rounding_samples import COARSE, SAMPLES, SPACINGS, Roundings, stepping
from lagrad.solving.sides import Take, at_kink, mean_around, mean_of_sides
from lagrad.systems.linearization import Linearization, split
from lagrad.systems.structure import Block
from lagrad.typing import Array

# Roles of variables that nothing solves for.
GIVEN = ("parameter", "data")
# How far parameters are moved where equations have kinks.
STEPS = 1e-9, -1e-9
# What stands for the size of a parameter that is zero, and so has no error.
OF_ZERO = 1e-6
# Operations of a program without equations whose rounding is sampled when somebody asks.
SAMPLED_AT_MOST = 100_000


@dataclass(frozen=True, eq=False)
class SolvedPoint:
    """Values of all variables, and the factors of every implicit block."""

    compiled: CompiledSystem
    values: dict[Variable, Array]
    solved: dict[Block, Solved]
    flat: ScalarPoint | None = None
    # Of kinks at a point, itself or nearby, the side on which derivatives are taken.
    side: Side | None = None
    origin: "SolvedPoint | None" = None

    def __post_init__(self) -> None:
        for array in self.values.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    @cached_property
    def linearization(self) -> Linearization:
        """All local partials at this point."""
        return self._partials_at(self.values)

    def _partials_at(self, values: dict[Variable, Array]) -> Linearization:
        if self.side is not None:
            return self.compiled.sided(values, self.side, (self.origin or self).values)
        return self._linearized[0] if values is self.values else self.compiled.linearize(values)[0]

    @property
    def regular(self) -> bool:
        """Whether all local partials are numbers: not where rules say 0·∞."""
        return finite_data(self.linearization)

    def beside_itself(self) -> "SolvedPoint":
        """The point with local partials from beside it, where its own are no numbers."""
        return PointWithLimits(
            self.compiled, self.values, self.solved, side=self.side, origin=self.origin
        )

    def _nudged(self, elsewhere: bool) -> "SolvedPoint":
        """The point with all that definitions are made of a little to one side."""
        given = [(v, a) for v, a in self.values.items() if v.role == "parameter"]
        unknowns = {b: nudge(solved.point, elsewhere) for b, solved in self.solved.items()}
        return self.moved_by(unknowns, {v: a + nudge(np.asarray(a), elsewhere) for v, a in given})

    @cached_property
    def _linearized(self) -> tuple[Linearization, bool, bool]:
        if not self.compiled.parted:
            return *self.compiled.linearize(self.values), False
        with watching() as equal:
            return *self.compiled.linearize(self.values), bool(equal)

    @property
    def tied(self) -> bool:
        """Whether derivatives here are means over the sides of kinks."""
        if self.side is not None or (self.flat is not None and not self.flat.tied):
            return False
        return self.in_loops or (self.compiled.kinks is not None and self._linearized[1])

    @property
    def parted(self) -> bool:
        """Whether derivatives meet equal eigenvalues, among which they have no value."""
        return self.side is None and self.flat is None and self._linearized[2]

    @cached_property
    def in_loops(self) -> bool:
        """Whether a loop meets a kink of derivatives that it makes."""
        given = {v.name: self.values[v] for v in self.compiled.given}
        return self.compiled.meets_kinks(given)

    def sweep(self, width: int | None = None, near: Any = None, careful: bool = False) -> Carried:
        """A new sweep from here; a careful one leaves aside what no choice takes."""
        careful = careful or (near is not None and near.careful)
        if self.flat is not None and width is None and not careful:
            return ScalarSweep(self.compiled, self.flat)
        return Sweep(self.compiled, self.linearization, self.solved, width, near, careful)

    @cached_property
    def samples(self) -> "tuple[SolvedPoint, ...]":
        """The point as other, coarser roundings might have left it: all at random, at once.

        Each block's unknowns are moved by their error, one way or the other, and what that does
        to the blocks after it is carried on.
        """
        # The error of one block alone has nothing to cancel with.
        with np.errstate(all="ignore"):
            alone = len(self.solved) == 1 and all(b.parts is None for b in self.solved)
            return tuple(self.sample(k) for k in range(1 if alone else SAMPLES))

    def sample(self, number: int) -> "SolvedPoint":
        rounded = Roundings(number, SPACINGS)
        directions = {
            b: s.bound.direction * (SPACINGS * rounded.share(b.parts))
            for b, s in self.solved.items()
        }
        with stepping(rounded):
            there = self.moved_by(directions, {})
        if not all(np.isfinite(array).all() for array in there.values.values()):
            # At the edge of an equation's domain only one sign of an error stays within it.
            there = self.moved_by({block: -move for block, move in directions.items()}, {})
        if self.side is not None:
            return there  # with the selectors of its side, which rounding would move
        # However well a value is known, it is rounded.
        values = {v: np.asarray(a) for v, a in there.values.items()}
        values = {v: rounded(a) if v.role == "unknown" else a for v, a in values.items()}
        others, data = self.compiled.rounded(values, rounded)
        return RoundedPoint(self.compiled, values | others, self.solved, data=data, rounded=rounded)

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

    @cached_property
    def cancels(self) -> tuple[Expression | None, float]:
        """A sum of which little is left where there is nothing to solve, and its largest term."""
        if self.doubtful or self.side is not None:
            return None, 0.0
        found = self.compiled.cancels(self.values)
        return (None, 0.0) if found[0] is None or at_kink(self) else found

    def cancelled(self, number: int) -> "SolvedPoint":
        """The point with what differences are of rounded otherwise; nothing is solved for."""
        values = {v: a for v, a in self.values.items() if v.role in GIVEN}
        others, data = self.compiled.cancelling(values, Roundings(number, COARSE))
        return RoundedPoint(self.compiled, values | others, self.solved, data=data)

    @cached_property
    def beyond(self) -> "tuple[SolvedPoint, ...]":
        """The points on both sides of the kinks at which this one may be."""
        return self.sides()

    def sides(self, times: float = 1.0) -> "tuple[SolvedPoint, ...]":
        """The same, with parameters moved so many times as far."""
        if all(solved.jump is None for solved in self.solved.values()):
            return ()
        jumps = {b: s.bound.direction if s.jump is None else s.jump for b, s in self.solved.items()}
        back = {block: -jump for block, jump in jumps.items()}
        of_zero = OF_ZERO * min(s.share for s in self.solved.values())
        given = {v: self.values[v] for v in self.compiled.system.with_role("parameter")}
        steps = (times * s for s in STEPS)
        forth, short = ({v: by_a_share(a, s, of_zero) for v, a in given.items()} for s in steps)
        return self.moved_by(jumps, forth), self.moved_by(back, short)

    def in_last_bits(self, rng: np.random.Generator, times: float = 1.0) -> "SolvedPoint":
        """The point with all that is given moved by rounding, and what that makes of the rest."""
        given = [(v, a) for v, a in self.values.items() if v.role in GIVEN]
        return self.moved_by(
            {}, {v: in_last_bits(a, rng, v.role == "parameter", times) for v, a in given}
        )

    @property
    def beside(self) -> "SolvedPoint":  # with equal eigenvalues apart, where that is asked for
        return self.moved_by({}, {})

    def moved_by(
        self, directions: Mapping[Block, Array], parameters: Mapping[Variable, Array]
    ) -> "SolvedPoint":
        """The point with its unknowns moved, carried on from block to block, and parameters."""
        values = {v: a for v, a in self.values.items() if v.role in GIVEN or v.size == 0}
        values.update(parameters)
        memory: Any = None
        for run in self.compiled.runs:
            if isinstance(run, ImplicitRun):
                solved, unknowns = self.solved[run.block], run.block.unknowns
                point = solved.point + self._response(run, values)
                if run.block in directions:
                    point = point + directions[run.block]
                values.update(zip(unknowns, split(point, unknowns), strict=True))
            memory = run.evaluate(values)
        origin = None if self.side is None else self.origin or self
        flat = None if self.flat is None else ScalarPoint(self.flat.tape, memory)
        return SolvedPoint(self.compiled, values, self.solved, flat, self.side, origin)

    def averaged(self) -> "SolvedPoint":
        """The point with the means, over the sides of kinks, of values that are derivatives."""
        found = [v for v in self.values if v.role not in GIVEN]

        def taken(there: SolvedPoint) -> list[Array]:
            return [there.values[v] for v in found]

        means, _ = self.mean(taken(self), taken, taken)
        return replace(self, values=self.values | dict(zip(found, means, strict=True)))

    def mean(self, plain: Sequence[Array], taken: Take, around: Take) -> tuple[list[Array], float]:
        """The mean of what is taken over the sides of kinks, or around, and the jump."""
        with np.errstate(all="ignore"):
            if self.tied and not self.in_loops:
                plain, jump = mean_of_sides(self, plain, taken)
                if self.solved or all_finite(plain):
                    return list(plain), jump
            return mean_around(self, plain, around)

    def bounds(self) -> dict[str, float]:
        """The relative error of each variable but those given, by its name."""
        return {v.name: float(np.max(error, initial=0.0)) for v, error in self.errors().items()}

    def errors(self) -> dict[Variable, Any]:
        """The same by variable: of one whose entries count for themselves an array."""
        named = [v for v in self.values if v.role not in GIVEN]
        sizes = {v: parts(v, self.values[v]) for v in named}
        sizes = {v: sized(a, self.scale) for v, a in sizes.items()}
        found: dict[Variable, Any] = {v: 0.0 * sizes[v] for v in named}
        for block, solved in self.solved.items():
            sizes |= of_each(block.unknowns, solved.bound.sizes)
            found |= of_each(block.unknowns, solved.bound.each)
        for other in self.samples:
            for v, size in sizes.items():
                change = parts(v, other.values[v] - self.values[v]) / SPACINGS
                found[v] = np.maximum(found[v], shares(change, size))
        return found

    def spoils_definitions(self, accuracy: float) -> bool:
        """Whether what is defined changes more, relative to itself, where all is rounded."""
        limit, here = SPACINGS * accuracy, self.values
        pairs = (
            (v, s.values[v] - here[v])
            for s in self.samples
            for v in self.compiled.rounded.variables
        )
        return any(np.any(parts(v, c) > limit * parts(v, here[v])) for v, c in pairs)

    def matters(self, block: Block) -> Array:
        """The sizes that a block's unknowns would have to be felt."""
        # Or than the program's values, of what has no other multipliers beside it.
        others = (largest(a) for v, a in self.values.items() if v.derivative)
        top = max([1e-3 * self.scale, *others])
        felt = self.solved[block].bound.matters
        if not any(v.derivative for v in block.unknowns):
            return felt
        nothing = [v.derivative and largest(self.values[v]) <= UNSEEN * top for v in block.unknowns]
        return np.where(nothing, np.inf, felt)

    def drift(self, felt: bool = False) -> float:
        """The largest relative change of an unknown when errors are carried from block to block.

        Of definitions too, where these solve with matrices.
        """
        if not self.doubtful and self.compiled.operations > SAMPLED_AT_MOST:
            return 0.0
        return max(self._change_to(sample, felt) for sample in self.samples)

    def _change_to(self, other: "SolvedPoint", felt: bool) -> float:
        def moved(v: Variable) -> Any:
            return parts(v, other.values[v] - self.values[v]) / SPACINGS

        pairs = (
            (moved(unknown), size)
            for block, solved in self.solved.items()
            for unknown, size in of_each(
                block.unknowns, self.matters(block) if felt else solved.bound.sizes
            )
        )
        if self.solved and self.compiled.conditioned is None:
            return worst_share(pairs, NEGLIGIBLE * self.scale)
        here, there, known = self.values, other.values, self.compiled.rounded.variables
        if self.compiled.parted:  # what equal eigenvalues leave open is found beside them
            known = [v for v in known if not np.isnan(there[v]).any()]
        changes = ((moved(v), parts(v, here[v])) for v in known)
        floor = self.scale * (NEGLIGIBLE if self.solved else ALL_BUT_ZERO)
        return worst_share([*pairs, *changes], floor)

    @cached_property
    def scale(self) -> float:
        """The largest value of all but data and derivatives, also on the way to the solution."""
        if self.flat is not None:
            return self.flat.scale(self.compiled)
        return self.scale_among(self.values.keys())

    def scale_among(self, variables: Set[Any]) -> float:
        """The same of some variables."""
        counted = {v for v in variables if not v.derivative}
        given = [a for v, a in self.values.items() if v.role != "data" and v in counted]
        sizes = [size for size in map(largest, given) if np.isfinite(size)]
        solved = ((s, counted.issuperset(b.unknowns)) for b, s in self.solved.items())
        tops = [s.problem.scale.top for s, counts in solved if counts]
        return max([*sizes, *map(largest, tops)], default=0.0)

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


def finite_data(found: Linearization) -> bool:
    """Whether all local partials are numbers."""
    maps = [step.map for step in found.steps]
    return all(m is None or all(np.isfinite(value).all() for value in m.data) for m in maps)


@dataclass(frozen=True, eq=False)
class PointWithLimits(SolvedPoint):
    """A point whose local partials are from beside it, where its own are no numbers."""

    @cached_property
    def linearization(self) -> Linearization:
        found = self._partials_at(self.values)
        if finite_data(found):
            return found
        for where in (False, True):
            if not finite_data(found):
                found = mended(found, self._partials_at(self._nudged(where).values))
        return found

    def sample(self, number: int) -> SolvedPoint:
        """A sample with its own values, and the partials from beside it."""
        there = super().sample(number)
        return replace(self, values=there.values)


@dataclass(frozen=True, eq=False)
class RoundedPoint(SolvedPoint):
    """A point with the data of its tape, both as other roundings might have left them."""

    data: Sequence[Array] = ()
    rounded: Roundings | None = None

    @cached_property
    def linearization(self) -> Linearization:
        return self.compiled.tape.at(self.data, self.rounded)
