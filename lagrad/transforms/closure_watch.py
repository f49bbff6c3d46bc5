"""What a function closes over, as it was, so that a change is noticed: any, and exactly.

Objects are compared by identity, with references held, so that none can take another's place;
numbers and strings by value; arrays entry by entry with a copy, at the speed of memory.
"""

import gc
import operator
import pickle
import random
from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np

from lagrad.transforms.closure_walk import ATOMS, Reached
from lagrad.typing import Array

MISSING = object()
# Arrays of so many bytes are compared at once, larger ones in pieces that stay in cache.
SMALL = 4096
PIECE = 32_768
# Between the referents of one container and those of the next, which begin anywhere otherwise.
BETWEEN = (object(),)


def words(array: Array) -> Array:
    """The memory of a contiguous array as whole words; a view."""
    bits = array.ravel(order="K").view(np.uint8)
    return bits[: bits.size // 8 * 8].view(np.int64)


def identical(a: Array, b: Array) -> bool:
    """Whether two arrays have the same bits: zeros have signs, and NaN is itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    alike = a.strides == b.strides and (a.flags.c_contiguous or a.flags.f_contiguous)
    if a.nbytes <= SMALL or not alike or a.dtype.hasobject:
        return bool(a.tobytes() == b.tobytes())
    one, other = words(a), words(b)
    pieces = range(0, one.size, PIECE)
    rest = a.nbytes % 8
    return all((one[k : k + PIECE] == other[k : k + PIECE]).all() for k in pieces) and (
        not rest or a.ravel(order="K")[-8:].tobytes() == b.ravel(order="K")[-8:].tobytes()
    )


class Copies:
    """One copy of each array, whoever asks for it, as long as the array does not change."""

    def __init__(self, kept: Iterable[tuple[Array, Array]] = ()) -> None:
        self.held = {id(array): (array, copy) for array, copy in kept}

    def __call__(self, array: Any) -> Array:
        known = self.held.get(id(array))
        if known is None or not identical(array, known[1]):
            copy = np.array(array)
            copy.flags.writeable = False
            known = self.held[id(array)] = (array, copy)
        return known[1]


def same(a: Any, b: Any) -> bool:
    """Whether one value is as good as another: the same object, or an equal number or string."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, (float, complex)):
        return repr(a) == repr(b)
    if isinstance(a, np.generic):
        return bool(a.dtype == b.dtype and a.tobytes() == b.tobytes())
    if type(a) is tuple:
        return alike(a, b)
    return isinstance(a, ATOMS) and bool(a == b)


def alike(now: Sequence[Any], then: Sequence[Any]) -> bool:
    return len(now) == len(then) and (all(map(is_, now, then)) or all(map(same, now, then)))


class Namespace:
    """Some names of a dict, as they are, those among them that are not there."""

    def __init__(self, state: Mapping[str, Any], names: Iterable[str]) -> None:
        self.names = sorted(names)
        present = [name for name in self.names if name in state]
        self.absent = frozenset(self.names).difference(present)
        # One that is asked twice, since of a single name a getter makes no tuple.
        self.read = operator.itemgetter(*present, *present[:1]) if present else None
        self.values = () if self.read is None else self.read(state)

    def read_into(self, found: list[Any], state: Mapping[str, Any]) -> bool:
        """Add the values that are there now; whether they are of the same names."""
        if self.absent and not state.keys().isdisjoint(self.absent):
            return False
        try:
            found += () if self.read is None else self.read(state)
        except KeyError:
            return False
        return True


class Owner:
    """The attributes of an object, a class or a module that count, as they are."""

    def __init__(self, owner: Any, reached: Reached) -> None:
        self.owner, self.kind, self.reached = owner, type(owner), reached
        self.keys = list(owner.__dict__)
        self.space = Namespace(owner.__dict__, reached.attributes(owner))

    def read_into(self, found: list[Any]) -> bool:
        """Add their values; whether they are those of the same names, of the same class."""
        state = self.owner.__dict__
        if type(self.owner) is not self.kind:
            return False
        if list(state) != self.keys:
            if sorted(self.reached.attributes(self.owner)) != self.space.names:
                return False
            self.keys = list(state)
        return self.space.read_into(found, state)


def state_of(generator: Any) -> Any:
    """What a random generator will draw next."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    bits = getattr(generator, "bit_generator", generator)
    return pickle.dumps(bits.get_state() if isinstance(bits, np.random.RandomState) else bits.state)


def common_states() -> tuple[Any, ...]:
    """What `random` and `np.random` will draw next where no generator of one's own is asked."""
    _, *state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), [np.asarray(part).tobytes() for part in state]


class Watch:
    """What some functions and objects depend on, as it is now."""

    def __init__(self, roots: Iterable[Any], copies: Copies) -> None:
        reached = Reached(roots)
        self.generators, self.fleeting = reached.generators, reached.fleeting
        self.holders = [part for holder in reached.holders for part in (holder, BETWEEN)]
        self.dicts = [(d, list(d)) for d in reached.dicts]
        self.buffers = [(b, bytes(b)) for b in reached.buffers]
        self.owners = [Owner(owner, reached) for owner in reached.owners]
        variables = reached.variables.values()
        self.spaces = [(state, Namespace(state, names)) for state, names in variables]
        # All that is compared by identity, in a row.
        self.found = gc.get_referents(*self.holders)
        for _, space in self.spaces:
            self.found += space.values
        self.contexts = reached.contexts
        self.found += [variable.get(None) for variable in self.contexts]
        for owner in self.owners:
            self.found += owner.space.values
        arrays = [(a, copies(a)) for a in reached.arrays if not a.dtype.hasobject]
        self.objects = [(a, a.ravel().tolist()) for a in reached.arrays if a.dtype.hasobject]
        self.copies = Copies(arrays)
        self.small = [(a, a.shape, a.dtype, c.tobytes()) for a, c in arrays if a.nbytes <= SMALL]
        self.large = [(a, copy) for a, copy in arrays if a.nbytes > SMALL]

    @property
    def nbytes(self) -> int:
        """The bytes of its copies."""
        return sum(copy.nbytes for _, copy in self.copies.held.values())

    def unchanged(self) -> bool:
        """Whether all of it is as it was."""
        found = gc.get_referents(*self.holders)
        for state, space in self.spaces:
            if not space.read_into(found, state):
                return False
        if self.contexts:
            found += [variable.get(None) for variable in self.contexts]
        for owner in self.owners:
            if not owner.read_into(found):
                return False
        if not alike(found, self.found):
            return False
        for table, keys in self.dicts:
            if not alike(list(table), keys):
                return False
        for array, shape, dtype, bits in self.small:
            if array.shape != shape or array.dtype != dtype or array.tobytes() != bits:
                return False
        for array, copy in self.large:
            if not identical(array, copy):
                return False
        for array, items in self.objects:
            if not alike(array.ravel().tolist(), items):
                return False
        return not self.buffers or all(bytes(buffer) == held for buffer, held in self.buffers)

    def states(self) -> dict[int, Any]:
        """What each random generator will draw next."""
        return {id(g): state_of(g) for g in self.generators}
