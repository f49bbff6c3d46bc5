"""Linear systems solved by factors from nearby, refined against the true matrix."""

from __future__ import annotations

import numpy as np

from lagrad.linear_solvers.base import ESTIMATE, Factors
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.solving.solved_block import Solved
from lagrad.typing import Array

# A relative error of 1e-13 is rounding in all but name: no further solve is spent on it.
ROUNDING = 500


def refined(
    solved: Solved, right: Array, transposed: bool, guess: Array | None = None
) -> tuple[Array, float, float]:
    """The solution with the Jacobian at the solution, its residual and its error, relative.

    The factors belong to the step before the solution, so they only precondition: refine
    against the true Jacobian until the corrections are rounding, or stall. Where they are too
    far off to converge, the true Jacobian is factored.
    """
    matrix = solved.matrix(transposed)
    scale = np.abs(right).max(initial=0.0)
    if scale == 0.0:
        return np.zeros_like(right), 0.0, 0.0
    unit = right / scale
    if guess is not None and solved.factors.iterative:
        # What a guess leaves is solved for, if that is less.
        left = right - matrix.mv(guess)
        if np.abs(left).max() < 0.5 * scale:
            return _corrected(solved, guess, left, transposed, scale)
    best = _refine(matrix, solved.factors, unit, transposed, solved.contraction)
    if best[2] > 1e-9 and (exact := solved.exact) is not None:
        again = _refine(matrix, exact, unit, transposed, np.inf)
        best = min(best, again, key=lambda b: b[2])
    return best[0] * scale, best[1], best[2]


def _corrected(
    solved: Solved, guess: Array, left: Array, transposed: bool, scale: float
) -> tuple[Array, float, float]:
    """A guess and the solution for what it leaves; the residual is against the whole."""
    step, residual, error = refined(solved, left, transposed)
    share = float(np.abs(left).max()) / scale
    return guess + step, residual * share, error * min(1.0, share)


def _refine(
    matrix: Jacobian, factors: Factors, right: Array, transposed: bool, contraction: float
) -> tuple[Array, float, float]:
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
