"""The Jacobian of a small block as one expression, so that a plan evaluates it with the residual.

Carried forwards over a tape from the identity, a local partial that scales keeps a diagonal a
diagonal; a product with a matrix makes it full. Where a map has no such form, there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import LinearMap, Scale, Transpose
from lagrad.expressions.primitive import Primitive
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.primitives.indexing import transpose
from lagrad.primitives.product_maps import Contract
from lagrad.systems.linearization import Tape

AT_MOST = 512


@dataclass(frozen=True)
class Diagonal:
    """A diagonal matrix; its entries are one number, or a vector."""

    entries: Any


@dataclass(frozen=True)
class ScaledRows:
    """A matrix with its rows scaled, which is put off: several scalings are one."""

    weights: Any
    matrix: Any


def dense_jacobian(tape: Tape, output: Expression, source: Expression) -> Expression | None:
    """∂output/∂source as an expression of shape (n, n); None where maps have no such form."""
    n = source.size
    if output.size != n or n > AT_MOST or output.index not in tape.slots:
        return None
    carried: dict[int, Any] = {tape.slots[source.index]: Diagonal(1.0)}
    for step in tape.steps:
        before = carried.get(step.source)
        if before is None:
            continue
        moved = before if step.map is None else applied(step.map, before, n)
        if moved is None:
            return None
        held = carried.get(step.target)
        carried[step.target] = moved if held is None else added(held, moved, n)
    found = carried.get(tape.slots[output.index])
    if found is None:
        return None
    matrix = full(found, n)
    return matrix if isinstance(matrix, Expression) else output.graph.lift(matrix)


def applied(linear: LinearMap, matrix: Any, n: int) -> Any:
    """A map's product with what was carried; None where it has no form."""
    if isinstance(linear, Scale):
        return scaled(linear, matrix, n)
    base = linear.base if isinstance(linear, Transpose) else linear
    if isinstance(base, Contract):
        plain = unit(linear)
        if isinstance(matrix, Diagonal) and plain is not None:
            entries = matrix.entries
            identity = type(entries) in NUMBERS and entries == 1
            return ScaledRows(1.0, plain if identity else plain * entries)
        if (
            isinstance(matrix, ScaledRows)
            and plain is not None
            and transposes(plain, matrix.matrix)
        ):
            weights = matrix.weights * np.ones(matrix.matrix.shape[0])
            return ScaledRows(1.0, GRAM(matrix.matrix.graph, matrix.matrix, weights))
        return ScaledRows(1.0, linear.lmul(full(matrix, n)))
    if not linear.data:
        return ScaledRows(1.0, linear.as_sparse() @ full(matrix, n))
    return None


def transposes(a: Any, b: Any) -> bool:
    """Whether one expression is the other transposed."""
    pairs = ((a, b), (b, a))
    return (
        isinstance(a, Expression)
        and isinstance(b, Expression)
        and any(x.primitive is transpose and x.arguments[0] is y for x, y in pairs)
    )


def gram(x: Any, weights: Any) -> Any:
    """xᵀ diag(weights) x; NumPy computes half of a product with the transpose of the same array."""
    if weights.size and (weights.min() >= 0 or weights.max() <= 0):
        scaled = np.sqrt(np.abs(weights))[:, None] * x
        product = scaled.T @ scaled
        return product if weights.max() > 0 else -product
    return x.T @ (weights[:, None] * x)


# Evaluated only, and derived by nobody: a block's Jacobian is not differentiated as it stands.
GRAM = Primitive(
    "gram",
    lambda parameters: gram,
    lambda arguments, parameters: (
        (arguments[0].shape[1], arguments[0].shape[1]),
        np.result_type(arguments[0].dtype, arguments[1].dtype),
    ),
    lambda node, k: None,
    lambda texts, parameters: f"{texts[0]}.T @ ({texts[1]}[:, None] * {texts[0]})",
)


def unit(linear: LinearMap) -> Any:
    """A product of a matrix and a vector as that matrix; None for other products."""
    turned = isinstance(linear, Transpose)
    base: Any = linear.base if isinstance(linear, Transpose) else linear
    inner, other, out = base.subscripts
    if turned:
        inner, out = out, inner
    if len(inner) != 1 or len(out) != 1 or sorted(other) != sorted(inner + out):
        return None
    return base.other if other == out + inner else np.transpose(base.other)


def scaled(linear: Scale, matrix: Any, n: int) -> Any:
    if type(linear.weight) in NUMBERS and linear.weight == 1 and linear.source == linear.target:
        return matrix
    single = type(linear.weight) in NUMBERS or linear.target == ()
    weight = linear.weight if single else vector(linear)
    if linear.source != linear.target:
        return ScaledRows(weight, selection(linear) @ full(matrix, n))
    if isinstance(matrix, Diagonal):
        return Diagonal(weight * matrix.entries)
    return ScaledRows(weight * matrix.weights, matrix.matrix)


def selection(linear: Scale) -> Any:
    """The map without its weight: each entry of the target is one of the source."""
    return Scale(1.0, linear.source, linear.target).as_sparse()


def vector(linear: Scale) -> Any:
    """The weights of a map, one for each entry of the target."""
    return np.reshape(np.broadcast_to(linear.weight, linear.target), (math.prod(linear.target),))


def full(matrix: Any, n: int) -> Any:
    if isinstance(matrix, ScaledRows):
        weights = matrix.weights
        if type(weights) in NUMBERS and weights == 1:
            return matrix.matrix
        return (weights if np.ndim(weights) == 0 else weights[:, None]) * matrix.matrix
    entries = matrix.entries
    if np.ndim(entries) == 0:
        return entries * np.eye(n)
    return np.eye(n) * entries[:, None]


def added(a: Any, b: Any, n: int) -> Any:
    if isinstance(a, Diagonal) and isinstance(b, Diagonal):
        return Diagonal(a.entries + b.entries)
    return ScaledRows(1.0, full(a, n) + full(b, n))
