"""Loops as primitives: the chain, its adjoint from few stored states, and their partials."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lagrad.errors import UnsupportedFunction
from lagrad.expressions.expression import Expression
from lagrad.expressions.primitive import Primitive
from lagrad.loops.adjoint_chains import AdjointChain, tangent_chain
from lagrad.loops.chain import Chain
from lagrad.loops.joint_partials import Rule, expansion, joint_maps
from lagrad.loops.kinks_met import meets, meets_backwards
from lagrad.loops.run_backwards import reverse
from lagrad.loops.run_forwards import breaks_at, run
from lagrad.loops.step_rounding import singular
from lagrad.systems.linearization import joined, split
from lagrad.typing import Array, Indices, Parameters


def pull(
    chain: Chain, node: Any, arguments: Sequence[Any], cotangent: Any, ks: Indices
) -> Sequence[Any]:
    """What flows back to arguments."""
    if chain.execution.storage is not None or chain.execution.inverse:
        value = REVERSED(node.graph, node, cotangent, *arguments, parameters=(chain, ks))
        return split(value, [arguments[k] for k in ks])
    return pulled(chain, arguments, cotangent, ks)


def pulled(chain: Chain, arguments: Sequence[Any], cotangent: Any, ks: Indices) -> list[Any]:
    """The same by the chain in reverse over all states."""
    m, outputs = len(chain.states), (*chain.outputs, *chain.states)
    there = replace(chain, outputs=outputs, execution=chain.execution.plain)
    parts = there.parts(CHAIN(cotangent.graph, *arguments, parameters=(there,)))
    back, cotangents = AdjointChain(chain, ks), chain.parts(cotangent)
    _, inputs, constants = chain.split(arguments)
    found = CHAIN(
        cotangent.graph,
        *back.first(cotangents, parts[:m]),
        *(*parts[-m:], *inputs, *cotangents[m:], *constants),
        parameters=(back.chain,),
    )
    return back.gathered(back.chain.parts(found))


def push(chain: Chain, node: Any, arguments: Sequence[Any], tangents: dict[int, Any]) -> Any:
    """The tangent of a chain's value."""
    m = len(chain.states)
    moved = tangent_chain(chain, tuple(tangents))
    states, inputs, constants = chain.split(arguments)
    starts = [tangents[k] if k in tangents else chain.zeros(chain.states[k]) for k in range(m)]
    _, *others = chain.split([tangents.get(k) for k in range(len(arguments))])
    along_inputs, along_constants = ([t for t in part if t is not None] for part in others)
    found = CHAIN(
        node.graph,
        *(*states, *starts, *inputs, *along_inputs, *constants, *along_constants),
        parameters=(moved,),
    )
    return found[moved.ends[m - 1] :]


@functools.lru_cache(256)
def rule(chain: Chain) -> Rule:
    """How a chain is differentiated."""
    return Rule(functools.partial(pull, chain), functools.partial(push, chain))


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
                how = known.execution
                more = chain.executed(storage=how.storage, recording=how.recording)
                lowered.operations[place] = replace(operation, parameters=(more,))
            return place
    place = lowered._table[key] = lowered._append(operation)
    return place


def remembered(lowered: Any, operation: Any) -> Any:
    """The run of a loop whose way back is asked for leaves a record of its states."""
    chain, place = operation.parameters[0], operation.arguments[0]
    found = lowered.operations[place]
    same = found.primitive is CHAIN and found.parameters[0].way == chain.way
    how = chain.execution
    if same and (how.storage is not None or how.exact):
        recording = found.parameters[0].executed(storage=how.storage, recording=True)
        lowered.operations[place] = replace(found, parameters=(recording,))
    return operation


def diverges(parameters: Parameters, arguments: Sequence[Array]) -> str | None:
    """The step at which a loop stops being finite."""
    (chain,) = parameters
    where = breaks_at(chain, arguments, chain.step.name)
    return None if where is None else f"a loop diverges: {where}"


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
    lambda parameters: functools.partial(run, *parameters),
    lambda arguments, parameters: ((parameters[0].size,), parameters[0].dtype),
    lambda node, k: joint_maps(rule(*node.parameters), node, (k,))[0],
    lambda texts, parameters: f"chain({', '.join(texts)})",
    lambda node, ks: joint_maps(rule(*node.parameters), node, ks),
    simplify=longest,
    source=written,
    repeats=lambda parameters: parameters[0].step,
    singular=lambda node: singular(node.parameters[0].step),
    breaks=diverges,
    meets=meets,
)


@functools.lru_cache(256)
def reversed_rule(chain: Chain, ks: Indices) -> Rule:
    """How `REVERSED` is differentiated: as the same by chains over all states."""
    return expansion(lambda arguments: joined(pulled(chain, arguments[2:], arguments[1], ks)))


def reversed_kind(arguments: Sequence[Expression], parameters: Parameters) -> Any:
    chain, ks = parameters
    return (sum(arguments[2 + k].size for k in ks),), chain.dtype


# The adjoint of a chain with few stored states: of the chain's value, a cotangent, and what the
# chain was given.
REVERSED = Primitive(
    "chain_reversed",
    lambda parameters: functools.partial(reverse, *parameters),
    reversed_kind,
    lambda node, k: joint_maps(reversed_rule(*node.parameters), node, (k,))[0],
    lambda texts, parameters: f"chain_reversed({', '.join(texts)})",
    lambda node, ks: joint_maps(reversed_rule(*node.parameters), node, ks),
    simplify=remembered,
    source=unwritten,
    singular=lambda node: singular(node.parameters[0].step),
    meets=meets_backwards,
)
