"""Names of types that stand in signatures everywhere."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

# NumPy's own type says little of shapes, and nothing of what may be traced: docstrings do.
Array: TypeAlias = Any
# An array, a number, or an expression: what linear maps and rules of primitives are written over.
Value: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
# Positions: of arguments, axes or values.
Indices: TypeAlias = tuple[int, ...]
DType: TypeAlias = np.dtype[Any]
Kind: TypeAlias = tuple[Shape, DType]
Function: TypeAlias = Callable[..., Any]
# What a primitive is told beside its arguments; hashable.
Parameters: TypeAlias = tuple[Any, ...]
