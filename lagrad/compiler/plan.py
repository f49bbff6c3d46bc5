"""Expressions compiled to a straight line of NumPy calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.compiler.fusion import Step, lowered_steps, native_steps
from lagrad.compiler.lowering import Lowered, Operation
from lagrad.compiler.scalar_plan import FROM, scalar_plan
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
        "calls",
        "compiled",
        "constants",
        "fast",
        "inputs",
        "last",
        "lowered",
        "native",
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
        self.constants = self._constants(self.steps, operations)
        asked = Counter(lowered.outputs)
        # Which outputs may be another value's memory, or not of their node's dtype.
        self.shared = [
            not operations[place].owns or asked[place] > 1 or operations[place].dtype != node.dtype
            for place, node in zip(lowered.outputs, outputs, strict=True)
        ]
        self.last = self._releases(self.steps, operations)
        self.calls = 0
        # In nanoseconds, roughly: a call of NumPy, and what it does to each entry.
        self.work = sum(500 + 2 * operations[step.results[0]].size for step in self.steps)
        self.run: Callable[[Sequence[Array]], list[Array]] | None = None
        self.compiled, self.fast = False, list[Step]()
        self.native: Callable[[Sequence[Array]], list[Array]] | None = None
        # What it is made again from, where it turns out to be called often.
        self.lowered = lowered if 0 < len(self.steps) <= AT_MOST else None

    def _constants(self, steps: list[Step], operations: list[Operation]) -> list[tuple[int, Any]]:
        """The constants that steps, or who asks for outputs, are given, with their places."""
        used = {*self.outputs, *(a for step in steps for a in step.arguments)}
        return [(p, operations[p].value) for p in used if operations[p].value is not None]

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

    def quietly(self, values: Sequence[Array]) -> list[Array]:
        """The same by machine code alone, which never warns, where that is all there is."""
        return self.native(values) if self.native is not None else self(values)

    def checked(self, values: Sequence[Array]) -> tuple[list[Array], bool]:
        """The same, without warnings, and whether all of it is finite."""
        found = self(values)
        return found, all_finite(found)

    def hasten(self) -> None:
        """Be compiled now, since it will be called again, but for what takes long to compile."""
        if self.lowered is not None and len(self.steps) <= AT_ONCE:
            self._compile(self.lowered)

    def _hasten(self, lowered: Lowered) -> None:
        """Become a function of its own, and then machine code, as calls add up."""
        self.calls += 1
        if self.calls == AGAIN and len(self.steps) >= FROM:
            order = [step.results[0] for step in self.steps]
            self.run = scalar_plan(lowered, len(self.inputs), order)
            if self.run is not None:
                self.lowered = None
                return
        if self.calls == OFTEN and len(self.steps) <= STRAIGHT_AT_MOST:
            self.run = straight(self, self.steps, self.last, self.constants)
        if len(self.steps) <= LONGEST and self.calls * self.work >= PRICE * len(self.steps):
            self._compile(lowered)

    @property
    def is_fast(self) -> bool:
        """Whether it is machine code; asking counts as a call."""
        if self.lowered is not None:
            self._hasten(self.lowered)
        return self.compiled

    def _compile(self, lowered: Lowered) -> None:
        self.lowered = None
        steps = native_steps(lowered)
        if steps is not None:
            constants = self._constants(steps, lowered.operations)
            last = self._releases(steps, lowered.operations)
            # Other threads may be half way through the calls of NumPy.
            self.fast, run = steps, straight(self, steps, last, constants)
            if all(step.several for step in steps):
                self.native = run
            self.run, self.compiled = run, True

    def source(self, kind: str = "calls") -> str:
        """What is run, as text: the `calls` in order, or what `llvm` compiled."""
        if kind == "llvm":
            texts = (getattr(step.function, "text", None) for step in self.fast)
            return "\n".join(text for text in texts if text is not None)
        lines = []
        for step in self.fast or self.steps:
            made, given = (", ".join(f"v{p}" for p in s) for s in (step.results, step.arguments))
            name = str(step.function) if step.several else self._name(step)
            lines.append(f"{made} = {name}({given})")
        return "\n".join(lines)

    def _name(self, step: Step) -> str:
        return str(getattr(step.function, "__name__", type(step.function).__name__))

    def __str__(self) -> str:
        return self.source()

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
# One of many single numbers is a tape from this call on.
AGAIN = 2
# Nanoseconds that an operation takes to be compiled, and has to take in calls before it is; so many
# are compiled at once where that is asked for, and more than so many never.
PRICE, AT_ONCE, AT_MOST = 600_000, 1_000, 2_000_000
# Longer ones LLVM takes too long for.
LONGEST = 5_000
# Bytes from which an array is let go as soon as nothing needs it.
RELEASED_FROM = 1 << 16


def straight(
    plan: Plan, steps: list[Step], releases: list[Shape], constants: list[tuple[int, Any]]
) -> Callable[[Sequence[Array]], list[Array]]:
    """Steps as the statements of one function."""
    names: dict[str, Any] = {f"v{place}": value for place, value in constants}
    given = ", ".join(f"v{place}" for place in range(len(plan.inputs)))
    lines = ["def run(values):", *([f"    {given}, = values"] if given else [])]
    for k, (step, last) in enumerate(zip(steps, releases, strict=True)):
        # A kernel's own function, without the one around it.
        names[f"f{k}"] = getattr(step.function, "direct", step.function)
        results = ", ".join(f"v{place}" for place in step.results) + "," * step.several
        called = f"f{k}({', '.join(f'v{place}' for place in step.arguments)})"
        lines.append(f"    {results} = {called}" if step.results else f"    {called}")
        lines += [f"    del v{place}" for place in last]
    lines.append(f"    return [{', '.join(f'v{place}' for place in plan.outputs)}]")
    exec("\n".join(lines), names)
    found: Callable[[Sequence[Array]], list[Array]] = names["run"]
    return found
