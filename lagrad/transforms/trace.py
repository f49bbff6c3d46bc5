"""A call of a plain function as a program."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lagrad.errors import InvalidFunction, LagradError, LeakedValue, ShapeMismatch, UnsupportedType
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import stacked
from lagrad.expressions.real_arrays import NUMBERS, real_array
from lagrad.plain_text import as_read, printable
from lagrad.programs.program import Program
from lagrad.systems.system import real_floats
from lagrad.transforms.call_on_numbers import named, require_value
from lagrad.transforms.program_cache import interned
from lagrad.transforms.tracing_graph import Guard, NoValue, Tracing, entered, numbers, tracing
from lagrad.trees import Tree, flatten
from lagrad.typing import Array, Function, Indices


@dataclass(frozen=True, eq=False)
class TracedCall:
    """A function and what it was called with; `positions` are those of the trace's arguments."""

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    positions: Indices


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
    call : TracedCall
        The call itself.
    discrete : bool
        Whether a leaf of the result is of truths or integers.
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
    call: TracedCall
    discrete: bool

    @property
    def parameters(self) -> list[str]:
        """The names of all parameters, argument by argument."""
        return [name for argument in self.arguments for name in argument.names]

    @property
    def given(self) -> dict[str, Any]:
        """What each parameter was given: an array, or a value of an outer function."""
        values = [value for argument in self.arguments for value in argument.given]
        return dict(zip(self.parameters, values, strict=True))

    @property
    def enclosed(self) -> dict[str, Any]:
        """What the function closes over, by name: values of the outer trace, or numbers."""
        names = [v.name for v in self.program.with_role("data")]
        return {name: self.captured.get(name, self.values.get(name)) for name in names}

    @property
    def returned(self) -> list[Variable]:
        """The variables of its outputs."""
        return [self.program.variables[name] for name in self.outputs]

    def require_like(
        self, what: str, paths: Sequence[str], given: Sequence[Array], names: Sequence[str]
    ) -> None:
        """ShapeMismatch for a step whose outputs of these names are not like what it was given."""
        for path, array, name in zip(paths, given, names, strict=True):
            v = self.program.variables[name]
            if v.shape != array.shape or v.dtype != array.dtype:
                raise ShapeMismatch(
                    f"{what} takes {path!r} of shape {array.shape} and dtype {array.dtype} to "
                    f"shape {v.shape} and dtype {v.dtype}; it must keep both."
                )

    def structure(self, single: bool) -> Tree:
        """That of the one argument, or of a tuple of all."""
        trees = tuple([argument.tree for argument in self.arguments])
        return trees[0] if single else Tree(tuple, tuple(range(len(trees))), trees)

    @property
    def result(self) -> Argument:
        """What the function returned, as an argument of a pull-back."""
        return Argument(self.tree, self.outputs, ())

    @property
    def unfollowed(self) -> bool:
        """Whether something was asked of it past which a derivative may not go on."""
        return not all(guard.followed for guard in self.guards)

    @property
    def symbolic(self) -> bool:
        """Whether a function traced around this one has a part in it."""
        return bool(self.captured) or any(isinstance(v, Expression) for v in self.given.values())


