"""Operations in a wider precision: what rounding in the usual one has done to a sum is seen there.

Doubles are widened to the machine's long doubles, singles to doubles. LAPACK's functions, and some
of SciPy's, know nothing wider than doubles; nor does every machine.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.solving.rounding_samples import Roundings, exact
from lagrad.systems.cancellation import whole
from lagrad.typing import Array, DType

# How many times finer a wider precision rounds, at the least.
FINER = 1000.0


def wider_than(dtype: DType) -> DType | None:
    """The next wider dtype of floats, where the machine has one that is."""
    wider = np.dtype(float if dtype == np.float32 else np.longdouble)
    spacing, finer = (float(np.finfo(str(kind)).eps) for kind in (dtype, wider))
    return wider if finer <= spacing / FINER else None


class WiderPlan:
    """Nodes as functions of others, evaluated node by node in a wider precision.

    Attributes
    ----------
    dtype : dtype or None
        What it evaluates in; None where something in it knows nothing wider than `usual`.
    """

    def __init__(
        self,
        inputs: Sequence[Expression],
        outputs: Sequence[Expression],
        defined: dict[int, Expression],
        usual: DType,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.dtype = wider_than(usual)
        given = {node.index for node in inputs}
        self.constants: list[tuple[int, Any]] = []
        self.order: list[tuple[int, Callable[..., Any] | None, tuple[int, ...], bool]] = []
        for node in ancestors(outputs, lambda n: n.index in given, defined):
            if node.index in given:
                continue
            if isinstance(node, Constant):
                self.constants.append((node.index, np.asarray(node.value)))
            elif node.index in defined:
                self.order.append((node.index, None, (defined[node.index].index,), False))
            elif node.primitive is not None:
                kernel = node.primitive.kernel(node.parameters)
                arguments = tuple(a.index for a in node.arguments)
                self.order.append((node.index, kernel, arguments, not exact(node)))
                if whole(node) or node.primitive.name == "astype":
                    self.dtype = None
            elif isinstance(node, Variable):
                self.dtype = None  # of no value

    def __call__(
        self, values: Iterable[Array], rounded: Roundings | None = None
    ) -> list[Array] | None:
        """The outputs' values, for those of the inputs; None where it cannot be done.

        With each operation rounded otherwise, where it is said how.
        """
        if self.dtype is None:
            return None
        memory: dict[int, Any] = dict(self.constants)
        for node, value in zip(self.inputs, values, strict=True):
            array = np.asarray(value)
            memory[node.index] = array.astype(self.dtype) if array.dtype.kind == "f" else array
        try:
            for index, kernel, arguments, rounds in self.order:
                given = [memory[a] for a in arguments]
                found = given[0] if kernel is None else kernel(*given)
                memory[index] = rounded(found) if rounds and rounded is not None else found
        except TypeError:  # of a function that knows doubles only
            self.dtype = None
            return None
        return [memory[node.index] for node in self.outputs]
