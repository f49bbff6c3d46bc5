"""Which values have one sign wherever they are: what is added up of one sign does not cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression

# Of any argument, but for NaN.
NEVER_NEGATIVE = frozenset(
    [
        *("exp", "exp2", "cosh", "abs", "square", "sqrt", "hypot", "expit", "ndtr", "erfc"),
        *("arccos", "arccosh", "tanh_slope", "logistic_share", "larger_share", "exp_ratio"),
    ]
)
# Of the sign of their argument, or of the one that all have.
LIKE_THEIR_ARGUMENT = frozenset(
    [
        *("sinh", "tanh", "arcsinh", "arctanh", "arctan", "arcsin", "expm1", "log1p", "cbrt"),
        *("erf", "sign", "reciprocal", "maximum", "minimum", "fmax", "fmin", "add"),
        *("max", "min", "sum", "cumsum"),
    ]
)
MOVES = frozenset(
    [
        *("reshape", "transpose", "getitem", "gather", "broadcast_to", "concatenate", "embed"),
        *("astype", "stop_gradient", "flip", "where"),
    ]
)
PRODUCTS = frozenset(["multiply", "divide", "contract", "convolve"])


def signs(nodes: Sequence[Expression], defined: dict[int, Expression]) -> dict[int, int]:
    """By index, 1 of what is nowhere negative, −1 of what is nowhere positive; in order."""
    found: dict[int, int] = {}
    of: Callable[[Expression], int] = lambda node: found.get(node.index, 0)
    for node in nodes:
        if node.index in defined:
            sign = of(defined[node.index])
        elif isinstance(node, Constant):
            sign = sign_of(node.value)
        elif node.primitive is None or node.dtype.kind != "f":
            sign = 0
        else:
            sign = applied(node, [of(a) for a in node.arguments])
        if sign:
            found[node.index] = sign
    return found


def sign_of(value: Any) -> int:
    """Of a constant, small enough to be looked at."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.size > 4096:
        return 0
    return int(bool((array >= 0).all())) - int(bool((array <= 0).all()))


def applied(node: Expression, own: Sequence[int]) -> int:
    """The sign of what a primitive makes of arguments of some signs."""
    assert node.primitive is not None
    name = node.primitive.name
    if name in NEVER_NEGATIVE:
        return 1
    if name == "negative":
        return -own[0]
    if name == "subtract":
        return own[0] if own[0] == -own[1] else 0
    if name in PRODUCTS:
        return 1 if is_square(node) else own[0] * own[-1]
    if name == "power":
        return max(even(node.arguments[1]), own[0], 0)
    if name == "maximum" and 1 in own:
        return 1
    if name == "minimum" and -1 in own:
        return -1
    if name not in LIKE_THEIR_ARGUMENT and name not in MOVES:
        return 0
    if name == "where":
        own = own[1:]
    return own[0] if own and all(sign == own[0] for sign in own) else 0


def is_square(node: Expression) -> bool:
    """Whether a product is of the same entries of one array."""
    if len({a.index for a in node.arguments}) > 1:
        return False
    assert node.primitive is not None
    if node.primitive.name != "contract":
        return node.primitive.name in ("multiply", "divide")
    first, second = node.parameters[0].partition("->")[0].split(",")
    return bool(first == second)


def even(exponent: Expression) -> int:
    """One of an even whole number."""
    value = exponent.value if isinstance(exponent, Constant) else None
    return int(
        value is not None and np.size(value) == 1 and float(np.asarray(value).item()) % 2 == 0
    )


def of_one_sign(node: Expression, known: dict[int, int]) -> bool:
    """Whether a sum is of terms, or a contraction of products, of one sign."""
    assert node.primitive is not None
    own = [known.get(a.index, 0) for a in node.arguments]
    name = node.primitive.name
    if name == "add":
        return own[0] == own[1] != 0
    if name == "subtract":
        return own[0] == -own[1] != 0
    if name in ("sum", "cumsum", "contract", "convolve"):
        return applied(node, own) != 0
    return False
