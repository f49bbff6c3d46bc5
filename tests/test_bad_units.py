"""Units change nothing: neither whether a system is singular, nor what lies beyond a kink."""

import mpmath
import numpy as np
import pytest

import lagrad as lg

UNITS = [
    [1e23, 1e-12, 300.0, 1e5],
    [1e12, 1e6, 1.0, 1e-6, 1e-12],
    [1e-18, 1e18, 1e-15, 1e12, 1.0, 1e-9],
    10.0 ** np.random.default_rng(0).integers(-12, 13, 40),
    10.0 ** np.random.default_rng(1).integers(-18, 19, 160),
]


def ring(units, law, own):
    """Each unknown, in its unit, by the next one; equations without a unit, or in their `own`."""
    p, n = lg.Program("ring"), len(units)
    a = p.parameter("a", value=1.3)
    x = [p.unknown(f"x{i}", start=s) for i, s in enumerate(units)]
    for i, s in enumerate(units):
        j = (i + 1) % n
        right = a + 0.3 * law(x[j] / units[j])
        p.subject_to(2 * x[i] == s * right if own else x[i] / s * 2.0 == right)
    return p


LAWS = {"linear": (lambda v: v, lambda v: v), "tanh": (np.tanh, mpmath.tanh)}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("units", UNITS, ids=len)
def test_a_ring_in_any_units(units, name, own):
    law, exact = LAWS[name]
    at = ring(units, law, own).solve()
    v = mpmath.findroot(lambda v: 2 * v - mpmath.mpf(1.3) - mpmath.mpf(0.3) * exact(v), 0.7)
    slope = 1 / (2 - 0.3 * mpmath.diff(exact, v))
    found = [float(at[f"x{i}"]) / s for i, s in enumerate(units)]
    np.testing.assert_allclose(found, float(v), rtol=1e-12)
    assert at.gradient("x0")["a"] / units[0] == pytest.approx(float(slope), rel=1e-9)


def test_an_array_in_any_units():
    s = np.array(UNITS[2])
    found = lg.root(lambda x: 2 * x / s - 1.3 - 0.3 * np.roll(x / s, -1), s)
    np.testing.assert_allclose(found / s, 1.3 / 1.7, rtol=1e-12)


@pytest.mark.parametrize("units", UNITS[:3], ids=len)
def test_what_is_singular_is_so_in_any_units(units):
    p, n = lg.Program("ring"), len(units)
    x = [p.unknown(f"x{i}", start=s) for i, s in enumerate(units)]
    for i, s in enumerate(units):
        p.subject_to(x[i] / s - x[(i + 1) % n] / units[(i + 1) % n] == 0)
    with pytest.raises(lg.SingularSystem):
        p.solve()


KINKS = {
    "maximum": lambda u: np.maximum(u, 0.2),
    "abs": lambda u: np.abs(u - 0.2) + 0.2,
    "where": lambda u: np.where(u > 0.2, u, 0.2),
}


@pytest.mark.parametrize("kink", KINKS)
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e6, 1e12])
def test_second_derivatives_near_no_kink(kink, size, factor):
    # A multiplier is as small as its equation is large, and is looked at by its own size.
    p = lg.Program()
    a, y = p.parameter("a", value=0.7), p.unknown("y", start=-0.1 * size)
    v = y / size
    p.subject_to(factor * v == factor * (KINKS[kink](a / (v * v + 0.7)) - 1.3))
    p.define("out", v * v)
    found = p.solve().hessian_vector("out", a=1.0)["a"]
    with mpmath.workdps(40):
        root = lambda a: mpmath.findroot(lambda v: v - a / (v * v + 0.7) + 1.3, -0.73)
        right = mpmath.diff(lambda a: root(a) ** 2, 0.7, 2)
    assert found == pytest.approx(float(right), rel=1e-7)


def test_second_derivatives_of_a_network_in_units_of_its_own():
    rng, n = np.random.default_rng(3), 30
    units, factors = 10.0 ** rng.integers(-6, 7, n), 10.0 ** rng.integers(-6, 7, n)
    others = rng.integers(0, n, (n, 2))

    def network(units, factors):
        p = lg.Program("network")
        a = p.parameter("a", value=0.7)
        x = [p.unknown(f"x{i}", start=s) for i, s in enumerate(units)]
        u = [v / s for v, s in zip(x, units, strict=True)]
        for i, (j, k) in enumerate(others):
            law = a + 0.3 * np.sin(u[j]) if i % 2 else 1 + 0.2 * np.maximum(u[j] - a * u[k], 0.05)
            p.subject_to(factors[i] * u[i] == factors[i] * law)
        p.define("out", sum(v * v for v in u))
        return p.solve().hessian_vector("out", a=1.0)["a"]

    plain = network(np.ones(n), np.ones(n))
    assert network(units, factors) == pytest.approx(plain, rel=1e-8)
