"""Jacobians as sparse matrices, at the cost of their entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import NotFinite
from lagrad.solution import Solution
from lagrad.tape import assembled

__all__ = ["sparse_jacobian"]


def sparse_jacobian(
    solution: Solution, of: Sequence[str], wrt: Sequence[str]
) -> dict[tuple[str, str], Any]:
    """For each variable and each parameter the matrix, (size of one, size of the other).

    Where nothing is implicit, local partials are multiplied as sparse matrices; through an
    implicit block a derivative is full as a rule, and is solved for.
    """
    point = solution.point
    outputs = {name: solution.system.variables[name] for name in of}
    inputs = {name: solution.system.variables[name] for name in wrt}
    if point.solved:
        dense = solution.jacobian(list(of), list(wrt))
        return {
            (o, i): sparse.csr_array(dense[o][i].reshape(outputs[o].size, inputs[i].size))
            for o in of
            for i in wrt
        }
    tape = point.compiled.tape
    found = {}
    for i, source in inputs.items():
        with np.errstate(all="ignore"):
            blocks = point.linearization.blocks([source])
        for o, output in outputs.items():
            matrix = sparse.csr_array(assembled(blocks, tape.slots, [output], [source]), copy=True)
            if not np.isfinite(matrix.data).all():
                raise NotFinite(f"the Jacobian of {o!r} by {i!r} is NaN or infinite.")
            matrix.eliminate_zeros()
            found[o, i] = matrix
    return found
