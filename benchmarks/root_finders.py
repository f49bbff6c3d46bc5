"""Moré, Garbow and Hillstrom's systems from 1, 10 and 100 times their starts, and who solves them.

The problems are those of MINPACK's own test of its root finder (Testing Unconstrained
Optimization Software, 1981, doi:10.1145/355934.355936). Solved means a residual at rounding; a
solution that is returned where the residual is not is wrong.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import optimize

import lagrad as lg

from .timing import Row, seconds

FACTORS = (1.0, 10.0, 100.0)
# A residual is zero where it is this share of what it was at the start, or of one.
HOLDS = 1e-8


@dataclass(frozen=True)
class Problem:
    """A system, in NumPy, and its standard start."""

    name: str
    residual: Callable
    start: np.ndarray

    def at(self, factor: float) -> np.ndarray:
        """So many times the start; of zeros, so many times one."""
        if factor == 1 or self.start.any():
            return factor * self.start
        return np.full(self.start.shape, factor)


def rosenbrock(x):
    return np.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])


def powell_singular(x):
    return np.stack(
        [
            x[0] + 10 * x[1],
            5**0.5 * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            10**0.5 * (x[0] - x[3]) ** 2,
        ]
    )


def powell_badly_scaled(x):
    return np.stack([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


def wood(x):
    a, b = x[1] - x[0] ** 2, x[3] - x[2] ** 2
    c, d = x[1] - 1, x[3] - 1
    return np.stack(
        [
            -200 * x[0] * a - (1 - x[0]),
            200 * a + 20.2 * c + 19.8 * d,
            -180 * x[2] * b - (1 - x[2]),
            180 * b + 20.2 * d + 19.8 * c,
        ]
    )


def helical_valley(x):
    turn = np.arctan(x[1] / x[0]) / (2 * np.pi) + np.where(x[0] < 0, 0.5, 0.0)
    return np.stack([10 * (x[2] - 10 * turn), 10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def watson(x):
    n, t = x.shape[0], np.arange(1, 30)[:, None] / 29
    k = np.arange(n)
    powers, slopes = t**k, k * t ** np.maximum(k - 1, 0)
    value = powers @ x
    off = slopes @ x - value**2 - 1
    found = np.transpose(slopes - 2 * value[:, None] * powers) @ off
    last = x[1] - x[0] ** 2 - 1
    return found + np.concatenate([np.stack([x[0] * (1 - 2 * last), last]), np.zeros(n - 2)])


def chebyquad(x):
    n = x.shape[0]
    before, here, rows = np.ones(n), 2 * x - 1, []
    for k in range(1, n + 1):
        rows.append(np.mean(here) + (1 / (k * k - 1) if k % 2 == 0 else 0.0))
        before, here = here, 2 * (2 * x - 1) * here - before
    return np.stack(rows)


def brown_almost_linear(x):
    n = x.shape[0]
    return np.concatenate([x[:-1] + np.sum(x) - (n + 1), np.reshape(np.prod(x) - 1, (1,))])


def grid(n):
    return np.arange(1, n + 1) / (n + 1)


def discrete_boundary(x):
    n = x.shape[0]
    t, zero = grid(n), np.zeros(1)
    around = np.concatenate([zero, x[:-1]]) + np.concatenate([x[1:], zero])
    return 2 * x - around + (x + t + 1) ** 3 / (2 * (n + 1) ** 2)


def discrete_integral(x):
    n = x.shape[0]
    t = grid(n)
    kernel = np.where(np.tri(n, dtype=bool), np.outer(1 - t, t), np.outer(t, 1 - t))
    return x + kernel @ (x + t + 1) ** 3 / (2 * (n + 1))


def trigonometric(x):
    n = x.shape[0]
    return n - np.sum(np.cos(x)) + np.arange(1, n + 1) * (1 - np.cos(x)) - np.sin(x)


def variably_dimensioned(x):
    k = np.arange(1, x.shape[0] + 1)
    total = np.sum(k * (x - 1))
    return x - 1 + k * (total * (1 + 2 * total**2))


def broyden_tridiagonal(x):
    zero = np.zeros(1)
    before, after = np.concatenate([zero, x[:-1]]), np.concatenate([x[1:], zero])
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x):
    n = x.shape[0]
    k = np.arange(n)
    band = (k[None, :] >= k[:, None] - 5) & (k[None, :] <= k[:, None] + 1) & (k[None] != k[:, None])
    return x * (2 + 5 * x**2) + 1 - band.astype(float) @ (x * (1 + x))


def problems() -> list[Problem]:
    """The 21 systems that have a solution."""
    of = lambda f, *start: Problem(f"{f.__name__} {len(start)}", f, np.array(start, dtype=float))
    boundary = lambda n: grid(n) * (grid(n) - 1)
    return [
        of(rosenbrock, -1.2, 1),
        of(powell_singular, 3, -1, 0, 1),
        of(powell_badly_scaled, 0, 1),
        of(wood, -3, -1, -3, -1),
        of(helical_valley, -1, 0, 0),
        *(of(watson, *np.zeros(n)) for n in (6, 9)),
        *(of(chebyquad, *grid(n)) for n in (5, 6, 7, 9)),
        *(of(brown_almost_linear, *np.full(n, 0.5)) for n in (10, 30, 40)),
        of(discrete_boundary, *boundary(10)),
        *(of(discrete_integral, *boundary(n)) for n in (1, 10)),
        of(trigonometric, *np.full(10, 0.1)),
        of(variably_dimensioned, *(1 - np.arange(1, 11) / 10)),
        of(broyden_tridiagonal, *np.full(10, -1)),
        of(broyden_banded, *np.full(10, -1)),
    ]


def holds(problem: Problem, start: np.ndarray, point: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        left = np.abs(problem.residual(point)).max()
        return bool(left <= HOLDS * max(1.0, min(np.abs(problem.residual(start)).max(), 1e4)))


def by_lagrad(problem: Problem, start: np.ndarray) -> np.ndarray | None:
    try:
        return np.asarray(lg.root(problem.residual, start))
    except lg.LagradError:
        return None


Finder = Callable[[Problem, np.ndarray], "np.ndarray | None"]


def by_scipy(method: str) -> Finder:
    def solve(problem: Problem, start: np.ndarray) -> np.ndarray | None:
        slopes = lg.compile(lg.jacobian(problem.residual))
        try:
            if method == "least_squares":
                found = optimize.least_squares(
                    problem.residual, start, slopes, xtol=1e-15, ftol=1e-15, gtol=1e-15
                )
                reached = found.success and found.cost < 1e-10
            else:
                found = optimize.root(problem.residual, start, jac=slopes, method=method)
                reached = found.success
        except (ValueError, ArithmeticError, lg.LagradError):
            return None
        return found.x if reached else None

    return solve


def by_casadi(method: str) -> Finder:
    """CasADi's own Newton's method, or IPOPT with the equations as constraints of nothing."""

    def solve(problem: Problem, start: np.ndarray) -> np.ndarray | None:
        import casadi

        unknowns = [casadi.SX.sym(f"x{k}") for k in range(start.size)]
        found = problem.residual(np.array(unknowns, dtype=object))
        if not isinstance(found, casadi.SX):
            found = casadi.vertcat(*np.ravel(found).tolist())
        x, quiet = casadi.vertcat(*unknowns), {"ipopt.print_level": 0, "print_time": 0}
        try:
            if method == "newton":
                point = casadi.rootfinder("s", method, {"x": x, "g": found})(start, [])
                return np.ravel(np.array(point))
            solver = casadi.nlpsol("s", "ipopt", {"x": x, "f": 0, "g": found}, quiet)
            point = solver(x0=start, lbg=0, ubg=0)["x"]
            return np.ravel(np.array(point)) if solver.stats()["success"] else None
        except RuntimeError:
            return None

    return solve


FINDERS: dict[str, Finder] = {
    "lagrad": by_lagrad,
    "hybr": by_scipy("hybr"),
    "lm": by_scipy("lm"),
    "least_squares": by_scipy("least_squares"),
}
if importlib.util.find_spec("casadi") is not None:
    FINDERS |= {"CasADi": by_casadi("newton"), "IPOPT": by_casadi("ipopt")}


@dataclass
class Outcome:
    """What a finder made of one start."""

    problem: str
    factor: float
    finder: str
    said: str  # "solved", "wrong" or "error"
    seconds: float


def outcomes(
    finders: dict | None = None, factors: tuple[float, ...] = FACTORS
) -> Iterator[Outcome]:
    """All problems from all starts, by all finders."""
    for problem in problems():
        for factor in factors:
            start = problem.at(factor)
            for name, solve in (finders or FINDERS).items():
                began = time.perf_counter()
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    point = solve(problem, start)
                spent = time.perf_counter() - began
                said = "error" if point is None else "wrong"
                if point is not None and holds(problem, start, point):
                    said = "solved"
                yield Outcome(problem.name, factor, name, said, spent)


def rows(full: bool) -> list[Row]:
    """How many of the 63 each solves, and how lagrad compares with all others together."""
    said: dict[str, Counter] = {}
    spent: dict[str, list[float]] = {}
    others, own = set(), set()
    for found in outcomes():
        said.setdefault(found.finder, Counter())[found.said] += 1
        spent.setdefault(found.finder, []).append(found.seconds)
        if found.said == "solved":
            (own if found.finder == "lagrad" else others).add((found.problem, found.factor))
    made = []
    for name, counts in said.items():
        note = f"{counts['solved']} solved, {counts['error']} errors, {counts['wrong']} wrong; "
        note += f"{seconds(sum(spent[name]))} in all, {seconds(max(spent[name]))} at most"
        made.append(Row(f"63 starts of 21 systems, {name}", "solved", None, None, note))
    missed = sorted(f"{name} ×{factor:g}" for name, factor in others - own)
    note = f"not solved though others do: {', '.join(missed) or 'none'}"
    made.append(Row("63 starts, all others", "those / lagrad", len(others) / len(own), 1.0, note))
    return made
