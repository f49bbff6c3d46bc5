"""Value and gradient with all that may be wrong with them in one number, found on the way.

What a straight line is looked at for (not finite, at a kink, little left of a sum) is stated as
expressions, and is part of the same plan: reductions that cost next to nothing where loops are
machine code. Where the number is not positive the line is gone through step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression
from lagrad.expressions.graph import ancestors
from lagrad.solving.relative_change import MAGNIFIED
from lagrad.solving.rounding_samples import COARSE, SAFETY, SAMPLES, Roundings
from lagrad.systems.cancellation import margin
from lagrad.systems.constraint import definitions
from lagrad.typing import Array

if TYPE_CHECKING:
    from lagrad.programs.explicit_gradient import ExplicitGradient

# Of a gradient: how much of it other roundings may change.
TURNED, TURNED_OF_SINGLES = 5e-7, 5e-4
# After so many calls of which little was left of a sum, and one in so many, derivatives are
# compared at each.
FAILURES, OFTEN = 2, 20


class QuickGradient:
    """The plan of a straight line's results, and of the number that says whether they are sound.

    Little may be left of a sum by chance, or often, and derivatives be what they are. So where
    that was the reason again and again, they are computed with the sums' terms rounded otherwise
    too, and compared: in the same plan again.
    """

    def __init__(
        self,
        line: ExplicitGradient,
        results: Sequence[Expression],
        ties: Any,
        given: Collection[str],
        long: bool,
    ) -> None:
        self.line, self.results, self.ties, self.long = line, results, ties, long
        self.given = [v for v in line.given if v.name in given]
        wanted = [v.dtype for v in (*line.outputs, *line.parameters)]
        self.plan = self._plan(False)
        self.copied = [
            (k, dtype)
            for k, (v, shared, dtype) in enumerate(
                zip(results, self.plan.shared, wanted, strict=False)
            )
            if shared or dtype != v.dtype
        ]
        self.calls, self.failed, self.compared = 0, 0, False

    def _plan(self, compared: bool) -> Plan:
        line, system = self.line, self.line.system
        with system.arena.reopened():
            sound = self._finite(self._compared() if compared else self._little_left())
        found = Plan(line.given, [*self.results, sound], definitions(system))
        found.hasten()
        return found

    def __call__(self, values: Sequence[Array]) -> list[Array] | None:
        """The results, each an array of its own; None where they are to be looked at."""
        if not self.plan.compiled and not self.plan.is_fast:
            return None  # by NumPy's calls the long way is shorter
        found = self.plan.quietly(values)
        self.calls += 1
        if not found.pop() > 0:
            self.failed += 1
            often = self.failed >= max(FAILURES, self.calls / OFTEN)
            if often and not self.compared and self.line.differences is not None:
                self.plan, self.compared = self._plan(True), True
            return None
        for k, dtype in self.copied:
            found[k] = np.array(found[k], dtype)[()]
        return found

    def _finite(self, limits: list[Any]) -> Any:
        """The least of some numbers, NaN where not all is finite; negative at a kink."""
        limits = [*limits, *(0.5 - np.sum(np.where(tie, 1.0, 0.0)) for tie in self.ties)]
        limits += self._magnified() if self.long else []
        least = functools.reduce(np.minimum, limits, 1.0)
        alike: dict[Any, list[Any]] = {}
        for node in (*self.results, *self.given):
            alike.setdefault((node.shape, node.dtype), []).append(node)
        for nodes in alike.values():  # NaN where one is not finite
            least = least + np.sum(0.0 * functools.reduce(np.add, nodes))
        return least

    def _magnified(self) -> list[Any]:
        """Numbers that are positive where derivatives are not so large that rounding may be."""
        line, limits = self.line, []
        count = len(line.outputs)
        top = functools.reduce(np.maximum, (np.max(np.abs(a)) for a in self.results[:count]), 1.0)
        for v, slope in zip(line.parameters, self.results[count:], strict=True):
            of = next(given for given in line.given if given.name == v.name)
            if slope.size:
                size = np.max(np.abs(slope)) * np.max(np.abs(of))
                limits.append(np.where(np.less_equal(size, MAGNIFIED * top), 1.0, -1.0))
        return limits

    def _little_left(self) -> list[Any]:
        return [] if self.line.differences is None else margin(self.line.differences)

    def _compared(self) -> list[Any]:
        """Numbers that are positive where derivatives are the same, sums rounded otherwise."""
        line, limits = self.line, list[Any]()
        assert line.differences is not None
        slopes = self.results[len(line.outputs) :]
        for number in range(SAMPLES):
            hook = line.differences.rounded(Roundings(number, COARSE))
            for plain, other in zip(slopes, restated(slopes, line.system, hook), strict=True):
                change = SAFETY / COARSE * np.max(np.abs(other - plain))
                same = np.less_equal(change, turned(line.given) * np.max(np.abs(plain)))
                limits.append(np.where(same, 1.0, -1.0))
        return limits


def turned(given: Sequence[Expression]) -> float:
    """How much of a gradient by some variables other roundings may change."""
    single = any(v.dtype == np.float32 for v in given)
    return TURNED_OF_SINGLES if single else TURNED


def restated(nodes: Sequence[Any], system: Any, hook: Any) -> list[Any]:
    """Expressions once more, among themselves, with what a hook has in the place of some."""
    defined, instead = definitions(system), hook(system)
    found: dict[int, Any] = {}
    for old in ancestors(nodes, lambda node: False, defined):
        if old.index in defined:
            found[old.index] = found[defined[old.index].index]
        elif old.primitive is None:
            found[old.index] = old
        else:
            new = instead(old, found)
            if new is None:
                arguments = tuple(found[a.index] for a in old.arguments)
                new = system.arena.apply(old.primitive, arguments, old.parameters)
            found[old.index] = new
    return [found[node.index] for node in nodes]
