"""Loops whose length is found by running them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, NotConverged
from lagrad.expressions.expression import Expression
from lagrad.loops.loop_length import COUNT, Conditional, settled, unsettled
from lagrad.loops.reversible import require_called, without_inputs
from lagrad.loops.scan import Loop, iterate
from lagrad.transforms.trace import declared, name_of, trace
from lagrad.transforms.tracing_graph import tracing
from lagrad.trees import tree_map
from lagrad.typing import Function


def while_loop(
    condition: Function,
    step: Function,
    state: Any,
    max_steps: int,
    *,
    checkpoints: int | None = None,
    memory: int | str | None = None,
    disk: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Any:
    """Apply a step to a state while a condition on it holds; return the last one.

    The derivative is that of the steps taken: how many there are is found by running, and taken
    as it is. Under `lg.compile` it is found anew at each call. Within a step of another loop, where
    it may differ from step to step, and in a declared program all `max_steps` are run: those that
    are over start from the first state, where a step must have a derivative, and are dropped.

    Parameters
    ----------
    condition : callable
        `condition(state)` is one truth.
    step : callable
        `step(state)` is the next state, of the same structure, shapes and dtypes.
    state : nested arrays
    max_steps : int
        The most steps that may be needed.
    checkpoints, memory, disk, progress
        As of `scan`.

    Returns
    -------
    nested arrays

    Raises
    ------
    NotConverged
        The condition still holds after `max_steps`.
    ShapeMismatch, StructureMismatch, InvalidValue, InvalidFunction, NotFinite
        As of `scan`.

    Examples
    --------
    >>> import lagrad as lg
    >>> def root(a):
    ...     return lg.while_loop(lambda z: abs(z * z - a) > 1e-9, lambda z: (z + a / z) / 2, a, 50)
    >>> round(float(root(2.0)), 9), round(float(lg.grad(root)(2.0)), 9)
    (1.414213562, 0.353553391)
    """
    for function in (condition, step):
        if not callable(function):
            raise InvalidFunction(f"while_loop takes functions; got {function!r}.")
        require_called("while_loop", function, name_of(function), 1)
    loop = Loop("while_loop", without_inputs(step), state, None, max_steps)
    storage = loop.storage(checkpoints, memory, disk)
    chain, own, _ = loop.stated(False, storage, progress=progress, counted=storage is not None)
    inner = trace(condition, (loop.tree.unflatten(loop.begin),), {}, (0,), repeating=True)
    shapes = [inner.program.variables[name].shape for name in inner.outputs]
    if shapes != [()] or inner.guards:
        what = "branches on a value" if inner.guards else f"returned shapes {shapes}"
        raise InvalidFunction(
            f"the condition {name_of(condition)!r} of while_loop {what}; it must return one "
            "truth, by comparisons, np.logical_and, np.any and the like."
        )
    names = tuple(v.name for v in inner.program.with_role("data"))
    others = [inner.captured.get(name, inner.values.get(name)) for name in names]
    (truth,) = inner.outputs
    conditional = Conditional(
        chain, inner.program, inner.arguments[0].names, names, truth, name_of(condition)
    )
    values = [*loop.lifted, *own, *others]
    outer = tracing()
    traced = any(isinstance(v, Expression) for v in values)
    if traced and (any(map(declared, values)) or (outer is not None and outer.repeating)):
        return masked(condition, step, state, max_steps, (checkpoints, memory, disk))
    if outer is None or not traced:
        record = conditional.run(*values)
        if record is None:
            raise NotConverged(unsettled(conditional.name, max_steps))
        loop.length = record.length
        chain = replace(chain, length=loop.length)
        loop.require_finite(
            chain, [*loop.lifted, *own, *[0.0] * chain.execution.counted], record.end
        )
        return loop.tree.unflatten([part[()].copy() for part in record.end])
    node = COUNT(outer, *map(outer.lift, values), parameters=(conditional,))
    if np.isinf(outer.value(node)):
        raise NotConverged(unsettled(conditional.name, max_steps))
    loop.length = outer.asked(node, "int()")
    chain = replace(chain, length=loop.length)
    value = loop.value(chain, [*own, *[node] * chain.execution.counted])
    return loop.tree.unflatten(chain.parts(value))


def masked(
    condition: Function, step: Function, state: Any, max_steps: int, storage: tuple[Any, Any, Any]
) -> Any:
    """The same where the length cannot be found beforehand.

    All of the steps are run. Those after the condition failed change nothing: what they are given
    is the first state, from which a step can be taken, and what they make of it is dropped.
    """

    def held(z: Any) -> Any:
        on = condition(z)
        safe = tree_map(lambda now, first: np.where(on, now, first), z, state)
        return tree_map(lambda new, now: np.where(on, new, now), step(safe), z)

    held.__name__ = name_of(step)
    checkpoints, memory, disk = storage
    last = iterate(held, state, max_steps, checkpoints=checkpoints, memory=memory, disk=disk)
    on = condition(last)
    what = (name_of(condition), max_steps)
    return tree_map(lambda leaf: settled(leaf, on, what), last)
