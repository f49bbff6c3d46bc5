"""The traced value: a node in a graph of primitives, written in NumPy.

A `Graph` keeps its nodes in the order of their making, so that a node's arguments always come
before it, and stores equal nodes once. A primitive is data: how to evaluate, what shape comes
out, and one linear map for each argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sparse
from numpy.lib.mixins import NDArrayOperatorsMixin

from lagrad.errors import (
    ForeignValue,
    InPlaceUpdate,
    InvalidEquation,
    LeakedValue,
    ShapeMismatch,
    TracedValueError,
    UnsupportedFunction,
    UnsupportedType,
)
from lagrad.expressions.dispatch import FUNCTIONS, OF_DOUBLES, REDUCTIONS, UFUNCS, named
from lagrad.expressions.linear_maps import Joint, LinearMap
from lagrad.expressions.real_arrays import NUMBERS, real_array
from lagrad.typing import Shape

DOUBLE = np.dtype(float)


class Equation:
    """`lhs == rhs` between traced values, to be given to `Program.subject_to`."""

    __slots__ = ("lhs", "rhs")

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.lhs = lhs
        self.rhs = rhs

    def __repr__(self) -> str:
        return f"{self.lhs!r} == {self.rhs!r}"

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> NoReturn:
        raise InvalidEquation.used_as_value(self)

    def __bool__(self) -> bool:
        raise TracedValueError(
            f"the equation {self!r} has no truth value while the program is declared; "
            "state it with subject_to, or compare with np.equal inside np.where."
        )


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """One operation on arrays: its value, its output's shape and dtype, its local partials.

    Attributes
    ----------
    name : str
    kernel : callable
        `kernel(parameters)` is the function of the arguments' arrays that computes the value.
    infer : callable
        `infer(arguments, parameters)` is the output's shape and dtype.
    partial : callable
        `partial(node, k)` is the `LinearMap` of argument `k`, or None where it is zero.
    code : callable
        `code(texts, parameters)` is the operation as NumPy source.
    joint : callable, optional
        `joint(node, ks)` are the `Joint` maps of several arguments.
    """

    name: str
    kernel: Callable[[tuple[Any, ...]], Callable[..., Any]]
    infer: Callable[[tuple[Expression, ...], tuple[Any, ...]], tuple[Shape, np.dtype[Any]]]
    partial: Callable[[Expression, int], LinearMap | None]
    code: Callable[[Sequence[str], tuple[Any, ...]], str]
    joint: Callable[[Expression, tuple[int, ...]], Sequence[Joint]] | None = None

    def __call__(
        self, graph: Graph, *arguments: Any, parameters: tuple[Any, ...] = ()
    ) -> Expression:
        return graph.apply(self, tuple(map(graph.lift, arguments)), parameters)


class Graph:
    """The nodes of one program, in the order of their making; equal nodes are one.

    A function that is traced while another one is has a graph inside the other's: `depth` counts
    them, and a value of an outer one that is met is taken up by `foreign`.
    """

    __slots__ = ("depth", "ended", "matrices", "name", "nodes", "table")

    def __init__(self, name: str, depth: int = 0) -> None:
        self.name = name
        self.depth = depth
        self.ended = False  # whether it belongs to a trace that is over
        self.nodes: list[Expression] = []
        self.table: dict[Any, Expression] = {}
        # Sparse matrices that were met, by their identity, each with the copy that was taken.
        self.matrices: dict[int, tuple[Any, Any]] = {}

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Take further nodes, though the trace be over."""
        ended, self.ended = self.ended, False
        try:
            yield
        finally:
            self.ended = ended

    def apply(
        self, primitive: Primitive, arguments: tuple[Expression, ...], parameters: tuple[Any, ...]
    ) -> Expression:
        """The node of a primitive's application, new or found."""
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
            for a in arguments:
                if type(a) is not Constant:
                    node = Operation(self, primitive, arguments, parameters, shape, dtype)
                    break
            else:
                value = primitive.kernel(parameters)(*[a.value for a in arguments])
                node = self.constant(value)
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
            node = self.table[key] = Operation(self, primitive, arguments, (), (), DOUBLE)
        return node

    def constant(self, value: Any) -> Constant:
        """The node of a number or of an array, which is copied."""
        if type(value) in NUMBERS:
            # Zeros have signs, and NaN equals nothing.
            key: Any = (type(value), value if value == value != 0 else repr(value))
        else:
            value = real_array(value, "a constant")
            key = (value.dtype.str, value.shape, value.tobytes()) if value.nbytes <= 256 else None
        node = self.table.get(key) if key is not None else None
        if node is None:
            node = Constant(self, value)
            if key is not None:
                self.table[key] = node
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
        array = np.asarray(value)
        if array.dtype == object:
            found: Expression = stacked(array, self)
            return found
        return self.array(value if isinstance(value, np.ndarray) else array)

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


