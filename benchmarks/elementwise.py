"""Elementwise functions that nobody tuned: value and gradients beside JAX, and NumPy alone."""

from __future__ import annotations

import importlib.util
import inspect
import re
import statistics
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import special

import lagrad as lg

from . import elementwise_bank
from .elementwise_bank import BANK, Problem
from .timing import Row, once, ratio

SPECIAL = ("erf", "expit", "gammaln", "ndtr")
NAMES = sorted(set(re.findall(r"\bm\.(\w+)", inspect.getsource(elementwise_bank))) - set(SPECIAL))
NUMPY = SimpleNamespace(**{name: getattr(np, name) for name in NAMES})
for name in SPECIAL:
    setattr(NUMPY, name, getattr(special, name))


def by_jax(problem: Problem, arguments: list[np.ndarray]) -> Callable[[], object]:
    """Value and all gradients by JAX, compiled."""
    import jax

    jax.config.update("jax_enable_x64", True)
    module = SimpleNamespace(**{name: getattr(jax.numpy, name) for name in NAMES})
    for name in SPECIAL:
        setattr(module, name, getattr(jax.scipy.special, name))
    places = tuple(range(len(arguments)))
    compiled = jax.jit(jax.value_and_grad(lambda *args: problem.function(module, *args), places))
    given = [jax.numpy.asarray(a) for a in arguments]
    return lambda: jax.block_until_ready(compiled(*given))


def by_lagrad(problem: Problem, arguments: list[np.ndarray]) -> Callable[[], object]:
    """The same by lagrad, as often called as pays."""
    places, plain = tuple(range(len(arguments))), problem.function
    function = lambda *args: plain(NUMPY, *args)
    compiled = lg.compile(lg.value_and_grad(function, places))
    for _ in range(15):
        compiled(*arguments)
    return lambda: compiled(*arguments)


def measured(n: int, dtype: Any, turns: int) -> Iterator[tuple[str, float, float]]:
    """Of each problem the ratio to JAX, and that to NumPy's evaluation of the function alone."""
    jax = importlib.util.find_spec("jax") is not None
    for problem in BANK:
        arguments = problem.arguments(n, dtype)
        ours, plain = (
            by_lagrad(problem, arguments),
            lambda p=problem, a=arguments: p.function(NUMPY, *a),
        )
        repeated = max(1, int(2e-3 / max(once(ours), 1e-6)))
        often = lambda f, k=repeated: lambda: [f() for _ in range(k)]
        alone, *_ = ratio(often(ours), often(plain), turns)
        beside = float("nan")
        if jax:
            theirs = by_jax(problem, arguments)
            theirs()
            beside, *_ = ratio(often(ours), often(theirs), turns)
        yield problem.name, beside, alone


def rows(full: bool) -> Iterator[Row]:
    for n in (300, 30_000, *((2_000_000,) if full else ())):
        for dtype in (np.float64, np.float32):
            found = list(measured(n, dtype, 5 if n > 1e6 else 15))
            work = f"{len(found)} elementwise functions, n = {n:,}, {np.dtype(dtype).name}"
            for place, peer, target in ((1, "JAX", 0.35), (2, "NumPy's value alone", 1.0)):
                ratios = sorted((row[place], row[0]) for row in found if row[place] == row[place])
                if ratios:
                    mean = statistics.geometric_mean(r for r, _ in ratios)
                    note = "worst " + ", ".join(f"{name} {r:.2g}" for r, name in ratios[:-4:-1])
                    yield Row(work, f"lagrad / {peer}, geometric mean", mean, target, note)
