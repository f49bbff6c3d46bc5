"""Arrays, sets and floats made of traced values, by whatever library: right, or a named error."""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import integrate, interpolate, ndimage, signal, sparse, special, stats
from scipy.sparse.linalg import aslinearoperator, cg

import lagrad as lg

X = np.array([0.2, 0.5, 0.9])
W = np.array([1.0, -2.0, 0.5])
M = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.5, 0.0, 4.0]])
SPARSE = sparse.csr_array(M)


def entropy(x):
    p = np.asarray(x)
    p = p / p.sum()
    return -np.sum(p * np.log(p))


def filled(x):
    z = np.zeros_like(np.asarray(x))
    for k in range(len(z)):
        z[k] = x[k] ** 2
    return np.exp(z) @ W


def in_place(x):
    z = np.array(x)
    z[0] = z[1] * z[2]
    z += 1.0
    return np.prod(z)


def by_cases(x):
    p = np.asarray(x)
    return np.sum(np.where(p > 0.4, p**2, -p))


@functools.cache
def cached(s):
    return s * s


def relation(x):
    return np.sum(lg.root(lambda z: np.asarray(z) ** 3 + np.asarray(x) * z - 1, np.ones(3)) * W)


RIGHT = {
    "entropy": entropy,
    "size, length and axes": lambda x: np.sum(x) / np.asarray(x).size + len(np.asarray(x)) * x[0],
    "mean and variance": lambda x: np.sum((A(x) - A(x).sum() / A(x).size) ** 2) + np.mean(x),
    "means of rows": lambda x: np.mean(np.array([A(x), x**2]), axis=0) @ W,
    "products": lambda x: A(x) @ M @ A(x) + np.dot(A(x), W) + np.outer(A(x), W)[1, 2],
    "a traced value meets it": lambda x: np.sum(A(x) * np.sin(x)) + np.sum(np.sin(x) / A(x)),
    "rows of traced vectors": lambda x: np.sum(np.array([x, x**2, W]) @ W),
    "rows of traced scalars": lambda x: np.sum(np.array([[x[0], 1.0], [x[1], x[2]]]) ** 2),
    "a matrix of them": lambda x: np.trace(np.linalg.inv(M + A(x)[:, None] * x)),
    "functions by methods": lambda x: np.sum(np.exp(A(x)) + np.sqrt(A(x)) + np.arctan(A(x))),
    "indices and masks": lambda x: np.sum(A(x)[[0, 2, 2]]) + np.sum(A(x)[A(x) > 0.3] ** 2),
    "sorting": lambda x: np.sort(A(x) * W) @ np.arange(3.0) + max(A(x)) + min(A(x)),
    "extremes": lambda x: A(x).max() * A(x).min() + np.sum(np.maximum(A(x), 0.3)),
    "sums that run": lambda x: np.cumsum(A(x)) @ W + np.add.accumulate(A(x)) @ W,
    "norms": lambda x: np.linalg.norm(A(x)) + np.linalg.norm(A(x), 1),
    "an array like it, filled": filled,
    "a copy, written into": in_place,
    "choices": by_cases,
    "a scalar": lambda x: np.exp(A(x[0])) * A(x[1]) + A(x[2]).size,
    "a list of entries": lambda x: sum(a * b for a, b in zip(A(x).tolist(), W, strict=True)),
    "float64 and back": lambda x: np.sum(A(x) * x) if A(x).shape == (3,) else 0.0,
    "a softmax of SciPy's": lambda x: special.softmax(A(x)) @ W,
    "a quadrature of SciPy's": lambda x: integrate.trapezoid(A(x) ** 2, np.arange(3.0)),
    "a filter of SciPy's": lambda x: np.sum(signal.convolve(A(x), W, method="direct") ** 2),
    "a polynomial": lambda x: np.polynomial.Polynomial(W)(A(x)) @ W,
    "a sparse product": lambda x: np.sum((SPARSE @ x) ** 2) + np.sum((x @ SPARSE) ** 2),
    "lagrad's own functions": lambda x: lg.logsumexp(A(x)) + lg.softmax(A(x)) @ W,
    "lists for lagrad's own functions": lambda x: lg.logsumexp([x[0], x[1], 1.0]),
    "proximal maps": lambda x: lg.prox.l1(A(x) * 3.0, 0.7) @ W,
    "the start and the step of a root": relation,
    "the state of a loop": lambda x: lg.iterate(lambda s: A(s) * s + A(x), A(x), 3) @ W,
    "an inner gradient": lambda x: np.sum(lg.grad(lambda z: np.sum(A(z) ** 3))(A(x)) * W),
    "a Jacobian": lambda x: np.sum(lg.jacobian(lambda z: A(z) ** 2 * W)(x)),
    "a cache": lambda x: cached(A(x)[0]) * cached(A(x)[1]),
    "a set of different ones": lambda x: len(set(A(x))) * x[0],
    "shapes there and back": lambda x: np.asarray(x * 1.0).reshape(3, 1).T.ravel() @ W,
}
A = np.asarray


