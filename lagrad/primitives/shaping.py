"""NumPy's shaping functions, in terms of a few primitives.

What has no quick road of its own is a gather, found by running the positions of the input through
NumPy's function.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import InPlaceUpdate, ShapeMismatch, UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import LinearMap, Reindex
from lagrad.plain_text import literal
from lagrad.primitives.indexing import moved, probe, reshape, transpose
from lagrad.primitives.kernels import decode_key, embed, stop_gradient
from lagrad.primitives.reduction import normal_axis
from lagrad.primitives.registry import implements, keyword_free, lifted, nary, unary
from lagrad.typing import Function, Shape


def _by_axes(x: Expression, move: Function, name: str) -> Any:
    """What permutes axes: of lengths 2, 3, 4, … without memory they tell where each one goes."""
    marked = move(probe(tuple(range(2, x.ndim + 2))))
    return np.transpose(x, [n - 2 for n in marked.shape])


def _by_reshaping(x: Expression, move: Function, name: str) -> Any:
    """What adds or drops axes of length one."""
    try:
        return np.reshape(x, move(probe(x.shape)).shape)
    except ValueError as error:
        raise ShapeMismatch(f"{name} of shape {x.shape}: {error}") from None


def _called(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call as source, where its constants are short."""
    try:
        rest = [*map(literal, args), *(f"{k}={literal(v)}" for k, v in kwargs.items())]
    except TypeError:  # an array
        return ""
    written = f"np.{name}({', '.join(['{0}', *rest])})"
    return written if len(written) < 80 else ""


def _moves(name: str, road: Callable[..., Any]) -> None:
    """Enter a NumPy function of one array and of constants that only moves entries about."""
    function = getattr(np, name)

    @implements(function)
    def traced(a: Any, *args: Any, **kwargs: Any) -> Any:
        (x,) = lifted(a)
        move = lambda array: function(array, *args, **kwargs)
        if road is not moved:
            return road(x, move, name)
        return moved(x, move, _called(name, args, kwargs))


ROADS: dict[Callable[..., Any], str] = {
    moved: "roll tile repeat diag diagonal take take_along_axis",
    _by_axes: "swapaxes moveaxis rollaxis",
    _by_reshaping: "expand_dims squeeze atleast_1d atleast_2d atleast_3d",
}
for _road, _names in ROADS.items():
    for _name in _names.split():
        _moves(_name, _road)


@implements(np.pad)
def _pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    (x,) = lifted(array)
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise UnsupportedFunction(f"np.pad(mode={mode!r}) is not supported on traced values.")
    if mode != "constant":
        return moved(x, lambda i: np.pad(i, pad_width, mode=mode, **kwargs))
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    if any(w < 0 for pair in widths for w in pair):
        raise ShapeMismatch(f"np.pad of shape {x.shape} with negative widths {widths}.")
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, widths, strict=True))
    key = tuple((a, a + n, None) for n, (a, _) in zip(x.shape, widths, strict=True))
    padded = embed(x, key, shape)
    values = kwargs.get("constant_values", 0)
    if np.any(values):
        padded = padded + np.pad(np.zeros(x.shape), pad_width, constant_values=values)
    return padded


