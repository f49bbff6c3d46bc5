"""How many threads large arrays are spread over."""

import contextvars
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

from lagrad.errors import InvalidValue

AVAILABLE = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
WANTED: contextvars.ContextVar[int] = contextvars.ContextVar("threads", default=AVAILABLE)
POOL: list[ThreadPoolExecutor] = []
LOCK = Lock()
# Entries times operations from which threads pay.
THREADED_FROM = 2_000_000


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


def run_in_parts(work: Callable[[Iterator[int]], None], count: int, size: int) -> None:
    """`work` on the numbers below `count`, in as many threads as wanted where `size` is large.

    Each takes the next number when it is done with one: cores are not equally fast, or free.
    """
    parts = min(WANTED.get(), count) if size >= THREADED_FROM else 1
    numbers = iter(range(count))
    if parts < 2:
        work(numbers)
        return
    lock = Lock()

    def taken() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    others = pool(parts - 1)
    futures = [others.submit(work, taken()) for _ in range(parts - 1)]
    try:
        work(taken())
    finally:
        for future in futures:
            future.result()
