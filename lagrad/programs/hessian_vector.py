"""The adjoint program at a solution that is known: nothing of it is solved again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.programs.derived_programs import Adjoint, adjoint
from lagrad.solving.block_certification import Solved, linearised
from lagrad.solving.compiled_system import ImplicitRun
from lagrad.solving.derivative_mapping import Derivatives, Entry
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem, pulled, received
from lagrad.systems.linearization import joined
from lagrad.systems.structure import Block
from lagrad.typing import Array


def hessian_vector(
    solved: SolvedSystem, output: Variable, directions: Mapping[Variable, Array]
) -> Derivatives[Entry]:
    """The Hessian of a scalar variable by all parameters, times a direction."""
    system, point = solved.system, solved.point
    derived = adjoint(point.compiled, output.name)
    parameters = system.with_role("parameter")
    with np.errstate(all="ignore"):
        found: dict[Any, Array] = {**pulled(sweep := point.sweep(), system, output)}
        found |= {v: received(sweep, v) for v in parameters}
    known = solved.by_name()
    for thing, array in found.items():
        names = derived.gradients if isinstance(thing, Variable) else derived.multipliers
        known[names[thing.name]] = array
    there = at_known_solution(derived, known, point.solved)
    second = SolvedSystem(SolvedPoint(derived.compiled, *there), solved.policy, solved.solve)
    variables = derived.system.variables
    along = {variables[v.name]: array for v, array in directions.items()}
    tangent = second.tangent(along, [variables[derived.gradients[v.name]] for v in parameters])
    return Derivatives(
        {v: tangent[derived.gradients[v.name]] for v in parameters},
        "parameter",
        tangent.certificate,
    )


def at_known_solution(
    adjoint: Adjoint, known: Mapping[str, Array], primal: Mapping[Block, Solved]
) -> tuple[dict[Variable, Array], dict[Block, Solved]]:
    """An adjoint program's values by variable, and its blocks with the primal's factors.

    The block of the multipliers has the transpose of its primal block's Jacobian, and so its
    factors, whichever way the adjoint program falls into blocks otherwise.
    """
    variables = adjoint.system.variables.values()
    values = {v: np.asarray(known[v.name]).reshape(v.shape) for v in variables}
    factored: dict[frozenset[str], Solved] = {}
    for block, solved in primal.items():
        factored[frozenset(v.name for v in block.unknowns)] = solved
        dual = [adjoint.multipliers[c.name] for c in block.equations]
        multipliers = [known[name] for name in dual]
        sizes = np.array([np.abs(m).max(initial=0.0) for m in multipliers])
        factored[frozenset(dual)] = solved.transposed(joined(multipliers), sizes)
    blocks = {}
    for run in adjoint.compiled.runs:
        if isinstance(run, ImplicitRun):
            names = frozenset(v.name for v in run.block.unknowns)
            blocks[run.block] = factored.get(names) or linearised_at(run, values)
    return values, blocks


def linearised_at(run: ImplicitRun, values: Mapping[Variable, Array]) -> Solved:
    """A block at a solution of which the values are known."""
    equations = run.equations
    return linearised(equations, equations.outer_values(values), equations.vector(values))
