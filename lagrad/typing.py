"""Names of types that stand in signatures everywhere."""

from __future__ import annotations

from typing import Any, TypeAlias

# NumPy's own type says little of shapes, and nothing of what may be traced: docstrings do.
Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
# An array, a number, or an expression: what linear maps and rules of primitives are written over.
Value: TypeAlias = Any
