"""Which states of a loop to store, so that running it backwards repeats the fewest steps.

Griewank (1992) and Griewank and Walther (Revolve, 2000, doi:10.1145/347837.347846): with s stored
states and no step run forwards more than r times, C(s + r, s) steps can be reversed.

Counted are the steps that are run forwards: n of them once more, each just before it is reversed,
and those on the way from a stored state to where the next one is stored. The initial state is one
of the s. What the loop's value needs is not counted: its last step, beyond all of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

__all__ = ["Advance", "Reverse", "evaluations", "reversal"]


def repetitions(n: int, s: int) -> int:
    """The smallest r with C(s + r, s) ≥ n."""
    r = 0
    while comb(s + r, s) < n:
        r += 1
    return r


def evaluations(n: int, s: int) -> int:
    """The forward steps that reversing n steps takes with s stored states: the least possible.

    Examples
    --------
    >>> from lagrad.schedules import evaluations
    >>> [evaluations(10, 3), evaluations(100, 5), evaluations(1000, 10), evaluations(1000, 50)]
    [25, 416, 4636, 2948]
    """
    r = repetitions(n, s)
    return n + r * n - comb(s + r, s + 1)


def distance(n: int, s: int) -> int:
    """How many steps to go from a stored state to the next one that is stored, n being ahead."""
    if s == 1:
        return n - 1
    r = repetitions(n, s)
    # Left of it C(s + r − 1, s) steps can be reversed within r − 1 repetitions, and right of it
    # no fewer than C(s + r − 2, s − 1) have to be.
    return max(1, min(comb(s + r - 1, s), n - comb(s + r - 2, s - 1)))


@dataclass(frozen=True, slots=True)
class Advance:
    """Run the steps from `first` up to `last`, from the state stored at `first`.

    Store the state at `last`, where `stored`.
    """

    first: int
    last: int
    stored: bool


@dataclass(frozen=True, slots=True)
class Reverse:
    """Reverse step `step`, from the state before it; `last` says that it is not needed any more."""

    step: int
    last: bool


def reversal(n: int, s: int, first: int = 0) -> Iterator[Advance | Reverse]:
    """What to do to reverse n steps, their first state stored, with at most s states stored.

    An `Advance` that stores nothing leaves the state at hand for the `Reverse` after it.
    """
    # Stretches to be reversed, the last one first, each with the states it may store.
    stack = [(first, first + n, s)]
    while stack:
        low, high, free = stack.pop()
        if high - low == 1:
            yield Reverse(low, last=True)
        elif free == 1:
            for step in range(high - 1, low, -1):
                yield Advance(low, step, stored=False)
                yield Reverse(step, last=False)
            yield Reverse(low, last=True)
        else:
            middle = low + distance(high - low, free)
            yield Advance(low, middle, stored=True)
            stack.append((low, middle, free))
            stack.append((middle, high, free - 1))
