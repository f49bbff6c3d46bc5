"""The calls that compute a lowered program: NumPy's one by one, or loops in machine code.

Elementwise operations are grouped so that no group waits for itself: one that needs a value from
elsewhere, or of another shape, is a level above it, and a group is what has one shape and one
level. Reductions of a group's values are taken on the way. What only the group needs is never
stored. Groups in a row are one call.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lagrad.compiler.lowering import Lowered, Operation, is_elementwise
from lagrad.compiler.native import windows
from lagrad.expressions.expression import Expression
from lagrad.typing import Array, Function, Indices, Shape

Key = tuple[Shape, int, int]  # of a group: the shape, the level, and what it is alone with
# Fewer operations, on fewer entries, are quicker by NumPy's own calls.
WORTH, LITTLE = 3, 4096


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
    """The operations that lead from inputs to outputs, and NumPy's calls that compute them."""
    lowered = Lowered(inputs, outputs, defined)
    operations = lowered.operations
    order = [p for p in needed(lowered) if operations[p].primitive is not None]
    return lowered, [plain_step(p, operations[p]) for p in order]


@functools.cache
def native() -> Any:
    """The package of loops in machine code; None without llvmlite (extra `fast`)."""
    if importlib.util.find_spec("llvmlite") is None:
        return None
    package: Any = importlib.import_module("lagrad.compiler.native")
    importlib.import_module("lagrad.compiler.native.kernel")  # with all that it stands on
    able = package.machine.multiplies_and_adds() and package.machine.data_offset() is not None
    return package if able else None


def native_steps(lowered: Lowered) -> list[Step] | None:
    """The calls that compute the outputs, elementwise work in machine code; None without any."""
    if native() is None:
        return None
    operations = lowered.operations
    order = [p for p in needed(lowered) if operations[p].primitive is not None]
    rules = native().loop
    operations = windows.with_windows(operations, order, rules.has_rule)
    groups, level = grouped(operations, order)
    if not groups:
        return None
    return Calls(operations, lowered.outputs, order, groups, level).steps


VIEWS = frozenset(["reshape", "broadcast_to", windows.NAME])


def grouped(
    operations: list[Operation], order: list[int]
) -> tuple[dict[Key, list[int]], dict[int, int]]:
    """The groups, and how far each operation's value is from the inputs."""
    rules = native().loop
    level: dict[int, int] = {}
    groups: dict[Key, list[int]] = {}
    member: dict[int, Key] = {}  # the group that an elementwise operation belongs to
    for place in order:
        operation = operations[place]
        able = operation.size > 0 and rules.has_rule(operation, operations)
        height = 0
        if able and not is_elementwise(operation):
            shape = operations[operation.arguments[0]].shape
            way = rules.reducible(operation, operations, shape) if shape else False
            if able := way is not False:
                for a in operation.arguments:
                    if a in level:
                        height = max(height, level[a] + (way is None or a not in member))
                key = (shape, height, place if way is None else 0)
                groups.setdefault(key, []).append(place)
                level[place] = height
                continue
        if operation.name in VIEWS:
            level[place] = level.get(operation.arguments[0], -1)
            continue
        for a in operation.arguments:
            if a in level:
                same = able and a in member and member[a][0] == operation.shape
                height = max(height, level[a] + (0 if same else 1))
        level[place] = height
        if able:
            member[place] = key = (operation.shape, height, 0)
            groups.setdefault(key, []).append(place)
    return groups, level


