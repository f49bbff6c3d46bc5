"""What sweeps are asked to carry, and how what arrives is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lagrad.expressions.expression import Variable
from lagrad.systems.system import System
from lagrad.typing import Array

Carry = Callable[[Any], dict[Any, Array]]


def pulled(system: System, cotangents: Mapping[Variable, Array]) -> tuple[Carry, Carry]:
    """Sweeps from cotangents: to all constraints, and to the parameters."""

    def seeded(sweep: Any) -> Mapping[Any, Array]:
        for variable, cotangent in cotangents.items():
            sweep.seed(variable, cotangent)
        found: Mapping[Any, Array] = sweep.back()
        return found

    def multipliers(sweep: Any) -> dict[Any, Array]:
        found = seeded(sweep)
        return {c: np.asarray(found[c]).reshape(c.shape) for c in system.constraints.values()}

    def gradients(sweep: Any) -> dict[Any, Array]:
        seeded(sweep)
        return {v: arrived(sweep, v) for v in system.with_role("parameter")}

    return multipliers, gradients


def one(variable: Variable) -> dict[Variable, Array]:
    """The cotangent of a variable alone."""
    return {variable: np.ones(variable.shape, dtype=variable.dtype)}


def arrived(sweep: Any, variable: Variable) -> Array:
    """What a sweep brought to a variable, in its dtype and shape."""
    found = np.asarray(sweep.value(variable), dtype=variable.dtype)
    return found if found.shape == variable.shape else found.reshape(variable.shape)


def several(keys: Any) -> list[Any]:
    return list(keys) if isinstance(keys, (list, tuple)) else [keys]
