"""How the solution of an implicit function is approached, before Newton's method certifies it.

An approach is data: which program gives the step, the residual or the gradient, and by which
method it is iterated. It runs where the block of its unknowns is about to be solved.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.optimize
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from lagrad.compiler.plan import Plan
from lagrad.errors import (
    InvalidFunction,
    LagradError,
    NotContractive,
    NotConverged,
    NotPositiveDefinite,
)
from lagrad.expressions.expression import Equation, Expression, Variable
from lagrad.implicit.warm_start import WarmStart
from lagrad.linear_solvers.base import DenseLU, LinearSolver
from lagrad.linear_solvers.cholesky import Cholesky
from lagrad.linear_solvers.modified import Damped, Support
from lagrad.linear_solvers.neumann import Neumann, NeumannFactors
from lagrad.linear_solvers.selection import MatrixFreeMinimum
from lagrad.programs.program import Program
from lagrad.solving.block_equations import FORMED, BlockEquations
from lagrad.solving.certificate import Policy
from lagrad.solving.failures import REMEDY
from lagrad.solving.iterations import Anderson, Minimize, Picard, takes, untold
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_block import Solved
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.linearization import joined, split
from lagrad.systems.rewriting import inlined
from lagrad.systems.system import Group, System, definitions, fitted
from lagrad.trees import flatten
from lagrad.typing import Array

# A fixed point that iteration finds is differentiated by iteration too, unless it is small.
FACTORED = 256


class NoDirection(NotConverged):
    """A method asked for a product with a direction that is not finite."""


class Problem:
    """A program at given data, as functions of the vector of its parameters that vary."""

    def __init__(self, approach: Approach, arguments: Sequence[Array]) -> None:
        self.program = approach.program
        self.varied = [self.program.variables[n] for n in approach.varied]
        self.outputs = [self.program.variables[n] for n in approach.outputs]
        self.data = dict(zip(approach.data, arguments, strict=True))
        self.solution: SolvedSystem | None = None  # the last one of a program with unknowns

    @cached_property
    def plan(self) -> Plan | None:
        """All outputs at once, for a program without unknowns."""
        if self.program.with_role("unknown"):
            return None
        inputs = [*self.varied, *(self.program.variables[n] for n in self.data)]
        return Plan(inputs, self.outputs, definitions(self.program))

    def pieces(self, point: Array) -> list[Array]:
        return [
            p.astype(v.dtype, copy=False)
            for p, v in zip(split(point, self.varied), self.varied, strict=True)
        ]

    def at(self, point: Array) -> SolvedSystem:
        """The program solved, from its last solution."""
        given = dict(zip((v.name for v in self.varied), self.pieces(point), strict=True))
        # What is seen on the way need not be certified; the end is.
        anyhow = Policy(np.inf)
        values = {**given, **self.data}
        self.solution = solve_named(self.program.compiled(), values, self.solution, anyhow)
        return self.solution

    def product(self, point: Array, direction: Array) -> Array:
        """The Hessian's product with a direction, of an objective and its gradient."""
        if not np.isfinite(direction).all():
            raise NoDirection(f"a direction of {self.program.name!r} is not finite.")
        along = zip(self.varied, split(direction, self.varied), strict=True)
        found = self.at(point).tangent({v: fitted("a direction", d, v) for v, d in along})
        return joined([found[v.name] for v in self.outputs[1:]])

    def hessian(self, point: Array) -> Array:
        """All of it, by one sweep."""
        slopes = self.outputs[1:]
        found = self.at(point).jacobian(slopes, self.varied)
        blocks = [
            [np.reshape(found[g.name][v.name], (g.size, v.size)) for v in self.varied]
            for g in slopes
        ]
        return np.block(blocks)

    def __call__(self, point: Array) -> list[Array]:
        """The outputs' values at a point."""
        plan = self.plan
        if plan is None:
            found = self.at(point)
            return [found[v.name] for v in self.outputs]
        return plan([*self.pieces(point), *self.data.values()])


# An objective that has fallen so far, relative to its first value, has no minimum.
UNBOUNDED = 1e20


