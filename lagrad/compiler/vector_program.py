"""Vectors by rows: operations as codes that one compiled loop runs through, some lanes at a time.

A call of NumPy costs as much as a hundred additions, and between calls threads wait for each
other. Where numba compiled the loops, a row of operations is one call, and waits for nobody.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from lagrad.compiler.lowering import Operation
from lagrad.compiler.scalar_opcodes import CODES, TOTALS, compiled
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array, DType, Shape

DOUBLE = np.dtype(float)
# What a processor does to vectors by itself; other functions libraries do better.
ARITHMETIC = frozenset(
    ["add", "subtract", "multiply", "divide", "negative", "square", "sqrt", "abs", "tanh_slope"]
)


# The code of a total that is zero, or NaN where a row is not finite.
FINITE = 31


def in_lanes(operation: Operation, operations: list[Operation], dtype: DType) -> bool:
    """Whether an operation has a code, a dtype, and arguments of that dtype, or numbers."""
    return (
        operation.name in CODES
        and operation.dtype == dtype
        and all(
            operations[k].dtype == dtype or type(operations[k].value) in NUMBERS
            for k in operation.arguments
        )
    )


def run_lanes(program: Array, rows: Array, count: int, totals: Array) -> None:
    """Run a program of codes over rows; numba must be there."""
    loops = compiled()
    assert loops is not None
    loops[3](program, rows, count, totals)


@dataclass
class Rows:
    """Rows in use, and a program that is being written.

    Attributes
    ----------
    count : int
        How many rows there are.
    of : dict
        The row that holds each value.
    program : list
        Codes with their rows, as `jitted.lanes` has them, since the last `flush`.
    totals : list of int
        The values among them that are totals.
    """

    count: int = 0
    of: dict[int, int] = field(default_factory=dict)
    program: list[tuple[int, int, int, int]] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    # Free from a place in the program on, and not before it.
    freed: list[int] = field(default_factory=list)

    def reserve(self, place: int) -> int:
        """A row for a value that is there from the beginning: no other one ever has it."""
        row = self.of[place] = self.count
        self.count += 1
        return row

    def hold(self, place: int, before: bool = False) -> int:
        """A row for a value; `before` where it is written before the program runs."""
        if self.freed and not before:
            row = self.freed.pop()
        elif self.free:
            row = self.free.pop()
        else:
            row, self.count = self.count, self.count + 1
        self.of[place] = row
        return row

    def let_go(self, place: int) -> None:
        """A value is not needed by what comes next."""
        if place in self.of:
            self.freed.append(self.of.pop(place))

    def add(self, place: int, operation: Operation, dying: list[int]) -> None:
        """An operation whose arguments have rows."""
        first, second = [self.of[a] for a in operation.arguments * 2][:2]
        if operation.name in TOTALS:
            code, out = TOTALS[operation.name], len(self.totals)
            self.totals.append(place)
        else:
            code, out = CODES[operation.name], self.hold(place)
        self.program.append((code, first, second, out))
        # Not before: a loop that writes where it reads is not made of vectors.
        for argument in dying:
            self.let_go(argument)

    def flush(self) -> tuple[Array, list[int]]:
        """The program, and its totals; another one begins."""
        found = np.array(self.program, np.intp).reshape(-1, 4), self.totals
        self.free += self.freed
        self.program, self.totals, self.freed = [], [], []
        return found


class Lanes:
    """A group of operations on short vectors, or on numbers, as a function of whole arrays.

    Parameters
    ----------
    operations : list of Operation
    places : list of int
        Those of the group, in order; sums of all that an array holds, and inner products, too.
    kept : list of int
        Those that are asked for.
    arguments : list of int
        What comes from outside.
    shape : tuple
        The common shape.
    """

    def __init__(
        self,
        operations: list[Operation],
        places: list[int],
        kept: list[int],
        arguments: list[int],
        shape: Shape,
    ) -> None:
        self.shape, self.count = shape, math.prod(shape)
        rows = Rows()
        for place in arguments:
            rows.hold(place)
        last = {a: place for place in places for a in operations[place].arguments}
        for place in places:
            operation = operations[place]
            dying = [a for a in {*operation.arguments} if last[a] == place and a not in kept]
            rows.add(place, operation, dying)
        self.rows = rows.count
        program, totals = rows.flush()
        self.totals = len(totals)
        self.results = [
            (True, totals.index(p)) if p in totals else (False, rows.of[p]) for p in kept
        ]
        # Totals of their own say whether the rows that are asked for are finite.
        asked = [row for total, row in self.results if not total]
        checks = [(FINITE, row, row, self.totals + k) for k, row in enumerate(asked)]
        self.program = np.array([*program.tolist(), *checks], np.intp).reshape(-1, 4)
        self.all = self.totals + len(asked)

    def checked(self, *arguments: Array) -> tuple[tuple[Array, ...], bool]:
        """The results, and whether all of them are finite."""
        rows = np.empty((self.rows, *self.shape))
        for k, argument in enumerate(arguments):
            rows[k] = argument
        totals = np.empty(self.all)
        run_lanes(self.program, rows.reshape(self.rows, self.count), self.count, totals)
        found = tuple([totals[k] if total else rows[k].copy() for total, k in self.results])
        return found, all(map(math.isfinite, totals.tolist()))

    def __call__(self, *arguments: Array) -> tuple[Array, ...]:
        return self.checked(*arguments)[0]
