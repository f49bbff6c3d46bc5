"""What can be said of the point at which the solution of a block ends.

A solved block is the point, what is known of it, and solves by factors from nearby, refined
against the true matrix.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.errors import NotConverged, SingularSystem
from lagrad.linear_solvers.base import (
    ESTIMATE,
    Factors,
    LeastSquares,
    LinearSolver,
    Singular,
    Transposed,
)
from lagrad.linear_solvers.jacobian import Jacobian, Products, contraction, signed
from lagrad.solving.block_equations import BlockEquations, LocalEquations, largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.error_bound import ErrorBound, PathEnd, errors, without_bound
from lagrad.solving.newton import INEXACT, KEPT_GAIN
from lagrad.solving.relative_change import MANY
from lagrad.solving.rounding_samples import COARSE, SAFETY, Roundings
from lagrad.systems.reduced_block import SMALL
from lagrad.typing import Array

EPSILON = float(np.finfo(float).eps)
# Up to this size a singular system has a pseudo-inverse, for those who insist on a result.
PSEUDO_INVERSE_UP_TO = 1500


# Corrections at the end of a path: each gains a digit or more, where there is one to gain.
POLISHED_AT_MOST = 20
# A step that is so many times what rounding of the residual makes of it is none.
ABOVE = 1e3
# Of rounding of the largest value on the way: what an unknown is when it has gone to nothing.
GONE = 1e-4
# A bound that nobody need make better, and how much of itself a Jacobian may change within it.
GOOD, BENT = 1e-8, 0.1
# Unknowns so much larger than where they started, and than all that is given, went far.
FAR = 1e6
# How far, of itself, a multiplier is moved to look beyond kinks.
BEYOND = 1e-9
# A relative error of 1e-13 is rounding in all but name: no further solve is spent on it.
ROUNDING = 500


@dataclass(frozen=True, eq=False)
class Solved:
    """A block at its solution, with the factors of a Jacobian near it."""

    problem: BlockProblem  # and what was done to solve it
    point: Array
    jacobian: Jacobian  # at the solution
    factors: Factors  # at the point before the last step
    residual: float
    bound: ErrorBound
    contraction: float  # what one refinement with the factors leaves of an error
    jump: Array | None = None  # where equations have kinks: how far to look beyond them
    share: float = 1.0  # of that what is taken of what is zero
    at_kink: bool = False  # whether the equations themselves bend there
    truncated: str = ""  # what stands in the place of the multipliers' equation, if anything
    warm: Any = None  # what remembers multipliers
    free: Any = None  # the directions along which there are other solutions, if any

    @cached_property
    def condition(self) -> float:
        """An estimate of the Jacobian's 1-norm condition number."""
        if isinstance(self.factors, LeastSquares):
            return np.inf
        return self.jacobian.condition(self.factors)

    @cached_property
    def exact(self) -> Factors | None:
        """Factors of the true Jacobian, made where the others are too far off to refine with."""
        matrix = self.jacobian.matrix
        if not self.jacobian.known:
            if self.factors.iterative or not isinstance(matrix, Products):
                return None
            matrix = matrix.assemble()
        try:
            return self.problem.solver.factor(matrix)
        except Singular:
            return None

    def matrix(self, transposed: bool) -> Jacobian:
        return self.jacobian.transposed if transposed else self.jacobian

    def solve(
        self, right: Array, transposed: bool, guess: Array | None = None
    ) -> tuple[Array, float, float]:
        """The solution with the Jacobian at the solution, its residual and its error, relative.

        The factors belong to the step before the solution, so they only precondition: refine
        against the true Jacobian until the corrections are rounding, or stall. Where they are too
        far off to converge, the true Jacobian is factored.
        """
        matrix = self.matrix(transposed)
        scale = np.abs(right).max(initial=0.0)
        if scale == 0.0:
            return np.zeros_like(right), 0.0, 0.0
        if guess is not None and self.factors.iterative:
            # What a guess leaves is solved for, if that is less; the residual is against the whole.
            left = right - matrix.mv(guess)
            share = float(np.abs(left).max() / scale)
            if share < 0.5:
                step, residual, error = self.solve(left, transposed)
                return guess + step, residual * share, error * share
        unit = right / scale
        best = refined(matrix, self.factors, unit, transposed, self.contraction)
        if best[2] > 1e-9 and (exact := self.exact) is not None:
            again = refined(matrix, exact, unit, transposed, np.inf)
            best = min(best, again, key=lambda b: b[2])
        return best[0] * scale, best[1], best[2]

    def transposed(self, point: Array, sizes: Array) -> "Solved":
        """The linear block, at its solution, whose Jacobian is the transpose of this one's."""
        jump = self.jump
        if jump is not None:  # beyond kinks multipliers are looked at by their own size
            own = np.where(point != 0, np.abs(point), largest(point))
            jump = signed(own) * max(BEYOND, 1e3 * self.problem.scale.epsilon)
        return replace(
            self,
            point=point,
            jump=jump,
            bound=replace(self.bound, direction=np.zeros_like(point), sizes=sizes),
            jacobian=self.jacobian.transposed,
            factors=Transposed(self.factors),
            free=None if self.free is None else self.free.turned,
        )


