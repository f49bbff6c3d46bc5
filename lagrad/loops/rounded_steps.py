"""Loops whose steps are rounded otherwise: what rounding within a step does to the end.

To a program around it a loop is one operation, and one rounding of what it returns. Within, a step
may have cancelled all but a few digits of a state, and later steps then hide it: P − P²/(P + r) for
a P far above r is r, with the last bits of P. Whether a step does so is seen at a few of them;
where one does, all operations are rounded otherwise, step by step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from lagrad.errors import LagradError
from lagrad.loops.adjoint_chains import AdjointChain, tangent_chain
from lagrad.loops.chain import Chain, Execution
from lagrad.loops.step_rounding import singular
from lagrad.programs.program import Program
from lagrad.solving.last_bits import DOUBTS
from lagrad.solving.rounding_samples import STEPS, Roundings, stepping
from lagrad.solving.wider_precision import WideNodes
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import joined
from lagrad.typing import Array, Indices

# What another rounding of a step changes of its result, relative, that is no rounding any more.
NOISY = 1e-10
# How many times what a state ends as it may have grown to.
GROWN = 1e8
# By how much of itself a state is moved to see whether steps magnify that, and how many times.
BESIDE, MAGNIFIED = 1e-8, 1e6
# Numbers of states that are kept to be looked at.
KEPT = 1_000_000
# So many operations are rounded one by one; further steps are as they are.
OPERATIONS = 400_000


def operations(step: Program, given: Sequence[str], asked: Sequence[str]) -> WideNodes:
    inputs, outputs = ([step.variables[n] for n in names] for names in (given, asked))
    usual = np.result_type(*[v.dtype for v in inputs], np.float32)
    return WideNodes(inputs, outputs, definitions(step), usual)


def nodes_of(chain: Chain) -> WideNodes:
    """The operations of a step, to be evaluated one by one."""
    return chain.step.compiled().once(operations, chain.step, chain.given, chain.results)


def run_rounded(chain: Chain, arguments: Sequence[Array], rounded: Roundings) -> Array:
    """The chain's value with the operations of its steps rounded otherwise."""
    m, given, nodes = len(chain.states), chain.given_at(arguments), nodes_of(chain)
    few = OPERATIONS // max(1, len(nodes.order))
    value = np.empty(chain.size, chain.dtype)
    pieces, state = chain.pieces(value), list(arguments[:m])
    with np.errstate(all="ignore"):
        for i, t in enumerate(chain.order()):
            values = [*state, *given(t)]
            found = nodes.otherwise(values, rounded) if i < few else chain.evaluation(values)
            state = found[:m]
            for stack, row in zip(pieces[m:], found[m:], strict=True):
                stack[t] = row
    for piece, array in zip(pieces[:m], state, strict=True):
        piece[...] = array
    return value


class Watch:
    """Steps of a loop, and whether rounding is magnified within one, or from one to the next.

    Of those that are seen the first and the last are looked at, and the one across which a state
    falls most.

    Parameters
    ----------
    chain : Chain
        The loop itself.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.fallen, self.grown = chain, 1.0, False
        # What is given to steps, and the states after them.
        self.looked: dict[str, tuple[Sequence[Array], Sequence[Array]]] = {}
        self.sizes, self.ends, self.tops = list[float](), list[float](), list[float]()

    def stacks(self, stacks: Sequence[Array], given: Callable[[int], Sequence[Array]]) -> None:
        """See all steps, by the states before them."""
        order, n = self.chain.order(), self.chain.length

        def look(name: str, i: int) -> None:
            before, after = ([stack[order[k]] for stack in stacks] for k in (i, min(i + 1, n - 1)))
            values = [*before, *given(order[i])]
            self.looked[name] = values, after if i < n - 1 else self.chain.evaluation(values)

        look("first", 0)
        look("last", max(0, n - 2))
        for stack in stacks if n > 1 else ():
            if stack.dtype.kind != "f" or not stack.size:
                continue
            entries = np.abs(stack[:: order.step])
            top, size = entries.max(axis=0), entries.reshape(n, -1).max(axis=1)
            self.grown |= bool((np.maximum(entries[0], entries[-1]) * GROWN < top).any())
            falls = size[1:] / size[:-1]
            fall = int(np.argmin(np.where(np.isfinite(falls), falls, np.inf)))
            if falls[fall] < self.fallen:
                self.fallen = float(falls[fall])
                look("fallen", fall)

    def back(self, before: Sequence[Array], after: Sequence[Array], given: Sequence[Array]) -> None:
        """See a step, the last first, by the states before and after it and what else is given."""
        seen = [*before, *given], after
        sizes = [float(np.abs(a).max(initial=0.0)) for a in before]
        pairs = zip(self.sizes, sizes, strict=False)
        fallen = min((later / size for later, size in pairs if size), default=1.0)
        if fallen < self.fallen:
            self.fallen, self.looked["fallen"] = fallen, seen
        self.ends = self.ends or sizes
        self.tops = [max(pair) for pair in zip(sizes, self.tops or sizes, strict=True)]
        ends = zip(self.ends, sizes, self.tops, strict=True)
        self.grown = any(max(first, last) * GROWN < top for first, last, top in ends)
        self.sizes, self.looked["first"] = sizes, seen
        self.looked.setdefault("last", seen)

    def loses_digits(self) -> bool:
        """Whether a step makes more of rounding than a few last bits of what becomes of states.

        Or many steps do, of which each takes a little away from what others have added.
        """
        m, nodes = len(self.chain.states), nodes_of(self.chain)
        for values, after in self.looked.values():
            rounded = Roundings(0)
            with stepping(rounded):
                others = nodes.otherwise(values, rounded)[:m]
            for plain, other in zip(after, others, strict=False):
                if (np.abs(other - plain) > NOISY * np.abs(plain)).any():
                    return True
            if is_off(*nodes.both(values)) or slopes_are_off(self.chain, values):
                return True
        return self.grown


def is_off(plain: Sequence[Array], finer: Sequence[Array]) -> bool:
    """Whether arrays are more than rounding away from what a wider precision makes of them."""
    pairs = ((a, b) for a, b in zip(plain, finer, strict=True) if a.dtype.kind == "f" and a.size)
    return any(np.max(np.abs(b - a)) > NOISY * np.max(np.abs(a)) for a, b in pairs)


def slopes_are_off(chain: Chain, values: Sequence[Array]) -> bool:
    """Whether a step's derivatives are, along a direction; of steps that divide by nothing no."""
    if not chain.step.compiled().once(singular, chain.step):
        return False
    ks = [k for k, name in enumerate(chain.given) if chain.variable(name).dtype.kind == "f"]
    try:
        along = tangent_chain(chain.once, tuple(ks))
    except LagradError:  # it has none
        return False
    known, rng = dict(zip(chain.given, values, strict=True)), np.random.default_rng(0)
    given = []
    for name in along.given:
        variable = along.variable(name)
        drawn = rng.standard_normal(variable.shape).astype(variable.dtype)
        given.append(known.get(name, drawn))
    return is_off(*nodes_of(along).both(given))


