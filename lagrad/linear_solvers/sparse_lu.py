"""Sparse LU factorisation: of a whole matrix, or of the small systems that it consists of.

How the matrices of one pattern are factored is found once, then their numbers move only.
"""

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from scipy.sparse import csgraph

from lagrad.errors import InvalidValue
from lagrad.linear_solvers.base import Factors, LinearSolver, Singular, canonical, right_side
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
    def of(cls, pattern: Any, rows: Array, columns: Array) -> "Order":
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
    RECENT: ClassVar["OrderedDict[Any, Layout]"] = OrderedDict()
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
    def of(cls, matrix: sparse.csr_array) -> "Layout":
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


ORDERINGS = ("NATURAL", "MMD_ATA", "MMD_AT_PLUS_A", "COLAMD")


@dataclass(frozen=True, slots=True)
class SparseLU(LinearSolver):
    """Sparse LU factorisation, by SuperLU.

    Parameters
    ----------
    ordering : str, optional
        SuperLU's `permc_spec`. By default the matrix is taken apart first: independent small
        systems are inverted together, chains of them factored in the order of dependence
        (block-triangular form). What is one system has minimum degree on AᵀA's pattern (COLAMD),
        on Aᵀ + A's where the pattern is symmetric. All of it is found once for a pattern.

    Examples
    --------
    >>> import scipy.sparse as sparse, numpy as np, lagrad as lg
    >>> lg.SparseLU().factor(sparse.eye_array(2, format="csr")).solve(np.ones(2)).tolist()
    [1.0, 1.0]
    """

    ordering: str | None = None

    def __post_init__(self) -> None:
        if self.ordering not in (None, *ORDERINGS):
            raise InvalidValue(
                f"SparseLU(ordering={self.ordering!r}); expected one of {', '.join(ORDERINGS)}."
            )

    def factor(self, matrix: Any) -> Factors:
        matrix = canonical(matrix)
        where = (matrix.indices, matrix.indptr)
        if all(np.array_equal(found, np.arange(found.size)) for found in where):
            return DiagonalFactors(matrix.data)
        layout = Layout.of(matrix)
        if layout.deficient:
            raise Singular("rows and columns cannot be paired")
        if self.ordering is None and layout.batches is not None:
            return BatchFactors(layout, matrix.data)
        return SparseFactors(layout, matrix.data, self.ordering)


class DiagonalFactors(Factors):
    """Division: no factorisation is needed."""

    def __init__(self, diagonal: Array) -> None:
        self.shape = (diagonal.size, diagonal.size)
        with np.errstate(all="ignore"):
            if not np.isfinite(1.0 / diagonal).all():
                raise Singular("a zero on the diagonal")
        self.diagonal = diagonal

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        right = right_side(right, self.shape[0])
        return right / (self.diagonal if right.ndim == 1 else self.diagonal[:, None])


class BatchFactors(Factors):
    """The inverses of independent small systems, those of one size by one call."""

    def __init__(self, layout: Layout, data: Array) -> None:
        self.shape = layout.shape
        self.batches = layout.batches or ()
        self.inverses = []
        for batch in self.batches:
            count, size = batch.rows.shape
            full = np.zeros(count * size * size)
            full[batch.where] = data[batch.entries]
            try:
                inverse = np.linalg.inv(full.reshape(count, size, size))
            except np.linalg.LinAlgError as error:
                raise Singular(str(error)) from None
            if not np.isfinite(inverse).all():
                raise Singular("an inverse that is not finite")
            self.inverses.append(inverse)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        right = right_side(right, self.shape[0])
        solution = np.empty(right.shape)
        for batch, inverse in zip(self.batches, self.inverses, strict=True):
            given, found = batch.rows, batch.columns
            if transposed:
                given, found, inverse = found, given, inverse.transpose(0, 2, 1)
            solution[found] = np.einsum("kij,kj...->ki...", inverse, right[given])
        return solution

    def inverse_norm(self) -> float:
        return float(max(np.abs(inverse).sum(axis=1).max() for inverse in self.inverses))


class SparseFactors(Factors):
    """SuperLU's factors of a matrix of the layout, with these entries.

    Without pivoting where the matrix is said to be symmetric.
    """

    def __init__(
        self, layout: Layout, data: Array, ordering: str | None = None, symmetric: bool = False
    ) -> None:
        self.shape = layout.shape
        self.symmetric = layout.symmetric(data)
        mirrored = layout.mirror is not None and bool(data[layout.diagonal].all())
        options: dict[str, Any] = {"SymmetricMode": True} if symmetric else {}
        if ordering is None and "blocks" in layout.orders:
            ordering = "blocks"
        elif ordering is None and mirrored:
            ordering, options = "MMD_AT_PLUS_A", {"SymmetricMode": True}
        name = ordering or "COLAMD"
        # The rows of A are the columns of Aᵀ: SuperLU reads them where they are, and the roles
        # of a solve and a transposed solve change places.
        columns = layout.transpose(data)
        self.order = layout.orders.get(name)  # once: another thread may learn it meanwhile
        try:
            self.lu = sparse_linalg.splu(
                columns if self.order is None else self.order.applied(columns),
                permc_spec=name if self.order is None else "NATURAL",
                diag_pivot_thresh=(0.0 if symmetric else 0.1) if options else None,
                options=options,
            )
        except RuntimeError as error:
            raise Singular(str(error)) from None
        if self.order is None and name != "NATURAL":
            layout.learn(name, self.lu.perm_c)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        # SuperLU is quicker by half with the transpose of what it factored.
        straight = transposed and not self.symmetric
        mode = "N" if straight else "T"
        right = right_side(right, self.shape[0])
        if self.order is None:
            return self.lu.solve(right, mode)
        given, found = self.order.columns, self.order.rows
        if straight:
            given, found = found, given
        solution = np.empty_like(right)
        solution[found] = self.lu.solve(right[given], mode)
        return solution
