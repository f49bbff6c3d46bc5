"""Newton's method for one block, globalised.

The step length is chosen by Deuflhard's natural monotonicity test (Newton Methods for Nonlinear
Problems, 2004, §3.3): a step is taken where the *next* correction, computed with the same
factors, is shorter. The test does not change when equations are scaled or combined. Where every
correction is an iteration, a step that halves the residual is taken without it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import NotConverged, NotPositiveDefinite, SingularSystem
from lagrad.linear_solvers.base import ESTIMATE
from lagrad.linear_solvers.jacobian import Jacobian, signed
from lagrad.solving.acceleration import Differences
from lagrad.solving.block_equations import LocalEquations, largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.error_bound import errors
from lagrad.solving.failure_messages import Failure, NewtonStep, named
from lagrad.solving.iterations import Newton
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
# Steps that may halve an unknown, from any number to the least that there is.
FALLING = 1200
# How many times rounding of the equations residuals are that tell nothing.
ROUNDED = 1e3


def newton(problem: BlockProblem, start: Array, options: Newton) -> "NewtonSearch":
    """The way from a start to a solution, or to where there was no further step."""
    with np.errstate(all="ignore"):
        search = NewtonSearch(problem, start, options)
        try:
            search.run()
        except (NotConverged, SingularSystem) as error:
            search.failure = error
    return search


class NewtonSearch:
    """One run of Newton's method, as far as it has come.

    Attributes
    ----------
    here : LocalEquations
        The equations near the last point that was reached.
    jacobian, factors : Jacobian, Factors
        Those of the last step, once there was one.
    failure : error or None
        Why that point is no solution.
    lost : bool
        Whether it ended where no step along its direction helped, or where there was none.
    """

    jacobian: Jacobian
    factors: Any = None
    failure: Failure | None = None
    lost = False

    def __init__(self, problem: BlockProblem, start: Array, options: Newton) -> None:
        self.problem, self.equations = problem, problem.equations
        self.scale, self.history = problem.scale, problem.history
        self.scale.see(start)
        self.here = problem.start = problem.at(start)
        # No correction can be told from rounding below this.
        self.newton = replace(options, tol=max(options.tol, 50 * self.scale.epsilon))

    def _correction(self, residual: Array, tol: float = INEXACT) -> Array:
        try:
            with self.problem.spent.on("solving"):
                correction = -self.factors.solve(residual, tol=tol)
        except (NotConverged, NotPositiveDefinite) as error:
            raise named(self.equations, error) from None
        if not np.isfinite(correction).all():
            self.lost = True
            raise self.problem.singular(self.jacobian, "at a step")
        return correction.astype(self.equations.dtype, copy=False)

    def run(self) -> None:
        """Go to the point where Newton's method converges."""
        problem, scale, history = self.problem, self.scale, self.history
        damping, retreats, before = 1.0, 0, self.here
        for _ in self._steps():
            here = self.here
            if not np.isfinite(here.residual).all():
                raise self._not_finite()
            self.jacobian = problem.jacobian(here)
            try:
                self.factors = problem.factor(
                    self.jacobian, "at a step" if history else "at the start"
                )
            except SingularSystem:
                # The last step landed where there is no next one: go back half of it.
                if not history or retreats == 20:
                    self.lost = True
                    raise
                retreats += 1
                back = before.point + 0.5 * (here.point - before.point)
                self.here = problem.at(back.astype(self.equations.dtype))
                continue
            correction = self._correction(here.residual, self._forcing())
            last = history[-1].correction if history else np.inf
            if self.factors.iterative and self._reached(correction, here, last):
                self._end(correction)
                break
            if not history:
                # An unknown that starts at zero has no size of its own yet.
                first = scale.top
                scale.top = np.where(first > 0, first, scale.largest(correction))
            damping, trial, following = self._damped(correction, min(1.0, 4 * damping))
            if not damping:
                break
            if len(history) == 1:
                scale.top = first
            scale.see(trial.point)
            length = scale.length(correction)
            before, self.here = here, trial
            if damping < 1.0 or following is None:
                continue
            exact = self.equations.linear and not self.factors.iterative
            if exact or self._reached(following, before, length):
                self._end(following)
                break
            if self.equations.costly and self._accelerated(following):
                break
            if not self.equations.costly and self._chord(following, length):
                break
        else:
            # Steps that shrink slowly towards a point, not those of a point that runs away.
            if history and history[-1].correction < 1e-4:
                require_quadratic(problem, self.here, ended=False)
            steps = self.newton.max_steps
            self.lost = steps >= Newton().max_steps  # nobody asked for fewer
            raise NotConverged(problem.story(f"did not converge in {steps} steps"))
        require_quadratic(problem, self.here)

    def _steps(self) -> Iterator[int]:
        """As many as were asked for, and more while each halves x, far from x² = 1e-80."""
        asked = self.newton.max_steps
        yield from range(asked)
        for k in range(asked, FALLING if asked >= Newton().max_steps else 0):
            last = self.history[-6:]
            full = all(step.damping == 1.0 and step.each <= 1.0 for step in last)
            less = all(b.correction < a.correction for a, b in itertools.pairwise(last))
            if not (full and less and max(step.each for step in last) > 0.1):
                return
            yield k

    def _end(self, correction: Array) -> None:
        """Take the last correction, which needs no other one."""
        self.here = self.problem.at(self.here.point + correction)

    def _forcing(self) -> float:
        """How well to solve for a correction that an iteration finds.

        As far as its square, which is what Newton's method itself leaves (Eisenstat and Walker,
        Choosing the Forcing Terms in an Inexact Newton Method, 1996).
        """
        last = self.history[-1].correction if self.history else 1.0
        return float(np.clip(last, 1e-6, INEXACT))

    def _reached(self, following: Array, there: LocalEquations, before: float = 0.0) -> bool:
        """Whether a correction is within the tolerance, or no more than rounding.

        The terms `there` tell how much that is. `before` is the length of the one before it.
        """
        if (np.abs(following) <= self.newton.tol * np.abs(self.here.point)).all():
            return True
        # Entries that are zero, or nearly, are known to rounding only. That is worth finding out
        # where the others have converged, or steps no longer gain.
        length = self.scale.length(following)
        if length > 1e-3 or self.newton.tol < length < KEPT_GAIN * before:
            return False
        return self._is_rounding(following, there)

    def _is_rounding(self, following: Array, there: LocalEquations) -> bool:
        """Whether a correction is no more than what rounding of the equations makes of it."""
        here = np.abs(self.here.point)
        doubt = self.scale.epsilon * np.maximum(there.terms, self.jacobian.absolute_mv(here))
        sample = self.factors.solve(signed(doubt), tol=ESTIMATE)
        noise = errors(self.factors, doubt, sample, self.scale.units)
        return bool((np.abs(following) <= np.maximum(self.newton.tol * here, 10 * noise)).all())

    def _chord(self, following: Array, before: float) -> bool:
        """Whether further steps with the same factors converge, taken while each gains enough.

        A step costs a fortieth of a factorisation. `before` is the length of the last correction.
        """
        near = len(self.history) == 1 and before < NEAR
        gain = CHORD_AT_START if near else CHORD
        for _ in range(10):
            length = self.scale.length(following)
            if length > gain * before:
                break
            trial = self.problem.at(self.here.point + following)
            if not np.isfinite(trial.residual).all():
                break
            before, self.here = length, trial
            following = self._correction(trial.residual)
            if self._reached(following, trial, before):
                self._end(following)
                return True
        return False

    def _accelerated(self, following: Array) -> bool:
        """The same with steps combined as Anderson does, while they gain enough."""
        scale, past = self.scale, Differences(8)
        first = ahead = scale.length(following)
        before: tuple[Array, Array] | None = None
        for k in range(1, 40):
            image = self.here.point + following
            if before is not None:
                past.add(image - before[0], following - before[1])
            before = (image, following)
            trial = self.problem.at(past.combined(image, following))
            if not np.isfinite(trial.residual).all():
                break
            following = self._correction(trial.residual)
            last, ahead = ahead, scale.length(following)
            if ahead > first * KEPT_GAIN**k:
                break
            self.here = trial
            if k > 4 and first * 0.4**k < ahead < 1e-1 * first:
                # Near, and slowly: new factors are needed at the end, and now they take it there.
                break
            if self._reached(following, trial, last):
                self._end(following)
                return True
        return False

    def _damped(
        self, correction: Array, damping: float
    ) -> tuple[float, LocalEquations, Array | None]:
        """The damping taken, where it leads, and the next correction with the same factors.

        None is taken, a damping of zero, where nothing helps and the correction is rounding.
        There is no correction where each is an iteration, and the residual shows the gain.
        """
        scale, here = self.scale, self.here
        point, length = here.point, scale.length(correction)
        # A linear system has no reason to damp, and a correction of rounding's size no way to.
        short = self.equations.linear or length <= 8 * scale.epsilon
        rounding: bool | None = True if short else None
        while damping >= self.newton.smallest_damping:
            trial = self.problem.at((point + damping * correction).astype(point.dtype, copy=False))
            if not np.isfinite(trial.residual).all():
                damping *= 0.5
                continue
            following: Array | None = None
            halved = self.factors.iterative and (
                np.linalg.norm(trial.residual) < 0.5 * np.linalg.norm(here.residual)
            )
            if not halved:
                # Where it is an iteration, a digit tells whether the step helps.
                following = self._correction(trial.residual, ESTIMATE)
                shorter = scale.length(following) <= (1 - damping / 4) * length
                if not shorter and rounding is None:
                    rounding = self._reached(correction, here)
                if not (shorter or rounding):
                    # The parabola through the lengths at 0 and at the damping tried.
                    bend = scale.length(following - (1 - damping) * correction)
                    wanted = 0.5 * length * damping**2 / bend if bend else 0.5 * damping
                    damping = min(max(wanted, 0.1 * damping), 0.5 * damping)
                    continue
            relative = scale.length(correction, scale.largest(point))
            each = largest(correction / np.where(point == 0, np.inf, point))
            step = NewtonStep(length, largest(trial.residual), damping, relative, each)
            self.history.append(step)
            return damping, trial, following
        if self._is_rounding(correction, here):
            return 0.0, here, None
        self.lost = True
        raise NotConverged(
            self.problem.story("makes no progress along the Newton direction", length)
        )

    def _not_finite(self) -> NotConverged:
        bad = int(np.flatnonzero(~np.isfinite(self.here.residual))[0])
        name = entry_name(self.equations.block.equations, bad)
        starts = ", ".join(v.name for v in self.equations.unknowns[:6])
        declared = ": unknown(…, start=…), or solve(start={…})"
        return NotConverged(
            f"the equation {name!r} is NaN or infinite at the start of {starts}; "
            f"give another{'' if self.equations.called else declared}."
        )


