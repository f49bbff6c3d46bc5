"""The loops of a flat tape: over operations in a row, compiled by numba where that installs.

Codes stand for functions of one or two numbers. Everything that knows a derivative is elsewhere:
backwards the loop adds up products with partials that NumPy computed for all nodes at once.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["BINARY", "CODES", "IN_PYTHON", "NAMES", "loops"]

Array = Any
NAMES = (
    *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "arctan2", "hypot"),
    *("negative", "square", "sqrt", "reciprocal", "abs", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
    "copy",  # of a right side, to the variable that it defines
)
# The first nine take two numbers.
BINARY = 9
CODES = {name: code for code, name in enumerate(NAMES)}
# Numba takes up to half a second to load, and Python a tenth of a microsecond for a step.
COMPILED_FROM = 1_000_000


def forward(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
    """Compute values from `start` on, each from earlier ones."""
    for i in range(start, values.size):
        c, x = code[i], values[first[i]]
        if c < 9:
            y = values[second[i]]
            if c == 0:
                values[i] = x + y
            elif c == 1:
                values[i] = x - y
            elif c == 2:
                values[i] = x * y
            elif c == 3:
                values[i] = np.divide(x, y)
            elif c == 4:
                values[i] = np.power(x, y)
            elif c == 5:
                values[i] = np.maximum(x, y)
            elif c == 6:
                values[i] = np.minimum(x, y)
            elif c == 7:
                values[i] = np.arctan2(x, y)
            else:
                values[i] = np.hypot(x, y)
        elif c < 18:
            if c == 9:
                values[i] = -x
            elif c == 10:
                values[i] = x * x
            elif c == 11:
                values[i] = np.sqrt(x)
            elif c == 12:
                values[i] = np.divide(1.0, x)
            elif c == 13:
                values[i] = np.abs(x)
            elif c == 14:
                values[i] = np.exp(x)
            elif c == 15:
                values[i] = np.expm1(x)
            elif c == 16:
                values[i] = np.log(x)
            else:
                values[i] = np.log1p(x)
        elif c == 18:
            values[i] = np.sin(x)
        elif c == 19:
            values[i] = np.cos(x)
        elif c == 20:
            values[i] = np.tan(x)
        elif c == 21:
            values[i] = np.arcsin(x)
        elif c == 22:
            values[i] = np.arccos(x)
        elif c == 23:
            values[i] = np.arctan(x)
        elif c == 24:
            values[i] = np.sinh(x)
        elif c == 25:
            values[i] = np.cosh(x)
        elif c == 26:
            values[i] = np.tanh(x)
        else:
            values[i] = x


def backward(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Carry cotangents from the last node to the first."""
    for i in range(sums.size - 1, start - 1, -1):
        g = sums[i]
        if g != 0.0:
            sums[first[i]] += g * left[i]
            if binary[i]:
                sums[second[i]] += g * right[i]


def tangent(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Carry tangents from the first node to the last."""
    for i in range(start, sums.size):
        g = sums[first[i]] * left[i]
        if binary[i]:
            g += sums[second[i]] * right[i]
        sums[i] += g


@functools.cache
def compiled() -> tuple[Callable[..., None], ...] | None:
    """The three loops compiled; None without numba (extra `fast`)."""
    if importlib.util.find_spec("numba") is None:
        return None
    numba = importlib.import_module("numba")
    njit = numba.njit(cache=True, nogil=True, error_model="numpy")
    return tuple(njit(loop) for loop in (forward, backward, tangent))


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


def forward_in_python(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
    """`forward` over lists: math's functions, and NumPy's where those refuse a number."""
    numpy_own = [getattr(np, name) for name in NAMES]
    table = [FUNCTIONS.get(name) or getattr(np, name) for name in NAMES]
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
    """`backward` over lists."""
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
    """`tangent` over lists."""
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
    return compiled() if steps >= COMPILED_FROM or "numba" in sys.modules else None


IN_PYTHON = (forward_in_python, backward_in_python, tangent_in_python)
