"""Array functions that NumPy lacks, open to traced values as NumPy's own are.

`gather` and `embed` are the transposes of `scatter` and of slicing; `contract` is a product of
two tensors on BLAS, `sparse_product` one with a constant sparse matrix.
"""

import functools
import math
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy import special

from lagrad.errors import UnsupportedType
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import innermost
from lagrad.typing import Array, Function, Shape


def overridable(function: Function) -> Function:
    """A function that hands over to `__array_function__` of its first two arguments."""

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        for arg in args[:3]:
            override = getattr(type(arg), "__array_function__", None)
            if override is not None and not isinstance(arg, np.ndarray):
                return override(arg, public, (type(arg),), args, kwargs)
            if innermost((arg,)) is not None:  # an array, or a list, of traced values
                return FUNCTIONS[public](*args, **kwargs)
        return function(*args, **kwargs)

    return public


class Index:
    """A constant array of flat positions in an array of shape `source`; −1 stands for zero."""

    __slots__ = ("array", "has_gaps", "injective", "key", "source")

    def __init__(self, array: Array, source: Shape) -> None:
        self.array = np.array(array, dtype=np.intp, order="C")
        self.array.flags.writeable = False
        self.source = source
        self.has_gaps = bool(self.array.size) and bool(self.array.min() < 0)
        counts = np.bincount(self.array.ravel() + 1, minlength=math.prod(source) + 1)
        self.injective = not bool((counts[1:] > 1).any())
        some = self.array.ravel()[:: max(1, self.array.size // 16)]
        self.key = (source, self.array.shape, some.tobytes())

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Index)
            and self.key == other.key
            and np.array_equal(self.array, other.array)
        )

    def __hash__(self) -> int:
        return hash(self.key)


class SparseConstant:
    """A constant `scipy.sparse` matrix, copied, with its transpose; equal to one like it."""

    __slots__ = ("_transposed", "_uses", "key", "matrix", "shape")

    def __init__(self, matrix: Any, transposed: "SparseConstant | None" = None) -> None:
        if matrix.dtype.kind == "c":
            raise UnsupportedType("a complex sparse matrix meets traced values; expected real.")
        kept = sparse.csr_array(matrix, copy=transposed is None)
        kept.sum_duplicates()
        kept.data.flags.writeable = False
        self.matrix = kept if kept.dtype.kind == "f" else kept.astype(float)
        self.shape = self.matrix.shape
        self.key = (self.shape, self.matrix.nnz, self.matrix.data[:8].tobytes())
        self._transposed, self._uses = transposed, 0

    @property
    def transposed(self) -> "SparseConstant":
        """The transpose, in rows of its own."""
        if self._transposed is None:
            self._transposed = SparseConstant(self.matrix.T, self)
        return self._transposed

    def squared(self) -> "SparseConstant":
        """The squares of its entries."""
        return SparseConstant(self.matrix.multiply(self.matrix))

    def back(self, x: Array) -> Array:
        """The transpose's product, by columns until it has been asked for often.

        Rows cost a conversion, which takes six products, and save a third of each.
        """
        self._uses += 1
        if self._transposed is None and self._uses < 12:
            return self.matrix.T @ x
        return self.transposed.matrix @ x

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, SparseConstant):
            return self is other
        return self.key == other.key and all(
            np.array_equal(getattr(self.matrix, part), getattr(other.matrix, part))
            for part in ("indptr", "indices", "data")
        )


@overridable
def sparse_product(x: Array, constant: SparseConstant) -> Array:
    """The product of a constant sparse matrix and `x`, of shape (n,) or (n, k)."""
    return constant.matrix @ x


@overridable
def gather(x: Array, index: Index) -> Array:
    """`out[k] = x.ravel()[index[k]]`, zero where the index is −1."""
    flat = np.ravel(x)
    if not index.has_gaps:
        return flat[index.array]
    return np.where(index.array < 0, x.dtype.type(0), flat[index.array])


@overridable
def scatter(c: Array, index: Index) -> Array:
    """The transpose of `gather`: entries of `c` added into zeros of shape `index.source`."""
    positions, values = index.array.ravel(), np.ravel(c)
    if index.has_gaps:
        kept = positions >= 0
        positions, values = positions[kept], values[kept]
    size = math.prod(index.source)
    if index.injective:
        out = np.zeros(size, dtype=c.dtype)
        out[positions] = values
    elif c.dtype.kind in "iub" or c.dtype.itemsize > 8:
        out = np.zeros(size, dtype=c.dtype)
        np.add.at(out, positions, values)
    else:
        out = np.bincount(positions, weights=values, minlength=size).astype(c.dtype, copy=False)
    return out.reshape(index.source)


