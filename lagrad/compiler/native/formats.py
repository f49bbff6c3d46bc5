"""What is particular to doubles and to floats, and steps that many functions begin or end with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lagrad.compiler.native.code import FLOAT, Value, fma
from lagrad.compiler.native.coefficients import CONSTANTS, POLYNOMIALS


@dataclass(frozen=True)
class Format:
    """A binary floating-point format (IEEE 754).

    Attributes
    ----------
    mantissa, bias, sign : int
        Bits after the leading one; what is added to exponents; the place of the sign's bit.
    root : int
        The bits of √½.
    lowest, highest : float
        Beyond which exp is zero, or infinite.
    periodic : float
        Up to which three parts of π/2 leave a remainder with all its digits.
    """

    mantissa: int
    bias: int
    sign: int
    root: int
    lowest: float
    highest: float
    periodic: float

    @property
    def magic(self) -> float:
        """1.5·2^mantissa: what is added to it is rounded to an integer, held in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def normal(self) -> float:
        """The smallest number that has all digits."""
        return 2.0 ** (1 - self.bias)


FORMATS = {
    "double": Format(52, 1023, 63, 0x3FE6A09E667F3BCD, -746.0, 711.0, 1e9),
    "float": Format(23, 127, 31, 0x3F3504F3, -104.5, 90.0, 3e4),
}


def format_of(x: Value) -> Format:
    return FORMATS[x.kind]


def coefficients(name: str, x: Value) -> tuple[float, ...]:
    return POLYNOMIALS[name, x.kind]


def constant(name: str, x: Value) -> tuple[float, ...]:
    """A constant as a sum of numbers of a format, the largest first."""
    return CONSTANTS[name, x.kind]


def power_of_two(k: Value) -> Value:
    """2^k of integers that are in the low bits of k."""
    f = FORMATS[FLOAT[k.kind]]
    return ((k + f.bias) << f.mantissa).floating


def rounded(x: Value) -> tuple[Value, Value]:
    """x + magic, whose low bits are the nearest integer; and that integer."""
    magic = format_of(x).magic
    held = x + magic
    return held, held - magic


def scaled(x: Value, held: Value, k: Value, shift: int = 0) -> Value:
    """x·2^(k + shift) in two steps, so that no power leaves the range; k is held by `held`."""
    half = fma(k, 0.5, format_of(x).magic).bits
    rest = held.bits - half
    return x * power_of_two(half + shift if shift else half) * power_of_two(rest)


def within(x: Value, low: float, high: float) -> Value:
    """x, or the bound that it is beyond; NaN stays."""
    x = (x < low).choose(low, x)
    return (x > high).choose(high, x)


def split(x: Value) -> tuple[Value, Value]:
    """k and m with x = 2^k·m and m in [√½, √2), for x positive and finite."""
    f = format_of(x)
    tiny, lift = x < f.normal, f.mantissa + 2
    bits = tiny.choose(x * 2.0**lift, x).bits
    from_root = bits - f.root
    m = (bits - (from_root & (-1 << f.mantissa))).floating
    # An integer below 2^mantissa is a float's low bits under the exponent of 2^mantissa.
    field = (from_root + (f.bias << f.mantissa)) >> f.mantissa
    k = (field | ((f.bias + f.mantissa) << f.mantissa)).floating
    base = 2.0**f.mantissa + f.bias
    return k - tiny.choose(base + lift, x.like(base)), m


def negative(x: Value) -> Value:
    """Whether the sign is negative, that of zero too."""
    return x.bits < 0


def whole(x: Value) -> Value:
    """Whether numbers are integers; infinities are."""
    return x.equals(x.code.intrinsic("floor", x))


INFINITY, NAN = math.inf, math.nan
