"""Rounding within the steps of loops: what cancels there is named, or is part of a bound."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider

import lagrad as lg

# How a step is repeated n times.
WAYS = {
    "iterate": lambda step, z, n: lg.iterate(step, z, n),
    "checkpoints": lambda step, z, n: lg.iterate(step, z, n, checkpoints=3),
    "scan": lambda step, z, n: lg.scan(lambda z, _: (step(z), z), z, np.zeros(n))[0],
    "while": lambda step, z, n: lg.while_loop(
        lambda s: s[1] < n, lambda s: (step(s[0]), s[1] + 1), (z, 0.0), max_steps=n + 1
    )[0],
}
DERIVATIVES = {
    "grad": lambda f, x: lg.grad(f)(x),
    "jvp": lambda f, x: lg.jvp(f, (x,), (1.0,))[1],
    "compiled": lambda f, x: lg.compile(lg.grad(f))(x),
    "solution": lambda f, x: lg.trace(f, x).solve().gradient("output")["r"],
}


def variance(r, way, n):
    """A Kalman filter's, by the usual update, from one that is all but infinite."""
    return np.log(WAYS[way](lambda p: p - p * p / (p + r) + 0.1 * r, 1e6, n))


def exactly(r, n):
    with mpmath.workdps(60):
        p, r = mpmath.mpf(10) ** 6, mpmath.mpf(r)
        for _ in range(n):
            p = p - p * p / (p + r) + mpmath.mpf(0.1) * r
        return float(mpmath.log(p))


@pytest.mark.parametrize("how", DERIVATIVES)
@pytest.mark.parametrize("way", WAYS)
def test_what_a_first_step_has_lost_is_named(way, how):
    # Of its first variance, r, the filter knows what is left of 1e6; later ones forget that.
    with pytest.raises(lg.SingularSystem, match="cancels much in its steps"):
        DERIVATIVES[how](lambda r: variance(r, way, 3), 1e-8)


@pytest.mark.parametrize("how", DERIVATIVES)
@pytest.mark.parametrize("way", WAYS)
def test_what_later_steps_forget_does_no_harm(way, how):
    slope = DERIVATIVES[how](lambda r: variance(r, way, 300), 1e-8)
    assert float(slope) == pytest.approx(1e8, rel=1e-9)  # the variance is in proportion to r


@pytest.mark.parametrize("steps", [1, 3, 300])
@pytest.mark.parametrize("r", [1.0, 1e-3, 1e-8])
@pytest.mark.parametrize("way", WAYS)
def test_the_bound_of_a_value_has_what_steps_lose(way, r, steps):
    at = lg.trace(lambda r: variance(r, way, steps), r).solve()
    error = abs(float(at["output"]) / exactly(r, steps) - 1)
    assert error <= 3 * at.certificate.error_bound + 1e-15
    assert at.certificate.error_bound < 1e3 * error + 1e-12


def bessel(x, n=120):
    """J₀ by its series, as a loop."""

    def step(s, k):
        term = -s[1] * x * x / (4 * k * k)
        return (s[0] + term, term), s[0]

    return lg.scan(step, (1.0, 1.0), np.arange(1.0, n))[0][0]


@pytest.mark.parametrize("x", [5.0, 30.0, 38.0, 40.0])
def test_a_series_of_terms_that_take_one_another_away(x):
    at = lg.trace(bessel, x).solve()
    found = float(at["output"])
    error = abs(found - float(mpmath.besselj(0, x))) / abs(found)
    assert error <= at.certificate.error_bound + 1e-13
    slope = -float(mpmath.besselj(1, x))
    try:
        assert float(lg.grad(bessel)(x)) == pytest.approx(slope, rel=1e-6)
        assert x < 10
    except lg.SingularSystem:
        assert x > 20


def test_a_step_that_adds_and_takes_away_a_large_number():
    f = lambda a: lg.iterate(lambda x: (x * a + 1e8) - 1e8, 0.7, 3)
    at = lg.trace(f, 1.1).solve()
    assert abs(float(at["output"]) / (0.7 * 1.1**3) - 1) <= at.certificate.error_bound < 1e-6


def test_a_loop_that_equations_go_on_from():
    p = lg.Program("filter")
    r = p.parameter("r", value=1e-8)
    loss = p.define("loss", lg.iterate(lambda v: v - v * v / (v + r), 1e6, 1))
    x = p.unknown("x", start=1.0)
    p.subject_to(x * x == loss)
    with pytest.raises(lg.SingularSystem, match="cannot be certified"):
        p.solve()
    found = p.solve(r=1e3)
    assert float(found["x"]) == pytest.approx(np.sqrt(1e9 / 1001e3), rel=1e-9)


