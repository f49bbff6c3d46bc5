"""Back-substitution through an assembled acyclic system: time for each edge."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse

import lagrad as lg

from .timing import Row, once

LAYERS, FAN = 10, 10


def chain(edges: int) -> lg.Program:
    """Layers of sparse products: about `edges` entries among the constraints' partials."""
    width = edges // (LAYERS * FAN)
    rng = np.random.default_rng(0)
    p = lg.Program("layers")
    value = p.parameter("x", value=np.ones(width))
    for layer in range(LAYERS):
        columns = rng.integers(0, width, size=(width, FAN)).ravel()
        rows = np.repeat(np.arange(width), FAN)
        W = sparse.csr_array((np.full(rows.size, 0.1), (rows, columns)), shape=(width, width))
        value = p.define(f"y{layer}", np.tanh(W @ value))
    p.define("f", np.sum(value))
    return p


def per_edge(edges: int) -> tuple[float, float]:
    """Seconds for each entry of the matrix, and in all."""
    system = chain(edges).solve().adjoint_system("f")
    best = min(once(system.solve) for _ in range(15))
    return best / system.matrix.nnz, best


def rows(full: bool) -> list[Row]:
    sizes = [10**4, 10**5, 10**6]
    times = [per_edge(size) for size in sizes]
    each = [t[0] for t in times]
    growth = max(late / early for i, early in enumerate(each) for late in each[i + 1 :])
    note = ", ".join(f"{size:.0e}: {1e9 * t:.1f} ns" for size, t in zip(sizes, each, strict=True))
    work = "back-substitution, 10⁴ to 10⁶ edges"
    return [Row(work, "growth of the time per edge", growth, 1.5, f"per edge {note}")]
