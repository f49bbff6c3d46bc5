"""What is left of functions beside their series: right, or an error, however little that is.

A value's own size measures a derivative, not that of what cancels on the way to it.
"""

import mpmath
import numpy as np
import pytest
from scipy import special

import lagrad as lg

log_normal = lambda x: mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2)


def dirichlet(log_gamma):
    """Of a Dirichlet-multinomial law: how likely ten counts are, by one concentration."""

    def law(a):
        pairs = log_gamma(a + 5) + log_gamma(a + 3) + log_gamma(a + 2) - 3 * log_gamma(a)
        return log_gamma(3 * a) - log_gamma(3 * a + 10) + pairs

    return law


# A function, the same for mpmath, points from which less and less is left, and of how many of
# them enough is left for an answer.
REMAINDERS = {
    "Dirichlet-multinomial": (
        dirichlet(special.gammaln),
        dirichlet(mpmath.loggamma),
        10.0 ** np.arange(8),
        4,
    ),
    "Stirling": (
        lambda x: special.gammaln(x) - (x - 0.5) * np.log(x) + x,
        lambda x: mpmath.loggamma(x) - (x - 0.5) * mpmath.log(x) + x,
        10.0 ** np.arange(8),
        4,
    ),
    "tail of the normal law": (
        lambda x: special.log_ndtr(-x) + x * x / 2 + np.log(x),
        lambda x: log_normal(-x) + x * x / 2 + mpmath.log(x),
        10.0 ** np.arange(6),
        3,
    ),
    "digamma": (
        lambda x: special.digamma(x) - np.log(x),
        lambda x: mpmath.digamma(x) - mpmath.log(x),
        10.0 ** np.arange(8),
        8,
    ),
    "erf(x)/x": (
        lambda x: special.erf(x) / x,
        lambda x: mpmath.erf(x) / x,
        10.0 ** -np.arange(8),
        4,
    ),
    "Pythagoras": (
        lambda x: (np.sin(x) ** 2 + np.cos(x) ** 2) * x**2,
        lambda x: x**2,
        10.0 ** np.arange(0, 22, 3),
        3,
    ),
}


def ways(f):
    yield lambda x: lg.grad(f)(x)
    yield lambda x: lg.jvp(f, (x,), (1.0,))[1]
    yield lambda x: lg.grad(lambda v: np.sum(f(v)))(np.full(300, x))[7]
    yield lg.compile(lg.grad(f))


@pytest.mark.parametrize("case", REMAINDERS)
def test_remainders(case):
    f, exact, points, answered = REMAINDERS[case]
    for way in ways(f):
        for k, x in enumerate(map(float, points)):
            with mpmath.workdps(60):
                right = float(
                    mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(10) ** -25 * max(1, x))
                )
            try:
                found = way(x)
            except lg.SingularSystem:
                assert k >= answered, f"enough is left at {x}"
                continue
            assert found == pytest.approx(right, rel=1e-6, abs=0), x


@pytest.mark.parametrize("n", [1000, 40_000])
def test_a_few_among_many(n):
    # Of log(1 + x)/x near zero; elsewhere nothing is lost.
    f = lambda x: np.sum(np.log(1 + x) / x)
    with pytest.raises(lg.SingularSystem, match="rounding"):
        lg.grad(f)(np.linspace(1e-6, 1.0, n))
    x = np.linspace(0.1, 1.0, n)
    right = (x / (1 + x) - np.log1p(x)) / x**2
    np.testing.assert_allclose(lg.grad(f)(x), right, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 300, 4097, 40_000])
def test_rounding_that_falls_to_a_side_of_a_kink_spoils_nothing(n):
    # exp(x) − 1 is zero, and rounded otherwise on either side of it.
    f = lambda x: np.sum(np.maximum(np.exp(x) - 1, 0))
    for slope in (lg.grad(f), lg.compile(lg.grad(f))):
        np.testing.assert_array_equal(slope(np.zeros(n)), np.full(n, 0.5))
