"""The adjoint system: multipliers by back-substitution, block by block.

With L = f + Σ λᵢᵀ(rhsᵢ − lhsᵢ), ∂L/∂v = 0 is one linear equation for every variable v. A variable
that a definition determines has λ = the sum of what flows back to it; the unknowns z of a block
with residual r have (∂r/∂z)ᵀ λ = −g, g being what flows back to z. Derivatives by the parameters
are what is left there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

from lagrad.blocks import entry_name
from lagrad.compiled import Compiled, ImplicitRun, Stretch
from lagrad.endpoint import Solved
from lagrad.errors import SingularSystem
from lagrad.expression import Expression, Variable
from lagrad.linear import ESTIMATE, Factors
from lagrad.structure import Block
from lagrad.system import Constraint
from lagrad.tape import Linearization, joined, split

__all__ = ["AdjointSystem", "Sweep", "assemble", "refined"]

Array = Any


# A relative error of 1e-13 is rounding in all but name: no further solve is spent on it.
ENOUGH = 500


def refined(
    solved: Solved, right: Array, transposed: bool, guess: Array | None = None
) -> tuple[Array, float, float]:
    """The solution with the Jacobian at the solution, its residual and its error, relative.

    The factors belong to the step before the solution, so they only precondition: refine
    against the true Jacobian until the corrections are rounding, or stall. Where they are too
    far off to converge, the true Jacobian is factored.
    """
    matrix = solved.adjoint if transposed else solved.jacobian
    scale = np.abs(right).max(initial=0.0)
    if scale == 0.0:
        return np.zeros_like(right), 0.0, 0.0
    unit = right / scale
    if guess is not None and solved.factors.iterative:
        # What a guess leaves is solved for, if that is less.
        left = right - matrix @ guess
        if np.abs(left).max() < 0.5 * scale:
            return _corrected(solved, guess, left, transposed, scale)
    best = _refine(matrix, solved.factors, unit, transposed, solved.contraction)
    if best[2] > 1e-9 and (exact := solved.exact) is not None:
        again = _refine(matrix, exact, unit, transposed, np.inf)
        best = min(best, again, key=lambda b: b[2])
    return best[0] * scale, best[1], best[2]


def _corrected(
    solved: Solved, guess: Array, left: Array, transposed: bool, scale: float
) -> tuple[Array, float, float]:
    """A guess and the solution for what it leaves; the residual is against the whole."""
    step, residual, error = refined(solved, left, transposed)
    share = float(np.abs(left).max()) / scale
    return guess + step, residual * share, error * min(1.0, share)


def _refine(
    matrix: Any, factors: Factors, right: Array, transposed: bool, contraction: float
) -> tuple[Array, float, float]:
    epsilon = float(np.finfo(right.dtype).eps)
    solution = factors.solve(right, transposed)
    before = np.inf
    for _ in range(25):
        residual = right - matrix @ solution
        correction = factors.solve(residual, transposed, tol=ESTIMATE)
        top = float(np.abs(solution).max())
        length = float(np.abs(correction).max()) / top if top else 0.0
        if not length < 0.5 * before:
            # Rounding, or factors too far off: what the last correction was is still in doubt.
            return solution, float(np.abs(residual).max()), min(length, before)
        solution = solution + correction
        # How much each correction gains: before the second, thrice what another vector
        # gained, the transpose being another matrix.
        gain = length / before if np.isfinite(before) else min(3 * contraction, 1.0)
        before = length
        if length * gain <= ENOUGH * epsilon:
            break
    residual = right - matrix @ solution
    return solution, float(np.abs(residual).max()), max(before * gain, epsilon)


class Sweep:
    """Derivatives carried through a solved system, in either direction.

    Parameters
    ----------
    compiled, linearization, solved
        The system, its tape at the solution, and the factors of its blocks.
    width : int, optional
        How many directions at once, as the columns of matrices; one, as an array of the
        variable's own shape, by default.
    near : Sweep, optional
        The same sweep at a point close by: its solutions are corrected once, and not refined.
    """

    def __init__(
        self,
        compiled: Compiled,
        linearization: Linearization,
        solved: dict[Block, Solved],
        width: int | None = None,
        near: Sweep | None = None,
    ) -> None:
        self.near = near
        self.solutions: dict[Block, Array] = {}
        self.compiled = compiled
        self.linearization = linearization
        self.solved = solved
        self.width = width
        self.values = linearization.empty()
        self.residual = 0.0
        self.error = 0.0
        self.truncated, self.truncation = "", 0.0
        matrices = width is not None
        self._pull = functools.partial(linearization.pull, matrices=matrices)
        self._push = functools.partial(linearization.push, matrices=matrices)

    def slot(self, node: Expression) -> int | None:
        return self.compiled.tape.slots.get(node.index)

    def seed(self, node: Expression, value: Array) -> None:
        """Add to what a node starts with."""
        slot = self.slot(node)
        if slot is not None:
            held = self.values[slot]
            self.values[slot] = value if held is None else held + value

    def value(self, node: Expression) -> Array:
        """What has arrived at a node."""
        slot = self.slot(node)
        found = None if slot is None else self.values[slot]
        return self._zeros(node) if found is None else found

    def _zeros(self, node: Expression) -> Array:
        shape = node.shape if self.width is None else (node.size, self.width)
        return np.zeros(shape)

    def _joined(self, nodes: Sequence[Expression], values: list[Any]) -> Array:
        found = [
            self._zeros(node) if values[s] is None else values[s]
            for node, s in ((n, self.compiled.tape.slots[n.index]) for n in nodes)
        ]
        if self.width is None:
            return joined(found).astype(float, copy=False)
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _split(self, array: Array, nodes: Sequence[Expression]) -> list[Array]:
        if self.width is None:
            return split(array, nodes)
        return np.split(array, np.cumsum([n.size for n in nodes])[:-1])

    def _solve(self, block: Block, right: Array, transposed: bool) -> Array:
        solved = self.solved[block]
        if solved.truncated:
            return self._truncated(block, right, transposed)
        if self.near is not None:
            # `right` is what the guess leaves, so that one step of the same factors corrects it.
            solution = self.near.solutions[block] + solved.factors.solve(
                right, transposed, tol=ESTIMATE
            )
        else:
            warm = solved.warm if transposed and self.width is None else None
            guess = None if warm is None else warm.multipliers
            solution, residual, error = refined(solved, right, transposed, guess)
            if warm is not None:
                warm.multipliers = solution
            self.residual = max(self.residual, residual)
            self.error += error
        self.solutions[block] = solution
        return solution

    def _truncated(self, block: Block, right: Array, transposed: bool) -> Array:
        """What was asked for in the place of a solution, and how far it is from one."""
        if self.near is not None:
            return self.near.solutions[block]
        solved = self.solved[block]
        solution = solved.factors.solve(right, transposed)
        matrix = solved.adjoint if transposed else solved.jacobian
        left = right - matrix @ solution
        size = float(np.abs(right).max(initial=0.0))
        if size:
            self.truncation = max(self.truncation, float(np.abs(left).max()) / size)
        self.truncated = solved.truncated
        self.solutions[block] = solution
        return solution

    def _guessed(self, values: list[Any], block: Block, nodes: Sequence[Expression]) -> list[Any]:
        """A copy of the values with the guess of a block's solution at its nodes."""
        values = list(values)
        if self.near is not None:
            pieces = self._split(self.near.solutions[block], nodes)
            for node, piece in zip(nodes, pieces, strict=True):
                slot = self.compiled.tape.slots[node.index]
                values[slot] = piece if values[slot] is None else values[slot] + piece
        return values

    def back(self) -> dict[Constraint, Array]:
        """Carry cotangents from variables to parameters; the multipliers of all constraints."""
        multipliers: dict[Constraint, Array] = {}
        for stretch in reversed(self.compiled.stretches):
            run = stretch.run
            if isinstance(run, ImplicitRun):
                self._back_through(run, stretch, multipliers)
            else:
                self._pull(self.values, stretch.steps)
        for constraint in self.compiled.system.constraints.values():
            if constraint.variable is not None:
                multipliers[constraint] = self.value(constraint.variable)
            elif constraint.size == 0:
                multipliers[constraint] = np.zeros(constraint.shape)
        return multipliers

    def _back_through(
        self, run: ImplicitRun, stretch: Stretch, multipliers: dict[Constraint, Array]
    ) -> None:
        block = run.block
        inner = {self.linearization.steps[k].target for k in stretch.steps}
        slots = inner.union(self.compiled.tape.slots[v.index] for v in block.unknowns)
        idle = all(self._untouched(slot) for slot in slots)
        if idle if self.near is None else block not in self.near.solutions:
            for constraint in block.equations:
                assert constraint.residual is not None
                multipliers[constraint] = self._zeros(constraint.residual)
            return
        # What later uses of the eliminated values send back to the unknowns, λ being zero …
        arrived = self._guessed(self.values, block, run.equations.residuals)
        if any(arrived[slot] is not None for slot in inner):
            self._pull(arrived, stretch.inward)
        right = -self._joined(block.unknowns, arrived)
        solution = self._solve(block, right, transposed=True)
        # … and then all of it that leads on, with λ.
        residuals = run.equations.residuals
        pieces = self._split(solution, residuals)
        for constraint, node, piece in zip(block.equations, residuals, pieces, strict=True):
            multipliers[constraint] = piece
            self.seed(node, piece)
        self._pull(self.values, stretch.outward)

    def _untouched(self, slot: int) -> bool:
        value = self.values[slot]
        return value is None or not np.any(value)

    def forth(self) -> None:
        """Carry tangents from parameters to variables."""
        for stretch in self.compiled.stretches:
            self._push_through(stretch.run, stretch.steps)

    def _push_through(self, run: Any, steps: range) -> None:
        if isinstance(run, ImplicitRun):
            # What the parameters alone do to the residuals …
            held = self._guessed(self.values, run.block, run.block.unknowns)
            self._push(held, steps)
            right = -self._joined(run.equations.residuals, held)
            solution = self._solve(run.block, right, transposed=False)
            pieces = self._split(solution, run.block.unknowns)
            for node, piece in zip(run.block.unknowns, pieces, strict=True):
                self.values[self.compiled.tape.slots[node.index]] = piece
        # … and what both do to everything.
        self._push(self.values, steps)


