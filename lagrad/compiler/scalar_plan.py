"""A lowered program of many single numbers, for the machine that runs tapes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lagrad.compiler.lowering import Lowered
from lagrad.compiler.scalar_opcodes import CODES, compiled
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.typing import Array

# Shorter programs are calls of NumPy.
FROM = 200
DOUBLE = np.dtype(float)


def scalar_plan(
    lowered: Lowered, given: int, order: Sequence[int]
) -> Callable[[Sequence[Array]], list[Array]] | None:
    """The outputs' values for those of the first operations, `given` in number.

    None where some operation is not of one double, or has no code, or where there are few.
    """
    operations = lowered.operations
    if len(order) < FROM or any(o.shape != () or o.dtype != DOUBLE for o in operations[:given]):
        return None
    place = {p: p for p in range(given)}
    numbers: list[float] = []
    code: list[int] = []
    first: list[int] = []
    second: list[int] = []

    # Constants stand behind what is given; how many there are is known at the end.
    def placed(p: int) -> int | None:
        known = place.get(p)
        if known is None:
            operation = operations[p]
            if operation.value is None or operation.shape != ():
                return None
            plain = type(operation.value) in NUMBERS or operation.dtype == DOUBLE
            if not plain:
                return None
            known = place[p] = -1 - len(numbers)
            numbers.append(float(operation.value))
        return known

    for p in order:
        operation = operations[p]
        known = CODES.get(operation.name)
        if known is None or operation.shape != () or operation.dtype != DOUBLE:
            return None
        arguments = [at for a in operation.arguments if (at := placed(a)) is not None]
        if len(arguments) < len(operation.arguments):
            return None
        place[p] = given + len(code)
        code.append(known)
        first.append(arguments[0])
        second.append(arguments[-1])
    asked = [at for p in lowered.outputs if (at := placed(p)) is not None]
    loops = compiled()
    if len(asked) < len(lowered.outputs) or loops is None:
        return None
    count, start = len(numbers), given + len(numbers)

    def final(places: list[int]) -> Array:
        array = np.array(places, np.int64)
        moved = np.where(array < 0, given - 1 - array, array)
        return np.where(array >= given, array + count, moved)

    lead = np.zeros(start, np.int32)
    codes = np.concatenate([lead, np.array(code, np.int32)])
    firsts, seconds = (
        np.concatenate([lead, final(row).astype(np.int32)]) for row in (first, second)
    )
    wanted = final(asked)
    memory = np.concatenate([np.zeros(given), numbers, np.zeros(len(code))])
    forward = loops[0]

    def run(values: Sequence[Array]) -> list[Array]:
        own = memory.copy()
        own[:given] = values
        forward(codes, firsts, seconds, own, start)
        return list(own[wanted])

    return run