def refined(
    matrix: Jacobian, factors: Factors, right: Array, transposed: bool, contraction: float
) -> tuple[Array, float, float]:
    """A solution by the factors, corrected against the matrix; its residual and its error."""
    epsilon = float(np.finfo(right.dtype).eps)
    solution = factors.solve(right, transposed)
    before = np.inf
    for _ in range(25):
        residual = right - matrix.mv(solution)
        correction = factors.solve(residual, transposed, tol=ESTIMATE)
        top = float(np.abs(solution).max())
        length = float(np.abs(correction).max()) / top if top else 0.0
        if not length < 0.5 * before:
            # Rounding, or factors too far off: what the last correction was is still in doubt.
            return solution, float(np.abs(residual).max()), min(length, before)
        solution = solution + correction
        # How much each correction gains: before the second, thrice what another vector
        # gained, the transpose being another matrix.
        gain = length / before if np.isfinite(before) else min(3 * contraction, 1.0)
        before = length
        if length * gain <= ROUNDING * epsilon:
            break
    residual = right - matrix.mv(solution)
    return solution, float(np.abs(residual).max()), max(before * gain, epsilon)


def linearised(
    equations: BlockEquations, outer: list[Array], point: Array, solver: LinearSolver | None = None
) -> Solved:
    """A block at a solution that is known, with factors of its Jacobian there."""
    problem = BlockProblem(equations, outer, solver)
    with np.errstate(all="ignore"):
        here = problem.at(point)
        factors = problem.factor(problem.jacobian(here), "at the solution")
        problem.scale.see(point)
        return certify(problem, here, factors)


def certify(problem: BlockProblem, here: LocalEquations, factors: Factors) -> Solved:
    """The block at the end of a path, with the true Jacobian there and bounds of the error."""
    if not factors.iterative:
        here = polished(problem, here, factors)
    here = at_zero(problem, here)
    if not np.isfinite(here.residual).all():
        raise NotConverged(problem.story("ended where a residual is NaN or infinite"))
    jacobian, factors, left = at_the_end(problem, here, factors)
    require_regular(problem, jacobian, factors)
    end = PathEnd(here, jacobian, factors, problem.scale)
    with problem.spent.on("certifying"):
        require_gain(problem, end)
        bound = end.bound()
    if bound.lost or bound.hidden or not (bound.error <= GOOD and bound.curvature < BENT):
        with problem.spent.on("solving"):
            finer = corrected(problem, end)
        if finer is not None:
            end, jacobian, factors, left = finer
            here, bound = end.here, end.bound()
    if bound.pole:
        height = f"of {largest(here.residual):.1e}, and less on both sides"
        raise NotConverged(problem.story(f"ended at a pole of its equations, {height}"))
    if not bound.curvature < BENT:
        raise SingularSystem(
            problem.story(
                "has a Jacobian at its solution that is singular to rounding: within the "
                f"error of the solution it changes by {bound.curvature:.1e} of itself"
            )
        )
    residual = largest(here.residual)
    found = Solved(problem, here.point, jacobian, factors, residual, bound, left)
    if not problem.equations.kinked:
        return found
    with problem.spent.on("certifying"):
        jump, share = end.beyond_kinks(bound)
        return replace(found, jump=jump, share=share, at_kink=end.jumps(jump))


