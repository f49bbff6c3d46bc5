"""Sums that depend on how numbers stand in memory: long ones of singles, and of swapped bytes.

Long sums in single precision, row after row and running ones, lose no digits on the way.
"""

import numpy as np
import pytest

import lagrad as lg

LAYOUTS = {
    "first axis": (lambda n: (n, 3), lambda x: x, 0),
    "two first axes": (lambda n: (n // 100, 100, 3), lambda x: x, (0, 1)),
    "last axis, transposed": (lambda n: (n, 3), lambda x: x.T, 1),
    "part of the columns": (lambda n: (n, 5), lambda x: x[:, :3], 0),
    "middle axis": (lambda n: (2, n, 3), lambda x: x, 1),
}


@pytest.mark.parametrize("n", [30_000, 300_000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_along_axes(layout, n):
    shape, seen, axis = LAYOUTS[layout]
    # Of one sign, so that what is lost adds up.
    x = (0.1 + 0.01 * np.random.default_rng(0).uniform(size=shape(n))).astype(np.float32)
    f = lambda x: np.sum(np.log(np.sum(seen(x), axis=axis)))
    total = np.sum(seen(x).astype(float), axis=axis, keepdims=True)
    right = np.zeros(x.shape)
    seen(right)[...] = 1 / total
    compiled = lg.compile(lg.grad(f))
    for _ in range(4):
        compiled(x)
    for slope in (lg.grad(f), compiled):
        found = slope(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=2e-6)


@pytest.mark.parametrize("n", [3_001, 300_000])
def test_running_sums(n):
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    steps = np.cos(np.cumsum(x.astype(float)))
    right = np.cumsum(steps[::-1])[::-1]
    at = lg.trace(lambda x: np.sum(np.sin(np.cumsum(x))), x).solve()
    gradient = at.gradient("output")
    found = gradient["x"]
    assert found.dtype == np.float32
    error = np.abs(found - right).max() / np.abs(right).max()
    assert error <= min(2e-5, 10 * gradient.certificate.error_bound)


@pytest.mark.parametrize("f", [lg.logsumexp, lg.softmax, lg.log_softmax, np.max, np.cumsum])
@pytest.mark.parametrize("dtype", [np.float32, float])
def test_the_other_byte_order(f, dtype):
    x = np.array([[1.0, 2.0, 2.0], [3.0, -1.0, 2.0]], dtype)
    other = x.astype(x.dtype.newbyteorder())
    np.testing.assert_array_equal(f(other), f(x))
    loss = lambda x: np.sum(np.square(f(x)))
    np.testing.assert_array_equal(lg.grad(loss)(other), lg.grad(loss)(x))
