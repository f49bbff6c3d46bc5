"""How a loop runs backwards: over the states before each step, stored, found again or undone."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lagrad.errors import InvalidFunction
from lagrad.loops.accumulate import RunningChain
from lagrad.loops.adjoint_chains import AdjointChain
from lagrad.loops.chain import Chain
from lagrad.loops.checkpoint_schedules import Advance, reversal
from lagrad.loops.exact_momentum import ExactMomentum
from lagrad.loops.rounded_steps import Watch, doubt_digits, pulled_rounded, rounded_otherwise
from lagrad.loops.run_forwards import ran, recorded_run, shown
from lagrad.loops.state_storage import RECORDS, State
from lagrad.loops.step_rounding import doubtful, moved
from lagrad.solving.last_bits import DOUBTS
from lagrad.systems.linearization import joined
from lagrad.typing import Array, Indices


def reverse(chain: Chain, ks: Indices, value: Array, cotangent: Array, *arguments: Array) -> Array:
    """What flows back to arguments `ks` of a loop, in a row."""
    value, cotangent, *arguments = moved((value, cotangent, *arguments))  # type: ignore[assignment]
    pulled = partial(pulled_rounded, chain, ks, cotangent, arguments)
    with_steps = rounded_otherwise(chain, arguments, ran, pulled)
    if with_steps is not None:
        return with_steps
    after: Sequence[Array] = chain.parts(value)[: len(chain.states)]
    how = chain.execution
    # States that are undone are those before them but for rounding.
    unseen = how.exact or how.inverse or chain.evaluation.plan is None or DOUBTS.get() is None
    watch = None if unseen else Watch(chain)
    back, cotangents, m = AdjointChain(chain, ks), chain.parts(cotangent), len(chain.states)
    order, (_, inputs, constants) = chain.order(), chain.split(arguments)
    now = RunningChain(back.chain, back.first(cotangents, chain.parts(value)[:m]))
    stacks = [back.chain.zeros(name, chain.length) for name in back.chain.outputs]
    with np.errstate(all="ignore"):
        for i, state in shown(chain, states_before(chain, value, arguments)):
            t = order[i]
            rows = [x[t] for x in (*inputs, *cotangents[m:])]
            if watch is not None:
                watch.back(state, after, [*rows[: len(inputs)], *constants])
                after = state
            if i == chain.length - 1:
                seeds = back.first(cotangents, chain.parts(value)[:m])
                doubtful(back.chain, [*seeds, *state, *rows, *constants])
            for stack, row in zip(stacks, now.step([*state, *rows, *constants]), strict=True):
                stack[t] = row
        found = back.gathered([*now.end(), *stacks])
    doubt_digits(chain, watch)
    return joined(found).astype(chain.dtype, copy=False)


def states_before(
    chain: Chain, value: Array, arguments: Sequence[Array]
) -> Iterator[tuple[int, State]]:
    """The number of each step and the states before it, the last one first."""
    if chain.execution.exact:
        return (RECORDS.pop(id(value), None) or ExactMomentum(chain, arguments)).back()
    found = unwound if chain.execution.inverse else restored
    return found(chain, value, arguments)


def restored(chain: Chain, value: Array, arguments: Sequence[Array]) -> Iterator[tuple[int, State]]:
    """The same from the states stored."""
    if not chain.length:
        return
    order, given = chain.order(), chain.given_at(arguments)
    record = RECORDS.pop(id(value), None) or recorded_run(chain, arguments)[1]
    shelf, at = record.shelf, (chain.length - 1, record.last)
    for action in reversal(chain.length, shelf.count, shelf.steps):
        if isinstance(action, Advance):
            if at[0] != action.last:
                state = shelf.get(action.first)
                for t in order[action.first : action.last]:
                    state = chain.evaluation([*state, *given(t)])[: len(chain.states)]
                at = (action.last, state)
            if action.stored:
                shelf.put(action.last, at[1])
            continue
        state = at[1] if at[0] == action.step else shelf.get(action.step)
        if action.last:
            shelf.drop(action.step)
        at = (-1, [])
        yield action.step, state


# How far from a state the inverse and the step may lead, relative to the largest that each array of
# it was: six digits, or what single precision has of them.
OFF = 1e-6


# At so many steps the inverse is undone.
TESTED = 16


def unwound(chain: Chain, value: Array, arguments: Sequence[Array]) -> Iterator[tuple[int, State]]:
    """The same by the step's inverse, from the last state.

    Whether it is the inverse is seen at some steps, which lead forwards again, and at the end.
    """
    n, m = chain.length, len(chain.states)
    order, given_at = chain.order(), chain.given_at(arguments)
    first, state = arguments[:m], chain.parts(value)[:m]
    sizes = [max(size(a), size(b)) for a, b in zip(first, state, strict=True)]
    tested = {round(k) for k in np.linspace(0, n - 1, min(n, TESTED))}
    for i in range(n - 1, -1, -1):
        given = given_at(order[i])
        after, state = state, chain.inverse([*state, *given])
        sizes = [max(s, size(array)) for s, array in zip(sizes, state, strict=True)]
        if i in tested:
            again = chain.evaluation([*state, *given])[:m]
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