def at_zero(problem: BlockProblem, here: LocalEquations) -> LocalEquations:
    """The same point; at zero what has gone to nothing, where the equations hold there as well.

    At a voltage of 1e-58 on its way to zero an angle has a derivative of 1e56, and at zero none.
    """
    tiny = GONE * problem.scale.epsilon * problem.scale.units
    nothing = (np.abs(here.point) < tiny) & (here.point != 0)
    if not nothing.any():
        return here
    there = problem.at(np.where(nothing, 0, here.point).astype(here.point.dtype))
    rounding = 10 * problem.scale.epsilon * there.terms
    return there if (np.abs(there.residual) <= rounding).all() else here


def polished(problem: BlockProblem, here: LocalEquations, factors: Factors) -> LocalEquations:
    """The end of a path, or corrections further where these leave smaller residuals.

    NotConverged where a residual is more than rounding, and no correction makes it smaller: steps
    are short beside a large unknown, on whose last digits the equations turn.
    """
    scale, fresh = problem.scale, False
    for _ in range(POLISHED_AT_MOST):
        with problem.spent.on("solving"):
            correction = -factors.solve(here.residual, tol=INEXACT).astype(here.point.dtype)
        length = scale.length(correction)
        if not length > 2 * scale.epsilon:
            return here
        nearer, before = problem.at(here.point + correction), largest(here.residual)
        left = largest(nearer.residual)
        if left < 0.5 * before:
            here, fresh = nearer, False
            continue
        rounding = scale.epsilon * here.terms
        sample = factors.solve(signed(rounding), tol=ESTIMATE)
        steps = errors(factors, rounding, sample, scale.units)
        near = problem.equations.opaque or not length > ABOVE * scale.length(steps)
        holds = not before > 10 * largest(rounding)
        if near and (holds or (fresh and not is_left(here, 10 * largest(rounding)))):
            return nearer if left < before else here
        if not fresh:  # with the Jacobian here, in the place of one from nearby
            factors, fresh = problem.factor(problem.jacobian(here), "near its end"), True
            continue
        shorter = (problem.at(here.point + correction / 2**k) for k in range(1, 6))
        gained = (there for there in shorter if largest(there.residual) < 0.9 * before)
        if (there := next(gained, None)) is None:
            said = f"a residual of {before:.1e} is more than rounding, {largest(rounding):.1e}"
            raise NotConverged(
                problem.story(
                    f"ended where its equations do not hold: {said}, and the next step leaves "
                    f"{left:.1e}"
                )
            )
        here, fresh = there, False
    rounding = scale.epsilon * here.terms
    if problem.equations.opaque or largest(here.residual) <= ABOVE * largest(rounding):
        return here
    said = f"a residual of {largest(here.residual):.1e} is more than rounding"
    raise NotConverged(
        problem.story(f"ended where its equations do not hold: {said}, {largest(rounding):.1e}")
    )


def is_left(here: LocalEquations, rounding: float) -> bool:
    """Whether more than rounding is left of the equations in a wider precision, if there is one."""
    left = here.equations.finer_residual(here.outer, here.point)
    return left is not None and largest(left) > rounding


