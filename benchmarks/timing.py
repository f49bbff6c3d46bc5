"""Side-by-side timing: contestants take turns, and ratios are taken turn by turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    measure: str
    ratio: float | None
    target: float | None
    note: str = ""

    def cells(self) -> list[str]:
        ratio = "—" if self.ratio is None else f"{self.ratio:.3g}"
        target = "—" if self.target is None else f"≤ {self.target:g}"
        met = (
            ""
            if None in (self.ratio, self.target)
            else "met"
            if self.ratio <= self.target
            else "MISSED"
        )
        return [self.work, self.measure, ratio, target, met, self.note]


def once(run: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ratio(
    ours: Callable[[], object], theirs: Callable[[], object], turns: int
) -> tuple[float, float, float]:
    """The median ratio over turns, and the median seconds of each side."""
    pairs = []
    for turn in range(turns):
        if turn % 2:
            b = once(theirs)
            a = once(ours)
        else:
            a = once(ours)
            b = once(theirs)
        pairs.append((a, b))
    middle = statistics.median
    return middle(a / b for a, b in pairs), middle(a for a, _ in pairs), middle(b for _, b in pairs)


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
