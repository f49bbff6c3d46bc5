"""What was asked of values while a function was traced, asked again of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lagrad.compiler.plan import Plan
from lagrad.programs.program import Program
from lagrad.systems.constraint import definitions
from lagrad.transforms.tracing_graph import Guard


class Guards:
    """The guards of a program, compiled."""

    def __init__(self, program: Program, guards: Sequence[Guard]) -> None:
        self.guards = guards
        leaves = [v for v in program.variables.values() if v.role != "defined"]
        self.names = [v.name for v in leaves]
        # Whether they can be asked before anything is solved.
        self.early = not any(v.role == "unknown" for v in leaves)
        self.plan = Plan(leaves, [g.node for g in guards], definitions(program))

    def hold(self, values: Mapping[str, Any]) -> bool:
        """Whether every answer is the same where the variables have these values."""
        found = self.plan([values[name] for name in self.names])
        return all(g.holds(value) for g, value in zip(self.guards, found, strict=True))
