"""Whether a loop ends where the derivative of its step is rounding."""

from collections.abc import Sequence

import numpy as np

from lagrad.expressions.graph import divides
from lagrad.loops.chain import Chain
from lagrad.programs.program import Program
from lagrad.solving.last_bits import DIVIDES, DOUBTS, MOVING, in_last_bits, steady
from lagrad.typing import Array

# How many times what is left a state may have been, or weighed; and what it was at first.
MANY_TIMES, GROWN = 1e8, 10.0
# How many times what a state ends as its inputs may be.
LITTLE = 1e5


def moved(arguments: Sequence[Array]) -> Sequence[Array]:
    """What a loop is given; in its last bits, where that is asked for."""
    rng = MOVING.get()
    return arguments if rng is None else [in_last_bits(np.asarray(a), rng) for a in arguments]


def doubt(chain: Chain, state: Sequence[Array], arguments: Sequence[Array]) -> None:
    """Cast doubt on a chain of derivatives by the step at the end of the loop that they are of.

    It is there that an iteration which has converged goes on with rounding.
    """
    if DOUBTS.get() is not None and chain.length:
        t = chain.order()[-1 if chain.execution.last else 0]
        doubtful(chain, [*state[: len(chain.states)], *chain.given_at(arguments)(t)])


def doubtful(chain: Chain, given: Sequence[Array]) -> None:
    """The same by what that step is given, which is moved in its last bits.

    Derivatives in the state are any: those at hand may be zero where later steps' are not.
    """
    doubts, how = DOUBTS.get(), chain.execution
    if doubts is None or not chain.step.compiled().once(singular, chain.step):
        return
    rng = np.random.default_rng(0)
    here, there = dict[str, Array](), dict[str, Array]()
    for k, (name, value) in enumerate(zip(chain.given, given, strict=True)):
        array = np.asarray(value)
        if k in how.moving:
            here[name] = there[name] = rng.standard_normal(array.shape).astype(array.dtype)
        else:
            here[name], there[name] = array, in_last_bits(array, rng, whole=True)
    found = []
    with np.errstate(all="ignore"):
        for at in (here, there):
            made = [] if how.complete is None else how.complete(at)
            found.append([*made, *chain.evaluation(list(at.values()))])
    if not steady(*found):
        doubts.append(f"the loop of {how.of!r} {DIVIDES}")


def magnified(chain: Chain, arguments: Sequence[Array], value: Array) -> None:
    """Cast doubt on a chain of multipliers where its loop magnifies rounding.

    Where states have grown to many times what they end as, their last bits then are all that is
    left of them. And a value changes by λₜᵀδ where the state before step t does by δ: where
    |λ₀||s₀| is many times |λ||s| at the end, so do the last bits of the start.
    """
    doubts, how = DOUBTS.get(), chain.execution
    if doubts is None or how.complete is None or not chain.length:
        return
    m, order = len(how.moving), chain.order()
    states, inputs, _ = chain.split(arguments)
    seeds, found, stacks = states[:m], chain.parts(value)[:m], inputs[:m]
    ends, starts = ([stack[t] for stack in stacks] for t in (order[0], order[-1]))
    if [np.shape(a) for a in ends] != [np.shape(a) for a in seeds]:
        return  # the multipliers of multipliers are arranged otherwise
    most = (np.abs(stack).max(axis=0, initial=0.0) for stack in stacks)
    fallen = any(
        np.any((np.abs(end) < top / MANY_TIMES) & (np.abs(start) < top / GROWN))
        for end, top, start in zip(ends, most, starts, strict=True)
    )
    last, first = (sum(map(weight, *pair)) for pair in ((seeds, ends), (found, starts)))
    if fallen or first > MANY_TIMES * last > 0:
        doubts.append(f"the loop of {how.of!r} magnifies rounding from step to step")


def cancelled(chain: Chain, arguments: Sequence[Array], value: Array) -> None:
    """Cast doubt on a loop whose state ends as little of the inputs that it may have added up."""
    doubts, m = DOUBTS.get(), len(chain.states)
    if doubts is None or not chain.length:
        return
    _, inputs, _ = chain.split(arguments)
    tops = [np.abs(stack).max(axis=0, initial=0.0) for stack in inputs if stack.dtype.kind == "f"]
    for end in chain.parts(value)[:m]:
        if any(t.shape == end.shape and np.any(np.abs(end) < t / LITTLE) for t in tops):
            doubts.append(f"the loop of {chain.step.name!r} cancels much of what it adds up")
            return


def weight(array: Array, multiplier: Array) -> float:
    """What the last bits of an array are multiplied by in a result, but for their size."""
    return float(np.abs(array * multiplier).max(initial=0.0))


def singular(step: Program) -> bool:
    """Whether a step divides by anything that could be rounding."""
    return divides(step.arena.nodes)
