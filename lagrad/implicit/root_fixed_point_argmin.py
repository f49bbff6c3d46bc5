"""The kinds of implicit functions: what each states, and how it is approached."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from lagrad.errors import (
    InvalidFunction,
    InvalidValue,
    LagradError,
    NotContractive,
    NotConverged,
    NotPositiveDefinite,
    ShapeMismatch,
    SingularSystem,
)
from lagrad.implicit.approach import ImplicitApproach
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.cholesky import Cholesky
from lagrad.linear_solvers.krylov import CG
from lagrad.linear_solvers.modified import Support
from lagrad.linear_solvers.neumann import NeumannFactors
from lagrad.linear_solvers.selection import MatrixFreeMinimum
from lagrad.programs.derived_programs import adjoint
from lagrad.programs.program import Program
from lagrad.solving.acceleration import with_momentum
from lagrad.solving.block_certification import Solved
from lagrad.solving.block_equations import FORMED, BlockEquations, LocalEquations, largest
from lagrad.solving.failure_messages import REMEDY
from lagrad.solving.independent_parts import independent_parts, part_by_part
from lagrad.solving.iterations import Anderson, Minimize, Picard, not_reached, without_contracting
from lagrad.solving.parametric_problem import NoDirection, Problem
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import joined
from lagrad.transforms.trace import Trace
from lagrad.typing import Array

# A fixed point that iteration finds is differentiated by iteration too, unless it is small.
FACTORED = 256
# A Hessian up to this size is put together to see its least curvature.
WHOLE = 1000
# Plain steps that show whether an iteration runs away.
PLAIN = 50
# Steps of a fixed point, relative to it, and how far Newton's method may lead from there.
ARRIVED, NEAR = 1e-8, 1e-2
# An objective that has fallen so far, relative to its first value, has no minimum.
UNBOUNDED = 1e20


def onward(
    problem: Problem, start: Array, tol: float, round_in_circles: bool = True
) -> Array | None:
    """Where an iteration leads that has not ended; None where it runs away.

    Steps of a map that brings no two points further apart never grow: momentum takes these to
    their end. Others may go round a fixed point, each part of a batch round its own.
    """
    step: Callable[[Array], Array] = lambda z: joined(problem(z))
    passed, lengths = [start], list[float]()
    with np.errstate(all="ignore"):
        for _ in range(2 * PLAIN):
            passed.append(step(passed[-1]))
            lengths.append(float(np.linalg.norm(passed[-1] - passed[-2])))
        later = lengths[PLAIN:]
        if all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(later)):
            found = with_momentum(step, passed[-1], tol)
            if found is not None:
                return found
        if not (round_in_circles and later[-1] <= 10 * lengths[0]):
            return None
        middle = np.mean(passed[PLAIN:], axis=0)
        found = None
        if not problem.inner and start.size > 1:
            parts = independent_parts(problem.outputs, problem.varied, definitions(problem.program))
            left = lambda z: step(z.astype(start.dtype)) - z
            found = parts and part_by_part(left, middle, parts)
        return (
            found if found is not None else without_contracting(step, [middle, start, passed[-1]])
        )


class FixedPoint(ImplicitApproach):
    """z with z = f(z)."""

    kind = "fixed_point"
    methods = (Picard, Anderson)
    named_methods = ("'anderson'", "'picard'")
    usual = "anderson"
    series_step = -1.0
    steps = True
    like_start = True

    @classmethod
    def named(cls, solver: str, tol: float | None) -> Any:
        kinds: dict[str, Any] = {"anderson": Anderson, "picard": Picard}
        return kinds[solver](tol=tol or 1e-10) if solver in kinds else None

    @classmethod
    def check(cls, inner: Trace, starts: Sequence[Array], name: str) -> None:
        if found := inner.arguments[0].tree.difference(inner.tree, f"the result of {name!r}"):
            raise ShapeMismatch(found + ": a step returns what it was given.")
        inner.require_like(f"the step {name!r}", inner.parameters, starts, inner.outputs)

    def approached(self, problem: Problem, point: Array) -> Array:
        if self.method is None:
            return point
        return self._stepped(self.method, problem, point)

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """By plain steps, which may end where accelerated ones do not."""
        if not isinstance(self.method, Anderson):
            return None
        problem, point = Problem(self, arguments, start), joined(start[: len(self.varied)])
        plain = Picard(self.method.tol)
        return self.all_values(problem, self._stepped(plain, problem, point))

    def beyond(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        if not self.automatic:
            return None
        problem, point = Problem(self, arguments, start), joined(start[: len(self.varied)])
        found = onward(problem, point, self.method.tol)
        return None if found is None else self.all_values(problem, found)

    def _stepped(self, method: Picard | Anderson, problem: Problem, point: Array) -> Array:
        """Where the iteration leads."""
        step = lambda z: joined(problem(z))
        found, history = method.run(step, point)
        if history[-1] <= method.tol:
            return np.asarray(found)
        # Approached, if slowly: where the system is small, Newton's method does the rest.
        near = point.size <= FACTORED and history[-1] < 1e-2 * history[0]
        if self.automatic and not (near and isinstance(method, Anderson)):
            other = onward(problem, point, method.tol, isinstance(method, Anderson))
            if other is not None:
                return other
        if near:
            return np.asarray(found)
        raise NotContractive(not_reached(history, type(method).__name__))

    def usual_solver(self, equations: BlockEquations) -> LinearSolver:
        if self.method is not None and equations.block.size > FACTORED:
            return Support()
        return super().usual_solver(equations)

    def strays(self, begin: LocalEquations, found: Solved) -> SingularSystem | None:
        if self.method is None or not self.method.tol < ARRIVED:
            return None
        size = largest(begin.point)
        arrived = largest(begin.residual) <= ARRIVED * size
        if not arrived or largest(found.point - begin.point) <= NEAR * size:
            return None
        return SingularSystem(
            f"the step of {self.name!r} has arrived at a fixed point from which Newton's method "
            "leads far away: there are others beside it. What does not depend on which of them "
            "was found has a derivative."
        )

    def moves_away(self, solved: Solved) -> NotContractive | None:
        if self.method is None or self.inner:
            return None
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
            return NotContractive(
                f"the step of {self.name!r} is no contraction at the fixed point that was "
                f"found: its Jacobian's spectral radius is {radius:.3g}, so that z ← step(z) moves "
                'away from it. If that point is meant, ask for solver="newton".'
            )
        return None


class Minimum(ImplicitApproach):
    """What is common to a minimum, stated by its objective or by its gradient."""

    no_unknown = (
        "its gradient by {name!r} does not depend on it; the objective is linear there, and has no "
        "minimum."
    )

    @classmethod
    def fitted(cls, linear: LinearSolver | None, iterative: bool) -> LinearSolver | None:
        # Its matrix is symmetric, and positive definite.
        linear = CG() if linear is None and iterative else linear
        return replace(linear, positive=True) if isinstance(linear, CG) else linear

    def usual_solver(self, equations: BlockEquations) -> LinearSolver:
        if self.inner:
            return super().usual_solver(equations)
        return Cholesky() if equations.block.size <= FORMED else MatrixFreeMinimum(1e-10)


class Stationary(Minimum):
    """z with g(z) = 0, g being the gradient of an objective."""

    kind = "gradient"
    like_start = True

    @classmethod
    def method_of(cls, solver: Any, tol: float | None) -> None:
        if ArgMin.method_of(solver, tol) is not None:
            raise InvalidValue("argmin(gradient=…) is solved by Newton's method; leave solver out.")

    @classmethod
    def check(cls, inner: Trace, starts: Sequence[Array], name: str) -> None:
        found, wanted = sum(v.size for v in inner.returned), sum(s.size for s in starts)
        if found != wanted:
            raise ShapeMismatch(
                f"the gradient {name!r} has shapes {[v.shape for v in inner.returned]}, {found} "
                f"numbers, for {wanted} unknowns; expected as many."
            )


class ArgMin(Minimum):
    """z where L(z) is least."""

    kind = "argmin"
    methods = (Minimize,)
    named_methods = ("a method of minimize",)
    minimises: ClassVar[bool] = True

    @classmethod
    def named(cls, solver: str, tol: float | None) -> Any:
        return Minimize(solver, tol)

    @classmethod
    def stated(cls, inner: Trace) -> tuple[Program, tuple[str, ...]]:
        derived = adjoint(inner.program, inner.outputs[0])
        assert isinstance(derived.system, Program)
        slopes = [derived.gradients[name] for name in inner.parameters]
        return derived.system, (*inner.outputs, *slopes)

    @classmethod
    def check(cls, inner: Trace, starts: Sequence[Array], name: str) -> None:
        shapes = [v.shape for v in inner.returned]
        if len(shapes) != 1 or inner.returned[0].size != 1:
            raise InvalidFunction(
                f"the objective {name!r} returned values of shapes {shapes}; "
                "expected one scalar: np.sum or np.mean makes one."
            )

    def approached(self, problem: Problem, point: Array) -> Array:
        # With damping no factorisation on the way shows whether a point is a minimum.
        if self.method is not None or self.damping or self.inner:
            return self._minimised(problem, point)
        return point

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        if self.method is not None:
            return None
        problem, point = Problem(self, arguments, start), joined(start[: len(self.varied)])
        return self.all_values(problem, self._minimised(problem, point))

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        problem, point = Problem(self, arguments, values), joined(values[: len(self.varied)])
        if point.size == 0:
            return
        product = lambda v: problem.product(point, np.ravel(v))
        products = LinearOperator((point.size, point.size), matvec=product, dtype=float)
        if point.size <= WHOLE:
            least = float(np.linalg.eigvalsh(problem.hessian(point))[0])
        else:
            least = float(eigsh(products, k=1, which="SA", tol=1e-3, return_eigenvectors=False)[0])
        # In a direction of no symmetry: by shifts, say, an objective may not change.
        size = float(np.abs(products @ np.random.default_rng(0).standard_normal(point.size)).max())
        if least < -1e-8 * size:
            raise NotPositiveDefinite(
                f"the argmin of {self.name!r} ended where the least curvature is "
                f"{least:.3e}: no minimum. {REMEDY}"
            )

    def _minimised(self, problem: Problem, point: Array) -> Array:
        """Where SciPy's minimize ends."""
        # A trust region is for Hessians that need not be positive definite.
        method = self.method or Minimize("trust-exact" if point.size <= 200 else "trust-ncg")
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

        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = method.run(objective, point, problem.hessian, problem.product)
        except NoDirection:
            # SciPy's trust-krylov does so now and then where the gradient is as good as zero.
            return best[0][1]
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            if isinstance(error, LagradError):
                raise
            if best and best[0][0] < first[0]:
                # SciPy's line searches and trust regions break off once a step gains no more
                # than rounding. Newton's method tells what stands there.
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


def spectral_radius(jacobian: Any, otherwise: float) -> float:
    """That of a step whose Jacobian, less one, is given; `otherwise` where it is not found."""
    size = jacobian.shape[0]
    step = LinearOperator((size, size), matvec=lambda v: jacobian.matvec(v) + v, dtype=float)
    try:
        found = eigs(step, k=1, which="LM", tol=1e-4, maxiter=30, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return float(np.abs(found).max(initial=0.0)) or otherwise
