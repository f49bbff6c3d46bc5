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
from typing import Any, cast

import numpy as np

from lagrad.checkpoints import Record, Shelf, Storage, firsts, recorded, reverse
from lagrad.copying import copied
from lagrad.derive import Adjoint, pullback, tangent
from lagrad.evaluation import Evaluation
from lagrad.expression import Expression, Primitive, Variable
from lagrad.formulas import Rule, expansion, joint_maps
from lagrad.program import Program

__all__ = ["CHAIN", "Chain", "Starts", "broken"]

Array = Any
Shape = tuple[int, ...]


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
    label : str
        What its derivative is of, for certificates, where it stands for something else.
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
    label: str = ""

    @property
    def given(self) -> tuple[str, ...]:
        return (*self.states, *self.inputs, *self.constants)

    @cached_property
    def evaluation(self) -> Evaluation:
        key = ("evaluation", self.given, self.after, self.outputs, self.starts)
        derived = self.step.compiled().derived
        if key not in derived:
            asked = (*self.after, *self.outputs)
            derived[key] = Evaluation(self.step, self.given, asked, self.starts.values())
        found = derived[key]
        assert isinstance(found, Evaluation)
        return found

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
    def dtype(self) -> np.dtype[Any]:
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
        return (self.step, *given, self.length, self.backwards, self.starts)

    def order(self) -> range:
        return range(self.length - 1, -1, -1) if self.backwards else range(self.length)

    def split(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], ...]:
        """Initial states, inputs, constants."""
        m, p = len(self.states), len(self.inputs)
        return arguments[:m], arguments[m : m + p], arguments[m + p :]

    def run(self, *arguments: Array) -> Array:
        """The chain's value for initial states, stacked inputs and constants."""
        if self.recording and self.length:
            value, record = self.recorded_run(arguments)
            recorded(value, record)
            return value
        return self._swept(arguments, None)[0]

    def recorded_run(self, arguments: Sequence[Array]) -> tuple[Array, Record]:
        """The value, and the states that the way back begins with."""
        assert self.storage is not None
        shelf = Shelf(self.storage, [np.asarray(a) for a in arguments[: len(self.states)]])
        value, last = self._swept(arguments, shelf)
        return value, Record(shelf, last)

    def _swept(self, arguments: Sequence[Array], shelf: Shelf | None) -> tuple[Array, list[Array]]:
        """The value, and the state before the last step; states put on a shelf on the way."""
        state, inputs, constants = self.split(arguments)
        m = len(self.states)
        value = np.empty(self.size, self.dtype)
        stacks = []
        for k in range(m, len(self.shapes)):
            shape = self.shapes[k]
            begin = self.ends[k] - math.prod(shape)
            stacks.append(value[begin : self.ends[k]].reshape(shape))
        store = set() if shelf is None else firsts(self.length, shelf.count)
        before: Sequence[Array] = state
        evaluate = self.evaluation
        with np.errstate(all="ignore"):
            for i, t in enumerate(self.order()):
                if i in store and shelf is not None:
                    shelf.put(i, list(state))
                before = state
                found = evaluate([*state, *[x[t] for x in inputs], *constants])
                state = found[:m]
                for stack, row in zip(stacks, found[m:], strict=True):
                    stack[t] = row
        for k in range(m):
            size = math.prod(self.shapes[k])
            value[self.ends[k] - size : self.ends[k]] = np.ravel(state[k])
        return value, list(before)

    def breaks_at(self, arguments: Sequence[Array]) -> int | None:
        """The first step that makes a NaN or an infinity, if one does."""
        state, inputs, constants = self.split(arguments)
        with np.errstate(all="ignore"):
            for t in self.order():
                found = self.evaluation([*state, *[x[t] for x in inputs], *constants])
                if not all(np.isfinite(array).all() for array in found):
                    return t
                state = found[: len(self.states)]
        return None

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

    def adjoint(self, ks: tuple[int, ...]) -> Chain:
        """The chain of the multipliers, and of what flows back to arguments `ks`.

        Its states are the cotangents of this one's and the sums that flow to constants; its
        inputs what each step was given, and the cotangents of its outputs.
        """
        active = self.active(ks)
        source = self.differentiable((*self.states, *active))
        results = tuple(dict.fromkeys((*self.after, *self.outputs)))
        derived = pullback(source.compiled(), results)
        sums = tuple(n for n in active if n in self.constants)
        known = derived.compiled.derived
        key = ("sums", sums)
        if key not in known:
            known[key] = summing(derived, sums)
        step, before, after = cast(tuple[Program, list[str], list[str]], known[key])
        return Chain(
            step,
            states=(*(derived.seeds[n] for n in self.after), *before),
            inputs=(*self.states, *self.inputs, *(derived.seeds[n] for n in self.outputs)),
            constants=self.constants,
            after=(*(derived.gradients[n] for n in self.states), *after),
            outputs=tuple(derived.gradients[n] for n in active if n in self.inputs),
            length=self.length,
            backwards=not self.backwards,
            starts=self.starts,
        )

    def gathered(
        self, ks: tuple[int, ...], flowing: Sequence[Any], stacks: Sequence[Any]
    ) -> list[Any]:
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

    def tangent(self, ks: tuple[int, ...]) -> Chain:
        """The chain with the tangents of its states after them, and those of its outputs only."""
        active = self.active(ks)
        source = self.differentiable((*self.states, *active))
        derived = tangent(source.compiled())
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
        )


def broken(name: str, step: int, length: int) -> str:
    return f"the step {name!r} makes a NaN or an infinity at step {step} of {length}."


