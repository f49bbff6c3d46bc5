"""A search ends where the gradient vanishes: its accuracy is that of what it adds up from."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider

import lagrad as lg

START = np.array([1.0, 1.0, 0.5])


def step(x, p):
    return 0.3 * np.dot(p, np.stack([np.sin(x), np.exp(-x), np.cos(2 * x)]))


def by_fixed_point(p):
    return (lg.fixed_point(lambda x: step(x, p), 0.5) - 0.8) ** 2


def by_root(p):
    return (lg.root(lambda x: x - step(x, p), 0.5) - 0.8) ** 2 + 1.0


def by_two(p):
    found = lg.root(lambda x: x**3 + x - p[:2] * p[2], np.ones(2))
    return np.sum((found - np.array([0.3, 0.7])) ** 2)


def by_argmin(p):
    found = lg.argmin(lambda z: np.sum(z**4 + z**2) - np.dot(p, z), np.zeros(3))
    return np.sum((found - np.array([0.1, 0.2, 0.3])) ** 2)


@pytest.mark.parametrize("method", ["Newton-CG", "BFGS", "L-BFGS-B", "trust-ncg", "CG"])
@pytest.mark.parametrize(
    ("loss", "least"), [(by_fixed_point, 0), (by_root, 1), (by_two, 0), (by_argmin, 0)]
)
def test_a_search_reaches_its_optimum(loss, least, method):
    found = lg.minimize(loss, START, method=method, tol=1e-10)
    assert abs(found.fun - least) < 1e-9


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-9, 1e-12, 1e-14])
def test_gradients_close_to_an_optimum_and_at_it(distance):
    # x³ + x = pq at x = ½; dx/dp = q / (3x² + 1).
    def loss(p):
        return (lg.root(lambda x: x**3 + x - p[0] * p[1], 0.4) - 0.5) ** 2

    p = np.array([1.25, 0.5 * (1 + distance)])
    x = np.roots([1, 0, 1, -p[0] * p[1]])
    x = float(x[np.abs(x.imag) < 1e-9].real[0])
    wanted = 2 * (x - 0.5) * p[::-1] / (3 * x**2 + 1)
    found = lg.grad(loss)(p)
    assert np.abs(found - wanted).max() <= 1e-6 * max(np.abs(wanted).max(), 1e-8)


def norm_of_root(nearly):
    """The gradient of |A⁻¹a|², and A, of columns that are parallel but for so much."""
    matrix = np.outer([0.7, 1.1], [1.3, 0.9]) + nearly * np.array([[1.0, 2.0], [3.0, -1.0]])
    f = lambda a: np.sum(lg.root(lambda z: matrix @ z - a, np.ones(2)) ** 2)
    return lg.grad(f), matrix


def test_a_gradient_that_is_rounding_elsewhere_is_refused_still():
    # Multipliers are known to 1e-2 of themselves, and nothing vanishes.
    with pytest.raises(lg.SingularSystem):
        norm_of_root(1e-14)[0](np.array([1.0, 2.0]))


@needs_wider
def test_a_gradient_that_doubles_do_not_know_is_found_in_a_wider_precision():
    gradient, matrix = norm_of_root(1e-12)
    with mpmath.workdps(60):
        exact = mpmath.matrix(matrix.tolist())
        z = mpmath.lu_solve(exact, mpmath.matrix([1, 2]))
        true = [float(v) for v in mpmath.lu_solve(exact.T, 2 * z)]
    np.testing.assert_allclose(gradient(np.array([1.0, 2.0])), true, rtol=1e-6)
