"""The graph of a function that is being traced, its arguments' values at hand.

While a function is traced, values of the arguments answer what Python asks (`if`, `while`,
indices), and each answer is kept as a guard. Arrays that the function closes over, and values of
a function traced around it, become data: the program's structure is the same whatever they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import LeakedValue, ShapeMismatch, TracedValueError, UnsupportedType
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import Graph, ancestors
from lagrad.expressions.real_arrays import real_array
from lagrad.programs.program import Program
from lagrad.solving.certificate import Policy
from lagrad.systems.constraint import definitions
from lagrad.systems.rewriting import restated
from lagrad.transforms.branch_borders import on_border, read_for
from lagrad.typing import Array

CURRENT: "ContextVar[Tracing | None]" = ContextVar("lagrad_tracing", default=None)
KINDS: dict[str, Callable[[Any], Any]] = {"bool()": bool, "float()": float, "int()": int}


def tracing() -> "Tracing | None":
    """The innermost function that is being traced."""
    return CURRENT.get()


@dataclass(frozen=True, slots=True)
class Guard:
    """What Python asked of a node, and was answered.

    Derivatives may not go on past it, or rounding may have decided it.
    """

    node: Expression
    kind: str
    answer: Any
    followed: bool = True
    border: bool = False

    def answered(self, value: Array) -> Any:
        """The answer at another value; None where there is no such integer."""
        try:
            return answered(self.kind, value)
        except (OverflowError, ValueError, UnsupportedType):
            return None


def answered(kind: str, value: Array) -> Any:
    number = np.asarray(value).item()
    if kind != "an index":
        return KINDS[kind](number)
    if number != int(number):
        raise UnsupportedType(f"{number!r} was asked as an index; it is no whole number.")
    return int(number)


class Guards:
    """The guards of a program, compiled: asked again of other values."""

    def __init__(self, program: Program, guards: Sequence[Guard]) -> None:
        self.guards = guards
        leaves = [v for v in program.variables.values() if v.role != "defined"]
        self.names = [v.name for v in leaves]
        # Whether they can be asked before anything is solved.
        self.early = not any(v.role == "unknown" for v in leaves)
        self.defined = definitions(program)
        self.leaves = leaves
        self.plan = Plan(leaves, [g.node for g in guards], self.defined)

    @cached_property
    def _compared(self) -> tuple[list[Expression], Plan]:
        """What decides whether a value sits on a border."""
        asked = [g.node for g in self.guards if g.kind == "bool()"]
        nodes = list({n.index: n for node in asked for n in read_for(node)}.values())
        return nodes, Plan(self.leaves, nodes, self.defined)

    def on_border(self, values: Mapping[str, Any]) -> bool:
        """Whether another rounding would take another branch where the variables have these."""
        nodes, plan = self._compared
        found = plan([values[name] for name in self.names])
        known = {n.index: value for n, value in zip(nodes, found, strict=True)}
        asked = [g.node for g in self.guards if g.kind == "bool()"]
        return any(on_border(node, lambda n: known[n.index]) for node in asked)

    def hold(self, values: Mapping[str, Any]) -> bool:
        """Whether every answer is the same where the variables have these values."""
        pairs = zip(self.guards, self.answers(values), strict=True)
        return all(guard.answer == answer for guard, answer in pairs)

    def answers(self, values: Mapping[str, Any]) -> list[Any]:
        """What would be answered where the variables have these values; None for what cannot."""
        found = self.plan([values[name] for name in self.names])
        return [g.answered(value) for g, value in zip(self.guards, found, strict=True)]


class NoValue(TracedValueError):
    """The value of something that nothing solves for while a function is traced."""


class Tracing(Graph):
    """The graph of a function that is being traced."""

    def __init__(self, name: str, outer: "Tracing | None", opaque: bool, repeating: bool) -> None:
        self.system = Program(name)
        self.system.arena = self
        super().__init__(name, 1 if outer is None else outer.depth + 1)
        self.outer = outer
        self.opaque = opaque  # whether arrays are data, so that they are not in the structure
        # Whether it stands for many calls, so that nothing can be asked of its values.
        self.repeating: bool = repeating or (outer is not None and outer.repeating)
        self.recording = True
        self.values: dict[int, Array] = {}
        # Values of outer functions and what they are here, by the identity of the former.
        self.captured: dict[int, tuple[Expression, Variable]] = {}
        self.arrays: dict[int, tuple[Any, Expression]] = {}
        self.guards: dict[tuple[int, str], Guard] = {}
        self.otherwise = -1  # which question is answered otherwise, to see what stands there
        self.copied: Callable[[Any], Array] = np.array

    def release(self) -> None:
        """Let go of all numbers, once the trace is over."""
        self.values, self.captured, self.arrays, self.copied = {}, {}, {}, np.array

    def replaced_by(self, program: Program) -> None:
        """Let go of all nodes, where another program serves."""
        self.forget()
        self.system = program

    def data(self, stem: str, shape: Any, dtype: Any) -> Variable:
        """A variable that is given, and that nothing is differentiated by."""
        name = f"{stem}_{len(self.system.variables)}"
        return self.system.leaf(self.system.free(name), "data", shape, dtype, None)

    def array(self, value: Any) -> Expression:
        if not self.opaque or not self.recording:
            return self.constant(value)
        known = self.arrays.get(id(value))
        if known is not None:
            original, node = known
            # The same array again, unless it was changed in place in between.
            if np.array_equal(original, self.values[node.index], equal_nan=value.dtype.kind == "f"):
                return node
        array = real_array(value, "an array", self.copied)
        node = self.data("array", array.shape, array.dtype)
        self.values[node.index], self.arrays[id(value)] = array, (value, node)
        return node

    def foreign(self, value: Expression) -> Expression:
        known = self.captured.get(id(value))
        if known is None:
            if not isinstance(value.graph, Tracing) and not self.repeating:
                raise LeakedValue(
                    f"{value!r} belongs to the declared program {value.graph.name!r}; a function "
                    "that is traced has no use for it. Implicit functions stand in functions: take "
                    "lg.trace of one where a program is wanted, or declare unknowns and equations."
                )
            if isinstance(value.graph, Tracing) and not self.encloses(value.graph):
                raise LeakedValue(
                    f"{value!r} belongs to {value.graph.name!r}, whose trace is over or is not one "
                    f"around {self.name!r}: it was stored outside of its function and used later. "
                    "Return it from the function instead."
                )
            # Its value at hand is that of the outer graph.
            known = value, self.data("outer", value.shape, value.dtype)
            self.captured[id(value)] = known
        return known[1]

    def encloses(self, graph: Graph) -> bool:
        """Whether a graph is one of the functions traced around this one."""
        outer = self.outer
        while outer is not None and outer is not graph:
            outer = outer.outer
        return outer is not None

    def equation(self, lhs: Any, rhs: Any) -> Any:
        return False if rhs is None else np.equal(lhs, rhs)

    def asked(self, node: Expression, kind: str) -> Any:
        if self.ended or not self.recording:
            raise LeakedValue(
                f"{kind} was asked of {node!r} after the trace of {self.name!r} was over; return "
                "the value from the function instead of storing it elsewhere."
            )
        if node.size != 1:
            raise ShapeMismatch(
                f"{kind} was asked of {node!r}, which has {node.size} entries; "
                "use np.any, np.all or one of its entries."
            )
        known = self.guards.get((node.index, kind))
        if known is not None:
            return known.answer
        answer = answered(kind, self.value(node))
        followed = kind != "float()" and not (self.handed and self.at_border(node))
        border = followed and kind == "bool()" and on_border(node, self.value)
        border = border and not self.handed and self.depends(node)
        if len(self.guards) == self.otherwise:
            answer, border = not answer, False
        self.guards[node.index, kind] = Guard(node, kind, answer, followed, border)
        return answer

    def depends(self, node: Expression) -> bool:
        """Whether a node's value depends on what derivatives are taken by."""
        if not isinstance(node.graph, Tracing):
            return True
        outer = {variable.index: value for value, variable in self.captured.values()}
        for n in ancestors([node], lambda n: n.index in outer, definitions(self.system)):
            if n.index in outer:
                if self.outer is None or self.outer.depends(outer[n.index]):
                    return True
            elif isinstance(n, Variable) and n.role in ("parameter", "unknown"):
                return True
        return False

    def at_border(self, node: Expression) -> bool:
        """Whether NumPy's loops over objects, in asking this, may have chosen one side of a kink.

        np.maximum returns the first of two equal objects, np.logical_and an object for a truth.
        """
        if node.dtype.kind == "f":
            return True
        if len(node.arguments) != 2:
            return False
        # That the two are not equal is asked as well, so that a kept trace ends where they are.
        equal: Any = np.equal(*node.arguments)
        tie = bool(self.value(equal))
        self.guards[equal.index, "bool()"] = Guard(equal, "bool()", tie, not tie)
        return tie

    def inherit(
        self, program: Program, guards: Sequence[Guard], values: Mapping[str, Expression]
    ) -> None:
        """Take over what was asked in a function that became a part of this one."""
        nodes = restated([guard.node for guard in guards], program, self, values)
        for guard, node in zip(guards, nodes, strict=True):
            self.guards[node.index, guard.kind] = replace(guard, node=node)

    def value(self, node: Expression) -> Array:
        """The value of a node at the arguments at hand."""
        if node.graph is self and (found := self.values.get(node.index)) is not None:
            return found
        if not isinstance(node.graph, Tracing):
            # Of a declared program: a loop's step is traced for its shape.
            return np.zeros(node.shape, node.dtype)
        if node.graph is not self:
            return node.graph.value(node)
        values, defined = self.values, definitions(self.system)
        outer = {variable.index: value for value, variable in self.captured.values()}
        with np.errstate(all="ignore"):
            for n in ancestors([node], lambda n: n.index in values, defined):
                if n.index in values:
                    continue
                if isinstance(n, Constant):
                    values[n.index] = n.value
                elif n.index in defined:
                    values[n.index] = values[defined[n.index].index]
                elif n.index in outer:
                    values[n.index] = (self.outer or self).value(outer[n.index])
                elif isinstance(n, Variable):
                    self._solve_for(n)
                else:
                    assert n.primitive is not None
                    kernel = n.primitive.kernel(n.parameters)
                    values[n.index] = kernel(*[values[a.index] for a in n.arguments])
        return values[node.index]

    def _solve_for(self, unknown: Variable) -> None:
        """Find the values of the unknowns that one implicit function introduced."""
        # Of nodes that are traced `==` makes an equation.
        groups = (g for g in self.system.groups if any(u is unknown for u in g.unknowns))
        if (group := next(groups, None)) is None:
            raise NoValue(
                f"the value of {unknown.name!r}, a multiplier of an implicit function's equations, "
                "is asked for while a derivative is traced. Ask for it outside."
            )
        arguments = [self.value(node) for node in group.arguments]
        # The program that comes of it is certified; what is seen on the way need not be.
        begin = [v.start for v in group.unknowns]
        found = group.approach.finish(arguments, begin, Policy(np.inf))
        self.values.update(zip([v.index for v in group.unknowns], found, strict=True))


def numbers(value: Any) -> Array:
    """An array, or the numbers of a value of a function that is being traced."""
    traced = isinstance(value, Expression) and isinstance(value.graph, Tracing)
    return np.asarray(value.graph.value(value) if traced else value)


@contextmanager
def entered(graph: Tracing) -> Iterator[None]:
    token = CURRENT.set(graph)
    try:
        yield
    finally:
        CURRENT.reset(token)
        graph.recording = False
