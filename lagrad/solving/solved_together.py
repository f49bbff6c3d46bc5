"""A system of scalars, solved as the arrays that say the same.

What the arrays' solution is asked for is asked by scalars: each is seeded and read where it stands,
and judged for itself. Whatever the arrays cannot do, or cannot certify, is done by the scalars one
by one, begun at what was found: so every error has the names of what was declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from lagrad.errors import LagradError
from lagrad.expressions.expression import Variable
from lagrad.solving.certificate import Certificate, Policy
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.derivative_mapping import Derivatives, Gradient
from lagrad.solving.iterations import Newton
from lagrad.solving.profile import BlockReport, Profile
from lagrad.solving.solve import solve
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem, by_shares, cotangent_of, told
from lagrad.systems.as_arrays import AsArrays, Place
from lagrad.systems.system import System
from lagrad.typing import Array

T = TypeVar("T")
Values = Mapping[Variable, Array]
# The same solved one by one, from values of its unknowns.
OneByOne = Callable[[Values], SolvedSystem]


@dataclass(frozen=True, eq=False)
class Together:
    """A system as arrays, compiled."""

    arrays: AsArrays
    compiled: CompiledSystem

    @cached_property
    def scalars(self) -> CompiledSystem:
        """The scalars as they were, compiled."""
        return CompiledSystem(self.arrays.scalars)

    def solve(
        self,
        parameters: Values,
        start: Values,
        newton: Newton,
        linear: Any,
        policy: Policy,
        one_by_one: OneByOne,
    ) -> SolvedTogether | SolvedSystem:
        """The solution, by arrays; by scalars where these find none that is certified."""
        strict = replace(policy, on_failure="raise")
        try:
            with np.errstate(all="ignore"):
                found = solve(
                    self.compiled,
                    self._filled(parameters, "parameter"),
                    self._filled(start, "unknown"),
                    newton,
                    linear,
                    strict,
                )
        except LagradError:
            return one_by_one(start)
        return SolvedTogether(self.arrays, found, one_by_one)

    def _filled(self, values: Values, role: str) -> dict[Variable, Array]:
        """Values of scalars, in the arrays where they stand."""
        found = {}
        for array in self.compiled.system.with_role(role):
            pieces = [values[v] for v in self.arrays.scalars_of[array]]
            found[array] = np.array(pieces, dtype=float).reshape(array.shape)
        return found


@dataclass(frozen=True, eq=False, repr=False)
class SolvedTogether:
    """Values of all scalars at a solution of the arrays, and certified derivatives."""

    arrays: AsArrays
    solved: SolvedSystem
    solve: OneByOne

    @property
    def system(self) -> System:
        """The system as it was when it was solved."""
        return self.arrays.scalars

    @property
    def policy(self) -> Policy:
        return self.solved.policy

    @cached_property
    def values(self) -> dict[Variable, Array]:
        """The value of each variable."""
        found = self.solved.values
        flat = {v: np.ravel(a) for v, a in found.items()}
        return {v: np.asarray(flat[p.variable][p.entries]) for v, p in self._places.items()}

    @cached_property
    def _places(self) -> dict[Variable, Place]:
        """Where each variable stands, in the order of declaration."""
        return {v: self.arrays.variables[v] for v in self.system.variables.values()}

    def by_name(self) -> dict[str, Array]:
        """The value of each variable, by its name."""
        return {v.name: array for v, array in self.values.items()}

    @cached_property
    def one_by_one(self) -> SolvedSystem:
        """The same solved by scalars, from here."""
        return self.solve({v: a for v, a in self.values.items() if v.role == "unknown"})

    @property
    def point(self) -> SolvedPoint:
        """The point, by scalars."""
        return self.one_by_one.point

    @cached_property
    def reports(self) -> tuple[BlockReport, ...]:
        """What the runs of the arrays did, by the names of their scalars."""
        names: dict[Variable, list[str]] = {}
        for v, place in self._places.items():
            names.setdefault(place.variable, []).append(v.name)
        found = []
        for run, report in zip(self.solved.point.compiled.runs, self.solved.reports, strict=True):
            inside = [name for b in run.blocks for v in b.variables for name in names.get(v, ())]
            label = ", ".join(inside[:6]) + (", …" if len(inside) > 6 else "")
            label = f"{{{label}}}" if isinstance(run, ImplicitRun) else label
            found.append(replace(report, label=label))
        return tuple(found)

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate of the primal solve."""
        return replace(self.solved.certificate, each=self._bounds)

    def _bounds(self) -> dict[str, float]:
        errors = {v: np.ravel(a) for v, a in self.solved.point.errors().items()}
        found = {}
        for v, place in self._places.items():
            if place.variable in errors:
                each = errors[place.variable]
                found[v.name] = float(np.max(each[place.entries if each.size > 1 else 0]))
        return found

    def profile(self) -> Profile:
        """Where the time went."""
        return replace(self.solved.profile(), blocks=self.reports)

    def _tried(self, arrays: Callable[[], T], scalars: Callable[[SolvedSystem], T]) -> T:
        """What arrays certify, or scalars do; at a kink, which has sides for each, the latter."""
        try:
            if not self.solved.point.tied:
                return arrays()
        except LagradError:
            pass
        return scalars(self.one_by_one)

    def _seeds(self, given: Values, width: int = 0) -> dict[Variable, Array]:
        """Arrays of what scalars are seeded with."""
        found: dict[Variable, Array] = {}
        for v, value in given.items():
            place = self.arrays.variables[v]
            whole = found.get(place.variable)
            if whole is None:
                whole = found[place.variable] = np.zeros((place.variable.size, max(width, 1)))
            whole[np.ravel(place.entries)] += np.reshape(value, (-1, max(width, 1)))
        return found if width else {v: a.reshape(v.shape) for v, a in found.items()}

    def _size(self, variable: Variable) -> float:
        place = self._places[variable]
        entries = np.ravel(self.solved.values[place.variable])[place.entries]
        return told(entries, self.solved.point.scale)

    def _swept(self, sweep: Any, seeds: Mapping[Variable, Array], forward: bool) -> None:
        """Seed the arrays, and run."""
        for v, a in seeds.items():
            sweep.seed(v, a)
        (sweep.forth if forward else sweep.back)()

    def _carried(
        self, seeds: Mapping[Variable, Array], ends: Iterable[Variable], forward: bool
    ) -> Callable[[Any], dict[Any, Array]]:
        """What seeds, reads, and tells apart by scalars."""
        pairs = [(v, self._places[v]) for v in ends]

        def carry(sweep: Any) -> dict[Any, Array]:
            self._swept(sweep, seeds, forward)
            known = {
                array: np.ravel(sweep.value(array)) for array in {p.variable for _, p in pairs}
            }
            return {v: np.asarray(known[p.variable][p.entries]) for v, p in pairs}

        return carry

    def gradient(self, output: Variable) -> Gradient:
        """The derivative of a scalar variable by every parameter."""
        return self.pullback(cotangent_of(output), f"the gradient of {output.name!r}")

    def pullback(self, cotangents: Values, what: str = "the pull-back") -> Gradient:
        """The transposed Jacobian times cotangents of some variables."""
        parameters = self.system.with_role("parameter")
        seeds = self._seeds(cotangents)
        carry = self._carried(seeds, parameters, False)
        units = {v: (1.0, self._size(v)) for v in parameters}

        def arrays() -> Gradient:
            found = self.solved._certified(carry, what, units, of=tuple(seeds))
            return Gradient(found[0], "parameter", found[1])

        return self._tried(arrays, lambda one: one.pullback(cotangents, what))

    def tangent(
        self, directions: Values, of: Sequence[Variable] | None = None
    ) -> Derivatives[Array]:
        """The derivative of some variables, or of all, along a direction of the parameters."""
        variables = list(self.system.variables.values() if of is None else of)
        carry = self._carried(self._seeds(directions), variables, True)
        by = by_shares(directions, self._size)
        units = {v: (self._size(v), by) for v in variables}
        outputs = tuple({self._places[v].variable: None for v in variables})

        def arrays() -> Derivatives[Array]:
            found = self.solved._certified(carry, "the tangent", units, of=outputs)
            return Derivatives(found[0], "variable", found[1])

        return self._tried(arrays, lambda one: one.tangent(directions, of))

    def multipliers(self, output: Variable) -> Derivatives[Array]:
        """What a scalar variable gains per unit added to each constraint's right side."""
        what = f"the multipliers of {output.name!r}"
        seeds, places = self._seeds(cotangent_of(output)), self.arrays.constraints

        def carry(sweep: Any) -> dict[Any, Array]:
            self._swept(sweep, seeds, False)
            found = {c: np.ravel(a) for c, a in sweep.multipliers().items()}
            return {
                c: np.asarray(found[places[c].variable][places[c].entries])
                for c in self.system.constraints.values()
            }

        def arrays() -> Derivatives[Array]:
            found = self.solved._certified(carry, what, {}, of=tuple(seeds))
            return Derivatives(found[0], "constraint", found[1])

        return self._tried(arrays, lambda one: one.multipliers(output))

    def jacobian(
        self, outputs: Sequence[Variable], inputs: Sequence[Variable]
    ) -> Derivatives[Derivatives[Array]]:
        """The derivatives of some variables by some parameters, all found at once."""
        forward = sum(v.size for v in inputs) <= sum(v.size for v in outputs)
        seeds, ends = (inputs, outputs) if forward else (outputs, inputs)
        width = sum(v.size for v in seeds)
        begin = np.cumsum([0, *(s.size for s in seeds)]).tolist()
        given = self._seeds(
            {s: np.eye(s.size, width, k) for s, k in zip(seeds, begin, strict=False)}, width
        )
        units = {(o, i): (self._size(o), self._size(i)) for o in outputs for i in inputs}

        def carry(sweep: Any) -> dict[Any, Array]:
            self._swept(sweep, given, forward)
            found = {}
            for node in ends:
                place = self._places[node]
                rows = sweep.value(place.variable)[np.ravel(place.entries)]
                for seed, piece in zip(seeds, np.split(rows, begin[1:-1], axis=1), strict=True):
                    o, i = (node, seed) if forward else (seed, node)
                    found[o, i] = (piece if forward else piece.T).reshape(o.shape + i.shape)
            return found

        of = tuple({self._places[o].variable: None for o in outputs})

        def arrays() -> Derivatives[Derivatives[Array]]:
            found, certificate = self.solved._certified(carry, "the Jacobian", units, width, of=of)
            rows = {
                o: Derivatives({i: found[o, i] for i in inputs}, "parameter", certificate)
                for o in outputs
            }
            return Derivatives(rows, "variable", certificate)

        return self._tried(arrays, lambda one: one.jacobian(outputs, inputs))
