"""What can be said of the point at which the solution of a block ends."""

from __future__ import annotations

import numpy as np

from lagrad.errors import NotConverged, SingularSystem
from lagrad.linear_solvers.base import Factors, LeastSquares, LinearSolver
from lagrad.linear_solvers.jacobian import Jacobian, contraction
from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.solving.error_bound import ErrorBound, beyond_kinks, error_bound, residual_jumps
from lagrad.solving.failures import singular
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
    problem, equations, scale = path.problem, path.problem.equations, path.problem.scale
    assert path.factors is not None
    here = path.here if path.factors.iterative else polished(path, path.factors)
    residual = here.residual
    if not np.isfinite(residual).all():
        raise NotConverged(path.story("ended where a residual is NaN or infinite"))
    jacobian, factors, left = at_the_end(problem, here, path.factors)
    if equations.block.size <= SMALL and not equations.linear:
        factors = problem.factor(jacobian, "at the solution", path.history)
    require_regular(path, jacobian, factors)
    with problem.spent.on("certifying"):
        bound = error_bound(equations, here, factors, scale, jacobian)
    if not bound.curvature < 0.1:
        raise SingularSystem(
            path.story(
                "has a Jacobian at its solution that is singular to rounding: within the "
                f"error of the solution it changes by {bound.curvature:.1e} of itself"
            )
        )
    jump, at_kink = None, False
    if equations.kinked:
        with problem.spent.on("certifying"):
            jump = beyond_kinks(bound, scale)
            at_kink = residual_jumps(equations, here, factors, jacobian, jump)
    return Solved(
        point=here.point,
        jacobian=jacobian,
        factors=factors,
        solver=problem.solver,
        history=path.history,
        factorisations=problem.factorisations,
        residual=float(np.abs(residual).max(initial=0.0)),
        bound=bound,
        top=float(scale.top.max(initial=0.0)),
        contraction=contraction(factors, jacobian) if left is None else left,
        jump=jump,
        at_kink=at_kink,
        spent=problem.spent,
    )


def polished(path: Path, factors: Factors) -> LocalEquations:
    """The end of a path, or one correction further where that has a smaller residual."""
    problem, here, scale = path.problem, path.here, path.problem.scale
    with problem.spent.on("solving"):
        correction = -factors.solve(here.residual, tol=INEXACT).astype(here.point.dtype)
    if scale.length(correction) > 2 * scale.epsilon:
        nearer = problem.equations.residual(problem.outer, here.point + correction)
        if np.abs(nearer).max(initial=0.0) < np.abs(here.residual).max(initial=0.0):
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


def require_regular(path: Path, jacobian: Jacobian, factors: Factors) -> None:
    """SingularSystem where the Jacobian is singular to rounding, whatever its units."""
    # For such a system no iteration converges, and no factors from nearby undo its products.
    if factors.iterative or not jacobian.known:
        return
    if (
        jacobian.condition(factors) > 0.1 / EPSILON
        and jacobian.scaled_condition(factors) > 0.1 / EPSILON
    ):
        where = "at the solution, to rounding"
        raise singular(path.problem.equations, jacobian, where, path.history)


def given_up(path: Path) -> Solved | None:
    """What stands at the last point reached, for those who insist; None without factors."""
    problem, equations, scale = path.problem, path.problem.equations, path.problem.scale
    here = path.here
    jacobian = problem.jacobian(here)
    finite = np.isfinite(here.residual).all()
    if not jacobian.known or equations.block.size > PSEUDO_INVERSE_UP_TO or not finite:
        return None
    return Solved(
        point=here.point,
        jacobian=jacobian,
        factors=LeastSquares(jacobian.matrix),
        solver=problem.solver,
        history=path.history,
        factorisations=problem.factorisations,
        residual=float(np.abs(here.residual).max(initial=0.0)),
        bound=ErrorBound(np.zeros_like(here.point), scale.top, np.inf, np.inf),
        top=float(scale.top.max(initial=0.0)),
        contraction=np.inf,
    )
