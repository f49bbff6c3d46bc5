"""Whether arrays are finite."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from lagrad.compiler.threads import run_in_parts
from lagrad.typing import Array

LONG = 8192
# Entries that a thread adds up at a time.
STRETCH = 1 << 17


def all_finite(values: Iterable[Array]) -> bool:
    """Whether sums are finite, or sums of squares: surely not where an entry is not, else they are.

    But for overflow, where the long way finds out.
    """
    with np.errstate(all="ignore"):
        for value in values:
            if isinstance(value, np.ndarray) and value.ndim:
                flat = value if value.ndim == 1 else value.ravel(order="K")
                # Products of long vectors wake the threads of BLAS, which get in the way of ours.
                total = flat.dot(flat) if flat.size < LONG else sum_of(flat)
                if not math.isfinite(total):
                    return False
            elif not math.isfinite(value):
                return False
    return True


def sum_of(flat: Array) -> float:
    """The sum of a long vector, added up in stretches by as many threads as wanted."""
    if flat.size < STRETCH:
        return float(np.add.reduce(flat))
    count = -(-flat.size // STRETCH)
    parts = np.zeros(count)

    def work(numbers: Iterator[int]) -> None:
        for k in numbers:
            parts[k] = np.add.reduce(flat[k * STRETCH : (k + 1) * STRETCH])

    run_in_parts(work, count, 2 * flat.size)
    return float(np.add.reduce(parts))
