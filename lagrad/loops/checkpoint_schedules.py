"""Which states of a loop to store, so that running it backwards repeats the fewest steps.

Griewank (1992) and Griewank and Walther (Revolve, 2000, doi:10.1145/347837.347846): with s stored
states and no step run forwards more than r times, C(s + r, s) steps can be reversed.

Counted are the steps that are run forwards: n of them once more, each just before it is reversed,
and those on the way from a stored state to where the next one is stored. The initial state is one
of the s. What the loop's value needs is not counted: its last step, beyond all of these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import comb, inf


def repetitions(n: int, s: int) -> int:
    """The smallest r with C(s + r, s) ≥ n."""
    return next(r for r in count() if comb(s + r, s) >= n)


def evaluations(n: int, s: int) -> int:
    """The forward steps that reversing n steps takes with s stored states: the least possible.

    Examples
    --------
    >>> from lagrad.loops.checkpoint_schedules import evaluations
    >>> [evaluations(10, 3), evaluations(100, 5), evaluations(1000, 10), evaluations(1000, 50)]
    [25, 416, 4636, 2948]
    """
    r = repetitions(n, s)
    return n + r * n - comb(s + r, s + 1)


def distance(n: int, s: int) -> int:
    """How many steps to go from a stored state to the next one that is stored, n being ahead."""
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


def reversal(n: int, s: int, stored: Sequence[int] = (0,)) -> Iterator[Advance | Reverse]:
    """What to do to reverse n steps, with at most s states stored.

    Those before the steps `stored` are stored already, step 0 among them. An `Advance` that stores
    nothing leaves the state at hand for the `Reverse` after it.
    """
    # Stretches to be reversed, the last one first, each with the states it may store.
    ends = [*stored[1:], n]
    stack = [(low, high, s - k) for k, (low, high) in enumerate(zip(stored, ends, strict=True))]
    while stack:
        low, high, free = stack.pop()
        if high - low == 1:
            yield Reverse(low, last=True)
        elif free == 1:
            yield Advance(low, high - 1, stored=False)
            yield Reverse(high - 1, last=False)
            stack.append((low, high - 1, 1))
        else:
            middle = low + distance(high - low, free)
            yield Advance(low, middle, stored=True)
            stack.append((low, middle, free))
            stack.append((middle, high, free - 1))


class Online:
    """Which states to store while nobody knows how many steps there will be.

    Every state is stored as it comes, in the place of one that a later one of a higher level makes
    dispensable; where there is none, in the place of the one before it, a level above that. So no
    step is run again more often than with the best schedule for the length that it turns out to
    be (Wang, Moin and Iaccarino, Minimal repetition dynamic checkpointing algorithm for unsteady
    adjoint calculation, 2009, doi:10.1137/080727890).
    """

    def __init__(self, s: int) -> None:
        self.s = s
        # Step and level, the levels falling; and the steps that are dispensable.
        self.kept: list[tuple[int, float]] = []
        self.dispensable: list[int] = []

    def store(self, step: int) -> int | None:
        """The step whose state makes room for that before `step`, if any has to: `step` may."""
        if len(self.kept) + len(self.dispensable) < self.s:
            self.kept.append((step, 0 if self.kept else inf))
            return None
        if self.dispensable:
            self.kept.append((step, 0))
            return self.dispensable.pop()
        if self.s == 1:
            return step
        last, level = self.kept.pop()
        while self.kept[-1][1] <= level:
            self.dispensable.append(self.kept.pop()[0])
        self.kept.append((step, level + 1))
        return last
