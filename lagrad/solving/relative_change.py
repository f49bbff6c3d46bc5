"""How far two results differ, relative to their size, and what is measured by something else."""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.solving.block_equations import largest
from lagrad.typing import Array, DType

# Of the largest value: what a result that should be zero is measured by.
NEGLIGIBLE = 1e-6
# The same of one that no solution's error is in, but rounding alone.
ALL_BUT_ZERO = 1e-9
# What a share of a number may change of a value, relative to that, before rounding may too.
MAGNIFIED = 1e6
# How many times its change a result must be to be told from zero at once, and over many samples.
TOLD, AWAY, MANY = 10.0, 3.0, 4
# Of what it is measured by: changes that are rounding.
ROUNDED = 1e-13

# Of the largest number, whatever its unit: what is less beside it is not looked at for itself.
NOTICED = 1e-6
# Of what a zero is measured by: changes in a wider precision that are no zero's. And of its change:
# what is zero, where terms cancel exactly.
UNSEEN, EXACTLY = 1e-12, 1e-6

DOUBLE = float(np.finfo(float).eps)

# The sizes of what is differentiated, and of what it is differentiated by.
Units = Mapping[Any, tuple[float, float]]


def relative_change(
    found: Mapping[Any, Array],
    others: Iterable[Mapping[Any, Array]],
    units: Units,
    scale: float,
    more: Iterable[Mapping[Any, Array]] = (),
    least: Mapping[Any, float] | None = None,
    sure: Set[Any] = frozenset(),
    loose: Set[Any] = frozenset(),
    spoilt: Mapping[Any, float] | None = None,
    near_zero: set[Any] | None = None,
) -> float:
    """The largest relative change among arrays, each measured by its own largest entry.

    One that cannot be told from zero is measured by the largest of all, in the given units, or by
    a millionth of the largest value in the program: by symmetry, say, it may be zero, and its
    rounding is that of what cancelled. Where samples leave open whether it is zero, `more` decide.
    `least` is what each is measured by at least. Those that are `sure` are small, and not zero;
    `loose` ones may be what is left of the largest of all, as at an optimum. What was `spoilt`
    on the way is zero only beside a size of its own: intermediate values are no measure of it.
    What may be zero is added to `near_zero`.
    """
    sizes = {key: largest(array) for key, array in found.items()}
    changes = dict.fromkeys(found, 0.0)

    def include(other: Mapping[Any, Array]) -> None:
        for k, a in found.items():
            change = largest(np.asarray(other[k]) - a) if np.size(a) else 0.0
            changes[k] = max(changes[k], change) if np.isfinite(change) else np.inf

    samples = list(others)
    for other in samples:
        include(other)
    if np.inf in changes.values():
        return np.inf
    unit = {key: units.get(key, (1.0, 1.0)) for key in found}
    top = max((sizes[key] * by / of for key, (of, by) in unit.items()), default=0.0)
    least_of_all = {key: negligible(precision(key, array)) for key, array in found.items()}
    floors = {key: max(top * of, least_of_all[key] * scale) / by for key, (of, by) in unit.items()}
    floors |= spoilt or {}

    def zero(times: float) -> set[Any]:
        """What is not so many times its change; of changes that are rounding, as many as usual."""
        rounded = {k: ROUNDED * coarseness(precision(k, a)) * floors[k] for k, a in found.items()}
        limits = {k: TOLD if c <= rounded[k] else times for k, c in changes.items()}
        return {k for k, c in changes.items() if sizes[k] <= limits[k] * c}

    doubtful, zeros = zero(TOLD), zero(AWAY)
    if near_zero is not None:
        near_zero.update(k for k in doubtful if changes[k])
    if doubtful != zeros:
        further = list(more)
        for other in further:
            include(other)
        if len(samples) + len(further) >= MANY:
            doubtful = zero(AWAY)
    doubtful = (doubtful - sure) | loose
    measures = {k: max(sizes[k], floors[k]) if k in doubtful else sizes[k] for k in found}
    measures |= {k: max(measures[k], size) for k, size in (least or {}).items()}
    return max((share(changes[k], measures[k]) for k in found), default=0.0)


