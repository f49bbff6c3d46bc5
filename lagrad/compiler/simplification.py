"""Rules that leave out of a lowered program what changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lagrad.compiler.operation import Operation
from lagrad.primitives.kernels import Index
from lagrad.primitives.registry import PRIMITIVES

if TYPE_CHECKING:
    from lagrad.compiler.lowering import Lowered


def without(number: float, both: bool) -> Callable[[Lowered, Operation], int | Operation]:
    """Leave out an operation with a number that changes nothing, on the right or on both sides."""

    def rule(lowered: Lowered, operation: Operation) -> int | Operation:
        a, b = operation.arguments
        if lowered.is_number(b, number) and lowered.same_as(a, operation):
            return a
        if both and lowered.is_number(a, number) and lowered.same_as(b, operation):
            return b
        return operation

    return rule


def product(lowered: Lowered, operation: Operation) -> int | Operation:
    """One and minus one as factors."""
    found = without(1, both=True)(lowered, operation)
    if isinstance(found, int):
        return found
    for this, other in (operation.arguments, operation.arguments[::-1]):
        if lowered.is_number(this, -1) and lowered.same_as(other, operation):
            negated = replace(operation, primitive=PRIMITIVES["negative"], arguments=(other,))
            return opposite(lowered, negated)
    return operation


def total(lowered: Lowered, operation: Operation) -> int | Operation:
    """Zero as a term, and the negative of one."""
    found = without(0, both=True)(lowered, operation)
    if isinstance(found, int):
        return found
    for this, other in (operation.arguments, operation.arguments[::-1]):
        term = lowered.operations[this]
        if term.name == "negative" and lowered.same_as(term.arguments[0], term):
            taken = (other, term.arguments[0])
            return replace(operation, primitive=PRIMITIVES["subtract"], arguments=taken)
    return operation


def difference(lowered: Lowered, operation: Operation) -> int | Operation:
    """Nothing taken off, and a negative taken off."""
    found = without(0, both=False)(lowered, operation)
    if isinstance(found, int):
        return found
    a, b = operation.arguments
    term = lowered.operations[b]
    if term.name == "negative":
        added = (a, term.arguments[0])
        return replace(operation, primitive=PRIMITIVES["add"], arguments=added)
    return operation


def opposite(lowered: Lowered, operation: Operation) -> int | Operation:
    """Minus minus."""
    (a,) = operation.arguments
    term = lowered.operations[a]
    return term.arguments[0] if term.name == "negative" else operation


def power(lowered: Lowered, operation: Operation) -> int | Operation:
    """First and second powers."""
    base, exponent = operation.arguments
    if operation.dtype.kind == "f" and lowered.same_as(base, operation):
        if lowered.is_number(exponent, 1):
            return base
        if lowered.is_number(exponent, 2):
            return replace(operation, primitive=PRIMITIVES["square"], arguments=(base,))
    return operation


def shaped(lowered: Lowered, operation: Operation) -> int | Operation:
    """What has its shape and dtype already."""
    (a,) = operation.arguments
    if lowered.same_as(a, operation):
        return a
    inner = lowered.operations[a]
    if operation.name == inner.name == "reshape":
        return shaped(lowered, replace(operation, arguments=inner.arguments))
    return operation


def turned(lowered: Lowered, operation: Operation) -> int | Operation:
    """Two transpositions as one, or none."""
    (a,) = operation.arguments
    inner = lowered.operations[a]
    (axes,) = operation.parameters
    if inner.name == "transpose":
        axes = tuple([inner.parameters[0][k] for k in axes])
        operation = replace(operation, parameters=(axes,), arguments=inner.arguments)
    return operation.arguments[0] if axes == tuple(range(len(axes))) else operation


def back(transpose: str) -> Callable[[Lowered, Operation], int | Operation]:
    """What was put somewhere, taken from there."""

    def rule(lowered: Lowered, operation: Operation) -> int | Operation:
        (a,) = operation.arguments
        inner = lowered.operations[a]
        if inner.name != transpose or inner.parameters[0] != operation.parameters[0]:
            return operation
        index = operation.parameters[0]
        if isinstance(index, Index) and (index.has_gaps or not index.injective):
            return operation
        source = inner.arguments[0]
        return source if lowered.same_as(source, operation) else operation

    return rule


def itself(lowered: Lowered, operation: Operation) -> int | Operation:
    return operation.arguments[0]


def longest(lowered: Lowered, operation: Operation) -> int:
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


def remembered(lowered: Lowered, operation: Operation) -> Operation:
    """The run of a loop whose way back is asked for leaves a record of its states."""
    chain, place = operation.parameters[0], operation.arguments[0]
    run = lowered.operations[place]
    same = run.name == "chain" and run.parameters[0].way == chain.way
    if same and (chain.storage is not None or chain.exact):
        recording = replace(run.parameters[0], storage=chain.storage, recording=True)
        lowered.operations[place] = replace(run, parameters=(recording,))
    return operation


def approached(lowered: Lowered, operation: Operation) -> int:
    """What an iteration ends with is itself."""
    k: int = operation.parameters[1]
    return operation.arguments[k]


RULES: dict[str, Callable[[Lowered, Operation], int | Operation]] = {
    "approached": approached,
    "chain": longest,
    "chain_reversed": remembered,
    "multiply": product,
    "add": total,
    "subtract": difference,
    "divide": without(1, both=False),
    "negative": opposite,
    "power": power,
    "reshape": shaped,
    "broadcast_to": shaped,
    "astype": shaped,
    "transpose": turned,
    "gather": back("scatter"),
    "getitem": back("embed"),
    "stop_gradient": itself,
}
