"""Text that other hands wrote, as text alone: names, labels, messages, constants in source."""

import operator
import unicodedata
from typing import Any

import numpy as np


def plain(text: object) -> str:
    """The characters of a string: a subclass may print, format or compare as something else."""
    return str.__str__(text if isinstance(text, str) else str(text))


def as_read(name: Any) -> Any:
    """A name as Python reads it, a plain string; what is none stays as it is."""
    return unicodedata.normalize("NFKC", plain(name)) if isinstance(name, str) else name


def printable(text: object, kept: str = "") -> str:
    """A text whose unprinted characters are escaped, but those that are `kept`.

    A terminal obeys control characters, and marks of direction turn round what follows them.
    """
    text = plain(text)
    if text.isprintable():
        return text
    escaped = (c.encode("unicode_escape").decode() for c in text)
    return "".join(
        c if c.isprintable() or c in kept else e for c, e in zip(text, escaped, strict=True)
    )


def literal(value: Any) -> str:
    """A parameter of an operation as source: whatever its class says of itself, a constant.

    An integer of a class of its own, as a member of an `enum.IntEnum`, is written as a number.
    """
    if value is None or value is Ellipsis or isinstance(value, (bool, np.bool_)):
        return "..." if value is Ellipsis else str(None if value is None else bool(value))
    if isinstance(value, str):
        return repr(plain(value))
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(literal, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, (float, np.floating)):
        found = float.__repr__(float(value))
        return found if np.isfinite(value) else f"float({found!r})"
    return int.__repr__(operator.index(value))
