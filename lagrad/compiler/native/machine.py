"""LLVM's text to machine code for the processor at hand."""

from __future__ import annotations

import ctypes
import functools
import sys
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import llvmlite.binding as llvm
import numpy as np

LOCK = Lock()


@functools.cache
def features() -> frozenset[str]:
    """What the processor can do, in LLVM's words."""
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


@functools.cache
def lanes(kind: str) -> int:
    """How many numbers of a kind one vector of the processor has."""
    bits = 512 if "avx512f" in features() else 256 if "avx2" in features() else 128
    return bits // (64 if kind == "double" else 32)


@functools.cache
def multiplies_and_adds() -> bool:
    """Whether the processor rounds a·b + c once: the functions of this folder need that."""
    return "fma" in features() or any(name in features() for name in ("neon", "fp-armv8"))


def machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_default_triple()
    return triple.create_target_machine(
        opt=2, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )


@functools.cache
def data_offset() -> int | None:
    """Where in an ndarray's own memory the address of its data stands; None where it is not found.

    An address read there costs nothing, and half a microsecond by `ndarray.ctypes`.
    """
    probe = np.empty(3)
    for offset in range(8, 64, 8):
        if ctypes.c_void_p.from_address(id(probe) + offset).value == probe.ctypes.data:
            return offset
    return None


class Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


FASTCALL = 0x80  # a C array of arguments, and their number


def none(fine: str) -> str:
    """The instructions that return None to Python where a truth holds, and True elsewhere.

    Who returns an object hands over one reference to it; from CPython 3.12 on these two have no
    count.
    """
    chosen = f"select i1 {fine}, i64 {id(None)}, i64 {id(True)}"
    lines = [f"%address = {chosen}", "%found = inttoptr i64 %address to ptr"]
    if sys.version_info < (3, 12):
        lines += ["%references = load i64, ptr %found", "%more = add i64 %references, 1"]
        lines += ["store i64 %more, ptr %found"]
    return "\n  ".join([*lines, "ret ptr %found"])


class Machine:
    """The machine code of one module; it is let go with this object."""

    def __init__(self, text: str) -> None:
        with LOCK:
            module = llvm.parse_assembly(text)
            module.verify()
            target = machine()
            # Equal instructions are one as they are written; what constants make of others, and
            # what is not needed, is all that is left. LLVM's usual row of passes takes as long
            # again as the machine code, for one call in twenty.
            builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options())
            passes = llvm.create_new_function_pass_manager()
            passes.add_new_gvn_pass()
            passes.add_aggressive_dce_pass()
            for function in module.functions:
                if not function.is_declaration:
                    passes.run(function, builder)
            self.engine = llvm.create_mcjit_compiler(module, target)
            self.engine.finalize_object()
        self.methods: list[Method] = []

    def function(self, name: str, count: int) -> Any:
        """A function of so many integers, that lets go of Python's lock."""
        address = self.engine.get_function_address(name)
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)

    def builtin(self, name: str) -> Any:
        """A function of Python's, which gets its arguments as they are, and keeps Python's lock."""
        address = self.engine.get_function_address(name)
        method = Method(name.encode(), address, FASTCALL, None)
        self.methods.append(method)
        make: Any = ctypes.pythonapi.PyCFunction_NewEx
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
        return make(ctypes.addressof(method), None, None)


KEPT: WeakValueDictionary[str, Machine] = WeakValueDictionary()


def compiled(text: str) -> Machine:
    """The machine code of a text, made once as long as somebody has it."""
    found = KEPT.get(text)
    if found is None:
        found = KEPT[text] = Machine(text)
    return found
