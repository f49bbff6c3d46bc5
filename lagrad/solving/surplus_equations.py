"""Declared programs of more equations than unknowns: each part that has too many is one block.

Which part that is follows from structure; whether its equations hold together, from numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.solving.redundant_equations import Redundancy, least_squares
from lagrad.systems.constraint import Constraint, ImplicitGroup, definitions
from lagrad.systems.linearization import Tape, joined, split
from lagrad.systems.structure import Pairing, listed
from lagrad.systems.system import System
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.linear_solvers.base import LinearSolver
    from lagrad.solving.block_certification import Solved
    from lagrad.solving.block_equations import BlockEquations, LocalEquations

# Entries of a Jacobian up to which the least squares are of a dense one.
DENSE = 40_000


def completed(system: System) -> System:
    """A system with as many unknowns as equations: with further ones where these are too many."""
    called = {v for group in system.groups for v in group.unknowns}
    found = system.snapshot()
    for constraints, unknowns in Pairing(system).surplus():
        if called.isdisjoint(unknowns):
            complete(found, constraints, unknowns)
    return found


def complete(
    system: System, constraints: Sequence[Constraint], unknowns: Sequence[Variable]
) -> None:
    """Give equations further unknowns, so that they have as many."""
    count, wanted = sum(c.size for c in constraints), sum(v.size for v in unknowns)
    said = (
        f"the equations {listed([c.name for c in constraints])} are {count} for {wanted} "
        f"unknown{'s' * (wanted != 1)}, {listed([v.name for v in unknowns])}, and"
    )
    redundancy, defined = Redundancy(said, count - wanted), definitions(system)
    residuals = [c.root for c in constraints]
    inside = {v.index for v in (*unknowns, *system.with_role("defined"))}
    leaves = ancestors(residuals, lambda n: n.primitive is None, defined)
    outer = [n for n in leaves if isinstance(n, Variable) and n.index not in inside]
    with system.arena.reopened():
        sides, off = redundancy.mixed(system, residuals)
    for constraint, side in zip(constraints, sides, strict=True):
        system.constraints[constraint.name] = replace(constraint, residual=side)
    approach = Surplus(redundancy, tuple(unknowns), tuple(residuals), tuple(outer), defined)
    starts = (None,) * (len(unknowns) + 1)
    system.groups.append(ImplicitGroup((*unknowns, off), tuple(outer), approach, starts))


@dataclass(frozen=True, eq=False)
class Surplus:
    """How equations that are too many are approached: by their least squares.

    Attributes
    ----------
    redundancy : Redundancy
    unknowns, residuals, outer : tuples of nodes
    defined : dict
        The right side of each defined variable, by the variable's index.
    """

    redundancy: Redundancy
    unknowns: tuple[Variable, ...]
    residuals: tuple[Expression, ...]
    outer: tuple[Variable, ...]
    defined: dict[int, Expression]

    inner: ClassVar[tuple[str, ...]] = ()
    tol: ClassVar[float | None] = None
    damping: ClassVar[float] = 0.0
    differentiate: ClassVar[None] = None
    warm: ClassVar[None] = None
    settles: ClassVar[bool] = False
    minimises: ClassVar[bool] = False
    steps: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return self.unknowns[0].name

    @cached_property
    def _plan(self) -> Plan:
        return Plan([*self.outer, *self.unknowns], self.residuals, self.defined)

    @cached_property
    def _tape(self) -> tuple[Tape, Plan]:
        def known(node: Expression) -> bool:
            return isinstance(node, Variable) and node.index not in self.defined

        with self.unknowns[0].graph.reopened():
            tape = Tape(self.residuals, self.unknowns, known, self.defined)
            return tape, Plan([*self.outer, *self.unknowns], tape.data, self.defined)

    def begin(
        self, arguments: Sequence[Array], start: Sequence[Array], afresh: bool = False
    ) -> list[Array]:
        tape, data = self._tape
        *known, off = start
        point = joined(known)
        dense = point.size * sum(r.size for r in self.residuals) <= DENSE

        def given(z: Array) -> list[Array]:
            return [*arguments, *split(z, self.unknowns)]

        def residual(z: Array) -> Array:
            return joined(self._plan(given(z)))

        def jacobian(z: Array) -> Any:
            return tape.at(data(given(z))).jacobian(self.residuals, self.unknowns, dense)

        found = least_squares(residual, point, jacobian)
        return [*split(found, self.unknowns), np.zeros_like(off)]

    def keeps_branches(
        self, arguments: Sequence[Array], start: Sequence[Array], values: Sequence[Array]
    ) -> bool:
        return True

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        return None

    def beyond(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        return None

    def solver(self, equations: BlockEquations) -> LinearSolver:
        return equations.solver

    def moves_away(self, solved: Solved) -> None:
        return None

    def strays(self, begin: LocalEquations, found: Solved) -> None:
        return None

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        return None
