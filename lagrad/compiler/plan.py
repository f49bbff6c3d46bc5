"""Expressions compiled to a straight line of NumPy calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.compiler.fusion import Group, Step, lowered_steps, steps_of
from lagrad.compiler.lowering import Lowered, Operation
from lagrad.compiler.scalar_opcodes import loops
from lagrad.compiler.vector_program import Lanes
from lagrad.expressions.expression import Expression
from lagrad.typing import Array, Shape


class Plan:
    """A function from the values of some nodes to the values of others.

    Parameters
    ----------
    inputs, outputs : sequences of nodes
    defined : dict
        The right side of each defined variable that may be computed on the way.

    Attributes
    ----------
    shared : list of bool
        For each output, whether its value may lie in the memory of another one.
    """

    __slots__ = (
        "alone",
        "calls",
        "constants",
        "inputs",
        "last",
        "lowered",
        "outputs",
        "run",
        "shared",
        "steps",
        "width",
        "work",
    )

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression] | None = None,
    ) -> None:
        lowered, self.steps = lowered_steps(inputs, outputs, defined or {})
        operations = lowered.operations
        self.inputs = tuple(inputs)
        self.outputs = tuple(lowered.outputs)
        self.width = len(operations)
        self.constants = [
            (place, operations[place].value)
            for place in {*lowered.outputs, *(a for s in self.steps for a in s.arguments)}
            if operations[place].value is not None
        ]
        asked = Counter(lowered.outputs)
        # Which outputs may be another value's memory, or not of their node's dtype.
        self.shared = [
            not operations[place].owns or asked[place] > 1 or operations[place].dtype != node.dtype
            for place, node in zip(lowered.outputs, outputs, strict=True)
        ]
        self.last = self._releases(self.steps, operations)
        self.alone: Callable[[Sequence[Array]], tuple[list[Array], bool]] | None = None
        self.calls = 0
        # In calls of NumPy, each of which costs as much as a thousand entries.
        self.work = sum(1 + getattr(step.function, "work", 0) // 1000 for step in self.steps)
        self.run: Callable[[Sequence[Array]], list[Array]] | None = None
        # What it is made again from, where it turns out to be called often.
        self.lowered = lowered if 0 < len(self.steps) <= STRAIGHT_AT_MOST else None

    def _releases(self, steps: list[Step], operations: list[Operation]) -> list[Shape]:
        """For each step the large values that nothing needs after it."""
        final: dict[int, int] = {}
        for k, step in enumerate(steps):
            for place in (*step.results, *step.arguments):
                final[place] = k
        held = {*self.outputs, *(place for place, _ in self.constants)}
        last: list[Shape] = [()] * len(steps)
        for place, k in final.items():
            size = operations[place].size * operations[place].dtype.itemsize
            if place not in held and size >= RELEASED_FROM:
                last[k] = (*last[k], place)
        # Arrays that the plan made, and that no other value may be a view of.
        viewed = {a for o in operations if not o.owns for a in o.arguments}
        for step, dying in zip(steps, last, strict=True):
            if isinstance(step.function, Group):
                alone = [p for p in dying if operations[p].owns and p not in viewed]
                step.function.recycle(alone)
        return last

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        """The outputs' values, in order, for the inputs' values, in order."""
        # What is not finite is seen by whoever asks for it.
        with np.errstate(all="ignore"):
            return self.evaluate(values)

    def evaluate(self, values: Sequence[Array]) -> list[Array]:
        """The same; warnings are the caller's to silence, once for all steps of a loop."""
        if self.lowered is not None:
            self._hasten(self.lowered)
        return (self.run or self.interpreted)(values)

    def checked(self, values: Sequence[Array]) -> tuple[list[Array], bool]:
        """The same, without warnings, and whether all of it is finite."""
        if self.alone is not None:
            return self.alone(values)
        found = self(values)
        return found, all_finite(found)

    def _hasten(self, lowered: Lowered) -> None:
        """Become a function of its own, and that of lanes, as calls add up."""
        self.calls += 1
        if self.calls == OFTEN:
            self.run = straight(self, self.steps, self.last)
        if self.calls >= OFTEN and loops(self.calls * self.work):
            steps = steps_of(lowered, lanes=True)
            self.run = straight(self, steps, self._releases(steps, lowered.operations))
            self.alone = alone(self, steps)
            self.lowered = None

    def interpreted(self, values: Sequence[Array]) -> list[Array]:
        """The same, step by step, by the same calls however often."""
        memory: list[Array] = [None] * self.width
        memory[: len(values)] = values
        for place, value in self.constants:
            memory[place] = value
        for step, last in zip(self.steps, self.last, strict=True):
            found = step.function(*[memory[i] for i in step.arguments])
            if step.several:
                for place, value in zip(step.results, found, strict=True):
                    memory[place] = value
            else:
                memory[step.results[0]] = found
            for place in last:
                memory[place] = None
        return [memory[i] for i in self.outputs]


# A plan that is called so often becomes a Python function of its own, unless it is long: the
# bookkeeping of a step costs as much as an operation on a hundred numbers.
OFTEN = 12
STRAIGHT_AT_MOST = 1000
# Bytes from which an array is let go as soon as nothing needs it.
RELEASED_FROM = 1 << 16


def straight(
    plan: Plan, steps: list[Step], releases: list[Shape]
) -> Callable[[Sequence[Array]], list[Array]]:
    """Steps as the statements of one function."""
    names: dict[str, Any] = {f"v{place}": value for place, value in plan.constants}
    given = ", ".join(f"v{place}" for place in range(len(plan.inputs)))
    lines = ["def run(values):", *([f"    {given}, = values"] if given else [])]
    for k, (step, last) in enumerate(zip(steps, releases, strict=True)):
        names[f"f{k}"] = step.function
        results = ", ".join(f"v{place}" for place in step.results) + "," * step.several
        called = f"f{k}({', '.join(f'v{place}' for place in step.arguments)})"
        lines.append(f"    {results} = {called}" if step.results else f"    {called}")
        lines += [f"    del v{place}" for place in last]
    lines.append(f"    return [{', '.join(f'v{place}' for place in plan.outputs)}]")
    exec("\n".join(lines), names)
    found: Callable[[Sequence[Array]], list[Array]] = names["run"]
    return found


def alone(
    plan: Plan, steps: list[Step]
) -> Callable[[Sequence[Array]], tuple[list[Array], bool]] | None:
    """A plan that is one call of lanes, which see whether results are finite as they make them."""
    if len(steps) != 1 or not isinstance(steps[0].function, Lanes):
        return None
    (step,), lanes = steps, steps[0].function
    count = len(plan.inputs)
    if any(a >= count for a in step.arguments) or not set(step.results).issuperset(plan.outputs):
        return None
    order = [step.results.index(place) for place in plan.outputs]

    def run(values: Sequence[Array]) -> tuple[list[Array], bool]:
        found, finite = lanes.checked(*[values[k] for k in step.arguments])
        return [found[k] for k in order], finite

    return run
