"""`python -m benchmarks [--full]`: a table of ratios, each measured side by side in this run."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy

from . import (
    bratu,
    elementwise,
    hyperparameters,
    linear,
    loops,
    one_by_one,
    peers,
    root_finders,
    speed,
    substitution,
)
from .timing import Row

PARTS = {
    "bratu": bratu,
    "elementwise": elementwise,
    "substitution": substitution,
    "hyperparameters": hyperparameters,
    "linear": linear,
    "peers": peers,
    "speed": speed,
    "loops": loops,
    "one_by_one": one_by_one,
    "root_finders": root_finders,
}
HEAD = ["| work | measured | ratio | target | | seconds |", "|---|---|---|---|---|---|"]


def line(row: Row) -> str:
    return "| " + " | ".join(row.cells()) + " |"


def machine() -> dict[str, str]:
    """What the numbers come from."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="the largest sizes too (12 GB, minutes)"
    )
    parser.add_argument("--only", choices=list(PARTS), action="append", help="one part, or several")
    parser.add_argument(
        "--write", metavar="PATH", type=Path, help="write PATH.json and PATH.md as well"
    )
    options = parser.parse_args()
    print("\n".join(HEAD))
    found = []
    for name, part in PARTS.items():
        if options.only in (None, []) or name in (options.only or []):
            for row in part.rows(options.full):
                print(line(row), flush=True)
                found.append(row)
    if options.write is not None:
        held = {"machine": machine(), "rows": [asdict(row) for row in found]}
        options.write.with_suffix(".json").write_text(json.dumps(held, indent=2) + "\n")
        text = "\n".join([*HEAD, *map(line, found)])
        options.write.with_suffix(".md").write_text(text + "\n", encoding="utf-8")


main()
