"""Where the states that a loop stores are kept: in memory, or in a file.

The file is one that the system removes whatever happens to the process.
"""

import os
import re
import tempfile
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue
from lagrad.typing import Array, DType

State = list[Array]
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an integer, no truth, from some number on."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(value >= least)


def bytes_in(memory: Any) -> int:
    """A number of bytes, or a text like "64 MB" or "1.5 GiB"."""
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([kmgt]?)(i?)b?\s*", memory.lower())
        if found:
            number, unit, binary = found.groups()
            return int(float(number) * (1024 if binary else 1000) ** UNITS[unit])
    elif is_whole(memory, 1):
        return int(memory)
    raise InvalidValue(f"memory={memory!r}; expected bytes, or a text like '64 MB'.")


@dataclass(frozen=True, slots=True)
class Storage:
    """How many states are stored.

    Attributes
    ----------
    count : int
    near : int
        How many of them in memory.
    disk : str, optional
        The folder of the file of the others.
    """

    count: int
    near: int
    disk: str | None = None


class Shelf:
    """States by the step that they are before."""

    def __init__(self, storage: Storage, like: State) -> None:
        self._held: dict[int, State] = {}
        self._slots: dict[int, int] = {}
        self._free = list(range(storage.count - storage.near))
        self.count, self.near, self.most = storage.count, storage.near, 0
        if self._free:
            assert storage.disk is not None
            row = np.dtype([(f"array_{k}", a.dtype, a.shape) for k, a in enumerate(like)])
            self._file = mapped(storage.disk, len(self._free), row)

    @property
    def steps(self) -> list[int]:
        return sorted([*self._held, *self._slots])

    def put(self, step: int, state: State) -> None:
        # What is stored early on is needed last and seldom: that goes to the file.
        early = len(self._held) + len(self._slots) < self.count - self.near
        if self._free and (early or len(self._held) == self.near):
            slot = self._slots[step] = self._free.pop()
            self._file[slot] = tuple(state)
        else:
            self._held[step] = list(state)
        self.most = max(self.most, len(self._held) + len(self._slots))

    def get(self, step: int) -> State:
        if step in self._held:
            return self._held[step]
        return [np.array(array) for array in self._file[self._slots[step]]]

    def drop(self, step: int) -> None:
        if step in self._held:
            del self._held[step]
        else:
            self._free.append(self._slots.pop(step))


def mapped(folder: str, count: int, row: DType) -> Array:
    """A file of so many rows, mapped into memory, that has no name any more."""
    size = max(1, count * row.itemsize)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Now, and not when a page is first written to: then there would be no error but a kill.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for _ in range(max(1, count)):
                    file.write(bytes(max(1, row.itemsize)))
                file.flush()
            return np.memmap(file, row, "r+", shape=(count,))
    except OSError as error:
        raise InvalidValue(
            f"disk={folder!r}: no file of {size} bytes there: {error}. Name another "
            "folder, or store fewer states: checkpoints=…."
        ) from error


@dataclass
class Record:
    """What a run of a loop left for its reversal.

    Attributes
    ----------
    shelf : Shelf
    last : list of arrays
        The state before the last step.
    end : list of arrays
        The state after it, of a run that found its length.
    length : int
        That length.
    """

    shelf: Shelf
    last: State
    end: State = field(default_factory=list)
    length: int = -1


# By the identity of a loop's value, or its length's, for as long as that is there.
RECORDS: dict[int, Any] = {}


def recorded(value: Array, record: Any) -> Array:
    """The value, which a record is kept for."""
    RECORDS[id(value)] = record
    weakref.finalize(value, RECORDS.pop, id(value), None)
    return value
