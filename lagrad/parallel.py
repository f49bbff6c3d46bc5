"""How many threads large arrays are spread over."""

from __future__ import annotations

import contextvars
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

from lagrad.errors import InvalidValue

__all__ = ["run_in_parts", "threads"]

AVAILABLE = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
WANTED: contextvars.ContextVar[int] = contextvars.ContextVar("threads", default=AVAILABLE)
POOL: list[ThreadPoolExecutor] = []
LOCK = Lock()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set how many threads evaluate elementwise functions of large arrays, within a `with` block.

    Parameters
    ----------
    count : int
        At least one. Outside of any block it is the number of cores available to the process.

    Raises
    ------
    InvalidValue
        A count that is no positive integer.

    Notes
    -----
    Arrays are cut into blocks of a size that does not depend on the count, and sums add up block
    by block in order: a result has the same bits with any number of threads.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> with lg.threads(1):
    ...     float(lg.grad(lambda x: np.sum(np.sin(x)))(np.zeros(3))[0])
    1.0
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidValue(f"threads({count!r}); expected a positive integer.")
    token = WANTED.set(count)
    try:
        yield
    finally:
        WANTED.reset(token)


def pool(size: int) -> ThreadPoolExecutor:
    """A pool with at least so many threads."""
    with LOCK:
        if not POOL or POOL[0]._max_workers < size:
            POOL[:] = [ThreadPoolExecutor(size, thread_name_prefix="lagrad")]
        return POOL[0]


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.clear)


def run_in_parts(work: Callable[[int, int], None], count: int) -> None:
    """`work(first, last)` over stretches that make up `range(count)`, each in a thread."""
    parts = min(WANTED.get(), count)
    if parts < 2:
        work(0, count)
        return
    ends = [count * k // parts for k in range(parts + 1)]
    others = pool(parts - 1)
    (_, own), *rest = itertools.pairwise(ends)
    futures = [others.submit(work, a, b) for a, b in rest]
    try:
        work(0, own)
    finally:
        for future in futures:
            future.result()
