"""Second and third derivatives where a rule written plainly would cancel, or overflow."""

from itertools import permutations

import mpmath as mp
import numpy as np
import pytest
from scipy import special

import lagrad as lg

mp.mp.dps = 60


def twice(f):
    return lg.grad(lg.grad(f))


@pytest.mark.parametrize("far", [1.0, 1e2, 1e5, 1e6, 1e9])
@pytest.mark.parametrize("near", [1.0, 1e-3])
def test_a_hypotenuse_with_one_long_side(near, far):
    by_long = twice(lambda x: np.hypot(near, x))(far)
    assert by_long == pytest.approx(near**2 * (near**2 + far**2) ** -1.5, rel=1e-12)
    third = lg.grad(twice(lambda x: np.hypot(x, near)))(far)
    assert third == pytest.approx(-3 * far * near**2 * (near**2 + far**2) ** -2.5, rel=1e-12)
    h = lg.hessian(lambda v: np.hypot(v[0], v[1]))(np.array([near, far]))
    r3 = (near**2 + far**2) ** 1.5
    exact = np.array([[far * far, -near * far], [-near * far, near * near]]) / r3
    np.testing.assert_allclose(h, exact, rtol=1e-12)


@pytest.mark.parametrize("x", [1e-300, 1e-12, 1e-5, 0.5, -0.999999])
def test_inverse_functions_near_zero_and_near_their_ends(x):
    z = mp.mpf(x)
    oracles = {
        np.arcsin: (z * (1 - z * z) ** mp.mpf(-1.5), 1),
        np.arccos: (-z * (1 - z * z) ** mp.mpf(-1.5), 1),
        np.arctanh: (2 * z / (1 - z * z) ** 2, 2),
    }
    for f, (exact, _) in oracles.items():
        assert float(twice(f)(x)) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("x", [-1e4, -50.0, -5.0, -0.1, 0.0, 0.1, 5.0, 12.0])
def test_the_logarithm_of_the_normal_distribution(x):
    log = lambda t: mp.log(mp.ncdf(t))
    assert float(twice(special.log_ndtr)(x)) == pytest.approx(float(mp.diff(log, x, 2)), rel=1e-7)
    if abs(x) < 60:
        third = float(lg.grad(twice(special.log_ndtr))(x))
        assert third == pytest.approx(float(mp.diff(log, x, 3)), rel=1e-6)


@pytest.mark.parametrize("index", [37.0, 38.0, 60.0, 1e4])
def test_a_large_index_of_a_probit_adds_nothing(index):
    loss = lambda b: np.sum(special.log_ndtr(b * np.array([index, 0.5])))
    exact = mp.diff(lambda b: mp.log(mp.ncdf(b / 2)), 1, 2)
    assert float(lg.hessian(loss)(1.0)) == pytest.approx(float(exact), rel=1e-12)


def second_derivative_of_determinant(a):
    """By permutations: each product with two of its factors left out."""
    n = len(a)
    found = np.zeros((n, n, n, n))
    for p in permutations(range(n)):
        sign = (-1) ** sum(p[i] > p[j] for i in range(n) for j in range(i + 1, n))
        for i in range(n):
            for j in set(range(n)) - {i}:
                others = [a[k, p[k]] for k in range(n) if k not in (i, j)]
                found[i, p[i], j, p[j]] += sign * np.prod(others)
    return found


SINGULAR = {
    "rows alike but for rounding": [[-0.30000000000000004] * 2, [-30.0, -30.0]],
    "scales apart": [[1.0, 3.0], [1e6, 3e6]],
    "zero": np.zeros((2, 2)),
    "three": [[500.0, 700.0, -500.0], [0.6, -0.6, -0.6], [-500.0, 400.0, 500.0]],
    "rank one": np.outer([1.0, 2.0, 3.0], [3.0, -1.0, 2.0]),
    "four": [[1.0, 2, 3, 4], [2.0, 4, 6, 8], [0.0, 1, 5, -2], [3.0, -1, 0, 2]],
    "rank two of five": np.arange(25.0).reshape(5, 5),
    "regular": [[4.0, 1.0, 0.5], [0.3, 3.0, -1.0], [0.1, -0.2, 5.0]],
}


@pytest.mark.parametrize("case", SINGULAR)
def test_the_hessian_of_a_determinant(case):
    a = np.array(SINGULAR[case])
    exact = second_derivative_of_determinant(a)
    scale = np.abs(exact).max() or np.linalg.norm(a) ** (len(a) - 2)
    np.testing.assert_allclose(lg.hessian(np.linalg.det)(a), exact, rtol=0, atol=1e-13 * scale)
    way = np.random.default_rng(0).standard_normal(a.shape)
    along = lg.grad(lambda x: np.sum(lg.grad(np.linalg.det)(x) * way))(a)
    np.testing.assert_allclose(
        along, np.einsum("ijkl,kl->ij", exact, way), rtol=0, atol=1e-12 * scale
    )


def test_the_third_derivative_of_a_determinant():
    a = np.array([[4.0, 1.0, 0.5], [0.3, 3.0, -1.0], [0.1, -0.2, 5.0]])
    b = np.random.default_rng(1).standard_normal((3, 3))
    # det(a + t b) is a cubic in t, whose third derivative is 6 det b.
    f = lambda t: np.linalg.det(a + t * b)
    assert float(lg.grad(twice(f))(0.3)) == pytest.approx(6 * np.linalg.det(b), rel=1e-9)
