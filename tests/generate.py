"""Random programs beside independent oracles: `python tests/generate.py --count 1000 --seed 0`.

It prints verdicts by kind, and the seed of every failure; `--script` prints one program as a
script of its own. `--kind systems,functions/small` chooses among the kinds, by how they begin.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings

import compared_functions
import compared_systems
import numpy as np
from outcomes import Outcome, Tally
from random_functions import Function
from random_implicit import Implicit
from random_systems import SCALINGS, System

KINDS = {
    **{f"systems/{name}": (System, name, compared_systems.check) for name in SCALINGS},
    **{f"functions/{name}": (Function, name, compared_functions.check) for name in Function.kinds},
    **{f"implicit/{name}": (Implicit, name, compared_functions.check) for name in Implicit.kinds},
}


def run(kind, seed, calls=None):
    """The outcomes of one program."""
    make, name, check = KINDS[kind]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return check(make(seed, name), calls)


def programs(kinds, seeds, calls=None):
    """A tally of programs of each kind in turn."""
    tally = Tally()
    for k, seed in enumerate(seeds):
        kind = kinds[k % len(kinds)]
        tally.add(kind, seed, run(kind, seed, calls))
    return tally


def beginning(texts):
    return [kind for kind in KINDS if any(kind.startswith(text) for text in texts.split(","))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many programs")
    parser.add_argument("--seed", type=int, default=0, help="that of the first; others follow")
    parser.add_argument("--kind", default=",".join(KINDS), help="kinds, or how they begin")
    parser.add_argument("--calls", type=int, help="how often each is called")
    parser.add_argument("--script", action="store_true", help="print the program of the seed")
    given = parser.parse_args()
    kinds = beginning(given.kind)
    if given.script:
        make, name, _ = KINDS[kinds[0]]
        with np.errstate(all="ignore"):
            made = make(given.seed, name)
        print(compared_systems.script(made) if make is System else made.script())
        return
    tally, begin = Tally(), time.perf_counter()
    for k in range(given.count):
        kind, seed = kinds[k % len(kinds)], given.seed + k
        try:
            outcomes = run(kind, seed, given.calls)
        except KeyboardInterrupt:
            break
        except Exception:
            outcomes = [Outcome("generator", "skipped", said=traceback.format_exc(limit=-1))]
            print(f"{kind} {seed}: the generator failed\n{outcomes[0].said}", file=sys.stderr)
        for outcome in tally.add(kind, seed, outcomes):
            print(f"--kind {kind} --seed {seed}  {outcome}", flush=True)
    print(tally)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
