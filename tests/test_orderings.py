"""Sparse matrices taken apart: independent small systems, chains of them, orders kept."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad.linear_solvers.sparse_lu import SMALL, BatchFactors, Layout, SparseFactors


def shuffled(blocks, rng, links=()):
    """Blocks on the diagonal, entries (row, column, value) beside them, rows and columns mixed."""
    A = sparse.lil_array(sparse.block_diag(blocks))
    for i, j, value in links:
        A[i, j] = value
    n = A.shape[0]
    A = sparse.csr_array(sparse.csr_array(A)[rng.permutation(n)][:, rng.permutation(n)])
    A.sort_indices()
    return A


def hard(rng, size):
    """A well-conditioned matrix without a diagonal to rely on."""
    return rng.standard_normal((size, size)) + 3 * np.eye(size)[rng.permutation(size)]


def agree(A, factors, rng):
    dense = A.toarray()
    for right in (rng.standard_normal(A.shape[0]), rng.standard_normal((A.shape[0], 3))):
        for transposed, M in ((False, dense), (True, dense.T)):
            expected = np.linalg.solve(M, right)
            np.testing.assert_allclose(
                factors.solve(right, transposed), expected, rtol=1e-8, atol=1e-9
            )


@given(st.lists(st.integers(1, 6), min_size=2, max_size=12), st.integers(0, 10**6))
@settings(deadline=None)
def test_independent_systems_are_inverted_together(sizes, seed):
    rng = np.random.default_rng(seed)
    A = shuffled([hard(rng, size) for size in sizes], rng)
    factors = lg.SparseLU().factor(A)
    agree(A, factors, rng)
    if A.nnz > A.shape[0]:
        assert isinstance(factors, BatchFactors)
        found = sorted(s for b in factors.batches for s in [b.rows.shape[1]] * b.rows.shape[0])
        assert found == sorted(sizes)
        norm = np.abs(np.linalg.inv(A.toarray())).sum(axis=0).max()
        np.testing.assert_allclose(factors.inverse_norm(), norm, rtol=1e-8)


@given(st.integers(2, 10), st.integers(1, 5), st.integers(0, 10**6))
@settings(deadline=None)
def test_chains_are_factored_in_the_order_of_dependence(count, size, seed):
    rng = np.random.default_rng(seed)
    links = [
        (k * size + int(rng.integers(size)), (k - 1) * size + int(rng.integers(size)), 0.5)
        for k in range(1, count)
    ]
    A = shuffled([hard(rng, size) for _ in range(count)], rng, links)
    for _ in range(2):
        factors = lg.SparseLU().factor(A)
        assert isinstance(factors, SparseFactors)
        agree(A, factors, rng)
    order = Layout.of(A).orders["blocks"]
    # Unknowns in the order of their systems: below the diagonal blocks nothing is left.
    moved = A[order.columns][:, order.rows].tocoo()
    graph = nx.DiGraph(zip(moved.col.tolist(), moved.row.tolist(), strict=True))
    graph.remove_edges_from(nx.selfloop_edges(graph))
    components = {v: k for k, c in enumerate(nx.strongly_connected_components(graph)) for v in c}
    last = {}
    for v in range(A.shape[0]):
        last[components[v]] = v
    assert all(j <= last[components[i]] for i, j in zip(moved.row, moved.col, strict=True))


def test_a_triangular_system_fills_in_nowhere():
    rng, n = np.random.default_rng(0), 400
    A = sparse.csr_array(sparse.tril(sparse.random_array((n, n), density=0.02, rng=rng), -1))
    A = sparse.csr_array(A + sparse.diags_array(rng.uniform(1, 2, n)))
    rows, columns = rng.permutation(n), rng.permutation(n)
    A = sparse.csr_array(A[rows][:, columns])
    A.sort_indices()
    factors = lg.SparseLU().factor(A)
    assert factors.lu.L.nnz + factors.lu.U.nnz == A.nnz + n
    agree(A, factors, rng)


def test_an_unsymmetric_pattern_is_ordered_once(monkeypatch):
    rng, n = np.random.default_rng(1), 300
    A = sparse.csr_array(sparse.random_array((n, n), density=0.03, rng=rng))
    A = sparse.csr_array(A + 5 * sparse.eye_array(n))
    asked, splu = [], sparse_linalg.splu

    def watched(*args, **kwargs):
        asked.append(kwargs["permc_spec"])
        return splu(*args, **kwargs)

    monkeypatch.setattr("lagrad.linear_solvers.sparse_lu.sparse_linalg.splu", watched)
    Layout.RECENT.clear()
    for scale in (1.0, 2.0, 3.0):
        B = sparse.csr_array((A.data * scale, A.indices, A.indptr), shape=A.shape)
        agree(B, lg.SparseLU().factor(B), rng)
    assert asked == ["COLAMD", "NATURAL", "NATURAL"]


def test_a_singular_system_among_many_is_named():
    p = lg.Program()
    c = p.parameter("c", value=np.arange(100.0))
    u = p.unknown("u", shape=(2, 100), start=1.0)
    p.subject_to(u[0] + c * u[1] == 1, name="first")
    p.subject_to(u[0] + 7 * u[1] == 2, name="second")
    p.define("f", np.sum(u))
    with pytest.raises(lg.SingularSystem, match=r"'(first|second)\[7\]'"):
        p.solve()


def test_rows_and_columns_that_match_nowhere_are_singular():
    A = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(lg.SingularSystem):
        lg.SparseLU().factor(A)


def test_a_diagonal_zero_among_the_numbers_is_pivoted_around():
    A = sparse.csr_array(np.array([[1.0, 2.0], [3.0, 4.0]]).repeat(1, axis=0))
    A = sparse.csr_array(sparse.kron(A, np.ones((70, 70))) + sparse.eye_array(140))
    A.data[A.indptr[0]] = 0.0
    rng = np.random.default_rng(0)
    assert A.shape[0] > SMALL
    agree(A, lg.SparseLU().factor(A), rng)


def test_a_batch_of_systems_has_the_derivatives_of_each():
    rng, n = np.random.default_rng(2), 200
    r = rng.uniform(1, 2, n)
    p = lg.Program()
    R = p.parameter("r", value=r)
    u = p.unknown("u", shape=(3, n), start=0.1)
    p.subject_to(u[0] + np.exp(u[0]) - u[1] == R)
    p.subject_to(u[1] + np.tanh(u[2]) + 0.1 * u[0] == 1)
    p.subject_to(3 * u[2] + u[0] ** 3 - u[1] == 0)
    p.define("J", np.sum(u * u))
    at = p.solve()
    z, J = at["u"], np.zeros((n, 3, 3))
    J[:, 0, 0], J[:, 0, 1] = 1 + np.exp(z[0]), -1
    J[:, 1, 0], J[:, 1, 1], J[:, 1, 2] = 0.1, 1, 1 - np.tanh(z[2]) ** 2
    J[:, 2, 0], J[:, 2, 1], J[:, 2, 2] = 3 * z[0] ** 2, -1, 3
    multipliers = np.linalg.solve(J.transpose(0, 2, 1), 2 * z.T[:, :, None])[:, :, 0]
    np.testing.assert_allclose(at.gradient("J")["r"], multipliers[:, 0], rtol=1e-9)


WRONG_MATRICES = {
    "rows and columns": (lambda: sparse.csr_array([[1.0, 2.0], [0.0, 0.0]]), lg.SingularSystem),
    "(3, 2)": (lambda: sparse.csr_array(np.ones((3, 2))), lg.ShapeMismatch),
    "(2, 3) dense": (lambda: np.ones((2, 3)), lg.ShapeMismatch),
    "complex": (lambda: sparse.csr_array(np.eye(3) * 1j), lg.UnsupportedType),
    "nan": (lambda: sparse.csr_array([[1.0, np.nan], [2.0, 3.0]]), lg.SingularSystem),
    "too small": (
        lambda: sparse.csr_array(sparse.block_diag([1e-320 * (np.eye(2) + 1), np.eye(3) + 1])),
        lg.SingularSystem,
    ),
    "too small to divide by": (lambda: sparse.diags_array([1e-320, 1.0]), lg.SingularSystem),
}


@pytest.mark.parametrize("what", WRONG_MATRICES)
def test_what_cannot_be_factored_is_named(what):
    matrix, error = WRONG_MATRICES[what]
    with pytest.raises(error):
        lg.SparseLU().factor(matrix())
    if "too small" not in what:
        with pytest.raises(lg.LagradError):
            lg.DenseLU().factor(matrix())


def test_empty_rows_never_come_to_superlu():
    n = 52
    A = sparse.lil_array(np.eye(n) + np.diag(np.ones(n - 1), 1))
    A[[3, 9, 20, 40]] = 0.0
    A = sparse.csr_array(A)
    A.eliminate_zeros()
    for ordering in (None, "NATURAL", "COLAMD", "MMD_ATA", "MMD_AT_PLUS_A"):
        with pytest.raises(lg.SingularSystem):
            lg.SparseLU(ordering).factor(A)
    with pytest.raises(lg.InvalidValue, match="FOO"):
        lg.SparseLU("FOO")


@pytest.mark.parametrize("solver", [lg.SparseLU(), lg.Cholesky(), lg.DenseLU()], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.longdouble, float])
def test_matrices_of_any_kind_of_number_and_layout(solver, dtype):
    D = np.array(4 * np.eye(6) + np.ones((6, 6)), dtype)
    for matrix in (D, sparse.csr_array(D), sparse.coo_array(D), sparse.csc_array(D)):
        found = solver.factor(matrix).solve([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        np.testing.assert_allclose(found, np.linalg.solve(D.astype(float), np.arange(1.0, 7.0)))
    for empty in (np.zeros((0, 0)), sparse.csr_array((0, 0))):
        assert solver.factor(empty).solve(np.zeros(0)).shape == (0,)


def test_right_sides_of_another_length_are_named():
    A = sparse.csr_array(sparse.block_diag([np.eye(2) + 1, np.eye(3) + 1]))
    dense = np.ones((80, 80)) + 80 * np.eye(80)
    for matrix in (A, sparse.csr_array(np.eye(5)), A.toarray(), sparse.csr_array(dense)):
        for _ in range(2):
            for count in (1, 4, 6, 81):
                with pytest.raises(lg.ShapeMismatch, match="right side"):
                    lg.SparseLU().factor(matrix).solve(np.ones(count))


def test_a_matrix_that_is_factored_stays_as_it_is():
    given = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 1, 1]), np.array([0, 2, 4])
    for solver in (lg.SparseLU(), lg.DenseLU()):
        A = sparse.csr_array(tuple(a.copy() for a in given), shape=(2, 2))
        found = solver.factor(A).solve(np.array([1.0, 2.0]))
        np.testing.assert_allclose(found, np.linalg.solve([[2.0, 1.0], [0.0, 7.0]], [1.0, 2.0]))
        for before, after in zip(given, (A.data, A.indices, A.indptr), strict=True):
            np.testing.assert_array_equal(before, after)


def test_cholesky_takes_nothing_but_symmetric_positive_definite_matrices():
    swap = sparse.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    filled = sparse.csr_array((np.array([0.0, 1.0, 1.0, 0.0]), [0, 1, 0, 1], [0, 2, 4]))
    leaning = sparse.csr_array(np.array([[4.0, 1.0], [0.5, 4.0]]))
    for matrix in (swap, filled, leaning, sparse.csr_array(-np.eye(3))):
        with pytest.raises(lg.SingularSystem):
            lg.Cholesky().factor(matrix)


SADDLES = {
    "a maximum": (lambda z: -np.sum(z**2), 0.0),
    "pairs": (lambda z: np.sum(z[::2] * z[1::2]), 0.3),
    "pairs at rest": (lambda z: np.sum(z[::2] * z[1::2]), 0.0),
    "one pair": (lambda z: np.sum(z[2:] ** 2) + z[0] * z[1], 0.3),
    "a chain": (lambda z: np.sum(z[1:] * z[:-1]), 0.0),
}


@pytest.mark.parametrize("what", SADDLES)
@pytest.mark.parametrize("linear", [None, lg.Cholesky()], ids=str)
def test_no_saddle_is_a_minimum_however_many_unknowns(what, linear):
    objective, start = SADDLES[what]
    with pytest.raises(lg.NotPositiveDefinite):
        lg.argmin(objective, np.full(600, start), linear=linear)
