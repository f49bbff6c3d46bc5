"""Loops reversed from a few stored states, by Griewank and Walther's schedule.

The states between are computed again. Stored states are kept in memory, or in one file that the
system removes whatever happens to the process.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue

__all__ = ["RECORDS", "Record", "Shelf", "Storage", "bytes_in", "mapped", "recorded"]

Array = Any
State = list[Array]
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def bytes_in(memory: Any) -> int:
    """A number of bytes, or a text like "64 MB" or "1.5 GiB"."""
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b?\s*", memory.lower())
        if found:
            number, unit, binary = found.groups()
            try:
                return int(float(number) * (1024 if binary else 1000) ** UNITS[unit])
            except ValueError:
                pass
    elif isinstance(memory, (int, np.integer)) and not isinstance(memory, bool) and memory > 0:
        return int(memory)
    raise InvalidValue(f"memory={memory!r}; expected bytes, or a text like '64 MB'.")


@dataclass(frozen=True, slots=True)
class Storage:
    """How many states are stored, and the folder of their file, if not in memory."""

    count: int
    disk: str | None = None


class Shelf:
    """States by the step that they are before."""

    def __init__(self, storage: Storage, like: State) -> None:
        self._held: dict[int, State] = {}
        self._slots: dict[int, int] = {}
        self._free = list(range(storage.count))
        self._file: Array | None = None
        self.kinds = [(a.shape, a.dtype) for a in like]
        self.count = storage.count
        self.most = 0
        if storage.disk is not None:
            self._file = mapped(storage.disk, storage.count, sum(a.nbytes for a in like))

    def put(self, step: int, state: State) -> None:
        if self._file is None:
            self._held[step] = list(state)
        else:
            slot = self._slots[step] = self._free.pop()
            row = self._file[slot]
            for (begin, end), array in zip(self._spans(), state, strict=True):
                row[begin:end] = np.ravel(np.ascontiguousarray(array)).view(np.uint8)
        self.most = max(self.most, len(self._held) + len(self._slots))

    def get(self, step: int) -> State:
        if self._file is None:
            return self._held[step]
        row = self._file[self._slots[step]]
        return [
            np.array(row[begin:end]).view(dtype).reshape(shape)
            for (begin, end), (shape, dtype) in zip(self._spans(), self.kinds, strict=True)
        ]

    def drop(self, step: int) -> None:
        if self._file is None:
            del self._held[step]
        else:
            self._free.append(self._slots.pop(step))

    def __contains__(self, step: int) -> bool:
        return step in self._held or step in self._slots

    def _spans(self) -> list[tuple[int, int]]:
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in self.kinds]
        ends = np.cumsum(sizes).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))


def mapped(folder: str, count: int, size: int) -> Array:
    """A file of so many rows of bytes, mapped into memory, that has no name any more."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Now, and not when a page is first written to: then there would be no error but a kill.
            os.posix_fallocate(file.fileno(), 0, max(1, count * size))
            return np.memmap(file, np.uint8, "r+", shape=(count, size))
    except OSError as error:
        raise InvalidValue(
            f"disk={folder!r}: no file of {count * size} bytes there: {error}. Name another "
            "folder, or store fewer states: checkpoints=…."
        ) from error


@dataclass
class Record:
    """What a run of a loop left for its reversal: stored states, and that before the last step."""

    shelf: Shelf
    last: State


# By the identity of a loop's value, for as long as that is there.
RECORDS: dict[int, Any] = {}


def recorded(value: Array, record: Any) -> None:
    RECORDS[id(value)] = record
    weakref.finalize(value, RECORDS.pop, id(value), None)
