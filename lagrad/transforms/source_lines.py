"""The line of the user's that an operation comes from: the function traced once more, line by line.

Only where something has failed: looking at every frame would cost tracing several times as much.
"""

import linecache
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from lagrad.errors import LagradError
from lagrad.expressions.expression import Expression
from lagrad.expressions.primitive import Primitive
from lagrad.plain_text import printable
from lagrad.solving.not_finite import shown
from lagrad.transforms.call_on_numbers import HOME
from lagrad.transforms.trace import name_of, traced_by
from lagrad.transforms.tracing_graph import Tracing, tracing
from lagrad.typing import Function, Parameters

# Where frames are nobody's: our own, and NumPy's.
LIBRARIES = (HOME, str(np.__path__[0]))


class Lined(Tracing):
    """The graph of a trace that notes the line from which each operation came first."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None, True, False)
        # The nodes themselves: the graph lets go of them where it has seen an equal program.
        self.lines: dict[int, tuple[Expression, str]] = {}

    def apply(
        self, primitive: Primitive, arguments: tuple[Expression, ...], parameters: Parameters
    ) -> Expression:
        return self._noted(super().apply(primitive, arguments, parameters))

    def scalars(self, primitive: Primitive, arguments: tuple[Expression, ...]) -> Expression | None:
        node = super().scalars(primitive, arguments)
        return None if node is None else self._noted(node)

    def _noted(self, node: Expression) -> Expression:
        if node.index not in self.lines:
            self.lines[node.index] = node, users_line()
        return node


def users_line() -> str:
    """The innermost line that is the caller's own."""
    frame: Any = sys._getframe(3)
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    if frame is None:
        return ""
    name, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, number).strip()
    return f"{printable(name)}, line {number}" + (f": {printable(text)}" if text else "")


def raise_with_line(
    error: LagradError,
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    positions: Sequence[int] | None = None,
) -> NoReturn:
    """Raise an error with the line of the operation that it names; as it is where there is none."""
    if not error.operation or error.line or tracing() is not None:
        raise error
    places = range(len(args)) if positions is None else positions
    line = line_of(error.operation, function, args, kwargs or {}, places)
    if not line:
        raise error
    found = type(error)(f"{error}\n  {line}")
    found.operation, found.line = error.operation, line
    raise found from None


def line_of(
    operation: str,
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    positions: Sequence[int],
) -> str:
    """The first line of a function that makes an operation, as that is written; else nothing."""
    graph = Lined(name_of(function))
    try:
        traced_by(graph, function, args, kwargs, positions, False)
        made, memo = graph.lines.values(), dict[int, Any]()
        return next((line for node, line in made if shown(node, memo) == operation), "")
    except Exception:  # of a function that does not run a second time
        return ""
    finally:
        graph.release()
