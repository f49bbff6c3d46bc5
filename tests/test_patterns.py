"""Sparse matrices put together by remembered patterns; the oracle is SciPy."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad.expressions.linear_maps import Scale
from lagrad.systems.sparsity import Patterns, added


def some(rng, shape, density):
    return sparse.csr_array(sparse.random_array(shape, density=density, rng=rng))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.floats(0, 0.6))
def test_sums_and_assemblies_are_scipys(seed, rows, columns, density):
    rng = np.random.default_rng(seed)
    patterns = Patterns()
    a, b = some(rng, (rows, columns), density), some(rng, (rows, columns), density)
    for _ in range(2):
        a.data, b.data = rng.standard_normal(a.nnz), rng.standard_normal(b.nnz)
        first, second = patterns.entries("a", a), patterns.entries("b", b)
        total = added(first, second)
        np.testing.assert_allclose(total.csr().toarray(), (a + b).toarray())
        assert total.csr().has_canonical_format
        weights = rng.standard_normal(rows)
        scaled = patterns.product("s", Scale(weights, (rows,), (rows,)), first)
        np.testing.assert_allclose(scaled.csr().toarray(), weights[:, None] * a.toarray())
        full = rng.standard_normal((2, columns))
        whole = patterns.assembled(
            [(0, 0, first), (rows, columns, second), (2 * rows, 0, full), (0, 0, second)],
            (2 * rows + 2, 2 * columns),
        )
        zero = np.zeros((rows, columns))
        expected = [[(a + b).toarray(), zero], [zero, b.toarray()], [full, np.zeros((2, columns))]]
        np.testing.assert_allclose(whole.toarray(), np.block(expected))


def test_a_pattern_that_changed_is_told():
    patterns = Patterns()
    a, b = (
        sparse.csr_array(np.eye(3)),
        sparse.csr_array(np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])),
    )
    for matrix in (a, b, a):
        found = added(patterns.entries("x", matrix), patterns.identity(3))
        np.testing.assert_array_equal(found.csr().toarray(), matrix.toarray() + np.eye(3))


@pytest.mark.parametrize("n", [40, 400])
def test_a_second_solve_looks_for_no_pattern(n):
    A = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    p = lg.Program()
    lam = p.parameter("lam", value=0.5)
    u = p.unknown("u", shape=n)
    v = p.unknown("v", shape=n)
    p.subject_to(A @ u + lam * np.exp(v) / n**2 == 0)
    p.subject_to(v - 0.5 * u == 0)
    p.define("J", np.sum(u))
    p.solve().gradient("J")
    with mock.patch("lagrad.systems.sparsity.together", side_effect=AssertionError):
        at = p.solve(lam=0.4)
        gradient = at.gradient("J")["lam"]
    h = 1e-5
    difference = (p.solve(lam=0.4 + h)["J"] - p.solve(lam=0.4 - h)["J"]) / (2 * h)
    assert gradient == pytest.approx(difference, rel=1e-6)
