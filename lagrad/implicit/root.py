"""Roots, of as many equations as unknowns, and of more where these hold together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch
from lagrad.expressions.expression import Variable
from lagrad.implicit.approach import ImplicitApproach, Problem
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import LocalEquations
from lagrad.solving.failure_messages import Failure
from lagrad.solving.redundant_equations import Redundancy, least_squares
from lagrad.systems.linearization import Nodes, joined
from lagrad.systems.system import System
from lagrad.transforms.trace import Trace
from lagrad.typing import Array


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

    @cached_property
    def redundancy(self) -> Redundancy:
        return Redundancy(
            f"the equations of {self.name!r} are more than its unknowns, and", self.more
        )

    def mixed(self, into: System, outputs: Nodes) -> tuple[Nodes, tuple[Variable, ...]]:
        sides, off = self.redundancy.mixed(into, outputs)
        return sides, (off,)

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
        return least_squares(lambda z: joined(problem(z)).astype(float), point)

    def strays(self, begin: LocalEquations, found: Solved) -> Failure | None:
        return self.redundancy.contradiction(begin, found)

    def judged(self, found: Solved) -> Solved:
        return self.redundancy.judged(found)
