"""Kinds of ill-scaled systems, and their solutions to fifty digits by mpmath.

A kind gives the parameters' values, a solution nearby, and the residuals as a function of
unknowns, parameters and the module that has exp, sqrt and so on.
"""

import warnings
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np

import lagrad as lg

Case = tuple[list[float], list[float], Callable[..., list[Any]]]


def prestrained_wire(rng: np.random.Generator) -> Case:
    """A bar's force EA (L − L₀) w/L, almost slack."""
    k, stiffness = int(rng.integers(2, 36)), float(2.0 ** rng.integers(-5, 30))
    w = 10.0 ** rng.uniform(-8, 0)

    def force(w, module):
        length = module.sqrt(1 + w**2)
        return stiffness * (length - (1 - 2.0**-k)) * w / length

    return [float(force(w, np))], [w], lambda z, x, module: [force(z[0], module) - x[0]]


def diode(rng: np.random.Generator) -> Case:
    """A current of exp(v/v_t) − 1 near no voltage."""
    v = 10.0 ** rng.uniform(-9, -0.3)
    current = lambda v, module: 1e-14 * (module.exp(v / 0.025) - 1)
    return [float(current(v, np))], [v], lambda z, x, module: [current(z[0], module) - x[0]]


def nearly_dependent(rng: np.random.Generator) -> Case:
    """Two equations that are almost one."""
    a, gap = rng.uniform(0.5, 2, 2), 10.0 ** rng.uniform(-12, -1)
    z = rng.uniform(-2, 2, 2).tolist()

    def residuals(z, x, module):
        first = a[0] * z[0] + a[1] * z[1] - x[0]
        return [first, a[0] * z[0] + (a[1] + gap) * z[1] + gap * module.sin(z[0]) - x[1]]

    return [float(r) for r in residuals(z, [0.0, 0.0], np)], z, residuals


def difference_of_squares(rng: np.random.Generator) -> Case:
    """((z + b)² − b²) z / b for a large b."""
    b, z = 10.0 ** rng.uniform(1, 7), float(rng.uniform(0.1, 2))
    residuals = lambda z, x, module: [((z[0] + b) ** 2 - b**2) / b * z[0] - x[0]]
    return [float(residuals([z], [0.0], np)[0])], [z], residuals


def trace_species(rng: np.random.Generator) -> Case:
    """A balance of masses, one of which is tiny."""
    k = 10.0 ** rng.uniform(-12, 0)
    x = rng.uniform(0.5, 2, 2).tolist()
    residuals = lambda z, x, module: [z[0] + z[1] - x[0], z[0] * z[1] - k * (x[0] - z[1]) * x[1]]
    return x, [x[0] - k * x[1], k * x[1]], residuals


def other_units(rng: np.random.Generator) -> Case:
    """Three equations and unknowns, each in units of its own."""
    rows, columns = 10.0 ** rng.uniform(-8, 8, (2, 3))
    matrix = rng.standard_normal((3, 3)) * rows[:, None] * columns
    z = (rng.uniform(0.5, 2, 3) / columns).tolist()

    def residuals(z, x, module):
        return [
            sum(float(matrix[i, j]) * z[j] for j in range(3))
            + float(rows[i])
            * module.tanh(z[i] * float(columns[i]))
            * module.sqrt(1 + z[i] * z[i] * float(columns[i]) ** 2)
            - x[i]
            for i in range(3)
        ]

    return [float(r) for r in residuals(z, [0.0] * 3, np)], z, residuals


KINDS = (
    prestrained_wire,
    diode,
    nearly_dependent,
    difference_of_squares,
    trace_species,
    other_units,
)


def true_error(kind: Callable[..., Case], seed: int) -> tuple[float, float, bool]:
    """The largest relative error of an unknown, its bound, and whether it was not certified."""
    rng = np.random.default_rng((KINDS.index(kind), seed))
    given, near, residuals = kind(rng)
    p = lg.Program(kind.__name__)
    x = [p.parameter(f"x{i}", value=value) for i, value in enumerate(given)]
    starts = [value * (1 + 1e-3 * rng.standard_normal()) for value in near]
    z = [p.unknown(f"z{i}", start=start) for i, start in enumerate(starts)]
    for residual in residuals(z, x, np):
        p.subject_to(residual == 0.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        at = p.solve(on_failure="warn")
    found = [float(at[v.name]) for v in z]
    exact = refined(found, given, residuals)
    error = max(float(abs(e - f) / abs(e)) for e, f in zip(exact, found, strict=True))
    return error, at.certificate.error_bound, bool(said)


def refined(near: list[float], given: list[float], residuals: Callable[..., Any]) -> list[Any]:
    """Newton's method with fifty digits."""
    with mpmath.workdps(50):
        z, x = [mpmath.mpf(v) for v in near], [mpmath.mpf(v) for v in given]
        count, step = len(z), mpmath.mpf(10) ** -25
        for _ in range(8):
            here = mpmath.matrix(residuals(z, x, mpmath))
            jacobian = mpmath.matrix(count, count)
            for j in range(count):
                by = step * (abs(z[j]) or 1)
                there = residuals([v + by * (i == j) for i, v in enumerate(z)], x, mpmath)
                for i in range(count):
                    jacobian[i, j] = (there[i] - here[i]) / by
            move = mpmath.lu_solve(jacobian, here)
            z = [v - move[i] for i, v in enumerate(z)]
        return z
