"""The Neumann series for a linear system, whole or truncated."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import InvalidValue, NotConverged
from lagrad.linear_solvers.base import DenseLU, Factors, LinearSolver
from lagrad.linear_solvers.jacobian import Products
from lagrad.linear_solvers.krylov import GMRES, Iterative, Successive
from lagrad.linear_solvers.sparse_lu import SparseLU
from lagrad.typing import Array

# Terms still to come from which GMRES is taken for the rest.
PATIENCE = 40
# Rows of a matrix that is put together where GMRES is too slow.
FORMED_AT_MOST = 3000


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


class Formed(LinearSolver):
    """LU of a matrix, dense or sparse as it comes."""

    def factor(self, matrix: Any) -> Factors:
        return (SparseLU() if sparse.issparse(matrix) else DenseLU()).factor(matrix)


class NeumannFactors(Iterative):
    """Sums of the series; GMRES where it does not converge and all of it was asked for."""

    def __init__(self, matrix: Any, solver: Neumann) -> None:
        super().__init__(matrix, solver.tol)
        self.solver = solver
        self.step = solver.step if solver.step is not None else self._inverse_of_largest()
        self.rest: Factors | None = None  # GMRES, once a series did not converge

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

    def one(self, right: Array, transposed: bool, tol: float) -> Array:
        end = max(self.tol, tol)
        if self.rest is not None:
            return self.rest.solve(right, transposed, tol)
        solution, residual, growth = self._series(right, transposed, end)
        if growth:
            self.rest = self._general()
            return self.rest.solve(right, transposed, tol)
        if residual is None:
            return solution
        # Krylov's subspace holds the series' sums, and better ones.
        rest = self._general()
        left = end * float(np.linalg.norm(right)) / float(np.linalg.norm(residual))
        return solution + rest.solve(residual, transposed, left)

    def _general(self) -> Factors:
        """GMRES; the matrix itself where that is too slow, if it is known and small enough."""
        solver, operator = GMRES(tol=self.tol), self.operator
        if isinstance(operator, Products) and self.shape[0] <= FORMED_AT_MOST:
            return Successive(operator, solver, Formed())
        return solver.factor(operator)

    def growth(self) -> float:
        """By how much each term of a vector's series is longer than the last; zero if shorter."""
        probe = np.random.default_rng(5).standard_normal(self.shape[0])
        return self._series(probe, False, self.estimate)[2]

    def _series(
        self, right: Array, transposed: bool, end: float
    ) -> tuple[Array, Array | None, float]:
        """A sum, what it leaves where the rest would take long, and its growth if it diverges."""
        # The products themselves: SciPy's wrapper costs as much as a small one.
        operator: Any = self.operator
        product = operator.rmatvec if transposed else operator.matvec
        if isinstance(operator, Products):
            product = operator.backward if transposed else operator.forward
        whole, size = self.solver.terms is None, float(np.linalg.norm(right))
        solution, residual, before = self.step * right, right, np.inf
        for k in range(1, self.solver.terms or 1000):
            residual = right - product(solution)
            length = float(np.linalg.norm(residual))
            if whole and not length > end * size:
                return solution, None, 0.0
            if whole and not length < 0.9 * before and k > 3:
                return solution, residual, (length / size) ** (1 / k)
            if whole and k == 6:
                terms = math.log(end * size / length) / math.log(length / before)
                if terms > PATIENCE:
                    return solution, residual, 0.0
            before = length
            solution = solution + self.step * residual
        return solution, residual if whole else None, 0.0
