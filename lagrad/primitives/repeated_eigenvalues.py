"""Equal eigenvalues, whose eigenvectors have no derivative of their own.

Of a group of equal eigenvalues only the space is defined, not the vectors in it. A function that
is the same whichever are taken, as V f(w) Vᵀ or the sum of all f(w), has a derivative all the same.
It is smooth, so it is the mean of those at matrices A ± hE whose eigenvalues E moves apart, up to
h²; two steps h leave h⁴ (Richardson). For another E the result is the same; where it is not, the
function depends on the vectors that were taken, and has no derivative. What `compute` does is run
again for each of these: eigenvalues are moved apart within `np.linalg.eigh`, whatever is before it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lagrad.primitives.kernels import overridable
from lagrad.typing import Array

# Relative to the largest eigenvalue: groups nearer to zero are moved by as much as that allows.
NEAR_ZERO = 1e-5


@dataclass(frozen=True)
class Separation:
    """By how many steps equal eigenvalues are moved apart, along which random directions."""

    steps: int
    seed: int
    met: list[Array] = field(default_factory=list)  # the groups of equal eigenvalues


SEPARATION: ContextVar[Separation | None] = ContextVar("separation", default=None)


@contextmanager
def separated(separation: Separation) -> Iterator[None]:
    token = SEPARATION.set(separation)
    try:
        yield
    finally:
        SEPARATION.reset(token)


@overridable
def equal_shares(values: Array, near: float = 0.3) -> Array:
    """For ascending eigenvalues the matrices that take the mean over each group of equal ones.

    Equal are those less than near·√ε of the largest apart: a derivative of their eigenvectors has
    an error of ε over that.
    """
    size = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    apart = np.diff(values, axis=-1) > near * np.sqrt(np.finfo(values.dtype).eps) * size
    first = np.zeros((*values.shape[:-1], min(values.shape[-1], 1)), dtype=bool)
    group = np.cumsum(np.concatenate([first, apart], axis=-1), axis=-1)
    same = np.equal(group[..., :, None], group[..., None, :])
    return np.asarray(same / same.sum(axis=-1, keepdims=True), values.dtype)


def shares_of_separated(values: Array) -> Array:
    """The same; where equal eigenvalues were moved apart none are equal."""
    if SEPARATION.get() is None:
        return equal_shares(values)
    n = values.shape[-1]
    return np.broadcast_to(np.eye(n, dtype=values.dtype), (*values.shape, n))


def moved_apart(matrices: Array) -> Array:
    """The matrices; where asked for, those beside them that have no equal eigenvalues."""
    separation = SEPARATION.get()
    if separation is None or matrices.size == 0:
        return matrices
    step = separation.steps * np.finfo(matrices.dtype).eps ** 0.2 / 2
    found, rng = np.array(matrices), np.random.default_rng(separation.seed)
    for place in np.ndindex(matrices.shape[:-2]):
        values, vectors = np.linalg.eigh(matrices[place])
        group = (equal_shares(values) > 0).argmax(axis=-1)
        top = largest(values)
        for number in np.flatnonzero(np.bincount(group) > 1):
            equal = values[group == number]
            turn = np.linalg.qr(rng.standard_normal((equal.size, equal.size)))[0]
            basis = vectors[:, group == number] @ turn
            size = largest(equal)
            size = size if size > NEAR_ZERO * top else top or 1.0
            found[place] += (basis * (step * size * np.linspace(-1, 1, equal.size))) @ basis.T
            separation.met.append(equal)
    return found


@dataclass(frozen=True)
class Between:
    """What was found between matrices without equal eigenvalues.

    `pairs` are those on both sides, a step away and two, and `again` is the same along other
    directions.
    """

    found: dict[Any, Array]
    again: dict[Any, Array]
    pairs: tuple[tuple[dict[Any, Array], dict[Any, Array]], ...]
    equal: Array

    def error(self, unit: Callable[[Any], float]) -> float:
        """How far it depends on the directions; infinite where it jumps between the sides.

        The sides of what is smooth come nearer to each other with the step. `unit` is the size
        that each array would naturally have: zero can be told from a thousandth of it.
        """

        def relative(off: float, array: Array, key: Any) -> float:
            size = largest(array)
            size = max(size, 1e-3 * unit(key)) if size <= 10 * off else size
            return off / size if off else 0.0

        worst, ((near, back), (far, beyond)) = 0.0, self.pairs
        for key, array in self.found.items():
            jump, wider = largest(near[key] - back[key]), largest(far[key] - beyond[key])
            smooth = relative(jump, near[key], key) < 0.1 or 1.5 * jump < wider < np.inf
            off = relative(largest(array - self.again[key]), array, key)
            worst = max(worst, off if smooth and np.isfinite(off) else np.inf)
        return worst


def largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def between(compute: Callable[[], dict[Any, Array]]) -> Between | None:
    """What `compute` finds between; None where it meets no equal eigenvalues."""
    found = []
    for seed in (0, 1):
        sides = {}
        for steps in (1, -1, 2, -2):
            separation = Separation(steps, seed)
            with separated(separation), np.errstate(all="ignore"):
                sides[steps] = {k: np.array(a, dtype=float) for k, a in compute().items()}
            if not separation.met:
                return None
        mean = {
            k: (4 * (sides[1][k] + sides[-1][k]) - sides[2][k] - sides[-2][k]) / 6 for k in sides[1]
        }
        found.append((mean, ((sides[1], sides[-1]), (sides[2], sides[-2]))))
    (first, pairs), (again, _) = found
    return Between(first, again, pairs, separation.met[0])


def undefined(what: str, equal: Array) -> str:
    """The message for what depends on the eigenvectors that were taken."""
    shown = ", ".join(f"{value:.6g}" for value in equal[:4]) + (", …" if equal.size > 4 else "")
    return (
        f"{what} has no value: np.linalg.eigh has the equal eigenvalues {shown} there, whose "
        "eigenvectors are not unique, and it depends on which are taken. Use what is the same for "
        "all of them, such as (V * f(w)) @ V.T, or add to the matrix what tells them apart."
    )
