"""Programs of many scalars as a flat tape: for each node a code, and where its operands are.

Local partials are those that the primitives declare, computed by one call of NumPy for all nodes
of one function; what is left for a loop is to add up their products in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.compiler.scalar_levels import Levels, levels
from lagrad.compiler.scalar_opcodes import BINARY, CODES, IN_PYTHON, loops
from lagrad.compiler.scalar_source import LONGEST, WRITTEN_FROM, written
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import Scale
from lagrad.primitives.registry import PRIMITIVES
from lagrad.typing import Array

# Shorter programs are plans.
FLAT_FROM = 400
DOUBLE = np.dtype(float)
ADD, SUBTRACT, COPY = CODES["add"], CODES["subtract"], CODES["copy"]


def scalar_tape(
    inputs: Sequence[Variable], order: Sequence[Expression], defined: dict[int, Expression]
) -> ScalarTape | None:
    """The tape of nodes in order that are all scalars; None of others.

    Inputs may be arrays of which entries are taken.
    """
    place: dict[int, int] = {}
    starts: dict[int, int] = {}
    count = 0
    for variable in inputs:
        if variable.dtype != DOUBLE:
            return None
        starts[variable.index] = count
        if variable.shape == ():
            place[variable.index] = count
        count += variable.size
    constants = [node for node in order if isinstance(node, Constant)]
    if any(node.shape != () for node in constants):
        return None
    numbers = [float(node.value) for node in constants]
    place.update((node.index, count + k) for k, node in enumerate(constants))
    start = count = count + len(numbers)
    code: list[int] = []
    first: list[int] = []
    second: list[int] = []
    for node in order:
        index = node.index
        if index in place or index in starts:
            continue
        right = defined.get(index)
        if right is not None:
            # A value of its own, for a multiplier of its own.
            if right.index not in place:
                return None
            place[index] = count
            count += 1
            code.append(COPY)
            first.append(place[right.index])
            second.append(0)
            continue
        assert node.primitive is not None
        known = CODES.get(node.primitive.name)
        if known is None:
            entry = entry_of(node, starts)
            if entry is None:
                return None
            place[index] = entry
            continue
        arguments = node.arguments
        at = place.get(arguments[0].index)
        other = at if len(arguments) == 1 else place.get(arguments[1].index)
        if node.shape != () or node.dtype is not DOUBLE or at is None or other is None:
            return None
        place[index] = count
        count += 1
        code.append(known)
        first.append(at)
        second.append(other)
    return ScalarTape(place, starts, start, numbers, code, first, second)


def entry_of(node: Expression, starts: dict[int, int]) -> int | None:
    """Where the one entry of an input is that a node takes; None of other nodes."""
    source = node.arguments[0]
    if node.primitive is None or node.primitive.name != "getitem" or node.shape != ():
        return None
    if source.index not in starts:
        return None
    positions = np.arange(source.size).reshape(source.shape)
    return starts[source.index] + int(node.primitive.kernel(node.parameters)(positions))


class ScalarTape:
    """A tape of scalars.

    Attributes
    ----------
    place : dict
        Where each scalar node is, by its index.
    starts : dict
        Where the entries of each input begin, by its index.
    """

    def __init__(
        self,
        place: dict[int, int],
        starts: dict[int, int],
        start: int,
        numbers: list[float],
        code: list[int],
        first: list[int],
        second: list[int],
    ) -> None:
        self.place, self.starts, self.start = place, starts, start
        self.size = start + len(code)
        self.numbers = np.array(numbers)
        lead = np.zeros(start, np.int32)
        self.code = np.concatenate([lead, np.array(code, np.int32)])
        self.first = np.concatenate([lead, np.array(first, np.int32)])
        self.second = np.concatenate([lead, np.array(second, np.int32)])
        self.binary = self.code < BINARY
        self._made = 0

    def forward(self, values: Sequence[Array]) -> Array:
        """The values of all nodes for those of the inputs."""
        found = np.empty(self.size)
        leaves = [np.ravel(v) for v in values]
        found[: self.start] = np.concatenate([*leaves, self.numbers])
        with np.errstate(all="ignore"):
            if self.levels is not None:
                self.levels.forward(found)
            else:
                self._loops[0](self.code, self.first, self.second, found, self.start)
        return found

    @property
    def _loops(self) -> tuple[Callable[..., None], ...]:
        """Loops compiled once the steps that Python has made would have paid for it.

        Without numba, statements of Python, where levels are narrow.
        """
        self._made += self.size
        if (compiled := loops(self._made)) is not None:
            return compiled
        often = self._made > WRITTEN_FROM * self.size and self.size <= LONGEST
        return self._written if often and self._by_level is None else IN_PYTHON

    @cached_property
    def _written(self) -> tuple[Callable[..., None], ...]:
        there = written(self.code, self.first, self.second, self.start, self.numbers.size)
        return *there, IN_PYTHON[2]

    @property
    def levels(self) -> Levels | None:
        """Operations by level, where loops are not compiled and levels are wide."""
        if self._loops is not IN_PYTHON:
            return None
        return self._by_level

    @cached_property
    def _by_level(self) -> Levels | None:
        return levels(self.code, self.first, self.second, self.start)

    @cached_property
    def _constant(self) -> tuple[Array, Array]:
        """The partials of sums and differences."""
        return np.ones(self.size), np.where(self.code == SUBTRACT, -1.0, 1.0)

    @cached_property
    def _by_code(self) -> list[tuple[Array, Array, Array | None, Plan]]:
        """For each function its nodes, their operands, and a plan of its partials."""
        found = []
        for name, c in CODES.items():
            where = self.start + np.flatnonzero(self.code[self.start :] == c)
            if where.size and c not in (ADD, SUBTRACT, COPY):
                # NumPy indexes by its own integers only, and would convert others each time.
                first = self.first[where].astype(np.intp)
                second = self.second[where].astype(np.intp) if c < BINARY else None
                found.append((where, first, second, partials_of(name, where.size)))
        return found

    def partials(self, values: Array) -> tuple[Array, Array]:
        """The partials of each node by its operands."""
        left, right = (part.copy() for part in self._constant)
        with np.errstate(all="ignore"):
            for where, first, second, plan in self._by_code:
                x, y = values.take(first), values.take(where)
                if second is None:
                    (left[where],) = plan([x, y])
                else:
                    left[where], right[where] = plan([x, values.take(second), y])
        # By a constant nothing is differentiated, and its partial may be NaN.
        left[self._held[0]] = 0.0
        right[self._held[1]] = 0.0
        return left, right

    @cached_property
    def _held(self) -> tuple[Array, Array]:
        """The nodes whose first operand is a constant, and those whose second one is."""
        lowest = self.start - self.numbers.size
        first, second = (
            np.flatnonzero((side >= lowest) & (side < self.start))
            for side in (self.first, self.second)
        )
        return first, second

    def backward(self, partials: tuple[Array, Array], sums: Array) -> None:
        """Add to every node's cotangent, in place, what later ones send back."""
        if self.levels is not None:
            self.levels.backward(*partials, sums)
        else:
            self._loops[1](self.binary, self.first, self.second, *partials, sums, self.start)

    def tangent(self, partials: tuple[Array, Array], sums: Array) -> None:
        """Add to every node's tangent, in place, what earlier ones send on."""
        if self.levels is not None:
            self.levels.tangent(*partials, sums)
        else:
            self._loops[2](self.binary, self.first, self.second, *partials, sums, self.start)


def partials_of(name: str, size: int) -> Plan:
    """The declared partials of a function of so many numbers, from its arguments and values."""
    graph = Graph(name)
    count = 2 if CODES[name] < BINARY else 1
    leaves = [Variable(graph, f"x{k}", "parameter", (size,), DOUBLE, None) for k in range(count)]
    node = PRIMITIVES[name](graph, *leaves)
    weights = []
    for k in range(count):
        linear = PRIMITIVES[name].partial(node, k)
        weights.append(graph.lift(linear.weight if isinstance(linear, Scale) else 0.0))
    return Plan([*leaves, node], weights)
