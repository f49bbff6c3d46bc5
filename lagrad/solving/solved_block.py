"""A block at its solution: the point, what is known of it, and solves by the factors near it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.linear_solvers.base import (
    ESTIMATE,
    Factors,
    LeastSquares,
    LinearSolver,
    Singular,
    Transposed,
)
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.solving.error_bound import ErrorBound
from lagrad.solving.failures import NewtonStep
from lagrad.solving.profile import Spent
from lagrad.typing import Array

# A relative error of 1e-13 is rounding in all but name: no further solve is spent on it.
ROUNDING = 500


@dataclass(frozen=True, eq=False)
class Solved:
    """A block at its solution, with the factors of a Jacobian near it."""

    point: Array
    jacobian: Jacobian  # at the solution
    factors: Factors  # at the point before the last step
    solver: LinearSolver
    history: tuple[NewtonStep, ...]
    factorisations: int
    residual: float
    bound: ErrorBound
    top: float  # the largest value on the way
    contraction: float  # what one refinement with the factors leaves of an error
    jump: Array | None = None  # where equations have kinks: how far to look beyond them
    at_kink: bool = False  # whether the equations themselves bend there
    truncated: str = ""  # what stands in the place of the multipliers' equation, if anything
    warm: Any = None  # what remembers multipliers
    spent: Spent = field(default_factory=Spent)  # on the way here

    @cached_property
    def condition(self) -> float:
        """An estimate of the Jacobian's 1-norm condition number."""
        if isinstance(self.factors, LeastSquares):
            return np.inf
        return self.jacobian.condition(self.factors)

    @cached_property
    def exact(self) -> Factors | None:
        """Factors of the true Jacobian, made where the others are too far off to refine with."""
        if not self.jacobian.known:
            return None
        try:
            return self.solver.factor(self.jacobian.matrix)
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

    def transposed(self, point: Array, sizes: Array) -> Solved:
        """The linear block, at its solution, whose Jacobian is the transpose of this one's."""
        return replace(
            self,
            point=point,
            bound=replace(self.bound, direction=np.zeros_like(point), sizes=sizes),
            jacobian=self.jacobian.transposed,
            factors=Transposed(self.factors),
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
