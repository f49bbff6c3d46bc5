"""Parts of vectors, and vectors among zeros, read where they are: entries i + offset of an array.

A slice `x[1:]` is x from its second entry on; its transpose, a vector put among zeros, is read from
before its first entry on, where there are zeros. So both are a *window*: an array, an offset, and
between which entries there is something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lagrad.compiler.lowering import Operation, is_elementwise
from lagrad.expressions.primitive import Primitive
from lagrad.typing import Array, Parameters

NAME = "window"


def kernel_of(parameters: Parameters) -> Callable[[Array], Array]:
    """What NumPy makes of the array."""
    *_, moves = parameters

    def kernel(array: Array) -> Array:
        for primitive, own in moves:
            array = primitive.kernel(own)(array)
        return array

    return kernel


# Of plans alone, and derived by nobody.
WINDOW = Primitive(
    NAME,
    kernel_of,
    lambda arguments, parameters: (arguments[0].shape, arguments[0].dtype),
    lambda node, k: None,
    lambda texts, parameters: "",
)


def with_windows(
    operations: Sequence[Operation], order: Sequence[int], has_rule: Callable[..., bool]
) -> list[Operation]:
    """The operations, slices of vectors and vectors among zeros as windows.

    But for those that something in a loop reads spread over another shape: these are arrays.
    """
    found, spread = list(operations), set[int]()
    for place in order:
        operation = operations[place]
        if is_elementwise(operation) and has_rule(operation, operations):
            spread |= {a for a in operation.arguments if operations[a].shape != operation.shape}
        elif operation.name in ("reshape", "broadcast_to"):
            spread.update(operation.arguments)
    for place in order:
        operation = operations[place]
        seen = None if place in spread else window(operation, operations)
        if seen is None:
            continue
        offset, low, high = seen
        (of,) = operation.arguments
        moves = ((operation.primitive, operation.parameters),)
        if found[of].name == NAME:
            other, start, end, before = found[of].parameters
            # Where there is something in both.
            low, high = max(low, start - offset), min(high, end - offset)
            (of,), offset, moves = found[of].arguments, offset + other, before + moves
        if low < high:
            parameters = (offset, low, high, moves)
            found[place] = replace(
                operation, primitive=WINDOW, parameters=parameters, arguments=(of,)
            )
    return found


def window(operation: Operation, operations: Sequence[Operation]) -> tuple[int, int, int] | None:
    """The offset, and between which entries there is something; None of what is no window."""
    if operation.name not in ("getitem", "embed") or len(operation.shape) != 1:
        return None
    (of,) = operation.arguments
    shape, key = operations[of].shape, operation.parameters[0]
    if len(shape) != 1 or len(key) != 1 or not isinstance(key[0], tuple):
        return None
    (whole,) = shape if operation.name == "getitem" else operation.shape
    start, stop, step = slice(*key[0]).indices(whole)
    if step != 1 or stop - start < 2:
        return None
    if operation.name == "getitem":
        return start, 0, stop - start
    return -start, start, stop


def window_of(place: int, operations: Sequence[Operation]) -> tuple[int, int, int] | None:
    """Of a value that is read through a window: its offset, and where there is something."""
    operation = operations[place]
    if operation.name != NAME:
        return None
    found: tuple[int, int, int] = operation.parameters[:3]
    return found
