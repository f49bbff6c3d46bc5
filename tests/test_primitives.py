"""Every primitive, from the registry: value, dot test, sparse block, Taylor rates, float32.

A case is a function and its arguments. The value is compared with the same function of plain
arrays, which is NumPy's or SciPy's.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy import special
from scipy.optimize import brentq

import lagrad as lg
from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import Graph, ancestors
from lagrad.primitives.cofactors import cofactor, cofactor_change
from lagrad.primitives.kernels import (
    Index,
    branch_share,
    embed,
    exp_ratio,
    extreme_share,
    gather,
    hurwitz_zeta,
    hypot_share,
    inverse_mills,
    larger_share,
    logistic_share,
    scatter,
    tanh_slope,
    unit_complement,
)
from lagrad.primitives.registry import PRIMITIVES
from lagrad.primitives.repeated_eigenvalues import equal_shares, inverse_gaps, spread_of
from lagrad.systems.linearization import Tape

RNG = np.random.default_rng(7)
A34 = RNG.standard_normal((3, 4))
B34 = RNG.standard_normal((3, 4))
ROW = RNG.standard_normal(4)
POS = np.abs(A34) + 0.5
UNIT = np.tanh(A34) * 0.9
PROB = 1 / (1 + np.exp(-A34))
S3 = RNG.standard_normal((3, 3)) + 3 * np.eye(3)
STACK = RNG.standard_normal((2, 3, 3)) + 4 * np.eye(3)
SPD = S3 @ S3.T + np.eye(3)
SPDS = np.stack([SPD, SPD + np.diag([1.0, 2.0, 3.0])])
GAPS = Index(np.array([[0, 3, -1], [3, 11, -1]]), (3, 4))
SPARSE = sparse.random_array((5, 3), density=0.6, rng=RNG, format="csr")

CASES = {
    "add": [(np.add, A34, ROW), (np.add, A34, B34), (np.add, A34, np.float64(2.0))],
    "subtract": [(np.subtract, A34, ROW), (np.subtract, ROW, A34)],
    "multiply": [
        (np.multiply, A34, ROW),
        (np.multiply, A34, A34),
        (np.multiply, np.array(2.0), A34),
    ],
    "divide": [(np.divide, A34, POS), (lambda x: 2.0 / x, POS)],
    "negative": [(np.negative, A34)],
    "power": [
        (np.power, POS, B34),
        (lambda x: x**3, A34),
        (lambda x: x**-2, POS),
        (lambda x: x**0.5, POS),
        (lambda x: x**0, A34),
        (lambda x: 2.0**x, A34),
        (lambda x: x ** np.array([0.0, 1.0, 2.0, 3.0]), A34),
    ],
    "abs": [(np.abs, A34)],
    "sign": [(np.sign, A34)],
    "floor": [(np.floor, A34)],
    "ceil": [(np.ceil, A34)],
    "sqrt": [(np.sqrt, POS)],
    "cbrt": [(np.cbrt, A34)],
    "square": [(np.square, A34)],
    "reciprocal": [(np.reciprocal, POS)],
    "exp": [(np.exp, A34)],
    "exp2": [(np.exp2, A34)],
    "expm1": [(np.expm1, A34)],
    "log": [(np.log, POS)],
    "log2": [(np.log2, POS)],
    "log10": [(np.log10, POS)],
    "log1p": [(np.log1p, UNIT)],
    "sin": [(np.sin, A34)],
    "cos": [(np.cos, A34)],
    "tan": [(np.tan, UNIT)],
    "arcsin": [(np.arcsin, UNIT)],
    "arccos": [(np.arccos, UNIT)],
    "arctan": [(np.arctan, A34)],
    "arctan2": [(np.arctan2, A34, B34)],
    "sinh": [(np.sinh, A34)],
    "cosh": [(np.cosh, A34)],
    "tanh": [(np.tanh, A34)],
    "arcsinh": [(np.arcsinh, A34)],
    "arccosh": [(np.arccosh, POS + 1)],
    "arctanh": [(np.arctanh, UNIT)],
    "hypot": [(np.hypot, A34, B34)],
    "hypot_share": [(hypot_share, A34, B34)],
    "unit_complement": [(unit_complement, UNIT)],
    "inverse_mills": [(inverse_mills, 3 * A34)],
    "logistic_share": [(logistic_share, A34, ROW), (logistic_share, A34, 0.5)],
    "tanh_slope": [(lambda x: tanh_slope(np.tanh(x), x), 3 * A34)],
    "larger_share": [(larger_share, A34, ROW), (larger_share, A34, 0.5)],
    "branch_share": [(lambda x: branch_share(x > 0.1, x, 0.1), A34)],
    "exp_ratio": [(exp_ratio, A34, ROW)],
    "softmax": [(lg.softmax, A34), (lambda x: lg.softmax(x, axis=0), A34)],
    "log_softmax": [(lg.log_softmax, A34), (lambda x: lg.log_softmax(x, axis=0), A34)],
    "logaddexp": [(np.logaddexp, A34, ROW)],
    "maximum": [(np.maximum, A34, ROW), (lambda x: np.clip(x, -0.5, 0.5), A34)],
    "minimum": [(np.minimum, A34, ROW), (lambda x: np.clip(x, None, 0.5), A34)],
    "fmax": [(np.fmax, A34, B34)],
    "fmin": [(np.fmin, A34, B34)],
    "equal": [(lambda x: np.where(np.equal(x, 0.1), 1.0, x), A34)],
    "not_equal": [(lambda x: np.where(x != 0.1, x, 1.0), A34)],
    "less": [(lambda x: np.where(x < 0.1, x, 2 * x), A34)],
    "less_equal": [(lambda x: np.where(x <= 0.1, x, 2 * x), A34)],
    "greater": [(lambda x: np.where(x > 0.1, x, 2 * x), A34)],
    "greater_equal": [(lambda x: np.where(x >= 0.1, x, 2 * x), A34)],
    "logical_and": [(lambda x: np.where(np.logical_and(x > 0.1, x < 1), x, 2 * x), A34)],
    "logical_or": [(lambda x: np.where(np.logical_or(x > 0.1, x < -1), x, 2 * x), A34)],
    "logical_xor": [(lambda x: np.where(np.logical_xor(x > 0.1, x < 1), x, 2 * x), A34)],
    "logical_not": [(lambda x: np.where(np.logical_not(x > 0.1), x, 2 * x), A34)],
    "isfinite": [(lambda x: np.where(np.isfinite(x), x, 0.0), A34)],
    "isnan": [(lambda x: np.where(np.isnan(x), 0.0, x), A34)],
    "isinf": [(lambda x: np.where(np.isinf(x), 0.0, x), A34)],
    "where": [
        (lambda x, y: np.where(A34 > 0, x, y), A34, ROW),
        (lambda x: np.where(x > 0, x, 0), A34),
    ],
    "astype": [
        (lambda x: np.astype(x, np.float32) if x.dtype == np.float64 else x, np.round(A34, 1))
    ],
    "erf": [(special.erf, A34)],
    "erfc": [(special.erfc, A34)],
    "expit": [(special.expit, A34)],
    "logit": [(special.logit, PROB)],
    "zeta": [(lambda q: hurwitz_zeta(3.0, q), POS + 1)],
    "digamma": [(special.digamma, POS)],
    "gammaln": [(special.gammaln, POS)],
    "xlogy": [(special.xlogy, A34, POS)],
    "xlog1py": [(special.xlog1py, A34, POS)],
    "entr": [(special.entr, PROB)],
    "ndtr": [(special.ndtr, A34)],
    "log_ndtr": [(special.log_ndtr, A34)],
    "erfcx": [(special.erfcx, A34)],
    "logsumexp": [
        (lg.logsumexp, A34),
        (lambda x: lg.logsumexp(x, axis=1), A34),
        (lambda x: lg.softmax(x, axis=0), A34),
        (lambda x: lg.logsumexp(x, axis=(0, 1), keepdims=True), A34),
    ],
    "sum": [
        (np.sum, A34),
        (lambda x: np.sum(x, axis=-1, keepdims=True), A34),
        (lambda x: x.sum(0), A34),
        (lambda x: np.add.reduce(x), A34),
        (lambda x: np.mean(x, axis=1), A34),
        (lambda x: np.var(x, axis=0, ddof=1), A34),
        (lambda x: np.std(x, axis=1, keepdims=True), A34),
        (lambda x: np.average(x, axis=1, weights=np.arange(1.0, 5.0)), A34),
        (np.average, A34),
        (np.linalg.norm, A34),
        (lambda x: np.linalg.norm(x, ord=1, axis=0), A34),
        (lambda x: np.linalg.norm(x, ord=3, axis=1), A34),
        (lambda x: np.linalg.norm(x, ord=np.inf, axis=1), A34),
        (np.prod, A34),
        (lambda x: np.prod(x, axis=1, keepdims=True), A34),
    ],
    "broadcast_to": [
        (lambda x: np.broadcast_to(x, (2, 3, 4)), A34),
        (lambda x: np.broadcast_to(x, (3, 4)), ROW),
    ],
    "max": [(np.max, A34), (lambda x: np.max(x, axis=1), A34)],
    "min": [(np.min, A34), (lambda x: np.min(x, axis=0, keepdims=True), A34)],
    "extreme_share": [(lambda x: extreme_share(x, (1,), True), A34)],
    "cumsum": [
        (np.cumsum, A34),
        (lambda x: np.cumsum(x, axis=0), A34),
        (lambda x: np.cumsum(x, axis=-1), A34),
    ],
    "reshape": [
        (lambda x: np.reshape(x, (2, -1)), A34),
        (np.ravel, A34),
        (lambda x: np.expand_dims(x, (0, 2)), A34),
        (lambda x: np.squeeze(x[None], 0), A34),
        (lambda x: x.reshape(4, 3), A34),
    ],
    "transpose": [
        (np.transpose, A34),
        (lambda x: x.T, A34),
        (lambda x: np.swapaxes(x, 0, 2), STACK),
        (lambda x: np.moveaxis(x, 0, -1), STACK),
        (lambda x: np.transpose(x, (1, 2, 0)), STACK),
    ],
    "getitem": [
        (lambda x: x[1], A34),
        (lambda x: x[::2, 1:-1], A34),
        (lambda x: x[..., None, -1], A34),
        (lambda x: np.flip(x, 1), A34),
        (lambda x: x[::-1], A34),
        (lambda x: np.split(x, [1, 3], axis=1)[1], A34),
        (lambda x: np.diff(x, n=2, axis=1), A34),
        (lambda x: np.diff(x, axis=0), A34),
    ],
    "embed": [
        (lambda x: embed(x, (1, (None, None, -1)), (3, 4)), ROW),
        (lambda x: np.pad(x, 1), A34),
    ],
    "gather": [
        (lambda x: gather(x, GAPS), A34),
        (lambda x: x[[0, 2, 2]], A34),
        (lambda x: x[A34 > 0], A34),
        (lambda x: x[np.arange(3), [0, 1, 1]], A34),
        (lambda x: np.roll(x, 1, axis=0), A34),
        (lambda x: np.tile(x, (2, 1)), A34),
        (lambda x: np.repeat(x, 2, axis=1), A34),
        (lambda x: np.repeat(x, [1, 0, 2, 1], axis=1), A34),
        (lambda x: np.take(x, [1, 1, 2], axis=1), A34),
        (lambda x: np.take_along_axis(x, np.argsort(A34, axis=1), axis=1), A34),
        (lambda x: np.pad(x, ((1, 2), (0, 1)), mode="edge"), A34),
        (lambda x: np.pad(x, 1, mode="reflect"), A34),
        (np.diag, ROW),
        (np.diag, A34),
        (lambda x: np.diagonal(x, 1), A34),
        (np.trace, A34),
        (np.tril, A34),
        (lambda x: np.triu(x, 1), A34),
    ],
    "scatter": [
        (lambda x: scatter(x, GAPS), RNG.standard_normal((2, 3))),
        (lambda x: np.bincount(np.array([2, 0, 2, 5]), x, 8), ROW),
    ],
    "concatenate": [
        (lambda x, y: np.concatenate([x, y, x], axis=1), A34, B34),
        (lambda x, y: np.stack([x, y], axis=1), A34, B34),
        (lambda x, y: np.vstack([x, y]), A34, ROW),
        (lambda x, y: np.hstack([x, y]), A34, B34),
        (lambda x: np.concatenate([x, np.ones((3, 1))], axis=1), A34),
    ],
    "stop_gradient": [(lambda x: lg.stop_gradient(x) + 0 * x, np.zeros(2))],
    "contract": [
        (np.matmul, A34, B34.T),
        (np.matmul, A34, ROW),
        (np.matmul, ROW, A34.T),
        (np.matmul, ROW, ROW + 1),
        (np.matmul, STACK, STACK + 1),
        (np.matmul, S3, STACK),
        (np.matmul, STACK, S3[0]),
        (np.dot, A34, ROW),
        (np.dot, STACK, STACK),
        (np.vdot, A34, B34),
        (np.inner, A34, B34),
        (np.outer, ROW, A34[0]),
        (lambda x, y: np.tensordot(x, y, axes=([1], [0])), STACK, S3),
        (np.tensordot, A34, B34),
        (lambda x, y: np.einsum("ij,kj->ik", x, y), A34, B34),
        (lambda x, y: np.einsum("ij,kj", x, y), A34, B34),
        (lambda x: np.einsum("ii->i", x), S3),
        (lambda x: np.einsum("ij->j", x), A34),
        (lambda x, y: np.einsum("...ij,jk->...ki", x, y), STACK, S3),
        (lambda x, y, z: np.einsum("ij,jk,kl->il", x, y, z), S3, S3 + 1, A34),
        (lambda x, y: np.einsum("ij,ik->jk", x, y), A34, B34),
        (lambda x, y: np.einsum("ij,k->j", x, y), A34, ROW),
        (np.kron, A34[:2, :2], S3),
    ],
    "sparse_product": [
        (lambda x: SPARSE @ x, A34[:, 0]),
        (lambda x: SPARSE @ x, A34),
        (lambda x: sparse.csr_matrix(SPARSE) @ x, A34[:, 0]),
        (lambda x: sparse.coo_array(SPARSE) @ x, A34),
        (lambda x: x @ sparse.csc_array(SPARSE.T), A34[:, :3]),
    ],
    "convolve": [
        (np.convolve, ROW, A34[0, :3]),
        (lambda a, v: np.convolve(a, v, "same"), ROW, A34[0, :3]),
        (lambda a, v: np.convolve(a, v, "valid"), A34[0, :3], ROW),
        (np.convolve, ROW, ROW),
    ],
    "solve": [
        (np.linalg.solve, S3, ROW[:3]),
        (np.linalg.solve, S3, A34),
        (np.linalg.solve, STACK, STACK + 1),
        (np.linalg.solve, S3, STACK),
    ],
    "inv": [(np.linalg.inv, S3), (np.linalg.inv, STACK)],
    "det": [(np.linalg.det, S3), (np.linalg.det, STACK), (np.linalg.det, np.ones((1, 1)))],
    "cofactor": [(cofactor, S3), (cofactor, STACK)],
    "cofactor_change": [(cofactor_change, S3, S3.T + 1), (cofactor_change, STACK, STACK + 1)],
    "logabsdet": [
        (lambda x: np.linalg.slogdet(x)[1], S3),
        (lambda x: np.linalg.slogdet(x).logabsdet, STACK),
    ],
    "signdet": [(lambda x: np.linalg.slogdet(x)[0] * x, S3)],
    "cholesky": [(np.linalg.cholesky, SPD), (np.linalg.cholesky, SPDS)],
    "eigvalsh": [
        (lambda x: np.linalg.eigh(x)[0], SPD),
        (lambda x: np.linalg.eigh(x).eigenvalues, SPDS),
        (np.linalg.eigvalsh, SPD),
    ],
    "equal_shares": [(lambda w: equal_shares(w) * w[:, None, :], np.sort(A34))],
    "spread": [(lambda w: spread_of(np.stack([w, w], axis=-1)) * w, A34)],
    "inverse_gaps": [(inverse_gaps, np.sort(A34))],
    "eigenvectors": [
        (lambda x: np.abs(np.linalg.eigh(x)[1]), SPD),
        (lambda x: np.abs(np.linalg.eigh(x).eigenvectors), SPDS),
    ],
}
ALL = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


def traced(function, arrays, dtype=np.float64):
    """The variables, the output, and the values of a case."""
    graph = Graph("case")
    values = [np.asarray(a, dtype=dtype) for a in arrays]
    variables = [
        Variable(graph, f"x{i}", "parameter", v.shape, v.dtype, None) for i, v in enumerate(values)
    ]
    return variables, function(*variables), values


def linearized(variables, output, values):
    """The numeric tape of a case."""
    tape = Tape([output], variables, lambda n: isinstance(n, Variable), {})
    return tape, tape.at(Plan(variables, tape.data)(values))


def test_every_primitive_has_a_case():
    assert set(CASES) == set(PRIMITIVES)


@pytest.mark.parametrize("name", CASES)
def test_a_case_uses_its_primitive(name):
    variables, output, _ = traced(*_split(CASES[name][0]))
    used = {n.primitive.name for n in ancestors([output], lambda n: False, {}) if n.primitive}
    assert name in used


def _split(case):
    return case[0], case[1:]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "i"), ALL)
def test_the_value_is_numpys(name, i, dtype):
    function, arrays = _split(CASES[name][i])
    variables, output, values = traced(function, arrays, dtype)
    expected = np.asarray(function(*values))
    (value,) = Plan(variables, [output])(values)
    assert output.shape == expected.shape
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(
        value, expected, rtol=1e-12 if dtype == np.float64 else 2e-4, atol=1e-5
    )


@pytest.mark.parametrize(("name", "i"), ALL)
def test_jvp_and_vjp_pass_the_dot_test_and_agree_with_the_sparse_block(name, i):
    function, arrays = _split(CASES[name][i])
    variables, output, values = traced(function, arrays)
    tape, numeric = linearized(variables, output, values)
    slot = tape.slots.get(output.index)
    if slot is None:
        return
    rng = np.random.default_rng(1)
    tangents = [rng.standard_normal(v.shape) for v in values]
    forwards = numeric.empty()
    for variable, tangent in zip(variables, tangents, strict=True):
        forwards[tape.slots[variable.index]] = tangent
    numeric.push(forwards)
    moved = np.zeros(output.shape) if forwards[slot] is None else forwards[slot]
    weight = rng.standard_normal(output.shape)
    backwards = numeric.empty()
    backwards[slot] = weight
    numeric.pull(backwards)
    back = [backwards[tape.slots[v.index]] for v in variables]
    pulled = sum(np.sum(b * t) for b, t in zip(back, tangents, strict=True) if b is not None)
    np.testing.assert_allclose(np.sum(weight * moved), pulled, rtol=1e-9, atol=1e-9)
    flat = np.concatenate([t.ravel() for t in tangents])
    for dense in (True, False):
        matrix = numeric.jacobian([output], variables, dense)
        np.testing.assert_allclose(matrix @ flat, np.ravel(moved), rtol=1e-9, atol=1e-9)
    reverse = numeric.empty()
    reverse[slot] = np.eye(output.size)
    numeric.pull(reverse, matrices=True)
    rows = [
        np.zeros((v.size, output.size)) if (m := reverse[tape.slots[v.index]]) is None else m
        for v in variables
    ]
    np.testing.assert_allclose(
        np.concatenate(rows).T, numeric.jacobian([output], variables, True), atol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "i"), [a for a in ALL if a[0] != "astype" and a[0] != "stop_gradient"]
)
def test_the_first_order_remainder_is_quadratic_and_the_second_cubic(name, i):
    function, arrays = _split(CASES[name][i])
    variables, output, values = traced(function, arrays)
    rng = np.random.default_rng(2)
    directions = [rng.standard_normal(v.shape) for v in values]
    tape = Tape([output], variables, lambda n: isinstance(n, Variable), {})
    graph = variables[0].graph
    # The symbolic JVP, and the JVP of that: what the second order is made of.
    first = symbolic_push(tape, variables, [graph.constant(d) for d in directions], output)
    again = Tape([first], variables, lambda n: isinstance(n, Variable), {})
    second = symbolic_push(again, variables, [graph.constant(d) for d in directions], first)
    plan = Plan(variables, [output, first, second])
    _, f1, f2 = plan(values)

    def at(step):
        """The function itself, by NumPy alone."""
        return np.asarray(
            function(*(v + step * d for v, d in zip(values, directions, strict=True)))
        )

    def remainder(step, order):
        odd = (at(step) - at(-step)) / 2 - step * f1
        even = (at(step) + at(-step)) / 2 - at(0) - step**2 / 2 * f2
        return np.abs(odd).max() if order == 1 else np.abs(even).max()

    # Odd and even parts leave O(t³) and O(t⁴), or nothing but rounding.
    scale = 1 + np.abs(at(0)).max() + np.abs(f1).max() + np.abs(f2).max()
    small, large = 1e-3, 2e-3
    for order, rate in ((1, 3), (2, 4)):
        big, little = remainder(large, order), remainder(small, order)
        assert little < 2e-11 * scale or np.log2(big / little) > rate - 0.6


def symbolic_push(tape, variables, tangents, output):
    from lagrad.systems.linearization import Linearization

    symbolic = Linearization(tape, tape.steps)
    carried = symbolic.empty()
    for variable, tangent in zip(variables, tangents, strict=True):
        carried[tape.slots[variable.index]] = tangent
    symbolic.push(carried)
    slot = tape.slots.get(output.index)
    found = None if slot is None else carried[slot]
    return output * 0.0 if found is None else found


@pytest.mark.parametrize(("name", "i"), ALL)
def test_the_symbolic_pull_back_equals_the_numeric_one(name, i):
    from lagrad.systems.linearization import Linearization

    function, arrays = _split(CASES[name][i])
    variables, output, values = traced(function, arrays)
    tape, numeric = linearized(variables, output, values)
    slot = tape.slots.get(output.index)
    if slot is None:
        return
    weight = np.random.default_rng(3).standard_normal(output.shape)
    plain = numeric.empty()
    plain[slot] = weight
    numeric.pull(plain)
    symbolic = Linearization(tape, tape.steps)
    carried = symbolic.empty()
    carried[slot] = variables[0].graph.constant(weight)
    symbolic.pull(carried)
    for v in variables:
        found, expected = carried[tape.slots[v.index]], plain[tape.slots[v.index]]
        assert (found is None) == (expected is None)
        if found is not None:
            assert isinstance(found, Expression)
            (value,) = Plan(variables, [found])(values)
            np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
            assert isinstance(found, Constant) or found.shape == v.shape


# A rule for one mode serves first derivatives in both

BOX = lg.primitive(lambda p: np.sum(p**2) + p[0] * p[1], jvp="centered")
CUBE = lg.primitive(lambda x: x**3, jvp=lambda t, y, x: 3 * t[0] * x * x, name="cube")
CUBE_BACK = lg.primitive(lambda x: x**3, vjp=lambda g, y, x: (3 * g * x * x,))
MIXED = lg.primitive(lambda a, b: a * b + np.sin(a), jvp="centered")
POINT = np.array([1.0, 2.0])
ROOT = brentq(lambda z: 2 * z + np.sin(z) - 1, 0, 1, xtol=1e-14)

ONE_MODE = {
    "a black box": (lambda: lg.grad(BOX)(POINT), [4.0, 5.0]),
    "compiled": (lambda: lg.compile(lg.grad(BOX))(POINT), [4.0, 5.0]),
    "with its value": (lambda: lg.value_and_grad(BOX)(POINT)[1], [4.0, 5.0]),
    "minimised": (lambda: lg.minimize(BOX, POINT, method="BFGS").x, [0.0, 0.0]),
    "forwards": (lambda: lg.grad(lambda x: np.sum(CUBE(x)))(POINT), [3.0, 12.0]),
    "a tangent of backwards": (
        lambda: lg.jvp(lambda x: lg.grad(lambda y: np.sum(CUBE_BACK(y)))(x), (POINT,), (POINT,))[1],
        [6.0, 24.0],
    ),
    "backwards twice": (lambda: lg.hvp(lambda x: np.sum(CUBE_BACK(x)), POINT, POINT), [6.0, 24.0]),
    "two arguments": (
        lambda: [g[0] for g in lg.grad(lambda a, b: np.sum(MIXED(a, b) * b), (0, 1))(
            np.ones(3), 2 * np.ones(3))],
        [4 + 2 * np.cos(1), 4 + np.sin(1)],
    ),
    "inside a root": (
        lambda: lg.grad(lambda a: np.sum(lg.root(lambda z: MIXED(z, a) - 1.0, np.ones(2))))(2.0),
        -2 * ROOT / (2 + np.cos(ROOT)),
    ),
    "in a loop": (
        lambda: lg.grad(lambda a: lg.scan(lambda s, _: (CUBE(s) + a * s, s), 0.5, None, 2)[0])(0.7),
        # s₁ = 1/8 + a/2, s₂ = s₁³ + a s₁, and ds₁/da = 1/2
        (3 * 0.475**2 + 0.7) / 2 + 0.475,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_MODE)
def test_a_rule_for_one_mode_serves_first_derivatives(name):
    call, expected = ONE_MODE[name]
    np.testing.assert_allclose(call(), expected, rtol=1e-8, atol=1e-7)


def test_second_derivatives_of_one_mode_are_named_with_what_runs():
    with pytest.raises(lg.UnsupportedFunction, match="second derivatives of the primitive 'cube'"):
        lg.hessian(lambda x: np.sum(CUBE(x)))(POINT)
    with pytest.raises(lg.UnsupportedFunction, match="method='BFGS'"):
        lg.minimize(BOX, POINT, method="Newton-CG")
