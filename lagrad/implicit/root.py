"""Roots, of as many equations as unknowns, and of more where these hold together.

With r(z) = 0 of m equations for n unknowns, r(z) + Q s = 0 has as many of both: s is one unknown
for each equation too many, and Q any matrix, drawn at random so that [∂r/∂z Q] is regular where
∂r/∂z has full rank. The equations hold together where s = 0, and have a derivative where s stays
so while what they are made of moves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from lagrad.errors import LagradError, NotConverged, ShapeMismatch
from lagrad.expressions.expression import Variable
from lagrad.implicit.approach import ImplicitApproach, Problem
from lagrad.lazy_import import LazyImport
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import LocalEquations, largest
from lagrad.systems.linearization import Nodes, joined
from lagrad.systems.reduced_block import entry_name
from lagrad.systems.system import System
from lagrad.transforms.trace import Trace
from lagrad.typing import Array

optimize: Any = LazyImport("scipy.optimize")

# How many times rounding the equations may be off that hold together.
ROUNDED = 1e4
# What may be left of a move.
LEFT = 1e-4


class Root(ImplicitApproach):
    """z with r(z) = 0."""

    kind = "root"

    @classmethod
    def check(cls, inner: Trace, starts: Sequence[Array], name: str) -> None:
        found, wanted = sum(v.size for v in inner.returned), sum(s.size for s in starts)
        nested = bool(inner.program.with_role("unknown"))
        if found < wanted or (found > wanted and nested):
            raise ShapeMismatch(
                f"the residual {name!r} has shapes {[v.shape for v in inner.returned]}, {found} "
                f"numbers, for {wanted} unknowns; expected as many"
                + (", there being an implicit function inside." if nested else " or more.")
            )

    @classmethod
    def of(cls, inner: Trace, how: Mapping[str, Any]) -> ImplicitApproach:
        found = super().of(inner, how)
        variables = inner.program.variables
        count = sum(variables[name].size for name in found.varied)
        more = sum(v.size for v in inner.returned) - count
        return found if not more else Overdetermined.of_root(found, more)


@dataclass(frozen=True)
class Overdetermined(Root):
    """z with r(z) = 0, of more equations than unknowns.

    Attributes
    ----------
    more : int
        How many more.
    """

    more: int = 0

    @classmethod
    def of_root(cls, root: ImplicitApproach, more: int) -> "Overdetermined":
        given = {field.name: getattr(root, field.name) for field in fields(root)}
        return cls(**given, more=more)

    def mixing(self, rows: int) -> Array:
        """Q: what each further unknown adds to each equation."""
        return np.random.default_rng(0).standard_normal((rows, self.more)) / np.sqrt(self.more)

    def mixed(self, into: System, outputs: Nodes) -> tuple[Nodes, tuple[Variable, ...]]:
        dtype = np.result_type(*[output.dtype for output in outputs])
        off = into.unknown(into.free("off"), (self.more,), 0.0, dtype)
        sizes = [output.size for output in outputs]
        rows = np.split(self.mixing(sum(sizes)).astype(dtype), np.cumsum(sizes)[:-1])
        pairs = zip(outputs, rows, strict=True)
        return [o + np.reshape(np.matmul(part, off), o.shape) for o, part in pairs], (off,)

    def by_name(self, values: Sequence[Any], data: Sequence[Any]) -> dict[str, Any]:
        return super().by_name(values[: len(self.varied)], data)

    def begin(
        self, arguments: Sequence[Array], start: Sequence[Array], afresh: bool = False
    ) -> list[Array]:
        return super().begin(arguments, start[: len(self.varied)], afresh)

    def all_values(self, problem: Problem, point: Array) -> list[Array]:
        return [*problem.pieces(point), np.zeros(self.more)]

    def finish(self, arguments: Sequence[Array], start: Sequence[Array], policy: Any = None) -> Any:
        begin = [*start[: len(self.varied)], np.zeros(self.more)]
        return super().finish(arguments, begin, policy)

    def approached(self, problem: Problem, point: Array) -> Array:
        """The least squares of the residuals, from which Newton's method goes on."""
        residual = lambda z: joined(problem(z)).astype(float)
        try:
            with np.errstate(all="ignore"):
                found = optimize.least_squares(residual, point.astype(float), x_scale="jac").x
        except (ValueError, LagradError):  # not finite where it starts, say
            return point
        return np.asarray(found, point.dtype)

    def strays(self, begin: LocalEquations, found: Solved) -> Any:
        """The error where the equations do not hold together."""
        equations = found.problem.equations
        here = LocalEquations(equations, found.problem.outer, found.point)
        added = np.abs(self._added(equations, found.point))
        if not (added > ROUNDED * found.problem.scale.epsilon * here.terms).any():
            return None
        worst = entry_name(equations.block.equations, int(np.argmax(added)))
        return NotConverged(
            f"the equations of {self.name!r} are more than its unknowns, and contradict one "
            f"another: what is nearest to a solution leaves {largest(added):.1e}, most of it in "
            f"{worst!r}. Leave equations out, or ask for the least squares: "
            "lg.argmin(lambda z: np.sum(r(z)**2), start)."
        )

    def judged(self, found: Solved) -> Solved:
        if found.free is not None:
            return found  # one of many solutions, whose directions say more
        return replace(found, free=Redundant(found.problem.equations.block.label, self))

    def broken(self, found: Solved, outer: Sequence[Array]) -> bool:
        """Whether moved equations hold together no longer, to first order."""
        equations, here = found.problem.equations, found.problem.at(found.point)
        change = LocalEquations(equations, list(outer), found.point).residual - here.residual
        step = found.factors.solve(change.astype(float))
        added = largest(self._added(equations, step))
        return not added <= LEFT * largest(change) + ROUNDED * largest(found.bound.direction)

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
    """What is known of equations that are more than their unknowns.

    Attributes
    ----------
    label : str
        The block's.
    of : Overdetermined
    contradict : bool
        Whether they hold together here only: then there is a solution, and no derivative.
    """

    label: str
    of: Overdetermined
    contradict: bool = False
    watched: ClassVar[bool] = True

    @property
    def turned(self) -> "Redundant":
        return self

    def moved(self, found: Solved, outer: Sequence[Array]) -> "Redundant":
        """The same where what the equations are made of has moved."""
        return replace(self, contradict=self.contradict or self.of.broken(found, outer))

    def fault(self, right: Array, transposed: bool) -> str:
        return self.contradict * (
            f"the equations of {self.label} are more than its unknowns, and hold together here "
            "only: where parameters move they contradict one another, and there is no derivative. "
            "Leave equations out, or differentiate the least squares: "
            "lg.argmin(lambda z: np.sum(r(z)**2), start)."
        )

    def anywhere(self, solution: Array, transposed: bool) -> Array:
        return solution
