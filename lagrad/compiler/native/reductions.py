"""Reductions: what they begin with, and what they make of what they have and a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lagrad.compiler.native.code import Value
from lagrad.compiler.native.formats import INFINITY
from lagrad.compiler.native.rules import larger, smaller


@dataclass(frozen=True)
class Reduction:
    """What it begins with, what it makes of what it has and a value, and its name across lanes."""

    start: float
    step: Callable[[Value, Value], Value]
    across: str


REDUCTIONS = {
    "sum": Reduction(0.0, lambda a, b: a + b, "fadd"),
    "max": Reduction(-INFINITY, larger, "fmaximum"),
    "min": Reduction(INFINITY, smaller, "fminimum"),
}
REDUCTIONS["contract"] = REDUCTIONS["sum"]
WITH_START = frozenset(["fadd"])
