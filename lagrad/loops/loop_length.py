"""How many steps a loop takes until its condition fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import NotConverged
from lagrad.expressions.expression import innermost
from lagrad.expressions.linear_maps import Scale
from lagrad.expressions.primitive import Primitive
from lagrad.loops.chain import Chain, Evaluation
from lagrad.loops.checkpoints import Record, Shelf, Storage, recorded
from lagrad.loops.run import shown
from lagrad.loops.schedules import Online
from lagrad.programs.program import Program
from lagrad.typing import Array


def unsettled(condition: str, steps: int) -> str:
    return (
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
    states, constants : tuple of str
        What the condition is given: a state, and what it closes over.
    truth : str
        The variable that tells, by one or zero.
    name : str
        The condition's, for messages.
    """

    chain: Chain
    condition: Program
    states: tuple[str, ...]
    constants: tuple[str, ...]
    truth: str
    name: str

    def run(self, *arguments: Array) -> Record | None:
        """The states there were, and their number; None where the condition does not fail.

        Parameters
        ----------
        *arguments
            Initial states, what the step closes over, and what the condition does.
        """
        chain = self.chain
        m, q = len(self.states), len(chain.constants) - chain.execution.counted
        state = [np.asarray(a) for a in arguments[:m]]
        constants, others = list(arguments[m : m + q]), arguments[m + q :]
        constants += [np.zeros(())] * chain.execution.counted
        shelf = Shelf(chain.execution.storage or Storage(1, 1), state)
        online, last = Online(shelf.count), state
        holds = Evaluation(self.condition, (*self.states, *self.constants), (self.truth,), {})
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
        if self.chain.execution.counted and record is not None:
            recorded(found, record)
        return found


# No function that could be differentiated.
COUNT = Primitive(
    "chain_count",
    lambda parameters: parameters[0].count,
    lambda arguments, parameters: ((), np.dtype(float)),
    lambda node, k: None,
    lambda texts, parameters: f"chain_count({', '.join(texts)})",
    source=lambda module, node, texts: "0.0",  # the loop that was traced has that length already
)


def ended(parameters: Any) -> Callable[..., Array]:
    def kernel(value: Array, on: Array) -> Array:
        if on:
            raise NotConverged(unsettled(*parameters[0]))
        return value

    return kernel


# A state, once its loop's condition has failed.
SETTLED = Primitive(
    "settled",
    ended,
    lambda arguments, parameters: (arguments[0].shape, arguments[0].dtype),
    lambda node, k: None if k else Scale(1.0, node.shape, node.shape),
    lambda texts, parameters: f"settled({texts[0]})",
    source=lambda module, node, texts: f"_settled({texts[0]}, {texts[1]})",
)


def settled(value: Any, on: Any, what: tuple[str, int]) -> Any:
    """A value, where a condition has failed; NotConverged where it still holds."""
    graph = innermost((value, on))
    if graph is None:
        return ended((what,))(value, on)
    return SETTLED(graph, value, on, parameters=(what,))
