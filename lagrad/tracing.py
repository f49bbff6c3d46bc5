"""A plain function turned into a program, its arguments' values at hand.

While a function is traced, values of the arguments answer what Python asks (`if`, `while`,
indices), and each answer is kept as a guard. Arrays that the function closes over, and values of
a function traced around it, become data: the program's structure is the same whatever they are.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from lagrad.constants import NUMBERS, real_array
from lagrad.copying import restated
from lagrad.errors import InvalidFunction, LeakedValue, ShapeMismatch, UnsupportedType
from lagrad.expression import Constant, Expression, Graph, Variable
from lagrad.plan import ancestors, definitions
from lagrad.program import Program
from lagrad.system import real_floats
from lagrad.trees import Tree, flatten

__all__ = [
    "Argument",
    "Guard",
    "Trace",
    "Tracing",
    "argument_names",
    "interned",
    "trace",
    "tracing",
]

Array = Any
CURRENT: ContextVar[Tracing | None] = ContextVar("lagrad_tracing", default=None)
KINDS: dict[str, Callable[[Any], Any]] = {"bool()": bool, "float()": float, "int()": int}


def tracing() -> Tracing | None:
    """The innermost function that is being traced."""
    return CURRENT.get()


@dataclass(frozen=True, slots=True)
class Guard:
    """What Python asked of a node, and was answered."""

    node: Expression
    kind: str
    answer: Any

    def holds(self, value: Array) -> bool:
        """Whether the answer would be the same."""
        return bool(answered(self.kind, value) == self.answer)


def answered(kind: str, value: Array) -> Any:
    number = np.asarray(value).item()
    if kind != "an index":
        return KINDS[kind](number)
    if number != int(number):
        raise UnsupportedType(f"{number!r} was asked as an index; it is no whole number.")
    return int(number)


class Tracing(Graph):
    """The graph of a function that is being traced."""

    __slots__ = (
        "arrays",
        "captured",
        "guards",
        "opaque",
        "outer",
        "recording",
        "system",
        "values",
    )

    def __init__(self, name: str, system: Program, outer: Tracing | None, opaque: bool) -> None:
        super().__init__(name, 0 if outer is None else outer.depth + 1)
        self.system = system
        self.outer = outer
        self.opaque = opaque  # whether arrays are data, so that they are not in the structure
        self.recording = True
        self.values: dict[int, Array] = {}
        self.captured: dict[Expression, Variable] = {}
        self.arrays: dict[int, tuple[Any, Expression]] = {}
        self.guards: dict[tuple[int, str], Guard] = {}

    def data(self, value: Array, stem: str, shape: Any, dtype: Any) -> Variable:
        """A variable that is given, and that nothing is differentiated by."""
        name = f"{stem}_{len(self.system.variables)}"
        variable = self.system.leaf(self.system.free(name), "data", shape, dtype, None)
        if value is not None:
            self.values[variable.index] = value
        return variable

    def array(self, value: Any) -> Expression:
        if not self.opaque or not self.recording:
            return self.constant(value)
        known = self.arrays.get(id(value))
        if known is not None:
            original, node = known
            # The same array again, unless it was changed in place in between.
            if np.array_equal(original, self.values[node.index], equal_nan=value.dtype.kind == "f"):
                return node
        array = real_array(value, "an array")
        node = self.data(array, "array", array.shape, array.dtype)
        self.arrays[id(value)] = (value, node)
        return node

    def foreign(self, value: Expression) -> Expression:
        found = self.captured.get(value)
        if found is None:
            if not self.encloses(value.graph):
                raise LeakedValue(
                    f"{value!r} belongs to {value.graph.name!r}, whose trace is over or is not one "
                    f"around {self.name!r}: it was stored outside of its function and used later. "
                    "Return it from the function instead."
                )
            # Its value at hand is that of the outer graph.
            found = self.captured[value] = self.data(None, "outer", value.shape, value.dtype)
        return found

    def encloses(self, graph: Graph) -> bool:
        """Whether a graph is one of the functions traced around this one."""
        outer = self.outer
        while outer is not None and outer is not graph:
            outer = outer.outer
        return outer is not None

    def equation(self, lhs: Any, rhs: Any) -> Any:
        return np.equal(lhs, rhs)

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
        answer = answered(kind, self.value(node))
        self.guards[node.index, kind] = Guard(node, kind, answer)
        return answer

    def inherit(
        self, program: Program, guards: Sequence[Guard], values: Mapping[str, Expression]
    ) -> None:
        """Take over what was asked in a function that became a part of this one."""
        nodes = restated([guard.node for guard in guards], program, self, values)
        for guard, node in zip(guards, nodes, strict=True):
            self.guards[node.index, guard.kind] = Guard(node, guard.kind, guard.answer)

    def value(self, node: Expression) -> Array:
        """The value of a node at the arguments at hand."""
        if node.graph is not self:
            assert isinstance(node.graph, Tracing)
            return node.graph.value(node)
        defined = definitions(self.system)
        values = self.values
        outer = {variable.index: value for value, variable in self.captured.items()}
        with np.errstate(all="ignore"):
            for n in ancestors([node], lambda n: n.index in values, defined):
                if n.index in values:
                    continue
                if isinstance(n, Constant):
                    values[n.index] = n.value
                elif n.index in defined:
                    values[n.index] = values[defined[n.index].index]
                elif n.index in outer:
                    assert self.outer is not None
                    values[n.index] = self.outer.value(outer[n.index])
                elif isinstance(n, Variable):
                    self._solve_for(n)
                else:
                    assert n.primitive is not None
                    kernel = n.primitive.kernel(n.parameters)
                    values[n.index] = kernel(*[values[a.index] for a in n.arguments])
        return values[node.index]

    def _solve_for(self, unknown: Variable) -> None:
        """Find the values of the unknowns that one implicit function introduced."""
        group = next(g for g in self.system.groups if unknown in g.unknowns)
        arguments = [self.value(node) for node in group.arguments]
        start = [v.start for v in group.unknowns]
        found = group.approach.finish(arguments, start)
        for variable, value in zip(group.unknowns, found, strict=True):
            self.values[variable.index] = value


@dataclass(frozen=True, eq=False)
class Argument:
    """A nested argument as parameters: their names, and the values or outer expressions given."""

    tree: Tree
    names: tuple[Any, ...]
    given: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """A function at some arguments, as a program.

    Attributes
    ----------
    program : Program
        The structure; equal ones are one object.
    arguments : tuple of Argument
        Those that the program has parameters for.
    outputs : tuple of str
        The names of the variables that are returned.
    tree : Tree
        The structure of what is returned.
    values : dict
        For each parameter and array of data its value at hand.
    captured : dict
        For data that are values of a function traced around this one, that value.
    starts : dict
        Where unknowns start.
    guards : tuple of Guard
        What was asked on the way, by nodes of the program.
    passed : tuple of str or None
        For each leaf of all arguments the name of what it became, if anything.
    """

    program: Program
    arguments: tuple[Argument, ...]
    outputs: tuple[str, ...]
    tree: Tree
    values: dict[str, Array]
    captured: dict[str, Expression]
    starts: dict[str, Array]
    guards: tuple[Guard, ...]
    passed: tuple[str | None, ...]

    @property
    def parameters(self) -> list[str]:
        """The names of all parameters, argument by argument."""
        return [name for argument in self.arguments for name in argument.names]

    @property
    def given(self) -> dict[str, Any]:
        """What each parameter was given: an array, or a value of an outer function."""
        return {
            name: value
            for argument in self.arguments
            for name, value in zip(argument.names, argument.given, strict=True)
        }

    @property
    def symbolic(self) -> bool:
        """Whether a function traced around this one has a part in it."""
        given = (value for argument in self.arguments for value in argument.given)
        return bool(self.captured) or any(isinstance(value, Expression) for value in given)


@contextmanager
def entered(graph: Tracing) -> Iterator[None]:
    token = CURRENT.set(graph)
    try:
        yield
    finally:
        CURRENT.reset(token)
        graph.recording = False


def argument_names(function: Callable[..., Any], count: int) -> list[str]:
    """Names for so many positional arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [*positional, *(f"argument_{k}" for k in range(len(positional), count))][:count]


