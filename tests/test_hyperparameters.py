"""minimize and check_gradient, and the searches that use them."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import logistic_split
from scipy.optimize import rosen

import lagrad as lg

METHODS = (
    "L-BFGS-B",
    "BFGS",
    "CG",
    "Newton-CG",
    "trust-krylov",
    "trust-exact",
    "trust-ncg",
    "SLSQP",
)


@pytest.mark.parametrize("method", METHODS)
def test_minimize_finds_the_valley_of_rosenbrock(method):
    f = lambda p: (
        100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2 + np.sum((p["z"] - p["y"]) ** 2)
    )
    result = lg.minimize(f, {"x": -1.2, "y": 1.0, "z": np.zeros(2)}, method=method, tol=1e-10)
    assert result.x["x"] == pytest.approx(1.0, abs=1e-4)
    assert result.x["z"] == pytest.approx([1.0, 1.0], abs=1e-4)
    assert set(result.jac) == {"x", "y", "z"}


def test_minimize_without_derivatives_bounds_and_callbacks():
    seen = []
    result = lg.minimize(
        lambda x: np.sum((x - 2.0) ** 2), np.zeros(2), bounds=(None, 1.0), callback=seen.append
    )
    assert result.x.tolist() == [1.0, 1.0]
    assert len(seen) == result.nit
    assert seen[-1].shape == (2,)
    assert lg.minimize(rosen_of, np.zeros(2), method="Nelder-Mead").x == pytest.approx(
        [1, 1], abs=1e-3
    )
    both = lg.minimize(
        lambda p: (p["a"] - 3) ** 2 + (p["b"] + 3) ** 2,
        {"a": 0.0, "b": 0.0},
        bounds=({"a": -1.0, "b": -2.0}, {"a": 1.0, "b": 2.0}),
    )
    assert (both.x["a"], both.x["b"]) == (1.0, -2.0)


def rosen_of(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def test_rosenbrock_is_scipys():
    assert rosen_of(np.array([0.3, 0.7])) == pytest.approx(rosen([0.3, 0.7]))


def test_thirty_penalties_of_logistic_regression():
    X, y, V, u = logistic_split()

    def loss(a):
        train = lambda w: np.sum(np.logaddexp(0, -y * (X @ w))) + 0.5 * np.sum(np.exp(a) * w**2)
        return np.sum(np.logaddexp(0, -u * (V @ lg.argmin(train, np.zeros(30)))))

    result = lg.minimize(lg.compile(loss), np.zeros(30), bounds=(-6.0, 6.0), options={"maxfun": 25})
    assert result.nfev <= 25
    assert result.fun <= 4.628


BAD = {
    "outside": (
        lambda: lg.minimize(lambda x: x**2, 3.0, bounds=(0.0, 1.0)),
        lg.InvalidValue,
        r"start 3 is outside its bounds \[0, 1\]",
    ),
    "bounds": (lambda: lg.minimize(lambda x: x**2, 3.0, bounds=1.0), lg.InvalidValue, "pair"),
    "method": (lambda: lg.minimize(lambda x: x**2, 3.0, method="x"), lg.InvalidValue, "'x'"),
    "vector": (lambda: lg.minimize(lambda x: x, np.ones(2)), lg.InvalidFunction, "scalar"),
    "empty": (lambda: lg.minimize(lambda x: x, []), lg.InvalidFunction, "at least one"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    act, error, message = BAD[case]
    with pytest.raises(error, match=message):
        act()


def test_check_gradient_reports_both_modes_and_the_second_order():
    f = lambda p: np.sum(np.exp(p["a"]) * p["b"]) + np.sum(p["b"] ** 3)
    point = {"a": np.array([0.1, 2.0]), "b": np.array([1e3, -1e3])}
    report = lg.check_gradient(f, point, order=2)
    assert report.passed
    assert [c.what for c in report.comparisons] == ["forward mode", "reverse mode", "second order"]
    assert report.error < 1e-7
    assert all(c.correlation == pytest.approx(1.0) for c in report.comparisons)
    assert "relative error" in str(report)


def test_check_gradient_names_the_worst_entry():
    wrong = lg.primitive(
        lambda x: np.sin(x),
        vjp=lambda g, y, x: (g * np.cos(x) * np.array([1.0, 1.0, 1.5]),),
        name="wrong",
    )
    with pytest.raises(lg.WrongDerivative, match=r"worst entry: w\[2\]: derivative .* difference"):
        lg.check_gradient(lambda w: np.sum(wrong(w)), np.array([0.1, 0.2, 0.3]))


def test_check_gradient_finds_a_wrong_second_order_alone():
    half = lg.primitive(
        lambda x: x**3, vjp=lambda g, y, x: (g * lg.stop_gradient(3 * x**2),), name="cubed"
    )
    assert lg.check_gradient(lambda x: half(x), 1.5).passed
    with pytest.raises(lg.WrongDerivative, match="second order"):
        lg.check_gradient(lambda x: half(x), 1.5, order=2)


def test_check_gradient_refuses_what_it_cannot_check():
    with pytest.raises(lg.NotFinite):
        lg.check_gradient(lambda x: np.log(x), 1e-9)
    with pytest.raises(lg.InvalidValue, match="order"):
        lg.check_gradient(np.sin, 1.0, order=3)
    with pytest.raises(lg.InvalidValue, match="one argument"):
        lg.check_gradient(np.add, 1.0, 2.0, order=2)
