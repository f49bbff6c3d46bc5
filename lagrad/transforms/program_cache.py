"""Programs of the same structure compiled once."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Variable
from lagrad.expressions.primitive import Primitive
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.primitives.kernels import SparseConstant
from lagrad.programs.program import Program
from lagrad.transforms.closure_watch import Copies, Watch
from lagrad.transforms.tracing_graph import Guard, Tracing

# Programs by their structure, so that what was compiled for one serves all. Bounded: the one that
# was not asked for longest makes room.
SHARED: OrderedDict[Any, Program] = OrderedDict()
SHARED_AT_MOST = 256
SHARED_LOCK = Lock()
# Sparse matrices are a part of the structure: a program with larger ones is not kept.
HELD_AT_MOST = 4_000_000


# What the rules of a user's primitives close over, as it was when they were last used.
RULES: OrderedDict[Primitive, Watch] = OrderedDict()
RULES_AT_MOST = 256


def watched(primitive: Primitive) -> Watch:
    """What a primitive's rules close over: one object as long as it does not change."""
    with SHARED_LOCK:
        watch = RULES.pop(primitive, None)
        if watch is None or not watch.unchanged():
            watch = Watch(primitive.rules, Copies())
        if watch.nbytes <= HELD_AT_MOST:
            RULES[primitive] = watch
        while len(RULES) > RULES_AT_MOST:
            RULES.popitem(last=False)
        return watch


def structure_key(program: Program, guards: Sequence[Guard]) -> tuple[Any, ...]:
    """What two programs have in common that differ in numbers only."""
    nodes = program.arena.nodes
    described: list[Any] = []
    for node in nodes:
        if isinstance(node, Variable):
            described.append((node.name, node.role, node.shape, node.dtype.str, node.scale))
        elif isinstance(node, Constant):
            value = node.value
            if type(value) in NUMBERS:
                described.append((type(value), repr(value)))
            else:
                described.append((value.dtype.str, value.shape, value.tobytes()))
        else:
            primitive, indices = node.primitive, [a.index for a in node.arguments]
            assert primitive is not None
            own = primitive.rules and watched(primitive)
            described.append((primitive, own, node.parameters, *indices))
    constraints = tuple(
        (c.name, c.lhs.index, c.rhs.index, None if c.residual is None else c.residual.index)
        for c in program.constraints.values()
    )
    groups = tuple(group.key for group in program.groups)
    asked = tuple((g.node.index, g.kind) for g in guards)
    # Messages name the function.
    return (program.name, program.derived, tuple(described), constraints, groups, asked)


def interned(graph: Tracing, guards: Sequence[Guard]) -> Program:
    """The program of this structure that was compiled before, or the graph's own, compiled."""
    program, graph.ended = graph.system, True
    try:
        key = structure_key(program, guards)
        hash(key)
    except TypeError:
        key = None
    with SHARED_LOCK:
        if key in SHARED:
            SHARED.move_to_end(key)
            return SHARED[key]
    for variable in program.with_role("unknown"):
        variable.start = np.broadcast_to(variable.dtype.type(0), variable.shape)
    if key is not None and held(program) <= HELD_AT_MOST:
        with SHARED_LOCK:
            SHARED[key] = program
            while len(SHARED) > SHARED_AT_MOST:
                SHARED.popitem(last=False)
    return program


def held(program: Program) -> int:
    """The bytes of the sparse matrices that a program holds, and what its rules close over."""
    parameters = [parameter for node in program.arena.nodes for parameter in node.parameters]
    matrices = {id(p): p.matrix.data.nbytes for p in parameters if isinstance(p, SparseConstant)}
    used = {node.primitive for node in program.arena.nodes if node.primitive is not None}
    # Of those whose rules close over more than is kept of one program nothing is known.
    rules = [RULES[p].nbytes if p in RULES else HELD_AT_MOST + 1 for p in used if p.rules]
    return int(sum(matrices.values()) + sum(rules))
