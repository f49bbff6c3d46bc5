"""Optimisers as steps: what `lg.Unrolled` differentiates, and what loops of one's own may use.

A step takes a state and a gradient to the next state; the point is `state["z"]`. Rates and decays
are numbers, arrays of one for each step, or functions of the step's number; they may be traced, so
that they are hyperparameters with derivatives of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue
from lagrad.trees import flatten, tree_map

__all__ = ["Optimizer", "adam", "gradient_descent", "heavy_ball", "lbfgs", "sgd_momentum"]


@dataclass(frozen=True, eq=False)
class Optimizer:
    """An optimiser.

    Attributes
    ----------
    name : str
    init : callable
        `init(z)` is the first state, a dict whose "z" is the point.
    step : callable
        `step(state, gradient, **settings)` is the next state, `settings` being those of the step.
    settings : mapping
        Rates and decays, each for all steps.
    """

    name: str
    init: Callable[[Any], dict[str, Any]]
    step: Callable[..., dict[str, Any]]
    settings: Mapping[str, Any]

    def at(self, steps: int) -> dict[str, Any]:
        """The settings as arrays of one for each of so many steps."""
        found = {}
        for name, value in self.settings.items():
            each = [value(t) for t in range(steps)] if callable(value) else value
            if isinstance(each, (list, tuple)) and len(each) == steps:
                found[name] = np.stack(each) if each else np.zeros(0)
            elif value is None or isinstance(value, str):
                raise InvalidValue(f"{self.name}({name}={value!r}); expected numbers.")
            elif np.ndim(value) == 0:
                found[name] = value * np.ones(steps)
            elif np.shape(value) == (steps,):
                found[name] = value
            else:
                raise InvalidValue(
                    f"{self.name}({name}=…) has shape {np.shape(value)} for {steps} steps; give a "
                    "number, one for each step, or a function of the step's number."
                )
        return found


def gradient_descent(rate: Any) -> Optimizer:
    """z ← z − rate · g.

    Parameters
    ----------
    rate : float, array of one for each step, or callable

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Unrolled(100, lg.optim.gradient_descent(0.2))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(lg.grad(theta)(3.0)), 9)
    1.0
    """

    def step(state: Any, gradient: Any, rate: Any) -> dict[str, Any]:
        return {"z": tree_map(lambda z, g: z - rate * g, state["z"], gradient)}

    return Optimizer("gradient_descent", lambda z: {"z": z}, step, {"rate": rate})


def sgd_momentum(rate: Any, decay: Any = 0.9) -> Optimizer:
    """v ← decay · v − (1 − decay) · g, z ← z + rate · v.

    Parameters
    ----------
    rate, decay : float, array of one for each step, or callable

    References
    ----------
    Maclaurin, Duvenaud and Adams (2015), Gradient-based hyperparameter optimization through
    reversible learning, arXiv:1502.03492.

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Unrolled(200, lg.optim.sgd_momentum(0.5, 0.8))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(theta(3.0)), 6)
    3.0
    """

    def init(z: Any) -> dict[str, Any]:
        return {"z": z, "v": tree_map(lambda leaf: 0.0 * np.asarray(leaf), z)}

    def step(state: Any, gradient: Any, rate: Any, decay: Any) -> dict[str, Any]:
        v = tree_map(lambda v, g: decay * v - (1 - decay) * g, state["v"], gradient)
        return {"z": tree_map(lambda z, w: z + rate * w, state["z"], v), "v": v}

    return Optimizer("sgd_momentum", init, step, {"rate": rate, "decay": decay})


def heavy_ball(rate: Any, decay: Any = 0.9) -> Optimizer:
    """z ← z − rate · g + decay · (z − z before).

    Parameters
    ----------
    rate, decay : float, array of one for each step, or callable

    References
    ----------
    Polyak (1964), Some methods of speeding up the convergence of iteration methods.

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Unrolled(200, lg.optim.heavy_ball(0.1, 0.5))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(theta(3.0)), 6)
    3.0
    """

    def step(state: Any, gradient: Any, rate: Any, decay: Any) -> dict[str, Any]:
        moved = tree_map(
            lambda z, before, g: z - rate * g + decay * (z - before),
            *(state["z"], state["before"], gradient),
        )
        return {"z": moved, "before": state["z"]}

    settings = {"rate": rate, "decay": decay}
    return Optimizer("heavy_ball", lambda z: {"z": z, "before": z}, step, settings)


def adam(rate: Any, b1: Any = 0.9, b2: Any = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam: steps of means of the gradient over roots of means of its squares.

    Parameters
    ----------
    rate, b1, b2 : float, array of one for each step, or callable
    eps : float
        Added to the root's argument, squared, so that it has a derivative at zero.

    References
    ----------
    Kingma and Ba (2015), Adam: a method for stochastic optimization, arXiv:1412.6980.

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Unrolled(400, lg.optim.adam(0.1))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(theta(3.0)), 3)
    3.0
    """

    def init(z: Any) -> dict[str, Any]:
        zero = tree_map(lambda leaf: 0.0 * np.asarray(leaf), z)
        # The products of the decays so far, of which the bias of the means is made.
        return {"z": z, "m": zero, "s": zero, "p1": 1.0, "p2": 1.0}

    def step(state: Any, gradient: Any, rate: Any, b1: Any, b2: Any) -> dict[str, Any]:
        m = tree_map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], gradient)
        s = tree_map(lambda s, g: b2 * s + (1 - b2) * g * g, state["s"], gradient)
        p1, p2 = state["p1"] * b1, state["p2"] * b2
        moved = tree_map(
            lambda z, m, s: z - rate * (m / (1 - p1)) / np.sqrt(s / (1 - p2) + eps**2),
            *(state["z"], m, s),
        )
        return {"z": moved, "m": m, "s": s, "p1": p1, "p2": p2}

    return Optimizer("adam", init, step, {"rate": rate, "b1": b1, "b2": b2})


