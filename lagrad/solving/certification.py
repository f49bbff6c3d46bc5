"""What can be said of the point at which the solution of a block ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import NotConverged, SingularSystem
from lagrad.linear_solvers.base import Factors, Indefinite, LeastSquares, LinearSolver, Singular
from lagrad.linear_solvers.condition import condition_of, contraction, scaled_condition
from lagrad.solving.block_equations import SMALL, BlockEquations, Local
from lagrad.solving.error_bound import beyond_kinks, residual_jumps, uncertainty
from lagrad.solving.failures import NewtonStep, indefinite, singular, story
from lagrad.solving.profile import Spent
from lagrad.solving.relative_length import Measure
from lagrad.solving.solved_block import Solved
from lagrad.typing import Array

# Where a Jacobian is dear, old factors are kept while each step gains this much, and refine what
# products with the true one show.
DEAR = 0.8
# The relative residual of a Newton step that is an iteration itself.
INEXACT = 1e-2
EPSILON = float(np.finfo(float).eps)


def linearised(
    equations: BlockEquations, outer: list[Array], point: Array, solver: LinearSolver | None = None
) -> Solved:
    """A block at a solution that is known, with factors of its Jacobian there."""
    ending = Ending(equations, outer, point, solver or equations.solver)
    with np.errstate(all="ignore"):
        known = equations.at(outer, point)
        jacobian = known.jacobian(ending.solver)
        ending.factors = ending.factor(jacobian, "at the solution")
        return ending.solved(point, known)


class Ending:
    """A point of a block's, its measure of lengths, and the factors of a Jacobian near it."""

    def __init__(
        self, equations: BlockEquations, outer: list[Array], start: Array, solver: LinearSolver
    ) -> None:
        self.equations = equations
        self.outer = outer
        self.solver = solver
        self.scale = Measure(equations, start)
        self.point = start  # the last one that was reached
        self.history: list[NewtonStep] = []
        self.factorisations = 0
        self.factors: Factors
        self.spent = Spent()
        self.left: float | None = None  # of a vector, after one refinement with the factors

    def factor(self, jacobian: Any, where: str) -> Factors:
        """Factors, or the error that names what depends on what."""
        self.factorisations += 1
        try:
            with self.spent.on("factorising"):
                return self.solver.factor(jacobian)
        except Indefinite:
            raise indefinite(self.equations, jacobian, where) from None
        except Singular:
            raise singular(self.equations, jacobian, where, self.history) from None
        except NotConverged as error:
            raise NotConverged(f"the block {self.equations.block.label}: {error}") from None

    def _at(self, point: Array) -> Local:
        """The equations near a point."""
        with self.spent.on("evaluating"):
            return self.equations.at(self.outer, point)

    def _jacobian(self, here: Local) -> Any:
        with self.spent.on("assembling"):
            return here.jacobian(self.solver)

    def solved(self, point: Array, known: Local | None = None) -> Solved:
        """The certificate's numbers at the solution, with the true Jacobian there."""
        equations = self.equations
        here = known or self._at(point)
        if self.factors.iterative:
            return self._measured(here)  # a step more is an iteration of its own
        with self.spent.on("solving"):
            polish = -self.factors.solve(here.residual, tol=INEXACT).astype(point.dtype)
        if self.scale.length(polish) > 2 * self.scale.epsilon:
            nearer = equations.residual(self.outer, point + polish)
            if np.abs(nearer).max(initial=0.0) < np.abs(here.residual).max(initial=0.0):
                point = point + polish
                here = self._at(point)
        return self._measured(here)

    def _measured(self, here: Local) -> Solved:
        """What is known of the point that was reached."""
        equations, point, residual = self.equations, here.point, here.residual
        if not np.isfinite(residual).all():
            raise NotConverged(self._story("ended where a residual is NaN or infinite"))
        jacobian = self._at_end(here)
        if equations.block.size <= SMALL and not equations.linear:
            self.factors = self.factor(jacobian, "at the solution")
        if (
            # For a system that is singular to rounding no iteration converges, and no factors
            # from nearby undo its products.
            not self.factors.iterative
            and not isinstance(jacobian, sparse_linalg.LinearOperator)
            and condition_of(jacobian, self.factors) > 0.1 / EPSILON
            and scaled_condition(jacobian, self.factors) > 0.1 / EPSILON
        ):
            raise singular(equations, jacobian, "at the solution, to rounding", self.history)
        with self.spent.on("certifying"):
            direction, against, error, curvature = uncertainty(
                equations, self.outer, self.factors, self.scale, here, jacobian
            )
        if not curvature < 0.1:
            raise SingularSystem(
                self._story(
                    "has a Jacobian at its solution that is singular to rounding: within the "
                    f"error of the solution it changes by {curvature:.1e} of itself"
                )
            )
        jump, at_kink = None, False
        if equations.kinked:
            with self.spent.on("certifying"):
                jump = beyond_kinks(direction, against, self.scale)
                at_kink = residual_jumps(equations, here, self.factors, jacobian, jump)
        return Solved(
            point=point,
            jump=jump,
            at_kink=at_kink,
            jacobian=jacobian,
            factors=self.factors,
            solver=self.solver,
            history=tuple(self.history),
            factorisations=self.factorisations,
            residual=float(np.abs(residual).max(initial=0.0)),
            error=error,
            curvature=curvature,
            direction=direction,
            against=against,
            top=float(self.scale.top.max(initial=0.0)),
            contraction=contraction(self.factors, jacobian) if self.left is None else self.left,
            spent=self.spent,
        )

    def _at_end(self, here: Local) -> Any:
        """The Jacobian at the solution: by products where it is dear and old factors will do."""
        if not self.equations.dear or self.solver.matrix_free:
            return self._jacobian(here)
        products = here.products()
        self.left = contraction(self.factors, products)
        if self.left < DEAR / 2:
            return products
        jacobian, self.left = self._jacobian(here), None
        self.factors = self.factor(jacobian, "at the solution")
        return jacobian

    def given_up(self) -> Solved | None:
        """What stands at the last point reached, for those who insist; None without factors."""
        equations = self.equations
        here = self._at(self.point)
        jacobian = self._jacobian(here)
        if isinstance(jacobian, sparse_linalg.LinearOperator) or equations.block.size > 1500:
            return None
        residual = here.residual
        if not np.isfinite(residual).all():
            return None
        return Solved(
            point=self.point,
            jacobian=jacobian,
            factors=LeastSquares(jacobian),
            solver=self.solver,
            history=tuple(self.history),
            factorisations=self.factorisations,
            residual=float(np.abs(residual).max(initial=0.0)),
            error=np.inf,
            curvature=np.inf,
            direction=np.zeros_like(self.point),
            against=self.scale.top,
            top=float(self.scale.top.max(initial=0.0)),
            contraction=np.inf,
        )

    def _story(self, what: str, correction: float | None = None) -> str:
        return story(self.equations, what, self.history, correction)
