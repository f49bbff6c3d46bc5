"""Factors from before the solution, that are off along one direction only."""

import numpy as np
import pytest

import lagrad as lg


@pytest.mark.parametrize("n", [65, 128, 200])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99, 0.999])
def test_a_common_level(n, level):
    """u = l + mean(u)²/4 for all u alike: the Jacobian changes along (1, …, 1) alone."""
    f = lambda level: np.mean(lg.root(lambda u: u - level - 0.25 * np.mean(u) ** 2, np.zeros(n)))
    assert lg.grad(f)(level) == pytest.approx((1 - level) ** -0.5, rel=1e-10)
    assert lg.jvp(f, (level,), (1.0,))[1] == pytest.approx((1 - level) ** -0.5, rel=1e-10)
    assert lg.grad(lg.grad(f))(level) == pytest.approx((1 - level) ** -1.5 / 2, rel=1e-8)


@pytest.mark.parametrize("n", [65, 100, 200])
@pytest.mark.parametrize("parameter", [3.3, 3.4, 3.5, 3.51])
def test_near_the_fold_of_a_boundary_value_problem(n, parameter):
    h = 1 / (n + 1)
    matrix = (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) / h**2

    def residual(u, parameter):
        padded = np.concatenate([np.zeros(1), u, np.zeros(1)])
        return (padded[2:] - 2 * padded[1:-1] + padded[:-2]) / h**2 + parameter * np.exp(u)

    f = lambda parameter: np.sum(lg.root(lambda u: residual(u, parameter), np.zeros(n))) * h
    u = np.zeros(n)
    for _ in range(60):
        jacobian = matrix + parameter * np.diag(np.exp(u))
        u = u - np.linalg.solve(jacobian, matrix @ u + parameter * np.exp(u))
    wanted = -h * np.sum(np.linalg.solve(jacobian, np.exp(u)))
    assert lg.grad(f)(parameter) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("n", [64, 128])
def test_an_integral_equation(n):
    """Chandrasekhar's H: d mean(H)/dc against differences of a fixed-point iteration's ends."""
    mu = (np.arange(n) + 0.5) / n
    kernel = mu[:, None] / (mu[:, None] + mu) / (2 * n)
    residual = lambda h, c: h * (1 - c * (kernel @ h)) - 1

    def mean(c):
        h = np.ones(n)
        for _ in range(2000):
            h = 1 / (1 - c * (kernel @ h))
        return np.mean(h)

    found = lg.grad(lambda c: np.mean(lg.root(lambda h: residual(h, c), np.ones(n))))(0.99)
    step = 1e-4
    slopes = [(mean(0.99 + s) - mean(0.99 - s)) / (2 * s) for s in (step, step / 2)]
    assert found == pytest.approx((4 * slopes[1] - slopes[0]) / 3, rel=1e-7)
