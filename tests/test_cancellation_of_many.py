"""Gradients of many numbers, of which cancellation leaves little: right, or refused.

Oracles: the derivative's closed form, where nothing cancels, in long doubles.
"""

import contextlib

import numpy as np
import pytest

import lagrad as lg

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(40_000)


def third_moment(x):
    return np.mean(x**3) - 3 * np.mean(x) * np.mean(x**2) + 2 * np.mean(x) ** 3


def third_moments_slope(x):
    d = x - x.mean()
    return 3 * (d * d - np.mean(d * d)) / x.size


def kernel(points):
    q = np.sum(points * points, axis=1)
    return np.sum(np.exp(-(q[:, None] + q[None, :] - 2 * points @ points.T) / 10))


def kernels_slope(points):
    d = points[:, None] - points[None]
    return -0.4 * np.sum(np.exp(-np.sum(d**2, axis=2) / 10)[..., None] * d, axis=1)


CASES = {
    "third moment": (third_moment, third_moments_slope, lambda n: 1e8 + NOISE[:n]),
    "cube written out": (
        lambda x: np.sum(x**3 - 3e8 * x**2 + 3e16 * x - 1e24),
        lambda x: 3 * (x - 1e8) ** 2,
        lambda n: 1e8 + NOISE[:n],
    ),
    "Langevin": (
        lambda x: np.sum(1 / x - 1 / np.tanh(x)),
        lambda x: -1 / 3 + x**2 / 15,
        lambda n: 1e-8 * (1 + 1e-3 * np.linspace(0, 1, n)),
    ),
    "arccosh": (
        lambda x: np.sum(np.arccosh(1 + x)),
        lambda x: 1 / np.sqrt(x * (2 + x)),
        lambda n: np.full(n, 1e-12),
    ),
    "cosine": (
        lambda x: np.sum((1 - np.cos(x)) / x**2),
        lambda x: -x / 12 + x**3 / 180,
        lambda n: np.full(n, 1e-3),
    ),
    "sinc": (lambda x: np.sum(np.sin(x) / x), lambda x: -x / 3, lambda n: np.full(n, 1e-6)),
    "tan - sin": (
        lambda x: np.sum(np.tan(x) - np.sin(x)),
        lambda x: 1.5 * x * x,
        lambda n: np.full(n, 1e-6),
    ),
    "logarithm of a quotient": (
        lambda x: np.sum(np.log((1 + x) / (1 - x)) / x),
        lambda x: 4 * x / 3,
        lambda n: np.full(n, 1e-5),
    ),
    "square beside its line": (
        lambda x: np.sum((x + 1e8) ** 2 - 2e8 * x) + 1e-3 * np.sum(x),
        lambda x: 2 * x + 1e-3,
        lambda n: np.full(n, 1e-4),
    ),
    "long side": (
        lambda x: np.sum(np.hypot(x, 1) - x),
        lambda x: x / np.sqrt(x * x + 1) - 1,
        lambda n: np.full(n, 1e5),
    ),
}
SIZES = (1, 60, 128, 300, 5000, 40_000)


def right_or_refused(slope, exact, x):
    """What was found, to a millionth; None where it was refused."""
    try:
        found = slope(x)
    except lg.SingularSystem:
        return
    right = exact(np.asarray(x, np.longdouble))
    assert np.abs(found - right).max() <= 1e-6 * np.abs(right).max()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_however_many_there_are(case, n):
    f, exact, points = CASES[case]
    right_or_refused(lg.grad(f), exact, points(n))


@pytest.mark.parametrize("n", [1, 300, 40_000])
@pytest.mark.parametrize("case", CASES)
def test_at_every_call_of_a_compiled_function(case, n):
    # Four calls elsewhere, after which it is machine code; then one that is to be looked at.
    f, exact, points = CASES[case]
    slope, x = lg.compile(lg.grad(f)), points(n)
    for _ in range(4):
        with contextlib.suppress(lg.SingularSystem):
            slope(np.full(x.shape, 0.5))
    right_or_refused(slope, exact, x)


@pytest.mark.parametrize("n", [50, 300])
def test_distances_by_inner_products(n):
    points = np.random.default_rng(1).standard_normal((n, 3)) + 1e6
    right_or_refused(lg.grad(kernel), kernels_slope, points)


@pytest.mark.parametrize("n", [1000, 100_000])
def test_what_crosses_zero_here_and_there_is_not_refused(n):
    x = np.random.default_rng(2).standard_normal(n)
    for f, exact in (
        (lambda x: np.sum(x**4 - 2 * x**2), lambda x: 4 * x**3 - 4 * x),
        (lambda x: np.sum((x - 1) ** 2 * np.exp(-x)), lambda x: (x - 1) * (3 - x) * np.exp(-x)),
        (lambda x: np.sum(np.log1p(np.exp(x)) - x / 2), lambda x: np.tanh(x / 2) / 2),
    ):
        slope = lg.compile(lg.grad(f))
        for _ in range(4):
            np.testing.assert_allclose(slope(x), exact(x), rtol=1e-12, atol=1e-13)
