"""NumPy's corners: infinities, ties, kinks, zeros, precision."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.special

import lagrad as lg


def value_and_gradient(function, x):
    p = lg.Program()
    p.define("f", np.sum(function(p.parameter("x", value=x))))
    at = p.solve()
    return at["f"], at.gradient("f")["x"]


def test_logsumexp_and_softmax_are_right_at_minus_infinity():
    p = lg.Program()
    x = p.parameter("x", value=[0.0, 1.0, 2.0])
    mask = np.array([0.0, -np.inf, 0.0])
    p.define("total", lg.logsumexp(x + mask))
    p.define("weights", lg.softmax(x + mask))
    p.define("pair", np.logaddexp(x[0], x[1] + mask[1]))
    at = p.solve()
    expected = np.exp([0.0, -np.inf, 2.0]) / (1 + np.exp(2.0))
    np.testing.assert_allclose(at["total"], np.log(1 + np.exp(2.0)), rtol=1e-15)
    np.testing.assert_allclose(at["weights"], expected, rtol=1e-15)
    np.testing.assert_allclose(at.gradient("total")["x"], expected, rtol=1e-15)
    assert at.gradient("pair")["x"].tolist() == [1.0, 0.0, 0.0]


def test_logsumexp_of_nothing_but_minus_infinity():
    low = np.full((2, 3), -np.inf)
    assert lg.logsumexp(low) == -np.inf
    assert lg.logsumexp(low, axis=1).tolist() == [-np.inf, -np.inf]
    assert lg.softmax(low, axis=1).tolist() == np.zeros((2, 3)).tolist()
    p = lg.Program()
    x = p.parameter("x", value=[1.0, 2.0])
    p.define("bounded", np.maximum(lg.logsumexp(x + np.full(2, -np.inf)), -5.0))
    at = p.solve()
    assert at["bounded"] == -5.0
    assert at.gradient("bounded")["x"].tolist() == [0.0, 0.0]


def test_logsumexp_neither_overflows_nor_underflows():
    for shift in (-1e4, 0.0, 1e4):
        found = lg.logsumexp(np.array([0.0, 1.0]) + shift)
        np.testing.assert_allclose(found, scipy.special.logsumexp([0.0, 1.0]) + shift, rtol=1e-15)
    assert lg.logsumexp(np.inf) == np.inf


@pytest.mark.parametrize("function", [np.max, np.min])
def test_equal_extremes_share_the_derivative(function):
    assert value_and_gradient(function, [2.0, 2.0, 2.0, 2.0])[1].tolist() == [0.25] * 4


def test_kinks_take_the_mean_of_both_sides():
    assert value_and_gradient(np.abs, 0.0)[1] == 0.0
    assert value_and_gradient(lambda x: np.maximum(x, 0.0), 0.0)[1] == 0.5
    assert value_and_gradient(lambda x: np.clip(x, -1.0, 1.0), [-2.0, 0.0, 2.0])[1].tolist() == [
        0,
        1,
        0,
    ]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.0, 2.0, np.float64(2.0), np.array(2)])
def test_powers_at_zero_are_finite(exponent):
    value, gradient = value_and_gradient(lambda x: x**exponent, 0.0)
    assert value == 0.0 ** float(exponent)
    assert gradient == (1.0 if float(exponent) == 1 else 0.0)


def test_a_power_by_its_exponent_at_base_zero():
    p = lg.Program()
    x, n = p.parameter("x", value=0.0), p.parameter("n", value=2.0)
    p.define("f", x**n)
    gradient = p.solve().gradient("f")
    assert (gradient["x"], gradient["n"]) == (0.0, 0.0)


def test_entropies_at_zero():
    p = lg.Program()
    x, y = p.parameter("x", value=0.0), p.parameter("y", value=2.0)
    p.define("f", scipy.special.xlogy(x, y) + scipy.special.xlog1py(x, y))
    at = p.solve()
    np.testing.assert_allclose(at.gradient("f")["x"], np.log(2) + np.log(3), rtol=1e-15)
    assert at.gradient("f")["y"] == 0.0


def test_log_ndtr_far_in_the_tail():
    # φ/Φ ~ −x for x → −∞ (Mills' ratio): 1/x − 1/x³ leads.
    value, gradient = value_and_gradient(scipy.special.log_ndtr, -40.0)
    np.testing.assert_allclose(gradient, 40.0 + 1 / 40.0 - 2 / 40.0**3, rtol=1e-8)


def test_reflected_operators_and_scalars_of_every_kind():
    p = lg.Program()
    x = p.parameter("x", value=np.float32(2.0))
    y = 1 / (3 - x) + 2**x + np.float32(1) * x + (-x) + (+x) + abs(x)
    assert y.dtype == np.float32
    assert (np.float64(1.0) * x).dtype == np.float64
    p.define("y", y)
    np.testing.assert_allclose(p.solve()["y"], 1 + 4 + 2 + 2, rtol=1e-6)


def test_stop_gradient_holds_a_factor_constant():
    assert value_and_gradient(lambda x: x * lg.stop_gradient(x), 3.0) == (9.0, 3.0)
    assert lg.stop_gradient(3.0) == 3.0


def test_large_results_do_not_warn():
    p = lg.Program()
    x = p.parameter("x", value=-800.0)
    p.define("f", np.where(x > 0, np.exp(-x), 1.0) + np.exp(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert p.solve()["f"] == 1.0


def test_a_primitive_of_ones_own_works_in_both_modes_and_to_second_order():
    power = lg.primitive(
        lambda x, y: x**2 * y,
        vjp=lambda g, out, x, y: (2 * g * x * y, g * x**2),
        jvp=lambda t, out, x, y: 2 * x * y * t[0] + x**2 * t[1],
        name="scaled_square",
    )
    assert power(3.0, 2.0) == 18.0
    p = lg.Program()
    x, y = p.parameter("x", value=[3.0, 1.0]), p.parameter("y", value=[2.0, 5.0])
    p.define("f", np.sum(power(x, y)))
    at = p.solve()
    assert at.gradient("f")["x"].tolist() == [12.0, 10.0]
    assert at.tangent(y=[1.0, 1.0])["f"] == 10.0
    assert at.hessian_vector("f", x=[1.0, 0.0])["x"].tolist() == [4.0, 0.0]
    assert "scaled_square(x, y)" in str(p)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_one_rule_is_enough_for_both_modes_of_the_first_order(mode):
    import math

    rules = {
        "vjp": lambda g, y, x: (g * np.array([math.exp(v) for v in x]),),
        "jvp": lambda t, y, x: t[0] * np.array([math.exp(v) for v in x]),
    }
    exp = lg.primitive(lambda x: np.array([math.exp(v) for v in x]), **{mode: rules[mode]})
    p = lg.Program()
    x = p.parameter("x", value=[0.0, 1.0])
    z = p.unknown("z", shape=2)
    p.subject_to(3 * z == exp(x) + 0.1 * exp(z))
    p.define("f", np.sum(z))
    at = p.solve()
    exact = np.exp(at["x"]) / (3 - 0.1 * np.exp(at["z"]))
    np.testing.assert_allclose(at.gradient("f")["x"], exact, rtol=1e-12)
    np.testing.assert_allclose(at.jacobian("z", "x")["z"]["x"], np.diag(exact), rtol=1e-12)


def test_rules_that_do_not_fit_are_told():
    with pytest.raises(lg.UnsupportedFunction, match="needs a rule"):
        lg.primitive(np.sin)
    for rule in (lambda g, y, x: (g, g), lambda g, y, x: np.ones(7)):
        wrong = lg.primitive(np.sin, vjp=rule)
        p = lg.Program()
        p.define("f", wrong(p.parameter("x", value=1.0)))
        with pytest.raises(lg.ShapeMismatch, match="vjp returned"):
            p.solve().gradient("f")
