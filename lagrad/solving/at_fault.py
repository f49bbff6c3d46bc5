"""Which constraint, and which operation in it, a derivative that is no number comes from."""

import numpy as np

from lagrad.solving.failure_messages import blocks_at_fault
from lagrad.solving.not_finite import without_slope
from lagrad.solving.solved_point import SolvedPoint


def culprit(point: SolvedPoint) -> tuple[str, str]:
    """The first constraint whose local partials are not finite, and the operation in it."""
    compiled = point.compiled
    slots, steps = compiled.tape.slots, point.linearization.steps
    for stretch in compiled.stretches:
        constraints = [c for block in stretch.run.blocks for c in block.constraints]
        for step in (steps[k] for k in stretch.steps):
            data = () if step.map is None else step.map.data
            if all(np.isfinite(value).all() for value in data):
                continue
            for constraint in constraints:
                if slots.get(constraint.root.index, -1) >= step.target:
                    where = f"the constraint {constraint.name!r}"
                    node = without_slope(compiled.system.arena.nodes, compiled.tape, step.target)
                    return f"at this point {f'{node}, in {where},' if node else where}", node
    return "the program", ""


def hints(point: SolvedPoint, error: float) -> str:
    """Lines that name blocks with kinks or free directions, of a large error."""
    solved = point.solved.items() if error > 1e-3 else ()
    return blocks_at_fault(
        [block.label for block, s in solved if s.jump is not None],
        [block.label for block, s in solved if s.free is not None],
    )
