"""`python -m benchmarks [--full]`: a table of ratios, each measured side by side in this run."""

from __future__ import annotations

import argparse

from benchmarks import bratu, hyperparameters, peers, speed, substitution

PARTS = {
    "bratu": bratu,
    "substitution": substitution,
    "hyperparameters": hyperparameters,
    "peers": peers,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="the largest sizes too (12 GB, minutes)"
    )
    parser.add_argument("--only", choices=list(PARTS), help="one part")
    options = parser.parse_args()
    print("| work | measured | ratio | target | | seconds |")
    print("|---|---|---|---|---|---|")
    for name, part in PARTS.items():
        if options.only in (None, name):
            for row in part.rows(options.full):
                print("| " + " | ".join(row.cells()) + " |", flush=True)


main()
