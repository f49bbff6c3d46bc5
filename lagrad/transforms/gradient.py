"""Derivatives of plain functions: the function becomes a program, and the program is derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, InvalidValue
from lagrad.programs.explicit_gradient import ExplicitGradient, direct
from lagrad.solving.certificate import Policy
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_system import SolvedSystem
from lagrad.transforms.backends import Backend, Numbers, Symbols, plain
from lagrad.transforms.float_check import require_followed
from lagrad.transforms.not_finite import where_not_finite
from lagrad.transforms.trace import Trace, name_of
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.tracing_graph import tracing
from lagrad.typing import Function

Positions = tuple[int, ...]


def positions_of(argnums: int | Sequence[int], count: int, name: str) -> Positions:
    """The positions of arguments, counted from the front."""
    single = isinstance(argnums, (int, np.integer))
    if not single and not isinstance(argnums, (tuple, list)):
        raise InvalidValue(f"argnums={argnums!r}; expected a position or several.")
    wanted: Sequence[Any] = (argnums,) if single else tuple(argnums)  # type: ignore[arg-type]
    if not wanted or not all(isinstance(k, (int, np.integer)) for k in wanted):
        raise InvalidValue(f"argnums={argnums!r}; expected a position or several.")
    for k in wanted:
        if not -count <= k < count:
            raise InvalidValue(
                f"argnums={argnums!r}, but {name!r} was called with {count} positional "
                f"argument{'s' * (count != 1)}."
            )
    found = tuple(int(k) % count for k in wanted)
    if len(set(found)) < len(found):
        raise InvalidValue(f"argnums={argnums!r} names an argument twice.")
    return found


def solved(trace: Trace, policy: Policy | None) -> SolvedSystem:
    """The traced program solved at the arguments at hand."""
    try:
        solution = solve_named(trace.program.compiled(), trace.values, trace.starts, policy)
    except ArithmeticError as error:
        if (culprit := where_not_finite(trace)) is not None:
            raise culprit from error
        raise
    if trace.asked_floats:
        require_followed(trace, solution)
    return solution


def require_floats(trace: Trace) -> None:
    """InvalidFunction for a result of truths or integers, which has no derivative."""
    if trace.discrete:
        raise InvalidFunction(
            f"{trace.program.name!r} returned truths or integers, which have no derivative; "
            "return floats."
        )


def scalar_output(trace: Trace, name: str, what: str) -> str:
    """The one output, which must have one entry."""
    shapes = [trace.program.variables[n].shape for n in trace.outputs]
    if len(shapes) != 1 or trace.program.variables[trace.outputs[0]].size != 1:
        shown = shapes[0] if len(shapes) == 1 else shapes
        raise InvalidFunction(
            f"{what} needs a function with a scalar result; {name!r} returned shape {shown}. "
            "Return its sum or mean, or use lg.jacobian."
        )
    return trace.outputs[0]


class Keeper:
    """A function that keeps its traces."""

    function: Function

    def run(self, transform: Transform, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a transform makes of the function at these arguments."""
        raise NotImplementedError


class Transform:
    """A function of the same arguments as another one, made from its trace."""

    def __init__(
        self,
        function: Function,
        argnums: int | Sequence[int],
        accuracy: float | None,
        on_failure: str,
    ) -> None:
        if not callable(function):
            raise InvalidFunction(f"{function!r} is no function.")
        self.function = function
        self.argnums = argnums
        self.accuracy = accuracy
        self.on_failure = on_failure
        self.__name__ = f"{type(self).__name__}_of_{name_of(function)}"
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.function, Keeper) and tracing() is None:
            return self.function.run(self, args, kwargs)
        return self.of(traced(self.plain, args, kwargs, self.positions(len(args))))

    @property
    def plain(self) -> Function:
        """The function itself."""
        return self.function.function if isinstance(self.function, Keeper) else self.function

    def positions(self, count: int) -> Positions:
        return positions_of(self.argnums, count, name_of(self.function))

    def solved(self, trace: Trace) -> SolvedSystem:
        accuracy = trace.program.accuracy() if self.accuracy is None else self.accuracy
        return solved(trace, Policy(accuracy, self.on_failure))

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else MethodType(self, owner)

    def of(self, trace: Trace) -> Any:
        """The derivative, as numbers or as values of the function traced around."""
        require_floats(trace)
        outer = tracing()
        if outer is not None and trace.symbolic:
            return self.result(Symbols(trace, outer))
        return self.numbers(trace)

    def numbers(self, trace: Trace) -> Any:
        """The result as numbers, by a straight line where there is nothing to solve."""
        if (line := self.straight(trace)) is not None:
            found = line([trace.values[name] for name in line.inputs])
            if found is not None:
                return self.arrangement(trace)(found)
        return self.result(Numbers(trace, self.solved(trace)))

    def straight(self, trace: Trace) -> ExplicitGradient | None:
        """What computes a trace without equations; None where there is no such thing."""
        return None

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        """How the result is made of values and derivatives in a row."""
        raise NotImplementedError

    def result(self, at: Backend) -> Any:
        """The result, of numbers or of symbols."""
        raise NotImplementedError

    def in_structure(self, trace: Trace, found: Mapping[str, Any]) -> Any:
        """Values by parameter in the structure of the arguments."""
        parts = tuple([a.tree.unflatten([found[n] for n in a.names]) for a in trace.arguments])
        return parts[0] if isinstance(self.argnums, (int, np.integer)) else parts


