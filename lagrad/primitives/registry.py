"""How primitives are declared: the table of them, and the shapes that come up again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS, OF_DOUBLES, UFUNCS
from lagrad.expressions.expression import Constant, Expression, innermost
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import LinearMap, Scale
from lagrad.expressions.primitive import Primitive
from lagrad.typing import DType, Function, Kind, Parameters, Shape

PRIMITIVES: dict[str, Primitive] = {}


def declare(
    name: str,
    kernel: Callable[[Parameters], Function],
    infer: Callable[[tuple[Expression, ...], Parameters], Kind],
    partial: Callable[[Expression, int], LinearMap | None],
    code: Callable[[Sequence[str], Parameters], str],
    **traits: Any,
) -> Primitive:
    """A primitive, entered into the table; its traits are the other fields of `Primitive`."""
    assert name not in PRIMITIVES, name
    primitive = PRIMITIVES[name] = Primitive(name, kernel, infer, partial, code, **traits)
    return primitive


def call(name: str) -> Callable[[Sequence[str], Parameters], str]:
    """The source of a call: the arguments, then the parameters."""
    return lambda texts, parameters: f"{name}({', '.join([*texts, *map(repr, parameters)])})"


def implements(*functions: Function) -> Callable[[Function], Function]:
    """Enter a function as the traced form of NumPy's."""

    def register(handler: Function) -> Function:
        for function in functions:
            FUNCTIONS[function] = handler
        return handler

    return register


def graph_of(*values: Any) -> Graph:
    """The innermost graph among traced values, object arrays searched too."""
    graph = innermost(values)
    if graph is None:
        raise LookupError("no traced value")
    return graph


def lifted(*values: Any) -> tuple[Expression, ...]:
    """Values as nodes of one graph."""
    graph = graph_of(*values)
    return tuple(
        graph.lift(
            np.array(v, dtype=object) if isinstance(v, (list, tuple)) and has_traced(v) else v
        )
        for v in values
    )


def has_traced(values: Any) -> bool:
    """Whether a nested list holds a traced value."""
    return any(
        has_traced(v) if isinstance(v, (list, tuple)) else isinstance(v, Expression) for v in values
    )


def keyword_free(name: str, **keywords: Any) -> None:
    """Refuse keywords that a traced function does not take."""
    given = [k for k, v in keywords.items() if v is not None and v is not np._NoValue]
    if given:
        raise UnsupportedFunction(f"np.{name}({given[0]}=…) is not supported on traced values.")


@functools.lru_cache(maxsize=4096)
def ufunc_dtype(ufunc: np.ufunc, kinds: tuple[Any, ...]) -> DType:
    """The output's dtype; a Python type stands for a number of that type."""
    resolved: DType = ufunc.resolve_dtypes((*kinds, None))[-1]
    return resolved


def dtype_kind(argument: Expression) -> Any:
    """The argument's dtype, or its type for a Python number."""
    if isinstance(argument, Constant) and type(argument.value) in (int, float):
        return type(argument.value)
    return argument.dtype


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """The common shape; an error that says which function the shapes met in."""
    first = shapes[0]
    if all(s == first for s in shapes):
        return first
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        shown = ", ".join(map(str, shapes))
        raise ShapeMismatch(f"{name} of shapes {shown}: they do not broadcast together.") from None


def elementwise(
    ufunc: np.ufunc,
    *partials: Function | None,
    name: str | None = None,
    module: str = "np",
    **traits: Any,
) -> Primitive:
    """A ufunc as a primitive.

    `partials[k](y, *x)` is the derivative of the output by argument `k`, a number or an
    expression in the output and the arguments; None where it is zero almost everywhere.
    """
    name = name or ufunc.__name__
    # By the shapes and dtypes of the arguments: what has come out before.
    known: dict[Any, Kind] = {}

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        signature = tuple([(a.shape, dtype_kind(a)) for a in arguments])
        found = known.get(signature)
        if found is None:
            shape = broadcast(name, [a.shape for a in arguments])
            found = shape, ufunc_dtype(ufunc, tuple(map(dtype_kind, arguments)))
            if len(known) < 4096:
                known[signature] = found
        return found

    def partial(node: Expression, k: int) -> LinearMap | None:
        rule = partials[k]
        if rule is None:
            return None
        weight = rule(node, *node.arguments)
        return Scale(weight, node.arguments[k].shape, node.shape)

    code = call(f"{module}.{name}")
    doubles = "d" * ufunc.nin + "->d" in ufunc.types
    primitive = declare(
        name,
        lambda parameters: ufunc,
        infer,
        partial,
        code,
        elementwise=True,
        doubles=doubles,
        **traits,
    )
    if doubles:
        OF_DOUBLES[ufunc] = primitive
    UFUNCS[ufunc] = primitive
    return primitive
