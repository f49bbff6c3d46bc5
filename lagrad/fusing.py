"""Elementwise operations over one shape, run block by block while a block is in cache.

Operations are grouped so that no group waits for itself: one that needs a value from elsewhere,
or of another shape, is a level above it, and a group is what has one shape and one level. Sums
of a group's values are taken on the way. What only the group needs is never stored whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lagrad.constants import NUMBERS
from lagrad.lowering import Lowered, Operation, is_elementwise
from lagrad.parallel import run_in_parts
from lagrad.vectorised import vectorised

__all__ = ["Step", "steps_of"]

Array = Any
Shape = tuple[int, ...]
Key = tuple[Shape, int]  # of a group: the shape, and the level
# Arrays with fewer entries than this are in cache anyway.
FUSED_FROM = 4096
# The entries of a block: ten arrays of them are in a core's caches.
BLOCK = 16_384
# Longer rows are no blocks.
LONGEST_ROW = 4 * BLOCK
# Entries times operations from which threads pay, those of BLAS still being about.
THREADED_FROM = 2_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A call: from the values at some places to those at others."""

    function: Callable[..., Any]
    arguments: tuple[int, ...]
    results: tuple[int, ...]
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


def steps_of(lowered: Lowered) -> list[Step]:
    """The calls that compute the outputs, in an order in which they can be made."""
    operations = lowered.operations
    order = [p for p in needed(lowered) if operations[p].primitive is not None]
    if not any(fusible(operations[p]) for p in order):
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
        inside, height = fusible(operation), 0
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
            steps += fused(operations, groups[u], [p for p in groups[u] if p in kept], u[0])
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
    return key


def fusible(operation: Operation) -> bool:
    """Whether an operation is worth a group."""
    if operation.size < FUSED_FROM or not is_elementwise(operation):
        return False
    rows = operation.shape[0]
    return rows > 1 or operation.size == rows


