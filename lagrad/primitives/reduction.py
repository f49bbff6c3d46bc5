"""Reductions: `sum` and `broadcast_to`, each the other's transpose, extremes, and the rest."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Compose, LinearMap, Reindex, Scale, Transpose
from lagrad.expressions.notation import shortened
from lagrad.expressions.primitive import Primitive
from lagrad.plain_text import literal
from lagrad.primitives.kernels import extreme_share
from lagrad.primitives.product_maps import Running
from lagrad.primitives.registry import Code, implements, keyword_free, lifted, unary
from lagrad.typing import Function, Parameters, Shape

NO_VALUE = np._NoValue
Axes = Shape


def normal_axis(axis: Any, ndim: int) -> Axes:
    """An axis argument as a sorted tuple of axes counted from the front."""
    if axis is None or axis is NO_VALUE:
        return tuple(range(ndim))
    try:
        return tuple(sorted(normalize_axis_tuple(axis, ndim)))
    except ValueError as error:
        raise ShapeMismatch(f"axis {axis} of an array with {ndim} axes: {error}.") from None


def reduced_shape(shape: Shape, axes: Axes) -> Shape:
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def kept_shape(shape: Shape, axes: Axes) -> Shape:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def total_map(shape: Shape, axes: Axes, weight: Any = None) -> LinearMap:
    """The sum over axes, of what is weighted before where there is a weight."""
    kept = kept_shape(shape, axes)
    spread = lambda t: np.broadcast_to(np.reshape(t, kept), shape)
    add = lambda c: np.sum(c, axis=axes)
    total = Transpose(Reindex(spread, add, reduced_shape(shape, axes), shape))
    return total if weight is None else Compose(total, Scale(weight, shape, shape))


def _axis_code(name: str) -> Code:
    def code(texts: Sequence[str], parameters: Parameters) -> str:
        (axes,) = parameters
        return f"np.{name}({texts[0]}, axis={literal(axes[0] if len(axes) == 1 else axes)})"

    return code


def reduction(
    name: str, function: Function, partial: Function, code: str | None = None, **traits: Any
) -> Primitive:
    """A primitive that reduces an array over some axes; of a whole array it is written short."""
    return unary(
        name,
        function,
        partial,
        reduced_shape,
        code=code or _axis_code(name),
        notation=shortened(lambda node, text: f"{name}({text})" if node.shape == () else None),
        **traits,
    )


def reduces(function: Function, *options: str) -> Callable[[Function], Function]:
    """Enter `reduce(x, axes, **options)` as the traced form of NumPy's, which keeps axes too."""

    def register(reduce: Function) -> Function:
        @implements(function)
        def traced(
            a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = NO_VALUE, **rest: Any
        ) -> Any:
            given = {name: rest.pop(name) for name in options if name in rest}
            keyword_free(function.__name__, dtype=dtype, **rest)
            (x,) = lifted(a)
            axes = normal_axis(axis, x.ndim)
            out = reduce(x, axes, **given)
            kept = keepdims is not NO_VALUE and keepdims
            return np.reshape(out, kept_shape(x.shape, axes)) if kept else out

        return reduce

    return register


# Terms of one sum from which single precision needs them in pairs, or a wider precision.
MANY = 1024


def total(a: Any, axes: Axes) -> Any:
    """A sum over axes; NumPy adds row to row where it does not add neighbours, these in pairs."""
    if a.ndim > 1 and a.dtype == np.float32 and a.size >= MANY:
        neighbours = a.flags.c_contiguous and axes in (tuple(range(a.ndim)), (a.ndim - 1,))
        if not neighbours and math.prod(a.shape[k] for k in axes) >= MANY:
            return np.add.reduce(a, axes, dtype=float).astype(np.float32)[()]
    return np.add.reduce(a, axes)


sum_ = reduction(
    "sum",
    total,
    lambda y, x, axes: total_map(x.shape, axes),
    dtype=lambda dtype, axes: dtype if dtype.kind == "f" else np.sum(np.zeros(1, dtype)).dtype,
    fresh=True,
)