@implements(np.reshape)
def _traced_reshape(a: Any, /, shape: Any = None, order: str = "C", **rest: Any) -> Any:
    keyword_free("reshape", **rest)
    (x,) = lifted(a)
    if order == "F":  # entries by columns: those of the transpose by rows
        back = shape if isinstance(shape, (int, np.integer)) else tuple(shape)[::-1]
        return np.transpose(np.reshape(np.transpose(x), back))
    if order not in ("C", "A"):
        said = "only 'C', 'F' and 'A', which is 'C' for them"
        raise UnsupportedFunction(f"np.reshape(order={order!r}) on traced values; {said}.")
    given = (shape,) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
    known = math.prod(n for n in given if n != -1)
    wanted = tuple(x.size // known if n == -1 and known else int(n) for n in given)
    if math.prod(wanted) != x.size or given.count(-1) > 1 or min(wanted, default=0) < 0:
        raise ShapeMismatch(f"reshape of shape {x.shape} to {given}.")
    return x if wanted == x.shape else reshape(x.graph, x, parameters=(wanted,))


@implements(np.ravel)
def _ravel(a: Any, order: str = "C") -> Any:
    return np.reshape(a, (-1,), order=order)  # type: ignore[call-overload]


@implements(np.transpose)
def _traced_transpose(a: Any, axes: Any = None) -> Any:
    (x,) = lifted(a)
    axes = range(x.ndim)[::-1] if axes is None else axes
    axes = tuple(int(i) % x.ndim if -x.ndim <= i < x.ndim else -1 for i in axes)
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeMismatch(f"transpose of shape {x.shape}: the axes are no permutation.")
    still = axes == tuple(range(x.ndim))
    return x if still else transpose(x.graph, x, parameters=(axes,))


@implements(np.flip)
def _flip(m: Any, axis: Any = None) -> Any:
    (x,) = lifted(m)
    axes = normal_axis(axis, x.ndim)
    return x[tuple(slice(None, None, -1 if i in axes else None) for i in range(x.ndim))]


def _concatenate_partial(node: Expression, k: int) -> LinearMap:
    (axis,), source = node.parameters, node.arguments[k].shape
    start = sum(a.shape[axis] for a in node.arguments[:k])
    part = (start, start + source[axis], None)
    key = tuple(part if i == axis else (None,) * 3 for i in range(node.ndim))
    embedded = lambda t: embed(t, key, node.shape)
    return Reindex(embedded, operator.itemgetter(decode_key(key)), source, node.shape)


def _concatenate_shape(shapes: Sequence[Shape], axis: int) -> Shape:
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


_concatenate = nary(
    "concatenate",
    lambda parameters: lambda *parts: np.concatenate(parts, *parameters),
    _concatenate_shape,
    _concatenate_partial,
    lambda texts, parameters: f"np.concatenate([{', '.join(texts)}], axis={parameters[0]})",
    np.result_type,
)


@implements(np.concatenate)
def _traced_concatenate(arrays: Any, axis: Any = 0, casting: Any = None, **rest: Any) -> Any:
    keyword_free("concatenate", **rest)
    parts: list[Any] = list(lifted(*arrays))
    if axis is None:
        parts, axis = [np.ravel(p) for p in parts], 0
    (axis,) = normal_axis(axis, parts[0].ndim)
    frames = {p.shape[:axis] + p.shape[axis + 1 :] for p in parts if p.ndim > axis}
    if len(frames) != 1 or len({p.ndim for p in parts}) != 1:
        shown = ", ".join(str(p.shape) for p in parts)
        raise ShapeMismatch(f"concatenate along axis {axis} of shapes {shown}.")
    return parts[0] if len(parts) == 1 else _concatenate(parts[0].graph, *parts, parameters=(axis,))


@implements(np.stack)
def _stack(arrays: Any, axis: int = 0, **rest: Any) -> Any:
    arrays = [a if isinstance(a, Expression) else np.asarray(a) for a in arrays]
    if len({a.shape for a in arrays}) > 1:
        raise ShapeMismatch(f"stack of shapes {', '.join(str(a.shape) for a in arrays)}.")
    return np.concatenate([np.expand_dims(a, axis) for a in arrays], axis=axis)


@implements(np.vstack)
def _vstack(tup: Any, **rest: Any) -> Any:
    return np.concatenate([np.atleast_2d(a) for a in tup], axis=0)


@implements(np.hstack)
def _hstack(tup: Any, **rest: Any) -> Any:
    arrays = [np.atleast_1d(a) for a in tup]
    return np.concatenate(arrays, axis=0 if arrays[0].ndim == 1 else 1)


@implements(np.block)
def _block(arrays: Any) -> Any:
    """Nested lists joined, the innermost along the last axis, those around them before it."""
    shapes: list[Shape] = []

    def depth(part: Any) -> int:
        if isinstance(part, list):
            return 1 + max(map(depth, part), default=0)
        shapes.append(np.shape(part))
        return 0

    def nothing(part: Any) -> Any:
        nested = isinstance(part, list)
        return [nothing(p) for p in part] if nested else np.broadcast_to(0.0, np.shape(part))

    try:
        np.block(nothing(arrays))
    except (TypeError, ValueError) as error:
        raise ShapeMismatch(f"np.block of these arrays: {error}") from None
    levels = depth(arrays)
    rank = max(levels, *map(len, shapes))

    def joined(part: Any, level: int) -> Any:
        if isinstance(part, list):
            return np.concatenate([joined(p, level - 1) for p in part], axis=-level)
        return np.reshape(part, (1,) * (rank - np.ndim(part)) + np.shape(part))

    return joined(arrays, levels)


@implements(np.split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    (x,) = lifted(ary)
    (axis,) = normal_axis(axis, x.ndim)
    try:
        pieces = np.split(np.arange(x.shape[axis]), indices_or_sections)
    except ValueError as error:
        raise ShapeMismatch(f"split of shape {x.shape} along axis {axis}: {error}") from None
    lead = (slice(None),) * axis
    # Pieces are runs of neighbours, empty ones included.
    ends = [(int(p[0]), int(p[-1]) + 1) if len(p) else (0, 0) for p in pieces]
    return [x[(*lead, slice(first, last))] for first, last in ends]


def _triangle(function: Any) -> None:
    @implements(function)
    def traced(m: Any, k: int = 0) -> Any:
        (x,) = lifted(m)
        return np.where(function(np.ones(x.shape, dtype=bool), k), x, 0)


_triangle(np.tril)
_triangle(np.triu)


@implements(np.trace)
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, **rest: Any) -> Any:
    keyword_free("trace", **rest)
    return np.sum(np.diagonal(a, offset, axis1, axis2), axis=-1)


@implements(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1, **rest: Any) -> Any:
    keyword_free("diff", **rest)
    (x,) = lifted(a)
    (axis,) = normal_axis(axis, x.ndim)
    lead = (slice(None),) * axis
    for _ in range(n):
        x = x[(*lead, slice(1, None))] - x[(*lead, slice(None, -1))]
    return x


stop = unary(
    "stop_gradient", stop_gradient, code="{0}", notation=lambda style, node, terms: terms[0]
)
FUNCTIONS[stop_gradient] = lambda x: stop(x.graph, x)


def _constant_like(value: float) -> Function:
    def traced(a: Expression, dtype: Any = None, **rest: Any) -> Any:
        return np.full(rest.get("shape") or a.shape, value, dtype or a.dtype)

    return traced


implements(np.zeros_like)(_constant_like(0.0))
implements(np.ones_like)(_constant_like(1.0))
implements(np.shape)(lambda a: a.shape)
implements(np.ndim)(lambda a: a.ndim)
implements(np.size)(lambda a, axis=None: a.size if axis is None else a.shape[axis])
implements(np.copy)(lambda a, **rest: a)


@implements(np.copyto, np.put, np.place, np.put_along_axis, np.fill_diagonal)
def _refused(*args: Any, **kwargs: Any) -> Any:
    raise InPlaceUpdate("a NumPy function that writes in place, on a traced value.")