def encode_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A basic index, tuples in the place of slices, so that it can be hashed."""
    return tuple((k.start, k.stop, k.step) if isinstance(k, slice) else k for k in key)


@functools.lru_cache(maxsize=4096)
def decode_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The basic index that `encode_key` encoded."""
    return tuple(slice(*k) if isinstance(k, tuple) else k for k in key)


@overridable
def embed(c: Array, key: tuple[Any, ...], shape: Shape) -> Array:
    """The transpose of basic indexing: `c` in its place among zeros of the given shape."""
    out = np.zeros(shape, dtype=c.dtype)
    out[decode_key(key)] = c
    return out


@overridable
def stop_gradient(x: Array) -> Array:
    """`x` itself, held constant by every derivative."""
    return x


@overridable
def logistic_share(a: Array, b: Array) -> Array:
    """exp(a) / (exp(a) + exp(b)), zero where both are −∞."""
    with np.errstate(invalid="ignore"):
        share = special.expit(np.subtract(a, b))
    if np.isnan(share).any():
        both = (np.asarray(a) == -math.inf) & (np.asarray(b) == -math.inf)
        return np.where(both, share.dtype.type(0), share)
    return share


@overridable
def tanh_slope(y: Array, x: Array) -> Array:
    """1 − y² for y = tanh x: where it cancels 4q/(1 + q)² with q = exp(−2|x|), the same number."""
    slope = np.multiply(y, y)
    slope = np.subtract(1, slope, out=slope if slope.ndim else None)
    least = 1e-4 if slope.dtype == np.float64 else 0.1
    if slope.size and slope.min() < least:  # what cancels has fewer digits
        far = np.flatnonzero(slope < least)
        q = np.exp(-2 * np.abs(np.broadcast_to(x, slope.shape).ravel()[far]))
        slope = np.asarray(slope)
        slope.put(far, 4 * q / np.square(1 + q))
    return slope[()]


@overridable
def inverse_mills(x: Array) -> Array:
    """φ(x)/Φ(x) of the normal distribution."""
    return math.sqrt(2 / math.pi) / special.erfcx(np.divide(x, -math.sqrt(2)))


@overridable
def hypot_share(a: Array, b: Array) -> Array:
    """a/√(a² + b²)."""
    return np.divide(a, np.hypot(a, b))


@overridable
def unit_complement(x: Array) -> Array:
    """1 − x², which keeps its digits at ±1."""
    return (1 - x) * (1 + x)


@overridable
def exp_ratio(x: Array, y: Array) -> Array:
    """exp(x − y), zero where both are −∞."""
    return np.exp(
        x - np.where(np.asarray(y) == -math.inf, 0, y).astype(np.result_type(y), copy=False)
    )


@overridable
def larger_share(a: Array, b: Array) -> Array:
    """One where `a` is larger, zero where `b` is, and half where both are equal."""
    share = np.add(np.greater(a, b), np.greater_equal(a, b), dtype=np.result_type(a, b, np.float32))
    return np.multiply(share, 0.5, dtype=share.dtype.type)


@overridable
def branch_share(condition: Array, a: Array, b: Array) -> Array:
    """One where a condition holds, and zero elsewhere; it chooses between two values."""
    shape = np.broadcast_shapes(np.shape(condition), np.shape(a), np.shape(b))
    return np.broadcast_to(condition, shape).astype(np.result_type(a, b, np.float32))


@overridable
def extreme_share(x: Array, axes: Shape, largest: bool) -> Array:
    """The share of each entry in the largest one over some axes, or the least: equal for equal."""
    top = (np.max if largest else np.min)(x, axis=axes, keepdims=True)
    hit = np.equal(x, top).astype(x.dtype)
    return hit / np.sum(hit, axis=axes, keepdims=True)


@overridable
def hurwitz_zeta(s: Array, q: Array) -> Array:
    """ζ(s, q) = Σ (k + q)⁻ˢ; SciPy's own is no ufunc, and so not open to traced values."""
    return special.zeta(s, q)


