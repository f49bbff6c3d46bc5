"""A solved program: its values and, on asking, its derivatives, each with a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.adjoint import AdjointSystem, Sweep, assemble
from lagrad.certificate import Certificate, Policy
from lagrad.compiled import Compiled, ExplicitRun
from lagrad.derivatives import Derivatives, Gradient, frozen, shortened
from lagrad.derive import adjoint
from lagrad.endpoint import Solved
from lagrad.errors import NotFinite, UnknownName
from lagrad.expression import Variable
from lagrad.histories import BlockReport
from lagrad.second_order import at_known_solution
from lagrad.structure import Block
from lagrad.system import Constraint, System, fitted
from lagrad.tape import Linearization, split

__all__ = ["Solution"]

Array = Any


class Solution:
    """The values of all variables at a solution, and their derivatives.

    Returned by `Program.solve`; immutable. `at[name]` is a float for a scalar variable, and a
    read-only array otherwise.
    """

    def __init__(
        self,
        compiled: Compiled,
        values: dict[Variable, Array],
        solved: dict[Block, Solved],
        policy: Policy,
        reports: tuple[BlockReport, ...] = (),
        converged: bool = True,
    ) -> None:
        for array in values.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        self._compiled = compiled
        self._values = values
        self._solved = solved
        self._policy = policy
        self._converged = converged
        self.reports = reports

    @property
    def system(self) -> System:
        return self._compiled.system

    def __getitem__(self, key: Any) -> Any:
        value = self._values[self.system.variable(key)]
        return value.item() if np.ndim(value) == 0 else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.system.variables)

    def __repr__(self) -> str:
        lines = [f"Solution of {self.system.name}:"]
        lines += [f"  {v.name} = {shortened(a)}" for v, a in list(self._values.items())[:20]]
        if len(self._values) > 20:
            lines.append(f"  … {len(self._values) - 20} more")
        return "\n".join(lines)

    @cached_property
    def certificate(self) -> Certificate:
        """The certificate of the primal solve."""
        solved = self._solved.values()
        return Certificate(
            converged=self._converged,
            primal_residual=max((s.residual for s in solved), default=0.0),
            multiplier_residual=None,
            condition=max((s.condition for s in solved), default=1.0),
            error_bound=max((s.error for s in solved), default=0.0),
        )

    @cached_property
    def _linearization(self) -> Linearization:
        return self._compiled.linearize(self._values)

    def _sweep(self, width: int | None = None) -> Sweep:
        return Sweep(self._compiled, self._linearization, self._solved, width)

    def _certified(self, sweep: Sweep, what: str, arrays: Sequence[Array]) -> Certificate:
        """The certificate of a sweep's result, required to reach the accuracy."""
        for array in arrays:
            if not np.isfinite(array).all():
                self._policy.fail(
                    NotFinite(
                        f"{what} is NaN or infinite: {self._culprit()} is not differentiable."
                    )
                )
                break
        primal = self.certificate
        certificate = Certificate(
            converged=primal.converged,
            primal_residual=primal.primal_residual,
            multiplier_residual=sweep.residual,
            condition=primal.condition,
            # The errors are estimates: a residual of random signs, not of the worst.
            error_bound=4 * (sweep.error + primal.error_bound),
        )
        self._policy.require(certificate, what)
        return certificate

    def _culprit(self) -> str:
        """The first constraint whose local partials are not finite."""
        tape = self._compiled.tape
        for stretch in self._compiled.stretches:
            for step in self._linearization.steps[stretch.start : stretch.stop]:
                data = () if step.map is None else step.map.data
                if all(np.isfinite(value).all() for value in data):
                    continue
                for block in stretch.run.blocks:
                    for constraint in block.constraints:
                        if tape.slots.get(constraint.roots[0].index, -1) >= step.target:
                            return f"at this point the constraint {constraint.name!r}"
        return "the program"

    def _back(self, output: Any) -> tuple[Sweep, dict[Constraint, Array]]:
        variable = self.system.scalar(output)
        sweep = self._sweep()
        sweep.seed(variable, np.ones(variable.shape, dtype=variable.dtype))
        with np.errstate(all="ignore"):
            return sweep, sweep.back()

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
        sweep, _ = self._back(output)
        variable = self.system.scalar(output)
        values = {
            v.name: frozen(self._arrived(sweep, v)) for v in self.system.with_role("parameter")
        }
        what = f"the gradient of {variable.name!r}"
        certificate = self._certified(sweep, what, list(values.values()))
        if self.certificate.error_bound > LOOSE:
            certificate = self._checked_nearby(variable, values, certificate, what)
        return Gradient(values, certificate)

    def _arrived(self, sweep: Sweep, variable: Variable) -> Array:
        return np.asarray(sweep.value(variable), dtype=variable.dtype).reshape(variable.shape)

    def _checked_nearby(
        self, output: Variable, values: dict[str, Array], certificate: Certificate, what: str
    ) -> Certificate:
        """The certificate with the gradient's change across the error of a loose solution."""
        moved = self._moved()
        sweep, _ = moved._back(moved.system.scalar(output))
        change = max(
            (
                float(np.abs(moved._arrived(sweep, v) - values[v.name]).max(initial=0.0))
                for v in self.system.with_role("parameter")
            ),
            default=0.0,
        )
        top = max((float(np.abs(v).max(initial=0.0)) for v in values.values()), default=0.0)
        relative = change / top if top else change
        wider = Certificate(
            certificate.converged,
            certificate.primal_residual,
            certificate.multiplier_residual,
            certificate.condition,
            max(certificate.error_bound, sweep.error + 2 * relative),
        )
        self._policy.require(wider, what)
        return wider

    def _moved(self) -> Solution:
        """The solution with its unknowns moved by their estimated errors."""
        values = {v: self._values[v] for v in self.system.with_role("parameter")}
        for run in self._compiled.runs:
            values.update((v, self._values[v]) for v in self._values if v.size == 0)
            if isinstance(run, ExplicitRun):
                run.evaluate(values)
            else:
                solved = self._solved[run.block]
                unknowns = run.block.unknowns
                values.update(
                    zip(unknowns, split(solved.point + solved.direction, unknowns), strict=True)
                )
                run.evaluate_definitions(values)
        return Solution(self._compiled, values, self._solved, self._policy)

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
        >>> import numpy as np, lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=0.0)
        >>> y = p.define("y", np.exp(x))
        >>> z = p.define("z", y * y)
        >>> float(p.solve().multipliers("z")["y"])
        2.0
        """
        sweep, found = self._back(output)
        values = {
            name: frozen(np.asarray(found[c]).reshape(c.shape))
            for name, c in self.system.constraints.items()
        }
        self._certified(
            sweep, f"the multipliers of {self.system.scalar(output).name!r}", list(values.values())
        )
        return Derivatives(values, "constraint")

    def adjoint_system(self, output: Any) -> AdjointSystem:
        """Return the whole adjoint system of a scalar variable as a labelled sparse matrix.

        Examples
        --------
        >>> import numpy as np, lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=0.0)
        >>> y = p.define("y", np.exp(x))
        >>> z = p.define("z", y * y)
        >>> p.solve().adjoint_system("z").matrix.toarray().tolist()
        [[1.0, -2.0], [0.0, 1.0]]
        """
        return assemble(self._compiled, self._linearization, self.system.scalar(output))

    def _directions(
        self, given: Mapping[Any, Any] | None, named: Mapping[str, Any]
    ) -> dict[Variable, Array]:
        parameters = {v.name: v for v in self.system.with_role("parameter")}
        directions = {}
        for key, value in [*(given or {}).items(), *named.items()]:
            name = getattr(key, "name", key)
            if name not in parameters:
                raise UnknownName.among(name, parameters, "parameter")
            directions[parameters[name]] = fitted(
                f"the direction of {name!r}", value, parameters[name]
            )
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
        sweep = self._sweep()
        for variable, direction in self._directions(directions, named).items():
            sweep.seed(variable, direction)
        with np.errstate(all="ignore"):
            sweep.forth()
        values = {
            name: frozen(np.asarray(sweep.value(v)).reshape(v.shape))
            for name, v in self.system.variables.items()
        }
        self._certified(sweep, "the tangent", list(values.values()))
        return Derivatives(values, "variable")

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
        parameters = {v.name: v for v in self.system.with_role("parameter")}
        inputs = []
        for key in several(wrt):
            if self.system.variable(key, "parameter").name not in parameters:
                raise UnknownName.among(getattr(key, "name", key), parameters, "parameter")
            inputs.append(self.system.variable(key))
        rows, columns = sum(v.size for v in outputs), sum(v.size for v in inputs)
        forward = columns <= rows
        seeds, ends = (inputs, outputs) if forward else (outputs, inputs)
        width = min(rows, columns)
        sweep = self._sweep(width)
        offset = 0
        for node in seeds:
            sweep.seed(node, np.eye(node.size, width, offset))
            offset += node.size
        with np.errstate(all="ignore"):
            if forward:
                sweep.forth()
            else:
                sweep.back()
        pieces = {}
        for node in ends:
            parts = np.split(sweep.value(node), np.cumsum([s.size for s in seeds])[:-1], axis=1)
            for other, part in zip(seeds, parts, strict=True):
                of_node, by_node = (node, other) if forward else (other, node)
                block = part if forward else part.T
                pieces[of_node, by_node] = frozen(block.reshape(of_node.shape + by_node.shape))
        self._certified(sweep, "the Jacobian", list(pieces.values()))
        return Derivatives(
            {
                o.name: Derivatives({i.name: pieces[o, i] for i in inputs}, "parameter")
                for o in outputs
            },
            "variable",
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
        derived = adjoint(self._compiled, variable.name)
        sweep, multipliers = self._back(variable)
        known = {v.name: array for v, array in self._values.items()}
        known |= {derived.multipliers[c.name]: array for c, array in multipliers.items()}
        known |= {
            name: self._arrived(sweep, self.system.variables[v])
            for v, name in derived.gradients.items()
        }
        values, solved = at_known_solution(derived, known, self._solved)
        solution = Solution(derived.compiled, values, solved, self._policy)
        tangent = solution.tangent({v.name: d for v, d in given.items()})
        return Derivatives(
            {name: tangent[symbol] for name, symbol in derived.gradients.items()}, "parameter"
        )


LOOSE = 1e-9


def several(keys: Any) -> list[Any]:
    return list(keys) if isinstance(keys, (list, tuple)) else [keys]
