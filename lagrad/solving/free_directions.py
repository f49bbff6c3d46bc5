"""Solutions that are one of many: along some directions nothing changes, and nothing is asked.

A cluster may be shifted and turned, potentials are known up to a constant, a flow keeps a total.
What does not depend on the place along such a direction has a derivative all the same: nᵀg = 0 for
what flows back to the unknowns, and the multipliers may be any of theirs, since mᵀ ∂r/∂x = 0. The
first is asked of every right side; the second shows in samples, which are moved along what is
free. A fixed point whose step keeps totals is the one with those of its start.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lagrad.errors import LagradError, SingularSystem
from lagrad.linear_solvers.base import Transposed
from lagrad.linear_solvers.bordered import APART, Bordered, BorderedFactors
from lagrad.linear_solvers.jacobian import contraction, signed
from lagrad.linear_solvers.krylov import NotReached
from lagrad.solving.block_certification import Solved, certify
from lagrad.solving.block_equations import LocalEquations, largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.compiled_system import ImplicitRun
from lagrad.solving.error_bound import ErrorBound
from lagrad.solving.failure_messages import Failure
from lagrad.solving.iterations import Newton
from lagrad.solving.newton import newton
from lagrad.solving.solved_point import SolvedPoint
from lagrad.systems.reduced_block import entry_name
from lagrad.typing import Array

# Unknowns up to which somebody looks for what is free.
UP_TO = 50_000
# How far solutions are looked for along it, relative to their size; the steps to get there; and
# how many times rounding their residuals may be.
ALONG, STEPS, ROUNDED = 1e-3, 10, 1e3
# What of a right side may be along it, relative to the terms that add up to that.
SEEN = 1e-7
NOISE = 1e-12
# How many times rounding of what a right side adds up from it may be along it.
MANY, EPSILON = 100.0, float(np.finfo(float).eps)
# How far unknowns and parameters are moved to see whether totals are kept; and how many times
# rounding of their terms they may be off there: what is kept adds up to a fifth of it, and what
# states exchange too slowly to be seen by the rank of a matrix is off by more.
MOVED, KEPT = 1e-3, 1.0
# How far parameters are moved to see what that does to what is said of a solution.
BESIDE = 1e-6


@dataclass(frozen=True, eq=False)
class FreeDirections:
    """What a block's equations leave free.

    Attributes
    ----------
    label : str
    unknowns, equations : sequence of str
        The names of the block's numbers.
    free, kept : ndarray
        Unit vectors in columns, along which nothing changes; and combinations of the equations
        that are zero whatever the unknowns are.
    fixed : bool
        Whether the start fixes them: a step keeps the totals.
    elsewhere : ndarray
        Unknowns that are no solution.
    started : bool
        Whether parameters decide where the unknowns start, and so what is free.
    multipliers : bool
        Whether the unknowns are the multipliers of what is fixed.
    """

    label: str
    unknowns: Sequence[str]
    equations: Sequence[str]
    free: Array
    kept: Array
    fixed: bool
    elsewhere: Array
    started: bool = False
    multipliers: bool = False

    @property
    def watched(self) -> bool:
        """Whether it is to be looked at where parameters are others."""
        return self.fixed and not self.multipliers

    @property
    def alone(self) -> bool:
        """Whether no other solution is as good."""
        return self.fixed

    def moved(self, found: Solved, outer: Sequence[Array]) -> "FreeDirections":
        """The same where what the equations are made of has moved."""
        return self if keeps(found, outer) else replace(self, fixed=False)

    @property
    def turned(self) -> "FreeDirections":
        """Those of the transposed Jacobian."""
        return replace(
            self, unknowns=self.equations, equations=self.unknowns, free=self.kept, kept=self.free
        )

    def fault(self, right: Array, transposed: bool, sizes: Callable[[], Array]) -> str:
        """Why a right side has no solution; nothing where it has some.

        `sizes` are those of what it adds up from: at a minimum all of it may be rounding.
        """
        if self.fixed:
            return ""
        along = self.free if transposed else self.kept
        found, terms = np.abs(along.T @ right), np.abs(along).T @ np.abs(right)
        # Of a direction an entry is known to rounding of the largest.
        if not np.any(found > SEEN * terms + NOISE * largest(right)):
            return ""
        # Steps may be many, or large: rounding of all that is added up, many times.
        if not np.any(found > MANY * EPSILON * (np.abs(along).T @ sizes())):
            return ""
        worst = np.reshape(found / np.maximum(terms, 1e-300), (along.shape[1], -1)).max(axis=1)
        heavy = along[:, int(np.argmax(worst))]
        said = combination(self.unknowns if transposed else self.equations, heavy)
        if not transposed:
            return (
                f"the equations of {self.label} have solutions only while {said} of their "
                "residuals is zero, and with the parameters that changes: there is no derivative."
            )
        return (
            f"the equations of {self.label} leave {self.free.shape[1]} direction"
            f"{'s' if self.free.shape[1] > 1 else ''} free, and what is differentiated depends on "
            f"where along {said} the solution is. That is decided by the start alone: fix it, by "
            "an equation in the place of one that follows from the others or by a penalty on what "
            "is minimised, or differentiate what does not depend on it, or the steps that lead "
            "there (lg.iterate)."
        )

    def anywhere(self, solution: Array, transposed: bool) -> Array:
        """A solution moved along what leaves it one."""
        if self.fixed:
            return solution
        along = self.kept if transposed else self.free
        rng = np.random.default_rng(len(solution))
        shape = (along.shape[1], *solution.shape[1:])
        move: Array = along @ rng.choice([-1.0, 1.0], shape)
        moved = largest(solution) or float(self.started and not transposed)
        return solution + moved * move


def combination(names: Sequence[str], weights: Array) -> str:
    """A direction in words: its largest entries."""
    order = np.argsort(-np.abs(weights))
    kept = [i for i in order[:4] if abs(weights[i]) > 1e-3 * abs(weights[order[0]])]
    said = ", ".join(f"{weights[i]:+.2f} {names[i]}" for i in kept)
    return f"({said}{', …' if np.sum(np.abs(weights) > 1e-3) > len(kept) else ''})"


def freed(
    problem: BlockProblem,
    start: Array,
    options: Newton,
    origin: Array | None,
    failure: Failure | None,
) -> Solved | None:
    """The solution that a start leads to where the Jacobian is singular along free directions.

    None where there is none, or where it is singular for another reason: at a multiple root,
    say, the solution is alone. Of a fixed point, whose step may keep totals, `origin` is the point
    that has them: combinations of steps that led to the start lose them to rounding.
    """
    equations = problem.equations
    if equations.block.size > UP_TO or equations.pattern is None:
        return None
    solver = Bordered(epsilon=problem.scale.epsilon)
    other = BlockProblem(equations, problem.outer, solver)
    if failure is not None and not isinstance(failure, (SingularSystem, NotReached)):
        # What makes no progress may do so along what is free.
        try:
            if not solver.factor(other.jacobian(other.at(start)).matrix).count:
                return None
        except LagradError:
            return None
    path = newton(other, start, options)
    if path.failure is not None:
        return None
    try:
        with np.errstate(all="ignore"):
            found = certify(other, path.here, path.factors)
            jacobian = other.jacobian(other.at(found.point))
            factors = replace(solver, strict=True).factor(jacobian.matrix)
    except LagradError:
        return None
    left = contraction(factors, jacobian)
    found = replace(found, jacobian=jacobian, factors=factors, contraction=left)
    if not factors.count:
        return found
    if not on_a_surface(found, factors):
        return None
    block = equations.block
    of, by = (
        [entry_name(nodes, i) for i in range(block.size)]
        for nodes in (equations.unknowns, block.equations)
    )
    rng = np.random.default_rng(0)
    elsewhere = found.point * (1 + MOVED * rng.uniform(-1, 1, block.size)) + MOVED
    elsewhere = elsewhere.astype(equations.dtype)
    fixed = origin is not None
    free = FreeDirections(block.label, of, by, factors.free, factors.kept, fixed, elsewhere)
    found = replace(found, free=free)
    if not keeps(found, problem.outer):
        return replace(found, free=replace(free, fixed=False))
    if origin is not None and (shift := restored(found.point, origin, factors)) is not None:
        there = freed(problem, shift.astype(equations.dtype), options, None, failure)
        return None if there is None else replace(there, free=free)
    return found


def restored(point: Array, origin: Array, factors: BorderedFactors) -> Array | None:
    """A point moved along what is free to the totals of another one; None where it has them."""
    gap = factors.kept.T @ (origin - point)
    terms = np.abs(factors.kept).T @ (np.abs(origin) + np.abs(point))
    across = factors.kept.T @ factors.free
    if np.all(np.abs(gap) <= NOISE * terms) or np.linalg.cond(across) > 1 / APART:
        return None
    moved: Array = point + factors.free @ np.linalg.solve(across, gap)
    return moved


def dual(problem: BlockProblem, start: Array, others: Iterable[Solved]) -> Solved | None:
    """The multipliers of a block that keeps totals m, whose equations are consistent but for these.

    With mᵀz = mᵀz₀ as one equation more there is a multiplier more: Jᵀλ + m ν = −g. Its factors are
    those of the block, transposed. None where there is no such block before.
    """
    try:
        here = problem.at(start)
        jacobian = problem.jacobian(here)
        null = Bordered(strict=True).factor(jacobian.matrix)
    except LagradError:
        return None
    for other in others:
        free = other.free
        if not (isinstance(free, FreeDirections) and free.fixed and turns(free, null)):
            continue
        factors = Transposed(other.factors)
        here = problem.at((start - factors.solve(here.residual)).astype(start.dtype))
        left = here.residual - free.kept @ (free.kept.T @ here.residual)
        scale = problem.scale
        scale.see(here.point)
        doubt = scale.epsilon * here.terms + np.abs(left)
        off = np.abs(factors.solve(signed(doubt)))
        sizes = np.maximum(scale.largest(here.point), scale.epsilon * scale.top)
        each = scale.largest(off) / np.maximum(sizes, 1e-300)
        bound = ErrorBound(signed(off), sizes, largest(each), 0.0, each, sizes)
        ends = (jacobian, factors, largest(left), bound, contraction(factors, jacobian))
        fixed = replace(free.turned, multipliers=True)
        return Solved(problem, here.point, *ends, free=fixed)
    return None


def turns(free: FreeDirections, factors: BorderedFactors) -> bool:
    """Whether a block leaves free what another one keeps, and the other way round."""
    pairs = ((free.kept, factors.free), (free.free, factors.kept))
    if any(a.shape != b.shape for a, b in pairs):
        return False
    return all(np.linalg.svd(a.T @ b, compute_uv=False).min(initial=1) > 1 - 1e-6 for a, b in pairs)


def on_a_surface(found: Solved, factors: BorderedFactors) -> bool:
    """Whether there are solutions beside this one, along what is free."""
    problem, point = found.problem, found.point
    move = factors.free @ np.random.default_rng(0).choice([-1.0, 1.0], factors.count)
    there = point + move * (ALONG * (largest(point) or 1.0) / largest(move))
    for _ in range(STEPS):
        here = problem.at(there)
        if not np.isfinite(here.residual).all():
            return False
        there = there - factors.solve(here.residual)
    here = problem.at(there)
    return bool(largest(here.residual) <= ROUNDED * problem.scale.epsilon * largest(here.terms))


def kept_elsewhere(point: SolvedPoint) -> SolvedPoint:
    """The point, with what parameters nearby have to say of what its blocks leave free."""
    watched = {b: s for b, s in point.solved.items() if s.free is not None and s.free.watched}
    if not watched:
        return point
    rng = np.random.default_rng(1)
    moved = [v for v in point.values if v.role == "parameter" and v.dtype.kind == "f"]
    values = point.moved_by({}, {v: beside(np.asarray(point.values[v]), rng) for v in moved}).values
    changed = {
        run.block: replace(
            solved, free=solved.free.moved(solved, run.equations.outer_values(values))
        )
        for run in point.compiled.runs
        if isinstance(run, ImplicitRun) and (solved := watched.get(run.block)) is not None
    }
    return replace(point, solved=point.solved | changed)


def beside(array: Array, rng: np.random.Generator) -> Array:
    """An array moved at random, by a little of itself."""
    size = np.where(array == 0, largest(array) or 1.0, np.abs(array))
    share = max(BESIDE, 100 * float(np.finfo(array.dtype).eps))
    signs = rng.choice([-1.0, 1.0], array.shape)
    return (array + share * size * signs * rng.uniform(0.5, 1, array.shape)).astype(array.dtype)


def keeps(found: Solved, outer: Sequence[Array]) -> bool:
    """Whether combinations of a block's equations are zero where its unknowns are no solution."""
    free, problem = found.free, found.problem
    here = LocalEquations(problem.equations, list(outer), free.elsewhere)
    left, terms = np.abs(free.kept.T @ here.residual), np.abs(free.kept).T @ here.terms
    return bool(np.all(left <= KEPT * problem.scale.epsilon * terms))
