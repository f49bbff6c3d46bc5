"""The traced value: a node in a graph of primitives, written in NumPy."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse as sparse
from numpy.lib.mixins import NDArrayOperatorsMixin

from lagrad.errors import (
    InPlaceUpdate,
    InvalidEquation,
    LagradError,
    ShapeMismatch,
    TracedValueError,
    UnsupportedFunction,
)
from lagrad.expressions.dispatch import FUNCTIONS, REDUCTIONS, UFUNCS
from lagrad.public import Public
from lagrad.typing import DType, Function, Parameters, Shape

if TYPE_CHECKING:
    from lagrad.expressions.graph import Graph
    from lagrad.expressions.primitive import Primitive


def named(name: str, handler: Function, *args: Any, **kwargs: Any) -> Any:
    """A handler's result; what it cannot take becomes an error with the function's name."""
    try:
        return handler(*args, **kwargs)
    except LagradError:
        raise
    except (TypeError, LookupError) as error:
        raise UnsupportedFunction(f"np.{name} of traced values: {error}") from error
    except ValueError as error:
        raise ShapeMismatch(f"np.{name} of traced values: {error}") from error


class Equation:
    """`lhs == rhs` between traced values, to be given to `Program.subject_to`."""

    __slots__ = ("lhs", "rhs")

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.lhs = lhs
        self.rhs = rhs

    def __repr__(self) -> str:
        return f"{self.lhs!r} == {self.rhs!r}"

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise InvalidEquation.used_as_value(self)

    def __bool__(self) -> bool:
        raise TracedValueError(
            f"the equation {self!r} has no truth value while the program is declared; "
            "state it with subject_to, or compare with np.equal inside np.where."
        )


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


# The largest array that is taken apart.
ENTRIES = 2**16


class Expression(Public, NDArrayOperatorsMixin):
    """A traced array: what a NumPy function of a program's variables returns.

    It has a shape and a dtype, and no value. Every operator and NumPy function that has a rule
    works on it; `==` states an equation.
    """

    # Arrays' methods come with `array_methods.py`.
    PUBLIC: ClassVar[tuple[str, ...]] = ("T", "dtype", "item", "ndim", "shape", "size")
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
        parameters: Parameters,
        shape: Shape,
        dtype: DType,
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
        # A cache may hold it; a set of numbers does not find it among them.
        self.graph.handed = True
        return id(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        handler: Any = UFUNCS.get(ufunc) if method == "__call__" else None
        single = len(inputs) == 1
        # A function of one scalar goes past all else: a program may have millions of them.
        if single and not kwargs and getattr(handler, "doubles", False):
            node = self.graph.scalars(handler, inputs)
            if node is not None:
                return node
        graph = self.graph if single else innermost(inputs) or self.graph
        if handler is not None and not kwargs:
            return named(ufunc.__name__, handler, graph, *inputs)
        if kwargs.pop("out", None) is not None:
            raise InPlaceUpdate(
                f"np.{ufunc.__name__} writes into an array in place (`a += t`, or `out=`), which "
                "a traced value cannot do; write `a = a + t`."
            )
        if method == "reduce" and ufunc in REDUCTIONS:
            return REDUCTIONS[ufunc](*inputs, **{"axis": 0, **kwargs})
        if method == "outer":
            a, b = (graph.lift(x) for x in inputs)
            return ufunc(np.reshape(a, a.shape + (1,) * b.ndim), b)
        if handler is None:
            name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            raise UnsupportedFunction.missing(name)
        raise UnsupportedFunction(
            f"np.{ufunc.__name__}({', '.join(kwargs)}=…) is not supported on traced values; "
            "use np.where or astype instead."
        )

    def __array_function__(self, func: Function, types: Any, args: Any, kwargs: Any) -> Any:
        handler = FUNCTIONS.get(func)
        if handler is None:
            raise UnsupportedFunction.missing(getattr(func, "__name__", str(func)))
        if kwargs.pop("out", None) is not None:
            raise InPlaceUpdate(f"np.{func.__name__}(out=…) writes in place; use its result.")
        return named(getattr(func, "__name__", "function"), handler, *args, **kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if dtype is not None and np.dtype(dtype) != object:
            raise TracedValueError(
                f"{self!r} was to become an array of numbers ({np.dtype(dtype)}), but has no "
                "value while it is traced; make arrays of such by np.stack or np.block, and use "
                "NumPy functions that have a rule."
            )
        self.graph.handed = True
        # `A @ t` with a sparse A asks `t.__rmatmul__` only where A finds no axes.
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if not self.shape or asking.startswith("scipy.sparse._"):
            whole = np.empty((), dtype=object)
            whole[()] = self
            return whole
        # Its shape, length and size are true, and arithmetic goes on entry by entry; an array of
        # them is stacked where it enters the library.
        if self.size > ENTRIES:
            raise TracedValueError(
                f"{self!r} was to become a NumPy array, whose {self.size} entries would be traced "
                "one by one; leave out np.asarray or np.array: NumPy's functions take it as it is."
            )
        entries = FUNCTIONS[Expression.__array__](self)
        if entries:
            self.graph.apart[entries[0].index] = self, entries
        array = np.empty(self.size, dtype=object)
        for k, entry in enumerate(entries):
            array[k] = entry
        return array.reshape(self.shape)

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

    def _in_place(self, other: Any) -> Any:
        if self.shape == ():
            return NotImplemented  # a number has no place: `x += v` is `x = x + v`
        raise InPlaceUpdate(
            "`x += v` on a traced array (or `-=`, `*=`, …), which other names may hold too; "
            "write `x = x + v`."
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _in_place
    __ifloordiv__ = __imod__ = __iand__ = __ior__ = __ixor__ = _in_place

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

    def reshape(self, *shape: Any, order: Any = "C") -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else (axes or None))

    def astype(self, dtype: Any) -> Any:
        return FUNCTIONS[np.astype](self, dtype)

    def copy(self, *memo: Any) -> Expression:
        """The value itself: traced values never change."""
        return self

    __copy__ = __deepcopy__ = copy

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


class Application(Expression):
    """A primitive applied to other nodes.

    It stands beside `Variable` and `Constant`, not above them: Python swaps the sides of `a == b`
    where the right one's class derives from the left one's.
    """

    __slots__ = ()


class Constant(Expression):
    """A number, or a read-only array, in a graph.

    Attributes
    ----------
    value : float, int, bool or ndarray
    made : callable or None
        Where it is rounded from other constants: what it is in another precision.
    """

    __slots__ = ("made", "value")

    def __init__(
        self, graph: Graph, value: Any, made: Callable[[DType], Any] | None = None
    ) -> None:
        self.value, self.made = value, made
        super().__init__(graph, None, (), (), getattr(value, "shape", ()), np.result_type(value))


class Variable(Expression):
    """A named value of a program: a parameter, an unknown, or a defined one."""

    PUBLIC = ("name",)
    __slots__ = ("apart", "derivative", "name", "role", "scale", "start")

    def __init__(
        self, graph: Graph, name: str, role: str, shape: Shape, dtype: DType, start: Any
    ) -> None:
        super().__init__(graph, None, (), (), shape, dtype)
        self.name = name
        self.role = role
        self.start = start
        self.scale: Any = 0.0  # below which an unknown is as good as zero
        # Where each entry counts for itself, as a scalar does: which block it would be in.
        self.apart: Any = None
        self.derivative = False  # whether it is a multiplier, or a derivative otherwise

    def __repr__(self) -> str:
        return f"<{self.role} {self.name!r} of shape {self.shape}>"
