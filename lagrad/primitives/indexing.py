"""Moving entries about: reshape, transpose, basic indexing, and the gather that is all the rest.

Each is one function of arrays and of traced values alike, and one that undoes it; running an
array of positions through the first yields the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, TracedValueError
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import LinearMap, Reindex, Transpose
from lagrad.expressions.notation import ATOM, bracketed, postfix, shortened
from lagrad.primitives import simplification
from lagrad.primitives.kernels import Index, decode_key, embed, encode_key, gather, scatter
from lagrad.primitives.registry import call, declare, implements
from lagrad.typing import Kind, Parameters, Shape

Move = Callable[[Any], Any]


def probe(shape: Shape) -> Any:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def _reindex(
    name: str,
    forward: Callable[[Parameters], Move],
    shape: Callable[[Shape, Parameters], Shape],
    undo: Callable[[Expression], Move],
    code: Callable[[Sequence[str], Parameters], str],
    **traits: Any,
) -> Any:
    """A shaping primitive: a function of arrays and traced values alike, and what undoes it."""

    def partial(node: Expression, k: int) -> LinearMap:
        return Reindex(forward(node.parameters), undo(node), node.arguments[0].shape, node.shape)

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        return shape(arguments[0].shape, parameters), arguments[0].dtype

    return declare(name, forward, infer, partial, code, **traits)


reshape = _reindex(
    "reshape",
    lambda parameters: lambda x: np.reshape(x, parameters[0]),
    lambda shape, parameters: parameters[0],
    lambda node: lambda c: np.reshape(c, node.arguments[0].shape),
    call("np.reshape"),
    simplify=simplification.shaped,
)


def _reversed(axes: Sequence[int]) -> bool:
    return axes == tuple(range(len(axes)))[::-1]


def _transpose_code(texts: Sequence[str], parameters: Parameters) -> str:
    (axes,) = parameters
    if _reversed(axes):
        return f"np.transpose({texts[0]})"
    return f"np.transpose({texts[0]}, {axes})"


transpose = _reindex(
    "transpose",
    lambda parameters: lambda x: np.transpose(x, parameters[0]),
    lambda shape, parameters: tuple(shape[i] for i in parameters[0]),
    lambda node: lambda c: np.transpose(c, tuple(map(int, np.argsort(node.parameters[0])))),
    _transpose_code,
    simplify=simplification.turned,
    notation=lambda style, node, terms: (
        style.transpose(terms[0]) if _reversed(node.parameters[0]) and not style.numpy else None
    ),
)


def _key_text(key: Parameters) -> str:
    """A basic index as a person writes it."""

    def one(k: Any) -> str:
        if not isinstance(k, tuple):
            return "..." if k is Ellipsis else repr(k)
        start, stop, step = ("" if part is None else str(part) for part in k)
        return f"{start}:{stop}" + (f":{step}" if step else "")

    return ", ".join(map(one, key)) or "()"


_getitem = _reindex(
    "getitem",
    lambda parameters: lambda x: x[decode_key(parameters[0])],
    lambda shape, parameters: probe(shape)[decode_key(parameters[0])].shape,
    lambda node: lambda c: embed(c, node.parameters[0], node.arguments[0].shape),
    lambda texts, parameters: f"{texts[0]}[{_key_text(parameters[0])}]",
    simplify=simplification.back("embed"),
    notation=postfix,
)


def _boxed(parameters: Parameters) -> bool:
    """Whether what is embedded is a box of its surroundings: it is padded."""
    key, shape = parameters
    return len(key) == len(shape) and all(isinstance(k, tuple) and k[2] in (None, 1) for k in key)


def _embed_code(texts: Sequence[str], parameters: Parameters) -> str:
    """Padding where the place is a box, and a helper's call elsewhere."""
    key, shape = parameters
    if _boxed(parameters):
        ends = [slice(*k).indices(n) for k, n in zip(key, shape, strict=True)]
        widths = tuple((a, n - b) for (a, b, _), n in zip(ends, shape, strict=True))
        return f"np.pad({texts[0]}, {widths})"
    return f"_embed({texts[0]}, np.s_[{_key_text(key)}], {shape})"


_embed = _reindex(
    "embed",
    lambda parameters: lambda c: embed(c, *parameters),
    lambda shape, parameters: parameters[1],
    lambda node: lambda c: c[decode_key(node.parameters[0])],
    _embed_code,
    fresh=True,
    notation=shortened(
        lambda node, text: f"{'pad' if _boxed(node.parameters) else 'embed'}({text})"
    ),
)


@implements(embed)
def _traced_embed(c: Expression, key: Parameters, shape: Shape) -> Any:
    return _embed(c.graph, c, parameters=(key, shape))


