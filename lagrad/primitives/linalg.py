"""Dense linear algebra over stacks of matrices, (…, n, n)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Compose, LinearMap, Reindex, Scale, Sum
from lagrad.primitives.kernels import cofactor
from lagrad.primitives.product_maps import Contract, Solve
from lagrad.primitives.registry import call, declare, implements, lifted
from lagrad.typing import Function, Parameters, Shape

HEAD = "abcdefgh"


def _square(x: Expression, name: str) -> Expression:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeMismatch(f"np.linalg.{name} of shape {x.shape}; expected (…, n, n).")
    return x


def _nan_where_singular(function: Function, shape: Callable[..., Shape]) -> Any:
    """A function of LAPACK that returns NaN for what has no answer, as ufuncs do."""

    def kernel(*x: Any) -> Any:
        try:
            return function(*x)
        except np.linalg.LinAlgError:
            return np.full(shape(*x), np.nan, dtype=np.result_type(*x, np.float32))

    return lambda parameters: kernel


def _times(spec: tuple[str, str, str], other: Any, source: Shape, target: Shape) -> LinearMap:
    """A product with `other` over stacks; `spec` names the last axes."""
    head = HEAD[: len(source) - 2] if len(source) > 2 else ""
    inner, fixed, out = (head + labels for labels in spec)
    return Contract((inner, fixed, out), other, source, target)


def _like_first(arguments: tuple[Expression, ...], parameters: Parameters) -> tuple[Shape, Any]:
    return arguments[0].shape, np.result_type(arguments[0].dtype, np.float32)


def _per_matrix(arguments: tuple[Expression, ...], parameters: Parameters) -> tuple[Shape, Any]:
    return arguments[0].shape[:-2], np.result_type(arguments[0].dtype, np.float32)


def _solve_partial(node: Expression, k: int) -> LinearMap:
    matrix, right = node.arguments
    solve = Solve(matrix, right.shape)
    if k == 1:
        return solve
    # d(A⁻¹b) = −A⁻¹ dA (A⁻¹b)
    product = _times(("ij", "jk", "ik"), node, matrix.shape, node.shape)
    return Compose(Scale(-1, node.shape, node.shape), solve, product)


solve = declare(
    "solve",
    _nan_where_singular(np.linalg.solve, lambda a, b: b.shape),
    lambda arguments, parameters: (
        arguments[1].shape,
        np.result_type(arguments[0].dtype, arguments[1].dtype, np.float32),
    ),
    _solve_partial,
    call("np.linalg.solve"),
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


def _inverse_partial(node: Expression, k: int) -> LinearMap:
    # dA⁻¹ = −A⁻¹ dA A⁻¹
    shape = node.shape
    return Compose(
        Scale(-1, shape, shape),
        _times(("jk", "ij", "ik"), node, shape, shape),
        _times(("ij", "jk", "ik"), node, shape, shape),
    )


inverse = declare(
    "inv",
    _nan_where_singular(np.linalg.inv, np.shape),
    _like_first,
    _inverse_partial,
    call("np.linalg.inv"),
)


@implements(np.linalg.inv)
def _inv(a: Any) -> Any:
    (x,) = lifted(a)
    return inverse(x.graph, _square(x, "inv"))


def _trace_with_inverse(x: Expression, target: Shape) -> LinearMap:
    """dA ↦ tr(A⁻¹ dA)."""
    return _times(("ij", "ji", ""), np.linalg.inv(x), x.shape, target)


determinant = declare(
    "det",
    lambda parameters: np.linalg.det,
    _per_matrix,
    lambda node, k: _times(
        ("ij", "ij", ""), cofactor(node.arguments[0]), node.arguments[0].shape, node.shape
    ),
    call("np.linalg.det"),
)


def _cofactor_partial(node: Expression, k: int) -> LinearMap:
    # C = det(A) A⁻ᵀ: dC = tr(A⁻¹ dA) C − C dAᵀ A⁻ᵀ.
    (x,) = node.arguments
    shape = x.shape
    scale = Scale(node, (*shape[:-2], 1, 1), shape)
    lift = Reindex(
        lambda t: np.reshape(t, (*shape[:-2], 1, 1)),
        lambda c: np.reshape(c, shape[:-2]),
        shape[:-2],
        (*shape[:-2], 1, 1),
    )
    second = Compose(
        Scale(-1, shape, shape),
        _times(("jk", "ij", "ik"), node, shape, shape),
        _times(("ij", "kj", "ik"), np.linalg.inv(x), shape, shape),
        _turned(shape),
    )
    return Sum(Compose(scale, lift, _trace_with_inverse(x, shape[:-2])), second)


cofactors = declare(
    "cofactor",
    _nan_where_singular(cofactor, np.shape),
    _like_first,
    _cofactor_partial,
    call("_cofactor"),
)
FUNCTIONS[cofactor] = lambda x: cofactors(x.graph, x)


@implements(np.linalg.det)
def _det(a: Any) -> Any:
    (x,) = lifted(a)
    return determinant(x.graph, _square(x, "det"))


log_determinant = declare(
    "logabsdet",
    lambda parameters: lambda x: np.linalg.slogdet(x)[1],
    _per_matrix,
    lambda node, k: _trace_with_inverse(node.arguments[0], node.shape),
    lambda texts, parameters: f"np.linalg.slogdet({texts[0]})[1]",
)
sign_of_determinant = declare(
    "signdet",
    lambda parameters: lambda x: np.linalg.slogdet(x)[0],
    _per_matrix,
    lambda node, k: None,
    lambda texts, parameters: f"np.linalg.slogdet({texts[0]})[0]",
)


@implements(np.linalg.slogdet)
def _slogdet(a: Any) -> Any:
    (x,) = lifted(a)
    _square(x, "slogdet")
    pair = (sign_of_determinant(x.graph, x), log_determinant(x.graph, x))
    return type(np.linalg.slogdet(np.eye(1)))(*pair)


def _turned(shape: Shape) -> LinearMap:
    """Each matrix of a stack transposed."""
    turn = lambda t: np.swapaxes(t, -1, -2)
    return Reindex(turn, turn, shape, shape)


def _similar(vectors: Any, shape: Shape) -> LinearMap:
    """dA ↦ Vᵀ dA V, for the symmetric dA that LAPACK reads."""
    return Compose(
        _times(("ij", "jk", "ik"), vectors, shape, shape),
        _times(("jk", "ji", "ik"), vectors, shape, shape),
        _from_lower(shape),
    )


def _from_lower(shape: Shape) -> LinearMap:
    """What LAPACK reads of a symmetric matrix: its lower triangle, mirrored."""
    n = shape[-1]
    lower = Scale(np.tril(np.ones((n, n))), shape, shape)
    strict = Scale(np.tril(np.ones((n, n)), -1), shape, shape)
    return Sum(lower, Compose(_turned(shape), strict))


def _cholesky_partial(node: Expression, k: int) -> LinearMap:
    # dL = L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower triangle with half the diagonal (Murray 2016).
    shape, n = node.shape, node.shape[-1]
    inverse_factor = np.linalg.inv(node)
    half = np.tril(np.ones((n, n))) - 0.5 * np.eye(n)
    return Compose(
        _times(("jk", "ij", "ik"), node, shape, shape),
        Scale(half, shape, shape),
        _times(("ij", "kj", "ik"), inverse_factor, shape, shape),
        _times(("jk", "ij", "ik"), inverse_factor, shape, shape),
        _from_lower(shape),
    )


cholesky = declare(
    "cholesky",
    _nan_where_singular(np.linalg.cholesky, np.shape),
    _like_first,
    _cholesky_partial,
    call("np.linalg.cholesky"),
)


@implements(np.linalg.cholesky)
def _cholesky(a: Any, /, *, upper: bool = False) -> Any:
    (x,) = lifted(a)
    if upper:
        raise UnsupportedFunction("np.linalg.cholesky(upper=True) on traced values; transpose.")
    return cholesky(x.graph, _square(x, "cholesky"))


def _eigenvectors(x: Any) -> Any:
    return eigenvectors(x.graph, x)


def _eigenvalues_partial(node: Expression, k: int) -> LinearMap:
    # With S = Vᵀ dA V: dw = diag S.
    (x,) = node.arguments
    shape, n = x.shape, x.shape[-1]
    vectors = _eigenvectors(x)
    diagonal = Reindex(
        lambda t: np.diagonal(t, 0, -2, -1), lambda c: c[..., None] * np.eye(n), shape, shape[:-1]
    )
    return Compose(diagonal, _similar(vectors, shape))


def _eigenvectors_partial(node: Expression, k: int) -> LinearMap:
    # dV = V (F∘S), F_ij = 1 / (w_j − w_i) off the diagonal: infinite where eigenvalues are equal.
    (x,) = node.arguments
    shape, n = x.shape, x.shape[-1]
    values: Any = eigenvalues(x.graph, x)
    gaps = values[..., None, :] - values[..., :, None]
    weights = (1 - np.eye(n)) / (gaps + np.eye(n))
    return Compose(
        _times(("jk", "ij", "ik"), node, shape, shape),
        Scale(weights, shape, shape),
        _similar(node, shape),
    )


eigenvalues = declare(
    "eigvalsh",
    _nan_where_singular(np.linalg.eigvalsh, lambda x: x.shape[:-1]),
    lambda arguments, parameters: (
        arguments[0].shape[:-1],
        np.result_type(arguments[0].dtype, np.float32),
    ),
    _eigenvalues_partial,
    call("np.linalg.eigvalsh"),
)
eigenvectors = declare(
    "eigenvectors",
    _nan_where_singular(lambda x: np.linalg.eigh(x)[1], np.shape),
    _like_first,
    _eigenvectors_partial,
    lambda texts, parameters: f"np.linalg.eigh({texts[0]})[1]",
)


@implements(np.linalg.eigvalsh)
def _eigvalsh(a: Any, UPLO: str = "L") -> Any:
    (x,) = lifted(a)
    if UPLO != "L":
        raise UnsupportedFunction("np.linalg.eigh(UPLO='U') on traced values; transpose.")
    return eigenvalues(x.graph, _square(x, "eigh"))


@implements(np.linalg.eigh)
def _eigh(a: Any, UPLO: str = "L") -> Any:
    (x,) = lifted(a)
    values = np.linalg.eigvalsh(x, UPLO)  # type: ignore[call-overload]
    return type(np.linalg.eigh(np.eye(1)))(values, _eigenvectors(x))
