"""How many steps a loop takes until its condition fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.chain import Chain
from lagrad.errors import NotConverged
from lagrad.evaluation import Evaluation
from lagrad.expression import Primitive
from lagrad.program import Program

__all__ = ["COUNT", "Conditional"]

Array = Any


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

    def count(self, *arguments: Array) -> Array:
        """The number of steps for initial states, the step's constants and the condition's."""
        m, q = len(self.states), len(self.chain.constants)
        state = list(arguments[:m])
        constants, others = arguments[m : m + q], arguments[m + q :]
        holds = Evaluation(self.condition, (*self.states, *self.constants), (self.truth,), {})
        with np.errstate(all="ignore"):
            for n in range(self.chain.length + 1):
                (truth,) = holds([*state, *others])
                if not truth:
                    return np.array(n)
                if n < self.chain.length:
                    state = self.chain.evaluation([*state, *constants])
        raise NotConverged(
            f"while_loop: the condition {self.name!r} still holds after max_steps="
            f"{self.chain.length}. Allow more, or see whether it can fail."
        )


# No function that could be differentiated.
COUNT = Primitive(
    "chain_count",
    lambda parameters: parameters[0].count,
    lambda arguments, parameters: ((), np.dtype(int)),
    lambda node, k: None,
    lambda texts, parameters: f"chain_count({', '.join(texts)})",
)