def summing(derived: Adjoint, names: Sequence[str]) -> tuple[Program, list[str], list[str]]:
    """A step's pull-back, with what flows to constants added to what did before."""
    step = copied(derived.system, derived.system.name)
    assert isinstance(step, Program)
    before, after = [], []
    for name in names:
        gradient = step.variables[derived.gradients[name]]
        before.append(step.free(f"sum_{name}"))
        total = step.leaf(before[-1], "data", gradient.shape, gradient.dtype, None)
        after.append(step.free(f"next_sum_{name}"))
        step.define(after[-1], total + gradient)
    return step, before, after


def pull(
    node: Any, arguments: Sequence[Any], cotangent: Any, ks: tuple[int, ...], chain: Chain
) -> list[Any]:
    """What flows back to arguments."""
    if chain.storage is not None:
        value = REVERSED(node.graph, node, cotangent, *arguments, parameters=(chain, ks))
        pieces, begin = [], 0
        for k in ks:
            shape = arguments[k].shape
            end = begin + math.prod(shape)
            pieces.append(np.reshape(value[begin:end], shape))
            begin = end
        return pieces
    return pulled(arguments, cotangent, ks, chain)


def pulled(
    arguments: Sequence[Any], cotangent: Any, ks: tuple[int, ...], chain: Chain
) -> list[Any]:
    """The same by the chain in reverse over all states."""
    graph = cotangent.graph
    m, count = len(chain.states), len(chain.outputs)
    there = replace(chain.with_states, storage=None, recording=False)
    value = CHAIN(graph, *arguments, parameters=(there,))
    states = [there.part(value, m + count + i) for i in range(m)]
    back = replace(chain.adjoint(ks), storage=None)
    parts = [chain.part(cotangent, i) for i in range(m + count)]
    zeros = [back.zeros(name) for name in back.states[m:]]
    _, inputs, constants = chain.split(arguments)
    found = CHAIN(
        graph,
        *(*parts[:m], *zeros, *states, *inputs, *parts[m:], *constants),
        parameters=(back,),
    )
    results = [back.part(found, i) for i in range(len(back.shapes))]
    width = len(back.after)
    return chain.gathered(ks, results[:width], results[width:])


def push(node: Any, arguments: Sequence[Any], tangents: dict[int, Any], chain: Chain) -> Any:
    """The tangent of a chain's value."""
    m, p = len(chain.states), len(chain.inputs)
    moved = chain.tangent(tuple(tangents))
    starts = [tangents[k] if k in tangents else chain.zeros(chain.states[k]) for k in range(m)]
    found = CHAIN(
        node.graph,
        *(*arguments[:m], *starts),
        *(*arguments[m : m + p], *(tangents[k] for k in range(m, m + p) if k in tangents)),
        *arguments[m + p :],
        *(tangents[k] for k in range(m + p, len(arguments)) if k in tangents),
        parameters=(moved,),
    )
    return found[moved.ends[m - 1] :]


RULES: dict[Any, Rule] = {}


def rule(chain: Chain) -> Rule:
    """How a chain is differentiated; the rules of the last ones are kept."""
    found = RULES.get(chain)
    if found is None:
        found = Rule(
            lambda node, arguments, cotangent, ks: pull(node, arguments, cotangent, ks, chain),
            lambda node, arguments, tangents: push(node, arguments, tangents, chain),
        )
        RULES[chain] = found
        while len(RULES) > 256:
            del RULES[next(iter(RULES))]
    return found


def no_single_partial(node: Expression, k: int) -> Any:
    return joint_maps(rule(node.parameters[0]), node, (k,))[0]


CHAIN = Primitive(
    "chain",
    lambda parameters: parameters[0].run,
    lambda arguments, parameters: ((parameters[0].size,), parameters[0].dtype),
    no_single_partial,
    lambda texts, parameters: f"chain({', '.join(texts)})",
    lambda node, ks: joint_maps(rule(node.parameters[0]), node, ks),
)


def expanded(arguments: Sequence[Any], chain: Chain, ks: tuple[int, ...]) -> Any:
    """What `REVERSED` computes, by chains over all states: to be differentiated again."""
    _, cotangent, *rest = arguments
    found = pulled(rest, cotangent, ks, chain)
    return np.concatenate([np.ravel(piece) for piece in found])


def reversed_rule(node: Expression) -> Rule:
    chain, ks = node.parameters
    key = ("reversed", chain, ks)
    if key not in RULES:
        RULES[key] = expansion(
            lambda arguments: expanded(arguments, chain, ks),
            [(a.shape, a.dtype) for a in node.arguments],
        )
    return RULES[key]


def reversed_kernel(parameters: tuple[Any, ...]) -> Any:
    chain, ks = parameters

    def kernel(value: Array, cotangent: Array, *arguments: Array) -> Array:
        found = reverse(chain, ks, value, cotangent, arguments)
        return np.concatenate([np.ravel(piece) for piece in found])

    return kernel


def reversed_kind(arguments: Sequence[Expression], parameters: tuple[Any, ...]) -> Any:
    chain, ks = parameters
    return (sum(arguments[2 + k].size for k in ks),), chain.dtype


# The adjoint of a chain with few stored states: of the chain's value, a cotangent, and what the
# chain was given.
REVERSED = Primitive(
    "chain_reversed",
    reversed_kernel,
    reversed_kind,
    lambda node, k: joint_maps(reversed_rule(node), node, (k,))[0],
    lambda texts, parameters: f"chain_reversed({', '.join(texts)})",
    lambda node, ks: joint_maps(reversed_rule(node), node, ks),
)
