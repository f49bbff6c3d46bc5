"""The Jacobian of a small block as one expression, so that a plan evaluates it with the residual.

Carried forwards over a tape from the identity, a local partial that scales keeps a diagonal a
diagonal; a product with a matrix makes it full. Where a map has no such form, there is none.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Chosen, LinearMap, Scale, Transpose
from lagrad.expressions.primitive import Primitive
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.primitives.indexing import transpose
from lagrad.primitives.product_maps import Contract
from lagrad.systems.linearization import Tape, accumulate

AT_MOST = 512


@dataclass(frozen=True)
class ScaledRows:
    """A matrix with its rows scaled, which is put off: several scalings are one.

    The weights are one number, or a vector; without a matrix they are a diagonal one's.
    """

    weights: Any
    matrix: Any = None


def dense_jacobian(tape: Tape, output: Expression, source: Expression) -> Expression | None:
    """∂output/∂source as an expression of shape (n, n); None where maps have no such form."""
    n = source.size
    if output.size != n or n > AT_MOST or output.index not in tape.slots:
        return None
    if not all(step.map is None or has_form(step.map) for step in tape.steps) or tape.is_tall(n):
        return None
    carried: list[Any] = [None] * len(tape.shapes)
    carried[tape.slots[source.index]] = ScaledRows(1.0)
    moved, plus = functools.partial(applied, n=n), functools.partial(added, n=n)
    accumulate(carried, tape.steps, moved, plus)
    found = carried[tape.slots[output.index]]
    if found is None:
        return None
    matrix = full(found, n)
    return matrix if isinstance(matrix, Expression) else output.graph.lift(matrix)


def untransposed(linear: LinearMap) -> LinearMap:
    return linear.base if isinstance(linear, Transpose) else linear


def has_form(linear: LinearMap) -> bool:
    """Whether a map's product with a matrix is an expression."""
    return isinstance(untransposed(linear), (Scale, Contract)) or not linear.data


def applied(linear: LinearMap, carried: ScaledRows, n: int) -> ScaledRows:
    """A map's product with what was carried."""
    if isinstance(linear, Scale):
        return scaled(linear, carried, n)
    if not isinstance(untransposed(linear), Contract):
        return ScaledRows(1.0, linear.as_sparse() @ full(carried, n))
    plain, weights, matrix = unit(linear), carried.weights, carried.matrix
    if plain is not None and matrix is None:
        return ScaledRows(1.0, plain if is_one(weights) else plain * weights)
    if plain is not None and (transposes(plain, matrix) or transposes(matrix, plain)):
        return ScaledRows(1.0, GRAM(matrix.graph, matrix, weights * np.ones(matrix.shape[0])))
    return ScaledRows(1.0, linear.lmul(full(carried, n)))


def is_one(weights: Any) -> bool:
    return type(weights) in NUMBERS and weights == 1


def transposes(a: Any, b: Any) -> bool:
    """Whether one expression is stated as the other transposed."""
    return isinstance(a, Expression) and a.primitive is transpose and a.arguments[0] is b


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
    base: Any = untransposed(linear)
    inner, other, out = base.subscripts
    if isinstance(linear, Transpose):
        inner, out = out, inner
    if len(inner) != 1 or len(out) != 1 or sorted(other) != sorted(inner + out):
        return None
    return base.other if other == out + inner else np.transpose(base.other)


def scaled(linear: Scale, carried: ScaledRows, n: int) -> ScaledRows:
    weight, source, target = linear.weight, linear.source, linear.target
    if is_one(weight) and source == target:
        return carried
    if type(weight) not in NUMBERS and target != ():
        weight = np.reshape(np.broadcast_to(weight, target), (math.prod(target),))
    if source == target:
        weights = weight * carried.weights
        if isinstance(linear, Chosen):
            weights = np.where(np.equal(weight, 0), 0, weights)
        return ScaledRows(weights, carried.matrix)
    # Without its weight, each entry of the map's target is one of the source.
    return ScaledRows(weight, Scale(1.0, source, target).as_sparse() @ full(carried, n))


def full(carried: ScaledRows, n: int) -> Any:
    weights = carried.weights
    matrix = np.eye(n) if carried.matrix is None else carried.matrix
    if is_one(weights):
        return matrix
    return (weights if np.ndim(weights) == 0 else weights[:, None]) * matrix


def added(a: ScaledRows, b: ScaledRows, n: int) -> ScaledRows:
    if a.matrix is None and b.matrix is None:
        return ScaledRows(a.weights + b.weights)
    return ScaledRows(1.0, full(a, n) + full(b, n))
