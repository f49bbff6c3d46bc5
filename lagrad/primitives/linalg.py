"""Dense linear algebra over stacks of matrices, (…, n, n)."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Compose, LinearMap, Reindex, Scale, Sum
from lagrad.expressions.primitive import Primitive
from lagrad.primitives.cofactors import CofactorChange, cofactor, cofactor_change
from lagrad.primitives.elementwise import somewhere
from lagrad.primitives.product_maps import Solve, left_product, stacked_product
from lagrad.primitives.registry import call, floating, graph_of, implements, lifted, nary, unary
from lagrad.primitives.repeated_eigenvalues import (
    equal_shares,
    gaps_there,
    inverse_gaps,
    moved_apart,
    shares_there,
    spread_of,
)
from lagrad.typing import Function, Shape


def _square(a: Any, name: str) -> Expression:
    (x,) = lifted(a)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeMismatch(f"np.linalg.{name} of shape {x.shape}; expected (…, n, n).")
    return x


def _nan_where_singular(function: Function, shape: Callable[..., Shape]) -> Any:
    """A function of LAPACK that returns NaN for what has no answer, as ufuncs do."""

    def kernel(*x: Any) -> Any:
        try:
            return function(*x)
        except np.linalg.LinAlgError:
            return np.full(shape(*map(np.shape, x)), np.nan, dtype=floating(*x))

    return kernel


def _of_matrices(
    name: str,
    function: Function,
    partial: Callable[[Expression, Expression], LinearMap] | None,
    shape: Callable[[Shape], Shape] = lambda shape: shape,
    code: str | None = None,
    conditioned: Callable[[Expression], Expression] | None = lambda node: node.arguments[0],
    parted: bool = False,
) -> Primitive:
    """A function of each matrix of a stack; NaN where it has no answer."""
    kernel = _nan_where_singular(function, shape)
    code = code or f"np.linalg.{name}({{0}})"
    traits: dict[str, Any] = {"conditioned": conditioned, "singular": somewhere, "parted": parted}
    return unary(name, kernel, partial, shape, floating, code, **traits)


def _per_matrix(shape: Shape) -> Shape:
    return shape[:-2]


def _right_product(matrix: Any, shape: Shape) -> LinearMap:
    """dA ↦ dA M."""
    return stacked_product("ij,jk,ik", matrix, shape)


def _solve_partial(node: Expression, k: int) -> LinearMap:
    matrix, right = node.arguments
    solve = Solve(matrix, right.shape)
    if k == 1:
        return solve
    # d(A⁻¹b) = −A⁻¹ dA (A⁻¹b)
    product = stacked_product("ij,jk,ik", node, matrix.shape, node.shape)
    return Compose(Scale(-1, node.shape, node.shape), solve, product)


solve = nary(
    "solve",
    lambda parameters: _nan_where_singular(np.linalg.solve, lambda a, b: b),
    lambda shapes: shapes[1],
    _solve_partial,
    call("np.linalg.solve"),
    conditioned=lambda node: node.arguments[0],
)


@implements(np.linalg.solve)
def _solve(a: Any, b: Any) -> Any:
    a, b = lifted(a, b)
    _square(a, "solve")
    right = np.expand_dims(b, 1) if b.ndim == 1 else b
    if right.shape[-2] != a.shape[-1]:
        raise ShapeMismatch(f"np.linalg.solve of shapes {a.shape} and {b.shape}.")
    head = np.broadcast_shapes(a.shape[:-2], right.shape[:-2])
    a = np.broadcast_to(a, head + a.shape[-2:])
    out = solve(a.graph, a, np.broadcast_to(right, head + right.shape[-2:]))
    return np.squeeze(out, axis=-1) if b.ndim == 1 else out


# dA⁻¹ = −A⁻¹ dA A⁻¹
inverse = _of_matrices(
    "inv",
    np.linalg.inv,
    lambda y, x: Compose(
        Scale(-1, y.shape, y.shape), left_product(y, y.shape), _right_product(y, y.shape)
    ),
)


def _trace_with_inverse(x: Expression) -> LinearMap:
    """dA ↦ tr(A⁻¹ dA)."""
    return stacked_product("ij,ji,", np.linalg.inv(x), x.shape, x.shape[:-2])


def _cofactor_change_partial(node: Expression, k: int) -> LinearMap:
    """By the direction the map itself; by the matrix, of a regular one only, by its inverse.

    The value is tr(A⁻¹E) C − C Eᵀ A⁻ᵀ, of which A changes by H: with C′ the change of C it is
    −tr(A⁻¹H A⁻¹E) C + tr(A⁻¹E) C′ − C′ Eᵀ A⁻ᵀ + C Eᵀ A⁻ᵀ Hᵀ A⁻ᵀ.
    """
    x, e = node.arguments
    shape, stack = node.shape, node.shape[:-2]
    if k == 1:
        return CofactorChange(x, shape)
    inverted, change = np.linalg.inv(x), CofactorChange(x, shape)
    turned = np.swapaxes(e, -1, -2) @ np.swapaxes(inverted, -1, -2)
    by_trace = stacked_product("ij,ji,", inverted @ e @ inverted, shape, stack)
    trace = np.trace(inverted @ e, axis1=-2, axis2=-1)
    spread = np.broadcast_to(np.expand_dims(trace, (-2, -1)), shape)
    minus = Scale(-1, shape, shape)
    right = stacked_product("ij,kj,ik", inverted, shape)
    return Sum(
        Compose(minus, stacked_product(",ij,ij", cofactor(x), stack, shape), by_trace),
        Compose(Scale(spread, shape, shape), change),
        Compose(minus, _right_product(turned, shape), change),
        Compose(left_product(cofactor(x) @ turned, shape), right, _turned(shape)),
    )


cofactor_changes = nary(
    "cofactor_change",
    lambda parameters: _nan_where_singular(
        getattr(cofactor_change, "__wrapped__", cofactor_change), lambda x, e: x
    ),
    lambda shapes: np.broadcast_shapes(*shapes),
    _cofactor_change_partial,
    call("_cofactor_change"),
)
FUNCTIONS[cofactor_change] = lambda x, e: cofactor_changes(graph_of(x, e), x, e)
cofactors = _of_matrices(
    "cofactor",
    cofactor,
    lambda y, x: CofactorChange(x, y.shape),
    code="_cofactor({0})",
    conditioned=None,
)
FUNCTIONS[cofactor] = lambda x: cofactors(x.graph, x)
determinant = _of_matrices(
    "det",
    np.linalg.det,
    lambda y, x: stacked_product("ij,ij,", cofactor(x), x.shape, y.shape),
    _per_matrix,
)
log_determinant = _of_matrices(
    "logabsdet",
    lambda x: np.linalg.slogdet(x)[1],
    lambda y, x: _trace_with_inverse(x),
    _per_matrix,
    "np.linalg.slogdet({0})[1]",
)
sign_of_determinant = _of_matrices(
    "signdet", lambda x: np.linalg.slogdet(x)[0], None, _per_matrix, "np.linalg.slogdet({0})[0]"
)


def _of_square(primitive: Primitive, a: Any) -> Expression:
    x = _square(a, primitive.name)
    return primitive(x.graph, x)


FUNCTIONS[np.linalg.inv] = functools.partial(_of_square, inverse)
FUNCTIONS[np.linalg.det] = functools.partial(_of_square, determinant)


@implements(np.linalg.slogdet)
def _slogdet(a: Any) -> Any:
    x = _square(a, "slogdet")
    pair = (sign_of_determinant(x.graph, x), log_determinant(x.graph, x))
    return type(np.linalg.slogdet(np.eye(1)))(*pair)


def _turned(shape: Shape) -> LinearMap:
    """Each matrix of a stack transposed."""
    turn = lambda t: np.swapaxes(t, -1, -2)
    return Reindex(turn, turn, shape, shape)


def _similar(vectors: Any, shape: Shape) -> LinearMap:
    """dA ↦ Vᵀ dA V, for the symmetric dA that LAPACK reads."""
    turned = stacked_product("jk,ji,ik", vectors, shape)
    return Compose(_right_product(vectors, shape), turned, _from_lower(shape))


def _from_lower(shape: Shape) -> LinearMap:
    """What LAPACK reads of a symmetric matrix: its lower triangle, mirrored."""
    n = shape[-1]
    lower = Scale(np.tri(n), shape, shape)
    strict = Scale(np.tri(n, k=-1), shape, shape)
    return Sum(lower, Compose(_turned(shape), strict))


def _cholesky_partial(y: Expression, x: Expression) -> LinearMap:
    # dL = L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower triangle with half the diagonal (Murray 2016).
    shape, n = y.shape, y.shape[-1]
    inverse_factor = np.linalg.inv(y)
    half = Scale(np.tri(n) - 0.5 * np.eye(n), shape, shape)
    right = stacked_product("ij,kj,ik", inverse_factor, shape)
    return Compose(
        left_product(y, shape), half, right, left_product(inverse_factor, shape), _from_lower(shape)
    )


cholesky = _of_matrices("cholesky", np.linalg.cholesky, _cholesky_partial)


@implements(np.linalg.cholesky)
def _cholesky(a: Any, /, *, upper: bool = False) -> Any:
    if upper:
        raise UnsupportedFunction("np.linalg.cholesky(upper=True) on traced values; transpose.")
    return _of_square(cholesky, a)


def _eigenvalues_partial(y: Expression, x: Expression) -> LinearMap:
    # With S = Vᵀ dA V: dw = diag S; the mean of it for equal ones, as for ties of np.max.
    shape, n = x.shape, x.shape[-1]
    diagonal = Reindex(
        lambda t: np.diagonal(t, 0, -2, -1), lambda c: c[..., None] * np.eye(n), shape, shape[:-1]
    )
    means = stacked_product("j,ij,i", equal_shares(y), y.shape, y.shape)
    return Compose(means, diagonal, _similar(eigenvectors(x.graph, x), shape))


def _eigenvectors_partial(y: Expression, x: Expression) -> LinearMap:
    # dV = V (F∘S), F_ij = 1 / (w_j − w_i) off the diagonal. NaN among equal eigenvalues has the
    # derivative found between: see `repeated_eigenvalues.py`.
    shape, weights = x.shape, inverse_gaps(eigenvalues(x.graph, x))
    return Compose(left_product(y, shape), Scale(weights, shape, shape), _similar(y, shape))


spread = unary(
    "spread",
    spread_of,
    shape=lambda shape: (),
    dtype=lambda dtype: np.dtype(float),
    code="_spread_of({0})",
)


def _spectrum(node: Expression) -> Expression:
    """How far rounding of a matrix may be magnified in its eigenvalues, or in its eigenvectors."""
    return spread(node.graph, eigenvalues(node.graph, node.arguments[0]))


eigenvalues = _of_matrices(
    "eigvalsh",
    lambda x: np.linalg.eigvalsh(moved_apart(x)),
    _eigenvalues_partial,
    lambda shape: shape[:-1],
    conditioned=_spectrum,
    parted=True,
)
eigenvectors = _of_matrices(
    "eigenvectors",
    lambda x: np.linalg.eigh(moved_apart(x))[1],
    _eigenvectors_partial,
    code="np.linalg.eigh({0})[1]",
    conditioned=None,
    parted=True,
)


def _gaps_partial(y: Expression, x: Expression, order: int) -> LinearMap:
    # d 1/(w_j − w_i) = −(dw_j − dw_i)/(w_j − w_i)²
    squares: Any = np.square(inverse_gaps(x, order + 1))
    row, column = (*x.shape[:-1], 1, x.shape[-1]), (*x.shape, 1)

    def spread(weights: Any, kept: Shape) -> LinearMap:
        laid = Reindex(
            lambda t: np.reshape(t, kept), lambda c: np.reshape(c, x.shape), x.shape, kept
        )
        return Compose(Scale(weights, y.shape, y.shape), Scale(1, kept, y.shape), laid)

    return Sum(spread(-squares, row), spread(squares, column))


def _pairs(shape: Shape, order: int) -> Shape:
    return (*shape, shape[-1])


shares = unary(
    "equal_shares",
    shares_there,
    shape=_pairs,
    dtype=lambda dtype, order: dtype,
    code="_equal_shares({0}, {1})",
)
gaps = unary("inverse_gaps", gaps_there, _gaps_partial, _pairs, code="_inverse_gaps({0}, {1})")
FUNCTIONS[equal_shares] = lambda values, order=0: shares(values.graph, values, parameters=(order,))
FUNCTIONS[spread_of] = lambda values: spread(values.graph, values)
FUNCTIONS[inverse_gaps] = lambda values, order=1: gaps(values.graph, values, parameters=(order,))


@implements(np.linalg.eigvalsh)
def _eigvalsh(a: Any, UPLO: str = "L") -> Any:
    if UPLO != "L":
        raise UnsupportedFunction("np.linalg.eigh(UPLO='U') on traced values; transpose.")
    x = _square(a, "eigh")
    return eigenvalues(x.graph, x)


@implements(np.linalg.eigh)
def _eigh(a: Any, UPLO: str = "L") -> Any:
    (x,) = lifted(a)
    pair: Any = (np.linalg.eigvalsh(x, UPLO), eigenvectors(x.graph, x))  # type: ignore[call-overload]
    return type(np.linalg.eigh(np.eye(1)))(*pair)
