"""NumPy's corners: infinities, ties, kinks, zeros, precision."""

from __future__ import annotations

import pickle
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


def test_definitions_of_conditions_are_numbers():
    p = lg.Program()
    x = p.parameter("x", value=2.0)
    a, b = p.define("a", x > 0), p.define("b", x > 1)
    p.define("sum", a + b)
    p.define("difference", a - b)
    at = p.solve()
    assert (at["sum"], at["difference"]) == (2.0, 0.0)


def test_padding_that_computes_is_refused_and_that_which_moves_is_numpys():
    p = lg.Program()
    x = p.parameter("x", value=[1.0, 10.0, 3.0, 7.0])
    for mode in ("mean", "median", "maximum", "minimum", "linear_ramp", "nonsense"):
        with pytest.raises(lg.UnsupportedFunction, match=mode):
            np.pad(x, 2, mode=mode)
    p.define("wrapped", np.pad(x, 2, mode="wrap"))
    p.define("framed", np.pad(x, (1, 2), constant_values=5.0))
    at = p.solve()
    assert at["wrapped"].tolist() == np.pad(at["x"], 2, mode="wrap").tolist()
    assert at["framed"].tolist() == np.pad(at["x"], (1, 2), constant_values=5.0).tolist()


def test_split_at_unsorted_places_is_numpys():
    p = lg.Program()
    x = p.parameter("x", value=np.arange(5.0))
    for k, places in enumerate(([3, 1], [1, 1, 4], 5, [-2])):
        for i, piece in enumerate(np.split(x, places)):
            p.define(f"piece_{k}_{i}", piece)
    at = p.solve()
    for k, places in enumerate(([3, 1], [1, 1, 4], 5, [-2])):
        for i, piece in enumerate(np.split(np.arange(5.0), places)):
            assert at[f"piece_{k}_{i}"].tolist() == piece.tolist()


def test_average_takes_its_axes_in_the_order_given():
    rng = np.random.default_rng(0)
    data, weights = rng.random((2, 3, 3)), rng.random((3, 3))
    p = lg.Program()
    x = p.parameter("x", value=data)
    p.define("f", np.average(x, axis=(2, 1), weights=weights))
    np.testing.assert_allclose(p.solve()["f"], np.average(data, axis=(2, 1), weights=weights))


def test_the_mixed_derivative_of_a_power_at_exponent_zero():
    p = lg.Program()
    x, n = p.parameter("x", value=2.0), p.parameter("n", value=0.0)
    p.define("f", x**n)
    at = p.solve()
    assert at.hessian_vector("f", n=1.0)["x"] == 0.5
    np.testing.assert_allclose(at.hessian_vector("f", n=1.0)["n"], np.log(2) ** 2)


def test_equal_eigenvalues_have_a_gradient_of_their_sum_and_none_of_the_vectors():
    assert (
        value_and_gradient(lambda x: np.linalg.eigh(x)[0], np.eye(3))[1].tolist()
        == np.eye(3).tolist()
    )
    with pytest.raises(lg.NotFinite):
        value_and_gradient(lambda x: np.abs(np.linalg.eigh(x)[1]), np.eye(3))


def test_the_gradient_of_a_singular_determinant_is_the_cofactors():
    matrix = np.array([[1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(
        value_and_gradient(np.linalg.det, matrix)[1], [[4.0, -2.0], [-2.0, 1.0]], atol=1e-14
    )
    p = lg.Program()
    eigenvalue = p.unknown("e", start=4.0)
    p.subject_to(np.linalg.det(matrix + 1.0 - eigenvalue * np.eye(2)) == 0)
    np.testing.assert_allclose(p.solve()["e"], np.linalg.eigvalsh(matrix + 1.0)[1], rtol=1e-14)


def test_newton_backtracks_out_of_matrices_that_have_no_answer():
    p = lg.Program()
    a, z = p.parameter("a", value=0.1), p.unknown("z", start=10.0)
    p.subject_to(np.sum(np.linalg.cholesky(z * np.eye(2))) == a)
    np.testing.assert_allclose(p.solve()["z"], 0.05**2, rtol=1e-12)
    for function in (np.linalg.inv, lambda x: np.linalg.solve(x, np.ones(2))):
        with pytest.raises(lg.NotFinite, match="'f'"):
            value_and_gradient(function, np.ones((2, 2)))


def test_log_ndtr_keeps_its_digits_far_out():
    for x in (-1e8, -1e4, -5.0, 0.0, 5.0):
        import mpmath

        with mpmath.workdps(60):
            exact = mpmath.npdf(x) / mpmath.ncdf(x) if x > -1e5 else mpmath.mpf(-x)
        np.testing.assert_allclose(
            value_and_gradient(scipy.special.log_ndtr, x)[1], float(exact), rtol=1e-12
        )


def test_an_output_that_depends_on_nothing_smoothly_has_itself_as_multiplier():
    p = lg.Program()
    x = p.parameter("x", value=0.3)
    p.define("f", np.floor(x))
    at = p.solve()
    assert at.multipliers("f")["f"] == 1.0
    assert at.adjoint_system("f").solve()["f"] == 1.0
    assert p.adjoint("f").solve()["λ_f"] == 1.0
    assert at.gradient("f")["x"] == 0.0


def test_step_functions_of_an_unknown_make_no_linear_block():
    p = lg.Program()
    x, z = p.parameter("x", value=3.0), p.unknown("z")
    p.subject_to(z + np.where(z > 0.5, 1.0, 0.0) == x)
    assert p.solve()["z"] == 2.0
    assert p.solve().gradient("z")["x"] == 1.0
    namespace = {}
    exec(p.source(), namespace)
    np.testing.assert_allclose(namespace["solve"]()["z"], 2.0, rtol=1e-9)


def sum_of_squares(x):
    return np.sum(x * x)


def test_what_can_be_pickled_and_what_says_that_it_cannot():
    for function in (lg.grad(sum_of_squares), lg.compile(lg.grad(sum_of_squares))):
        again = pickle.loads(pickle.dumps(function))
        np.testing.assert_array_equal(again(np.ones(2)), [2.0, 2.0])
    assert float(pickle.loads(pickle.dumps(lg.compile(sum_of_squares)))(np.ones(2))) == 2.0
    p = lg.Program()
    x, y = p.parameter("x", value=2.0), p.unknown("y", start=1.0)
    p.subject_to(y * y == x)
    for held in (p, p.solve(), p.solve().gradient("y"), lg.trace(sum_of_squares, np.ones(2))):
        with pytest.raises(lg.UnsupportedFunction, match="cannot be pickled"):
            pickle.dumps(held)
    # The remedies: numbers, and the text.
    numbers, text = pickle.loads(pickle.dumps((dict(p.solve()), p.source())))
    module = {}
    exec(text, module)
    assert module["solve"]()["y"] == pytest.approx(float(numbers["y"]), rel=1e-12)


def test_large_numbers_overflow_in_no_check():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lg.hessian(lambda x: np.hypot(x[0], x[1]))(np.array([3e-160, 4e-160]))
    np.testing.assert_allclose(found, np.array([[0.64, -0.48], [-0.48, 0.36]]) / 5e-160, rtol=1e-12)
