"""Numbers and arrays that enter a program and stay as they are."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from lagrad.errors import UnsupportedType
from lagrad.typing import Array

# Numbers of Python, which take the dtype of what they meet; NumPy's own scalars do not.
NUMBERS = (bool, int, float)


def real_array(value: Any, what: str, copied: Callable[[Any], Array] = np.array) -> Array:
    """A read-only copy of real numbers; `what` names them in the error.

    What is `copied` may be a copy that others have too.
    """
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise UnsupportedType(
            f"{what} is a {type(value).__name__}, whose operations are not NumPy's; pass an array."
        )
    array = copied(value)
    if array.dtype == object and all(isinstance(a, Real) for a in array.flat):
        array = array.astype(float)  # whole numbers beyond 64 bits, and fractions
    if array.dtype.kind == "c":
        raise UnsupportedType(
            f"{what} is complex; lagrad differentiates real programs: "
            "declare real and imaginary parts."
        )
    if array.dtype.kind not in "fiub":
        raise UnsupportedType(f"{what} has dtype {array.dtype}; expected real numbers.")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    array.flags.writeable = False
    return array


def in_dtype(array: Array, dtype: Any) -> Array:
    """A read-only array of this dtype: the array itself where it has it."""
    if array.dtype != dtype:
        array = array.astype(dtype)
        array.flags.writeable = False
    return array
