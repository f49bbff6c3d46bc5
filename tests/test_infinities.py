"""Infinities where log-space needs them: let in as they are, NaN not."""

import numpy as np
import pytest
from scipy import special

import lagrad as lg

NEVER = -np.inf  # the logarithm of a probability of zero


def test_a_weight_of_zero_takes_no_part():
    assert lg.grad(lg.logsumexp)(np.array([0.0, NEVER])).tolist() == [1, 0]
    value, gradient = lg.value_and_grad(lg.logsumexp)(np.array([0.0, NEVER, 0.0]))
    assert value == pytest.approx(np.log(2))
    assert gradient.tolist() == [0.5, 0.0, 0.5]
    assert lg.grad(lambda x: np.logaddexp(x[0], x[1]))(np.array([0.0, NEVER])).tolist() == [1, 0]
    assert lg.grad(np.max)(np.array([0.0, NEVER])).tolist() == [1, 0]
    assert lg.jvp(lg.logsumexp, (np.array([0.0, NEVER]),), (np.ones(2),)) == (0.0, 1.0)


def test_second_derivatives_and_compiled_functions():
    p = special.softmax([0.0, 1.0, NEVER])
    found = lg.hessian(lg.logsumexp)(np.array([0.0, 1.0, NEVER]))
    np.testing.assert_allclose(found, np.diag(p) - np.outer(p, p), atol=1e-15)
    gradient = lg.compile(lg.grad(lg.logsumexp))
    for weights in ([0.0, 0.0], [0.0, NEVER], [NEVER, 1.0]):
        np.testing.assert_allclose(
            gradient(np.array(weights)), special.softmax(weights), rtol=1e-15
        )


def test_a_chain_of_which_some_steps_never_happen():
    steps = np.array([[0.0, NEVER], [1.0, 2.0]])

    def total(start):
        here = start
        for _ in range(5):
            here = lg.logsumexp(here[:, None] + steps, axis=0)
        return lg.logsumexp(here)

    start = np.array([0.3, NEVER])
    # From the first state only the first is ever reached.
    assert float(total(start)) == pytest.approx(0.3)
    assert lg.grad(total)(start).tolist() == [1.0, 0.0]


def test_parameters_of_programs_and_of_roots():
    p = lg.Program()
    a = p.parameter("a", value=np.array([0.0, NEVER]))
    p.define("z", lg.logsumexp(a))
    assert p.solve().gradient("z")["a"].tolist() == [1, 0]
    assert p.solve(a=np.array([NEVER, 2.0])).gradient("z")["a"].tolist() == [0, 1]
    root = lambda a: lg.root(lambda z, a: z - lg.logsumexp(a), 0.0, a)
    assert lg.grad(root)(np.array([0.0, NEVER])) == pytest.approx([1.0, 0.0])


def test_bounds_that_do_not_bind_and_values_that_are_infinite():
    clipped = lambda x, low: np.sum(np.maximum(x, low) ** 2)
    assert lg.grad(clipped)(np.array([3.0, 2.0]), NEVER).tolist() == [6, 4]
    assert lg.grad(lambda x: np.sum(1 / x))(np.array([2.0, np.inf])).tolist() == [-0.25, 0.0]
    assert lg.trace(np.min, np.array([0.0, NEVER])).solve()["output"] == NEVER


def test_nan_is_not_let_in_and_what_is_nan_says_where_it_came_from():
    with pytest.raises(lg.InvalidValue, match=r"'a' is NaN at \[1\]"):
        lg.grad(lg.logsumexp)(np.array([0.0, np.nan]))
    with pytest.raises(lg.NotFinite, match=r"argument 'x'.*-inf at \[1\]"):
        lg.grad(lambda x: x[0] + 0 * x[1])(np.array([0.0, NEVER]))
    with pytest.raises(lg.NotFinite):
        lg.grad(np.exp)(1000.0)  # which no infinity was given to
    with pytest.raises(lg.InvalidValue, match="NaN or infinite"):
        lg.Program().unknown("u", start=np.inf)
