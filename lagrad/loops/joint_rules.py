"""Partials of primitives with several arguments, stated as formulas over nodes.

One formula serves traced values, among which it is restated, and numbers, where a plan of it is
kept. What flows back to all arguments is found at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from lagrad.typing import Kind, Shape, Value


class Formula:
    """Values as functions of others of some shapes and dtypes, stated once."""

    def __init__(
        self, kinds: Sequence[Kind], function: Callable[[Sequence[Expression]], Sequence[Value]]
    ) -> None:
        self.system = System("formula")
        self.leaves = [
            self.system.leaf(f"a{i}", "data", shape, dtype, None)
            for i, (shape, dtype) in enumerate(kinds)
        ]
        self.results = [self.system.arena.lift(value) for value in function(self.leaves)]

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
    """

    pull: Callable[[Value, Sequence[Value], Value, Shape], Sequence[Value]]
    push: Callable[[Value, Sequence[Value], dict[int, Value]], Value]
    formulas: dict[Any, Formula] = field(default_factory=dict)

    def formula(
        self,
        of: tuple[str, Shape],
        kinds: Sequence[Kind],
        function: Callable[[Sequence[Expression]], Sequence[Value]],
    ) -> Formula:
        key = (*of, *kinds)
        if key not in self.formulas:
            self.formulas[key] = Formula(kinds, function)
        return self.formulas[key]


class NodeRule:
    """The rule of one node, which the maps of its arguments share."""

    def __init__(self, rule: Rule, node: Expression, ks: Shape) -> None:
        self.rule, self.ks = rule, ks
        self.kinds = [(n.shape, n.dtype) for n in (node, *node.arguments)]
        self._recent: tuple[tuple[Value, ...], Sequence[Value]] | None = None

    def pull(self, data: tuple[Value, ...], cotangent: Value) -> Sequence[Value]:
        """What flows back to each of the arguments `ks`."""
        recent, values = self._recent, (*data, cotangent)
        if recent is not None and all(a is b for a, b in zip(recent[0], values, strict=True)):
            return recent[1]
        formula = self.rule.formula(
            ("pull", self.ks),
            [*self.kinds, self.kinds[0]],
            lambda leaves: self.rule.pull(leaves[0], leaves[1:-1], leaves[-1], self.ks),
        )
        found = formula(values)
        # The next arguments ask for the same.
        self._recent = (values, found)
        return found

    def forget(self) -> None:
        self._recent = None

    def push(self, data: tuple[Value, ...], tangents: dict[int, Value]) -> Value:
        """The node's tangent."""
        ks, count = tuple(tangents), len(data)

        def pushed(leaves: Sequence[Expression]) -> list[Value]:
            along = dict(zip(ks, leaves[count:], strict=True))
            return [self.rule.push(leaves[0], leaves[1:count], along)]

        kinds = [*self.kinds, *(self.kinds[1 + k] for k in ks)]
        (found,) = self.rule.formula(("push", ks), kinds, pushed)((*data, *tangents.values()))
        return found


class JointPartial(Joint):
    """The partial by argument `k`."""

    def __init__(
        self, of: NodeRule, k: int, data: tuple[Value, ...], slots: dict[int, int]
    ) -> None:
        self.of, self.k, self.data, self.slots = of, k, data, slots
        self.target: Shape = of.kinds[0][0]
        self.source: Shape = of.kinds[1 + k][0]

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return JointPartial(self.of, self.k, data, self.slots)

    def pattern(self) -> LinearMap:
        """A matrix of ones."""
        return Compose(Scale(1.0, (), self.target), Transpose(Scale(1.0, (), self.source)))

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.target)

    def mv(self, tangent: Value) -> Value:
        return self.together({self.k: tangent})

    def together(self, tangents: dict[int, Value]) -> Value:
        return self.of.push(self.data, tangents)

    def rmv(self, cotangent: Value) -> Value:
        found = self.of.pull(self.data, cotangent)[self.of.ks.index(self.k)]
        if self.k == self.of.ks[0]:
            self.of.forget()
        return found

    def as_sparse(self) -> sparse.csr_array:
        rows, columns = math.prod(self.target), math.prod(self.source)
        if 0 in (rows, columns):
            return sparse.csr_array((rows, columns))
        if rows < columns:
            basis = np.eye(rows).reshape(-1, *self.target)
            return sparse.csr_array([np.ravel(self.rmv(row)) for row in basis])
        basis = np.eye(columns).reshape(-1, *self.source)
        return sparse.csr_array(np.stack([np.ravel(self.mv(row)) for row in basis], axis=1))


def joint_maps(rule: Rule, node: Expression, ks: Shape) -> list[Joint]:
    """The maps of a node's arguments `ks`."""
    shared, slots = NodeRule(rule, node, ks), dict[int, int]()
    return [JointPartial(shared, k, (node, *node.arguments), slots) for k in ks]


def expansion(formula: Callable[[Sequence[Value]], Value]) -> Rule:
    """The rule of a primitive that equals a formula of its arguments."""

    def linearised(arguments: Sequence[Value], ks: Shape) -> tuple[Linearization, Value]:
        root = formula(arguments)
        tape = Tape([root], [arguments[k] for k in ks], lambda node: False, {})
        return Linearization(tape, tape.steps), root

    def pull(_: Value, arguments: Sequence[Value], cotangent: Value, ks: Shape) -> list[Value]:
        linear, root = linearised(arguments, ks)
        flowing = linear.empty()
        if root.index in linear.tape.slots:
            flowing[linear.tape.slots[root.index]] = cotangent
            linear.pull(flowing)
        # The arguments have the first slots, in order.
        found = zip(ks, flowing, strict=False)
        return [np.zeros(arguments[k].shape) if value is None else value for k, value in found]

    def push(_: Value, arguments: Sequence[Value], tangents: dict[int, Value]) -> Value:
        linear, root = linearised(arguments, tuple(tangents))
        moving = linear.empty()
        moving[: len(tangents)] = tangents.values()
        linear.push(moving)
        slot = linear.tape.slots.get(root.index)
        return np.zeros(root.shape) if slot is None or moving[slot] is None else moving[slot]

    return Rule(pull, push)
