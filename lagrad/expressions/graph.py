"""The nodes of one program.

A `Graph` keeps its nodes in the order of their making, so that a node's arguments always come
before it, and stores equal nodes once.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import (
    ForeignValue,
    InvalidEquation,
    LeakedValue,
    TracedValueError,
    UnsupportedFunction,
    UnsupportedType,
)
from lagrad.expressions.expression import Application, Constant, Equation, Expression, innermost
from lagrad.expressions.linear_maps import LinearMap, Reindex, Scale
from lagrad.expressions.primitive import Primitive
from lagrad.expressions.real_arrays import NUMBERS, real_array
from lagrad.typing import Array, DType, Parameters, Shape

DOUBLE = np.dtype(float)

# Beyond this whole numbers have more than 64 bits.
WHOLE = 2**63


class Graph:
    """The nodes of one program, in the order of their making; equal nodes are one.

    A function that is traced while another one is has a graph inside the other's: `depth` counts
    them, and a value of an outer one that is met is taken up by `foreign`.
    """

    __slots__ = ("apart", "depth", "ended", "handed", "lock", "matrices", "name", "nodes", "table")

    def __init__(self, name: str, depth: int = 0) -> None:
        self.name = name
        self.depth = depth
        self.ended = False  # whether it belongs to a trace that is over
        # Whether its nodes were taken as objects: in an array of NumPy's, or in a hash table.
        self.handed = False
        # Arrays that were taken apart, and their entries, by the first one of these.
        self.apart: dict[int, tuple[Expression, list[Expression]]] = {}
        self.lock = RLock()
        self.nodes: list[Expression] = []
        self.table: dict[Any, Expression] = {}
        # Copies of the sparse matrices that were met: one of those that are equal.
        self.matrices: dict[Any, Any] = {}

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Take further nodes, though the trace be over, from one thread at a time."""
        with self.lock:
            ended, self.ended = self.ended, False
            try:
                yield
            finally:
                self.ended = ended

    def __reduce__(self) -> Any:
        raise UnsupportedFunction(
            "what is traced or declared cannot be pickled: pickle the function that declares it, "
            "numbers of its solution, or the text of source()."
        )

    def forget(self) -> None:
        """Let go of all nodes, once nothing is made of them any more.

        A graph and its nodes hold one another: their arrays were there until Python looks for such
        circles, which it does by the number of objects, however large they are.
        """
        self.ended = True
        self.nodes.clear()
        self.table.clear()
        self.matrices.clear()

    def apply(
        self, primitive: Primitive, arguments: tuple[Expression, ...], parameters: Parameters
    ) -> Expression:
        """The node of a primitive's application, new or found."""
        if primitive.doubles and (scalar := self.scalars(primitive, arguments)) is not None:
            return scalar
        if len(arguments) == 2:
            left, right = arguments
            key: Any = (primitive, parameters, left.index, right.index)
        else:
            key = (primitive, parameters, *[a.index for a in arguments])
        node = self.table.get(key)
        if node is None:
            if self.ended:
                raise LeakedValue(
                    f"{arguments[0]!r} was traced by {self.name!r}, which is over: it has no value "
                    "any more. Return it from the function instead of storing it elsewhere."
                )
            shape, dtype = primitive.infer(arguments, parameters)
            values = [v for a in arguments if (v := settled(a, shape)) is not None]
            if len(values) == len(arguments):
                with np.errstate(all="ignore"):
                    found = primitive.kernel(parameters)(*values)
                # What is not finite is named by who evaluates it.
                if np.isfinite(found).all():
                    node = self.constant(found, made_of(primitive, arguments, parameters))
            if node is None:
                node = Application(self, primitive, arguments, parameters, shape, dtype)
            self.table[key] = node
        return node

    def scalars(self, primitive: Primitive, arguments: tuple[Expression, ...]) -> Expression | None:
        """The node of a function of doubles, known to be one; None where an argument is none.

        This is `apply` for programs of millions of scalars.
        """
        variable = False
        # A number as the key, which the garbage collector has no work with.
        key = id(primitive)
        for a in arguments:
            if a.dtype is not DOUBLE or a.shape:
                return None
            variable |= type(a) is not Constant
            key = key << 32 | a.index
        if not variable or self.ended:
            return None
        node = self.table.get(key)
        if node is None:
            node = self.table[key] = Application(self, primitive, arguments, (), (), DOUBLE)
        return node

    def constant(self, value: Any, made: Callable[[DType], Any] | None = None) -> Constant:
        """The node of a number or of an array, which is copied; a rounded one may be `made`."""
        if made is not None:
            return Constant(self, real_array(value, "a constant"), made)
        if type(value) in NUMBERS:
            if type(value) is int and not -WHOLE <= value < WHOLE:
                value = float(value)  # which NumPy has no whole numbers for
            # Zeros have signs, and NaN equals nothing.
            key: Any = (type(value), value if value == value != 0 else repr(value))
        else:
            value = real_array(value, "a constant")
            if value.nbytes > 256:
                return Constant(self, value)
            key = (value.dtype.str, value.shape, value.tobytes())
        node = self.table.get(key)
        if node is None:
            node = self.table[key] = Constant(self, value)
        assert isinstance(node, Constant)
        return node

    def lift(self, value: Any) -> Expression:
        """`value` as a node of this graph."""
        if isinstance(value, Expression):
            return value if value.graph is self else self.foreign(value)
        if type(value) in NUMBERS:
            return self.constant(value)
        if isinstance(value, Equation):
            raise InvalidEquation.used_as_value(value)
        if sparse.issparse(value):
            raise UnsupportedFunction(
                "a scipy.sparse matrix meets traced values as the left side of `@` only."
            )
        array = np.asanyarray(value)
        node: Expression = stacked(array, self) if array.dtype == object else self.array(array)
        return node

    def array(self, value: Any) -> Expression:
        """An array of numbers as a node."""
        return self.constant(value)

    def foreign(self, value: Expression) -> Expression:
        """A value of another graph as a node of this one."""
        raise ForeignValue(
            f"{value!r} belongs to program {value.graph.name!r}, "
            f"and is used in program {self.name!r}; declare it there as a parameter."
        )

    def asked(self, node: Expression, kind: str) -> Any:
        """The number that Python asks of a node."""
        raise TracedValueError(
            f"{kind} was asked of {node!r}, which has no value while the program is declared; "
            "np.where(condition, a, b) chooses between values."
        )

    def equation(self, lhs: Any, rhs: Any) -> Any:
        """What `lhs == rhs` is."""
        return Equation(lhs, rhs)


