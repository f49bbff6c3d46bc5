"""More equations than unknowns, which hold together: conservation laws, closures of mechanisms.

With r(z) = 0 of m equations for n unknowns, r(z) + Q s = 0 has as many of both: s is one unknown
for each equation too many, and Q any matrix, drawn at random so that [∂r/∂z Q] is regular where
∂r/∂z has full rank. The equations hold together where s = 0, and have a derivative where s stays
so while what they are made of moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lagrad.errors import LagradError, NotConverged
from lagrad.expressions.expression import Expression, Variable
from lagrad.solving.block_equations import LocalEquations, largest
from lagrad.solving.iterations import optimize
from lagrad.systems.linearization import Nodes
from lagrad.systems.reduced_block import entry_name
from lagrad.systems.system import System
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.solving.block_certification import Solved

# How many times rounding the equations may be off that hold together.
ROUNDED = 1e4
# What may be left of a move.
LEFT = 1e-4


@dataclass(frozen=True)
class Redundancy:
    """Equations that are more than their unknowns.

    Attributes
    ----------
    said : str
        Which, as the subject of a sentence.
    more : int
        How many more.
    """

    said: str
    more: int

    def mixing(self, rows: int) -> Array:
        """Q: what each further unknown adds to each equation."""
        return np.random.default_rng(0).standard_normal((rows, self.more)) / np.sqrt(self.more)

    def mixed(self, into: System, residuals: Nodes) -> tuple[list[Expression], Variable]:
        """The residuals with what further unknowns add to them, and these."""
        dtype = np.result_type(*[r.dtype for r in residuals])
        off = into.unknown(into.free("off"), (self.more,), 0.0, dtype)
        sizes = [r.size for r in residuals]
        rows = np.split(self.mixing(sum(sizes)).astype(dtype), np.cumsum(sizes)[:-1])
        pairs = zip(residuals, rows, strict=True)
        return [r + np.reshape(np.matmul(part, off), r.shape) for r, part in pairs], off

    def contradiction(self, begin: LocalEquations, found: Solved) -> NotConverged | None:
        """The error where the equations do not hold together."""
        equations = found.problem.equations
        here = LocalEquations(equations, found.problem.outer, found.point)
        bound = found.bound
        added = np.abs(self._added(equations, found.point))
        # Rounding is that of all equations, not of the one that is looked at.
        spread = np.repeat(bound.each * bound.sizes, found.problem.scale.sizes)
        rounding = found.problem.scale.epsilon * here.terms + np.abs(self._added(equations, spread))
        if not (added > ROUNDED * rounding).any():
            return None
        worst = entry_name(equations.block.equations, int(np.argmax(added)))
        return NotConverged(
            f"{self.said} contradict one another: what is nearest to a solution leaves "
            f"{largest(added):.1e}, most of it in {worst!r}. Leave equations out, or ask for the "
            "least squares, in a function: lg.argmin(lambda z: np.sum(r(z)**2), start)."
        )

    def judged(self, found: Solved) -> Solved:
        if found.free is not None:
            return found  # one of many solutions, whose directions say more
        return replace(found, free=Redundant(found.problem.equations.block.label, self))

    def broken(self, found: Solved, outer: Sequence[Array]) -> bool:
        """Whether moved equations hold together no longer, to first order."""
        equations, problem = found.problem.equations, found.problem
        # In a wider precision: a move of single precision's last bits is rounding in it.
        before = equations.finer_residual(problem.outer, found.point)
        after = equations.finer_residual(list(outer), found.point)
        rounding = largest(found.bound.direction)
        if before is None or after is None:
            before = equations.residual(problem.outer, found.point)
            after = equations.residual(list(outer), found.point)
        else:
            spacings = (float(np.finfo(str(a.dtype)).eps) for a in (after, found.point))
            rounding *= next(spacings) / next(spacings)
        change = np.asarray(after - before, dtype=float)
        added = largest(self._added(equations, found.factors.solve(change)))
        return not added <= LEFT * largest(change) + ROUNDED * rounding

    def _added(self, equations: Any, point: Array) -> Array:
        """What the further unknowns add to the equations."""
        off, start = max(equations.unknowns, key=lambda v: v.index), 0
        for v in equations.unknowns:
            if v is off:
                break
            start += v.size
        rows = sum(c.size for c in equations.block.equations)
        return self.mixing(rows) @ point[start : start + self.more]


@dataclass(frozen=True)
class Redundant:
    """What is known of derivatives of equations that are more than their unknowns.

    Attributes
    ----------
    label : str
        The block's.
    of : Redundancy
    contradict : bool
        Whether they hold together here only: then there is a solution, and no derivative.
    """

    label: str
    of: Redundancy
    contradict: bool = False
    watched: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    @property
    def turned(self) -> Redundant:
        return self

    def moved(self, found: Solved, outer: Sequence[Array]) -> Redundant:
        """The same where what the equations are made of has moved."""
        return replace(self, contradict=self.contradict or self.of.broken(found, outer))

    def fault(self, right: Array, transposed: bool) -> str:
        return self.contradict * (
            f"the equations of {self.label} are more than its unknowns, and hold together here "
            "only: where parameters move they contradict one another, and there is no derivative. "
            "Leave equations out, or differentiate the least squares, in a function: "
            "lg.argmin(lambda z: np.sum(r(z)**2), start)."
        )

    def anywhere(self, solution: Array, transposed: bool) -> Array:
        return solution


def least_squares(
    residual: Callable[[Array], Array], point: Array, jacobian: Any = "2-point"
) -> Array:
    """The least squares of residuals, from which Newton's method goes on; where it began if none.

    The equations with what is added to them may have other roots, at which they do not hold.
    """
    try:
        with np.errstate(all="ignore"):
            found = optimize.least_squares(residual, point.astype(float), jacobian, x_scale="jac").x
    except (ValueError, LagradError):  # not finite where it starts, say
        return point
    return np.asarray(found, point.dtype)