def corrected(
    problem: BlockProblem, end: PathEnd
) -> tuple[PathEnd, Jacobian, Factors, float] | None:
    """The end of a path where residuals in a wider precision say it is; None without these.

    Iterative refinement with extra-precise residuals (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, §12.1): a point is then as good as the unknowns' own last bits.
    """
    equations, scale, here = problem.equations, problem.scale, end.here
    before = np.inf
    for _ in range(POLISHED_AT_MOST):
        left = equations.finer_residual(here.outer, here.point)
        if left is None or not np.isfinite(left).all():
            return None
        step = -end.factors.solve(left.astype(here.point.dtype), tol=ESTIMATE)
        length = scale.length(step, np.maximum(scale.largest(here.point), 1e-300))
        nearer = (here.point + step).astype(here.point.dtype)
        if not length < 0.5 * before or np.array_equal(nearer, here.point):
            break
        here, before = problem.at(nearer), length
    else:
        return None
    jacobian, factors, gain = at_the_end(problem, here, end.factors)
    found = PathEnd(here, jacobian, factors, scale, left)
    if not found.bound().error <= GOOD:
        sampled = np.zeros_like(here.point)
        for number in range(MANY):
            # Terms of one sum are rounded together: what each could do alone, they seldom do.
            rounded = Roundings(number, COARSE)
            other = equations.finer_residual(here.outer, here.point, rounded)
            assert other is not None
            change = (other - left).astype(here.point.dtype)
            moved = factors.solve(change, tol=ESTIMATE) * (SAFETY / COARSE)
            sampled = np.maximum(sampled, np.abs(moved))
        found = replace(found, sampled=sampled)
    return found, jacobian, factors, gain


def at_the_end(
    problem: BlockProblem, here: LocalEquations, factors: Factors
) -> tuple[Jacobian, Factors, float]:
    """The Jacobian at the solution, factors to use with it, and what these leave of a vector.

    Where it costs much to put together and old factors will do, it is known by its products.
    """
    equations = problem.equations
    costly = equations.costly and not problem.solver.matrix_free
    if costly:
        products = here.products()
        left = contraction(factors, products)
        if left < KEPT_GAIN / 2:
            return products, factors, left
    jacobian = problem.jacobian(here)
    if costly or (equations.block.size <= SMALL and not equations.linear):
        factors = problem.factor(jacobian, "at the solution")
    return jacobian, factors, contraction(factors, jacobian)


def require_regular(problem: BlockProblem, jacobian: Jacobian, factors: Factors) -> None:
    """SingularSystem where the Jacobian is singular to rounding, whatever its units."""
    # For such a system no iteration converges, and no factors from nearby undo its products.
    if jacobian.known and not factors.iterative:
        conditions = (kind(factors) for kind in (jacobian.condition, jacobian.scaled_condition))
        if all(condition > 0.1 / EPSILON for condition in conditions):
            raise problem.singular(jacobian, "at the solution, to rounding")


def require_gain(problem: BlockProblem, end: PathEnd) -> None:
    """SingularSystem where a path went off along a direction that its equations leave free.

    Along that (a common shift, say) a step has no length of its own. Where it was so long that
    what the unknowns differ by is lost, any point solves what rounding has left of the equations.
    """
    start, point = problem.start, end.here.point
    if start is None or problem.equations.linear:
        return
    around = max([1.0, largest(start.point), *(largest(value) for value in problem.outer)])
    if not largest(point) > FAR * around:
        return
    doubt, known = largest(end.doubt), largest(start.residual)
    hidden = doubt > 0.1 * known
    if not hidden:
        jacobian = problem.jacobian(start)
        if jacobian.known:
            try:
                factors = problem.solver.factor(jacobian.matrix)
                kinds = (jacobian.condition, jacobian.scaled_condition)
                hidden = not any(kind(factors) < 0.01 / EPSILON for kind in kinds)
            except Singular:
                hidden = True
    if hidden:
        raise SingularSystem(
            problem.story(
                f"ended at unknowns of {largest(point):.1e}, so large that rounding hides its "
                f"equations: they may be off by {doubt:.1e}, and were off by {known:.1e} at the "
                "start. They leave a direction free: fix one unknown of it"
            )
        )


def given_up(problem: BlockProblem, here: LocalEquations) -> Solved | None:
    """What stands at the last point reached, for those who insist; None without factors."""
    jacobian = problem.jacobian(here)
    finite = np.isfinite(here.residual).all()
    if not jacobian.known or problem.equations.block.size > PSEUDO_INVERSE_UP_TO or not finite:
        return None
    factors, residual = LeastSquares(jacobian.matrix), largest(here.residual)
    bound = without_bound(np.zeros_like(here.point), problem.scale.top)
    return Solved(problem, here.point, jacobian, factors, residual, bound, np.inf)
