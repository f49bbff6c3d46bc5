"""Which operation it was that left the numbers: for messages, found once something has failed."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.linear_maps import Scale
from lagrad.expressions.notation import ATOM
from lagrad.plain_text import printable
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import Linearization, Tape
from lagrad.systems.printing import TEXT, render
from lagrad.systems.system import System
from lagrad.typing import Array

# Characters of an operation that are shown.
SHOWN = 120
# And of one of its terms, where it is longer than a line.
TERM = 50


def shown(node: Expression, memo: dict[int, Any] | None = None) -> str:
    """An operation as mathematics, shortened; `memo` keeps what has been written."""
    memo = {} if memo is None else memo
    said = render(node, TEXT, {}, memo)[0]
    if said == "…" or len(said) > SHOWN:  # of its terms those that are short
        terms = {a.index: memo[a.index] for a in node.arguments}
        short = {k: t if len(t[0]) <= TERM else ("…", ATOM) for k, t in terms.items()}
        said = render(node, TEXT, {}, short)[0]
    said = printable(said)
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}…"


def without_slope(nodes: Iterable[Expression], tape: Tape, target: int) -> str:
    """The operation that a slot of a tape is of; nothing where there is none."""
    found = (n for n in nodes if tape.slots.get(n.index) == target)
    node = next((n for n in found if n.primitive is not None), None)
    return "" if node is None else shown(node)


def without_value(system: System, values: Mapping[Variable, Array], variable: Variable) -> str:
    """The first operation within a definition that made NaN or an infinity of numbers."""
    defined = definitions(system)
    leaf = lambda n: isinstance(n, Variable) and n.index not in defined
    memory: dict[int, Any] = {v.index: a for v, a in values.items() if v.index not in defined}
    with np.errstate(all="ignore"):
        for node in ancestors([variable], leaf, defined):
            if isinstance(node, Constant):
                memory[node.index] = np.asarray(node.value)
            elif node.index in defined:
                memory[node.index] = memory[defined[node.index].index]
            elif node.primitive is not None:
                given = [memory[a.index] for a in node.arguments]
                kernel = node.primitive.kernel(node.parameters)
                found = memory[node.index] = kernel(*given)
                known = all(np.isfinite(np.asarray(a)).all() for a in given)
                if known and not np.isfinite(np.asarray(found)).all():
                    return shown(node)
            elif node.index not in memory:
                return ""
    return ""


def mended(found: Linearization, there: Linearization) -> Linearization:
    """Local partials, with those of another point where they are no numbers."""
    steps = []
    for step, other in zip(found.steps, there.steps, strict=True):
        linear = step.map
        if linear is not None and other.map is not None and linear.data:
            pairs = zip(linear.data, other.map.data, strict=True)
            data = tuple(np.where(np.isfinite(a), a, b) for a, b in pairs)
            step = step.over(linear.with_data(data))
        steps.append(step)
    return Linearization(found.tape, steps, found.rounded)


def unmoved(found: Linearization, moving: Iterable[Variable]) -> Linearization:
    """The same with zeros for infinite partials by what does not move.

    A point's distance from itself is zero wherever the point is; that its square root has an
    infinite slope there leads nowhere. What moves is seen by a tangent in no special direction.
    """
    rng, tangents, steps = np.random.default_rng(0), found.empty(), []
    for v in moving:
        if v.index in found.tape.slots:
            tangents[found.tape.slots[v.index]] = rng.standard_normal(v.shape)
    for step in found.steps:
        here, linear = tangents[step.source], step.map
        if here is not None and isinstance(linear, Scale) and linear.data:
            weight = linear.weights().reshape(linear.target)
            moves = Scale(1.0, linear.source, linear.target).mv(here) != 0
            linear = linear.with_data((np.where(moves | np.isfinite(weight), weight, 0.0),))
        steps.append(step.over(linear))
        if here is not None:
            there = here if linear is None else linear.mv(here)
            before = tangents[step.target]
            tangents[step.target] = there if before is None else before + there
    return Linearization(found.tape, steps, found.rounded)