def identifier_of(path: str, system: Program) -> str:
    """A path as a name that the system has not yet."""
    name = re.sub(r"\W", "_", path)
    return system.free(name if name.isidentifier() else f"_{name}")


def name_of(function: Callable[..., Any]) -> str:
    name = str(getattr(function, "__name__", type(function).__name__))
    return "function" if name == "<lambda>" else name


def trace(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    positions: Sequence[int],
    *,
    opaque: bool = True,
    shared: bool = True,
    passed: bool = False,
) -> Trace:
    """A call of a function as a program, its arguments at `positions` as parameters.

    With `passed` floats among the other arguments become data by name.
    """
    name = name_of(function)
    program = Program(name)
    outer = tracing()
    graph = program.arena = Tracing(name, program, outer, opaque)
    keywords = sorted(kwargs)
    names = [*argument_names(function, len(args)), *keywords]
    traced = [*args, *(kwargs[name] for name in keywords)]
    found: dict[int, Argument] = {}
    for position in positions:
        found[position], traced[position] = parameters_of(
            traced[position], names[position], graph, "parameter"
        )
    arguments = [found[position] for position in positions]
    if passed:
        for k in range(len(traced)):
            if k not in found:
                found[k], traced[k] = parameters_of(traced[k], names[k], graph, "data")
    own = [name for k in range(len(traced)) if k in found for name in found[k].names]
    with entered(graph):
        count = len(args)
        result = function(*traced[:count], **dict(zip(keywords, traced[count:], strict=True)))
        leaves, tree = flatten(result)
        roots = [output_of(leaf, graph, name) for leaf in leaves]
    if result is None:
        raise InvalidFunction(f"{name} returned None; return the value to be differentiated.")
    outputs = tuple(
        program.define(identifier_of(path, program), root).name
        for path, root in zip(tree.paths("output"), roots, strict=True)
    )
    captured = {variable.name: value for value, variable in graph.captured.items()}
    given = {
        v.name: graph.values[v.index]
        for v in program.variables.values()
        if v.index in graph.values and v.role in ("parameter", "data")
    }
    starts = {v.name: v.start for v in program.with_role("unknown")}
    guards = tuple(graph.guards.values())
    if shared:
        known = interned(program, guards)
        if known is not program:
            program.arena.ended = True
            guards = tuple(Guard(known.arena.nodes[g.node.index], g.kind, g.answer) for g in guards)
        program = known
    return Trace(
        program, tuple(arguments), outputs, tree, given, captured, starts, guards, tuple(own)
    )


