"""Linear maps: what the local partials of primitives are made of.

A map `M` takes an array of shape `source` to one of shape `target`. Its data are arrays or
traced expressions, so one object is the JVP (`mv`), the VJP (`rmv`), the sparse block
(`as_sparse`) and, over expressions, the symbolic form of all of them.
"""

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Shape, Value


class LinearMap(ABC):
    """A linear map from arrays of shape `source` to arrays of shape `target`."""

    source: Shape
    target: Shape
    data: tuple[Value, ...] = ()

    @abstractmethod
    def mv(self, tangent: Value) -> Value:
        """The map applied to an array of shape `source`."""

    @abstractmethod
    def rmv(self, cotangent: Value) -> Value:
        """The transposed map applied to an array of shape `target`."""

    @abstractmethod
    def as_sparse(self) -> sparse.csr_array:
        """The matrix, (size of target, size of source), of a map whose data are numbers."""

    def as_dense(self) -> Any:
        """The same matrix as an ndarray."""
        return self.as_sparse().toarray()

    def with_data(self, data: tuple[Value, ...]) -> "LinearMap":
        """The same map over other data."""
        return self

    def pattern(self) -> "LinearMap":
        """The map with one for every number: where entries can be, without cancellation."""
        return self.with_data(tuple(map(presence, self.data)))

    def absolute(self) -> "LinearMap":
        """The map with each entry's absolute value, or more where an entry is a sum."""
        return self.with_data(tuple(map(np.abs, self.data)))

    def lmul(self, matrix: Any) -> Any:
        """The product with a dense or sparse matrix of (size of source) rows."""
        return self.as_sparse() @ matrix

    def rlmul(self, matrix: Any) -> Any:
        """The transpose's product with a dense or sparse matrix of (size of target) rows."""
        return self.as_sparse().T.tocsr() @ matrix

    @property
    def entries(self) -> int:
        """How many entries `as_sparse` stores, without building it."""
        return max(math.prod(self.source), math.prod(self.target))


class Joint(LinearMap):
    """The partial of a node by one of several arguments, found together with the others.

    Attributes
    ----------
    k : int
        Which argument.
    slots : dict
        Where a tape keeps the values of each of the arguments; shared by their maps.
    """

    k: int
    slots: dict[int, int]

    @property
    def last(self) -> bool:
        """Whether its step comes last among those of the node's arguments."""
        return self.k == max(self.slots)

    def absolute(self) -> LinearMap:
        return self  # its entries are not at hand

    @abstractmethod
    def together(self, tangents: dict[int, Value]) -> Value:
        """The tangent of the node for those of several arguments."""


def presence(value: Value) -> Value:
    """Ones for an expression or a number; for constants, where they are not zero."""
    constant = getattr(value, "value", value)
    if isinstance(constant, (np.ndarray, np.generic, int, float)):
        return (np.asarray(constant) != 0).astype(float)
    return np.broadcast_to(1.0, value.shape)


