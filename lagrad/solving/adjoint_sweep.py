"""The adjoint system: multipliers by back-substitution, block by block.

With L = f + Σ λᵢᵀ(rhsᵢ − lhsᵢ), ∂L/∂v = 0 is one linear equation for every variable v. A variable
that a definition determines has λ = the sum of what flows back to it; the unknowns z of a block
with residual r have (∂r/∂z)ᵀ λ = −g, g being what flows back to z. Derivatives by the parameters
are what is left there.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.scalar_tape import ScalarTape
from lagrad.expressions.expression import Expression
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import largest
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Stretch
from lagrad.systems.constraint import Constraint
from lagrad.systems.linearization import Linearization, joined, plus, split
from lagrad.systems.structure import Block
from lagrad.systems.system import System
from lagrad.typing import Array


class Carried(ABC):
    """Derivatives carried through a solved system, in either direction."""

    # Of the equations solved on the way, relative; and what stands in their place, if anything.
    residual, error = 0.0, 0.0
    truncated, truncation = "", 0.0
    # How much of the result is rounding, and what cast doubt on it.
    rounding, doubts = 0.0, tuple[str, ...]()
    careful = False
    # Why an equation on the way has no solution, if it has none.
    fault = ""
    # What becomes of each seed, which is given as parameters are.
    seeded: Callable[[Array], Array] = staticmethod(np.asarray)

    def __init__(self, compiled: CompiledSystem) -> None:
        self.compiled = compiled
        self.solved_for: dict[Constraint, Array] = {}  # multipliers of the blocks' equations
        self.solutions: dict[Block, Array] = {}  # of each block through which something went

    @abstractmethod
    def seed(self, node: Expression, value: Array) -> None:
        """Add to what a node starts with."""

    @abstractmethod
    def value(self, node: Expression) -> Array:
        """What has arrived at a node."""

    def seed_all(self, seeds: Mapping[Any, Array]) -> None:
        for node, value in seeds.items():
            self.seed(node, self.seeded(value))

    def multipliers(self) -> dict[Constraint, Array]:
        """Those of all constraints, cotangents having been carried back."""
        found = {}
        for c in self.compiled.system.constraints.values():
            held = self.solved_for.get(c) if c.variable is None else self.value(c.variable)
            found[c] = np.zeros(c.shape) if held is None else np.reshape(held, c.shape)
        return found


class Sweep(Carried):
    """Derivatives carried from block to block.

    Parameters
    ----------
    compiled, linearization, solved
        The system, its tape at the solution, and the factors of its blocks.
    width : int, optional
        How many directions at once, as the columns of matrices; one, as an array of the
        variable's own shape, by default.
    near : Sweep, optional
        The same sweep at a point close by: its solutions are corrected once, and not refined.
    careful : bool
        Whether what no choice takes is left aside, whatever it is.
    """

    def __init__(
        self,
        compiled: CompiledSystem,
        linearization: Linearization,
        solved: dict[Block, Solved],
        width: int | None = None,
        near: "Sweep | None" = None,
        careful: bool = False,
    ) -> None:
        super().__init__(compiled)
        self.linearization, self.solved = linearization, solved
        self.width, self.near = width, near
        self.slots = compiled.tape.slots
        self.values = linearization.empty()
        self.seeds: list[tuple[int, Array]] = []
        matrices = width is not None
        self.careful: bool = careful or (near is not None and near.careful)
        self.taken = linearization.empty() if self.careful else None
        self._pull = functools.partial(linearization.pull, matrices=matrices, taken=self.taken)
        forth = linearization.reached(compiled.given) if self.careful else linearization
        self._push = functools.partial(forth.push, matrices=matrices)

    def seed(self, node: Expression, value: Array) -> None:
        slot = self.slots.get(node.index)
        if slot is not None:
            self.seeds.append((slot, value))
            self.values[slot] = plus(self.values[slot], value)
            if self.taken is not None:
                self.taken[slot] = True

    def value(self, node: Expression) -> Array:
        return self._held(node, self.values)

    def _held(self, node: Expression, values: list[Any]) -> Array:
        slot = self.slots.get(node.index)
        found = None if slot is None else values[slot]
        if found is None:
            return np.zeros(node.shape if self.width is None else (node.size, self.width))
        return found

    def _joined(self, nodes: Sequence[Expression], values: list[Any]) -> Array:
        found = [self._held(node, values) for node in nodes]
        if self.width is None:
            vector = joined(found)
            # Solved in double precision at the least, whatever the unknowns have.
            return vector.astype(np.result_type(vector.dtype, float), copy=False)
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _split(self, array: Array, nodes: Sequence[Expression]) -> list[Array]:
        if self.width is None:
            return split(array, nodes)
        return np.split(array, np.cumsum([n.size for n in nodes])[:-1])

    def _terms(self, stretch: Stretch, nodes: Sequence[Expression], transposed: bool) -> Array:
        """The size of what a block's right side adds up: all that is carried there, absolute."""
        steps = [s if s.map is None else s.over(s.map.absolute()) for s in self.linearization.steps]
        absolute = Linearization(self.linearization.tape, steps)
        carry = functools.partial(
            absolute.pull if transposed else absolute.push, matrices=self.width is not None
        )
        values = absolute.empty()
        for slot, value in self.seeds:
            values[slot] = plus(values[slot], np.abs(value))
        stretches = self.compiled.stretches
        for other in reversed(stretches) if transposed else stretches:
            if other is stretch:
                break
            implicit = transposed and isinstance(other.run, ImplicitRun)
            carry(values, other.outward if implicit else other.steps)
        carry(values, stretch.inward if transposed else stretch.steps)
        return self._joined(nodes, values)

    def _solve(
        self, block: Block, right: Array, transposed: bool, terms: Callable[[], Array]
    ) -> Array:
        solved = self.solved[block]
        if self.near is not None:
            solution = self.near.solutions[block]
            if not solved.truncated:
                # `right` is what the guess leaves: one step of the same factors corrects it.
                solution = solution + solved.factors.solve(right, transposed, tol=ESTIMATE)
            if solved.free is not None:
                solution = solved.free.anywhere(solution, transposed)
        elif solved.truncated:
            # What was asked for in the place of a solution, and how far it is from one.
            solution = solved.factors.solve(right, transposed)
            left = right - solved.matrix(transposed).mv(solution)
            size = largest(right)
            if size:
                self.truncation = max(self.truncation, largest(left) / size)
            self.truncated = solved.truncated
        else:
            if solved.free is not None:
                self.fault = self.fault or solved.free.fault(right, transposed, terms)
            warm = solved.warm if transposed and self.width is None else None
            guess = None if warm is None else warm.multipliers
            solution, residual, error = solved.solve(right, transposed, guess)
            if warm is not None:
                warm.multipliers = solution
            self.residual = max(self.residual, residual)
            self.error += error
        self.solutions[block] = solution
        return solution

    def _guessed(self, values: list[Any], block: Block, nodes: Sequence[Expression]) -> list[Any]:
        """A copy of the values with the guess of a block's solution at its nodes."""
        values = list(values)
        if self.near is not None:
            pieces = self._split(self.near.solutions[block], nodes)
            for node, piece in zip(nodes, pieces, strict=True):
                slot = self.slots.get(node.index)
                if slot is None:  # a residual that is a constant, as that of |z - 1| + |z + 1|
                    continue
                values[slot] = plus(values[slot], piece)
                if self.taken is not None:
                    self.taken[slot] = True
        return values

    def back(self) -> None:
        """Carry cotangents from variables to parameters."""
        for stretch in reversed(self.compiled.stretches):
            if isinstance(stretch.run, ImplicitRun):
                self._back_through(stretch.run, stretch)
            else:
                self._pull(self.values, stretch.steps)

    def _back_through(self, run: ImplicitRun, stretch: Stretch) -> None:
        block, residuals = run.block, run.equations.residuals
        inner = {self.linearization.tape.steps[k].target for k in stretch.steps}
        slots = inner.union(self.slots[v.index] for v in block.unknowns)
        if self.near is not None:
            idle = block not in self.near.solutions
        else:
            idle = not any(self.values[s] is not None and np.any(self.values[s]) for s in slots)
        if idle:
            return
        # What later uses of the eliminated values send back to the unknowns, λ being zero …
        arrived = self._guessed(self.values, block, residuals)
        if any(arrived[slot] is not None for slot in inner):
            self._pull(arrived, stretch.inward)
        right = -self._joined(block.unknowns, arrived)
        terms = functools.partial(self._terms, stretch, block.unknowns, True)
        solution = self._solve(block, right, True, terms)
        # … and then all of it that leads on, with λ.
        pieces = self._split(solution, residuals)
        self.solved_for.update(zip(block.equations, pieces, strict=True))
        for node, piece in zip(residuals, pieces, strict=True):
            self.seed(node, piece)
        self._pull(self.values, stretch.outward)

    def forth(self) -> None:
        """Carry tangents from parameters to variables."""
        for stretch in self.compiled.stretches:
            run, steps = stretch.run, stretch.steps
            if isinstance(run, ImplicitRun):
                # What the parameters alone do to the residuals …
                unknowns = run.block.unknowns
                held = self._guessed(self.values, run.block, unknowns)
                self._push(held, steps)
                right = -self._joined(run.equations.residuals, held)
                terms = functools.partial(self._terms, stretch, run.equations.residuals, False)
                solution = self._solve(run.block, right, False, terms)
                for node, piece in zip(unknowns, self._split(solution, unknowns), strict=True):
                    self.seeds.append((self.slots[node.index], piece))
                    self.values[self.slots[node.index]] = piece
            # … and what both do to everything.
            self._push(self.values, steps)


