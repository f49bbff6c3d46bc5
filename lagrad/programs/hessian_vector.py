"""The adjoint program at a solution that is known: nothing of it is solved again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.programs.derived_programs import Adjoint
from lagrad.solving.certification import linearised
from lagrad.solving.compiled_system import ImplicitRun
from lagrad.solving.solved_block import Solved
from lagrad.systems.linearization import joined
from lagrad.systems.structure import Block
from lagrad.typing import Array


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
            found = factored.get(names)
            if found is None:
                equations = run.equations
                outer, point = equations.outer_values(values), equations.vector(values)
                found = linearised(equations, outer, point)
            blocks[run.block] = found
    return values, blocks