class Straight(Transform):
    """What one straight line computes where there are no equations."""

    def straight(self, trace: Trace) -> ExplicitGradient | None:
        if trace.asked_floats:
            return None  # to be compared with differences
        return direct(trace.program, trace.outputs, self.output(trace))

    def output(self, trace: Trace) -> str | None:
        """The output that is differentiated."""
        return None

    def result(self, at: Backend) -> Any:
        row, output = [], self.output(at.trace)
        if output is not None:
            found = at.gradient(output)
            row = [found[name] for name in at.trace.parameters]
        return self.arrangement(at.trace)([*at.values(), *row])


class Primal(Straight):
    """The function itself."""

    def __init__(self, function: Function) -> None:
        super().__init__(function, (), None, "raise")

    def positions(self, count: int) -> Positions:
        return ()

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        return trace.tree.unflatten


class Gradient(Straight):
    with_value = False

    def output(self, trace: Trace) -> str | None:
        return scalar_output(trace, name_of(self.function), "grad")

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        names = {name: k for k, name in enumerate(trace.parameters, 1)}
        places = [([names[n] for n in a.names], a.tree) for a in trace.arguments]
        single = isinstance(self.argnums, (int, np.integer))

        def arranged(found: list[Any]) -> Any:
            parts = tuple([tree.unflatten([found[k] for k in where]) for where, tree in places])
            gradient = parts[0] if single else parts
            return (trace.tree.unflatten(found[:1]), gradient) if self.with_value else gradient

        return arranged


class ValueAndGradient(Gradient):
    with_value = True


class Certified(Transform):
    """Of a function that returns a scalar and more: its result, the gradient, the certificate."""

    def result(self, at: Backend) -> Any:
        assert isinstance(at, Numbers)
        found = at.solution.gradient(at.trace.program.variables[at.trace.outputs[0]])
        gradient = self.in_structure(at.trace, {name: plain(a) for name, a in found.items()})
        return at.trace.tree.unflatten(at.values()), gradient, found.certificate


def grad(
    f: Function,
    argnums: int | Sequence[int] = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Function:
    """Return the function that computes the gradient of `f`.

    Parameters
    ----------
    f : callable
        A function in NumPy with a scalar result. It is traced at each call, so that whatever it
        closes over, and whichever branch it takes, is as it is then.
    argnums : int or sequence of ints
        Which positional arguments to differentiate by.
    accuracy : float, optional
        The relative error to which the gradient must be certified: 1e-6 by default, 1e-3 for
        float32.
    on_failure : {"raise", "warn"}
        What happens where it cannot be certified.

    Returns
    -------
    callable
        Of the same arguments; the gradient has the structure of the argument, and is a tuple
        where `argnums` is a sequence.

    Raises
    ------
    InvalidFunction, InvalidValue
        When it is called: a result that is no scalar, or `argnums` out of range.
    NotConverged, SingularSystem, NotFinite
        When it is called: the gradient cannot be certified.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    >>> float(lg.grad(lg.grad(np.cos))(0.0))
    -1.0
    """
    return Gradient(f, argnums, accuracy, on_failure)


def value_and_grad(
    f: Function,
    argnums: int | Sequence[int] = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Function:
    """Return the function that computes the value of `f` and its gradient.

    Parameters
    ----------
    f, argnums, accuracy, on_failure
        As of `grad`.

    Returns
    -------
    callable
        Of the same arguments; it returns a tuple of both.

    Examples
    --------
    >>> import lagrad as lg
    >>> value, gradient = lg.value_and_grad(lambda x: x**3)(2.0)
    >>> float(value), float(gradient)
    (8.0, 12.0)
    """
    return ValueAndGradient(f, argnums, accuracy, on_failure)
