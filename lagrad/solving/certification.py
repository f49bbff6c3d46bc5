"""What can be said of the point at which the solution of a block ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lagrad.errors import NotConverged, SingularSystem
from lagrad.linear_solvers.base import Factors, LeastSquares, LinearSolver
from lagrad.linear_solvers.jacobian import Jacobian, contraction
from lagrad.solving.block_equations import BlockEquations, LocalEquations, largest
from lagrad.solving.error_bound import ErrorBound, PathEnd
from lagrad.solving.newton import INEXACT, KEPT_GAIN, BlockProblem, Path
from lagrad.solving.solved_block import Solved
from lagrad.systems.reduced_block import SMALL
from lagrad.typing import Array

EPSILON = float(np.finfo(float).eps)
# Up to this size a singular system has a pseudo-inverse, for those who insist on a result.
PSEUDO_INVERSE_UP_TO = 1500


def linearised(
    equations: BlockEquations, outer: list[Array], point: Array, solver: LinearSolver | None = None
) -> Solved:
    """A block at a solution that is known, with factors of its Jacobian there."""
    problem = BlockProblem(equations, outer, solver)
    with np.errstate(all="ignore"):
        here = problem.at(point)
        factors = problem.factor(problem.jacobian(here), "at the solution")
        problem.scale.see(point)
        return certify(Path(problem, here, factors))


def certify(path: Path) -> Solved:
    """The block at the end of a path, with the true Jacobian there and bounds of the error."""
    problem, equations = path.problem, path.problem.equations
    assert path.factors is not None
    here = path.here if path.factors.iterative else polished(path, path.factors)
    if not np.isfinite(here.residual).all():
        raise NotConverged(problem.story("ended where a residual is NaN or infinite"))
    jacobian, factors, left = at_the_end(problem, here, path.factors)
    if equations.block.size <= SMALL and not equations.linear:
        factors = problem.factor(jacobian, "at the solution")
    require_regular(problem, jacobian, factors)
    end = PathEnd(here, jacobian, factors, problem.scale)
    with problem.spent.on("certifying"):
        bound = end.bound()
    if not bound.curvature < 0.1:
        raise SingularSystem(
            problem.story(
                "has a Jacobian at its solution that is singular to rounding: within the "
                f"error of the solution it changes by {bound.curvature:.1e} of itself"
            )
        )
    left = contraction(factors, jacobian) if left is None else left
    found = solved(problem, here, jacobian, factors, bound, left)
    if not equations.kinked:
        return found
    with problem.spent.on("certifying"):
        jump = end.beyond_kinks(bound)
        return replace(found, jump=jump, at_kink=end.jumps(jump))


def solved(
    problem: BlockProblem,
    here: LocalEquations,
    jacobian: Jacobian,
    factors: Factors,
    bound: ErrorBound,
    left: float,
) -> Solved:
    """The block at a point, with what is known of it there and of the way to it."""
    return Solved(
        point=here.point,
        jacobian=jacobian,
        factors=factors,
        solver=problem.solver,
        history=tuple(problem.history),
        factorisations=problem.factorisations,
        residual=largest(here.residual),
        bound=bound,
        top=largest(problem.scale.top),
        contraction=left,
        spent=problem.spent,
    )


def polished(path: Path, factors: Factors) -> LocalEquations:
    """The end of a path, or one correction further where that has a smaller residual."""
    problem, here, scale = path.problem, path.here, path.problem.scale
    with problem.spent.on("solving"):
        correction = -factors.solve(here.residual, tol=INEXACT).astype(here.point.dtype)
    if scale.length(correction) > 2 * scale.epsilon:
        nearer = problem.equations.residual(problem.outer, here.point + correction)
        if largest(nearer) < largest(here.residual):
            return problem.at(here.point + correction)
    return here


def at_the_end(
    problem: BlockProblem, here: LocalEquations, factors: Factors
) -> tuple[Jacobian, Factors, float | None]:
    """The Jacobian at the solution, factors to use with it, and what these leave if known.

    Where it costs much to put together and old factors will do, it is known by its products.
    """
    if not problem.equations.costly or problem.solver.matrix_free:
        return problem.jacobian(here), factors, None
    products = here.products()
    left = contraction(factors, products)
    if left < KEPT_GAIN / 2:
        return products, factors, left
    jacobian = problem.jacobian(here)
    return jacobian, problem.factor(jacobian, "at the solution"), None


def require_regular(problem: BlockProblem, jacobian: Jacobian, factors: Factors) -> None:
    """SingularSystem where the Jacobian is singular to rounding, whatever its units."""
    # For such a system no iteration converges, and no factors from nearby undo its products.
    if factors.iterative or not jacobian.known:
        return
    if (
        jacobian.condition(factors) > 0.1 / EPSILON
        and jacobian.scaled_condition(factors) > 0.1 / EPSILON
    ):
        raise problem.singular(jacobian, "at the solution, to rounding")


def given_up(path: Path) -> Solved | None:
    """What stands at the last point reached, for those who insist; None without factors."""
    problem, here = path.problem, path.here
    jacobian = problem.jacobian(here)
    finite = np.isfinite(here.residual).all()
    if not jacobian.known or problem.equations.block.size > PSEUDO_INVERSE_UP_TO or not finite:
        return None
    bound = ErrorBound(np.zeros_like(here.point), problem.scale.top, np.inf, np.inf)
    return solved(problem, here, jacobian, LeastSquares(jacobian.matrix), bound, np.inf)
