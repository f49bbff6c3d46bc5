"""Plans: what is left out, what is fused, and what that costs; the numbers are NumPy's."""

from __future__ import annotations

import contextlib
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad.compiler import fusion as fusing
from lagrad.compiler.lowering import Lowered
from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Variable
from lagrad.expressions.graph import Graph
from lagrad.programs.explicit_gradient import direct
from lagrad.transforms.trace import trace

RNG = np.random.default_rng(11)
DOUBLE = np.dtype(float)
FAST = pytest.mark.skipif(fusing.native() is None, reason="extra fast")


def variables(*shapes):
    graph = Graph("test")
    return [Variable(graph, f"x{k}", "parameter", s, DOUBLE, None) for k, s in enumerate(shapes)]


def names(inputs, *outputs):
    """The operations that a plan makes."""
    lowered = Lowered(inputs, outputs, {})
    return [
        lowered.operations[p].name for p in fusing.needed(lowered) if lowered.operations[p].name
    ]


def test_what_changes_nothing_is_left_out():
    x, y = variables((3,), (3,))
    assert names([x, y], (x * 1.0 + 0.0) / 1 - 0) == []
    assert names([x, y], np.reshape(np.reshape(x, (3, 1)), (3,))) == []
    assert names([x, y], np.transpose(np.transpose(np.outer(x, y)))) == [
        "reshape",
        "reshape",
        "multiply",
    ]
    assert names([x, y], x + -y) == ["subtract"]
    assert names([x, y], x - -y) == ["add"]
    assert names([x, y], -1 * (-1 * x)) == []
    assert names([x, y], x**2) == ["square"]
    assert names([x, y], x**1) == []
    assert names([x, y], np.broadcast_to(np.float64(2.0), (3,)) * x) == ["multiply"]
    assert names([x, y], x * np.ones(()), y) == []
    (row,) = variables((1, 3))
    assert names([row], np.max(row, axis=0)) == ["reshape"]
    assert names([row], np.sum(row[0], axis=())) == ["getitem"]


def test_what_would_change_something_stays():
    (x,) = variables((3,))
    assert names([x], x * np.ones((2, 3))) == ["multiply"]
    assert names([x], x + np.zeros((1, 1))) == ["add"]
    assert names([x], 0.0 - x) == ["subtract"]
    assert names([x], 1.0 / x) == ["divide"]
    assert names([x], x * 0.0) == ["multiply"]
    single = Variable(Graph("single"), "s", "parameter", (3,), np.dtype(np.float32), None)
    assert names([single], single * np.ones((), np.float64)) == ["multiply"]


def test_terms_in_another_order_are_computed_once():
    x, y = variables((3,), (3,))
    assert sorted(names([x, y], (x * y) + np.sin(y * x))) == ["add", "multiply", "sin"]


def the_example(x, w):
    return np.sum(np.tanh(w * x + 0.5) * np.exp(-(x**2)) + np.sin(x * w) * np.log1p(x**2))


def plan_of(f, *arguments):
    found = trace(f, arguments, {}, range(len(arguments)))
    return direct(found.program, found.outputs, found.outputs[0]).plan


def quick_plan_of(f, *arguments):
    """What a compiled gradient runs: all that it is looked at for is one number."""
    found = trace(f, arguments, {}, range(len(arguments)))
    line = direct(found.program, found.outputs, found.outputs[0])
    return line.quick(line.inputs).plan


def test_value_and_gradient_share_what_they_have_in_common():
    x = np.ones(100)
    plan = plan_of(the_example, x, x)
    made = [getattr(s.function, "__name__", "sum") for s in plan.steps]
    for once in ("tanh", "exp", "sin", "cos", "log1p"):
        assert made.count(once) == 1
    assert len(plan.steps) <= 31


@FAST
def test_large_arrays_are_one_call_and_its_intermediates_are_never_whole():
    n = 1_000_000
    x, w = RNG.standard_normal((2, n))
    plan = hot(quick_plan_of(the_example, x, w))
    assert len(kernels(plan)) == 1
    plan([x, w])
    tracemalloc.start()
    plan([x, w])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The two gradients are 16 MB.
    assert peak < 1.2 * 16e6


