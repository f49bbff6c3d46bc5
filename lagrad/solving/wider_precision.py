"""Operations in a wider precision: what rounding in the usual one has done to a sum is seen there.

LAPACK's functions, and some of SciPy's, know nothing wider than doubles; nor does every machine.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.solving.long_doubles import longer
from lagrad.solving.rounding_samples import RoundedConstants, Roundings, exact
from lagrad.systems.cancellation import whole
from lagrad.typing import Array, DType, Indices

# How many times finer a wider precision rounds, at the least.
FINER = 1000.0
# Relative changes that are rounding.
CLOSE, SPACINGS = 1e-9, 16
# Numbers up to which nobody waits for these: they are computed whenever a derivative is. A
# program with its gradient computes about three times as many.
SMALL = 400


def close(dtype: DType) -> float:
    """The relative change that is rounding in this precision."""
    if dtype.kind != "f":
        return CLOSE
    return max(CLOSE, SPACINGS * float(np.finfo(dtype).eps))


def wider_than(dtype: DType) -> DType | None:
    """The next wider dtype of floats, where the machine has one that is."""
    wider = np.dtype(float if dtype == np.float32 else np.longdouble)
    spacing, finer = (float(np.finfo(str(kind)).eps) for kind in (dtype, wider))
    return wider if finer <= spacing / FINER else None


class WideNodes:
    """Nodes as functions of others, evaluated node by node in a wider precision.

    Attributes
    ----------
    dtype : dtype or None
        What it evaluates in; None where something in it knows nothing wider than `usual`.
    size : int
        How many numbers it computes.
    """

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression],
        usual: DType,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.usual, self.dtype = usual, wider_than(usual)
        self._exact: dict[int, bool] = {}
        given = {node.index for node in inputs}
        self.constants: list[tuple[int, Any]] = []
        self.rounded = RoundedConstants()
        self.order: list[tuple[Expression, Callable[..., Any] | None, Indices]] = []
        self.tested = False
        for node in ancestors(outputs, lambda n: n.index in given, defined):
            if node.index in given:
                continue
            if isinstance(node, Constant):
                self.constants.append((node.index, np.asarray(node.value)))
                self.rounded.see(node)
            elif node.index in defined:
                self.order.append((node, None, (defined[node.index].index,)))
            elif node.primitive is not None:
                kernel = longer(node.primitive.kernel(node.parameters))
                arguments = tuple(a.index for a in node.arguments)
                self.order.append((node, kernel, arguments))
                if whole(node) or node.primitive.name == "astype":
                    self.dtype = None
            elif isinstance(node, Variable):
                self.dtype = None  # of no value
        self.size = sum(node.size for node, *_ in self.order)

    def __call__(
        self, values: Iterable[Array], rounded: Roundings | None = None
    ) -> list[Array] | None:
        """The outputs' values, for those of the inputs; None where it cannot be done.

        With each operation rounded otherwise, where it is said how.
        """
        if self.dtype is None:
            return None
        try:
            memory = self._evaluated(values, self.dtype, rounded)
        except TypeError:  # of a function that knows doubles only
            self.dtype = None
            return None
        return [memory[node.index] for node in self.outputs]

    def otherwise(self, values: Iterable[Array], rounded: Roundings | None) -> list[Array]:
        """The outputs' values in the usual precision, operations rounded otherwise, or as they are.

        But for whole numbers of such, which count and are compared.
        """
        memory: dict[int, Any] = dict(self.constants)
        memory.update({} if rounded is None else self.rounded.otherwise(rounded))
        memory.update(zip((node.index for node in self.inputs), values, strict=True))
        for index, kernel, arguments, rounds in self._rounds:
            given = [memory[a] for a in arguments]
            found = kernel(*given)
            if rounds and rounded is not None:
                whole = np.rint(found) == found
                known = np.any(whole) and all(np.all(np.rint(a) == a) for a in given)
                found = np.where(whole, found, rounded(found)) if known else rounded(found)
            memory[index] = found
        return [np.asarray(memory[node.index], node.dtype) for node in self.outputs]

    @cached_property
    def _rounds(self) -> list[tuple[int, Callable[..., Any], Indices, bool]]:
        """The operations, and whether each rounds."""
        return [
            (
                node.index,
                kernel or np.asarray,
                arguments,
                kernel is not None and not self._is_exact(node),
            )
            for node, kernel, arguments in self.order
        ]

    def both(self, values: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """The outputs' values in the usual precision, and in the wider one or rounded otherwise."""
        finer = self(values)
        other = self.otherwise(values, Roundings(0)) if finer is None else finer
        return self.otherwise(values, None), [np.asarray(a) for a in other]

    def first_off(self, values: Sequence[Array], share: float) -> Expression | None:
        """The first operation of which rounding has taken more than a share."""
        assert self.dtype is not None
        usual, wide = (self._evaluated(values, kind) for kind in (self.usual, self.dtype))
        for node, *_ in self.order:
            if node.dtype.kind == "f" and node.size:
                exact = wide[node.index]
                if not np.max(np.abs(usual[node.index] - exact)) <= share * np.max(np.abs(exact)):
                    return node
        return None

    def _evaluated(
        self, values: Iterable[Array], dtype: DType, rounded: Roundings | None = None
    ) -> dict[int, Any]:
        memory: dict[int, Any] = dict(self.constants)
        if dtype == self.dtype:
            memory.update(self.rounded.wide(dtype))
        for node, value in zip(self.inputs, values, strict=True):
            array = np.asarray(value)
            memory[node.index] = array.astype(dtype) if array.dtype.kind == "f" else array
        for node, kernel, arguments in self.order:
            given = [memory[a] for a in arguments]
            found = given[0] if kernel is None else kernel(*given)
            narrow = not self.tested and node.dtype.kind == "f" and np.asarray(found).dtype != dtype
            if narrow and any(np.asarray(a).dtype == dtype for a in given):
                raise TypeError(f"{node.primitive} does not compute in {dtype}")
            if rounded is not None and kernel is not None and not self._is_exact(node):
                found = rounded(found)
            memory[node.index] = found
        self.tested = self.tested or dtype == self.dtype
        return memory

    def _is_exact(self, node: Expression) -> bool:
        """Whether an operation rounds nothing; its graph is asked for its partials once."""
        if node.index not in self._exact:
            with node.graph.reopened():
                self._exact[node.index] = exact(node)
        return self._exact[node.index]
