"""Loops over numbers that numba compiles (extra `fast`), once, and keeps on disk.

Codes stand for functions of one or two numbers; which, `loops.NAMES` says. Everything that knows
a derivative is elsewhere: backwards a loop adds up products with partials already computed.
"""

from typing import Any

import numba
import numpy as np

from lagrad.typing import Array

njit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")


def _slope(y: float, x: float) -> Any:
    """1 − y² for y = tanh x, without cancelling."""
    found = (1.0 - y) * (1.0 + y)
    if found < 1e-4:
        q = np.exp(-2.0 * abs(x))
        return 4.0 * q / ((1.0 + q) * (1.0 + q))
    return found


slope = njit(_slope)


def _value(c: int, x: float, y: float) -> Any:
    """The function of code `c`; those of one number ignore the second one."""
    if c < 10:
        if c == 0:
            return x + y
        if c == 1:
            return x - y
        if c == 2:
            return x * y
        if c == 3:
            return np.divide(x, y)
        if c == 4:
            return np.power(x, y)
        if c == 5:
            return np.maximum(x, y)
        if c == 6:
            return np.minimum(x, y)
        if c == 7:
            return np.arctan2(x, y)
        if c == 8:
            return np.hypot(x, y)
        return slope(x, y)
    if c < 19:
        if c == 10:
            return -x
        if c == 11:
            return x * x
        if c == 12:
            return np.sqrt(x)
        if c == 13:
            return np.divide(1.0, x)
        if c == 14:
            return np.abs(x)
        if c == 15:
            return np.exp(x)
        if c == 16:
            return np.expm1(x)
        if c == 17:
            return np.log(x)
        return np.log1p(x)
    if c == 19:
        return np.sin(x)
    if c == 20:
        return np.cos(x)
    if c == 21:
        return np.tan(x)
    if c == 22:
        return np.arcsin(x)
    if c == 23:
        return np.arccos(x)
    if c == 24:
        return np.arctan(x)
    if c == 25:
        return np.sinh(x)
    if c == 26:
        return np.cosh(x)
    if c == 27:
        return np.tanh(x)
    return x


value = njit(_value)


def _forward(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
    """Compute values from `start` on, each from earlier ones."""
    for i in range(start, values.size):
        values[i] = value(code[i], values[first[i]], values[second[i]])


def _backward(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Carry cotangents from the last node to the first."""
    for i in range(sums.size - 1, start - 1, -1):
        g = sums[i]
        if g != 0.0:
            sums[first[i]] += g * left[i]
            if binary[i]:
                sums[second[i]] += g * right[i]


def _tangent(
    binary: Array, first: Array, second: Array, left: Array, right: Array, sums: Array, start: int
) -> None:
    """Carry tangents from the first node to the last."""
    for i in range(start, sums.size):
        g = sums[first[i]] * left[i]
        if binary[i]:
            g += sums[second[i]] * right[i]
        sums[i] += g


def _repeat(
    code: Array,
    first: Array,
    second: Array,
    memory: Array,
    start: int,
    places: tuple[Array, Array, Array, Array],
    inputs: Array,
    outputs: Array,
    backwards: bool,
) -> None:
    """Run the same operations for row after row of inputs.

    `places` are those of the state, of what becomes of it, of a row of inputs, and of outputs.
    """
    state, after, given, asked = places
    length = inputs.shape[0]
    held = np.empty(state.size)
    for i in range(length):
        t = length - 1 - i if backwards else i
        for k in range(given.size):
            memory[given[k]] = inputs[t, k]
        for j in range(start, memory.size):
            memory[j] = value(code[j], memory[first[j]], memory[second[j]])
        for k in range(asked.size):
            outputs[t, k] = memory[asked[k]]
        for k in range(after.size):
            held[k] = memory[after[k]]
        for k in range(state.size):
            memory[state[k]] = held[k]


forward, backward, tangent, repeat = map(njit, (_forward, _backward, _tangent, _repeat))