@lru_cache(256)
def original(chain: Chain) -> Chain:
    """The loop that a chain is, or is derived from."""
    how = chain.execution
    forth = chain.backwards if how.last else not chain.backwards
    loop = chain if how.original is None else how.original
    return replace(loop, length=chain.length, backwards=forth, execution=Execution())


def watched(chain: Chain, arguments: Sequence[Array], ran: Callable[..., Array]) -> Watch | None:
    """The steps of the loop that a chain is, or is derived from; None where one solves a system.

    It is run for its states, where the chain is not given these and they are not too many.
    """
    loop = original(chain)
    if loop.evaluation.plan is None or not chain.length:
        return None
    named = dict(zip(chain.given, arguments, strict=True))
    if not set(loop.given) <= named.keys():
        return None
    watch, given = Watch(loop), [named[name] for name in loop.given]
    if set(loop.states) <= set(chain.inputs):
        stacks = given[: len(loop.states)]
    elif chain.length * sum(loop.variable(name).size for name in loop.states) <= KEPT:
        whole = replace(loop, outputs=loop.states)
        parts = whole.parts(ran(whole, given))
        stacks = parts[len(loop.states) :]
        beside = [beside_it(a) for a in given[: len(loop.states)]]
        there = whole.parts(ran(whole, [*beside, *given[len(beside) :]]))
        watch.grown = any(
            bool((np.abs(b - a) > BESIDE * MAGNIFIED * np.abs(a)).any())
            for a, b in zip(parts[: len(beside)], there, strict=False)
        )
    else:
        values = [*given[: len(loop.states)], *loop.given_at(given)(loop.order()[0])]
        watch.looked["first"] = values, loop.evaluation(values)
        return watch
    watch.stacks(stacks, loop.given_at(given))
    return watch


def beside_it(start: Array) -> Array:
    """A state at the start, moved by a little of what it is."""
    if start.dtype.kind != "f":
        return start
    # Whole numbers count, and are compared.
    size = np.where(np.rint(start) == start, 0.0, np.abs(start))
    return (start + BESIDE * size).astype(start.dtype)


def rounded_otherwise(
    chain: Chain,
    arguments: Sequence[Array],
    ran: Callable[..., Array],
    found: Callable[[Roundings], Array],
) -> Array | None:
    """What is `found` with steps rounded otherwise, where that is asked for and tells something."""
    rounded = STEPS.get()
    if rounded is None or chain.execution.exact:
        return None
    with stepping(None), np.errstate(all="ignore"):
        watch = watched(chain, arguments, ran)
        if watch is None or not watch.loses_digits():
            return None
    return found(rounded)


def pulled_rounded(
    chain: Chain, ks: Indices, cotangent: Array, arguments: Sequence[Array], rounded: Roundings
) -> Array:
    """What flows back to arguments `ks` of a loop, in a row, with all of its states kept."""
    m, outputs = len(chain.states), (*chain.outputs, *chain.states)
    there = replace(chain, outputs=outputs, execution=chain.execution.plain)
    parts = there.parts(run_rounded(there, arguments, rounded))
    back, cotangents = AdjointChain(chain, ks), chain.parts(cotangent)
    _, inputs, constants = chain.split(arguments)
    first = back.first(cotangents, parts[:m])
    given = [*first, *parts[-m:], *inputs, *cotangents[m:], *constants]
    found = back.chain.parts(run_rounded(back.chain, given, rounded))
    return joined(back.gathered(found)).astype(chain.dtype, copy=False)


def doubt_digits(chain: Chain, watch: Watch | None) -> None:
    """Cast doubt on derivatives of a loop whose steps lose digits."""
    doubts = DOUBTS.get()
    with np.errstate(all="ignore"):
        if doubts is not None and watch is not None and watch.loses_digits():
            name = chain.execution.of or chain.step.name
            doubts.append(f"the loop of {name!r} cancels much in its steps, or from step to step")