def require_quadratic(problem: BlockProblem, here: LocalEquations, ended: bool = True) -> None:
    """SingularSystem where the last full steps shrank by a constant factor.

    At a root of multiplicity m they shrink by 1 − 1/m: the Jacobian is singular there, and
    the multipliers grow without bound, whatever the condition number says on the way. The
    residual shrinks by the m-th power of that, but in proportion at a root that is regular.
    """
    rounding = 1e3 * problem.scale.epsilon
    steps = [s for s in problem.history if s.damping == 1.0 and s.relative > rounding][-6:]
    lengths = [step.correction for step in steps]
    ratios = [b / a for a, b in itertools.pairwise(lengths) if a > 0.0]
    falls = [b.each < 0.2 * a.each for a, b in itertools.pairwise(problem.history[-3:])]
    # An unknown that is small beside others may have arrived faster than these tell.
    if len(ratios) < 5 or problem.equations.linear or (len(falls) == 2 and all(falls)):
        return
    fall, shrink = steps[-1].residual / (steps[-6].residual or 1.0), lengths[-1] / lengths[-6]
    steeper = fall < 0.1 * shrink
    # A path that has no end, its residual rounding already, tells it by a ratio that stays.
    steady = not ended and max(ratios[-5:]) - min(ratios[-5:]) < 0.01
    # One that falls to zero has residuals that are all rounding of other equations, at last.
    falling = min(step.each for step in steps) > 0.1
    if min(ratios[-5:]) > 0.3 and (steeper or steady or falling):
        if not shrink < 0.9:
            raise NotConverged(
                problem.story(
                    f"runs away, each step {ratios[-1]:.2f} of the one before, to where "
                    "rounding hides its equations: they may have no solution"
                )
            )
        # |x|^p falls with the p-th power of what its steps do.
        hidden = steps[-1].residual <= ROUNDED * problem.scale.epsilon * largest(here.terms)
        flatter = shrink**0.9 < fall < 0.9 and not hidden
        said = (
            "the equations have an infinite slope at the solution, as |x|**0.5 has at zero. "
            "State them by the inverse, y**2 for x in the place of x**0.5 for y"
            if flatter
            else "the solution is a multiple root, where the Jacobian is singular. State it as "
            "a simple one, z - a in the place of (z - a)**2"
        )
        raise SingularSystem(
            problem.story(
                f"converges only linearly, each step {ratios[-1]:.2f} of the one before: {said}",
                nearer=False,
            )
        )