@dataclass(frozen=True)
class Approach:
    """A program that gives step, residual or gradient, and what is done with it.

    Attributes
    ----------
    kind : {"fixed_point", "root", "argmin", "gradient"}
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

    kind: str
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

    def begin(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array]:
        """Values of the unknowns from which Newton's method starts."""
        method, problem = self.method, Problem(self, arguments)
        if self.warm is not None:
            kept = [*flatten(self.warm.value)[0], *self.warm.inner]
            start = [
                np.asarray(k, dtype=s.dtype) for k, s in zip(kept, start, strict=False)
            ] + list(start[len(kept) :])
        point = joined(start[: len(self.varied)])
        if method is None and self.kind == "argmin" and (self.damping or self.inner):
            # No factorisation on the way shows whether a point is a minimum.
            method = self.trust_region(point)
        if isinstance(method, (Picard, Anderson)):
            point = self._iterated(problem, point)
        elif isinstance(method, Minimize):
            point = self.minimised(problem, point, method)
        return self._all(problem, point, start)

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where Newton's method alone does not arrive; None where there is none."""
        if self.kind != "argmin" or self.method is not None:
            return None
        problem = Problem(self, arguments)
        point = joined(start[: len(self.varied)])
        return self._all(problem, self.minimised(problem, point, self.trust_region(point)), start)

    @staticmethod
    def trust_region(point: Array) -> Minimize:
        """A method for Hessians that need not be positive definite."""
        return Minimize("trust-exact" if point.size <= 200 else "trust-ncg")

    @property
    def minimises(self) -> bool:
        return self.kind == "argmin"

    @property
    def settles(self) -> bool:
        """Whether it ends at the solution itself, so that Newton's method has nothing to add."""
        iterated = isinstance(self.method, (Picard, Anderson))
        return iterated or (self.damping > 0 and self.kind == "argmin")

    def solver(self, equations: BlockEquations) -> LinearSolver:
        """The linear solver of the block that its unknowns form."""
        # With unknowns of an inner implicit function the system is another than the Hessian's.
        found = self._usual(equations) if self.linear is None or self.inner else self.linear
        return Damped(found, self.damping) if self.damping else found

    def _usual(self, equations: BlockEquations) -> LinearSolver:
        if isinstance(self.method, (Picard, Anderson)) and equations.block.size > FACTORED:
            return Support()
        if self.kind in ("argmin", "gradient") and not self.inner:
            if equations.block.size <= FORMED:
                return Cholesky()
            return MatrixFreeMinimum(1e-10)
        return DenseLU() if equations.block.size <= FORMED else equations.solver

    def require_contraction(self, solved: Solved) -> None:
        """NotContractive at a fixed point that the plain iteration moves away from."""
        if not isinstance(self.method, (Picard, Anderson)) or self.inner:
            return
        jacobian, radius = solved.jacobian, 0.0
        if isinstance(solved.factors, NeumannFactors):
            radius = solved.factors.growth()
        elif jacobian.known and jacobian.size <= FACTORED:
            step = jacobian.dense() + np.eye(jacobian.size)
            radius = float(np.abs(np.linalg.eigvals(step)).max())
        if radius > 1.0 and not jacobian.known:
            # The series may grow before it shrinks.
            radius = spectral_radius(jacobian.matrix, radius)
        if radius > 1.0 + 1e-9:
            raise NotContractive(
                f"the step of {self.name!r} is no contraction at the fixed point that was "
                f"found: its Jacobian's spectral radius is {radius:.3g}, so that z ← step(z) moves "
                'away from it. If that point is meant, ask for solver="newton".'
            )

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        """NotPositiveDefinite where the objective curves down at what should be its minimum."""
        problem = Problem(self, arguments)
        point = joined(values[: len(self.varied)])
        products = LinearOperator(
            (point.size, point.size),
            matvec=lambda v: problem.product(point, np.ravel(v)),
            dtype=float,
        )
        if point.size <= FACTORED:
            least = float(np.linalg.eigvalsh(products @ np.eye(point.size))[0])
        else:
            least = float(eigsh(products, k=1, which="SA", tol=1e-3, return_eigenvectors=False)[0])
        size = float(np.abs(products @ np.ones(point.size)).max())
        if least < -1e-8 * size:
            raise NotPositiveDefinite(
                f"the argmin of {self.name!r} ended where the least curvature is "
                f"{least:.3e}: no minimum. {REMEDY}"
            )

    def _all(self, problem: Problem, point: Array, start: Sequence[Array]) -> list[Array]:
        pieces = problem.pieces(point)
        if not self.inner:
            return pieces
        solution = problem.at(point)
        return [*pieces, *(np.asarray(solution[name]) for name in self.inner)]

    def _iterated(self, problem: Problem, point: Array) -> Array:
        def step(z: Array) -> Array:
            return joined(problem(z))

        found, history = self.method.run(step, point)
        if history and history[-1] <= self.method.tol:
            return found
        # Approached, if slowly: where the system is small, Newton's method does the rest.
        near = point.size <= FACTORED and history[-1] < 1e-2 * history[0]
        if not near:
            raise NotContractive(untold(history, type(self.method).__name__))
        return found

    def minimised(self, problem: Problem, point: Array, method: Minimize) -> Array:
        """Where SciPy's minimize ends."""

        best: list[tuple[float, Array]] = []
        first: list[float] = []

        def objective(z: Array) -> tuple[float, Array]:
            value, *gradient = problem(z)
            found = float(np.asarray(value))
            if best and found < -UNBOUNDED * max(1.0, abs(first[0])):
                raise NotConverged(
                    f"{method.method} of {self.name!r} reached {found:.3g}: the objective is "
                    "unbounded below."
                )
            first.append(found)
            if not best or found <= best[0][0]:
                best[:] = [(found, z.copy())]
            return found, joined(gradient).astype(float)

        def hessian(z: Array) -> Array:
            return problem.hessian(z)

        name, needs = method.method.lower(), takes(method.method)
        options: dict[str, Any] = {"maxiter": method.max_steps}
        if name == "l-bfgs-b":
            options |= {"ftol": 1e-15, "gtol": 1e-10, "maxfun": 20 * method.max_steps}
        elif method.tol is None and needs.gradient:
            options["xtol" if name == "newton-cg" else "gtol"] = 1e-10
        if name.startswith("trust-") and name != "trust-constr":
            # As far as it goes: where there is no minimum, that is soon seen.
            options["max_trust_radius"] = 1e12
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = self._minimised(
                    objective, problem.product, hessian, point, method, options
                )
        except NoDirection:
            # SciPy's trust-krylov does so now and then where the gradient is as good as zero.
            return best[0][1]
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            if isinstance(error, LagradError):
                raise
            if best and best[0][0] < first[0]:
                # Where rounding alone is left to be gained, SciPy's steps end so. What stands
                # there, Newton's method tells.
                return best[0][1]
            raise NotConverged(
                f"{method.method} of {self.name!r} broke off: {error}. The objective may "
                "be unbounded below, or not finite near the start."
            ) from error
        if not np.isfinite(result.x).all():
            raise NotConverged(
                f"{method.method} left the finite numbers: {result.message} Start elsewhere, or "
                "bound the objective from below."
            )
        return np.asarray(result.x)

    @staticmethod
    def _minimised(
        objective: Any, product: Any, hessian: Any, point: Array, method: Minimize, options: Any
    ) -> Any:
        needs = takes(method.method)
        return scipy.optimize.minimize(
            objective if needs.gradient else lambda z: objective(z)[0],
            point.astype(float),
            jac=needs.gradient or None,
            hess=hessian if needs.hessian else None,
            hessp=product if needs.product else None,
            method=method.method,
            tol=method.tol,
            options=options,
        )

    @cached_property
    def block(self) -> tuple[Program, tuple[str, ...]]:
        """The equations as a program of their own, its data given; the unknowns' names."""
        system = Program(self.name)
        given: list[Expression] = []
        for name in self.data:
            v = self.program.variables[name]
            given.append(system.leaf(name, "data", v.shape, v.dtype, None))
        starts = [
            np.broadcast_to(0.0, self.program.variables[n].shape)
            for n in (*self.varied, *self.inner)
        ]
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
        program = self.program
        unknowns = [
            into.unknown(
                into.free(name), program.variables[name].shape, start, program.variables[name].dtype
            )
            for name, start in zip(self.varied, starts, strict=False)
        ]
        given = dict(zip(self.data, arguments, strict=True)) | dict(
            zip(self.varied, unknowns, strict=True)
        )
        inner = dict(zip(self.inner, starts[len(self.varied) :], strict=True))
        found = inlined(program, into, given, inner)
        outputs = [found[name] for name in self.outputs]
        if self.kind == "argmin":
            outputs = outputs[1:]  # the objective itself is before its gradient
        for k, output in enumerate(outputs):
            left: Any = unknowns[k] if self.kind == "fixed_point" else into.arena.constant(0.0)
            name = unknowns[k].name if k < len(unknowns) else into.free(f"residual_{k}")
            if output.unknown is None and self.kind != "fixed_point":
                raise InvalidFunction(
                    f"{self.kind} of {self.name!r}: "
                    + (
                        f"its gradient by {unknowns[k].name!r} does not depend on it; the "
                        "objective is linear there, and has no minimum."
                        if self.kind in ("argmin", "gradient")
                        else f"the part {k} of its residual depends on no unknown."
                    )
                )
            into.subject_to(Equation(left, output), name=name)
        everyone = (*unknowns, *(found[name] for name in self.inner))
        variables = tuple(v for v in everyone if isinstance(v, Variable))
        begin = (*nodes, *(None for _ in variables[len(nodes) :]))
        into.groups.append(Group(variables, tuple(arguments), self, begin))
        return variables

    def finish(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array]:
        """The values of the unknowns at the solution, certified."""
        system, names = self.block
        values = dict(zip(self.data, arguments, strict=True))
        start_of = dict(zip(names, start, strict=True))
        solution = solve_named(system.compiled(), values, start_of)
        return [np.asarray(solution[name]) for name in names]


def spectral_radius(jacobian: Any, otherwise: float) -> float:
    """That of a step whose Jacobian, less one, is given; `otherwise` where it is not found."""
    size = jacobian.shape[0]
    step = LinearOperator((size, size), matvec=lambda v: jacobian.matvec(v) + v, dtype=float)
    try:
        found = eigs(step, k=1, which="LM", tol=1e-4, maxiter=30, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return float(np.abs(found).max(initial=0.0)) or otherwise
