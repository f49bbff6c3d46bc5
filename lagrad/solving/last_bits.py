"""Derivatives that are rounding: computed again, all numbers moved by their last bits, they differ.

A quotient of two roundings, such as the s·s/s·y of an iteration that has converged, may do no harm
to a value, where it multiplies a zero, while its derivative is another one at each rounding.
Whoever computes such a thing says so by a *doubt*, which costs little and may be wrong; the
derivative is then computed a second time with all that it is made of moved, and the difference is
part of its error.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from lagrad.errors import SingularSystem
from lagrad.typing import Array

DOUBTS: ContextVar[list[str] | None] = ContextVar("lagrad_doubts", default=None)
MOVING: ContextVar[np.random.Generator | None] = ContextVar("lagrad_moving", default=None)
# How much a step's derivative may change while the numbers it is of change in their last bits.
STEADY = 1e-7
DIVIDES = "divides by what rounding has left, as of differences once an iteration has converged"


@contextmanager
def doubting() -> Iterator[list[str]]:
    """Collect what casts doubt on the derivatives that are computed within."""
    doubts: list[str] = []
    token = DOUBTS.set(doubts)
    try:
        yield doubts
    finally:
        DOUBTS.reset(token)


@contextmanager
def moving(rng: np.random.Generator) -> Iterator[None]:
    """Have all that loops are given moved by its last bits."""
    token = MOVING.set(rng)
    try:
        yield
    finally:
        MOVING.reset(token)


def in_last_bits(
    array: Array, rng: np.random.Generator, whole: bool = False, times: float = 1.0
) -> Array:
    """An array moved by rounding, or by many times that.

    Whole numbers, which count and compare, only where so wanted.
    """
    if array.dtype.kind != "f":
        return array
    shape = np.shape(array)
    share = rng.choice((-1.0, 1.0), shape) * rng.integers(1, 9, shape) * np.finfo(array.dtype).eps
    moved = array * (1 + times * share)
    return (moved if whole else np.where(np.rint(array) == array, array, moved)).astype(array.dtype)


def by_a_share(array: Array, share: float, of_zero: float) -> Array:
    """An array with each entry moved by a share of itself; of the largest, where it is zero."""
    if array.dtype.kind != "f":
        return array
    size = np.abs(array)
    size = np.where(size > 0, size, size.max(initial=0.0) or of_zero)
    step = share * max(1.0, 1e12 * float(np.finfo(array.dtype).eps))
    return (array + step * size).astype(array.dtype)


def steady(found: Sequence[Array], other: Sequence[Array]) -> bool:
    """Whether arrays are the same up to what rounding may do to them."""
    sizes = [float(np.abs(a).max(initial=0.0)) for a in found]
    floor = 1e-9 * max(sizes, default=0.0)
    for a, b, size in zip(found, other, sizes, strict=True):
        change = float(np.abs(b - a).max(initial=0.0))
        if not change <= STEADY * max(size, floor):
            return False
    return True


def rounded(what: str, change: float, doubts: Iterable[str]) -> SingularSystem:
    """The error for a derivative that is rounding."""
    why = list(doubts)
    remedy = (
        "Let it stop there (fewer steps, or lg.while_loop), start farther from the solution, keep "
        "the divisor away from zero, or differentiate what it approaches instead: lg.argmin, "
        "lg.root and lg.fixed_point do, without differentiate=."
        if any(doubt.endswith(DIVIDES) for doubt in why)
        else "Write its step so that nothing cancels, take fewer, or ask for less of lg.grad, "
        "lg.jacobian or solve: accuracy=…."
    )
    return SingularSystem(
        f"{what} is rounding: it changes by {change:.1e} of itself when what it is made of "
        f"changes in its last bits. Here {' and '.join(why)}. {remedy}"
    )