def on_numbers(f, x):
    """The derivative by differences of fourth order."""
    h = 1e-3

    def slope(e):
        near = [f(x + k * h * e) for k in (1, -1, 2, -2)]
        return (8 * (near[0] - near[1]) - near[2] + near[3]) / (12 * h)

    return np.array([slope(e) for e in np.eye(3)])


@pytest.mark.parametrize("case", RIGHT)
def test_an_array_of_traced_values_computes_as_numbers_do(case):
    f = RIGHT[case]
    value, gradient = lg.value_and_grad(f)(X)
    assert value == pytest.approx(f(X), rel=1e-12)
    assert gradient == pytest.approx(on_numbers(f, X), rel=1e-7, abs=1e-8)
    compiled = lg.compile(lg.grad(f))
    assert compiled(X) == pytest.approx(gradient)
    assert compiled(X + 0.01) == pytest.approx(on_numbers(f, X + 0.01), rel=1e-7, abs=1e-8)


def test_the_entropy_is_that_of_its_closed_form():
    # ∂/∂xᵢ of H(x/s) is −(log pᵢ + H)/s.
    p, s = X / X.sum(), X.sum()
    h = -np.sum(p * np.log(p))
    value, gradient = lg.value_and_grad(entropy)(X)
    assert value == pytest.approx(h, rel=1e-14)
    assert gradient == pytest.approx(-(np.log(p) + h) / s, rel=1e-12)


RAISES = {
    "gamma": lambda x: np.sum(special.gamma(A(x))),
    "logsumexp": special.logsumexp,
    "a density": lambda x: np.sum(stats.norm.logpdf(x)),
    "a Gaussian filter": lambda x: np.sum(ndimage.gaussian_filter1d(x, 1.0)),
    "a spline": lambda x: interpolate.CubicSpline(np.arange(3.0), x)(0.5),
    "a differential equation": lambda x: integrate.odeint(lambda y, t: -x[0] * y, 1.0, [0, 1])[
        1, 0
    ],
    "a linear solver": lambda x: np.linalg.lstsq(M, A(x), rcond=None)[0] @ W,
    "conjugate gradients": lambda x: np.sum(cg(SPARSE, x)[0]),
    "a linear operator": lambda x: np.sum(aslinearoperator(SPARSE) @ x),
    "a sparse matrix of it": lambda x: np.sum(sparse.diags_array(A(x)) @ W),
    "a sparse matrix times its array": lambda x: np.sum(SPARSE @ A(x)),
    "a sparse matrix times it, entry by entry": lambda x: np.sum((SPARSE * x) @ W),
    "entries of an array of floats": lambda x: np.sum(np.fromiter(x, float)),
    "astype": lambda x: np.sum(A(x).astype(float) ** 2),
    "the mean of an array, a float": lambda x: A(x).mean(),
    "floats": lambda x: sum(math.exp(s) for s in A(x)),
    "the standard library": lambda x: math.fsum(A(x)),
    "an update of an array of floats": lambda x: np.sum(np.add(W.copy(), 0, out=W.copy()) + F(x)),
    "truths of floats": lambda x: np.sum(np.logical_and(A(x), A(x) * 2)),
    "truths of a list": lambda x: np.sum(np.logical_and(W, [x[0], x[1], x[2]])),
    "a set of equal ones": lambda x: len(set(A(x) * 0)) * x[0],
    "a member of a set": lambda x: x[0] * (x[0] in {0.2}),
    "a key": lambda x: {0.2: 3.0}.get(x[0], 0.0) * x[1],
    "how often": lambda x: max(Counter(A(x) * 0).values()) * x[0],
    "a dtype": lambda x: np.sum(x) * (2.0 if A(x).dtype.kind == "f" else 3.0),
    "the type of an entry": lambda x: np.sum(x) * (2.0 if isinstance(A(x)[0], float) else 3.0),
    "an attribute": lambda x: np.sum(x.tobytes() and x),
    "an inner function": lambda x: (
        lg.argmin(lambda z: np.sum((z - A(x).astype(float)) ** 2), X) @ W
    ),
}


