"""Loops run: forwards, on single numbers by one compiled loop, and back from stored states."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from lagrad.compiler.scalar_opcodes import loops
from lagrad.compiler.scalarize import Scalarised
from lagrad.errors import InvalidFunction
from lagrad.loops.accumulate import Run
from lagrad.loops.chain import Chain
from lagrad.loops.checkpoints import RECORDS, Record, Shelf, recorded
from lagrad.loops.exact_momentum import Exact
from lagrad.loops.schedules import Advance, reversal
from lagrad.typing import Array, Shape

State = list[Array]
T = TypeVar("T")


def run(chain: Chain, *arguments: Array) -> Array:
    """The chain's value for initial states, stacked inputs and constants."""
    if chain.exact:
        run = Exact(chain, arguments)
        run.run()
        value = np.concatenate([np.ravel(a) for a in run.state()])
        if chain.recording:
            recorded(value, run)
        return value
    if chain.counted:
        record = RECORDS.pop(id(arguments[-1]), None)
        # Elsewhere than where it was traced the loop may have another length than it has here.
        if record is not None and record.length == chain.length:
            value = np.concatenate([np.ravel(a) for a in record.end])
            recorded(value, record)
            return value
    if chain.recording and chain.length:
        value, record = recorded_run(chain, arguments)
        recorded(value, record)
        return value
    fast = compiled_step(chain)
    if fast is not None:
        return repeated(chain, arguments, *fast)
    return swept(chain, arguments, None)[0]


def compiled_step(chain: Chain) -> tuple[Scalarised, Any] | None:
    """The step on single numbers, and the loop that repeats it, where that pays."""
    plan = chain.evaluation.plan
    if plan is None or chain.length == 0 or chain.progress:
        return None
    chain.evaluation.work += chain.length * 10 * max(1, len(plan.steps))
    loop = loops(chain.evaluation.work)
    scalars = None if loop is None else chain.evaluation.scalars
    return None if scalars is None or loop is None else (scalars, loop[4])


def repeated(chain: Chain, arguments: Sequence[Array], step: Scalarised, repeat: Any) -> Array:
    """The chain's value by one compiled loop over single numbers."""
    state, inputs, constants = chain.split(arguments)
    n = chain.length
    memory = step.memory.copy()
    sizes = [
        sum(math.prod(chain.shape(name)) for name in part)
        for part in (chain.states, chain.inputs, chain.constants, chain.after)
    ]
    at = np.split(step.given, np.cumsum(sizes[:2]))
    memory[at[0]] = np.concatenate([np.ravel(a) for a in state])
    if constants:
        memory[at[2]] = np.concatenate([np.ravel(a) for a in constants])
    rows = np.empty((n, at[1].size))
    begin = 0
    for array, name in zip(inputs, chain.inputs, strict=True):
        end = begin + math.prod(chain.shape(name))
        rows[:, begin:end] = np.reshape(array, (n, -1))
        begin = end
    after, asked = np.split(step.asked, [sizes[3]])
    outputs = np.empty((n, asked.size))
    places = (at[0], after, at[1], asked)
    codes = (step.codes, step.firsts, step.seconds)
    repeat(*codes, memory, step.start, places, rows, outputs, chain.backwards)
    value = np.empty(chain.size)
    value[: sizes[3]] = memory[at[0]]
    begin, low = 0, sizes[3]
    for name in chain.outputs:
        end = begin + math.prod(chain.shape(name))
        value[low : low + n * (end - begin)] = outputs[:, begin:end].ravel()
        low, begin = low + n * (end - begin), end
    return value


def shown(chain: Chain, steps: Iterable[T]) -> Iterable[T]:
    """Steps with a bar, where one is wanted, that is gone afterwards."""
    if not chain.progress:
        return steps
    tqdm = importlib.import_module("tqdm.auto").tqdm
    bar: Iterable[T] = tqdm(steps, desc=chain.step.name, total=chain.length, leave=False)
    return bar


def recorded_run(chain: Chain, arguments: Sequence[Array]) -> tuple[Array, Record]:
    """The value, and the states that the way back begins with."""
    assert chain.storage is not None
    shelf = Shelf(chain.storage, [np.asarray(a) for a in arguments[: len(chain.states)]])
    value, last = swept(chain, arguments, shelf)
    return value, Record(shelf, last)


def swept(
    chain: Chain, arguments: Sequence[Array], shelf: Shelf | None
) -> tuple[Array, list[Array]]:
    """The value, and the state before the last step; states put on a shelf on the way."""
    state, inputs, constants = chain.split(arguments)
    m = len(chain.states)
    value = np.empty(chain.size, chain.dtype)
    stacks = []
    for k in range(m, len(chain.shapes)):
        shape = chain.shapes[k]
        begin = chain.ends[k] - math.prod(shape)
        stacks.append(value[begin : chain.ends[k]].reshape(shape))
    store = set() if shelf is None else firsts(chain.length, shelf.count)
    before: Sequence[Array] = state
    now = Run(chain, state, whole=shelf is not None)
    with np.errstate(all="ignore"):
        for i, t in enumerate(shown(chain, chain.order())):
            if i in store and shelf is not None:
                shelf.put(i, list(now.state))
            before = now.state
            found = now.step([*[x[t] for x in inputs], *constants] if inputs else constants)
            for stack, row in zip(stacks, found, strict=True):
                stack[t] = row
        state = now.end()
    for k in range(m):
        size = math.prod(chain.shapes[k])
        value[chain.ends[k] - size : chain.ends[k]] = np.ravel(state[k])
    return value, list(before)


