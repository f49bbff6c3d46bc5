"""LLVM's instructions as text: vectors of numbers with Python's operators.

A function of numbers, written as mathematics, is a function of vectors of them: each operator
appends one instruction, and what it returns stands for the result.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

# Floats, and the integers that are as wide.
INTEGER = {"double": "i64", "float": "i32"}
FLOAT = {integer: real for real, integer in INTEGER.items()}
BITS = {"i1": 1, "i8": 8, "i32": 32, "i64": 64}
SUFFIX = {"double": "f64", "float": "f32"}


def literal(number: Any, kind: str) -> str:
    """A number as LLVM writes it."""
    if kind in BITS:
        bits = BITS[kind]
        return str(int(number) & ((1 << bits) - 1)) if bits > 1 else str(bool(number)).lower()
    if kind == "float":  # written as the double that it is
        number = struct.unpack("f", struct.pack("f", number))[0]
    return "0x" + struct.pack(">d", number).hex().upper()


class Code:
    """The instructions of one loop's body, in order.

    Parameters
    ----------
    lanes : int
        How many numbers a value holds.
    prefix : str
        What names begin with.

    Attributes
    ----------
    lines : list of str
    declared : dict
        LLVM's own functions that are called, with their declarations.
    outside : list of Value
        Where a function is computed outside of the range that it has been written for.
    """

    def __init__(self, lanes: int, prefix: str = "v") -> None:
        self.lanes, self.prefix = lanes, prefix
        self.lines: list[str] = []
        self.known: dict[str, Value] = {}
        self.declared: dict[str, str] = {}
        self.outside: list[Value] = []

    def type_of(self, kind: str) -> str:
        return f"<{self.lanes} x {kind}>"

    def number(self, number: Any, kind: str) -> Value:
        return Value(self, f"splat ({kind} {literal(number, kind)})", kind)

    def add(self, instruction: str, kind: str) -> Value:
        """The value of an instruction, appended, where it is not there already."""
        known = self.known.get(instruction)
        if known is None:
            name = f"%{self.prefix}{len(self.lines)}"
            self.lines.append(f"{name} = {instruction}")
            known = self.known[instruction] = Value(self, name, kind)
        return known

    def intrinsic(self, name: str, *values: Value) -> Value:
        """A function of LLVM's own, of vectors of one kind."""
        kind = values[0].kind
        full = f"@llvm.{name}.v{self.lanes}{SUFFIX.get(kind, kind)}"
        own = self.type_of(kind)
        self.declared[full] = f"declare {own} {full}({', '.join([own] * len(values))})"
        given = ", ".join(f"{own} {value.text}" for value in values)
        return self.add(f"call {own} {full}({given})", kind)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A vector: of doubles, floats, integers, or truths (`i1`)."""

    code: Code
    text: str
    kind: str

    def like(self, other: Any) -> Value:
        """A number as a vector of this kind; a vector as it is."""
        return other if isinstance(other, Value) else self.code.number(other, self.kind)

    def _of_two(self, real: str, whole: str, left: Any, right: Any) -> Value:
        name = real if self.kind in INTEGER else whole
        own = self.code.type_of(self.kind)
        a, b = self.like(left), self.like(right)
        return self.code.add(f"{name} {own} {a.text}, {b.text}", self.kind)

    def __add__(self, other: Any) -> Value:
        return self._of_two("fadd", "add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self._of_two("fadd", "add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self._of_two("fsub", "sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self._of_two("fsub", "sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self._of_two("fmul", "mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self._of_two("fmul", "mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self._of_two("fdiv", "", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._of_two("fdiv", "", other, self)

    def __neg__(self) -> Value:
        if self.kind not in INTEGER:
            return 0 - self
        return self.code.add(f"fneg {self.code.type_of(self.kind)} {self.text}", self.kind)

    def __and__(self, other: Any) -> Value:
        return self._of_two("", "and", self, other)

    def __or__(self, other: Any) -> Value:
        return self._of_two("", "or", self, other)

    def __xor__(self, other: Any) -> Value:
        return self._of_two("", "xor", self, other)

    def __lshift__(self, other: Any) -> Value:
        return self._of_two("", "shl", self, other)

    def __rshift__(self, other: Any) -> Value:
        return self._of_two("", "lshr", self, other)

    def __invert__(self) -> Value:
        return self ^ -1

    def _compared(self, real: str, whole: str, other: Any) -> Value:
        name = f"fcmp {real}" if self.kind in INTEGER else f"icmp {whole}"
        own, text = self.code.type_of(self.kind), self.like(other).text
        return self.code.add(f"{name} {own} {self.text}, {text}", "i1")

    def __lt__(self, other: Any) -> Value:
        return self._compared("olt", "slt", other)

    def __le__(self, other: Any) -> Value:
        return self._compared("ole", "sle", other)

    def __gt__(self, other: Any) -> Value:
        return self._compared("ogt", "sgt", other)

    def __ge__(self, other: Any) -> Value:
        return self._compared("oge", "sge", other)

    def equals(self, other: Any) -> Value:
        return self._compared("oeq", "eq", other)

    def differs(self, other: Any) -> Value:
        return self._compared("une", "ne", other)

    def is_nan(self) -> Value:
        return self._compared("uno", "", self)

    def choose(self, yes: Any, no: Any) -> Value:
        """`yes` where this truth holds, `no` elsewhere; one of both is a vector."""
        of = yes if isinstance(yes, Value) else no
        yes, no, code = of.like(yes), of.like(no), self.code
        own = code.type_of(of.kind)
        texts = f"{code.type_of('i1')} {self.text}, {own} {yes.text}, {own} {no.text}"
        return code.add(f"select {texts}", of.kind)

    def _cast(self, name: str, kind: str) -> Value:
        code = self.code
        return code.add(
            f"{name} {code.type_of(self.kind)} {self.text} to {code.type_of(kind)}", kind
        )

    @property
    def bits(self) -> Value:
        """A float's bits as an integer."""
        return self._cast("bitcast", INTEGER[self.kind])

    @property
    def floating(self) -> Value:
        """The float that has an integer's bits."""
        return self._cast("bitcast", FLOAT[self.kind])

    def to(self, kind: str) -> Value:
        """The number, or truth, as one of another kind."""
        if kind == self.kind:
            return self
        if kind == "i1":
            return self.differs(0)
        if self.kind in INTEGER:
            if kind in INTEGER:
                return self._cast("fpext" if kind == "double" else "fptrunc", kind)
            return self._cast("fptosi", kind)
        if kind in INTEGER:
            return self._cast("uitofp" if self.kind == "i1" else "sitofp", kind)
        wider = BITS[kind] > BITS[self.kind]
        return self._cast("trunc" if not wider else "zext" if self.kind == "i1" else "sext", kind)


