"""What is taken of a solved system on the sides of its kinks."""

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import LagradError
from lagrad.expressions.graph import selects
from lagrad.solving.adjoint_sweep import Carried, Sweep
from lagrad.solving.block_equations import largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.kinks import Kinks, Side, directions, mean, moved
from lagrad.solving.not_finite import unmoved
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import Linearization, split
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.solving.solved_point import SolvedPoint

# What is taken of a point.
Take: TypeAlias = "Callable[[SolvedPoint], Sequence[Array]]"
# By what differences grow where distances double, along powers that are told from logarithms and
# from jumps, and how far from that they may be.
SLOWEST, FASTEST, STRAYS = 1.05, 8.0, 1e-2
# How far from a point others are that are looked at, of the distance at which rounding is as large
# as what bends; and how well limits from these agree, at the best and at the worst.
SHARES = tuple(10.0**-k for k in range(9))
AGREE, ALIKE = 1e-9, 1e-7
# After so many ways along which there is no limit of anything nobody looks any further.
HOPELESS = 4
# Of derivatives: differences that are rounding. Of differences: what is left of them.
UNSEEN, ZERO = 1e-11, 1e-8


def sides_of(point: "SolvedPoint") -> Iterator[tuple[Side, Side]]:
    """How selectors fall on the sides of the kinks here, in pairs."""
    kinks, given = point.compiled.kinks, point.compiled.given
    assert kinks is not None
    parameters = point.compiled.moving
    unknowns = {b: s.point for b, s in point.solved.items()}

    def fallen(way: Array, sign: float) -> Side:
        there = moved([point.values[v] for v in parameters], sign * way)
        near = point.moved_by({}, dict(zip(parameters, there, strict=True)))
        # What stays at its kink along the solutions does so in the equations alone.
        apart = {
            block: moved([x], sign * next(directions(x.size)), 1e-3)[0] - x
            for block, x in unknowns.items()
        }
        further = near.moved_by(apart, {})
        return kinks.side(*([at.values[v] for v in given] for at in (near, further, point)))

    for way in directions(sum(v.size for v in parameters)):
        yield fallen(way, 1.0), fallen(way, -1.0)


def at_kink(point: "SolvedPoint") -> bool:
    """Whether some selector is tied here, of whatever degree derivatives are in it.

    Another rounding falls to one of its sides.
    """
    # It is kept by the system, which would hold itself in a circle.
    plan = point.compiled.once(ties_of, weakref.ref(point.compiled))
    ties = [] if plan is None else plan([point.values[v] for v in point.compiled.given])
    return any(np.any(tie) for tie in ties)


def ties_of(of: "weakref.ref[CompiledSystem]") -> Plan | None:
    """Where the selectors of a system's derivatives are tied."""
    compiled = of()
    assert compiled is not None
    if not selects([*compiled.system.arena.nodes, *compiled.tape.data]):
        return None
    defined = definitions(compiled.system)
    kinks = Kinks(compiled.given, compiled.tape.data, defined, compiled.still)
    return Plan(compiled.given, kinks.ties, defined) if kinks.selectors else None


def on_side(at: "SolvedPoint", side: Side) -> "SolvedPoint | None":
    """The same point with what is taken of it on one side of kinks; None where that fails."""
    values = {v: at.values[v] for v in at.compiled.given}
    solved = dict(at.solved)
    for run in at.compiled.runs:
        if isinstance(run, ImplicitRun) and not (old := at.solved[run.block]).truncated:
            equations, unknowns = run.equations, run.block.unknowns
            solver = old.problem.solver if old.problem.equations is equations else None
            problem = BlockProblem(equations, equations.outer_values(values), solver, side)
            try:
                here = problem.at(old.point)
                jacobian = problem.jacobian(here)
                factors = problem.factor(jacobian, "on one side of a kink")
                # The unknowns are as they are; multipliers are another side's.
                point = old.point
                if equations.linear:
                    point = point - factors.solve(here.residual)
            except LagradError:
                return None
            solved[run.block] = replace(
                old, problem=problem, point=point, jacobian=jacobian, factors=factors
            )
            values.update(zip(unknowns, split(point, unknowns), strict=True))
        run.evaluate_on(side, values)
    return replace(at, values=values, solved=solved, flat=None, side=side)


def first_side(point: "SolvedPoint") -> "SolvedPoint":
    """The point on the first side on which it can be; itself where there is none."""
    found = (on_side(point, side) for pair in sides_of(point) for side in pair)
    return next((there for there in found if there is not None), point)


