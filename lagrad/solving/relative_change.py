"""How far two results differ, relative to their size, and what is measured by something else."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lagrad.solving.block_equations import largest
from lagrad.typing import Array

# Of the largest value: what a result that should be zero is measured by.
NEGLIGIBLE = 1e-6


def relative_change(
    found: Mapping[Any, Array], other: Mapping[Any, Array], units: Mapping[Any, float], scale: float
) -> float:
    """The largest relative change among arrays, each measured by its own largest entry.

    One that cannot be told from zero is measured by the largest of all, in the given units, or by
    a millionth of the largest value in the program: by symmetry, say, it may be zero, and its
    rounding is that of what cancelled.
    """
    sizes = {key: largest(array) for key, array in found.items()}
    changes = [largest(np.asarray(other[k]) - a) if np.size(a) else 0.0 for k, a in found.items()]
    if not np.isfinite(changes).all():
        return np.inf
    unit = {key: units.get(key) or 1.0 for key in found}
    top = max((sizes[key] / unit[key] for key in found), default=0.0)
    widest = max(unit.values(), default=1.0)
    pairs = zip(changes, sizes.values(), strict=True)
    return worst_share(pairs, max(top, NEGLIGIBLE * scale) * widest)


def worst_share(pairs: Iterable[tuple[float, float]], floor: float) -> float:
    """The largest of some changes, each over its size.

    A size that cannot be told from zero is taken as no less than the floor. NaN, of a point that
    left the equations' domain, says nothing of the others, and is infinitely large.
    """
    worst = 0.0
    for change, size in pairs:
        if size <= 10 * change:
            size = max(size, floor)
        if change:
            worst = max(worst, change / size if size and not np.isnan(change) else np.inf)
    return worst
