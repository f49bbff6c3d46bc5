"""Kinks: the derivative there is the mean of the derivatives on all sides.

It is the mean of the whole derivative: that of |x|·sign x, which is sign² x, is one on both sides
of zero, and so it is one there. A *selector* is a node whose value jumps: a sign, the share of an
extreme or of a branch. Where one is tied, a derivative of more than the first degree in selectors
is evaluated with all of them as they fall on one side, then as they fall on the other. They fall as
they do at a point nearby, so that what belongs together falls together; the derivative itself is
taken where it was asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, selects
from lagrad.expressions.linear_maps import Joint
from lagrad.systems.linearization import Tape
from lagrad.typing import Array

# The values of selectors on one side, by their nodes' indices.
Side = dict[int, Array]
# Of sides in pairs: after so many that agree no further ones are asked, nor more than at most.
AGREED, AT_MOST = 8, 1024
# A change that is rounding.
ROUNDING = 1e-11


class Kinks:
    """The selectors on the way from some nodes to others.

    Parameters
    ----------
    inputs, outputs : sequences of nodes
    defined : dict
        The right side of each defined variable on the way.
    still : str
        The role of variables that stay where they are.

    Attributes
    ----------
    selectors : list of nodes
        Those that depend on more than data.
    ties : list of nodes
        For each, where it is tied.
    """

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression],
        still: str = "data",
    ) -> None:
        self.still = still
        self.inputs, self.outputs, self.defined = list(inputs), list(outputs), defined
        self.given = {node.index for node in inputs}
        self.order = ancestors(outputs, lambda node: node.index in self.given, defined)
        self.selectors = list(self._selectors())
        self.ties: list[Expression] = []
        if self.selectors:
            with self.selectors[0].graph.reopened():
                self.ties = [n.primitive.ties(n) for n in self.selectors]  # type: ignore[union-attr, misc]

    def _selectors(self) -> Iterator[Expression]:
        if not selects(self.order):
            return
        moving: set[int] = set()
        for node in self.order:
            right = self.defined.get(node.index)
            if node.index in self.given or (isinstance(node, Variable) and right is None):
                moves = not (isinstance(node, Variable) and node.role == self.still)
            else:
                below = node.arguments if right is None else (right,)
                moves = any(a.index in moving for a in below)
            if moves:
                moving.add(node.index)
            jumps = node.primitive is not None and node.primitive.ties is not None
            if jumps and moves and node.dtype.kind == "f" and node.index not in self.given:
                yield node

    @cached_property
    def degrees(self) -> dict[int, int]:
        """Of which degree each node is in selectors: none, one, or more.

        The share of a branch counts as more, since at the border it is no mean of both sides.
        """
        found: dict[int, int] = {}
        if not self.selectors:
            return found
        own = {n.index: 1 for n in self.selectors}
        own |= {n.index: 2 for n in self.selectors if any(a.dtype.kind == "b" for a in n.arguments)}
        with self.selectors[0].graph.reopened():
            for node in self.order:
                if node.index in own:
                    found[node.index] = own[node.index]
                elif node.index in self.defined and node.index not in self.given:
                    found[node.index] = found.get(self.defined[node.index].index, 0)
                elif any(found.get(a.index) for a in node.arguments):
                    found[node.index] = self._degree(node, found)
        return found

    def _degree(self, node: Expression, found: dict[int, int]) -> int:
        """The largest degree of an argument and of the partial by it, together."""
        assert node.primitive is not None
        if node.dtype.kind != "f":
            return 2
        most = 0
        for k, argument in enumerate(node.arguments):
            if not (degree := found.get(argument.index, 0)):
                continue
            linear = None if node.primitive.joint else node.primitive.partial(node, k)
            # A truth that chooses has no partial.
            if linear is None:
                return 2
            data = (self._within(value, node, found) for value in linear.data)
            most = max(most, degree + max(data, default=0))
        return min(most, 2)

    def _within(self, value: Any, node: Expression, found: dict[int, int]) -> int:
        """The degree of what the partial of a node is made of; at least that, where it is new."""
        if not isinstance(value, Expression) or isinstance(value, Constant):
            return 0
        if value is node:
            return 2

        def seen(n: Expression) -> bool:
            return n.index < node.index and n.index in self._indices

        if seen(value):
            return found.get(value.index, 0)
        return 2 if any(found.get(n.index) for n in ancestors([value], seen, self.defined)) else 0

    @cached_property
    def _indices(self) -> set[int]:
        return {node.index for node in self.order}

    def degree(self, nodes: Iterable[Expression]) -> int:
        """The largest degree of some of its nodes."""
        return max((self.degrees.get(node.index, 0) for node in nodes), default=0)

    def bend(self, tape: Tape) -> bool:
        """Whether derivatives along a tape are of more than the first degree in selectors."""
        if not self.selectors:
            return False
        degrees = [0] * len(tape.shapes)
        for step in tape.steps:
            data = () if step.map is None or isinstance(step.map, Joint) else step.map.data
            degree = self.degree(v for v in data if isinstance(v, Expression))
            degrees[step.target] = max(degrees[step.target], degrees[step.source] + degree)
        return max(degrees, default=0) > 1

    @cached_property
    def _plans(self) -> tuple[Plan, Plan]:
        """Selectors and their ties from the inputs, and the outputs from both."""
        return (
            Plan(self.inputs, [*self.selectors, *self.ties], self.defined),
            Plan([*self.inputs, *self.selectors], self.outputs, self.defined),
        )

    def evaluate(
        self, values: Sequence[Array], side: Side, origin: Sequence[Array] | None = None
    ) -> list[Array]:
        """The outputs, with the selectors of a side where they are tied, or were at the origin."""
        count = len(self.selectors)
        found = self._plans[0](values)
        ties = found[count:] if origin is None else self._plans[0](origin)[count:]
        chosen = [
            np.where(tie, side.get(n.index, here), here)
            for n, here, tie in zip(self.selectors, found[:count], ties, strict=True)
        ]
        return self._plans[1]([*values, *chosen])

    def side(self, *points: Sequence[Array]) -> Side:
        """The selectors at the first of some points; where one is tied there, at the next.

        Shares of an extreme are of all its entries together: those that are tied there, as some
        are that are equal everywhere, are chosen among at the next point if one of them is the
        extreme there too, and elsewhere have equal shares.
        """
        count, side, undecided = len(self.selectors), Side(), dict[int, Array]()
        for values in points:
            found = self._plans[0](values)
            for n, here, tie in zip(self.selectors, found[:count], found[count:], strict=True):
                still = np.logical_or(tie, np.isnan(here))
                if (open_ := undecided.get(n.index)) is not None:
                    old = side[n.index]
                    here, still = np.where(open_, here, old), still & open_
                    if is_share(n) and not np.isclose(np.sum(here), np.sum(old)):
                        here = old
                side[n.index], undecided[n.index] = here, still
        return side

    def between(self, up: Side, down: Side, here: Side | None = None) -> Side:
        """The mean of two sides.

        Of the shares in extremes it is those at the kink itself, if given, which are equal: two
        sides do not know all orders.
        """
        found = Side()
        for n in self.selectors:
            if here is not None and is_share(n):
                found[n.index] = here[n.index]
            else:
                found[n.index] = (up[n.index] + down[n.index]) / 2
        return found

    def mean(
        self,
        plain: Sequence[Array],
        here: Side,
        pairs: Iterable[tuple[Side, Side]],
        evaluate: Callable[[Side], Sequence[Array] | None],
    ) -> tuple[list[Array], float]:
        """The mean of some arrays over sides in pairs, and how much of themselves they jump by."""

        def between(up: Side, down: Side, fair: bool = False) -> Side:
            return self.between(up, down, here if fair else None)

        return mean(plain, pairs, evaluate, between)


def is_share(node: Expression) -> bool:
    """Whether a selector tells which of the entries of an array are its extreme."""
    return node.primitive is not None and not node.primitive.elementwise


def mean(
    plain: Sequence[Array],
    pairs: Iterable[tuple[Any, Any]],
    evaluate: Callable[[Any], Sequence[Array] | None],
    between: Callable[..., Any] | None = None,
) -> tuple[list[Array], float]:
    """The mean of some arrays over sides in pairs, and how much of themselves they jump by.

    An entry that is not finite on one side of each pair is what it is without sides. Where the
    first pairs show a straight line `between` the sides, the mean is at the mean of selectors.
    """
    sums = [np.zeros(np.shape(a)) for a in plain]
    counts = [np.zeros(np.shape(a)) for a in plain]
    first: list[Array] = []
    jump, same, straight = 0.0, True, between is not None
    middle: Any = None
    for k, (up, down) in enumerate(pairs):
        a, b = evaluate(up), evaluate(down)
        if a is None or b is None:
            continue
        half = [(np.asarray(x, float) + y) / 2 for x, y in zip(a, b, strict=True)]
        jump = max(jump, change(a, b))
        for total, count, value in zip(sums, counts, half, strict=True):
            finite = np.isfinite(value)
            total += np.where(finite, value, 0.0)
            count += finite
        first = first or half
        same = same and change(first, half) < ROUNDING
        if k < 2 and straight and between is not None:
            centre = evaluate(between(up, down))
            straight = centre is not None and change(centre, half) < ROUNDING
            middle = middle or between(up, down, True)
        elif straight or (same and k + 1 >= AGREED):
            break
    if straight and middle is not None and (at := evaluate(middle)) is not None:
        return like(plain, at), jump
    some = zip(plain, sums, counts, strict=True)
    return like(plain, [np.where(c > 0, t / np.maximum(c, 1), a) for a, t, c in some]), jump


def like(plain: Sequence[Array], found: Sequence[Array]) -> list[Array]:
    """Arrays in the dtypes of others."""
    return [np.asarray(b, np.asarray(a).dtype) for a, b in zip(plain, found, strict=True)]


def change(a: Sequence[Array], b: Sequence[Array]) -> float:
    """The largest difference between arrays, each against its own largest entry."""
    most = 0.0
    for x, y in zip(a, b, strict=True):
        gap = np.abs(np.asarray(x, float) - y)
        gap = gap[np.isfinite(gap)]
        if top := float(np.max(gap, initial=0.0)):
            sizes = [np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in map(np.asarray, (x, y))]
            most = max(most, top / max(*map(float, sizes)))
    return most


def directions(count: int) -> Iterator[Array]:
    """Directions on which so many numbers are moved, there and back.

    The signs are rows of a Hadamard matrix, so that any two numbers move alike as often as not;
    the lengths differ, so that of equal numbers another one comes first in turn.
    """
    numbers, generator = np.arange(count), np.random.default_rng(0)
    lengths = 1.0 + (numbers * 0.6180339887498949) % 1.0
    order = 1 << max(count - 1, 0).bit_length()
    if count <= 4:
        rows = [(row, shift) for shift in range(count) for row in range(order)]
    elif order <= AT_MOST:
        rows = [(int(row), k) for k, row in enumerate(generator.permutation(order))]
    else:
        for k in range(AT_MOST):
            yield generator.choice([-1.0, 1.0], count) * np.roll(lengths, k)
        return
    for row, shift in rows:
        signs = 1.0 - 2.0 * (np.bitwise_count(numbers & row) % 2)
        yield signs * np.roll(lengths, shift)


def moved(arrays: Sequence[Array], direction: Array, share: float = 1.0) -> list[Array]:
    """Arrays moved along a direction: by so small a share that no kink but their own is passed.

    Whole numbers and truths stay as they are.
    """
    found, start = [], 0
    for array in arrays:
        if array.dtype.kind != "f":
            found.append(array)
            start += array.size
            continue
        size = np.abs(array)
        size = np.where(size > 0, size, size.max(initial=0.0) or 1.0)
        step = np.reshape(direction[start : start + array.size], array.shape)
        epsilon = np.sqrt(np.finfo(array.dtype).eps) * share
        found.append((array + epsilon * size * step).astype(array.dtype))
        start += array.size
    return found
