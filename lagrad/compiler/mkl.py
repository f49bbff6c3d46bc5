"""NumPy's elementwise functions by Intel's vector library, where the extra `mkl` is installed.

NumPy's own exp, sin and tanh use the vectors of a processor with AVX-512, and one number after
the other elsewhere. `mkl_umath` computes four at once there too, to the last bit but one.
"""

import functools
import importlib.util
import math
from typing import Any

import numpy as np

from lagrad.typing import Array, DType, Function

NAMES = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
)


@functools.cache
def table() -> dict[Any, Any]:
    """For each of NumPy's functions the one to take in its place."""
    if None in (importlib.util.find_spec("mkl_umath"), importlib.util.find_spec("mkl")):
        return {}
    library = importlib.import_module("mkl_umath")
    # Blocks are spread over threads already, and those of two libraries wait for each other.
    importlib.import_module("mkl").domain_set_num_threads(1, domain="vml")
    return {getattr(np, name): getattr(library, name) for name in NAMES if hasattr(library, name)}


def vectorised(kernel: Function, dtype: DType) -> Function:
    """The function itself, or a faster one for large arrays."""
    if kernel is np.log1p and (dtype == np.float32 or np.log in table()):
        return log1p
    found: Function = table().get(kernel, kernel)
    return found


def log1p(x: Array, out: Array) -> Array:
    """log(1 + x) by the logarithm, which has vectors where log1p has none; to two last bits.

    For u = 1 + x rounded, log(1 + x) = log u + log(1 + (x − (u − 1))/u) to first order in what
    rounding lost (Goldberg, What Every Computer Scientist Should Know About Floating-Point
    Arithmetic, 1991, §1.4, from the HP-15C).
    """
    u = x + x.dtype.type(1)
    lost = u - x.dtype.type(1)
    np.subtract(x, lost, out=lost)
    np.divide(lost, u, out=lost)
    if not math.isfinite(np.add.reduce(lost, axis=None)):  # at −1, at infinity, at NaN
        return np.log1p(x, out=out)
    logarithm = table().get(np.log, np.log)
    logarithm(u, out=out)
    return np.add(out, lost, out=out)
