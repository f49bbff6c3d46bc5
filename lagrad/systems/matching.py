"""Equations paired with unknowns, and the parts where pairs are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse import csgraph


def matched(pattern: Any, row_sizes: Any, column_sizes: Any) -> Any:
    """How many entries of each row are paired with each column, as a sparse matrix.

    Sizes other than one make the matching a flow: source → rows → columns → sink.
    """
    m, n = pattern.shape
    if (row_sizes == 1).all() and (column_sizes == 1).all():
        columns = csgraph.maximum_bipartite_matching(pattern, perm_type="column")
        rows = np.flatnonzero(columns >= 0)
        entries = (np.ones(rows.size, dtype=np.int32), (rows, columns[rows]))
        return sparse.csr_array(sparse.coo_array(entries, shape=(m, n)))
    inner = pattern.tocoo()
    capacity = np.minimum(row_sizes[inner.row], column_sizes[inner.col])
    source, sink = m + n, m + n + 1
    tails = np.concatenate([np.full(m, source), inner.row, m + np.arange(n)])
    heads = np.concatenate([np.arange(m), m + inner.col, np.full(n, sink)])
    weights = np.concatenate([row_sizes, capacity, column_sizes]).astype(np.int32)
    shape = (m + n + 2, m + n + 2)
    network = sparse.csr_array(sparse.coo_array((weights, (tails, heads)), shape=shape))
    flow = csgraph.maximum_flow(sparse.csr_matrix(network), source, sink).flow
    inside = sparse.csr_array(flow)[:m, m : m + n]
    inside.data = np.maximum(inside.data, 0)
    inside.eliminate_zeros()
    return inside


def deficient_parts(
    pattern: Any, pairs: Any, row_sizes: Any, column_sizes: Any
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The over- and the underdetermined part, each as the indices of its rows and columns.

    Overdetermined is what alternating paths reach from unpaired rows, underdetermined what they
    reach from unpaired columns.
    """
    spare_rows = np.flatnonzero(pairs.sum(axis=1) < row_sizes)
    spare_columns = np.flatnonzero(pairs.sum(axis=0) < column_sizes)
    rows, columns = _alternating(pattern, pairs, spare_rows)
    over = (rows, columns)
    columns, rows = _alternating(pattern.T.tocsr(), pairs.T.tocsr(), spare_columns)
    return over, (rows, columns)


def _alternating(pattern: Any, pairs: Any, start: Any) -> tuple[Any, Any]:
    """Rows and columns reached by any entry from a row and by a pair from a column."""
    back = pairs.T.tocsr()
    rows = np.zeros(pattern.shape[0], dtype=bool)
    columns = np.zeros(pattern.shape[1], dtype=bool)
    frontier = start
    while frontier.size:
        rows[frontier] = True
        reached = np.unique(pattern[frontier].indices)
        reached = reached[~columns[reached]]
        columns[reached] = True
        frontier = np.unique(back[reached].indices)
        frontier = frontier[~rows[frontier]]
    return np.flatnonzero(rows), np.flatnonzero(columns)
