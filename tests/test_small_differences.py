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
