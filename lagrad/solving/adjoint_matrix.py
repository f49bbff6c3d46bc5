"""The adjoint system put together as one labelled sparse matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.errors import SingularSystem
from lagrad.expressions.expression import Variable
from lagrad.public import Public
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.systems.constraint import Constraint
from lagrad.systems.linearization import Linearization
from lagrad.systems.reduced_block import entry_name
from lagrad.typing import Array


@dataclass(frozen=True, eq=False)
class AdjointSystem(Public):
    """∂L/∂v = 0 for every variable v that is no parameter: one sparse linear system.

    Attributes
    ----------
    matrix : csr_array, (n, n)
        Row i: ∂(lhs − rhs)/∂vᵢ of every constraint. Rows and columns stand in solving order,
        so that the matrix is block upper triangular.
    rhs : ndarray, (n,)
        The output's own derivative by each variable.
    blocks : tuple of slices
        Rows and columns of each block, in the order in which multipliers are found.
    variables, constraints : tuples
        What the rows and the columns belong to.
    """

    PUBLIC = (
        "matrix",
        "rhs",
        "variables",
        "constraints",
        "labels",
        "row_labels",
        "blocks",
        "solve",
    )

    matrix: sparse.csr_array
    rhs: Array
    variables: tuple[Variable, ...]
    constraints: tuple[Constraint, ...]
    spans: tuple[tuple[int, int, bool], ...]

    @property
    def labels(self) -> list[str]:
        """The name of each multiplier: its constraint's, with the index of the entry."""
        return labels(self.constraints)

    @property
    def row_labels(self) -> list[str]:
        """The name of the variable that each row differentiates by."""
        return labels(self.variables)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The rows (and columns) of each block, in the order of back-substitution."""
        return tuple(slice(a, b) for a, b, _ in reversed(self.spans))

    def solve(self) -> dict[str, Array]:
        """The multipliers, by back-substitution over the blocks.

        Acyclic parts and blocks of one equation are substituted; a cyclic block of several is
        factored.

        Returns
        -------
        dict
            From the constraint's name to an array of its shape.

        Raises
        ------
        SingularSystem
            A cyclic block has no inverse.
        """
        solution = self.vector()
        places = starts(self.constraints).items()
        return {c.name: solution[k : k + c.size].reshape(c.shape) for c, k in places}

    def vector(self) -> Array:
        """The multipliers in one row, in the order of `labels`."""
        solution = np.zeros(self.rhs.size)
        for start, stop, cyclic in reversed(self.spans):
            right = self.rhs[start:stop]
            if stop < self.rhs.size:
                right = right - self.matrix[start:stop, stop:] @ solution[stop:]
            whole = stop - start == self.rhs.size
            inner = self.matrix if whole else self.matrix[start:stop, start:stop]
            if not cyclic:
                solution[start:stop] = substituted(inner, right)
            elif stop - start == 1:
                if inner[0, 0] == 0.0:
                    raise SingularSystem(f"the multiplier of row {start} is undetermined.")
                solution[start] = right[0] / inner[0, 0]
            else:
                try:
                    solution[start:stop] = sparse_linalg.splu(inner.tocsc()).solve(right)
                except RuntimeError:
                    names = self.labels[start:stop][:8]
                    raise SingularSystem(
                        f"a cyclic block of the adjoint system is singular: {names}."
                    ) from None
        return solution


def substituted(upper: sparse.csr_array, right: Array) -> Array:
    """Back-substitution through a unit upper triangular matrix: no factorisation."""
    # SciPy writes on the diagonal, so it is given the numbers to keep and no more.
    own = sparse.csr_array((upper.data.copy(), upper.indices, upper.indptr), shape=upper.shape)
    own.has_canonical_format = True
    return sparse_linalg.spsolve_triangular(
        own, right.copy(), lower=False, unit_diagonal=True, overwrite_A=True, overwrite_b=True
    )


def starts(things: Sequence[Any]) -> dict[Any, int]:
    """Where the entries of each begin in a row of all."""
    return dict(zip(things, np.cumsum([0, *(t.size for t in things)]).tolist(), strict=False))


def labels(things: Sequence[Any]) -> list[str]:
    return [entry_name([thing], i) for thing in things for i in range(thing.size)]


def assemble(
    compiled: CompiledSystem, linearization: Linearization, output: Variable
) -> AdjointSystem:
    """The adjoint system of an output: every constraint's local partials in their place."""
    variables: list[Variable] = []
    constraints: list[Constraint] = []
    spans: list[tuple[int, int, bool]] = []
    width = 0
    for block in compiled.structure.blocks:
        cyclic = not block.explicit
        variables += block.variables
        constraints += block.constraints
        size = sum(v.size for v in block.variables)
        if spans and not cyclic and not spans[-1][2]:
            spans[-1] = (spans[-1][0], width + size, False)
        elif size:
            spans.append((width, width + size, cyclic))
        width += size
    derivative = local_jacobian(linearization, variables, constraints)
    own = [np.full(v.size, float(v is output)) for v in variables]
    rhs = np.concatenate([np.zeros(0), *own])
    matrix = sparse.csr_array((-derivative).T)
    matrix.sort_indices()
    return AdjointSystem(matrix, rhs, tuple(variables), tuple(constraints), tuple(spans))


def local_jacobian(
    linearization: Linearization, variables: Sequence[Variable], constraints: Sequence[Constraint]
) -> sparse.csr_array:
    """∂(rhs − lhs)/∂v: partials are multiplied within a constraint, and stop at variables."""
    roots = [constraint.root for constraint in constraints]
    right = linearization.blocks(variables, through=False).assembled(roots, variables)
    # A definition's residual has its own variable with minus one.
    rows, columns = starts(constraints), starts(variables)
    own = [(rows[c], columns[c.variable], c.size) for c in constraints if c.variable is not None]
    places = [np.add([[row], [column]], np.arange(size)) for row, column, size in own]
    row, column = np.concatenate([np.zeros((2, 0), int), *places], axis=1)
    left = sparse.coo_array((np.ones(row.size), (row, column)), shape=right.shape)
    return sparse.csr_array(right - left.tocsr())
