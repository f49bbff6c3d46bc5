"""A solved point once more in a wider precision, its blocks included.

Rounding that is magnified from block to block, or by what cancels in a derivative, is magnified
there as well, and is a thousand times smaller. Unknowns go on from doubles by Newton's method, its
residuals in the wider precision and its factors in doubles; multipliers are refined likewise.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from lagrad.errors import SingularSystem
from lagrad.expressions.expression import Expression, Variable
from lagrad.linear_solvers.base import ESTIMATE, Factors
from lagrad.linear_solvers.jacobian import signed
from lagrad.solving.adjoint_sweep import Sweep
from lagrad.solving.block_certification import POLISHED_AT_MOST, Solved, at_the_end
from lagrad.solving.block_equations import BlockEquations, LocalEquations, largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Run
from lagrad.solving.finer_derivatives import plan_of
from lagrad.solving.relative_change import (
    EXACTLY,
    NEGLIGIBLE,
    TOLD,
    UNSEEN,
    of_each,
    parts,
    share,
    shares,
    sized,
    worst_share,
)
from lagrad.solving.rounding_samples import CLOSER, FURTHER, SAMPLES, SPACINGS, Roundings
from lagrad.solving.solved_point import GIVEN, SAMPLED_AT_MOST, RoundedPoint, SolvedPoint
from lagrad.solving.wider_precision import WideNodes, wider_than
from lagrad.systems.linearization import Linearization, joined, split
from lagrad.systems.structure import Block
from lagrad.typing import Array

# A last correction that is longer is none of rounding: the factors do not lead to the solution.
FAR_OFF = 1e-6
# How often factors are made anew on the way there, and how many times a correction that none of
# them makes shorter the solution may be away.
REFACTORED, STALLED = 3, 10.0
# What a block's unknowns are, for values of what comes before it.
Found: TypeAlias = "Callable[[ImplicitRun, Mapping[Variable, Array]], Array]"


class Narrow(Exception):
    """Something knows nothing wider than doubles."""


class InDoubles(Factors):
    """Factors that solve in doubles, of right sides in a wider precision."""

    def __init__(self, base: Factors) -> None:
        self.base, self.shape = base, base.shape

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        found = self.base.solve(right.astype(float), transposed, tol)
        return np.asarray(found, dtype=right.dtype)


class WiderEquations(LocalEquations):
    """A block's equations at a point in a wider precision: their Jacobian by its products."""

    def __init__(self, equations: BlockEquations, outer: list[Array], point: Array) -> None:
        self.equations, self.outer, self.point, self.side = equations, outer, point, None
        self.values = [*outer, *split(point, equations.unknowns)]

    @cached_property
    def partials(self) -> list[Linearization]:
        """Local partials here."""
        return [self.equations.tape.at(known(self.equations.wider_data(self.values)))]


def defined_in(run: Run) -> WideNodes:
    """What a run defines."""
    return WideNodes(run.inputs, run.variables, run.defined, np.dtype(float))


def known(found: list[Array] | None) -> list[Array]:
    if found is None:
        raise Narrow
    return found


def widened(array: Array) -> Array:
    return array.astype(np.longdouble) if array.dtype.kind == "f" else array


def is_wide(compiled: CompiledSystem) -> bool:
    """Whether there is a wider precision for a system, and all of it in doubles."""
    doubles = all(v.dtype == float for v in compiled.given if v.dtype.kind == "f")
    small = compiled.operations <= SAMPLED_AT_MOST
    return doubles and small and wider_than(np.dtype(float)) is not None


def wider_point(point: SolvedPoint) -> "WiderPoint | None":
    """A point in a wider precision; None where something in it knows nothing wider.

    Nor where derivatives are means over sides, or of one of many solutions.
    """
    plain = all(
        s.jump is None
        and (s.free is None or s.free.alone)
        and not s.truncated
        and np.isfinite(s.bound.error)
        for s in point.solved.values()
    )
    if not plain or point.side is not None or point.tied or not is_wide(point.compiled):
        return None
    with np.errstate(all="ignore"):
        try:
            return at_root(point)
        except Narrow:
            return None


