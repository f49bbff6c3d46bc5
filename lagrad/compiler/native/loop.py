"""Elementwise work over one index space, as one loop: what can be in it, and what it reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lagrad.compiler.lowering import Operation, is_elementwise
from lagrad.compiler.native.code import INTEGER
from lagrad.compiler.native.machine import lanes
from lagrad.compiler.native.reductions import REDUCTIONS
from lagrad.compiler.native.rules import RULES, kind_of
from lagrad.compiler.native.windows import NAME, window_of
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Indices, Shape

# Operations whose value is a truth, of arguments of any kind.
COMPARING = frozenset(
    [
        *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
        *("isnan", "isinf", "isfinite"),
    ]
)
OF_TRUTHS = {"multiply": "logical_and", "add": "logical_or"}
LOGICAL = frozenset(["logical_and", "logical_or", "logical_xor", "logical_not"])
# Rows of single precision that one added to the other would lose digits: doubles add them up.
ROWS = 1024


def source_of(place: int, operations: Sequence[Operation]) -> tuple[int, Shape]:
    """The array in whose memory a value stands, and the shape from which it is spread."""
    if operations[place].name == NAME:
        (root,), shape = operations[place].arguments, operations[place].shape
        while operations[root].name == "reshape":
            (root,) = operations[root].arguments
        return root, shape
    if operations[place].name == "broadcast_to":
        (place,) = operations[place].arguments
    shape = operations[place].shape
    while operations[place].name == "reshape":
        (place,) = operations[place].arguments
    if operations[place].name == "broadcast_to":  # reshaped: of one number nothing but that is left
        (one,) = operations[place].arguments
        if operations[one].size == 1:
            return source_of(one, operations)[0], ()
    return place, shape


def axes_of(operation: Operation, operations: Sequence[Operation]) -> Indices:
    """The axes that a reduction sums over."""
    if operation.name == "contract":
        own, out = operation.parameters[0].split("->")
        return tuple(k for k, c in enumerate(own.split(",")[0]) if c not in out)
    found: Indices = operation.parameters[0]
    return found


def is_aligned(operation: Operation) -> bool:
    """Whether a product's terms are products of entries in the same places."""
    if operation.name != "contract":
        return True
    given, out = operation.parameters[0].split("->")
    a, b = given.split(",")
    kept = [c for c in a if c in out]
    return a == b and len(set(a)) == len(a) and kept == list(out)


def has_rule(operation: Operation, operations: Sequence[Operation]) -> bool:
    """Whether an elementwise operation, or a reduction, can be written."""
    arguments = [operations[a] for a in operation.arguments]
    kinds = [kind_of(a.dtype) for a in arguments if type(a.value) not in NUMBERS]
    own = kind_of(operation.dtype)
    if own is None or None in kinds:
        return False
    if operation.name in REDUCTIONS:
        return is_aligned(operation) and own in INTEGER and all(kind == own for kind in kinds)
    if not is_elementwise(operation) or operation.name not in RULES:
        return False
    if operation.name in LOGICAL or (own == "i1" and operation.name in OF_TRUTHS):
        return all(kind == "i1" for kind in kinds)
    if operation.name in COMPARING:
        return any(kind in INTEGER for kind in kinds)
    return own in INTEGER


def reducible(operation: Operation, operations: Sequence[Operation], shape: Shape) -> bool | None:
    """Whether a reduction can be taken in a loop over a shape; None where by itself alone.

    Over all, over rows, or over the first of two dimensions. Over several last or first ones it is
    one of these where nothing else in the loop keeps them apart.
    """
    if any(operations[a].shape != shape for a in operation.arguments):
        return False
    axes = axes_of(operation, operations)
    along = [d not in axes for d, n in enumerate(shape) if n != 1]
    changes = sum(a != b for a, b in itertools.pairwise(along))
    if changes > 1:
        return False
    rows = math.prod(shape[d] for d in axes)
    if changes and not along[0] and operation.dtype.char == "f" and rows >= ROWS:
        return False
    if not changes or not (along.count(False) > 1 or (not along[0] and len(along) > 2)):
        return True
    # What is spread from fewer dimensions may keep those apart.
    kept = tuple(d not in axes for d in range(len(shape)))
    given = [pattern(source_of(a, operations)[1], shape) for a in operation.arguments]
    return None if len(merged([kept, *given], shape)) == 2 else False


