"""The primitives: each declared once, with its value, its shape and its local partials."""

# Importing a file of this package enters its primitives in the table, and what NumPy's functions
# do with traced values in the tables of `expressions.dispatch`. What these import stands first.
from lagrad.expressions import array_methods
from lagrad.primitives import contraction, linalg, shaping, special

__all__ = ["array_methods", "contraction", "linalg", "shaping", "special"]
