"""`logsumexp` and `softmax`: shares that add up to one, whose derivatives keep their digits."""

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import given
from lagrad.expressions.linear_maps import LinearMap, csr
from lagrad.expressions.primitive import Primitive
from lagrad.primitives import kernels
from lagrad.primitives.kernels import logsumexp
from lagrad.primitives.reduction import normal_axis, reduces, reduction, total_map
from lagrad.primitives.registry import floating, unary
from lagrad.typing import Function, Indices, Value


class LogShares(LinearMap):
    """v ↦ v − Σ w v, the derivative of logarithms of shares w that add up to one over some axes.

    Where w is next to one, v and Σ w v are next to equal. Both are taken less the v of the largest
    share: of that entry the difference is then −Σ w v, of the others, which has all its digits.
    With `plus` it is a bound of absolute values instead, v + Σ w v.
    """

    def __init__(self, shares: Value, axes: Indices, plus: bool = False) -> None:
        self.shares, self.data, self.axes, self.plus = shares, (shares,), axes, plus
        self.source = self.target = shares.shape

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.source[k] for k in self.axes)

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return type(self)(data[0], self.axes, self.plus)

    def pattern(self) -> LinearMap:
        return type(self)(np.ones(self.source), self.axes, True)

    def absolute(self) -> LinearMap:
        return type(self)(self.shares, self.axes, True)

    def _total(self, value: Value) -> Value:
        return np.sum(value, axis=self.axes, keepdims=True)

    def _largest(self, w: Value) -> tuple[Value, Value]:
        """Which shares are the largest ones, and how many those are."""
        most = np.equal(w, np.max(w, axis=self.axes, keepdims=True))
        return most, self._total(1.0 * most)

    def _forwards(self, w: Value, v: Value) -> Value:
        if self.plus or 0 in self.source:
            return v + self._total(w * v)
        most, ties = self._largest(w)
        moved = v - self._total(np.where(most, v, 0)) / ties
        return moved - self._total(w * moved)

    def _backwards(self, w: Value, c: Value) -> Value:
        """c − w Σ c; of the largest share it is (1 − w) c − w Σ c, the sum over the others."""
        if self.plus or 0 in self.source:
            return c + w * self._total(c)
        most, ties = self._largest(w)
        rest = self._total(np.where(most, w * (1 - 1 / ties), w))
        beside = self._total(np.where(most, 0, c)) + (self._total(np.where(most, c, 0)) - c)
        return np.where(most, rest * c - w * beside, c - w * self._total(c))

    def mv(self, tangent: Value) -> Value:
        return self._forwards(self.shares, tangent)

    def rmv(self, cotangent: Value) -> Value:
        return self._backwards(self.shares, cotangent)

    def lmul(self, matrix: Any) -> Any:
        if sparse.issparse(matrix):
            return self.as_sparse() @ matrix
        columns = np.reshape(matrix, (*self.source, matrix.shape[1]))
        return np.reshape(self._forwards(self.shares[..., None], columns), matrix.shape)

    def rlmul(self, matrix: Any) -> Any:
        if sparse.issparse(matrix):
            return self.as_sparse().T.tocsr() @ matrix
        columns = np.reshape(matrix, (*self.source, matrix.shape[1]))
        return np.reshape(self._backwards(self.shares[..., None], columns), matrix.shape)

    def as_sparse(self) -> sparse.csr_array:
        kept = tuple(k for k in range(len(self.source)) if k not in self.axes)
        width = math.prod(self.source[k] for k in self.axes)
        order, rows = (*kept, *self.axes), (math.prod(self.source[k] for k in kept), width)
        places = np.arange(math.prod(self.source)).reshape(self.source)
        w, places = (np.transpose(a, order).reshape(rows) for a in (self.shares, places))
        values = np.repeat(w[:, None, :] * (1 if self.plus else -1), width, axis=1)
        k = np.arange(width)
        if self.plus:
            values[:, k, k] += 1
        else:
            # 1 − w, as what the others add up to.
            values[:, k, k] = np.where(np.eye(width, dtype=bool), 0, w[:, None, :]).sum(axis=-1)
        below, beside = np.broadcast_arrays(places[:, :, None], places[:, None, :])
        return csr(below, beside, values, (places.size, places.size))


class Shares(LogShares):
    """v ↦ w ∘ (v − Σ w v), the derivative of the shares themselves: symmetric."""

    def _forwards(self, w: Value, v: Value) -> Value:
        return w * super()._forwards(w, v)

    def _backwards(self, w: Value, c: Value) -> Value:
        return self._forwards(w, c)

    def as_sparse(self) -> sparse.csr_array:
        return sparse.csr_array(sparse.diags_array(np.ravel(self.shares)) @ super().as_sparse())


softmax_ = unary(
    "softmax",
    kernels.softmax,
    lambda y, x, axes: Shares(y, axes),
    dtype=lambda dtype, axes: floating(dtype),
    code="_softmax({0}, {1})",
)


log_softmax_ = unary(
    "log_softmax",
    kernels.log_softmax,
    lambda y, x, axes: LogShares(softmax_(x.graph, x, parameters=(axes,)), axes),
    dtype=lambda dtype, axes: floating(dtype),
    code="_log_softmax({0}, {1})",
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


def _over(primitive: Primitive, kernel: Function, x: Any, axis: Any) -> Any:
    """A function of shares over some axes, of numbers or of a traced value."""
    x = given(x)
    if not isinstance(x, Expression):
        return kernel(x, axis)
    return primitive(x.graph, x, parameters=(normal_axis(axis, x.ndim),))


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
    return _over(softmax_, kernels.softmax, x, axis)


def log_softmax(x: Any, axis: Any = None) -> Any:
    """Return `x - logsumexp(x)` over the given axes, the logarithm of `softmax(x)`.

    It keeps the digits of what is next to zero, the logarithm of a share next to one, in which
    `x - lg.logsumexp(x)` cancels: the loss of a classifier that is sure of itself.

    Parameters
    ----------
    x : array_like, shape (…)
    axis : int or tuple of ints, optional
        The axes to normalise over; all of them by default.

    Returns
    -------
    ndarray
        Of the shape of `x`; −∞ where `x` is.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.log_softmax([40.0, 0.0]).tolist()
    [-4.248354255291589e-18, -40.0]
    """
    return _over(log_softmax_, kernels.log_softmax, x, axis)
