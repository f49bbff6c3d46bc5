"""The adjoint program at a solution that is known: nothing of it is solved again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lagrad.compiled import ImplicitRun
from lagrad.derive import Adjoint
from lagrad.endpoint import Solved
from lagrad.expression import Variable
from lagrad.nonlinear import Newton, solve_block
from lagrad.structure import Block

__all__ = ["at_known_solution"]

Array = Any


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
        dual = frozenset(adjoint.multipliers[c.name] for c in block.equations)
        factored[dual] = solved.transposed()
    blocks = {}
    for run in adjoint.compiled.runs:
        if isinstance(run, ImplicitRun):
            names = frozenset(v.name for v in run.block.unknowns)
            blocks[run.block] = factored.get(names) or refactored(run, values)
    return values, blocks


def refactored(run: ImplicitRun, values: Mapping[Variable, Array]) -> Solved:
    """A block at its known solution, with factors of its own."""
    equations = run.equations
    point = equations.vector(values)
    outer = equations.outer_values(values)
    found, failure = solve_block(equations, outer, point, Newton(), equations.solver)
    if failure is not None:
        raise failure
    return found