@overridable
def logsumexp(a: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return `log(sum(exp(a)))` over the given axes, without overflow.

    Parameters
    ----------
    a : array_like, shape (…)
    axis : int or tuple of ints, optional
        The axes to sum over; all of them by default.
    keepdims : bool
        Whether the axes summed over stay, with length one.

    Returns
    -------
    ndarray
        −∞ where every entry is −∞, with derivative zero, or where there is none.

    Examples
    --------
    >>> import lagrad as lg
    >>> float(lg.logsumexp([-float("inf"), 0.0]))
    0.0
    """
    a = np.asarray(a)
    a = a if a.dtype.kind == "f" else a.astype(float)
    top = np.max(a, axis=axis, keepdims=True, initial=-math.inf)
    largest = np.equal(a, top)
    ties = np.maximum(np.sum(largest, axis=axis, keepdims=True, dtype=a.dtype.type), 1)
    shift = np.where(np.isfinite(top), top, top.dtype.type(0))
    others = np.sum(np.exp(np.where(largest, -math.inf, a - shift)), axis=axis, keepdims=True)
    # What others add to the largest is kept where it is next to nothing.
    out = np.where(np.isfinite(top), shift + (np.log(ties) + np.log1p(others / ties)), top)
    return out if keepdims else np.squeeze(out, axis=axis)[()]


def plain_labels(subscripts: str) -> str:
    """The same subscripts with the letters a, b, c, …, in the order of their coming."""
    names = dict.fromkeys(c for c in subscripts if c.isalpha())
    letters = dict(zip(names, string.ascii_lowercase, strict=False))
    return "".join(letters.get(c, c) for c in subscripts)


@functools.lru_cache(maxsize=4096)
def contraction(subscripts: str) -> Callable[[Array, Array], Array]:
    """The product of two tensors as one `matmul` between transposed and reshaped views."""
    inputs, out = subscripts.split("->")
    left, right = inputs.split(",")
    plain = plain_labels(subscripts)
    if plain in DIRECT:
        return DIRECT[plain]
    batch = [c for c in left if c in right and c in out]
    shared = [c for c in left if c in right and c not in out]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    order_left = [left.index(c) for c in batch + rows + shared]
    order_right = [right.index(c) for c in batch + shared + columns]
    produced = batch + rows + columns
    order_out = [produced.index(c) for c in out]

    def run(a: Array, b: Array) -> Array:
        a, b = np.transpose(a, order_left), np.transpose(b, order_right)
        i, j = len(batch), len(batch) + len(rows)
        k = len(batch) + len(shared)
        head, m, n = a.shape[:i], a.shape[i:j], b.shape[k:]
        inner = math.prod(a.shape[j:])
        product = np.matmul(
            a.reshape((*head, math.prod(m), inner)), b.reshape((*head, inner, math.prod(n)))
        )
        return np.transpose(product.reshape((*head, *m, *n)), order_out)

    return run


DIRECT: dict[str, Callable[[Array, Array], Array]] = {
    "a,a->": np.dot,
    "ab,b->a": np.matmul,
    "ab,bc->ac": np.matmul,
    "a,ab->b": np.matmul,
    "ab,a->b": lambda a, b: np.matmul(b, a),
    "a,ba->b": lambda a, b: np.matmul(b, a),
    "ab,cb->ac": lambda a, b: np.matmul(a, b.T),
    "ab,ac->bc": lambda a, b: np.matmul(a.T, b),
    "ab,cb->ca": lambda a, b: np.matmul(b, a.T),
    "ab,ac->cb": lambda a, b: np.matmul(b.T, a),
    "ab,ca->cb": lambda a, b: np.matmul(b, a),
    "ab,bc->ca": lambda a, b: np.matmul(a, b).T,
    "a,b->ab": lambda a, b: np.multiply(a[:, None], b),
    "a,b->ba": lambda a, b: np.multiply(a, b[:, None]),
    "abc,acd->abd": np.matmul,
}


@overridable
def contract(subscripts: str, a: Array, b: Array) -> Array:
    """`einsum` of two operands, each label in one output or in both operands."""
    return contraction(subscripts)(a, b)


def softmax(x: Array, axis: Any = None) -> Array:
    """exp(x) / Σ exp(x) over some axes, zero where x is −∞."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(float)
    top = np.max(x, axis=axis, keepdims=True, initial=-math.inf)
    found = np.exp(x - np.where(np.isfinite(top), top, top.dtype.type(0)))
    total = np.sum(found, axis=axis, keepdims=True)
    shares: Array = found / np.where(total == 0, total.dtype.type(1), total)
    return shares


def log_softmax(x: Array, axis: Any = None) -> Array:
    """x − log Σ exp(x): of the largest entry what the others add to it, with all its digits."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(float)
    top = np.max(x, axis=axis, keepdims=True, initial=-math.inf)
    largest = np.equal(x, top)
    ties = np.maximum(np.sum(largest, axis=axis, keepdims=True, dtype=x.dtype.type), 1)
    with np.errstate(invalid="ignore"):
        below = x - np.where(np.equal(top, -math.inf), top.dtype.type(0), top)
    others = np.sum(np.exp(np.where(largest, -math.inf, below)), axis=axis, keepdims=True)
    logarithms: Array = below - (np.log(ties) + np.log1p(others / ties))
    return logarithms
