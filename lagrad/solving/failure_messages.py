"""What a nonlinear solve went through, and how it is told where it failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lagrad.errors import NotConverged, NotPositiveDefinite, SingularSystem
from lagrad.linear_solvers.base import null_weights
from lagrad.linear_solvers.jacobian import Jacobian
from lagrad.solving.block_equations import BlockEquations, LocalEquations
from lagrad.solving.not_finite import shown, without_slope
from lagrad.systems.reduced_block import entry_name
from lagrad.typing import Array

# What a combination of linear equations leaves, relative, that is more than rounding.
APART = 1e-9
# What says that there is no solution, or none that is determined.
Failure: TypeAlias = NotConverged | SingularSystem


@dataclass(frozen=True, slots=True)
class NewtonStep:
    """One step: the length of the correction, the residual after it, its damping.

    `correction` is against the largest values seen so far, `relative` against those of the point,
    `each` the largest of the entries', each against its own.
    """

    correction: float
    residual: float
    damping: float
    relative: float
    each: float


def steps_taken(history: Sequence[NewtonStep]) -> list[str]:
    """The last steps as a table."""
    rows = [
        f"  {number:4d}  {step.correction:.3e}    {step.residual:.3e}    {step.damping:.2g}"
        for number, step in enumerate(history, 1)
    ]
    return ["  step  correction   residual     damping", *rows[-8:]] if rows else []


def story(
    equations: BlockEquations,
    what: str,
    history: Sequence[NewtonStep],
    correction: float | None = None,
    nearer: bool = True,
) -> str:
    """An error's text: the block, what happened, the last steps, and what may help."""
    lines = [f"the block {equations.block.label} {what}.", *steps_taken(history)]
    if correction is not None:
        lines.append(f"  the correction that failed has a relative length of {correction:.3e}.")
    declared = "" if equations.called else " (solve(start={…}))"
    if nearer:
        lines.append(f"  Start nearer{declared}, or check the equations' signs and scales.")
    return "\n".join(lines)


def blocks_at_fault(kinked: Sequence[str], free: Sequence[str]) -> str:
    """Lines that say which blocks may be why something is not known."""
    said = (
        "  The equations of {} have kinks (abs, maximum, where, prox), and the solution may be at "
        "one, where the derivative jumps.\n",
        "  The equations of {} have many solutions, or, where parameters move, perhaps none: what "
        "depends on which of them was found has no derivative.\n",
    )
    pairs = zip(said, (kinked, free), strict=True)
    return "".join(line.format(first_of(labels)) for line, labels in pairs if labels)


def first_of(labels: Sequence[str]) -> str:
    """The first six of some labels, and how many more there are."""
    rest = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
    return ", ".join(labels[:6]) + rest


REMEDY = (
    "At a minimum every direction has positive curvature. Start elsewhere, add a penalty, or, "
    "where the point is meant, ask for linear=lg.MINRES() or lg.DenseLU(), or for damping=…."
)


def named(equations: BlockEquations, error: Failure) -> Failure:
    """What a linear solver says, with the name of the block."""
    said = f"the block {equations.block.label}: {error}"
    if isinstance(error, NotPositiveDefinite):
        return NotPositiveDefinite(f"{said}. {REMEDY}")
    return NotConverged(said)


def indefinite(equations: BlockEquations, jacobian: Jacobian, where: str) -> NotPositiveDefinite:
    """The error for a Hessian that is not positive definite: its least curvature, and where."""
    block, curvature = equations.block, ""
    if jacobian.known and jacobian.size <= 1500:
        values, vectors = np.linalg.eigh(jacobian.dense())
        name = entry_name(equations.unknowns, int(np.argmax(np.abs(vectors[:, 0]))))
        curvature = (
            f"its least curvature is {values[0]:.3e} (the largest {values[-1]:.3e}), along a "
            f"direction in which {name!r} has the most part. "
        )
    return NotPositiveDefinite(
        f"the block {block.label} has a Hessian that is not positive definite {where}: "
        f"{curvature}{REMEDY}"
    )


