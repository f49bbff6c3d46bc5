"""Reductions: `sum` and `broadcast_to`, each the other's transpose, extremes, and the rest."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Compose, LinearMap, Reindex, Scale, Transpose
from lagrad.expressions.notation import Notation, shortened
from lagrad.primitives import simplification
from lagrad.primitives.kernels import stop_gradient
from lagrad.primitives.product_maps import Running
from lagrad.primitives.registry import declare, implements, keyword_free, lifted
from lagrad.typing import DType, Parameters, Shape

NO_VALUE = np._NoValue
Axes = Shape


def normal_axis(axis: Any, ndim: int) -> Axes:
    """An axis argument as a sorted tuple of axes counted from the front."""
    if axis is None or axis is NO_VALUE:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if any(not -ndim <= a < ndim for a in axes):
        raise ShapeMismatch(f"axis {axis} of an array with {ndim} axes.")
    normal = tuple(sorted(int(a) % ndim for a in axes))
    if len(set(normal)) < len(normal):
        raise ShapeMismatch(f"axis {axis} names an axis twice.")
    return normal


def reduced_shape(shape: Shape, axes: Axes) -> Shape:
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def kept_shape(shape: Shape, axes: Axes) -> Shape:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def spread_map(shape: Shape, axes: Axes) -> Reindex:
    """The map that repeats a reduced array along the axes that were reduced."""
    kept = kept_shape(shape, axes)
    return Reindex(
        lambda t: np.broadcast_to(np.reshape(t, kept), shape),
        lambda c: np.sum(c, axis=axes),
        reduced_shape(shape, axes),
        shape,
    )


def _with_keepdims(out: Any, x: Expression, axes: Axes, keepdims: Any) -> Any:
    kept = keepdims is not NO_VALUE and bool(keepdims)
    return np.reshape(out, kept_shape(x.shape, axes)) if kept else out


def _axis_code(name: str) -> Any:
    def code(texts: Any, parameters: Parameters) -> str:
        axes = parameters[0]
        shown = axes[0] if len(axes) == 1 else axes
        return f"np.{name}({texts[0]}, axis={shown!r})"

    return code


def _of_all(name: str) -> Notation:
    """The reduction of a whole array, which needs no axes."""
    return shortened(lambda node, text: f"{name}({text})" if node.shape == () else None)


def _sum_dtype(x: Expression) -> DType:
    found: DType = np.sum(np.zeros(1, x.dtype)).dtype
    return found


sum_ = declare(
    "sum",
    lambda parameters: functools.partial(np.add.reduce, axis=parameters[0]),
    lambda arguments, parameters: (
        reduced_shape(arguments[0].shape, parameters[0]),
        arguments[0].dtype if arguments[0].dtype.kind == "f" else _sum_dtype(arguments[0]),
    ),
    lambda node, k: Transpose(spread_map(node.arguments[0].shape, node.parameters[0])),
    _axis_code("sum"),
    fresh=True,
    notation=_of_all("sum"),
)


@implements(np.sum)
def _sum(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = NO_VALUE, **rest: Any) -> Any:
    keyword_free("sum", dtype=dtype, **rest)
    (x,) = lifted(a)
    axes = normal_axis(axis, x.ndim)
    out = sum_(x.graph, x, parameters=(axes,)) if axes else x
    return _with_keepdims(out, x, axes, keepdims)


broadcast_to = declare(
    "broadcast_to",
    lambda parameters: lambda x: np.broadcast_to(x, parameters[0]),
    lambda arguments, parameters: (parameters[0], arguments[0].dtype),
    lambda node, k: Scale(1, node.arguments[0].shape, node.shape),
    lambda texts, parameters: f"np.broadcast_to({texts[0]}, {parameters[0]})",
    simplify=simplification.shaped,
    notation=lambda style, node, terms: (
        terms[0] if node.arguments[0].shape == () and not style.numpy else None
    ),
)


@implements(np.broadcast_to)
def _broadcast_to(array: Expression, shape: Any, subok: bool = False) -> Expression:
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeMismatch(f"broadcast_to of shape {array.shape} to {shape}.")
    if shape == array.shape:
        return array
    return broadcast_to(array.graph, array, parameters=(shape,))


@implements(np.mean)
def _mean(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = NO_VALUE, **rest: Any
) -> Any:
    keyword_free("mean", dtype=dtype, **rest)
    (x,) = lifted(a)
    count = math.prod(x.shape[i] for i in normal_axis(axis, x.ndim))
    return np.sum(x, axis=axis, keepdims=keepdims) / count


@implements(np.prod)
def _prod(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = NO_VALUE, **rest: Any
) -> Any:
    # A balanced tree of products: each half's derivative is the other half, so the leave-one-out
    # product comes out of prefixes and suffixes, in linear time, and never out of a division.
    keyword_free("prod", dtype=dtype, **rest)
    (x,) = lifted(a)
    axes = normal_axis(axis, x.ndim)
    others = [i for i in range(x.ndim) if i not in axes]
    factors = np.reshape(np.transpose(x, [*axes, *others]), (-1, *reduced_shape(x.shape, axes)))
    if factors.shape[0] == 0:
        return np.ones(factors.shape[1:], x.dtype)
    while (n := factors.shape[0]) > 1:
        half = n // 2
        odd = factors[2 * half :]
        factors = factors[:half] * factors[half : 2 * half]
        if n % 2:
            factors = np.concatenate([factors, odd])
    return _with_keepdims(factors[0], x, axes, keepdims)


def _extreme(name: str, function: Any) -> None:
    """`max` or `min`, whose derivative is shared equally among equal extremes."""

    def partial(node: Expression, k: int) -> LinearMap:
        (x,), (axes,) = node.arguments, node.parameters
        # Of the entries as they are here: the value itself may have been computed elsewhere, and
        # differ in its last bit.
        top = primitive(node.graph, stop_gradient(x), parameters=(axes,))
        hit = np.where(np.equal(x, np.reshape(top, kept_shape(x.shape, axes))), 1.0, 0.0)
        hit = hit.astype(x.dtype)
        weight = hit / np.sum(hit, axis=axes, keepdims=True)
        return Compose(Transpose(spread_map(x.shape, axes)), Scale(weight, x.shape, x.shape))

    primitive = declare(
        name,
        lambda parameters: lambda x: function(x, axis=parameters[0]),
        lambda arguments, parameters: (
            reduced_shape(arguments[0].shape, parameters[0]),
            arguments[0].dtype,
        ),
        partial,
        _axis_code(name),
        kink=True,
        notation=_of_all(name),
    )

    @implements(function)
    def traced(
        a: Any, axis: Any = None, keepdims: Any = NO_VALUE, initial: Any = None, **rest: Any
    ) -> Any:
        keyword_free(name, initial=initial, **rest)
        (x,) = lifted(a)
        axes = normal_axis(axis, x.ndim)
        if any(x.shape[i] == 0 for i in axes):
            raise ShapeMismatch(f"{name} over an axis of length zero, of shape {x.shape}.")
        return _with_keepdims(primitive(x.graph, x, parameters=(axes,)), x, axes, keepdims)


_extreme("max", np.max)
_extreme("min", np.min)


@implements(np.var)
def _var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: Any = 0,
    keepdims: Any = NO_VALUE,
    **rest: Any,
) -> Any:
    keyword_free("var", dtype=dtype, **rest)
    (x,) = lifted(a)
    count = math.prod(x.shape[i] for i in normal_axis(axis, x.ndim))
    centred = x - np.mean(x, axis=axis, keepdims=True)
    return np.sum(np.square(centred), axis=axis, keepdims=keepdims) / (count - ddof)


@implements(np.std)
def _std(a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, **rest: Any) -> Any:
    return np.sqrt(np.var(a, axis=axis, dtype=dtype, ddof=ddof, **rest))


@implements(np.average)
def _average(
    a: Any, axis: Any = None, weights: Any = None, keepdims: Any = NO_VALUE, **rest: Any
) -> Any:
    keyword_free("average", **{k: v or None for k, v in rest.items()})
    if weights is None:
        return np.mean(a, axis=axis, keepdims=keepdims)
    x, w = lifted(a, weights)
    spread: Any = w
    if w.shape != x.shape:
        given = axis if isinstance(axis, tuple) else (axis,)
        axes = normal_axis(axis, x.ndim)
        if axis is None or w.shape != tuple(x.shape[i] for i in given):
            raise ShapeMismatch(f"average of shape {x.shape} with weights of shape {w.shape}.")
        spread = np.transpose(w, np.argsort([i % x.ndim for i in given]))
        spread = np.reshape(spread, tuple(n if i in axes else 1 for i, n in enumerate(x.shape)))
        spread = np.broadcast_to(spread, x.shape)
    total = np.sum(spread, axis=axis, keepdims=keepdims)
    return np.sum(x * spread, axis=axis, keepdims=keepdims) / total


@implements(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    (x,) = lifted(x)
    axes = normal_axis(axis, x.ndim)
    over: dict[str, Any] = {"axis": axes, "keepdims": keepdims}
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return np.sqrt(np.sum(np.square(x), **over))
    if len(axes) == 1 and isinstance(ord, (int, float)):
        if ord == math.inf:
            return np.max(np.abs(x), **over)
        if ord == -math.inf:
            return np.min(np.abs(x), **over)
        if ord == 1:
            return np.sum(np.abs(x), **over)
        if ord != 0:
            return np.sum(np.abs(x) ** ord, **over) ** (1.0 / ord)
    raise UnsupportedFunction(
        f"np.linalg.norm(ord={ord!r}) over {len(axes)} axes is not supported on traced values."
    )


cumsum = declare(
    "cumsum",
    lambda parameters: lambda x: np.cumsum(x, axis=parameters[0]),
    lambda arguments, parameters: (arguments[0].shape, arguments[0].dtype),
    lambda node, k: Running(node.parameters[0], node.shape),
    lambda texts, parameters: f"np.cumsum({texts[0]}, axis={parameters[0]})",
)


@implements(np.cumsum)
def _cumsum(a: Any, axis: Any = None, dtype: Any = None) -> Expression:
    keyword_free("cumsum", dtype=dtype)
    x: Any = lifted(a)[0]
    if axis is None:
        x, axis = np.ravel(x), 0
    return cumsum(x.graph, x, parameters=normal_axis(axis, x.ndim))
