"""Plans: what is left out, what is fused, and what that costs; the numbers are NumPy's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad import fusing
from lagrad.direct import direct
from lagrad.expression import Graph, Variable
from lagrad.lowering import Lowered
from lagrad.plan import Plan
from lagrad.traced import trace

RNG = np.random.default_rng(11)
DOUBLE = np.dtype(float)


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
    assert names([x, y], np.transpose(np.transpose(np.outer(x, y)))) == ["contract"]
    assert names([x, y], x + -y) == ["subtract"]
    assert names([x, y], x - -y) == ["add"]
    assert names([x, y], -1 * (-1 * x)) == []
    assert names([x, y], x**2) == ["square"]
    assert names([x, y], x**1) == []
    assert names([x, y], np.broadcast_to(np.float64(2.0), (3,)) * x) == ["multiply"]
    assert names([x, y], x * np.ones(()), y) == []


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
    return direct(found.program.compiled(), found.outputs, found.outputs[0]).plan


def test_value_and_gradient_share_what_they_have_in_common():
    x = np.ones(100)
    plan = plan_of(the_example, x, x)
    made = [getattr(s.function, "__name__", "sum") for s in plan.steps]
    for once in ("tanh", "exp", "sin", "cos", "log1p"):
        assert made.count(once) == 1
    assert len(plan.steps) <= 31


def test_large_arrays_are_one_group_and_its_intermediates_are_never_whole():
    n = 1_000_000
    x, w = RNG.standard_normal((2, n))
    plan = plan_of(the_example, x, w)
    assert len(plan.steps) == 1
    plan([x, w])
    tracemalloc.start()
    plan([x, w])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The two gradients are 16 MB.
    assert peak < 1.5 * 16e6


def test_a_chain_of_products_holds_what_the_gradient_needs():
    n, depth = 300, 12
    A = RNG.standard_normal((n, n)) / np.sqrt(n)

    def f(x):
        for _ in range(depth):
            x = np.tanh(A @ x)
        return np.sum(x * x)

    x = RNG.standard_normal((n, n))
    plan = plan_of(f, x)
    values = [x, A] if len(plan.inputs) == 2 else [x]
    plan(values)
    tracemalloc.start()
    plan(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Each layer's tanh is needed by the gradient, and nothing else of a layer's size for long.
    assert peak < 1.5 * depth * n * n * 8


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_results_have_the_same_bits_with_any_number_of_threads(threads):
    x, w = RNG.standard_normal((2, 200_001))
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
UNARY = [np.tanh, np.exp, np.sin, np.square, np.negative, np.abs, lambda x: np.where(x > 0, x, 0.1)]
BINARY = [np.add, np.subtract, np.multiply, np.maximum, np.logaddexp, np.hypot]


def spreads(shape, base):
    try:
        return np.broadcast_shapes(shape, base) == base
    except ValueError:
        return False


@st.composite
def recipes(draw):
    """Inputs and a random straight program over shapes that broadcast together."""
    base = draw(st.sampled_from([(5000,), (7, 900), (6000, 2)]))
    fits = [s for s in SHAPES if spreads(s, base)]
    shapes = [base, *draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3))]
    steps = draw(
        st.lists(
            st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
            min_size=2,
            max_size=12,
        )
    )
    return shapes, steps, draw(st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(recipes())
def test_random_programs_are_numpys(recipe):
    shapes, steps, seed = recipe
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(s) * 0.5 for s in shapes]

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
        Variable(graph, f"x{k}", "parameter", v.shape, DOUBLE, None) for k, v in enumerate(values)
    ]
    outputs = [graph.lift(o) for o in program(*leaves)]
    with np.errstate(all="ignore"):
        expected = program(*values)
        for _ in range(2):
            for found, wanted in zip(Plan(leaves, outputs)(values), expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)


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
    monkeypatch.setattr("lagrad.compiling.Call", None)
    value, gradients = f(x, w)
    assert value == expected[0]
    assert all(np.array_equal(a, b) for a, b in zip(gradients, expected[1], strict=True))
    monkeypatch.undo()
    with pytest.raises(lg.InvalidValue, match="NaN"):
        f(np.full(50, np.nan), w)
    assert f(x.astype(np.float32), w)[1][0].dtype == np.float32


@pytest.mark.parametrize("shape", [(100, 100), (3, 60, 60)])
def test_a_product_of_matrices_is_not_taken_entry_by_entry(shape):
    A, B, x = RNG.standard_normal((3, *shape))

    def f(A, B, x):
        return np.sum(np.tanh(np.matmul(A, B) + x) * x)

    value, (by_a, _, _) = lg.value_and_grad(f, (0, 1, 2))(A, B, x)
    assert value == pytest.approx(f(A, B, x), rel=1e-12)
    expected = (x * (1 - np.tanh(A @ B + x) ** 2)) @ np.swapaxes(B, -1, -2)
    np.testing.assert_allclose(by_a, expected, rtol=1e-10, atol=1e-12)
    plan = plan_of(f, A, B, x)
    groups = [s.function for s in plan.steps if isinstance(s.function, fusing.Group)]
    assert groups
    made = [k for g in groups for k in g.run.__globals__.values()]
    assert np.matmul not in made
