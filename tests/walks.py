"""Follow a value from hand to hand: `python tests/walks.py` prints the files that it passes.

A file counts where it is entered for the first time. A climb is a file of a higher package entered
after one of a lower. Run in a process of its own, in which nothing was traced or solved before.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

import lagrad as lg

ROOT = Path(lg.__file__).parent
PACKAGES = [
    *("linear_solvers", "expressions", "primitives", "systems", "compiler", "solving"),
    *("programs", "transforms", "loops", "implicit"),
]


def from_define_to_gradient():
    p = lg.Program("sellar")
    z1, z2, x = (p.parameter(n, value=v) for n, v in (("z1", 5.0), ("z2", 2.0), ("x", 1.0)))
    y1, y2 = p.unknown("y1", start=1.0), p.unknown("y2", start=1.0)
    p.subject_to(y1 == z1**2 + z2 + x - 0.2 * y2)
    p.subject_to(y2 == np.sqrt(y1) + z1 + z2)
    p.define("obj", x**2 + z2 + y1 + np.exp(-y2))
    return p.solve().gradient("obj")["z1"]


def from_objective_to_gradient():
    theta = lambda penalty: lg.argmin(lambda w: np.exp(w) + penalty * w * w, 0.0)
    return lg.grad(theta)(0.5)


def from_function_to_number():
    return lg.grad(lambda x: np.sum(np.sin(x)))(np.ones(3))[0]


WALKS = {f.__name__: f for f in (from_define_to_gradient, from_objective_to_gradient)}
WALKS[from_function_to_number.__name__] = from_function_to_number


def passed(walk):
    """The files that a walk enters, in the order of their first entering."""
    found: dict[str, None] = {}

    def entering(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_name not in ("<module>", "<lambda>", "<genexpr>"):
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT) and path.parent != ROOT:
                found[path.relative_to(ROOT).as_posix()] = None

    sys.setprofile(entering)
    try:
        walk()
    finally:
        sys.setprofile(None)
    return [name for name in found if name.split("/")[0] in PACKAGES]


def climbs(files):
    """The pairs of files of which the later is of a higher package."""
    height = [PACKAGES.index(name.split("/")[0]) for name in files]
    return [pair for pair, (a, b) in zip(pairwise(files), pairwise(height), strict=True) if b > a]


if __name__ == "__main__":
    print(json.dumps({name: passed(walk) for name, walk in WALKS.items()}))
