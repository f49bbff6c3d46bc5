"""The adjoint system: multipliers by back-substitution, block by block.

With L = f + Σ λᵢᵀ(rhsᵢ − lhsᵢ), ∂L/∂v = 0 is one linear equation for every variable v. A variable
that a definition determines has λ = the sum of what flows back to it; the unknowns z of a block
with residual r have (∂r/∂z)ᵀ λ = −g, g being what flows back to z. Derivatives by the parameters
are what is left there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Stretch
from lagrad.solving.refinement import refined
from lagrad.solving.solved_block import Solved
from lagrad.systems.constraint import Constraint
from lagrad.systems.linearization import Linearization, joined, split
from lagrad.systems.structure import Block
from lagrad.typing import Array


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
        compiled: CompiledSystem,
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

    def seed_all(self, seeds: Mapping[Any, Array]) -> None:
        for node, value in seeds.items():
            self.seed(node, value)

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
        left = right - solved.matrix(transposed).mv(solution)
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
