"""Sums and differences of which little is left, and of that rounding is all, or much.

That alone does no harm: where a gradient vanishes, differences do. It does where a derivative
changes by far more when operations are rounded otherwise than when the numbers that were given
move by their last bits: then no input nearby has the derivative that was found. In the terms of
Higham, Accuracy and Stability of Numerical Algorithms, 2002, §1.5 to §1.7: the backward error is
large, and the problem's condition has nothing to do with it.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, moves
from lagrad.systems.rewriting import Instead
from lagrad.systems.signs import of_one_sign, signs
from lagrad.typing import Array

# What is left of a sum, relative to its terms, from which a derivative may be spoilt: of n random
# differences the smallest is about 1/n, and says nothing.
LEFT = 1e-2
# What is left of many at once is no chance: of n random differences a share of 1e-4 is less.
ROUGH, OFTEN = 1e-4, 1e-2
# Entries and operations beyond which nobody looks.
ENTRIES, OPERATIONS = 20_000_000, 2_000
# Entries of arrays that are looked at as a whole first.
LARGE = 4096
# Products of numbers within one contraction, beyond which it is not looked at.
PRODUCTS = 20_000_000
# How little is left of one where a function of one number is zero.
OF_ONE: dict[str, Callable[[Array], Array]] = {
    **dict.fromkeys(("log", "log2", "log10"), lambda a: np.abs(np.log(np.abs(a)))),
    **dict.fromkeys(("arccos", "arcsin", "arctanh", "arccosh"), lambda a: np.abs(1 - np.abs(a))),
}
# What adds two terms up, and what entries, or products of entries of two arrays.
OF_TWO = frozenset(("add", "subtract"))
OF_MANY = frozenset(("sum", "cumsum", "contract", "sparse_product", "convolve", "scatter"))
ADDING = frozenset(OF_ONE) | OF_TWO | OF_MANY
# Of the values of terms, how large what they add up to may be.
Size: TypeAlias = Callable[..., Array]


@dataclass(frozen=True)
class Sum:
    """An operation that adds up, with all its terms, however many additions stand between."""

    node: Expression
    terms: tuple[Expression, ...]
    size: Size
    zeros: bool = False  # whether it is exact where it is zero

    def of_numbers(self) -> bool:
        return self.size is largest_of and all(term.shape == () for term in self.terms)


class Differences:
    """The operations within definitions that may cancel, of arguments that are rounded.

    Of two numbers as they were given, or moved, the difference is as good as these are.

    Parameters
    ----------
    roots : sequence of nodes
    defined : dict
    within : set of int, optional
        The only nodes that are looked at, by index.

    Attributes
    ----------
    inputs, arguments : lists of nodes
        The variables that these are made of, and what is to be known of them, in a row.
    spoilt : a set of int, and a dict
        The nodes, by index, of which another rounding shows what is spoilt, and those of which
        another one of their arguments does, with which of these are rounded. A difference's
        partials are one whatever its terms are; what else becomes of these is rounded for itself,
        in (x/r - 1)/(r - x) with r = sqrt(x² + 1), say.
    """

    def __init__(
        self,
        roots: Sequence[Expression],
        defined: dict[int, Expression],
        within: Set[int] | None = None,
    ) -> None:
        def leaf(node: Expression) -> bool:
            return isinstance(node, Variable) and node.index not in defined

        nodes = ancestors(roots, leaf, defined)
        if len(nodes) > OPERATIONS or sum(node.size for node in nodes) > ENTRIES:
            nodes = []
        exact: dict[int, bool] = {}
        found, uses = [], Counter(right(root, defined).index for root in roots)
        for node in nodes:
            uses.update(right(a, defined).index for a in node.arguments)
            if node.index in defined and not leaf(node):
                if (source := defined[node.index].index) in exact:
                    exact[node.index] = exact[source]
            elif node.primitive is None:
                exact[node.index] = leaf(node) or isinstance(node, Constant)
            elif whole(node):
                exact[node.index] = False  # what a loop has rounded nobody knows here
            else:
                # Of a choice those that it is made among; what chooses has no digits to lose.
                known = all(exact[a.index] for a in node.arguments if a.dtype.kind == "f")
                exact[node.index] = known and chosen(node)
                matters = within is None or node.index in within
                if node.size and not known and node.dtype.kind == "f" and matters:
                    found.append(node)
        sign = signs(nodes, defined)
        found = [n for n in found if not of_one_sign(n, sign)]
        sums = [n for n in found if name_of(n) in OF_TWO]
        within = {n.index for n in sums if uses[n.index] == 1}
        inner = {right(a, defined).index for n in sums for a in n.arguments} & within
        many = [n for n in found if name_of(n) in OF_MANY and products(n) <= PRODUCTS]
        self.functions = [n for n in found if name_of(n) in OF_ONE]
        outer = [n for n in sums if n.index not in inner]
        self.sums = [Sum(n, n.arguments, size_of(n)) for n in many]
        self.sums += [
            Sum(n, terms_of(n, within, defined), largest_of, from_extreme(n, defined))
            for n in outer
        ]
        # Sums of numbers are looked at together.
        self.sums.sort(key=Sum.of_numbers)
        self.together = [found for found in self.sums if found.of_numbers()]
        counts = [1 + len(found.terms) for found in self.together]
        self.starts = np.cumsum([0, *counts])[:-1]
        self.inputs = [n for n in nodes if isinstance(n, Variable) and leaf(n)]
        self.arguments = [n.arguments[0] for n in self.functions]
        self.arguments += [a for found in self.sums for a in (found.node, *found.terms)]
        entries = sum(n.size for n in self.functions) + sum(f.node.size for f in self.sums)
        self.least = LEFT / max(1, entries)
        rounded = {n.index: tuple(not exact[a.index] for a in n.arguments) for n in (*sums, *many)}
        self.spoilt = {right(n.arguments[0], defined).index for n in self.functions}, rounded

    def rounded(self, otherwise: Callable[[Array], Array]) -> Callable[[Any], Instead]:
        """What stands for these operations in a copy, their terms `otherwise` than they are."""
        functions, sums = self.spoilt

        def factor(node: Expression) -> Array:
            return otherwise(np.ones(node.shape, node.dtype))

        def instead(copy: Any) -> Instead:
            def hook(old: Expression, node: dict[int, Expression]) -> Expression | None:
                flags = sums.get(old.index)
                if old.primitive is None or (flags is None and old.index not in functions):
                    return None
                arguments = tuple(
                    node[a.index] * factor(a) if flag else node[a.index]
                    for a, flag in zip(old.arguments, flags or (), strict=False)
                )
                arguments = arguments or tuple(node[a.index] for a in old.arguments)
                found: Expression = copy.arena.apply(old.primitive, arguments, old.parameters)
                return found * factor(old) if old.index in functions else found

            return hook

        return instead

    def first(
        self, arguments: Sequence[Array], share: float | None = None
    ) -> tuple[Expression | None, float]:
        """The first operation of which little is left, and the largest that one was left of.

        Parameters
        ----------
        arguments : sequence of ndarray
            The values of `arguments`.
        share : float, optional
            What of the terms is little.
        """
        first, top, place = None, 1.0, len(self.functions)
        least = self.least if share is None else share
        with np.errstate(all="ignore"):
            for node, value in zip(self.functions, arguments, strict=False):
                left = OF_ONE[name_of(node)](value)
                if first is None and little(left, 1.0, least):
                    first = node
            for found in self.sums[: len(self.sums) - len(self.together)]:
                end = place + 1 + len(found.terms)
                value, terms = arguments[place], arguments[place + 1 : end]
                place = end
                if found.size is largest_of and stands_out(value, terms, max(least, ROUGH)):
                    continue
                size, left = found.size(*terms), np.abs(value)
                if little(np.where(left == 0, size, left) if found.zeros else left, size, least):
                    first = found.node if first is None else first
                    top = max(top, float(np.max(size)))
            if self.together:
                sizes = np.abs(np.array(arguments[place:], dtype=float))
                sums, sizes[self.starts] = sizes[self.starts], 0.0
                largest = np.maximum.reduceat(sizes, self.starts)
                small = np.flatnonzero(sums < least * largest)
                if small.size:
                    first = self.together[small[0]].node if first is None else first
                    top = max(top, float(largest[small].max()))
        return first, top


def little(left: Any, size: Any, least: float) -> bool:
    """Whether less than a share is left of one sum, or a little more of many."""
    small = left < least * size
    if small if small.shape == () else small.any():
        return True
    many = OFTEN * left.size
    return many > 1 and least < ROUGH and np.count_nonzero(left < ROUGH * size) > many


def margin(found: Differences) -> list[Any]:
    """Numbers that are positive where `found.first` has nothing to say, as expressions.

    What is asked is a truth for each entry; those of one shape are asked together.
    """
    fine: dict[Any, list[Any]] = {}
    rough: dict[Any, list[Any]] = {}

    def enough(left: Any, size: Any) -> None:
        # What is left, in shares of what is little: the same for all terms.
        fine.setdefault(left.shape, []).append(np.greater_equal(left * (1 / found.least), size))
        if found.least < ROUGH and OFTEN * left.size > 1:
            rough.setdefault(left.shape, []).append(np.greater_equal(left * (1 / ROUGH), size))

    for node in found.functions:
        (a,) = node.arguments
        enough(np.abs(1 - np.abs(a)), 1.02)  # |log a| is less where a is nearly that close to one
    for total in found.sums:
        left = np.abs(total.node)
        if total.size is largest_of:
            for term in total.terms:
                size = np.abs(term)
                some = np.where(np.equal(left, 0.0), size, left) if total.zeros else left
                enough(some, size)
        else:
            enough(left, squares_of(total))
    limits = []
    for shape, truths in fine.items():
        limits.append(0.5 - missed(truths))
        if shape in rough:
            limits.append(OFTEN * math.prod(shape) + 0.5 - missed(rough[shape]))
    return limits


def missed(truths: Sequence[Any]) -> Any:
    """At how many entries some of the truths are none."""
    return np.sum(np.where(functools.reduce(np.logical_and, truths), 0.0, 1.0))


def as_doubles(node: Any) -> Any:
    return np.astype(node, float)


def squares_of(total: Sum) -> Any:
    """The root sum of squares of the terms of an operation on arrays, as `size_of` has it."""
    node, parameters = total.node, total.node.parameters
    assert node.primitive is not None
    if name_of(node) == "sum" and node.dtype == np.float32:
        # No less than that, Σa² ≤ max |a|·Σ|a|, and within the range of single precision.
        (axes,), size = parameters, np.abs(node.arguments[0])
        return np.sqrt(np.max(size, axis=axes)) * np.sqrt(np.sum(size, axis=axes))
    squares = tuple(np.square(as_doubles(a)) for a in node.arguments)
    if name_of(node) == "sparse_product":
        parameters = (parameters[0].squared(),)
    return np.sqrt(node.graph.apply(node.primitive, squares, parameters))


def stands_out(value: Array, terms: Sequence[Array], share: float) -> bool:
    """Whether a large array's entries are all more than a share of any of their terms.

    It is seen without arrays in between.
    """
    if value.size < LARGE:
        return False
    low, high = float(value.min()), float(value.max())
    least = low if low > 0 else -high if high < 0 else float(np.abs(value).min())
    return all(least > share * max(float(np.max(t)), -float(np.min(t))) for t in terms)


def name_of(node: Expression) -> str:
    return "" if node.primitive is None else node.primitive.name


def terms_of(
    node: Expression, within: set[int], defined: dict[int, Expression]
) -> tuple[Expression, ...]:
    """All that is added up in sums of sums, of which nothing else is made."""
    found: list[Expression] = []
    waiting = [node]
    while waiting:
        for argument in waiting.pop().arguments:
            term = right(argument, defined)
            (waiting if term.index in within else found).append(term)
    return tuple(found)


def largest_of(*terms: Array) -> Array:
    """The largest of some terms, entry by entry."""
    return functools.reduce(np.maximum, map(np.abs, terms))


def size_of(node: Expression) -> Size:
    """The root sum of squares of the terms of an operation on arrays.

    A sum of random numbers is of that size, however many they are.
    """
    assert node.primitive is not None
    kernel = node.primitive.kernel(node.parameters)
    if name_of(node) == "sum" and node.shape == ():
        return norm
    if name_of(node) == "sparse_product":
        kernel = node.primitive.kernel((node.parameters[0].squared(),))

    def size(*given: Array) -> Array:
        found: Array = np.sqrt(kernel(*(np.square(a, dtype=float) for a in given)))
        return found

    return size


def norm(a: Array) -> Array:
    """The root sum of squares of all entries."""
    flat = np.ravel(a)
    return np.sqrt(flat @ flat)


def from_extreme(node: Expression, defined: dict[int, Expression]) -> bool:
    """Whether an array's own extreme is taken from it: of itself nothing is left, exactly."""
    if name_of(node) != "subtract":
        return False
    array, extreme = (right(a, defined) for a in node.arguments)
    while name_of(extreme) in ("reshape", "broadcast_to"):
        extreme = right(extreme.arguments[0], defined)
    return name_of(extreme) in ("max", "min") and right(extreme.arguments[0], defined) is array


def products(node: Expression) -> int:
    """How many products of numbers a contraction adds up; of other sums nothing."""
    if name_of(node) != "contract":
        return 0
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
        return primitive.kink or primitive.name in ("negative", "where")
    return moves(node)


def differences(
    roots: Sequence[Expression], defined: dict[int, Expression], within: Set[int] | None = None
) -> Differences | None:
    """The differences that may cancel, if there are any that somebody looks at.

    All of them, or those `within` a set of nodes, by index: a sum that partials are not made of
    has the same derivatives whatever is left of it.
    """
    if within is not None:
        nodes = ancestors(roots, lambda node: False, defined)
        if not any(node.index in within and name_of(node) in ADDING for node in nodes):
            return None
    found = Differences(roots, defined, within)
    return found if found.arguments else None
