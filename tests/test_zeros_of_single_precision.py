"""Derivatives that are zero but for rounding, in single precision too, and forwards."""

import numpy as np
import pytest

import lagrad as lg

CONSTANT = {
    "shares add up to one": lambda x: np.sum(lg.softmax(x)),
    "the logarithm of one": lambda x: np.log2(np.sum(lg.softmax(x))),
    "sin² + cos²": lambda x: np.sum(np.sin(x) ** 2 + np.cos(x) ** 2),
    "x² - x²": lambda x: np.sum(x * x - x * x),
    "a normalised length": lambda x: np.linalg.norm(x / np.linalg.norm(x)),
    "normalised logarithms": lambda x: lg.logsumexp(x - lg.logsumexp(x)),
    "exp(x) exp(-x)": lambda x: np.sum(np.exp(x) * np.exp(-x)),
    "ratios": lambda x: np.sum(x / np.sum(x)),
    "a root": lambda x: np.sum(
        lg.root(lambda z, x: z * (1 + z * z) - x * (1 + x * x), 0 * x + 1, x) - x
    ),
    "shares of a root": lambda x: np.sum(lg.root(lambda z, x: z * np.sum(x) - x, 0 * x + 1, x)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CONSTANT)
def test_what_does_not_depend_on_its_arguments(name, dtype):
    f = CONSTANT[name]
    noise = 1e-13 if dtype is np.float64 else 1e-4
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, v = (rng.uniform(0.3, 1.3, 4).astype(dtype) for _ in range(2))
        for derivative in (
            lg.grad(f)(x),
            lg.jvp(f, (x,), (v,))[1],
            lg.compile(lg.grad(f))(x),
            *([] if "root" in name else [lg.hessian(f)(x)]),
        ):
            np.testing.assert_allclose(derivative, 0, atol=noise)


@pytest.mark.parametrize("gap", [1e-3, 1e-2])
def test_what_single_precision_loses_raises_all_the_same(gap):
    x = np.float32(gap)
    with pytest.raises(lg.SingularSystem, match="cancel"):
        lg.grad(lambda x: (1 - np.cos(x)) / x**2)(x)
    assert lg.grad(lambda x: 2 * np.sin(x / 2) ** 2)(x) == pytest.approx(np.sin(gap), rel=1e-5)
