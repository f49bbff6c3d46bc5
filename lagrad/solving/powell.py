"""A second method for small blocks where Newton's makes no progress."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.optimize

from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.typing import Array

# Blocks up to this size get it.
HYBRID_UP_TO = 300


def powell_start(equations: BlockEquations, outer: list[Array], start: Array) -> Array | None:
    """Where Powell's hybrid method ends (MINPACK, by SciPy), for small blocks; None if nowhere."""
    if equations.block.size > HYBRID_UP_TO:
        return None

    def residual(point: Array) -> Array:
        return equations.residual(outer, point)

    def jacobian(point: Array) -> Array:
        partials = LocalEquations(equations, outer, point).partials
        return partials.jacobian(equations.residuals, equations.unknowns, dense=True)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = scipy.optimize.root(residual, start, jac=jacobian, method="hybr", tol=1e-12)
        except (ValueError, ArithmeticError):
            return None
    reached = np.isfinite(found.x).all() and np.isfinite(residual(found.x)).all()
    return np.asarray(found.x, dtype=equations.dtype) if found.success and reached else None
