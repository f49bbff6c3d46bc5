"""Partials of primitives with several arguments, stated as formulas over nodes.

One formula serves traced values, where its nodes join theirs, and numbers, where a plan of it is
kept. What flows back to all arguments is found at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import Joint, LinearMap
from lagrad.systems.linearization import Linearization, Tape
from lagrad.systems.rewriting import restated
from lagrad.systems.system import System
from lagrad.typing import Kind, Shape, Value


@dataclass(frozen=True, eq=False)
class Rule:
    """How a primitive is differentiated.

    Attributes
    ----------
    pull : callable
        `pull(node, arguments, cotangent, ks)` is what flows back to the arguments `ks`.
    push : callable
        `push(node, arguments, tangents)` is the node's tangent, for tangents by argument.
    """

    pull: Callable[[Value, Sequence[Value], Value, Shape], list[Value]]
    push: Callable[[Value, Sequence[Value], dict[int, Value]], Value]
    plans: dict[Any, Plan] = field(default_factory=dict)


class Formulas:
    """The formulas of one node: what its maps share."""

    def __init__(self, rule: Rule, node: Expression, ks: Shape) -> None:
        self.rule, self.ks = rule, ks
        nodes = (node, *node.arguments)
        self.kinds = [(n.shape, n.dtype) for n in nodes]
        self._recent: tuple[Any, ...] | None = None

    def pull(self, data: Sequence[Value], cotangent: Value) -> list[Value]:
        """What flows back to each of the arguments `ks`."""
        if symbolic(*data, cotangent):
            return self.rule.pull(data[0], data[1:], cotangent, self.ks)
        recent = self._recent
        if recent is not None and all(
            a is b for a, b in zip(recent[0], (*data, cotangent), strict=True)
        ):
            return list(recent[1])
        plan = self._plan(
            ("pull", self.ks),
            [self.kinds[0]],
            lambda node, arguments, given: self.rule.pull(node, arguments, given[0], self.ks),
        )
        found = plan([*map(np.asarray, data), np.asarray(cotangent)])
        # The next arguments ask for the same.
        self._recent = ((*data, cotangent), found)
        return found

    def forget(self) -> None:
        self._recent = None

    def push(self, data: Sequence[Value], tangents: dict[int, Value]) -> Value:
        if symbolic(*data, *tangents.values()):
            return self.rule.push(data[0], data[1:], tangents)
        ks = tuple(tangents)
        plan = self._plan(
            ("push", ks),
            [self.kinds[1 + k] for k in ks],
            lambda node, arguments, given: [
                self.rule.push(node, arguments, dict(zip(ks, given, strict=True)))
            ],
        )
        (found,) = plan([*map(np.asarray, data), *map(np.asarray, tangents.values())])
        return found

    def _plan(
        self, what: Any, more: Sequence[Kind], formula: Callable[[Any, Any, Any], list[Value]]
    ) -> Plan:
        """The formula as a plan of the node's value, its arguments, and what is given."""
        key = (what, *self.kinds)
        found = self.rule.plans.get(key)
        if found is None:
            graph = Graph("formula")
            leaves = [
                Variable(graph, f"a{i}", "parameter", shape, dtype, None)
                for i, (shape, dtype) in enumerate([*self.kinds, *more])
            ]
            count = len(self.kinds)
            outputs = formula(leaves[0], leaves[1:count], leaves[count:])
            found = self.rule.plans[key] = Plan(leaves, [graph.lift(o) for o in outputs])
        return found


def symbolic(*values: Value) -> bool:
    return any(isinstance(value, Expression) for value in values)


