"""What a plan computes, simplified: a row of operations on numbered values.

Nodes of a graph become operations. Equal ones are one, whatever the order of a sum's or a
product's terms; what changes nothing (times one, plus zero, minus minus, an array spread out
where NumPy spreads it itself) is left out; what nobody asks for never comes in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lagrad.compiler.simplification import RULES
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.primitive import Primitive
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import DType, Indices, Parameters, Shape

# Operations on constants up to this size are folded.
FOLDED = 256


@dataclass(frozen=True, slots=True)
class Operation:
    """A primitive's application to numbered values; a leaf has no primitive."""

    primitive: Primitive | None
    parameters: Parameters
    arguments: Indices
    shape: Shape
    dtype: DType
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
        p = self.primitive
        return p is not None and (p.fresh or p.elementwise)

    @property
    def ufunc(self) -> np.ufunc | None:
        """NumPy's function that computes it entry by entry, if it is one."""
        kernel = None if self.primitive is None else self.primitive.kernel(self.parameters)
        # `matmul` is a ufunc too, of whole matrices.
        return kernel if isinstance(kernel, np.ufunc) and kernel.signature is None else None


def is_elementwise(operation: Operation) -> bool:
    """Whether each entry of the value is made of one entry of each argument."""
    return operation.primitive is not None and operation.primitive.elementwise


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

    def _constant(self, value: Any, shape: Shape, dtype: DType) -> int:
        return self._append(Operation(None, (), (), shape, dtype, value))

    def _number(self, place: int) -> Any:
        """The one number that an operation's value consists of, if it is a small constant."""
        operation = self.operations[place]
        value = operation.value
        return value if operation.size == 1 and value is not None else None

    def is_number(self, place: int, number: float) -> bool:
        """Whether a value is a small constant, that number throughout."""
        value = self._number(place)
        if value is None:
            return False
        return bool(value == number) if type(value) in NUMBERS else value.item() == number

    def placed(self, operation: Operation) -> int:
        """Where the value of an operation is that a rule has come to."""
        return self._simplified(operation)

    def _simplified(self, operation: Operation) -> int:
        """Where the value of an operation is: that of an equal one, or its own."""
        if is_elementwise(operation) and any(
            self.operations[a].name == "broadcast_to" for a in operation.arguments
        ):
            operation = self._unspread(operation)
        primitive = operation.primitive
        assert primitive is not None
        if (rule := RULES.get(primitive, primitive.simplify)) is not None:
            found = rule(self, operation)
            if isinstance(found, int):
                return found
            if found.primitive not in (primitive, operation.primitive):
                return self._simplified(found)
            operation = found
        # Of the operation as it is now: a sum with minus something has become a difference.
        primitive, arguments = operation.primitive, operation.arguments
        assert primitive is not None
        if primitive.commutative:
            arguments = tuple(sorted(arguments))
        key = (primitive, operation.parameters, arguments)
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
