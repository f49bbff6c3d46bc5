"""Rules by which a lowered program leaves out what changes nothing.

A rule is given the program so far and an operation to be added. It returns the place of a value
that is equal, or the operation, simpler where it can be. What it asks of both is what
`lowering.py` has: operations by place, constants, and which value may stand for another.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lagrad.expressions.primitive import Primitive
from lagrad.primitives import elementwise, indexing, reduction
from lagrad.primitives.kernels import Index
from lagrad.primitives.registry import PRIMITIVES

Rule = Callable[[Any, Any], Any]


def unchanged(lowered: Any, operation: Any) -> Any:
    return operation


def without(number: float, both: bool, otherwise: Rule = unchanged) -> Rule:
    """Leave out an operation with a number that changes nothing, on the right or on both sides.

    What is left is for the other rule.
    """

    def rule(lowered: Any, operation: Any) -> Any:
        a, b = operation.arguments
        if lowered.is_number(b, number) and lowered.same_as(a, operation):
            return a
        if both and lowered.is_number(a, number) and lowered.same_as(b, operation):
            return b
        return otherwise(lowered, operation)

    return rule


def as_other(operation: Any, name: str, *arguments: int) -> Any:
    """The operation of another primitive in the place of one."""
    return replace(operation, primitive=PRIMITIVES[name], arguments=arguments)


def _minus_one(lowered: Any, operation: Any) -> Any:
    for this, other in (operation.arguments, operation.arguments[::-1]):
        if lowered.is_number(this, -1) and lowered.same_as(other, operation):
            return opposite(lowered, as_other(operation, "negative", other))
    return operation


def _negative_term(lowered: Any, operation: Any) -> Any:
    for this, other in (operation.arguments, operation.arguments[::-1]):
        term = lowered.operations[this]
        if term.name == "negative" and lowered.same_as(term.arguments[0], term):
            return as_other(operation, "subtract", other, term.arguments[0])
    return operation


def _negative_taken(lowered: Any, operation: Any) -> Any:
    a, b = operation.arguments
    term = lowered.operations[b]
    return as_other(operation, "add", a, *term.arguments) if term.name == "negative" else operation


product = without(1, both=True, otherwise=_minus_one)
total = without(0, both=True, otherwise=_negative_term)
difference = without(0, both=False, otherwise=_negative_taken)
quotient = without(1, both=False)


def opposite(lowered: Any, operation: Any) -> Any:
    """Minus minus."""
    (a,) = operation.arguments
    term = lowered.operations[a]
    return term.arguments[0] if term.name == "negative" else operation


def power(lowered: Any, operation: Any) -> Any:
    """First and second powers."""
    base, exponent = operation.arguments
    if operation.dtype.kind == "f" and lowered.same_as(base, operation):
        if lowered.is_number(exponent, 1):
            return base
        if lowered.is_number(exponent, 2):
            return as_other(operation, "square", base)
    return operation


def shaped(lowered: Any, operation: Any) -> Any:
    """What has its shape and dtype already."""
    (a,) = operation.arguments
    if lowered.same_as(a, operation):
        return a
    inner = lowered.operations[a]
    if operation.name == inner.name == "reshape":
        return shaped(lowered, replace(operation, arguments=inner.arguments))
    return operation


def turned(lowered: Any, operation: Any) -> Any:
    """Two transpositions as one, or none."""
    (a,) = operation.arguments
    inner = lowered.operations[a]
    (axes,) = operation.parameters
    if inner.name == "transpose":
        axes = tuple([inner.parameters[0][k] for k in axes])
        operation = replace(operation, parameters=(axes,), arguments=inner.arguments)
    return operation.arguments[0] if axes == tuple(range(len(axes))) else operation


def back(transpose: str) -> Rule:
    """What was put somewhere, taken from there."""

    def rule(lowered: Any, operation: Any) -> Any:
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


def nothing_reduced(lowered: Any, operation: Any) -> Any:
    """A reduction over axes of one entry moves its entries only."""
    (axes,), (a,) = operation.parameters, operation.arguments
    argument = lowered.operations[a]
    if argument.dtype != operation.dtype or any(argument.shape[k] != 1 for k in axes):
        return operation
    moved = replace(operation, primitive=indexing.reshape, parameters=(operation.shape,))
    return shaped(lowered, moved)


def without_sums(lowered: Any, operation: Any) -> Any:
    """A contraction that adds nothing up, of arguments whose axes are in order: a product."""
    given, out = operation.parameters[0].split("->")
    places = []
    for labels, a in zip(given.split(","), operation.arguments, strict=True):
        argument = lowered.operations[a]
        ordered = [c for c in out if c in labels] == list(labels)
        if not ordered or len(set(labels)) < len(labels) or argument.dtype != operation.dtype:
            return operation
        sizes = dict(zip(labels, argument.shape, strict=True))
        shape = tuple(sizes.get(c, 1) for c in out)
        if shape != argument.shape:
            moved = replace(
                argument,
                primitive=indexing.reshape,
                parameters=(shape,),
                arguments=(a,),
                shape=shape,
                value=None,
            )
            a = lowered.placed(moved)
        places.append(a)
    return product(lowered, as_other(operation, "multiply", *places))


def itself(lowered: Any, operation: Any) -> Any:
    return operation.arguments[0]


RULES: dict[Primitive, Rule] = {
    elementwise.add: total,
    elementwise.subtract: difference,
    elementwise.multiply: product,
    elementwise.divide: quotient,
    elementwise.negative: opposite,
    elementwise.power: power,
    elementwise.cast: shaped,
    indexing.reshape: shaped,
    reduction.broadcast_to: shaped,
    indexing.transpose: turned,
    PRIMITIVES["gather"]: back("scatter"),
    PRIMITIVES["getitem"]: back("embed"),
    PRIMITIVES["stop_gradient"]: itself,
    **{PRIMITIVES[name]: nothing_reduced for name in ("sum", "max", "min")},
    PRIMITIVES["contract"]: without_sums,
}
