"""The function of one block of a group: calls of NumPy, and rows of arithmetic between them."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.compiler.lowering import Operation, is_elementwise
from lagrad.compiler.mkl import vectorised
from lagrad.compiler.scalar_opcodes import TOTALS
from lagrad.compiler.vector_program import ARITHMETIC, Rows, in_lanes, run_lanes
from lagrad.typing import DType, Shape


@dataclass(frozen=True, slots=True)
class Out:
    """A value that leaves a group: `parts` says whether one part for each block, to be added."""

    shape: Shape
    dtype: DType
    parts: bool


class Writer:
    """The source of a group's function of one block.

    Parameters
    ----------
    operations : list of Operation
    places : list of int
        Those of the group, in order.
    kept : list of int
        Those that are asked for.
    arguments : list of int
        What comes from outside.
    shape : tuple
        The common shape.
    by_row : bool
        Whether blocks are of rows; of entries, the arrays laid flat, otherwise.
    lanes : bool
        Whether runs of arithmetic are compiled.

    Attributes
    ----------
    outs : list of Out
        What leaves the group, as in `kept`.
    scratch : list of dtypes
        Of arrays of a block's shape.
    rows : Rows
        What is in the rows of a matrix, of `dtype`.
    fixed : dict
        The rows that hold one number in all blocks: which argument that is.
    """

    def __init__(
        self,
        operations: list[Operation],
        places: list[int],
        kept: list[int],
        arguments: list[int],
        shape: Shape,
        by_row: bool,
        lanes: bool,
    ) -> None:
        self.operations, self.shape, self.by_row = operations, shape, by_row
        self.arguments = arguments
        self.out_of = {place: i for i, place in enumerate(kept)}
        self.outs = [self._out(operations[place]) for place in kept]
        self.scratch: list[DType] = []
        self.rows, self.fixed = Rows(), dict[int, int]()
        self.dtype = Counter(operations[p].dtype for p in places).most_common(1)[0][0]
        rowed = lanes and self.dtype.char in "df"
        self.inner = {p for p in places if rowed and self._arithmetic(operations[p])}
        self.order = self._staged(places)
        self.last = {a: p for p in self.order for a in operations[p].arguments}
        self.free: dict[DType, list[int]] = {}
        self.held: dict[int, int] = {}  # which scratch array holds a value
        self.named = set(arguments)  # the values that the source has a name for
        self.waiting: list[int] = []  # those in rows that are asked for, when the program has run
        self.names: dict[str, Any] = {"add": np.add.reduce, "einsum": np.einsum, "empty": np.empty}
        self.names["lanes"] = run_lanes
        self.lines = ["def run(low, high, k, given, outs, scratch, matrix, rows):"]
        for i, place in enumerate(arguments):
            self._line(f"v{place} = given[{i}]{'[low:high]' if self._is_cut(place) else ''}")
        for place in self.order:
            self._write(place, operations[place])
        self._flush()

    def compiled(self) -> Callable[..., None]:
        """The function `run(low, high, k, given, outs, scratch, matrix, rows)`."""
        exec("\n    ".join(self.lines), self.names)
        found: Callable[..., None] = self.names["run"]
        return found

    def _out(self, operation: Operation) -> Out:
        parts = operation.name == "contract"
        if operation.name == "sum":
            parts = not self.by_row or 0 in operation.parameters[0]
        return Out(operation.shape, operation.dtype, parts)

    def _is_cut(self, place: int) -> bool:
        """Whether an argument has entries of its own for each block."""
        shape = self.operations[place].shape
        if shape == self.shape:
            return True
        return self.by_row and len(shape) == len(self.shape) and shape[0] == self.shape[0]

    def _arithmetic(self, operation: Operation) -> bool:
        """Whether a program of rows computes an operation."""
        if operation.name in TOTALS:
            arguments = (self.operations[a] for a in operation.arguments)
            whole = operation.shape == () and operation.dtype == self.dtype
            return whole and all(a.dtype == self.dtype for a in arguments)
        return operation.name in ARITHMETIC and in_lanes(operation, self.operations, self.dtype)

    def _staged(self, places: list[int]) -> list[int]:
        """The operations in an order with few programs: calls in odd stages, arithmetic in even."""
        stage: dict[int, int] = {}
        for p in places:
            ready = max((stage[a] for a in self.operations[p].arguments if a in stage), default=0)
            stage[p] = ready + (ready + (p not in self.inner)) % 2 if self.inner else 0
        return sorted(places, key=lambda p: (stage[p], p))

    def _line(self, text: str) -> None:
        self.lines.append(text)

    def _write(self, place: int, operation: Operation) -> None:
        dying = [a for a in dict.fromkeys(operation.arguments) if self.last[a] == place]
        if place in self.inner:
            self._compute(place, operation, dying)
            return
        self._flush()
        for a in operation.arguments:
            if a not in self.named:
                self._line(f"v{a} = rows[{self.rows.of[a]}]")
                self.named.add(a)
        texts = ", ".join(f"v{a}" for a in operation.arguments)
        if is_elementwise(operation):
            self._call(place, operation, texts, dying)
        else:
            self._reduce(place, operation, texts)
        self._let_go(dying)

    def _compute(self, place: int, operation: Operation, dying: list[int]) -> None:
        """One more operation for the program of rows."""
        for a in operation.arguments:
            if a not in self.rows.of:
                if a in self.arguments and not self._is_cut(a) and not self.by_row:
                    self.fixed[self.rows.reserve(a)] = self.arguments.index(a)
                else:
                    self._line(f"rows[{self.rows.hold(a, before=True)}][...] = v{a}")
        self.rows.add(place, operation, self._in_rows(dying))
        self._let_go(dying)
        if place in self.out_of:
            self.waiting.append(place)

    def _flush(self) -> None:
        """Run the program of rows."""
        if not self.rows.program:
            return
        name = f"p{len(self.lines)}"
        self.names[name], totals = self.rows.flush()
        self._line(f"totals = empty({len(totals)})")
        entries = math.prod(self.shape[1:]) if self.by_row else 1
        self._line(f"lanes({name}, matrix, {entries} * (high - low), totals)")
        for place in self.waiting:
            i = self.out_of[place]
            if place in totals:
                self._line(f"outs[{i}][k] = totals[{totals.index(place)}]")
            else:
                self._line(f"outs[{i}][low:high] = rows[{self.rows.of[place]}]")
        self.waiting = []

    def _call(self, place: int, operation: Operation, texts: str, dying: list[int]) -> None:
        assert operation.primitive is not None
        kernel = operation.primitive.kernel(operation.parameters)
        ufunc = operation.ufunc is not None
        self.names[f"f{place}"] = vectorised(kernel, operation.dtype) if ufunc else kernel
        self.named.add(place)
        if place in self.out_of:
            self._line(f"v{place} = outs[{self.out_of[place]}][low:high]")
            if ufunc:
                self._line(f"f{place}({texts}, out=v{place})")
            else:
                self._line(f"v{place}[...] = f{place}({texts})")
        elif ufunc:
            self._let_go(dying)  # the value may take an argument's place
            self._line(f"v{place} = f{place}({texts}, out={self._somewhere(place, operation)})")
        else:
            self._line(f"v{place} = f{place}({texts})")

    def _somewhere(self, place: int, operation: Operation) -> str:
        """A block's array to write a value to."""
        if self.inner and operation.dtype == self.dtype:
            return f"rows[{self.rows.hold(place)}]"
        spare = self.free.setdefault(operation.dtype, [])
        if not spare:
            spare.append(len(self.scratch))
            self.scratch.append(operation.dtype)
        self.held[place] = spare.pop()
        return f"scratch[{self.held[place]}]"

    def _in_rows(self, dying: list[int]) -> list[int]:
        """Those whose rows are free once they are dead."""
        of = self.rows.of
        return [a for a in dying if a in of and of[a] not in self.fixed and a not in self.out_of]

    def _let_go(self, dying: list[int]) -> None:
        for a in self._in_rows(dying):
            self.rows.let_go(a)
        for a in dying:
            if a in self.held:
                self.free.setdefault(self.operations[a].dtype, []).append(self.held.pop(a))

    def _reduce(self, place: int, operation: Operation, texts: str) -> None:
        i = self.out_of[place]
        if operation.name == "contract":
            # Not by BLAS, whose threads would get in the way of ours.
            self._line(f"outs[{i}][k] = einsum('a,a', {texts})")
        elif not self.by_row:
            self._line(f"outs[{i}][k] = add({texts})")
        else:
            axes = operation.parameters[0]
            parts = self.outs[i].parts
            target = f"outs[{i}][k] = add(" if parts else "add("
            ending = "" if parts else f", out=outs[{i}][low:high]"
            self._line(f"{target}{texts}, axis={axes}{ending})")
