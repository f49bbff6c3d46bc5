"""A traced call beside the same call on numbers.

Libraries that are given an array of traced values may refuse it, or go another way because it is
an array of objects. What the function does on numbers tells both from its own errors.
"""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lagrad.errors import LagradError, TracedValueError, UnsupportedFunction
from lagrad.trees import Tree, flatten
from lagrad.typing import Array

HOME = str(Path(__file__).parents[1])
# What NumPy and SciPy say of arrays of objects, and what to make in their place.
OF_OBJECTS = ("dtype('O')", "object", "has no callable")
ARRAYS = (
    "np.array of traced values is an array of objects, which few functions take: make a vector by "
    "np.stack([a, 2 * a]), a matrix by np.block([[2.0, a], [a, 3.0]]). "
)
# Values that differ by more were not computed in the same way.
OFF = {8: 1e-6, 4: 1e-3}


def named(name: str, on_numbers: Callable[[], Any], error: Exception) -> LagradError | None:
    """The error of a function that breaks off where it is traced; None where it does on numbers."""
    try:
        with np.errstate(all="ignore"):
            on_numbers()
    except LagradError as known:
        return known  # of a function traced within, which has found a name for it
    except Exception:
        return None
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(HOME)]
    lines = [frame.line for frame in own if frame.filename == own[0].filename]
    where = f" at `{lines[-1]}`" if lines and lines[-1] else ""
    said = str(error).rstrip(".")
    objects = any(word in said for word in OF_OBJECTS)
    return UnsupportedFunction(
        f"{name!r} works on numbers, and breaks off where it is traced{where}: "
        f"{type(error).__name__}: {said}. {ARRAYS if objects else ''}Use functions that "
        "docs/functions.md lists, give that one a rule, lg.primitive(f, vjp=…), or take "
        'differences, lg.primitive(f, jvp="centered").'
    )


def require_value(
    name: str, on_numbers: Callable[[], Any], tree: Tree, values: Sequence[Array], single: bool
) -> None:
    """TracedValueError where the trace has other values than the function on numbers.

    Where something is in single precision, so is rounding. A function that returns something else
    each time it is called is compared with nothing.
    """
    try:
        with np.errstate(all="ignore"):
            found = arrays(on_numbers())
            if same((values, tree), found, single):
                return
            if not same(arrays(on_numbers()), found, single):
                return
    except Exception:
        return  # what breaks off on numbers has no values to compare with
    raise TracedValueError(
        f"{name!r} returns {shown(found[0])} on numbers and {shown(values)} where it is traced: "
        "something in it goes another way for traced values, by a set or dict of them, their type, "
        "or the dtype of np.asarray of them, which is object. Leave these out."
    )


def arrays(result: Any) -> tuple[list[Array], Tree]:
    leaves, tree = flatten(result)
    return [np.asarray(leaf) for leaf in leaves], tree


def same(
    these: tuple[Sequence[Array], Tree], those: tuple[Sequence[Array], Tree], single: bool
) -> bool:
    """Whether two results are equal but for rounding."""
    if these[1] != those[1]:
        return False
    return all(close(a, b, single) for a, b in zip(these[0], those[0], strict=True))


def close(a: Array, b: Array, single: bool) -> bool:
    if a.shape != b.shape:
        return False
    off = OFF.get(4 if single else min(a.itemsize, b.itemsize), 1e-6)
    if np.abs(a - 1.0 * b).max(initial=0.0) <= off * np.abs(b).max(initial=0.0):
        return True
    size = float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=off, atol=off * size, equal_nan=True))


def shown(values: Sequence[Array]) -> str:
    """The first few numbers."""
    flat = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    return ", ".join(f"{v:.9g}" for v in flat[:3].tolist()) + (", …" if flat.size > 3 else "")