def pattern(shape: Shape, whole: Shape) -> tuple[bool, ...]:
    """Along which dimensions an array of a shape advances, that is spread over another one."""
    own = (1,) * (len(whole) - len(shape)) + shape
    return tuple(n == m != 1 for n, m in zip(own, whole, strict=True))


def merged(patterns: Sequence[tuple[bool, ...]], shape: Shape) -> list[list[int]]:
    """Neighbouring dimensions along which all arrays advance alike, as one; none of one entry."""
    groups: list[list[int]] = []
    for d, n in enumerate(shape):
        if n == 1:
            continue
        if groups and all(p[d] == p[groups[-1][-1]] for p in patterns):
            groups[-1].append(d)
        else:
            groups.append([d])
    return groups


@dataclass(frozen=True)
class Access:
    """An array that a loop reads or writes, and along which dimensions it advances."""

    place: int
    root: int  # in whose memory it is
    along: tuple[bool, ...]
    kind: str
    window: tuple[int, int, int] | None = None  # through which it is read

    @property
    def advances(self) -> bool:
        """Along a row."""
        return not self.along or self.along[-1]

    @property
    def stored(self) -> str:
        """The kind of its entries in memory."""
        return "i8" if self.kind == "i1" else self.kind


class Loop:
    """A loop over one index space.

    Parameters
    ----------
    operations : list of Operation
    places : sequence of int
        Those that are computed, in order.
    kept : sequence of int
        Those that are asked for.
    arguments : sequence of int
        What comes from outside, but for single constants; other arrays spread or reshaped, too.
    shape : tuple
        The index space.

    Attributes
    ----------
    sizes : tuple of int
        Its dimensions, merged where all arrays advance alike.
    inputs, outputs : list of Access
    flags : bool
        Whether some function has a range outside of which it says so.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        places: Sequence[int],
        kept: Sequence[int],
        arguments: Sequence[int],
        shape: Shape,
    ) -> None:
        self.operations, self.places, self.shape = operations, places, shape
        sources = {a: source_of(a, operations) for a in arguments}
        given = {a: pattern(own, shape) for a, (_, own) in sources.items()}
        found = {p: self._kept(p) for p in kept}
        groups = merged([*given.values(), *found.values()], shape)
        self.sizes = tuple(math.prod(shape[d] for d in group) for group in groups)

        def access(place: int, way: tuple[bool, ...]) -> Access:
            kind = kind_of(operations[place].dtype)
            assert kind is not None
            root = sources[place][0] if place in sources else place
            return Access(place, root, tuple(way[group[0]] for group in groups), kind)

        self.inputs = [
            replace(access(p, way), window=window_of(p, operations)) for p, way in given.items()
        ]
        self.outputs = [access(p, way) for p, way in found.items()]
        # A vector of as many floats as fit, where most of the work is theirs.
        kinds = [kind_of(operations[p].dtype) for p in places]
        single = kinds.count("float") >= max(1, kinds.count("double"))
        self.lanes = lanes("float" if single else "double") if self.sizes else 1
        self.flags = False

    def _kept(self, place: int) -> tuple[bool, ...]:
        operation = self.operations[place]
        if operation.name not in REDUCTIONS:
            return pattern(self.shape, self.shape)
        axes = axes_of(operation, self.operations)
        return tuple(d not in axes and n != 1 for d, n in enumerate(self.shape))

    def reduces(self, output: Access) -> bool:
        return self.operations[output.place].name in REDUCTIONS

    def by_block(self, output: Access) -> bool:
        """Whether each block of rows has its own part of an output."""
        return bool(output.along) and not output.along[0] and self.reduces(output)
