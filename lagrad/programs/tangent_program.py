"""The tangent program: a program's variables and their tangents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.expressions.expression import Equation
from lagrad.programs.derived_programs import Derivable, free_symbol, require_implicit
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.systems.linearization import Linearization
from lagrad.systems.rewriting import copied
from lagrad.systems.system import System


def tangent(program: Derivable) -> Tangent:
    """The program of a system's constraints and of all variables' tangents.

    Along a direction that is data for each parameter: `seeds` are their names.
    """
    compiled = program.compiled()
    return compiled.once(derived_tangent, compiled.system)


def derived_tangent(system: System) -> Tangent:
    return PushForward(copied(system, f"tangent_of_{system.name}")).run()


@dataclass(frozen=True, eq=False)
class Tangent:
    """A tangent program, and which of its variables is whose tangent."""

    system: System
    tangents: dict[str, str]
    seeds: dict[str, str]  # from parameter to data

    @cached_property
    def compiled(self) -> CompiledSystem:
        return CompiledSystem(self.system)


class PushForward:
    """One symbolic run forwards over a system's tape."""

    def __init__(self, system: System) -> None:
        require_implicit(system)
        self.system = system
        self.variables = list(system.variables.values())
        self.symbol = free_symbol(system, ("d",), [v.name for v in self.variables])
        self.compiled = CompiledSystem(system)
        self.tape = self.compiled.tape
        self.symbolic = Linearization(self.tape, self.tape.steps)
        self.tangents: list[Any] = self.symbolic.empty()

    def run(self) -> Tangent:
        system, slots = self.system, self.tape.slots
        seeds = {}
        for v in system.with_role("parameter"):
            seeds[v.name] = name = system.free(f"seed_{v.name}")
            self.tangents[slots[v.index]] = system.leaf(name, "data", v.shape, v.dtype, None)
        for stretch in self.compiled.stretches:
            run = stretch.run
            if isinstance(run, ImplicitRun):
                for v in run.block.unknowns:
                    name = f"{self.symbol}_{v.name}"
                    self.tangents[slots[v.index]] = system.unknown(name, v.shape, dtype=v.dtype)
            self.symbolic.push(self.tangents, stretch.steps)
            if isinstance(run, ImplicitRun):
                for c in run.block.equations:
                    assert c.residual is not None
                    total = self.tangents[slots[c.residual.index]]
                    system.subject_to(
                        Equation(system.arena.constant(0.0), total),
                        name=f"flow_{self.symbol}_{c.name}",
                    )
        names = {}
        for v in self.variables:
            slot = slots.get(v.index)
            found = None if slot is None else self.tangents[slot]
            names[v.name] = name = f"{self.symbol}_{v.name}"
            if v.role != "unknown" or found is None:
                system.define(name, np.zeros(v.shape) if found is None else found)
        return Tangent(system, names, seeds)
