"""The Neumann series for a linear system, whole or truncated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import InvalidValue, NotConverged
from lagrad.linear_solvers.base import Factors, LinearSolver
from lagrad.linear_solvers.krylov import GMRES, Products
from lagrad.typing import Array

# Terms still to come from which GMRES is taken for the rest.
PATIENCE = 40


@dataclass(frozen=True, slots=True)
class Neumann(LinearSolver):
    """The Neumann series, x ← x + step·(b − J x), which converges where I − step·J contracts.

    Parameters
    ----------
    terms : int, optional
        How many terms are summed; as many as reach `tol` by default.
    step : float, optional
        By default −1 for a fixed point, whose J is the step's Jacobian less one, and the
        inverse of the largest curvature for an argmin.
    tol : float
        Residual over right side at which it ends.

    References
    ----------
    Lorraine, Vicol and Duvenaud (2020), Optimizing millions of hyperparameters by implicit
    differentiation, arXiv:1911.02590.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lambda x, k: lg.fixed_point(lambda z: z / 2 + x, 0.0, differentiate=lg.Neumann(terms=k))
    >>> [float(lg.grad(f)(1.0, k)) for k in (1, 2, 3)]
    [1.0, 1.5, 1.75]
    """

    terms: int | None = None
    step: float | None = None
    tol: float = 1e-10

    matrix_free = True

    def __post_init__(self) -> None:
        if self.terms is not None and (not isinstance(self.terms, int) or self.terms < 1):
            raise InvalidValue(f"Neumann(terms={self.terms!r}); expected one or more.")
        if not 0 < self.tol < 1 or self.step == 0:
            raise InvalidValue(f"{self!r}: tol in (0, 1), step other than zero.")

    def factor(self, matrix: Any) -> Factors:
        return NeumannFactors(matrix, self)


class NeumannFactors(Factors):
    """Sums of the series; GMRES where it does not converge and all of it was asked for."""

    iterative = True

    def __init__(self, matrix: Any, solver: Neumann) -> None:
        self.operator = sparse_linalg.aslinearoperator(matrix)
        self.shape = self.operator.shape
        self.solver = solver
        self.tol = max(solver.tol, 50 * float(np.finfo(self.operator.dtype).eps))
        self.step = solver.step if solver.step is not None else self._inverse_of_largest()
        self.otherwise: Factors | None = None
        self.growth = 0.0  # of a residual that does not shrink, for each step

    def _inverse_of_largest(self) -> float:
        """±1/|J|, of the sign of J, by a few steps of the power method."""
        vector = np.random.default_rng(3).standard_normal(self.shape[0])
        largest = 0.0
        for _ in range(10):
            vector = vector / np.linalg.norm(vector)
            image = self.operator.matvec(vector)
            largest = float(vector @ image)
            vector = image
        if not (np.isfinite(largest) and largest != 0.0):
            raise NotConverged("the series has no step of its own here: Neumann(step=…).")
        return 1.0 / (1.05 * largest)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        if right.ndim == 2:
            columns = [self.solve(column, transposed, tol) for column in right.T]
            return np.stack(columns, axis=1) if columns else right
        if self.otherwise is not None:
            return self.otherwise.solve(right, transposed, tol)
        # The products themselves: SciPy's wrapper costs as much as a small one.
        operator: Any = self.operator
        product = operator.rmatvec if transposed else operator.matvec
        if isinstance(operator, Products):
            product = operator.backward if transposed else operator.forward
        terms = self.solver.terms
        size, end = float(np.linalg.norm(right)), max(self.tol, tol)
        solution, residual = self.step * right, right
        before = np.inf
        for k in range(1, terms or 1000):
            residual = right - product(solution)
            length = float(np.linalg.norm(residual))
            if terms is None and not length > end * size:
                return solution
            if terms is None and not length < 0.9 * before and k > 3:
                self.growth = max(self.growth, (length / size) ** (1 / k))
                break
            if terms is None and k == 6 and end * size < length:
                left = math.log(end * size / length) / math.log(length / before)
                if left > PATIENCE:
                    # Krylov's subspace holds the series' sums, and better ones.
                    rest = GMRES(tol=self.tol).factor(self.operator)
                    return solution + rest.solve(residual, transposed, end * size / length)
            before = length
            solution = solution + self.step * residual
        if terms is not None:
            return solution
        self.otherwise = GMRES(tol=self.solver.tol).factor(self.operator)
        return self.otherwise.solve(right, transposed, tol)
