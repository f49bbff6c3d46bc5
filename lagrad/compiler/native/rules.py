"""The instructions of each elementwise primitive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lagrad.compiler.native import exponential as e
from lagrad.compiler.native import logarithm as log
from lagrad.compiler.native import special_functions as special
from lagrad.compiler.native import trigonometry as trig
from lagrad.compiler.native.code import Value, ceil, floor, magnitude, square_root, with_sign
from lagrad.compiler.native.formats import INFINITY

# What a file of numbers is to LLVM.
KINDS = {"d": "double", "f": "float", "?": "i1", "b": "i8", "i": "i32", "l": "i64", "q": "i64"}


def kind_of(dtype: Any) -> str | None:
    """The kind of an array's numbers; None of what has none, bytes in the other order included."""
    found = np.dtype(dtype)
    return KINDS.get(found.char) if found.isnative else None


def larger(a: Value, b: Value, missing: bool = False) -> Value:
    """NaN where one is, or the other one where NaNs are `missing`."""
    first, second = (a, b) if missing else (b, a)
    found = (a > b).choose(a, b)
    return a.is_nan().choose(second if missing else a, b.is_nan().choose(first, found))


def smaller(a: Value, b: Value, missing: bool = False) -> Value:
    return -larger(-a, -b, missing)


def larger_share(a: Value, b: Value) -> Value:
    half = a.equals(b).choose(0.5, a.like(0.0))
    return (a > b).choose(1.0, half)


def sign(x: Value) -> Value:
    ends = with_sign(x.like(1.0), x)
    return (x.equals(0.0) | x.is_nan()).choose(x + 0.0, ends)


def logistic_share(a: Value, b: Value) -> Value:
    """Zero where both are −∞."""
    none = a.equals(-INFINITY) & b.equals(-INFINITY)
    return none.choose(0.0, e.expit(a - b))


def exp_ratio(x: Value, y: Value) -> Value:
    return e.exp(x - y.equals(-INFINITY).choose(0.0, y))


def unit_complement(x: Value) -> Value:
    return (1.0 - x) * (1.0 + x)


def xlogy(x: Value, y: Value) -> Value:
    return (x.equals(0.0) & ~y.is_nan()).choose(0.0, x * log.log(y))


def xlog1py(x: Value, y: Value) -> Value:
    return (x.equals(0.0) & ~y.is_nan()).choose(0.0, x * log.log1p(y))


def entr(x: Value) -> Value:
    found = x.equals(0.0).choose(0.0, -x * log.log(x))
    return (x < 0.0).choose(-INFINITY, found)


def isinf(x: Value) -> Value:
    return magnitude(x).equals(INFINITY)


RULES: dict[str, Callable[..., Value]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda x: -x,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "sqrt": square_root,
    "abs": magnitude,
    "sign": sign,
    "floor": floor,
    "ceil": ceil,
    "maximum": larger,
    "minimum": smaller,
    "fmax": lambda a, b: larger(a, b, missing=True),
    "fmin": lambda a, b: smaller(a, b, missing=True),
    "larger_share": larger_share,
    "unit_complement": unit_complement,
    "hypot_share": lambda a, b: a / log.hypot(a, b),
    "logistic_share": logistic_share,
    "exp_ratio": exp_ratio,
    "where": lambda c, a, b: c.choose(a, b),
    "equal": lambda a, b: a.equals(b),
    "not_equal": lambda a, b: a.differs(b),
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "logical_and": lambda a, b: a.to("i1") & b.to("i1"),
    "logical_or": lambda a, b: a.to("i1") | b.to("i1"),
    "logical_xor": lambda a, b: a.to("i1") ^ b.to("i1"),
    "logical_not": lambda a: ~a.to("i1"),
    "isnan": lambda x: x.is_nan(),
    "isinf": isinf,
    "isfinite": lambda x: (x - x).equals(0.0),
    "xlogy": xlogy,
    "xlog1py": xlog1py,
    "entr": entr,
    "astype": lambda x: x,
    "branch_share": lambda c, a, b: c.to("i1").choose(1.0, a.like(0.0)),
    "exp": e.exp,
    "exp2": e.exp2,
    "expm1": e.expm1,
    "sinh": e.sinh,
    "cosh": e.cosh,
    "tanh": e.tanh,
    "tanh_slope": e.tanh_slope,
    "expit": e.expit,
    "log": log.log,
    "log2": log.log2,
    "log10": log.log10,
    "log1p": log.log1p,
    "power": log.power,
    "cbrt": log.cbrt,
    "hypot": log.hypot,
    "logaddexp": log.logaddexp,
    "logit": log.logit,
    "arcsinh": log.arcsinh,
    "arccosh": log.arccosh,
    "arctanh": log.arctanh,
    "sin": trig.sin,
    "cos": trig.cos,
    "tan": trig.tan,
    "arcsin": trig.arcsin,
    "arccos": trig.arccos,
    "arctan": trig.arctan,
    "arctan2": trig.arctan2,
    "erf": special.erf,
    "erfc": special.erfc,
    "ndtr": special.ndtr,
    "gammaln": special.gammaln,
    "digamma": special.digamma,
}


def constant_power(x: Value, exponent: float) -> Value | None:
    """A power by products, square roots and a quotient; None where it takes too many."""
    if exponent == 0:
        return x.like(1.0)
    if abs(exponent) > 8 or exponent * 2 != int(exponent * 2):
        return None
    whole, half = int(abs(exponent)), abs(exponent) != int(abs(exponent))
    if half:  # a power with a fraction has no signs of zeros and infinities
        x = x.equals(-INFINITY).choose(INFINITY, x + 0.0)
    found, square, left = None, x, whole
    while left:
        if left & 1:
            found = square if found is None else found * square
        left >>= 1
        square = square * square if left else square
    if half:
        root = square_root(x)
        found = root if found is None else found * root
    assert found is not None
    if exponent >= 0:
        return found
    # Where the power leaves the range its reciprocal may be a number still.
    over = magnitude(found).equals(INFINITY) & (magnitude(x) < INFINITY)
    if exponent >= -1:
        return 1.0 / found
    other = constant_power(1.0 / x, -exponent)
    assert other is not None
    return over.choose(other, 1.0 / found)
