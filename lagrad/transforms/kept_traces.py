"""Traces that are kept for one structure of arguments, told apart by what Python was answered.

The same answers lead to the same next question. So the traces are the leaves of a tree, which
forks by answers, and one trace's questions say how far any other has the right ones.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from lagrad.transforms.trace import Trace
from lagrad.transforms.tracing_graph import Guards
from lagrad.transforms.transform import Transform

# What traces give at arguments that take another branch.
OTHER_BRANCH = object()


@dataclass(frozen=True, eq=False)
class Kept:
    """A trace, with what it holds under."""

    trace: Trace
    guards: Guards | None

    @property
    def answers(self) -> tuple[Any, ...]:
        return () if self.guards is None else tuple([g.answer for g in self.guards.guards])

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.trace.values.values())


@dataclass(eq=False)
class Fork:
    """One question: where each of its answers leads."""

    ways: "dict[Any, Fork | Kept]" = field(default_factory=dict)

    def leaves(self) -> Iterator[Kept]:
        """The traces beyond, those that answer most questions first along the latest ways."""
        stack: list[Fork | Kept] = [self]
        while stack:
            current = stack.pop()
            if isinstance(current, Kept):
                yield current
            else:
                # Forks lead on to more questions than traces do.
                stack += sorted(current.ways.values(), key=lambda way: isinstance(way, Fork))


class Branches:
    """The traces of one structure of arguments, under a lock."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.root, self.lock = Fork(), lock
        self.kept: OrderedDict[Kept, None] = OrderedDict()

    def add(self, kept: Kept) -> list[Kept]:
        """Keep another trace in the place of those that have its answers, which are returned."""
        gone: list[Kept] = []
        fork, answers = self.root, (None, *kept.answers)
        for answer in answers[:-1]:
            way = fork.ways.get(answer)
            if isinstance(way, Kept):
                gone.append(way)
            if not isinstance(way, Fork):
                way = fork.ways[answer] = Fork()
            fork = way
        replaced = fork.ways.get(answers[-1])
        if replaced is not None:
            gone += replaced.leaves() if isinstance(replaced, Fork) else [replaced]
        for other in gone:
            self.kept.pop(other, None)
        fork.ways[answers[-1]] = kept
        self.kept[kept] = None
        return gone

    def remove(self, kept: Kept) -> None:
        """Let a trace go, and forks that lead nowhere without it."""
        self.kept.pop(kept, None)
        fork, path = self.root, []
        for answer in (None, *kept.answers):
            path.append((fork, answer))
            way = fork.ways.get(answer)
            if not isinstance(way, Fork):
                break
            fork = way
        for above, answer in reversed(path):
            way = above.ways.get(answer)
            if way is kept or (isinstance(way, Fork) and not way.ways):
                del above.ways[answer]

    def find(self, transform: Transform, bind: Any) -> tuple[Kept, Any] | None:
        """The trace that holds at a call, and what a transform makes of it; None for none.

        `bind` gives a trace the values of the call.
        """
        with self.lock:  # against other threads
            candidate = next(reversed(self.kept), None)
        fork, depth, failed = self.root, 0, set()
        while candidate is not None:
            attempt = Attempt(transform, candidate, bind(candidate.trace))
            if attempt.answers is None:
                failed.add(candidate)
            else:
                answers = (None, *attempt.answers)
                own = (None, *candidate.answers)
                while depth < len(own):
                    way = fork.ways.get(answers[depth])
                    depth += 1
                    if way is None:
                        return None
                    if isinstance(way, Kept):
                        if way is not candidate:
                            attempt = Attempt(transform, way, bind(way.trace))
                        if attempt.answers is None or attempt.on_border():
                            return None
                        return way, attempt.result()
                    fork = way
                    if answers[depth - 1] != own[depth - 1]:
                        break
            candidate = next((leaf for leaf in fork.leaves() if leaf not in failed), None)
        return None


class Attempt:
    """A trace at the values of a call: what would be answered there, and its result."""

    def __init__(self, transform: Transform, kept: Kept, bound: Trace) -> None:
        self.transform, self.kept, self.bound = transform, kept, bound
        self.at: Any = None
        self.answers: list[Any] | None = []
        if kept.guards is None:
            return
        if kept.guards.early:
            self.answers = kept.guards.answers(bound.values)
            return
        self.at = transform.at(bound)
        try:
            self.answers = kept.guards.answers(self.at.solution.by_name())
        except Exception:
            # On a branch that is not taken anything may happen; one that is will say so again.
            self.answers = None

    def on_border(self) -> bool:
        """Whether another rounding would take another branch, where derivatives are asked for."""
        guards = self.kept.guards
        if guards is None or not self.transform.differentiates:
            return False
        return guards.on_border(
            self.bound.values if self.at is None else self.at.solution.by_name()
        )

    def result(self) -> Any:
        at = self.at
        return self.transform.numbers(self.bound) if at is None else self.transform.result(at)
