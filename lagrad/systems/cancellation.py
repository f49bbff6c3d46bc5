"""Differences of nearly equal numbers, of which rounding is all, or much, of what is left.

That alone does no harm: where a gradient vanishes, differences do. It does where a derivative
changes by far more when operations are rounded otherwise than when the numbers that were given
move by their last bits: then no input nearby has the derivative that was found. In the terms of
Higham, Accuracy and Stability of Numerical Algorithms, 2002, §1.5 to §1.7: the backward error is
large, and the problem's condition has nothing to do with it.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, moves
from lagrad.typing import Array

# What is left of a difference, relative to its terms, from which a derivative may be spoilt: of
# n random differences the smallest is about 1/n, and says nothing.
LEFT = 1e-2
# Entries and operations beyond which nobody looks.
ENTRIES, OPERATIONS = 1_000_000, 2_000
# Products of numbers within one contraction, beyond which it is not looked at.
PRODUCTS = 20_000_000
Remains = Callable[..., Array]
# What is left of two terms, or where a function of one number is zero, over what it is left of.
OF_TWO: dict[str, Remains] = {
    "add": lambda a, b: np.abs(a + b) / np.maximum(np.abs(a), np.abs(b)),
    "subtract": lambda a, b: np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)),
}
OF_ONE: dict[str, Remains] = {
    **dict.fromkeys(("log", "log2", "log10"), lambda a: np.abs(np.log(np.abs(a)))),
    **dict.fromkeys(("arccos", "arcsin", "arctanh", "arccosh"), lambda a: np.abs(1 - np.abs(a))),
}
# Sums of entries, or of products of entries of two arrays.
OF_MANY = frozenset(("sum", "cumsum", "contract", "sparse_product", "convolve", "scatter"))


class Differences:
    """The operations within definitions that may cancel, of arguments that are rounded.

    Of two numbers as they were given, or moved, the difference is as good as these are.

    Attributes
    ----------
    nodes : list of pairs
        Each operation, and what tells how much is left of its arguments.
    inputs, arguments : lists of nodes
        The variables that these are made of, and the operations' arguments in a row.
    spoilt : a set of int, and a dict
        The nodes, by index, of which another rounding shows what is spoilt, and those of which
        another one of their arguments does, with which of these are rounded. A difference's
        partials are one whatever its terms are; what else becomes of these is rounded for itself,
        in (x/r - 1)/(r - x) with r = sqrt(x² + 1), say.
    """

    def __init__(self, roots: Iterable[Expression], defined: dict[int, Expression]) -> None:
        def leaf(node: Expression) -> bool:
            return isinstance(node, Variable) and node.index not in defined

        nodes = ancestors(roots, leaf, defined)
        exact: dict[int, bool] = {}
        found = []
        for node in nodes:
            if node.index in defined and not leaf(node):
                if (source := defined[node.index].index) in exact:
                    exact[node.index] = exact[source]
            elif node.primitive is None:
                exact[node.index] = leaf(node) or isinstance(node, Constant)
            elif whole(node) or not all(a.index in exact for a in node.arguments):
                continue  # it would be run once more
            else:
                known = all(exact[a.index] for a in node.arguments)
                exact[node.index] = known and chosen(node)
                left = None if known or not node.size else remains(node)
                if left is not None:
                    found.append((node, left))
        few = len(nodes) <= OPERATIONS and sum(node.size for node in nodes) <= ENTRIES
        self.nodes = found if few else []
        self.least = LEFT / max(1, sum(node.size for node, _ in self.nodes))
        self.inputs = [n for n in nodes if isinstance(n, Variable) and leaf(n)]
        self.arguments = [a for node, _ in self.nodes for a in node.arguments]
        self._groups = self._grouped()
        single = [n.arguments[0] for n, _ in self.nodes if name_of(n) in OF_ONE]
        others = [n for n, _ in self.nodes if name_of(n) not in OF_ONE]
        rounded = {n.index: tuple(not exact[a.index] for a in n.arguments) for n in others}
        self.spoilt = {right(a, defined).index for a in single}, rounded

    def first(self, arguments: Sequence[Array]) -> Expression | None:
        """The first difference of which little is left, by the values of the arguments of all."""
        with np.errstate(all="ignore"):
            for nodes, remains, terms in self._groups:
                given = [[arguments[k] for k in places] for places in terms]
                alone = len(nodes) == 1
                left = remains(*(g[0] if alone else np.array(g) for g in given)) < self.least
                if left.any():
                    return nodes[0] if alone else nodes[int(np.argmax(left))]
        return None

    def _grouped(self) -> list[tuple[list[Expression], Remains, list[list[int]]]]:
        """Operations that are looked at together: scalars of one kind, else each alone."""
        found: dict[Any, tuple[list[Expression], Remains, list[list[int]]]] = {}
        place = 0
        for node, remains in self.nodes:
            assert node.primitive is not None
            count = len(node.arguments)
            scalar = all(a.shape == () for a in node.arguments)
            key = node.primitive.name if scalar else node.index
            nodes, _, terms = found.setdefault(key, ([], remains, [[] for _ in range(count)]))
            nodes.append(node)
            for k in range(count):
                terms[k].append(place + k)
            place += count
        return list(found.values())


def name_of(node: Expression) -> str:
    return "" if node.primitive is None else node.primitive.name


def remains(node: Expression) -> Remains | None:
    """What tells how much an operation leaves of its arguments; None of one that cancels nothing.

    Of many terms that is compared with their root sum of squares: the sum of as many random
    numbers is of that size, however many they are.
    """
    name = name_of(node)
    if node.dtype.kind != "f" or name not in OF_MANY:
        return None if node.dtype.kind != "f" else OF_TWO.get(name) or OF_ONE.get(name)
    assert node.primitive is not None
    sum_of = squares_of = node.primitive.kernel(node.parameters)
    if name == "sparse_product":
        squares_of = node.primitive.kernel((node.parameters[0].squared(),))
    if name == "contract" and products(node) > PRODUCTS:
        return None

    def left(*given: Array) -> Array:
        of = np.sqrt(squares_of(*(np.square(a, dtype=float) for a in given)))
        found: Array = np.abs(sum_of(*given)) / of
        return found

    return left


def products(node: Expression) -> int:
    """How many products of numbers a contraction adds up."""
    labels = node.parameters[0].partition("->")[0].split(",")
    shapes = (zip(s, a.shape, strict=True) for s, a in zip(labels, node.arguments, strict=True))
    return math.prod(dict(itertools.chain(*shapes)).values())


def right(node: Expression, defined: dict[int, Expression]) -> Expression:
    """What computes a node, where it is a defined variable."""
    while node.index in defined:
        node = defined[node.index]
    return node


def whole(node: Expression) -> bool:
    """Whether a node is a loop, or a function of the user's."""
    primitive = node.primitive
    return primitive is not None and (primitive.joint is not None or bool(primitive.rules))


def chosen(node: Expression) -> bool:
    """Whether a node's entries are those of its arguments, but for signs and places."""
    primitive = node.primitive
    assert primitive is not None
    if primitive.elementwise:
        return primitive.kink or primitive.name == "negative"
    return moves(node)


def differences(roots: Iterable[Expression], defined: dict[int, Expression]) -> Differences | None:
    """The differences that may cancel, if there are any that somebody looks at."""
    found = Differences(roots, defined)
    return found if found.nodes else None
