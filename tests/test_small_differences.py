"""Differences of nearly equal unknowns: what is left of them is known, or is refused by name.

What is little beside others, in their units, is not nothing: it is looked at in a wider precision.
"""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider

import lagrad as lg

ONE = mpmath.mpf(1)


def quotient(gap):
    """(y − x)/e with exp(x) = a + 1 and exp(y) = a + 1 + e."""
    p = lg.Program("quotient")
    a, e = p.parameter("a", value=1.0), p.parameter("e", value=gap)
    x, y, z = (p.unknown(n, start=1.0) for n in "xyz")
    p.subject_to(np.exp(x) == a + 1)
    p.subject_to(np.exp(y) == a + 1 + e)
    p.subject_to(z == (y - x) / e)
    return p


def exactly(gap):
    """Its derivatives by a and by e."""
    with mpmath.workdps(60):
        e = mpmath.mpf(gap)
        f = lambda a, e: (mpmath.log(a + 1 + e) - mpmath.log(a + 1)) / e
        by = lambda n: float(mpmath.diff(f, (ONE, e), n, h=e * mpmath.mpf(10) ** -15))
        return {"a": by((1, 0)), "e": by((0, 1))}


ASKED = {
    "gradient": lambda p, at: at.gradient("z"),
    "jacobian": lambda p, at: at.jacobian("z", ["a", "e"])["z"],
    "among others": lambda p, at: at.jacobian(["x", "z", "y"], ["a", "e"])["z"],
    "tangent": lambda p, at: {"e": at.tangent(e=1.0)["z"]},
    "adjoint": lambda p, at: (lambda s: {n: s[f"λ_{n}"] for n in "ae"})(p.adjoint("z").solve()),
}