def argument_names(function: Function, count: int) -> list[str]:
    """Names for so many positional arguments."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p.name for p in parameters if p.kind in kinds]
    return [*positional, *(f"argument_{k}" for k in range(len(positional), count))][:count]


def identifier_of(path: str, system: Program) -> str:
    """A path as a name that the system has not yet."""
    if not path.isidentifier():
        path = "".join(c if f"_{c}".isidentifier() else "_" for c in as_read(path))
        path = path if path.isidentifier() else f"_{path}"
    return system.free(as_read(path))


def name_of(function: Function) -> str:
    name = printable(getattr(function, "__name__", type(function).__name__))
    return "function" if name == "<lambda>" else name


def trace(
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    positions: Sequence[int],
    *,
    shared: bool = True,
    passed: bool = False,
    repeating: bool = False,
    otherwise: int = -1,
    copied: Callable[[Any], Array] = np.array,
) -> Trace:
    """A call of a function as a program, its arguments at `positions` as parameters.

    One that is not `shared` is a program of its own, which has the arrays that the function closes
    over as constants. With `passed` floats among the other arguments become data by name. One that
    is `repeating` stands for all steps of a loop. The question number `otherwise` that Python asks
    of a value is answered the other way. Arrays that it closes over are `copied`.
    """
    if not callable(function):
        raise InvalidFunction(f"{function!r} is no function.")
    name = name_of(function)
    graph = Tracing(name, tracing(), shared, repeating)
    graph.copied, graph.otherwise = copied, otherwise
    try:
        return traced_by(graph, function, args, kwargs, positions, passed)
    finally:
        graph.release()


def traced_by(
    graph: Tracing,
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    positions: Sequence[int],
    passed: bool,
) -> Trace:
    """A call of a function as a program, by a graph of its own."""
    program, name = graph.system, graph.name
    keywords = sorted(kwargs)
    names = [*argument_names(function, len(args)), *keywords]
    traced = [*args, *(kwargs[name] for name in keywords)]
    others = [k for k in range(len(traced)) if k not in positions] if passed else []
    found: dict[int, Argument] = {}
    for k in (*positions, *others):
        role = "parameter" if k in positions else "data"
        found[k], traced[k] = parameters_of(traced[k], names[k], graph, role)
    arguments = tuple([found[k] for k in positions])
    passes = tuple([name for k in sorted(found) for name in found[k].names])

    def called(taken: Sequence[Any]) -> Any:
        count = len(args)
        return function(*taken[:count], **dict(zip(keywords, taken[count:], strict=True)))

    def on_numbers() -> Any:
        taken = [*args, *(kwargs[name] for name in keywords)]
        for k in positions:
            known = [program.variables[name].index for name in found[k].names]
            taken[k] = found[k].tree.unflatten([np.array(graph.values[i])[()] for i in known])
        return called(taken)

    # What a function traced around this one does on numbers tells of this one too.
    outermost = graph.outer is None and not graph.repeating
    try:
        with entered(graph):
            result = called(traced)
            leaves, tree = flatten(result)
            roots = [output_of(leaf, graph, name) for leaf in leaves]
            discrete = any(root.dtype.kind != "f" for root in roots)
    except LagradError:
        raise
    except Exception as error:
        if not outermost or (culprit := named(name, on_numbers, error)) is None:
            raise
        raise culprit from error
    if result is None:
        raise InvalidFunction(f"{name} returned None; return the value to be differentiated.")
    if graph.outer is not None:
        graph.outer.handed |= graph.handed
    elif graph.handed and outermost:
        with suppress(NoValue):  # of derivatives, which are not solved for here
            single = any(v.dtype == np.float32 for v in program.with_role("parameter", "data"))
            ends = [graph.value(root) for root in roots]
            require_value(name, on_numbers, tree, ends, single)
    pairs = zip(tree.paths("output"), roots, strict=True)
    outputs = tuple(program.define(identifier_of(path, program), root).name for path, root in pairs)
    captured = {variable.name: value for value, variable in graph.captured.values()}
    leaves = [*program.with_role("parameter"), *program.with_role("data")]
    given = {v.name: graph.values[v.index] for v in leaves if v.index in graph.values}
    starts = {v.name: v.start for v in program.with_role("unknown")}
    guards = tuple(graph.guards.values())
    if graph.opaque:
        program = interned(graph, guards)
        if program is not graph.system:
            nodes = program.arena.nodes
            guards = tuple([replace(g, node=nodes[g.node.index]) for g in guards])
            graph.replaced_by(program)
    call = TracedCall(function, tuple(args), dict(kwargs), tuple(positions))
    return Trace(
        program, arguments, outputs, tree, given, captured, starts, guards, passes, call, discrete
    )


def unboxed(leaf: Any) -> Any:
    """A leaf, which may be np.asarray of a traced value, or an array of several."""
    return stacked(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype == object else leaf


def opened(value: Any) -> tuple[list[Any], Tree]:
    """The leaves of a nested value, each traced as a whole where it is, and its structure."""
    leaves, tree = flatten(value)
    return [unboxed(leaf) for leaf in leaves], tree


def traceable(leaf: Any) -> bool:
    """Whether a leaf that nothing is differentiated by is data: a float, or an array of floats."""
    if isinstance(leaf, np.ndarray):
        return bool(leaf.dtype.kind == "f")
    return isinstance(leaf, (float, np.floating))


def parameters_of(value: Any, name: str, graph: Tracing, role: str) -> tuple[Argument, Any]:
    """A nested argument, and the same with variables for its leaves."""
    leaves, tree = opened(value)
    if not leaves and role == "parameter":
        raise InvalidFunction(f"argument {name!r} is {value!r}, which has no arrays in it.")
    names: list[str | None] = []
    variables, taken = [], []
    for path, leaf in zip(tree.paths(name), leaves, strict=True):
        taken.append(leaf)
        if role == "data" and not traceable(leaf):
            names.append(None)
            variables.append(leaf)
            continue
        what = f"argument {path!r}"
        array = real_array(leaf, what) if role == "data" else at_hand(leaf, what)
        # "output" is the name of what comes back.
        own = identifier_of(f"{path}_" if path.split("_")[0] == "output" else path, graph.system)
        variable = graph.system.leaf(own, role, array.shape, array.dtype, None)
        graph.values[variable.index] = array
        variables.append(variable)
        names.append(own)
    return Argument(tree, tuple(names), tuple(taken)), tree.unflatten(variables)


def at_hand(leaf: Any, what: str) -> Array:
    """The numbers of a leaf, which may be traced."""
    if isinstance(leaf, Expression):
        if not isinstance(leaf.graph, Tracing):
            raise UnsupportedType(
                f"{what} is {leaf!r} of a declared program. Implicit functions stand in functions: "
                "write one, and take lg.trace of it where a program is wanted, or declare unknowns "
                "and equations."
            )
        current = tracing()
        inside = current is not None and (leaf.graph is current or current.encloses(leaf.graph))
        if not inside or leaf.graph.ended:
            raise LeakedValue(
                f"{what} is {leaf!r} of {leaf.graph.name!r}, whose trace is over, or goes on in "
                "another thread. Return values from the function instead of storing them, and "
                "call transforms in the thread of the function that is traced."
            )
        array = numbers(leaf)
        return array if array.dtype.kind == "f" else array.astype(float)
    return real_floats(what, leaf, infinite=True)


def start_of(value: Any, what: str) -> tuple[list[Any], Tree, list[Array]]:
    """The leaves of a start, its structure, and the numbers of each leaf."""
    leaves, tree = opened(value)
    if not leaves:
        raise InvalidFunction(f"{what} needs a start with at least one array; got {value!r}.")
    return leaves, tree, [at_hand(leaf, f"the start of {what}") for leaf in leaves]


def declared(value: Any) -> bool:
    """Whether a value is one of a declared program, which has no number yet."""
    return isinstance(value, Expression) and not isinstance(value.graph, Tracing)


def output_of(leaf: Any, graph: Tracing, name: str) -> Expression:
    """A leaf of a function's result as a node."""
    if type(leaf) in NUMBERS and not isinstance(leaf, float):
        raise InvalidFunction(
            f"{name} returned the {type(leaf).__name__} {leaf!r}, which depends on no argument; "
            "return a traced value or a float."
        )
    try:
        return graph.lift(leaf)
    except UnsupportedType as error:
        raise InvalidFunction(f"{name} returned {leaf!r}, which is no array: {error}") from None
