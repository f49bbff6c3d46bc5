"""`logsumexp` and `softmax`: shares that add up to one, whose derivatives keep their digits."""

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import given
from lagrad.expressions.linear_maps import LinearMap, csr
from lagrad.primitives import kernels
from lagrad.primitives.kernels import logsumexp
from lagrad.primitives.reduction import normal_axis, reduces, reduction, total_map
from lagrad.primitives.registry import floating, unary
from lagrad.typing import Indices, Value


class Shares(LinearMap):
    """v ↦ w ∘ (v − Σ w v), the derivative of shares w that add up to one over some axes.

    Where w is next to one, v and Σ w v are next to equal. Both are taken less the v of the largest
    share: of that entry the difference is then −Σ w v, of the others, which has all its digits.
    With `plus` it is a bound of absolute values instead, w ∘ (v + Σ w v).
    """

    def __init__(self, shares: Value, axes: Indices, plus: bool = False) -> None:
        self.shares, self.data, self.axes, self.plus = shares, (shares,), axes, plus
        self.source = self.target = shares.shape

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.source[k] for k in self.axes)

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Shares(data[0], self.axes, self.plus)

    def pattern(self) -> LinearMap:
        return Shares(np.ones(self.source), self.axes, True)

    def absolute(self) -> LinearMap:
        return Shares(self.shares, self.axes, True)

    def _applied(self, w: Value, v: Value) -> Value:
        def total(value: Value) -> Value:
            return np.sum(value, axis=self.axes, keepdims=True)

        if self.plus:
            return w * (v + total(w * v))
        if 0 in self.source:
            return v
        most = np.equal(w, np.max(w, axis=self.axes, keepdims=True))
        moved = v - total(np.where(most, v, 0)) / total(1.0 * most)
        return w * (moved - total(w * moved))

    def mv(self, tangent: Value) -> Value:
        return self._applied(self.shares, tangent)

    def rmv(self, cotangent: Value) -> Value:
        return self.mv(cotangent)

    def lmul(self, matrix: Any) -> Any:
        if sparse.issparse(matrix):
            return self.as_sparse() @ matrix
        columns = np.reshape(matrix, (*self.source, matrix.shape[1]))
        return np.reshape(self._applied(self.shares[..., None], columns), matrix.shape)

    def rlmul(self, matrix: Any) -> Any:
        return self.lmul(matrix)

    def as_sparse(self) -> sparse.csr_array:
        kept = tuple(k for k in range(len(self.source)) if k not in self.axes)
        width = math.prod(self.source[k] for k in self.axes)
        order, rows = (*kept, *self.axes), (math.prod(self.source[k] for k in kept), width)
        places = np.arange(math.prod(self.source)).reshape(self.source)
        w, places = (np.transpose(a, order).reshape(rows) for a in (self.shares, places))
        values = w[:, :, None] * w[:, None, :] * (1 if self.plus else -1)
        k = np.arange(width)
        if self.plus:
            values[:, k, k] += w
        else:
            # 1 − w, as what the others add up to.
            others = np.where(np.eye(width, dtype=bool), 0, w[:, None, :]).sum(axis=-1)
            values[:, k, k] = w * others
        below, beside = np.broadcast_arrays(places[:, :, None], places[:, None, :])
        return csr(below, beside, values, (places.size, places.size))


softmax_ = unary(
    "softmax",
    kernels.softmax,
    lambda y, x, axes: Shares(y, axes),
    dtype=lambda dtype, axes: floating(dtype),
    code="_softmax({0}, {1})",
)


def _logsumexp_partial(y: Expression, x: Expression, axes: Indices) -> LinearMap:
    return total_map(x.shape, axes, softmax_(x.graph, x, parameters=(axes,)))


_logsumexp = reduction(
    "logsumexp",
    logsumexp,
    _logsumexp_partial,
    dtype=lambda dtype, axes: floating(dtype),
    code="_logsumexp({0}, axis={1})",
)


reduces(logsumexp)(lambda x, axes: _logsumexp(x.graph, x, parameters=(axes,)))


def softmax(x: Any, axis: Any = None) -> Any:
    """Return `exp(x) / sum(exp(x))` over the given axes, without overflow.

    Parameters
    ----------
    x : array_like, shape (…)
    axis : int or tuple of ints, optional
        The axes to normalise over; all of them by default.

    Returns
    -------
    ndarray
        Of the shape of `x`; zero where `x` is −∞.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.softmax([0.0, -float("inf")]).tolist()
    [1.0, 0.0]
    """
    x = given(x)
    if not isinstance(x, Expression):
        return kernels.softmax(x, axis)
    return softmax_(x.graph, x, parameters=(normal_axis(axis, x.ndim),))
