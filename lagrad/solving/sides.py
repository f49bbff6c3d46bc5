"""What is taken of a solved system on the sides of its kinks."""

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import LagradError
from lagrad.expressions.graph import selects
from lagrad.solving.block_equations import largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.kinks import Kinks, Side, directions, mean, moved
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import split
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.solving.solved_point import SolvedPoint

# By what differences grow where distances double, along powers that are told from logarithms and
# from jumps, and how far from that they may be.
SLOWEST, FASTEST, STRAYS = 1.05, 8.0, 1e-2
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
    point: "SolvedPoint", plain: Sequence[Array], taken: "Callable[[SolvedPoint], Sequence[Array]]"
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
    point: "SolvedPoint", plain: Sequence[Array], taken: "Callable[[SolvedPoint], Sequence[Array]]"
) -> tuple[list[Array], float]:
    """The same of points around, where selectors are in the steps of loops.

    So it is at the tip of a cone, as a norm has one at zero, where rules say 0·∞.
    """
    parameters = point.compiled.moving

    def evaluate(way: Array) -> list[Array]:
        at = [
            taken(point.moved_by({}, dict(zip(parameters, there, strict=True))))
            for share in (1.0, 2.0, 4.0, 8.0)
            for there in [moved([point.values[v] for v in parameters], way, share)]
        ]
        return [limit(*(np.asarray(a, float) for a in along)) for along in zip(*at, strict=True)]

    ways = directions(sum(v.size for v in parameters))
    found, jump = mean(plain, ((way, -way) for way in ways), evaluate)
    if point.in_loops:
        return found, jump
    pairs = zip(plain, found, strict=True)
    return [np.where(np.isfinite(a), a, b) for a, b in pairs], jump


def limit(near: Array, far: Array, *further: Array) -> Array:
    """What a derivative tends to, from those at distances h, 2h, 4h and 8h; NaN where to nothing.

    Along a + b·hᵖ, as of x·√|x|, differences grow by 2ᵖ from distance to distance (Aitken); those
    that do not are rounding, or of what is smooth, and a straight line leads to its limit, to h².
    """
    size = max(1.0, largest(near[np.isfinite(near)]))
    alike = np.abs(near - far) <= 1e-4 * np.abs(near) + 1e-6 * size
    straight = np.where(alike, 2.0 * near - far, np.nan)
    first, second, third = (b - a for a, b in itertools.pairwise((near, far, *further)))
    with np.errstate(all="ignore"):
        growth, again = second / first, third / second
        power = (growth > SLOWEST) & (growth < FASTEST) & (np.abs(again / growth - 1) < STRAYS)
        power &= np.abs(first) > UNSEEN * size
        found = near - first / (growth - 1.0)
        found = np.where(np.abs(found) > ZERO * np.abs(first), found, 0.0)
        return np.where(power, found, straight)
