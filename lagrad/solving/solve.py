"""The blocks of a system solved in turn."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lagrad.errors import NotFinite
from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.base import LinearSolver
from lagrad.primitives.repeated_eigenvalues import beside, undefined
from lagrad.solving.adjoint_sweep import ScalarPoint
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import largest
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun, Run
from lagrad.solving.finer_derivatives import TOO_MANY
from lagrad.solving.free_directions import kept_elsewhere
from lagrad.solving.iterations import Newton
from lagrad.solving.not_finite import without_value
from lagrad.solving.profile import BlockReport, Spent
from lagrad.solving.solve_block import solve_block
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem
from lagrad.solving.wider_point import refined
from lagrad.systems.linearization import split
from lagrad.systems.structure import Block
from lagrad.typing import Array

Values = Mapping[Variable, Array]


def solve_named(
    compiled: CompiledSystem,
    values: Mapping[str, Array],
    start: SolvedSystem | Mapping[str, Array] | None = None,
    policy: Policy | None = None,
) -> SolvedSystem:
    """The solution for arrays that fit, by name, the data among them."""
    system = compiled.system
    given = {system.variables[name]: value for name, value in values.items()}
    known = start.by_name() if isinstance(start, SolvedSystem) else start or {}
    begin = {v: known.get(v.name, v.start) for v in system.with_role("unknown")}
    return solve(compiled, given, begin, Newton(), None, policy or Policy(system.accuracy()))


def solve(
    compiled: CompiledSystem,
    parameters: Values,
    start: Values,
    newton: Newton,
    linear: LinearSolver | None,
    policy: Policy,
) -> SolvedSystem:
    """The blocks solved in turn, each from where `start` has its unknowns."""
    values: dict[Variable, Array] = dict(parameters)
    values.update((v, array) for v, array in start.items() if v.size == 0)
    solved: dict[Block, Solved] = {}
    reports: list[BlockReport] = []
    converged, memory, lost = True, None, list[Variable]()
    infinite = not compiled.system.derived and any(
        np.asarray(a).dtype.kind == "f" and not np.isfinite(a).all() for a in parameters.values()
    )
    for run in compiled.runs:
        began = time.perf_counter()
        found, spent = None, Spent()
        if isinstance(run, ImplicitRun):
            free = [other for other in solved.values() if other.free is not None]
            found, failure = solve_block(run, compiled, values, start, newton, linear, free)
            if failure is not None:
                policy.fail(failure)
                converged = False
            solved[run.block], spent = found, found.problem.spent
            pieces = split(found.point, run.block.unknowns)
            for unknown, piece in zip(run.block.unknowns, pieces, strict=True):
                values[unknown] = piece.astype(unknown.dtype, copy=False)
        with spent.on("evaluating"):
            memory = run.evaluate(values)
        if memory is None or not np.isfinite(memory).all():
            # What is computed from infinities may be infinite; NaN is no number.
            wrong = np.isnan if infinite else lambda a: ~np.isfinite(a)
            bad = [v for v in run.variables if wrong(values[v]).any()]
            # Of derivatives the mean over the sides of a kink may be finite.
            if compiled.system.derived and compiled.explicit:
                lost += bad
            elif bad:
                told_beside(compiled, run, values, bad, policy)
        reports.append(report(run, found, spent, time.perf_counter() - began))
    if converged:
        require_minima(compiled, values, solved)
    scalars = None if compiled.flat is None else ScalarPoint(compiled.flat, memory)
    point = SolvedPoint(compiled, values, solved, scalars)
    if any(found.free is not None for found in solved.values()):
        point = kept_elsewhere(point)
    if compiled.system.derived and (lost or point.tied):
        point = point.averaged()
        if bad := [v for v in lost if not np.isfinite(point.values[v]).all()]:
            told_beside(compiled, compiled.runs[-1], point.values, bad, policy)
    solution = SolvedSystem(point, policy, solve_named, tuple(reports), converged)
    if not (converged and point.doubtful):
        return solution
    known, few = is_known(solution, policy), compiled.operations <= TOO_MANY
    # A definition that is left of much larger numbers is as good as these in a wider precision.
    if not known or (few and point.spoils_definitions(policy.accuracy)):
        finer = refined(point)
        if finer is not None:
            solution = replace(solution, point=finer)
        what = f"the solution of {compiled.system.name!r}"
        if not is_known(solution, policy):
            if policy.values:
                policy.require(solution.certificate, what)
        elif finer is not None and not finer.spoilt_derivatives() <= policy.accuracy:
            doubt = replace(solution.certificate, bound=finer.spoilt_derivatives)
            policy.require(doubt, what)
    return solution


def is_known(solution: SolvedSystem, policy: Policy) -> bool:
    """Whether a solution is as accurate as was asked for.

    An unknown that is nearly zero, and known to fewer digits than others, does not speak for these;
    nor does a multiplier that is nothing beside others. What is known of each is in its bound.
    """
    bound, point = solution.certificate.error_bound, solution.point
    if bound <= policy.accuracy:
        return True
    pairs = ((s.bound, np.maximum(point.matters(b), 1e-300)) for b, s in point.solved.items())
    felt = max([*(largest(b.each * b.sizes / m) for b, m in pairs), point.drift(felt=True)])
    return bool(felt <= policy.accuracy)


def told_beside(
    compiled: CompiledSystem,
    run: Run,
    values: dict[Variable, Array],
    bad: Sequence[Variable],
    policy: Policy,
) -> None:
    """Give values that are not finite those beside equal eigenvalues, if there are any.

    Of a derived program derivatives are values.
    """

    def compute() -> dict[Variable, Array]:
        found = {v: a for v, a in values.items() if v.role != "defined"}
        for other in compiled.runs:
            other.evaluate(found)
            if other is run:
                break
        return {v: found[v] for v in bad}

    finite = [a for v, a in values.items() if v.role != "data" and np.isfinite(a).all()]
    scale = max(map(largest, finite), default=0.0)
    limit, what = beside(compute, lambda v: scale, policy.accuracy), f"the value of {bad[0].name!r}"
    if limit is None or not all(np.isfinite(a).all() for a in limit.found.values()):
        begun = without_value(compiled.system, values, bad[0])
        error = NotFinite(f"{what} is NaN or infinite{begun and f': it becomes so in {begun}'}.")
        error.operation = begun
        policy.fail(error)
    elif not limit.error <= policy.accuracy:
        policy.fail(NotFinite(undefined(what, limit.equal)))
    else:
        values.update((v, np.asarray(a, v.dtype)) for v, a in limit.found.items())


def report(run: Run, found: Solved | None, spent: Spent, seconds: float) -> BlockReport:
    """What a run cost."""
    if found is None:
        return BlockReport(run.label, 0, 0, 0, "explicit", seconds, spent)
    done = found.problem
    solver = type(getattr(found.factors, "solver", done.solver)).__name__
    counts = (found.point.size, len(done.history), done.factorisations)
    return BlockReport(run.label, *counts, solver, seconds, spent)


def require_minima(
    compiled: CompiledSystem, values: Values, solved: Mapping[Block, Solved]
) -> None:
    """Look for curvature downwards at every argmin whose linear solver has not done so."""
    blocks = {frozenset(b.unknowns) for b, found in solved.items() if found.free is None}
    for group in compiled.system.groups:
        approach = group.approach
        altered = approach.inner or approach.damping
        if approach.minimises and (altered or frozenset(group.unknowns) not in blocks):
            given = compiled.given_values(group, values)[: len(group.arguments)]
            approach.require_minimum(given, [values[v] for v in group.unknowns])
