"""Sums that a loop carries, added up in place, and products in them many steps at a time.

What flows back to a matrix W that all steps have in common is Σₜ dₜ zₜᵀ: a matrix as large as W for
each step, of few rows and columns' worth of numbers. Those of many steps side by side are one
product, [d₁ … d_k][z₁ … z_k]ᵀ, which writes to the sum once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import ancestors
from lagrad.loops.chain import Chain
from lagrad.primitives.contraction import product as contraction
from lagrad.primitives.elementwise import add
from lagrad.systems.constraint import definitions
from lagrad.typing import Array, Shape

# Sums from this size on; smaller ones cost less than their bookkeeping.
LARGE = 4096
# Products of so many columns are as quick as those of more.
COLUMNS = 1024


@dataclass(frozen=True, slots=True)
class Product:
    """A sum of products A Bᵀ of matrices, once axes are moved and put together.

    Attributes
    ----------
    factors : tuple of Expression
    axes : tuple of tuple of int
        For each factor: its own axes first, then those that are summed over.
    shapes : tuple of (int, int)
        Of A and B.
    """

    factors: tuple[Expression, Expression]
    axes: tuple[Shape, Shape]
    shapes: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, node: Expression) -> Product | None:
        """A contraction as one; None of what is none, or is large in what it sums over."""
        if node.primitive is not contraction:
            return None
        inputs, out = node.parameters[0].split("->")
        first, second = inputs.split(",")
        pairs = [(first, node.arguments[0]), (second, node.arguments[1])]
        if out and out[0] in second:
            pairs.reverse()
        summed = [c for c in first if c not in out]
        own = [[c for c in labels if c in out] for labels, _ in pairs]
        if sorted(summed) != sorted(c for c in second if c not in out):
            return None
        kept = [[c for c in out if c in labels] for labels in own]
        if [*kept[0], *kept[1]] != list(out) or any(
            len(set(labels)) < len(labels) for labels, _ in pairs
        ):
            return None
        axes = tuple(
            tuple(labels.index(c) for c in (*kept[i], *summed))
            for i, (labels, _) in enumerate(pairs)
        )
        shapes = []
        for i, (_, factor) in enumerate(pairs):
            sizes = [factor.shape[axis] for axis in axes[i]]
            shapes.append((math.prod(sizes[: len(kept[i])]), math.prod(sizes[len(kept[i]) :])))
        if not shapes[0][1] or 2 * shapes[0][1] > columns(shapes[0][0], shapes[1][0]):
            return None
        return cls((pairs[0][1], pairs[1][1]), (axes[0], axes[1]), (shapes[0], shapes[1]))


def columns(rows: int, others: int) -> int:
    """How many columns are put side by side: no more numbers than the sum has."""
    return min(COLUMNS, rows * others // (rows + others))


@dataclass(frozen=True, slots=True)
class Sum:
    """A state that each step adds to, and uses for nothing else."""

    place: int
    terms: tuple[Expression, ...]
    products: tuple[Product, ...]

    @property
    def nodes(self) -> list[Expression]:
        """What a step is asked for: terms, then the factors of products."""
        return [*self.terms, *(factor for product in self.products for factor in product.factors)]


class Steps:
    """A chain's step, its large sums apart.

    Attributes
    ----------
    states : tuple of int
        The places of the other states.
    evaluate : callable
        The other states after the step, the outputs, and what is added to sums.
    """

    def __init__(self, chain: Chain, sums: Sequence[Sum]) -> None:
        variables, apart = chain.step.variables, {s.place for s in sums}
        self.sums = tuple(sums)
        self.states = tuple(k for k in range(len(chain.states)) if k not in apart)
        self.evaluate: Callable[[Sequence[Array]], list[Array]] = chain.evaluation
        if sums:
            given = [*(chain.states[k] for k in self.states), *chain.inputs, *chain.constants]
            asked: list[Expression] = [variables[chain.after[k]] for k in self.states]
            asked += [variables[name] for name in chain.outputs]
            asked += [node for s in sums for node in s.nodes]
            defined = definitions(chain.step)
            self.evaluate = Plan([variables[name] for name in given], asked, defined)


class Run:
    """One run of a chain, its state as it stands; sums are states too where it is `whole`."""

    def __init__(self, chain: Chain, state: Sequence[Array], whole: bool = False) -> None:
        self.steps = Steps(chain, ()) if whole else steps_of(chain)
        self.outputs = len(chain.outputs)
        self.state = [state[k] for k in self.steps.states]
        self.totals = [np.array(state[s.place]) for s in self.steps.sums]
        self.held = [
            [Held(product, total) for product in s.products]
            for s, total in zip(self.steps.sums, self.totals, strict=True)
        ]

    def step(self, given: Sequence[Array]) -> list[Array]:
        """Take a step with its inputs and constants; its outputs."""
        found = self.steps.evaluate([*self.state, *given])
        m = len(self.state)
        self.state = found[:m]
        if not self.totals:
            return found[m:]
        rest = iter(found[m + self.outputs :])
        for s, total, held in zip(self.steps.sums, self.totals, self.held, strict=True):
            for _ in s.terms:
                total += next(rest)
            for product in held:
                product.put(next(rest), next(rest))
        return found[m : m + self.outputs]

    def end(self) -> list[Array]:
        """All states."""
        if not self.totals:
            return self.state
        state = dict(zip(self.steps.states, self.state, strict=True))
        for s, total, held in zip(self.steps.sums, self.totals, self.held, strict=True):
            for product in held:
                product.add()
            state[s.place] = total
        return [state[k] for k in range(len(state))]


class Held:
    """Factors side by side, and the sum that their product is added to."""

    def __init__(self, product: Product, total: Array) -> None:
        self.product, self.total = product, total
        (rows, self.width), (others, _) = product.shapes
        room = columns(rows, others) // self.width * self.width
        self.sides = (np.empty((rows, room)), np.empty((others, room)))
        self.filled = 0

    def put(self, *factors: Array) -> None:
        end = self.filled + self.width
        for side, factor, axes in zip(self.sides, factors, self.product.axes, strict=True):
            piece = factor.transpose(axes).reshape(side.shape[0], self.width)
            side[:, self.filled : end] = piece
        self.filled = end
        if end == self.sides[0].shape[1]:
            self.add()

    def add(self) -> None:
        a, b = (side[:, : self.filled] for side in self.sides)
        self.total += (a @ b.T).reshape(self.total.shape)
        self.filled = 0


def steps_of(chain: Chain) -> Steps:
    """A chain's step with its large sums apart, found once."""
    key = ("steps", chain.given, chain.after, chain.outputs, chain.starts)
    derived = chain.step.compiled().derived
    if key not in derived:
        derived[key] = Steps(chain, () if chain.evaluation.plan is None else sums_of(chain))
    found = derived[key]
    assert isinstance(found, Steps)
    return found


