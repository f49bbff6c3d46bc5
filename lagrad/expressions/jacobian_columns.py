"""A dense Jacobian, some columns at a time, carried over a tape.

Where matrices on the way are much larger than what they are made of (those of a function's own
Jacobian have a row for each of its entries), so few columns are carried that these are not large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Reindex
from lagrad.typing import Array

# Entries of a matrix on the way, at the most, where it is larger than what it is made of.
ENTRIES = 8_000_000


def dense_columns(at: Any, outputs: Sequence[Expression], sources: Sequence[Expression]) -> Array:
    """The matrix of all outputs by all sources, at a tape's `Linearization`."""
    width = sum(node.size for node in sources)
    some = max(1, ENTRIES // at.tape.rows) if at.tape.is_tall(width) else max(1, width)
    columns = Columns(at, outputs, sources, width)
    pieces = [columns(low, min(low + some, width)) for low in range(0, max(1, width), some)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


class Columns:
    """Columns of a Jacobian, between two of them."""

    def __init__(
        self, at: Any, outputs: Sequence[Expression], sources: Sequence[Expression], width: int
    ) -> None:
        self.at, self.outputs, self.sources, self.width = at, outputs, sources, width
        self.placed = [placed(step.map) for step in at.steps]

    def __call__(self, low: int, high: int) -> Array:
        tape, count = self.at.tape, high - low
        held, own, offset = self.at.empty(), set[int](), low
        for node in self.sources:
            held[tape.slots[node.index]] = np.eye(node.size, count, -offset)
            offset -= node.size
        # The product with a unit matrix is the map itself.
        whole = len(self.sources) == 1 and count == self.width
        unit = held[tape.slots[self.sources[0].index]] if whole else None
        for step, rows in zip(self.at.steps, self.placed, strict=True):
            value, before = held[step.source], held[step.target]
            if value is None:
                continue
            if rows is not None:
                # What is put into a larger array is added there, and nothing else is touched.
                if before is None:
                    before = np.zeros((math.prod(tape.shapes[step.target]), count))
                elif step.target not in own:
                    before = before.copy()
                before[rows[0]] += value[rows[1]]
                held[step.target] = before
                own.add(step.target)
                continue
            if step.map is not None:
                value = step.map.as_dense() if value is unit else step.map.lmul(value)
            held[step.target] = value if before is None else value + before
            (own.discard if before is None else own.add)(step.target)
        return np.concatenate([self._of(node, held, count) for node in self.outputs])

    def _of(self, node: Expression, held: list[Any], count: int) -> Array:
        found = held[self.at.tape.slots[node.index]] if node.index in self.at.tape.slots else None
        return np.zeros((node.size, count)) if found is None else found


def placed(linear: Any) -> tuple[Array, Array] | None:
    """Which rows a map fills, and from which, where it leaves others zero."""
    if not isinstance(linear, Reindex):
        return None
    index = linear.index()
    rows = np.flatnonzero(index)
    return None if rows.size == index.size else (rows, index[rows] - 1)
