"""`Program`: declare, solve, read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lagrad.errors import LagradError, UnsupportedType
from lagrad.expressions.expression import Variable
from lagrad.expressions.graph import ancestors
from lagrad.lazy_import import LazyImport
from lagrad.linear_solvers.base import LinearSolver
from lagrad.programs import derived_programs as derive
from lagrad.programs.solution import Solution
from lagrad.programs.solve_many import Batch, solve_all
from lagrad.programs.source import source
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.iterations import Newton
from lagrad.solving.solve import solve
from lagrad.solving.solved_system import SolvedSystem
from lagrad.solving.solved_together import Together
from lagrad.systems import as_arrays
from lagrad.systems.constraint import Constraint
from lagrad.systems.printing import latex, text
from lagrad.systems.rewriting import copied
from lagrad.systems.system import System, fitted

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = LazyImport("networkx")


class Program(System):
    """A program as a system of equality constraints.

    Parameters
    ----------
    name : str
        What messages call it.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> p = lg.Program("kepler")
    >>> M, e = p.parameter("M", value=1.0), p.parameter("e", value=0.5)
    >>> E = p.unknown("E", start=1.0)
    >>> equation = p.subject_to(E - e * np.sin(E) == M)
    >>> at = p.solve()
    >>> float(at["E"].round(12)), float(at.gradient("E")["M"].round(12))
    (1.498701133518, 1.037362021894)
    """

    PUBLIC = (
        *("parameter", "unknown", "define", "subject_to", "solve", "solve_many", "adjoint"),
        *("source", "graph", "name", "variables", "constraints"),
    )

    def __init__(self, name: str = "program") -> None:
        super().__init__(name)
        self._compiled: tuple[tuple[int, int], CompiledSystem] | None = None
        self._together: tuple[tuple[int, int], Together | None] | None = None

    @property
    def _stamp(self) -> tuple[int, int]:
        return len(self.variables), len(self.constraints)

    def together(self) -> Together | None:
        """The program as one of arrays, where it was declared by many scalars."""
        stamp = self._stamp
        if self._together is None or self._together[0] != stamp:
            found = None
            if sum(v.size for v in self.with_role("unknown")) >= as_arrays.UNKNOWNS:
                arrays = as_arrays.as_arrays(self.snapshot())
                found = None if arrays is None else Together(arrays, CompiledSystem(arrays.system))
            self._together = (stamp, found)
        return self._together[1]

    def compiled(self) -> CompiledSystem:
        """The program's structure and plans, made again after a new declaration only."""
        stamp = self._stamp
        if self._compiled is None or self._compiled[0] != stamp:
            compiled = CompiledSystem(self)
            _ = compiled.runs  # what cannot be solved is said at once
            self._compiled = (stamp, compiled)
        return self._compiled[1]

    def solve(
        self,
        values: Mapping[Any, Any] | None = None,
        /,
        *,
        start: Solution | Mapping[Any, Any] | None = None,
        newton: Newton | None = None,
        linear: LinearSolver | None = None,
        accuracy: float | None = None,
        on_failure: str = "raise",
        **named: Any,
    ) -> Solution:
        """Solve the constraints for the given parameters.

        Parameters
        ----------
        values, **named
            Parameters by name; those with a declared value may be left out.
        start : Solution or mapping, optional
            Where the unknowns start: an earlier solution, or values by name.
        newton : Newton, optional
            Tolerance and limits of the nonlinear solves.
        linear : DenseLU, SparseLU, GMRES or CG, optional
            The linear solver; chosen for each block by its size and pattern by default.
        accuracy : float, optional
            The relative error to which results must be certified: 1e-6, and 1e-3 for a program
            with float32 variables, by default.
        on_failure : {"raise", "warn"}
            What happens where a result cannot be certified.

        Returns
        -------
        Solution

        Raises
        ------
        StructureError
            The equations cannot determine the unknowns, whatever the numbers.
        NotConverged, SingularSystem, NotFinite
            A block has no solution nearby, no unique one, or one that is not finite.
        MissingValue, UnknownName, ShapeMismatch, InvalidValue, UnsupportedType
            What was given does not fit.

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> a = p.parameter("a")
        >>> z = p.unknown("z", start=1.0)
        >>> equation = p.subject_to(z * z == a)
        >>> float(p.solve(a=4.0)["z"])
        2.0
        """
        policy = Policy(self.accuracy() if accuracy is None else accuracy, on_failure)
        for what, given, kind in (("newton", newton, Newton), ("linear", linear, LinearSolver)):
            if given is not None and not isinstance(given, kind):
                raise UnsupportedType(
                    f"{what}={given!r}; expected an object such as lg.Newton() or lg.SparseLU()."
                )
        if values is not None and not isinstance(values, Mapping):
            raise UnsupportedType(f"solve({values!r}); expected a mapping of parameters, or names.")
        parameters = self.parameter_values({**(values or {}), **named})
        begin = self._start_values(start)
        together, stamp = self.together(), self._stamp

        def one_by_one(start: Mapping[Variable, Any]) -> SolvedSystem:
            if together is not None and self._stamp != stamp:
                compiled = together.scalars
            else:
                compiled = self.compiled()
            others = {v: v.start for v in compiled.system.with_role("unknown") if v not in start}
            method = newton or Newton()
            return solve(compiled, parameters, {**start, **others}, method, linear, policy)

        if together is None:
            return Solution(one_by_one(begin))
        method = newton or Newton()
        found = together.solve(parameters, begin, method, linear, policy, one_by_one)
        return Solution(found)

    def solve_many(
        self,
        values: Iterable[Mapping[Any, Any]] | Mapping[str, Any],
        /,
        *,
        threads: int | None = None,
        processes: int | None = None,
        warm: bool = False,
        accuracy: float | None = None,
        on_failure: str = "raise",
        **options: Any,
    ) -> list[Solution | LagradError]:
        """Solve the constraints for many values of the parameters.

        Parameters
        ----------
        values : iterable of mappings, or mapping
            The parameters of each case; or for each parameter its values, in a row.
        threads : int, optional
            How many cases to solve at once. NumPy and SuperLU let threads run side by side in
            long operations only: it pays for large blocks.
        processes : int, optional
            The same in child processes, where the system can fork. What they send back is
            linearised and certified again here, at the cost of one factorisation a case.
        warm : bool
            Whether each case starts from the solution of the one before, for a sweep in small
            steps; where that fails it is solved from the declared start.
        accuracy, on_failure, **options
            As of `solve`.

        Returns
        -------
        list
            A `Solution` for each case, in order; the error in the place of one that failed.

        Raises
        ------
        InvalidValue
            Options that exclude one another, or parameters with different numbers of cases.
        StructureError

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> z = p.unknown("z", start=1.0)
        >>> equation = p.subject_to(z * z == p.parameter("a"))
        >>> good, bad = p.solve_many({"a": [4.0, -4.0]})
        >>> float(good["z"]), type(bad).__name__
        (2.0, 'NotConverged')
        """
        policy = Policy(self.accuracy() if accuracy is None else accuracy, on_failure)
        together = self.together() if processes is None else None
        compiled = self.compiled() if together is None else together.compiled
        batch = Batch(self.solve, compiled, policy, options, values)
        return solve_all(batch, threads, processes, warm)

    def _start_values(self, start: Solution | Mapping[Any, Any] | None) -> dict[Variable, Any]:
        unknowns = {v.name: v for v in self.with_role("unknown")}
        if isinstance(start, Solution):
            given = {unknowns[n]: start[n] for n in start if n in unknowns}
        elif start is None or isinstance(start, Mapping):
            given = {self.variable_of(k, "unknown"): v for k, v in (start or {}).items()}
        else:
            raise UnsupportedType(
                f"start={start!r}; expected a Solution or a mapping. (A parameter of that name "
                "is given in a dict: solve({'start': …}).)"
            )
        fit = {v: fitted(f"the start of {v.name!r}", value, v) for v, value in given.items()}
        return {v: v.start for v in unknowns.values()} | fit

    def adjoint(self, output: Any) -> Program:
        """Return the program of the constraints and of the multipliers for one output.

        Its variables `λ_c` are the multiplier of each constraint `c` and the derivative by each
        parameter; being a program, it can be printed, solved and derived again.

        Parameters
        ----------
        output : str or variable
            A variable with one entry.

        Returns
        -------
        Program

        Raises
        ------
        UnknownName, StructureError

        Examples
        --------
        >>> import numpy as np, lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=0.0)
        >>> y = p.define("y", np.exp(x))
        >>> float(p.adjoint("y").solve()["λ_x"])
        1.0
        """
        variable = self.scalar(output)
        derived = derive.adjoint(self, variable.name).system
        system = copied(derived, derived.name)
        assert isinstance(system, Program)
        return system

    def source(self) -> str:
        """Return the program as runnable NumPy source.

        Returns
        -------
        str
            A module with a function `solve(*, …parameters…)` that returns a dict of all
            variables' values, both by the program's own names: a parameter whose name the
            module has another use for, as `np`, is given as `solve(**{"np": 0.1})`.

        Examples
        --------
        >>> import numpy as np, lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=2.0)
        >>> y = p.define("y", np.exp(x))
        >>> namespace = {}
        >>> exec(p.adjoint("y").source(), namespace)
        >>> float(namespace["solve"](x=0.0)["λ_x"])
        1.0
        """
        return source(self.compiled())

    def graph(self) -> nx.DiGraph:
        """Return which variable feeds which constraint, and which constraint which variable.

        Returns
        -------
        networkx.DiGraph
            Nodes are `("variable", name)` and `("constraint", name)`, with attributes `label`,
            `kind` ("parameter", "unknown", "defined", "definition" or "equation"), `shape` and,
            outside parameters, `block`, the number of its block in solving order.

        Raises
        ------
        StructureError

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> y = p.define("y", 2.0 * p.parameter("x", value=1.0))
        >>> sorted(p.graph().edges)[0]
        (('constraint', 'y'), ('variable', 'y'))
        """
        graph = nx.DiGraph(name=self.name)

        def add(what: str, thing: Variable | Constraint, kind: str, **more: Any) -> None:
            graph.add_node(
                (what, thing.name), label=thing.name, kind=kind, shape=thing.shape, **more
            )

        for variable in self.with_role("parameter"):
            add("variable", variable, variable.role)
        structure = self.compiled().structure
        for number, block in enumerate(structure.blocks):
            for v in block.variables:
                add("variable", v, v.role, block=number)
            for c in block.constraints:
                kind = "equation" if c.variable is None else "definition"
                add("constraint", c, kind, block=number)
                for v in structure.determines(c):
                    graph.add_edge(("constraint", c.name), ("variable", v.name))
        for c in self.constraints.values():
            leaf = lambda node: isinstance(node, Variable)
            for node in ancestors([c.root], leaf, {}):
                if isinstance(node, Variable):
                    graph.add_edge(("variable", node.name), ("constraint", c.name))
        return graph

    def __repr__(self) -> str:
        counts = f"{len(self.variables)} variables, {len(self.constraints)} constraints"
        return f"<Program {self.name!r}: {counts}>"

    def __str__(self) -> str:
        return text(self)

    def _repr_latex_(self) -> str:
        return latex(self)
