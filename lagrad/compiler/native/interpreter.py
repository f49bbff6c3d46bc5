"""Operations on single numbers, one after the other: a small machine for tapes of scalars.

Codes stand for functions of one or two numbers; which, `scalar_opcodes.NAMES` says. All that
knows a derivative is elsewhere: backwards a loop adds up products with partials already computed.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import llvmlite.binding as llvm

from lagrad.compiler.native.machine import Machine
from lagrad.compiler.scalar_opcodes import CODES
from lagrad.typing import Array

# What the C library has, by NumPy's names.
LIBRARY = {
    **{name: name for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "hypot")},
    **{name: name for name in ("sinh", "cosh", "tanh")},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "tan2")},
    "power": "pow",
}
OF_TWO = frozenset(["power", "arctan2", "hypot"])
# What the processor has; x and y are the operands, r is the result.
PLAIN = {
    "add": "%r = fadd double %x, %y",
    "subtract": "%r = fsub double %x, %y",
    "multiply": "%r = fmul double %x, %y",
    "divide": "%r = fdiv double %x, %y",
    "negative": "%r = fneg double %x",
    "square": "%r = fmul double %x, %x",
    "reciprocal": "%r = fdiv double 1.0, %x",
    "sqrt": "%r = call double @llvm.sqrt.f64(double %x)",
    "abs": "%r = call double @llvm.fabs.f64(double %x)",
    "maximum": "%r = call double @llvm.maximum.f64(double %x, double %y)",
    "minimum": "%r = call double @llvm.minimum.f64(double %x, double %y)",
    "copy": "%r = fadd double %x, -0.0",
    "tanh_slope": "%r = call double @slope(double %x, double %y)",
}
# 1 − y² for y = tanh x; 4q/(1 + q)² with q = exp(−2|x|), where that cancels.
SLOPE = """define double @slope(double %y, double %x) {
  %less = fsub double 1.0, %y
  %more = fadd double 1.0, %y
  %plain = fmul double %less, %more
  %fine = fcmp oge double %plain, 1.0e-4
  br i1 %fine, label %near, label %far
near:
  ret double %plain
far:
  %a = call double @llvm.fabs.f64(double %x)
  %b = fmul double %a, -2.0
  %q = call double @exp(double %b)
  %d = fadd double %q, 1.0
  %s = fmul double %d, %d
  %n = fmul double %q, 4.0
  %r = fdiv double %n, %s
  ret double %r
}
"""
LOOPS = """define void @forward(ptr %code, ptr %first, ptr %second, ptr %values,
                       i64 %start, i64 %stop) {
entry:
  %some = icmp slt i64 %start, %stop
  br i1 %some, label %step, label %done
step:
  %i = phi i64 [%start, %entry], [%next, %step]
  %pc = getelementptr i32, ptr %code, i64 %i
  %c = load i32, ptr %pc
  %pa = getelementptr i32, ptr %first, i64 %i
  %a = load i32, ptr %pa
  %px = getelementptr double, ptr %values, i32 %a
  %x = load double, ptr %px
  %pb = getelementptr i32, ptr %second, i64 %i
  %b = load i32, ptr %pb
  %py = getelementptr double, ptr %values, i32 %b
  %y = load double, ptr %py
  %r = call double @value(i32 %c, double %x, double %y)
  %pr = getelementptr double, ptr %values, i64 %i
  store double %r, ptr %pr
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %stop
  br i1 %more, label %step, label %done
done:
  ret void
}

