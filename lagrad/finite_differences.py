"""Derivatives by centred differences, for functions that have no rule."""

from collections.abc import Callable

import numpy as np

from lagrad.typing import Array, Function

EPSILON = float(np.finfo(float).eps)
# The error of the four-point formula is h⁴f⁽⁵⁾/30, its rounding about ε f/h.
STEP = EPSILON ** (1 / 5)


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


def centred(value: Function) -> Function:
    """The rule of a primitive in forward mode, by differences of its value."""

    def jvp(tangents: tuple[Array, ...], y: Array, *x: Array) -> Array:
        total: Array = 0.0
        for k, tangent in enumerate(tangents):
            if np.any(tangent):
                total = total + along(
                    lambda z, k=k: value(*x[:k], z, *x[k + 1 :]),  # type: ignore[misc]
                    np.asarray(x[k], dtype=float),
                    np.asarray(tangent, dtype=float),
                )
        return np.broadcast_to(total, np.shape(y))

    return jvp