def fma(a: Any, b: Any, c: Any) -> Value:
    """a·b + c, rounded once."""
    of = next(value for value in (a, b, c) if isinstance(value, Value))
    return of.code.intrinsic("fma", of.like(a), of.like(b), of.like(c))


def magnitude(x: Value) -> Value:
    return x.code.intrinsic("fabs", x)


def with_sign(x: Value, y: Value) -> Value:
    """The magnitude of x with the sign of y."""
    return x.code.intrinsic("copysign", x, y)


def square_root(x: Value) -> Value:
    return x.code.intrinsic("sqrt", x)


def floor(x: Value) -> Value:
    return x.code.intrinsic("floor", x)


def ceil(x: Value) -> Value:
    return x.code.intrinsic("ceil", x)


def polynomial(x: Value, coefficients: tuple[float, ...]) -> Value:
    """By Horner's rule; the constant comes first."""
    found: Any = coefficients[-1]
    for c in coefficients[-2::-1]:
        found = fma(found, x, c)
    return x.like(found)


def fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and what rounding takes from it, where |a| ≥ |b| (Dekker 1971)."""
    total = a + b
    return total, (a - total) + b


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and what rounding takes from it (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    own = total - a
    return total, (a - (total - own)) + (b - own)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a·b and what rounding takes from it."""
    product = a * b
    return product, fma(a, b, -product)