@dataclass(frozen=True, eq=False)
class AdjointSystem:
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
        pieces, start = {}, 0
        for constraint in self.constraints:
            stop = start + constraint.size
            pieces[constraint.name] = solution[start:stop].reshape(constraint.shape)
            start = stop
        return pieces

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


def labels(things: Sequence[Any]) -> list[str]:
    return [entry_name([thing], i) for thing in things for i in range(thing.size)]


def assemble(compiled: Compiled, linearization: Linearization, output: Variable) -> AdjointSystem:
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
    linearization: Linearization,
    variables: Sequence[Variable],
    constraints: Sequence[Constraint],
) -> sparse.csr_array:
    """∂(rhs − lhs)/∂v: partials are multiplied within a constraint, and stop at variables."""
    roots = [constraint.roots[0] for constraint in constraints]
    right = linearization.blocks(variables, through=False).assembled(roots, variables)
    # A definition's residual has its own variable with minus one.
    place = dict(
        zip(variables, np.cumsum([0, *(v.size for v in variables)]).tolist(), strict=False)
    )
    rows, columns, row = [np.zeros(0, int)], [np.zeros(0, int)], 0
    for constraint in constraints:
        if (own := constraint.variable) is not None:
            rows.append(np.arange(row, row + own.size))
            columns.append(np.arange(place[own], place[own] + own.size))
        row += constraint.size
    places = (np.concatenate(rows), np.concatenate(columns))
    left = sparse.coo_array((np.ones(places[0].size), places), shape=right.shape)
    return sparse.csr_array(right - left.tocsr())
