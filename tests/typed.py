"""What an editor is told: checked by mypy, and never run."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np

import lagrad as lg
from lagrad.expressions.expression import Variable
from lagrad.programs.solution import Solution
from lagrad.solving.derivative_mapping import Derivatives, Entry, Gradient

Vector = np.ndarray[Any, np.dtype[np.float64]]


def loss(weights: Vector, rate: float) -> float:
    return float(np.sum(weights) * rate)


def of_functions(weights: Vector) -> None:
    # The arguments of what is made of a function are its own.
    lg.grad(loss)(weights, rate=0.1)
    lg.grad(loss)(weights, speed=0.1)  # type: ignore[call-arg]
    assert_type(lg.value_and_grad(loss)(weights, 0.1)[0], float)
    assert_type(lg.compile(loss)(weights, 0.1), float)
    assert_type(lg.minimize(loss, weights, (0.1,)).x, Vector)
    assert_type(lg.minimize(loss, weights, (0.1,)).fun, float)


def of_programs(p: lg.Program) -> None:
    assert_type(p["x"], Variable)
    at = p.solve(x=1.0)
    assert_type(at, Solution)
    assert_type(at["x"], Entry)
    assert_type(at.gradient("f"), Gradient)
    assert_type(at.gradient("f")["x"], Entry)
    assert_type(at.jacobian("f", "x")["f"], Derivatives[Entry])
    assert_type(at.gradient("f").certificate.error_bound, float)