class ScalarPoint:
    """A flat tape with the values of all its nodes."""

    def __init__(self, tape: ScalarTape, values: Array) -> None:
        self.tape, self.values = tape, values

    @cached_property
    def tied(self) -> bool:
        """Whether a function with a kink is at it."""
        return self.tape.tied(self.values)

    @cached_property
    def partials(self) -> tuple[Array, Array]:
        """All local partials at this point."""
        return self.tape.partials(self.values)

    def scale(self, compiled: CompiledSystem) -> float:
        """The largest value of a variable, but for data and derivatives."""
        return largest(self.values[compiled.once(places_of_values, compiled.system, self.tape)])


def places_of_values(system: System, tape: ScalarTape) -> Array:
    """Where the values of variables are on a tape, but for data and derivatives."""
    found: list[int] = []
    for v in system.variables.values():
        if v.role != "data" and not v.derivative:
            start = tape.starts.get(v.index, tape.place.get(v.index))
            found += () if start is None else range(start, start + v.size)
    return np.array(found, dtype=int)


class ScalarSweep(Carried):
    """Derivatives carried over a flat tape, those of all nodes in one array: nothing is solved."""

    def __init__(self, compiled: CompiledSystem, point: ScalarPoint) -> None:
        super().__init__(compiled)
        self.point, self.tape = point, point.tape
        self.sums = np.zeros(self.tape.size)
        self.apart: dict[int, Array] = {}  # of parameters that nothing uses

    def _where(self, node: Expression) -> Any:
        place = self.tape.place.get(node.index)
        if place is not None:
            return slice(place, place + 1)
        start = self.tape.starts.get(node.index)
        return None if start is None else slice(start, start + node.size)

    def seed(self, node: Expression, value: Array) -> None:
        where = self._where(node)
        if where is not None:
            self.sums[where] += np.ravel(value)
        else:
            self.apart[node.index] = self.apart.get(node.index, 0.0) + np.asarray(value)

    def value(self, node: Expression) -> Array:
        where = self._where(node)
        if where is None:
            return self.apart.get(node.index, np.zeros(node.shape))
        return self.sums[where].reshape(node.shape)

    def back(self) -> None:
        """Carry cotangents from variables to parameters."""
        self.tape.backward(self.point.partials, self.sums)

    def forth(self) -> None:
        """Carry tangents from parameters to variables."""
        self.tape.tangent(self.point.partials, self.sums)
