"""The blocks of a program solved in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from lagrad.errors import NotConverged, NotFinite, NotPositiveDefinite, SingularSystem
from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.neumann import Neumann
from lagrad.programs.solution import Solution
from lagrad.solving.certificate import Policy
from lagrad.solving.certification import linearised
from lagrad.solving.compiled_system import Compiled, ExplicitRun, ImplicitRun
from lagrad.solving.iterations import Newton
from lagrad.solving.newton import solve_block
from lagrad.solving.profile import BlockReport, Spent
from lagrad.solving.scalar_sweep import FlatPoint
from lagrad.solving.solved_block import Solved
from lagrad.solving.solved_system import SolvedPoint
from lagrad.systems.linearization import split
from lagrad.systems.structure import Block
from lagrad.typing import Array


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
            spent = Spent()
            with spent.on("evaluating"):
                memory = run.evaluate(values)
            if memory is None or not np.isfinite(memory).all():
                require_finite(run.variables, values, policy)
            label = ", ".join(v.name for v in run.variables[:6])
            label += ", …" if len(run.variables) > 6 else ""
            seconds = time.perf_counter() - began
            reports.append(BlockReport(label, 0, 0, 0, "explicit", seconds, spent))
            continue
        found, failure = BlockSolve(run, compiled, values, start, newton, linear).run()
        if failure is not None:
            policy.fail(failure)
            converged = False
        solved[run.block] = found
        pieces = split(found.point, run.block.unknowns)
        for unknown, piece in zip(run.block.unknowns, pieces, strict=True):
            values[unknown] = piece.astype(unknown.dtype, copy=False)
        with found.spent.on("evaluating"):
            run.evaluate_definitions(values)
        require_finite(run.definitions, values, policy)
        reports.append(
            BlockReport(
                run.block.label,
                run.block.size,
                len(found.history),
                found.factorisations,
                type(getattr(found.factors, "solver", found.solver)).__name__,
                time.perf_counter() - began,
                found.spent,
            )
        )
    if converged:
        require_minima(compiled, values, solved)
    flat = None if compiled.flat is None else FlatPoint(compiled.flat, memory)
    point = SolvedPoint(compiled, values, solved, flat)
    solution = Solution(point, policy, tuple(reports), converged)
    if converged:
        policy.require(solution.certificate, f"the solution of {compiled.system.name!r}")
    return solution


def require_minima(
    compiled: Compiled, values: Mapping[Variable, Array], solved: Mapping[Block, Solved]
) -> None:
    """Look for curvature downwards at every argmin whose linear solver has not done so."""
    own = {frozenset(block.unknowns): block for block in solved}
    for group in compiled.system.groups:
        approach = group.approach
        if approach.kind != "argmin":
            continue
        block = own.get(frozenset(group.unknowns))
        if block is not None and not approach.inner and not approach.damping:
            continue
        given = compiled.given_values(group, values)[: len(group.arguments)]
        approach.require_minimum(given, [values[v] for v in group.unknowns])


class BlockSolve:
    """One implicit block, by the approach of the implicit function that introduced it, if any."""

    def __init__(
        self,
        run: ImplicitRun,
        compiled: Compiled,
        values: Mapping[Variable, Array],
        start: dict[Variable, Array],
        newton: Newton,
        linear: LinearSolver | None,
    ) -> None:
        self.equations, self.compiled = run.equations, compiled
        self.values, self.start, self.newton = values, start, newton
        inside = set(run.block.unknowns)
        groups = [
            g
            for g in compiled.system.groups
            if inside.issuperset(g.unknowns) and compiled.is_given(g, values)
        ]
        # An implicit function inside another one is part of what the outer one iterates.
        self.groups = [
            g
            for g in groups
            if not any(h is not g and set(g.unknowns) < set(h.unknowns) for h in groups)
        ]
        # The group that the block consists of.
        own = (
            self.groups[0]
            if len(self.groups) == 1 and set(self.groups[0].unknowns) == inside
            else None
        )
        self.approach = None if own is None else own.approach
        if self.approach is not None and self.approach.tol is not None:
            self.newton = replace(newton, tol=self.approach.tol)
        self.solver = linear or (
            self.equations.solver if own is None else own.approach.solver(self.equations)
        )

    def run(self) -> tuple[Solved, NotConverged | SingularSystem | None]:
        """The block at its solution, as its derivatives are to be taken; what went wrong."""
        found, failure = self._found()
        if (approach := self.approach) is not None and failure is None:
            approach.require_contraction(found)
            if approach.warm is not None:
                approach.warm.keep(split(found.point, self.equations.unknowns))
                found = replace(found, warm=approach.warm)
            if approach.differentiate is not None:
                found = truncated(found, approach.differentiate)
            elif approach.damping:
                found = replace(found, truncated=f"damping {approach.damping:g}")
        return found, failure

    def _found(self) -> tuple[Solved, NotConverged | SingularSystem | None]:
        equations = self.equations
        outer = equations.outer_values(self.values)
        begin = self._approached("begin") or self.start
        approach = self.approach
        if (
            approach is not None
            and approach.settles
            and (self.solver.matrix_free or approach.damping)
        ):
            return linearised(equations, outer, equations.vector(begin), self.solver), None
        try:
            found, failure = solve_block(
                equations, outer, equations.vector(begin), self.newton, self.solver
            )
            if failure is None:
                return found, None
        except (NotConverged, SingularSystem) as error:
            found, failure = None, error
        try:
            other = self._approached("otherwise")
        except NotConverged as nowhere:
            if isinstance(failure, NotPositiveDefinite):
                raise NotPositiveDefinite(f"{failure} Further down, {nowhere}") from None
            raise
        if other is not None:
            return solve_block(equations, outer, equations.vector(other), self.newton, self.solver)
        if found is None:
            raise failure
        return found, failure

    def _approached(self, how: str) -> dict[Variable, Array] | None:
        """Where the groups' approaches lead; None where no group has one."""
        begin, changed = dict(self.start), False
        for group in self.groups:
            known = iter(self.compiled.given_values(group, self.values))
            arguments = [next(known) for _ in group.arguments]
            starts = [
                begin[v] if node is None else np.asarray(next(known), dtype=v.dtype)
                for v, node in zip(group.unknowns, group.starts, strict=True)
            ]
            pieces = getattr(group.approach, how)(arguments, starts)
            if pieces is not None:
                changed = True
                begin.update(zip(group.unknowns, pieces, strict=True))
        return begin if changed else None


def truncated(solved: Solved, series: Neumann) -> Solved:
    """A solved block whose derivatives are a series of products."""
    matrix = solved.jacobian
    if not isinstance(matrix, LinearOperator):
        matrix = aslinearoperator(matrix)
    said = "" if series.terms is None else f"Neumann series of {series.terms} terms"
    return replace(solved, jacobian=matrix, factors=series.factor(matrix), truncated=said)


def require_finite(
    variables: Sequence[Variable], values: Mapping[Variable, Array], policy: Policy
) -> None:
    """NotFinite, with the name of the first variable that is not."""
    for variable in variables:
        if not np.isfinite(values[variable]).all():
            policy.fail(NotFinite(f"the value of {variable.name!r} is NaN or infinite."))
            return