def test_a_loop_inside_a_loop():
    inner = lambda r: lambda z, _: (lg.iterate(lambda p: p - p * p / (p + r), z + 1e6, 1), z)
    f = lambda r: np.log(lg.scan(inner(r), 0.0, np.zeros(2))[0])
    with pytest.raises(lg.SingularSystem, match="cancels much in its steps"):
        lg.grad(f)(1e-8)


def test_momentum_that_has_come_to_rest_is_no_loss_of_digits():
    # Velocities begin at zero, grow, and end as next to nothing.
    def step(s):
        v = 0.5 * s[1] - 0.1 * (s[0] - 2.0)
        return s[0] + v, v

    f = lambda w: lg.iterate(step, (w, 0.0), 60)[0]
    matrix = np.linalg.matrix_power(np.array([[0.9, 0.5], [-0.1, 0.5]]), 60)
    assert float(lg.grad(f)(5.0)) == pytest.approx(matrix[0, 0], rel=1e-9)


def integral(a, n=18):
    """∫₀¹ tⁿ exp(a(t − 1)) dt by a Iₙ = 1 − n Iₙ₋₁, which multiplies rounding by n!."""
    step = lambda value, k: ((1 - k * value) / a, None)
    return lg.scan(step, (1 - np.exp(-a)) / a, np.arange(1.0, n + 1))[0]


def bessel_upwards(x, n=15):
    """A spherical Bessel function by its recurrence, in the direction that is not stable."""

    def step(s, k):
        return (s[1], (2 * k + 1) / x * s[1] - s[0]), None

    first = np.sin(x) / x
    return lg.scan(step, (first, first / x - np.cos(x) / x), np.arange(1.0, n))[0][1]


FORWARDS = {
    "jvp": lambda f, x: lg.jvp(f, (x,), (1.0,))[1],
    "jacobian": lambda f, x: lg.jacobian(lambda v: np.stack([f(v[0])]))(np.array([x]))[0, 0],
    "sparse": lambda f, x: lg.jacobian(lambda v: np.stack([f(v[0])]), sparse=True)(
        np.array([x])
    ).toarray()[0, 0],
    "compiled": lambda f, x: lg.compile(lambda x: lg.jvp(f, (x,), (1.0,))[1])(x),
    "gradient": lambda f, x: lg.grad(f)(x),
}


@pytest.mark.parametrize("how", FORWARDS)
@pytest.mark.parametrize("x", [0.3, 1.0])
@pytest.mark.parametrize("f", [integral, bessel_upwards])
def test_a_recurrence_that_is_not_stable_is_named_in_every_mode(f, x, how):
    with pytest.raises(lg.SingularSystem, match=r"is rounding|is off by about"):
        FORWARDS[how](f, x)


@pytest.mark.parametrize("how", FORWARDS)
def test_one_that_is_stable_is_found_in_every_mode(how):
    f = lambda a: integral(a, 4)
    with mpmath.workdps(40):
        exact = lambda a: mpmath.quad(lambda t: t**4 * mpmath.exp(a * (t - 1)), [0, 1])
        slope = float(mpmath.diff(exact, mpmath.mpf(3)))
    assert float(FORWARDS[how](f, 3.0)) == pytest.approx(slope, rel=1e-9)


def deviation(x):
    (total, squares), _ = lg.scan(
        lambda c, u: ((c[0] + u, c[1] + u * u), None), (0.0 * x[0], 0.0 * x[0]), x
    )
    return np.sqrt(squares / len(x) - (total / len(x)) ** 2)


def euler(k, steps=5):
    """Implicit steps towards 0.7, and the logarithm of what is left of the way."""
    return np.log(0.7 - lg.iterate(lambda y: (y + 0.1 * k * 0.7) / (1 + 0.1 * k), 0.3, steps))


def energy(h):
    step = lambda s: (s[0] + h * s[1], s[1] - h * (s[0] + h * s[1]))
    q, p = lg.iterate(step, (1.0 + 0 * h, 0.0 * h), 20)
    return np.log(np.abs(q * q + p * p - 1))


def heron(a, steps):
    return np.log(lg.iterate(lambda x: 0.5 * (x + a / x), 1.0 + 0 * a, steps) - np.sqrt(a))


def counted(x):
    step = lambda s: (s[0] + 1e-3 * x, s[1] + 1)
    end, _ = lg.while_loop(lambda s: s[1] < 10, step, (1e9 + 0 * x, 0), max_steps=20)
    return (end - 1e9) ** 2


AFTER_A_LOOP = {
    "a variance by squares": (deviation, 1e8 + np.array([1.0, 2, 3, 4.5])),
    "the rest of the way": (euler, 1e4),
    "the same, twenty steps": (lambda k: euler(k, 20), 30.0),
    "a conserved energy": (energy, 1e-8),
    "the error of an iteration": (lambda a: heron(a, 4), 2.0),
    "a counted loop": (counted, 1.0),
}


