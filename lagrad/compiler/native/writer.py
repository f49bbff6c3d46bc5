"""The text of a loop, as LLVM reads it.

The index space is cut into rows of its last dimension. What does not advance along a row is read
once for it; sums and extremes are kept in registers, and stored at the end of a row, or of all
rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lagrad.compiler.lowering import Operation
from lagrad.compiler.native.code import SUFFIX, Code, Value, literal
from lagrad.compiler.native.loop import COMPARING, OF_TRUTHS, Access, Loop, source_of
from lagrad.compiler.native.reductions import REDUCTIONS, WITH_START, Reduction
from lagrad.compiler.native.rules import RULES, constant_power, kind_of
from lagrad.expressions.real_arrays import NUMBERS

# The entries whose sum is taken before it is added to that of others.
STRETCH, STRETCH_OF_SINGLES = 4096, 512
ARGUMENTS = "ptr %sizes, i64 %low, i64 %high, i64 %block, ptr noalias %flags"


@dataclass(frozen=True)
class Total:
    """A reduction in registers: what there was, what there is then, whether of a row."""

    rule: Reduction
    address: str
    had: Value
    found: Value
    of_row: bool
    kind: str

    @property
    def wide(self) -> str:
        """What stretches are put together in: sums of floats as doubles."""
        return "double" if self.rule.across == "fadd" else self.kind


class Writer:
    """The text of one loop's function.

    It is given the address of its sizes, a range of rows and the number of their block, an address
    for one flag a block, and those of inputs and outputs.
    """

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop, self.name = loop, name
        self.code = Code(loop.lanes)
        self.values: dict[int, Value] = {}
        self.rows: list[str] = []  # before each row
        self.after: list[str] = []  # after it
        self.head: list[str] = []
        self.totals: list[Total] = []
        self.begins = False  # whether something is added up in memory
        self.count = 0

    def _name(self) -> str:
        self.count += 1
        return f"%s{self.count}"

    def _set(self, lines: list[str], instruction: str) -> str:
        name = self._name()
        lines.append(f"{name} = {instruction}")
        return name

    def _offset(self, access: Access, lines: list[str]) -> str:
        """How far into an array a row begins: its index along the dimensions that it advances."""
        dims, along = len(self.loop.sizes), access.along
        if dims < 2 or not any(along[:-1]):
            return "0"
        step = "%size" + str(dims - 1) if along[-1] else "1"
        if all(along[:-1]):
            return self._set(lines, f"mul i64 %row, {step}")
        rest, total = "%row", "0"
        for d in range(dims - 2, -1, -1):
            index = self._set(lines, f"urem i64 {rest}, %size{d}") if d else rest
            if d:
                rest = self._set(lines, f"udiv i64 {rest}, %size{d}")
            if along[d]:
                term = self._set(lines, f"mul i64 {index}, {step}")
                total = self._set(lines, f"add i64 {total}, {term}")
                step = self._set(lines, f"mul i64 {step}, %size{d}")
        return total

    def text(self) -> tuple[str, dict[str, str]]:
        loop, code, dims = self.loop, self.code, len(self.loop.sizes)
        for d in range(dims):
            at = self._set(self.head, f"getelementptr i64, ptr %sizes, i64 {d}")
            self.head.append(f"%size{d} = load i64, ptr {at}")
        bases = [f"%x{k}" for k in range(len(loop.inputs) + len(loop.outputs))]
        mask = code.type_of("i1")
        code.declared["mask"] = (
            f"declare {mask} @llvm.get.active.lane.mask.v{code.lanes}i1.i64(i64, i64)"
        )
        code.lines.append(
            f"%mask = call {mask} @llvm.get.active.lane.mask.v{code.lanes}i1.i64(i64 %i, i64 %stop)"
        )
        self.mask = Value(code, "%mask", "i1")
        starts = [self._offset(a, self.rows) for a in (*loop.inputs, *loop.outputs)]
        begins = [
            self._set(self.rows, f"getelementptr {a.stored}, ptr {base}, i64 {start}")
            for a, base, start in zip((*loop.inputs, *loop.outputs), bases, starts, strict=True)
        ]
        for access, address in zip(loop.inputs, begins, strict=False):
            self.values[access.place] = self._read(access, address)
        for place in loop.places:
            operation = loop.operations[place]
            if operation.name not in REDUCTIONS:
                self.values[place] = self._computed(operation)
        for access, address in zip(loop.outputs, begins[len(loop.inputs) :], strict=True):
            self._keep(access, address)
        return self._assembled(), code.declared

    def _read(self, access: Access, address: str) -> Value:
        code, stored = self.code, access.stored
        own = code.type_of(stored)
        if not access.advances:
            one = self._set(self.rows, f"load {stored}, ptr {address}")
            first = self._set(self.rows, f"insertelement {own} poison, {stored} {one}, i64 0")
            zeros = f"<{code.lanes} x i32> zeroinitializer"
            text = self._set(self.rows, f"shufflevector {own} {first}, {own} poison, {zeros}")
            found = Value(code, text, stored)
        else:
            mask = "%mask"
            if access.window is not None:
                offset, low, high = access.window
                address = self._set(
                    self.rows, f"getelementptr {stored}, ptr {address}, i64 {offset}"
                )
                mask = self._within(low, high)
            place = self._set(code.lines, f"getelementptr {stored}, ptr {address}, i64 %i")
            found = code.add(self._masked("load", own, place, mask=mask), stored)
        return found.to("i1") if access.kind == "i1" else found

    def _within(self, low: int, high: int) -> str:
        """The lanes that there are between two entries."""
        code, found = self.code, "%mask"
        mask = code.type_of("i1")
        lanes = f"@llvm.get.active.lane.mask.v{code.lanes}i1.i64"
        if high < self.loop.sizes[0]:
            before = self._set(code.lines, f"call {mask} {lanes}(i64 %i, i64 {high})")
            found = self._set(code.lines, f"and {mask} {found}, {before}")
        if low > 0:
            less = self._set(code.lines, f"call {mask} {lanes}(i64 %i, i64 {low})")
            more = self._set(code.lines, f"xor {mask} {less}, splat (i1 true)")
            found = self._set(code.lines, f"and {mask} {found}, {more}")
        return found

    def _masked(
        self, what: str, own: str, address: str, value: str = "", mask: str = "%mask"
    ) -> str:
        """A load or store of the lanes that there are."""
        lanes_, truths = self.code.lanes, self.code.type_of("i1")
        kind = own.split(" x ")[1][:-1]
        name = f"@llvm.masked.{what}.v{lanes_}{SUFFIX.get(kind, kind)}.p0"
        if what == "load":
            self.code.declared[name] = f"declare {own} {name}(ptr, i32, {truths}, {own})"
            given = f"ptr {address}, i32 1, {truths} {mask}, {own} zeroinitializer"
            return f"call {own} {name}({given})"
        self.code.declared[name] = f"declare void {name}({own}, ptr, i32, {truths})"
        return f"call void {name}({own} {value}, ptr {address}, i32 1, {truths} {mask})"

    def _argument(self, place: int, kind: str) -> Value:
        """An argument as of the kind that an operation computes in."""
        operation = self.loop.operations[source_of(place, self.loop.operations)[0]]
        if place in self.values:
            value = self.values[place]
            return value if kind == "i1" and value.kind == "i1" else value.to(kind)
        return self.code.number(np.asarray(operation.value).item(), kind)

    def _computed(self, operation: Operation) -> Value:
        operations, arguments = self.loop.operations, operation.arguments
        kind = kind_of(operation.dtype)
        assert kind is not None
        if operation.name in COMPARING:
            kinds = [operations[a] for a in arguments]
            kind = kind_of(
                np.result_type(*[o.value if type(o.value) in NUMBERS else o.dtype for o in kinds])
            )
            assert kind is not None
        if operation.name in ("where", "branch_share"):
            condition = self._argument(arguments[0], "i1")
            others = [self._argument(a, kind) for a in arguments[1:]]
            return RULES[operation.name](condition, *others)
        if operation.name == "power":
            exponent = operations[arguments[1]]
            if (
                exponent.value is not None
                and exponent.size == 1
                and arguments[1] not in self.values
            ):
                number = float(np.asarray(exponent.value).item())
                found = constant_power(self._argument(arguments[0], kind), number)
                if found is not None:
                    return found
        name = operation.name
        if kind == "i1":
            name = OF_TRUTHS.get(name, name)
        return RULES[name](*[self._argument(a, kind) for a in arguments])

    def _keep(self, access: Access, address: str) -> None:
        """Store a value, or add it to a total."""
        operation, code = self.loop.operations[access.place], self.code
        reduces = operation.name in REDUCTIONS
        if not reduces:
            value = self.values[access.place]
        else:
            factors = [self._argument(a, access.kind) for a in operation.arguments]
            value = factors[0] * factors[1] if len(factors) == 2 else factors[0]
        if not reduces or not access.along:
            if access.kind == "i1":
                value = value.to("i8")
            place = self._set(code.lines, f"getelementptr {access.stored}, ptr {address}, i64 %i")
            code.lines.append(self._masked("store", code.type_of(access.stored), place, value.text))
            return
        rule = REDUCTIONS[operation.name]
        kind = access.kind
        if access.along == (False, True):
            start = self._set(self.rows, "mul i64 %block, %size1")
            first = self._set(
                self.rows, f"getelementptr {access.stored}, ptr {address}, i64 {start}"
            )
            place = self._set(code.lines, f"getelementptr {access.stored}, ptr {first}, i64 %i")
            own, value = code.type_of(access.stored), value.to(access.stored)
            there = code.add(self._masked("load", own, place), access.stored)
            beginning = Value(code, "%beginning", "i1")
            had = beginning.choose(rule.start, there)
            self.begins = True
            found = rule.step(had, value)
            code.lines.append(self._masked("store", own, place, found.text))
            return
        had = Value(code, f"%total{len(self.totals)}", kind)
        found = self.mask.choose(rule.step(had, value), had)
        self.totals.append(Total(rule, address, had, found, any(access.along), kind))

    def _assembled(self) -> str:
        loop, code = self.loop, self.code
        dims, loops = len(loop.sizes), self.totals
        outside = code.outside
        self.loop.flags = bool(outside)
        phis, row_phis, chunk_phis, sums = [], [], [], []
        for k, total in enumerate(loops):
            had, found = total.had.text, total.found.text
            own, wide = code.type_of(total.kind), code.type_of(total.wide)
            start = code.number(total.rule.start, total.kind).text
            first = code.number(total.rule.start, total.wide).text
            before = first if total.of_row else f"%across{k}"
            chunk_phis.append(f"%mid{k} = phi {wide} [{before}, %rowhead], [%sum{k}, %chunkend]")
            # Each stretch has a sum of its own: so few terms are added one after the other.
            adds = total.rule.across == "fadd"
            begin = start if adds else f"%mid{k}"
            phis.append(f"{had} = phi {own} [{begin}, %chunkhead], [{found}, %body]")
            if own != wide:
                sums.append(f"%wide{k} = fpext {own} {found} to {wide}")
                found = f"%wide{k}"
            both = f"fadd {wide} %mid{k}, {found}"
            sums.append(f"%sum{k} = {both if adds else f'bitcast {own} {found} to {own}'}")
            if not total.of_row:
                ways = f"[{first}, %entry], [%sum{k}, %rowend]"
                row_phis.append(f"%across{k} = phi {wide} {ways}")
        bits = code.type_of("i1")
        if outside:
            seen = Value(code, "%seen", "i1")
            for truth in outside:
                seen = seen | truth
            seen = self.mask.choose(seen, Value(code, "%seen", "i1"))
            phis.append(f"%seen = phi {bits} [%seenmid, %chunkhead], [{seen.text}, %body]")
            chunk_phis.append(
                f"%seenmid = phi {bits} [%seenacross, %rowhead], [{seen.text}, %chunkend]"
            )
            row_phis.append(
                f"%seenacross = phi {bits} [zeroinitializer, %entry], [{seen.text}, %rowend]"
            )
        if self.begins:
            first_one = self._set(self.rows, f"icmp eq i64 %row, {'0' if dims < 2 else '%low'}")
            first_lane = f"insertelement {bits} poison, i1 {first_one}, i64 0"
            spread = self._set(self.rows, first_lane)
            zeros = f"<{code.lanes} x i32> zeroinitializer"
            self.rows.append(f"%beginning = shufflevector {bits} {spread}, {bits} poison, {zeros}")
        ends: list[str] = []
        for k, total in enumerate(loops):
            lines = self.after if total.of_row else ends
            one = self._across(lines, total, f"%sum{k}")
            if total.kind != total.wide:
                one = self._set(lines, f"fptrunc {total.wide} {one} to {total.kind}")
            place = total.address
            if not total.of_row:
                place = self._set(lines, f"getelementptr {total.kind}, ptr {place}, i64 %block")
            lines.append(f"store {total.kind} {one}, ptr {place}")
        if outside:
            code.declared["or"] = f"declare i1 @llvm.vector.reduce.or.v{code.lanes}i1({bits})"
            some = self._set(
                ends, f"call i1 @llvm.vector.reduce.or.v{code.lanes}i1({bits} {seen.text})"
            )
            wide = self._set(ends, f"zext i1 {some} to i64")
            place = self._set(ends, "getelementptr i64, ptr %flags, i64 %block")
            ends.append(f"store i64 {wide}, ptr {place}")
        if dims == 0:
            bounds = ["0", "1", "0", "1"]
        elif dims == 1:
            bounds = ["0", "1", "%low", "%high"]
        else:
            bounds = ["%low", "%high", "0", f"%size{dims - 1}"]
        first_row, last_row, first, last = bounds
        single = any(total.kind != total.wide for total in loops)
        stretch = STRETCH_OF_SINGLES if single else STRETCH
        tab = "\n  "
        arrays = ", ".join(
            f"ptr noalias %x{k}" for k in range(len(loop.inputs) + len(loop.outputs))
        )
        return f"""define void @{self.name}({ARGUMENTS}, {arrays}) noinline {{
entry:
  {tab.join(self.head)}
  %last = add i64 {last}, 0
  br label %rowhead
rowhead:
  %row = phi i64 [{first_row}, %entry], [%nextrow, %rowend]
  {tab.join([*row_phis, *self.rows])}
  br label %chunkhead
chunkhead:
  %base = phi i64 [{first}, %rowhead], [%stop, %chunkend]
  {tab.join(chunk_phis)}
  %far = add i64 %base, {stretch}
  %within = icmp slt i64 %far, %last
  %stop = select i1 %within, i64 %far, i64 %last
  br label %body
body:
  %i = phi i64 [%base, %chunkhead], [%next, %body]
  {tab.join([*phis, *code.lines])}
  %next = add i64 %i, {code.lanes}
  %more = icmp slt i64 %next, %stop
  br i1 %more, label %body, label %chunkend
chunkend:
  {tab.join(sums)}
  %rest = icmp slt i64 %stop, %last
  br i1 %rest, label %chunkhead, label %rowend
rowend:
  {tab.join(self.after)}
  %nextrow = add i64 %row, 1
  %others = icmp slt i64 %nextrow, {last_row}
  br i1 %others, label %rowhead, label %done
done:
  {tab.join(ends)}
  ret void
}}
"""

    def _across(self, lines: list[str], total: Total, vector: str) -> str:
        """The lanes of a vector as one number."""
        kind, rule = total.wide, total.rule
        own = self.code.type_of(kind)
        full = f"@llvm.vector.reduce.{rule.across}.v{self.code.lanes}{SUFFIX[kind]}"
        if rule.across in WITH_START:
            self.code.declared[full] = f"declare {kind} {full}({kind}, {own})"
            start = literal(-0.0, kind)
            text = f"call reassoc {kind} {full}({kind} {start}, {own} {vector})"
            return self._set(lines, text)
        self.code.declared[full] = f"declare {kind} {full}({own})"
        return self._set(lines, f"call {kind} {full}({own} {vector})")
