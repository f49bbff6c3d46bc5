"""A solved program: its values and, on asking, its derivatives, each with a certificate."""

import functools
from collections.abc import Callable, Iterator, KeysView, Mapping
from typing import Any

from lagrad.expressions.expression import Variable
from lagrad.programs.hessian_vector import hessian_vector
from lagrad.public import Public
from lagrad.solving.adjoint_matrix import AdjointSystem, assemble
from lagrad.solving.certificate import Certificate
from lagrad.solving.derivative_mapping import Derivatives, Entry, Gradient, entry, shortened
from lagrad.solving.profile import BlockReport, Profile
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem
from lagrad.solving.solved_together import SolvedTogether
from lagrad.systems.system import System, fitted
from lagrad.typing import Array


class Solution(Public):
    """The values of all variables at a solution, and their derivatives.

    Returned by `Program.solve`; immutable. `at[name]` is a NumPy float for a scalar variable, and
    a read-only array otherwise.
    """

    PUBLIC = (
        *("certificate", "gradient", "pullback", "multipliers", "jacobian", "tangent", "keys"),
        *("hessian_vector", "adjoint_system", "profile"),
    )

    def __init__(self, solved: SolvedSystem | SolvedTogether) -> None:
        self._solved = solved

    @property
    def certificate(self) -> Certificate:
        """The certificate of the primal solve."""
        return self._solved.certificate

    @property
    def point(self) -> SolvedPoint:
        return self._solved.point

    @property
    def reports(self) -> tuple[BlockReport, ...]:
        return self._solved.reports

    @property
    def system(self) -> System:
        return self._solved.system

    def by_name(self) -> dict[str, Array]:
        return self._solved.by_name()

    def __getitem__(self, key: str | Variable) -> Entry:
        return entry(self._solved.values[self.system.variable(key)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.system.variables)

    def __len__(self) -> int:
        return len(self.system.variables)

    def __contains__(self, key: object) -> bool:
        return key in self.system

    def keys(self) -> KeysView[str]:
        """The names of all variables."""
        return self.system.variables.keys()

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        lines = [f"Solution of {self.system.name}:"]
        lines += [f"  {v.name} = {shortened(a)}" for v, a in list(self._solved.values.items())[:20]]
        if len(self) > 20:
            lines.append(f"  … {len(self) - 20} more")
        return "\n".join(lines)

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
        return self._solved.profile()

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
        return self._solved.gradient(self.system.scalar(output))

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
        given = fitting("cotangent", self.system.variable, cotangents, named)
        return self._solved.pullback(given)

    def multipliers(self, output: Any) -> Derivatives[Entry]:
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
        return self._solved.multipliers(self.system.scalar(output))

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
        parameter = functools.partial(self.system.variable_of, role="parameter")
        return fitting("direction", parameter, given, named)

    def tangent(
        self, directions: Mapping[Any, Any] | None = None, /, **named: Any
    ) -> Derivatives[Entry]:
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
        return self._solved.tangent(self._directions(directions, named))

    def jacobian(self, of: Any, wrt: Any) -> Derivatives[Derivatives[Entry]]:
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
        outputs = [self.system.variable(key) for key in as_list(of)]
        inputs = [self.system.variable_of(key, "parameter") for key in as_list(wrt)]
        return self._solved.jacobian(outputs, inputs)

    def hessian_vector(
        self, output: Any, directions: Mapping[Any, Any] | None = None, /, **named: Any
    ) -> Derivatives[Entry]:
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
        return hessian_vector(
            self._solved.one_by_one, variable, self._directions(directions, named)
        )


def fitting(
    what: str,
    variable: Callable[[Any], Variable],
    given: Mapping[Any, Any] | None,
    named: Mapping[str, Any],
) -> dict[Variable, Array]:
    """The arrays that were given of some variables, each in its variable's shape."""
    pairs = [*(given or {}).items(), *named.items()]
    return {(v := variable(k)): fitted(f"the {what} of {v.name!r}", a, v) for k, a in pairs}


def as_list(keys: Any) -> list[Any]:
    return list(keys) if isinstance(keys, (list, tuple)) else [keys]
