"""Partials of primitives with several arguments, stated as formulas over nodes.

One formula serves traced values, among which it is restated, and numbers, where a plan of it is
kept. What flows back to all arguments is found at once.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression, innermost
from lagrad.expressions.linear_maps import Compose, Joint, LinearMap, Scale, Transpose
from lagrad.systems.linearization import Linearization, Tape
from lagrad.systems.rewriting import restated
from lagrad.systems.system import System
from lagrad.typing import Indices, Kind, Shape, Value

# Values as functions of others, over nodes.
Stated = Callable[[Sequence[Expression]], Sequence[Value]]


class Formula:
    """Values as functions of others of some shapes and dtypes, stated once."""

    def __init__(self, kinds: Sequence[Kind], stated: Stated) -> None:
        self.system = System("formula")
        self.leaves = [
            self.system.leaf(f"a{i}", "data", *kind, None) for i, kind in enumerate(kinds)
        ]
        self.results = [self.system.arena.lift(value) for value in stated(self.leaves)]

    @cached_property
    def plan(self) -> Plan:
        return Plan(self.leaves, self.results)

    def __call__(self, values: Sequence[Value]) -> Sequence[Value]:
        """The results for numbers, or as nodes of the graph that is the innermost of the values."""
        graph = innermost(values)
        if graph is None:
            return self.plan([np.asarray(value) for value in values])
        given = {v.name: graph.lift(a) for v, a in zip(self.leaves, values, strict=True)}
        return restated(self.results, self.system, graph, given)


@dataclass(frozen=True, eq=False)
class Rule:
    """How a primitive is differentiated.

    Attributes
    ----------
    pull : callable
        `pull(node, arguments, cotangent, ks)` is what flows back to the arguments `ks`.
    push : callable
        `push(node, arguments, tangents)` is the node's tangent, for tangents by argument.
    formulas : dict
        Those that were stated, by what they are of and the shapes and dtypes they are for.
    recent : dict
        What was pulled back last, and for which values, while other arguments may ask for it.
    """

    pull: Callable[[Value, Sequence[Value], Value, Shape], Sequence[Value]]
    push: Callable[[Value, Sequence[Value], dict[int, Value]], Value]
    formulas: dict[Any, Formula] = field(default_factory=dict)
    recent: dict[str, Any] = field(default_factory=dict)

    def formula(self, of: tuple[str, Shape], kinds: Sequence[Kind], stated: Stated) -> Formula:
        key = (*of, *kinds)
        if key not in self.formulas:
            self.formulas[key] = Formula(kinds, stated)
        return self.formulas[key]


class JointPartial(Joint):
    """The partial by argument `k`, one of the arguments `ks` whose partials are found together."""

    def __init__(
        self, rule: Rule, node: Expression, ks: Indices, k: int, slots: dict[int, int]
    ) -> None:
        self.rule, self.ks, self.k, self.slots = rule, ks, k, slots
        self.data = (node, *node.arguments)
        self.kinds = [(value.shape, value.dtype) for value in self.data]
        self.target, self.source = node.shape, node.arguments[k].shape

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        other = copy(self)
        other.data = data
        return other

    def pattern(self) -> LinearMap:
        """A matrix of ones."""
        return Compose(Scale(1.0, (), self.target), Transpose(Scale(1.0, (), self.source)))

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.target)

    def mv(self, tangent: Value) -> Value:
        return self.together({self.k: tangent})

    def together(self, tangents: dict[int, Value]) -> Value:
        ks, count = tuple(tangents), len(self.data)

        def pushed(leaves: Sequence[Expression]) -> list[Value]:
            along = dict(zip(ks, leaves[count:], strict=True))
            return [self.rule.push(leaves[0], leaves[1:count], along)]

        kinds = [*self.kinds, *(self.kinds[1 + k] for k in ks)]
        (found,) = self.rule.formula(("push", ks), kinds, pushed)((*self.data, *tangents.values()))
        return found

    def rmv(self, cotangent: Value) -> Value:
        values, recent = (self.ks, *self.data, cotangent), self.rule.recent.get("pulled")
        if recent is None or any(a is not b for a, b in zip(recent[0], values, strict=True)):
            formula = self.rule.formula(
                ("pull", self.ks),
                [*self.kinds, self.kinds[0]],
                lambda leaves: self.rule.pull(leaves[0], leaves[1:-1], leaves[-1], self.ks),
            )
            recent = self.rule.recent["pulled"] = (values, formula(values[1:]))
        if self.k == self.ks[0]:  # which is asked for last
            self.rule.recent.clear()
        return recent[1][self.ks.index(self.k)]

    def as_sparse(self) -> sparse.csr_array:
        rows, columns = math.prod(self.target), math.prod(self.source)
        if rows < columns:
            found = [np.ravel(self.rmv(row.reshape(self.target))) for row in np.eye(rows)]
            return sparse.csr_array(np.reshape(found, (rows, columns)))
        found = [np.ravel(self.mv(row.reshape(self.source))) for row in np.eye(columns)]
        return sparse.csr_array(np.reshape(found, (columns, rows)).T)


def joint_maps(rule: Rule, node: Expression, ks: Indices) -> list[Joint]:
    """The maps of a node's arguments `ks`."""
    slots: dict[int, int] = {}
    return [JointPartial(rule, node, ks, k, slots) for k in ks]


def expansion(formula: Callable[[Sequence[Value]], Value]) -> Rule:
    """The rule of a primitive that equals a formula of its arguments."""

    def linearised(arguments: Sequence[Value], ks: Indices) -> tuple[Linearization, int]:
        root = formula(arguments)
        tape = Tape([root], [arguments[k] for k in ks], lambda node: False, {})
        return Linearization(tape, tape.steps), tape.slot(root)

    def pull(_: Value, arguments: Sequence[Value], cotangent: Value, ks: Indices) -> list[Value]:
        linear, end = linearised(arguments, ks)
        flowing = linear.empty()
        flowing[end] = cotangent
        linear.pull(flowing)
        # The arguments have the first slots, in order.
        found = zip(ks, flowing, strict=False)
        return [np.zeros(arguments[k].shape) if value is None else value for k, value in found]

    def push(_: Value, arguments: Sequence[Value], tangents: dict[int, Value]) -> Value:
        linear, end = linearised(arguments, tuple(tangents))
        moving = linear.empty()
        moving[: len(tangents)] = tangents.values()
        linear.push(moving)
        return np.zeros(linear.tape.shapes[end]) if moving[end] is None else moving[end]

    return Rule(pull, push)
