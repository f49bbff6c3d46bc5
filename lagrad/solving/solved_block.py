"""A block at its solution: the point, the factors near it, and what is known of both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.linear_solvers.base import Factors, LeastSquares, LinearSolver, Singular, Transposed
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.solving.error_bound import ErrorBound
from lagrad.solving.failures import NewtonStep
from lagrad.solving.profile import Spent
from lagrad.typing import Array


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

    def transposed(self, point: Array, sizes: Array) -> Solved:
        """The linear block, at its solution, whose Jacobian is the transpose of this one's."""
        return replace(
            self,
            point=point,
            bound=replace(self.bound, direction=np.zeros_like(point), sizes=sizes),
            jacobian=self.jacobian.transposed,
            factors=Transposed(self.factors),
        )
