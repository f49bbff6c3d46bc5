"""Functions with their traces kept, for hot paths."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from threading import RLock
from types import MethodType
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sparse

from lagrad.compiler.finite import all_finite
from lagrad.errors import LagradError
from lagrad.expressions.real_arrays import real_array
from lagrad.programs.explicit_gradient import ExplicitGradient, LookCloser
from lagrad.public import Public
from lagrad.systems.system import real_floats
from lagrad.transforms.closure_walk import ATOMS
from lagrad.transforms.closure_watch import Copies, Watch, common_states
from lagrad.transforms.gradient import Primal
from lagrad.transforms.kept_traces import OTHER_BRANCH, Branches, Kept
from lagrad.transforms.source_lines import raise_with_line
from lagrad.transforms.trace import Trace, trace, traceable
from lagrad.transforms.tracing_graph import Guards, tracing
from lagrad.transforms.transform import ByName, Keeper, Transform
from lagrad.trees import flatten
from lagrad.typing import Array, Function, Indices

F = TypeVar("F", bound=Function)
# Traces that are kept at most, and the bytes that they may hold beyond a few.
KEPT = 1024
HELD = 2**28
FEW = 32
# Structures of arguments that an express way is kept for.
KEYS = 256


class Compiled(Public, Keeper):
    """A function, or the derivative of one, that is traced again only where it must be."""

    def __init__(self, function: Function) -> None:
        inner = function.transform if isinstance(function, Compiled) else function
        self.transform: Transform = inner if isinstance(inner, Transform) else Primal(inner)
        self.function = self.transform.plain
        self.watch: Watch | None = None
        self.kept: OrderedDict[Kept, tuple[Any, ...]] = OrderedDict()
        self.branches: dict[tuple[Any, ...], Branches] = {}
        self.express: dict[Any, Callable[[Sequence[Array]], Any]] = {}
        self.held = 0
        self.lock = RLock()
        self.__name__ = f"compiled_{getattr(function, '__name__', 'function')}"
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing() is not None:
            return self.__wrapped__(*args, **kwargs)
        try:
            return self.run(self.transform, args, kwargs)
        except LookCloser:
            return self.function(*args, **kwargs)
        except LagradError as error:
            positions = self.transform.positions(len(args))
            raise_with_line(error, self.function, args, kwargs, positions)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else MethodType(self, owner)

    def __reduce__(self) -> Any:
        # Elsewhere it is traced again.
        return compile, (self.__wrapped__,)

    def run(self, transform: Transform, args: Sequence[Any], kwargs: ByName) -> Any:
        """What a transform makes of the function, from a kept trace where one holds."""
        watch = self.watch
        if watch is not None and not watch.unchanged():
            self._forget()
        bare = None if kwargs else bare_arrays(args)
        if bare is not None:
            express = self.express.get((transform, bare[1]))
            if express is not None and (result := express(bare[0])) is not OTHER_BRANCH:
                return result
        call = Call(args, kwargs, transform.positions(len(args)))
        branches = self.branches.get(call.key)
        found = None if branches is None else branches.find(transform, call.bound)
        if found is None:
            return self._trace(transform, call)
        kept, result = found
        self._used(kept, call.key)
        if bare is not None and kept.guards is None:
            self._hasten((transform, bare[1]), kept)
        return result

    def _trace(self, transform: Transform, call: "Call") -> Any:
        """What a transform makes of a new trace, which is kept."""
        common, before = common_states(), {} if self.watch is None else self.watch.states()
        copies = Copies() if self.watch is None else self.watch.copies
        positions = call.positions
        try:
            fresh = trace(
                transform.plain, call.args, call.kwargs, positions, passed=True, copied=copies
            )
        finally:
            # What the function changes itself, a counter say, has not changed since.
            watch = Watch([transform.plain, *call.opaque, *self._opaque()], copies)
            self.watch = watch
        # What draws random numbers, or takes what an iterator yields next, does so at every call.
        drawn = common != common_states() or before != watch.states()
        if not drawn and not watch.fleeting:
            guards = Guards(fresh.program, fresh.guards) if fresh.guards else None
            with self.lock:
                self._keep(Kept(for_any_call(fresh), guards), call.key)
        return transform.numbers(fresh)

    def _opaque(self) -> list[Any]:
        """The objects that traces were given, and that are still there."""
        parts = [part for key in [*self.branches] for part in key if isinstance(part, Same)]
        return [part.object() for part in parts]

    def _keep(self, kept: Kept, key: tuple[Any, ...]) -> None:
        branches = self.branches.setdefault(key, Branches(self.lock))
        for other in branches.add(kept):  # as where two threads have traced the same
            if self.kept.pop(other, None) is not None:
                self.held -= other.nbytes
        self.kept[kept] = key
        self.held += kept.nbytes
        while len(self.kept) > KEPT or (self.held > HELD and len(self.kept) > FEW):
            last, key = self.kept.popitem(last=False)
            self.held -= last.nbytes
            if (found := self.branches.get(key)) is not None:
                found.remove(last)
                if not found.kept:
                    del self.branches[key]

    def _used(self, kept: Kept, key: tuple[Any, ...]) -> None:
        with self.lock:
            if kept in self.kept:  # another thread may have let it go
                self.kept.move_to_end(kept)
                self.branches[key].kept.move_to_end(kept)

    def _forget(self) -> None:
        with self.lock:
            self.kept.clear()
            self.branches.clear()
            self.express.clear()
            self.held = 0

    def _hasten(self, key: Any, kept: Kept) -> None:
        """Keep a shorter way for the next call that is like this one."""
        if (line := key[0].straight(kept.trace)) is not None:
            while len(self.express) >= KEYS:
                del self.express[next(iter(self.express))]
            self.express[key] = straight_way(key[0], kept.trace, line)


def for_any_call(found: Trace) -> Trace:
    """A trace without what it was given, which is another's at each call."""
    own = {name: value for name, value in found.values.items() if name not in found.passed}
    arguments = tuple([replace(a, given=(None,) * len(a.names)) for a in found.arguments])
    call = replace(found.call, args=(), kwargs={})
    inside = tuple([replace(guard, border=False) for guard in found.guards])
    return replace(found, values=own, arguments=arguments, call=call, guards=inside)


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
    transform: Transform, trace: Trace, line: ExplicitGradient
) -> Callable[[Sequence[Array]], Any]:
    """A kept trace for bare arrays, without branches and without equations: one plan."""
    place = {name: k for k, name in enumerate(trace.passed) if name is not None}
    # Of each input, its place among the arguments' leaves, or its value.
    inputs = [(place.get(name), trace.values.get(name)) for name in line.inputs]
    arranged = transform.arrangement(trace)
    quick = line.quick([name for name in line.inputs if name in place])

    def express(args: Sequence[Array]) -> Any:
        if quick is not None:
            found = quick([value if k is None else args[k] for k, value in inputs])
            if found is not None:
                return arranged(found)
        if not all_finite(args):
            return OTHER_BRANCH
        found = line([value if k is None else args[k] for k, value in inputs], hot=True)
        return OTHER_BRANCH if found is None else arranged(found)

    return express


