"""Branches whose border a value sits on: one side of an `if` alone tells no derivative there.

A comparison of two floats that are equal to rounding could have come out otherwise. Where the
answer that Python got depends on it, so does which function was traced: bisection ends so, its
last comparisons being decided by rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lagrad.expressions.dispatch import UFUNCS
from lagrad.expressions.expression import Constant, Expression
from lagrad.expressions.graph import ancestors
from lagrad.typing import Array

# Numbers that differ by so many spacings are equal to rounding.
SPACINGS = 16


# What is asked by `==` has a value of its own there, as sin(x)/x has at zero.
ORDERINGS = {UFUNCS[u] for u in (np.less, np.less_equal, np.greater, np.greater_equal)}


def is_float(node: Expression) -> bool:
    return node.dtype.kind == "f"


def compared(node: Expression) -> Sequence[Expression]:
    """The two floats that a node compares, entry by entry; none of other nodes."""
    orders = node.primitive in ORDERINGS
    return node.arguments if orders and any(map(is_float, node.arguments)) else ()


def spacing(pair: Sequence[Expression]) -> float:
    """What is rounding, relative, between two values."""
    single = all(side.dtype.itemsize == 4 for side in pair if is_float(side))
    return SPACINGS * float(np.finfo(np.float32 if single else np.float64).eps)


def read_for(node: Expression) -> list[Expression]:
    """The values that tell whether an answer sits on a border."""
    below = ancestors([node], is_float, {})
    return [n for n in below if is_float(n) or isinstance(n, Constant) or n.primitive is None]


def on_border(node: Expression, value: Callable[[Expression], Array]) -> bool:
    """Whether another rounding of what is compared would answer a question otherwise."""
    if is_float(node):
        return False
    if node.size == 1 and (pair := compared(node)):
        a, b = (np.asarray(value(argument)).item() for argument in pair)
        return bool(abs(a - b) <= spacing(pair) * (abs(a) + abs(b)))
    # All comparisons that are close come out false in the one, true in the other.
    least: dict[int, Array] = {}
    most: dict[int, Array] = {}
    for n in ancestors([node], is_float, {}):
        if pair := compared(n):
            a, b = (np.asarray(value(argument)) for argument in pair)
            assert n.primitive is not None
            found = n.primitive.kernel(n.parameters)(a, b)
            close = np.abs(a - b) <= spacing(pair) * (np.abs(a) + np.abs(b))
            least[n.index], most[n.index] = found & ~close, found | close
        elif n.primitive is None or is_float(n):
            least[n.index] = most[n.index] = np.asarray(value(n))
        else:
            kernel = n.primitive.kernel(n.parameters)
            least[n.index], most[n.index] = (
                kernel(*[side[a.index] for a in n.arguments]) for side in (least, most)
            )
    return bool(np.any(least[node.index] != most[node.index]))