class Calls:
    """A lowered program in calls: loops in a row are one, what else there is stands between.

    Arrays that are only spread or reshaped are read where they are; such a view is made for NumPy
    and for who asks for it alone.
    """

    def __init__(
        self,
        operations: list[Operation],
        outputs: Sequence[int],
        order: list[int],
        groups: dict[Key, list[int]],
        level: dict[int, int],
    ) -> None:
        self.operations, self.steps = operations, list[Step]()
        self.loops: Any = native().loop
        unit = {p: key for key, places in groups.items() for p in places}
        plain = [p for p in order if p not in unit and operations[p].name not in VIEWS]
        views = [p for p in order if p not in unit and operations[p].name in VIEWS]
        # What has to be an array: outputs, what NumPy is given, what groups give one another.
        self.asked = {*outputs, *(a for p in plain for a in operations[p].arguments)}
        early = {a for p in plain for a in operations[p].arguments}
        # Where an array is spread, reshaped and spread again it has to be one in between.
        sources = {
            self.loops.source_of(a, operations)[0] for p in unit for a in operations[p].arguments
        }
        early |= sources.intersection(views)
        self.asked |= early
        for p in reversed(views):
            if p in self.asked:
                self.asked.update(operations[p].arguments)
            if p in early:
                early.update(operations[p].arguments)
        self.kept = set(self.asked)
        for p, key in unit.items():
            for a in operations[p].arguments:
                if unit.get(a) != key:
                    self.kept.add(self.loops.source_of(a, operations)[0])
        turns: list[tuple[int, int, int, Any]] = [(level[p], 0, p, None) for p in plain]
        turns += [(key[1], 1, places[0], key) for key, places in groups.items()]
        turns += [(level[p], 2, p, None) for p in views if p in early]
        waiting: list[Any] = []
        for _, _, place, key in sorted(turns, key=lambda turn: turn[:3]):
            if key is not None:
                waiting.append(self._loop(groups[key], key[0]))
                continue
            self._flush(waiting)
            self.steps.append(plain_step(place, operations[place]))
        self._flush(waiting)
        late = [p for p in views if p in self.asked and p not in early]
        self.steps += [plain_step(p, operations[p]) for p in late]

    def _loop(self, places: list[int], shape: Shape) -> Any:
        operations, inside = self.operations, set(places)
        outside = dict.fromkeys(
            a for p in places for a in operations[p].arguments if a not in inside
        )
        arguments = [a for a in outside if not self._is_number(a)]
        return self.loops.Loop(
            operations, places, [p for p in places if p in self.kept], arguments, shape
        )

    def _is_number(self, place: int) -> bool:
        source = self.operations[self.loops.source_of(place, self.operations)[0]]
        return source.value is not None and source.size == 1

    def _flush(self, waiting: list[Any]) -> None:
        """Loops in a row as one call; as NumPy's where those are few."""
        if not waiting:
            return
        operations, inside = self.operations, sorted(p for loop in waiting for p in loop.places)
        # With the views that the loops read through, for NumPy.
        places = sorted({*inside, *self._views(waiting)})
        plain = [plain_step(p, operations[p]) for p in places]
        work = sum(len(loop.places) * math.prod(loop.shape) for loop in waiting)
        if len(inside) < WORTH and work < LITTLE:
            self.steps += plain
        else:
            made = {o.place for loop in waiting for o in loop.outputs}
            results = [p for p in made if p in self.asked or self._is_read_later(p, waiting)]
            kernel = native().kernel.Kernel(list(waiting), results, None)
            kernel.reference = in_turn(plain, kernel.arguments, results, operations)
            self.steps.append(Step(kernel, tuple(kernel.arguments), tuple(results), True))
        waiting.clear()

    def _views(self, loops: list[Any]) -> set[int]:
        """The views that loops read through: of arrays, and of numbers."""
        found = set[int]()
        for place in (
            a for loop in loops for p in loop.places for a in self.operations[p].arguments
        ):
            while self.operations[place].name in VIEWS and place not in found:
                found.add(place)
                (place,) = self.operations[place].arguments
        return found

    def _is_read_later(self, place: int, loops: list[Any]) -> bool:
        """Whether a value that groups read is read by groups of a later call."""
        own = {p for loop in loops for p in loop.places}
        return any(p not in own for p in self.readers.get(place, ()))

    @functools.cached_property
    def readers(self) -> dict[int, list[int]]:
        """The operations that read each array, through views too."""
        found: dict[int, list[int]] = {}
        for p, operation in enumerate(self.operations):
            for a in operation.arguments:
                found.setdefault(self.loops.source_of(a, self.operations)[0], []).append(p)
        return found


def in_turn(
    steps: Sequence[Step], arguments: Sequence[int], results: Sequence[int], operations: Any
) -> Callable[..., tuple[Array, ...]]:
    """Steps as a function of the values at some places."""
    constants = {
        a: operations[a].value
        for step in steps
        for a in step.arguments
        if operations[a].value is not None
    }

    def run(*values: Array) -> tuple[Array, ...]:
        memory = constants | dict(zip(arguments, values, strict=True))
        for step in steps:
            memory[step.results[0]] = step.function(*[memory[a] for a in step.arguments])
        return tuple([memory[p] for p in results])

    return run
