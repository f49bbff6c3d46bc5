"""A function made from the trace of another one, and where it finds derivatives.

Numbers come from the solution of the traced program. Symbols are programs derived from it, stated
in the function that is traced around it, so that they can be derived again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MethodType
from typing import Any, TypeAlias

import numpy as np

from lagrad.errors import InvalidFunction, InvalidValue, LagradError, NotFinite, ShapeMismatch
from lagrad.expressions.expression import Expression, Variable
from lagrad.programs.derived_programs import adjoint, pullback, tangent
from lagrad.programs.explicit_gradient import ExplicitGradient
from lagrad.public import Public
from lagrad.solving.certificate import Policy
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.rewriting import inlined
from lagrad.systems.system import System, fitted
from lagrad.transforms.source_lines import raise_with_line
from lagrad.transforms.trace import Argument, Trace, name_of, unboxed
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.trace_checks import require_followed, require_inside, where_not_finite
from lagrad.transforms.tracing_graph import Tracing, tracing
from lagrad.trees import Tree
from lagrad.typing import Array, Function, Indices

ByName = Mapping[str, Any]
Positions: TypeAlias = int | Sequence[int]  # of the arguments that are differentiated by


class Numbers:
    """Values and derivatives of a trace as numbers, certified, by the names of its variables."""

    def __init__(self, trace: Trace, policy: Policy | None = None) -> None:
        self.trace, self.policy = trace, policy

    @cached_property
    def solution(self) -> SolvedSystem:
        """The traced program solved at the arguments at hand."""
        trace = self.trace
        try:
            found = solve_named(trace.program.compiled(), trace.values, trace.starts, self.policy)
        except ArithmeticError as error:
            if (said := where_not_finite(trace)) is not None:
                raise NotFinite(said) from error
            raise
        if trace.unfollowed:
            require_followed(trace, found)
        return found

    def values(self) -> list[Any]:
        """What the function returned, leaf by leaf."""
        return [plain(self.solution[name]) for name in self.trace.outputs]

    def gradient(self, output: str) -> ByName:
        """Of a scalar output, by every parameter."""
        self.require_inside()
        found = self.solution.gradient(self.trace.program.variables[output])
        return {name: plain(array) for name, array in found.items()}

    def pullback(self, cotangents: ByName) -> ByName:
        """The transposed Jacobian times cotangents of all outputs, by every parameter."""
        self.require_inside()
        found = self.solution.pullback(self.fitting("cotangent", cotangents))
        return {name: plain(array) for name, array in found.items()}

    def tangent(self, directions: ByName) -> list[Any]:
        """The derivative of each output along directions of all parameters."""
        self.require_inside()
        outputs = [self.trace.program.variables[name] for name in self.trace.outputs]
        found = self.solution.tangent(self.fitting("direction", directions), outputs)
        return [plain(found[name]) for name in self.trace.outputs]

    def require_inside(self) -> None:
        """SingularSystem at the border of a branch."""
        if any(guard.border for guard in self.trace.guards):
            require_inside(self.trace, self.policy or Policy())

    def fitting(self, what: str, arrays: ByName) -> dict[Variable, Array]:
        """Arrays by variable, each in its dtype."""
        variables = self.trace.program.variables
        return {
            variables[name]: fitted(f"the {what} of {name!r}", array, variables[name])
            for name, array in arrays.items()
        }


class Symbols:
    """The same as `Numbers`, as values of a function that is traced around this one."""

    def __init__(self, trace: Trace, outer: Tracing) -> None:
        self.trace, self.outer = trace, outer
        self.found: dict[str, Expression] = {}  # what the trace's variables became

    def values(self) -> list[Any]:
        if not self.found:
            self.placed(self.trace.program, {}, {})
        return [self.found[name] for name in self.trace.outputs]

    def gradient(self, output: str) -> ByName:
        derived = adjoint(self.trace.program, output)
        return self.placed(derived.system, {}, derived.gradients)

    def pullback(self, cotangents: ByName) -> ByName:
        derived = pullback(self.trace.program, self.trace.outputs)
        seeds = {derived.seeds[name]: c for name, c in cotangents.items()}
        return self.placed(derived.system, seeds, derived.gradients)

    def tangent(self, directions: ByName) -> list[Any]:
        derived = tangent(self.trace.program)
        seeds = {derived.seeds[name]: d for name, d in directions.items()}
        found = self.placed(derived.system, seeds, derived.tangents)
        return [found[name] for name in self.trace.outputs]

    def placed(self, derived: System, seeds: ByName, names: Mapping[str, str]) -> ByName:
        """A program derived from the trace, stated in the outer one; some variables' values there.

        `names` are what those variables are called, by what they are derivatives of.
        """
        trace = self.trace
        given = {**trace.values, **trace.captured, **trace.given, **seeds}
        lifted = {name: self.outer.lift(value) for name, value in given.items()}
        self.outer.system.derived |= derived.derived
        self.found = inlined(derived, self.outer.system, lifted, trace.starts)
        self.outer.inherit(trace.program, trace.guards, self.found)
        found = {of: self.found[name] for of, name in names.items()}
        self.outer.system.slopes += [v for v in found.values() if isinstance(v, Expression)]
        return found


Backend: TypeAlias = Numbers | Symbols


def backend(trace: Trace, *directions: Any) -> Backend:
    """Where derivatives come from: symbols where a trace, or a direction, is of an outer trace.

    InvalidFunction for a result of truths or integers, which has no derivative.
    """
    if trace.discrete:
        raise InvalidFunction(
            f"{trace.program.name!r} returned truths or integers, which have no derivative; "
            "return floats."
        )
    outer = tracing()
    if outer is not None and (trace.symbolic or any(isinstance(d, Expression) for d in directions)):
        return Symbols(trace, outer)
    return Numbers(trace)


def positions_of(argnums: Positions, count: int, name: str) -> Indices:
    """The positions of arguments, counted from the front."""
    wanted = (argnums,) if isinstance(argnums, (int, np.integer)) else argnums
    several = isinstance(wanted, (tuple, list)) and len(wanted) > 0
    if not several or not all(isinstance(k, (int, np.integer)) for k in wanted):
        raise InvalidValue(f"argnums={argnums!r}; expected a position or several.")
    if not all(-count <= k < count for k in wanted):
        raise InvalidValue(
            f"argnums={argnums!r}, but {name!r} was called with {count} positional "
            f"argument{'s' * (count != 1)}."
        )
    found = tuple(int(k) % count for k in wanted)
    if len(set(found)) < len(found):
        raise InvalidValue(f"argnums={argnums!r} names an argument twice.")
    return found


def scalar_output(trace: Trace, name: str, what: str) -> str:
    """The one output, which must have one entry."""
    shapes = [v.shape for v in trace.returned]
    if len(shapes) != 1 or trace.returned[0].size != 1:
        shown = shapes[0] if len(shapes) == 1 else shapes
        raise InvalidFunction(
            f"{what} needs a function with a scalar result; {name!r} returned shape {shown}. "
            "Return its sum or mean, or use lg.jacobian."
        )
    return trace.outputs[0]


class Keeper:
    """A function that keeps its traces."""

    function: Function

    def run(self, transform: "Transform", args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a transform makes of the function at these arguments."""
        raise NotImplementedError