def breaks_at(chain: Chain, arguments: Sequence[Array]) -> int | None:
    """The first step that makes a NaN or an infinity, if one does."""
    state, inputs, constants = chain.split(arguments)
    with np.errstate(all="ignore"):
        for t in chain.order():
            found = chain.evaluation([*state, *[x[t] for x in inputs], *constants])
            if not all(np.isfinite(array).all() for array in found):
                return t
            state = found[: len(chain.states)]
    return None


def broken(name: str, step: int, length: int) -> str:
    return f"the step {name!r} makes a NaN or an infinity at step {step} of {length}."


def reverse(
    chain: Chain, ks: Shape, value: Array, cotangent: Array, arguments: Sequence[Array]
) -> list[Array]:
    """What flows back to arguments `ks` of a loop."""
    back, flowing, parts, stacks = ready(chain, ks, value, cotangent)
    order, m = chain.order(), len(chain.states)
    _, inputs, constants = chain.split(arguments)
    now = Run(back, flowing)
    before = reversed_exactly if chain.exact else unwound if chain.before else restored
    with np.errstate(all="ignore"):
        for i, state in shown(chain, before(chain, value, arguments)):
            t = order[i]
            rows = [*[x[t] for x in inputs], *[part[t] for part in parts[m:]]]
            for stack, row in zip(stacks, now.step([*state, *rows, *constants]), strict=True):
                stack[t] = row
        return list(chain.gathered(ks, now.end(), stacks))


def ready(
    chain: Chain, ks: Shape, value: Array, cotangent: Array
) -> tuple[Chain, State, State, State]:
    """The adjoint chain, what flows into it, the parts of the cotangent, and room for outputs."""
    back = chain.adjoint(ks)
    parts = [chain.part(cotangent, k) for k in range(len(chain.shapes))]
    last = [chain.part(value, k) for k in range(len(chain.states))]
    flowing = chain.flowing(ks, parts, last)
    stacks = [
        np.zeros((chain.length, *back.shape(name)), back.variable(name).dtype)
        for name in back.outputs
    ]
    return back, flowing, parts, stacks


def restored(chain: Chain, value: Array, arguments: Sequence[Array]) -> Iterator[tuple[int, State]]:
    """The states before each step, the last one first, from those stored."""
    if not chain.length:
        return
    assert chain.storage is not None
    order, m = chain.order(), len(chain.states)
    _, inputs, constants = chain.split(arguments)
    record = RECORDS.pop(id(value), None) or recorded_run(chain, arguments)[1]
    shelf, at = record.shelf, (chain.length - 1, record.last)
    for action in reversal(chain.length, shelf.count, shelf.steps):
        if isinstance(action, Advance):
            if at[0] != action.last:
                state = shelf.get(action.first)
                for i in range(action.first, action.last):
                    t = order[i]
                    found = chain.evaluation([*state, *[x[t] for x in inputs], *constants])
                    state = found[:m]
                at = (action.last, state)
            if action.stored:
                shelf.put(action.last, at[1])
            continue
        state = at[1] if at[0] == action.step else shelf.get(action.step)
        if action.last:
            shelf.drop(action.step)
        at = (-1, [])
        yield action.step, state


def reversed_exactly(
    chain: Chain, value: Array, arguments: Sequence[Array]
) -> Iterator[tuple[int, State]]:
    """The same of momentum in whole numbers."""
    found = RECORDS.pop(id(value), None)
    if found is None:
        found = Exact(chain, arguments)
        found.run()
    yield from found.back()


# How far from a state the inverse and the step may lead, relative to the largest that each array of
# it was: six digits, or what single precision has of them.
OFF = 1e-6
# At so many steps the inverse is undone.
TESTED = 16


def unwound(chain: Chain, value: Array, arguments: Sequence[Array]) -> Iterator[tuple[int, State]]:
    """The same by the step's inverse, from the last state.

    Whether it is the inverse is seen at some steps, which lead forwards again, and at the end.
    """
    first, inputs, constants = chain.split(arguments)
    n, order, count = chain.length, chain.order(), len(chain.states)
    state = [np.asarray(chain.part(value, k)) for k in range(count)]
    sizes = [max(size(a), size(b)) for a, b in zip(first, state, strict=True)]
    tested = {round(k) for k in np.linspace(0, n - 1, min(n, TESTED))} if n else set()
    for i in range(n - 1, -1, -1):
        given = [*[x[order[i]] for x in inputs], *constants]
        after, state = state, chain.inverse([*state, *given])
        sizes = [max(s, size(array)) for s, array in zip(sizes, state, strict=True)]
        if i in tested:
            again = chain.evaluation([*state, *given])[:count]
            require_back(chain, f"at step {i} of {n}", again, after, sizes)
        yield i, state
    require_back(chain, f"after {n} steps", state, first, sizes)


def require_back(
    chain: Chain, where: str, found: Sequence[Array], wanted: Sequence[Array], sizes: list[float]
) -> None:
    """InvalidFunction where a state is another one than it should be."""
    for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
        off = size(a - b)
        allowed = max(OFF, 1e4 * float(np.finfo(chain.variable(chain.states[k]).dtype).eps))
        if off and not off <= allowed * sizes[k]:
            raise InvalidFunction(
                f"the inverse of {chain.step.name!r} does not lead back: {where} "
                f"{chain.states[k]!r} is off by {off:.3g}, and of size {sizes[k]:.3g}. Store "
                "states instead (checkpoints=…), or correct the inverse."
            )


def size(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def firsts(n: int, count: int) -> set[int]:
    """The steps before which the first sweep stores the state."""
    found = {0}
    for action in reversal(n, count):
        if not (isinstance(action, Advance) and action.stored):
            break
        found.add(action.last)
    return found
