"""What solving asks of an implicit function, where one introduced the unknowns of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.neumann import Neumann
from lagrad.solving.block_equations import BlockEquations
from lagrad.solving.solved_block import Solved
from lagrad.typing import Array


class Approach(Protocol):
    """How a group of unknowns is approached, and what must hold at their solution.

    Attributes
    ----------
    inner : tuple of str
        Unknowns of implicit functions inside this one, which follow its own.
    tol : float or None
        The relative error at which Newton's method ends.
    damping : float
        What is added to the Jacobian's diagonal wherever it is solved with.
    differentiate : Neumann or None
        A series in the place of the multipliers' equation.
    warm : WarmStart or None
        Where the last solution is kept.
    settles : bool
        Whether it ends at the solution itself, so that Newton's method has nothing to add.
    minimises : bool
        Whether the solution must be a minimum.
    """

    inner: tuple[str, ...]
    tol: float | None
    damping: float
    differentiate: Neumann | None
    warm: Any
    minimises: bool

    @property
    def settles(self) -> bool: ...

    def begin(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array]:
        """Values of the unknowns from which Newton's method starts."""

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where Newton's method alone does not arrive; None where there is none."""

    def solver(self, equations: BlockEquations) -> LinearSolver:
        """The linear solver of the block that its unknowns form."""

    def require_contraction(self, solved: Solved) -> None:
        """NotContractive at a fixed point that the plain iteration moves away from."""

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        """NotPositiveDefinite where the objective curves down at what should be its minimum."""
