"""Names, shapes and numbers as they are declared, checked and promoted."""

from __future__ import annotations

import keyword
import unicodedata
from typing import Any

import numpy as np

from lagrad.errors import InvalidName, InvalidValue, ShapeMismatch, UnsupportedType
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.real_arrays import real_array
from lagrad.typing import Array, DType, Shape


def identifier(name: Any) -> str:
    """A name as Python reads it (NFKC), which must be an identifier."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidName(f"{name!r} is no name: expected an identifier, such as 'x' or 'y_1'.")
    return unicodedata.normalize("NFKC", name)


def normal_shape(what: str, shape: Any) -> Shape | None:
    """A shape as a tuple of lengths."""
    if shape is None:
        return None
    try:
        lengths = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        normal = tuple(int(n) for n in lengths)
    except (TypeError, ValueError):
        raise ShapeMismatch(f"{what} has shape {shape!r}; expected lengths.") from None
    if normal != lengths or any(n < 0 for n in normal):
        raise ShapeMismatch(f"{what} has shape {shape!r}; expected lengths of zero or more.")
    return normal


def declared(what: str, value: Any, shape: Any, dtype: Any) -> tuple[Array | None, Shape, DType]:
    """The value, shape and dtype of a variable from what was given of them."""
    shape = normal_shape(what, shape)
    if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
        raise UnsupportedType(f"{what} has dtype {np.dtype(dtype)}; expected float32 or float64.")
    if value is None:
        return None, shape or (), np.dtype(dtype or float)
    array = real_floats(what, value)
    if shape is not None and array.shape != shape:
        raise ShapeMismatch(f"{what} has shape {shape}, and its value {array.shape}.")
    if dtype is not None:
        array = array.astype(dtype)
        array.flags.writeable = False
    return array, array.shape, array.dtype


def real_floats(what: str, value: Any) -> Array:
    """A read-only copy of finite floats; integers are promoted."""
    if isinstance(value, Expression):
        raise UnsupportedType(f"{what} was given {value!r}; expected numbers.")
    try:
        array = real_array(value, what)
    except ValueError as error:
        raise InvalidValue(f"{what}: {error}") from None
    if array.dtype.kind != "f":
        array = array.astype(float)
        array.flags.writeable = False
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        place = f" at {where}" if where else ""
        raise InvalidValue(f"{what} is NaN or infinite{place}.")
    return array


def fitted(what: str, value: Any, variable: Variable) -> Array:
    """A value in a variable's shape and dtype."""
    array = value if value is variable.start else real_floats(what, value)
    if array.shape != variable.shape:
        raise ShapeMismatch(f"{what} has shape {variable.shape}; the value given {array.shape}.")
    if array.dtype != variable.dtype:
        array = array.astype(variable.dtype)
        array.flags.writeable = False
    return array
