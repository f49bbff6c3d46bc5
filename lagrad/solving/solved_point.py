"""A system at its solution: where sweeps start from, and how far their results can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.solving.compiled_system import CompiledSystem, ExplicitRun, ImplicitRun
from lagrad.solving.scalar_sweep import ScalarPoint, ScalarSweep
from lagrad.solving.solved_block import Solved
from lagrad.solving.sweep import Sweep
from lagrad.systems.linearization import Linearization, split
from lagrad.systems.structure import Block
from lagrad.typing import Array

# Roles of variables that nothing solves for.
GIVEN = ("parameter", "data")
# How far parameters are moved where equations have kinks, and which change is a jump.
JUMP, JUMPED = 1e-9, 1e-2


class SolvedPoint:
    """Values of all variables, and the factors of every implicit block."""

    def __init__(
        self,
        compiled: CompiledSystem,
        values: dict[Variable, Array],
        solved: dict[Block, Solved],
        flat: ScalarPoint | None = None,
    ) -> None:
        for array in values.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        self.compiled = compiled
        self.values = values
        self.solved = solved
        self.flat = flat

    @cached_property
    def linearization(self) -> Linearization:
        """All local partials at this point."""
        return self.compiled.linearize(self.values)

    def sweep(self, width: int | None = None, near: Any = None) -> Sweep | ScalarSweep:
        """A new sweep from here."""
        if self.flat is not None and width is None:
            return ScalarSweep(self.compiled, self.flat)
        return Sweep(self.compiled, self.linearization, self.solved, width, near)

    @cached_property
    def moved(self) -> SolvedPoint:
        """The point with its unknowns moved by their errors, carried on from block to block."""
        return self._moved(
            {block: solved.bound.direction for block, solved in self.solved.items()}, 0.0
        )

    @cached_property
    def kinked(self) -> bool:
        """Whether some Jacobian may jump near the point."""
        return any(solved.jump is not None for solved in self.solved.values())

    @cached_property
    def beyond(self) -> tuple[SolvedPoint, ...]:
        """The points on both sides of the kinks at which this one may be."""
        if not self.kinked:
            return ()
        jumps = {b: s.bound.direction if s.jump is None else s.jump for b, s in self.solved.items()}
        back = {block: -jump for block, jump in jumps.items()}
        # A kink may lie where the unknowns are zero, and have no size to be moved by.
        return self._moved(jumps, JUMP), self._moved(back, -JUMP)

    def _moved(self, directions: Mapping[Block, Array], share: float) -> SolvedPoint:
        values = {v: a for v, a in self.values.items() if v.role in GIVEN or v.size == 0}
        if share:
            for v, array in values.items():
                if v.role == "parameter":
                    step = share * max(1.0, 1e12 * float(np.finfo(v.dtype).eps))
                    size = np.abs(array)
                    size = np.where(size > 0, size, largest(array) or 1.0)
                    values[v] = (array + step * size).astype(v.dtype)
        for run in self.compiled.runs:
            if isinstance(run, ExplicitRun):
                run.evaluate(values)
                continue
            solved, unknowns = self.solved[run.block], run.block.unknowns
            point = solved.point + directions[run.block] + self._response(run, values)
            values.update(zip(unknowns, split(point, unknowns), strict=True))
            run.evaluate_definitions(values)
        return SolvedPoint(self.compiled, values, self.solved)

    def drift(self) -> float:
        """The largest relative change of an unknown when errors are carried from block to block."""
        worst = 0.0
        for block, solved in self.solved.items():
            for unknown, size in zip(block.unknowns, solved.bound.sizes, strict=True):
                change = largest(self.moved.values[unknown] - self.values[unknown])
                if size <= 10 * change:
                    size = max(size, NEGLIGIBLE * self.scale)
                if change:
                    worst = max(worst, change / size if size else np.inf)
        return worst

    @cached_property
    def scale(self) -> float:
        """The largest value of all but data, those on the way to the solution among them."""
        if self.flat is not None:
            return largest(self.flat.values)
        sizes = [largest(array) for v, array in self.values.items() if v.role != "data"]
        return max([*sizes, *(solved.top for solved in self.solved.values())], default=0.0)

    def seconds_of_evaluation(self) -> float:
        """How long all definitions and residuals take, once, the best of three times."""
        best = np.inf
        for _ in range(3):
            values, began = dict(self.values), time.perf_counter()
            for run in self.compiled.runs:
                if isinstance(run, ExplicitRun):
                    run.evaluate(values)
                else:
                    outer = run.equations.outer_values(values)
                    run.equations.residual(outer, self.solved[run.block].point)
                    run.evaluate_definitions(values)
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
        compiled, linearization = self.compiled, self.linearization
        tape = compiled.tape
        for stretch in compiled.stretches:
            for k in stretch.steps:
                step = linearization.steps[k]
                data = () if step.map is None else step.map.data
                if all(np.isfinite(value).all() for value in data):
                    continue
                for block in stretch.run.blocks:
                    for constraint in block.constraints:
                        if tape.slots.get(constraint.root.index, -1) >= step.target:
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
    ) -> tuple[dict[Any, Array], Sweep | ScalarSweep, float]:
        """What a sweep carries, the sweep, and a first-order bound of its relative error.

        The same sweep at the moved point, each block's solution corrected once, shows what the
        error of the solution does to the result.
        """
        with np.errstate(all="ignore"):
            sweep = self.sweep(width)
            found = carry(sweep)
            # The refinement's last correction is one sample of rounding, not the worst.
            error = 4 * sweep.error
            if self.solved:
                other = carry(self.moved.sweep(width, near=sweep))
                error += 2 * relative_change(found, other, units, self.scale)
            if any(solved.at_kink for solved in self.solved.values()):
                error = np.inf
            for point in self.beyond:
                other = carry(point.sweep(width, near=sweep))
                change = relative_change(found, other, units, self.scale)
                error += change if change > JUMPED else 0.0
        return found, sweep, error


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
    unit = {key: units.get(key) or 1.0 for key in found}
    top = max((sizes[key] / unit[key] for key in found), default=0.0)
    widest = max(unit.values(), default=1.0)
    worst = 0.0
    for key, array in found.items():
        change = largest(np.asarray(other[key]) - array) if np.size(array) else 0.0
        if not np.isfinite(change):
            return np.inf
        size = sizes[key]
        if size <= 10 * change:
            size = max(size, max(top, NEGLIGIBLE * scale) * widest)
        if change:
            worst = max(worst, change / size if size else np.inf)
    return worst


def largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))
