"""Sparse LU factorisation: of a whole matrix, or of the small systems that it consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import InvalidValue
from lagrad.linear_solvers.base import Factors, LinearSolver, Singular, canonical, right_side
from lagrad.linear_solvers.sparse_layout import Layout
from lagrad.typing import Array

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