def test_a_chain_of_products_holds_what_the_gradient_needs():
    n, depth = 300, 12
    A = RNG.standard_normal((n, n)) / np.sqrt(n)

    def f(x):
        for _ in range(depth):
            x = np.tanh(A @ x)
        return np.sum(x * x)

    x = RNG.standard_normal((n, n))
    plan = hot(plan_of(f, x))
    values = [x, A] if len(plan.inputs) == 2 else [x]
    plan(values)
    tracemalloc.start()
    plan(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Each layer's slope is needed by the gradient, and nothing else of a layer's size for long; by
    # NumPy's calls one by one what it is made of stays.
    assert peak < (1.5 if fusing.native() else 2.5) * depth * n * n * 8


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_results_have_the_same_bits_with_any_number_of_threads(threads):
    x, w = RNG.standard_normal((2, 200_001))
    for _ in range(5):  # from here on in machine code, where that is installed
        lg.value_and_grad(the_example, (0, 1))(x, w)
    with lg.threads(1):
        value, gradients = lg.value_and_grad(the_example, (0, 1))(x, w)
    with lg.threads(threads):
        again, found = lg.value_and_grad(the_example, (0, 1))(x, w)
    assert value == again
    assert all(np.array_equal(a, b) for a, b in zip(gradients, found, strict=True))
    assert value == pytest.approx(the_example(x, w), rel=1e-13)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None])
def test_a_count_of_threads_that_is_none_is_named(count):
    with pytest.raises(lg.InvalidValue, match="threads"), lg.threads(count):
        pass


SHAPES = [(5000,), (1,), (), (7, 900), (900,), (7, 1), (1, 900), (6000, 2), (2,), (6000, 1)]
SHAPES += [(9,), (300,), (4, 5), (5,), (4, 1), (1, 1)]
UNARY = [np.tanh, np.exp, np.sin, np.square, np.negative, np.abs, lambda x: np.where(x > 0, x, 0.1)]
UNARY += [lambda x: np.log1p(x * x), lambda x: np.sqrt(np.abs(x) + 1.5), np.arctan]
BINARY = [np.add, np.subtract, np.multiply, np.maximum, np.logaddexp, np.hypot]
BINARY += [lambda x, y: x / (np.abs(y) + 2.0)]


def spreads(shape, base):
    try:
        return np.broadcast_shapes(shape, base) == base
    except ValueError:
        return False


@st.composite
def recipes(draw):
    """Inputs and a random straight program over shapes that broadcast together."""
    base = draw(st.sampled_from([(5000,), (7, 900), (6000, 2), (9,), (300,), (4, 5), ()]))
    fits = [s for s in SHAPES if spreads(s, base)]
    shapes = [base, *draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3))]
    steps = draw(
        st.lists(
            st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
            min_size=2,
            max_size=12,
        )
    )
    return shapes, steps, draw(st.integers(0, 3)), draw(st.sampled_from([np.float64, np.float32]))


def hot(plan):
    """A plan as it is once it was called very often."""
    plan.hasten()
    return plan


def kernels(plan):
    """The calls of machine code that a hot plan makes."""
    return [step.function for step in plan.fast if type(step.function).__name__ == "Kernel"]


