"""Lengths of vectors, each unknown measured against its own size."""

from __future__ import annotations

import numpy as np

from lagrad.solving.block_equations import BlockEquations
from lagrad.typing import Array

# Unknowns of one number each, up to so many, are measured by Python.
FEW = 16


class Measure:
    """Lengths of vectors, each unknown measured against its own size."""

    def __init__(self, equations: BlockEquations) -> None:
        self.sizes = [v.size for v in equations.unknowns]
        self.starts = np.cumsum([0, *self.sizes[:-1]])
        # A few numbers: in Python, since calls of NumPy would cost more than what they do.
        self.numbers = len(self.sizes) <= FEW and set(self.sizes) == {1}
        self.epsilon = float(np.finfo(equations.dtype).eps)
        self.top: Array = np.zeros(len(self.sizes))  # the largest values on the way

    def largest(self, vector: Array) -> Array:
        """The largest entry of each unknown."""
        if self.numbers:
            return np.abs(vector).astype(float, copy=False)
        if len(self.sizes) == 1:
            return np.array([np.abs(vector).max(initial=0.0)], dtype=float)
        if min(self.sizes) == 0:
            pieces = np.split(np.abs(vector), self.starts[1:])
            return np.array([piece.max(initial=0.0) for piece in pieces], dtype=float)
        return np.maximum.reduceat(np.abs(vector), self.starts).astype(float)

    def see(self, point: Array) -> None:
        """Take note of how large the unknowns have been."""
        self.top = np.maximum(self.top, self.largest(point))

    def length(self, vector: Array, against: Array | None = None) -> float:
        """The length of a vector, against the largest values seen unless told otherwise."""
        against = self.top if against is None else against
        if self.numbers:
            tops = against.tolist()
            most = max(tops)
            pairs = zip(vector.tolist(), tops, strict=True)
            lengths = [abs(v) / max(t or most, 1e-300) for v, t in pairs]
            return float(max([0.0, *(length for length in lengths if length > 0)]))
        if len(self.sizes) == 1:
            top = float(np.abs(vector).max(initial=0.0))
            return top / max(float(against[0]), 1e-300) if top else 0.0
        # An unknown that has no size of its own is measured by the others.
        against = np.where(against > 0, against, against.max(initial=0.0))
        largest = self.largest(vector)
        some = largest > 0
        return float((largest[some] / np.maximum(against[some], 1e-300)).max(initial=0.0))
