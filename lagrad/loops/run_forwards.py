"""How a loop runs forwards: step by step, or on single numbers as one compiled loop."""

import importlib
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, takewhile
from typing import TypeVar

import numpy as np

from lagrad.compiler.repetition import pays, repetition
from lagrad.loops.accumulate import RunningChain
from lagrad.loops.chain import Chain
from lagrad.loops.checkpoint_schedules import Advance, reversal
from lagrad.loops.exact_momentum import ExactMomentum
from lagrad.loops.rounded_steps import doubt_digits, rounded_otherwise, run_rounded, watched
from lagrad.loops.state_storage import RECORDS, Record, Shelf, State, recorded
from lagrad.loops.step_rounding import cancelled, doubt, magnified, moved
from lagrad.solving.last_bits import DOUBTS
from lagrad.systems.linearization import joined
from lagrad.typing import Array

T = TypeVar("T")


def run(chain: Chain, *given: Array) -> Array:
    """The chain's value for initial states, stacked inputs and constants."""
    arguments = moved(given)
    with_steps = rounded_otherwise(chain, arguments, ran, partial(run_rounded, chain, arguments))
    if with_steps is not None:
        return with_steps
    value = ran(chain, arguments)
    if chain.execution.moving:
        if DOUBTS.get() is not None:
            doubt_digits(chain, watched(chain, arguments, ran))
        end = chain.parts(value)[: len(chain.states)] if chain.execution.last else arguments
        doubt(chain, end, arguments)
        magnified(chain, arguments, value)
    else:
        cancelled(chain, arguments, value)
    return value


def ran(chain: Chain, arguments: Sequence[Array]) -> Array:
    how = chain.execution
    if how.exact:
        momentum = ExactMomentum(chain, arguments)
        value = joined(momentum.state())
        return recorded(value, momentum) if how.recording else value
    record = RECORDS.pop(id(arguments[-1]), None) if how.counted else None
    # Elsewhere than where it was traced the loop may have another length than it has here.
    if record is not None and record.length == chain.length:
        return recorded(joined(record.end), record)
    if how.recording and chain.length:
        return recorded(*recorded_run(chain, arguments))
    fast = repeated(chain, arguments)
    return swept(chain, arguments)[0] if fast is None else fast


def repeated(chain: Chain, arguments: Sequence[Array]) -> Array | None:
    """The chain's value by one compiled loop over single numbers; None where that does not pay."""
    plan = chain.evaluation.plan
    if plan is None or chain.length == 0 or chain.execution.progress:
        return None
    work = chain.evaluation.work = chain.evaluation.work + chain.length * 10 * max(
        1, len(plan.steps)
    )
    step = chain.evaluation.scalars if pays(work) else None
    if step is None:
        return None
    given = (chain.states, chain.inputs)
    states, inputs = (sum(chain.variable(name).size for name in names) for names in given)
    repeat = repetition(step, states, inputs, work)
    if repeat is None:
        return None
    state, stacks, constants = chain.split(arguments)
    m, n = len(state), chain.length
    memory = step.memory.copy()
    at_state, at_inputs, at_constants = np.split(step.given, [states, states + inputs])
    memory[np.concatenate([at_state, at_constants])] = joined([*state, *constants])
    rows = np.empty((n, inputs), step.dtype)
    outputs = np.empty((n, step.asked.size - states), step.dtype)
    for columns, array in zip(columns_of(chain, rows, chain.inputs), stacks, strict=True):
        columns[:] = np.reshape(array, columns.shape)
    if not repeat(memory, rows, outputs, chain.backwards):
        return None
    value = np.empty(chain.size, step.dtype)
    value[:states] = memory[at_state]
    pieces = zip(chain.pieces(value)[m:], columns_of(chain, outputs, chain.outputs), strict=True)
    for piece, columns in pieces:
        piece[...] = columns.reshape(piece.shape)
    return value


def columns_of(chain: Chain, table: Array, names: Sequence[str]) -> list[Array]:
    """Views of the columns that each of some variables has in a table with a row for each step."""
    sizes = [chain.variable(name).size for name in names]
    return [table[:, end - n : end] for n, end in zip(sizes, accumulate(sizes), strict=True)]


def shown(chain: Chain, steps: Iterable[T]) -> Iterable[T]:
    """Steps with a bar, where one is wanted, that is gone afterwards."""
    if not chain.execution.progress:
        return steps
    tqdm = importlib.import_module("tqdm.auto").tqdm
    bar: Iterable[T] = tqdm(steps, desc=chain.step.name, total=chain.length, leave=False)
    return bar


def recorded_run(chain: Chain, arguments: Sequence[Array]) -> tuple[Array, Record]:
    """The value, and the states that the way back begins with."""
    storage = chain.execution.storage
    assert storage is not None
    shelf = Shelf(storage, [np.asarray(a) for a in arguments[: len(chain.states)]])
    value, last = swept(chain, arguments, shelf)
    return value, Record(shelf, last)


def swept(
    chain: Chain, arguments: Sequence[Array], shelf: Shelf | None = None
) -> tuple[Array, State]:
    """The value, and the state before the last step; states put on a shelf on the way."""
    m, given = len(chain.states), chain.given_at(arguments)
    value = np.empty(chain.size, chain.dtype)
    pieces = chain.pieces(value)
    store = set() if shelf is None else firsts(chain.length, shelf.count)
    before = arguments[:m]
    now = RunningChain(chain, before, whole=shelf is not None)
    with np.errstate(all="ignore"):
        for i, t in enumerate(shown(chain, chain.order())):
            if i in store and shelf is not None:
                shelf.put(i, list(now.state))
            before = now.state
            for stack, row in zip(pieces[m:], now.step(given(t)), strict=True):
                stack[t] = row
        for piece, array in zip(pieces[:m], now.end(), strict=True):
            piece[...] = array
    return value, list(before)


def breaks_at(chain: Chain, arguments: Sequence[Array], name: str) -> str | None:
    """Which step is the first to make a NaN or an infinity, if one does; `name` is the function's.

    The program may be called otherwise: functions that do the same share one.
    """
    m, given = len(chain.states), chain.given_at(arguments)
    state = arguments[:m]
    with np.errstate(all="ignore"):
        for t in chain.order():
            found = chain.evaluation([*state, *given(t)])
            if not all(np.isfinite(array).all() for array in found):
                where = f"at step {t} of {chain.length}"
                return f"the step {name!r} makes a NaN or an infinity {where}."
            state = found[:m]
    return None


def firsts(n: int, count: int) -> set[int]:
    """The steps before which the first sweep stores the state."""
    actions = reversal(n, count)
    stored = takewhile(lambda action: isinstance(action, Advance) and action.stored, actions)
    return {0, *(action.last for action in stored)}
