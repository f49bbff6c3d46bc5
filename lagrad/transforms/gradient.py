"""The gradient of a plain function, the function itself, and values that are held constant."""

from collections.abc import Callable
from typing import Any, ParamSpec

from lagrad.primitives import kernels
from lagrad.programs.explicit_gradient import ExplicitGradient, direct
from lagrad.transforms.trace import Trace, name_of, unboxed
from lagrad.transforms.transform import Backend, Numbers, Positions, Transform, plain, scalar_output
from lagrad.trees import tree_map
from lagrad.typing import Function, Indices

P = ParamSpec("P")


class Straight(Transform):
    """What one straight line computes where there are no equations."""

    def straight(self, trace: Trace) -> ExplicitGradient | None:
        # What asked for a float is to be compared with differences.
        if trace.unfollowed or trace.program.with_role("unknown"):
            return None
        return direct(trace.program, trace.outputs, self.output(trace))

    def output(self, trace: Trace) -> str | None:
        """The output that is differentiated."""
        return None

    def result(self, at: Backend) -> Any:
        trace, output = at.trace, self.output(at.trace)
        found = {} if output is None else at.gradient(output)
        row = [found[name] for name in trace.parameters]
        return self.arrangement(trace)([*at.values(), *row])


class Primal(Straight):
    """The function itself."""

    differentiates = False

    def __init__(self, function: Function) -> None:
        super().__init__(function, (), None, "raise")

    def positions(self, count: int) -> Indices:
        return ()

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        return trace.tree.unflatten


class FunctionGradient(Straight):
    with_value = False

    def output(self, trace: Trace) -> str | None:
        return scalar_output(trace, name_of(self.function), "grad")

    def arrangement(self, trace: Trace) -> Callable[[list[Any]], Any]:
        gradients, value, both = self.structure(trace).builder, trace.tree.builder, self.with_value

        def arranged(found: list[Any]) -> Any:
            gradient = gradients(found[1:])
            return (value(found[:1]), gradient) if both else gradient

        return arranged


class ValueAndGradient(FunctionGradient):
    with_value = True


class Certified(Transform):
    """Of a function that returns a scalar and more: its result, the gradient, the certificate."""

    def result(self, at: Backend) -> Any:
        assert isinstance(at, Numbers)
        trace = at.trace
        found = at.solution.gradient(trace.returned[0])
        gradient = self.structure(trace).unflatten([plain(found[n]) for n in trace.parameters])
        return trace.tree.unflatten(at.values()), gradient, found.certificate


def grad(
    f: Callable[P, Any],
    argnums: Positions = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[P, Any]:
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
    return FunctionGradient(f, argnums, accuracy, on_failure)


def value_and_grad(
    f: Callable[P, Any],
    argnums: Positions = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[P, tuple[float, Any]]:
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


def stop_gradient(x: Any) -> Any:
    """Return `x` itself, held constant by every derivative.

    Parameters
    ----------
    x : nested arrays
        Traced or not.

    Examples
    --------
    >>> import lagrad as lg
    >>> float(lg.grad(lambda x: x * lg.stop_gradient(x))(3.0))
    3.0
    """
    return tree_map(lambda leaf: kernels.stop_gradient(unboxed(leaf)), x)