def traceable(leaf: Any) -> bool:
    """Whether a leaf that nothing is differentiated by is data: a float, or an array of floats."""
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind == "f"
    return isinstance(leaf, (float, np.floating))


def parameters_of(value: Any, name: str, graph: Tracing, role: str) -> tuple[Argument, Any]:
    """A nested argument, and the same with variables for its leaves."""
    leaves, tree = flatten(value)
    names: list[str | None] = []
    variables = []
    for path, leaf in zip(tree.paths(name), leaves, strict=True):
        if role == "data" and not traceable(leaf):
            names.append(None)
            variables.append(leaf)
            continue
        array = at_hand(leaf, f"argument {path!r}")
        own = identifier_of(path, graph.system)
        variable = graph.system.leaf(own, role, array.shape, array.dtype, None)
        graph.values[variable.index] = array
        variables.append(variable)
        names.append(own)
    return Argument(tree, tuple(names), tuple(leaves)), tree.unflatten(variables)


def at_hand(leaf: Any, what: str) -> Array:
    """The numbers of a leaf, which may be traced."""
    if isinstance(leaf, Expression):
        if not isinstance(leaf.graph, Tracing):
            raise UnsupportedType(f"{what} is {leaf!r}; expected numbers.")
        if leaf.graph.ended:
            leaf.graph.asked(leaf, "a value")
        leaf = leaf.graph.value(leaf)
        array = np.asarray(leaf)
        return array if array.dtype.kind == "f" else array.astype(float)
    return real_floats(what, leaf)


def output_of(leaf: Any, graph: Tracing, name: str) -> Expression:
    """A leaf of a function's result as a node."""
    if type(leaf) in NUMBERS and not isinstance(leaf, float):
        raise InvalidFunction(
            f"{name} returned the {type(leaf).__name__} {leaf!r}, which depends on no argument; "
            "return a traced value or a float."
        )
    try:
        node = graph.lift(leaf)
    except UnsupportedType as error:
        raise InvalidFunction(f"{name} returned {leaf!r}, which is no array: {error}") from None
    return node


# Programs by their structure, so that what was compiled for one serves all. Bounded: the one that
# was not asked for longest makes room.
SHARED: OrderedDict[Any, Program] = OrderedDict()
SHARED_AT_MOST = 256
SHARED_LOCK = Lock()


def structure_key(program: Program, guards: Sequence[Guard]) -> tuple[Any, ...]:
    """What two programs have in common that differ in numbers only."""
    nodes = program.arena.nodes
    described: list[Any] = []
    for node in nodes:
        if isinstance(node, Variable):
            described.append((node.name, node.role, node.shape, node.dtype.str))
        elif isinstance(node, Constant):
            value = node.value
            number = type(value) in NUMBERS
            described.append(
                (type(value), repr(value))
                if number
                else (value.dtype.str, value.shape, value.tobytes())
            )
        else:
            described.append((node.primitive, node.parameters, *[a.index for a in node.arguments]))
    constraints = tuple(
        (c.name, c.lhs.index, c.rhs.index, None if c.residual is None else c.residual.index)
        for c in program.constraints.values()
    )
    groups = tuple(group.key for group in program.groups)
    asked = tuple((g.node.index, g.kind) for g in guards)
    return (tuple(described), constraints, groups, asked)


def interned(program: Program, guards: Sequence[Guard] = ()) -> Program:
    """The program of this structure that was compiled before, or this one, compiled."""
    try:
        key = structure_key(program, guards)
        hash(key)
    except TypeError:
        key = None
    if key is not None:
        with SHARED_LOCK:
            found = SHARED.get(key)
            if found is not None:
                SHARED.move_to_end(key)
                return found
    program.compiled()
    program.arena.ended = True
    for variable in program.variables.values():
        if variable.role == "unknown":
            variable.start = np.broadcast_to(variable.dtype.type(0), variable.shape)
    arena = program.arena
    assert isinstance(arena, Tracing)
    arena.values, arena.captured, arena.arrays = {}, {}, {}
    if key is not None:
        with SHARED_LOCK:
            SHARED[key] = program
            while len(SHARED) > SHARED_AT_MOST:
                SHARED.popitem(last=False)
    return program
