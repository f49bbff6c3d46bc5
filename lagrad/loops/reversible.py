"""Steps as loops take them: of a state alone, and with an inverse, so that no states are kept."""

import inspect
from dataclasses import dataclass
from typing import Any

from lagrad.errors import InvalidFunction
from lagrad.typing import Function


@dataclass(frozen=True, eq=False)
class InvertibleStep:
    """A step with its inverse; or one of momentum, `exact`, with the gradient in its place."""

    step: Function
    inverse: Function | None = None
    exact: bool = False

    def __call__(self, *arguments: Any) -> Any:
        return self.step(*arguments)


def reversible(step: Function, inverse: Function) -> InvertibleStep:
    """Return a step for loops that keep no states: those before are found by its inverse.

    Parameters
    ----------
    step : callable
        As of `scan`, `iterate` or `while_loop`.
    inverse : callable
        `inverse(state, x)`, or `inverse(state)` where the step takes no inputs, is the state that
        the step leads to `state`.

    Raises
    ------
    InvalidFunction
        In the derivative: the inverse does not lead back, at some steps and at the first, to six
        digits of the largest that each array of the state was.

    Notes
    -----
    What rounding the step loses, the inverse does not bring back, and a step that contracts loses
    more with each repetition.

    Examples
    --------
    >>> import lagrad as lg
    >>> def turned(angle):
    ...     turn = lambda z: (z[0] - angle * z[1], z[1] + angle * (z[0] - angle * z[1]))
    ...     back = lambda z: (z[0] + angle * (z[1] - angle * z[0]), z[1] - angle * z[0])
    ...     return lg.iterate(lg.reversible(turn, back), (1.0, 0.0), 1000)[0]
    >>> plain = lambda a: lg.iterate(lambda z: (z[0] - a * z[1], z[1] + a * (z[0] - a * z[1])),
    ...                              (1.0, 0.0), 1000)[0]
    >>> abs(float(lg.grad(turned)(0.01) - lg.grad(plain)(0.01))) < 1e-9
    True
    """
    for function in (step, inverse):
        if not callable(function):
            raise InvalidFunction(f"reversible takes functions; got {function!r}.")
    return InvertibleStep(step, inverse)


def require_called(kind: str, function: Function, name: str, count: int) -> None:
    """InvalidFunction where what is given cannot be called with so many arguments."""
    if not callable(function):
        raise InvalidFunction(f"{kind} takes a function; got {function!r}.")
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        raise InvalidFunction(
            f"{kind} calls {name!r} with {count} argument{'s' * (count > 1)}, and it does not take "
            f"them: {error}."
        ) from None
    except ValueError:
        return  # of a builtin nothing is known
