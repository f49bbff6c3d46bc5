"""Derivatives by centred differences, for functions that have no rule."""

from collections.abc import Callable

import numpy as np

from lagrad.errors import NotFinite
from lagrad.typing import Array, Function

EPSILON = float(np.finfo(float).eps)
# The error of the four-point formula is h⁴f⁽⁵⁾/30, its rounding about ε f/h.
STEP = EPSILON ** (1 / 5)
# How many steps are tried, each so much shorter than the one before; how close two have to be; from
# where on none is right; and beside which slope, of values over arguments, there is none.
LADDER, SHORTER, AGREED, DISAGREED, FLAT = 12, 8.0, 1e-6, 1e-2, 1e-3


def along(
    function: Callable[[Array], Array], point: Array, direction: Array, step: float | None = None
) -> Array:
    """The derivative of a function along a direction, by four values around a point.

    The step is relative to the largest entry of the point, and to one where that is smaller.
    """
    length = float(np.abs(direction).max(initial=0.0))
    if length == 0.0:
        return np.zeros_like(np.asarray(function(point), dtype=float))
    h = (step or STEP) * max(1.0, float(np.abs(point).max(initial=0.0))) / length

    def difference(k: float) -> Array:
        ahead, behind = function(point + k * h * direction), function(point - k * h * direction)
        return np.asarray(ahead, dtype=float) - np.asarray(behind, dtype=float)

    return (8.0 * difference(1.0) - difference(2.0)) / (12.0 * h)


def steady(function: Callable[[Array], Array], point: Array, direction: Array, name: str) -> Array:
    """The same by steps of which two that follow one another agree.

    Those of the size of what is moved come first: a law may turn within far less than one, and
    arguments have units. Where that changes a value in its last digits only, larger ones do.
    """
    moved = np.abs(point[direction != 0]).max(initial=0.0)
    whole = max(1.0, float(np.abs(point).max(initial=0.0)))  # what the step of `along` is beside
    top = np.abs(np.asarray(function(point), dtype=float)).max(initial=0.0)
    length = float(np.abs(direction).max(initial=0.0))
    best, least = np.zeros(()), np.inf
    for size in dict.fromkeys((float(moved) or whole, whole)):
        floor = FLAT * float(top) * length / size
        found: list[Array] = []
        for k in range(LADDER):
            step = STEP * size / whole / SHORTER**k
            found.append(along(function, point, direction, step))
            if not k:
                continue
            off = float(np.abs(found[-1] - found[-2]).max(initial=0.0))
            slope = float(np.abs(found[-2]).max(initial=0.0))
            share = off / max(slope, floor) if off else 0.0
            if share < least or (share < AGREED and size == whole):
                best, least = found[-2], share
            if share < AGREED:
                break
        if least < AGREED and np.abs(best).max(initial=0.0) > floor:
            return best
    if not least < DISAGREED:
        raise NotFinite(
            f"differences of {name} do not agree at any step: it may jump, or be noise. Give it a "
            "rule, lg.primitive(f, vjp=…), or make it smooth."
        )
    return best


def centred(value: Function, name: str) -> Function:
    """The rule of a primitive in forward mode, by differences of its value."""

    def jvp(tangents: tuple[Array, ...], y: Array, *x: Array) -> Array:
        total: Array = 0.0
        for k, tangent in enumerate(tangents):
            if np.any(tangent):
                total = total + steady(
                    lambda z, k=k: value(*x[:k], z, *x[k + 1 :]),  # type: ignore[misc]
                    np.asarray(x[k], dtype=float),
                    np.asarray(tangent, dtype=float),
                    name,
                )
        return np.broadcast_to(total, np.shape(y))

    return jvp
