"""Cofactors of matrices, singular ones too, and how they change."""

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.linear_maps import LinearMap
from lagrad.primitives.kernels import overridable
from lagrad.primitives.product_maps import stacked_product
from lagrad.typing import Array, Shape, Value


@overridable
def cofactor(x: Array) -> Array:
    """The matrix of cofactors, det(x) x⁻ᵀ, of singular matrices too: (…, n, n).

    With x = U S Vᵀ it is det(U) det(V) U S′ Vᵀ, S′ the products of all singular values but one.
    """
    u, s, vt = np.linalg.svd(x)
    sign = np.linalg.det(u) * np.linalg.det(vt)
    others = np.where(np.eye(s.shape[-1], dtype=bool), 1.0, s[..., None, :])
    left_out = np.prod(others, axis=-1) * sign[..., None]
    return np.asarray((u * left_out[..., None, :]) @ vt, dtype=x.dtype)


@overridable
def cofactor_change(x: Array, e: Array) -> Array:
    """The derivative of `cofactor` at `x` in the direction `e`, of singular matrices too.

    With x = U S Vᵀ and e = U F Vᵀ it is det(U) det(V) U G Vᵀ. With p(i, j) the product of all
    singular values but the i-th and the j-th, G has −F(j, i) p(i, j) off its diagonal, and on it
    the sum of F(j, j) p(i, j) over the other j.
    """
    n = x.shape[-1]
    u, s, vt = np.linalg.svd(x)
    sign = np.linalg.det(u) * np.linalg.det(vt)
    f = np.swapaxes(u, -1, -2) @ e @ np.swapaxes(vt, -1, -2)
    eye = np.eye(n, dtype=bool)
    out = eye[:, None, :] | eye[None, :, :]
    others = np.prod(np.where(out, 1.0, s[..., None, None, :]), axis=-1) * sign[..., None, None]
    diagonal = np.diagonal(f, axis1=-2, axis2=-1)
    kept = np.sum(np.where(eye, 0.0, others * diagonal[..., None, :]), axis=-1)
    g = np.where(eye, kept[..., None], -np.swapaxes(f, -1, -2) * others)
    return np.asarray(u @ g @ vt, dtype=np.result_type(x, e))


class CofactorChange(LinearMap):
    """The derivative of cofactors at `matrix`: symmetric, as det's second one is."""

    def __init__(self, matrix: Any, shape: Shape) -> None:
        self.matrix, self.data = matrix, (matrix,)
        self.source = self.target = shape

    @property
    def entries(self) -> int:
        return math.prod(self.source) * self.source[-1] ** 2

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return CofactorChange(data[0], self.source)

    def mv(self, tangent: Value) -> Value:
        return cofactor_change(self.matrix, tangent)

    def rmv(self, cotangent: Value) -> Value:
        return cofactor_change(self.matrix, cotangent)

    def _dense(self) -> LinearMap:
        """The same with its coefficients as an array: (…, n, n, n, n)."""
        n = self.source[-1]
        units = np.eye(n * n).reshape(n * n, n, n)
        columns = cofactor_change(np.expand_dims(self.matrix, -3), units)
        found = columns.reshape(*self.source[:-2], n, n, n, n)
        return stacked_product("kl,klij,ij", found, self.source)

    def pattern(self) -> LinearMap:
        n = self.source[-1]
        ones = np.ones((*self.source, n, n))
        return stacked_product("kl,klij,ij", ones, self.source)

    def absolute(self) -> LinearMap:
        return self._dense().absolute()

    def as_sparse(self) -> sparse.csr_array:
        return self._dense().as_sparse()
