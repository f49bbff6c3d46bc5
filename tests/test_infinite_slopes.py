"""Where a slope is infinite it is no zero: x^x, x·log x and 0ⁿ at their ends."""

import numpy as np
import pytest
from scipy import special

import lagrad as lg

INFINITE = {
    "x to the x": lambda: lg.grad(lambda x: x**x)(0.0),
    "in an array": lambda: lg.grad(lambda x: np.sum(x**x))(np.array([0.0, 1.0, 2.0])),
    "xlogy": lambda: lg.grad(lambda x: special.xlogy(x, x))(0.0),
    "an entropy": lambda: lg.grad(lambda p: np.sum(special.xlogy(p, p)))(np.array([0.0, 1.0])),
    "xlog1py": lambda: lg.grad(lambda x: special.xlog1py(x, x - 1))(0.0),
    "a power of zero": lambda: lg.grad(lambda n: np.array([0.0, 2.0]) ** n @ np.ones(2))(0.0),
}


@pytest.mark.parametrize("derivative", INFINITE.values(), ids=INFINITE)
def test_it_is_named(derivative):
    with pytest.raises(lg.NotFinite, match="not differentiable"):
        derivative()


def test_what_is_finite_there_is_right():
    powers = lg.grad(lambda n: np.sum(np.array([0.0, 1.0, 2.0]) ** n))
    assert powers(2.0) == pytest.approx(4 * np.log(2))
    assert lg.grad(lambda x: np.sum(x ** np.arange(3)))(0.0) == 1.0
    assert lg.grad(lambda x: special.xlogy(x, 2.0))(0.0) == pytest.approx(np.log(2))
    given = np.array([0.0, 0.5])
    np.testing.assert_allclose(lg.grad(lambda q: special.xlogy(given, q) @ given)(given), [0, 0.5])
    hessian = lg.hessian(lambda v: v[0] ** v[1])
    np.testing.assert_allclose(hessian(np.array([0.0, 2.0])), [[2, 0], [0, 0]])
    np.testing.assert_allclose(hessian(np.array([0.0, 3.0])), np.zeros((2, 2)))


def test_a_double_root_among_others_is_no_infinite_slope():
    with pytest.raises(lg.SingularSystem, match="multiple root"):
        lg.root(lambda z: z * z - np.array([1.0, 0.0, 2.0]), np.ones(3))
