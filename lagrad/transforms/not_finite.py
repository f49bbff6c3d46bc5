"""Which operation of a function made NaN or infinity first."""

from __future__ import annotations

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import NotFinite
from lagrad.systems.constraint import definitions
from lagrad.transforms.trace import Trace


def where_not_finite(trace: Trace) -> NotFinite | None:
    """The error that names data, or a step of a loop, with NaN or infinity, if there is one."""
    for name, array in trace.values.items():
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0].tolist()
            what = "argument " + repr(name) if name in trace.passed else "an array"
            return NotFinite(
                f"{what} of shape {values.shape}, which {trace.program.name!r} computes with, is "
                f"{values[tuple(place)]} at {place}."
            )
    program = trace.program
    if program.with_role("unknown"):
        return None
    inputs = [program.variables[name] for name in trace.values]
    for node in program.arena.nodes:
        if node.primitive is not None and node.primitive.breaks is not None:
            arguments = Plan(inputs, node.arguments, definitions(program))
            given = arguments(list(trace.values.values()))
            if (said := node.primitive.breaks(node.parameters, given)) is not None:
                return NotFinite(said)
    return None
