"""Starts that are where the last solve ended."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lagrad.public import Public
from lagrad.trees import flatten
from lagrad.typing import Array


class WarmStart(Public):
    """A start that is where the last solve ended: its solution, and its multipliers.

    Only the way to a solution depends on it, never what is certified of it.

    Parameters
    ----------
    value : nested arrays
        Where the first solve starts.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> warm = lg.WarmStart(1.0)
    >>> f = lg.compile(lambda M: lg.root(lambda E: E - 0.5 * np.sin(E) - M, warm))
    >>> round(float(f(1.0)), 6), round(float(warm.value), 6)
    (1.498701, 1.498701)
    """

    PUBLIC = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value
        self.multipliers: Array | None = None
        self.inner: list[Array] = []

    def starts(self, start: Sequence[Array]) -> list[Array]:
        """What is kept in the place of a start, as far as it goes."""
        kept = [*flatten(self.value)[0], *self.inner]
        found = [np.asarray(k, dtype=s.dtype) for k, s in zip(kept, start, strict=False)]
        return [*found, *start[len(kept) :]]

    def keep(self, found: Sequence[Array]) -> None:
        """Take note of a solution, the values of inner unknowns after it."""
        _, tree = flatten(self.value)
        self.value = tree.unflatten([np.array(f)[()] for f in found[: tree.size]])
        self.inner = [np.array(f) for f in found[tree.size :]]
