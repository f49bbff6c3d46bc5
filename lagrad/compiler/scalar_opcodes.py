"""Loops over operations in a row, each a code with the places of its operands.

In machine code, where that is installed and they have run long enough; Python runs them elsewhere.
"""

import functools
import importlib.util
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from lagrad.primitives import kernels
from lagrad.typing import Array

NAMES = (
    *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "arctan2", "hypot"),
    "tanh_slope",
    *("negative", "square", "sqrt", "reciprocal", "abs", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
    "copy",  # of a right side, to the variable that it defines
)
# The first ten take two numbers.
BINARY = 10
CODES = {name: code for code, name in enumerate(NAMES)}
# To compile them takes a tenth of a second, and Python a tenth of a microsecond for a step.
COMPILED_FROM = 1_000_000


@functools.cache
def compiled() -> tuple[Callable[..., None], ...] | None:
    """The loops of `native/interpreter.py`; None without llvmlite (extra `fast`)."""
    if importlib.util.find_spec("llvmlite") is None:
        return None
    interpreter: Any = importlib.import_module("lagrad.compiler.native.interpreter")
    found: tuple[Callable[..., None], ...] = interpreter.loops()
    return found


FUNCTIONS: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "square": lambda x: x * x,
    "abs": abs,
    "copy": float,
    **{
        name: getattr(math, name.replace("arc", "a"))
        for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "tanh", "sqrt")
    },
}


def function_of(name: str) -> Callable[..., float]:
    """Of numbers of Python's."""
    return FUNCTIONS.get(name) or own(name)


def own(name: str) -> Callable[..., Any]:
    """Of arrays: NumPy's, where it has one."""
    found: Callable[..., Any] = getattr(kernels, name, None) or getattr(np, name)
    return np.positive if name == "copy" else found


def forward_in_python(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
    """Values over lists: math's functions, and NumPy's where those refuse a number."""
    numpy_own = [own(name) for name in NAMES]
    table = [function_of(name) for name in NAMES]
    found = values[:start].tolist()
    append = found.append
    rows = zip(code[start:].tolist(), first[start:].tolist(), second[start:].tolist(), strict=True)
    for c, i, j in rows:
        try:
            append(table[c](found[i], found[j]) if c < BINARY else table[c](found[i]))
        except (ValueError, ArithmeticError):
            arguments = (found[i], found[j]) if c < BINARY else (found[i],)
            append(float(numpy_own[c](*map(np.float64, arguments))))
    values[:] = found


def backward_in_python(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Cotangents over lists."""
    total = sums.tolist()
    rows = zip(
        range(sums.size - 1, start - 1, -1),
        *(a[start:][::-1].tolist() for a in (binary, first, second, left, right)),
        strict=True,
    )
    for i, both, a, b, x, y in rows:
        g = total[i]
        if g:
            total[a] += g * x
            if both:
                total[b] += g * y
    sums[:] = total


def tangent_in_python(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Tangents over lists."""
    total = sums.tolist()
    rows = zip(
        range(start, sums.size),
        *(a[start:].tolist() for a in (binary, first, second, left, right)),
        strict=True,
    )
    for i, both, a, b, x, y in rows:
        total[i] += total[a] * x + (total[b] * y if both else 0.0)
    sums[:] = total


def loops(steps: int) -> tuple[Callable[..., None], ...] | None:
    """Forward, backward and tangent compiled, for so many steps in all; None where they are not."""
    return compiled() if steps >= COMPILED_FROM or compiled.cache_info().currsize else None


IN_PYTHON = (forward_in_python, backward_in_python, tangent_in_python)
