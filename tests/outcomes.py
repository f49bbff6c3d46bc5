"""What came of a random program: verdicts on what lagrad said, counted by kind."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

# Wrong in silence: further off than ten times the bound, and than this.
WRONG = 1e-6
# A value so good should not have been refused.
GOOD = 1e-8
# Rounding of explicit evaluations is in no bound.
ROUNDING = 1e-12
MILD = 1e8
VERDICTS = ("right", "silent", "miss", "false alarm", "refused", "foreign", "skipped")


@dataclass(frozen=True)
class Outcome:
    """One result of lagrad's beside the oracle's.

    `refused` is an error without a value to compare, or with one that is not good to 1e-8; a
    `false alarm` is an error although the value is. `skipped`: the oracle does not know.
    """

    use: str
    verdict: str
    error: float = math.nan
    bound: float = math.nan
    condition: float = math.nan
    said: str = ""

    def __str__(self):
        said = f"{self.use}: {self.verdict}, error {self.error:.1e}, bound {self.bound:.1e}"
        return f"{said}, condition {self.condition:.1e}  {self.said}".rstrip()


def judged(use, error, bound=math.nan, condition=math.nan, wrong=WRONG, said=""):
    """The verdict on a value that was returned; without a bound `wrong` is one."""
    limit = 0.0 if math.isnan(bound) else bound
    if not error <= max(10 * limit, wrong):
        verdict = "silent"
    else:
        verdict = "miss" if error > max(bound, ROUNDING) else "right"
    return Outcome(use, verdict, error, bound, condition, said)


def largest_error(found, true):
    """How far an array is off, relative to its largest entry."""
    found, true = np.asarray(found, float), np.asarray(true, float)
    scale = np.max(np.abs(true), initial=0.0)
    away = np.max(np.abs(found - true), initial=0.0)
    return float(away / scale) if scale > 0 else float(away)


def message(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]


@dataclass
class Tally:
    """Counts by kind, and the seeds of what failed."""

    programs: Counter = field(default_factory=Counter)
    verdicts: dict = field(default_factory=lambda: defaultdict(Counter))
    ratios: dict = field(default_factory=lambda: defaultdict(list))
    mild: dict = field(default_factory=lambda: defaultdict(Counter))
    failures: list = field(default_factory=list)

    def add(self, kind, seed, outcomes):
        self.programs[kind] += 1
        for o in outcomes:
            self.verdicts[kind][o.verdict] += 1
            self.mild[kind][o.verdict] += o.condition < MILD
            if o.error > 1e-17 and o.bound > 0:
                self.ratios[kind].append(o.bound / o.error)
        failed = [o for o in outcomes if o.verdict in ("silent", "miss", "false alarm", "foreign")]
        self.failures += [(kind, seed, o) for o in failed]
        return failed

    def failed(self, *verdicts):
        """The failures with one of these verdicts, as texts with their seeds."""
        found = [f for f in self.failures if f[2].verdict in verdicts]
        return [f"--kind {kind} --seed {seed}: {outcome}" for kind, seed, outcome in found]

    def __str__(self):
        head = ["programs", "checks", *VERDICTS[1:], "alarm<1e8", "refused<1e8", "bound/error"]
        lines = [f"{'kind':<24}" + "".join(f"{h:>12}" for h in head)]
        for kind in sorted(self.programs):
            counts, mild = self.verdicts[kind], self.mild[kind]
            row = [self.programs[kind], counts.total(), *(counts[v] for v in VERDICTS[1:])]
            row += [mild["false alarm"], mild["refused"]]
            ratio = f"{np.median(self.ratios[kind]):.1e}" if self.ratios[kind] else "-"
            lines.append(f"{kind:<24}" + "".join(f"{c:>12}" for c in [*row, ratio]))
        return "\n".join(lines)
