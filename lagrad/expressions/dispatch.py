"""The tables by which NumPy's functions find what they do with traced values."""

from typing import Any

import numpy as np

from lagrad.typing import Function

# Filled by `lagrad.primitives` as it is imported, and never changed afterwards.
UFUNCS: dict[np.ufunc, Any] = {}
FUNCTIONS: dict[Function, Function] = {}
REDUCTIONS: dict[np.ufunc, Function] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
}
