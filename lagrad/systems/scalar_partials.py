"""Jacobians of many scalars: all products of local partials in arrays, level by level.

Forward accumulation of one entry for each slot and each source that it depends on. Which entry
is made of which others is found once for a tape; at each point the products of a level are one
multiplication of two arrays, and their sums one reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.expression import Constant, Expression
from lagrad.expressions.linear_maps import Chosen, Scale
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array

# Tapes with fewer local partials are gone through one by one.
MANY = 100


class Weights:
    """The local partials of a tape of scalars as numbers, one for each step.

    Parameters
    ----------
    steps : sequence of LocalPartial
    place : dict
        Where the value of an expression is, by its index.

    Attributes
    ----------
    chosen : ndarray
        Which of them are shares of a choice: zero times anything is zero.
    """

    def __init__(self, steps: Sequence[Any], place: dict[int, int]) -> None:
        self.steps, self.fixed = steps, np.ones(len(steps))
        self.jacobians: dict[Any, ScalarJacobian] = {}
        self.sweeps: dict[Any, ScalarSweep] = {}
        where, data, absent = [], [], []
        for k, step in enumerate(steps):
            if step.map is None:
                continue
            weight = step.map.weight
            if isinstance(weight, Expression):
                where.append(k)
                data.append(place[weight.index])
                if isinstance(weight, Constant) and weight.value == 0:
                    absent.append(k)
            else:
                self.fixed[k] = weight
        self.where, self.data = np.array(where, np.intp), np.array(data, np.intp)
        self.absent = np.array(absent, np.intp)
        self.chosen = np.array([isinstance(step.map, Chosen) for step in steps])
        self.same = np.array([step.map is None for step in steps])

    def pattern(self) -> Array:
        """One for each that may be anything but zero."""
        found = (self.fixed != 0).astype(float)
        found[self.where] = 1.0
        found[self.absent] = 0.0
        return found

    def at(self, data: Array) -> Array:
        """With the values of the tape's data."""
        found = self.fixed.copy()
        if self.where.size:
            found[self.where] = data[self.data]
        return found


def weights_of(tape: Any) -> Weights | None:
    """The partials of a tape as numbers; None where it has others."""
    steps = tape.steps
    if any(shape != () for shape in tape.shapes):
        return None
    place = {node.index: i for i, node in enumerate(tape.data)}
    for step in steps:
        if step.map is None:
            continue
        if not isinstance(step.map, Scale):
            return None
        weight = step.map.weight
        if isinstance(weight, Expression):
            if weight.shape != () or weight.dtype != np.float64:
                return None
        elif type(weight) not in NUMBERS and np.shape(weight) != ():
            return None
    return Weights(steps, place)


@dataclass(frozen=True)
class Level:
    """Entries that are made of earlier ones: which, of which products, beginning where."""

    entries: Array
    starts: Array
    factors: Array  # entries
    steps: Array
    chosen: Array | None  # products that are zero where the step's weight is
    same: Array  # no products at all: of a right side, and the variable that it defines


class ScalarJacobian:
    """The matrix of outputs by sources, of a tape of scalars.

    Parameters
    ----------
    weights : Weights
    slots : dict
        The slot of each node, by its index.
    outputs, sources : sequences of nodes
    """

    def __init__(
        self,
        weights: Weights,
        slots: dict[int, int],
        outputs: Sequence[Expression],
        sources: Sequence[Expression],
    ) -> None:
        steps = weights.steps
        of: dict[int, dict[int, int]] = {}  # for each slot its entries by source
        height: list[int] = []
        for column, node in enumerate(sources):
            slot = slots.get(node.index)
            if slot is not None:
                of[slot] = {column: len(height)}
                height.append(0)
        self.sources = len(height)
        made: list[tuple[int, int, int]] = []
        for k, step in enumerate(steps):
            before = of.get(step.source)
            if before is None:
                continue
            held = of.setdefault(step.target, {})
            for column, source in before.items():
                target = held.get(column)
                if target is None:
                    target = held[column] = len(height)
                    height.append(0)
                height[target] = max(height[target], height[source] + 1)
                made.append((target, source, k))
        self.size = len(height)
        self.levels = levels_of(np.array(made, np.intp).reshape(-1, 3), np.array(height), weights)
        rows, columns, taken = [], [], []
        for row, node in enumerate(outputs):
            for column, e in of.get(slots.get(node.index, -1), {}).items():
                rows.append(row)
                columns.append(column)
                taken.append(e)
        shape = (len(outputs), len(sources))
        keys = np.array(rows, np.int64) * shape[1] + np.array(columns, np.int64)
        order = np.argsort(keys, kind="stable")
        self.taken = np.array(taken, np.intp)[order]
        at = (np.array(rows, np.int32)[order], np.array(columns, np.int32)[order])
        layout = sparse.csr_array((np.ones(order.size), at), shape=shape)
        self.indices, self.indptr, self.shape = layout.indices, layout.indptr, shape

    def __call__(self, weights: Array) -> sparse.csr_array:
        """The matrix for the weights of the steps."""
        values = np.empty(self.size)
        values[: self.sources] = 1.0
        for level in self.levels:
            weight = weights[level.steps]
            products = values[level.factors] * weight
            if level.chosen is not None:
                products[level.chosen & (weight == 0)] = 0.0
            values[level.entries] = np.add.reduceat(products, level.starts)
        return sparse.csr_array((values[self.taken], self.indices, self.indptr), shape=self.shape)