class WiderSweep(Sweep):
    """A sweep whose seeds are as wide as what it starts from: constants make nothing wider."""

    def seed(self, node: Expression, value: Array) -> None:
        super().seed(node, widened(np.asarray(value)))


@dataclass(frozen=True, eq=False)
class WiderPoint(RoundedPoint):
    """A solved point in a wider precision, and the last correction of each block there."""

    last: Mapping[Block, Array] = field(default_factory=dict)

    def sweep(self, width: int | None = None, near: Any = None, careful: bool = False) -> Sweep:
        return WiderSweep(self.compiled, self.linearization, self.solved, width, near, careful)

    def others(self, which: range) -> "Iterator[WiderPoint]":
        """The point as other roundings in the wider precision might have left it."""
        return (self._rounded(Roundings(number, SPACINGS)) for number in which)

    def _rounded(self, rounded: Roundings) -> "WiderPoint":
        def moved(run: ImplicitRun, values: Mapping[Variable, Array]) -> Array:
            solved = self.solved[run.block]
            left = residual(run, values, solved.point, rounded)
            z = solved.point - solved.factors.solve(left, tol=ESTIMATE)
            found: Array = rounded(
                z + SPACINGS * rounded.share(run.block.parts) * self.last[run.block]
            )
            return found

        return carried_on(self, moved, self.solved, rounded)


def at_root(point: SolvedPoint) -> WiderPoint:
    """The point to which Newton's method leads on in the wider precision."""
    solved: dict[Block, Solved] = {}
    last: dict[Block, Array] = {}

    def found(run: ImplicitRun, values: Mapping[Variable, Array]) -> Array:
        here = point.solved[run.block]
        z, last[run.block] = root(run, values, here)
        equations = WiderEquations(run.equations, run.equations.outer_values(values), z)
        solved[run.block] = replace(
            here, point=z, jacobian=equations.products(), factors=InDoubles(here.factors), warm=None
        )
        return z

    return replace(carried_on(point, found, solved), last=last)


def carried_on(
    point: SolvedPoint,
    unknowns: Found,
    solved: dict[Block, Solved],
    rounded: Roundings | None = None,
) -> WiderPoint:
    """The point with unknowns as they are found, block by block, and all that follows from them."""
    compiled = point.compiled
    values = {
        v: widened(np.asarray(a)) for v, a in point.values.items() if v.role in GIVEN or v.size == 0
    }
    for run in compiled.runs:
        if isinstance(run, ImplicitRun):
            pieces = split(unknowns(run, values), run.block.unknowns)
            values.update(zip(run.block.unknowns, pieces, strict=True))
        follows = compiled.once(defined_in, run)([values[v] for v in run.inputs], rounded)
        values.update(zip(run.variables, map(np.asarray, known(follows)), strict=True))
    data = known(plan_of(compiled)([values[v] for v in compiled.given], rounded))
    return WiderPoint(compiled, values, solved, data=data, rounded=rounded)


def root(run: ImplicitRun, values: Mapping[Variable, Array], here: Solved) -> tuple[Array, Array]:
    """A block's unknowns in the wider precision, and their last correction.

    The factors are of a Jacobian nearby, and made anew where that is too far off: of sin(x) at
    1e14 the doubles around x know little.
    """
    scale, problem, z = here.problem.scale, here.problem, widened(here.point)
    factors = InDoubles(here.factors)
    # Beside what it was: one that is zero has no size of its own.
    sizes = np.maximum(scale.largest(z), 1e-300)

    def length_of(step: Array) -> float:
        return scale.length(step, np.maximum(scale.largest(z), sizes))

    for fresh in range(REFACTORED + 1):
        before = np.inf
        for _ in range(POLISHED_AT_MOST):
            step = -factors.solve(residual(run, values, z), tol=ESTIMATE)
            z = z + step
            length = length_of(step)
            if not length < 0.5 * before:
                break
            before = length
        else:
            return z, step
        other = residual(run, values, z, Roundings(0)) - residual(run, values, z)
        # Unless no more is left of it than rounding.
        if length <= TOLD * length_of(factors.solve(other, tol=ESTIMATE)):
            return z, step
        if here.factors.iterative or fresh == REFACTORED:
            break
        near = problem.jacobian(problem.at(z.astype(here.point.dtype)))
        try:
            factors = InDoubles(problem.factor(near, "in a wider precision"))
        except SingularSystem:
            break
    if not length <= FAR_OFF:
        raise Narrow
    return z, STALLED * step


