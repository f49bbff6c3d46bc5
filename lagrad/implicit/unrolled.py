"""The derivative of an iteration itself, in the place of that of what it approaches."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, LeakedValue, UnsupportedType
from lagrad.expressions.expression import Expression, innermost
from lagrad.loops.reversible import InvertibleStep
from lagrad.loops.scan import Loop
from lagrad.loops.state_storage import is_whole
from lagrad.optim import Optimizer, gradient_descent
from lagrad.systems.iterate_limit import APPROACHED, Statement
from lagrad.transforms.directional import hvp
from lagrad.transforms.gradient import grad, stop_gradient
from lagrad.transforms.trace import at_hand, declared, trace
from lagrad.transforms.tracing_graph import tracing
from lagrad.trees import flatten, tree_map
from lagrad.typing import Function


@dataclass(frozen=True, eq=False)
class Unrolled:
    """Steps of an iteration, and their derivative.

    Parameters
    ----------
    steps : int
        How many; the result is that of so many, converged or not.
    optimizer : Optimizer, optional
        Of an argmin, from `lg.optim`. By default gradient descent by the inverse of the largest
        curvature at the start.
    last : int, optional
        How many of the last steps are differentiated; those before are held constant. All by
        default.
    checkpoints, memory, disk
        How few states are stored, as of `lg.scan`.

    References
    ----------
    Domke (2012), Generic methods for optimization-based modeling, AISTATS. Shaban, Cheng, Hatch
    and Boots (2019), Truncated back-propagation for bilevel optimization, arXiv:1810.10667.

    Examples
    --------
    >>> import lagrad as lg
    >>> z = lambda x, how: lg.fixed_point(lambda z: z / 2 + x, 0.0, differentiate=how)
    >>> [float(lg.grad(z)(1.0, lg.Unrolled(50, last=k))) for k in (1, 2, 3)]
    [1.0, 1.5, 1.75]
    """

    steps: int
    optimizer: Optimizer | None = None
    last: int | None = None
    checkpoints: int | None = None
    memory: int | str | None = None
    disk: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("last", self.last)):
            if not is_whole(value, 0) and (name, value) != ("last", None):
                raise InvalidValue(f"Unrolled({name}={value!r}); expected an integer, 0 or more.")
        if self.optimizer is not None and not isinstance(self.optimizer, Optimizer):
            raise InvalidValue(
                f"Unrolled(optimizer={self.optimizer!r}); expected one such as "
                "lg.optim.gradient_descent(rate)."
            )


@dataclass(frozen=True, eq=False)
class Reversible:
    """Steps of momentum, run backwards for their derivative: no state is stored.

    Points and velocities are whole multiples of 2⁻⁵⁰. What a decay destroys of a velocity is
    stored, about −log₂(decay) bits for each entry and step, and all states come back bit for bit.

    Parameters
    ----------
    steps : int
    optimizer : Optimizer
        From `lg.optim.sgd_momentum`.

    Raises
    ------
    NotFinite
        A value grows beyond 4,096, which whole numbers of this kind cannot hold.

    References
    ----------
    Maclaurin, Duvenaud and Adams (2015), Gradient-based hyperparameter optimization through
    reversible learning, arXiv:1502.03492.

    Examples
    --------
    >>> import lagrad as lg
    >>> inner = lg.Reversible(200, lg.optim.sgd_momentum(0.5, 0.8))
    >>> theta = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
    >>> round(float(lg.grad(theta)(3.0)), 6)
    1.0
    """

    steps: int
    optimizer: Optimizer

    def __post_init__(self) -> None:
        if getattr(self.optimizer, "name", None) != "sgd_momentum":
            raise InvalidValue(
                f"Reversible(optimizer={self.optimizer!r}); expected lg.optim.sgd_momentum(…). For "
                "other steps there are lg.Unrolled and lg.reversible."
            )
        if not is_whole(self.steps, 0):
            raise InvalidValue(f"Reversible(steps={self.steps!r}); expected an integer, 0 or more.")


def unrolled(
    kind: str, function: Function, begin: Any, args: Sequence[Any], how: Unrolled | Reversible
) -> Any:
    """The result of an iteration for a fixed point or an argmin."""
    if kind == "fixed_point":
        if isinstance(how, Reversible):
            raise InvalidValue(
                "fixed_point(differentiate=lg.Reversible(…)): momentum is for an argmin."
            )
        if how.optimizer is not None:
            raise InvalidValue("a fixed point is iterated by its own step: leave optimizer out.")
        last, label = run(lambda z, _: (function(z, *args), None), begin, None, how, "steps")

        def residual(z: Any) -> Any:
            return tree_map(lambda new, old: new - old, function(z, *args), z)

        return approaching(last, residual, begin, label)
    if kind == "root":
        raise InvalidValue(
            "root(differentiate=lg.Unrolled(…)): a root has no step to be iterated; state one as "
            "a fixed point."
        )
    slope = function if kind == "gradient" else grad(function)
    optimizer = how.optimizer or gradient_descent(1 / curvature(function, kind, begin, args))

    def gradient(state: Any, _: Any = None) -> Any:
        return slope(state["z"], *args)

    def step(state: Any, settings: Any) -> tuple[Any, None]:
        return as_before(optimizer.step(state, gradient(state), **settings), state), None

    if isinstance(how, Reversible):
        whole = InvertibleStep(step, gradient, exact=True)
        loop = Loop("Reversible", whole, optimizer.init(begin), optimizer.at(how.steps), how.steps)
        state, _ = loop.run(False, None)
        label = f"reversed: {how.steps} steps of {optimizer.name}"
    else:
        what = f"steps of {optimizer.name}"
        state, label = run(step, optimizer.init(begin), optimizer.at(how.steps), how, what)
    return approaching(state["z"], lambda z: slope(z, *args), begin, label)


def run(
    step: Function, state: Any, settings: dict[str, Any] | None, how: Unrolled, what: str
) -> tuple[Any, str]:
    """The steps, those before the last ones held constant, and what to call them."""
    first = 0 if how.last is None else max(0, how.steps - how.last)
    label = f"unrolled: {f'the last {how.last} of ' if first else ''}{how.steps} {what}"
    for low, high in ((0, first), (first, how.steps)):
        if low < high or high == how.steps:
            part = None if settings is None else {k: s[low:high] for k, s in settings.items()}
            loop = Loop("Unrolled", step, state, part, high - low)
            state, _ = loop.run(False, loop.storage(how.checkpoints, how.memory, how.disk))
        if high == first and first:
            state = stop_gradient(state)
    return state, label


def approaching(last: Any, residual: Callable[[Any], Any], begin: Any, label: str) -> Any:
    """What an iteration ends with, and beside it the equation that it approaches a solution of.

    Whoever reads a certificate may ask how far the derivatives of the two are apart.
    """
    leaves, tree = flatten(last)
    outer = tracing() or innermost(leaves)
    if outer is None or not any(isinstance(leaf, Expression) for leaf in leaves):
        return last
    stated = any(map(declared, leaves))
    at = tree.unflatten([np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]) if stated else begin
    inner = trace(residual, (at,), {}, (0,), repeating=stated)
    statement, others = Statement(label), dict[str, Any]()
    if not inner.guards and inner.tree == tree:
        others, values = inner.enclosed, inner.arguments[0].names
        statement = Statement(label, inner.program, values, tuple(others), inner.outputs)
    nodes = [outer.lift(value) for value in (*leaves, *others.values())]
    ends = [APPROACHED(outer, *nodes, parameters=(statement, k)) for k in range(len(leaves))]
    return tree.unflatten(ends)


def as_before(state: Any, before: Any) -> Any:
    """A state in the precision of another one."""
    return tree_map(
        lambda new, old: new if new.dtype == old.dtype else np.astype(new, old.dtype), state, before
    )


def curvature(function: Function, kind: str, start: Any, args: Sequence[Any]) -> Any:
    """The largest curvature at a start, by power iteration, held constant."""
    if kind == "gradient":
        raise InvalidValue("argmin(gradient=…, differentiate=lg.Unrolled(…)) needs an optimizer=….")
    if not any(np.size(leaf) for leaf in flatten(start)[0]):
        return 1.0
    at, rng = stop_gradient(start), np.random.default_rng(0)
    v = tree_map(lambda leaf: rng.standard_normal(np.shape(leaf)), start)
    size: Any = 1.0
    for _ in range(30):
        try:
            w = stop_gradient(hvp(lambda z: function(z, *args), at, v))
        except (LeakedValue, UnsupportedType):
            if tracing() is not None:
                raise
            raise InvalidValue(
                "lg.Unrolled(…) in a declared program needs an optimizer=…."
            ) from None
        pairs = list(zip(flatten(v)[0], flatten(w)[0], strict=True))
        squares = sum(np.sum(a * a) for a, _ in pairs)
        size = sum(np.sum(a * b) for a, b in pairs) / squares
        if not float(at_hand(size, "a curvature")) > 0:
            raise InvalidValue(
                "lg.Unrolled takes the inverse of the curvature at the start for a rate, which is "
                f"{float(at_hand(size, 'a curvature')):.3g} there: give optimizer=…."
            )
        v = tree_map(lambda x, size=size: x / size, w)
    return stop_gradient(size)
