"""Equations that fall into independent parts, as those of a batch do, each solved by itself.

In one search a part that makes no progress holds up all others. SciPy's root finders go from the
start and from a few points around it; what they find is a proposal, from which Newton's method
goes on.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csgraph

from lagrad.expressions.expression import Expression, Variable
from lagrad.solving.iterations import optimize
from lagrad.systems.linearization import Nodes, Tape
from lagrad.typing import Array

# Points around a start, evaluations of a search, and numbers computed in all of them.
AROUND, EVALUATIONS, WORK = 40, 400, 60_000_000
# Unknowns of one part, and entries of what one operation makes of all.
LARGEST, ENTRIES = 100, 1_000_000
# What is left of a part that is solved, relative.
SOLVED = 1e-9

# A change of sign is looked for in steps that grow by this, so many to either side.
GROWTH, STEPS = 1.25, 200


class Spent(Exception):
    """More evaluations would take too long."""


def independent_parts(
    outputs: Nodes, varied: Nodes, defined: dict[int, Expression]
) -> list[Array] | None:
    """The entries of each part, where outputs are added to what they depend on; None of too large.

    An entry of `outputs` belongs to the entry of `varied` at its place.
    """

    def known(node: Expression) -> bool:
        return isinstance(node, Variable) and node.index not in defined

    with varied[0].graph.reopened():
        tape = Tape(outputs, varied, known, defined)
    if tape.entries > ENTRIES:
        return None
    return parts_of(tape.pattern().jacobian(outputs, varied, dense=False))


def parts_of(pattern: Any) -> list[Array] | None:
    """The entries of each part of a square matrix, by where it can have some."""
    _, labels = csgraph.connected_components(pattern, connection="weak")
    counts = np.bincount(labels)
    if counts.max(initial=0) > LARGEST:
        return None
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def part_by_part(
    residual: Callable[[Array], Array], start: Array, parts: Sequence[Array]
) -> Array | None:
    """A root, part by part; None where one of them has none nearby."""
    found, rng = start.astype(float), np.random.default_rng(0)
    left = WORK // max(start.size, 1)

    def evaluate(point: Array) -> Array:
        nonlocal left
        left -= 1
        if left < 0:
            raise Spent
        return residual(point)

    def solved(part: Array) -> bool:
        """Whether a root of one part was found, the others being as they are."""

        def within(piece: Array) -> Array:
            point = found.copy()
            point[part] = piece
            return np.asarray(evaluate(point)[part], dtype=float)

        begin = found[part]
        if part.size == 1:
            try:
                found[part] = sign_change(lambda z: float(within(np.array([z]))[0]), begin[0])
            except ValueError:
                return False
            return True
        size = max(1.0, float(np.abs(begin).max()))
        for k in range(AROUND):
            aside = begin if not k else begin + size * rng.uniform(-1, 1, part.size)
            for method, limit in (("hybr", "maxfev"), ("lm", "maxiter")):
                ended = optimize.root(within, aside, method=method, options={limit: EVALUATIONS})
                if np.abs(ended.fun).max() <= SOLVED * max(1.0, float(np.abs(ended.x).max())):
                    found[part] = ended.x
                    return True
        return False

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            everything = all(solved(part) for part in parts)
        except (Spent, ValueError, ArithmeticError):
            return None
    return found.astype(start.dtype) if everything else None


def sign_change(value: Callable[[float], float], start: float) -> float:
    """The root that is nearest by changes of sign; ValueError."""
    if value(start) == 0:
        return start
    for low, high in changes_of_sign(value, start):
        root = float(optimize.brentq(value, low, high))
        # At a pole a function changes its sign as well.
        if abs(value(root)) <= min(abs(value(low)), abs(value(high))):
            return root
    raise ValueError("no change of sign")


def changes_of_sign(value: Callable[[float], float], start: float) -> Iterator[tuple[float, float]]:
    """The ends of steps from a start in which a function changes sign, the nearest first."""
    begin = value(start)
    last, before = [start, start], [begin, begin]
    step = 0.01 * max(abs(start), 1.0)
    for _ in range(STEPS):
        for side, sign in enumerate((1.0, -1.0)):
            point = start + sign * step
            found = value(point)
            if np.sign(found) * np.sign(before[side]) < 0:
                yield min(point, last[side]), max(point, last[side])
            if np.isfinite(found):
                last[side], before[side] = point, found
        step *= GROWTH
