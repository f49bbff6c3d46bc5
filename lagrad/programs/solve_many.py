"""One program solved for many values of its parameters."""

from __future__ import annotations

import contextvars
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, LagradError
from lagrad.programs.hessian_vector import linearised_at
from lagrad.programs.solution import Solution
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.scalar_sweep import ScalarPoint
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem
from lagrad.typing import Array

Solve = Callable[..., Solution]


@dataclass(frozen=True)
class Batch:
    """A program's `solve`, its options, and the cases, as a child process inherits them."""

    solve: Solve
    compiled: CompiledSystem
    options: Mapping[str, Any]
    cases: Sequence[Any]

    @property
    def policy(self) -> Policy:
        return Policy(self.options["accuracy"], self.options["on_failure"])

    @property
    def every(self) -> range:
        return range(len(self.cases))

    def outcome(self, k: int, **start: Any) -> Solution | LagradError:
        """The solution of a case, or what went wrong."""
        try:
            return self.solve(self.cases[k], **{**self.options, **start})
        except LagradError as error:
            return error


# What a child process is to work on, in that process: it is inherited, not sent.
INHERITED: list[Batch] = []


def in_child(k: int) -> tuple[dict[str, Array] | LagradError, tuple[Any, ...]]:
    """A case solved in a child process, as what can be sent back."""
    found = INHERITED[-1].outcome(k)
    if isinstance(found, Solution):
        return found.by_name(), found.reports
    return type(found)(str(found)), ()


def cases_of(values: Any) -> list[Any]:
    """Cases as a list: given as one, or as a mapping from name to values in a row."""
    if not isinstance(values, Mapping):
        return list(values)
    for name, column in values.items():
        if not hasattr(column, "__len__"):
            raise InvalidValue(f"{name}={column!r}; expected its value in each case, in a row.")
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValue(f"the parameters have different numbers of cases: {lengths}.")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def solve_all(
    solve: Solve,
    compiled: CompiledSystem,
    values: Any,
    threads: int | None,
    processes: int | None,
    warm: bool,
    options: Mapping[str, Any],
) -> list[Solution | LagradError]:
    """The outcome of every case, in order."""
    for what, count in (("threads", threads), ("processes", processes)):
        if count is not None and (type(count) is not int or count < 1):
            raise InvalidValue(f"{what}={count!r}; expected a positive integer.")
    if (threads is not None) + (processes is not None) + warm > 1:
        raise InvalidValue(
            "threads=, processes= and warm=True exclude one another: a warm start is the solution "
            "of the case before."
        )
    compiled.prepare()
    batch = Batch(solve, compiled, options, cases_of(values))
    if warm:
        return one_after_another(batch)
    if threads is not None:
        context = contextvars.copy_context()
        run = lambda k: context.copy().run(batch.outcome, k)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(run, batch.every))
    if processes is not None:
        return in_processes(batch, processes)
    return [batch.outcome(k) for k in batch.every]


def one_after_another(batch: Batch) -> list[Solution | LagradError]:
    """Each case from the last solution."""
    found: list[Solution | LagradError] = []
    last: dict[str, Solution] = {}
    for k in batch.every:
        outcome = batch.outcome(k, **last)
        if isinstance(outcome, LagradError) and last:
            outcome = batch.outcome(k)  # the neighbour may have led astray
        if isinstance(outcome, Solution):
            last = {"start": outcome}
        found.append(outcome)
    return found


def in_processes(batch: Batch, processes: int) -> list[Solution | LagradError]:
    """The cases in child processes; their points are linearised and certified here."""
    if not hasattr(os, "fork"):
        raise InvalidValue("processes= needs a system that forks; use threads=.")
    with multiprocessing.get_context("fork").Pool(processes, INHERITED.append, [batch]) as pool:
        outcomes = pool.map(in_child, batch.every)
    return [certified(batch, *outcome) for outcome in outcomes]


def certified(
    batch: Batch, outcome: dict[str, Array] | LagradError, reports: tuple[Any, ...]
) -> Solution | LagradError:
    """What a child process sent, as the solution that it is, or what is wrong with it."""
    if isinstance(outcome, LagradError):
        return outcome
    compiled, policy = batch.compiled, batch.policy
    point = recovered(compiled, outcome)
    solution = Solution(SolvedSystem(point, policy, solve_named, reports))
    try:
        policy.require(solution.certificate, f"the solution of {compiled.system.name!r}")
    except LagradError as error:
        return error
    return solution


def recovered(compiled: CompiledSystem, known: Mapping[str, Array]) -> SolvedPoint:
    """A solved point from its values alone."""
    values = {v: np.asarray(known[v.name]) for v in compiled.system.variables.values()}
    blocks = [run for run in compiled.runs if isinstance(run, ImplicitRun)]
    solved, flat = {run.block: linearised_at(run, values) for run in blocks}, None
    if compiled.flat is not None:
        given = [values[v] for v in compiled.runs[0].inputs]
        flat = ScalarPoint(compiled.flat, compiled.flat.forward(given))
    return SolvedPoint(compiled, values, solved, flat)
