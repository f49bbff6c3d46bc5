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
from lagrad.systems.linearization import Nodes, joined, split
from lagrad.systems.reduced_block import entry_name
from lagrad.systems.system import System
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.solving.block_certification import Solved

# How many times rounding the equations may be off that hold together.
ROUNDED = 1e4
# A size beside which nothing of an unknown matters.
NO_SIZE = 1e30
# How small a step beside a point, or a gradient, ends the search for least squares.
EXACT = 1e-15
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
        # Of no size of its own: whether the equations hold together is judged by their rounding.
        off = into.unknown(into.free("off"), (self.more,), 0.0, dtype, NO_SIZE)
        sizes = [r.size for r in residuals]
        rows = np.split(self.mixing(sum(sizes)).astype(dtype), np.cumsum(sizes)[:-1])
        pairs = zip(residuals, rows, strict=True)
        return [r + np.reshape(np.matmul(part, off), r.shape) for r, part in pairs], off


@dataclass(frozen=True)
class Redundant:
    """Equations of a block that are more than their unknowns, once or several times.

    Attributes
    ----------
    label : str
        The block's.
    parts : tuple of pairs
        What is known of each, and the further unknowns that it was given.
    contradict : bool
        Whether they hold together here only: then there is a solution, and no derivative.
    """

    label: str
    parts: tuple[tuple[Redundancy, Variable], ...]
    contradict: bool = False
    watched: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    @property
    def turned(self) -> Redundant:
        return self

    def contradiction(self, found: Solved) -> NotConverged | None:
        """The error where the equations do not hold together."""
        problem, bound = found.problem, found.bound
        here = LocalEquations(problem.equations, problem.outer, found.point)
        # Rounding is that of all equations, not of the one that is looked at.
        spread = np.repeat(bound.each * bound.sizes, problem.scale.sizes)
        for of, off in self.parts:
            added = np.abs(self._added(found, off, found.point))
            rounding = problem.scale.epsilon * here.terms + np.abs(self._added(found, off, spread))
            if (added > ROUNDED * rounding).any():
                worst = entry_name(problem.equations.block.equations, int(np.argmax(added)))
                return NotConverged(
                    f"{of.said} contradict one another: what is nearest to a solution leaves "
                    f"{largest(added):.1e}, most of it in {worst!r}. Leave equations out, or ask "
                    "for the least squares, in a function: "
                    "lg.argmin(lambda z: np.sum(r(z)**2), start)."
                )
        return None

    def moved(self, found: Solved, outer: Sequence[Array]) -> Redundant:
        """The same where what the equations are made of has moved."""
        return replace(self, contradict=self.contradict or self._broken(found, outer))

    def fault(self, right: Array, transposed: bool, sizes: Callable[[], Array]) -> str:
        return self.contradict * (
            f"the equations of {self.label} are more than its unknowns, and hold together here "
            "only: where parameters move they contradict one another, and there is no derivative. "
            "Leave equations out, or differentiate the least squares, in a function: "
            "lg.argmin(lambda z: np.sum(r(z)**2), start)."
        )

    def anywhere(self, solution: Array, transposed: bool) -> Array:
        return solution

    def _broken(self, found: Solved, outer: Sequence[Array]) -> bool:
        """Whether moved equations hold together no longer, to first order."""
        equations, problem = found.problem.equations, found.problem
        # Moved to both sides, so that what a square changes by is nothing.
        back = [
            (2 * at - to).astype(at.dtype) if at.dtype.kind == "f" else at
            for at, to in zip(map(np.asarray, problem.outer), outer, strict=True)
        ]
        # In a wider precision: a move of single precision's last bits is rounding in it.
        before = equations.finer_residual(back, found.point)
        after = equations.finer_residual(list(outer), found.point)
        rounding = largest(found.bound.direction)
        if before is None or after is None:
            before = equations.residual(back, found.point)
            after = equations.residual(list(outer), found.point)
        else:
            spacings = (float(np.finfo(str(a.dtype)).eps) for a in (after, found.point))
            rounding *= next(spacings) / next(spacings)
        change = np.asarray(after - before, dtype=float)
        along = found.factors.solve(change)
        added = max(largest(self._added(found, off, along)) for _, off in self.parts)
        return not added <= LEFT * largest(change) + ROUNDED * rounding

    def _added(self, found: Solved, off: Variable, vector: Array) -> Array:
        """What further unknowns add to the equations."""
        unknowns = found.problem.equations.unknowns
        pairs = zip(unknowns, split(vector, unknowns), strict=True)
        only = joined([piece if v is off else np.zeros_like(piece) for v, piece in pairs])
        return found.jacobian.mv(only)


def least_squares(
    residual: Callable[[Array], Array], point: Array, jacobian: Any = "2-point"
) -> Array:
    """The least squares of residuals, from which Newton's method goes on; where it began if none.

    The equations with what is added to them may have other roots, at which they do not hold.
    """
    try:
        with np.errstate(all="ignore"):
            ends = {"x_scale": "jac", "xtol": EXACT, "gtol": EXACT}
            found = optimize.least_squares(residual, point.astype(float), jacobian, **ends).x
    except (ValueError, LagradError):  # not finite where it starts, say
        return point
    return np.asarray(found, point.dtype)
