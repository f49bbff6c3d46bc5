"""tanh where it is nearly constant: its slope, 1 − y², does not cancel."""

import mpmath
import numpy as np
import pytest

import lagrad as lg

POINTS = [0.0, 0.3, 1.47, 1.48, -3.0, 5.29, 5.31, 9.0, -15.0, 18.0, 30.0, 340.0]


def slopes(x):
    """The first three derivatives of tanh, by sech² to 60 digits."""
    with mpmath.workdps(60):
        t, s = mpmath.tanh(x), 1 / mpmath.cosh(mpmath.mpf(x)) ** 2
        return [float(s), float(-2 * t * s), float(4 * t * t * s - 2 * s * s)]


@pytest.mark.parametrize("x", POINTS)
def test_the_slopes_of_a_number(x):
    first = lg.grad(np.tanh)
    second = lg.grad(first)
    found = [first(x), second(x), lg.grad(second)(x)]
    np.testing.assert_allclose(found, slopes(x), rtol=1e-11)
    np.testing.assert_allclose(lg.jvp(np.tanh, (x,), (2.0,))[1], 2 * slopes(x)[0], rtol=1e-11)


def test_those_of_an_array_however_often():
    x, w = np.array(POINTS * 40), np.arange(1.0, 481.0)
    f = lg.compile(lg.grad(lambda x: np.sum(w * np.tanh(x))))
    wanted = w * [slopes(t)[0] for t in x]
    for _ in range(20):  # as it becomes one loop over all of it
        np.testing.assert_allclose(f(x), wanted, rtol=1e-11)
    product = lg.hvp(lambda x: np.sum(np.tanh(x)), x, np.ones(480))
    np.testing.assert_allclose(product, [slopes(t)[1] for t in x], rtol=1e-11)


def test_single_precision_and_infinity():
    found = lg.grad(lambda x: np.sum(np.tanh(x)))(np.float32([0.5, 3.0, 8.0, 40.0]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [slopes(t)[0] for t in (0.5, 3, 8, 40)], rtol=2e-6)
    for x in (800.0, np.inf, -np.inf):
        assert lg.grad(np.tanh)(x) == lg.grad(lg.grad(np.tanh))(x) == 0.0


def test_a_program_of_scalars_its_adjoint_program_and_source():
    p = lg.Program()
    xs = [p.parameter(f"x{k}", t) for k, t in enumerate(POINTS)]
    p.define("f", sum(np.tanh(x) for x in xs))
    gradient, backwards = p.solve().gradient("f"), p.adjoint("f")
    there = backwards.solve()
    namespace: dict = {}
    exec(backwards.source(), namespace)
    plain = namespace["solve"](**{f"x{k}": t for k, t in enumerate(POINTS)})
    for k, t in enumerate(POINTS):
        first, second, _ = slopes(t)
        for found in (gradient[f"x{k}"], there[f"λ_x{k}"], plain[f"λ_x{k}"]):
            assert found == pytest.approx(first, rel=1e-11, abs=0)
        bent = there.gradient(f"λ_x{k}")[f"x{k}"]
        assert bent == pytest.approx(second, rel=1e-11, abs=0)


def test_how_it_is_written():
    p = lg.Program()
    x = p.parameter("x", 0.5)
    y = p.unknown("y")
    p.subject_to(y == np.tanh(x))
    p.define("f", y**2)
    assert "(1 - tanh(x)²)" in str(p.adjoint("f"))


@pytest.mark.parametrize("x", [np.float32(45.0), np.float32(60.0), 400.0])
def test_a_slope_below_what_its_precision_holds_is_zero(x):
    # In a wider one it is a number, of which rounding has taken nothing.
    assert lg.grad(np.tanh)(x) == pytest.approx(4 * np.exp(-2 * float(x)), rel=1e-3)
    both = np.stack([x, x]) if isinstance(x, np.floating) else np.array([x, x])
    found = lg.jacobian(lambda z: np.tanh(3 * z))(both)
    np.testing.assert_allclose(found, 0.0, atol=1e-44)