def hidden(
    found: Mapping[Any, Array],
    others: Iterable[Mapping[Any, Array]],
    units: Units,
    scale: float,
    above: float = ROUNDED,
    least: float = 0.0,
) -> float:
    """The relative change of arrays that rounding may hide, where it is more than a zero's.

    That is a share `above` of the largest of all, and of the largest value in the program, in the
    given units, and is seen beside the largest number. What is less than a share `least` of its
    change is zero: where terms cancel exactly, other roundings of them do not. Nothing where there
    are none.
    """
    sizes = {key: largest(array) for key, array in found.items()}
    changes = dict.fromkeys(found, 0.0)
    for other in others:
        for key, array in found.items():
            changes[key] = max(changes[key], largest(other[key] - array))
    unit = {key: units.get(key, (1.0, 1.0)) for key in found}
    top = max((sizes[key] * by / of for key, (of, by) in unit.items()), default=0.0)
    floors = {key: max(top * of, scale) / by for key, (of, by) in unit.items()}
    open_ = {k for k, c in changes.items() if least * c <= sizes[k] <= TOLD * c}
    plain = NOTICED * max(sizes.values(), default=0.0)
    coarse = {k: coarseness(precision(k, array)) for k, array in found.items()}
    some = [k for k in open_ if changes[k] > max(above * coarse[k] * floors[k], plain)]
    return max((share(changes[k], sizes[k]) for k in some), default=0.0)


def coarseness(dtype: DType) -> float:
    """How many times wider the spacing of a precision is than that of doubles."""
    return float(np.finfo(dtype).eps / DOUBLE) if dtype.kind == "f" else 1.0


def negligible(dtype: DType) -> float:
    """Of the largest value: what a result in this precision is measured by that should be zero."""
    return min(1.0, NEGLIGIBLE * coarseness(dtype))


def precision(key: Any, array: Any) -> DType:
    """What the variable that an array belongs to is rounded to; the array itself may be wider."""
    dtype = getattr(key[0] if isinstance(key, tuple) else key, "dtype", None)
    return np.asarray(array).dtype if dtype is None else np.dtype(dtype)


def worst_share(pairs: Iterable[tuple[Any, Any]], floor: float) -> float:
    """The largest of some changes, each over its size: numbers, or arrays of such.

    A size that cannot be told from zero is taken as no less than the floor. NaN, of a point that
    left the equations' domain, says nothing of the others, and is infinitely large.
    """
    worst = 0.0
    for change, size in pairs:
        if isinstance(change, np.ndarray):
            told = np.where(size <= TOLD * change, np.maximum(size, floor), size)
            worst = max(worst, largest(shares(change, told)))
            continue
        if size <= TOLD * change:
            size = max(size, floor)
        worst = max(worst, share(change, size))
    return worst


def share(change: float, size: float) -> float:
    """A change over a size; infinite where that is zero, or the change is NaN."""
    if not change:
        return 0.0
    return change / size if size and not np.isnan(change) else np.inf


def shares(changes: Any, sizes: Any) -> Any:
    """The same of many, where they are."""
    if not isinstance(changes, np.ndarray):
        return share(changes, sizes)
    with np.errstate(all="ignore"):
        found = changes / sizes
    return np.where(changes == 0, 0.0, np.where((sizes == 0) | np.isnan(changes), np.inf, found))


def parts(variable: Variable, array: Any) -> Any:
    """The largest entry of a variable's array; all of them where each counts for itself."""
    if variable.apart is not None:
        return np.abs(np.ravel(array)).astype(float, copy=False)
    return largest(array)


def sized(part: Any, scale: float) -> Any:
    """The size of a part; another one where it has none of its own."""
    return np.where(part > 0, part, scale) if isinstance(part, np.ndarray) else part or scale


def of_each(unknowns: Iterable[Variable], measures: Array) -> Iterator[tuple[Variable, Any]]:
    """What is measured of unknowns in a row, by unknown: a number, or one for each entry."""
    place = 0
    for v in unknowns:
        if v.apart is not None:
            yield v, measures[place : (place := place + v.size)]
        else:
            yield v, float(measures[place])
            place += 1
