"""Expressions compiled to a straight line of NumPy calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lagrad.expression import Constant, Expression, Variable
from lagrad.system import System

__all__ = ["Plan", "ancestors", "definitions"]

Array = Any


def definitions(system: System) -> dict[int, Expression]:
    """For each defined variable, by its index, the expression that it equals."""
    return {c.variable.index: c.rhs for c in system.constraints.values() if c.variable is not None}


def ancestors(
    outputs: Iterable[Expression],
    known: Callable[[Expression], bool],
    defined: dict[int, Expression],
) -> list[Expression]:
    """The nodes that the outputs need, in order, those that are `known` as leaves.

    A defined variable is looked through to its right side, which comes before it.
    """
    found: dict[int, Expression] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.index in found:
            continue
        found[node.index] = node
        if known(node):
            continue
        if node.index in defined:
            stack.append(defined[node.index])
        else:
            stack.extend(node.arguments)
    return [found[i] for i in sorted(found)]


class Plan:
    """A function from the values of some nodes to the values of others.

    Parameters
    ----------
    inputs, outputs : sequences of nodes
    defined : dict
        The right side of each defined variable that may be computed on the way.
    """

    __slots__ = ("calls", "constants", "inputs", "outputs", "slots", "steps", "straight")

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression] | None = None,
    ) -> None:
        defined = defined or {}
        given = {node.index for node in inputs}
        order = ancestors(outputs, lambda node: node.index in given, defined)
        slot: dict[int, int] = {node.index: i for i, node in enumerate(inputs)}
        constants: list[tuple[int, Array]] = []
        count = len(inputs)
        steps: list[tuple[Callable[..., Array], tuple[int, ...], int]] = []
        for node in order:
            if node.index in slot:
                continue
            if node.index in defined:
                slot[node.index] = slot[defined[node.index].index]
                continue
            slot[node.index] = count
            if isinstance(node, Constant):
                constants.append((count, node.value))
            elif node.primitive is None:
                assert isinstance(node, Variable)
                raise AssertionError(f"{node.name} is neither given nor defined")
            else:
                places = tuple(slot[a.index] for a in node.arguments)
                steps.append((node.primitive.kernel(node.parameters), places, count))
            count += 1
        self.inputs = tuple(inputs)
        self.outputs = tuple(slot[node.index] for node in outputs)
        self.steps = steps
        self.slots = count
        self.constants = constants
        self.calls = 0
        self.straight: Callable[[Sequence[Array]], list[Array]] | None = None

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        """The outputs' values, in order, for the inputs' values, in order."""
        if self.straight is not None:
            return self.straight(values)
        self.calls += 1
        if self.calls == OFTEN and len(self.steps) <= STRAIGHT_AT_MOST:
            self.straight = straight(self)
        memory: list[Array] = [None] * self.slots
        memory[: len(values)] = values
        for place, value in self.constants:
            memory[place] = value
        for function, places, out in self.steps:
            memory[out] = function(*[memory[i] for i in places])
        return [memory[i] for i in self.outputs]


# A plan that is called so often becomes a Python function of its own, unless it is long: the
# bookkeeping of a step costs as much as an operation on a hundred numbers.
OFTEN = 12
STRAIGHT_AT_MOST = 1000


def straight(plan: Plan) -> Callable[[Sequence[Array]], list[Array]]:
    """The plan's steps as the statements of one function."""
    names: dict[str, Any] = {f"v{place}": value for place, value in plan.constants}
    given = ", ".join(f"v{place}" for place in range(len(plan.inputs)))
    lines = ["def run(values):", *([f"    {given}, = values"] if given else [])]
    for function, places, out in plan.steps:
        names[f"f{out}"] = function
        lines.append(f"    v{out} = f{out}({', '.join(f'v{place}' for place in places)})")
    lines.append(f"    return [{', '.join(f'v{place}' for place in plan.outputs)}]")
    exec("\n".join(lines), names)
    found: Callable[[Sequence[Array]], list[Array]] = names["run"]
    return found
