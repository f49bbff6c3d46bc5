"""Elementwise operations over one shape, run block by block while a block is in cache.

Operations are grouped so that no group waits for itself: one that needs a value from elsewhere,
or of another shape, is a level above it, and a group is what has one shape and one level. Sums
of a group's values are taken on the way. What only the group needs is never stored whole.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.compiler.block_codegen import Out, Writer
from lagrad.compiler.lowering import Lowered, Operation, is_elementwise
from lagrad.compiler.threads import run_in_parts
from lagrad.compiler.vector_program import Lanes, in_lanes
from lagrad.expressions.expression import Expression
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array, Function, Indices, Shape

Key = tuple[Shape, int]  # of a group: the shape, and the level
# Arrays with fewer entries than this are in cache anyway.
FUSED_FROM = 4096
# A compiled call of a group costs as much as so many of NumPy's.
LANES_FROM = 5
DOUBLE = np.dtype(float)
# The entries of a block: ten arrays of them are in a core's caches.
BLOCK = 16_384
# Longer rows are no blocks.
LONGEST_ROW = 4 * BLOCK


@dataclass(frozen=True, slots=True)
class Step:
    """A call: from the values at some places to those at others."""

    function: Function
    arguments: Indices
    results: Indices
    several: bool  # whether it returns a tuple


def plain_step(place: int, operation: Operation) -> Step:
    assert operation.primitive is not None
    kernel = operation.primitive.kernel(operation.parameters)
    return Step(kernel, operation.arguments, (place,), False)


def needed(lowered: Lowered) -> list[int]:
    """The operations that the outputs need, in order."""
    found: set[int] = set()
    stack = list(lowered.outputs)
    while stack:
        place = stack.pop()
        if place not in found:
            found.add(place)
            stack.extend(lowered.operations[place].arguments)
    return sorted(found)


def lowered_steps(
    inputs: Sequence[Expression], outputs: Sequence[Expression], defined: dict[int, Expression]
) -> tuple[Lowered, list[Step]]:
    """The operations that lead from inputs to outputs, and the calls that compute them."""
    lowered = Lowered(inputs, outputs, defined)
    return lowered, steps_of(lowered)


def steps_of(lowered: Lowered, lanes: bool = False) -> list[Step]:
    """The calls that compute the outputs, in an order in which they can be made.

    Groups are of large arrays, and with `lanes` of small ones too.
    """
    operations = lowered.operations
    order = [p for p in needed(lowered) if operations[p].primitive is not None]
    grouped = {p for p in order if fusible(p, operations, lanes)}
    if not grouped:
        return [plain_step(p, operations[p]) for p in order]
    level: dict[int, int] = {}
    groups: dict[Key, list[int]] = {}
    member: dict[int, Key] = {}  # the group that an elementwise operation belongs to
    unit: dict[int, Any] = {}  # the group, or the operation itself, that computes a value
    for place in order:
        operation = operations[place]
        key = reduced_in(place, operations, member)
        if key is not None:
            level[place], unit[place] = key[1] + 1, key
            groups[key].append(place)
            continue
        inside, height = place in grouped, 0
        for a in operation.arguments:
            if a in level:
                same = inside and a in member and member[a][0] == operation.shape
                height = max(height, level[a] + (0 if same else 1))
        level[place], unit[place] = height, place
        if inside:
            unit[place] = member[place] = key = (operation.shape, height)
            groups.setdefault(key, []).append(place)
    kept = set(lowered.outputs)
    for place in order:
        kept.update(a for a in operations[place].arguments if unit.get(a) != unit[place])
        if unit[place] in groups and place not in member:
            kept.add(place)
    steps = []
    firsts = {
        u: place for place, u in reversed(list(zip(order, map(unit.get, order), strict=True)))
    }
    for u in sorted(firsts, key=lambda u: (level[firsts[u]], firsts[u])):
        if u in groups:
            steps += fused(operations, groups[u], [p for p in groups[u] if p in kept], u[0], lanes)
        else:
            steps.append(plain_step(u, operations[u]))
    return steps


def reduced_in(place: int, operations: list[Operation], member: dict[int, Key]) -> Key | None:
    """The group on the way of which a sum or an inner product is taken, if there is one."""
    operation = operations[place]
    product = operation.name == "contract" and operation.parameters == ("a,a->",)
    if operation.name != "sum" and not product:
        return None
    keys = {member.get(a) for a in operation.arguments if operations[a].primitive is not None}
    key = keys.pop() if len(keys) == 1 else None
    if key is None or any(operations[a].shape != key[0] for a in operation.arguments):
        return None
    if is_short(key[0]) and (not key[0] or operation.shape or operation.dtype != DOUBLE):
        return None
    return key


def is_short(shape: Shape) -> bool:
    return math.prod(shape) < FUSED_FROM


def fusible(place: int, operations: list[Operation], lanes: bool) -> bool:
    """Whether an operation is worth a group."""
    operation = operations[place]
    if is_short(operation.shape):
        return lanes and in_lanes(operation, operations, DOUBLE)
    if not is_elementwise(operation):
        return False
    rows = operation.shape[0]
    return rows > 1 or operation.size == rows


def fused(
    operations: list[Operation], places: list[int], kept: list[int], shape: Shape, lanes: bool
) -> list[Step]:
    """A group as one step; as several where its rows are too long for blocks."""
    inside = set(places)
    arguments = list(
        dict.fromkeys(a for p in places for a in operations[p].arguments if a not in inside)
    )
    if is_short(shape):
        if len(places) < LANES_FROM:
            return [plain_step(p, operations[p]) for p in places]
        short = Lanes(operations, places, kept, arguments, shape)
        return [Step(short, tuple(arguments), tuple(kept), True)]
    spread = any(operations[a].shape != shape and operations[a].size != 1 for a in arguments)
    partly = any(
        operations[p].name == "sum" and len(operations[p].parameters[0]) < len(shape)
        for p in places
    )
    rows = spread or partly
    if rows and math.prod(shape[1:]) > LONGEST_ROW:
        return [plain_step(p, operations[p]) for p in places]
    group = Group(operations, places, kept, arguments, shape, rows, lanes)
    return [Step(group, tuple(arguments), tuple(kept), True)]


class Group:
    """A group of operations as a function of whole arrays.

    Parameters
    ----------
    operations : list of Operation
    places : list of int
        Those of the group, in order.
    kept : list of int
        Those that are asked for.
    arguments : list of int
        What comes from outside.
    shape : tuple
        The common shape.
    by_row : bool
        Whether blocks are of rows; of entries, the arrays laid flat, otherwise.
    lanes : bool
        Whether runs of arithmetic are compiled.
    """

    def __init__(
        self,
        operations: list[Operation],
        places: list[int],
        kept: list[int],
        arguments: list[int],
        shape: Shape,
        by_row: bool,
        lanes: bool,
    ) -> None:
        self.shape, self.by_row = shape, by_row
        self.row = row = shape[1:] if by_row else ()
        self.count = shape[0] if by_row else math.prod(shape)
        self.block = max(1, min(self.count, BLOCK // max(1, math.prod(row))))
        self.blocks = -(-self.count // self.block)
        self.work = len(places) * math.prod(shape)
        self.arguments = arguments
        self.like = {a: (operations[a].shape, operations[a].dtype) for a in arguments}
        self.recycled: dict[int, int] = {}  # from a value to the argument whose memory it takes
        # The shape in which each argument is cut: flat, or a number of no dimensions.
        self.given = [
            None if by_row else (-1,) if operations[a].shape == shape else () for a in arguments
        ]
        writer = Writer(operations, places, kept, arguments, shape, by_row, lanes)
        self.run = writer.compiled()
        self.scratch, self.outs = writer.scratch, writer.outs
        self.fixed = writer.fixed
        number = {place: i for i, place in enumerate(writer.order)}
        self.written = [number[place] for place in kept]
        self.last_read = {a: number[writer.last[a]] for a in arguments}
        self.matrix = (writer.rows.count, self.block * math.prod(row)), writer.dtype

    def recycle(self, places: Sequence[int]) -> None:
        """Take the memory of arguments that nothing needs afterwards, for values like them.

        Only of those that are cut as the group is: what is spread over rows, every block reads.
        """
        free = [p for p in places if p in self.arguments and self.like[p][0] == self.shape]
        for i, out in enumerate(self.outs):
            for place in free:
                # No operation of a block may read what another one has written over.
                read = self.last_read[place] <= self.written[i]
                if read and not out.parts and self.like[place] == (out.shape, out.dtype):
                    self.recycled[i] = self.arguments.index(place)
                    free.remove(place)
                    break

    def __call__(self, *arguments: Array) -> tuple[Array, ...]:
        # A number of Python's stays one, and takes the dtype of what it meets.
        given = [
            a if shape is None or type(a) in NUMBERS else np.reshape(a, shape)
            for a, shape in zip(arguments, self.given, strict=True)
        ]
        outs = [
            self._empty(out) if (k := self.recycled.get(i)) is None else self._memory(given[k], out)
            for i, out in enumerate(self.outs)
        ]

        def work(numbers: Iterator[int]) -> None:
            with np.errstate(all="ignore"):
                full = [np.empty((self.block, *self.row), dtype) for dtype in self.scratch]
                matrix = np.empty(*self.matrix)
                for row, k in self.fixed.items():
                    matrix[row] = given[k]
                rows = [r.reshape(self.block, *self.row) for r in matrix]
                for k in numbers:
                    low = k * self.block
                    high = min(low + self.block, self.count)
                    if high - low < self.block:
                        full = [s[: high - low] for s in full]
                        rows = [r[: high - low] for r in rows]
                    self.run(low, high, k, given, outs, full, matrix, rows)

        run_in_parts(work, self.blocks, self.work)
        return tuple([self._whole(out, a) for out, a in zip(self.outs, outs, strict=True)])

    def _memory(self, array: Array, out: Out) -> Array:
        """The memory of an argument, read before it is written, block by block."""
        fits = array.flags.c_contiguous and array.flags.writeable and array.dtype == out.dtype
        return array if fits else self._empty(out)

    def _empty(self, out: Out) -> Array:
        if out.parts:
            return np.empty((self.blocks, *out.shape), out.dtype)
        return np.empty(out.shape if self.by_row else math.prod(out.shape), out.dtype)

    def _whole(self, out: Out, array: Array) -> Array:
        if out.parts:
            return np.add.reduce(array, axis=0)
        return array if self.by_row else array.reshape(out.shape)
