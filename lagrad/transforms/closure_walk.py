"""What a function may read when it runs, found by what its code names.

From a function one comes to others through the variables of the functions around it, globals and
defaults; through the entries of containers, wherever they are; and through those attributes of
modules, classes and objects that some code which is reached names. Which of them run is not
asked: all of them may.
"""

import collections
import contextvars
import dis
import functools
import gc
import operator
import random
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse

ATOMS = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype, range, type(...))
# Packages without state of the user's in their modules. Their objects may have some.
LIBRARIES = sys.stdlib_module_names - {"__main__"} | {
    *("lagrad", "numpy", "scipy", "sklearn", "pandas", "numba", "jax", "jaxlib", "torch", "sympy"),
    *("networkx", "matplotlib", "joblib", "tqdm", "pytest", "_pytest", "hypothesis"),
}
# Machinery: what one comes to through a logger or a lock is no number of the user's.
MACHINERY = {
    *("logging", "threading", "_thread", "io", "_io", "socket", "multiprocessing", "concurrent"),
    *("asyncio", "subprocess", "unittest", "warnings", "re", "pytest", "_pytest", "matplotlib"),
    *("tqdm", "ctypes", "_ctypes", "importlib", "_frozen_importlib", "inspect", "ast", "abc"),
}
# Whose objects are read by the user's code alone, name by name.
NAMESPACES = {"types", "argparse", "_thread"}
GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
# What reads attributes whose names no code shows.
REFLECTIVE = {"getattr", "vars", "eval", "exec", "globals", "attrgetter", "asdict", "astuple"}
REFLECTIVE |= {"__dict__", "__getattribute__", "methodcaller", "fields", "getmembers"}
# Special methods that no computation calls.
SHOWING = {"__repr__", "__str__", "__format__", "__reduce__", "__reduce_ex__", "__getstate__"}
SHOWING |= {"__setstate__", "__del__", "__dir__", "__sizeof__"}
LOADS = {"LOAD_GLOBAL", "LOAD_NAME"}
ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"}


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a piece of code names."""

    variables: frozenset[str]
    attributes: frozenset[str]
    modules: frozenset[str]


@functools.lru_cache(4096)
def mentions(code: types.CodeType) -> Mentions:
    """What a function, and the functions defined inside it, name."""
    variables: set[str] = set()
    attributes: set[str] = set()
    modules: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in LOADS:
            variables.add(instruction.argval)
        elif instruction.opname in ATTRIBUTES:
            attributes.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            modules.add(instruction.argval)
    for constant in constants(code.co_consts):
        if isinstance(constant, types.CodeType):
            inner = mentions(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            modules |= inner.modules
        else:
            attributes |= {part for part in constant.split(".") if part.isidentifier()}
    return Mentions(frozenset(variables), frozenset(attributes), frozenset(modules))


def constants(values: Iterable[Any]) -> Iterator[Any]:
    """The strings and code among constants, those in tuples too."""
    for value in values:
        if isinstance(value, (str, types.CodeType)):
            yield value
        elif isinstance(value, (tuple, frozenset)):
            yield from constants(value)


def of_library(module: Any) -> bool:
    return str(module).split(".")[0] in LIBRARIES


def has_slots(kind: type) -> bool:
    """Whether objects of a class keep attributes elsewhere than in a dict."""
    return any("__slots__" in base.__dict__ for base in kind.__mro__[:-1])


@dataclass
class Reached:
    """What one comes to from some objects.

    Attributes
    ----------
    holders : list
        Objects of whose referents every one counts.
    dicts : list
        Those whose keys count as well.
    owners : list
        Objects, classes and modules of whose attributes the named ones count.
    variables : dict
        By the identity of a module's globals these, and the names that are read of them.
    arrays, buffers : list
        Those whose entries count.
    generators : list
        Random ones.
    contexts : list
        Variables whose value is another one in another context.
    fleeting : bool
        Whether there is an iterator: what it yields is never read again.
    """

    roots: Iterable[Any]
    holders: list[Any] = field(default_factory=list)
    dicts: list[dict[Any, Any]] = field(default_factory=list)
    owners: list[Any] = field(default_factory=list)
    variables: dict[int, tuple[dict[str, Any], set[str]]] = field(default_factory=dict)
    arrays: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    generators: list[Any] = field(default_factory=list)
    contexts: list[contextvars.ContextVar[Any]] = field(default_factory=list)
    fleeting: bool = False
    # The names of attributes that some code reads, or that any may be.
    names: set[str] = field(default_factory=set)
    everything: bool = False

    def __post_init__(self) -> None:
        self.visited: dict[int, Any] = {}
        self.stack = list(self.roots)
        looked: tuple[int, ...] = ()
        while looked != (found := (len(self.owners), len(self.names), self.everything)):
            # Further names may be attributes of what was met before.
            looked = found
            for owner in self.owners:
                self.stack += self.attributes(owner).values()
            while self.stack:
                self._visit(self.stack.pop())

    def attributes(self, owner: Any) -> dict[str, Any]:
        """The attributes that count of an object, a class or a module, as they are."""
        state = owner.__dict__
        if self.everything and not isinstance(owner, types.ModuleType):
            return dict(state)
        found = {name: state[name] for name in self.names & state.keys()}
        if isinstance(owner, type):  # operators and calls name no method
            special = state.keys() - SHOWING
            found |= {n: state[n] for n in special if n.startswith("__") and callable(state[n])}
        return found

    def _visit(self, current: Any) -> None:
        if isinstance(current, ATOMS) or id(current) in self.visited:
            return
        self.visited[id(current)] = current
        kind = type(current)
        if isinstance(current, types.FunctionType):
            self._function(current)
        elif isinstance(current, types.ModuleType):
            if not of_library(current.__name__):
                self.owners.append(current)
        elif isinstance(current, type):
            if not of_library(current.__module__):
                self.owners.append(current)
                self.stack += (kind, *current.__mro__)
            self.everything |= current is operator.attrgetter
        elif isinstance(current, np.ndarray):
            self.arrays.append(current)
            self.stack += current.ravel().tolist() if current.dtype == object else ()
            self._own(current)
        elif isinstance(current, GENERATORS):
            self.generators.append(current)
        elif isinstance(current, (bytearray, memoryview)) or kind.__module__ == "array":
            self.buffers.append(current)
        elif isinstance(current, contextvars.ContextVar):
            self.contexts.append(current)
            self.stack.append(current.get(None))
        elif isinstance(current, weakref.ref):
            self.stack.append(current())
        elif isinstance(current, (list, tuple, set, frozenset, dict, collections.deque)):
            self._container(current)
        elif not callable(current) and hasattr(kind, "__next__"):
            self.fleeting |= kind.__module__ not in MACHINERY
        else:
            self._object(current)

    def _function(self, function: types.FunctionType) -> None:
        self.holders.append(function)
        self.stack += [function.__defaults__, function.__kwdefaults__]
        self.stack += function.__closure__ or ()
        if function.__dict__:
            self.owners.append(function)
        given = function.__globals__
        if of_library(given.get("__name__")):
            return
        said = mentions(function.__code__)
        variables = said.variables
        if "globals" in variables:
            variables = variables | {n for n in given if not n.startswith("__")}
        self.variables.setdefault(id(given), (given, set()))[1].update(variables)
        self.stack += [given[name] for name in variables & given.keys()]
        self.stack += [sys.modules.get(name) for name in said.modules]
        self.names |= said.attributes
        self.everything |= not REFLECTIVE.isdisjoint(variables | said.attributes)

    def _container(self, current: Any) -> None:
        if type(current) is not tuple:
            self.holders.append(current)
        items: Iterable[Any] = current
        if isinstance(current, dict):
            self.dicts.append(current)
            items = [*dict.keys(current), *dict.values(current)]
        # Of a million numbers none needs a visit.
        if not all(issubclass(kind, ATOMS) for kind in set(map(type, items))):
            self.stack += items
        if isinstance(current, collections.defaultdict):
            self.stack.append(current.default_factory)
        self._own(current)

    def _own(self, current: Any) -> None:
        """Attributes of what is looked at for something else, of a class of the user's."""
        if hasattr(current, "__dict__"):
            self.owners.append(current)
            self.stack.append(type(current))

    def _object(self, current: Any) -> None:
        kind = type(current)
        package = kind.__module__.split(".")[0]
        state = getattr(current, "__dict__", None)
        if package in MACHINERY and not isinstance(current, threading.local):
            return
        if package == "lagrad":
            # Transforms, and options that hold arrays; all else is the library's own state.
            self.stack.append(getattr(current, "__wrapped__", None))
            self.stack += gc.get_referents(current) if is_dataclass(current) else ()
            return
        named = package in NAMESPACES or not of_library(package)
        plain = isinstance(state, dict) and named
        if plain:
            self.owners.append(current)
        if sparse.issparse(current) and isinstance(state, dict):
            self.dicts.append(state)
        if plain and not has_slots(kind):
            self.stack.append(kind)
            return
        self.everything |= isinstance(current, (operator.attrgetter, operator.methodcaller))
        self.everything |= current is getattr or current is vars
        self.holders.append(current)
        found = gc.get_referents(current)
        self.stack += [value for value in found if not isinstance(value, types.ModuleType)]
