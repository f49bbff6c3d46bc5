"""How the solution of an implicit function is approached, before Newton's method certifies it.

An approach is data: which program gives the step, the residual or the gradient, and by which
method it is iterated. It runs where the block of its unknowns is about to be solved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lagrad.errors import (
    InvalidFunction,
    InvalidValue,
    LagradError,
    NotContractive,
    UnsupportedType,
)
from lagrad.expressions.expression import Equation, Expression, Variable
from lagrad.implicit.warm_start import WarmStart
from lagrad.linear_solvers.base import DenseLU, LinearSolver
from lagrad.linear_solvers.krylov import CG, GMRES, Krylov
from lagrad.linear_solvers.modified import Centered, Damped
from lagrad.linear_solvers.neumann import Neumann
from lagrad.programs.program import Program
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import FORMED, BlockEquations, LocalEquations, largest
from lagrad.solving.certificate import Policy
from lagrad.solving.compiled_system import CompiledSystem
from lagrad.solving.failure_messages import Failure
from lagrad.solving.parametric_problem import Problem
from lagrad.solving.redundant_equations import Redundancy
from lagrad.solving.solve import solve_named
from lagrad.systems.constraint import ImplicitGroup
from lagrad.systems.linearization import Nodes, joined
from lagrad.systems.rewriting import inlined
from lagrad.systems.system import System
from lagrad.transforms.trace import Trace
from lagrad.typing import Array

# Solutions of an inner implicit function that differ by less are one.
SAME = 1e-4


@dataclass(frozen=True)
class ImplicitApproach:
    """A program that gives step, residual or gradient, and what is done with it.

    Its subclasses are the kinds of implicit functions.

    Attributes
    ----------
    name : str
        Of the function, for messages.
    program : Program
    varied, data, outputs : tuples of str
        Its parameters that are solved for, those that are given, and what it returns: for an
        argmin the objective, then its gradient.
    inner : tuple of str
        Its own unknowns, which follow the varied ones.
    method : object or None
        None is Newton's method alone.
    linear : LinearSolver or None
        None is the one that fits its size.
    damping : float
        What is added to the Jacobian's diagonal wherever it is solved with.
    differentiate : Neumann or None
        A series in the place of the multipliers' equation.
    warm : WarmStart or None
        Where the last solution is kept.
    tol : float or None
        The relative error at which Newton's method ends.
    """

    kind: ClassVar[str]
    # Methods beside Newton's: their types, how messages name them, and what goes unless asked.
    methods: ClassVar[tuple[type, ...]] = ()
    named_methods: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[str] = "newton"
    # The steps of a series for its systems.
    series_step: ClassVar[float | None] = None
    # Whether its first output is an objective, and whether its outputs are the unknowns themselves.
    minimises: ClassVar[bool] = False
    steps: ClassVar[bool] = False
    # Whether the function returns what it is given, in the same structure.
    like_start: ClassVar[bool] = False
    no_unknown: ClassVar[str] = "the part {k} of its residual depends on no unknown."

    name: str
    program: Program
    varied: tuple[str, ...]
    data: tuple[str, ...]
    outputs: tuple[str, ...]
    inner: tuple[str, ...]
    method: Any
    linear: LinearSolver | None = None
    damping: float = 0.0
    differentiate: Neumann | None = None
    warm: WarmStart | None = None
    tol: float | None = None
    automatic: bool = False  # whether nobody chose the method

    @classmethod
    def options(
        cls, solver: Any, linear: Any, preconditioner: Any, damping: Any, tol: Any, products: str
    ) -> dict[str, Any]:
        """The fields that the caller of an implicit function decides, checked."""
        if not isinstance(damping, (int, float, np.number)) or not 0 <= float(damping) < np.inf:
            raise InvalidValue(f"damping={damping!r}; expected a number of zero or more.")
        if tol is not None and not (isinstance(tol, (int, float)) and 0 < tol < 1):
            raise InvalidValue(f"tol={tol!r}; expected a number between zero and one.")
        if linear is not None and not isinstance(linear, LinearSolver):
            raise UnsupportedType(f"linear={linear!r}; expected a solver such as lg.CG().")
        linear = cls.fitted(linear, solver == "newton-krylov" or preconditioner is not None)
        if preconditioner is not None and not isinstance(linear, Krylov):
            raise InvalidValue(f"preconditioner=… goes with CG, MINRES or GMRES, not {linear!r}.")
        if preconditioner is not None:
            linear = replace(linear, preconditioner=preconditioner)
        if products == "centered":
            base = linear or CG(tol=1e-8, positive=True)
            if not isinstance(base, Krylov):
                raise InvalidValue(f"products='centered' needs CG or MINRES, not linear={base!r}.")
            linear = Centered(base)
        method = cls.method_of(cls.usual if solver is None else solver, tol)
        how = {"method": method, "linear": linear, "damping": float(damping), "tol": tol}
        return {**how, "automatic": solver is None}

    @classmethod
    def fitted(cls, linear: LinearSolver | None, iterative: bool) -> LinearSolver | None:
        """The linear solver that was asked for, for its matrix; None for the one of its size."""
        return GMRES() if linear is None and iterative else linear

    @classmethod
    def series_of(cls, differentiate: Any) -> Neumann | None:
        """The series in the place of the multipliers' equation; None for the equation itself."""
        if isinstance(differentiate, str) and differentiate == "implicit":
            return None
        if not isinstance(differentiate, Neumann):
            raise InvalidValue(
                f"differentiate={differentiate!r}; expected 'implicit', lg.Neumann(terms=…) "
                "or lg.Unrolled(steps)."
            )
        step = cls.series_step if differentiate.step is None else differentiate.step
        return replace(differentiate, step=step)

    @classmethod
    def method_of(cls, solver: Any, tol: float | None) -> Any:
        """The iteration that a solver's name stands for; None for Newton's method alone."""
        if isinstance(solver, str) and solver in ("newton", "newton-krylov"):
            return None
        found = cls.named(solver, tol) if isinstance(solver, str) else solver
        if isinstance(found, cls.methods):
            return found
        names = ", ".join(["'newton'", "'newton-krylov'", *cls.named_methods])
        expected = " or ".join([names, *(f"lg.{method.__name__}(…)" for method in cls.methods)])
        raise UnsupportedType(f"{cls.kind}(solver={solver!r}); expected {expected}.")

    @classmethod
    def named(cls, solver: str, tol: float | None) -> Any:
        """The method of this name, if there is one."""
        return None

    @classmethod
    def of(cls, inner: Trace, how: Mapping[str, Any]) -> "ImplicitApproach":
        """The approach of an implicit function, from the trace of what it is given."""
        program, outputs = cls.stated(inner)
        data = tuple(v.name for v in program.with_role("data"))
        unknowns = tuple(v.name for v in program.with_role("unknown"))
        name, varied = inner.program.name, tuple(inner.parameters)
        return cls(name, program, varied, data, outputs, unknowns, **how)

    @classmethod
    def stated(cls, inner: Trace) -> tuple[Program, tuple[str, ...]]:
        """The program that is solved, and what it returns."""
        return inner.program, inner.outputs

    @property
    def unknowns(self) -> tuple[str, ...]:
        return (*self.varied, *self.inner)

    def compiled(self) -> CompiledSystem:
        """Its program's structure and plans."""
        return self.program.compiled()

    @property
    def redundancy(self) -> Redundancy | None:
        """Of equations that are more than the unknowns, the last of which is for what is off."""
        return None

    def by_name(self, values: Sequence[Any], data: Sequence[Any]) -> dict[str, Any]:
        """What its unknowns and its data are, by name."""
        return dict(zip((*self.unknowns, *self.data), (*values, *data), strict=True))

    @classmethod
    def check(cls, inner: Trace, starts: Sequence[Array], name: str) -> None:
        """ShapeMismatch where a function returns too few numbers for its unknowns, or too many."""

    def begin(
        self, arguments: Sequence[Array], start: Sequence[Array], afresh: bool = False
    ) -> list[Array]:
        """Values of the unknowns from which Newton's method starts.

        On the way an inner implicit function goes on from its last solution, or, with `afresh`,
        from its own start each time.
        """
        if self.warm is not None:
            start = self.warm.starts(start)
        problem = Problem(self, arguments, start, afresh)
        return self.all_values(problem, self.approached(problem, joined(start[: len(self.varied)])))

    def keeps_branches(
        self, arguments: Sequence[Array], start: Sequence[Array], values: Sequence[Array]
    ) -> bool:
        """Whether inner implicit functions have the values that they find from their own starts.

        Beside the outer unknowns, Newton's method may take them to another of their solutions.
        """
        if not self.inner:
            return True
        count = len(self.varied)
        if self.warm is not None:
            start = self.warm.starts(start)
        try:
            own = Problem(self, arguments, start).at(joined(values[:count]))
        except LagradError:
            return False
        pairs = zip(self.inner, values[count:], strict=True)
        return all(largest(own[n] - v) <= SAME * max(largest(v), 1e-300) for n, v in pairs)

    def approached(self, problem: Problem, point: Array) -> Array:
        """Where the method leads."""
        return point

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where Newton's method alone does not arrive; None where there is none."""
        return None

    def beyond(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where an iteration approaches nothing; None where there is none."""
        return None

    @property
    def settles(self) -> bool:
        """Whether it ends at the solution itself, so that Newton's method has nothing to add."""
        return self.damping > 0 if self.minimises else self.steps and self.method is not None

    def solver(self, equations: BlockEquations) -> LinearSolver:
        """The linear solver of the block that its unknowns form."""
        # With unknowns of an inner implicit function the system is another than its own.
        found = self.linear
        if found is None or self.inner:
            found = self.usual_solver(equations)
        return Damped(found, self.damping) if self.damping else found

    def usual_solver(self, equations: BlockEquations) -> LinearSolver:
        return DenseLU() if equations.block.size <= FORMED else equations.solver

    def mixed(self, into: System, outputs: Nodes) -> tuple[Nodes, tuple[Variable, ...]]:
        """What is equated to zero or to the unknowns, and unknowns that are in it beside them."""
        return outputs, ()

    def strays(self, begin: LocalEquations, found: Solved) -> Failure | None:
        """The error where Newton's method has left what the approach had arrived at."""
        return None

    def moves_away(self, solved: Solved) -> NotContractive | None:
        """The error at a fixed point that the plain iteration moves away from."""
        return None

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        """NotPositiveDefinite where the objective curves down at what should be its minimum."""

    def all_values(self, problem: Problem, point: Array) -> list[Array]:
        """The values of all unknowns, those of inner functions too."""
        pieces = problem.pieces(point)
        if self.inner:
            solution = problem.at(point)
            pieces += [np.asarray(solution[name]) for name in self.inner]
        return pieces

    @cached_property
    def block(self) -> tuple[Program, tuple[str, ...]]:
        """The equations as a program of their own, its data given; the unknowns' names."""
        system, variables = Program(self.name), self.program.variables
        data = [variables[name] for name in self.data]
        given = [system.leaf(v.name, "data", v.shape, v.dtype, None) for v in data]
        starts = [np.broadcast_to(0.0, variables[name].shape) for name in self.unknowns]
        unknowns = self.state(system, given, starts)
        return system, tuple(v.name for v in unknowns)

    def state(
        self,
        into: System,
        arguments: Sequence[Expression],
        starts: Sequence[Array],
        nodes: Sequence[Expression | None] = (),
    ) -> tuple[Variable, ...]:
        """Declare the unknowns and their equations in a system; the unknowns.

        They start at `starts`, or at values of the system that are in `nodes`.
        """
        unknowns = []
        for name, start in zip(self.varied, starts, strict=False):
            v = self.program.variables[name]
            unknowns.append(into.unknown(into.free(name), v.shape, start, v.dtype))
        given = dict(zip((*self.data, *self.varied), (*arguments, *unknowns), strict=True))
        inner = dict(zip(self.inner, starts[len(self.varied) :], strict=True))
        found = inlined(self.program, into, given, inner)
        # An objective itself is before its gradient.
        outputs = [found[n] for n in (self.outputs[1:] if self.minimises else self.outputs)]
        sides, further = self.mixed(into, outputs)
        for k, (output, right) in enumerate(zip(outputs, sides, strict=True)):
            name = unknowns[k].name if k < len(unknowns) else into.free(f"residual_{k}")
            # A part without entries, as of a gradient by an empty array, may be constant.
            empty = output.size == 0 and k < len(unknowns) and unknowns[k].size == 0
            if output.unknown is None and not (self.steps or empty):
                said = self.no_unknown.format(name=name, k=k)
                raise InvalidFunction(f"{self.kind} of {self.name!r}: {said}")
            left = unknowns[k] if self.steps or empty else into.arena.constant(0.0)
            into.subject_to(Equation(left, right), name=name)
        everyone = (*unknowns, *(found[name] for name in self.inner), *further)
        solved = tuple(v for v in everyone if isinstance(v, Variable))
        begin = (*nodes, *(None for _ in solved[len(nodes) :]))
        into.groups.append(ImplicitGroup(solved, tuple(arguments), self, begin))
        return solved

    def finish(
        self, arguments: Sequence[Array], start: Sequence[Array], policy: Policy | None = None
    ) -> list[Array]:
        """The values of the unknowns at the solution, certified as is asked for."""
        system, names = self.block
        given = dict(zip(self.data, arguments, strict=True))
        starts = dict(zip(names, start, strict=True))
        solution = solve_named(system.compiled(), given, starts, policy)
        return [np.asarray(solution[name]) for name in names]