reduces(np.sum)(lambda x, axes: sum_(x.graph, x, parameters=(axes,)) if axes else x)
broadcast_to = unary(
    "broadcast_to",
    np.broadcast_to,
    lambda y, x, shape: Scale(1, x.shape, shape),
    lambda given, shape: shape,
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


def _count(x: Expression, axes: Axes) -> int:
    return math.prod(x.shape[i] for i in axes)


reduces(np.mean)(lambda x, axes: np.sum(x, axis=axes) / _count(x, axes))


@reduces(np.prod)
def _prod(x: Expression, axes: Axes) -> Any:
    # A balanced tree of products: each half's derivative is the other half, so the leave-one-out
    # product comes out of prefixes and suffixes, in linear time, and never out of a division.
    others = [i for i in range(x.ndim) if i not in axes]
    shape = (_count(x, axes), *reduced_shape(x.shape, axes))
    factors = np.reshape(np.transpose(x, [*axes, *others]), shape)
    if factors.shape[0] == 0:
        return np.ones(factors.shape[1:], x.dtype)
    while (n := factors.shape[0]) > 1:
        half = n // 2
        odd = factors[2 * half :]
        factors = factors[:half] * factors[half : 2 * half]
        if n % 2:
            factors = np.concatenate([factors, odd])
    return factors[0]


_share = unary(
    "extreme_share",
    extreme_share,
    code="_extreme_share({0}, {1}, {2})",
    ties=lambda y: np.logical_and(np.greater(y, 0), np.less(y, 1)),
    fresh=True,
)


@implements(extreme_share)
def _shared(x: Expression, axes: Axes, largest: bool) -> Expression:
    return _share(x.graph, x, parameters=(axes, largest))


def _extreme(name: str, function: Any) -> None:
    """`max` or `min`, whose derivative is shared equally among equal extremes."""

    def partial(y: Expression, x: Expression, axes: Axes) -> LinearMap:
        # Of the entries as they are here: the value itself may have been computed elsewhere, and
        # differ in its last bit.
        return total_map(x.shape, axes, extreme_share(x, axes, name == "max"))

    primitive = reduction(name, function, partial, kink=True)

    @reduces(function)
    def reduce(x: Expression, axes: Axes) -> Expression:
        if _count(x, axes) == 0:
            raise ShapeMismatch(f"{name} over an axis of length zero, of shape {x.shape}.")
        return primitive(x.graph, x, parameters=(axes,))


_extreme("max", np.max)
_extreme("min", np.min)


@reduces(np.var, "ddof")
def _var(x: Expression, axes: Axes, ddof: Any = 0) -> Any:
    centred = x - np.mean(x, axis=axes, keepdims=True)
    return np.sum(np.square(centred), axis=axes) / (_count(x, axes) - ddof)


implements(np.std)(lambda *args, **kwargs: np.sqrt(np.var(*args, **kwargs)))


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
        given = [] if axis is None else [normal_axis(i, x.ndim)[0] for i in np.atleast_1d(axis)]
        if not given or w.shape != tuple(x.shape[i] for i in given):
            raise ShapeMismatch(f"average of shape {x.shape} with weights of shape {w.shape}.")
        others = [i for i in range(x.ndim) if i not in given]
        spread = np.expand_dims(np.transpose(w, np.argsort(given)), others)
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
        if ord > 0 and not _count(x, axes):
            return np.sum(x, **over)
        if abs(ord) == math.inf:
            return (np.max if ord > 0 else np.min)(np.abs(x), **over)
        if ord == 1:
            return np.sum(np.abs(x), **over)
        if ord != 0:
            return np.sum(np.abs(x) ** ord, **over) ** (1.0 / ord)
    raise UnsupportedFunction(
        f"np.linalg.norm(ord={ord!r}) over {len(axes)} axes is not supported on traced values."
    )


def running_sums(a: Any, axis: int) -> Any:
    """Cumulative sums; of single precision rounded at the end, since they have no pairs to add."""
    if getattr(a, "dtype", None) == np.float32:
        return np.cumsum(a, axis, dtype=float).astype(np.float32)
    return np.cumsum(a, axis)


cumsum = unary(
    "cumsum",
    running_sums,
    lambda y, x, axis: Running(axis, x.shape),
    code="np.cumsum({0}, axis={1})",
)


@implements(np.cumsum)
def _cumsum(a: Any, axis: Any = None, dtype: Any = None) -> Expression:
    keyword_free("cumsum", dtype=dtype)
    x: Any = lifted(a)[0]
    if axis is None:
        x, axis = np.ravel(x), 0
    return cumsum(x.graph, x, parameters=normal_axis(axis, x.ndim))
