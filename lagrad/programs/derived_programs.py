"""The programs that derivatives solve: the adjoint, and the tangent program.

For an unknown z with residual r(z, x) the adjoint program has a new unknown λ, of r's shape, and
one equation: what flows back to z, Jᵀλ included, is zero. The same pull-back gives the
contributions to x. So the derived program can be derived again. The tangent program has the
variables of the first, and for each its tangent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lagrad.errors import InvalidFunction
from lagrad.expressions.expression import Equation, Expression, Variable
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Stretch
from lagrad.systems.linearization import Linearization, plus
from lagrad.systems.rewriting import copied
from lagrad.systems.system import System
from lagrad.typing import Shape

SYMBOLS = ("λ", "μ", "ν", "ξ", "ρ", "σ", "τ", "φ", "χ", "ψ", "ω")


@dataclass(frozen=True, eq=False)
class Derived:
    """A derived program, and the data that say along what: their names by variable."""

    system: System
    seeds: dict[str, str]

    @cached_property
    def compiled(self) -> CompiledSystem:
        return CompiledSystem(self.system)


@dataclass(frozen=True, eq=False)
class Adjoint(Derived):
    """An adjoint program, and which of its variables is whose multiplier; seeds are outputs'."""

    multipliers: dict[str, str]  # from constraint to variable
    gradients: dict[str, str]  # from parameter to variable


@dataclass(frozen=True, eq=False)
class Tangent(Derived):
    """A tangent program, and which of its variables is whose tangent; seeds are parameters'."""

    tangents: dict[str, str]


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
    return PullBack(copy, {variable: seed}).run({})


def pullback(program: Derivable, outputs: tuple[str, ...]) -> Adjoint:
    """The same for the sum of several outputs, each weighted by data: `seeds` are its names."""
    compiled = program.compiled()
    return compiled.once(derived_pullback, compiled.system, outputs)


def derived_pullback(system: System, outputs: tuple[str, ...]) -> Adjoint:
    copy = copied(system, f"pullback_of_{system.name}")
    seeds = seeded(copy, [copy.variables[name] for name in outputs])
    return PullBack(copy, seeds).run({v.name: seed.name for v, seed in seeds.items()})


def tangent(program: Derivable) -> Tangent:
    """The program of a system's constraints and of all variables' tangents.

    Along a direction that is data for each parameter: `seeds` are their names.
    """
    compiled = program.compiled()
    return compiled.once(derived_tangent, compiled.system)


def derived_tangent(system: System) -> Tangent:
    return PushForward(copied(system, f"tangent_of_{system.name}")).run()


def seeded(system: System, variables: Sequence[Variable]) -> dict[Variable, Variable]:
    """New data for some variables, each in its shape."""
    return {
        v: system.leaf(system.free(f"seed_{v.name}"), "data", v.shape, v.dtype, None)
        for v in variables
    }


def derivative(variable: Variable) -> Variable:
    """A new variable as what it is, of other units than the program's own."""
    variable.derivative = True
    return variable


class SymbolicRun:
    """One symbolic run over a system's tape, which adds to the system what it finds.

    The tape's maps hold expressions: what carries numbers carries symbols too.
    """

    def __init__(self, system: System, symbols: Sequence[str], named: Sequence[str]) -> None:
        # Where a derivative was asked for that has no further ones, this is an InvalidFunction.
        for group in system.groups:
            how = group.approach
            if how.differentiate is not None or how.damping:
                raise InvalidFunction(
                    f"an implicit function over {group.unknowns[0].name!r} has differentiate= or "
                    "damping=, which gives first derivatives, of numbers only: leave it out where "
                    "derivatives are nested, or inside another implicit function."
                )
        self.system = system
        system.derived = True
        # The first symbol of which no name is taken.
        taken = {*system.variables, *system.constraints}
        self.symbol = next(
            s
            for s in (*symbols, *(f"{symbols[0]}{k}" for k in range(1000)))
            if taken.isdisjoint(f"{flow}{s}_{n}" for n in named for flow in ("", "flow_"))
        )
        self.compiled = CompiledSystem(system)
        self.tape = self.compiled.tape
        self.symbolic = Linearization(self.tape, self.tape.steps)
        self.values: list[Any] = self.symbolic.empty()

    def name(self, of: str) -> str:
        return f"{self.symbol}_{of}"

    def value(self, variable: Variable) -> Any:
        """What has arrived at a variable, or None."""
        slot = self.tape.slots.get(variable.index)
        return None if slot is None else self.values[slot]

    def define(self, of: str, shape: Shape, value: Any) -> Variable:
        """The new variable that equals what has arrived."""
        total = np.zeros(shape) if value is None else value
        return derivative(self.system.define(self.name(of), total))

    def vanishes(self, of: str, total: Any) -> None:
        """State that a sum is zero."""
        zero = self.system.arena.constant(0.0)
        self.system.subject_to(Equation(zero, total), name=f"flow_{self.name(of)}")


