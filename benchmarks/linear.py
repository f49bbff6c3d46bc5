"""Linear solvers on one Jacobian: a five-point Laplacian, and one with a wind that skews it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sparse

import lagrad as lg

from .bratu import laplacian
from .timing import Row, once, seconds


def matrices(n: int) -> Iterator[tuple[str, sparse.csr_array]]:
    A = sparse.csr_array(-laplacian(n) + 1e-3 * sparse.eye_array(n * n))
    yield f"Laplacian, {n * n} unknowns", A
    wind = sparse.diags_array([-0.1, 0.1], offsets=[-1, 1], shape=(n * n, n * n))
    yield f"Laplacian with wind, {n * n} unknowns", sparse.csr_array(A + wind)


def solvers(n: int) -> dict[str, lg.SparseLU]:
    found = {"SparseLU": lg.SparseLU()}
    if n <= 100:  # a minute and a half at n = 300
        found["GMRES, ilu"] = lg.GMRES(preconditioner="ilu")
    if importlib.util.find_spec("pyamg"):
        found["AMG"] = lg.AMG()
    if importlib.util.find_spec("pypardiso"):
        found["PARDISO"] = lg.PARDISO()
    return found


def rows(full: bool) -> Iterator[Row]:
    for n in (100, 300, *((700,) if full else ())):
        for work, A in matrices(n):
            right, first = np.random.default_rng(0).standard_normal(n * n), None
            for name, solver in solvers(n).items():
                kept: list = []
                factor = once(lambda s=solver, A=A, k=kept: k.append(s.factor(A)))
                again = once(lambda s=solver, A=A, k=kept: k.append(s.factor(A)))
                solve = once(lambda k=kept, b=right: k[-1].solve(b))
                off = np.abs(A @ kept[-1].solve(right) - right).max()
                total = again + solve
                first = first or total
                note = (
                    f"factor {seconds(factor)}, again {seconds(again)}, solve {seconds(solve)}, "
                    f"residual {off:.0e}"
                )
                yield Row(work, f"{name} / SparseLU", total / first, None, note)
