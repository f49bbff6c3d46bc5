"""Sums that a loop carries, added up in place, and products in them many steps at a time.

What flows back to a matrix W that all steps have in common is Σₜ dₜ zₜᵀ: a matrix as large as W for
each step, of few rows and columns' worth of numbers. Those of many steps side by side are one
product, [d₁ … d_k][z₁ … z_k]ᵀ, which writes to the sum once.
"""

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
class MatrixProduct:
    """A sum of products A Bᵀ of matrices, once axes are moved and put together.

    Attributes
    ----------
    factors : tuple of Expression
    axes : tuple of tuple of int
        For each factor: its own axes first, then those that are summed over.
    rows : tuple of int
        Of A and of B.
    width : int
        How many columns both have.
    """

    factors: tuple[Expression, ...]
    axes: tuple[Shape, ...]
    rows: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, node: Expression) -> "MatrixProduct | None":
        """A contraction as one; None of what is none, or is large in what it sums over."""
        if node.primitive is not contraction:
            return None
        inputs, out = node.parameters[0].split("->")
        factors = list(zip(inputs.split(","), node.arguments, strict=True))
        summed = [c for c in dict.fromkeys(factors[0][0]) if c not in out]
        if out and out[0] in factors[1][0]:
            factors.reverse()
        own = [[c for c in out if c in labels] for labels, _ in factors]
        if [*own[0], *own[1]] != list(out):
            return None
        axes, rows, width = [], [], 0
        for kept, (labels, factor) in zip(own, factors, strict=True):
            if sorted(labels) != sorted([*kept, *summed]):
                return None
            sizes = dict(zip(labels, factor.shape, strict=True))
            axes.append(tuple(labels.index(c) for c in (*kept, *summed)))
            rows.append(math.prod(sizes[c] for c in kept))
            width = math.prod(sizes[c] for c in summed)
        if not width or 2 * width > columns(*rows):
            return None
        return cls(tuple(factor for _, factor in factors), tuple(axes), tuple(rows), width)


def columns(rows: int, others: int) -> int:
    """How many columns are put side by side: no more numbers than the sum has."""
    return min(COLUMNS, rows * others // (rows + others))


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A state that each step adds to, and uses for nothing else."""

    place: int
    terms: tuple[Expression, ...]
    products: tuple[MatrixProduct, ...]


class AccumulatingStep:
    """A chain's step, its accumulators `apart`, or states like all others.

    Attributes
    ----------
    states : list of int
        The places of the other states.
    evaluate : callable
        The other states after the step, the outputs, and what is added to accumulators.
    """

    def __init__(self, chain: Chain, apart: bool = True) -> None:
        explicit = chain.evaluation.plan is not None
        self.accumulators = accumulators_of(chain) if apart and explicit else []
        places = {a.place for a in self.accumulators}
        self.states = [k for k in range(len(chain.states)) if k not in places]
        self.evaluate: Callable[[Sequence[Array]], list[Array]] = chain.evaluation
        if self.accumulators:
            given = [*(chain.states[k] for k in self.states), *chain.inputs, *chain.constants]
            inputs = [chain.variable(name) for name in given]
            self.evaluate = Plan(inputs, asked(chain, self.accumulators), definitions(chain.step))


class RunningChain:
    """One run of a chain, its state as it stands; accumulators are states too where `whole`."""

    def __init__(self, chain: Chain, state: Sequence[Array], whole: bool = False) -> None:
        self.of = chain.step.compiled().once(AccumulatingStep, chain.once, not whole)
        self.outputs = len(chain.outputs)
        self.state = [state[k] for k in self.of.states]
        self.totals = {a.place: np.array(state[a.place]) for a in self.of.accumulators}
        pairs = [(a, self.totals[a.place]) for a in self.of.accumulators]
        self.sums = [total for a, total in pairs for _ in a.terms]
        self.buffers = [ProductBuffer(p, total) for a, total in pairs for p in a.products]

    def step(self, given: Sequence[Array]) -> list[Array]:
        """Take a step with its inputs and constants; its outputs."""
        found = self.of.evaluate([*self.state, *given])
        m = len(self.state)
        end = m + self.outputs
        self.state = found[:m]
        if self.totals:
            addends = iter(found[end:])
            for total in self.sums:
                total += next(addends)
            for buffer in self.buffers:
                buffer.put(next(addends), next(addends))
        return found[m:end]

    def end(self) -> list[Array]:
        """All states."""
        for buffer in self.buffers:
            buffer.add()
        state = {**dict(zip(self.of.states, self.state, strict=True)), **self.totals}
        return [state[k] for k in range(len(state))]


class ProductBuffer:
    """Factors side by side, and the sum that their product is added to."""

    def __init__(self, product: MatrixProduct, total: Array) -> None:
        self.product, self.total = product, total
        self.room = columns(*product.rows) // product.width * product.width
        self.sides = [np.empty((rows, self.room)) for rows in product.rows]
        self.filled = 0

    def put(self, *factors: Array) -> None:
        width = self.product.width
        end = self.filled + width
        for side, factor, axes in zip(self.sides, factors, self.product.axes, strict=True):
            side[:, self.filled : end] = factor.transpose(axes).reshape(len(side), width)
        self.filled = end
        if end == self.room:
            self.add()

    def add(self) -> None:
        a, b = (side[:, : self.filled] for side in self.sides)
        self.total += (a @ b.T).reshape(self.total.shape)
        self.filled = 0


def asked(chain: Chain, accumulators: Sequence[Accumulator]) -> list[Expression]:
    """What a step is evaluated for where these are apart: their terms, then factors, come last."""
    apart = {a.place for a in accumulators}
    names = [*(name for k, name in enumerate(chain.after) if k not in apart), *chain.outputs]
    terms = [term for a in accumulators for term in a.terms]
    factors = [factor for a in accumulators for p in a.products for factor in p.factors]
    return [*map(chain.variable, names), *terms, *factors]


def accumulators_of(chain: Chain) -> list[Accumulator]:
    """The large states that a step only adds to."""
    defined, found = definitions(chain.step), []
    for k, name in enumerate(chain.states):
        state = chain.variable(name)
        if state.size < LARGE or state.dtype != float:
            continue
        addends: list[Expression] = []
        stack: list[Expression] = [chain.variable(chain.after[k])]
        while stack:
            node = stack.pop()
            if node.index in defined:
                stack.append(defined[node.index])
            elif node.primitive is add:
                stack.extend(node.arguments)
            else:
                addends.append(node)
        rest = [node for node in addends if node is not state]
        if len(rest) == len(addends) - 1 and all(node.shape == state.shape for node in rest):
            pairs = [(node, MatrixProduct.of(node)) for node in rest]
            terms = tuple(node for node, product in pairs if product is None)
            products = tuple(product for _, product in pairs if product is not None)
            found.append(Accumulator(k, terms, products))
    # What is used for something else as well is a state like any other.
    used = {node.index for node in ancestors(asked(chain, found), lambda node: False, defined)}
    return [a for a in found if chain.variable(chain.states[a.place]).index not in used]
