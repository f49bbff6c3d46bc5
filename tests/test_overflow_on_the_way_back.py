"""Cotangents that overflow though the derivative is a number: it is found on the way forth."""

import numpy as np
import pytest

import lagrad as lg


def product(x):
    return ((x * 1e-300) * 1e200) * 1e200


def test_a_product_that_is_a_number_from_the_left_alone():
    assert lg.grad(product)(1.0) == pytest.approx(1e100)
    assert lg.value_and_grad(product)(2.0) == pytest.approx((2e100, 1e100))
    assert lg.compile(lg.grad(product))(1.0) == pytest.approx(1e100)
    assert lg.vjp(product, 1.0)[1](3.0) == pytest.approx(3e100)
    np.testing.assert_allclose(lg.grad(lambda x: np.sum(product(x)))(np.ones(3)), 1e100)


def test_two_outputs_are_pulled_back_together():
    both = lambda x: (product(x), np.sum(product(2 * x)))
    (found,) = (lg.vjp(both, np.ones(2))[1]((np.array([1.0, 2.0]), 3.0)),)
    np.testing.assert_allclose(found, np.array([1.0, 2.0]) * 1e100 + 6e100)


def test_declared_programs():
    p = lg.Program()
    x = p.parameter("x", value=1.0)
    y = p.define("y", x * 1e-300)
    z = p.define("z", y * 1e200)
    p.define("w", z * 1e200)
    assert float(p.solve().gradient("w")["x"]) == pytest.approx(1e100)


def test_a_feature_that_never_occurs_in_training():
    # Adam's second moment of it is zero: sqrt has an infinite slope there.
    rng = np.random.default_rng(0)
    X = np.c_[rng.standard_normal((50, 3)), np.zeros(50)]
    y = np.sign(X[:, 0] + 0.3 * rng.standard_normal(50))
    V = rng.standard_normal((50, 4))
    u = np.sign(V[:, 0])

    def train(w, strength):
        return np.sum(np.logaddexp(0.0, -y * (X @ w))) + 0.5 * np.exp(strength) * np.sum(w * w)

    def held(strength):
        steps = lg.Unrolled(60, lg.optim.adam(0.05))
        w = lg.argmin(train, np.zeros(4), strength, differentiate=steps)
        return np.mean(np.logaddexp(0.0, -u * (V @ w)))

    wanted = (held(1e-4) - held(-1e-4)) / 2e-4
    assert lg.grad(held)(0.0) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("function", "x"), [(np.sqrt, 0.0), (lambda x: (x * 1e-200) * 1e-200 * 1e300 * 1e200, 1.0)]
)
def test_what_is_infinite_or_lost_both_ways_is_refused_still(function, x):
    with pytest.raises(lg.NotFinite):
        lg.grad(function)(x)
