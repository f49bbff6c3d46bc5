"""Products of tensors: all of them pairwise contractions, so that BLAS does the work."""

import itertools
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import ShapeMismatch, UnsupportedFunction, UnsupportedType
from lagrad.expressions.dispatch import FUNCTIONS, UFUNCS
from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import LinearMap
from lagrad.expressions.notation import ATOM, PRODUCT, Rendered, Style, bracketed
from lagrad.plain_text import plain
from lagrad.primitives import kernels
from lagrad.primitives.product_maps import Contract, Convolve, SparseProduct
from lagrad.primitives.registry import call, graph_of, implements, keyword_free, lifted, nary, unary
from lagrad.typing import Function, Parameters, Shape


def _contract_shape(shapes: Sequence[Shape], subscripts: str) -> Shape:
    inputs, out = subscripts.split("->")
    sizes = dict(zip(inputs.replace(",", ""), itertools.chain(*shapes), strict=True))
    return tuple(sizes[c] for c in out)


def _contract_partial(node: Expression, k: int) -> LinearMap:
    inputs, out = node.parameters[0].split("->")
    operands = inputs.split(",")
    other = node.arguments[1 - k]
    return Contract((operands[k], operands[1 - k], out), other, node.arguments[k].shape, node.shape)


# Products of matrices and vectors, by the labels of their operands and of the value, in order.
ORDERED = {
    "a,a->": "{0} @ {1}",
    "a,ab->b": "{0} @ {1}",
    "ab,b->a": "{0} @ {1}",
    "ab,bc->ac": "{0} @ {1}",
    "ab,a->b": "{0}.T @ {1}",
    "a,ba->b": "{1} @ {0}",
}


def _ordered(subscripts: str) -> str | None:
    """A product of matrices and vectors, written with `@`; None of other contractions."""
    return ORDERED.get(kernels.plain_labels(subscripts))


def _multiplied(style: Style, node: Expression, terms: Sequence[Rendered]) -> Rendered:
    return style.call(node, [bracketed(term, ATOM) for term in terms]), PRODUCT


def _contract_code(texts: Sequence[str], parameters: Parameters) -> str:
    (subscripts,) = parameters
    ordered = _ordered(subscripts)
    if ordered is not None:
        return ordered.format(*texts)
    return f"np.einsum({subscripts!r}, {texts[0]}, {texts[1]})"


product = nary(
    "contract",
    lambda parameters: kernels.contraction(*parameters),
    _contract_shape,
    _contract_partial,
    _contract_code,
    fresh=True,
    notation=lambda style, node, terms: (
        _multiplied(style, node, terms) if _ordered(*node.parameters) is not None else None
    ),
)


@implements(kernels.contract)
def _traced_contract(subscripts: str, a: Any, b: Any) -> Expression:
    return product(graph_of(a, b), a, b, parameters=(subscripts,))


