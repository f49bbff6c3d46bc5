"""A loop whose step is small: straight machine code for one step, and a jump back.

The step's operations are on entries of arrays, in groups of one function each. A group is a vector,
whatever its length; what only moves entries is a shuffle of lanes. What no step changes is computed
before the first one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lagrad.compiler.native.code import Code, Value, literal
from lagrad.compiler.native.machine import Machine, compiled
from lagrad.compiler.native.rules import RULES, constant_power
from lagrad.compiler.scalar_opcodes import BINARY, NAMES
from lagrad.compiler.scalarize import Scalarised
from lagrad.typing import Array

# The lanes of a vector, at the most: two or more of the processor's.
WIDE = 16
# Vectors, and instructions, beyond which LLVM takes too long.
VECTORS, LINES = 600, 6000


def written(step: Scalarised, states: int, inputs: int) -> Steps | None:
    """The loop over a step; None where it would be long."""
    if sum(-(-size // WIDE) for size in step.groups) > VECTORS:
        return None
    found = Steps(step, states, inputs)
    return found if len(found.head.lines) + len(found.body.lines) <= LINES else None


class Steps:
    """The loop over steps as machine code.

    Parameters
    ----------
    step : Scalarised
    states, inputs : int
        How many of the entries that a step is given are states and inputs; the rest are constants.

    Attributes
    ----------
    text : str
        What LLVM is given.
    """

    def __init__(self, step: Scalarised, states: int, inputs: int) -> None:
        self.step, self.states, self.inputs = step, states, inputs
        self.kind = "float" if step.memory.dtype == np.float32 else "double"
        self.numbers = int(step.given[0]) if step.given.size else step.start
        self.row = self.numbers + states  # where inputs begin
        self.fixed = self.row + inputs  # and constants
        self.head, self.body = Region("h"), Region("v")
        self.made: dict[int, tuple[Value, int]] = {}  # the vector, and its lane, of each result
        self.moves: set[int] = set()  # results that differ from step to step
        self.packed: dict[tuple[bytes, bool], Value] = {}
        self.text = self._text()

    @functools.cached_property
    def machine(self) -> Machine:  # which is let go with this object
        return compiled(self.text)

    @functools.cached_property
    def run(self) -> Any:
        return self.machine.function("steps", 6)

    def __call__(self, memory: Array, rows: Array, outputs: Array, backwards: bool) -> bool:
        """Run all steps; whether each was within the range of its functions."""
        flag = np.zeros(1, np.int64)
        arrays = (memory, rows, outputs, flag)
        self.run(*(a.ctypes.data for a in arrays), len(rows), int(backwards))
        return not flag[0]

    def _fixed(self, places: Array) -> bool:
        """Whether entries are the same in each step."""
        varies = (places >= self.numbers) & (places < self.fixed)
        return not varies.any() and self.moves.isdisjoint(
            places[places >= self.step.start].tolist()
        )

    def _computed(self) -> None:
        """All groups, in order."""
        step, begin = self.step, self.step.start
        for size in step.groups:
            for low in range(begin, begin + size, WIDE):
                high = min(low + WIDE, begin + size)
                self._group(low, high)
            begin += size

    def _group(self, low: int, high: int) -> None:
        step = self.step
        name = NAMES[step.codes[low]]
        operands = [step.firsts[low:high]]
        if step.codes[low] < BINARY:
            operands.append(step.seconds[low:high])
        fixed = all(map(self._fixed, operands))
        region = self.head if fixed else self.body
        if not fixed:
            self.moves.update(range(low, high))
        code = region.code(high - low)
        values = [self._packed(places, region) for places in operands]
        found = self._value(code, name, operands, values)
        self.made.update((p, (found, p - low)) for p in range(low, high))

    def _value(
        self, code: Code, name: str, operands: Sequence[Array], values: list[Value]
    ) -> Value:
        if name == "copy":
            return values[0]
        if name == "power":
            exponents = np.unique(operands[1])
            if exponents.size == 1 and exponents[0] < self.numbers:
                found = constant_power(values[0], float(self.step.memory[exponents[0]]))
                if found is not None:
                    return found
        return RULES[name](*values)

    def _packed(self, places: Array, region: Region) -> Value:
        """Some entries as one vector."""
        code, own = region.code(places.size), region
        if self._fixed(places):
            own = self.head
        key = (np.asarray(places, np.int64).tobytes(), own is self.head)
        found = self.packed.get(key)
        if found is None:
            found = self.packed[key] = self._pack(places.tolist(), own)
        return Value(code, found.text, self.kind)

    def _pack(self, places: list[int], region: Region) -> Value:
        code, kind, count = region.code(len(places)), self.kind, len(places)
        vector = code.type_of(kind)
        if max(places) < self.numbers:
            numbers = [float(self.step.memory[p]) for p in places]
            if len(set(places)) == 1:
                return code.number(numbers[0], kind)
            own = ", ".join(f"{kind} {literal(number, kind)}" for number in numbers)
            return Value(code, f"<{own}>", kind)
        if count > 1 and len(set(places)) == 1:
            one = self._one(places[0], region)
            first = code.add(f"insertelement {vector} poison, {kind} {one}, i64 0", kind)
            zeros = f"<{count} x i32> zeroinitializer"
            return code.add(f"shufflevector {vector} {first.text}, {vector} poison, {zeros}", kind)
        in_row = places == list(range(places[0], places[0] + count))
        if in_row and self._base(places[0]) == self._base(places[-1]) != "":
            address = self._address(places[0], region)
            return code.add(
                f"load {vector}, ptr {address}, align {4 if kind == 'float' else 8}", kind
            )
        if all(p in self.made for p in places):
            sources = list(dict.fromkeys(self.made[p][0].text for p in places))
            widths = {self.made[p][0].text: self.made[p][0].code.lanes for p in places}
            lanes = [self.made[p][1] for p in places]
            if len(sources) == 1 and widths[sources[0]] == count and lanes == list(range(count)):
                return Value(code, sources[0], kind)
            if len(sources) <= 2 and len(set(widths.values())) == 1:
                width = widths[sources[0]]
                own = f"<{width} x {kind}>"
                mask = ", ".join(
                    f"i32 {lane + width * sources.index(self.made[p][0].text)}"
                    for p, lane in zip(places, lanes, strict=True)
                )
                second = sources[1] if len(sources) == 2 else "poison"
                texts = f"{own} {sources[0]}, {own} {second}, <{count} x i32> <{mask}>"
                return code.add(f"shufflevector {texts}", kind)
        found = "poison"
        for lane, place in enumerate(places):
            one = self._one(place, region)
            texts = f"{vector} {found}, {kind} {one}, i64 {lane}"
            found = code.add(f"insertelement {texts}", kind).text
        return Value(code, found, kind)

    def _one(self, place: int, region: Region) -> str:
        """One entry as a number."""
        code, kind = region.code(1), self.kind
        if place < self.numbers:
            return literal(float(self.step.memory[place]), kind)
        if place in self.made:
            vector, lane = self.made[place]
            own = vector.code.type_of(kind)
            return code.add(f"extractelement {own} {vector.text}, i64 {lane}", kind).text
        return code.add(f"load {kind}, ptr {self._address(place, region)}", kind).text

    def _base(self, place: int) -> str:
        """The array that a given entry stands in; none of what is computed, or a number."""
        if not self.numbers <= place < self.step.start:
            return ""
        if place < self.row:
            return "states"
        return "%row" if place < self.fixed else "constants"

    def _address(self, place: int, region: Region) -> str:
        row = self._base(place) == "%row"
        base, at = ("%row", place - self.row) if row else ("%memory", place)
        return region.code(1).add(f"getelementptr {self.kind}, ptr {base}, i64 {at}", "ptr").text

    def _stored(self, places: Array, base: str, at: int) -> list[str]:
        """The instructions that store entries in a row, from what is read before."""
        lines, code = [], self.body.code(1)
        for low in range(0, places.size, WIDE):
            some = places[low : low + WIDE]
            value = self._packed(some, self.body)
            address = code.add(f"getelementptr {self.kind}, ptr {base}, i64 {at + low}", "ptr").text
            own = f"<{some.size} x {self.kind}>"
            align = 4 if self.kind == "float" else 8
            lines.append(f"store {own} {value.text}, ptr {address}, align {align}")
        return lines

    def _text(self) -> str:
        after, asked = np.split(self.step.asked, [self.states])
        self._computed()
        stores = self._stored(asked, "%out", 0) + self._stored(after, "%memory", self.numbers)
        before, within = self.head.outside(), self.body.outside()
        lines = "\n  ".join([*self.body.lines, *within, *stores])
        head = "\n  ".join([*self.head.lines, *before])
        declared = "\n".join((self.head.declared | self.body.declared).values())
        arrays = "ptr noalias %memory, ptr noalias %rows, ptr noalias %made, ptr noalias %flag"
        return f"""{declared}
