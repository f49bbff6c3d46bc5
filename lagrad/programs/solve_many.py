"""One program solved for many values of its parameters."""

import contextvars
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from lagrad.errors import InvalidValue, LagradError
from lagrad.programs.hessian_vector import linearised_at
from lagrad.programs.solution import Solution
from lagrad.solving.adjoint_sweep import ScalarPoint
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.profile import BlockReport
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem
from lagrad.typing import Array

Outcome: TypeAlias = "Solution | LagradError"


@dataclass(frozen=True)
class Batch:
    """A program's `solve`, its options, and the cases, as a child process inherits them."""

    solve: Callable[..., Solution]
    compiled: CompiledSystem
    policy: Policy
    options: Mapping[str, Any]
    values: Any

    @cached_property
    def cases(self) -> list[Any]:
        """Cases as a list: given as one, or as a mapping from name to values in a row."""
        values = self.values
        if not isinstance(values, Mapping):
            return list(values)
        for name, column in values.items():
            if not hasattr(column, "__len__"):
                raise InvalidValue(f"{name}={column!r}; expected its value in each case, in a row.")
        lengths = {name: len(column) for name, column in values.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidValue(f"the parameters have different numbers of cases: {lengths}.")
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]

    def outcome(self, k: int, **start: Any) -> Outcome:
        """The solution of a case, or what went wrong."""
        known = {"accuracy": self.policy.accuracy, "on_failure": self.policy.on_failure}
        try:
            return self.solve(self.cases[k], **{**self.options, **known, **start})
        except LagradError as error:
            return error

    def certified(self, known: Mapping[str, Array], reports: tuple[BlockReport, ...]) -> Outcome:
        """The solution of known values, linearised and certified here, or what is wrong with it."""
        point = recovered(self.compiled, known)
        found = Solution(SolvedSystem(point, self.policy, solve_named, reports))
        try:
            what = f"the solution of {self.compiled.system.name!r}"
            self.policy.require(found.certificate, what)
        except LagradError as error:
            return error
        return found


# What a child process is to work on, in that process: it is inherited, not sent.
INHERITED: list[Batch] = []


def in_child(k: int) -> LagradError | tuple[dict[str, Array], tuple[BlockReport, ...]]:
    """A case solved in a child process, as what can be sent back."""
    found = INHERITED[-1].outcome(k)
    if isinstance(found, Solution):
        return found.by_name(), found.reports
    return type(found)(str(found))


def solve_all(
    batch: Batch, threads: int | None, processes: int | None, warm: bool
) -> list[Outcome]:
    """The outcome of every case, in order."""
    for what, count in (("threads", threads), ("processes", processes)):
        if count is not None and (type(count) is not int or count < 1):
            raise InvalidValue(f"{what}={count!r}; expected a positive integer.")
    if (threads is not None) + (processes is not None) + warm > 1:
        raise InvalidValue(
            "threads=, processes= and warm=True exclude one another: a warm start is the solution "
            "of the case before."
        )
    batch.compiled.prepare()
    every = range(len(batch.cases))
    if threads is not None:
        context = contextvars.copy_context()
        run = lambda k: context.copy().run(batch.outcome, k)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(run, every))
    if processes is not None:
        return in_processes(batch, every, processes)
    found: list[Outcome] = []
    last: dict[str, Solution] = {}  # from which a warm start begins
    for k in every:
        outcome = batch.outcome(k, **last)
        if isinstance(outcome, LagradError) and last:
            outcome = batch.outcome(k)  # the neighbour may have led astray
        if warm and isinstance(outcome, Solution):
            last = {"start": outcome}
        found.append(outcome)
    return found


def in_processes(batch: Batch, every: range, processes: int) -> list[Outcome]:
    """The cases in child processes; their points are linearised and certified here."""
    if not hasattr(os, "fork"):
        raise InvalidValue("processes= needs a system that forks; use threads=.")
    with multiprocessing.get_context("fork").Pool(processes, INHERITED.append, [batch]) as pool:
        outcomes = pool.map(in_child, every)
    return [o if isinstance(o, LagradError) else batch.certified(*o) for o in outcomes]


def recovered(compiled: CompiledSystem, known: Mapping[str, Array]) -> SolvedPoint:
    """A solved point from its values alone."""
    values = {v: np.asarray(known[v.name]) for v in compiled.system.variables.values()}
    blocks = [run for run in compiled.runs if isinstance(run, ImplicitRun)]
    solved, flat = {run.block: linearised_at(run, values) for run in blocks}, None
    if compiled.flat is not None:
        given = [values[v] for v in compiled.runs[0].inputs]
        flat = ScalarPoint(compiled.flat, compiled.flat.forward(given))
    return SolvedPoint(compiled, values, solved, flat)
