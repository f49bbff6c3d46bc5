"""What a function closes over, looked at so that a change can be noticed.

Python functions read variables of the functions around them, globals and defaults. Those are
compared by identity, numbers by value, and arrays by a sample of their entries as well.
"""

import dis
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.typing import Function

MISSING = object()
SAMPLED = 64
SUMMED = 200_000
# Entries of a list or a dict that are looked at.
LISTED = 1000
NUMBERS = (bool, int, float, complex, str, bytes, type(None))


def sample(value: Any) -> Any:
    """What is compared of an array beside its identity: all of a small one, some of a large one."""
    if value.size <= SAMPLED:
        return value.tobytes()
    laid = value if value.flags.c_contiguous else value.T
    if value.size > SUMMED or not laid.flags.c_contiguous:
        return np.asarray(value.flat[:: (value.size // SAMPLED) | 1]).tobytes()
    # Sums of all words by rows and by columns, which wrap around: a change of one entry, and a
    # change of places of two, changes some of them.
    data = laid.reshape(-1).view(np.uint8)
    whole = data.size // (8 * SAMPLED) * 8 * SAMPLED
    words = data[:whole].view(np.int64).reshape(-1, SAMPLED)
    sums = [np.add.reduce(words, axis=k).tobytes() for k in (0, 1)]
    return (*sums, data[whole:].tobytes())


def inside(item: Any) -> Any:
    """What tells an item of a container: its own, or those of a pair."""
    if isinstance(item, tuple):
        return tuple(repr(i) if isinstance(i, NUMBERS) else inside(i) for i in item)
    return (id(item), sample(item)) if isinstance(item, np.ndarray) else id(item)


def library_name(name: str | None) -> bool:
    """Whether a module belongs to a package that has no state of the user's."""
    return (name or "").split(".")[0] in ("lagrad", "numpy", "scipy", "sklearn", "math")


def itself(value: Any) -> Any:
    return value


class Watch:
    """The values that a function and the functions it names depend on, as they are now."""

    def __init__(self, function: Function) -> None:
        self.seen: list[tuple[Callable[[], Any], Any, Any]] = []
        visited: set[int] = set()
        stack: list[Any] = [function]
        while stack:
            current = stack.pop()
            if id(current) in visited:
                continue
            visited.add(id(current))
            if isinstance(current, functools.partial):
                values = (*current.args, *current.keywords.values())
                stack += [current.func, *(self.see(functools.partial(itself, v)) for v in values)]
            elif isinstance(current, types.MethodType):
                stack += [current.__func__, *self.attributes(current.__self__, current.__func__)]
            elif isinstance(current, types.FunctionType) and not library_name(current.__module__):
                for read in reads(current):
                    value = self.see(read)
                    stack += [value, *self.attributes(value, current)]
            elif hasattr(current, "__wrapped__"):
                stack.append(current.__wrapped__)
            elif isinstance(current, (list, tuple)) and len(current) <= SAMPLED:
                stack += [item for item in current if callable(item)]
            elif callable(current) and isinstance(
                call := type(current).__call__, types.FunctionType
            ):
                stack += [call, *self.attributes(current, call)]

    def see(self, read: Callable[[], Any]) -> Any:
        """Take note of a value, and of how it is read."""
        value = read()
        self.seen.append((read, value, self._detail(value)))
        return value

    def attributes(self, owner: Any, function: Any) -> list[Any]:
        """Take note of what a function may read of a module or an object of the user's."""
        code = getattr(function, "__code__", None)
        state: Any = getattr(owner, "__dict__", None)
        library = isinstance(owner, types.ModuleType) and library_name(owner.__name__)
        plain = isinstance(owner, (types.FunctionType, type)) or not isinstance(state, dict)
        if code is None or library or plain:
            return []
        # What the function itself changes, a counter say, would never be as it was.
        written = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}
        names = set(named_in(code)) & set(state) - written
        return [self.see(functools.partial(state.get, name, MISSING)) for name in sorted(names)]

    @staticmethod
    def _detail(value: Any) -> Any:
        """What is compared beside identity: of an array, or of a container, what is in it."""
        if isinstance(value, np.ndarray):
            return sample(value)
        if isinstance(value, (list, dict, set)) and len(value) <= LISTED:
            return inside(tuple(value.items() if isinstance(value, dict) else value))
        if sparse.issparse(value):
            return sample(np.asarray(value.tocsr().data))
        return None

    def unchanged(self) -> bool:
        """Whether all of it is as it was."""
        for read, value, detail in self.seen:
            now = read()
            if now is not value:
                if not isinstance(value, NUMBERS) or type(now) is not type(value) or now != value:
                    return False
            elif detail is not None and self._detail(now) != detail:
                return False
        return True


def reads(function: types.FunctionType) -> Iterator[Callable[[], Any]]:
    """Ways to read each variable that a function closes over, each global, each default."""
    for cell in function.__closure__ or ():
        yield functools.partial(contents, cell)
    for name in sorted({*named_in(function.__code__)} & function.__globals__.keys()):
        yield functools.partial(function.__globals__.get, name, MISSING)
    for attribute in ("__defaults__", "__kwdefaults__"):
        given = getattr(function, attribute)
        if given:
            # What is bound anew, and what is changed in place.
            yield functools.partial(getattr, function, attribute)
            values = given.values() if isinstance(given, dict) else given
            yield from (functools.partial(itself, value) for value in values)


def contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def named_in(code: types.CodeType) -> Iterator[str]:
    """The global and attribute names of a function and of the functions defined inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from named_in(constant)
