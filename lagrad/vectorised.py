"""NumPy's elementwise functions by Intel's vector library, where the extra `mkl` is installed.

NumPy's own exp, sin and tanh use the vectors of a processor with AVX-512, and one number after
the other elsewhere. `mkl_umath` computes four at once there too, to the last bit but one.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["vectorised"]

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


def vectorised(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or a faster one for large arrays."""
    found: Callable[..., Any] = table().get(kernel, kernel)
    return found
