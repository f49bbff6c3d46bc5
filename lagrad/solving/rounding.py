"""What values may be off by for rounding alone: a running error analysis, as expressions.

Each operation rounds its result, and passes on what its arguments may be off by: to first order

    u(f(a, b)) = |∂f/∂a| u(a) + |∂f/∂b| u(b) + |f(a, b)|,

in units of the spacing of floating-point numbers (Wilkinson's running analysis; Higham, Accuracy
and Stability of Numerical Algorithms, 2002, §3.3). So a difference of nearly equal numbers is off
by what they are, wherever in a product or a root it stands.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import UnsupportedFunction
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, moves
from lagrad.expressions.linear_maps import Scale
from lagrad.expressions.real_arrays import NUMBERS

# Variables of these roles are what they are, to the last digit.
EXACT = ("parameter", "data")


def uncertainties(
    outputs: Sequence[Expression],
    leaf: Callable[[Expression], bool],
    defined: dict[int, Expression],
) -> list[Expression]:
    """What each output may be off by, in units of the spacing of floating-point numbers.

    A leaf that is no parameter is off by its own spacing.
    """
    found: dict[int, Any] = {}
    for node in ancestors(outputs, leaf, defined):
        if node.index in defined and not leaf(node):
            found[node.index] = found[defined[node.index].index]
        elif leaf(node):
            exact = isinstance(node, Variable) and node.role in EXACT
            found[node.index] = None if exact else np.abs(node)
        elif node.primitive is not None and node.dtype.kind == "f":
            found[node.index] = passed_on(node, found)
        else:
            found[node.index] = None
    off: list[Any] = [np.abs(n) if found[n.index] is None else found[n.index] for n in outputs]
    return off


def passed_on(node: Expression, found: dict[int, Any]) -> Any:
    """What a node may be off by, from what its arguments may be; None if it is exact."""
    assert node.primitive is not None
    if all(found[a.index] is None for a in node.arguments):
        # A function of exact values: its own rounding, unless it only moves them.
        return None if moves(node) else np.abs(node)
    if node.primitive.joint is not None or node.primitive.rules:
        return np.abs(node)  # its partials are not at hand as expressions
    total: Any = None
    adds = node.primitive.elementwise
    for k, argument in enumerate(node.arguments):
        off = found[argument.index]
        if off is None and not adds:
            continue
        try:
            linear = node.primitive.partial(node, k)
        except UnsupportedFunction:  # of one that is exact, as the order of a function
            if off is not None:
                raise
            adds, linear = False, None
        if linear is None:
            continue
        constant = isinstance(linear, Scale) and (
            type(linear.weight) in NUMBERS or isinstance(linear.weight, Constant)
        )
        adds = adds and constant
        if off is None:
            # An exact addend still has its size in the sum's rounding.
            if not constant:
                continue
            off = np.abs(argument)
        part = linear.absolute().mv(off)
        total = part if total is None else total + part
    if total is None:
        return np.abs(node)
    # A sum's rounding is in that of its addends, and a product's in that of its factors.
    alone = len(node.arguments) == 1 and not adds and node.primitive.elementwise
    return total + np.abs(node) if alone else total
