"""The primitives: each declared once, with its value, its shape and its local partials."""

# Importing a file of this package enters its primitives in the table, and what NumPy's functions
# do with traced values in the tables of `expressions.dispatch`.
from lagrad.expressions import array_methods
from lagrad.primitives import (
    contraction,
    custom,
    elementwise,
    indexing,
    linalg,
    reduction,
    shaping,
    special,
)
from lagrad.primitives.registry import PRIMITIVES

__all__ = [
    "PRIMITIVES",
    "array_methods",
    "contraction",
    "custom",
    "elementwise",
    "indexing",
    "linalg",
    "reduction",
    "shaping",
    "special",
]
