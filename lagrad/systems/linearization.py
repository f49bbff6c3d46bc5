"""Local partials in a row: the derivative of a computation as a product of linear maps.

A tape lists, for each node of a computation, the linear maps from its arguments. Run forwards
it carries tangents (`push`), backwards cotangents (`pull`); with matrices in the place of
vectors it gives Jacobians. The maps' data are expressions, evaluated once for each point.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from lagrad.expressions.expression import Constant, Expression
from lagrad.expressions.graph import ancestors
from lagrad.expressions.jacobian_columns import dense_columns
from lagrad.expressions.linear_maps import Chosen, Joint, LinearMap, Reindex, Scale
from lagrad.primitives.product_maps import Contract
from lagrad.systems import scalar_partials
from lagrad.systems.choices_taken import restricted
from lagrad.systems.scalar_partials import ScalarPartials, Weights, weights_of
from lagrad.systems.sparsity import Blocks, Entries, Patterns, added, is_small
from lagrad.typing import Array, Shape

Nodes: TypeAlias = Sequence[Expression]
# Entries of a dense matrix on the way to a Jacobian, at the most, where all maps are sparse.
DENSE = 1_000_000
# Which steps, in order; None for all.
Places: TypeAlias = Sequence[int] | None
# What is done to each product with a map, as if it had been rounded otherwise.
Rounded: TypeAlias = Callable[[Any], Any]
# What a map makes of what was carried.
Product: TypeAlias = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class LocalPartial:
    """One local partial: from the value in slot `source` to that in slot `target`."""

    target: int
    source: int
    map: LinearMap | None  # None is the identity, from a right side to the variable it defines

    def over(self, linear: LinearMap | None) -> LocalPartial:
        """The same one with another map."""
        return LocalPartial(self.target, self.source, linear)


class Tape:
    """The local partials of `outputs` by the nodes that `sources` reach.

    Parameters
    ----------
    outputs : sequence of nodes
    sources : sequence of nodes
        What derivatives are taken by.
    known : callable
        Which nodes are leaves.
    defined : dict
        The right side of each defined variable, by the variable's index.
    """

    def __init__(
        self,
        outputs: Nodes,
        sources: Nodes,
        known: Callable[[Expression], bool],
        defined: dict[int, Expression],
    ) -> None:
        self.slots: dict[int, int] = {}
        self.shapes: list[Shape] = []
        self.steps: list[LocalPartial] = []
        # Whether something depends on the sources with no derivative, as a step function does.
        self.broken = False
        # Of matrices from some slots, as far as they are known.
        self.patterns: dict[Any, Patterns] = {}
        self.known = known
        self.defined = defined
        for node in sources:
            self.slot(node)
        self.extend(outputs)

    def is_tall(self, width: int) -> bool:
        """Whether matrices on the way are much larger than the arrays that they are made of."""
        return width * self.rows > max(DENSE, 4 * self._data)

    @cached_property
    def rows(self) -> int:
        return max(map(math.prod, self.shapes), default=0)

    @cached_property
    def _data(self) -> int:
        return max((node.size for node in self.data), default=0)

    @cached_property
    def sparse(self) -> bool:
        """Whether no map is a product with a matrix."""
        maps = (step.map for step in self.steps if step.map is not None)
        return not any(isinstance(getattr(linear, "base", linear), Contract) for linear in maps)

    def slot(self, node: Expression) -> int:
        """The slot of a node, a new one at the first asking."""
        found = self.slots.get(node.index)
        if found is None:
            found = self.slots[node.index] = len(self.shapes)
            self.shapes.append(node.shape)
        return found

    def extend(self, outputs: Nodes) -> None:
        """Add the steps that lead to further outputs."""
        slots = self.slots

        def done(node: Expression) -> bool:
            return node.index in slots or self.known(node)

        for node in ancestors(outputs, done, self.defined):
            if done(node) or isinstance(node, Constant):
                continue
            if node.index in self.defined:
                root, place = self.defined[node.index], self.slot(node)
                if root.index in slots:
                    self.steps.append(LocalPartial(place, slots[root.index], None))
                continue
            primitive = node.primitive
            active = tuple(k for k, a in enumerate(node.arguments) if a.index in slots)
            if primitive is None or not active:
                continue
            found: Sequence[LinearMap | None] = [None] * len(active)
            if node.dtype.kind == "f" and primitive.joint is not None:
                found = primitive.joint(node, active)
            elif node.dtype.kind == "f":
                found = [primitive.partial(node, k) for k in active]
            for k, partial in zip(active, found, strict=True):
                if partial is None:
                    self.broken = True
                    continue
                source = slots[node.arguments[k].index]
                if isinstance(partial, Joint):
                    partial.slots[k] = source
                self.steps.append(LocalPartial(self.slot(node), source, partial))

    @cached_property
    def data(self) -> list[Expression]:
        """The expressions that the maps are made of, each once."""
        values = [value for step in self.steps if step.map is not None for value in step.map.data]
        return list({v.index: v for v in values if isinstance(v, Expression)}.values())

    @property
    def entries(self) -> int:
        """How many entries the largest local partial has as a sparse matrix."""
        return max((step.map.entries for step in self.steps if step.map is not None), default=0)

    @cached_property
    def _open(self) -> list[tuple[int, LinearMap, list[int | None]]]:
        """The maps whose data are expressions, and where in `data` each of them is."""
        place = {node.index: i for i, node in enumerate(self.data)}
        found = []
        for k, step in enumerate(self.steps):
            if step.map is not None and any(isinstance(v, Expression) for v in step.map.data):
                values = step.map.data
                where = [place[v.index] if isinstance(v, Expression) else None for v in values]
                found.append((k, step.map, where))
        return found

    @cached_property
    def weights(self) -> Weights | None:
        """The partials as numbers, where all are of scalars, and many."""
        return weights_of(self) if len(self.steps) >= scalar_partials.MANY else None

    def at(self, values: Sequence[Array], rounded: Rounded | None = None) -> Linearization:
        """The tape with the values of its data, in the order of `data`."""
        if self.weights is not None:
            data = np.asarray(values)  # of a wider precision where one of them is
            if data.dtype == float or not data.size:
                numbers = ScalarPartials(self.weights, self.weights.at(data))
                return Linearization(self, lambda: self.steps_at(values), rounded, numbers)
        return Linearization(self, self.steps_at(values), rounded)

    def steps_at(self, values: Sequence[Array]) -> list[LocalPartial]:
        """The steps with the values of their data."""
        steps = list(self.steps)
        for k, linear, where in self._open:
            own = linear.data
            data = tuple(own[n] if i is None else values[i] for n, i in enumerate(where))
            steps[k] = steps[k].over(linear.with_data(data))
        return steps

    def pattern(self) -> Linearization:
        """The tape with ones for its numbers: where entries can be."""
        steps = lambda: [s if s.map is None else s.over(s.map.pattern()) for s in self.steps]
        own = self.weights
        numbers = None if own is None else ScalarPartials(own, own.pattern())
        return Linearization(self, steps, None, numbers)


def plus(a: Any, b: Any) -> Any:
    """The sum of two values, of which None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def accumulate(
    values: list[Any],
    steps: Iterable[LocalPartial],
    moved: Product,
    added: Callable[[Any, Any], Any] = operator.add,
    backwards: bool = False,
) -> None:
    """Carry values over steps, in place: `moved` is a map's product with one, `added` their sum.

    The value of a slot is None where nothing has arrived.
    """
    for step in steps:
        source, target = step.source, step.target
        if backwards:
            source, target = target, source
        value = values[source]
        if value is not None:
            if step.map is not None:
                value = moved(step.map, value)
            held = values[target]
            values[target] = value if held is None else added(value, held)