@pytest.mark.parametrize("lanes", [False, pytest.param(True, marks=FAST)])
@settings(max_examples=150, deadline=None)
@given(recipe=recipes())
def test_random_programs_are_numpys(lanes, recipe):
    shapes, steps, seed, dtype = recipe
    rng = np.random.default_rng(seed)
    values = [(rng.standard_normal(s) * 0.5).astype(dtype) for s in shapes]
    close = 1e-11 if dtype == np.float64 else 1e-3

    def program(*inputs):
        found = list(inputs)
        for kind, i, j in steps:
            a, b = found[i % len(found)], found[j % len(found)]
            if kind % 3 == 0:
                found.append(UNARY[kind % len(UNARY)](a) * 0.7)
            elif kind % 7 == 1 and a.ndim == 2:
                found.append(np.sum(a, axis=kind % 2, keepdims=True) * 1e-3)
            else:
                found.append(BINARY[kind % len(BINARY)](a, b) * 0.5)
        return [np.sum(found[-1] * found[0]), found[-1], found[-2]]

    graph = Graph("random")
    leaves = [
        Variable(graph, f"x{k}", "parameter", v.shape, v.dtype, None) for k, v in enumerate(values)
    ]
    outputs = [graph.lift(o) for o in program(*leaves)]
    # Several blocks, the last one shorter.
    small = ("lagrad.compiler.native.kernel.BLOCK", "lagrad.compiler.native.kernel.THREADED_FROM")
    patches = [mock.patch(name, 700) for name in small if lanes]
    with np.errstate(all="ignore"), contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        plan = Plan(leaves, outputs)
        expected = program(*values)
        for _ in range(2):
            for found, wanted, node in zip(plan(values), expected, outputs, strict=True):
                assert np.shape(found) == node.shape
                assert found.dtype == wanted.dtype
                np.testing.assert_allclose(found, wanted, rtol=close, atol=close)
            if lanes:
                hot(plan)


@FAST
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 255, 256, 257, 5000, 40_000])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_hot_plan_is_one_call_and_says_the_same(n, dtype):
    x, w = RNG.standard_normal((2, n)).astype(dtype)
    plan = plan_of(the_example, x, w)
    expected = plan([x, w])
    found = hot(plan)([x, w])
    assert len(kernels(plan)) == 1
    for a, b in zip(found, expected, strict=True):
        close = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(a, b, rtol=close, atol=close * np.max(np.abs(b)))
    assert not np.shares_memory(found[1], found[2])


@pytest.mark.parametrize("lanes", [False, pytest.param(True, marks=FAST)])
def test_arguments_are_not_written_over(lanes):
    A, B = RNG.standard_normal((2, 300, 300))

    def program(A, B):
        C, D = A @ B, B @ A
        later = np.exp(-C * C)
        return C + D, later * C, np.sum(C * later) + D[0, 0]

    graph = Graph("memory")
    leaves = [Variable(graph, f"x{k}", "parameter", A.shape, A.dtype, None) for k in range(2)]
    plan = Plan(leaves, [graph.lift(o) for o in program(*leaves)])
    expected = program(A, B)
    if lanes:
        hot(plan)
    before = A.copy(), B.copy()
    for _ in range(3):
        found = plan([A, B])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)
    assert np.array_equal(A, before[0])
    assert np.array_equal(B, before[1])


