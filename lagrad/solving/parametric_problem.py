"""A program as functions of some of its parameters: what a method that varies these evaluates."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import NotConverged
from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.selection import DENSE_FRACTION
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import joined, split
from lagrad.systems.reduced_block import SMALL
from lagrad.systems.system import System, fitted
from lagrad.typing import Array


class Parametric(Protocol):
    """A program, and which of its parameters vary, which are given, and what it returns."""

    @property
    def program(self) -> System: ...
    @property
    def varied(self) -> tuple[str, ...]: ...
    @property
    def data(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def inner(self) -> tuple[str, ...]:
        """Its own unknowns."""

    def compiled(self) -> CompiledSystem: ...


class NoDirection(NotConverged):
    """A method asked for a product with a direction that is not finite."""


class Problem:
    """A program at given data, as functions of the vector of its parameters that vary."""

    def __init__(
        self,
        approach: Parametric,
        arguments: Sequence[Array],
        start: Sequence[Array],
        afresh: bool = False,
    ) -> None:
        self.program, self.names, self.inner = approach.program, approach.varied, approach.inner
        self.compiled = approach.compiled
        # Where the unknowns of inner implicit functions start: the given place decides which of
        # several solutions they have.
        self.begin = dict(zip(approach.inner, start[len(approach.varied) :], strict=True))
        self.afresh = afresh  # whether from there each time, not from the last solution
        self.varied = [self.program.variables[n] for n in approach.varied]
        self.outputs = [self.program.variables[n] for n in approach.outputs]
        self.data = dict(zip(approach.data, arguments, strict=True))
        self.solution: SolvedSystem | None = None  # the last one of a program with unknowns
        self.place = b""  # where that is

    @cached_property
    def plan(self) -> Plan:
        """All outputs at once, for a program without unknowns."""
        inputs = [*self.varied, *(self.program.variables[n] for n in self.data)]
        return Plan(inputs, self.outputs, definitions(self.program))

    def pieces(self, point: Array) -> list[Array]:
        pairs = zip(split(point, self.varied), self.varied, strict=True)
        return [piece.astype(v.dtype, copy=False) for piece, v in pairs]

    def at(self, point: Array) -> SolvedSystem:
        """The program solved, from its last solution if there is one."""
        if self.solution is not None and self.place == point.tobytes():
            return self.solution
        values = dict(zip(self.names, self.pieces(point), strict=True)) | self.data
        start = None if self.afresh else self.solution
        # What is seen on the way need not be certified; the end is.
        begin = self.begin if start is None else start
        self.solution = solve_named(self.compiled(), values, begin, Policy(np.inf))
        self.place = point.tobytes()
        return self.solution

    def product(self, point: Array, direction: Array) -> Array:
        """The Hessian's product with a direction, of an objective and its gradient."""
        if not np.isfinite(direction).all():
            raise NoDirection(f"a direction of {self.program.name!r} is not finite.")
        along = zip(self.varied, split(direction, self.varied), strict=True)
        found = self.at(point).tangent({v: fitted("a direction", d, v) for v, d in along})
        return joined([found[v.name] for v in self.outputs[1:]])

    def hessian(self, point: Array) -> Array:
        """All of it, by one sweep."""
        return self.jacobian(point, self.outputs[1:])

    def jacobian(self, point: Array, outputs: Sequence[Variable]) -> Array:
        """That of outputs by all that varies."""
        solution = self.at(point)
        if self.sparse and not solution.point.tied:
            matrix = solution.point.linearization.jacobian(outputs, self.varied, dense=False)
            if np.isfinite(matrix.data).all():
                return np.asarray(matrix.toarray())
        found = solution.jacobian(outputs, self.varied)

        def block(output: Variable, by: Variable) -> Array:
            return np.reshape(found[output.name][by.name], (output.size, by.size))

        return np.block([[block(g, v) for v in self.varied] for g in outputs])

    @cached_property
    def sparse(self) -> bool:
        """Whether entries of Jacobians, of an explicit program's, cost less than their columns."""
        size, compiled = sum(v.size for v in self.varied), self.compiled()
        few = size > SMALL and compiled.tape.entries < DENSE_FRACTION * size * size
        return few and compiled.explicit

    def __call__(self, point: Array) -> list[Array]:
        """The outputs' values at a point."""
        if not self.inner:
            return self.plan([*self.pieces(point), *self.data.values()])
        found = self.at(point)
        return [found[v.name] for v in self.outputs]
