"""The primitives: each declared once, with its value, its shape and its local partials."""

from lagrad import methods
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
    "contraction",
    "custom",
    "elementwise",
    "indexing",
    "linalg",
    "methods",
    "reduction",
    "shaping",
    "special",
]
