"""Moving entries about: reshape, transpose, basic indexing, and the gather that is all the rest.

Each is one function of arrays and of traced values alike, and one that undoes it; running an
array of positions through the first yields the matrix.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, TracedValueError
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression, innermost
from lagrad.expressions.linear_maps import LinearMap, Reindex, Transpose
from lagrad.expressions.notation import ATOM, bracketed, postfix, shortened
from lagrad.expressions.primitive import Primitive
from lagrad.plain_text import literal
from lagrad.primitives.kernels import Index, decode_key, embed, encode_key, gather, scatter
from lagrad.primitives.registry import Code, call, implements, unary
from lagrad.typing import Function, Parameters, Shape

Move = Callable[[Any], Any]


def probe(shape: Shape) -> Any:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def _reindex(
    name: str,
    function: Function,
    shape: Callable[..., Shape],
    undo: Callable[..., Any],
    code: Code | str | None = None,
    **traits: Any,
) -> Primitive:
    """A shaping primitive: a function of arrays and traced values alike, and what undoes it.

    `undo(c, x.shape, *parameters)` takes a cotangent back to the shape that the array had.
    """

    def partial(y: Expression, x: Expression, *parameters: Any) -> LinearMap:
        back = lambda c: undo(c, x.shape, *parameters)
        return Reindex(made.kernel(parameters), back, x.shape, y.shape)

    made = unary(name, function, partial, shape, code=code, **traits)
    return made


reshape = _reindex(
    "reshape", np.reshape, lambda given, shape: shape, lambda c, given, shape: np.reshape(c, given)
)


def _reversed(axes: Sequence[int]) -> bool:
    return axes == tuple(range(len(axes)))[::-1]


transpose = _reindex(
    "transpose",
    np.transpose,
    lambda shape, axes: tuple(shape[i] for i in axes),
    lambda c, shape, axes: np.transpose(c, tuple(map(int, np.argsort(axes)))),
    lambda texts, parameters: call("np.transpose")(
        texts, () if _reversed(*parameters) else parameters
    ),
    notation=lambda style, node, terms: (
        style.transpose(terms[0]) if _reversed(*node.parameters) and not style.numpy else None
    ),
)


def _key_text(key: Parameters) -> str:
    """A basic index as a person writes it."""

    def one(k: Any) -> str:
        if not isinstance(k, tuple):
            return literal(k)
        start, stop, step = ("" if part is None else literal(part) for part in k)
        return f"{start}:{stop}" + (f":{step}" if step else "")

    return ", ".join(map(one, key)) or "()"


_getitem = _reindex(
    "getitem",
    operator.getitem,
    lambda shape, key: probe(shape)[decode_key(key)].shape,
    lambda c, shape, key: embed(c, key, shape),
    lambda texts, parameters: f"{texts[0]}[{_key_text(*parameters)}]",
    kernel=lambda parameters: operator.itemgetter(decode_key(*parameters)),
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
    embed,
    lambda given, key, shape: shape,
    lambda c, given, key, shape: c[decode_key(key)],
    _embed_code,
    fresh=True,
    notation=shortened(
        lambda node, text: f"{'pad' if _boxed(node.parameters) else 'embed'}({text})"
    ),
)


FUNCTIONS[embed] = lambda c, key, shape: _embed(c.graph, c, parameters=(key, shape))


# Entries are taken from parts of so many: the pull-back of an entry is as long as what it is taken
# from, so that all of them from one array would take the square of its length.
PART = 32


@implements(Expression.__array__)
def _entries(x: Expression) -> list[Expression]:
    """All entries, each a scalar, in order."""
    pieces: list[Any] = [np.ravel(x)]
    while (size := pieces[0].size) > PART:
        step = PART
        while step * PART < size:
            step *= PART
        pieces = [p[k : k + step] for p in pieces for k in range(0, p.size, step)]
    return [p[k] for p in pieces for k in range(p.size)]


def _gather_code(texts: Sequence[str], parameters: Parameters, module: Any = None) -> str:
    index, label = parameters
    return (label or f"_gather({{0}}, {_positions_text(index, module)})").format(*texts)


def _scatter_code(texts: Sequence[str], parameters: Parameters, module: Any = None) -> str:
    (index,) = parameters
    return f"_scatter({texts[0]}, {_positions_text(index, module)}, {index.source})"


def _positions_text(index: Index, module: Any) -> str:
    """Positions as source: a constant of the module where there is one, and a list elsewhere."""
    return str(index.array.tolist() if module is None else module.stored(index.array))


_gather = _reindex(
    "gather",
    lambda x, index, label: gather(x, index),
    lambda shape, index, label: index.array.shape,
    lambda c, shape, index, label: scatter(c, index),
    _gather_code,
    notation=lambda style, node, terms: (
        (f"{bracketed(terms[0], ATOM)}[…]", ATOM)
        if not (style.numpy or node.parameters[1])
        else postfix(style, node, terms)
    ),
    source=lambda module, node, texts: _gather_code(texts, node.parameters, module),
)
FUNCTIONS[gather] = lambda x, index: _gather(x.graph, x, parameters=(index, ""))
_scatter = unary(
    "scatter",
    scatter,
    lambda y, x, index: Transpose(
        Reindex(lambda t: gather(t, index), lambda c: scatter(c, index), y.shape, x.shape)
    ),
    lambda shape, index: index.source,
    code=_scatter_code,
    fresh=True,
    notation=shortened(lambda node, text: f"scatter({text})"),
    source=lambda module, node, texts: _scatter_code(texts, node.parameters, module),
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


def _is_basic(k: Any) -> bool:
    """Whether NumPy's basic indexing takes this part of a key."""
    return k is None or k is Ellipsis or (isinstance(k, (int, slice)) and not isinstance(k, bool))


def _advanced_label(keys: tuple[Any, ...]) -> str:
    """An index with arrays in it as source, where it is short."""
    arrays = [k for k in keys if not _is_basic(k)]
    if any(not 0 < np.size(k) <= 8 for k in arrays):
        return ""
    shown = [
        _key_text(encode_key((k,))) if _is_basic(k) else repr(np.asarray(k).tolist()) for k in keys
    ]
    return "{0}[" + ", ".join(shown) + "]"


@implements(Expression.__getitem__)
def _index(x: Expression, key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    if innermost(encode_key(keys)) is not None:
        raise TracedValueError(
            "a traced value as an index: what is selected must not depend on the variables; "
            "np.where(condition, a, b) chooses between values."
        )
    keys = tuple(int(k) if isinstance(k, np.integer) else k for k in keys)
    try:
        if x.ndim == 0 and all(k is None or k is Ellipsis for k in keys):
            return np.reshape(x, probe(())[keys].shape)  # a number has no entries
        if not all(map(_is_basic, keys)):
            return moved(x, lambda positions: positions[key], _advanced_label(keys))
        return _getitem(x.graph, x, parameters=(encode_key(keys),))
    except IndexError as error:
        raise ShapeMismatch(f"{key!r} as an index into shape {x.shape}: {error}") from None
