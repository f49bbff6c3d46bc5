"""Loops as constraints: z₁ = f(z₀, x₀), z₂ = f(z₁, x₁), …, stated once.

The chain is one operation on arrays. Its adjoint system is block bidiagonal: multipliers run
back through the transposed steps, which is a chain again, in reverse over the states. So is its
tangent. Nothing but chains comes out, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Variable
from lagrad.expressions.graph import ancestors
from lagrad.loops.checkpoints import Storage
from lagrad.loops.step_function import Evaluation
from lagrad.programs.derived_programs import Adjoint, pullback
from lagrad.programs.program import Program
from lagrad.programs.tangent_program import tangent
from lagrad.systems.constraint import definitions
from lagrad.systems.rewriting import copied, given
from lagrad.typing import Array, DType, Shape


@dataclass(frozen=True, slots=True)
class Starts:
    """Where the unknowns of a step start, told apart by their numbers."""

    names: tuple[str, ...] = ()
    arrays: tuple[tuple[Shape, bytes], ...] = ()

    @classmethod
    def of(cls, values: dict[str, Array]) -> Starts:
        arrays = [np.asarray(v, float) for v in values.values()]
        return cls(tuple(values), tuple((a.shape, a.tobytes()) for a in arrays))

    def values(self) -> dict[str, Array]:
        return {
            name: np.frombuffer(data).reshape(shape)
            for name, (shape, data) in zip(self.names, self.arrays, strict=True)
        }


@dataclass(frozen=True)
class Chain:
    """A program of one step, and how it is repeated.

    Attributes
    ----------
    step : Program
    states, inputs, constants : tuple of str
        Its variables that are given: those that a step hands to the next, those of which each
        step has its own, and those that all have in common.
    after : tuple of str
        What becomes of the states.
    outputs : tuple of str
        What is kept of each step; states that it was given may be among them.
    length : int
    backwards : bool
        Whether the last step's inputs come first.
    starts : Starts
        Where unknowns start.
    storage : Storage, optional
        How few states are stored for the way back; all of them by default.
    recording : bool
        Whether a run leaves a record of its states.
    before : tuple of str
        Where the step has an inverse, what it makes of the states.
    exact : bool
        Whether it is momentum in whole numbers; `before` are then the gradient's.
    progress : bool
        Whether runs show how far they are.
    counted : bool
        Whether its length was found by running: the last constant is that number, and whoever
        found it may have left a record of the states.
    """

    step: Program
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]
    length: int
    backwards: bool = False
    starts: Starts = Starts()
    storage: Storage | None = None
    recording: bool = False
    before: tuple[str, ...] = ()
    exact: bool = False
    progress: bool = False
    counted: bool = False

    @property
    def given(self) -> tuple[str, ...]:
        return (*self.states, *self.inputs, *self.constants)

    def _evaluated(self, asked: tuple[str, ...]) -> Evaluation:
        key = ("evaluation", self.given, asked, self.starts)
        derived = self.step.compiled().derived
        if key not in derived:
            derived[key] = Evaluation(self.step, self.given, asked, self.starts.values())
        found = derived[key]
        assert isinstance(found, Evaluation)
        return found

    @cached_property
    def evaluation(self) -> Evaluation:
        """What becomes of the states, and the outputs."""
        return self._evaluated((*self.after, *self.outputs))

    @cached_property
    def inverse(self) -> Evaluation:
        """The states before, for those after a step; or the gradient."""
        return self._evaluated(self.before)

    def variable(self, name: str) -> Variable:
        return self.step.variables[name]

    def shape(self, name: str) -> Shape:
        return self.variable(name).shape

    def zeros(self, name: str) -> Array:
        return np.zeros(self.shape(name), self.variable(name).dtype)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Of the last states, and of the outputs of all steps."""
        stacked = [(self.length, *self.shape(name)) for name in self.outputs]
        return [*map(self.shape, self.after), *stacked]

    @cached_property
    def ends(self) -> list[int]:
        """Where each of them ends in the chain's value, which holds them in a row."""
        return [int(end) for end in np.cumsum([math.prod(shape) for shape in self.shapes])]

    @property
    def size(self) -> int:
        return self.ends[-1] if self.ends else 0

    @cached_property
    def dtype(self) -> DType:
        kinds = [self.step.variables[n].dtype for n in (*self.after, *self.outputs)]
        return np.result_type(*kinds)

    def part(self, value: Any, k: int) -> Any:
        """The k-th of `shapes` out of the chain's value, an array or traced."""
        shape = self.shapes[k]
        piece = value[self.ends[k] - math.prod(shape) : self.ends[k]]
        name = (*self.after, *self.outputs)[k]
        found = np.reshape(piece, shape)
        dtype = self.step.variables[name].dtype
        return found if dtype == self.dtype else np.astype(found, dtype)

    @property
    def way(self) -> tuple[Any, ...]:
        """What chains have in common that differ in outputs only."""
        given = (self.states, self.inputs, self.constants, self.after)
        return (self.step, *given, self.length, self.backwards, self.starts, self.exact)

    def order(self) -> range:
        return range(self.length - 1, -1, -1) if self.backwards else range(self.length)

    def split(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], ...]:
        """Initial states, inputs, constants."""
        m, p = len(self.states), len(self.inputs)
        return arguments[:m], arguments[m : m + p], arguments[m + p :]

    def differentiable(self, names: tuple[str, ...]) -> Program:
        """The step with these as parameters, and all else that is given as data."""
        key = ("roles", self.given, names)
        derived = self.step.compiled().derived
        if key not in derived:
            roles = {n: "parameter" if n in names else "data" for n in self.given}
            copy = copied(self.step, self.step.name, roles)
            assert isinstance(copy, Program)
            derived[key] = copy
        found = derived[key]
        assert isinstance(found, Program)
        return found

    @cached_property
    def with_states(self) -> Chain:
        """The chain with what each step starts from among its outputs."""
        return replace(self, outputs=(*self.outputs, *self.states))

    def active(self, ks: Sequence[int]) -> tuple[str, ...]:
        """The inputs and constants among some arguments."""
        return tuple(self.given[k] for k in ks if k >= len(self.states))

    def _back(self, ks: Shape) -> Back:
        """The step's pull-back to arguments `ks`."""
        active = self.active(ks)
        source = self.differentiable((*self.states, *active))
        results = tuple(dict.fromkeys((*self.after, *self.outputs)))
        derived = pullback(source, results)
        sums = tuple(n for n in active if n in self.constants)
        known = derived.compiled.derived
        key = ("back", sums, self.states, self.inputs, self.after)
        if key not in known:
            known[key] = Back.of(derived, sums, self)
        found = known[key]
        assert isinstance(found, Back)
        return found

    def adjoint(self, ks: Shape) -> Chain:
        """The chain of the multipliers, and of what flows back to arguments `ks`.

        Its states are the cotangents of this one's, the sums that flow to constants, and the
        states after the step that use them; its inputs what each step was given, and the
        cotangents of its outputs.
        """
        back, active = self._back(ks), self.active(ks)
        seeds, gradients = back.derived.seeds, back.derived.gradients
        return Chain(
            back.step,
            states=(*(seeds[n] for n in self.after), *back.before, *back.known.values()),
            inputs=(*self.states, *self.inputs, *(seeds[n] for n in self.outputs)),
            constants=self.constants,
            after=(
                *(gradients[n] for n in self.states),
                *back.sums,
                *(self.states[k] for k in back.known),
            ),
            outputs=tuple(gradients[n] for n in active if n in self.inputs),
            length=self.length,
            backwards=not self.backwards,
            starts=self.starts,
            progress=self.progress,
        )

    def flowing(self, ks: Shape, parts: Sequence[Any], last: Sequence[Any]) -> list[Any]:
        """Where the adjoint chain starts: the last states' cotangents, no sums, those states."""
        back = self._back(ks)
        sums = [back.step.variables[name] for name in back.before]
        zeros = [np.zeros(v.shape, v.dtype) for v in sums]
        return [*parts[: len(self.states)], *zeros, *(last[k] for k in back.known)]

    def gathered(self, ks: Shape, flowing: Sequence[Any], stacks: Sequence[Any]) -> list[Any]:
        """For each of some arguments what has come back to it.

        From the last states of the adjoint chain, and from its outputs.
        """
        m, active = len(self.states), self.active(ks)
        inputs = [n for n in active if n in self.inputs]
        sums = [n for n in active if n in self.constants]
        return [
            flowing[k]
            if k < m
            else stacks[inputs.index(name)]
            if (name := self.given[k]) in inputs
            else flowing[m + sums.index(name)]
            for k in ks
        ]

    def tangent(self, ks: Shape) -> Chain:
        """The chain with the tangents of its states after them, and those of its outputs only."""
        active = self.active(ks)
        source = self.differentiable((*self.states, *active))
        derived = tangent(source)
        step = derived.system
        assert isinstance(step, Program)

        def moving(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(derived.seeds[n] for n in names if n in active)

        return Chain(
            step,
            states=(*self.states, *(derived.seeds[n] for n in self.states)),
            inputs=(*self.inputs, *moving(self.inputs)),
            constants=(*self.constants, *moving(self.constants)),
            after=(*self.after, *(derived.tangents[n] for n in self.after)),
            outputs=tuple(derived.tangents[n] for n in self.outputs),
            length=self.length,
            backwards=self.backwards,
            starts=self.starts,
            progress=self.progress,
        )


@dataclass(frozen=True, eq=False)
class Back:
    """A step's pull-back.

    Attributes
    ----------
    derived : Adjoint
    step : Program
        The same, with what flows to constants added to what did before, and with states after
        the step as data where it uses them: they need not be computed from those before again.
    before, sums : tuple of str
        The sums that flow to constants, before and after.
    known : dict
        By the number of a state, the data that it is after the step.
    """

    derived: Adjoint
    step: Program
    before: tuple[str, ...]
    sums: tuple[str, ...]
    known: dict[int, str]

    @classmethod
    def of(cls, derived: Adjoint, names: Sequence[str], chain: Chain) -> Back:
        system = derived.system
        free: dict[int, tuple[str, str]] = {}
        # With equations in it, all that it defines is computed.
        for k, name in enumerate(() if system.with_role("unknown") else chain.after):
            stated = system.constraints.get(name)  # or it is given
            if stated is not None and not isinstance(stated.rhs, (Variable, Constant)):
                free[k] = (name, system.free(f"after_{name}"))
        step = copied(system, system.name, instead=given(system, dict(free.values())))
        assert isinstance(step, Program)
        before, after = [], []
        for name in names:
            gradient = step.variables[derived.gradients[name]]
            before.append(step.free(f"sum_{name}"))
            total = step.leaf(before[-1], "data", gradient.shape, gradient.dtype, None)
            after.append(step.free(f"next_sum_{name}"))
            step.define(after[-1], total + gradient)
        asked = [
            *after,
            *(
                derived.gradients[n]
                for n in (*chain.states, *chain.inputs)
                if n in derived.gradients
            ),
        ]
        needed = ancestors(
            [step.variables[n] for n in asked], lambda node: False, definitions(step)
        )
        used = {node.name for node in needed if isinstance(node, Variable)}
        known = {k: data for k, (_, data) in free.items() if data in used}
        return cls(derived, step, tuple(before), tuple(after), known)
