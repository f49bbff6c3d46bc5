"""Whether a loop ends where the derivative of its step is rounding."""

from collections.abc import Sequence

import numpy as np

from lagrad.loops.chain import Chain
from lagrad.programs.program import Program
from lagrad.solving.last_bits import DOUBTS, MOVING, in_last_bits, steady
from lagrad.typing import Array


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
        doubts.append(f"the loop of {how.of!r}")


def singular(step: Program) -> bool:
    """Whether a step divides by anything that could be rounding."""
    traits = [(n, n.primitive.singular) for n in step.arena.nodes if n.primitive is not None]
    return any(somewhere is not None and somewhere(node) for node, somewhere in traits)
