"""The tables by which NumPy's functions find what they do with traced values."""

from __future__ import annotations

from typing import Any

import numpy as np

from lagrad.errors import LagradError, ShapeMismatch, UnsupportedFunction
from lagrad.typing import Function

# Filled by `lagrad.primitives` as it is imported, and never changed afterwards.
UFUNCS: dict[np.ufunc, Function] = {}
FUNCTIONS: dict[Function, Function] = {}
# The primitives of ufuncs that make doubles of doubles.
OF_DOUBLES: dict[np.ufunc, Any] = {}
REDUCTIONS: dict[np.ufunc, Function] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
}


def named(name: str, handler: Function, *args: Any, **kwargs: Any) -> Any:
    """A handler's result; what it cannot take becomes an error with the function's name."""
    try:
        return handler(*args, **kwargs)
    except LagradError:
        raise
    except (TypeError, LookupError) as error:
        raise UnsupportedFunction(f"np.{name} of traced values: {error}") from error
    except ValueError as error:
        raise ShapeMismatch(f"np.{name} of traced values: {error}") from error
