"""Programs of many scalars as a flat tape: for each node a code, and where its operands are.

Local partials are those that the primitives declare, computed by one call of NumPy for all nodes
of one function; what is left for a loop is to add up their products in order. Without machine code
it is NumPy's where levels of the tape are wide, or Python's statements where tapes run often.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.compiler.scalar_opcodes import (
    BINARY,
    CODES,
    FUNCTIONS,
    IN_PYTHON,
    NAMES,
    forward_in_python,
    function_of,
    loops,
    own,
)
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
) -> "ScalarTape | None":
    """The tape of nodes in order that are all scalars; None of others.

    Inputs may be arrays of which entries are taken.
    """
    place: dict[int, int] = {}
    starts: dict[int, int] = {}
    parts: dict[int, Array] = {}  # where the entries of inputs, and of parts of them, stand
    count = 0
    for variable in inputs:
        if variable.dtype != DOUBLE:
            return None
        starts[variable.index] = count
        if variable.shape == ():
            place[variable.index] = count
        else:
            parts[variable.index] = np.arange(count, count + variable.size).reshape(variable.shape)
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
        if index in place or index in parts:
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
            source = parts.get(node.arguments[0].index)
            if source is None or node.primitive.name not in ("getitem", "reshape"):
                return None
            part = node.primitive.kernel(node.parameters)(source)
            if node.shape == ():
                place[index] = int(part)
            else:
                parts[index] = part
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

    def places(self, nodes: Sequence[Expression]) -> Array:
        """Where the values of some scalars are."""
        return np.array([self.place[node.index] for node in nodes], dtype=int)

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

        Without machine code, statements of Python, where levels are narrow.
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
    def levels(self) -> "Levels | None":
        """Operations by level, where loops are not compiled and levels are wide."""
        if self._loops is not IN_PYTHON:
            return None
        return self._by_level

    @cached_property
    def _by_level(self) -> "Levels | None":
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
    def _kinked(self) -> Array:
        names = [n for n in NAMES if n in PRIMITIVES and PRIMITIVES[n].kink]
        return np.flatnonzero(np.isin(self.code, [CODES[n] for n in names]))

    def tied(self, values: Array) -> bool:
        """Whether a function with a kink is at it: at zero, or at equal operands."""
        where = self._kinked
        other = np.where(self.binary[where], values[self.second[where]], 0.0)
        return bool(np.any(values[self.first[where]] == other))

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


# Operations in a call, on average, from which calls are faster than a loop over operations.
WIDE = 12


@dataclass(frozen=True)
class LevelGroup:
    """The operations of one level and kind: where they are, and where their operands."""

    function: Any
    where: Array
    first: Array
    second: Array | None


def levels(code: Array, first: Array, second: Array, start: int) -> "Levels | None":
    """The operations of a flat tape level by level; None where levels are narrow."""
    height = [0] * start
    for a, b in zip(first[start:].tolist(), second[start:].tolist(), strict=True):
        x, y = height[a], height[b]
        height.append((x if x > y else y) + 1)
    kind = np.array(height[start:]) * len(NAMES) + code[start:]
    order = np.argsort(kind, kind="stable")
    sizes = np.unique(kind, return_counts=True)[1]
    if order.size < WIDE * sizes.size:
        return None
    groups = []
    for part in np.split(start + order, np.cumsum(sizes)[:-1]):
        c = int(code[part[0]])
        function = own(NAMES[c])
        groups.append(LevelGroup(function, part, first[part], second[part] if c < BINARY else None))
    return Levels(groups)


class Levels:
    """A flat tape's three loops, a level at a time."""

    def __init__(self, groups: list[LevelGroup]) -> None:
        self.groups = groups

    def forward(self, values: Array) -> None:
        for group in self.groups:
            x = values[group.first]
            values[group.where] = (
                group.function(x)
                if group.second is None
                else group.function(x, values[group.second])
            )

    def backward(self, left: Array, right: Array, sums: Array) -> None:
        for group in reversed(self.groups):
            g = sums[group.where]
            np.add.at(sums, group.first, g * left[group.where])
            if group.second is not None:
                np.add.at(sums, group.second, g * right[group.where])

    def tangent(self, left: Array, right: Array, sums: Array) -> None:
        for group in self.groups:
            g = sums[group.first] * left[group.where]
            if group.second is not None:
                g += sums[group.second] * right[group.where]
            sums[group.where] += g


# After how many runs; and the operations from which compiling takes too much memory.
WRITTEN_FROM, LONGEST = 100, 100_000


SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def written(
    code: Array, first: Array, second: Array, start: int, numbers: int
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Functions in the place of the loops forward and backward; the last leaves are numbers."""
    operations = list(zip(*(a.tolist() for a in (code, first, second)), strict=True))[start:]
    run = function(forward_lines(operations, start))
    back = function(backward_lines(operations, start, numbers))

    def forward(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
        try:
            values[:] = run(values[:start].tolist())
        except (ValueError, ArithmeticError):
            forward_in_python(code, first, second, values, start)

    def backward(
        binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, _: int
    ) -> None:
        sums[:] = back(left.tolist(), right.tolist(), sums.tolist())

    return forward, backward


def function(lines: list[str]) -> Callable[..., list[float]]:
    names: dict[str, Any] = {f"f{c}": function_of(name) for c, name in enumerate(NAMES)}
    exec("\n    ".join(lines), names)
    found: Callable[..., list[float]] = names["run"]
    return found


def forward_lines(operations: list[tuple[int, int, int]], start: int) -> list[str]:
    values = [f"v{i}" for i in range(start + len(operations))]
    lines = ["def run(values):", f"{', '.join(values[:start])}, = values"]
    for i, (c, a, b) in enumerate(operations, start):
        name = NAMES[c]
        if name in SIGNS:
            text = f"v{a} {SIGNS[name]} v{b}"
        elif name == "copy":
            text = f"v{a}"
        else:
            text = f"f{c}(v{a}, v{b})" if c < BINARY else f"f{c}(v{a})"
            if name not in FUNCTIONS:  # NumPy's, which returns a number of its own
                text = f"float({text})"
        lines.append(f"v{i} = {text}")
    return [*lines, f"return [{', '.join(values)}]"]


def backward_lines(operations: list[tuple[int, int, int]], start: int, numbers: int) -> list[str]:
    """A statement for each node whose cotangent is not zero; none for what numbers would get."""
    sums = ", ".join(f"g{i}" for i in range(start + len(operations)))
    lines = ["def run(left, right, sums):", f"{sums}, = sums"]
    constant = range(start - numbers, start)
    for i, (c, a, b) in reversed(list(enumerate(operations, start))):
        terms = []
        for side, operand in (("left", a), ("right", b))[: 2 if c < BINARY else 1]:
            if operand in constant:
                continue
            if c in (CODES["add"], CODES["copy"]):
                terms.append(f"g{operand} += g{i}")
            elif c == CODES["subtract"]:
                terms.append(f"g{operand} {'+' if side == 'left' else '-'}= g{i}")
            else:
                terms.append(f"g{operand} += g{i} * {side}[{i}]")
        if terms:
            lines.append(f"if g{i}: {'; '.join(terms)}")
    return [*lines, f"return [{sums}]"]