def csr(rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> sparse.csr_array:
    """A CSR matrix from index and value arrays of any equal shape, duplicates added."""
    entries = (np.ravel(values), (np.ravel(rows), np.ravel(columns)))
    return sparse.csr_array(sparse.coo_array(entries, shape=shape))


def one_per_row(columns: Any, values: Any, width: int) -> sparse.csr_array:
    """A CSR matrix with one entry in each row, and none where the column is negative."""
    some = columns >= 0
    pointers = np.pad(np.cumsum(some, dtype=np.int32), (1, 0))
    entries = (values[some], columns[some].astype(np.int32), pointers)
    return sparse.csr_array(entries, shape=(columns.size, width))


def unbroadcast(value: Value, shape: Shape) -> Value:
    """The sum of `value` over the axes along which `shape` was broadcast to it."""
    if value.shape == shape:
        return value
    extra = value.ndim - len(shape)
    stretched = tuple(i for i, n in enumerate(shape, extra) if n == 1 and value.shape[i] != 1)
    value = np.sum(value, axis=tuple(range(extra)) + stretched)
    return value if value.shape == shape else np.reshape(value, shape)


@dataclass(frozen=True, slots=True)
class Scale(LinearMap):
    """`weight * broadcast_to(t, target)`; `weight` is a number or broadcasts to `target`."""

    weight: Value
    source: Shape
    target: Shape

    @property
    def data(self) -> tuple[Value, ...]:  # type: ignore[override]
        return () if type(self.weight) in NUMBERS else (self.weight,)

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Scale(data[0], self.source, self.target) if data else self

    def pattern(self) -> LinearMap:
        return Scale(presence(self.weight), self.source, self.target)

    def absolute(self) -> LinearMap:
        return Scale(np.abs(self.weight), self.source, self.target)

    def _scaled(self, value: Value) -> Value:
        if type(self.weight) in NUMBERS:
            if self.weight == 1:
                return value
            if self.weight == -1:
                return np.negative(value)
        return np.multiply(self.weight, value)

    def mv(self, tangent: Value) -> Value:
        out = self._scaled(tangent)
        return out if out.shape == self.target else np.broadcast_to(out, self.target)

    def rmv(self, cotangent: Value) -> Value:
        return unbroadcast(self._scaled(cotangent), self.source)

    def weights(self) -> Any:
        """One for each entry of the target."""
        weight = np.asarray(self.weight)
        if weight.dtype.kind != "f":
            weight = weight.astype(float)
        return np.broadcast_to(weight, self.target).ravel()

    def as_sparse(self) -> sparse.csr_array:
        columns = np.arange(math.prod(self.source)).reshape(self.source)
        return one_per_row(
            np.broadcast_to(columns, self.target).ravel(), self.weights(), columns.size
        )

    def lmul(self, matrix: Any) -> Any:
        if type(self.weight) in NUMBERS and self.source == self.target:
            return matrix if self.weight == 1 else self.weight * matrix
        if self.source != self.target:
            return self.as_sparse() @ matrix
        if not sparse.issparse(matrix):
            return self.weights()[:, None] * matrix
        values = matrix.data * np.repeat(self.weights(), np.diff(matrix.indptr))
        return sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)

    def rlmul(self, matrix: Any) -> Any:
        return self.lmul(matrix) if self.source == self.target else LinearMap.rlmul(self, matrix)


@dataclass(frozen=True, slots=True)
class Chosen(Scale):
    """A scaling by the share of a choice: where another is chosen, nothing passes.

    Whatever is there: NaN times a share of zero is zero. Expressions are scaled as they are, but
    `whole` ones, which nobody derives further.
    """

    whole: bool = False

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Chosen(data[0], self.source, self.target, self.whole)

    def absolute(self) -> LinearMap:
        return Chosen(np.abs(self.weight), self.source, self.target, whole=True)

    def _scaled(self, value: Value) -> Value:
        product = np.multiply(self.weight, value)
        return kept(self.weight, product, self.whole)

    def lmul(self, matrix: Any) -> Any:
        if self.source != self.target:
            own = self.as_sparse()
            own.eliminate_zeros()
            return own @ matrix
        weights = self.weights()
        if not sparse.issparse(matrix):
            return kept(weights[:, None], weights[:, None] * matrix)
        weights = np.repeat(weights, np.diff(matrix.indptr))
        values = kept(weights, weights * matrix.data)
        return sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def kept(weight: Any, product: Any, whole: bool = False) -> Any:
    """A product with the share of a choice, zero where that is zero."""
    numbers = isinstance(product, (np.ndarray, np.generic))
    if whole or (numbers and not np.isfinite(np.sum(product))):
        return np.where(np.equal(weight, 0), 0, product)
    return product


