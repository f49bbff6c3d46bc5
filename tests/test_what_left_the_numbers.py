"""NaN and infinity are named by the operation that made them, and by the line that asked for it."""

import inspect

import numpy as np
import pytest

import lagrad as lg


def model(x):
    a = np.exp(x)
    b = np.sqrt(a - 1.0)
    return np.sum(np.tanh(b) * a)


def helper(u):
    return np.log(u) * 2


def through_a_helper(x):
    y = 2 * x - 3
    return np.sum(helper(y))


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


TRANSFORMS = {
    "grad": lg.grad,
    "value_and_grad": lg.value_and_grad,
    "jacobian": lg.jacobian,
    "of a compiled function": lambda f: lg.grad(lg.compile(f)),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_an_infinite_slope_is_named(transform):
    with pytest.raises(lg.NotFinite) as caught:
        transform(model)(np.array([0.0, 2.0]))
    said = str(caught.value)
    assert "sqrt(exp(x) - 1)" in said
    assert "not differentiable" in said
    assert f"line {line_of(model, 'np.sqrt')}: b = np.sqrt(a - 1.0)" in said


@pytest.mark.parametrize("x", [np.ones(2), 1.0], ids=["an array", "a number"])
def test_a_value_that_is_none_is_named_within_a_helper(x):
    with pytest.raises(lg.NotFinite) as caught:
        lg.grad(through_a_helper)(x)
    said = str(caught.value)
    assert "it becomes so in log(2·x - 3)" in said
    assert f"line {line_of(helper, 'np.log')}: return np.log(u) * 2" in said


def test_the_first_of_several_is_named():
    with pytest.raises(lg.NotFinite, match=r"becomes so in log\(x\)"):
        lg.grad(lambda x: np.sqrt(np.log(x) + 1) / (x - x))(-1.0)


def test_in_a_declared_program_the_operation_is_named():
    program = lg.Program("tank")
    level = program.parameter("level", value=0.0)
    program.define("speed", 3 * np.sqrt(level))
    with pytest.raises(lg.NotFinite, match=r"sqrt\(level\), in the constraint 'speed'"):
        program.solve().gradient("speed")
    with pytest.raises(lg.NotFinite, match=r"'speed' is NaN.*becomes so in sqrt\(level\)"):
        program.solve(level=-1.0)


def test_what_is_zero_wherever_it_is_has_no_slope_at_all():
    # A first entry's distance from itself; of the others there is a derivative.
    distances = lambda x: np.sum(np.sqrt(np.exp(x) - np.exp(x)[0]))
    x = np.array([1.0, 2.0])
    far = 2 * np.sqrt(np.exp(2.0) - np.exp(1.0))
    np.testing.assert_allclose(lg.grad(distances)(x), [-np.exp(1) / far, np.exp(2) / far])
    assert lg.grad(lambda x: np.sqrt(x - x) + x)(1.0) == 1.0


def test_a_long_operation_is_shortened():
    def long(x):
        for _ in range(50):
            x = np.sin(x) + 1
        return x

    end = long(1.0)
    with pytest.raises(lg.NotFinite) as caught:
        lg.grad(lambda x: np.sqrt(long(x) - end))(1.0)
    assert len(str(caught.value)) < 700
