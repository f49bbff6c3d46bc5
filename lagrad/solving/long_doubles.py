"""SciPy's error functions in the machine's long doubles, which SciPy computes in doubles only.

They are for looking at what rounding has done, of few numbers. For |x| < 2 Kummer's series, whose
terms are all of one sign, gives erf (DLMF 7.6.2); for x ≥ 2 Laplace's continued fraction gives
exp(x²)·erfc(x) (DLMF 7.9.2).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from lagrad.typing import Array

LONG = np.longdouble
ROOT_PI = np.sqrt(LONG("3.14159265358979323846264338327950288"))
ROOT_2 = np.sqrt(LONG(2))
# From here on the continued fraction; and how many terms are enough of either.
NEAR, TERMS = 2.0, 75


def by_series(x: Array) -> Array:
    """erf(x) for |x| up to 2: 2x·exp(−x²)/√π · Σ (2x²)ᵏ/(2k+1)!!."""
    square = np.minimum(x * x, LONG(NEAR * NEAR))
    term = found = np.ones_like(square)
    for k in range(1, TERMS):
        term = term * (2 * square) / (2 * k + 1)
        found = found + term
    return 2 * x * np.exp(-square) * found / ROOT_PI


def scaled(x: Array) -> Array:
    """exp(x²)·erfc(x) for x of 2 and more."""
    far = np.maximum(x, LONG(NEAR))
    below = far
    for k in range(TERMS, 0, -1):
        below = far + k / (2 * below)
    return 1 / (ROOT_PI * below)


def erfc(x: Array) -> Array:
    size = np.abs(x)
    tail = np.exp(-size * size) * scaled(size)
    return np.where(size < NEAR, 1 - by_series(x), np.where(x > 0, tail, 2 - tail))


def erf(x: Array) -> Array:
    size = np.abs(x)
    far = np.sign(x) * (1 - np.exp(-size * size) * scaled(size))
    return np.where(size < NEAR, by_series(x), far)


def erfcx(x: Array) -> Array:
    near = np.exp(x * x) * (1 - by_series(x))
    below = np.exp(x * x) * (2 - np.exp(-x * x) * scaled(-x))
    return np.where(np.abs(x) < NEAR, near, np.where(x > 0, scaled(x), below))


def ndtr(x: Array) -> Array:
    return erfc(-x / ROOT_2) / 2


def log_ndtr(x: Array) -> Array:
    tail = np.log(erfcx(np.maximum(-x / ROOT_2, 0)) / 2) - x * x / 2
    return np.where(x < 0, tail, np.log1p(-erfc(np.maximum(x, 0) / ROOT_2) / 2))


LONGER: dict[Any, Callable[[Array], Array]] = {
    special.erf: erf,
    special.erfc: erfc,
    special.erfcx: erfcx,
    special.ndtr: ndtr,
    special.log_ndtr: log_ndtr,
}


def longer(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel, of long doubles where there is one for them."""
    other = LONGER.get(kernel) if isinstance(kernel, np.ufunc) else None
    if other is None:
        return kernel

    def either(x: Any) -> Any:
        array = np.asarray(x)
        return other(array)[()] if array.dtype == LONG else kernel(x)

    return either
