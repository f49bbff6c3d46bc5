"""Linear solvers of other packages against SciPy's own; skipped where they are not installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import scipy.sparse as sparse

import lagrad as lg

SOLVERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"extra: {package} is not installed"
        ),
    )
    for name, package in (("AMG", "pyamg"), ("PARDISO", "pypardiso"))
]


def bratu(n):
    T = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n))
    A = (sparse.kron(T, sparse.eye_array(n)) + sparse.kron(sparse.eye_array(n), T)).tocsr()
    p = lg.Program("bratu")
    lam = p.parameter("lam", value=5.0)
    wind = p.parameter("wind", value=0.0)
    u = p.unknown("u", shape=n * n)
    D = sparse.diags_array([0.1, -0.1], offsets=[-1, 1], shape=(n * n, n * n)).tocsr()
    p.subject_to(A @ u + wind * (D @ u) + lam / (n + 1) ** 2 * np.exp(u) == 0)
    p.define("J", np.sum(u) / (n + 1) ** 2)
    return p


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("wind", [0.0, 1.0])
def test_the_same_solution_and_gradient(name, wind):
    p = bratu(20)
    expected = p.solve(wind=wind)
    found = p.solve(wind=wind, linear=getattr(lg, name)())
    assert found["J"] == pytest.approx(expected["J"], rel=1e-10)
    for parameter in ("lam", "wind"):
        slope = expected.gradient("J")[parameter]
        assert found.gradient("J")[parameter] == pytest.approx(slope, rel=1e-8, abs=1e-12)
    assert found.tangent(lam=1.0)["J"] == pytest.approx(expected.gradient("J")["lam"], rel=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_several_right_sides_and_the_transpose(name):
    rng = np.random.default_rng(0)
    A = sparse.diags_array([-1.1, 2.1, -0.9], offsets=[-1, 0, 1], shape=(80, 80))
    right = rng.standard_normal((80, 3))
    factors = getattr(lg, name)().factor(sparse.csr_array(A))
    np.testing.assert_allclose(A @ factors.solve(right), right, atol=1e-9)
    np.testing.assert_allclose(A.T @ factors.solve(right, transposed=True), right, atol=1e-9)


@pytest.mark.parametrize(("name", "extra"), [("AMG", "amg"), ("PARDISO", "mkl")])
def test_what_is_not_installed_is_named(name, extra, monkeypatch):
    monkeypatch.setattr(
        "lagrad.linear_solvers.external.importlib.util.find_spec", lambda name: None
    )
    with pytest.raises(lg.InvalidValue, match=f"lagrad\\[{extra}\\]"):
        getattr(lg, name)()
