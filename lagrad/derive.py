"""The adjoint program: a program like any other, derived by pulling multipliers back.

For an unknown z with residual r(z, x) the adjoint program has a new unknown λ, of r's shape, and
one equation: what flows back to z, Jᵀλ included, is zero. The same pull-back gives the
contributions to x. So the derived program can be derived again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiled import Compiled, ImplicitRun, Stretch
from lagrad.expression import Constant, Expression, Variable
from lagrad.plan import ancestors
from lagrad.system import Constraint, System
from lagrad.tape import Linearization

__all__ = ["Adjoint", "adjoint"]

SYMBOLS = ("λ", "μ", "ν", "ξ", "ρ", "σ", "τ", "φ", "χ", "ψ", "ω")


@dataclass(frozen=True, eq=False)
class Adjoint:
    """An adjoint program, and which of its variables is whose multiplier."""

    system: System
    multipliers: dict[str, str]  # from constraint to variable
    gradients: dict[str, str]  # from parameter to variable

    @cached_property
    def compiled(self) -> Compiled:
        return Compiled(self.system)


def adjoint(compiled: Compiled, output: str) -> Adjoint:
    """The program of a system's constraints and its multipliers for one output."""
    found = compiled.derived.get(output)
    if found is None:
        found = compiled.derived[output] = derived(compiled.system, output)
    assert isinstance(found, Adjoint)
    return found


def copied(system: System, name: str) -> System:
    """A system with the same variables and constraints, in a graph of its own."""
    copy = type(system)(name)
    roots = [
        *system.variables.values(),
        *(side for c in system.constraints.values() for side in (c.lhs, c.rhs, *c.roots)),
    ]
    node: dict[int, Expression] = {}
    defined = {c.variable.index: c for c in system.constraints.values() if c.variable is not None}
    right_sides = {i: c.rhs for i, c in defined.items()}
    for old in ancestors(roots, lambda n: False, right_sides):
        if isinstance(old, Constant):
            node[old.index] = copy.arena.constant(old.value)
        elif isinstance(old, Variable):
            new = copy.leaf(old.name, old.role, old.shape, old.dtype, old.start)
            if old.role == "unknown":
                new.unknown = new.index
            elif old.index in defined:
                new.unknown = node[right_sides[old.index].index].unknown
            node[old.index] = new
        else:
            assert old.primitive is not None
            arguments = tuple(node[a.index] for a in old.arguments)
            node[old.index] = copy.arena.apply(old.primitive, arguments, old.parameters)
    copy.variables = {name: copy.variables[name] for name in system.variables}
    for c in system.constraints.values():
        residual = None if c.residual is None else node[c.residual.index]
        variable = None if c.variable is None else copy.variables[c.variable.name]
        copy.constraints[c.name] = Constraint(
            c.name, node[c.lhs.index], node[c.rhs.index], variable, residual
        )
    return copy


def derived(system: System, output: str) -> Adjoint:
    copy = copied(system, f"adjoint_of_{output}_in_{system.name}")
    constraints = list(copy.constraints.values())
    parameters = [v.name for v in copy.with_role("parameter")]
    taken = {*copy.variables, *copy.constraints}
    unknowns = [v.name for v in copy.with_role("unknown")]
    symbol = next(
        s
        for s in (*SYMBOLS, *(f"λ{k}" for k in range(1000)))
        if taken.isdisjoint(f"{s}_{n}" for n in (*copy.constraints, *parameters))
        and taken.isdisjoint(f"flow_{s}_{n}" for n in unknowns)
    )
    return PullBack(copy, copy.variables[output], symbol, constraints, parameters).run()