class Transform(Public):
    """A function of the same arguments as another one, made from its trace."""

    differentiates = True
    with_value = True  # whether what the function returns is asked for, beside derivatives

    def __init__(
        self, function: Function, argnums: Positions, accuracy: float | None, on_failure: str
    ) -> None:
        if not callable(function):
            raise InvalidFunction(f"{function!r} is no function.")
        self.function, self.argnums = function, argnums
        self.accuracy, self.on_failure = accuracy, on_failure
        self.__name__ = f"{type(self).__name__}_of_{name_of(function)}"
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if isinstance(self.function, Keeper) and tracing() is None:
                return self.function.run(self, args, kwargs)
            return self.of(traced(self.plain, args, kwargs, self.positions(len(args))))
        except LagradError as error:
            raise_with_line(error, self.plain, args, kwargs, self.positions(len(args)))

    @property
    def plain(self) -> Function:
        """The function itself."""
        return self.function.function if isinstance(self.function, Keeper) else self.function

    def positions(self, count: int) -> Indices:
        return positions_of(self.argnums, count, name_of(self.function))

    def at(self, trace: Trace) -> Numbers:
        """Derivatives as numbers, to the accuracy that was asked for."""
        return Numbers(trace, self.policy(trace))

    def policy(self, trace: Trace) -> Policy:
        """What was asked for."""
        accuracy = trace.program.accuracy() if self.accuracy is None else self.accuracy
        return Policy(accuracy, self.on_failure, self.with_value)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else MethodType(self, owner)

    def of(self, trace: Trace) -> Any:
        """The derivative, as numbers or as values of the function traced around."""
        at = backend(trace)
        return self.result(at) if isinstance(at, Symbols) else self.numbers(trace)

    def numbers(self, trace: Trace) -> Any:
        """The result as numbers, by a straight line where there is nothing to solve."""
        if self.differentiates and any(guard.border for guard in trace.guards):
            self.at(trace).require_inside()
        if (line := self.straight(trace)) is not None:
            found = line([trace.values[name] for name in line.inputs])
            if found is not None:
                return self.arrangement(trace)(found)
        return self.result(self.at(trace))

    def straight(self, trace: Trace) -> ExplicitGradient | None:
        """What computes a trace without equations; None where there is no such thing."""
        return None

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        """How the result is made of values and derivatives in a row."""
        raise NotImplementedError

    def result(self, at: Backend) -> Any:
        """The result, of numbers or of symbols."""
        raise NotImplementedError

    def structure(self, trace: Trace) -> Tree:
        """That of the arguments that are differentiated by."""
        return trace.structure(isinstance(self.argnums, (int, np.integer)))


def plain(value: Any) -> Any:
    """An array of the caller's own, or a NumPy number."""
    array = np.array(value)
    return array[()] if array.ndim == 0 else array


def leaves_by_name(trace: Trace, what: str, of: Argument, value: Any, where: str) -> dict[str, Any]:
    """The leaves of a cotangent or a tangent; ShapeMismatch for one that does not fit its name."""
    found = dict(zip(of.names, map(unboxed, of.tree.leaves_of(value, where)), strict=True))
    for name, leaf in found.items():
        shape = trace.program.variables[name].shape
        if np.shape(leaf) != shape:
            raise ShapeMismatch(
                f"the {what} of {name!r} has shape {np.shape(leaf)}; expected {shape}."
            )
    return found