define void @steps({arrays}, i64 %length, i64 %backwards) {{
entry:
  %back = icmp ne i64 %backwards, 0
  %some = icmp sgt i64 %length, 0
  br i1 %some, label %begin, label %done
begin:
  {head}
  br label %step
step:
  %k = phi i64 [0, %begin], [%next, %step]
  %seen = phi i1 [{self.head.seen}, %begin], [%ever, %step]
  %next = add i64 %k, 1
  %mirrored = sub i64 %length, %next
  %t = select i1 %back, i64 %mirrored, i64 %k
  %ti = mul i64 %t, {self.inputs}
  %row = getelementptr {self.kind}, ptr %rows, i64 %ti
  %to = mul i64 %t, {asked.size}
  %out = getelementptr {self.kind}, ptr %made, i64 %to
  {lines}
  %ever = or i1 %seen, {self.body.seen}
  %more = icmp slt i64 %next, %length
  br i1 %more, label %step, label %end
end:
  %wide = zext i1 %ever to i64
  store i64 %wide, ptr %flag
  br label %done
done:
  ret void
}}
"""


class Region:
    """Instructions in a row, of vectors of many lengths."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self.known: dict[str, Value] = {}
        self.declared: dict[str, str] = {}
        self.codes: dict[int, Code] = {}
        self.seen = "false"

    def code(self, lanes: int) -> Code:
        found = self.codes.get(lanes)
        if found is None:
            found = self.codes[lanes] = Code(lanes, self.prefix)
            found.lines, found.known, found.declared = self.lines, self.known, self.declared
        return found

    def outside(self) -> list[str]:
        """The instructions that tell whether some function was outside of its range."""
        found: list[str] = []
        texts = ["false"]
        for lanes, code in self.codes.items():
            for truth in code.outside:
                name = f"@llvm.vector.reduce.or.v{lanes}i1"
                self.declared[name] = f"declare i1 {name}(<{lanes} x i1>)"
                texts.append(f"%{self.prefix}any{len(found)}")
                found.append(f"{texts[-1]} = call i1 {name}(<{lanes} x i1> {truth.text})")
        for k, text in enumerate(texts[1:]):
            found.append(f"%{self.prefix}or{k} = or i1 {self.seen}, {text}")
            self.seen = f"%{self.prefix}or{k}"
        return found
