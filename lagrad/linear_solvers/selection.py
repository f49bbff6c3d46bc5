"""Which linear solver takes a matrix, unless the user says."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as sparse_linalg

from lagrad.linear_solvers.base import DenseLU, Factors, LinearSolver
from lagrad.linear_solvers.cholesky import Cholesky
from lagrad.linear_solvers.krylov import CG, GMRES, Successive, probed
from lagrad.linear_solvers.sparse_lu import SparseLU


@dataclass(frozen=True, slots=True)
class MatrixFree(LinearSolver):
    """CG where products show a symmetric definite Jacobian, and GMRES elsewhere.

    What products cannot show, CG's residual does: GMRES then takes over.
    """

    tol: float = 1e-12

    matrix_free = True

    def factor(self, matrix: Any) -> Factors:
        operator = sparse_linalg.aslinearoperator(matrix)
        forth, back, scale = probed(operator)
        general = GMRES(tol=self.tol)
        if abs(forth - back) <= 1e-8 * scale:
            probes = np.random.default_rng(1).standard_normal((4, operator.shape[0]))
            signs = {float(np.sign(probe @ operator.matvec(probe))) for probe in probes}
            if len(signs) == 1:
                return Successive(operator, CG(tol=self.tol), general)
        return general.factor(operator)


@dataclass(frozen=True, slots=True)
class MatrixFreeMinimum(LinearSolver):
    """Conjugate gradients for a Hessian; Cholesky factorisation where they are too slow."""

    tol: float = 1e-12

    matrix_free = True

    def factor(self, matrix: Any) -> Factors:
        solver = CG(tol=self.tol, positive=True, max_steps=300)
        return Successive(matrix, solver, Cholesky())


DENSE_UP_TO = 64


DENSE_FRACTION = 0.2


DENSE_AT_MOST = 8_000


FACTORABLE_ENTRIES = 60_000_000


def automatic(size: int, entries: int) -> LinearSolver:
    """The solver for a Jacobian of so many rows and at most so many entries.

    Dense LU where the block is small or mostly full, sparse LU where its entries fit in memory,
    and neither where it does not: CG or GMRES, by products alone.
    """
    if size <= DENSE_UP_TO or (entries >= DENSE_FRACTION * size * size and size <= DENSE_AT_MOST):
        return DenseLU()
    if entries <= FACTORABLE_ENTRIES:
        return SparseLU()
    return MatrixFree()
