"""A solved program: its values and, on asking, its derivatives, each with a certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.errors import NotFinite
from lagrad.expressions.expression import Variable
from lagrad.programs.derivatives import Derivatives, Gradient, frozen, shortened
from lagrad.programs.derived_programs import adjoint
from lagrad.programs.hessian_vector import at_known_solution
from lagrad.programs.implicit_distance import distance
from lagrad.solving.adjoint_system import AdjointSystem, assemble
from lagrad.solving.carrying import arrived, one, pulled, several
from lagrad.solving.certificate import Certificate, Policy
from lagrad.solving.profile import BlockReport, DerivativeReport, Profile
from lagrad.solving.solved_system import SolvedPoint
from lagrad.systems.system import System, fitted
from lagrad.typing import Array


class Solution:
    """The values of all variables at a solution, and their derivatives.

    Returned by `Program.solve`; immutable. `at[name]` is a float for a scalar variable, and a
    read-only array otherwise.
    """

    def __init__(
        self,
        point: SolvedPoint,
        policy: Policy,
        reports: tuple[BlockReport, ...] = (),
        converged: bool = True,
    ) -> None:
        self.point = point
        self._policy = policy
        self._converged = converged
        self.reports = reports
        self._derived: list[tuple[str, float]] = []  # what was asked for, and its seconds

    @property
    def system(self) -> System:
        """The system as it was when it was solved."""
        return self.point.compiled.system

    def __getitem__(self, key: Any) -> Any:
        value = self.point.values[self.system.variable(key)]
        return value.item() if np.ndim(value) == 0 else value

    def by_name(self) -> dict[str, Array]:
        """The value of each variable, by its name."""
        return {v.name: array for v, array in self.point.values.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.system.variables)

    def __repr__(self) -> str:
        lines = [f"Solution of {self.system.name}:"]
        lines += [f"  {v.name} = {shortened(a)}" for v, a in list(self.point.values.items())[:20]]
        if len(self.point.values) > 20:
            lines.append(f"  … {len(self.point.values) - 20} more")
        return "\n".join(lines)

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate of the primal solve."""
        solved = self.point.solved.values()
        error = max((s.error for s in solved), default=0.0)
        if solved and np.isfinite(error):
            error = max(error, self.point.drift())
        return Certificate(
            converged=self._converged,
            primal_residual=max((s.residual for s in solved), default=0.0),
            multiplier_residual=None,
            estimate=self._condition,
            error_bound=float(error),
        )

    def profile(self) -> Profile:
        """Return where the time went: block by block, and derivative by derivative.

        Returns
        -------
        Profile
            It prints as a table.

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> z = p.unknown("z", start=1.0)
        >>> equation = p.subject_to(z * z == p.parameter("x", value=2.0))
        >>> at = p.solve()
        >>> at.gradient("z")["x"].shape
        ()
        >>> profile = at.profile()
        >>> profile.blocks[0].spent.calls["factorising"], profile.derivatives[0].what
        (5, "the gradient of 'z'")
        """
        one = self.point.seconds_of_evaluation()
        derivatives = [DerivativeReport(what, s, s / one) for what, s in self._derived]
        return Profile(self.reports, tuple(derivatives))

    def _condition(self) -> float:
        return max((s.condition for s in self.point.solved.values()), default=1.0)

    def _certified(
        self,
        carry: Callable[[Any], dict[Any, Array]],
        what: str,
        units: Mapping[Any, float],
        width: int | None = None,
        again: Callable[[Any], Mapping[str, Array]] | None = None,
    ) -> tuple[dict[Any, Array], Certificate]:
        """What a sweep carries, with its certificate, required to reach the accuracy.

        `again` asks another solution for the same.
        """
        began = time.perf_counter()
        found, sweep, error = self.point.carried(carry, width, units)
        self._derived.append((what, time.perf_counter() - began))
        # A sum that overflows says nothing yet.
        if not all_finite(found.values()) and not all(np.isfinite(a).all() for a in found.values()):
            self._policy.fail(
                NotFinite(
                    f"{what} is NaN or infinite: {self.point.culprit()} is not differentiable."
                )
            )
        primal = self.certificate
        certificate = Certificate(
            converged=primal.converged,
            primal_residual=primal.primal_residual,
            multiplier_residual=sweep.residual,
            estimate=primal.estimate,
            error_bound=float(error + primal.error_bound),
            differentiated="; ".join(filter(None, (sweep.truncated, self.point.compiled.label)))
            or "implicit",
            truncation=sweep.truncation,
        )
        if certificate.differentiated != "implicit":
            compare = lambda: distance(self.system, self.point.values, found, again)
            certificate = replace(certificate, compare=compare)
        self._policy.require(certificate, what, self.point.kinks() if error > 1e-3 else "")
        return {key: frozen(array) for key, array in found.items()}, certificate

    def _sizes(self, variables: Iterable[Variable]) -> dict[Variable, float]:
        """The size of each, where errors of solutions are to be measured by it."""
        return {v: self._size(v) for v in variables} if self.point.solved else {}

    def _parameters(self) -> list[Variable]:
        return self.system.with_role("parameter")

    def _size(self, variable: Variable) -> float:
        """The largest entry of a variable's value; one where that is zero, or as good as zero."""
        size = float(np.abs(self.point.values[variable]).max(initial=0.0))
        return size if size > 1e-12 * self.point.scale else 1.0

    def gradient(self, output: Any) -> Gradient:
        """Return the derivative of a scalar variable by every parameter.

        Parameters
        ----------
        output : str or variable
            A variable with one entry.

        Returns
        -------
        Gradient
            A mapping from parameter to an array of its shape; `certificate` says how accurate.

        Raises
        ------
        SingularSystem
            The gradient cannot be certified to the accuracy given to `solve`.
        NotFinite
            A local partial is infinite.

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=3.0)
        >>> y = p.define("y", x * x)
        >>> float(p.solve().gradient("y")["x"])
        6.0
        """
        variable = self.system.scalar(output)
        return self._gradient(one(variable), f"the gradient of {variable.name!r}")

    def pullback(self, cotangents: Mapping[Any, Any] | None = None, /, **named: Any) -> Gradient:
        """Return the transposed Jacobian times cotangents of some variables.

        Parameters
        ----------
        cotangents, **named
            An array for some variables, each in its shape.

        Returns
        -------
        Gradient
            From parameter to an array of its shape.

        Raises
        ------
        SingularSystem, NotFinite, ShapeMismatch, UnknownName

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=[1.0, 3.0])
        >>> y = p.define("y", x * x)
        >>> p.solve().pullback(y=[1.0, 10.0])["x"].tolist()
        [2.0, 60.0]
        """
        given = {
            (v := self.system.variable(key)): fitted(f"the cotangent of {v.name!r}", value, v)
            for key, value in [*(cotangents or {}).items(), *named.items()]
        }
        return self._gradient(given, "the pull-back")

    def _gradient(self, cotangents: Mapping[Variable, Array], what: str) -> Gradient:
        _, gradients = pulled(self.system, cotangents)
        units = {v: 1 / size for v, size in self._sizes(self._parameters()).items()}
        named = {v.name: array for v, array in cotangents.items()}
        values, certificate = self._certified(
            gradients, what, units, again=lambda other: other.pullback(named)
        )
        return Gradient(values, "parameter", certificate)

    def multipliers(self, output: Any) -> Derivatives[Array]:
        """Return what a scalar variable gains per unit added to each constraint's right side.

        Parameters
        ----------
        output : str or variable
            A variable with one entry.

        Returns
        -------
        mapping
            From constraint to an array of its shape.

        Raises
        ------
        SingularSystem, NotFinite
            As of `gradient`.

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> y = p.define("y", 1.0 * p.parameter("x", value=1.0))
        >>> z = p.define("z", y * y)
        >>> float(p.solve().multipliers("z")["y"])
        2.0
        """
        variable = self.system.scalar(output)
        multipliers, _ = pulled(self.system, one(variable))
        what = f"the multipliers of {variable.name!r}"
        values, certificate = self._certified(multipliers, what, {})
        return Derivatives(values, "constraint", certificate)

    def adjoint_system(self, output: Any) -> AdjointSystem:
        """Return the whole adjoint system of a scalar variable as a labelled sparse matrix.

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> y = p.define("y", 1.0 * p.parameter("x", value=1.0))
        >>> z = p.define("z", y * y)
        >>> p.solve().adjoint_system("z").matrix.toarray().tolist()
        [[1.0, -2.0], [0.0, 1.0]]
        """
        point = self.point
        return assemble(point.compiled, point.linearization, self.system.scalar(output))

    def _directions(
        self, given: Mapping[Any, Any] | None, named: Mapping[str, Any]
    ) -> dict[Variable, Array]:
        directions = {}
        for key, value in [*(given or {}).items(), *named.items()]:
            variable = self.system.variable_of(key, "parameter")
            directions[variable] = fitted(f"the direction of {variable.name!r}", value, variable)
        return directions

    def tangent(
        self, directions: Mapping[Any, Any] | None = None, /, **named: Any
    ) -> Derivatives[Array]:
        """Return the derivative of every variable along a direction of the parameters.

        Parameters
        ----------
        directions, **named
            An array for each parameter that changes, in its shape.

        Returns
        -------
        mapping
            From variable to an array of its shape.

        Raises
        ------
        SingularSystem, NotFinite, ShapeMismatch, UnknownName

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=3.0)
        >>> y = p.define("y", x * x)
        >>> float(p.solve().tangent(x=1.0)["y"])
        6.0
        """
        given = self._directions(directions, named)
        variables = list(self.system.variables.values())

        def carry(sweep: Any) -> dict[Any, Array]:
            for variable, direction in given.items():
                sweep.seed(variable, direction)
            sweep.forth()
            return {v: np.asarray(sweep.value(v)).reshape(v.shape) for v in variables}

        units = self._sizes(variables)
        values, certificate = self._certified(carry, "the tangent", units)
        return Derivatives(values, "variable", certificate)

    def jacobian(self, of: Any, wrt: Any) -> Derivatives[Derivatives[Array]]:
        """Return the derivatives of some variables by some parameters.

        Parameters
        ----------
        of, wrt : a name or variable, or a list of them

        Returns
        -------
        mapping of mappings
            `J["y"]["x"]` has the shape of `y` followed by that of `x`. Forward or adjoint,
            whichever has fewer right sides; all of them are solved in one call.

        Raises
        ------
        SingularSystem, NotFinite, UnknownName

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=[1.0, 2.0])
        >>> y = p.define("y", x * x)
        >>> p.solve().jacobian("y", "x")["y"]["x"].tolist()
        [[2.0, 0.0], [0.0, 4.0]]
        """
        outputs = [self.system.variable(key) for key in several(of)]
        inputs = [self.system.variable_of(key, "parameter") for key in several(wrt)]
        rows, columns = sum(v.size for v in outputs), sum(v.size for v in inputs)
        forward = columns <= rows
        seeds, ends = (inputs, outputs) if forward else (outputs, inputs)
        width = min(rows, columns)
        ends_of = np.cumsum([0, *(s.size for s in seeds)]).tolist()

        def carry(sweep: Any) -> dict[Any, Array]:
            for node, start in zip(seeds, ends_of, strict=False):
                sweep.seed(node, np.eye(node.size, width, start))
            if forward:
                sweep.forth()
            else:
                sweep.back()
            found = {}
            for node in ends:
                arrived_here = sweep.value(node)
                for k, seed in enumerate(seeds):
                    part = arrived_here[:, ends_of[k] : ends_of[k + 1]]
                    of_node, by_node = (node, seed) if forward else (seed, node)
                    block = part if forward else part.T
                    found[of_node, by_node] = block.reshape(of_node.shape + by_node.shape)
            return found

        units = {(o, i): self._size(o) / self._size(i) for o in outputs for i in inputs}
        pieces, certificate = self._certified(carry, "the Jacobian", units, width)
        return Derivatives(
            {
                o: Derivatives({i: pieces[o, i] for i in inputs}, "parameter", certificate)
                for o in outputs
            },
            "variable",
            certificate,
        )

    def hessian_vector(
        self, output: Any, directions: Mapping[Any, Any] | None = None, /, **named: Any
    ) -> Derivatives[Array]:
        """Return the Hessian of a scalar variable by all parameters, times a direction.

        Parameters
        ----------
        output : str or variable
            A variable with one entry.
        directions, **named
            An array for each parameter that changes, in its shape.

        Returns
        -------
        mapping
            From parameter to an array of its shape.

        Raises
        ------
        SingularSystem, NotFinite, ShapeMismatch, UnknownName

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=3.0)
        >>> y = p.define("y", x * x * x)
        >>> float(p.solve().hessian_vector("y", x=1.0)["x"])
        18.0
        """
        variable = self.system.scalar(output)
        given = self._directions(directions, named)
        derived = adjoint(self.point.compiled, variable.name)
        with np.errstate(all="ignore"):
            multipliers, _ = pulled(self.system, one(variable))
            found = multipliers(sweep := self.point.sweep())
            found |= {v: arrived(sweep, v) for v in self._parameters()}
        known = {v.name: array for v, array in self.point.values.items()}
        for thing, array in found.items():
            names = derived.gradients if isinstance(thing, Variable) else derived.multipliers
            known[names[thing.name]] = array
        values, solved = at_known_solution(derived, known, self.point.solved)
        solution = Solution(SolvedPoint(derived.compiled, values, solved), self._policy)
        tangent = solution.tangent({v.name: d for v, d in given.items()})
        return Derivatives(
            {v: tangent[derived.gradients[v.name]] for v in self._parameters()},
            "parameter",
            tangent.certificate,
        )
