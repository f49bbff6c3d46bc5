"""Loops whose length is found by running them."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, NotConverged
from lagrad.expressions.expression import Expression, innermost
from lagrad.expressions.linear_maps import Scale
from lagrad.expressions.primitive import Primitive
from lagrad.loops.chain import Chain, Evaluation, Starts
from lagrad.loops.checkpoint_schedules import Online
from lagrad.loops.reversible import require_called
from lagrad.loops.run_forwards import shown
from lagrad.loops.scan import Loop, iterate
from lagrad.loops.state_storage import Record, Shelf, Storage, recorded
from lagrad.programs.program import Program
from lagrad.transforms.trace import declared, name_of, trace
from lagrad.transforms.tracing_graph import tracing
from lagrad.trees import tree_map
from lagrad.typing import Array, Function


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
    name = name_of(condition)
    require_called("while_loop", condition, name, 1)
    loop = Loop("while_loop", step, state, None, max_steps, alone=True)
    storage = loop.storage(checkpoints, memory, disk)
    chain, constants, _ = loop.stated(False, storage, progress, counted=storage is not None)
    inner = trace(condition, (loop.tree.unflatten(loop.begin),), {}, (0,), repeating=True)
    shapes = [variable.shape for variable in inner.returned]
    if shapes != [()] or inner.guards:
        what = "branches on a value" if inner.guards else f"returned shapes {shapes}"
        raise InvalidFunction(
            f"the condition {name!r} of while_loop {what}; it must return one "
            "truth, by comparisons, np.logical_and, np.any and the like."
        )
    others = inner.enclosed
    given = (*inner.arguments[0].names, *others)
    conditional = Conditional(chain, inner.program, given, inner.outputs)
    values = [*loop.lifted, *constants, *others.values()]
    outer = tracing()
    traced = any(isinstance(v, Expression) for v in values)
    if traced and (any(map(declared, values)) or (outer is not None and outer.repeating)):
        how = {"checkpoints": checkpoints, "memory": memory, "disk": disk}
        return masked(condition, step, state, max_steps, how)
    if outer is None or not traced:
        record = conditional.run(*values)
        if record is None:
            raise unsettled(name, max_steps)
        chain = replace(chain, length=record.length)
        loop.require_finite(chain, [*loop.lifted, *constants], record.end)
        return loop.tree.unflatten([part[()].copy() for part in record.end])
    node = COUNT(outer, *values, parameters=(conditional,))
    if np.isinf(outer.value(node)):
        raise unsettled(name, max_steps)
    chain = replace(chain, length=outer.asked(node, "int()"))
    if chain.execution.counted:
        constants[-1] = node
    return loop.tree.unflatten(chain.parts(loop.value(chain, constants)))


def masked(
    condition: Function, step: Function, state: Any, max_steps: int, how: dict[str, Any]
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
    last = iterate(held, state, max_steps, **how)
    on = condition(last)
    return tree_map(lambda leaf: settled(leaf, on, name_of(condition), max_steps), last)


def unsettled(condition: str, steps: int) -> NotConverged:
    return NotConverged(
        f"while_loop: the condition {condition!r} still holds after max_steps={steps}. Allow more, "
        "or see whether it can fail."
    )


@dataclass(frozen=True)
class Conditional:
    """A loop that goes on while a condition on its state holds.

    Attributes
    ----------
    chain : Chain
        Its step; `length` is the most that it may take.
    condition : Program
    given : tuple of str
        Its variables of a state, and those of what it closes over.
    truth : tuple of str
        The variable that tells, by one or zero.
    """

    chain: Chain
    condition: Program
    given: tuple[str, ...]
    truth: tuple[str, ...]

    def run(self, *arguments: Array) -> Record | None:
        """The states there were, and their number; None where the condition does not fail.

        Parameters
        ----------
        *arguments
            Initial states, what the step closes over, and what the condition does.
        """
        chain, m = self.chain, len(self.chain.states)
        state, end = [np.asarray(a) for a in arguments[:m]], len(chain.given)
        constants, others = arguments[m:end], arguments[end:]
        shelf = Shelf(chain.execution.storage or Storage(1, 1), state)
        online, last = Online(shelf.count), state
        holds = Evaluation(self.condition, self.given, self.truth, Starts())
        with np.errstate(all="ignore"):
            for n in shown(chain, range(chain.length + 1)):
                (truth,) = holds([*state, *others])
                if not truth:
                    return Record(shelf, last, state, n)
                dropped = online.store(n)
                if dropped != n:
                    if dropped is not None:
                        shelf.drop(dropped)
                    shelf.put(n, state)
                last = state
                if n < chain.length:
                    state = chain.evaluation([*state, *constants])
        return None

    def count(self, *arguments: Array) -> Array:
        """The number of steps, infinity where there are more than it may take.

        Where few states are stored, that leaves a record of them.
        """
        record = self.run(*arguments)
        found = np.array(np.inf if record is None else float(record.length))
        counted = self.chain.execution.counted and record is not None
        return recorded(found, record) if counted else found


# No function that could be differentiated.
COUNT = Primitive(
    "chain_count",
    lambda parameters: parameters[0].count,
    lambda arguments, parameters: ((), np.dtype(float)),
    lambda node, k: None,
    lambda texts, parameters: f"chain_count({', '.join(texts)})",
    source=lambda module, node, texts: "0.0",  # the loop that was traced has that length already
)


def ended(value: Array, on: Array, condition: str, steps: int) -> Array:
    if on:
        raise unsettled(condition, steps)
    return value


# A state, once its loop's condition has failed.
SETTLED = Primitive(
    "settled",
    lambda parameters: lambda value, on: ended(value, on, *parameters),
    lambda arguments, parameters: (arguments[0].shape, arguments[0].dtype),
    lambda node, k: None if k else Scale(1.0, node.shape, node.shape),
    lambda texts, parameters: f"settled({texts[0]})",
    source=lambda module, node, texts: f"_settled({texts[0]}, {texts[1]})",
)


def settled(value: Any, on: Any, condition: str, steps: int) -> Any:
    """A value, where a condition has failed; NotConverged where it still holds."""
    graph = innermost((value, on))
    if graph is None:
        return ended(value, on, condition, steps)
    return SETTLED(graph, value, on, parameters=(condition, steps))
