"""The condition of matrices that a definition solves with, inverts or factors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.lazy_import import LazyImport
from lagrad.typing import Array

lapack: Any = LazyImport("scipy.linalg.lapack")

# A solve with a matrix of a smaller condition is right to nine digits or more: no sample of
# rounding is needed to tell.
HARMLESS = 1e6


class MatricesAt:
    """Matrices within a program, by the values of the variables that they are made of."""

    def __init__(self, matrices: Sequence[Expression], defined: dict[int, Expression]) -> None:
        def leaf(node: Expression) -> bool:
            return isinstance(node, Variable) and node.index not in defined

        self.inputs = [n for n in ancestors(matrices, leaf, defined) if isinstance(n, Variable)]
        self.inputs = [v for v in self.inputs if leaf(v)]
        self.plan = Plan(self.inputs, matrices, defined)

    def condition(self, values: Mapping[Variable, Array]) -> float:
        """The largest 1-norm condition number among them, estimated."""
        return worst(self.plan([values[v] for v in self.inputs]))


def worst(matrices: Sequence[Array]) -> float:
    """The largest condition number of several."""
    return max((condition(np.asarray(matrix)) for matrix in matrices), default=1.0)


def condition(matrices: Array) -> float:
    """The largest 1-norm condition number of a stack of matrices: estimated for a large one."""
    if matrices.ndim == 0:
        return float(matrices)  # it is one
    if matrices.size == 0:
        return 1.0
    if not np.isfinite(matrices).all():
        return np.inf
    if matrices.ndim > 2 or matrices.shape[-1] < 3:
        with np.errstate(all="ignore"):
            try:
                inverses = np.linalg.inv(matrices)
            except np.linalg.LinAlgError:
                return np.inf
            sizes = [np.abs(m).sum(axis=-2).max(axis=-1) for m in (matrices, inverses)]
            found = float(np.max(sizes[0] * sizes[1]))
        return found if np.isfinite(found) else np.inf
    real = matrices.astype(float)
    factors, _, _ = lapack.dgetrf(real)
    reciprocal, _ = lapack.dgecon(factors, np.abs(real).sum(axis=0).max())
    return float(1 / reciprocal) if reciprocal > 0 else np.inf