def innermost(values: Any) -> Graph | None:
    """The graph of the traced value that was traced last among `values`; None without any."""
    found: Graph | None = None
    for value in values:
        if isinstance(value, Expression):
            graph: Graph | None = value.graph
        elif isinstance(value, Equation):
            graph = innermost((value.lhs, value.rhs))
        elif isinstance(value, (list, tuple)):
            graph = innermost(value)
        elif isinstance(value, np.ndarray) and value.dtype == object:
            graph = innermost(value.flat)
        else:
            continue
        if graph is not None and (found is None or graph.depth > found.depth):
            found = graph
    return found


def stacked(array: np.ndarray[Any, Any], graph: Graph | None = None) -> Any:
    """The traced value of an object array whose entries are traced values and numbers."""
    entries = list(array.ravel())
    if array.ndim == 0 and isinstance(entries[0], Expression):
        return entries[0] if graph is None else graph.lift(entries[0])
    if not all(isinstance(e, (Expression, int, float, np.number)) for e in entries):
        odd = next(e for e in entries if not isinstance(e, (Expression, int, float, np.number)))
        raise UnsupportedType(f"an object array holds {odd!r}; expected traced values or numbers.")
    if graph is not None:
        entries = [graph.lift(e) for e in entries]
    rows: Any = np.stack(entries)
    shape = array.shape + rows.shape[1:]
    return np.reshape(rows, shape) if array.ndim != 1 else rows


