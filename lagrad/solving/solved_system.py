"""A solved system: its values and, on asking, its derivatives, each certified.

Derivatives of iterations are told beside those of what they approach.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.errors import LagradError, NotFinite, SingularSystem
from lagrad.expressions.expression import Variable
from lagrad.primitives.repeated_eigenvalues import beside, undefined
from lagrad.solving import at_fault
from lagrad.solving.block_equations import largest
from lagrad.solving.certificate import Certificate, Policy
from lagrad.solving.certified_sweep import Carry, CertifiedSweep
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.derivative_mapping import Derivatives, Gradient, frozen
from lagrad.solving.failure_messages import cancelled, magnified
from lagrad.solving.iterations_replaced import implicit
from lagrad.solving.last_bits import rounded
from lagrad.solving.profile import BlockReport, DerivativeReport, Profile
from lagrad.solving.relative_change import Units
from lagrad.solving.solved_point import GIVEN, SolvedPoint
from lagrad.systems.constraint import Constraint
from lagrad.systems.system import System
from lagrad.typing import Array

Values = Mapping[Variable, Array]
# Parameters' entries up to which what overflows on the way back is found on the way forth.
FORTH_AT_MOST, TINY = 100, 1e-290


@dataclass(frozen=True, eq=False, repr=False)
class SolvedSystem:
    """Values of all variables at a solution, and certified derivatives.

    Parameters
    ----------
    point : SolvedPoint
    policy : Policy
        The accuracy that is asked for, and what happens where it is not reached.
    solve : callable
        `solve(compiled, values, start)` solves another system by the same methods.
    """

    point: SolvedPoint
    policy: Policy
    solve: "Callable[..., SolvedSystem]"
    reports: tuple[BlockReport, ...] = ()
    converged: bool = True
    spent: list[tuple[str, float]] = field(default_factory=list)  # what was asked for, its seconds

    @property
    def system(self) -> System:
        """The system as it was when it was solved."""
        return self.point.compiled.system

    def __getitem__(self, name: str) -> Array:
        return self.point.values[self.system.variables[name]]

    @property
    def one_by_one(self) -> "SolvedSystem":
        """The same by the variables that were declared: itself."""
        return self

    @property
    def values(self) -> Values:
        """The value of each variable."""
        return self.point.values

    def by_name(self) -> dict[str, Array]:
        """The value of each variable, by its name."""
        return {v.name: array for v, array in self.values.items()}

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate of the primal solve."""
        point, solved = self.point, self.point.solved.values()
        error = max((s.bound.error for s in solved), default=0.0)
        if np.isfinite(error) and self.point.doubtful:
            error = max(error, self.point.drift())
        bound = (lambda: float(error)) if self.point.doubtful else cache(self.point.drift)
        return Certificate(
            converged=self.converged,
            primal_residual=max((s.residual for s in solved), default=0.0),
            multiplier_residual=None,
            estimate=lambda: point.condition,
            bound=bound,
            each=point.bounds,
        )

    def profile(self) -> Profile:
        """Where the time went."""
        one = self.point.seconds_of_evaluation()
        derivatives = [DerivativeReport(what, s, s / one) for what, s in self.spent]
        return Profile(self.reports, tuple(derivatives))

    def gradient(self, output: Variable) -> Gradient:
        """The derivative of a scalar variable by every parameter."""
        return self.pullback(cotangent_of(output), f"the gradient of {output.name!r}")

    def pullback(self, cotangents: Values, what: str = "the pull-back") -> Gradient:
        """The transposed Jacobian times cotangents of some variables.

        Where a cotangent overflows on the way back, tangents on the way forth may not: of
        10⁻³⁰⁰·10²⁰⁰·10²⁰⁰ the product from the left is a number, and that from the right is not.
        """
        try:
            return self._pulled_back(cotangents, what)
        except NotFinite as lost:
            parameters, outputs = self.system.with_role("parameter"), list(cotangents)
            if self.policy.on_failure != "raise" or sum(v.size for v in parameters) > FORTH_AT_MOST:
                raise
            try:
                found, certificate = self._jacobian(outputs, parameters, True, what)
            except LagradError:
                raise lost from None
            rows = {
                v: [contracted(cotangents[o], found[o, v]) for o in outputs] for v in parameters
            }
            values = {v: frozen(np.sum(pieces, axis=0)) for v, pieces in rows.items()}
            if not all(np.abs(value).min(initial=np.inf) > TINY for value in values.values()):
                raise  # what is zero may have been lost on the way forth
        return Gradient(values, "parameter", certificate)

    def _pulled_back(self, cotangents: Values, what: str) -> Gradient:
        parameters = self.system.with_role("parameter")

        def carry(sweep: Any) -> dict[Any, Array]:
            sweep.seed_all(cotangents)
            sweep.back()
            return {v: received(sweep, v) for v in parameters}

        def again(other: SolvedSystem) -> Mapping[str, Array]:
            variables = other.system.variables
            return other.pullback({variables[v.name]: a for v, a in cotangents.items()})

        units = {v: (1.0, size) for v, size in self._sizes(parameters).items()}
        values, certificate = self._certified(carry, what, units, None, again, tuple(cotangents))
        return Gradient(values, "parameter", certificate)

    def multipliers(self, output: Variable) -> Derivatives[Array]:
        """What a scalar variable gains per unit added to each constraint's right side."""
        carry = lambda sweep: pulled(sweep, self.system, output)
        what = f"the multipliers of {output.name!r}"
        values, certificate = self._certified(carry, what, {}, of=(output,))
        return Derivatives(values, "constraint", certificate)

    def tangent(
        self, directions: Values, of: Sequence[Variable] | None = None
    ) -> Derivatives[Array]:
        """The derivative of some variables, or of all, along a direction of the parameters."""
        variables = list(self.system.variables.values() if of is None else of)

        def carry(sweep: Any) -> dict[Any, Array]:
            sweep.seed_all(directions)
            sweep.forth()
            return {v: np.asarray(sweep.value(v)).reshape(v.shape) for v in variables}

        by = by_shares(directions, self._size)
        units = {v: (size, by) for v, size in self._sizes(variables).items()}
        values, certificate = self._certified(carry, "the tangent", units)
        return Derivatives(values, "variable", certificate)

    def jacobian(
        self, outputs: Sequence[Variable], inputs: Sequence[Variable]
    ) -> Derivatives[Derivatives[Array]]:
        """The derivatives of some variables by some parameters, all found at once.

        Forwards or backwards, whichever has fewer right sides.
        """
        forward = sum(v.size for v in inputs) <= sum(v.size for v in outputs)
        found, certificate = self._jacobian(outputs, inputs, forward, "the Jacobian")
        by_output = {}
        for o in outputs:
            row = {i: found[o, i] for i in inputs}
            by_output[o] = Derivatives(row, "parameter", certificate)
        return Derivatives(by_output, "variable", certificate)

    def _jacobian(
        self, outputs: Sequence[Variable], inputs: Sequence[Variable], forward: bool, what: str
    ) -> tuple[dict[Any, Array], Certificate]:
        """The derivative of each output by each input, forwards or backwards."""
        seeds, ends = (inputs, outputs) if forward else (outputs, inputs)
        width = sum(v.size for v in seeds)
        places = np.cumsum([0, *(s.size for s in seeds)]).tolist()

        def carry(sweep: Any) -> dict[Any, Array]:
            for seed, place in zip(seeds, places, strict=False):
                sweep.seed(seed, np.eye(seed.size, width, place))
            (sweep.forth if forward else sweep.back)()
            found = {}
            for node in ends:
                pieces = np.split(sweep.value(node), places[1:-1], axis=1)
                for seed, piece in zip(seeds, pieces, strict=True):
                    of, by = (node, seed) if forward else (seed, node)
                    found[of, by] = (piece if forward else piece.T).reshape(of.shape + by.shape)
            return found

        units = {(o, i): (self._size(o), self._size(i)) for o in outputs for i in inputs}
        return self._certified(carry, what, units, width)

    def _certified(
        self,
        carry: Carry,
        what: str,
        units: Units,
        width: int | None = None,
        again: "Callable[[SolvedSystem], Mapping[str, Array]] | None" = None,
        of: tuple[Variable, ...] = (),
    ) -> tuple[dict[Any, Array], Certificate]:
        """What a sweep carries, with its certificate, required to reach the accuracy.

        `again` asks another solution for the same; `of` is what is differentiated.
        """
        began, primal = time.perf_counter(), self.certificate
        certified = CertifiedSweep(self.point, carry, width, units, self.policy.accuracy, of)
        taken = certified()
        found, sweep, error = taken.found, taken.sweep, taken.error
        self.spent.append((what, time.perf_counter() - began))
        read = {key: frozen(array) for key, array in found.items()}
        sample: Callable[[], float] = lambda: 0.0  # a sum that overflows says nothing yet
        if not all_finite(found.values()) and not all(np.isfinite(a).all() for a in found.values()):
            found, error = self._beside(found, carry, what, width)
            read = {key: frozen(array) for key, array in found.items()}
        elif not (self.point.doubtful and self.policy.accuracy < np.inf):
            sample = lambda: certified.rounding(found, sweep)
        instead = filter(None, (sweep.truncated, self.point.compiled.label))
        certificate = replace(
            primal,
            multiplier_residual=sweep.residual,
            bound=cache(lambda: float(error + sample())),
            differentiated="; ".join(instead) or "implicit",
            truncation=sweep.truncation,
            kink=taken.jump,
        )
        if certificate.differentiated != "implicit":
            certificate = replace(certificate, compare=lambda: self._distance(found, again))
        if sweep.fault:
            self.policy.fail(SingularSystem(sweep.fault))
            return read, certificate
        if not sweep.rounding <= self.policy.accuracy:
            self.policy.fail(rounded(what, sweep.rounding, sweep.doubts))
            return read, certificate
        if not taken.lost <= self.policy.accuracy:
            said = magnified if taken.gradual else cancelled
            self.policy.fail(said(what, taken.lost, taken.where))
            return read, certificate
        if self.point.doubtful:
            self.policy.require(certificate, what, lambda: at_fault.hints(self.point, error))
        return read, certificate

    def _beside(
        self, found: dict[Any, Array], carry: Carry, what: str, width: int | None
    ) -> tuple[dict[Any, Array], float]:
        """What is not finite, from beside equal eigenvalues if there are some, and its error."""
        bad = {key for key, array in found.items() if not np.isfinite(array).all()}
        values = self.point.values
        sizes = {v: largest(a) or 1.0 for v, a in values.items() if np.isfinite(a).all()}
        top = max((size for v, size in sizes.items() if v.role not in GIVEN), default=1.0)

        def unit(key: Any) -> float:
            of, by = key if isinstance(key, tuple) else (None, key)
            size = max(sizes.get(by, 1.0), 1e-8 * top)
            if of is None and getattr(by, "role", "") not in GIVEN:
                return size  # a tangent, or a multiplier
            return sizes.get(of, top) / size

        def compute() -> dict[Any, Array]:
            carried = carry(self.point.beside.sweep(width))
            return {key: carried[key] for key in bad}

        scalars = self.point.flat is not None  # which have no matrices
        limit = None if scalars else beside(compute, unit, self.policy.accuracy)
        if limit is None or not all_finite(limit.found.values()):
            culprit, operation = at_fault.culprit(self.point)
            said = f"{culprit} is not differentiable there, or overflows"
            error = NotFinite(f"{what} is NaN or infinite: {said}.")
            error.operation = operation
            self.policy.fail(error)
            return found, 0.0
        if not limit.error <= self.policy.accuracy:
            self.policy.fail(NotFinite(undefined(what, limit.equal)))
            return found, 0.0
        kept = {key: np.asarray(limit.found.get(key, a), a.dtype) for key, a in found.items()}
        return kept, limit.error

    def _distance(
        self, found: Mapping[Any, Array], again: Callable[[Any], Mapping[str, Array]] | None
    ) -> float | None:
        """How far a derivative is from the implicit one, relative to the latter's largest entry.

        `again` asks another solution for it. None where there is no such derivative.
        """
        system, values = self.system, self.point.values
        if again is None or system.with_role("data"):
            return None
        given = {v.name: values[v] for v in system.with_role("parameter")}
        start = {v.name: values[v] for v in system.with_role("unknown")}
        try:
            exact = implicit(system, values)
            if exact is None:
                return None
            others = again(self.solve(CompiledSystem(exact), given, start))
        except LagradError:
            return None
        size = max((largest(others[key.name]) for key in found), default=0.0)
        off = max((largest(value - others[key.name]) for key, value in found.items()), default=0.0)
        return off / size if size else (np.inf if off else 0.0)

    def _sizes(self, variables: Iterable[Variable]) -> dict[Variable, float]:
        """The size of each, by which errors are measured."""
        return {v: self._size(v) for v in variables}

    def _size(self, variable: Variable) -> float:
        return told(self.point.values[variable], self.point.scale)


