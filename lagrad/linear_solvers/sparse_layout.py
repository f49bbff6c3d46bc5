"""How the sparse matrices of one pattern are factored: found once, then their numbers move only."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sparse
from scipy.sparse import csgraph

from lagrad.typing import Array

# Strong components up to this size are put in the order of dependence, where they stand alone or
# form chains: nothing fills in beside them.
SMALL = 64
# Inverses of small matrices, many by one call, take what SuperLU does with at most this many
# multiplications for each entry (measured on full and tridiagonal ones).
DENSE = 100


@dataclass(frozen=True, slots=True)
class EqualBlocks:
    """Independent small systems of one size: `count` of them, of `size` unknowns each."""

    rows: Array  # (count, size)
    columns: Array  # (count, size)
    entries: Array  # those of the matrix that are theirs
    where: Array  # and their places in an array (count, size, size)


@dataclass(frozen=True, slots=True)
class Order:
    """Rows and columns of a matrix in a better order, and where its entries go."""

    rows: Array
    columns: Array
    entries: Array
    indices: Array
    indptr: Array

    @classmethod
    def of(cls, pattern: Any, rows: Array, columns: Array) -> Order:
        """The order of a `csc_array`'s rows and columns."""
        places = np.arange(pattern.indices.size)
        numbered = sparse.csc_array((places, pattern.indices, pattern.indptr), shape=pattern.shape)
        moved = sparse.csc_array(sparse.csc_array(numbered[:, columns])[rows])
        moved.sort_indices()
        return cls(rows, columns, moved.data, moved.indices, moved.indptr)

    def applied(self, matrix: Any) -> Any:
        ordered = (matrix.data[self.entries], self.indices, self.indptr)
        return sparse.csc_array(ordered, shape=matrix.shape)


class Layout:
    """What is known of a square pattern.

    Parameters
    ----------
    matrix : csr_array
        Any matrix of the pattern, its indices sorted.
    """

    # Those of the last patterns; a pattern is compared entry by entry.
    RECENT: ClassVar[OrderedDict[Any, Layout]] = OrderedDict()
    AT_MOST = 8

    def __init__(self, matrix: sparse.csr_array) -> None:
        self.indptr, self.indices = matrix.indptr.copy(), matrix.indices.copy()
        shape = self.shape = matrix.shape
        places = np.arange(self.indices.size)
        numbered = sparse.csr_array((places, self.indices, self.indptr), shape=shape)
        across = sparse.csr_array(numbered.tocsc().T)
        rows = np.repeat(np.arange(shape[0]), np.diff(self.indptr))
        self.diagonal = np.flatnonzero(rows == self.indices)
        # The entry across the diagonal of each one, in a symmetric pattern with a full diagonal.
        self.mirror: Array | None = None
        if self.diagonal.size == shape[0] and self.fits(across):
            self.mirror = across.data
        # Orders of the transpose, a `csc_array` with this matrix's arrays, by SuperLU's names.
        self.orders: dict[str, Order] = {}
        self.batches: tuple[EqualBlocks, ...] | None = None
        self.deficient = False  # whether rows and columns cannot be paired: no matrix has full rank
        self._decompose(rows)

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> Layout:
        """What is known of a matrix's pattern."""
        key = (matrix.shape, zlib.crc32(matrix.indices), zlib.crc32(matrix.indptr))
        found = cls.RECENT.get(key)
        if found is None or not found.fits(matrix):
            found = cls.RECENT[key] = cls(matrix)
            while len(cls.RECENT) > cls.AT_MOST:
                cls.RECENT.popitem(last=False)
        return found

    def fits(self, matrix: sparse.csr_array) -> bool:
        """Whether a matrix has the pattern."""
        pairs = ((self.indices, matrix.indices), (self.indptr, matrix.indptr))
        return all(np.array_equal(own, other) for own, other in pairs)

    def symmetric(self, data: Array) -> bool:
        """Whether a matrix with these entries is."""
        return self.mirror is not None and np.array_equal(data, data[self.mirror])

    def transpose(self, data: Array) -> sparse.csc_array:
        return sparse.csc_array((data, self.indices, self.indptr), shape=self.shape)

    def learn(self, name: str, permutation: Array) -> None:
        """Take an ordering of SuperLU's over from the first factorisation with it."""
        columns = np.argsort(permutation)
        rows = columns if name == "MMD_AT_PLUS_A" else np.arange(columns.size)
        self.orders[name] = Order.of(self.transpose(self.indices), rows, columns)

    def _decompose(self, rows: Array) -> None:
        """Find the small systems that the matrix consists of, or their chains.

        Dulmage and Mendelsohn's fine decomposition (Pothen and Fan, Computing the Block
        Triangular Form of a Sparse Matrix, 1990): rows are paired with columns, and the strong
        components of the columns, each needing those of its row, do not depend on the pairing.
        """
        n, columns = self.shape[0], self.indices
        paired = own = np.arange(n)
        if self.diagonal.size < n:
            graph = sparse.csr_array((np.ones(columns.size), columns, self.indptr), self.shape)
            paired = csgraph.maximum_bipartite_matching(graph, perm_type="column")
            if (paired < 0).any():
                self.deficient = True
                return
            own = np.argsort(paired)
        needs = sparse.coo_array((np.ones(columns.size), (paired[rows], columns)), self.shape)
        count, labels = csgraph.connected_components(needs, directed=True, connection="strong")
        sizes = np.bincount(labels)
        if count == 1 or sizes.max() > SMALL:
            return
        needing, needed = labels[paired[rows]], labels[columns]
        if np.array_equal(needing, needed):
            if (sizes**3).sum() <= DENSE * columns.size:
                self.batches = self._batches(paired[rows], own, labels, sizes)
            return
        # csgraph does not document the order of its labels, so it is checked before it is used.
        for order in (labels, -labels):
            if (order[columns] <= order[paired[rows]]).all():
                ordered = np.argsort(order, kind="stable")
                pattern = self.transpose(columns)
                self.orders["blocks"] = Order.of(pattern, ordered, own[ordered])
                return

    def _batches(
        self, places: Array, own: Array, labels: Array, sizes: Array
    ) -> tuple[EqualBlocks, ...]:
        """The components by size; `places` are the columns that the entries' rows go with."""
        ordered = np.argsort(labels, kind="stable")
        starts = np.cumsum(sizes) - sizes
        rank = np.empty(labels.size, np.intp)
        rank[ordered] = np.arange(labels.size) - np.repeat(starts, sizes)
        of, found = labels[self.indices], []
        for size in np.unique(sizes):
            chosen = np.flatnonzero(sizes == size)
            number = np.empty(sizes.size, np.intp)
            number[chosen] = np.arange(chosen.size)
            columns = ordered[starts[chosen][:, None] + np.arange(size)]
            entries = np.flatnonzero(sizes[of] == size)
            i, j = rank[places[entries]], rank[self.indices[entries]]
            where = (number[of[entries]] * size + i) * size + j
            found.append(EqualBlocks(own[columns], columns, entries, where))
        return tuple(found)
