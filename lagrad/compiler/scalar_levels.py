"""Many small equal graphs at once: operations of one kind and one level as one call of NumPy.

An operation's level is one more than the highest of its operands', so that a level's operations
need nothing of one another. Rows of a batch, or cells of a chart, fall into the same few levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.compiler.scalar_opcodes import BINARY, NAMES
from lagrad.typing import Array

# Operations in a call, on average, from which calls are faster than a loop over operations.
WIDE = 12


@dataclass(frozen=True)
class LevelGroup:
    """The operations of one level and kind: where they are, and where their operands."""

    function: Any
    where: Array
    first: Array
    second: Array | None


def levels(code: Array, first: Array, second: Array, start: int) -> Levels | None:
    """The operations of a flat tape level by level; None where levels are narrow."""
    height = [0] * start
    for a, b in zip(first[start:].tolist(), second[start:].tolist(), strict=True):
        x, y = height[a], height[b]
        height.append((x if x > y else y) + 1)
    kind = np.array(height[start:]) * len(NAMES) + code[start:]
    order = np.argsort(kind, kind="stable")
    sizes = np.unique(kind, return_counts=True)[1]
    if order.size < WIDE * sizes.size:
        return None
    groups = []
    for part in np.split(start + order, np.cumsum(sizes)[:-1]):
        c = int(code[part[0]])
        function = np.positive if NAMES[c] == "copy" else getattr(np, NAMES[c])
        groups.append(LevelGroup(function, part, first[part], second[part] if c < BINARY else None))
    return Levels(groups)


class Levels:
    """A flat tape's three loops, a level at a time."""

    def __init__(self, groups: list[LevelGroup]) -> None:
        self.groups = groups

    def forward(self, values: Array) -> None:
        for group in self.groups:
            x = values[group.first]
            values[group.where] = (
                group.function(x)
                if group.second is None
                else group.function(x, values[group.second])
            )

    def backward(self, left: Array, right: Array, sums: Array) -> None:
        for group in reversed(self.groups):
            g = sums[group.where]
            np.add.at(sums, group.first, g * left[group.where])
            if group.second is not None:
                np.add.at(sums, group.second, g * right[group.where])

    def tangent(self, left: Array, right: Array, sums: Array) -> None:
        for group in self.groups:
            g = sums[group.first] * left[group.where]
            if group.second is not None:
                g += sums[group.second] * right[group.where]
            sums[group.where] += g
