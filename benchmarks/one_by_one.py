"""Programs that are declared one scalar at a time: a grid, a chain, and circuits by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.optimize

import lagrad as lg

from .timing import Row, once, seconds

STARTS = (1.0, 0.5, 1e-3)
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def flows(u: dict[tuple[int, int], Any], g: Any, load: Any) -> Iterator[Any]:
    """What flows into each node of a grid of resistors that are not quite linear."""
    for i, j in u:
        flow: Any = 0.0
        for a, b in NEIGHBOURS:
            if (i + a, j + b) in u:
                d = u[i + a, j + b] - u[i, j]
                flow = flow + g * (d + 0.1 * d**3)
        yield flow - 0.05 * u[i, j] - 0.01 * u[i, j] ** 2 + (load if (i, j) == (0, 0) else 0.0)


def grid(n: int) -> tuple[Callable[[], float], Callable[[float], float]]:
    """A grid declared, solved and differentiated; and again, with another load."""
    p: Any = lg.Program("grid")

    def first() -> float:
        g, load = p.parameter("g", value=1.0), p.parameter("load", value=0.1)
        u = {(i, j): p.unknown(f"u{i}_{j}", start=0.0) for i in range(n) for j in range(n)}
        for flow in flows(u, g, load):
            p.subject_to(flow == 0)
        p.define("f", sum(u[i, i] for i in range(n)))
        return again(0.1)

    def again(load: float) -> float:
        return float(p.solve(load=load).gradient("f")["load"])

    return first, again


def grid_in_casadi(n: int) -> tuple[Callable[[], float], Callable[[float], float]]:
    import casadi

    held: list[Any] = []

    def first() -> float:
        g, load = casadi.SX.sym("g"), casadi.SX.sym("load")
        u = {(i, j): casadi.SX.sym(f"u{i}_{j}") for i in range(n) for j in range(n)}
        x, given = casadi.vertcat(*u.values()), casadi.vertcat(g, load)
        problem = {"x": x, "p": given, "g": casadi.vertcat(*flows(u, g, load))}
        options = {"abstol": 1e-12, "linear_solver": "csparse"}
        solver = casadi.rootfinder("solver", "newton", problem, options)
        at = casadi.MX.sym("at", 2)
        found = solver(casadi.DM.zeros(n * n), at)
        f = casadi.sum1(found[np.arange(n) * (n + 1)])
        held.append(casadi.Function("both", [at], [f, casadi.gradient(f, at)]))
        return again(0.1)

    def again(load: float) -> float:
        return float(held[0](casadi.DM([1.0, load]))[1][1])

    return first, again


def grids(full: bool) -> Iterator[Row]:
    for n in (50, *((150,) if full else ())):
        ours, theirs = grid(n), grid_in_casadi(n) if find_spec("casadi") else None
        work = f"grid of {n * n} unknowns, one by one"
        a = once(ours[0])
        more = [once(lambda k=k: ours[1](0.1 + 0.01 * k)) for k in range(5)]
        if theirs is None:
            continue
        b = once(theirs[0])
        assert np.isclose(ours[1](0.13), theirs[1](0.13), rtol=1e-8)
        others = [once(lambda k=k: theirs[1](0.1 + 0.01 * k)) for k in range(5)]
        note = f"{seconds(a)} / {seconds(b)}"
        yield Row(work, "declare, solve, gradient / CasADi", a / b, 0.5, note)
        a, b = float(np.median(more)), float(np.median(others))
        yield Row(work, "again / CasADi", a / b, 1.0, f"{seconds(a)} / {seconds(b)}")


def chain(n: int) -> tuple[Callable[[], object], Callable[[float], object]]:
    """Coupled pairs one after the other."""
    p: Any = lg.Program("chain")

    def first() -> object:
        last = p.parameter("a", value=0.7)
        for k in range(n):
            x, y = p.unknown(f"x{k}", start=0.5), p.unknown(f"y{k}", start=0.5)
            p.subject_to(x == np.cos(0.5 * y) - 0.1 * last)
            p.subject_to(y == np.sin(x) + 0.2 * last)
            last = y
        p.define("end", last)
        return again(0.7)

    def again(a: float) -> object:
        return p.solve(a=a).gradient("end")

    return first, again


def chains(full: bool) -> Iterator[Row]:
    for n in (1000, 10_000):
        first, again = chain(n)
        work, a = f"chain of {n} coupled pairs", once(first) / n
        yield Row(work, "declare, solve, gradient, ms a pair", 1e3 * a, 0.5)
        b = float(np.median([once(lambda k=k: again(0.7 + 0.01 * k)) for k in range(5)])) / n
        yield Row(work, "again, µs a pair", 1e6 * b, 30)


def circuits(
    n: int,
) -> tuple[Callable[[], object], Callable[[float], object], Callable[[], object]]:
    """Diodes behind two resistors each, declared one by one; and a loop of SciPy's root."""
    p: Any = lg.Program("circuits")
    ohms = np.random.default_rng(0).uniform(500, 2000, (n, 2)).tolist()

    def declare() -> object:
        v = p.parameter("v", value=5.0)
        for k, (r, s) in enumerate(ohms):
            a, b, i = (
                p.unknown(f"{name}{k}", start=z) for name, z in zip("abi", STARTS, strict=True)
            )
            p.subject_to((v - a) / r == i)
            p.subject_to((a - b) / s == i)
            p.subject_to(i == 1e-12 * (np.exp(b / 0.025) - 1))
        return p.solve()

    def residual(z: Any, r: float, s: float) -> list[float]:
        a, b, i = z
        return [(5.0 - a) / r - i, (a - b) / s - i, i - 1e-12 * (np.exp(b / 0.025) - 1)]

    def loop() -> None:
        for r, s in ohms[::10]:
            scipy.optimize.root(residual, STARTS, args=(r, s))

    return declare, lambda v: p.solve(v=v), loop


def batches(full: bool) -> Iterator[Row]:
    n = 10_000
    declare, again, loop = circuits(n)
    a, b = once(declare), 10 * once(loop)
    work = f"{n} circuits declared one by one"
    yield Row(work, "declare and solve / loop of root", a / b, None, f"{seconds(a)} / {seconds(b)}")
    a = float(np.median([once(lambda k=k: again(5.0 + 0.1 * k)) for k in range(3)]))
    yield Row(work, "solve again / loop of root", a / b, 0.15, f"{seconds(a)} / {seconds(b)}")


def rows(full: bool) -> list[Row]:
    return [*grids(full), *chains(full), *batches(full)]
