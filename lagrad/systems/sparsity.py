"""Sparse matrices put together again and again: where entries go is found once.

A matrix is a pattern and its numbers. Sums of two patterns, and the places of several in a large
matrix, are remembered with the patterns, so that a second assembly moves numbers only.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Chosen, LinearMap, Scale, kept
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array

SMALL_BLOCK = 64
# Layouts that are remembered of one program: a pattern may depend on values.
KEPT = 16


def is_small(rows: int, columns: int) -> bool:
    """Whether a matrix is an ndarray."""
    return rows * columns <= SMALL_BLOCK


class Pattern:
    """Where a matrix has entries: the rows' ends and the columns, as of a `csr_array`."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        self.indptr, self.indices, self.shape = matrix.indptr, matrix.indices, matrix.shape
        self._sums: dict[Pattern, tuple[Pattern, Gathering]] = {}

    def fits(self, matrix: sparse.csr_array) -> bool:
        pairs = ((self.indices, matrix.indices), (self.indptr, matrix.indptr))
        same = all(a is b or np.array_equal(a, b) for a, b in pairs)
        return same and self.shape == matrix.shape

    @cached_property
    def rows(self) -> Array:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    def plus(self, other: "Pattern") -> "tuple[Pattern, Gathering]":
        """The sum of matrices of two patterns."""
        known = self._sums.get(other)
        if known is None:
            known = together([(0, 0, self), (0, 0, other)], self.shape)
            remember(self._sums, other, known)
        return known


def remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a layout, and as many before it as are kept."""
    while len(known) >= KEPT:
        known.pop(next(iter(known)), None)
    known[key] = value


@dataclass(frozen=True, slots=True)
class Entries:
    """A sparse matrix."""

    pattern: Pattern
    data: Array

    def csr(self) -> sparse.csr_array:
        where = self.pattern
        return sparse.csr_array((self.data, where.indices, where.indptr), shape=where.shape)


@dataclass(frozen=True, slots=True)
class Gathering:
    """How numbers in a row become the entries of a pattern."""

    where: Array  # the entry that each adds to
    count: int

    def __call__(self, data: Array) -> Array:
        if data.size != self.count:  # several add to one
            return np.bincount(self.where, data, self.count)
        moved = np.empty(self.count)
        moved[self.where] = data
        return moved


@functools.lru_cache(maxsize=SMALL_BLOCK)
def places(shape: tuple[int, int]) -> tuple[Array, Array]:
    """The rows and columns of the entries of a full matrix."""
    i, j = np.indices(shape)
    return i.ravel(), j.ravel()


def together(
    parts: Sequence[tuple[int, int, Any]], shape: tuple[int, int]
) -> tuple[Pattern, Gathering]:
    """The pattern of parts, each from a row and a column on: patterns, or shapes of full ones."""
    rows, columns = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for row, column, part in parts:
        i, j = (part.rows, part.indices) if isinstance(part, Pattern) else places(part)
        rows.append(i + row)
        columns.append(j + column)
    i, j = np.concatenate(rows), np.concatenate(columns)
    # By rows already, but for a few seams, which the merging sort of `unique` likes.
    keys = i * np.int64(shape[1]) + j
    _, entries, where = np.unique(keys, return_index=True, return_inverse=True)
    # SciPy's solvers take indices of 32 bits.
    kind = np.int32 if max(*shape, keys.size) < 2**31 else np.int64
    at = (i[entries].astype(kind), j[entries].astype(kind))
    layout = sparse.csr_array((np.ones(entries.size), at), shape=shape)
    return Pattern(layout), Gathering(where, entries.size)


def added(a: Any, b: Any) -> Any:
    """The sum of two matrices, each `Entries` or an ndarray."""
    if isinstance(a, Entries) and isinstance(b, Entries):
        if a.pattern is b.pattern:
            return Entries(a.pattern, a.data + b.data)
        pattern, gathering = a.pattern.plus(b.pattern)
        return Entries(pattern, gathering(np.concatenate([a.data, b.data])))
    full = [m.csr().toarray() if isinstance(m, Entries) else m for m in (a, b)]
    return full[0] + full[1]


class Patterns:
    """Those of the matrices on the way from some sources to all that depends on them."""

    def __init__(self) -> None:
        self._known: dict[Any, Pattern] = {}
        self._layouts: dict[Any, tuple[list[Any], Pattern, Gathering]] = {}

    def entries(self, key: Any, matrix: sparse.csr_array) -> Entries:
        """A matrix, with the pattern that it had before if it has it still."""
        known = self._known.get(key)
        if known is None or not known.fits(matrix):
            known = self._known[key] = Pattern(matrix)
        return Entries(known, matrix.data)

    def identity(self, size: int) -> Entries:
        return self.of(("identity", size), Scale(1.0, (size,), (size,)))

    def of(self, key: Any, linear: LinearMap) -> Entries:
        """A map's own matrix."""
        if isinstance(linear, Scale) and key in self._known:
            return Entries(self._known[key], linear.weights())
        return self.entries(key, linear.as_sparse())

    def product(self, key: Any, linear: LinearMap, matrix: Entries) -> Entries:
        """A map's matrix times another one."""
        if isinstance(linear, Scale) and linear.source == linear.target:
            if type(linear.weight) in NUMBERS:
                same = linear.weight == 1
                return matrix if same else Entries(matrix.pattern, linear.weight * matrix.data)
            weights = linear.weights()[matrix.pattern.rows]
            data = weights * matrix.data
            return Entries(
                matrix.pattern, kept(weights, data) if isinstance(linear, Chosen) else data
            )
        return self.entries(key, sparse.csr_array(linear.lmul(matrix.csr())))

    def assembled(
        self, parts: Sequence[tuple[int, int, Any]], shape: tuple[int, int]
    ) -> sparse.csr_array:
        """Matrices, each from a row and a column on, as one."""
        only = parts[0][2] if len(parts) == 1 else None
        if isinstance(only, Entries) and only.pattern.shape == shape:
            return only.csr()
        layout = [(i, j, m.pattern if isinstance(m, Entries) else m.shape) for i, j, m in parts]
        key = (shape, *((i, j, id(p) if isinstance(p, Pattern) else p) for i, j, p in layout))
        known = self._layouts.get(key)
        if known is None:
            # The patterns are kept with what is known of them, and so their ids.
            known = (layout, *together(layout, shape))
            remember(self._layouts, key, known)
        _, pattern, gathering = known
        data = [m.data if isinstance(m, Entries) else m.ravel() for _, _, m in parts]
        return Entries(pattern, gathering(np.concatenate([np.zeros(0), *data]))).csr()


@dataclass(frozen=True, slots=True)
class Blocks:
    """For each slot its matrix by each source that it depends on, by the source's slot."""

    slots: dict[int, int]
    found: list[dict[int, Any]]
    patterns: Patterns

    def assembled(
        self, outputs: Sequence[Expression], sources: Sequence[Expression]
    ) -> sparse.csr_array:
        """The matrix of outputs by sources."""
        starts = np.cumsum([0, *(node.size for node in sources)]).tolist()
        places = zip(sources, starts, strict=False)
        column = {self.slots[n.index]: start for n, start in places if n.index in self.slots}
        parts, row = [], 0
        for node in outputs:
            slot = self.slots.get(node.index)
            if slot is not None:
                parts += [(row, column[k], m) for k, m in self.found[slot].items()]
            row += node.size
        return self.patterns.assembled(parts, (row, starts[-1]))
