"""A traced function as a declared program, to be read."""

from typing import Any

from lagrad.errors import TracedValueError
from lagrad.expressions.expression import Expression
from lagrad.programs.program import Program
from lagrad.solving.certificate import Policy
from lagrad.systems.rewriting import inlined
from lagrad.systems.system import OPTIONS
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.trace_checks import require_followed, require_inside
from lagrad.transforms.tracing_graph import Tracing
from lagrad.typing import Function


class Tenancy:
    """What a program and its solutions share: with the last of them the graph's nodes go.

    They hold the arrays that the function closes over, and one another.
    """

    def __init__(self, program: Program) -> None:
        self.graph = program.arena

    def __del__(self) -> None:
        self.graph.forget()


class Traced(Program):
    """A program of a graph that nobody else adds to."""

    tenancy: Tenancy


def trace(f: Function, *args: Any, **kwargs: Any) -> Program:
    """Return a function at some arguments as a program.

    Parameters
    ----------
    f : callable
        A function in NumPy.
    *args
        Its arguments; each becomes a parameter, or several where it is nested, named after the
        function's own.
    **kwargs
        Passed on as they are.

    Returns
    -------
    Program
        Its output is named "output", or "output_…" for each leaf of a nested result. Branches
        are those taken at these arguments.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> p = lg.trace(lambda x, y: np.sin(x) * y, 0.0, 2.0)
    >>> float(p.solve(x=0.0).gradient("output")["x"])
    2.0
    """
    found = traced(f, args, kwargs, range(len(args)), shared=False)
    if found.symbolic:
        raise TracedValueError(
            f"lg.trace was given, or {found.program.name!r} closes over, a value that is traced: "
            "it would become a number. Call the function itself there, or trace it outside."
        )
    require_inside(found, Policy())
    if found.unfollowed:
        require_followed(found, None)
    # As one that was declared: with starts, and with values of parameters.
    system = Traced(found.program.name)
    given: dict[str, Expression] = {}
    for name in found.parameters:
        own = f"{name}_" if name in OPTIONS else name
        given[name] = system.parameter(own, value=found.values[name])
    nodes = inlined(found.program, system, given, found.starts)
    for name in found.outputs:
        system.define(name, nodes[name])
    assert isinstance(found.program.arena, Tracing)
    found.program.arena.replaced_by(system)
    system.tenancy = Tenancy(system)
    return system
