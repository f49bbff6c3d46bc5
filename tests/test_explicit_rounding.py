"""Derivatives and values of formulas of which rounding has left little: right, or an error."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider
from scipy.special import erf, erfc, erfcx, log_ndtr, ndtr

import lagrad as lg
from lagrad.solving import long_doubles
from lagrad.solving.certified_sweep import CertifiedSweep

MODES = {
    "grad": lambda f, x: lg.grad(f)(x),
    "jvp": lambda f, x: lg.jvp(f, (x,), (1.0,))[1],
    "solution": lambda f, x: lg.trace(f, x).solve().gradient("output")["x"],
    "compiled": lambda f, x: lg.compile(lg.grad(f))(x),
}


def right_or_named(f, x, slope, mode, rel=1e-6):
    """Whether a derivative is found; it is right then."""
    try:
        found = float(MODES[mode](f, x))
    except lg.SingularSystem:
        return False
    assert found == pytest.approx(float(slope), rel=rel), (x, mode)
    return True


def series(first, ratio, n=100):
    """A series, by its first term and the ratio of each to the one before."""

    def f(x):
        term = total = first(x)
        for k in range(1, n):
            term = term * ratio(x, k)
            total = total + term
        return total

    return f


ONE = lambda x: 1.0
SERIES = {
    "exp": (series(ONE, lambda x, k: x / k), mpmath.exp),
    "cos": (series(ONE, lambda x, k: -x * x / ((2 * k - 1) * (2 * k))), mpmath.cos),
    "sin": (series(lambda x: x, lambda x, k: -x * x / ((2 * k) * (2 * k + 1))), mpmath.sin),
    "J0": (series(ONE, lambda x, k: -((x / 2) ** 2) / (k * k)), lambda x: mpmath.besselj(0, x)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SERIES)
def test_series_of_terms_that_take_one_another_away(name, mode):
    f, exact = SERIES[name]
    found = []
    for x in [-1.5, 0.5, 3.0, 8.0, -12.0, -20.0, -25.0, -28.0, 31.0, 38.0]:
        with mpmath.workdps(60):
            slope = mpmath.diff(exact, mpmath.mpf(x))
        found.append(right_or_named(f, x, slope, mode))
    assert found[:3] == [True] * 3


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("x", [-25.0, -28.0, 3.0, 38.0, 40.0])
def test_their_values_have_honest_bounds(name, x):
    f, exact = SERIES[name]
    at = lg.trace(f, x).solve()
    found = float(at["output"])
    with mpmath.workdps(60):
        error = float(abs(found - exact(mpmath.mpf(x))))
    assert error <= 3 * at.certificate.error_bound * abs(found) + 1e-13


def logistic(n):
    def f(x):
        z = 0.3
        for _ in range(n):
            z = x * z * (1 - z)
        return z

    return f


@pytest.mark.parametrize("mode", MODES)
def test_chaos_of_any_length_is_named(mode):
    for n in (5, 20, 60, 120, 150, 200, 1000):
        z, slope = mpmath.mpf("0.3"), mpmath.mpf(0)
        with mpmath.workdps(1000):
            z = mpmath.mpf(0.3)
            for _ in range(n):
                slope = z * (1 - z) + mpmath.mpf(3.9) * (1 - 2 * z) * slope
                z = mpmath.mpf(3.9) * z * (1 - z)
        found = right_or_named(logistic(n), 3.9, slope, mode)
        assert found == (n < 30)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("t", [0.5, 2.0, 4.0, 6.0, 6.4, 6.8, 7.5, 9.0])
def test_the_tail_of_an_error_function(mode, t):
    with mpmath.workdps(60):
        x = mpmath.mpf(t)
        slope = -mpmath.erfc(x) + 2 * x / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)
    found = right_or_named(lambda x: x * (erf(x) - 1), t, slope, mode)
    assert found or t > 3.5
    assert right_or_named(lambda x: -x * erfc(x), t, slope, mode)


@pytest.mark.parametrize("strike", [45.0, 46.0, 48.0, 50.0, 60.0, 90.0, 110.0])
def test_the_delta_of_a_put_by_the_parity_with_a_call(strike):
    spot, time, rate, vol = 100.0, 0.25, 0.01, 0.2

    def first(s, log, root):
        return (log(s / strike) + (rate + 0.5 * vol * vol) * time) / (vol * root(time))

    def put(x):
        d = first(x, np.log, np.sqrt)
        call = x * ndtr(d) - strike * np.exp(-rate * time) * ndtr(d - vol * np.sqrt(time))
        return call - x

    with mpmath.workdps(50):
        d = mpmath.log(mpmath.mpf(spot) / strike)
        d = (d + (rate + mpmath.mpf(0.5) * vol * vol) * time) / (vol * mpmath.sqrt(time))
        slope = -mpmath.ncdf(-d)
    found = right_or_named(put, spot, slope, "grad")
    assert found or strike < 55


LONGER = {
    "erf": (long_doubles.erf, mpmath.erf, erf),
    "erfc": (long_doubles.erfc, mpmath.erfc, erfc),
    "erfcx": (long_doubles.erfcx, lambda x: mpmath.exp(x * x) * mpmath.erfc(x), erfcx),
    "ndtr": (long_doubles.ndtr, mpmath.ncdf, ndtr),
    "log_ndtr": (long_doubles.log_ndtr, lambda x: mpmath.log(mpmath.ncdf(x)), log_ndtr),
}


@needs_wider
@pytest.mark.parametrize("name", LONGER)
def test_error_functions_in_long_doubles(name):
    ours, exact, scipys = LONGER[name]
    xs = [*np.linspace(-9, 9, 73), 1e-300, -1e-10, np.nextafter(2, 0), np.nextafter(2, 3)]
    with np.errstate(all="ignore"), mpmath.workdps(40):
        found = ours(np.array(xs, dtype=np.longdouble))
        for x, value in zip(xs, found, strict=True):
            high = float(value)
            close = mpmath.mpf(high) + mpmath.mpf(float(value - high))
            true = exact(mpmath.mpf(float(x)))
            assert abs(close - true) <= 6e-17 * abs(true), x
        ends = np.array([-np.inf, np.inf, np.nan])
        np.testing.assert_array_equal(ours(ends.astype(np.longdouble)), scipys(ends))


def test_a_compiled_function_looks_at_every_call():
    # After its second call on arrays it is one plan, run for whatever it is given.
    f = lambda t: np.sum((1 - np.cos(t)) / t**2)
    slope = lg.compile(lg.grad(f))
    for _ in range(4):
        np.testing.assert_allclose(slope(np.ones(2)), np.sin(1) - 2 + 2 * np.cos(1), rtol=1e-12)
        for bad in ([1e-7, 1e-7], [1e-7, 1e-6]):
            with pytest.raises(lg.SingularSystem, match="nearly equal numbers cancel"):
                slope(np.array(bad))


def test_a_compiled_function_of_many_scalars_looks_at_every_call():
    def f(x):
        total = 0.0
        for k in range(300):
            total = total + x[k % 3] * 0.5**k
        return total + (1 - np.cos(x[0])) / x[0] ** 2

    slope = lg.compile(lg.grad(f))
    for _ in range(4):
        assert slope(np.ones(3))[1] == pytest.approx(4 / 7, rel=1e-12)
        with pytest.raises(lg.SingularSystem, match="nearly equal numbers cancel"):
            slope(np.array([1e-7, 1.0, 1.0]))


RNG = np.random.default_rng(0)
SAMPLES = RNG.standard_normal((500, 20))
WEIGHTS = 3 * RNG.standard_normal((20, 5))
CLASSES = np.eye(5)[(SAMPLES @ WEIGHTS).argmax(axis=1)]


def entropy(w):
    z = SAMPLES @ w
    return np.mean(lg.logsumexp(z, axis=1) - np.sum(z * CLASSES, axis=1))


def entropy_by_hand(w):
    z = SAMPLES @ w
    top = np.max(z, axis=1, keepdims=True)
    sums = np.log(np.sum(np.exp(z - top), axis=1)) + top[:, 0]
    return np.mean(sums - np.sum(z * CLASSES, axis=1))


def network(second):
    z = np.tanh(SAMPLES @ HIDDEN) @ second
    return np.mean(lg.logsumexp(z, axis=1) - np.sum(z * CLASSES, axis=1))


HIDDEN = RNG.standard_normal((20, 20))


@pytest.mark.parametrize("times", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("loss", [entropy, entropy_by_hand, network])
def test_a_loss_of_which_little_is_left_is_looked_at_quickly(monkeypatch, loss, times):
    # Of sure predictions next to nothing is left, which no derivative is made of; and the largest
    # of some numbers less itself is zero, as it should be.
    slow = []
    taken = CertifiedSweep._taken
    monkeypatch.setattr(CertifiedSweep, "_taken", lambda self: (slow.append(1), taken(self))[1])
    slope, given = lg.compile(lg.grad(loss)), times * WEIGHTS
    for _ in range(3):
        slow.clear()
        found = slope(given)
    assert not slow
    way = RNG.standard_normal(WEIGHTS.shape)
    change = float(loss(given + 1e-6 * way) - loss(given - 1e-6 * way)) / 2e-6
    assert np.sum(found * way) == pytest.approx(change, rel=1e-6, abs=1e-9)


VERSINE = lambda x: (1 - np.cos(x)) / x**2
INSIDE = {
    "grad": lambda x: lg.grad(VERSINE)(x),
    "jvp": lambda x: lg.jvp(VERSINE, (x,), (1.0,))[1],
    "vjp": lambda x: lg.vjp(VERSINE, x)[1](1.0),
    "hvp": lambda x: lg.hvp(VERSINE, x, 1.0),
    "jacobian": lambda x: lg.jacobian(VERSINE)(x),
    "a step of Newton's": lambda x: x - lg.grad(VERSINE)(x) / lg.hvp(VERSINE, x, 1.0),
}


@pytest.mark.parametrize("name", INSIDE)
def test_derivatives_inside_a_compiled_function_are_looked_at(name):
    compiled = lg.compile(INSIDE[name])
    for _ in range(3):
        assert float(compiled(1.0)) == pytest.approx(float(INSIDE[name](1.0)), rel=1e-12)
        with pytest.raises(lg.SingularSystem, match=r"numbers cancel|is rounding"):
            compiled(1e-5)
    chaos = lg.compile(lambda x: lg.grad(logistic(80))(x))
    with pytest.raises(lg.SingularSystem):
        chaos(3.9)


def test_sparse_jacobians_are_looked_at():
    good, bad = np.array([1.0, 2.0]), np.array([1e-4, 2e-4])
    found = lg.jacobian(VERSINE, sparse=True)(good).diagonal()
    np.testing.assert_allclose(found, np.diag(lg.jacobian(VERSINE)(good)), rtol=1e-12)
    total = lambda v: np.sum(VERSINE(v))
    for transform in (lg.jacobian(VERSINE, sparse=True), lg.hessian(total, sparse=True)):
        for f in (transform, lg.compile(transform)):
            with pytest.raises(lg.SingularSystem, match="nearly equal numbers cancel"):
                f(bad)


def of_many_scalars(x):
    total = 0.0
    for k in range(500):
        total = total + x[k % 3] * 0.5 ** (k % 40) * x[(k + 1) % 3]
    return total


def test_derivatives_inside_that_have_no_inputs_or_are_not_used():
    # Of no floats, of whole numbers, of one entry among several; of many scalars on a tape.
    slope = lg.grad(VERSINE)(1.0)
    alone, times = (
        lg.compile(lambda: lg.grad(VERSINE)(1.0)),
        lg.compile(lambda n: n * lg.grad(VERSINE)(1.0)),
    )
    inner = lambda p: p["a"] ** 2 + np.sum(p["b"] ** 3)
    one = lg.compile(lambda x: lg.grad(inner)({"a": x, "b": x * np.ones(3)})["a"])
    first = lg.compile(lambda x: lg.grad(of_many_scalars)(x)[0])
    also = lg.compile(lambda x: lg.grad(lambda y: of_many_scalars(y) + VERSINE(y[0]))(x)[0])
    at = np.array([1.0, 2.0, 3.0])
    for _ in range(3):
        assert (alone(), times(2), times(3)) == (slope, 2 * slope, 3 * slope)
        assert one(2.0) == 4.0
        assert first(at) == pytest.approx(lg.grad(of_many_scalars)(at)[0], rel=1e-14)
        with pytest.raises(lg.SingularSystem, match="numbers cancel"):
            also(np.array([1e-7, 2.0, 3.0]))
