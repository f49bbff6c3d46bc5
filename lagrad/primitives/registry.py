"""How primitives are declared: the table of them, and the shapes that come up again."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS, UFUNCS
from lagrad.expressions.expression import Constant, Expression, innermost
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import Chosen, LinearMap, Scale
from lagrad.expressions.primitive import Primitive
from lagrad.plain_text import literal
from lagrad.typing import DType, Function, Kind, Parameters, Shape

# An operation as NumPy source, of the arguments and the parameters.
Code = Callable[[Sequence[str], Parameters], str]

PRIMITIVES: dict[str, Primitive] = {}


def declare(primitive: Primitive) -> Primitive:
    """A primitive, entered into the table."""
    assert primitive.name not in PRIMITIVES, primitive.name
    PRIMITIVES[primitive.name] = primitive
    return primitive


def unary(
    name: str,
    function: Function,
    partial: Callable[..., LinearMap | None] | None = None,
    shape: Callable[..., Shape] = lambda shape, *parameters: shape,
    dtype: Callable[..., DType] = lambda dtype, *parameters: dtype,
    code: Code | str | None = None,
    kernel: Callable[[Parameters], Function] | None = None,
    **traits: Any,
) -> Primitive:
    """A primitive of one array, `function(x, *parameters)`.

    `shape(x.shape, *parameters)` and `dtype(x.dtype, *parameters)` are those of the value, the
    array's own by default; `partial(y, x, *parameters)` is the linear map, None where it is zero.
    A `code` that is a string is filled in with the argument and the parameters.
    """

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        (x,) = arguments
        return shape(x.shape, *parameters), dtype(x.dtype, *parameters)

    def rule(node: Expression, k: int) -> LinearMap | None:
        return None if partial is None else partial(node, node.arguments[0], *node.parameters)

    code = call(f"np.{name}") if code is None else code
    code = written(code) if isinstance(code, str) else code
    return declare(Primitive(name, kernel or bound(function), infer, rule, code, **traits))


def nary(
    name: str,
    kernel: Callable[[Parameters], Function],
    shape: Callable[..., Shape],
    partial: Callable[[Expression, int], LinearMap],
    code: Code,
    dtype: Callable[..., DType] | None = None,
    **traits: Any,
) -> Primitive:
    """A primitive of several arrays.

    `shape(shapes, *parameters)` is that of the value, and `dtype(*dtypes)` its dtype: that of
    floats by default.
    """

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        shapes, dtypes = zip(*[(a.shape, a.dtype) for a in arguments], strict=True)
        return shape(shapes, *parameters), (dtype or floating)(*dtypes)

    return declare(Primitive(name, kernel, infer, partial, code, **traits))


def bound(function: Function) -> Callable[[Parameters], Function]:
    """A kernel: a function of arrays, then of the parameters."""
    return lambda parameters: (lambda x: function(x, *parameters)) if parameters else function


def call(name: str) -> Code:
    """The source of a call: the arguments, then the parameters."""
    return lambda texts, parameters: f"{name}({', '.join([*texts, *map(literal, parameters)])})"


def written(template: str) -> Code:
    """The source with the arguments, then the parameters, in the places of a template."""
    return lambda texts, parameters: template.format(*texts, *map(literal, parameters))


def floating(*dtypes: Any) -> DType:
    """The common dtype of what has values of floats only, whole numbers as arguments or not."""
    return np.result_type(*dtypes, np.float32)


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

    def nested(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and innermost(value) is not None

    return tuple(graph.lift(np.array(v, dtype=object) if nested(v) else v) for v in values)


def keyword_free(name: str, **keywords: Any) -> None:
    """Refuse keywords that a traced function does not take."""
    given = [k for k, v in keywords.items() if v is not None and v is not np._NoValue]
    if given:
        raise UnsupportedFunction(f"np.{name}({given[0]}=…) is not supported on traced values.")


def dtype_kind(argument: Expression) -> Any:
    """The argument's dtype, or its type for a Python number."""
    if isinstance(argument, Constant) and type(argument.value) in (int, float):
        return type(argument.value)
    return argument.dtype


def promoted(*kinds: Any) -> DType:
    """The common dtype of kinds; a Python number takes that of what it meets."""
    return np.result_type(*(k() if isinstance(k, type) else k for k in kinds))


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """The common shape; an error that says which function the shapes met in."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        shown = ", ".join(map(str, shapes))
        raise ShapeMismatch(f"{name} of shapes {shown}: they do not broadcast together.") from None


def entrywise(
    name: str,
    function: Function,
    partials: Sequence[Function | float | None],
    dtype: Callable[..., DType],
    called: str,
    **traits: Any,
) -> Primitive:
    """A primitive that makes each entry of its value of one entry of each argument.

    `partials[k](y, *x)` is the derivative of the output by argument `k`, an expression in the
    output and the arguments, or a number in its place; None where it is zero almost everywhere,
    and no `partials` where all of them are. `dtype(*kinds)` is the value's dtype.
    """

    @functools.lru_cache(maxsize=4096)
    def known(*signature: tuple[Shape, Any]) -> Kind:
        shapes, kinds = zip(*signature, strict=True)
        return broadcast(name, shapes), dtype(*kinds)

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        return known(*[(a.shape, dtype_kind(a)) for a in arguments])

    def partial(node: Expression, k: int) -> LinearMap | None:
        rule = partials[k] if partials else None
        if rule is None:
            return None
        weight = rule(node, *node.arguments) if callable(rule) else rule
        made_by = weight.primitive if isinstance(weight, Expression) else None
        form = Chosen if made_by is not None and made_by.share else Scale
        return form(weight, node.arguments[k].shape, node.shape)

    kernel = lambda parameters: function
    code = call(called)
    return declare(Primitive(name, kernel, infer, partial, code, elementwise=True, **traits))


def elementwise(
    ufunc: np.ufunc,
    *partials: Function | float | None,
    name: str | None = None,
    module: str = "np",
    **traits: Any,
) -> Primitive:
    """A ufunc as a primitive."""
    name = name or ufunc.__name__
    dtype = lambda *kinds: ufunc.resolve_dtypes((*kinds, None))[-1]
    doubles = "d" * ufunc.nin + "->d" in ufunc.types
    code = f"{module}.{name}"
    primitive = entrywise(name, ufunc, partials, dtype, code, doubles=doubles, **traits)
    UFUNCS[ufunc] = primitive
    return primitive