@FAST
def test_a_number_first_met_late_has_a_row_of_its_own():
    """Several blocks, and a constant that only the arithmetic after a function needs."""

    def program(a, b, c, d, e):
        early = (((a - b) / c - d) * e + a) / b
        late = np.exp(early)
        return np.sum(((late - 1.0) * 0.25 + a * 7.0) * late / (b + 3.0)), (late - 0.5) * 1e-3

    values = list(RNG.uniform(0.5, 1.5, (5, 60_000)))
    graph = Graph("late")
    leaves = [
        Variable(graph, f"x{k}", "parameter", v.shape, v.dtype, None) for k, v in enumerate(values)
    ]
    plan = hot(Plan(leaves, [graph.lift(o) for o in program(*leaves)]))
    for found, expected in zip(plan(values), program(*values), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@FAST
def test_a_repeated_call_allocates_its_results_alone():
    x, w = RNG.standard_normal((2, 10**6))
    plan = hot(quick_plan_of(the_example, x, w))
    with lg.threads(2):
        plan([x, w])
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        found = plan([x, w])
        left, peak = (size - before for size in tracemalloc.get_traced_memory())
        tracemalloc.stop()
    assert left < 1.01 * sum(a.nbytes for a in found[1:3])
    assert peak < left + 1e6


def test_nothing_is_computed_in_place_of_an_argument():
    x, w = RNG.standard_normal((2, 50_000))
    before = x.copy(), w.copy()
    f = lg.compile(lg.value_and_grad(lambda x, w: np.sum(x * w) + np.sum(x), (0, 1)))
    _, (first, _) = f(x, w)
    _, (second, by_w) = f(x, w)
    assert np.array_equal(x, before[0])
    assert np.array_equal(w, before[1])
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(by_w, x)
    by_w[0] = 7.0
    assert np.array_equal(f(x, w)[1][1], x)


def test_a_compiled_function_of_bare_arrays_takes_the_short_way(monkeypatch):
    f = lg.compile(lg.value_and_grad(the_example, (0, 1)))
    x, w = RNG.standard_normal((2, 50))
    f(x, w)
    expected = f(x, w)
    monkeypatch.setattr("lagrad.transforms.compile.Call", None)
    value, gradients = f(x, w)
    assert value == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(gradients, expected[1], rtol=1e-13)
    monkeypatch.undo()
    with pytest.raises(lg.InvalidValue, match="NaN"):
        f(np.full(50, np.nan), w)
    assert f(x.astype(np.float32), w)[1][0].dtype == np.float32


@pytest.mark.parametrize("shape", [(100, 100), (3, 60, 60)])
def test_a_product_of_matrices_among_elementwise_work(shape):
    A, B, x = RNG.standard_normal((3, *shape))

    def f(A, B, x):
        return np.sum(np.tanh(np.matmul(A, B) + x) * x)

    value, (by_a, _, _) = lg.value_and_grad(f, (0, 1, 2))(A, B, x)
    assert value == pytest.approx(f(A, B, x), rel=1e-12)
    expected = (x * (1 - np.tanh(A @ B + x) ** 2)) @ np.swapaxes(B, -1, -2)
    np.testing.assert_allclose(by_a, expected, rtol=1e-10, atol=1e-12)


@FAST
@pytest.mark.parametrize("n", [1, 3, 8, 100, 1000])
def test_a_short_plan_sees_what_is_not_finite_as_it_makes_it(n):
    f = lg.compile(lg.value_and_grad(lambda x: np.sum(np.exp(x) * x + np.sqrt(x) / x)))
    x = np.linspace(1.0, 2.0, n)
    for _ in range(50):
        f(x)
    for k in {0, n // 2, n - 1}:
        for bad in (800.0, 0.0, -1.0, np.nan, np.inf):
            wrong = x.copy()
            wrong[k] = bad
            with pytest.raises(lg.LagradError):
                f(wrong)
    value, slope = f(x)
    np.testing.assert_allclose(value, np.sum(np.exp(x) * x + x**-0.5), rtol=1e-13)
    np.testing.assert_allclose(slope, np.exp(x) * (x + 1) - 0.5 * x**-1.5, rtol=1e-12)


def test_what_is_spread_over_rows_is_not_written_over():
    """Every block reads it: the memory of an argument is taken block by block elsewhere."""
    rng, n = np.random.default_rng(0), 100
    P, X = rng.standard_normal((n, n)), rng.standard_normal((n, n, n))
    f = lambda P, X: np.sum(np.tanh(X * np.sin(P)), axis=1)
    np.testing.assert_allclose(lg.compile(f)(P, X), f(P, X), rtol=1e-12, atol=1e-12)
    w = rng.standard_normal((n, n))
    value, slope = lg.value_and_grad(lambda P: np.sum(w * f(P, X)))(P)
    assert value == pytest.approx(np.sum(w * f(P, X)), rel=1e-12)
    inner = (1 - np.tanh(X * np.sin(P)) ** 2) * X * w[:, None, :]
    np.testing.assert_allclose(slope, np.cos(P) * np.sum(inner, axis=0), rtol=1e-9, atol=1e-9)
    y = np.linspace(-1, 1, 8192)
    g = lambda x, p: np.sum(np.exp(-((x[:, None] - np.sin(p)) ** 2)), axis=1)
    np.testing.assert_allclose(lg.compile(g)(y, y), g(y, y), rtol=1e-12)
