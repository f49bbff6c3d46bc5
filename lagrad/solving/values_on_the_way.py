"""How large the values are that a variable is made of: what a derivative of it may cancel from."""

import weakref

from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.solved_point import SolvedPoint
from lagrad.systems.constraint import definitions

# Operations of a program whose variables are looked through one by one.
FEW = 2_000


def made_of(of: "weakref.ref[CompiledSystem]", variable: Variable) -> frozenset[Expression]:
    """The variables that one is made of, itself among them: all of a block where one of it is."""
    compiled = of()
    assert compiled is not None
    defined = definitions(compiled.system)
    runs = [run for run in compiled.runs if isinstance(run, ImplicitRun)]
    beside = {v: [*r.equations.outer, *r.block.unknowns] for r in runs for v in r.block.unknowns}
    found, waiting = set[Expression](), [variable]
    while waiting:
        leaf = lambda node: isinstance(node, Variable) and node.index not in defined
        nodes = {n for n in ancestors(waiting, leaf, defined) if isinstance(n, Variable)} - found
        found |= nodes
        waiting = [v for n in nodes for v in beside.get(n, ()) if v not in found]
    return frozenset(found)


def scale_of(point: SolvedPoint, variable: Variable) -> float:
    """The largest value that a variable is made of, at a solution and on the way there."""
    compiled = point.compiled
    if point.flat is not None or compiled.operations > FEW:
        return point.scale
    within = compiled.once(made_of, weakref.ref(compiled), variable)
    return point.scale_among(within)
