"""Linear maps with a structure of their own: products, running sums, solves."""

import math
import string
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.linear_maps import LinearMap, csr
from lagrad.primitives.kernels import SparseConstant, contract, sparse_product
from lagrad.typing import Shape, Value


class Contract(LinearMap):
    """`contract("left,right->out", t, other)`: a product of two tensors, linear in `t`.

    Every label of the source stands in `other` or in the output.
    """

    def __init__(
        self, subscripts: tuple[str, str, str], other: Value, source: Shape, target: Shape
    ) -> None:
        self.subscripts = subscripts  # of t, of other, of the output
        self.other, self.data = other, (other,)
        self.source, self.target = source, target

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Contract(self.subscripts, data[0], self.source, self.target)

    def mv(self, tangent: Value) -> Value:
        inner, other, out = self.subscripts
        return contract(f"{inner},{other}->{out}", tangent, self.other)

    def rmv(self, cotangent: Value) -> Value:
        inner, other, out = self.subscripts
        return contract(f"{out},{other}->{inner}", cotangent, self.other)

    def _sizes(self) -> dict[str, int]:
        inner, other, out = self.subscripts
        lengths = (*self.other.shape, *self.target, *self.source)
        return dict(zip(other + out + inner, lengths, strict=True))

    @property
    def entries(self) -> int:
        return math.prod(self._sizes().values())

    def as_dense(self) -> Any:
        inner, other, out = self.subscripts
        if len(inner) == len(out) == 1 and other in (out + inner, inner + out):
            matrix = np.asarray(self.other)
            return matrix if other == out + inner else matrix.T
        return super().as_dense()

    def lmul(self, matrix: Any) -> Any:
        if sparse.issparse(matrix):
            return super().lmul(matrix)
        # The product with every column of a dense matrix at once.
        inner, other, out = self.subscripts
        extra = next(c for c in string.ascii_lowercase[::-1] if c not in inner + other + out)
        stack = matrix.reshape((*self.source, matrix.shape[1]))
        product = contract(f"{inner}{extra},{other}->{out}{extra}", stack, self.other)
        return product.reshape(math.prod(self.target), matrix.shape[1])

    def rlmul(self, matrix: Any) -> Any:
        inner, other, out = self.subscripts
        return Contract((out, other, inner), self.other, self.target, self.source).lmul(matrix)

    def as_sparse(self) -> sparse.csr_array:
        sizes = self._sizes()
        full = tuple(sizes.values())
        grid = dict(zip(sizes, np.indices(full, sparse=True), strict=True))

        def spread(array: Any, labels: str) -> Any:
            return np.broadcast_to(array[tuple(grid[c] for c in labels)], full)

        inner, other, out = self.subscripts
        width, height = math.prod(self.source), math.prod(self.target)
        rows = spread(np.arange(height).reshape(self.target), out)
        columns = spread(np.arange(width).reshape(self.source), inner)
        return csr(rows, columns, spread(np.asarray(self.other), other), (height, width))


def stacked_product(
    spec: str, other: Value, source: Shape, target: Shape | None = None
) -> LinearMap:
    """A product with `other` over stacks; `spec` names the last axes of source, other, target."""
    last = spec.split(",")
    inner, fixed, out = ("abcdefgh"[: len(source) - len(last[0])] + labels for labels in last)
    return Contract((inner, fixed, out), other, source, source if target is None else target)


def left_product(matrix: Value, shape: Shape) -> LinearMap:
    """dA ↦ M dA."""
    return stacked_product("jk,ij,ik", matrix, shape)


class SparseProduct(LinearMap):
    """`matrix @ t` for a constant `scipy.sparse` matrix; `t` is (n,) or (n, k)."""

    def __init__(self, constant: SparseConstant, source: Shape) -> None:
        self.constant, self.matrix, self.source = constant, constant.matrix, source
        self.target = (constant.shape[0], *source[1:])

    @property
    def entries(self) -> int:
        return int(self.matrix.nnz) * math.prod(self.source[1:])

    def pattern(self) -> LinearMap:
        return self.absolute()

    def absolute(self) -> LinearMap:
        return SparseProduct(SparseConstant(abs(self.matrix)), self.source)

    def mv(self, tangent: Value) -> Value:
        return sparse_product(tangent, self.constant)

    def rmv(self, cotangent: Value) -> Value:
        if isinstance(cotangent, np.ndarray):
            return self.constant.back(cotangent)
        return sparse_product(cotangent, self.constant.transposed)

    def as_sparse(self) -> sparse.csr_array:
        if len(self.source) == 1:
            return self.matrix
        return sparse.csr_array(sparse.kron(self.matrix, sparse.eye_array(self.source[1])))


class Running(LinearMap):
    """Cumulative sums along one axis."""

    def __init__(self, axis: int, source: Shape) -> None:
        self.axis, self.source, self.target = axis, source, source

    @property
    def entries(self) -> int:
        return math.prod(self.source) * self.source[self.axis]

    def mv(self, tangent: Value) -> Value:
        return np.cumsum(tangent, axis=self.axis)

    def rmv(self, cotangent: Value) -> Value:
        return np.flip(np.cumsum(np.flip(cotangent, self.axis), axis=self.axis), self.axis)

    def as_sparse(self) -> sparse.csr_array:
        lines = np.moveaxis(np.arange(math.prod(self.source)).reshape(self.source), self.axis, 0)
        later, earlier = np.tril_indices(len(lines))
        ones = np.ones((later.size, *lines.shape[1:]))
        return csr(lines[later], lines[earlier], ones, (lines.size, lines.size))


class Convolve(LinearMap):
    """The full discrete convolution of a vector with `other`."""

    def __init__(self, other: Value, source: Shape) -> None:
        self.other, self.data, self.source = other, (other,), source
        self.target = (source[0] + other.shape[0] - 1,)

    @property
    def entries(self) -> int:
        return int(self.source[0] * self.other.shape[0])

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Convolve(data[0], self.source)

    def mv(self, tangent: Value) -> Value:
        return np.convolve(tangent, self.other)

    def rmv(self, cotangent: Value) -> Value:
        n, m = self.source[0], self.other.shape[0]
        return np.convolve(cotangent, self.other[::-1])[m - 1 : m - 1 + n]

    def as_sparse(self) -> sparse.csr_array:
        columns, shift = np.indices((self.source[0], self.other.shape[0]))
        values = np.broadcast_to(self.other, columns.shape)
        return csr(columns + shift, columns, values, (self.target[0], self.source[0]))


class Solve(LinearMap):
    """`solve(matrix, t)` for stacks of matrices, (…, n, n), and of right sides, (…, n, k)."""

    def __init__(self, matrix: Value, source: Shape) -> None:
        self.matrix, self.data = matrix, (matrix,)
        self.source, self.target = source, source

    @property
    def entries(self) -> int:
        return math.prod(self.source) * self.source[-2]

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Solve(data[0], self.source)

    def mv(self, tangent: Value) -> Value:
        return np.linalg.solve(self.matrix, tangent)

    def rmv(self, cotangent: Value) -> Value:
        return np.linalg.solve(np.swapaxes(self.matrix, -1, -2), cotangent)

    def pattern(self) -> LinearMap:
        return left_product(np.broadcast_to(1.0, self.matrix.shape), self.source)

    def absolute(self) -> LinearMap:
        return left_product(np.abs(np.linalg.inv(self.matrix)), self.source)

    def as_sparse(self) -> sparse.csr_array:
        return left_product(np.linalg.inv(self.matrix), self.source).as_sparse()
