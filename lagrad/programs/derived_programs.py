"""The adjoint program: a program like any other, derived by pulling multipliers back.

For an unknown z with residual r(z, x) the adjoint program has a new unknown λ, of r's shape, and
one equation: what flows back to z, Jᵀλ included, is zero. The same pull-back gives the
contributions to x. So the derived program can be derived again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lagrad.errors import InvalidFunction
from lagrad.expressions.expression import Equation, Expression, Variable
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Stretch
from lagrad.systems.constraint import Constraint
from lagrad.systems.linearization import Linearization
from lagrad.systems.rewriting import copied
from lagrad.systems.system import System
from lagrad.typing import Shape

SYMBOLS = ("λ", "μ", "ν", "ξ", "ρ", "σ", "τ", "φ", "χ", "ψ", "ω")


@dataclass(frozen=True, eq=False)
class Adjoint:
    """An adjoint program, and which of its variables is whose multiplier."""

    system: System
    multipliers: dict[str, str]  # from constraint to variable
    gradients: dict[str, str]  # from parameter to variable
    seeds: dict[str, str]  # from output to data

    @cached_property
    def compiled(self) -> CompiledSystem:
        return CompiledSystem(self.system)


class Derivable(Protocol):
    """A program, which is compiled once."""

    def compiled(self) -> CompiledSystem: ...


def adjoint(program: Derivable, output: str) -> Adjoint:
    """The program of a system's constraints and its multipliers for one output."""
    compiled = program.compiled()
    return compiled.once(derived_adjoint, compiled.system, output)


def derived_adjoint(system: System, output: str) -> Adjoint:
    copy = copied(system, f"adjoint_of_{output}_in_{system.name}")
    variable = copy.variables[output]
    seed = copy.arena.constant(np.ones(variable.shape, variable.dtype))
    return PullBack(copy, {variable: seed}, {}).run()


def pullback(program: Derivable, outputs: tuple[str, ...]) -> Adjoint:
    """The same for the sum of several outputs, each weighted by data: `seeds` are its names."""
    compiled = program.compiled()
    return compiled.once(derived_pullback, compiled.system, outputs)


def derived_pullback(system: System, outputs: tuple[str, ...]) -> Adjoint:
    copy = copied(system, f"pullback_of_{system.name}")
    names = {name: copy.free(f"seed_{name}") for name in outputs}
    seeds: dict[Variable, Expression] = {}
    for name in outputs:
        v = copy.variables[name]
        seeds[v] = copy.leaf(names[name], "data", v.shape, v.dtype, None)
    return PullBack(copy, seeds, names).run()


def free_symbol(system: System, symbols: Sequence[str], names: Sequence[str]) -> str:
    """The first symbol of which no name is taken."""
    taken = {*system.variables, *system.constraints}
    return next(
        s
        for s in (*symbols, *(f"{symbols[0]}{k}" for k in range(1000)))
        if taken.isdisjoint(f"{s}_{n}" for n in names)
        and taken.isdisjoint(f"flow_{s}_{n}" for n in names)
    )


def require_implicit(system: System) -> None:
    """InvalidFunction where a derivative was asked for that has no further ones."""
    for group in system.groups:
        how = group.approach
        if how.differentiate is not None or how.damping:
            raise InvalidFunction(
                f"an implicit function over {group.unknowns[0].name!r} has differentiate= or "
                "damping=, which gives first derivatives, of numbers only: leave it out where "
                "derivatives are nested, or inside another implicit function."
            )


class PullBack:
    """One symbolic run backwards over a system's tape."""

    def __init__(
        self, system: System, seeds: Mapping[Variable, Expression], names: dict[str, str]
    ) -> None:
        require_implicit(system)
        self.system = system
        self.constraints: list[Constraint] = list(system.constraints.values())
        self.parameters = [v.name for v in system.with_role("parameter")]
        unknowns = [v.name for v in system.with_role("unknown")]
        constrained = [c.name for c in self.constraints]
        self.symbol = free_symbol(system, SYMBOLS, [*constrained, *self.parameters, *unknowns])
        self.compiled = CompiledSystem(system)
        # The tape's maps hold expressions: what carries numbers back carries symbols back too.
        self.tape = self.compiled.tape
        self.symbolic = Linearization(self.tape, self.tape.steps)
        self.cotangents: list[Any] = self.symbolic.empty()
        self.seeds, self.names = seeds, names
        for output, seed in seeds.items():
            slot = self.tape.slots.get(output.index)
            if slot is not None:
                self.cotangents[slot] = seed
        self.defined: set[str] = set()

    def name(self, of: str) -> str:
        return f"{self.symbol}_{of}"

    def define(self, of: str, shape: Shape, cotangent: Any) -> Variable:
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
            elif constraint.size == 0 and constraint.name not in self.defined:
                self.define(constraint.name, constraint.shape, None)
        for name in self.parameters:
            self._define_at(self.system.variables[name])
        multipliers = {c.name: self.name(c.name) for c in self.constraints}
        gradients = {n: self.name(n) for n in self.parameters}
        return Adjoint(self.system, multipliers, gradients, self.names)

    def _define_at(self, variable: Variable) -> Variable:
        slot = self.tape.slots.get(variable.index)
        cotangent = None if slot is None else self.cotangents[slot]
        if cotangent is None:
            cotangent = self.seeds.get(variable)
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
                    Equation(self.system.arena.constant(0.0), total),
                    name=f"flow_{self.name(unknown.name)}",
                )
