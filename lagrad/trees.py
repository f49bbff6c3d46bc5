"""Nested values and their leaves: dicts, lists, tuples and dataclasses of arrays."""

import dataclasses
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lagrad.errors import StructureMismatch, UnsupportedType
from lagrad.typing import Function


@dataclass(frozen=True, slots=True)
class Tree:
    """The shape of a nested value: what holds what, without the leaves.

    Attributes
    ----------
    kind : type or None
        The container's type; None of a leaf, and `type(None)` of None, which has no leaves.
    keys : tuple
        Keys of a dict, names of a dataclass's fields, positions of a sequence.
    children : tuple of Tree
    fixed : tuple
        Fields of a dataclass that are no leaves: strings, functions and the like.
    """

    kind: type | None
    keys: tuple[Any, ...] = ()
    children: "tuple[Tree, ...]" = ()
    fixed: tuple[tuple[str, Any], ...] = ()

    @property
    def size(self) -> int:
        """The number of leaves."""
        return 1 if self.kind is None else sum(child.size for child in self.children)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The nested value with these leaves, in order."""
        stream = iter(leaves)
        value = self._built(stream)
        assert not list(stream)
        return value

    @property
    def builder(self) -> Callable[[Sequence[Any]], Any]:
        """The same as a function, short for one leaf and for a tuple of leaves."""
        if self.kind is None:
            return operator.itemgetter(0)
        if self.kind is tuple and all(child.kind is None for child in self.children):
            return tuple
        return self.unflatten

    def _built(self, leaves: Iterator[Any]) -> Any:
        kind = self.kind
        if kind is None:
            return next(leaves)
        if kind is type(None):
            return None
        parts = [child._built(leaves) for child in self.children]
        if issubclass(kind, dict):
            return kind(zip(self.keys, parts, strict=True))
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return kind(*parts)
        if issubclass(kind, (list, tuple)):
            return kind(parts)
        made = object.__new__(kind)
        for name, part in (*zip(self.keys, parts, strict=True), *self.fixed):
            object.__setattr__(made, name, part)
        return made

    def paths(self, prefix: str) -> list[str]:
        """A name for each leaf: the way to it, as an identifier."""
        if self.kind is None:
            return [prefix]
        return [
            path
            for key, child in zip(self.keys, self.children, strict=True)
            for path in child.paths(f"{prefix}_{key}")
        ]

    def difference(self, other: "Tree", where: str) -> str | None:
        """What tells another structure from this one, in words; None where they are equal."""
        if self == other:
            return None
        if self.kind is not other.kind:
            return f"{where} is {described(other)}; expected {described(self)}"
        if self.keys != other.keys:
            return f"{where} has the keys {list(other.keys)}; expected {list(self.keys)}"
        for key, mine, theirs in zip(self.keys, self.children, other.children, strict=True):
            found = mine.difference(theirs, f"{where}[{key!r}]")
            if found:
                return found
        return f"{where} has other fixed fields: {other.fixed!r}, not {self.fixed!r}"

    def leaves_of(self, value: Any, where: str) -> list[Any]:
        """The leaves of a value that must have this structure."""
        leaves, tree = flatten(self.ordered(value))
        found = self.difference(tree, where)
        if found:
            raise StructureMismatch(found + ".")
        return leaves

    def ordered(self, value: Any) -> Any:
        """A nested value with the keys of dicts in this structure's order."""
        if isinstance(value, dict) and set(value) == set(self.keys) and self.kind is type(value):
            parts = zip(self.keys, self.children, strict=True)
            return type(value)((key, child.ordered(value[key])) for key, child in parts)
        if type(value) in (list, tuple) and len(value) == len(self.children):
            parts = zip(self.children, value, strict=True)
            return type(value)([child.ordered(item) for child, item in parts])
        return value


PLAIN = (dict, list, tuple, OrderedDict)
LEAF = Tree(None)
NOTHING = Tree(type(None))


def described(tree: Tree) -> str:
    if tree.kind is None:
        return "one array"
    if tree.kind is type(None):
        return "None"
    return f"a {tree.kind.__name__} of {len(tree.keys)}"


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """The leaves of a nested value, in order, and its structure."""
    leaves: list[Any] = []
    return leaves, _taken(value, leaves)


def _taken(value: Any, leaves: list[Any]) -> Tree:
    kind = type(value)
    if value is None:
        return NOTHING
    if isinstance(value, (dict, list, tuple)):
        if kind not in PLAIN and not hasattr(kind, "_fields"):
            raise UnsupportedType(
                f"a {kind.__name__} may have state beside its items; pass a plain dict, list or "
                "tuple."
            )
        keys = tuple(value) if isinstance(value, dict) else tuple(range(len(value)))
        return Tree(kind, keys, tuple(_taken(value[key], leaves) for key in keys))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        fixed = {k: v for k, v in fields.items() if isinstance(v, (str, bytes)) or callable(v)}
        # What was set beside the fields stays as it is.
        beside = {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in fields}
        names = tuple(name for name in fields if name not in fixed)
        children = tuple(_taken(fields[name], leaves) for name in names)
        return Tree(kind, names, children, tuple((fixed | beside).items()))
    leaves.append(value)
    return LEAF


def tree_map(function: Function, value: Any, *others: Any) -> Any:
    """The nested value of a function's results, leaf by leaf of values of one structure."""
    leaves, tree = flatten(value)
    columns = [tree.leaves_of(other, "a value") for other in others]
    return tree.unflatten([function(*row) for row in zip(leaves, *columns, strict=True)])