def _gather_code(texts: Sequence[str], parameters: Parameters) -> str:
    index, label = parameters
    return label.format(texts[0]) if label else f"_gather({texts[0]}, {index.array.tolist()})"


_gather = _reindex(
    "gather",
    lambda parameters: lambda x: gather(x, parameters[0]),
    lambda shape, parameters: parameters[0].array.shape,
    lambda node: lambda c: scatter(c, node.parameters[0]),
    _gather_code,
    simplify=simplification.back("scatter"),
    notation=lambda style, node, terms: (
        (f"{bracketed(terms[0], ATOM)}[…]", ATOM)
        if not (style.numpy or node.parameters[1])
        else postfix(style, node, terms)
    ),
    source=lambda module, node, texts: (
        _gather_code(texts, node.parameters)
        if node.parameters[1]
        else f"_gather({texts[0]}, {module.stored(node.parameters[0].array)})"
    ),
)
FUNCTIONS[gather] = lambda x, index: _gather(x.graph, x, parameters=(index, ""))


def _scatter_partial(node: Expression, k: int) -> LinearMap:
    (index,) = node.parameters
    return Transpose(
        Reindex(
            lambda t: gather(t, index), lambda c: scatter(c, index), node.shape, index.array.shape
        )
    )


_scatter = declare(
    "scatter",
    lambda parameters: lambda c: scatter(c, parameters[0]),
    lambda arguments, parameters: (parameters[0].source, arguments[0].dtype),
    _scatter_partial,
    lambda texts, parameters: (
        f"_scatter({texts[0]}, {parameters[0].array.tolist()}, {parameters[0].source})"
    ),
    fresh=True,
    notation=shortened(lambda node, text: f"scatter({text})"),
    source=lambda module, node, texts: (
        f"_scatter({texts[0]}, {module.stored(node.parameters[0].array)}, {node.shape})"
    ),
)
FUNCTIONS[scatter] = lambda c, index: _scatter(c.graph, c, parameters=(index,))


@implements(np.bincount)
def _bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """Traced weights added up by constant bins."""
    if isinstance(x, Expression) or not isinstance(weights, Expression):
        raise TracedValueError(
            "np.bincount of traced bins: which bin a weight goes to must not depend on the "
            "variables."
        )
    bins = np.asarray(x)
    if bins.ndim != 1 or bins.shape != weights.shape or bins.dtype.kind not in "iu":
        raise ShapeMismatch(
            f"np.bincount of bins of shape {bins.shape} and dtype {bins.dtype}, and weights of "
            f"shape {weights.shape}; expected whole numbers, and vectors of one length."
        )
    if bins.size and bins.min() < 0:
        raise ShapeMismatch("np.bincount of negative bins.")
    length = max(int(minlength), int(bins.max(initial=-1)) + 1)
    if weights.dtype != float:
        weights = np.astype(weights, float)  # type: ignore[call-overload]
    return scatter(weights, Index(bins, (length,)))


def moved(x: Expression, move: Move, label: str = "") -> Any:
    """What a shaping function does to `x`, found by running positions through it."""
    positions = move(np.arange(1, x.size + 1).reshape(x.shape)) - 1
    return _gather(x.graph, x, parameters=(Index(positions, x.shape), label))


def _advanced_label(keys: tuple[Any, ...]) -> str:
    """An index with arrays in it as source, where it is short."""
    shown = []
    for k in keys:
        if isinstance(k, slice):
            shown.append(_key_text(encode_key((k,))))
        elif k is None or k is Ellipsis or isinstance(k, int):
            shown.append(_key_text((k,)))
        elif np.size(k) <= 8:
            shown.append(repr(np.asarray(k).tolist()))
        else:
            return ""
    return "{0}[" + ", ".join(shown) + "]"


@implements(Expression.__getitem__)
def _index(x: Expression, key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    parts: list[Any] = []
    for k in keys:
        bounds = (k.start, k.stop, k.step) if isinstance(k, slice) else (k,)
        if any(isinstance(b, Expression) for b in bounds):
            raise TracedValueError(
                "a traced value as an index: what is selected must not depend on the variables; "
                "np.where(condition, a, b) chooses between values."
            )
        parts.append(k)
    basic = all(
        k is None
        or k is Ellipsis
        or isinstance(k, slice)
        or (isinstance(k, (int, np.integer)) and not isinstance(k, bool))
        for k in parts
    )
    try:
        if not basic:
            return moved(x, lambda positions: positions[key], _advanced_label(keys))
        plain = tuple(int(k) if isinstance(k, np.integer) else k for k in parts)
        return _getitem(x.graph, x, parameters=(encode_key(plain),))
    except IndexError as error:
        raise ShapeMismatch(f"{key!r} as an index into shape {x.shape}: {error}") from None