class FormulaMap(Joint):
    """The partial by argument `k`."""

    def __init__(
        self, formulas: Formulas, k: int, data: tuple[Value, ...], slots: dict[int, int]
    ) -> None:
        self.formulas, self.k, self.data, self.slots = formulas, k, data, slots
        self.target: Shape = formulas.kinds[0][0]
        self.source: Shape = formulas.kinds[1 + k][0]

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return FormulaMap(self.formulas, self.k, data, self.slots)

    def pattern(self) -> LinearMap:
        return Everywhere(self.source, self.target)

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.target)

    def mv(self, tangent: Value) -> Value:
        return self.formulas.push(self.data, {self.k: tangent})

    def together(self, tangents: dict[int, Value]) -> Value:
        return self.formulas.push(self.data, tangents)

    def rmv(self, cotangent: Value) -> Value:
        formulas = self.formulas
        found = formulas.pull(self.data, cotangent)[formulas.ks.index(self.k)]
        if self.k == formulas.ks[0]:
            formulas.forget()
        return found

    def as_sparse(self) -> sparse.csr_array:
        rows, columns = math.prod(self.target), math.prod(self.source)
        if 0 in (rows, columns):
            return sparse.csr_array((rows, columns))
        if columns <= rows:
            basis = np.eye(columns).reshape(-1, *self.source)
            found = [np.ravel(self.mv(row)) for row in basis]
            return sparse.csr_array(np.reshape(found, (columns, rows)).T)
        basis = np.eye(rows).reshape(-1, *self.target)
        return sparse.csr_array(np.reshape([np.ravel(self.rmv(r)) for r in basis], (rows, columns)))


class Everywhere(LinearMap):
    """A matrix of ones."""

    def __init__(self, source: Shape, target: Shape) -> None:
        self.source, self.target = source, target

    def mv(self, tangent: Value) -> Value:
        return np.broadcast_to(np.sum(tangent), self.target)

    def rmv(self, cotangent: Value) -> Value:
        return np.broadcast_to(np.sum(cotangent), self.source)

    def as_sparse(self) -> sparse.csr_array:
        return sparse.csr_array(np.ones((math.prod(self.target), math.prod(self.source))))


def joint_maps(rule: Rule, node: Expression, ks: Shape) -> list[Joint]:
    """The maps of a node's arguments `ks`."""
    formulas, slots = Formulas(rule, node, ks), dict[int, int]()
    return [FormulaMap(formulas, k, (node, *node.arguments), slots) for k in ks]


def expansion(formula: Callable[[Sequence[Any]], Any], kinds: Sequence[Kind]) -> Rule:
    """The rule of a primitive that equals a formula of its arguments."""
    system = System("expansion")
    leaves = [
        system.leaf(f"a{i}", "data", shape, dtype, None) for i, (shape, dtype) in enumerate(kinds)
    ]
    root = system.arena.lift(formula(leaves))
    seed = system.leaf("cotangent", "data", root.shape, root.dtype, None)
    directions = [system.leaf(f"t{i}", "data", *kind, None) for i, kind in enumerate(kinds)]
    tape = Tape([root], leaves, lambda node: False, {})
    symbolic_tape = Linearization(tape, tape.steps)
    slot = tape.slots.get

    def stated(roots: list[Any], values: dict[str, Any]) -> list[Any]:
        graph = next(v.graph for v in values.values() if isinstance(v, Expression))
        nodes = [system.arena.lift(root) for root in roots]
        given = {name: graph.lift(value) for name, value in values.items()}
        return list(restated(nodes, system, graph, given))

    def named(arguments: Sequence[Any]) -> dict[str, Any]:
        return {f"a{i}": a for i, a in enumerate(arguments)}

    def pull(_: Any, arguments: Sequence[Any], cotangent: Any, ks: Shape) -> list[Any]:
        flowing = symbolic_tape.empty()
        if (place := slot(root.index)) is not None:
            flowing[place] = seed
            symbolic_tape.pull(flowing)
        found = [flowing[tape.slots[leaves[k].index]] for k in ks]
        roots = [np.zeros(kinds[k][0]) if f is None else f for k, f in zip(ks, found, strict=True)]
        return stated(roots, {**named(arguments), "cotangent": cotangent})

    def push(_: Any, arguments: Sequence[Any], tangents: dict[int, Any]) -> Any:
        moving = symbolic_tape.empty()
        for k in tangents:
            moving[tape.slots[leaves[k].index]] = directions[k]
        symbolic_tape.push(moving)
        place = slot(root.index)
        found = None if place is None else moving[place]
        given = {**named(arguments), **{f"t{k}": t for k, t in tangents.items()}}
        return stated([np.zeros(root.shape) if found is None else found], given)[0]

    return Rule(pull, push)