def F(x):
    z = np.zeros(3)
    z[0] = x[0]
    return z


@pytest.mark.parametrize("case", RAISES)
def test_what_cannot_be_followed_raises_a_named_error(case):
    f = RAISES[case]
    assert np.isfinite(f(X))
    with pytest.raises(lg.LagradError, match=r"\w+.*\w"):
        lg.grad(f)(X)


def test_the_error_quotes_the_line_and_keeps_the_library_s_own():
    def f(x):
        y = np.sin(x)
        return np.sum(special.j0([y[0], y[1]]))

    with pytest.raises(
        lg.UnsupportedFunction, match=r"special\.j0\(\[y\[0\], y\[1\]\]\)"
    ) as caught:
        lg.grad(f)(X)
    assert isinstance(caught.value.__cause__, TypeError)
    assert "lg.primitive" in str(caught.value)


@pytest.mark.parametrize("error", [ValueError, KeyError, AssertionError, RuntimeError])
def test_an_error_of_the_function_s_own_stays_as_it_is(error):
    def f(x):
        np.asarray(x)
        raise error("mine")

    with pytest.raises(error, match="mine"):
        lg.grad(f)(X)


TIES = {
    "maximum": lambda x: np.sum(np.maximum(A(x), 0) * W),
    "maximum of a list": lambda x: np.sum(np.maximum(np.array([x[0], x[1], 1.0]), 0)),
    "minimum": lambda x: np.sum(np.minimum(A(x), 0.0) * W),
    "the largest": lambda x: A(x).max(),
    "sorting": lambda x: np.sort(A(x)) @ W,
}


@pytest.mark.parametrize("case", TIES)
def test_a_tie_that_numpy_breaks_is_no_derivative(case):
    with pytest.raises(lg.TracedValueError, match="equal"):
        lg.grad(TIES[case])(np.zeros(3))


def test_a_kept_trace_ends_where_entries_tie():
    f = lg.compile(lg.grad(TIES["maximum"]))
    assert f(np.ones(3)) == pytest.approx(W)
    with pytest.raises(lg.TracedValueError):
        f(np.array([1.0, 0.0, 2.0]))
    assert f(np.array([1.0, -1.0, 2.0])) == pytest.approx([1.0, 0.0, 0.5])


def test_the_value_at_a_tie_is_right_where_both_sides_have_one_slope():
    assert lg.grad(lambda x: np.max(A(x)) + np.min(A(x)))(0.5) == pytest.approx(2.0)


