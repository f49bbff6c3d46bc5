"""Expressions compiled to a straight line of NumPy calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lagrad.expression import Expression
from lagrad.fusing import steps_of
from lagrad.lowering import Lowered
from lagrad.system import System

__all__ = ["Plan", "definitions"]

Array = Any


def definitions(system: System) -> dict[int, Expression]:
    """For each defined variable, by its index, the expression that it equals."""
    return {c.variable.index: c.rhs for c in system.constraints.values() if c.variable is not None}


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
        "calls",
        "constants",
        "inputs",
        "last",
        "outputs",
        "shared",
        "steps",
        "straight",
        "width",
    )

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression] | None = None,
    ) -> None:
        lowered = Lowered(inputs, outputs, defined or {})
        operations = lowered.operations
        self.inputs = tuple(inputs)
        self.outputs = tuple(lowered.outputs)
        self.steps = steps_of(lowered)
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
        # After which step a large value is not needed any more.
        final: dict[int, int] = {}
        for k, step in enumerate(self.steps):
            for place in (*step.results, *step.arguments):
                final[place] = k
        held = {*self.outputs, *(place for place, _ in self.constants)}
        self.last: list[tuple[int, ...]] = [()] * len(self.steps)
        for place, k in final.items():
            size = operations[place].size * operations[place].dtype.itemsize
            if place not in held and size >= RELEASED_FROM:
                self.last[k] = (*self.last[k], place)
        self.calls = 0
        self.straight: Callable[[Sequence[Array]], list[Array]] | None = None

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        """The outputs' values, in order, for the inputs' values, in order."""
        if self.straight is not None:
            return self.straight(values)
        self.calls += 1
        if self.calls == OFTEN and len(self.steps) <= STRAIGHT_AT_MOST:
            self.straight = straight(self)
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


def straight(plan: Plan) -> Callable[[Sequence[Array]], list[Array]]:
    """The plan's steps as the statements of one function."""
    names: dict[str, Any] = {f"v{place}": value for place, value in plan.constants}
    given = ", ".join(f"v{place}" for place in range(len(plan.inputs)))
    lines = ["def run(values):", *([f"    {given}, = values"] if given else [])]
    for k, (step, last) in enumerate(zip(plan.steps, plan.last, strict=True)):
        names[f"f{k}"] = step.function
        results = ", ".join(f"v{place}" for place in step.results) + "," * step.several
        called = f"f{k}({', '.join(f'v{place}' for place in step.arguments)})"
        lines.append(f"    {results} = {called}" if step.results else f"    {called}")
        lines += [f"    del v{place}" for place in last]
    lines.append(f"    return [{', '.join(f'v{place}' for place in plan.outputs)}]")
    exec("\n".join(lines), names)
    found: Callable[[Sequence[Array]], list[Array]] = names["run"]
    return found
