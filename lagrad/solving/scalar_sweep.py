"""Derivatives carried over a flat tape, as `Sweep` carries them through a system of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.scalar_tape import ScalarTape
from lagrad.expressions.expression import Expression
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.systems.constraint import Constraint
from lagrad.typing import Array


class ScalarPoint:
    """A flat tape with the values of all its nodes."""

    def __init__(self, tape: ScalarTape, values: Array) -> None:
        self.tape, self.values = tape, values

    @cached_property
    def partials(self) -> tuple[Array, Array]:
        """All local partials at this point."""
        return self.tape.partials(self.values)


class ScalarSweep:
    """Cotangents or tangents of all nodes in one array: nothing is solved, nothing in doubt."""

    residual = 0.0
    error = 0.0
    truncated, truncation = "", 0.0

    def __init__(self, compiled: CompiledSystem, point: ScalarPoint) -> None:
        self.compiled, self.point, self.tape = compiled, point, point.tape
        self.sums = np.zeros(self.tape.size)
        self.apart: dict[int, Array] = {}  # of parameters that nothing uses

    def _where(self, node: Expression) -> Any:
        place = self.tape.place.get(node.index)
        if place is not None:
            return slice(place, place + 1)
        start = self.tape.starts.get(node.index)
        return None if start is None else slice(start, start + node.size)

    def seed(self, node: Expression, value: Array) -> None:
        """Add to what a node starts with."""
        where = self._where(node)
        if where is not None:
            self.sums[where] += np.ravel(value)
        else:
            self.apart[node.index] = self.apart.get(node.index, 0.0) + np.asarray(value)

    def seed_all(self, seeds: Mapping[Any, Array]) -> None:
        for node, value in seeds.items():
            self.seed(node, value)

    def value(self, node: Expression) -> Array:
        """What has arrived at a node."""
        where = self._where(node)
        if where is None:
            return self.apart.get(node.index, np.zeros(node.shape))
        return self.sums[where].reshape(node.shape)

    def back(self) -> Mapping[Constraint, Array]:
        """Carry cotangents from variables to parameters; the multipliers of all constraints."""
        self.tape.backward(self.point.partials, self.sums)
        return Multipliers(self)

    def forth(self) -> None:
        """Carry tangents from parameters to variables."""
        self.tape.tangent(self.point.partials, self.sums)


class Multipliers(Mapping[Constraint, Array]):
    """The multiplier of each constraint, made when it is asked for."""

    def __init__(self, sweep: ScalarSweep) -> None:
        self.sweep = sweep
        self.constraints = sweep.compiled.system.constraints

    def __getitem__(self, constraint: Constraint) -> Array:
        assert constraint.variable is not None
        return self.sweep.value(constraint.variable)

    def __iter__(self) -> Iterator[Constraint]:
        return iter(self.constraints.values())

    def __len__(self) -> int:
        return len(self.constraints)
