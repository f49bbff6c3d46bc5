"""Newton's method for one block, globalised.

The step length is chosen by Deuflhard's natural monotonicity test (Newton Methods for Nonlinear
Problems, 2004, §3.3): a step is taken where the *next* correction, computed with the same
factors, is shorter. The test does not change when equations are scaled or combined. Where every
correction is an iteration, a step that halves the residual is taken without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lagrad.errors import NotConverged, NotPositiveDefinite, SingularSystem
from lagrad.linear_solvers.base import ESTIMATE, Factors, Indefinite, LinearSolver, Singular
from lagrad.linear_solvers.jacobian import Jacobian, signed
from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.solving.error_bound import errors
from lagrad.solving.failures import REMEDY, NewtonStep, indefinite, singular, story
from lagrad.solving.iterations import Differences, Newton
from lagrad.solving.profile import Spent
from lagrad.solving.relative_length import Measure
from lagrad.systems.reduced_block import entry_name
from lagrad.typing import Array

# Where a Jacobian costs many times what a residual does, old factors are kept while each step
# gains this much, and refine what products with the true one show.
KEPT_GAIN = 0.8
# The relative residual of a Newton step that is an iteration itself.
INEXACT = 1e-2
# Further steps with the same factors are taken where each gains this much. They save a
# factorisation, and cost every later derivative some substitutions: factors from 1e-3 of the
# solution need five for a multiplier, from 1e-7 three.
CHORD = 1e-5
# Those of a start close by, a solution of other parameters say, are kept while they gain this.
CHORD_AT_START = 0.03
NEAR = 0.1


class BlockProblem:
    """A block with all that it is given: evaluated, put together and factored on a stopwatch."""

    def __init__(
        self, equations: BlockEquations, outer: list[Array], solver: LinearSolver | None
    ) -> None:
        self.equations, self.outer, self._given = equations, outer, solver
        self.scale = Measure(equations)
        self.factorisations = 0
        self.spent = Spent()

    @property
    def solver(self) -> LinearSolver:
        """The one that was asked for, or that fits the block."""
        return self._given or self.equations.solver

    def anew(self) -> BlockProblem:
        """The same, nothing done yet."""
        return BlockProblem(self.equations, self.outer, self._given)

    def at(self, point: Array) -> LocalEquations:
        """The equations near a point."""
        with self.spent.on("evaluating"):
            return LocalEquations(self.equations, self.outer, point)

    def jacobian(self, here: LocalEquations) -> Jacobian:
        with self.spent.on("assembling"):
            return here.jacobian(self.solver)

    def factor(self, jacobian: Jacobian, where: str, history: Sequence[NewtonStep] = ()) -> Factors:
        """Factors, or the error that names what depends on what."""
        self.factorisations += 1
        try:
            with self.spent.on("factorising"):
                return self.solver.factor(jacobian.matrix)
        except Indefinite:
            raise indefinite(self.equations, jacobian, where) from None
        except Singular:
            raise singular(self.equations, jacobian, where, history) from None
        except NotConverged as error:
            raise NotConverged(f"the block {self.equations.block.label}: {error}") from None


@dataclass(frozen=True, eq=False)
class Path:
    """Where a solve went.

    Attributes
    ----------
    here : LocalEquations
        The equations near the last point that was reached.
    factors : Factors or None
        Of a Jacobian near it; None where there were none.
    failure : error or None
        Why that point is no solution.
    stuck : bool
        Whether no step along the Newton direction helped.
    """

    problem: BlockProblem
    here: LocalEquations
    factors: Factors | None
    history: tuple[NewtonStep, ...] = ()
    failure: NotConverged | SingularSystem | None = None
    stuck: bool = False

    def story(self, what: str) -> str:
        return story(self.problem.equations, what, self.history)


def newton(problem: BlockProblem, start: Array, options: Newton) -> Path:
    """The way from a start to a solution, or to where there was no further step."""
    search, failure = NewtonSearch(problem, start, options), None
    with np.errstate(all="ignore"):
        try:
            search.run()
        except (NotConverged, SingularSystem) as error:
            failure = error
        here = problem.at(search.point)
    found = (search.factors, tuple(search.history), failure, search.stuck)
    return Path(problem, here, *found)


class NewtonSearch:
    """One run of Newton's method, as far as it has come."""

    factors: Any = None  # of the Jacobian at the last step, once there was one

    def __init__(self, problem: BlockProblem, start: Array, options: Newton) -> None:
        self.problem, self.equations = problem, problem.equations
        self.scale = problem.scale
        self.scale.see(start)
        self.point = start  # the last one that was reached
        self.history: list[NewtonStep] = []
        # No correction can be told from rounding below this.
        self.newton = replace(options, tol=max(options.tol, 50 * self.scale.epsilon))
        self.stuck = False  # where no step along the Newton direction helps

    def _correction(self, residual: Array, jacobian: Jacobian, tol: float = INEXACT) -> Array:
        try:
            with self.problem.spent.on("solving"):
                correction = -self.factors.solve(residual, tol=tol)
        except NotConverged as error:
            raise NotConverged(f"the block {self.equations.block.label}: {error}") from None
        except NotPositiveDefinite as error:
            raise NotPositiveDefinite(
                f"the block {self.equations.block.label}: {error}. {REMEDY}"
            ) from None
        if not np.isfinite(correction).all():
            raise singular(self.equations, jacobian, "at step", self.history)
        return correction.astype(self.equations.dtype, copy=False)

    def run(self) -> None:
        """Go to the point where Newton's method converges."""
        equations, newton, scale = self.equations, self.newton, self.scale
        damping, retreats = 1.0, 0
        here = before = self.problem.at(self.point)
        for _ in range(newton.max_steps):
            residual = here.residual
            if not np.isfinite(residual).all():
                raise self._not_finite(residual)
            jacobian = self.problem.jacobian(here)
            try:
                where = "at a step" if self.history else "at the start"
                self.factors = self.problem.factor(jacobian, where, self.history)
            except SingularSystem:
                # The last step landed where there is no next one: go back half of it.
                if not self.history or retreats == 20:
                    raise
                retreats += 1
                back = before.point + 0.5 * (here.point - before.point)
                here = self._move(self.problem.at(back.astype(equations.dtype)))
                continue
            correction = self._correction(residual, jacobian, self._forcing())
            last = self.history[-1].correction if self.history else np.inf
            if self.factors.iterative and self._reached(correction, here, jacobian, last):
                self.point = here.point + correction
                break
            if not self.history:
                # An unknown that starts at zero has no size of its own yet.
                first = scale.top
                scale.top = np.where(first > 0, first, scale.largest(correction))
            damping, trial, following = self._damped(
                correction, jacobian, here, min(1.0, 4 * damping)
            )
            if len(self.history) == 1:
                scale.top = first
            scale.see(trial.point)
            length = scale.length(correction)
            before, here = here, self._move(trial)
            if damping < 1.0 or following is None:
                continue
            exact = equations.linear and not self.factors.iterative
            if exact or self._reached(following, before, jacobian, length):
                self.point = here.point + following
                break
            converged, here = self._chord(following, jacobian, correction, here)
            if converged:
                break
        else:
            # Steps that shrink slowly towards a point, not those of a point that runs away.
            if self.history and self.history[-1].correction < 1e-4:
                self._require_quadratic()
            raise NotConverged(self._story(f"did not converge in {newton.max_steps} steps"))
        self._require_quadratic()

    def _story(self, what: str, correction: float | None = None) -> str:
        return story(self.equations, what, self.history, correction)

    def _forcing(self) -> float:
        """How well to solve for a correction that an iteration finds.

        As far as its square, which is what Newton's method itself leaves (Eisenstat and Walker,
        Choosing the Forcing Terms in an Inexact Newton Method, 1996).
        """
        last = self.history[-1].correction if self.history else 1.0
        return float(np.clip(last, 1e-6, INEXACT))

    def _move(self, there: LocalEquations) -> LocalEquations:
        self.point = there.point
        return there

    def _reached(
        self, following: Array, here: LocalEquations, jacobian: Jacobian, before: float = 0.0
    ) -> bool:
        """Whether a correction is within the tolerance, or no more than rounding.

        `before` is the length of the one before it.
        """
        scale, size = self.scale, np.abs(following)
        allowed = self.newton.tol * np.abs(self.point)
        if (size <= allowed).all():
            return True
        # Entries that are zero, or nearly, are known to rounding only. That is worth finding out
        # where the others have converged, or steps no longer gain.
        length = scale.length(following)
        if length > 1e-3 or self.newton.tol < length < KEPT_GAIN * before:
            return False
        terms = np.maximum(here.terms, jacobian.absolute_mv(np.abs(self.point)))
        doubt = scale.epsilon * terms
        noise = errors(self.factors, doubt, self.factors.solve(signed(doubt), tol=ESTIMATE))
        return bool((size <= np.maximum(allowed, 10 * noise)).all())

    def _chord(
        self, following: Array, jacobian: Jacobian, correction: Array, here: LocalEquations
    ) -> tuple[bool, LocalEquations]:
        """Take further steps with the same factors while each gains enough.

        A step costs a fortieth of a factorisation. Whether they converged, and the last place.
        """
        if self.equations.costly:
            return self._accelerated(following, jacobian, here)
        scale = self.scale
        before = scale.length(correction)
        near = len(self.history) == 1 and before < NEAR
        gain = CHORD_AT_START if near else CHORD
        for _ in range(10):
            length = scale.length(following)
            if length > gain * before:
                break
            trial = self.problem.at(here.point + following)
            if not np.isfinite(trial.residual).all():
                break
            before, here = length, self._move(trial)
            following = self._correction(here.residual, jacobian)
            if self._reached(following, here, jacobian, before):
                self.point = here.point + following
                return True, here
        return False, here

    def _accelerated(
        self, following: Array, jacobian: Jacobian, here: LocalEquations
    ) -> tuple[bool, LocalEquations]:
        """Steps with the same factors, combined as Anderson does, while they gain enough."""
        scale, past = self.scale, Differences(8)
        first = ahead = scale.length(following)
        before: tuple[Array, Array] | None = None
        for k in range(1, 40):
            image = here.point + following
            if before is not None:
                past.add(image - before[0], following - before[1])
            before = (image, following)
            trial = self.problem.at(past.combined(image, following))
            if not np.isfinite(trial.residual).all():
                break
            following = self._correction(trial.residual, jacobian)
            last, ahead = ahead, scale.length(following)
            if ahead > first * KEPT_GAIN**k:
                break
            here = self._move(trial)
            if k > 4 and first * 0.4**k < ahead < 1e-1 * first:
                # Near, and slowly: new factors are needed at the end, and now they take it there.
                break
            if self._reached(following, here, jacobian, last):
                self.point = here.point + following
                return True, here
        return False, here

    def _damped(
        self, correction: Array, jacobian: Jacobian, here: LocalEquations, damping: float
    ) -> tuple[float, LocalEquations, Array | None]:
        """The damping taken, where it leads, and the next correction with the same factors.

        There is no correction where each is an iteration, and the residual shows the gain.
        """
        scale, newton, point = self.scale, self.newton, self.point
        length = scale.length(correction)
        # A linear system has no reason to damp, and a correction of rounding's size no way to.
        short = self.equations.linear or length <= 8 * scale.epsilon or length == 0.0
        rounding: bool | None = True if short else None
        while damping >= newton.smallest_damping:
            there = (point + damping * correction).astype(point.dtype, copy=False)
            trial = self.problem.at(there)
            residual = trial.residual
            if np.isfinite(residual).all():
                if self.factors.iterative and np.linalg.norm(residual) < 0.5 * np.linalg.norm(
                    here.residual
                ):
                    self._note(length, trial, damping, correction, point)
                    return damping, trial, None
                # Where it is an iteration, a digit tells whether the step helps.
                following = self._correction(residual, jacobian, ESTIMATE)
                ahead = scale.length(following)
                shorter = ahead <= (1 - damping / 4) * length
                if not shorter and rounding is None:
                    rounding = self._reached(correction, here, jacobian)
                if shorter or rounding:
                    self._note(length, trial, damping, correction, point)
                    return damping, trial, following
                # The parabola through the lengths at 0 and at the damping tried.
                bend = scale.length(following - (1 - damping) * correction)
                wanted = 0.5 * length * damping**2 / bend if bend else 0.5 * damping
                damping = min(max(wanted, 0.1 * damping), 0.5 * damping)
            else:
                damping *= 0.5
        self.stuck = True
        raise NotConverged(self._story("makes no progress along the Newton direction", length))

    def _note(
        self, length: float, trial: LocalEquations, damping: float, correction: Array, point: Array
    ) -> None:
        largest = float(np.abs(trial.residual).max(initial=0.0))
        relative = self.scale.length(correction, self.scale.largest(point))
        self.history.append(NewtonStep(length, largest, damping, relative))

    def _require_quadratic(self) -> None:
        """SingularSystem where the last full steps shrank by a constant factor.

        At a root of multiplicity m they shrink by 1 − 1/m: the Jacobian is singular there, and
        the multipliers grow without bound, whatever the condition number says on the way.
        """
        rounding = 1e3 * self.scale.epsilon
        steps = [s for s in self.history if s.damping == 1.0 and s.relative > rounding][-6:]
        lengths = [step.correction for step in steps]
        ratios = [b / a for a, b in itertools.pairwise(lengths) if a > 0.0]
        if len(ratios) >= 5 and min(ratios[-5:]) > 0.3 and not self.equations.linear:
            raise SingularSystem(
                self._story(
                    f"converges only linearly, each step {ratios[-1]:.2f} of the one before: "
                    "the solution is a multiple root, where the Jacobian is singular and "
                    "derivatives do not exist"
                )
            )

    def _not_finite(self, residual: Array) -> NotConverged:
        bad = int(np.flatnonzero(~np.isfinite(residual))[0])
        name = entry_name(self.equations.block.equations, bad)
        starts = ", ".join(v.name for v in self.equations.unknowns[:6])
        return NotConverged(
            f"the equation {name!r} is NaN or infinite at the start of {starts}; "
            "give another: unknown(…, start=…), or solve(start={…})."
        )
