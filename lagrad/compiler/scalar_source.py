"""A flat tape as statements of Python, for want of a compiler: twice as fast as a loop.

Every value is a local variable. To compile a statement takes as long as to run it a hundred times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lagrad.compiler.scalar_opcodes import (
    BINARY,
    CODES,
    FUNCTIONS,
    NAMES,
    forward_in_python,
    function_of,
)
from lagrad.typing import Array

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
