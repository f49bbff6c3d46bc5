"""Equal eigenvalues, whose eigenvectors have no derivative of their own.

Of a group of equal eigenvalues only the space is defined, not the vectors in it. A function that
is the same whichever are taken, as V f(w) Vᵀ or the sum of all f(w), has a derivative all the same.
It is smooth, so it is the mean of those at matrices A ± hE whose eigenvalues E moves apart, up to
h²; two steps h leave h⁴ (Richardson). For another E the result is the same; where it is not, the
function depends on the vectors that were taken, and has no derivative. What `compute` does is run
again for each of these: eigenvalues are moved apart within `np.linalg.eigh`, whatever is before it.

A derivative of order k has an error of ε over the k-th power of the gap, so the higher the order,
the further apart eigenvalues are that count as equal.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lagrad.primitives.kernels import overridable
from lagrad.typing import Array

# Equal eigenvalues nearer to zero than this share of the largest are moved by a share of that one:
# the first serves functions with a singularity at zero, as the logarithm, the second all others.
NEAR_ZERO = (1e-5, 0.1)


@dataclass(frozen=True)
class Separation:
    """By how many steps equal eigenvalues are moved apart, along which random directions.

    By none where it is only asked which derivatives they have no value for.
    """

    steps: int = 0
    order: int = 0
    near_zero: float = 0.0
    seed: int = 0
    met: list[Any] = field(default_factory=list)  # groups of equal eigenvalues, or orders


SEPARATION: ContextVar[Separation | None] = ContextVar("separation", default=None)


@contextmanager
def separated(separation: Separation) -> Iterator[Separation]:
    token = SEPARATION.set(separation)
    try:
        with np.errstate(all="ignore"):
            yield separation
    finally:
        SEPARATION.reset(token)


@contextmanager
def watching() -> Iterator[list[Any]]:
    """Collect what equal eigenvalues are met that derivatives have no value for."""
    if (outer := SEPARATION.get()) is not None:
        yield outer.met
        return
    with separated(Separation()) as plain:
        yield plain.met


@overridable
def equal_shares(values: Array, order: int = 0) -> Array:
    """For ascending eigenvalues the matrices that take the mean over each group of equal ones."""
    n = values.shape[-1]
    size = np.maximum(-values[..., :1], values[..., -1:])
    epsilon = float(np.finfo(values.dtype).eps)
    # Values differ by √n times some spacings of the largest where rounding alone tells them apart.
    near = (0.3 * np.sqrt(epsilon)) ** (1 / order) if order else 16 * np.sqrt(n) * epsilon
    apart = values[..., 1:] - values[..., :-1] > near * size
    if apart.all():
        return np.broadcast_to(np.eye(n, dtype=values.dtype), (*values.shape, n))
    first = np.zeros((*values.shape[:-1], 1), dtype=bool)
    group = np.cumsum(np.concatenate([first, apart], axis=-1), axis=-1)
    same = np.equal(group[..., :, None], group[..., None, :])
    return np.asarray(same / same.sum(axis=-1, keepdims=True), values.dtype)


@overridable
def inverse_gaps(values: Array, order: int = 1) -> Array:
    """The matrices 1 / (w_j − w_i), zero on the diagonal, and NaN for equal eigenvalues."""
    own = np.eye(values.shape[-1], dtype=values.dtype)
    gaps = values[..., None, :] - values[..., :, None] + own
    size = np.maximum(-values[..., :1], values[..., -1:])[..., None]
    near = (0.3 * np.sqrt(np.finfo(values.dtype).eps)) ** (1 / order) if order else 0.0
    apart = (np.abs(gaps) > near * size) | (own > 0)
    if not apart.all():
        gaps = np.where(apart, gaps, np.nan)
    found: Array = 1 / gaps - own
    return found


@overridable
def spread_of(values: Array) -> Array:
    """How large ascending eigenvalues are beside the least, and beside distances of any two.

    So many times rounding of the matrix is magnified in what is made of them: the eigenvectors are
    off by it over the distance of their eigenvalues, unless these are equal, and 1/w, of the
    logarithm say, by it over w.
    """
    if values.size == 0:
        return np.array(1.0)
    epsilon = float(np.finfo(values.dtype).eps)
    size = np.abs(values).max(axis=-1, keepdims=True)
    equal = np.diagonal(equal_shares(values), 1, -2, -1) > 0
    gaps = np.where(equal, np.inf, np.diff(values, axis=-1))
    least = np.concatenate([gaps, np.maximum(np.abs(values), epsilon * size)], axis=-1)
    with np.errstate(all="ignore"):
        found = np.max(size / np.min(least, axis=-1, keepdims=True), where=size > 0, initial=1.0)
    return np.array(np.inf if np.isnan(found) else found, dtype=float)


def shares_there(values: Array, order: int) -> Array:
    """`equal_shares`; where equal eigenvalues are moved apart none are equal."""
    separation = SEPARATION.get()
    if separation is None or not separation.steps:
        return equal_shares(values, order)
    n = values.shape[-1]
    return np.broadcast_to(np.eye(n, dtype=values.dtype), (*values.shape, n))


def gaps_there(values: Array, order: int) -> Array:
    """`inverse_gaps`; where equal eigenvalues are moved apart none are equal."""
    separation = SEPARATION.get()
    if separation is not None and separation.steps:
        return inverse_gaps(values, 0)
    if separation is not None and separation.order:
        return inverse_gaps(values, separation.order)
    found = inverse_gaps(values, order)
    if separation is not None and np.isnan(found).any():
        separation.met.append(order)
    return found


def moved_apart(matrices: Array) -> Array:
    """The matrices; where asked for, those beside them that have no equal eigenvalues."""
    separation = SEPARATION.get()
    if separation is None or not separation.steps or matrices.size == 0:
        return matrices
    step = separation.steps * np.finfo(matrices.dtype).eps ** 0.2 / 2
    found, rng = np.array(matrices), np.random.default_rng(separation.seed)
    for place in np.ndindex(matrices.shape[:-2]):
        values, vectors = np.linalg.eigh(matrices[place])
        group = (equal_shares(values, separation.order) > 0).argmax(axis=-1)
        top = largest(values)
        for number in np.flatnonzero(np.bincount(group) > 1):
            equal = values[group == number]
            turn = np.linalg.qr(rng.standard_normal((equal.size, equal.size)))[0]
            basis = vectors[:, group == number] @ turn
            size = largest(equal)
            size = size if size > separation.near_zero * top else top or 1.0
            found[place] += (basis * (step * size * np.linspace(-1, 1, equal.size))) @ basis.T
            separation.met.append(equal)
    return found


Arrays = dict[Any, Array]
# The size that an array would naturally have: zero can be told from a tenth of it.
Unit = Callable[[Any], float]


@dataclass(frozen=True)
class Beside:
    """What was found beside equal eigenvalues, how far it is off, and which they are."""

    found: Arrays
    error: float
    equal: Array


def beside(compute: Callable[[], Arrays], unit: Unit, accuracy: float) -> Beside | None:
    """What `compute` finds beside equal eigenvalues; None where it meets none.

    An infinite error is that of what has no value.
    """
    with separated(Separation()) as plain:
        compute()
    order, best = max(plain.met, default=0), None
    for near_zero in NEAR_ZERO if order else ():
        tried = between(compute, unit, order, near_zero)
        if tried is not None and (best is None or tried.error < best.error):
            best = tried
        if best is not None and best.error < 1e-2 * accuracy:
            return best
    if order > 1 and best is not None and not best.error <= accuracy:
        # What depends on single vectors, of eigenvalues that are apart for a first derivative.
        with separated(Separation(order=1)):
            found = compute()
        if all(np.isfinite(array).all() for array in found.values()):
            return Beside(found, 0.0, best.equal)
    return best


def between(
    compute: Callable[[], Arrays], unit: Unit, order: int, near_zero: float
) -> Beside | None:
    """The limit of what is found between the sides, and how far it depends on the directions."""
    limits, sides, equal = [], {}, None
    for seed in (0, 1):
        for steps in (2, -2, 1, -1):
            with separated(Separation(steps, order, near_zero, seed)) as separation:
                sides[steps] = {k: np.array(a, dtype=float) for k, a in compute().items()}
            if not separation.met:
                return None
            equal = separation.met[0]
        near, back, far, beyond = (sides[steps] for steps in (1, -1, 2, -2))
        limits.append({k: (4 * (a + back[k]) - far[k] - beyond[k]) / 6 for k, a in near.items()})

    def relative(off: float, array: Array, key: Any) -> float:
        size = largest(array)
        size = max(size, 0.1 * unit(key)) if size <= 10 * off else size
        return off / size if off else 0.0

    error = 0.0
    for key, array in limits[0].items():
        # The sides of what is smooth come nearer to each other with the step.
        jump, wider = largest(near[key] - back[key]), largest(far[key] - beyond[key])
        smooth = relative(jump, near[key], key) < 0.1 or 1.5 * jump < wider < np.inf
        off = relative(largest(array - limits[1][key]), array, key)
        error = max(error, off if smooth and np.isfinite(off) else np.inf)
    return Beside(limits[0], error, np.asarray(equal))


def largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def undefined(what: str, equal: Array) -> str:
    """The message for what depends on the eigenvectors that were taken."""
    shown = ", ".join(f"{value:.6g}" for value in equal[:4]) + (", …" if equal.size > 4 else "")
    apart = float(np.ptp(equal)) if equal.size else 0.0
    near, gap = "equal", ""
    if apart > 100 * np.finfo(float).eps * largest(equal):
        near, gap = "nearly equal", f" ({apart:.1e} apart)"
    return (
        f"{what} has no value: np.linalg.eigh has the {near} eigenvalues {shown}{gap} there, whose "
        "eigenvectors rounding does not tell apart, and it depends on which are taken. Use what is "
        "the same for all of them, such as (V * f(w)) @ V.T, or add to the matrix what tells them "
        "apart."
    )
