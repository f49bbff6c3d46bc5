"""One implicit block: approached, solved by Newton's method, certified, and its derivatives set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from lagrad.errors import NotContractive, NotConverged, NotPositiveDefinite, SingularSystem
from lagrad.expressions.expression import Variable
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.jacobian import Operator
from lagrad.linear_solvers.neumann import Neumann
from lagrad.solving.block_certification import Solved, certify, given_up, linearised
from lagrad.solving.block_equations import BlockEquations, LocalEquations, largest
from lagrad.solving.block_problem import BlockProblem
from lagrad.solving.compiled_system import CompiledSystem, ImplicitRun
from lagrad.solving.failure_messages import Failure
from lagrad.solving.free_directions import dual, freed
from lagrad.solving.iterations import Newton
from lagrad.solving.newton import NewtonSearch, newton
from lagrad.solving.other_ways import other_starts
from lagrad.solving.redundant_equations import Redundancy, Redundant
from lagrad.systems.constraint import ImplicitGroup
from lagrad.systems.linearization import split
from lagrad.typing import Array

Values = Mapping[Variable, Array]
# Steps of an iteration, at the most, that lead to one of many fixed points.
STEPS = 1000
# An error of which more than rounding is the cause.
UNKNOWN = 1e-3
# The condition, times rounding, from which a step may keep totals that rounding alone hides.
LOOSE = 1e-4


class Approach(Protocol):
    """How an implicit function approaches its unknowns, and what must hold at their solution.

    Attributes
    ----------
    inner : tuple of str
        Unknowns of implicit functions inside this one, which follow its own.
    tol : float or None
        The relative error at which Newton's method ends.
    damping : float
        What is added to the Jacobian's diagonal wherever it is solved with.
    differentiate : Neumann or None
        A series in the place of the multipliers' equation.
    warm : WarmStart or None
        Where the last solution is kept.
    settles : bool
        Whether it ends at the solution itself, so that Newton's method has nothing to add.
    redundancy : Redundancy or None
        Of equations that are more than the unknowns, the last of which is for what they are off by.
    minimises, steps : bool
        Whether the solution must be a minimum, or is what steps approach.
    """

    inner: tuple[str, ...]
    tol: float | None
    damping: float
    differentiate: Neumann | None
    warm: Any
    minimises: bool
    steps: bool

    @property
    def settles(self) -> bool: ...

    @property
    def redundancy(self) -> Redundancy | None: ...

    name: str

    def begin(
        self, arguments: Sequence[Array], start: Sequence[Array], afresh: bool = False
    ) -> list[Array]:
        """Values of the unknowns from which Newton's method starts."""

    def keeps_branches(
        self, arguments: Sequence[Array], start: Sequence[Array], values: Sequence[Array]
    ) -> bool:
        """Whether inner implicit functions have the values that they find from their own starts."""

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where Newton's method alone does not arrive; None where there is none."""

    def beyond(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where an iteration approaches nothing; None where there is none."""

    def solver(self, equations: BlockEquations) -> LinearSolver:
        """The linear solver of the block that its unknowns form."""

    def moves_away(self, solved: Solved) -> NotContractive | None:
        """The error at a fixed point that the plain iteration moves away from."""

    def strays(self, begin: LocalEquations, found: Solved) -> Failure | None:
        """The error where Newton's method has left what the approach had arrived at."""

    def require_minimum(self, arguments: Sequence[Array], values: Sequence[Array]) -> None:
        """NotPositiveDefinite where the objective curves down at what should be its minimum."""


def solve_block(
    run: ImplicitRun,
    compiled: CompiledSystem,
    values: Values,
    start: Values,
    options: Newton,
    linear: LinearSolver | None,
    free: Sequence[Solved] = (),
) -> tuple[Solved, Failure | None]:
    """The block at its solution, as its derivatives are to be taken; what went wrong, if it did.

    After blocks that leave directions `free` so may one that is linear: that of their multipliers.

    Where an implicit function introduced the block's unknowns, its approach says how.
    """
    inside = set(run.block.unknowns)
    within = [g for g in compiled.system.groups if inside.issuperset(g.unknowns)]
    known = [g for g in within if compiled.is_given(g, values)]
    # An implicit function inside another one is part of what the outer one iterates.
    # A block may have the further unknowns of equations that are too many, and not all of these.
    more = [g for g in compiled.system.groups if g.approach.redundancy and g.unknowns[-1] in inside]
    parts = tuple((group.approach.redundancy, group.unknowns[-1]) for group in more)
    surplus = Redundant(run.block.label, parts) if parts else None
    outermost = [g for g in known if not any(set(g.unknowns) < set(h.unknowns) for h in known)]
    whole = len(outermost) == 1 and set(outermost[0].unknowns) == inside
    approach: Approach | None = outermost[0].approach if whole else None
    solver = linear
    if approach is not None:
        solver = linear or approach.solver(run.equations)
        options = options if approach.tol is None else replace(options, tol=approach.tol)

    def given(group: ImplicitGroup) -> tuple[list[Array], list[Array]]:
        """The arguments of an implicit function, and where its unknowns start."""
        known = iter(compiled.given_values(group, values))
        arguments = [next(known) for _ in group.arguments]
        return arguments, [
            start[v] if node is None else np.asarray(next(known), dtype=v.dtype)
            for v, node in zip(group.unknowns, group.starts, strict=True)
        ]

    def approached(how: str, *options: Any) -> dict[Variable, Array] | None:
        """Where the groups' approaches lead; None where no group has one."""
        begin, changed = dict(start), False
        for group in outermost:
            pieces = getattr(group.approach, how)(*given(group), *options)
            if pieces is not None:
                changed = True
                begin.update(zip(group.unknowns, pieces, strict=True))
        return begin if changed else None

    def astray(found: Solved) -> list[str]:
        """The implicit functions within which others left the solutions of their own starts."""
        at = dict(zip(equations.unknowns, split(found.point, equations.unknowns), strict=True))
        return [
            group.approach.name
            for group in outermost
            if not group.approach.keeps_branches(*given(group), [at[v] for v in group.unknowns])
        ]

    def meant(found: Solved) -> bool:
        """Whether what is to be a minimum is one."""
        if approach is None:
            return True
        pieces = split(found.point, equations.unknowns)
        try:
            approach.require_minimum(given(outermost[0])[0], pieces)
        except NotPositiveDefinite:
            return False
        return True

    equations, outer = run.equations, run.equations.outer_values(values)
    problem = BlockProblem(equations, outer, solver)
    with problem.spent.on("evaluating"):
        begin = equations.vector(approached("begin") or start)
    direct = approach is not None and (approach.damping or problem.solver.matrix_free)
    settled = approach is not None and approach.settles and direct

    def ended(
        problem: BlockProblem, begin: Array, plainly: bool = False
    ) -> tuple[Solved | None, Failure | None]:
        """Where a start leads; what went wrong, if it did. Plain steps need not be asked again."""
        found: Solved | None
        failure: Failure | None = None
        if settled:
            found = linearised(equations, outer, begin, solver)
        else:
            found, failure = solved_from(problem, begin, options)
        if failure is None and found is not None and approach is not None and not plainly:
            failure = approach.strays(problem.at(begin), found) or approach.moves_away(found)
        if failure is None and found is not None and surplus is not None:
            failure = surplus.contradiction(found)
        return found, failure

    found, failure = ended(problem, begin)
    begins = [begin]
    if failure is not None:
        plainly = False
        try:
            other = approached("otherwise")
        except NotContractive:
            # Nothing that plain steps would approach: any fixed point is as good as another.
            other, plainly = approached("beyond"), True
            if other is None:
                raise failure from None
        except NotConverged as nowhere:
            if isinstance(failure, NotPositiveDefinite):
                raise NotPositiveDefinite(f"{failure} Further down, {nowhere}") from None
            raise
        if other is not None:
            begins.append(equations.vector(other))
            found, failure = ended(problem.anew(), begins[-1], plainly)
    # A Jacobian that is singular along what is free may pass for a regular one by rounding.
    unsure = found is not None and not settled and not found.bound.error <= UNKNOWN
    if found is not None and not settled and approach is not None and approach.steps:
        formed = found.jacobian.known and not found.factors.iterative
        unsure = unsure or (formed and found.condition > LOOSE / problem.scale.epsilon)
    if (failure is not None or unsure) and (approach is not None or (free and equations.linear)):
        # Totals are those of the start: one that is computed would have derivatives of its own.
        plain = all(node is None for group in outermost for node in group.starts)
        origin = None
        if approach is not None and approach.steps and plain:
            origin = equations.vector(start)
        if approach is not None and approach.steps:
            # Combinations of steps may have left the one of many that these lead to.
            begins = [stepped(problem, b) for b in reversed(begins)]
        # Multipliers of what keeps totals have none of their own.
        way = dual(problem.anew(), begin, free) if free and equations.linear else None
        if way is None:
            ways = (freed(problem, b, options, origin, failure) for b in begins)
            way = next((f for f in ways if f is not None and meant(f)), None)
        if way is not None and (failure is not None or way.free is not None):
            # One that is free after all has a regular Jacobian.
            at = None if way.free is None else replace(way.free, started=not plain)
            found, failure = replace(way, free=at), None
    if failure is None and found is not None and not settled and astray(found):
        # Once more, inner functions solved from their own starts at each step.
        begin = equations.vector(approached("begin", True) or start)
        found, failure = ended(problem.anew(), begin)
        if failure is None and found is not None and (names := astray(found)):
            failure = NotConverged(
                f"the implicit functions inside {names[0]!r} have several solutions, and the one "
                "found for it goes with others than their own starts lead to: these jump on the "
                "way. Start the inner ones nearer to the solution that is meant."
            )
    if found is None:
        assert failure is not None
        raise failure
    if failure is None and surplus is not None and found.free is None:
        found = replace(found, free=surplus)
    if failure is None and approach is not None:
        found = as_differentiated(found, approach, equations.unknowns)
    return found, failure


def stepped(problem: BlockProblem, point: Array) -> Array:
    """Plain steps further, while they shrink."""
    before = np.inf
    for _ in range(STEPS):
        step = problem.at(point).residual
        if not largest(step) < before:
            break
        point, before = point + step, largest(step)
    return point


def solved_from(
    problem: BlockProblem, start: Array, options: Newton
) -> tuple[Solved | None, Failure | None]:
    """What Newton's method makes of a start, or of where other methods lead from it."""
    path = newton(problem, start, options)
    found, failure = certified(path)
    # An end at which the equations do not hold, though steps are short there, is as good a start.
    stands_still = path.failure is None and isinstance(failure, NotConverged)
    starts = [start] if path.lost else [path.here.point] * stands_still
    for begin in starts:
        for other in other_starts(problem.equations, problem.outer, begin):
            further, _ = certified(newton(problem.anew(), other, options))
            if further is not None:
                return further, None
    return found or given_up(problem, path.here), failure


def certified(path: NewtonSearch) -> tuple[Solved | None, Failure | None]:
    """The end of a path, certified; or why it is none."""
    if path.failure is not None:
        return None, path.failure
    try:
        with np.errstate(all="ignore"):
            return certify(path.problem, path.here, path.factors), None
    except (NotConverged, SingularSystem) as error:
        return None, error


def as_differentiated(found: Solved, approach: Approach, unknowns: Sequence[Variable]) -> Solved:
    """A solved block with what an approach says of its derivatives."""
    if approach.warm is not None:
        approach.warm.keep(split(found.point, unknowns))
        found = replace(found, warm=approach.warm)
    if (series := approach.differentiate) is not None:
        # Its derivatives are a series of products, in the place of a solution.
        products = Operator(found.jacobian.operator())
        said = "" if series.terms is None else f"Neumann series of {series.terms} terms"
        factors = series.factor(products.matrix)
        return replace(found, jacobian=products, factors=factors, truncated=said)
    if approach.damping:
        return replace(found, truncated=f"damping {approach.damping:g}")
    return found