class PullBack:
    """One symbolic run backwards over a system's tape."""

    def __init__(
        self,
        system: System,
        output: Variable,
        symbol: str,
        constraints: list[Constraint],
        parameters: list[str],
    ) -> None:
        self.system = system
        self.symbol = symbol
        self.constraints = constraints
        self.parameters = parameters
        self.compiled = Compiled(system)
        # The tape's maps hold expressions: what carries numbers back carries symbols back too.
        self.tape = self.compiled.tape
        self.symbolic = Linearization(self.tape, self.tape.steps)
        self.cotangents: list[Any] = self.symbolic.empty()
        self.output = output
        slot = self.tape.slots.get(output.index)
        if slot is not None:
            self.cotangents[slot] = system.arena.constant(np.ones(output.shape, output.dtype))
        self.defined: set[str] = set()

    def name(self, of: str) -> str:
        return f"{self.symbol}_{of}"

    def define(self, of: str, shape: tuple[int, ...], cotangent: Any) -> Variable:
        """The multiplier, or the gradient, that equals a cotangent."""
        if cotangent is None:
            cotangent = np.zeros(shape)
        self.defined.add(of)
        return self.system.define(self.name(of), cotangent)

    def run(self) -> Adjoint:
        for stretch in reversed(self.compiled.stretches):
            if isinstance(stretch.run, ImplicitRun):
                self._begin_block(stretch.run, stretch)
            for k in reversed(stretch.steps):
                self._step(self.tape.steps[k])
            if isinstance(stretch.run, ImplicitRun):
                self._end_block(stretch.run)
        for constraint in self.constraints:
            if constraint.variable is not None and constraint.name not in self.defined:
                self._define_at(constraint.variable)
            elif constraint.size == 0:
                self.define(constraint.name, constraint.shape, None)
        for name in self.parameters:
            self._define_at(self.system.variables[name])
        multipliers = {c.name: self.name(c.name) for c in self.constraints}
        return Adjoint(self.system, multipliers, {n: self.name(n) for n in self.parameters})

    def _define_at(self, variable: Variable) -> Variable:
        slot = self.tape.slots.get(variable.index)
        cotangent = None if slot is None else self.cotangents[slot]
        if cotangent is None and variable is self.output:
            cotangent = np.ones(variable.shape)
        return self.define(variable.name, variable.shape, cotangent)

    def _step(self, step: Any) -> None:
        cotangent = self.cotangents[step.target]
        if step.map is None:
            variable = self.variable_at(step.target)
            if variable.name not in self.defined:
                cotangent = self.define(variable.name, variable.shape, cotangent)
        if cotangent is None:
            return
        moved = cotangent if step.map is None else step.map.rmv(cotangent)
        held = self.cotangents[step.source]
        self.cotangents[step.source] = moved if held is None else moved + held

    def variable_at(self, slot: int) -> Variable:
        return self._by_slot[slot]

    @cached_property
    def _by_slot(self) -> dict[int, Variable]:
        return {
            self.tape.slots[v.index]: v
            for v in self.system.variables.values()
            if v.index in self.tape.slots
        }

    def _begin_block(self, run: ImplicitRun, stretch: Stretch) -> None:
        """Seed the residuals with new unknowns, or with zero where nothing flows back."""
        slots = self.tape.slots
        touched = {self.tape.steps[k].target for k in stretch.steps}
        touched |= {slots[v.index] for v in run.block.unknowns}
        idle = all(self.cotangents[slot] is None for slot in touched)
        for constraint in run.block.equations:
            assert constraint.residual is not None
            slot = slots[constraint.residual.index]
            if idle:
                self.define(constraint.name, constraint.shape, None)
                continue
            seed = self.system.unknown(self.name(constraint.name), shape=constraint.shape)
            held = self.cotangents[slot]
            self.cotangents[slot] = seed if held is None else held + seed

    def _end_block(self, run: ImplicitRun) -> None:
        """State that nothing flows back to the unknowns in sum."""
        for unknown in run.block.unknowns:
            total = self.cotangents[self.tape.slots[unknown.index]]
            if total is not None:
                self.system.subject_to(
                    self.system.arena.constant(0.0) == total,
                    name=f"flow_{self.name(unknown.name)}",
                )
