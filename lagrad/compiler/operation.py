"""One step of a lowered program: a primitive applied to numbered values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.expressions.primitive import Primitive
from lagrad.typing import DType, Indices, Parameters, Shape


@dataclass(frozen=True, slots=True)
class Operation:
    """A primitive's application to numbered values; a leaf has no primitive."""

    primitive: Primitive | None
    parameters: Parameters
    arguments: Indices
    shape: Shape
    dtype: DType
    value: Any = None  # of a constant

    @property
    def name(self) -> str:
        return "" if self.primitive is None else self.primitive.name

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def owns(self) -> bool:
        """Whether the value is surely an array of its own, no view of another one."""
        p = self.primitive
        return p is not None and (p.fresh or p.elementwise)

    @property
    def ufunc(self) -> np.ufunc | None:
        """NumPy's function that computes it entry by entry, if it is one."""
        kernel = None if self.primitive is None else self.primitive.kernel(self.parameters)
        # `matmul` is a ufunc too, of whole matrices.
        return kernel if isinstance(kernel, np.ufunc) and kernel.signature is None else None


def is_elementwise(operation: Operation) -> bool:
    """Whether each entry of the value is made of one entry of each argument."""
    return operation.primitive is not None and operation.primitive.elementwise
