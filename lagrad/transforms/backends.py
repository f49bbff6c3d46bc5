"""Where a transform finds derivatives of a traced function: as numbers, or as symbols.

Numbers come from the solution of the function's program. Symbols are programs derived from it,
stated in the function that is traced around it, so that they can be derived again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from lagrad.errors import ShapeMismatch
from lagrad.expressions.expression import Expression, Variable
from lagrad.programs.derived_programs import adjoint, pullback
from lagrad.programs.tangent_program import tangent
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.rewriting import inlined
from lagrad.systems.system import System, fitted
from lagrad.transforms.trace import Trace
from lagrad.transforms.tracing_graph import Tracing
from lagrad.typing import Array

ByName = Mapping[str, Any]


class Backend(Protocol):
    """Values and derivatives of a trace, by the names of its variables."""

    trace: Trace

    def values(self) -> list[Any]:
        """What the function returned, leaf by leaf."""

    def gradient(self, output: str) -> ByName:
        """Of a scalar output, by every parameter."""

    def pullback(self, cotangents: ByName) -> ByName:
        """The transposed Jacobian times cotangents of all outputs, by every parameter."""

    def tangent(self, directions: ByName) -> list[Any]:
        """The derivative of each output along directions of all parameters."""


class Numbers:
    """Derivatives as numbers, certified."""

    def __init__(self, trace: Trace, solution: SolvedSystem) -> None:
        self.trace, self.solution = trace, solution

    def values(self) -> list[Any]:
        return [plain(self.solution[name]) for name in self.trace.outputs]

    def gradient(self, output: str) -> ByName:
        found = self.solution.gradient(self.trace.program.variables[output])
        return {name: plain(array) for name, array in found.items()}

    def pullback(self, cotangents: ByName) -> ByName:
        found = self.solution.pullback(self.fitting("cotangent", cotangents))
        return {name: plain(array) for name, array in found.items()}

    def tangent(self, directions: ByName) -> list[Any]:
        found = self.solution.tangent(self.fitting("direction", directions))
        return [plain(found[name]) for name in self.trace.outputs]

    def fitting(self, what: str, arrays: ByName) -> dict[Variable, Array]:
        """Arrays by variable, each in its dtype."""
        variables = self.trace.program.variables
        return {
            variables[name]: fitted(f"the {what} of {name!r}", array, variables[name])
            for name, array in arrays.items()
        }


class Symbols:
    """Derivatives as values of a function that is traced around this one."""

    def __init__(self, trace: Trace, outer: Tracing) -> None:
        self.trace, self.outer = trace, outer
        self.found: dict[str, Expression] = {}  # what the trace's variables became

    def values(self) -> list[Any]:
        if not self.found:
            self.placed(self.trace.program, {})
        return [self.found[name] for name in self.trace.outputs]

    def gradient(self, output: str) -> ByName:
        derived = adjoint(self.trace.program, output)
        return self.placed(derived.system, {}, derived.gradients)

    def pullback(self, cotangents: ByName) -> ByName:
        derived = pullback(self.trace.program, self.trace.outputs)
        seeds = {derived.seeds[name]: c for name, c in cotangents.items()}
        return self.placed(derived.system, seeds, derived.gradients)

    def tangent(self, directions: ByName) -> list[Any]:
        derived = tangent(self.trace.program)
        seeds = {derived.seeds[name]: d for name, d in directions.items()}
        found = self.placed(derived.system, seeds, derived.tangents)
        return [found[name] for name in self.trace.outputs]

    def placed(
        self, derived: System, seeds: ByName, names: Mapping[str, str] | None = None
    ) -> ByName:
        """A program derived from the trace, stated in the outer one; some variables' values there.

        `names` are what those variables are called, by what they are derivatives of.
        """
        trace = self.trace
        given = {**trace.values, **trace.captured, **trace.given, **seeds}
        lifted = {name: self.outer.lift(value) for name, value in given.items()}
        self.found = inlined(derived, self.outer.system, lifted, trace.starts)
        self.outer.inherit(trace.program, trace.guards, self.found)
        return {of: self.found[name] for of, name in (names or {}).items()}


def plain(value: Any) -> Any:
    """An array of the caller's own, or a NumPy number."""
    array = np.array(value)
    return array[()] if array.ndim == 0 else array


def require_shapes(trace: Trace, what: str, names: Iterable[str], leaves: Iterable[Any]) -> None:
    """ShapeMismatch for a cotangent or a tangent that does not fit its variable."""
    for name, leaf in zip(names, leaves, strict=True):
        shape = trace.program.variables[name].shape
        if np.shape(leaf) != shape:
            raise ShapeMismatch(
                f"the {what} of {name!r} has shape {np.shape(leaf)}; expected {shape}."
            )