def lbfgs(rate: Any = 1.0, memory: int = 5) -> Optimizer:
    """L-BFGS with steps of fixed length, to be differentiated through.

    Parameters
    ----------
    rate : float, array of one for each step, or callable
        Times the quasi-Newton step.
    memory : int
        How many pairs of steps and changes of the gradient are kept.

    References
    ----------
    Domke (2012), Generic methods for optimization-based modeling, AISTATS.

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Unrolled(20, lg.optim.lbfgs(0.8))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(theta(3.0)), 6)
    3.0
    """

    def init(z: Any) -> dict[str, Any]:
        size = vector(z).size
        pairs, none = np.zeros((memory, size)), np.zeros(size)
        # How many points there have been, up to two: one, and one that a step led to.
        return {"z": z, "point": none, "g": none, "s": pairs, "y": pairs, "seen": 0.0}

    def step(state: Any, gradient: Any, rate: Any) -> dict[str, Any]:
        z, g = vector(state["z"]), vector(gradient)
        s, y, seen = z - state["point"], g - state["g"], state["seen"]
        # The change of the gradient along a step that is rounding is rounding as well: it is not
        # to take the place of one that was not. At the first step there is none before it.
        stands = np.any(np.abs(s) > np.finfo(z.dtype).eps ** (2 / 3) * np.abs(z))
        taken = np.logical_and(seen > 0, np.logical_or(stands, seen < 2))
        S = np.where(taken, np.concatenate([state["s"][1:], s[None]]), state["s"])
        Y = np.where(taken, np.concatenate([state["y"][1:], y[None]]), state["y"])
        moved = z - rate * quasi_newton(S, Y, g)
        seen = np.where(np.logical_and(seen > 0, stands), 2.0, np.where(seen > 0, seen, 1.0))
        return {"z": like(moved, state["z"]), "point": z, "g": g, "s": S, "y": Y, "seen": seen}

    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise InvalidValue(f"lbfgs(memory={memory!r}); expected a positive integer.")
    return Optimizer("lbfgs", init, step, {"rate": rate})


def quasi_newton(S: Any, Y: Any, g: Any) -> Any:
    """The two loops of Nocedal (1980), pairs without curvature left out."""
    curvatures = [np.sum(s * y) for s, y in zip(S, Y, strict=True)]
    weights = [np.where(c > 0, 1 / np.where(c > 0, c, 1.0), 0.0) for c in curvatures]
    alphas = []
    for s, y, weight in reversed(list(zip(S, Y, weights, strict=True))):
        alphas.append(weight * np.sum(s * g))
        g = g - alphas[-1] * y
    squares = np.sum(Y[-1] * Y[-1])
    curved = curvatures[-1] > 0
    g = g * np.where(curved, curvatures[-1] / np.where(curved, squares, 1.0), 1.0)
    for s, y, weight, alpha in zip(S, Y, weights, reversed(alphas), strict=True):
        g = g + s * (alpha - weight * np.sum(y * g))
    return g


def vector(value: Any) -> Any:
    """The leaves of a nested value in a row."""
    return np.concatenate([np.reshape(leaf, (-1,)) for leaf in flatten(value)[0]])


def like(row: Any, value: Any) -> Any:
    """A row as leaves of a nested value's structure."""
    leaves, tree = flatten(value)
    pieces = np.split(row, np.cumsum([np.size(leaf) for leaf in leaves])[:-1])
    return tree.unflatten([np.reshape(p, np.shape(z)) for p, z in zip(pieces, leaves, strict=True)])
