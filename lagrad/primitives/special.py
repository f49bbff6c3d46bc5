"""The ufuncs of `scipy.special`."""

import functools
import math

import numpy as np
from scipy import special

from lagrad.errors import UnsupportedFunction
from lagrad.primitives.elementwise import pairwise, single
from lagrad.primitives.kernels import hurwitz_zeta, inverse_mills
from lagrad.primitives.registry import elementwise
from lagrad.typing import Value

of_scipy = functools.partial(elementwise, module="scipy.special")


def gaussian(x: Value) -> Value:
    return np.exp(-np.square(x))


erf = of_scipy(special.erf, lambda y, x: 2 / math.sqrt(math.pi) * gaussian(x))
erfc = of_scipy(special.erfc, lambda y, x: -2 / math.sqrt(math.pi) * gaussian(x))
expit = of_scipy(special.expit, lambda y, x: y * special.expit(-x))
logit = of_scipy(special.logit, lambda y, x: 1 / (x * (1 - x)))


def _zeta_by_first(y: Value, s: Value, q: Value) -> Value:
    raise UnsupportedFunction("the derivative of zeta(s, q) by s has no rule.")


# ζ(s, q) = Σ (k + q)⁻ˢ has ∂ζ/∂q = −s·ζ(s + 1, q); digamma' = ζ(2, x) (DLMF 25.11.17, 5.15.1).
pairwise(
    "zeta",
    hurwitz_zeta,
    _zeta_by_first,
    lambda y, s, q: -s * hurwitz_zeta(s + 1, q),
    called="scipy.special.zeta",
)
digamma = of_scipy(special.psi, lambda y, x: hurwitz_zeta(2.0, x), name="digamma")
gammaln = of_scipy(special.gammaln, lambda y, x: special.digamma(x))
xlogy = of_scipy(
    special.xlogy, lambda y, x, a: np.log(a), lambda y, x, a: np.where(np.equal(x, 0), 0, x / a)
)
xlog1py = of_scipy(
    special.xlog1py,
    lambda y, x, a: np.log1p(a),
    lambda y, x, a: np.where(np.equal(x, 0), 0, x / (1 + a)),
)
entr = of_scipy(special.entr, lambda y, x: -np.log(x) - 1)
ndtr = of_scipy(special.ndtr, lambda y, x: gaussian(x / math.sqrt(2)) / math.sqrt(2 * math.pi))


def _erfcx_slope(y: Value, x: Value) -> Value:
    # y' = 2xy − 2/√π = −2/√π (u − 3u² + 15u³ − …) with u = 1/2x² (DLMF 7.12.1), where these cancel.
    far = np.greater(x, 30.0)
    u = 0.5 / np.square(np.where(far, x, 30.0))
    series = u * (1 - u * (3 - u * (15 - u * (105 - u * (945 - 10395 * u)))))
    return np.where(far, -2 / math.sqrt(math.pi) * series, 2 * x * y - 2 / math.sqrt(math.pi))


# exp(x²) erfc(x): what is left of erfc where both underflow.
erfcx = of_scipy(special.erfcx, _erfcx_slope)


def _mills_slope(y: Value, x: Value) -> Value:
    """−y(x + y), which cancels below zero: there by erfcx, which overflows above it."""
    u = np.minimum(x, 0) / -math.sqrt(2)
    below = 0.5 * math.sqrt(math.pi) * np.square(y) * _erfcx_slope(special.erfcx(u), u)
    return np.where(np.less(x, 0), below, -y * (x + y))


single("inverse_mills", inverse_mills, _mills_slope)
log_ndtr = of_scipy(special.log_ndtr, lambda y, x: inverse_mills(x))
