"""Equations paired with unknowns, and the parts where pairs are missing."""

from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse import csgraph


def ones_at(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    """A sparse matrix with a one at each of some places."""
    return sparse.csr_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)


def matched(pattern: Any, row_sizes: Any, column_sizes: Any) -> Any:
    """How many entries of each row are paired with each column, as a sparse matrix.

    Sizes other than one make the matching a flow: source → rows → columns → sink.
    """
    m, n = pattern.shape
    if (row_sizes == 1).all() and (column_sizes == 1).all():
        columns = csgraph.maximum_bipartite_matching(pattern, perm_type="column")
        rows = np.flatnonzero(columns >= 0)
        return ones_at(rows, columns[rows], (m, n))
    inner = pattern.tocoo()
    capacity = np.minimum(row_sizes[inner.row], column_sizes[inner.col])
    source, sink = m + n, m + n + 1
    tails = np.concatenate([np.full(m, source), inner.row, m + np.arange(n)])
    heads = np.concatenate([np.arange(m), m + inner.col, np.full(n, sink)])
    weights = np.concatenate([row_sizes, capacity, column_sizes]).astype(np.int32)
    network = sparse.csr_matrix((weights, (tails, heads)), shape=(m + n + 2, m + n + 2))
    flow = csgraph.maximum_flow(network, source, sink).flow
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
    columns, rows = _alternating(pattern.T, pairs.T, spare_columns)
    return _alternating(pattern, pairs, spare_rows), (rows, columns)


def _alternating(pattern: Any, pairs: Any, start: Any) -> tuple[Any, Any]:
    """Rows and columns reached by any entry from a row and by a pair from a column."""
    m, n = pattern.shape
    entries, back = pattern.tocoo(), pairs.tocoo()
    # Rows, columns, and one vertex more, which leads to the rows to start from.
    tails = np.concatenate([entries.row, m + back.col, np.full(start.size, m + n)])
    heads = np.concatenate([m + entries.col, back.row, start])
    graph = ones_at(tails, heads, (m + n + 1, m + n + 1))
    reached = np.sort(csgraph.breadth_first_order(graph, m + n, return_predecessors=False)[1:])
    return reached[reached < m], reached[reached >= m] - m