def residual(
    run: ImplicitRun,
    values: Mapping[Variable, Array],
    point: Array,
    rounded: Roundings | None = None,
) -> Array:
    equations = run.equations
    given = [*equations.outer_values(values), *split(point, equations.unknowns)]
    return joined(known(equations.wider(given, rounded)))


@dataclass(frozen=True, eq=False)
class RefinedPoint(SolvedPoint):
    """A point that was rounded from a wider precision, and how far each variable may be off."""

    spread: Mapping[Variable, Any] = field(default_factory=dict)

    def errors(self) -> dict[Variable, Any]:
        sizes = {v: parts(v, self.values[v]) for v in self.spread}
        sizes = {v: sized(a, self.scale) for v, a in sizes.items()}
        for block, solved in self.solved.items():
            sizes |= of_each(block.unknowns, solved.bound.sizes)
        return {v: shares(self.spread[v], size) for v, size in sizes.items()}

    def spoilt_derivatives(self) -> float:
        """How far off, relative, a value that is a derivative may be, and no zero."""
        found = 0.0
        for v, off in self.spread.items():
            size = parts(v, self.values[v])
            if v.derivative and v.role == "defined" and off > UNSEEN * self.scale:
                found = max(found, share(off, size) if size >= EXACTLY * off else 0.0)
        return found

    def matters(self, block: Block) -> Array:
        sizes = super().matters(block)
        # What the wider precision cannot tell from zero is no smaller number.
        zero = [parts(v, self.values[v]) <= TOLD * self.spread[v] for v in block.unknowns]
        return np.maximum(sizes, np.where(np.hstack(zero), NEGLIGIBLE * self.scale, 0.0))

    def drift(self, felt: bool = False) -> float:
        pairs = (
            (self.spread[v], size)
            for block, solved in self.solved.items()
            for v, size in of_each(
                block.unknowns, self.matters(block) if felt else solved.bound.sizes
            )
        )
        return worst_share(pairs, NEGLIGIBLE * self.scale)


def refined(point: SolvedPoint) -> RefinedPoint | None:
    """The solution that a wider precision leads to, in the usual one; None where there is none."""
    there = wider_point(point)
    if there is None:
        return None
    with np.errstate(all="ignore"):
        others = list(there.others(range(SAMPLES + FURTHER)))
    values, spread = dict(point.values), {}
    for v, a in there.values.items():
        if v.role in GIVEN:
            continue
        values[v] = np.asarray(a, dtype=v.dtype)
        away = functools.reduce(np.maximum, [parts(v, o.values[v] - a) for o in others])
        spread[v] = CLOSER / SPACINGS * away + parts(v, values[v] - a)
    solved = {
        run.block: rounded_end(run, values, point.solved[run.block], spread)
        for run in point.compiled.runs
        if isinstance(run, ImplicitRun)
    }
    return RefinedPoint(point.compiled, values, solved, spread=spread)


def rounded_end(
    run: ImplicitRun,
    values: Mapping[Variable, Array],
    before: Solved,
    spread: Mapping[Variable, Any],
) -> Solved:
    """A block at values rounded from a wider precision, where it was `before`."""
    equations = run.equations
    problem = BlockProblem(equations, equations.outer_values(values), before.problem.solver)
    problem.scale, problem.history = before.problem.scale, before.problem.history
    here = problem.at(equations.vector(values))
    jacobian, factors, gain = at_the_end(problem, here, before.factors)
    off = np.hstack([spread[v] for v in run.block.unknowns])
    each = off / np.maximum(before.bound.sizes, 1e-300)
    direction = signed(np.repeat(off, problem.scale.sizes))
    return replace(
        before,
        problem=problem,
        point=here.point,
        jacobian=jacobian,
        factors=factors,
        residual=largest(here.residual),
        contraction=gain,
        bound=replace(before.bound, direction=direction, each=each, error=largest(each)),
    )
