"""How a step on single numbers is repeated: by machine code of its own, or by its codes in turn."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from lagrad.compiler.scalar_opcodes import COMPILED_FROM, compiled
from lagrad.compiler.scalarize import Scalarised
from lagrad.typing import Array

# Runs all steps: in memory the state becomes the last one, and a table of outputs is filled from
# one of inputs. Whether each function was within the range that it is written for.
Repeat: TypeAlias = Callable[[Array, Array, Array, bool], bool]


def pays(work: int) -> bool:
    """Whether loops are machine code, after so much work in all, or are worth being made that."""
    worth = work >= COMPILED_FROM or compiled.cache_info().currsize
    return bool(worth) and compiled() is not None


def repetition(step: Scalarised, states: int, inputs: int, work: int) -> Repeat | None:
    """The loop over a step; None where there is none.

    Parameters
    ----------
    step : Scalarised
    states, inputs : int
        How many numbers these are, in this order, of what a step is given.
    work : int
        Operations on single numbers so far.
    """
    own = straight(step, states, inputs) if work >= COMPILED_FROM else None
    return own or in_turn(step, states, inputs)


def straight(step: Scalarised, states: int, inputs: int) -> Repeat | None:
    """Machine code of its own, made once; None where it would be long."""
    key = states, inputs
    if key not in step.repeated:
        steps: Any = importlib.import_module("lagrad.compiler.native.steps")
        step.repeated[key] = steps.written(step, states, inputs)
    found: Repeat | None = step.repeated[key]
    return found


def in_turn(step: Scalarised, states: int, inputs: int) -> Repeat | None:
    """The machine that reads codes, of doubles."""
    loops = compiled()
    if loops is None or step.dtype != float or not step.few:
        return None
    after, asked = np.split(step.asked, [states])
    at_state, at_inputs, _ = np.split(step.given, [states, states + inputs])
    places, codes = (at_state, after, at_inputs, asked), (step.codes, step.firsts, step.seconds)

    def repeat(memory: Array, rows: Array, outputs: Array, backwards: bool) -> bool:
        loops[3](*codes, memory, step.start, places, rows, outputs, backwards)
        return True

    return repeat