def sums_of(chain: Chain) -> list[Sum]:
    """The large states that a step only adds to."""
    variables, defined = chain.step.variables, definitions(chain.step)

    def resolved(node: Expression) -> Expression:
        while node.index in defined:
            node = defined[node.index]
        return node

    found: dict[int, Sum] = {}
    for k, (name, after) in enumerate(zip(chain.states, chain.after, strict=True)):
        if variables[name].size < LARGE or variables[name].dtype != float:
            continue
        addends, stack = [], [resolved(variables[after])]
        while stack:
            node = stack.pop()
            if node.primitive is add:
                stack.extend(map(resolved, node.arguments))
            else:
                addends.append(node)
        rest = [node for node in addends if node is not variables[name]]
        if len(rest) != len(addends) - 1 or any(n.shape != variables[name].shape for n in rest):
            continue
        products = [Product.of(node) for node in rest]
        found[k] = Sum(
            k,
            tuple(n for n, p in zip(rest, products, strict=True) if p is None),
            tuple(p for p in products if p is not None),
        )
    # What is used for something else as well is a state like any other.
    asked: list[Expression] = [variables[a] for k, a in enumerate(chain.after) if k not in found]
    asked += [variables[name] for name in chain.outputs]
    asked += [node for s in found.values() for node in s.nodes]
    used = {node.index for node in ancestors(asked, lambda node: False, defined)}
    return [s for s in found.values() if variables[chain.states[s.place]].index not in used]