def made_of(
    primitive: Primitive, arguments: tuple[Expression, ...], parameters: Parameters
) -> Callable[[DType], Any] | None:
    """What a function of constants is in another precision; None where it rounds nothing."""
    if not primitive.elementwise or primitive.kink:
        return None
    given = [(a.value, a.made) for a in arguments if isinstance(a, Constant)]

    def made(dtype: DType) -> Any:
        at = [in_precision(value, dtype) if own is None else own(dtype) for value, own in given]
        return primitive.kernel(parameters)(*at)

    return made


def in_precision(value: Any, dtype: DType) -> Any:
    array = np.asarray(value)
    return array if array.dtype.kind == "b" else array.astype(dtype)


def settled(argument: Expression, shape: Shape) -> Any:
    """An argument's value where it is known already, for a value of the given shape; or None.

    What is made of no entries at all, as the sum of an empty array, is a constant. What has none
    itself stays what it is: an unknown of size zero, say.
    """
    if type(argument) is Constant:
        return argument.value
    return (
        np.zeros(argument.shape, argument.dtype) if 0 in argument.shape and 0 not in shape else None
    )


def stacked(array: Array, graph: Graph | None = None) -> Any:
    """The traced value of an object array whose entries are traced values and numbers."""
    entries = list(array.ravel())
    if array.ndim == 0 and isinstance(entries[0], Expression):
        return entries[0] if graph is None else graph.lift(entries[0])
    if not entries:
        return np.zeros(array.shape) if graph is None else graph.constant(np.zeros(array.shape))
    for e in entries:
        if not isinstance(e, (Expression, int, float, np.number, np.bool)):
            raise UnsupportedType(
                f"an object array holds {e!r}; expected traced values or numbers."
            )
    if isinstance(entries[0], Expression):
        # An array that NumPy was given comes back as it was.
        whole: Any
        whole, known = entries[0].graph.apart.get(entries[0].index, (None, []))
        if len(known) == len(entries) and all(map(operator.is_, known, entries)):
            back: Any = np.reshape(whole, array.shape)
            return back if graph is None else graph.lift(back)
    if graph is not None:
        entries = [graph.lift(e) for e in entries]
    rows: Any = np.stack(entries)
    return np.reshape(rows, array.shape + rows.shape[1:])


def given(value: Any) -> Any:
    """What a function of arrays was given: a traced value, of several ones stacked, or floats."""
    if isinstance(value, Expression):
        return value
    if innermost((value,)) is not None:
        return stacked(np.array(value, dtype=object))
    array = np.asarray(value)
    return array if array.dtype.kind == "f" else array.astype(float)


def divides(nodes: Iterable[Expression]) -> bool:
    """Whether local partials among some nodes may be infinite, as of quotients and logarithms."""
    pairs = ((n.primitive.singular, n) for n in nodes if n.primitive is not None)
    return any(singular is not None and singular(node) for singular, node in pairs)


def repeats(nodes: Iterable[Expression]) -> bool:
    """Whether loops are among some nodes."""
    return any(n.primitive is not None and n.primitive.repeats is not None for n in nodes)


def selects(nodes: Iterable[Expression]) -> bool:
    """Whether a node's value jumps somewhere, so that derivatives may have kinks."""
    return any(node.primitive is not None and node.primitive.ties is not None for node in nodes)


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


def conditioned(roots: Iterable[Expression], defined: dict[int, Expression]) -> list[Expression]:
    """The matrices whose condition decides how accurate some nodes are, or conditions as such."""
    nodes = ancestors(roots, lambda node: False, defined)
    conditions = [(n.primitive.conditioned, n) for n in nodes if n.primitive is not None]
    found = [condition(n) for condition, n in conditions if condition is not None]
    return list({m.index: m for m in found}.values())


def moves(node: Expression) -> bool:
    """Whether a node's entries are those of its arguments, moved, negated or repeated."""
    primitive, count = node.primitive, len(node.arguments)
    assert primitive is not None
    if primitive.joint is not None or primitive.rules or (primitive.elementwise and count > 1):
        return False
    return all(unit(primitive.partial(node, k)) for k in range(count))


def unit(linear: LinearMap | None) -> bool:
    """Whether a map adds nothing up, and multiplies by no more than a sign."""
    if isinstance(linear, Scale):
        # To fewer entries it is a sum, back to front.
        number = type(linear.weight) in NUMBERS and abs(linear.weight) == 1
        return number and math.prod(linear.target) >= math.prod(linear.source)
    return isinstance(linear, Reindex)
