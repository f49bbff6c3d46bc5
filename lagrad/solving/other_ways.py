"""Other ways to a root, where Newton's method does not arrive from a start: SciPy's root finders.

Newton's method fails where the Jacobian is singular, at the start or on the way, and where no step
along its direction helps. Powell's hybrid method (MINPACK) then goes along the gradient as well;
the trust-region method for least squares (Branch, Coleman and Li, A Subspace, Interior, and
Conjugate Gradient Method for Large-Scale Bound-Constrained Minimization Problems, 1999) crosses
valleys in which both of them stop; and a start that is special only by symmetry, as zeros are, is
left by a step aside. A single unknown is looked for where its equation changes sign, and of a batch
each member by itself. Each only proposes where to go on from: what is found is Newton's, certified.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.solving.independent_parts import part_by_part, parts_of, sign_change
from lagrad.solving.iterations import optimize
from lagrad.typing import Array

# Blocks up to this size have other ways than a step aside, and smaller ones from there too.
UP_TO, SMALL = 300, 50
# Evaluations of each, for a few unknowns, and unknowns times evaluations for many.
EVALUATIONS, WORK = 400, 10_000
# How far aside a start is moved, relative to its size and to one.
ASIDE = (0.01, 0.3)
# Unknowns that are measured as they are, and residuals with them.
ORDINARY = 1e4


def other_starts(equations: BlockEquations, outer: list[Array], start: Array) -> Iterator[Array]:
    """Points from which Newton's method may arrive, the likeliest first.

    In units of the unknowns and residuals, if those are far from one, and then as they are.
    """
    for unit, size in dict.fromkeys((units(equations, outer, start), (1.0, 1.0))):
        yield from starts_in(unit, size, equations, outer, start)


def starts_in(
    unit: float, size: float, equations: BlockEquations, outer: list[Array], start: Array
) -> Iterator[Array]:
    """The same in a unit of unknowns and one of residuals."""
    n = equations.block.size
    at_most = max(20, min(EVALUATIONS, WORK // max(n, 1)))

    def residual(point: Array) -> Array:
        there = (unit * point).astype(equations.dtype)
        return np.asarray(equations.residual(outer, there), dtype=float) / size

    def jacobian(point: Array) -> Array:
        there = LocalEquations(equations, outer, (unit * point).astype(equations.dtype))
        return np.asarray(there.matrix(dense=True), dtype=float) * (unit / size)

    def ended(method: Callable[[Array], Any], begin: Array) -> Array | None:
        """Where a method ends; None where that is no nearer to a root than it began."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                point = np.asarray(method(begin).x)
                nearer = np.abs(residual(point)).max() < np.abs(residual(begin)).max()
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return None
        return point if np.isfinite(point).all() and nearer else None

    def hybrid(begin: Array) -> Any:
        options = {"maxfev": at_most, "factor": 1.0}
        return optimize.root(
            residual, begin, jac=jacobian, method="hybr", tol=1e-12, options=options
        )

    def trust_region(begin: Array, scale: Any = 1.0) -> Any:
        tolerances = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
        return optimize.least_squares(
            residual, begin, jacobian, x_scale=scale, max_nfev=at_most, **tolerances
        )

    def bracketed(begin: Array) -> Any:
        def value(t: float) -> float:
            return float(residual(np.array([t]))[0])

        return optimize.OptimizeResult(x=[sign_change(value, float(begin[0]))])

    methods = (hybrid, trust_region, lambda begin: trust_region(begin, "jac"))
    begin, rng = start.astype(float) / unit, np.random.default_rng(0)

    def there(point: Array) -> Array:
        return (unit * point).astype(equations.dtype)

    for method in (bracketed,) * (n == 1) + methods if n <= UP_TO else ():
        if (point := ended(method, begin)) is not None:
            yield there(point)
    for share in ASIDE:
        aside = begin + share * rng.uniform(0.5, 1.0, n) * np.maximum(np.abs(begin), 1.0)
        yield there(aside)
        for method in methods[:2] if n <= SMALL else ():
            if (point := ended(method, aside)) is not None:
                yield there(point)
    parts = None if equations.pattern is None else parts_of(equations.pattern)
    if parts is not None and len(parts) > 1:
        found = part_by_part(residual, begin, parts)
        if found is not None:
            yield there(found)


def units(equations: BlockEquations, outer: list[Array], start: Array) -> tuple[float, float]:
    """What unknowns and residuals are large beside, where that is far from one.

    The methods begin with steps of one, and stop at residuals of so much less.
    """
    point = start.astype(float)
    if point.size > UP_TO:
        return 1.0, 1.0
    with np.errstate(all="ignore"):
        here = LocalEquations(equations, outer, start)
        size = float(np.abs(here.residual).max(initial=0.0))
        jacobian = np.asarray(here.matrix(dense=True), dtype=float)
        if not np.isfinite(jacobian).all():  # of which LAPACK tells the terminal
            return 1.0, 1.0
        try:
            step = np.linalg.lstsq(jacobian, here.residual.astype(float), rcond=None)[0]
        except np.linalg.LinAlgError:
            return 1.0, 1.0
        unit = float(np.abs(point).max(initial=0.0) or np.abs(step).max(initial=0.0))
    usual = 1 / ORDINARY < unit < ORDINARY
    known = 0 < unit < np.inf and 0 < size < np.inf
    return (1.0, 1.0) if usual or not known else (unit, size)