@pytest.mark.parametrize("name", AFTER_A_LOOP)
def test_what_is_left_after_a_loop_raises_as_it_would_without(name):
    f, x = AFTER_A_LOOP[name]
    compiled = lg.compile(lg.grad(f))
    for derivative in (lg.grad(f), compiled, compiled, compiled):
        with pytest.raises(lg.SingularSystem, match="rounding"):
            derivative(x)
    with pytest.raises(lg.SingularSystem, match="rounding"):
        lg.trace(f, x).solve().gradient("output")


def test_enough_that_is_left_after_a_loop_is_right():
    x = np.array([1.0, 2.0, 3.0, 4.5])
    wanted = (x - x.mean()) / (len(x) * np.std(x))
    np.testing.assert_allclose(lg.grad(deviation)(x), wanted, rtol=1e-12)
    assert lg.grad(euler)(1.0) == pytest.approx(-0.5 / 1.1, rel=1e-12)
    # By mpmath's differences of the same three steps, with 60 digits.
    assert lg.grad(lambda a: heron(a, 3))(2.0) == pytest.approx(5.90685849729521, rel=1e-8)


WITHIN_A_STEP = {
    "a versine": (lambda s: (1 - np.cos(s)) / s**2, (1e-8, 1e-7, 1e-5)),
    "a root": (lambda s: (np.sqrt(1 + s) - 1) / s, (1e-7, 1e-6, 1e-5)),
    "a sine's rest": (lambda s: (s - np.sin(s)) / s**3, (1e-7, 1e-5)),
    "sinc": (lambda s: np.sin(s) / s, (1e-6,)),
    "an exponential's rest": (lambda s: (np.expm1(s) - s) / s**2, (1e-6, 1e-5)),
}


@pytest.mark.parametrize("name", WITHIN_A_STEP)
def test_what_cancels_within_a_step(name):
    """In states and in what is returned of each step, of values and of derivatives alone."""
    law, places = WITHIN_A_STEP[name]
    state = lambda x: lg.iterate(law, x, 1)
    output = lambda x: np.sum(lg.scan(lambda s, u: (s, law(s)), x, np.ones(3))[1])
    given = lambda x: lg.scan(lambda s, u: (s + law(u), None), 0 * x, np.ones(2) * x)[0]
    for f in (state, output, given):
        compiled = lg.compile(lg.grad(f))
        for x in places:
            for derivative in (lg.grad(f), lambda x, f=f: lg.jvp(f, (x,), (1.0,)), compiled):
                with pytest.raises(lg.SingularSystem):
                    derivative(x)
        assert np.isfinite(lg.grad(f)(0.3))


QUOTIENTS = {
    "arctanh": (lambda x: np.arctanh(x) / x, 1e-8, 1),
    "sinc": (lambda x: np.sin(x) / x, 1e-6, 50),
    "many": (lambda x: np.sin(x) / x, 1e-6, 500),
    "a rest": (lambda x: (np.expm1(x) - x) / x**2, 1e-5, 2000),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_derivatives_that_cancel_though_values_do_not(name):
    """(cos x)/x - (sin x)/x², however often it has been called, and beside implicit functions."""
    law, x, n = QUOTIENTS[name]
    f = lambda x: np.sum(law(x))
    compiled = lg.compile(lg.grad(f))
    for _ in range(30):
        compiled(np.full(n, 0.3))
    for derivative in (lg.grad(f), compiled):
        with pytest.raises(lg.SingularSystem):
            derivative(np.full(n, x))


@needs_wider
def test_what_cancels_beside_an_implicit_function():
    for law, x in ((lambda x: np.arctanh(x) / x, 1e-8), (lambda x: np.sin(x) / x, 1e-8)):
        with pytest.raises(lg.SingularSystem):
            lg.grad(lambda x, law=law: lg.root(lambda z: z - law(x), 1.0))(x)


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_steps_of_two_precisions_are_looked_at(given):
    """A state in doubles, and what steps are given in single precision."""
    u = np.linspace(0.5, 1, 5).astype(given)
    f = lambda x: lg.scan(lambda s, u: (s / (1 + 0.7 * u * s), None), x, u)[0]
    compiled = lg.compile(lg.grad(f))
    s, slope = 0.3, 1.0
    for step in u.astype(float):
        slope, s = slope / (1 + 0.7 * step * s) ** 2, s / (1 + 0.7 * step * s)
    for derivative in (lg.grad(f), compiled, compiled):
        assert derivative(0.3) == pytest.approx(slope, rel=1e-6)
