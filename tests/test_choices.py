"""What a choice leaves aside contributes nothing, whatever it holds: NaN, infinity, no slope."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

roots = lambda x: np.where(x >= 0, x**2, np.sqrt(-x))
PAIR = np.array([2.0, -4.0])
NESTED = lambda x: np.sum(
    np.where(x > 1, np.log(x - 1), np.where(x > 0, np.sqrt(x), np.exp(-1 / x)))
)
SHARED = lambda x, s: np.where(x > 1, s, 0.0) + 3 * s
# Slopes by hand.
CASES = {
    "a root of a negative number": (lambda: lg.grad(roots)(2.0), 4.0),
    "an overflow": (lambda: lg.grad(lambda a: np.where(a <= 0, np.exp(a), 1 + a))(1000.0), 1.0),
    "a quotient by zero": (
        lambda: lg.grad(lambda n: np.sum(np.where(n == 0, 0.0, 1 / n)))(np.array([0.0, 2.0])),
        [0.0, -0.25],
    ),
    "a logarithm of zero": (
        lambda: lg.grad(lambda x: np.sum(np.where(x > 0, x * np.log(x), 0.0)))(
            np.array([1.0, 0.0, -1.0])
        ),
        [1.0, 0.0, 0.0],
    ),
    "a choice in a choice": (
        lambda: lg.grad(NESTED)(np.array([2.0, 0.25, -1.0])),
        [1.0, 1.0, np.exp(1.0)],
    ),
    "forwards": (lambda: lg.jvp(roots, (2.0,), (1.0,))[1], 4.0),
    "a Jacobian": (lambda: lg.jacobian(roots)(PAIR), [[4.0, 0.0], [0.0, -0.25]]),
    "a sparse one": (
        lambda: lg.jacobian(roots, sparse=True)(PAIR).toarray(),
        [[4.0, 0.0], [0.0, -0.25]],
    ),
    "compiled": (lambda: lg.compile(lg.grad(roots))(2.0), 4.0),
    "what an index leaves out": (
        lambda: lg.grad(lambda x: np.sum(np.sqrt(x)[1:]))(np.array([0.0, 4.0])),
        [0.0, 0.25],
    ),
    "what an index leaves out, of no value": (
        lambda: lg.grad(lambda x: np.sum(np.log(x)[1:]))(np.array([-1.0, 4.0])),
        [0.0, 0.25],
    ),
    "the smaller of two": (
        lambda: lg.grad(lambda x: np.sum(np.maximum(np.sqrt(x), 1.0)))(np.array([0.0, 4.0])),
        [0.0, 0.25],
    ),
    "used elsewhere too": (lambda: lg.grad(lambda x: SHARED(x, np.sqrt(x)))(4.0), 1.0),
    "a scalar chosen beside an array": (
        lambda: lg.grad(lambda x: np.sum(np.where(np.arange(3.0) > 0.5, np.sqrt(x), x)))(4.0),
        1.5,
    ),
    "in a fixed point": (
        lambda: lg.grad(
            lambda a: lg.fixed_point(lambda z: np.where(z > 0, 0.5 * (z + a / z), np.sqrt(-z)), 1.0)
        )(2.0),
        0.5 / np.sqrt(2.0),
    ),
    "in a root": (
        lambda: lg.grad(lambda a: lg.root(lambda z: np.where(z > 0, z * z - a, np.log(-z)), 1.0))(
            2.0
        ),
        0.5 / np.sqrt(2.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_aside_contributes_nothing(name):
    call, expected = CASES[name]
    np.testing.assert_allclose(call(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        np.sqrt,
        lambda x: np.sqrt(x) ** 2,  # a zero that is a number decides nothing
        lambda x: np.where(x >= 0, np.sqrt(x), x),
        lambda x: np.where(x > 1, 0.0, np.sqrt(x)) + x,
    ],
)
def test_what_is_taken_and_has_no_slope_is_named(function):
    with pytest.raises(lg.NotFinite, match="not differentiable"):
        lg.grad(function)(0.0)


def test_a_declared_system_with_a_branch_beyond_its_domain():
    p = lg.Program()
    a, z = p.parameter("a", value=np.array([2.0, 0.5])), p.unknown("z", shape=2, start=1.0)
    p.subject_to(np.where(z > 0, z * z, np.sqrt(z - 5.0)) == a)
    p.define("f", np.sum(z))
    at = p.solve()
    np.testing.assert_allclose(at["z"], np.sqrt([2.0, 0.5]), rtol=1e-12)
    np.testing.assert_allclose(at.gradient("f")["a"], 0.5 / np.sqrt([2.0, 0.5]), rtol=1e-9)
    np.testing.assert_allclose(at.tangent(a=np.ones(2))["z"], 0.5 / np.sqrt([2.0, 0.5]), rtol=1e-9)


def test_sparse_jacobians_follow_a_choice_from_point_to_point():
    f = lambda x: np.where(x > 0, x**2, 3 * x) + np.maximum(x, 1.0)
    jacobian = lg.compile(lg.jacobian(f, sparse=True))
    for x in (np.array([2.0, -1.0, 0.5]), np.array([-2.0, 3.0, 1.5]), np.array([0.5, 0.2, -3.0])):
        slope = np.where(x > 0, 2 * x, 3.0) + (x > 1)
        np.testing.assert_allclose(jacobian(x).toarray(), np.diag(slope))
        np.testing.assert_allclose(lg.jacobian(f)(x), np.diag(slope))


def test_large_blocks_with_choices():
    n = 700
    p = lg.Program()
    a, z = p.parameter("a", value=np.linspace(-1, 2, n)), p.unknown("z", shape=n)
    neighbours = 0.1 * (np.roll(z, 1) + np.roll(z, -1))
    p.subject_to(z + np.where(z > 0, z**2, 0.5 * z) - neighbours == a)
    p.define("f", np.sum(z**2))
    at = p.solve()
    step = 1e-6 * np.cos(np.arange(n))
    up, down = p.solve(a=at["a"] + step)["f"], p.solve(a=at["a"] - step)["f"]
    assert at.gradient("f")["a"] @ step == pytest.approx((up - down) / 2, rel=1e-6)
    for moved in (0.0, 0.5):
        again = p.solve(a=at["a"] - moved)
        assert np.isfinite(again.gradient("f")["a"]).all()


TRUTHS = {
    "and": (lambda x: (x > 0) & (x < 1), [False, True, False]),
    "or": (lambda x: (x < 0) | (x > 1), [True, False, True]),
    "not": (lambda x: ~(x > 0), [True, False, False]),
    "xor": (lambda x: (x > 0) ^ np.array([True, True, False]), [True, False, True]),
    "with an array": (lambda x: np.array([True, False, True]) & (x > 0), [False, False, True]),
}


@pytest.mark.parametrize(("chosen", "wanted"), TRUTHS.values(), ids=TRUTHS)
def test_comparisons_are_joined_by_signs(chosen, wanted):
    x = np.array([-1.0, 0.5, 2.0])
    found = lg.grad(lambda x: np.sum(np.where(chosen(x), x**2, 0.0)))(x)
    np.testing.assert_array_equal(found, np.where(wanted, 2 * x, 0))


def test_bits_of_numbers_are_refused_by_name():
    with pytest.raises(lg.UnsupportedFunction, match="comparisons"):
        lg.grad(lambda x: np.sum(x & 1))(np.ones(2))
