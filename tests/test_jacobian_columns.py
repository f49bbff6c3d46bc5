"""Jacobians whose matrices on the way are large: some columns at a time, and what they need."""

import tracemalloc

import numpy as np
import pytest

import lagrad as lg
from lagrad.expressions import jacobian_columns
from lagrad.systems import linearization


def problem(n):
    rng = np.random.default_rng(0)
    a = 0.9 * rng.standard_normal((n, n)) / np.sqrt(n)
    b = 0.5 * rng.standard_normal(n)

    def residual(y, a, b):
        inner = lambda x: np.tanh(a @ x + b)
        return y - 0.25 * inner(y) - 0.02 * np.sum(lg.jacobian(inner)(y), axis=1)

    return residual, a, b


def by_hand(a, b):
    """The root of `problem`, and what Σy² gains by b, from its own Jacobian written out."""
    y, rows = np.zeros(len(b)), a.sum(axis=1)
    for _ in range(30):
        t = np.tanh(a @ y + b)
        slope = 1 - t * t
        left = y - 0.25 * t - 0.02 * slope * rows
        inner = 0.25 * slope - 0.04 * t * slope * rows
        jacobian = np.eye(len(b)) - inner[:, None] * a
        y = y - np.linalg.solve(jacobian, left)
    return y, inner * np.linalg.solve(jacobian.T, 2 * y)


@pytest.mark.parametrize("entries", [1, 700, 10**9])
@pytest.mark.parametrize("dense", [0, 10**9])
def test_however_many_columns_at_a_time(monkeypatch, entries, dense):
    monkeypatch.setattr(jacobian_columns, "ENTRIES", entries)
    monkeypatch.setattr(linearization, "DENSE", dense)
    residual, a, b = problem(13)
    root = lambda b: lg.root(residual, np.zeros(13), a, b)
    y, slope = by_hand(a, b)
    np.testing.assert_allclose(root(b), y, rtol=1e-10)
    found = lg.grad(lambda b: np.sum(root(b) ** 2))(b)
    np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-12)


def test_several_unknowns_and_what_none_depends_on(monkeypatch):
    monkeypatch.setattr(jacobian_columns, "ENTRIES", 1)
    monkeypatch.setattr(linearization, "DENSE", 0)
    p = lg.Program()
    A = p.parameter("A", value=np.arange(12.0).reshape(3, 4) / 10)
    x, y = p.unknown("x", shape=3), p.unknown("y", shape=4)
    p.subject_to(x == np.cos(A @ y) + np.concatenate([y[:2], x[:1]]) / 4)
    p.subject_to(y == np.sin(A.T @ x) / 2)
    p.define("out", np.sum(x) + np.sum(y * y))
    at = p.solve()
    value = lambda scale: float(p.solve(A=scale * np.arange(12.0).reshape(3, 4) / 10)["out"])
    step = 1e-5
    slope = (value(1 + step) - value(1 - step)) / (2 * step)
    found = np.sum(at.gradient("out")["A"] * np.arange(12.0).reshape(3, 4) / 10)
    assert found == pytest.approx(slope, rel=1e-8)


def test_a_jacobian_inside_a_root_needs_little_memory():
    # Of 120 unknowns the inner Jacobian's own has 1.7 million entries, 14 MB.
    residual, a, b = problem(120)
    f = lg.grad(lambda b: np.sum(lg.root(residual, np.zeros(120), a, b) ** 2))
    f(b)
    tracemalloc.start()
    found = f(b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    np.testing.assert_allclose(found, by_hand(a, b)[1], rtol=1e-8, atol=1e-12)
