"""Functions with their traces kept, for hot paths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sparse

from lagrad.compiler.finite import all_finite
from lagrad.expressions.real_arrays import real_array
from lagrad.programs.explicit_gradient import ExplicitGradient
from lagrad.public import Public
from lagrad.systems.system import real_floats
from lagrad.transforms.closure_watch import Watch, inside, sample
from lagrad.transforms.gradient import Primal
from lagrad.transforms.trace import Trace, trace, traceable
from lagrad.transforms.tracing_graph import Guards, tracing
from lagrad.transforms.transform import ByName, Keeper, Transform
from lagrad.trees import flatten
from lagrad.typing import Array, Function, Indices

F = TypeVar("F", bound=Function)
# Traces that are kept for one structure of arguments: as many branches as that.
KEPT = 32
# And for how many structures.
KEYS = 256


@dataclass(frozen=True, eq=False)
class Kept:
    """A trace, with what it holds under."""

    trace: Trace
    watch: Watch
    guards: Guards | None


class Compiled(Public, Keeper):
    """A function, or the derivative of one, that is traced again only where it must be."""

    def __init__(self, function: Function) -> None:
        inner = function.transform if isinstance(function, Compiled) else function
        self.transform: Transform = inner if isinstance(inner, Transform) else Primal(inner)
        self.function = self.transform.plain
        self.kept: dict[Any, list[Kept]] = {}
        self.express: dict[Any, Callable[[Sequence[Array]], Any]] = {}
        self.__name__ = f"compiled_{getattr(function, '__name__', 'function')}"
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing() is not None:
            return self.__wrapped__(*args, **kwargs)
        return self.run(self.transform, args, kwargs)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else MethodType(self, owner)

    def run(self, transform: Transform, args: Sequence[Any], kwargs: ByName) -> Any:
        """What a transform makes of the function, from a kept trace where one holds."""
        bare = None if kwargs else bare_arrays(args)
        if bare is not None:
            express = self.express.get((transform, bare[1]))
            if express is not None and (result := express(bare[0])) is not OTHER_BRANCH:
                return result
        positions = transform.positions(len(args))
        call = Call(args, kwargs, positions)
        kept = self.kept.setdefault((positions, call.key), [])
        while len(self.kept) > KEYS:
            del self.kept[next(iter(self.kept))]
        for k, candidate in enumerate(kept):
            if not candidate.watch.unchanged():
                continue
            found = attempted(transform, call.bound(candidate.trace), candidate.guards)
            if found is not OTHER_BRANCH:
                if k:
                    kept.insert(0, kept.pop(k))
                elif bare is not None and candidate.guards is None:
                    self._hasten((transform, bare[1]), candidate)
                return found
        fresh = trace(transform.plain, args, kwargs, positions, passed=True)
        watch = Watch(transform.plain)
        kept[:] = [k for k in kept if k.watch.unchanged()][: KEPT - 1]
        guards = Guards(fresh.program, fresh.guards) if fresh.guards else None
        inside = tuple(replace(guard, border=False) for guard in fresh.guards)
        kept.insert(0, Kept(replace(fresh, guards=inside), watch, guards))
        return transform.numbers(fresh)

    def _hasten(self, key: Any, kept: Kept) -> None:
        """Keep a shorter way for the next call that is like this one."""
        if (line := key[0].straight(kept.trace)) is not None:
            while len(self.express) >= KEYS:
                del self.express[next(iter(self.express))]
            self.express[key] = straight_way(key[0], kept, line)


def bare_arrays(args: Sequence[Any]) -> tuple[list[Array], tuple[Any, ...]] | None:
    """The leaves of arguments that hold arrays of floats and nothing else, and what tells them."""
    leaves: list[Array] = []
    key: list[Any] = []
    for value in args:
        if type(value) is np.ndarray:
            leaves.append(value)
        else:
            found, tree = flatten(value)
            leaves += found
            key.append((len(leaves), tree))
    for leaf in leaves:
        if type(leaf) is not np.ndarray or leaf.dtype.char not in "df":
            return None
        key += (leaf.shape, leaf.dtype)
    return leaves, tuple(key)


def straight_way(
    transform: Transform, kept: Kept, line: ExplicitGradient
) -> Callable[[Sequence[Array]], Any]:
    """A kept trace for bare arrays, without branches and without equations: one plan."""
    place = {name: k for k, name in enumerate(kept.trace.passed) if name is not None}
    # Of each input, its place among the arguments' leaves, or its value.
    inputs = [(place.get(name), kept.trace.values.get(name)) for name in line.inputs]
    unchanged, arranged = kept.watch.unchanged, transform.arrangement(kept.trace)

    def express(args: Sequence[Array]) -> Any:
        if not unchanged() or not all_finite(args):
            return OTHER_BRANCH
        found = line([value if k is None else args[k] for k, value in inputs], hot=True)
        return OTHER_BRANCH if found is None else arranged(found)

    return express


# What a trace gives at arguments that take another branch.
OTHER_BRANCH = object()


def attempted(transform: Transform, bound: Trace, guards: Guards | None) -> Any:
    """What a kept trace gives; `OTHER_BRANCH` where it does not hold there."""
    if guards is None or guards.early:
        held = guards is None or (
            guards.hold(bound.values)
            and not (transform.differentiates and guards.on_border(bound.values))
        )
        return transform.numbers(bound) if held else OTHER_BRANCH
    at = transform.at(bound)
    try:
        solution = at.solution
    except Exception:
        # On a branch that is not taken anything may happen; one that is will say so again.
        return OTHER_BRANCH
    held = guards.hold(solution.by_name())
    return transform.result(at) if held else OTHER_BRANCH


class Call:
    """The arguments of a call: what is traced of them, and what must be the same."""

    def __init__(self, args: Sequence[Any], kwargs: ByName, positions: Indices) -> None:
        self.args, self.kwargs = tuple(args), kwargs
        self.leaves: list[Any] = []
        described: list[Any] = [tuple(sorted(kwargs))]
        for k, value in enumerate([*args, *(kwargs[name] for name in sorted(kwargs))]):
            leaves, tree = flatten(value)
            self.leaves += leaves
            described.append(tree)
            described += [as_number(leaf) if k in positions else as_given(leaf) for leaf in leaves]
        self.key = tuple(described)

    def bound(self, kept: Trace) -> Trace:
        """A kept trace with the values of this call."""
        values = dict(kept.values)
        for name, leaf in zip(kept.passed, self.leaves, strict=True):
            if name is not None:
                what = f"argument {name!r}"
                data = kept.program.variables[name].role == "data"
                values[name] = real_array(leaf, what) if data else real_floats(what, leaf)
        if not kept.unfollowed:
            return replace(kept, values=values)
        # What asked for a float is called again, to be compared with differences.
        call = replace(kept.call, args=self.args, kwargs=self.kwargs)
        return replace(kept, values=values, call=call)


def as_number(leaf: Any) -> Any:
    """The shape and dtype of what is differentiated by; integers are promoted."""
    array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
    return array.shape, array.dtype.str if array.dtype.kind == "f" else "<f8"


def as_given(leaf: Any) -> Any:
    """Shape and dtype of floats, which are data; what else is given must be the same."""
    if traceable(leaf):
        return np.shape(leaf), np.asarray(leaf).dtype.str
    if isinstance(leaf, np.ndarray):
        return leaf.shape, leaf.dtype.str, leaf.tobytes()
    if sparse.issparse(leaf):
        return id(leaf), leaf.shape, sample(leaf.tocsr().data)
    state = getattr(leaf, "__dict__", None)
    if state is not None and not isinstance(leaf, (FunctionType, ModuleType, type)):
        return id(leaf), tuple((k, inside(v)) for k, v in state.items())
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return type(leaf), leaf


def compile(function: F) -> F:  # noqa: A001
    """Return the same function with its trace kept.

    Parameters
    ----------
    function : callable
        A function in NumPy, or what `lg.grad` and its like made of one.

    Returns
    -------
    callable
        Of the same arguments. It is traced again where the shapes, dtypes or structure of an
        argument are new, where an `if` or `while` on a traced value would go another way, or
        where a variable that it closes over, or a global that it names, was bound anew. An array
        that it closes over and that was changed in place is noticed by a sample of its entries;
        an attribute changed inside an object is not. Pass such values as arguments.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lg.compile(lg.grad(lambda x: x**2 if x > 0 else -x))
    >>> float(f(3.0)), float(f(-3.0)), float(f(4.0))
    (6.0, -1.0, 8.0)
    """
    return cast("F", Compiled(function))
