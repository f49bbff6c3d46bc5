"""A block with all that it is given, and what has been done to solve it."""

import numpy as np

from lagrad.errors import NotConverged, SingularSystem
from lagrad.linear_solvers.base import Factors, Indefinite, LinearSolver, Singular
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.solving.block_equations import BlockEquations, LocalEquations, Measure
from lagrad.solving.failure_messages import (
    NewtonStep,
    indefinite,
    named,
    overflows,
    singular,
    story,
)
from lagrad.solving.kinks import Side
from lagrad.solving.profile import Spent
from lagrad.typing import Array


class BlockProblem:
    """A block with all that it is given, and what has been done to solve it, on a stopwatch."""

    def __init__(
        self,
        equations: BlockEquations,
        outer: list[Array],
        solver: LinearSolver | None,
        side: Side | None = None,
    ) -> None:
        self.equations, self.outer, self._wanted = equations, outer, solver
        self.side = side  # of kinks, on which its Jacobian is taken
        self.scale = Measure(equations)
        self.history: list[NewtonStep] = []
        self.start: LocalEquations | None = None  # where the path began
        self.latest: LocalEquations | None = None  # where a Jacobian was asked for
        self.factorisations = 0
        self.spent = Spent()

    def anew(self) -> "BlockProblem":
        """The same, nothing done yet."""
        return BlockProblem(self.equations, self.outer, self._wanted)

    @property
    def solver(self) -> LinearSolver:
        """The one that was asked for, or that fits the block."""
        return self._wanted or self.equations.solver

    def at(self, point: Array) -> LocalEquations:
        """The equations near a point."""
        with self.spent.on("evaluating"):
            return LocalEquations(self.equations, self.outer, point, self.side)

    def jacobian(self, here: LocalEquations) -> Jacobian:
        self.latest = here
        with self.spent.on("assembling"), np.errstate(all="ignore"):
            return here.jacobian(self.solver)

    def factor(self, jacobian: Jacobian, where: str) -> Factors:
        """Factors, or the error that names what depends on what."""
        self.factorisations += 1
        try:
            with self.spent.on("factorising"):
                return self.solver.factor(jacobian.matrix)
        except Indefinite:
            raise indefinite(self.equations, jacobian, where) from None
        except Singular:
            begin = self.start.residual if self.start and self.equations.linear else None
            raise self.singular(jacobian, where, begin) from None
        except NotConverged as error:
            raise named(self.equations, error) from None

    def singular(
        self, jacobian: Jacobian, where: str, begin: Array | None = None
    ) -> SingularSystem:
        here = self.latest
        entries = getattr(jacobian.matrix, "data", None) if jacobian.known else None
        if here is not None and entries is not None and not np.isfinite(entries).all():
            return overflows(here, where)
        return singular(self.equations, jacobian, where, self.history, begin)

    def story(self, what: str, correction: float | None = None, nearer: bool = True) -> str:
        return story(self.equations, what, self.history, correction, nearer)
