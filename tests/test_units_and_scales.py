"""What is right in one unit is right in another: of unknowns, residuals, steps of differences."""

import numpy as np
import pytest

import lagrad as lg

SCALES = [1e-30, 1e-25, 1e-19, 1e-17, 1e-10, 1.0, 1e10, 1e20, 1e30]


@pytest.mark.parametrize("s", SCALES)
def test_a_root_from_zero_in_any_unit(s):
    """From zero Newton's method stops at a hill on the way; other methods begin with some step."""
    bend = lambda z: 2 * z / s - 1.9 * np.tanh(3 * z / s) - 1.1
    found = lg.root(lambda z: s * bend(z), 0.0)
    assert found / s == pytest.approx(1.499765219848929, rel=1e-12)  # by bisection
    cube = lg.root(lambda z: s * ((z / s) ** 3 - 2 * z / s + 2), 0.0)
    assert cube / s == pytest.approx(np.roots([1, 0, -2, 2])[0].real, rel=1e-12)


@pytest.mark.parametrize("s", [1e-25, 1e-10, 1.0, 1e25])
def test_redundant_equations_in_any_unit(s):
    A = np.random.default_rng(0).standard_normal((3, 3)) + 3 * np.eye(3)
    p = lg.Program()
    b, z = p.parameter("b", value=np.array([1.0, 2, 3]) * s), p.unknown("z", start=np.zeros(3))
    left = A @ z + 0.3 * s * np.tanh(z / s)
    p.subject_to(left == b)
    p.subject_to(np.sum(left) == np.sum(b))
    found, exact = p.solve()["z"] / s, np.zeros(3)
    for _ in range(60):
        slope = A + 0.3 * np.diag(1 / np.cosh(exact) ** 2)
        exact = exact - np.linalg.solve(slope, A @ exact + 0.3 * np.tanh(exact) - [1, 2, 3])
    np.testing.assert_allclose(found, exact, rtol=1e-10)


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1.0, 1e9])
def test_differences_take_steps_of_the_arguments_size(unit):
    law = lg.primitive(lambda c: 1 / (1 + c / unit), jvp="centered")
    assert lg.grad(lambda c: law(c))(unit) * unit == pytest.approx(-0.25, rel=1e-9)


@pytest.mark.parametrize("x", [0.0, 1.0, 10.0, 1e3, 1e5, 1e8])
def test_differences_of_what_turns_within_less_than_its_argument(x):
    sine = lg.primitive(np.sin, jvp="centered")
    assert lg.grad(lambda x: sine(x))(x) == pytest.approx(np.cos(x), rel=1e-6)


def test_differences_of_entries_of_several_sizes_and_of_a_jump():
    square = lg.primitive(lambda p: np.sum(p**2) + p[0] * p[1], jvp="centered")
    found = lg.grad(lambda p: square(p))(np.array([1e-8, 2.0, 1e6]))
    np.testing.assert_allclose(found, [2 + 2e-8, 4 + 1e-8, 2e6], rtol=1e-6)
    rounded = lg.primitive(lambda x: np.round(x, 3), jvp="centered")
    with pytest.raises(lg.NotFinite, match="do not agree"):
        lg.grad(lambda x: rounded(x))(1.2345)
    assert lg.grad(lambda x: rounded(x))(1.2341) == 0.0


@pytest.mark.parametrize("start", [0.0, 0.3, 1.5])
def test_a_minimum_that_is_flat_is_named(start):
    with pytest.raises(lg.LagradError):
        lg.grad(lambda x: lg.argmin(lambda z: abs(z - x) + abs(z + x), start))(1.0)
