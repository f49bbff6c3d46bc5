"""Linear solvers of other packages, each behind an extra: algebraic multigrid, and PARDISO."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import InvalidValue
from lagrad.linear_solvers.base import Factors, LinearSolver, Singular, canonical, require_finite
from lagrad.linear_solvers.krylov import CG, GMRES, KrylovFactors
from lagrad.linear_solvers.sparse_lu import Layout
from lagrad.typing import Array


def required(package: str, extra: str, wanted: str) -> Any:
    """A package; InvalidValue, with what to install, where there is none."""
    if importlib.util.find_spec(package) is None:
        raise InvalidValue(
            f"{wanted} needs the package {package}: python -m pip install 'lagrad[{extra}]'."
        )
    return importlib.import_module(package)


@dataclass(frozen=True, slots=True)
class AMG(LinearSolver):
    """Algebraic multigrid as a preconditioner, by PyAMG (extra `amg`): CG, or GMRES.

    Smoothed aggregation, for Jacobians like a discretised elliptic operator's, of a size where
    factors no longer fit. A symmetric one is solved by conjugate gradients.

    Parameters
    ----------
    tol : float
        Residual over right side at which a solve ends.
    max_steps : int
        Products with the matrix before `NotConverged` is raised.

    Raises
    ------
    InvalidValue
        PyAMG is not installed.

    References
    ----------
    Bell, Olson, Schroder and Southworth (2023), PyAMG: Algebraic Multigrid Solvers in Python,
    doi:10.21105/joss.05495.
    """

    tol: float = 1e-12
    max_steps: int = 500

    def __post_init__(self) -> None:
        required("pyamg", "amg", "lg.AMG()")
        CG(tol=self.tol, max_steps=self.max_steps)  # refuses what makes no sense

    def factor(self, matrix: Any) -> Factors:
        pyamg = required("pyamg", "amg", "lg.AMG()")
        entries = canonical(matrix)
        symmetric = Layout.of(entries).symmetric(entries.data)

        def cycle(of: Any) -> Any:
            where = [places.astype(np.int32) for places in (of.indices, of.indptr)]
            narrow = sparse.csr_matrix((of.data, *where), shape=of.shape)
            kind = "symmetric" if symmetric else "nonsymmetric"
            return pyamg.smoothed_aggregation_solver(narrow, symmetry=kind).aspreconditioner()

        forth = cycle(entries)
        back = forth if symmetric else cycle(sparse.csr_array(entries.T))

        apply = lambda vector, transposed: (back if transposed else forth).matvec(vector)
        kind = CG if symmetric else GMRES
        return KrylovFactors(entries, kind(self.tol, self.max_steps, apply))


@dataclass(frozen=True, slots=True)
class PARDISO(LinearSolver):
    """Sparse LU factorisation on several threads, by Intel's PARDISO (extra `mkl`).

    Raises
    ------
    InvalidValue
        pypardiso is not installed.
    """

    def __post_init__(self) -> None:
        required("pypardiso", "mkl", "lg.PARDISO()")

    def factor(self, matrix: Any) -> Factors:
        return PardisoFactors(sparse.csr_matrix(matrix, dtype=float))


class PardisoFactors(Factors):
    def __init__(self, matrix: Any) -> None:
        self.shape = matrix.shape
        matrix.sort_indices()
        require_finite(matrix.data)
        self.solver = required("pypardiso", "mkl", "lg.PARDISO()").PyPardisoSolver()
        self.matrix = matrix
        # The same arrays read by columns are the transpose.
        parts = (matrix.data, matrix.indices, matrix.indptr)
        self.transpose = sparse.csc_matrix(parts, shape=self.shape)
        try:
            self.solver.factorize(matrix)
        except (ValueError, RuntimeError) as error:  # an empty row; a failure of its own
            raise Singular(str(error)) from None

    def __del__(self) -> None:
        if hasattr(self, "solver"):
            self.solver.free_memory(everything=True)

    def solve(self, right: Array, transposed: bool = False, tol: float = 0.0) -> Array:
        matrix = self.transpose if transposed else self.matrix
        return self.solver.solve(matrix, np.asfortranarray(right, dtype=float))