@pytest.mark.parametrize("start", [0.0, np.zeros(2), np.array([0.0, -5.0])])
def test_a_tie_at_the_start_of_a_search_is_left_behind(start):
    # max(z, 0) + z = a has z = a/2 where a > 0.
    solved = lambda a: np.sum(lg.root(lambda z: np.maximum(np.asarray(z), 0) + z - a, start))
    assert lg.grad(solved)(3.0) == pytest.approx(0.5 * np.size(start))
    assert solved(3.0) == pytest.approx(1.5 * np.size(start))


@pytest.mark.parametrize("count", [0, 1, 32, 33, 1024, 1025, 2000, 32**3])
def test_entries_are_those_of_the_array_for_any_count(count):
    x = np.linspace(0.0, 1.0, count)
    p = lg.Program()
    entries = np.asarray(np.sin(p.parameter("x", value=x)))
    assert entries.shape == (count,)
    if count:
        p.define("last", entries[-1])
        p.define("middle", entries[count // 2])
        at = p.solve()
        assert (at["last"], at["middle"]) == (np.sin(x[-1]), np.sin(x[count // 2]))


def test_an_array_that_comes_back_is_the_traced_value():
    program = lg.trace(lambda x: np.sum(np.sin(np.asarray(x))) + lg.logsumexp(np.asarray(x)), X)
    assert "logsumexp(x)" in str(program)


def test_a_function_that_draws_is_compared_with_nothing():
    rng = np.random.default_rng(0)
    f = lambda x: np.sum(np.asarray(x) * rng.standard_normal(3))
    found = lg.grad(f)(X)
    assert found == pytest.approx(np.random.default_rng(0).standard_normal(3))


def test_large_arrays_are_refused_with_the_remedy():
    with pytest.raises(lg.TracedValueError, match=r"leave out np\.asarray"):
        lg.grad(lambda x: np.sum(np.asarray(x)))(np.ones(2**16 + 1))


def test_thousands_of_entries_take_memory_in_proportion():
    x = np.linspace(0.0, 1.0, 3000)
    found = lg.grad(lambda x: np.sum(np.asarray(np.sin(x)) ** 2))(x)
    assert found == pytest.approx(np.sin(2 * x))


def test_a_declared_program_has_arrays_too():
    p = lg.Program()
    x = p.parameter("x", value=X)
    q = np.asarray(x)
    p.define("h", -np.sum(q / q.sum() * np.log(q / q.sum())))
    with pytest.raises(lg.TracedValueError):
        np.sort(q)
    assert p.solve()["h"] == pytest.approx(entropy(X))


def attempt(x):
    try:
        x.sort()
    except AttributeError:
        return 2 * np.sum(x**2)
    return np.sum(x**2)


def matched(x):
    match x:
        case np.ndarray():
            return np.sum(x**2)
    return np.sum(x)


@functools.singledispatch
def dispatched(x):
    return np.sum(x)


@dispatched.register
def _(x: np.ndarray):
    return np.sum(x**2)


two, one = lambda x: np.sum(x**2), lambda x: 0.0 * np.sum(x)
UNSEEN = {
    "isinstance": lambda x: two(x) if isinstance(x, np.ndarray) else one(x),
    "type": lambda x: two(x) if type(x) is np.ndarray else one(x),
    "hasattr": lambda x: two(x) if hasattr(x, "sort") else one(x),
    "getattr": lambda x: two(x) * getattr(x, "itemsize", 1),
    "isscalar": lambda x: two(x) if np.isscalar(x[0]) else one(x),
    "isinstance of an entry": lambda x: two(x) if isinstance(x[0], np.floating) else one(x),
    "a result of another shape": lambda x: x if isinstance(x, np.ndarray) else one(x),
    "try": attempt,
    "match": matched,
    "singledispatch": dispatched,
}


@pytest.mark.parametrize("case", UNSEEN)
def test_check_gradient_finds_a_function_that_goes_another_way(case):
    with pytest.raises(lg.WrongDerivative, match="where it is traced"):
        lg.check_gradient(UNSEEN[case], X)


def tried(x):
    try:
        float(x)
    except Exception:
        return two(x)
    return one(x)


ALIKE = {
    "ndim": lambda x: two(x) if np.ndim(x) == 1 else one(x),
    "dtype": lambda x: two(x) if x.dtype.kind == "f" else one(x),
    "issubdtype": lambda x: two(x) if np.issubdtype(x.dtype, np.floating) else one(x),
    "shape and length": lambda x: two(x) if np.shape(x) == (len(x),) else one(x),
    "an iterable": lambda x: two(x) if hasattr(x, "__iter__") else one(x),
    "float": tried,
    "a value of zero": one,
    "terms that cancel": lambda x: 1e3 * np.sum(x) - 1e3 * (x[0] + x[1] + x[2]) + x[0],
}


@pytest.mark.parametrize("case", ALIKE)
def test_check_gradient_passes_where_both_go_one_way(case):
    assert lg.check_gradient(ALIKE[case], X).passed


# Matrices and vectors of traced scalars

JOINED = {
    "a matrix of scalars": lambda a, b: np.block([[2.0, a[0, 0]], [b[1, 1], 3.0]]),
    "matrices": lambda a, b: np.block([[a, b], [b.T, 2.0 * np.eye(2)]]),
    "a vector": lambda a, b: np.block([a[0], 3.0, b[0]]),
    "rows above each other": lambda a, b: np.block([[a[0]], [b[1]]]),
    "three axes": lambda a, b: np.block([[[a], [b]]]),
    "scalars beside vectors": lambda a, b: np.block([[a[0, 0], b[0]], [a[1], 5.0]]),
}


@pytest.mark.parametrize("name", JOINED)
def test_nested_lists_are_joined(name):
    a, b = np.random.default_rng(0).random((2, 2, 2))
    found, tangent = lg.jvp(JOINED[name], (a, b), (a, b))
    np.testing.assert_array_equal(found, JOINED[name](a, b))
    moved = JOINED[name](2 * a, 2 * b) - JOINED[name](a, b)
    np.testing.assert_allclose(tangent, moved, rtol=1e-14)


def test_systems_are_made_of_scalars():
    f = lambda a: np.sum(np.linalg.solve(np.block([[2.0, a], [a, 3.0]]), np.stack([1.0, a])))
    exact = lambda a: (3 - a * a - a + 2 * a) / (6 - a * a)
    slope = (exact(0.7 + 1e-6) - exact(0.7 - 1e-6)) / 2e-6
    assert lg.grad(f)(0.7) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize(
    "bad", [lambda a: np.block([[a, 1.0], [2.0]]), lambda a: np.block([[a], 1.0])]
)
def test_lists_that_do_not_fit_are_named(bad):
    with pytest.raises(lg.LagradError, match="block"):
        lg.grad(lambda a: np.sum(bad(a)))(1.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: np.linalg.det(np.array([[2.0, a], [a, 3.0]])),
        lambda a: np.sum(np.linalg.solve([[2.0, a], [a, 3.0]], [1.0, a])),
        lambda a: np.sum(np.exp(np.array([a, 2 * a, 3.0]))),
        lambda a: np.mean([a, 2 * a]),
        lambda a: np.sum(np.array([a, 2 * a], dtype=float)),
    ],
)
def test_an_array_of_objects_is_named_with_what_makes_a_traced_one(function):
    with pytest.raises(lg.LagradError, match=r"np\.block"):
        lg.grad(function)(0.7)


def test_a_derivative_of_a_derivative_names_what_takes_no_objects():
    # np.sinc puts the number 1e-20 among the traced scalars, whose sine NumPy cannot take.
    f = lambda x: np.sum(np.sinc(np.asarray(x)))
    for transform in (lg.grad, lg.hessian, lambda f: lg.jacobian(lg.grad(f))):
        with pytest.raises(lg.UnsupportedFunction, match="array of objects"):
            transform(f)(np.array([0.0, 0.5]))