class Same:
    """An object as it is, told from others by identity, as long as it is there."""

    def __init__(self, value: Any) -> None:
        self.object: Callable[[], Any]
        try:
            self.object = weakref.ref(value)
        except TypeError:
            self.object = lambda: value
        self.hash = id(value)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return False
        mine = self.object()
        return mine is not None and mine is other.object()


class Call:
    """The arguments of a call: what is traced of them, and what must be the same."""

    def __init__(self, args: Sequence[Any], kwargs: ByName, positions: Indices) -> None:
        self.args, self.kwargs, self.positions = tuple(args), kwargs, positions
        self.leaves: list[Any] = []
        self.opaque: list[Any] = []
        described: list[Any] = [positions, tuple(sorted(kwargs))]
        for k, value in enumerate([*args, *(kwargs[name] for name in sorted(kwargs))]):
            leaves, tree = flatten(value)
            self.leaves += leaves
            described.append(tree)
            described += [as_number(x) if k in positions else self.as_given(x) for x in leaves]
        self.key = tuple(described)

    def as_given(self, leaf: Any) -> Any:
        """Shape and dtype of floats, which are data; what else is given must be the same."""
        if traceable(leaf):
            return np.shape(leaf), np.asarray(leaf).dtype.str
        if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
            return leaf.shape, leaf.dtype.str, digest(leaf)
        if sparse.issparse(leaf):
            entries = leaf.tocoo()
            parts = (entries.data, *entries.coords)
            return type(leaf), leaf.shape, leaf.dtype.str, *map(digest, parts)
        if isinstance(leaf, ATOMS):
            return type(leaf), leaf if leaf == leaf != 0 else repr(leaf)
        self.opaque.append(leaf)
        return Same(leaf)

    def bound(self, kept: Trace) -> Trace:
        """A kept trace with the values of this call."""
        values = dict(kept.values)
        for name, leaf in zip(kept.passed, self.leaves, strict=True):
            if name is not None:
                what = f"argument {name!r}"
                data = kept.program.variables[name].role == "data"
                values[name] = real_array(leaf, what) if data else real_floats(what, leaf, True)
        if not kept.unfollowed:
            return replace(kept, values=values)
        # What asked for a float is called again, to be compared with differences.
        call = replace(kept.call, args=self.args, kwargs=self.kwargs)
        return replace(kept, values=values, call=call)


def as_number(leaf: Any) -> Any:
    """The shape and dtype of what is differentiated by; integers are promoted."""
    array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
    return array.shape, array.dtype.str if array.dtype.kind == "f" else "<f8"


def digest(array: Array) -> bytes:
    """The bytes of a small array, and what tells those of a large one from all others."""
    found = array.tobytes()
    return found if len(found) <= 256 else blake2b(found, digest_size=32).digest()


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
        argument are new, where an `if` or `while` on a traced value would go another way, where
        anything has changed that it may read of its variables, globals, defaults, containers,
        arrays, objects, classes and modules, and always where it draws random numbers.

    Notes
    -----
    Not seen are changes outside of Python's objects (files, clocks, the environment), inside of
    installed libraries, and those that the function makes itself while it is traced: a counter
    counts traces, not calls.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lg.compile(lg.grad(lambda x: x**2 if x > 0 else -x))
    >>> float(f(3.0)), float(f(-3.0)), float(f(4.0))
    (6.0, -1.0, 8.0)
    """
    return cast("F", Compiled(function))
