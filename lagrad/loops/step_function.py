"""A program as a function of arrays: a plan, or a solve where it has equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from lagrad.compiler.lowering import Lowered
from lagrad.compiler.plan import Plan
from lagrad.compiler.scalarize import Scalarised, scalarised
from lagrad.programs.program import Program
from lagrad.solving.solve import solve_named
from lagrad.systems.constraint import definitions
from lagrad.typing import Array


class Evaluation:
    """The values of some variables, in order, for those of others.

    Parameters
    ----------
    program : Program
    given, asked : sequences of str
        Names; those asked for may be given ones.
    starts : mapping
        Where unknowns start.
    """

    def __init__(
        self,
        program: Program,
        given: Sequence[str],
        asked: Sequence[str],
        starts: Mapping[str, Array],
    ) -> None:
        variables = program.variables
        self.program, self.given, self.asked, self.starts = program, given, asked, starts
        self.plan: Plan | None = None
        self.work = 0  # in operations on single numbers, of all its repetitions so far
        if not program.with_role("unknown"):
            results = [variables[name] for name in asked]
            self.plan = Plan([variables[n] for n in given], results, definitions(program))

    @cached_property
    def scalars(self) -> Scalarised | None:
        """The same on single numbers, where arrays are small; None elsewhere."""
        if self.plan is None:
            return None
        variables = self.program.variables
        inputs = [variables[name] for name in self.given]
        outputs = [variables[name] for name in self.asked]
        return scalarised(Lowered(inputs, outputs, definitions(self.program)), len(inputs))

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        if self.plan is not None:
            return self.plan(values)
        at = solve_named(
            self.program.compiled(), dict(zip(self.given, values, strict=True)), self.starts
        )
        return [at.point.values[self.program.variables[name]] for name in self.asked]