class Expression(NDArrayOperatorsMixin):
    """A traced array: what a NumPy function of a program's variables returns.

    It has a shape and a dtype, and no value. Every operator and NumPy function that has a rule
    works on it; `==` states an equation.
    """

    unknown: int | None
    __slots__ = (
        "arguments",
        "dtype",
        "graph",
        "index",
        "parameters",
        "primitive",
        "shape",
        "unknown",
    )

    SEVERAL = -1  # more than one unknown

    def __init__(
        self,
        graph: Graph,
        primitive: Primitive | None,
        arguments: tuple[Expression, ...],
        parameters: tuple[Any, ...],
        shape: Shape,
        dtype: np.dtype[Any],
    ) -> None:
        self.graph = graph
        self.primitive = primitive
        self.arguments = arguments
        self.parameters = parameters
        self.shape = shape
        self.dtype = dtype
        self.index = len(graph.nodes)
        graph.nodes.append(self)
        # The one unknown that the value depends on, by its index; None for none.
        unknown = None
        for argument in arguments:
            if argument.unknown is not None and argument.unknown != unknown:
                unknown = argument.unknown if unknown is None else Expression.SEVERAL
        self.unknown = unknown

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def T(self) -> Any:  # noqa: N802
        return np.transpose(self)

    def __repr__(self) -> str:
        what = "number" if self.primitive is None else f"expression {self.primitive.name}"
        return f"<{what} of shape {self.shape}>"

    def __hash__(self) -> int:
        return id(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if len(inputs) == 1 and not kwargs and method == "__call__" and ufunc in OF_DOUBLES:
            node = self.graph.scalars(OF_DOUBLES[ufunc], inputs)
            if node is not None:
                return node
        if kwargs.pop("out", None) is not None:
            raise InPlaceUpdate(
                f"np.{ufunc.__name__} writes into an array in place (`a += t`, or `out=`), which "
                "a traced value cannot do; write `a = a + t`."
            )
        if method == "reduce" and ufunc in REDUCTIONS:
            return REDUCTIONS[ufunc](*inputs, **{"axis": 0, **kwargs})
        graph = self.graph if len(inputs) == 1 else innermost(inputs) or self.graph
        if method == "outer":
            a, b = (graph.lift(x) for x in inputs)
            return ufunc(np.reshape(a, a.shape + (1,) * b.ndim), b)
        handler = UFUNCS.get(ufunc) if method == "__call__" else None
        if handler is None:
            name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            raise UnsupportedFunction.missing(name)
        if kwargs:
            raise UnsupportedFunction(
                f"np.{ufunc.__name__}({', '.join(kwargs)}=…) is not supported on traced values; "
                "use np.where or astype instead."
            )
        return named(ufunc.__name__, handler, graph, *inputs)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        handler = FUNCTIONS.get(func)
        if handler is None:
            raise UnsupportedFunction.missing(getattr(func, "__name__", str(func)))
        if kwargs.get("out") is not None:
            raise InPlaceUpdate(f"np.{func.__name__}(out=…) writes in place; use its result.")
        kwargs.pop("out", None)
        return named(getattr(func, "__name__", "function"), handler, *args, **kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if dtype is not None and np.dtype(dtype) != object:
            raise TracedValueError(
                f"{self!r} was to become an array of numbers ({np.dtype(dtype)}), but has no "
                "value while the program is declared; use NumPy functions that have a rule."
            )
        # A 0-d object array: SciPy's `A @ t` then asks `__rmatmul__`, and np.array([t, t])
        # becomes an object array that is stacked where it enters the library.
        box = np.empty((), dtype=object)
        box[()] = self
        return box

    def __rmatmul__(self, other: Any) -> Any:
        if sparse.issparse(other):
            return FUNCTIONS[sparse.csr_array](other, self)
        return np.matmul(other, self)

    def __matmul__(self, other: Any) -> Any:
        if sparse.issparse(other):
            return np.transpose(FUNCTIONS[sparse.csr_array](other.T, np.transpose(self)))
        return np.matmul(self, other)

    def __getitem__(self, key: Any) -> Any:
        return FUNCTIONS[Expression.__getitem__](self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise InPlaceUpdate(
            "x[i] = v on a traced value; build the result with np.where, np.concatenate or "
            "np.stack instead."
        )

    def _in_place(self, other: Any) -> NoReturn:
        raise InPlaceUpdate("`x += v` on a traced value (or `-=`, `*=`, …); write `x = x + v`.")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _in_place

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeMismatch("len() of a traced scalar")
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.graph.asked(self, "bool()"))

    def __float__(self) -> float:
        return float(self.graph.asked(self, "float()"))

    def __int__(self) -> int:
        return int(self.graph.asked(self, "int()"))

    def __index__(self) -> int:
        return int(self.graph.asked(self, "an index"))

    def item(self) -> float:
        return float(self)

    def __eq__(self, other: object) -> Any:
        return self.graph.equation(self, other)

    def __getattr__(self, name: str) -> Callable[[], Any]:
        # NumPy's loops over object arrays, np.exp(np.array([t, t])), call methods of this name.
        ufunc = getattr(np, name, None)
        if isinstance(ufunc, np.ufunc) and ufunc in UFUNCS:
            return lambda *others: ufunc(self, *others)
        raise AttributeError(f"a traced value has no attribute {name!r}")

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else repr(self)


class Operation(Expression):
    """A primitive applied to other nodes.

    It stands beside `Variable` and `Constant`, not above them: Python swaps the sides of `a == b`
    where the right one's class derives from the left one's.
    """

    __slots__ = ()


class Constant(Expression):
    """A number, or a read-only array, in a graph."""

    __slots__ = ("value",)

    def __init__(self, graph: Graph, value: Any) -> None:
        weak = type(value) in NUMBERS
        shape = () if weak else value.shape
        dtype = np.result_type(value) if weak else value.dtype
        self.value = value
        super().__init__(graph, None, (), (), shape, dtype)


class Variable(Expression):
    """A named value of a program: a parameter, an unknown, or a defined one."""

    __slots__ = ("name", "role", "start")

    def __init__(
        self, graph: Graph, name: str, role: str, shape: Shape, dtype: np.dtype[Any], start: Any
    ) -> None:
        super().__init__(graph, None, (), (), shape, dtype)
        self.name = name
        self.role = role
        self.start = start

    def __repr__(self) -> str:
        return f"<{self.role} {self.name!r} of shape {self.shape}>"