class Linearization:
    """A tape at one point: nothing is evaluated again for another direction.

    Of many scalars there are numbers in arrays, and steps only where they are asked for.
    """

    def __init__(
        self,
        tape: Tape,
        steps: list[LocalPartial] | Callable[[], list[LocalPartial]],
        rounded: Rounded | None = None,
        numbers: ScalarPartials | None = None,
    ) -> None:
        self.tape, self.rounded, self.numbers = tape, rounded, numbers
        self._steps = steps

    @property
    def steps(self) -> list[LocalPartial]:
        """The tape's steps with numbers in their maps."""
        if callable(self._steps):
            self._steps = self._steps()
        return self._steps

    def taken(self, where: Places) -> list[LocalPartial]:
        return self.steps if where is None else [self.steps[k] for k in where]

    def push(self, values: list[Any], where: Places = None, matrices: bool = False) -> None:
        """Carry tangents forwards, in place, over the steps of the given places; None is zero.

        A tangent is an array of its node's shape, or with `matrices` a matrix of one tangent in
        each column.
        """
        if self.numbers is not None and not matrices:
            self.numbers.carry(values, where, False, self.rounded)
            return
        for step in self.taken(where):
            value = values[step.source]
            if isinstance(step.map, Joint) and not matrices:
                places = step.map.slots.items() if step.map.last else ()
                tangents = {i: v for i, slot in places if (v := values[slot]) is not None}
                value = step.map.together(tangents) if tangents else None
            elif value is not None and step.map is not None:
                value = step.map.lmul(value) if matrices else step.map.mv(value)
                value = value if self.rounded is None else self.rounded(value)
            if value is not None:
                values[step.target] = plus(values[step.target], value)

    def pull(
        self,
        values: list[Any],
        where: Places = None,
        matrices: bool = False,
        taken: list[Any] | None = None,
    ) -> None:
        """Carry cotangents backwards, in place, as `push` carries tangents forwards.

        With `taken`, a list of what is used at all, partials of what no choice takes are zero,
        whatever they are: NaN in the branch that `np.where` leaves aside.
        """
        if self.numbers is not None and not matrices and taken is None:
            self.numbers.carry(values, where, True, self.rounded)
            return
        product: Product = lambda linear, value: linear.rmv(value)
        if matrices:
            product = lambda linear, value: linear.rlmul(value)
        if (rounded := self.rounded) is not None:
            exact, product = product, lambda linear, value: rounded(exact(linear, value))
        steps = reversed(self.taken(where))
        if taken is not None:
            steps = (step.over(restricted(step, values, taken)) for step in steps)
        accumulate(values, steps, product, backwards=True)

    def empty(self) -> list[Any]:
        """A list with nothing in any slot."""
        return [None] * len(self.tape.shapes)

    def reached(self, sources: Nodes) -> Linearization:
        """The same with zero for partials by what no choice lets depend on the sources.

        So of sqrt(maximum(x, 0)) below zero, where the square root's own is infinite.
        """
        reached, steps = self.empty(), []
        for node in sources:
            if node.index in self.tape.slots:
                reached[self.tape.slots[node.index]] = True
        for step in self.steps:
            here, linear = reached[step.source], step.map
            there: Any = here if linear is None else True
            if here is not None and isinstance(linear, Scale) and linear.data:
                weight = linear.weights().reshape(linear.target)
                there = np.ones(linear.target, bool)
                if here is not True:
                    there = Scale(1.0, linear.source, linear.target).mv(here.astype(float)) > 0
                    linear = linear.with_data((np.where(there, weight, 0.0),))
                if isinstance(linear, Chosen):
                    there = there & (weight != 0)
            elif here is not None and here is not True and isinstance(linear, (Scale, Reindex)):
                there = np.abs(linear.mv(here.astype(float))) > 0
            steps.append(step.over(linear))
            if here is not None:
                before = reached[step.target]
                both = there if before is None or before is True else before | there
                reached[step.target] = True if before is True else both
        return Linearization(self.tape, steps, self.rounded)

    def jacobian(self, outputs: Nodes, sources: Nodes, dense: bool) -> Any:
        """The matrix of all outputs by all sources: an ndarray, or a `csr_array`."""
        if self.numbers is not None:
            found = self.numbers.jacobian(self.tape.slots, outputs, sources)
            return found.toarray() if dense else found
        tall = self.tape.is_tall(sum(node.size for node in sources))
        if dense and not (tall and self.tape.sparse):
            return dense_columns(self, outputs, sources)
        found = self.blocks(sources).assembled(outputs, sources)
        return found.toarray() if dense else found

    def blocks(self, sources: Nodes, through: bool = True) -> Blocks:
        """The matrix of each slot by each source that it depends on.

        Small ones are dense, others sparse. `through` says whether a defined variable is its
        right side; it may be a source of its own instead.
        """
        sizes = [math.prod(shape) for shape in self.tape.shapes]
        found: list[dict[int, Any]] = [{} for _ in sizes]
        seeds = {self.tape.slots[node.index] for node in sources if node.index in self.tape.slots}
        patterns = self.tape.patterns.setdefault((through, *sorted(seeds)), Patterns())
        for slot in seeds:
            found[slot] = {slot: patterns.identity(sizes[slot])}
        for n, step in enumerate(self.steps):
            if step.map is None:
                if through:
                    found[step.target] = found[step.source]
                continue
            size = sizes[step.source]
            if step.source in seeds and is_small(sizes[step.target], size):
                moved = {step.source: step.map.lmul(np.eye(size))}
            elif step.source in seeds:
                moved = {step.source: patterns.of(n, step.map)}
            else:
                moved = {
                    k: patterns.product((n, k), step.map, m)
                    if isinstance(m, Entries)
                    else step.map.lmul(m)
                    for k, m in found[step.source].items()
                }
            held = found[step.target]
            for k, matrix in moved.items():
                held[k] = added(held[k], matrix) if k in held else matrix
        return Blocks(self.tape.slots, found, patterns)


def split(vector: Array, nodes: Nodes) -> list[Array]:
    """A vector cut into the arrays of the nodes, in order."""
    pieces, start = [], 0
    for node in nodes:
        stop = start + math.prod(node.shape)
        pieces.append(vector[start:stop].reshape(node.shape))
        start = stop
    return pieces


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays as one vector."""
    if len(arrays) == 1:
        return np.ravel(arrays[0])
    return np.concatenate([np.ravel(a) for a in arrays])
