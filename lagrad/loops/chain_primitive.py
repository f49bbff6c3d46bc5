"""Loops as primitives: the chain, its adjoint from few stored states, and their partials."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import UnsupportedFunction
from lagrad.expressions.expression import Expression
from lagrad.expressions.primitive import Primitive
from lagrad.loops.chain import Chain
from lagrad.loops.joint_rules import Rule, expansion, joint_maps
from lagrad.loops.run import breaks_at, broken, reverse, run
from lagrad.typing import Array, Parameters, Shape


def pull(node: Any, arguments: Sequence[Any], cotangent: Any, ks: Shape, chain: Chain) -> list[Any]:
    """What flows back to arguments."""
    if chain.storage is not None or chain.before:
        value = REVERSED(node.graph, node, cotangent, *arguments, parameters=(chain, ks))
        pieces, begin = [], 0
        for k in ks:
            shape = arguments[k].shape
            end = begin + math.prod(shape)
            pieces.append(np.reshape(value[begin:end], shape))
            begin = end
        return pieces
    return pulled(arguments, cotangent, ks, chain)


def pulled(arguments: Sequence[Any], cotangent: Any, ks: Shape, chain: Chain) -> list[Any]:
    """The same by the chain in reverse over all states."""
    graph = cotangent.graph
    m, count = len(chain.states), len(chain.outputs)
    plain = replace(chain, storage=None, recording=False, before=(), exact=False, counted=False)
    there = plain.with_states
    value = CHAIN(graph, *arguments, parameters=(there,))
    states = [there.part(value, m + count + i) for i in range(m)]
    back = replace(chain.adjoint(ks), storage=None)
    parts = [chain.part(cotangent, i) for i in range(m + count)]
    last = [there.part(value, i) for i in range(m)]
    _, inputs, constants = chain.split(arguments)
    found = CHAIN(
        graph,
        *(*chain.flowing(ks, parts, last), *states, *inputs, *parts[m:], *constants),
        parameters=(back,),
    )
    results = [back.part(found, i) for i in range(len(back.shapes))]
    width = len(back.after)
    return chain.gathered(ks, results[:width], results[width:])


def push(node: Any, arguments: Sequence[Any], tangents: dict[int, Any], chain: Chain) -> Any:
    """The tangent of a chain's value."""
    m, p = len(chain.states), len(chain.inputs)
    moved = chain.tangent(tuple(tangents))
    starts = [tangents[k] if k in tangents else chain.zeros(chain.states[k]) for k in range(m)]
    found = CHAIN(
        node.graph,
        *(*arguments[:m], *starts),
        *(*arguments[m : m + p], *(tangents[k] for k in range(m, m + p) if k in tangents)),
        *arguments[m + p :],
        *(tangents[k] for k in range(m + p, len(arguments)) if k in tangents),
        parameters=(moved,),
    )
    return found[moved.ends[m - 1] :]


@functools.lru_cache(256)
def rule(chain: Chain) -> Rule:
    """How a chain is differentiated."""
    return Rule(
        lambda node, arguments, cotangent, ks: pull(node, arguments, cotangent, ks, chain),
        lambda node, arguments, tangents: push(node, arguments, tangents, chain),
    )


def single_partial(node: Expression, k: int) -> Any:
    return joint_maps(rule(node.parameters[0]), node, (k,))[0]


def longest(lowered: Any, operation: Any) -> Any:
    """One run of a loop where two differ in what they keep of its steps.

    What the one with less keeps comes first in the value of the other.
    """
    (chain,) = operation.parameters
    key = ("chain", chain.way, operation.arguments)
    place = lowered._table.get(key)
    if place is not None:
        known = lowered.operations[place].parameters[0]
        common = min(len(known.outputs), len(chain.outputs))
        if known.outputs[:common] == chain.outputs[:common]:
            if len(chain.outputs) > len(known.outputs):
                more = replace(chain, storage=known.storage, recording=known.recording)
                lowered.operations[place] = replace(operation, parameters=(more,))
            return place
    place = lowered._table[key] = lowered._append(operation)
    return place


def remembered(lowered: Any, operation: Any) -> Any:
    """The run of a loop whose way back is asked for leaves a record of its states."""
    chain, place = operation.parameters[0], operation.arguments[0]
    run = lowered.operations[place]
    same = run.primitive is CHAIN and run.parameters[0].way == chain.way
    if same and (chain.storage is not None or chain.exact):
        recording = replace(run.parameters[0], storage=chain.storage, recording=True)
        lowered.operations[place] = replace(run, parameters=(recording,))
    return operation


def diverges(parameters: Parameters, arguments: Sequence[Array]) -> str | None:
    """The step at which a loop stops being finite."""
    (chain,) = parameters
    step = breaks_at(chain, arguments)
    return (
        None if step is None else f"a loop diverges: {broken(chain.step.name, step, chain.length)}"
    )


def unwritten(module: Any, node: Expression, texts: Sequence[str]) -> str:
    raise UnsupportedFunction(
        "source() writes derivatives of loops that store all states: leave out checkpoints=, "
        "memory=, disk= and inverses."
    )


def written(module: Any, node: Expression, texts: Sequence[str]) -> str:
    (chain,) = node.parameters
    counts = (len(chain.states), len(chain.inputs))
    how = f"{module.step(chain)}, {counts}, {chain.length}, {chain.backwards}"
    return f"_chain({how}, {', '.join(texts)})"


CHAIN = Primitive(
    "chain",
    lambda parameters: functools.partial(run, parameters[0]),
    lambda arguments, parameters: ((parameters[0].size,), parameters[0].dtype),
    single_partial,
    lambda texts, parameters: f"chain({', '.join(texts)})",
    lambda node, ks: joint_maps(rule(node.parameters[0]), node, ks),
    simplify=longest,
    source=written,
    repeats=lambda parameters: parameters[0].step,
    breaks=diverges,
)


def expanded(arguments: Sequence[Any], chain: Chain, ks: Shape) -> Any:
    """What `REVERSED` computes, by chains over all states: to be differentiated again."""
    _, cotangent, *rest = arguments
    found = pulled(rest, cotangent, ks, chain)
    return np.concatenate([np.ravel(piece) for piece in found])


@functools.lru_cache(256)
def reversed_rule(chain: Chain, ks: Shape) -> Rule:
    return expansion(lambda arguments: expanded(arguments, chain, ks))


def reversed_kernel(parameters: Parameters) -> Any:
    chain, ks = parameters

    def kernel(value: Array, cotangent: Array, *arguments: Array) -> Array:
        found = reverse(chain, ks, value, cotangent, arguments)
        return np.concatenate([np.ravel(piece) for piece in found]).astype(chain.dtype, copy=False)

    return kernel


def reversed_kind(arguments: Sequence[Expression], parameters: Parameters) -> Any:
    chain, ks = parameters
    return (sum(arguments[2 + k].size for k in ks),), chain.dtype


# The adjoint of a chain with few stored states: of the chain's value, a cotangent, and what the
# chain was given.
REVERSED = Primitive(
    "chain_reversed",
    reversed_kernel,
    reversed_kind,
    lambda node, k: joint_maps(reversed_rule(*node.parameters), node, (k,))[0],
    lambda texts, parameters: f"chain_reversed({', '.join(texts)})",
    lambda node, ks: joint_maps(reversed_rule(*node.parameters), node, ks),
    simplify=remembered,
    source=unwritten,
)