@needs_wider
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("gap", [1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
def test_derivatives_of_a_difference_quotient(gap, asked):
    p = quotient(gap)
    at = p.solve()
    assert at["z"] == pytest.approx(float(mpmath.log1p(mpmath.mpf(gap) / 2) / gap), rel=1e-6)
    true = exactly(gap)
    try:
        found = ASKED[asked](p, at)
    except lg.SingularSystem:
        assert gap < 1e-5
        return
    for name in set(found) & set(true):
        assert float(found[name]) == pytest.approx(true[name], rel=3e-6), name


@needs_wider
@pytest.mark.parametrize("stiffness", [1e8, 1e10, 1e12, 1e14])
def test_the_energy_of_a_stiff_spring(stiffness):
    p = lg.Program("spring")
    k, x, y = p.parameter("k", value=stiffness), p.unknown("x"), p.unknown("y")
    p.subject_to(k * (x - y) == 1.0)
    p.subject_to(k * (y - x) + y == 2.0)
    p.define("energy", k * (x - y) ** 2)
    at = p.solve()
    bound = at.certificate.bounds["energy"]
    # The unknowns differ by 1/k, of which doubles of about 3 hold little.
    assert abs(float(at["energy"]) * stiffness - 1) <= bound
    assert bound <= 1e-3


CHAIN = np.array([1.0, 0.0])


def occupation(leak):
    """The share of the first of two states that are left at nearly every step."""
    rows = np.stack([np.stack([leak, 1 - leak]), np.stack([1 - 2 * leak, 2 * leak])])
    return lg.fixed_point(lambda p: p @ rows, CHAIN)


@pytest.mark.parametrize("leak", [0.1, 1e-2, 1e-3, 1e-5, 1e-7])
def test_totals_are_kept_whatever_steps_are_combined(leak):
    found = occupation(leak)
    first = (1 - 2 * leak) / (2 - 3 * leak)
    np.testing.assert_allclose(found, [first, 1 - first], rtol=1e-12)
    slope = lg.grad(lambda leak: occupation(leak)[0])(leak)
    assert slope == pytest.approx(-1 / (2 - 3 * leak) ** 2, rel=1e-9)


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("leak", [1e-2, 1e-4, 1e-6])
def test_rings_that_are_nearly_periodic(n, leak):
    drawn = np.random.default_rng(n).dirichlet(np.ones(n), n)
    rows = np.roll(np.eye(n), 1, axis=1) * (1 - leak) + leak * drawn
    left = np.linalg.svd(rows.T - np.eye(n))[2][-1]
    found = lg.fixed_point(lambda p: p @ rows, np.eye(n)[0])
    np.testing.assert_allclose(found, left / left.sum(), rtol=1e-9)


def test_potentials_of_a_large_network_are_one_of_many():
    # A grid without a ground, sparse: what two nodes differ by has derivatives, one alone has none.
    nx = 30
    number = np.arange(nx * nx).reshape(nx, nx)
    ends = np.concatenate(
        [
            np.stack([number[1:].ravel(), number[:-1].ravel()], axis=1),
            np.stack([number[:, 1:].ravel(), number[:, :-1].ravel()], axis=1),
        ]
    )
    rng = np.random.default_rng(0)
    demand = rng.standard_normal(nx * nx)
    demand -= demand.mean()
    conductances = rng.uniform(1, 2, len(ends))

    def balance(h, c):
        drop = h[ends[:, 0]] - h[ends[:, 1]]
        flow = c * (drop + 0.1 * drop**3)
        into = np.bincount(ends[:, 0], flow, minlength=nx * nx)
        return into - np.bincount(ends[:, 1], flow, minlength=nx * nx) - demand

    solve = lambda c: lg.root(lambda h: balance(h, c), np.zeros(nx * nx))
    differ = lambda c: (lambda h: h[0] - h[-1])(solve(c))
    assert np.abs(balance(solve(conductances), conductances)).max() < 1e-12
    slope = lg.grad(differ)(conductances)
    move = np.zeros(len(ends))
    move[7] = 1e-4
    wanted = (differ(conductances + move) - differ(conductances - move)) / 2e-4
    assert slope[7] == pytest.approx(float(wanted), rel=1e-5)
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda c: solve(c)[0])(conductances)


def test_second_derivatives_of_totals_that_are_kept():
    first = lambda leak: occupation(leak)[0]
    true = -6 / (2 - 3 * 0.1) ** 3
    assert lg.hessian(first)(0.1) == pytest.approx(true, rel=1e-10)
    assert lg.grad(lg.grad(first))(0.1) == pytest.approx(true, rel=1e-10)
    assert lg.hvp(first, 0.1, 1.0) == pytest.approx(true, rel=1e-10)
    halves = lambda leak: lg.iterate(lambda x: 0.5 * x + first(leak * x), 1.0, 3)

    def exact(leak):
        x = ONE
        for _ in range(3):
            x = x / 2 + (1 - 2 * leak * x) / (2 - 3 * leak * x)
        return x

    with mpmath.workdps(40):
        slopes = [float(mpmath.diff(exact, mpmath.mpf("0.1"), n)) for n in (1, 2)]
    assert lg.grad(halves)(0.1) == pytest.approx(slopes[0], rel=1e-10)
    assert lg.hessian(halves)(0.1) == pytest.approx(slopes[1], rel=1e-9)


def test_the_curvature_of_an_entropy_of_a_chain():
    rng = np.random.default_rng(0)
    base = rng.dirichlet(np.ones(5), 5)
    one, two = (m - m.mean(axis=1, keepdims=True) for m in rng.standard_normal((2, 5, 5)))

    def entropy(t):
        rows = base * (1 + 0.05 * t[0] * one + 0.03 * t[1] ** 2 * two)
        rows = rows / np.sum(rows, axis=1, keepdims=True)
        q = lg.fixed_point(lambda p: p @ rows, np.ones(5) / 5)
        return -np.sum(q * np.log(q))

    def exact(a, b):
        drift = a * mpmath.mpf("0.05") * mpmath.matrix(one) + b * b * mpmath.mpf(
            "0.03"
        ) * mpmath.matrix(two)
        rows = [[base[i, j] * (1 + drift[i, j]) for j in range(5)] for i in range(5)]
        rows = [[v / sum(row) for v in row] for row in rows]
        balance = mpmath.matrix(5, 5)
        for i in range(5):
            for j in range(5):
                balance[j, i] = 1 if j == 4 else rows[i][j] - (i == j)
        q = mpmath.lu_solve(balance, mpmath.matrix([0, 0, 0, 0, 1]))
        return -sum(v * mpmath.log(v) for v in q)

    with mpmath.workdps(40):
        at = (mpmath.mpf("0.7"), mpmath.mpf("0.4"))
        aa, ab, bb = (float(mpmath.diff(exact, at, n)) for n in ((2, 0), (1, 1), (0, 2)))
    found = lg.hessian(entropy)(np.array([0.7, 0.4]))
    np.testing.assert_allclose(found, [[aa, ab], [ab, bb]], rtol=1e-8)


def test_second_derivatives_of_what_does_not_depend_on_which_of_many():
    tied = lambda z, a: np.stack([z[0] + z[1] - a**2, 2 * (z[0] + z[1] - a**2)])
    total = lambda a: np.sum(lg.root(lambda z: tied(z, a), np.zeros(2)))
    assert lg.hessian(total)(1.5) == pytest.approx(2.0, rel=1e-10)
    assert lg.grad(lg.grad(total))(1.5) == pytest.approx(2.0, rel=1e-10)
    with pytest.raises(lg.SingularSystem):
        lg.hessian(lambda a: lg.root(lambda z: tied(z, a), np.zeros(2))[0])(1.5)
