"""What a system holds beside variables: constraints, and what implicit functions introduced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lagrad.expressions.expression import Expression, Variable
from lagrad.public import Public
from lagrad.typing import Shape

if TYPE_CHECKING:
    from lagrad.systems.system import System


@dataclass(frozen=True, eq=False, slots=True)
class Constraint(Public):
    """`lhs == rhs`, with its residual `rhs − lhs`; `variable` is set where it defines one."""

    PUBLIC = ("name", "lhs", "rhs", "shape", "size")

    name: str
    lhs: Expression
    rhs: Expression
    variable: Variable | None
    residual: Expression | None

    @property
    def shape(self) -> Shape:
        return self.root.shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def root(self) -> Expression:
        """The expression that a solve evaluates."""
        return self.rhs if self.residual is None else self.residual

    def moved(
        self, node: Mapping[int, Expression], name: str, variable: Variable | None = None
    ) -> Constraint:
        """The constraint between other nodes, by the index of its own."""
        residual = None if self.residual is None else node[self.residual.index]
        return Constraint(name, node[self.lhs.index], node[self.rhs.index], variable, residual)


@dataclass(frozen=True, eq=False, slots=True)
class ImplicitGroup:
    """Unknowns that an implicit function introduced, and how their solution is approached.

    `approach(arguments, start)` gives each of the unknowns a value near the solution, from where
    Newton's method goes on: `arguments` are the values of the expressions of that name. Of an
    unknown that starts at a traced value, that value is in `starts`.
    """

    unknowns: tuple[Variable, ...]
    arguments: tuple[Expression, ...]
    approach: Any
    starts: tuple[Expression | None, ...]

    @property
    def given(self) -> tuple[Expression, ...]:
        """What must be known before the group is solved."""
        return (*self.arguments, *(s for s in self.starts if s is not None))

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells groups apart, whatever the numbers."""
        nodes = (*self.unknowns, *self.arguments, *self.starts)
        return (tuple(None if node is None else node.index for node in nodes), self.approach)

    def moved(self, node: Mapping[int, Expression]) -> ImplicitGroup:
        """The group with other nodes in the place of its own, by their index."""
        unknowns = tuple(v for u in self.unknowns if isinstance(v := node[u.index], Variable))
        starts = tuple(None if s is None else node[s.index] for s in self.starts)
        arguments = tuple(node[a.index] for a in self.arguments)
        return ImplicitGroup(unknowns, arguments, self.approach, starts)


def excess(system: System) -> int:
    """How many more equations a system has than unknowns."""
    stated = sum(c.size for c in system.constraints.values() if c.variable is None)
    return stated - sum(v.size for v in system.with_role("unknown"))


def definitions(system: System) -> dict[int, Expression]:
    """For each defined variable, by its index, the expression that it equals."""
    return right_sides(system.constraints.values())


def right_sides(constraints: Iterable[Constraint]) -> dict[int, Expression]:
    """The same of some constraints."""
    return {c.variable.index: c.rhs for c in constraints if c.variable is not None}
