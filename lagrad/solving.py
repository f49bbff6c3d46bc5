"""The blocks of a program solved in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lagrad.certificate import Policy
from lagrad.compiled import Compiled, ExplicitRun
from lagrad.endpoint import Solved
from lagrad.errors import NotFinite
from lagrad.expression import Variable
from lagrad.histories import BlockReport
from lagrad.linear import LinearSolver
from lagrad.nonlinear import Newton, solve_block
from lagrad.solution import Solution
from lagrad.solvedpoint import SolvedPoint
from lagrad.structure import Block
from lagrad.tape import split

__all__ = ["solve"]

Array = Any


def solve(
    compiled: Compiled,
    parameters: dict[Variable, Array],
    start: dict[Variable, Array],
    newton: Newton,
    linear: LinearSolver | None,
    policy: Policy,
) -> Solution:
    """The blocks solved in turn."""
    values: dict[Variable, Array] = dict(parameters)
    values.update((v, array) for v, array in start.items() if v.size == 0)
    solved: dict[Block, Solved] = {}
    reports = []
    converged = True
    for run in compiled.runs:
        began = time.perf_counter()
        if isinstance(run, ExplicitRun):
            run.evaluate(values)
            require_finite(run.variables, values, policy)
            label = ", ".join(v.name for v in run.variables[:6])
            label += ", …" if len(run.variables) > 6 else ""
            seconds = time.perf_counter() - began
            reports.append(BlockReport(label, 0, 0, 0, "explicit", seconds))
            continue
        equations = run.equations
        guess = equations.vector(start)
        outer = equations.outer_values(values)
        solver = linear or equations.solver
        found, failure = solve_block(equations, outer, guess, newton, solver)
        if failure is not None:
            policy.fail(failure)
            converged = False
        solved[run.block] = found
        pieces = split(found.point, run.block.unknowns)
        for unknown, piece in zip(run.block.unknowns, pieces, strict=True):
            values[unknown] = piece.astype(unknown.dtype, copy=False)
        run.evaluate_definitions(values)
        require_finite(run.definitions, values, policy)
        reports.append(
            BlockReport(
                run.block.label,
                run.block.size,
                len(found.history),
                found.factorisations,
                type(getattr(found.factors, "solver", solver)).__name__,
                time.perf_counter() - began,
            )
        )
    point = SolvedPoint(compiled, values, solved)
    solution = Solution(point, policy, tuple(reports), converged)
    if converged:
        policy.require(solution.certificate, f"the solution of {compiled.system.name!r}")
    return solution


def require_finite(
    variables: Sequence[Variable], values: Mapping[Variable, Array], policy: Policy
) -> None:
    """NotFinite, with the name of the first variable that is not."""
    for variable in variables:
        if not np.isfinite(values[variable]).all():
            policy.fail(NotFinite(f"the value of {variable.name!r} is NaN or infinite."))
            return