def singular(
    equations: BlockEquations,
    jacobian: Jacobian,
    where: str,
    history: Sequence[NewtonStep],
    residual: Array | None = None,
) -> SingularSystem:
    """The error for a Jacobian without inverse: which equations are combinations of others.

    Of linear ones, whose residual somewhere is given, whether they contradict one another too.
    """
    block = equations.block
    remedy = (
        "  Add one that fixes what is free, in the place of one or beside them, or start elsewhere."
    )
    lines = [f"the block {block.label} has a singular Jacobian {where}.", *steps_taken(history)]
    combined = null_weights(jacobian.matrix) if jacobian.known else None
    if combined is not None:
        weights = np.abs(combined)
        rows = np.flatnonzero(weights > 1e-6 * weights.max())
        heaviest = rows[np.argsort(-weights[rows])]
        names = [repr(entry_name(block.equations, int(i))) for i in heaviest]
        if len(names) == 1:
            lines.append(f"  The equation {names[0]} does not depend on the unknowns here.")
        else:
            others = ", ".join(names[1:9]) + (", …" if len(names) > 9 else "")
            lines.append(f"  The equation {names[0]} is a combination of {others} here.")
        if residual is not None and np.abs(combined @ residual) > APART * (
            weights @ np.abs(residual)
        ):
            gap = float(np.abs(combined @ residual) / weights.max())
            lines.append(
                f"  Whatever the unknowns are, that combination of them leaves {gap:.1e}: they "
                "contradict one another."
            )
            remedy = "  Change the numbers in them so that it leaves nothing, or drop an equation."
    return SingularSystem("\n".join([*lines, remedy]))


def overflows(here: LocalEquations, where: str) -> SingularSystem:
    """The error for a Jacobian that is NaN or infinite: by which operation."""
    equations = here.equations
    found = [(s.target, s.map.data) for p in here.partials for s in p.steps if s.map is not None]
    lost = (target for target, data in found if not all(np.isfinite(a).all() for a in data))
    target = next(lost, None)
    node = "" if target is None else without_slope(equations.graph.nodes, equations.tape, target)
    return SingularSystem(
        f"the block {equations.block.label} has a Jacobian {where} that is NaN or infinite: "
        f"{node or 'an operation'} is not differentiable there, or overflows. Start elsewhere, or "
        "write it so that nothing does: scipy.special.expit(x) for 1/(1 + exp(-x)), lg.logsumexp "
        "for the logarithm of a sum of exponentials."
    )


def magnified(what: str, change: float, node: Any) -> SingularSystem:
    """The error for a derivative of which rounding is much, though no sum has cancelled at once."""
    first = "" if node is None else f" {shown(node)} is the first on the way of which that is so."
    error = SingularSystem(
        f"{what} is off by {share_of(change)} of itself: rounding is magnified on the way."
        f"{first} Write a formula in another form, by a series where its terms cancel (np.where), "
        "and a recurrence in the direction in which it is stable; take fewer steps; or ask for "
        "less of lg.grad, lg.jacobian or solve: accuracy=…."
    )
    error.operation = "" if node is None else shown(node)
    return error


def share_of(change: float) -> str:
    """A relative change in words."""
    return f"about {change:.1e}" if np.isfinite(change) else "all"


def cancelled(what: str, change: float, node: Any) -> SingularSystem:
    """The error for a derivative that cancellation has spoilt."""
    error = SingularSystem(
        f"{what} is off by {share_of(change)} of itself: rounding is most of what is left in "
        f"{shown(node)}, where nearly equal numbers cancel. Write it "
        "so that nothing does: np.expm1 and np.log1p for exp(x) - 1 and log(1 + x), "
        "2*np.sin(x/2)**2 for 1 - cos(x), (a - b)/(np.sqrt(a) + np.sqrt(b)) for sqrt(a) - sqrt(b), "
        "lg.log_softmax for logarithms of shares that add up to one, or, where x is small, a "
        "series by np.where. Or ask for less of lg.grad, lg.jacobian or solve: accuracy=…."
    )
    error.operation = shown(node)
    return error