define void @backward(ptr %two, ptr %first, ptr %second, ptr %left, ptr %right,
                       ptr %sums, i64 %start, i64 %stop) {
entry:
  %some = icmp slt i64 %start, %stop
  br i1 %some, label %step, label %done
step:
  %above = phi i64 [%stop, %entry], [%i, %end]
  %i = sub i64 %above, 1
  %pg = getelementptr double, ptr %sums, i64 %i
  %g = load double, ptr %pg
  %none = fcmp oeq double %g, 0.0
  br i1 %none, label %end, label %one
one:
  %pa = getelementptr i32, ptr %first, i64 %i
  %a = load i32, ptr %pa
  %pl = getelementptr double, ptr %left, i64 %i
  %l = load double, ptr %pl
  %ps = getelementptr double, ptr %sums, i32 %a
  %s = load double, ptr %ps
  %gl = fmul double %g, %l
  %t = fadd double %s, %gl
  store double %t, ptr %ps
  %pt = getelementptr i8, ptr %two, i64 %i
  %both = load i8, ptr %pt
  %single = icmp eq i8 %both, 0
  br i1 %single, label %end, label %other
other:
  %pb = getelementptr i32, ptr %second, i64 %i
  %b = load i32, ptr %pb
  %pm = getelementptr double, ptr %right, i64 %i
  %m = load double, ptr %pm
  %pu = getelementptr double, ptr %sums, i32 %b
  %u = load double, ptr %pu
  %gm = fmul double %g, %m
  %v = fadd double %u, %gm
  store double %v, ptr %pu
  br label %end
end:
  %more = icmp sgt i64 %i, %start
  br i1 %more, label %step, label %done
done:
  ret void
}

define void @tangent(ptr %two, ptr %first, ptr %second, ptr %left, ptr %right,
                       ptr %sums, i64 %start, i64 %stop) {
entry:
  %some = icmp slt i64 %start, %stop
  br i1 %some, label %step, label %done
step:
  %i = phi i64 [%start, %entry], [%next, %end]
  %pa = getelementptr i32, ptr %first, i64 %i
  %a = load i32, ptr %pa
  %ps = getelementptr double, ptr %sums, i32 %a
  %s = load double, ptr %ps
  %pl = getelementptr double, ptr %left, i64 %i
  %l = load double, ptr %pl
  %sl = fmul double %s, %l
  %pt = getelementptr i8, ptr %two, i64 %i
  %both = load i8, ptr %pt
  %single = icmp eq i8 %both, 0
  br i1 %single, label %end, label %other
other:
  %pb = getelementptr i32, ptr %second, i64 %i
  %b = load i32, ptr %pb
  %pu = getelementptr double, ptr %sums, i32 %b
  %u = load double, ptr %pu
  %pm = getelementptr double, ptr %right, i64 %i
  %m = load double, ptr %pm
  %um = fmul double %u, %m
  %two_of_them = fadd double %sl, %um
  br label %end
end:
  %gain = phi double [%sl, %step], [%two_of_them, %other]
  %pg = getelementptr double, ptr %sums, i64 %i
  %g = load double, ptr %pg
  %t = fadd double %g, %gain
  store double %t, ptr %pg
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %stop
  br i1 %more, label %step, label %done
done:
  ret void
}

