"""Exponential functions of vectors, to two units in the last place.

eˣ = 2ᵏ·eʳ with k the integer nearest x/log 2 and r what is left, log 2 in two parts (Cody and
Waite, Software Manual for the Elementary Functions, 1980). eʳ = 1 + r + r²·P(r).
"""

from __future__ import annotations

from lagrad.compiler.native.code import Value, fast_two_sum, fma, magnitude, polynomial, with_sign
from lagrad.compiler.native.formats import (
    coefficients,
    constant,
    format_of,
    power_of_two,
    rounded,
    scaled,
    within,
)


def reduced(x: Value) -> tuple[Value, Value, Value, Value]:
    """k, and what holds it; r before the second part of log 2 is taken off, and after."""
    f, (high, low) = format_of(x), constant("LOG_2", x)
    held = fma(x, constant("LOG2_E", x)[0], f.magic)
    k = held - f.magic
    first = fma(k, -high, x)
    return held, k, first, fma(k, -low, first)


def exp_less_one(r: Value) -> Value:
    """eʳ − 1 of a remainder."""
    return fma(r * r, polynomial(r, coefficients("EXP", r)), r)


def exp(x: Value, shift: int = 0, low: Value | None = None) -> Value:
    """e^(x + low)·2^shift."""
    f = format_of(x)
    held, k, _, r = reduced(within(x, f.lowest, f.highest))
    if low is not None:
        r = r + low
    return scaled(exp_less_one(r) + 1.0, held, k, shift)


def exp_times(x: Value, low: Value, y: Value, y_low: Value) -> Value:
    """e^(x + low)·(y + y_low), rounded once or nearly so."""
    f = format_of(x)
    held, k, _, r = reduced(within(x, f.lowest, f.highest))
    e, e_low = fast_two_sum(x.like(1.0), exp_less_one(r + low))
    found = e * y
    found = found + (fma(e, y, -found) + fma(e, y_low, e_low * y))
    return scaled(found, held, k)


def exp2(x: Value) -> Value:
    f, (high, low) = format_of(x), constant("LOG_2", x)
    x = within(x, -f.bias - f.mantissa - 3.0, f.bias + 2.0)
    held, k = rounded(x)
    r = x - k
    u = r * high
    rest = fma(r, high, -u) + r * low
    return scaled((exp_less_one(u) + rest) + 1.0, held, k)


def expm1(x: Value) -> Value:
    """2ᵏ·(r + q) + 2ᵏ − 1 with q = eʳ − 1 − r; halved, so that 2ᵏ stays in the range."""
    f, low = format_of(x), constant("LOG_2", x)[1]
    # Beyond the range it is infinite, 2ᵏ⁻¹ being a number still.
    held, k, first, r = reduced(within(x, -f.mantissa - 5.0, f.highest - 1.1))
    lost = fma(k, -low, first - r)
    z = r * r
    q = fma(z, 0.5, z * r * polynomial(r, coefficients("EXPM1", x))) + lost
    half = power_of_two(held.bits - 1)
    less = half - 0.5
    total = fma(half, r, less)
    rest = fma(half, r, less - total)
    far = 2.0 * (total + fma(half, q, rest))
    near = x.equals(0.0).choose(x, r + q)  # −0 too
    return k.equals(0.0).choose(near, far)


def sinh(x: Value) -> Value:
    a, z = magnitude(x), x * x
    half = exp(a, shift=-1)
    far = with_sign(half - 0.25 / half, x)
    near = fma(x * z, polynomial(z, coefficients("SINH", x)), x)
    return (a < 1.0).choose(near, far)


def cosh(x: Value) -> Value:
    half = exp(magnitude(x), shift=-1)
    return half + 0.25 / half


def tanh(x: Value) -> Value:
    a, z = magnitude(x), x * x
    far = with_sign(1.0 - 2.0 / (exp(a + a) + 1.0), x)
    near = fma(x * z, polynomial(z, coefficients("TANH", x)), x)
    near = x.equals(0.0).choose(x, near)
    return (a < 0.5477).choose(near, far)


def tanh_slope(y: Value, x: Value) -> Value:
    """1 − y² for y = tanh x; 4q/(1 + q)² with q = e^(−2|x|), where that cancels."""
    a = magnitude(x)
    q = exp(a * -2.0)
    d = q + 1.0
    return (a < 1.0).choose(fma(-y, y, 1.0), 4.0 * q / (d * d))


def expit(x: Value) -> Value:
    """1/(1 + e⁻ˣ)."""
    e = exp(-magnitude(x))
    return (x < 0.0).choose(e, x.is_nan().choose(x, 1.0)) / (e + 1.0)
