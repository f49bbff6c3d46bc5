"""Programs of the same structure compiled once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Variable
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.primitives.kernels import SparseConstant
from lagrad.programs.program import Program
from lagrad.transforms.tracing_graph import Guard, Tracing

# Programs by their structure, so that what was compiled for one serves all. Bounded: the one that
# was not asked for longest makes room.
SHARED: OrderedDict[Any, Program] = OrderedDict()
SHARED_AT_MOST = 256
SHARED_LOCK = Lock()
# Sparse matrices are a part of the structure: a program with larger ones is not kept.
HELD_AT_MOST = 4_000_000


def structure_key(program: Program, guards: Sequence[Guard]) -> tuple[Any, ...]:
    """What two programs have in common that differ in numbers only."""
    nodes = program.arena.nodes
    described: list[Any] = []
    for node in nodes:
        if isinstance(node, Variable):
            described.append((node.name, node.role, node.shape, node.dtype.str))
        elif isinstance(node, Constant):
            value = node.value
            number = type(value) in NUMBERS
            described.append(
                (type(value), repr(value))
                if number
                else (value.dtype.str, value.shape, value.tobytes())
            )
        else:
            described.append((node.primitive, node.parameters, *[a.index for a in node.arguments]))
    constraints = tuple(
        (c.name, c.lhs.index, c.rhs.index, None if c.residual is None else c.residual.index)
        for c in program.constraints.values()
    )
    groups = tuple(group.key for group in program.groups)
    asked = tuple((g.node.index, g.kind) for g in guards)
    # Messages name the function.
    return (program.name, tuple(described), constraints, groups, asked)


def interned(program: Program, guards: Sequence[Guard] = ()) -> Program:
    """The program of this structure that was compiled before, or this one, compiled."""
    try:
        key = structure_key(program, guards)
        hash(key)
    except TypeError:
        key = None
    if key is not None:
        with SHARED_LOCK:
            found = SHARED.get(key)
            if found is not None:
                SHARED.move_to_end(key)
                return found
    program.arena.ended = True
    for variable in program.variables.values():
        if variable.role == "unknown":
            variable.start = np.broadcast_to(variable.dtype.type(0), variable.shape)
    arena = program.arena
    assert isinstance(arena, Tracing)
    arena.values, arena.captured, arena.arrays = {}, {}, {}
    if key is not None and held(program) <= HELD_AT_MOST:
        with SHARED_LOCK:
            SHARED[key] = program
            while len(SHARED) > SHARED_AT_MOST:
                SHARED.popitem(last=False)
    return program


def held(program: Program) -> int:
    """The bytes of the sparse matrices that a program holds."""
    matrices = {
        id(parameter): parameter.matrix.data.nbytes
        for node in program.arena.nodes
        for parameter in node.parameters
        if isinstance(parameter, SparseConstant)
    }
    return sum(matrices.values())