define void @repeat(ptr %code, ptr %first, ptr %second, ptr %memory, i64 %start, i64 %stop,
                    ptr %state, ptr %after, i64 %states, ptr %given, i64 %inputs,
                    ptr %asked, i64 %outputs, ptr %rows, ptr %made, ptr %held,
                    i64 %length, i64 %backwards) {
entry:
  %back = icmp ne i64 %backwards, 0
  %some = icmp sgt i64 %length, 0
  br i1 %some, label %step, label %done
step:
  %k = phi i64 [0, %entry], [%next, %step]
  %next = add i64 %k, 1
  %mirrored = sub i64 %length, %next
  %t = select i1 %back, i64 %mirrored, i64 %k
  %ti = mul i64 %t, %inputs
  %row = getelementptr double, ptr %rows, i64 %ti
  call void @put(ptr %memory, ptr %row, ptr %given, i64 %inputs)
  call void @forward(ptr %code, ptr %first, ptr %second, ptr %memory,
                     i64 %start, i64 %stop)
  %to = mul i64 %t, %outputs
  %out = getelementptr double, ptr %made, i64 %to
  call void @take(ptr %out, ptr %memory, ptr %asked, i64 %outputs)
  call void @take(ptr %held, ptr %memory, ptr %after, i64 %states)
  call void @put(ptr %memory, ptr %held, ptr %state, i64 %states)
  %more = icmp slt i64 %next, %length
  br i1 %more, label %step, label %done
done:
  ret void
}
"""


# Between a row and the places of a memory, one of which is at %k and the other one at %p.
MOVE = """define void @{name}(ptr %to, ptr %from, ptr %places, i64 %count) {{
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %step, label %done
step:
  %k = phi i64 [0, %entry], [%next, %step]
  %pp = getelementptr i64, ptr %places, i64 %k
  %p = load i64, ptr %pp
  %px = getelementptr double, ptr %from, i64 {read}
  %x = load double, ptr %px
  %py = getelementptr double, ptr %to, i64 {written}
  store double %x, ptr %py
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %step, label %done
done:
  ret void
}}
"""
MOVES = MOVE.format(name="take", read="%p", written="%k")
MOVES += MOVE.format(name="put", read="%k", written="%p")


def text() -> str:
    """The functions: `value` of a code, and the loops that call it."""
    two = dict.fromkeys(OF_TWO, ", double")
    declared = [f"declare double @{c}(double{two.get(name, '')})" for name, c in LIBRARY.items()]
    declared += [f"declare double @llvm.{name}.f64(double)" for name in ("sqrt", "fabs")]
    declared += [f"declare double @llvm.{n}.f64(double, double)" for n in ("maximum", "minimum")]
    ways, cases = [], []
    for name, code in CODES.items():
        other = ", double %y" if name in OF_TWO else ""
        line = PLAIN.get(name) or f"%r = call double @{LIBRARY[name]}(double %x{other})"
        ways.append(f"i32 {code}, label %c{code}")
        own = line.replace("%r =", f"%r{code} =")
        cases.append(f"c{code}:\n  {own}\n  ret double %r{code}")
    value = "\n".join(
        [
            "define internal double @value(i32 %c, double %x, double %y) alwaysinline {",
            f"  switch i32 %c, label %c{CODES['copy']} [ {' '.join(ways)} ]",
            *cases,
            "}",
        ]
    )
    return "\n".join([*declared, SLOPE, value, MOVES, LOOPS])


def library() -> ctypes.CDLL:
    """The C library's mathematics, which Python itself uses."""
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


def address(array: Array) -> int:
    found: int = array.ctypes.data
    return found


@functools.cache
def machine() -> Machine:
    """The machine code of all of it, which is kept: functions do not hold it."""
    functions = library()
    for name in LIBRARY.values():
        llvm.add_symbol(name, ctypes.cast(getattr(functions, name), ctypes.c_void_p).value)
    return Machine(text())


@functools.cache
def loops() -> tuple[Any, ...]:
    """`forward`, `backward`, `tangent` and `repeat` as functions of arrays."""
    made = machine()
    run, back, along = (
        made.function(name, n) for name, n in (("forward", 6), ("backward", 8), ("tangent", 8))
    )
    again = made.function("repeat", 18)

    def forward(code: Array, first: Array, second: Array, values: Array, start: int) -> None:
        run(*map(address, (code, first, second, values)), start, values.size)

    def swept(function: Any) -> Any:
        def sweep(*arrays: Any) -> None:
            *given, sums, start = arrays
            function(*map(address, given), address(sums), start, sums.size)

        return sweep

    def repeat(
        code: Array,
        first: Array,
        second: Array,
        memory: Array,
        start: int,
        places: tuple[Array, Array, Array, Array],
        inputs: Array,
        outputs: Array,
        backwards: bool,
    ) -> None:
        """The same operations for row after row of inputs.

        `places` are those of the state, of what becomes of it, of inputs, and of outputs.
        """
        state, after, given, asked = (array.astype("i8") for array in places)
        held = memory[: state.size].copy()
        again(
            *map(address, (code, first, second, memory)),
            *(start, memory.size),
            *(address(state), address(after), state.size),
            *(address(given), given.size, address(asked), asked.size),
            *map(address, (inputs, outputs, held)),
            *(inputs.shape[0], int(backwards)),
        )

    return forward, swept(back), swept(along), repeat
