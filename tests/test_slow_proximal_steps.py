"""Proximal steps that contract by next to nothing, as with more features than rows."""

import numpy as np
import pytest

import lagrad as lg


def wide(seed, rows=40, columns=200):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((rows, columns)) + 2 * rng.standard_normal((rows, 1))  # correlated
    w = np.where(rng.random(columns) < 0.05, 3 * rng.standard_normal(columns), 0.0)
    return A, A @ w + 0.1 * rng.standard_normal(rows)


def held_out(A, b, shrink):
    L = 1.01 * np.linalg.norm(A, 2) ** 2
    rng = np.random.default_rng(9)
    V, u = rng.standard_normal((30, A.shape[1])), rng.standard_normal(30)

    def solution(t):
        step = lambda z: shrink(z - A.T @ (A @ z - b) / L, np.exp(t) / L)
        return lg.fixed_point(step, np.zeros(A.shape[1]))

    return solution, lambda t: np.mean((V @ solution(t) - u) ** 2), (V, u)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("fraction", [100, 1000])
def test_lasso_at_small_penalties(seed, fraction):
    A, b = wide(seed)
    solution, loss, (V, u) = held_out(A, b, lg.prox.l1)
    t = np.log(np.abs(A.T @ b).max() / fraction)
    w = solution(t)
    # Stationary: |Aᵀ(b − Aw)| ≤ α, with the sign of w where w is not zero.
    slope = A.T @ (b - A @ w) / np.exp(t)
    assert np.abs(slope).max() < 1 + 1e-6
    active = w != 0
    np.testing.assert_allclose(slope[active], np.sign(w[active]), rtol=1e-5)
    # On the support: dw/dt = −α (AᵀA)⁻¹ sign(w).
    inner = A[:, active]
    moved = -np.exp(t) * np.linalg.solve(inner.T @ inner, np.sign(w[active]))
    wanted = 2 * np.mean((V @ w - u) * (V[:, active] @ moved))
    assert float(lg.grad(loss)(t)) == pytest.approx(wanted, rel=1e-5)


def test_least_squares_of_numbers_above_zero():
    from scipy.optimize import nnls

    A, b = wide(5, rows=60, columns=80)
    A = np.abs(A)
    L = 1.01 * np.linalg.norm(A, 2) ** 2
    found = lg.fixed_point(lambda z: np.maximum(z - A.T @ (A @ z - b) / L, 0.0), np.zeros(80))
    np.testing.assert_allclose(found, nnls(A, b)[0], atol=1e-7)


def test_gradient_steps_down_a_long_valley():
    curvatures = np.geomspace(1e-4, 1.0, 300)
    target = np.linspace(-1, 1, 300)
    found = lambda a: lg.fixed_point(lambda z: z - curvatures * (z - a * target), np.zeros(300))
    np.testing.assert_allclose(found(2.0), 2 * target, rtol=1e-5, atol=1e-7)
    assert float(lg.grad(lambda a: np.sum(found(a) * target))(2.0)) == pytest.approx(
        np.sum(target**2)
    )
