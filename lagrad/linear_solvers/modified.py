"""Linear solvers that change the system before another one solves it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.finite_differences import along
from lagrad.linear_solvers.base import DenseFactors, Factors, LinearSolver
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.linear_solvers.krylov import ByColumns, Krylov
from lagrad.linear_solvers.neumann import Neumann
from lagrad.typing import Array


@dataclass(frozen=True, slots=True)
class Damped(LinearSolver):
    """Solves with J + μI in the place of J."""

    base: LinearSolver
    damping: float

    @property
    def matrix_free(self) -> bool:  # type: ignore[override]
        return self.base.matrix_free

    def factor(self, matrix: Any) -> Factors:
        return self.base.factor(Jacobian.of(matrix).shifted(self.damping).matrix)


@dataclass(frozen=True, slots=True)
class Centered(LinearSolver):
    """Solves with products that are centred differences of the residual, of a symmetric J.

    Refinement then corrects what the differences leave, with one exact product for each step.
    """

    base: Krylov

    matrix_free = True

    def factor(self, matrix: Any) -> Factors:
        product = lambda x: along(matrix.residual, matrix.point, np.ravel(x))
        return self.base.factor(matrix.replaced(product, product, float))


@dataclass(frozen=True, slots=True)
class Support(LinearSolver):
    """For the J = D − I of a proximal fixed point: entries that D holds fixed are left out.

    Their rows are those of −I, so that only the system of the others is put together, one
    product for each of them. Where most are free, the Neumann series takes the whole.
    """

    at_most: int = 2000

    matrix_free = True

    def factor(self, matrix: Any) -> Factors:
        probe = np.random.default_rng(4).standard_normal(matrix.shape[0])
        free = np.flatnonzero(matrix.matvec(probe) + probe)
        if free.size > min(self.at_most, matrix.shape[0] // 2):
            return Neumann(step=-1.0).factor(matrix)
        return SupportFactors(matrix, free)


class SupportFactors(ByColumns):
    """The factors of the free entries' system."""

    def __init__(self, matrix: Any, free: Array) -> None:
        self.shape = matrix.shape
        self.operator, self.free = matrix, free
        columns = np.zeros((free.size, free.size))
        unit = np.zeros(matrix.shape[0])
        for k, place in enumerate(free):
            unit[place] = 1.0
            columns[:, k] = matrix.matvec(unit)[free]
            unit[place] = 0.0
        self.inner = DenseFactors(columns) if free.size else None

    def one(self, right: Array, transposed: bool, tol: float) -> Array:
        if self.inner is None:
            return -right
        free = self.free
        only = np.zeros(self.shape[0])
        if transposed:
            # The free entries first; the others take what J passes on to them.
            only[free] = self.inner.solve(right[free], transposed=True)
            found = self.operator.rmatvec(only) - right
            found[free] = only[free]
            return found
        found = -right
        only[:] = found
        only[free] = 0.0
        passed = self.operator.matvec(only)
        found[free] = self.inner.solve(right[free] - passed[free])
        return found
