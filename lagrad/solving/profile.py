"""What the parts of a solve cost: a stopwatch for each kind of work, and the table of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lagrad.public import Public

# Residuals and definitions; Jacobians; their factors; solves with those; the certificate's own
# residuals and solves.
PHASES = ("evaluating", "assembling", "factorising", "solving", "certifying")


@dataclass
class Spent:
    """Calls and seconds, by phase. A phase inside another one counts for the outer one."""

    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    running: bool = False

    def on(self, phase: str) -> "Stopwatch":
        """Time a piece of work, within a `with` block."""
        return Stopwatch(self, phase)

    def shown(self, phase: str) -> str:
        """Milliseconds and calls, if there were any."""
        calls = self.calls[phase]
        return f"{1e3 * self.seconds[phase]:.3g} ({calls})" if calls else "—"


class Stopwatch:
    """One piece of work; a class, since a generator's `with` costs five times as much."""

    __slots__ = ("began", "outer", "phase", "spent")

    def __init__(self, spent: Spent, phase: str) -> None:
        self.spent, self.phase = spent, phase

    def __enter__(self) -> None:
        self.outer = not self.spent.running
        if self.outer:
            self.spent.running, self.began = True, time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self.outer:
            spent, phase = self.spent, self.phase
            spent.running = False
            spent.calls[phase] += 1
            spent.seconds[phase] += time.perf_counter() - self.began


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What one run of the solving order did and cost."""

    label: str
    unknowns: int
    steps: int
    factorisations: int
    solver: str
    seconds: float
    spent: Spent = field(default_factory=Spent, compare=False)


@dataclass(frozen=True, slots=True)
class DerivativeReport:
    """What a derivative cost.

    Attributes
    ----------
    what : str
    seconds : float
    evaluations : float
        The same in evaluations of all constraints.
    """

    what: str
    seconds: float
    evaluations: float


@dataclass(frozen=True)
class Profile(Public):
    """Where the time of a solution and of its derivatives went.

    Attributes
    ----------
    blocks : tuple of BlockReport
        In solving order. `spent.seconds` and `spent.calls` are by phase: "evaluating",
        "assembling", "factorising", "solving", "certifying".
    derivatives : tuple of DerivativeReport
        In the order in which they were asked for.
    """

    PUBLIC = ("blocks", "derivatives", "seconds")

    blocks: tuple[BlockReport, ...]
    derivatives: tuple[DerivativeReport, ...]

    @property
    def seconds(self) -> float:
        """Of all blocks, derivatives left out."""
        return sum(block.seconds for block in self.blocks)

    def __str__(self) -> str:
        rows = [["block", *PHASES, "all [ms]"]]
        for block in self.blocks:
            cells = map(block.spent.shown, PHASES)
            rows.append([block.label, *cells, f"{1e3 * block.seconds:.3g}"])
        rows.append(["in all", *[""] * len(PHASES), f"{1e3 * self.seconds:.3g}"])
        lines = ["milliseconds (calls) of each block:", *table(rows)]
        if self.derivatives:
            lines += ["", "derivatives:"]
            lines += [
                f"  {d.what}: {1e3 * d.seconds:.3g} ms, as much as {d.evaluations:.3g} "
                "evaluations of all constraints"
                for d in self.derivatives
            ]
        return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns aligned: the first to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  " + "  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
