"""Loops as constraints: z₁ = f(z₀, x₀), z₂ = f(z₁, x₁), …, stated once.

The chain is one operation on arrays. What is derived from it is a chain again: see
`adjoint_chains.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lagrad.compiler.lowering import Lowered
from lagrad.compiler.plan import Plan
from lagrad.compiler.scalarize import Scalarised, scalarised
from lagrad.expressions.expression import Variable
from lagrad.loops.state_storage import Storage
from lagrad.programs.program import Program
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.solve import solve_named
from lagrad.systems.constraint import definitions
from lagrad.systems.rewriting import copied
from lagrad.typing import Array, DType, Shape


@dataclass(frozen=True, slots=True)
class Starts:
    """Where the unknowns of a step start, told apart by their numbers."""

    arrays: tuple[tuple[str, Shape, bytes], ...] = ()

    @classmethod
    def of(cls, values: dict[str, Array]) -> "Starts":
        arrays = {name: np.asarray(value, float) for name, value in values.items()}
        return cls(tuple((name, a.shape, a.tobytes()) for name, a in arrays.items()))

    def values(self) -> dict[str, Array]:
        return {name: np.frombuffer(data).reshape(shape) for name, shape, data in self.arrays}


class Evaluation:
    """The values of some of a program's variables, in order, for those of others.

    By a plan, or by a solve where the program has equations.

    Parameters
    ----------
    program : Program
    given, asked : sequences of str
        Names; those asked for may be given ones.
    starts : Starts
        Where unknowns start.
    """

    def __init__(
        self, program: Program, given: Sequence[str], asked: Sequence[str], starts: Starts
    ) -> None:
        self.program, self.given, self.asked, self.starts = program, given, asked, starts
        self.inputs, self.results = (
            [program.variables[n] for n in names] for names in (given, asked)
        )
        self.work = 0  # in operations on single numbers, of all its repetitions so far
        self.plan: Plan | None = None
        if not program.with_role("unknown"):
            self.plan = Plan(self.inputs, self.results, definitions(program))

    @cached_property
    def scalars(self) -> Scalarised | None:
        """The same on single numbers, where arrays are small; None elsewhere."""
        if self.plan is None:
            return None
        lowered = Lowered(self.inputs, self.results, definitions(self.program))
        return scalarised(lowered, len(self.inputs))

    def __call__(self, values: Sequence[Array]) -> list[Array]:
        if self.plan is not None:
            return self.plan.evaluate(values)
        given = dict(zip(self.given, values, strict=True))
        at = solve_named(self.program.compiled(), given, self.starts.values())
        return [at.point.values[variable] for variable in self.results]


# What a chain of derivatives has of its own.
DERIVED = ("progress", "moving", "of", "last", "complete", "original")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a chain is run, and how the states before its steps are found on the way back.

    Attributes
    ----------
    storage : Storage, optional
        How few states are stored for the way back; all of them by default.
    inverse : tuple of str
        Where the step has an inverse, the variables that it makes of the states.
    exact : bool
        Whether it is momentum in whole numbers; `inverse` are then the gradient's variables.
    recording : bool
        Whether a run leaves a record of its states.
    counted : bool
        Whether its length was found by running: the last constant is that number, and whoever
        found it may have left a record of the states.
    progress : bool
        Whether runs show how far they are.
    moving : tuple of int
        In a chain of derivatives: which states these are.
    of : str
        There: what the loop's step is called.
    last : bool
        There: whether the last step of the run is that of the loop it is derived from.
    complete : callable, optional
        There: what the loop's own step makes of what is given, by name; it puts states that are
        part of that where they belong.
    original : Chain, optional
        There: one step of the loop itself.
    """

    storage: Storage | None = None
    inverse: tuple[str, ...] = ()
    exact: bool = False
    recording: bool = False
    counted: bool = False
    progress: bool = False
    moving: tuple[int, ...] = ()
    of: str = ""
    last: bool = True
    complete: Callable[[dict[str, Array]], list[Array]] | None = None
    original: "Chain | None" = None

    @property
    def plain(self) -> "Execution":
        """Forwards only: what is wanted of a run is its value."""
        return Execution(**{name: getattr(self, name) for name in DERIVED})


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
    execution : Execution
        How it is run, which its derivatives do not depend on.
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
    execution: Execution = Execution()

    def executed(self, **changes: Any) -> "Chain":
        """The chain run in another way."""
        return replace(self, execution=replace(self.execution, **changes))

    @property
    def way(self) -> "Chain":
        """What chains have in common that differ in outputs only, or in how states are stored."""
        return replace(self, outputs=(), execution=Execution(exact=self.execution.exact))

    @cached_property
    def once(self) -> "Chain":
        """The chain of one step: what is derived of all that differ in how often they take it."""
        return replace(self, length=1, backwards=False, execution=Execution())

    @property
    def given(self) -> tuple[str, ...]:
        return (*self.states, *self.inputs, *self.constants)

    @cached_property
    def results(self) -> tuple[str, ...]:
        return (*self.after, *self.outputs)

    def _evaluated(self, asked: tuple[str, ...]) -> Evaluation:
        arguments = (self.step, self.given, asked, self.starts)
        return self.step.compiled().once(Evaluation, *arguments)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What becomes of the states, and the outputs."""
        return self._evaluated(self.results)

    @cached_property
    def inverse(self) -> Evaluation:
        """The states before, for those after a step; or the gradient."""
        return self._evaluated(self.execution.inverse)

    def variable(self, name: str) -> Variable:
        return self.step.variables[name]

    def zeros(self, name: str, *leading: int) -> Array:
        """Zeros like a variable, with further axes before its own."""
        variable = self.variable(name)
        return np.zeros((*leading, *variable.shape), variable.dtype)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Of the last states, and of the outputs of all steps."""
        stacked = [(self.length, *self.variable(name).shape) for name in self.outputs]
        return [*(self.variable(name).shape for name in self.after), *stacked]

    @cached_property
    def ends(self) -> list[int]:
        """Where each of them ends in the chain's value, which holds them in a row."""
        return [int(end) for end in np.cumsum([math.prod(shape) for shape in self.shapes])]

    @property
    def size(self) -> int:
        return self.ends[-1]

    @cached_property
    def dtype(self) -> DType:
        return np.result_type(*[self.variable(name).dtype for name in self.results])

    def pieces(self, value: Any) -> list[Any]:
        """The chain's value, an array or traced, as arrays of `shapes`."""
        pairs = zip(self.shapes, pairwise([0, *self.ends]), strict=True)
        return [np.reshape(value[begin:end], shape) for shape, (begin, end) in pairs]

    def parts(self, value: Any) -> list[Any]:
        """The same, each in its own dtype."""
        pairs = zip(self.pieces(value), self.results, strict=True)
        return [np.astype(piece, self.variable(name).dtype, copy=False) for piece, name in pairs]

    def order(self) -> range:
        return range(self.length - 1, -1, -1) if self.backwards else range(self.length)

    def split(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], ...]:
        """Initial states, inputs, constants."""
        m, p = len(self.states), len(self.inputs)
        return arguments[:m], arguments[m : m + p], arguments[m + p :]

    def given_at(self, arguments: Sequence[Array]) -> Callable[[int], list[Array]]:
        """The inputs of a step, by its number, and the constants."""
        _, inputs, constants = self.split(arguments)
        return lambda t: [*[x[t] for x in inputs], *constants]

    def active(self, ks: Sequence[int]) -> tuple[str, ...]:
        """The inputs and constants among some arguments."""
        return tuple(self.given[k] for k in ks if k >= len(self.states))

    def differentiable(self, names: Sequence[str]) -> CompiledSystem:
        """The step with the states and these as parameters, and all else that is given as data."""
        parameters = {*self.states, *names}
        roles = tuple((n, "parameter" if n in parameters else "data") for n in self.given)
        return self.step.compiled().once(with_roles, self.step, roles)


def with_roles(step: Program, roles: Sequence[tuple[str, str]]) -> CompiledSystem:
    """A program whose variables have other roles."""
    return CompiledSystem(copied(step, step.name, dict(roles)))
