"""Linear maps on their own: the matrix of each, its products, its transpose."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lagrad.expressions.linear_maps import Compose, Reindex, Scale, Sum, Transpose
from lagrad.primitives.kernels import SparseConstant
from lagrad.primitives.product_maps import Contract, Convolve, Running, Solve, SparseProduct

RNG = np.random.default_rng(5)
SQUARE = RNG.standard_normal((3, 3)) + 3 * np.eye(3)
A = sparse.random_array((4, 3), density=0.5, rng=RNG, format="csr")
MAPS = {
    "number": Scale(0.3, (2, 3), (2, 3)),
    "minus": Scale(-1, (3,), (2, 3)),
    "weights": Scale(RNG.standard_normal((2, 3)), (3,), (2, 3)),
    "stretched": Scale(RNG.standard_normal(3), (2, 1), (2, 3)),
    "scalar": Scale(RNG.standard_normal((2, 3)), (), (2, 3)),
    "mask": Scale(np.array([True, False, True]), (3,), (3,)),
    "slice": Reindex(lambda t: t[::2], lambda c: np.stack([c[0], 0 * c[0], c[1]]), (3, 2), (2, 2)),
    "turned": Transpose(Reindex(np.transpose, np.transpose, (2, 3), (3, 2))),
    "product": Contract(("ij", "jk", "ik"), RNG.standard_normal((3, 2)), (4, 3), (4, 2)),
    "batch": Contract(("aij", "ajk", "aik"), RNG.standard_normal((2, 3, 2)), (2, 4, 3), (2, 4, 2)),
    "trace": Contract(("ij", "ji", ""), SQUARE, (3, 3), ()),
    "outer": Contract(("i", "j", "ij"), RNG.standard_normal(2), (3,), (3, 2)),
    "sparse": SparseProduct(SparseConstant(A), (3,)),
    "sparse columns": SparseProduct(SparseConstant(A), (3, 2)),
    "running": Running(1, (2, 4)),
    "convolve": Convolve(RNG.standard_normal(3), (5,)),
    "solve": Solve(SQUARE, (3, 2)),
    "solves": Solve(np.stack([SQUARE, SQUARE.T]), (2, 3, 1)),
}
MAPS["compose"] = Compose(MAPS["minus"], Scale(RNG.standard_normal(3), (3,), (3,)))
MAPS["sum"] = Sum(MAPS["weights"], MAPS["minus"])


def dense(linear):
    """The matrix from products with unit vectors."""
    size = int(np.prod(linear.source))
    columns = [np.ravel(linear.mv(e.reshape(linear.source))) for e in np.eye(size)]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", MAPS)
def test_every_product_is_the_matrix(name):
    linear = MAPS[name]
    matrix = dense(linear)
    np.testing.assert_allclose(linear.as_sparse().toarray(), matrix, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(linear.as_dense(), matrix, rtol=1e-14, atol=1e-14)
    for k in (1, 3):
        right = RNG.standard_normal((matrix.shape[1], k))
        left = RNG.standard_normal((matrix.shape[0], k))
        for form in (np.asarray, sparse.csr_array):
            for product, expected in (
                (linear.lmul(form(right)), matrix @ right),
                (linear.rlmul(form(left)), matrix.T @ left),
            ):
                found = product.toarray() if sparse.issparse(product) else product
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    cotangent = RNG.standard_normal(linear.target)
    np.testing.assert_allclose(
        np.ravel(linear.rmv(cotangent)), matrix.T @ cotangent.ravel(), atol=1e-12
    )
    assert linear.entries >= np.count_nonzero(matrix)
    again = linear.with_data(linear.data)
    np.testing.assert_array_equal(again.as_sparse().toarray(), linear.as_sparse().toarray())


@pytest.mark.parametrize("name", MAPS)
def test_the_pattern_covers_every_entry(name):
    linear = MAPS[name]
    pattern = linear.pattern().as_sparse().toarray()
    assert (pattern[dense(linear) != 0] > 0).all()


def test_a_number_keeps_its_precision_as_a_matrix():
    assert Scale(0.3, (2,), (2,)).as_sparse()[0, 0] == 0.3


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4), st.integers(0, 99))
def test_scaling_broadcasts_as_numpy_does(shapes, seed):
    rng = np.random.default_rng(seed)
    source, other = shapes.input_shapes
    weight = rng.standard_normal(other)
    linear = Scale(weight, source, shapes.result_shape)
    tangent = rng.standard_normal(source)
    np.testing.assert_allclose(linear.mv(tangent), weight * tangent)
    cotangent = rng.standard_normal(shapes.result_shape)
    lhs, rhs = np.sum(linear.mv(tangent) * cotangent), np.sum(tangent * linear.rmv(cotangent))
    np.testing.assert_allclose(lhs, rhs, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        linear.as_sparse() @ tangent.ravel(), np.ravel(weight * tangent), atol=1e-12
    )


def test_a_sparse_constant_turns_its_transpose_to_rows_once_it_is_asked_for_often():
    matrix = sparse.random_array((5, 3), density=0.5, rng=np.random.default_rng(0), format="csr")
    constant, x = SparseConstant(matrix), np.arange(5.0)
    for _ in range(30):
        np.testing.assert_allclose(constant.back(x), matrix.toarray().T @ x)
    assert constant.transposed.transposed is constant
    assert constant.transposed.matrix.format == "csr"
