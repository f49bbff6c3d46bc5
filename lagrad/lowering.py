"""What a plan computes, simplified: a row of operations on numbered values.

Nodes of a graph become operations. Equal ones are one, whatever the order of a sum's or a
product's terms; what changes nothing (times one, plus zero, minus minus, an array spread out
where NumPy spreads it itself) is left out; what nobody asks for never comes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lagrad.constants import NUMBERS
from lagrad.expression import Constant, Expression, Primitive, Variable
from lagrad.kernels import Index
from lagrad.primitives.registry import PRIMITIVES

__all__ = ["Lowered", "Operation", "ancestors", "is_elementwise"]

Array = Any
Shape = tuple[int, ...]
COMMUTATIVE = frozenset(
    ["add", "multiply", "maximum", "minimum", "fmax", "fmin", "logaddexp", "hypot", "equal"]
)
# Operations on constants up to this size are folded.
FOLDED = 256


@dataclass(frozen=True, slots=True)
class Operation:
    """A primitive's application to numbered values; a leaf has no primitive."""

    primitive: Primitive | None
    parameters: tuple[Any, ...]
    arguments: tuple[int, ...]
    shape: Shape
    dtype: np.dtype[Any]
    value: Any = None  # of a constant

    @property
    def name(self) -> str:
        return "" if self.primitive is None else self.primitive.name

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def owns(self) -> bool:
        """Whether the value is surely an array of its own, no view of another one."""
        return self.name in ("sum", "contract", "embed", "scatter") or is_elementwise(self)

    @property
    def ufunc(self) -> np.ufunc | None:
        """NumPy's function that computes it entry by entry, if it is one."""
        kernel = None if self.primitive is None else self.primitive.kernel(self.parameters)
        # `matmul` is a ufunc too, of whole matrices.
        return kernel if isinstance(kernel, np.ufunc) and kernel.signature is None else None


def ancestors(
    outputs: Iterable[Expression],
    known: Callable[[Expression], bool],
    defined: dict[int, Expression],
) -> list[Expression]:
    """The nodes that the outputs need, in order, those that are `known` as leaves.

    A defined variable is looked through to its right side, which comes before it.
    """
    found: dict[int, Expression] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.index in found:
            continue
        found[node.index] = node
        if known(node):
            continue
        if node.index in defined:
            stack.append(defined[node.index])
        else:
            stack.extend(node.arguments)
    return [found[i] for i in sorted(found)]


class Lowered:
    """The operations that lead from inputs to outputs.

    Parameters
    ----------
    inputs, outputs : sequences of nodes
    defined : dict
        The right side of each defined variable that may be computed on the way.

    Attributes
    ----------
    operations : list of Operation
        The inputs first; each one's arguments come before it. Some are used by nobody.
    outputs : list of int
        Which of them are asked for.
    """

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression],
    ) -> None:
        self.operations: list[Operation] = []
        self._table: dict[Any, int] = {}
        place: dict[int, int] = {}
        for node in inputs:
            place[node.index] = self._append(Operation(None, (), (), node.shape, node.dtype))
        given = set(place)
        for node in ancestors(outputs, lambda node: node.index in given, defined):
            if node.index in place:
                continue
            if node.index in defined:
                place[node.index] = place[defined[node.index].index]
            elif isinstance(node, Constant):
                place[node.index] = self._constant(node.value, node.shape, node.dtype)
            elif node.primitive is None:
                assert isinstance(node, Variable)
                raise AssertionError(f"{node.name} is neither given nor defined")
            else:
                arguments = tuple([place[a.index] for a in node.arguments])
                place[node.index] = self._simplified(
                    Operation(node.primitive, node.parameters, arguments, node.shape, node.dtype)
                )
        self.outputs = [place[node.index] for node in outputs]

    def _append(self, operation: Operation) -> int:
        self.operations.append(operation)
        return len(self.operations) - 1

    def _constant(self, value: Any, shape: Shape, dtype: np.dtype[Any]) -> int:
        return self._append(Operation(None, (), (), shape, dtype, value))

    def _number(self, place: int) -> Any:
        """The one number that an operation's value consists of, if it is a small constant."""
        operation = self.operations[place]
        value = operation.value
        return value if operation.size == 1 and value is not None else None

    def is_number(self, place: int, number: float) -> bool:
        """Whether a value is a small constant, that number throughout."""
        value = self._number(place)
        return value is not None and bool(np.all(value == number))

    def _simplified(self, operation: Operation) -> int:
        """Where the value of an operation is: that of an equal one, or its own."""
        if is_elementwise(operation):
            operation = self._unspread(operation)
        rule = RULES.get(operation.name)
        if rule is not None:
            found = rule(self, operation)
            if isinstance(found, int):
                return found
            operation = found
        arguments = operation.arguments
        if operation.name in COMMUTATIVE:
            arguments = tuple(sorted(arguments))
        key = (operation.primitive, operation.parameters, arguments)
        place = self._table.get(key)
        if place is None:
            place = self._table[key] = self._new(operation)
        return place

    def _new(self, operation: Operation) -> int:
        """An operation of its own, folded where it is a small constant."""
        values = [self.operations[a] for a in operation.arguments]
        known = all(v.value is not None and v.size <= FOLDED for v in values)
        # What is spread out is better left to NumPy.
        if known and operation.size <= max([v.size for v in values], default=0):
            assert operation.primitive is not None
            with np.errstate(all="ignore"):
                value = operation.primitive.kernel(operation.parameters)(*[v.value for v in values])
            return self._constant(np.asarray(value), operation.shape, operation.dtype)
        return self._append(operation)

    def _unspread(self, operation: Operation) -> Operation:
        """The operation without the `broadcast_to` of arguments that NumPy spreads out itself."""
        places = list(operation.arguments)
        for k, place in enumerate(places):
            argument = self.operations[place]
            if argument.name != "broadcast_to":
                continue
            source = argument.arguments[0]
            shapes = [self.operations[p].shape for p in places]
            shapes[k] = self.operations[source].shape
            if np.broadcast_shapes(*shapes) != operation.shape:
                continue
            value = self.operations[source].value
            if type(value) in NUMBERS:  # it would no longer decide the dtype
                source = self._constant(np.asarray(value, argument.dtype), (), argument.dtype)
            places[k] = source
        return replace(operation, arguments=tuple(places))

    def same_as(self, place: int, operation: Operation) -> bool:
        """Whether a value may stand for an operation's: of its shape and dtype."""
        other = self.operations[place]
        if type(other.value) in NUMBERS:
            return False  # a number of Python's is no array
        return other.shape == operation.shape and other.dtype == operation.dtype


def is_elementwise(operation: Operation) -> bool:
    """Whether each entry of the value is made of one entry of each argument."""
    return operation.name in POINTWISE or operation.ufunc is not None


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
# Functions of entries that are no ufuncs.
POINTWISE = frozenset(["where", "logistic_share", "exp_ratio", "astype"])