@dataclass(frozen=True, slots=True)
class Reindex(LinearMap):
    """`out[k] = in[index[k]]`, or zero: a shaping function and the one that undoes it.

    Running an array of indices through `forward` yields the map's matrix, so a shaping
    primitive states no more than what it does and what its transpose is.
    """

    forward: Callable[[Value], Value]
    backward: Callable[[Value], Value]
    source: Shape
    target: Shape

    def mv(self, tangent: Value) -> Value:
        return self.forward(tangent)

    def rmv(self, cotangent: Value) -> Value:
        return self.backward(cotangent)

    def index(self) -> Any:
        """For each entry of the target the source's, counted from one; zero for none."""
        size = math.prod(self.source)
        return np.ravel(self.forward(np.arange(1, size + 1).reshape(self.source)))

    def as_sparse(self) -> sparse.csr_array:
        index = self.index()
        return one_per_row(index - 1, np.ones(index.size), math.prod(self.source))

    def lmul(self, matrix: Any) -> Any:
        index = self.index()
        return matrix[index - 1] if index.all() else self.as_sparse() @ matrix


class Transpose(LinearMap):
    """The transpose of a map."""

    def __init__(self, base: LinearMap) -> None:
        self.base, self.data = base, base.data
        self.source, self.target = base.target, base.source

    @property
    def entries(self) -> int:
        return self.base.entries

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Transpose(self.base.with_data(data))

    def pattern(self) -> LinearMap:
        return Transpose(self.base.pattern())

    def absolute(self) -> LinearMap:
        return Transpose(self.base.absolute())

    def mv(self, tangent: Value) -> Value:
        return self.base.rmv(tangent)

    def rmv(self, cotangent: Value) -> Value:
        return self.base.mv(cotangent)

    def as_sparse(self) -> sparse.csr_array:
        return sparse.csr_array(self.base.as_sparse().T)

    def lmul(self, matrix: Any) -> Any:
        return self.base.rlmul(matrix)

    def rlmul(self, matrix: Any) -> Any:
        return self.base.lmul(matrix)


class Combined(LinearMap):
    """Several maps in one, their data in one row; the last one takes what they are given."""

    def __init__(self, *maps: LinearMap) -> None:
        self.maps = maps
        self.source, self.target = maps[-1].source, maps[0].target

    @property
    def data(self) -> tuple[Value, ...]:  # type: ignore[override]
        return tuple(value for part in self.maps for value in part.data)

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        values = iter(data)
        taken = [tuple(itertools.islice(values, len(part.data))) for part in self.maps]
        return type(self)(*(m.with_data(own) for m, own in zip(self.maps, taken, strict=True)))

    def pattern(self) -> LinearMap:
        return type(self)(*(part.pattern() for part in self.maps))

    def absolute(self) -> LinearMap:
        return type(self)(*(part.absolute() for part in self.maps))


class Compose(Combined):
    """The product of maps; the last one is applied first."""

    @property
    def entries(self) -> int:
        wide = all(
            part.entries > max(map(math.prod, (part.source, part.target))) for part in self.maps
        )
        if wide:
            return math.prod(self.source) * math.prod(self.target)
        return max(part.entries for part in self.maps)

    def mv(self, tangent: Value) -> Value:
        for part in reversed(self.maps):
            tangent = part.mv(tangent)
        return tangent

    def rmv(self, cotangent: Value) -> Value:
        for part in self.maps:
            cotangent = part.rmv(cotangent)
        return cotangent

    def as_sparse(self) -> sparse.csr_array:
        product = self.maps[-1].as_sparse()
        for part in reversed(self.maps[:-1]):
            product = part.lmul(product)
        return product


class Sum(Combined):
    """The sum of maps between the same spaces."""

    @property
    def entries(self) -> int:
        return sum(part.entries for part in self.maps)

    def mv(self, tangent: Value) -> Value:
        return self._added(lambda part: part.mv(tangent))

    def rmv(self, cotangent: Value) -> Value:
        return self._added(lambda part: part.rmv(cotangent))

    def as_sparse(self) -> sparse.csr_array:
        return self._added(lambda part: part.as_sparse())

    def _added(self, of: Callable[[LinearMap], Any]) -> Any:
        return functools.reduce(operator.add, map(of, self.maps))
