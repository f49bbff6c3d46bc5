"""What is said of a loop that diverges."""

from __future__ import annotations

from lagrad.compiler.plan import Plan
from lagrad.errors import NotFinite
from lagrad.loops.chain_primitive import CHAIN
from lagrad.loops.run import breaks_at, broken
from lagrad.systems.system import definitions
from lagrad.transforms.trace import Trace


def diverging(trace: Trace) -> NotFinite | None:
    """The error that names the step at which a loop of a program without equations diverges."""
    program = trace.program
    loops = [n for n in program.arena.nodes if n.primitive is CHAIN]
    if not loops or program.with_role("unknown"):
        return None
    inputs = [program.variables[name] for name in trace.values]
    for node in loops:
        arguments = Plan(inputs, node.arguments, definitions(program))
        chain = node.parameters[0]
        step = breaks_at(chain, arguments(list(trace.values.values())))
        if step is not None:
            return NotFinite(f"a loop diverges: {broken(chain.step.name, step, chain.length)}")
    return None
