"""What is known of the point that a nonlinear solve ended at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.linear_solvers.base import Factors, LeastSquares, LinearSolver, Singular, Transposed
from lagrad.linear_solvers.condition import condition_of
from lagrad.solving.failures import NewtonStep
from lagrad.solving.profile import Spent
from lagrad.typing import Array


@dataclass(frozen=True, eq=False)
class Solved:
    """A block at its solution, with the factors of a Jacobian near it."""

    point: Array
    jacobian: Any  # at the solution: an ndarray, a csr_array or a LinearOperator
    factors: Factors  # at the point before the last step
    solver: LinearSolver
    history: tuple[NewtonStep, ...]
    factorisations: int
    residual: float
    error: float  # first-order estimate, relative
    curvature: float  # relative change of the Jacobian across the error
    direction: Array  # the error estimated, as a vector
    against: Array  # what the error of each unknown is measured by
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
        return condition_of(self.jacobian, self.factors)

    @cached_property
    def adjoint(self) -> Any:
        """The transposed Jacobian."""
        return self.jacobian.T

    @cached_property
    def exact(self) -> Factors | None:
        """Factors of the true Jacobian, made where the others are too far off to refine with."""
        if isinstance(self.jacobian, sparse_linalg.LinearOperator):
            return None
        try:
            return self.solver.factor(self.jacobian)
        except Singular:
            return None

    def transposed(self, point: Array, against: Array) -> Solved:
        """The linear block, at its solution, whose Jacobian is the transpose of this one's."""
        return replace(
            self,
            point=point,
            against=against,
            direction=np.zeros_like(point),
            jacobian=self.jacobian.T,
            factors=Transposed(self.factors),
        )
