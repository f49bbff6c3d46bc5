"""Proximal operators: minimisers of ½‖z − v‖² plus a penalty that has kinks, or a constraint.

`z = prox(z − s ∇f(z))` is the fixed point of a penalised or constrained minimum. Entries that the
operator holds fixed drop out of the derivative's linear system.
"""

from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, ShapeMismatch, TracedValueError
from lagrad.expressions.graph import given
from lagrad.primitives.custom import primitive
from lagrad.primitives.kernels import Index, gather, scatter
from lagrad.typing import Value

__all__ = ["box", "group_l2", "l1", "simplex"]


def l1(v: Value, t: Value) -> Value:
    """Return the soft threshold of `v`: the prox of `Σ t|z|`.

    Parameters
    ----------
    v : array, shape (…)
    t : array or float
        Thresholds of zero or more, one for all or one for each entry.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.prox.l1([3.0, -0.5, -2.0], 1.0).tolist()
    [2.0, 0.0, -1.0]
    """
    v = given(v)
    return np.sign(v) * np.maximum(np.abs(v) - thresholds(t), 0.0) + 0.0


def box(v: Value, low: Value, high: Value) -> Value:
    """Return the nearest point with `low ≤ z ≤ high`.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.prox.box([-1.0, 0.5, 3.0], 0.0, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    if holds(np.any(np.greater(low, high))):
        raise InvalidValue("prox.box: a lower bound is above the upper one.")
    return np.minimum(np.maximum(given(v), low), high)


def simplex(v: Value, radius: float = 1.0) -> Value:
    """Return the nearest point with `z ≥ 0` and sum `radius`, along the last axis.

    Parameters
    ----------
    v : array, shape (…, n)
    radius : float

    References
    ----------
    Duchi et al. (2008), Efficient projections onto the l1-ball, doi:10.1145/1390156.1390191.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.prox.simplex([0.5, 1.5, -3.0]).tolist()
    [0.0, 1.0, 0.0]
    """
    if not radius > 0:
        raise InvalidValue(f"prox.simplex(radius={radius!r}); expected a number above zero.")
    v = given(v)
    if v.ndim == 0 or v.shape[-1] == 0:
        raise ShapeMismatch(f"prox.simplex of shape {v.shape}; expected an axis with entries.")
    return radius * unit_simplex(v / radius)


def group_l2(v: Value, t: Value, groups: Any = None) -> Value:
    """Return the group soft threshold of `v`: the prox of `Σ t‖z_g‖₂` over groups g.

    Parameters
    ----------
    v : array
        Of shape (…, n), each row a group; or of shape (n,) with `groups`.
    t : array or float
        Thresholds of zero or more, one for all or one for each group.
    groups : array of ints, shape (n,), optional
        The number of each entry's group, counted from zero.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.prox.group_l2([3.0, 4.0, 0.1], 2.5, groups=[0, 0, 1]).tolist()
    [1.5, 2.0, 0.0]
    """
    v, t = given(v), thresholds(t)
    if groups is None:
        squares = np.sum(v * v, axis=-1, keepdims=True)
        t = t[..., None] if np.ndim(t) else t
        return v * kept(squares, t)
    numbers = np.asarray(groups)
    if numbers.shape != v.shape or numbers.dtype.kind not in "iu" or v.ndim != 1:
        raise ShapeMismatch(
            f"prox.group_l2: groups of shape {numbers.shape} and dtype {numbers.dtype} for values "
            f"of shape {v.shape}; expected one integer for each of a vector."
        )
    if numbers.size and numbers.min() < 0:
        raise InvalidValue("prox.group_l2: a group has a negative number.")
    index = Index(numbers, (int(numbers.max(initial=-1)) + 1,))
    return v * gather(kept(scatter(v * v, index), t), index)


def kept(squares: Value, t: Value) -> Value:
    """max(0, 1 − t/√squares), zero with zero derivative where the squares are zero."""
    some = np.greater(squares, 0.0)
    size = np.sqrt(np.where(some, squares, 1.0))
    return np.where(some, np.maximum(1.0 - t / size, 0.0), 0.0)


def _project(v: Any) -> Any:
    ordered = np.sort(v, axis=-1)[..., ::-1]
    count = np.arange(1, v.shape[-1] + 1)
    excess = (np.cumsum(ordered, axis=-1) - 1.0) / count
    last = np.sum(ordered > excess, axis=-1, keepdims=True) - 1
    return np.maximum(v - np.take_along_axis(excess, last, axis=-1), 0.0)


def _on_face(direction: Value, y: Value) -> Value:
    """The part of a direction along the face of the simplex that `y` lies in."""
    free = np.where(np.greater(y, 0.0), 1.0, 0.0)
    mean = np.sum(free * direction, axis=-1, keepdims=True) / np.sum(free, axis=-1, keepdims=True)
    return free * (direction - mean)


unit_simplex = primitive(
    _project,
    vjp=lambda cotangent, y, v: (_on_face(cotangent, y),),
    jvp=lambda tangents, y, v: _on_face(tangents[0], y),
    shape=lambda shape: shape,
    name="project_on_simplex",
)


def thresholds(t: Value) -> Value:
    if holds(np.any(np.less(t, 0))):
        raise InvalidValue(f"a threshold is negative: {t!r}; expected zero or more.")
    return t


def holds(condition: Any) -> bool:
    """Whether a condition holds, as far as it has a value already."""
    try:
        return bool(condition)
    except TracedValueError:
        return False
