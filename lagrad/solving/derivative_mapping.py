"""What derivatives are returned in: arrays by name, read-only."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from lagrad.errors import ForeignValue, UnknownName
from lagrad.plain_text import as_read
from lagrad.public import Public
from lagrad.solving.certificate import Certificate

T = TypeVar("T")
# What a scalar and an array are read as.
Entry: TypeAlias = "np.float64 | np.ndarray[Any, np.dtype[Any]]"


class Derivatives(Public, Mapping[str, T], Generic[T]):
    """Arrays by the name of a variable or of a constraint, or by the thing itself.

    Attributes
    ----------
    certificate : Certificate
        How accurate they are.
    """

    PUBLIC = ("certificate", "get", "items", "keys", "values")

    def __init__(self, values: dict[Any, T], what: str, certificate: Certificate) -> None:
        self._values = {thing.name: value for thing, value in values.items()}
        self._things = {thing.name: thing for thing in values}
        self._what = what
        self.certificate = certificate

    def __getitem__(self, key: Any) -> T:
        name = as_read(key) if isinstance(key, str) else getattr(key, "name", key)
        if name not in self._values:
            raise UnknownName.among(name, self._values, self._what)
        if not isinstance(key, str) and self._things[name] is not key:
            raise ForeignValue(f"{key!r} does not belong to the program of these derivatives.")
        return self._values[name]

    def __contains__(self, key: object) -> bool:
        return any(key is thing for thing in self._things.values()) or (
            isinstance(key, str) and as_read(key) in self._values
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._values)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {shortened(value)}" for name, value in self._values.items())
        return f"{{{shown}}}"


class Gradient(Derivatives[Entry]):
    """The gradient of an output: arrays by parameter, with a certificate."""


def shortened(value: Any) -> str:
    if isinstance(value, Derivatives):
        return repr(value)
    return np.array2string(np.asarray(value), threshold=8, edgeitems=2, precision=8)


def entry(value: Any) -> Entry:
    """A value as it is read: a NumPy number, or a read-only array."""
    array = np.asarray(value)
    return array[()] if array.ndim == 0 else array


def frozen(value: Any) -> Entry:
    """The same, in memory of its own."""
    array = np.array(value)
    array.flags.writeable = False
    return entry(array)
