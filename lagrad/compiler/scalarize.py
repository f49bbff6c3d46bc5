"""A step of a loop on small arrays as operations on single numbers.

A call of NumPy for ten numbers costs as much as a hundred compiled operations on one. So arrays
become arrays of places, functions of entries become codes, sums and products of matrices chains of
additions and multiplications; what only moves entries moves their places. One compiled loop then
runs all steps.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lagrad.compiler.lowering import Lowered, Operation
from lagrad.compiler.scalar_opcodes import CODES
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array, DType, Indices, Shape

FLOATS = np.dtype(float), np.dtype(np.float32)
# Operations on single numbers from which calls of NumPy are better: read one by one, for each of
# these calls; and at all.
PER_CALL, AT_MOST = 150, 20_000
MOVES = frozenset(["reshape", "transpose", "getitem", "gather", "broadcast_to", "concatenate"])


class Scalarised:
    """Codes over values: constants, then what is given, then one for each operation.

    Attributes
    ----------
    dtype : dtype
        Of all of them.
    few : bool
        Whether they are so few that to read them one by one pays.
    groups : list of int
        How many operations in a row are of one function, on the entries of an array.
    given, asked : arrays of places
        Where the entries of what a step is given are, and of what it is asked for, in order.
    """

    def __init__(self, dtype: DType) -> None:
        self.dtype, self.few = dtype, False
        self.repeated: dict[Any, Any] = {}  # what runs it over and over
        self.numbers: list[float] = []
        self.groups: list[int] = []
        self.code: list[Array] = []
        self.first: list[Array] = []
        self.second: list[Array] = []
        self.size = 0

    def constant(self, value: Any, shape: Shape) -> Array:
        """The places of a constant's entries."""
        entries = np.broadcast_to(np.asarray(value, float), shape).ravel()
        begin = len(self.numbers)
        self.numbers += entries.tolist()
        # Negative: the constants' number is not known yet.
        return (-1 - np.arange(begin, begin + entries.size)).reshape(shape)

    def fresh(self, shape: Shape) -> Array:
        begin = self.size
        self.size += math.prod(shape)
        return np.arange(begin, self.size).reshape(shape)

    def emit(self, code: int, first: Array, second: Array) -> Array:
        """A function of entries, or of pairs of them."""
        self.code.append(np.full(first.size, code))
        self.groups.append(first.size)
        self.first.append(first.ravel())
        self.second.append(second.ravel())
        return self.fresh(first.shape)

    def total(self, places: Array, axes: Indices) -> Array:
        """Sums over axes, by pairs."""
        rest = [k for k in range(places.ndim) if k not in axes]
        shape = [places.shape[k] for k in rest]
        left = places.transpose(*rest, *axes).reshape(*shape, -1)
        while (count := left.shape[-1]) > 1:
            half = count // 2
            pairs = self.emit(CODES["add"], left[..., :half], left[..., half : 2 * half])
            left = np.concatenate([pairs, left[..., 2 * half :]], axis=-1)
        return left[..., 0]

    def product(self, subscripts: str, a: Array, b: Array) -> Array | None:
        """A sum of products, as of `einsum`; None where an index is repeated in an operand."""
        inputs, out = subscripts.split("->")
        first, second = inputs.split(",")
        if len(set(first)) < len(first) or len(set(second)) < len(second):
            return None
        summed = [c for c in dict.fromkeys(first + second) if c not in out]
        letters = [*out, *summed]
        sizes = {
            **dict(zip(first, a.shape, strict=True)),
            **dict(zip(second, b.shape, strict=True)),
        }
        shape = tuple(sizes[c] for c in letters)

        def spread(places: Array, own: str) -> Array:
            order = sorted(range(len(own)), key=lambda k: letters.index(own[k]))
            full = tuple(sizes[c] if c in own else 1 for c in letters)
            return np.broadcast_to(places.transpose(order).reshape(full), shape)

        x, y = spread(a, first), spread(b, second)
        kept, terms = shape[: len(out)], math.prod(shape[len(out) :])
        if terms > math.prod(kept):
            axes = tuple(range(len(out), len(letters)))
            return self.total(self.emit(CODES["multiply"], x, y), axes)
        # Term after term of all sums: of each sum, and of its terms, the entries are neighbours.
        x, y = (places.reshape(*kept, terms) for places in (x, y))
        found = self.emit(CODES["multiply"], x[..., 0], y[..., 0])
        for k in range(1, terms):
            term = self.emit(CODES["multiply"], x[..., k], y[..., k])
            found = self.emit(CODES["add"], found, term)
        return found

    def finish(self, given: Array, asked: Array) -> None:
        """Places counted from the constants on."""
        count = len(self.numbers)

        def final(places: Array) -> Array:
            return np.where(places < 0, -1 - places, places + count).astype(np.intp)

        def joined(parts: list[Array]) -> Array:
            return np.concatenate([np.zeros(0, int), *parts])

        self.given, self.asked = final(given), final(asked)
        self.start = count + given.size
        lead = np.zeros(self.start, np.int32)
        row = [final(joined(part)).astype(np.int32) for part in (self.first, self.second)]
        self.codes = np.concatenate([lead, joined(self.code).astype(np.int32)])
        self.firsts, self.seconds = (np.concatenate([lead, r]) for r in row)
        self.memory = np.concatenate([self.numbers, np.zeros(self.size)]).astype(self.dtype)


def scalarised(lowered: Lowered, given: int) -> Scalarised | None:
    """The operations on single numbers; None where there are too many, or one has no code.

    The first `given` operations are inputs.
    """
    operations = lowered.operations
    kinds = {o.dtype for o in operations if type(o.value) not in NUMBERS}
    if len(kinds) != 1 or not kinds.issubset(FLOATS):
        return None
    if any(math.prod(o.shape) == 0 for o in operations):
        return None
    found = Scalarised(*kinds)
    places = [found.fresh(o.shape) for o in operations[:given]]
    if found.size > AT_MOST:
        return None
    inputs = np.arange(found.size)
    calls = 0
    for operation in operations[given:]:
        if operation.primitive is None:
            places.append(found.constant(operation.value, operation.shape))
            continue
        calls += 1
        made = stated(found, operation, [places[a] for a in operation.arguments])
        if made is None or found.size > AT_MOST:
            return None
        places.append(made)
    asked = [places[k].ravel() for k in lowered.outputs]
    found.finish(inputs, np.concatenate([np.zeros(0, int), *asked]))
    found.few = found.size <= PER_CALL * calls + 400 + inputs.size
    return found


def stated(found: Scalarised, operation: Operation, arguments: Sequence[Array]) -> Array | None:
    """The places of an operation's entries; None where it has no code."""
    name, shape = operation.name, operation.shape
    assert operation.primitive is not None
    if name in CODES:
        spread = [np.broadcast_to(a, shape) for a in arguments]
        return found.emit(CODES[name], spread[0], spread[-1])
    if name in MOVES:
        moved: Array = operation.primitive.kernel(operation.parameters)(*arguments)
        return moved.reshape(shape)
    if name == "embed":
        # From one on, so that what is filled in can be told.
        low = min(int(arguments[0].min()), 0)
        put = operation.primitive.kernel(operation.parameters)(arguments[0] - low + 1)
        zero = found.constant(0.0, ())
        return np.where(put == 0, zero, put + low - 1).astype(int).reshape(shape)
    if name == "sum":
        return found.total(arguments[0], tuple(operation.parameters[0])).reshape(shape)
    if name == "contract":
        return found.product(operation.parameters[0], *arguments)
    if name in ("astype", "stop_gradient"):
        return arguments[0]
    return None
