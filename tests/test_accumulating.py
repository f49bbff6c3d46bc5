"""Sums that loops carry: in place, and by products of many steps at once."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg
from lagrad.loops.accumulate import ProductBuffer

RNG = np.random.default_rng(0)
W = RNG.standard_normal((80, 80)) / 12
V = RNG.standard_normal((80, 80)) / 12


def unrolled(step, z, n):
    for _ in range(n):
        z = step(z)
    return z


# Each with the shape of its state.
STEPS = {
    "a vector": (lambda W: lambda z: np.tanh(W @ z), (80,)),
    "columns": (lambda W: lambda z: np.tanh(W @ z), (80, 3)),
    "rows": (lambda W: lambda z: np.tanh(z @ W), (3, 80)),
    "transposed": (lambda W: lambda z: np.tanh(W.T @ z), (80, 3)),
    "twice": (lambda W: lambda z: np.tanh(W @ np.sin(W @ z)), (80,)),
    "both ways": (lambda W: lambda z: np.tanh(W.T @ (W @ z)) + 0.1 * z, (80, 2)),
    "a stack": (lambda W: lambda z: np.tanh(np.einsum("ij,ajb->aib", W, z)), (2, 80, 3)),
    "a product and a sum": (lambda W: lambda z: np.tanh(W @ z) + 0.01 * np.sum(W * W), (80,)),
    "entries": (lambda W: lambda z: np.tanh(0.1 * W * z), (80, 80)),
    "many columns": (lambda W: lambda z: np.tanh(W @ z), (80, 90)),
}


@pytest.mark.parametrize("n", [1, 7, 45])
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("how", [{}, {"checkpoints": 3}])
def test_the_gradient_by_a_matrix_is_that_of_the_unrolled_loop(kind, n, how):
    step, shape = STEPS[kind]
    z = np.random.default_rng(1).standard_normal(shape)
    found = lg.grad(lambda W: np.sum(lg.iterate(step(W), z, n, **how) ** 2))(W)
    expected = lg.grad(lambda W: np.sum(unrolled(step(W), z, n) ** 2))(W)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_second_derivatives_by_a_matrix_are_those_of_the_unrolled_loop():
    z = RNG.standard_normal((80, 2))

    def loss(W, loop):
        return np.sum(loop(lambda z: np.tanh(W @ z), z, 6) ** 2)

    found = lg.hvp(lambda W: loss(W, lg.iterate), W, V)
    expected = lg.hvp(lambda W: loss(W, unrolled), W, V)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_a_sum_that_the_loop_uses_is_a_state_like_any_other():
    x = RNG.standard_normal((20, 80))

    def total(scale):
        def step(state, x):
            z, sums = state
            return (np.tanh(z + 0.01 * sums[0]), sums + np.outer(z, x) * scale), None

        return np.sum(lg.scan(step, (np.ones(80), np.zeros((80, 80))), x)[0][1] ** 2)

    def by_hand(scale):
        z, sums = np.ones(80), np.zeros((80, 80))
        for row in x:
            z, sums = np.tanh(z + 0.01 * sums[0]), sums + np.outer(z, row) * scale
        return np.sum(sums**2)

    assert total(0.5) == pytest.approx(by_hand(0.5), rel=1e-12)
    slope = (by_hand(0.5 + 1e-6) - by_hand(0.5 - 1e-6)) / 2e-6
    assert lg.grad(total)(0.5) == pytest.approx(slope, rel=1e-7)


def test_products_of_many_steps_are_one(monkeypatch):
    added, put = [], []
    add, hold = ProductBuffer.add, ProductBuffer.put
    monkeypatch.setattr(ProductBuffer, "add", lambda self: (added.append(1), add(self))[1])
    monkeypatch.setattr(ProductBuffer, "put", lambda self, *f: (put.append(1), hold(self, *f))[1])
    z = np.ones(80)
    lg.grad(lambda W: np.sum(lg.iterate(lambda z: np.tanh(W @ z), z, 100)))(W)
    assert len(put) == 100
    assert len(added) == 3  # forty columns each time: no more numbers than the sum has


def test_a_batch_of_nothing_has_no_gradient():
    f = lambda W: np.sum(lg.iterate(lambda z: np.tanh(W @ z), np.ones((80, 0)), 4))
    assert not lg.grad(f)(W).any()


def test_a_given_sum_is_not_written_to():
    given = np.ones((80, 80))
    outer = np.ones((5, 80))
    found, _ = lg.scan(lambda s, x: (s + np.outer(x, x), None), given, outer)
    assert (given == 1).all()
    assert (found == 6).all()