def mean_of_sides(
    point: "SolvedPoint", plain: Sequence[Array], taken: Take
) -> tuple[list[Array], float]:
    """The mean of what is taken of a point over the sides of its kinks, and the jump."""
    kinks = point.compiled.kinks
    assert kinks is not None
    here = kinks.side([point.values[v] for v in point.compiled.given])

    def evaluate(side: Side) -> Sequence[Array] | None:
        there = on_side(point, side)
        return None if there is None else taken(there)

    return kinks.mean(plain, here, sides_of(point), evaluate)


def mean_around(
    point: "SolvedPoint", plain: Sequence[Array], taken: Take
) -> tuple[list[Array], float]:
    """The same of points around, where selectors are in the steps of loops.

    So it is at the tip of a cone, as a norm has one at zero, where rules say 0·∞.
    """
    parameters = point.compiled.moving

    def at(way: Array, share: float) -> list[Array]:
        there = moved([point.values[v] for v in parameters], way, share)
        found = taken(point.moved_by({}, dict(zip(parameters, there, strict=True))))
        return [np.asarray(a, float) for a in found]

    failed = [0]

    def evaluate(way: Array) -> list[Array]:
        limits: list[list[Array]] = []
        for share in SHARES:
            near, far = at(way, share), at(way, 2.0 * share)
            if not limits and all(map(constant, near, far)):
                return near
            if point.in_loops:  # whose steps are many
                return [limit(*arrays) for arrays in zip(near, far, strict=True)]
            along = zip(near, far, at(way, 4.0 * share), at(way, 8.0 * share), strict=True)
            limits.append([limit(*arrays) for arrays in along])
            found = [settled(*arrays) for arrays in zip(*limits, strict=True)]
            if all(np.isfinite(a).all() for a in found):
                return found
        failed[0] += not any(np.isfinite(a).any() for a in found)
        return found

    ways = directions(sum(v.size for v in parameters))
    pairs = ((way, -way) for way in itertools.takewhile(lambda _: failed[0] < HOPELESS, ways))
    found, jump = mean(plain, pairs, evaluate)
    if point.in_loops:
        return found, jump
    both = zip(plain, found, strict=True)
    return [np.where(np.isfinite(a), a, b) for a, b in both], jump


def settled(*limits: Array) -> Array:
    """The first of some limits that the next, from closer by, agrees with; NaN where there is none.

    From afar what is steep has another one, and from nearby rounding is most of one: of limits that
    never agree that well those are taken after which they part again, when all are known.
    """
    size = max([1.0, *(largest(a[np.isfinite(a)]) for a in limits[:2])])
    found, most = np.full((2, *limits[0].shape), np.nan), np.full(limits[0].shape, np.inf)
    parting = np.zeros(limits[0].shape, bool)
    for a, b in itertools.pairwise(limits):
        apart = np.where(np.isnan(b - a), np.inf, np.abs(b - a)) / size
        found[0] = np.where(np.isnan(found[0]) & (apart <= AGREE), a, found[0])
        parting |= (apart > most) & (most <= ALIKE)
        nearer = ~parting & (apart < most)
        found[1], most = np.where(nearer, a, found[1]), np.where(nearer, apart, most)
    if len(limits) < len(SHARES):
        return found[0]
    return np.where(np.isnan(found[0]) & (most <= ALIKE), found[1], found[0])


def constant(near: Array, far: Array) -> bool:
    """Whether a derivative is the same at two distances."""
    return bool((np.abs(near - far) <= UNSEEN * max(1.0, largest(near))).all())


def around(point: "SolvedPoint") -> Linearization:
    """The tape at a point beside the one that was asked for, where only what moves counts."""
    found = point.linearization
    return found if point.solved else unmoved(found, point.compiled.moving)


def sweep_around(point: "SolvedPoint", width: int | None) -> Carried:
    return Sweep(point.compiled, around(point), point.solved, width)


def limit(near: Array, far: Array, *further: Array) -> Array:
    """What a derivative tends to, from those at distances h, 2h, 4h and 8h; NaN where to nothing.

    Along a + b·hᵖ, as of x·√|x|, differences grow by 2ᵖ from distance to distance (Aitken); those
    that do not are rounding, or of what is smooth, and a straight line leads to its limit, to h².
    """
    size = max(1.0, largest(near[np.isfinite(near)]))
    alike = np.abs(near - far) <= 1e-4 * np.abs(near) + 1e-6 * size
    straight = np.where(alike, 2.0 * near - far, np.nan)
    if not further:
        return straight
    first, second, third = (b - a for a, b in itertools.pairwise((near, far, *further)))
    with np.errstate(all="ignore"):
        growth, again = second / first, third / second
        power = (growth > SLOWEST) & (growth < FASTEST) & (np.abs(again / growth - 1) < STRAYS)
        power &= np.abs(first) > UNSEEN * size
        found = near - first / (growth - 1.0)
        found = np.where(np.abs(found) > ZERO * np.abs(first), found, 0.0)
        return np.where(power, found, straight)
