"""Roots, of as many equations as unknowns, and of more where these hold together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch
from lagrad.expressions.expression import Variable
from lagrad.implicit.approach import ImplicitApproach
from lagrad.solving.parametric_problem import Problem
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
        if found < wanted:
            raise ShapeMismatch(
                f"the residual {name!r} has shapes {[v.shape for v in inner.returned]}, {found} "
                f"numbers, for {wanted} unknowns; expected as many or more."
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
        return super().by_name(values[: len(self.unknowns)], data)

    def begin(
        self, arguments: Sequence[Array], start: Sequence[Array], afresh: bool = False
    ) -> list[Array]:
        return super().begin(arguments, start[: len(self.unknowns)], afresh)

    def keeps_branches(
        self, arguments: Sequence[Array], start: Sequence[Array], values: Sequence[Array]
    ) -> bool:
        count = len(self.unknowns)
        return super().keeps_branches(arguments, start[:count], values[:count])

    def all_values(self, problem: Problem, point: Array) -> list[Array]:
        return [*super().all_values(problem, point), np.zeros(self.more)]

    def finish(self, arguments: Sequence[Array], start: Sequence[Array], policy: Any = None) -> Any:
        begin = [*start[: len(self.unknowns)], np.zeros(self.more)]
        return super().finish(arguments, begin, policy)

    def approached(self, problem: Problem, point: Array) -> Array:
        residual = lambda z: joined(problem(z)).astype(float)
        return least_squares(residual, point, lambda z: problem.jacobian(z, problem.outputs))