def fused(
    operations: list[Operation], places: list[int], kept: list[int], shape: Shape
) -> list[Step]:
    """A group as one step; as several where its rows are too long for blocks."""
    inside = set(places)
    arguments = list(
        dict.fromkeys(a for p in places for a in operations[p].arguments if a not in inside)
    )
    spread = any(operations[a].shape != shape and operations[a].size != 1 for a in arguments)
    partly = any(
        operations[p].name == "sum" and len(operations[p].parameters[0]) < len(shape)
        for p in places
    )
    rows = spread or partly
    if rows and math.prod(shape[1:]) > LONGEST_ROW:
        return [plain_step(p, operations[p]) for p in places]
    group = Group(operations, places, kept, arguments, shape, rows)
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
    rows : bool
        Whether blocks are of rows; of entries, the arrays laid flat, otherwise.
    """

    def __init__(
        self,
        operations: list[Operation],
        places: list[int],
        kept: list[int],
        arguments: list[int],
        shape: Shape,
        rows: bool,
    ) -> None:
        self.shape, self.rows = shape, rows
        row = shape[1:] if rows else ()
        self.count = shape[0] if rows else math.prod(shape)
        self.block = max(1, BLOCK // max(1, math.prod(row)))
        self.blocks = -(-self.count // self.block)
        self.row = row
        self.work = len(places) * math.prod(shape)
        # The shape in which each argument is cut: flat, or a number of no dimensions.
        self.given = [
            None if rows else (-1,) if operations[a].shape == shape else () for a in arguments
        ]
        writer = Writer(operations, places, kept, arguments, shape, rows)
        self.run = writer.compiled()
        self.scratch = writer.scratch
        self.outs = writer.outs

    def __call__(self, *arguments: Array) -> tuple[Array, ...]:
        # A number of Python's stays one, and takes the dtype of what it meets.
        given = [
            a if shape is None or type(a) in NUMBERS else np.reshape(a, shape)
            for a, shape in zip(arguments, self.given, strict=True)
        ]
        outs = [out.empty(self) for out in self.outs]

        def work(first: int, last: int) -> None:
            with np.errstate(all="ignore"):
                full = [np.empty((self.block, *self.row), dtype) for dtype in self.scratch]
                for k in range(first, last):
                    low = k * self.block
                    high = min(low + self.block, self.count)
                    short = high - low < self.block
                    scratch = [s[: high - low] for s in full] if short else full
                    self.run(low, high, k, given, outs, scratch)

        if self.work < THREADED_FROM:
            work(0, self.blocks)
        else:
            run_in_parts(work, self.blocks)
        return tuple([out.whole(a, self) for out, a in zip(self.outs, outs, strict=True)])


@dataclass(frozen=True, slots=True)
class Out:
    """A value that leaves a group: `parts` says whether one part for each block, to be added."""

    shape: Shape
    dtype: np.dtype[Any]
    parts: bool

    def empty(self, group: Group) -> Array:
        if self.parts:
            return np.empty((group.blocks, *self.shape), self.dtype)
        shape = self.shape if group.rows else (math.prod(self.shape),)
        return np.empty(shape, self.dtype)

    def whole(self, array: Array, group: Group) -> Array:
        if self.parts:
            return np.add.reduce(array, axis=0)
        return array if group.rows else array.reshape(self.shape)


@dataclass
class Writer:
    """The source of a group's function of one block."""

    operations: list[Operation]
    places: list[int]
    kept: list[int]
    arguments: list[int]
    shape: Shape
    rows: bool
    scratch: list[np.dtype[Any]] = field(default_factory=list)
    outs: list[Out] = field(default_factory=list)

    def compiled(self) -> Callable[..., None]:
        """The function `run(low, high, k, given, outs, scratch)`."""
        names: dict[str, Any] = {"add": np.add.reduce, "dot": np.dot}
        lines = ["def run(low, high, k, given, outs, scratch):"]
        whole = "[low:high]"
        for i, place in enumerate(self.arguments):
            shape = self.operations[place].shape
            cut = shape == self.shape or (
                self.rows and len(shape) == len(self.shape) and shape[0] == self.shape[0]
            )
            lines.append(f"    v{place} = given[{i}]{whole if cut else ''}")
        last = {a: p for p in self.places for a in self.operations[p].arguments}
        free: dict[np.dtype[Any], list[int]] = {}
        held: dict[int, int] = {}  # which scratch array holds a value
        for place in self.places:
            operation = self.operations[place]
            texts = ", ".join(f"v{a}" for a in operation.arguments)
            dying = [a for a in dict.fromkeys(operation.arguments) if last[a] == place]
            if not is_elementwise(operation):
                lines.append(self._reduced(place, operation, texts))
            else:
                assert operation.primitive is not None
                kernel = operation.primitive.kernel(operation.parameters)
                names[f"f{place}"] = vectorised(kernel) if operation.ufunc else kernel
                if place in self.kept:
                    i = self._out(operation, parts=False)
                    lines.append(f"    v{place} = outs[{i}]{whole}")
                    lines.append(
                        f"    f{place}({texts}, out=v{place})"
                        if operation.ufunc
                        else f"    v{place}[...] = f{place}({texts})"
                    )
                elif operation.ufunc:
                    # The array of an argument that is not used again may take the value.
                    for a in dying:
                        if a in held:
                            free.setdefault(self.operations[a].dtype, []).append(held.pop(a))
                    spare = free.setdefault(operation.dtype, [])
                    if not spare:
                        spare.append(len(self.scratch))
                        self.scratch.append(operation.dtype)
                    held[place] = i = spare.pop()
                    lines.append(f"    v{place} = f{place}({texts}, out=scratch[{i}])")
                else:
                    lines.append(f"    v{place} = f{place}({texts})")
            for a in dying:
                if a in held:
                    free.setdefault(self.operations[a].dtype, []).append(held.pop(a))
        exec("\n".join(lines), names)
        found: Callable[..., None] = names["run"]
        return found

    def _out(self, operation: Operation, parts: bool) -> int:
        self.outs.append(Out(operation.shape, operation.dtype, parts))
        return len(self.outs) - 1

    def _reduced(self, place: int, operation: Operation, texts: str) -> str:
        if operation.name == "contract":
            return f"    outs[{self._out(operation, parts=True)}][k] = dot({texts})"
        axes = operation.parameters[0]
        if not self.rows:
            return f"    outs[{self._out(operation, parts=True)}][k] = add({texts})"
        if 0 in axes:
            return f"    outs[{self._out(operation, parts=True)}][k] = add({texts}, axis={axes})"
        return f"    add({texts}, axis={axes}, out=outs[{self._out(operation, False)}][low:high])"
