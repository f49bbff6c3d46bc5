"""A derivative where a comparison is decided by rounding: refused, with what to use instead."""

import numpy as np
import pytest

import lagrad as lg


def bisection(y):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if middle * middle > y else (middle, high)
    return low


def golden_section(a):
    low, high, ratio = 0.0, 4.0, (5**0.5 - 1) / 2
    for _ in range(80):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if (left - a) ** 2 < (right - a) ** 2 else (left, high)
    return (low + high) / 2


def hinge(x):
    return x**2 if x > 0 else -x


def larger(x):
    return max(x, 1.0)


CASES = [(bisection, 0.5), (golden_section, 1.3), (hinge, 0.0), (larger, 1.0)]


@pytest.mark.parametrize(("function", "x"), CASES)
def test_a_value_on_the_border_of_a_branch_has_no_derivative_from_one_side(function, x):
    ways = [
        lg.grad(function),
        lg.compile(lg.grad(function)),
        lg.jacobian(function),
        lg.hessian(function),
        lg.value_and_grad(function),
        lambda x: lg.vjp(function, x)[1](1.0),
        lambda x: lg.jvp(function, (x,), (1.0,)),
        lambda x: lg.hvp(function, x, 1.0),
        lambda x: lg.trace(function, x),
        lg.grad(lambda x: lg.grad(function)(x)),
    ]
    for way in ways:
        with pytest.raises(lg.SingularSystem, match=r"lg\.root"):
            way(x)


def test_a_compiled_gradient_sees_the_border_when_it_gets_there():
    f = lg.compile(lg.grad(hinge))
    assert [float(f(x)) for x in (1.0, 2.0, 3.0, -1.0)] == [2.0, 4.0, 6.0, -1.0]
    with pytest.raises(lg.SingularSystem):
        f(0.0)
    assert float(f(5.0)) == 10.0


def test_with_a_warning_there_is_a_number():
    with pytest.warns(lg.AccuracyWarning, match="branch"):
        assert lg.grad(hinge, on_failure="warn")(0.0) == -1.0


def test_values_alone_are_not_refused():
    assert lg.compile(hinge)(0.0) == 0.0


def test_a_check_that_only_raises_is_no_branch():
    def checked(w):
        if np.any(w < 0):
            raise ValueError("negative")
        return np.sum(w**2)

    for f in (lg.grad(checked), lg.compile(lg.grad(checked))):
        for _ in range(3):
            assert f(np.array([0.0, 1.0])).tolist() == [0.0, 2.0]


def test_flags_that_nothing_is_differentiated_by_are_no_borders():
    f = lambda x, flag: 2 * x if flag == 1.0 else x
    assert lg.grad(f)(1.0, 1.0) == 2.0
    assert lg.compile(lg.grad(f))(1.0, 1.0) == 2.0


def test_a_search_that_ends_by_its_tolerance_is_differentiated():
    def newton(y):
        x = 1.0 + 0 * y
        while abs(x * x - y) > 1e-12:
            x = (x + y / x) / 2
        return x

    assert lg.grad(newton)(2.0) == pytest.approx(0.5 / np.sqrt(2), rel=1e-10)


def test_counts_of_comparisons_that_do_not_decide_are_no_borders():
    def masked(x):
        return np.sum(x**2) if np.any(x != 0) else 0.0 * np.sum(x)

    assert lg.grad(masked)(np.array([0.0, 3.0])).tolist() == [0.0, 6.0]


INFINITE = {
    "a logarithm": (lambda x: np.where(x > 0, np.log(x), 0.0), 0.25),
    "a pole": (lambda x: np.where(x > 0, 1 / x, 0.0), -0.0625),
    "a pole the other way": (lambda x: np.where(x <= 0, 0.0, -1 / x), 0.0625),
    "a power": (lambda x: np.where(x > 0, x**-0.5, 0.0), -0.0625),
}


@pytest.mark.parametrize("name", INFINITE)
def test_a_branch_that_jumps_from_what_is_infinite(name):
    # At the border the value that is chosen counts, as at any jump.
    f, slope = INFINITE[name]
    x = np.array([0.0, 4.0, -1.0])
    wanted = [0.0, slope, 0.0]
    np.testing.assert_allclose(lg.grad(lambda x: np.sum(f(x)))(x), wanted, rtol=1e-14)
    np.testing.assert_allclose(lg.jvp(f, (x,), (np.ones(3),))[1], wanted, rtol=1e-14)
    np.testing.assert_allclose(lg.compile(lg.grad(lambda x: np.sum(f(x))))(x), wanted)