def told(value: Array, scale: float) -> float:
    """The largest entry of a value; no less than one where it is as good as zero."""
    size = largest(value)
    return size if size > 1e-12 * scale else max(size, 1.0)


def by_shares(directions: Values, size: Callable[[Variable], float]) -> float:
    """How large a parameter is beside its move: the one that moves by the largest share of itself.

    A tangent is measured by it as a gradient is by the size of its parameter.
    """
    moves = ((v, largest(np.asarray(way))) for v, way in directions.items())
    return max(1.0, min((size(v) / move for v, move in moves if move), default=1.0))


def cotangent_of(variable: Variable) -> dict[Variable, Array]:
    """The cotangent of a variable alone."""
    return {variable: np.ones(variable.shape, dtype=variable.dtype)}


def pulled(sweep: Any, system: System, output: Variable) -> dict[Constraint, Array]:
    """The multipliers of all constraints, by a sweep from an output."""
    sweep.seed_all(cotangent_of(output))
    sweep.back()
    found: dict[Constraint, Array] = sweep.multipliers()
    return found


def contracted(cotangent: Array, rows: Array) -> Array:
    """A cotangent times the derivatives of what it belongs to."""
    given = np.asarray(cotangent)
    return np.tensordot(given, np.asarray(rows), axes=given.ndim)


def received(sweep: Any, variable: Variable) -> Array:
    """What a sweep brought to a variable, in its dtype and shape."""
    found = np.asarray(sweep.value(variable), dtype=variable.dtype)
    return found if found.shape == variable.shape else found.reshape(variable.shape)