def _canonical(subscripts: str, operands: list[Expression]) -> tuple[list[str], str]:
    """The labels of each operand and of the output, ellipses replaced by letters."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ShapeMismatch(f"einsum {subscripts!r} of {len(operands)} operands.")
    spare = [c for c in string.ascii_letters if c not in subscripts]
    widths = [x.ndim - len(s.replace("...", "")) for s, x in zip(inputs, operands, strict=True)]
    for s, width in zip(inputs, widths, strict=True):
        if width < 0 or (width > 0 and "..." not in s):
            raise ShapeMismatch(f"einsum {subscripts!r}: {s!r} does not fit its operand.")
    widest = max(widths)
    free = "".join(spare[:widest])
    inputs = [s.replace("...", free[widest - w :]) for s, w in zip(inputs, widths, strict=True)]
    if arrow:
        return inputs, right.replace("...", free)
    joined = "".join(inputs)
    once = sorted(c for c in set(joined) - set(free) if joined.count(c) == 1)
    return inputs, free + "".join(once)


def _alone(x: Any, labels: str, kept: set[str]) -> tuple[Any, str]:
    """An operand without repeated labels, and summed over those that nothing else has."""
    for label in sorted(set(labels)):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = np.diagonal(x, 0, i, j)
            labels = labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + label
    lonely = tuple(i for i, c in enumerate(labels) if c not in kept)
    if lonely:
        x = np.sum(x, axis=lonely)
        labels = "".join(c for c in labels if c in kept)
    return x, labels


@implements(np.einsum)
def _einsum(subscripts: Any, *operands: Any, optimize: Any = None, **rest: Any) -> Any:
    keyword_free("einsum", **rest)
    if not isinstance(subscripts, str):
        raise UnsupportedType("np.einsum on traced values takes its subscripts as a string.")
    nodes = list(lifted(*operands))
    labels, out = _canonical(plain(subscripts), nodes)
    terms: list[tuple[Any, str]] = list(zip(nodes, labels, strict=True))
    lengths: dict[str, int] = {}
    for x, names in terms:
        for name, n in zip(names, x.shape, strict=True):
            if lengths.setdefault(name, n) == 1:
                lengths[name] = n
            elif n not in (1, lengths[name]):
                raise ShapeMismatch(f"einsum {subscripts!r}: label {name!r} has two lengths.")
    # An axis of length one broadcasts: drop it where another operand has the label.
    for i, (x, names) in enumerate(terms):
        ones = tuple(k for k, c in enumerate(names) if x.shape[k] == 1 != lengths[c])
        if ones:
            kept = "".join(c for k, c in enumerate(names) if k not in ones)
            terms[i] = np.squeeze(x, axis=ones), kept
    path: list[Any] = []
    if len(terms) > 2:
        shapes = [np.broadcast_to(0.0, x.shape) for x, _ in terms]
        spec = ",".join(names for _, names in terms) + "->" + out
        found = np.einsum_path(spec, *shapes, optimize="greedy")[0]
        path = [step for step in found[1:] if len(step) == 2]
    steps = itertools.chain(path, itertools.repeat((0, 1)))
    while len(terms) > 1:
        i, j = sorted(next(steps))
        (y, y_labels), (x, x_labels) = terms.pop(j), terms.pop(i)
        later = set(out).union(*(names for _, names in terms))
        x, x_labels = _alone(x, x_labels, later | set(y_labels))
        y, y_labels = _alone(y, y_labels, later | set(x_labels))
        kept = "".join(c for c in dict.fromkeys(x_labels + y_labels) if c in later)
        result = kept if terms else "".join(sorted(kept, key=out.find))
        terms.append((_traced_contract(f"{x_labels},{y_labels}->{result}", x, y), result))
    x, names = _alone(*terms[0], set(out))
    return np.transpose(x, [names.index(c) for c in out])


def _matmul(graph: Graph, a: Any, b: Any) -> Any:
    a, b = graph.lift(a), graph.lift(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeMismatch(f"{a.shape} @ {b.shape}: a scalar; use `*`.")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ShapeMismatch(f"{a.shape} @ {b.shape}: the inner lengths differ.")
    left, i = ("...ij", "i") if a.ndim > 1 else ("j", "")
    right, k = ("...jk", "k") if b.ndim > 1 else ("j", "")
    return np.einsum(f"{left},{right}->...{i}{k}", a, b)


UFUNCS[np.matmul] = _matmul


def _over_last(axis: int) -> Function:
    """The product over the last axis of `a` and an axis of `b`, counted from its end."""

    def handler(a: Any, b: Any) -> Any:
        a, b = lifted(a, b)
        if a.ndim == 0 or b.ndim == 0:
            return a * b
        return np.tensordot(a, b, axes=(-1, max(axis, -b.ndim)))

    return handler


FUNCTIONS[np.dot] = _over_last(-2)
FUNCTIONS[np.inner] = _over_last(-1)
FUNCTIONS[np.vdot] = lambda a, b: np.dot(*map(np.ravel, lifted(a, b)))
FUNCTIONS[np.outer] = lambda a, b: np.einsum("i,j->ij", *map(np.ravel, lifted(a, b)))


@implements(np.tensordot)
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = lifted(a, b)
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    left, right = ([x] if isinstance(x, int) else list(x) for x in axes)
    if len(left) != len(right):
        raise ShapeMismatch(f"tensordot over {len(left)} axes and {len(right)} axes.")
    a_names = list(string.ascii_letters[: a.ndim])
    b_names = list(string.ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(left, right, strict=True):
        b_names[j] = a_names[i]
    shared = {a_names[i] for i in left}
    out = [c for c in a_names + b_names if c not in shared]
    return np.einsum(f"{''.join(a_names)},{''.join(b_names)}->{''.join(out)}", a, b)


@implements(np.kron)
def _kron(a: Any, b: Any) -> Any:
    a, b = lifted(a, b)
    spread_a = np.expand_dims(a, tuple(range(1, 2 * a.ndim, 2)))
    spread_b = np.expand_dims(b, tuple(range(0, 2 * b.ndim, 2)))
    pairs: Any = spread_a * spread_b
    return np.reshape(pairs, np.multiply(pairs.shape[::2], pairs.shape[1::2]))


_convolve = nary(
    "convolve",
    lambda parameters: np.convolve,
    lambda shapes: (shapes[0][0] + shapes[1][0] - 1,),
    lambda node, k: Convolve(node.arguments[1 - k], node.arguments[k].shape),
    call("np.convolve"),
)


@implements(np.convolve)
def _traced_convolve(a: Any, v: Any, mode: str = "full") -> Any:
    a, v = lifted(a, v)
    if a.ndim != 1 or v.ndim != 1 or not a.size or not v.size:
        raise ShapeMismatch(f"convolve of shapes {a.shape} and {v.shape}; expected vectors.")
    full = _convolve(a.graph, a, v)
    long, short = max(a.size, v.size), min(a.size, v.size)
    first = (short - 1) // 2
    parts = {"same": slice(first, first + long), "valid": slice(short - 1, long)}
    if mode not in ("full", *parts):
        raise UnsupportedFunction(f"np.convolve(mode={mode!r}) is not supported.")
    return full if mode == "full" else full[parts[mode]]


_sparse = unary(
    "sparse_product",
    kernels.sparse_product,
    lambda y, x, constant: SparseProduct(constant, x.shape),
    lambda shape, constant: (constant.shape[0], *shape[1:]),
    lambda dtype, constant: np.result_type(constant.matrix.dtype, dtype),
    lambda texts, parameters: f"A @ {texts[0]}",
    notation=_multiplied,
    source=lambda module, node, texts: f"{module.sparse(node.parameters[0].matrix)} @ {texts[0]}",
)
FUNCTIONS[kernels.sparse_product] = lambda x, constant: _sparse(x.graph, x, parameters=(constant,))


@implements(sparse.csr_array)
def _sparse_matmul(matrix: Any, x: Expression) -> Expression:
    if x.ndim not in (1, 2) or matrix.shape[1] != x.shape[0]:
        raise ShapeMismatch(f"a sparse matrix of shape {matrix.shape} @ {x.shape}.")
    constant = kernels.SparseConstant(matrix)
    found: Expression = kernels.sparse_product(x, x.graph.matrices.setdefault(constant, constant))
    return found
