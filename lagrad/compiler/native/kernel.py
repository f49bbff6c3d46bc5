"""Loops in a row as one function of arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from lagrad.compiler.native.loop import Access, Loop
from lagrad.compiler.native.machine import compiled, data_offset, none
from lagrad.compiler.native.reductions import REDUCTIONS
from lagrad.compiler.native.writer import Writer
from lagrad.compiler.threads import THREADED_FROM, run_in_parts
from lagrad.typing import Array, Shape

# The entries of a block: of a fixed size, so that bits do not depend on the number of threads.
BLOCK = 1 << 14
# The C library of Linux gives memory back to the system whenever more than 128 kB of it are free,
# and gets it again page by page, which takes ten times as long as to fill it, until it has seen a
# larger array come and go: this one, whose pages nobody touches.
np.empty(1 << 22)
COMBINED = {"fadd": np.add, "fmaximum": np.maximum, "fminimum": np.minimum}
# Work for which Python's lock is kept: letting it go costs as much.
SHORT = 200_000


class Range:
    """How a loop's rows are cut into blocks: one where the work is little."""

    def __init__(self, loop: Loop) -> None:
        sizes = loop.sizes
        self.count = sizes[0] if len(sizes) == 1 else math.prod(sizes[:-1])
        row = 1 if len(sizes) < 2 else sizes[-1]
        self.size = len(loop.places) * math.prod(sizes)
        few = self.size < THREADED_FROM
        self.block = self.count if few else max(1, min(self.count, BLOCK // max(1, row)))
        self.blocks = max(1, -(-self.count // max(1, self.block)))


def fitting(array: Any, dtype: Any, shape: Shape) -> Array:
    """An array in one piece, of a dtype: itself where it is that."""
    return np.ascontiguousarray(np.asarray(array, dtype)).reshape(shape)


class Kernel:
    """Loops in a row as a function of whole arrays.

    Parameters
    ----------
    loops : sequence of Loop
        In order; each may read what earlier ones have made.
    results : sequence of int
        The places that are asked for.
    reference : callable
        The same by NumPy, for arguments outside of the range of some function.

    Attributes
    ----------
    arguments : list of int
        The places that come from outside.
    """

    def __init__(
        self, loops: Sequence[Loop], results: Sequence[int], reference: Callable[..., Any]
    ) -> None:
        self.loops, self.reference, self.results = loops, reference, list(results)
        operations = loops[0].operations
        made = {o.place: (loop, o) for loop in loops for o in loop.outputs}
        read = dict.fromkeys(a.root for loop in loops for a in loop.inputs)
        self.arguments = [p for p in read if p not in made]
        self.ranges = [Range(loop) for loop in loops]
        self.size = sum(r.size for r in self.ranges)
        self.wanted = [(operations[p].dtype, operations[p].shape) for p in self.arguments]
        self.together = all(r.blocks == 1 for r in self.ranges)
        # Arrays that are asked for are arrays of their own; numbers, and what only loops give one
        # another, stand in one piece of memory, the numbers first.
        own = [p for p in self.results if operations[p].shape]
        numbers = [p for p in self.results if not operations[p].shape]
        shared = [*numbers, *(p for p in made if p not in self.results)]
        self.own = [(operations[p].shape, operations[p].dtype) for p in own]
        self.outs = [self._made(*made[p]) for p in (*own, *shared)]
        self.offsets, self.bytes = self._offsets([made[p] for p in shared])
        order = {p: k for k, p in enumerate((*self.arguments, *own, *shared))}
        self.given = [[order[a.root] for a in (*k.inputs, *k.outputs)] for k in loops]
        self.picked = self._picked(own, numbers)
        texts, declared = [], dict[str, str]()
        for k, loop in enumerate(loops):
            text, names = Writer(loop, f"loop{k}").text()
            texts.append(text)
            declared |= names
        self.flags = any(loop.flags for loop in loops)
        sizes = [n for loop in loops for n in (*loop.sizes, 0)]
        self.numbers = len(sizes)
        self.table = np.array([*sizes, *self.offsets], np.int64)
        self.at = self.table.ctypes.data
        texts += self._drivers()
        self.text = "\n".join([*declared.values(), *texts])
        self.machine = compiled(self.text)
        name, count = ("call", len(self.arguments) + len(self.own) + 2)
        quick = self.together and self.size < SHORT
        self.run = self.machine.builtin("entry") if quick else None
        self.call = None if quick else self.machine.function(name, count + 1)

    def __str__(self) -> str:
        """Its loops, with what each computes."""
        names = [[k.operations[p].name for p in k.places] for k in self.loops]
        loops = zip(self.loops, names, strict=True)
        return "; ".join(f"{k.shape}: {' '.join(own)}" for k, own in loops)

    def _made(self, loop: Loop, output: Access) -> tuple[Shape, Any, Any]:
        """The shape in memory of an output, its dtype, and what puts its parts together."""
        operation = loop.operations[output.place]
        blocks = self.ranges[self.loops.index(loop)].blocks
        if not loop.by_block(output) or blocks == 1:
            return operation.shape, operation.dtype, None
        combined = COMBINED[REDUCTIONS[operation.name].across]
        return (blocks, *operation.shape), operation.dtype, combined

    def _offsets(self, shared: list[tuple[Loop, Access]]) -> tuple[list[int], int]:
        """Where what stands in one piece of memory begins, in bytes; and how long that is."""
        found, at = [], 0
        for loop, output in shared:
            operation = loop.operations[output.place]
            found.append(at)
            length = operation.size * operation.dtype.itemsize
            at += 8 if not operation.shape else -(-length // 64) * 64
        return found, at

    def _picked(self, own: list[int], numbers: list[int]) -> list[tuple[bool, int, Any]]:
        """For each result whether it is an array of its own, which one, and a number's dtype."""
        operations = self.loops[0].operations
        return [
            (True, own.index(p), None)
            if operations[p].shape
            else (False, numbers.index(p), operations[p].dtype)
            for p in self.results
        ]

    def _drivers(self) -> list[str]:
        """One call of all loops over all of their rows: by addresses of arrays, and for Python."""
        arrays, lines, at = len(self.arguments) + len(self.own), [], 0
        for k in range(arrays + 1):  # the last one is the piece of memory
            lines.append(f"%f{k} = getelementptr i8, ptr %o{k}, i64 {data_offset()}")
            lines.append(f"%x{k} = load ptr, ptr %f{k}")
        for k in range(len(self.offsets)):
            lines.append(f"%p{k} = getelementptr i64, ptr %table, i64 {self.numbers + k}")
            lines.append(f"%q{k} = load i64, ptr %p{k}")
            lines.append(f"%x{arrays + 1 + k} = getelementptr i8, ptr %x{arrays}, i64 %q{k}")
        for k, (loop, places) in enumerate(zip(self.loops, self.given, strict=True)):
            lines.append(f"%s{k} = getelementptr i64, ptr %table, i64 {at}")
            lines.append(f"%n{k} = load i64, ptr %s{k}")
            high = f"%n{k}"
            for d in range(1, len(loop.sizes) - 1):
                lines.append(f"%a{k}x{d} = getelementptr i64, ptr %s{k}, i64 {d}")
                lines.append(f"%b{k}x{d} = load i64, ptr %a{k}x{d}")
                lines.append(f"%n{k}x{d} = mul i64 {high}, %b{k}x{d}")
                high = f"%n{k}x{d}"
            given = ", ".join(f"ptr %x{p + (p >= arrays)}" for p in places)
            lines.append(f"%l{k} = alloca i64")
            lines.append(f"store i64 0, ptr %l{k}")
            lines.append(
                f"call void @loop{k}(ptr %s{k}, i64 0, i64 {high}, i64 0, ptr %l{k}, {given})"
            )
            at += len(loop.sizes) + 1
        seen = "0"
        for k, loop in enumerate(self.loops):
            if loop.flags:
                lines += [f"%t{k} = load i64, ptr %l{k}", f"%u{k} = or i64 {seen}, %t{k}"]
                seen = f"%u{k}"
        lines.append(f"ret i64 {seen}")
        objects = [f"ptr %o{k}" for k in range(arrays + 1)]
        tab = "\n  "
        head = f"define i64 @every(ptr %table, {', '.join(objects)}) noinline"
        every = f"{head} {{\n  {tab.join(lines)}\n}}\n"
        call = f"""define void @call(ptr %table, ptr %flag, {", ".join(objects)}) {{
  %seen = call i64 @every(ptr %table, {", ".join(objects)})
  store i64 %seen, ptr %flag
  ret void
}}
"""
        reads = [
            f"%a{k} = getelementptr ptr, ptr %args, i64 {k + 1}\n  %o{k} = load ptr, ptr %a{k}"
            for k in range(arrays + 1)
        ]
        entry = f"""define ptr @entry(ptr %self, ptr %args, i64 %count) {{
  %held = load ptr, ptr %args
  %field = getelementptr i8, ptr %held, i64 {data_offset()}
  %table = load ptr, ptr %field
  {tab.join(reads)}
  %seen = call i64 @every(ptr %table, {", ".join(objects)})
  %fine = icmp eq i64 %seen, 0
  {none("%fine")}
}}
"""
        return [every, call, entry]

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        return self.direct(*arguments)

    @functools.cached_property
    def direct(self) -> Callable[..., tuple[Any, ...]]:
        """The call written out for these arguments: a loop over them takes as long again."""
        if not self.together:
            return self._by_loops
        given = [f"a{k}" for k in range(len(self.arguments))]
        own = [f"o{k}" for k in range(len(self.own))]
        names: dict[str, Any] = {"NDARRAY": np.ndarray, "empty": np.empty, "fitting": fitting}
        names |= {"table": self.table, "run": self._run_all, "outside": self._outside}
        if self.run is not None:
            names["run"] = self.run
        lines = [f"def call({', '.join(given)}):"]
        for k, (dtype, shape) in enumerate(self.wanted):
            names |= {f"t{k}": dtype, f"s{k}": shape}
            lines.append(
                f"    if type(a{k}) is not NDARRAY or a{k}.dtype is not t{k} "
                f"or not a{k}.flags.c_contiguous: a{k} = fitting(a{k}, t{k}, s{k})"
            )
        for k, (shape, dtype) in enumerate(self.own):
            names |= {f"m{k}": shape, f"d{k}": dtype}
            lines.append(f"    o{k} = empty(m{k}, d{k})")
        lines.append(f"    piece = empty({-(-self.bytes // 8)})")
        handed = ", ".join(["table", *given, *own, "piece"])
        lines.append(f"    if run({handed}): return outside(({''.join(a + ', ' for a in given)}))")
        found = []
        for k, (whole, at, dtype) in enumerate(self.picked):
            names[f"n{k}"] = dtype
            number = f"piece[{at}]"
            if not whole and dtype.char != "d":
                number = f"piece[{at}:{at + 1}].view(n{k})[0]"
            found.append(f"o{at}" if whole else number)
        lines.append(f"    return ({''.join(text + ', ' for text in found)})")
        exec("\n".join(lines), names)
        call: Callable[..., tuple[Any, ...]] = names["call"]
        return call

    def _run_all(self, table: Array, *arrays: Array) -> Any:
        """All loops, without Python's lock; whether something was outside of a function's range."""
        flag = np.zeros(1, np.int64)
        assert self.call is not None
        self.call(table.ctypes.data, flag.ctypes.data, *map(id, arrays))
        return flag[0]

    def _by_loops(self, *arguments: Any) -> tuple[Any, ...]:
        given = [fitting(a, *wanted) for a, wanted in zip(arguments, self.wanted, strict=True)]
        return self._in_blocks(given) or self._outside(arguments)

    def _outside(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """By NumPy."""
        with np.errstate(all="ignore"):
            return tuple(self.reference(*arguments))

    @functools.cached_property
    def each(self) -> list[Any]:
        """The loops as functions of addresses."""
        return [self.machine.function(f"loop{k}", 5 + len(g)) for k, g in enumerate(self.given)]

    def _in_blocks(self, given: list[Array]) -> tuple[Any, ...] | None:
        """Loop after loop, each over many threads; None outside of the functions' range."""
        outs = [np.empty(shape, dtype) for shape, dtype, _ in self.outs]
        arrays, at = [*given, *outs], self.at
        for k, (loop, rows) in enumerate(zip(self.loops, self.ranges, strict=True)):
            flags = np.zeros(rows.blocks, np.int64)
            addresses = [arrays[p].ctypes.data for p in self.given[k]]
            self._run(self.each[k], rows, at, flags.ctypes.data, addresses)
            at += 8 * (len(loop.sizes) + 1)
            if flags.any():
                return None
            for place in self.given[k][len(loop.inputs) :]:  # later loops read it whole
                parts = self.outs[place - len(given)][2]
                if parts is not None:
                    arrays[place] = np.asarray(parts.reduce(arrays[place], axis=0))
        found, first = arrays[len(given) :], len(self.own)
        return tuple([found[k] if own else found[first + k][()] for own, k, _ in self.picked])

    def _run(self, run: Any, rows: Range, at: int, flags: int, addresses: list[int]) -> None:
        if rows.blocks == 1:
            run(at, 0, rows.count, 0, flags, *addresses)
            return

        def work(numbers: Iterator[int]) -> None:
            for k in numbers:
                low = k * rows.block
                run(at, low, min(low + rows.block, rows.count), k, flags, *addresses)

        run_in_parts(work, rows.blocks, rows.size)