class PullBack(SymbolicRun):
    """One symbolic run backwards over a system's tape."""

    def __init__(self, system: System, seeds: Mapping[Variable, Expression]) -> None:
        self.constraints = list(system.constraints.values())
        self.parameters = system.with_role("parameter")
        variables = system.with_role("parameter", "unknown")
        named = [*system.constraints, *(v.name for v in variables)]
        super().__init__(system, SYMBOLS, named)
        self.seeds = seeds
        slots = self.tape.slots
        for output, seed in seeds.items():
            if output.index in slots:
                self.values[slots[output.index]] = seed
        self.by_slot = {slots[v.index]: v for v in system.variables.values() if v.index in slots}
        self.defined: set[str] = set()

    def define(self, of: str, shape: Shape, value: Any) -> Variable:
        """The multiplier, or the gradient, that equals a cotangent."""
        self.defined.add(of)
        return super().define(of, shape, value)

    def run(self, names: dict[str, str]) -> Adjoint:
        """The adjoint program; `names` are those of the seeds that are data, by output."""
        for stretch in reversed(self.compiled.stretches):
            run = stretch.run
            idle = isinstance(run, ImplicitRun) and self._begin_block(run, stretch)
            for k in reversed(stretch.steps):
                step = self.tape.steps[k]
                if step.map is None and (v := self.by_slot[step.target]).name not in self.defined:
                    self.values[step.target] = self.define(v.name, v.shape, self.value(v))
                self.symbolic.pull(self.values, (k,))
            if isinstance(run, ImplicitRun) and not idle:
                # Nothing flows back to the unknowns in sum.
                for unknown in run.block.unknowns:
                    if (total := self.value(unknown)) is not None:
                        self.vanishes(unknown.name, total)
        for constraint in self.constraints:
            if constraint.name not in self.defined:
                if constraint.variable is not None:
                    self._define_at(constraint.variable)
                elif constraint.size == 0:
                    self.define(constraint.name, constraint.shape, None)
        for parameter in self.parameters:
            self._define_at(parameter)
        multipliers = {c.name: self.name(c.name) for c in self.constraints}
        gradients = {v.name: self.name(v.name) for v in self.parameters}
        return Adjoint(self.system, names, multipliers, gradients)

    def _define_at(self, variable: Variable) -> None:
        cotangent = self.value(variable)
        if cotangent is None:
            cotangent = self.seeds.get(variable)
        self.define(variable.name, variable.shape, cotangent)

    def _begin_block(self, run: ImplicitRun, stretch: Stretch) -> bool:
        """Seed the residuals with new unknowns, or with zero where nothing flows back: if so."""
        slots = self.tape.slots
        touched = {self.tape.steps[k].target for k in stretch.steps}
        touched |= {slots[v.index] for v in run.block.unknowns}
        idle = all(self.values[slot] is None for slot in touched)
        for constraint in run.block.equations:
            if idle:
                self.define(constraint.name, constraint.shape, None)
                continue
            slot = slots[constraint.root.index]
            name = self.name(constraint.name)
            seed = derivative(self.system.unknown(name, shape=constraint.shape))
            self.values[slot] = plus(self.values[slot], seed)
        return idle


class PushForward(SymbolicRun):
    """One symbolic run forwards over a system's tape."""

    def __init__(self, system: System) -> None:
        self.variables = list(system.variables.values())
        super().__init__(system, ("d",), [v.name for v in self.variables])

    def run(self) -> Tangent:
        system, slots = self.system, self.tape.slots
        seeds = seeded(system, system.with_role("parameter"))
        for v, seed in seeds.items():
            self.values[slots[v.index]] = seed
        for stretch in self.compiled.stretches:
            block = stretch.run.block if isinstance(stretch.run, ImplicitRun) else None
            for v in block.unknowns if block else ():
                tangent = derivative(system.unknown(self.name(v.name), v.shape, dtype=v.dtype))
                self.values[slots[v.index]] = tangent
            self.symbolic.push(self.values, stretch.steps)
            for c in block.equations if block else ():
                self.vanishes(c.name, self.values[slots[c.root.index]])
        for v in self.variables:
            found = self.value(v)
            if v.role != "unknown" or found is None:
                self.define(v.name, v.shape, found)
        names = {v.name: seed.name for v, seed in seeds.items()}
        return Tangent(system, names, {v.name: self.name(v.name) for v in self.variables})