class ScalarSweep:
    """Tangents or cotangents of scalars carried over steps, a level at a time.

    Parameters
    ----------
    weights : Weights
    where : sequence of int
        Over which steps, in order.
    size : int
        The number of slots.
    backwards : bool
    """

    def __init__(self, weights: Weights, where: Sequence[int], size: int, backwards: bool) -> None:
        steps, height = weights.steps, [0] * size
        made = []
        for k in reversed(where) if backwards else where:
            step = steps[k]
            ends = (step.source, step.target) if backwards else (step.target, step.source)
            made.append((*ends, k))
            height[ends[0]] = max(height[ends[0]], height[ends[1]] + 1)
        self.levels = levels_of(np.array(made, np.intp).reshape(-1, 3), np.array(height), weights)

    def __call__(self, values: list[Any], weights: Array, rounded: Any) -> None:
        """In place; None, where nothing has arrived, stays."""
        there = np.array([value is not None for value in values])
        found = np.array([0.0 if value is None else value for value in values], float)
        for level in self.levels:
            weight, known = weights[level.steps], there[level.factors]
            products = found[level.factors] * weight
            if level.chosen is not None:
                known = known & ~(level.chosen & (weight == 0))
            if rounded is not None:
                products = np.where(level.same, products, rounded(products))
            products[~known] = 0.0
            found[level.entries] += np.add.reduceat(products, level.starts)
            there[level.entries] |= np.logical_or.reduceat(there[level.factors], level.starts)
        arrived = list(found)
        values[:] = [v if t else None for v, t in zip(arrived, there.tolist(), strict=True)]


def levels_of(made: Array, height: Array, weights: Weights) -> list[Level]:
    """Products in levels, from lines of what is made, of what, and by which step."""
    if not made.size:
        return []
    heights = height[made[:, 0]]
    order = np.lexsort((made[:, 0], heights))
    made, heights = made[order], heights[order]
    found = []
    for part in np.split(made, np.flatnonzero(np.diff(heights)) + 1):
        entries, starts = np.unique(part[:, 0], return_index=True)
        of_choice, same = weights.chosen[part[:, 2]], weights.same[part[:, 2]]
        kept = of_choice if of_choice.any() else None
        found.append(Level(entries, starts, part[:, 1], part[:, 2], kept, same))
    return found


class ScalarPartials:
    """Local partials of scalars at one point: one number for each step of a tape."""

    def __init__(self, weights: Weights, numbers: Array) -> None:
        self.weights, self.numbers = weights, numbers

    def carry(
        self, values: list[Any], where: Sequence[int] | None, backwards: bool, rounded: Any
    ) -> None:
        """Carry tangents, or cotangents, in place, over the steps of the given places."""
        own = self.weights
        key = (None if where is None else tuple(where), backwards)
        found = own.sweeps.get(key)
        if found is None:
            places = range(len(own.steps)) if where is None else where
            found = ScalarSweep(own, places, len(values), backwards)
            own.sweeps[key] = found
        found(values, self.numbers, rounded)

    def jacobian(
        self, slots: dict[int, int], outputs: Sequence[Expression], sources: Sequence[Expression]
    ) -> sparse.csr_array:
        """The matrix of outputs by sources."""
        own = self.weights
        key = (tuple(n.index for n in outputs), tuple(n.index for n in sources))
        found = own.jacobians.get(key)
        if found is None:
            found = ScalarJacobian(own, slots, outputs, sources)
            own.jacobians[key] = found
        return found(self.numbers)
