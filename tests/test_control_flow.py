"""Branches on traced values, and what functions close over: right at every call."""

from __future__ import annotations

import functools
import math
import threading

import numpy as np
import pytest

import lagrad as lg
from lagrad.transforms.compile import Compiled

GLOBAL = 2.0


class Count:
    """How often Python ran a function: an attribute, which is not watched."""

    def __init__(self):
        self.number = 0

    def __len__(self):
        return self.number


def tracings(f):
    """The function, and how often Python runs it."""
    calls = Count()

    @functools.wraps(f)
    def counted(*args, **kwargs):
        calls.number += 1
        return f(*args, **kwargs)

    return counted, calls


def power_by_while(x):
    y = x
    while y < 100.0:
        y = y * x
    return y


def early(x):
    if x < 0:
        return -x
    if x == 3.0:
        return 7.0 * x
    return x**2


def recursive(x):
    return x if x < 1.0 else recursive(x / 2.0) * x


def sentence(words, w):
    """A tree of unequal depth, as a parser would give it."""
    if isinstance(words, tuple):
        return np.tanh(sentence(words[0], w) * w[0] + sentence(words[1], w) * w[1])
    return w[words]


@pytest.mark.parametrize("wrap", [lambda f: f, lg.compile], ids=["plain", "compiled"])
class TestBranches:
    def test_while(self, wrap):
        g = wrap(lg.grad(power_by_while))
        for x, n in ((3.0, 5), (5.0, 3), (1.5, 12), (3.1, 5), (200.0, 1)):
            assert g(x) == pytest.approx(n * x ** (n - 1), rel=1e-12)

    def test_early_return_and_equality(self, wrap):
        g = wrap(lg.grad(early))
        assert [g(x) for x in (-2.0, 3.0, 2.0, -1.0, 5.0, 3.0)] == [-1, 7, 4, -1, 10, 7]

    def test_recursion(self, wrap):
        g, h = wrap(lg.grad(recursive)), 1e-6
        for x in (0.5, 1.5, 3.3, 17.0):
            slope = (recursive(x + h) - recursive(x - h)) / (2 * h)
            assert g(x) == pytest.approx(slope, rel=1e-7)

    def test_trees(self, wrap):
        w, h = np.array([0.3, -0.5, 0.9]), 1e-6
        g = wrap(lg.grad(sentence, 1))
        for words in ((0, 1), ((0, 1), 2), (0, ((2, 1), (1, 0)))):
            found = g(words, w)
            for k in range(3):
                e = h * np.eye(3)[k]
                slope = (sentence(words, w + e) - sentence(words, w - e)) / (2 * h)
                assert found[k] == pytest.approx(slope, abs=1e-8)

    def test_indices_and_integers(self, wrap):
        def f(x):
            table = np.array([1.0, 10.0, 100.0])
            return table[int(x)] * x if x >= 0 else list(range(5))[int(-x)] * x

        g = wrap(lg.grad(f))
        assert [g(x) for x in (0.5, 1.5, 2.5, -3.5, 1.2)] == [1.0, 10.0, 100.0, 3.0, 10.0]

    def test_branches_on_the_second_argument_and_inside_a_nested_gradient(self, wrap):
        inner = lambda y, x: y**2 if x > 1 else y**3
        g = wrap(lg.grad(lambda x: lg.grad(inner)(x, x)))
        assert [g(x) for x in (2.0, 0.5, 3.0)] == pytest.approx([2.0, 3.0, 2.0])

    def test_branches_inside_an_argmin(self, wrap):
        # ½z² − az where z < 1, else (z − a)²/… with another minimum.
        def theta(a):
            objective = lambda z: (z - a) ** 2 if z < 1.0 else 2.0 * (z - 0.5 * a - 0.5) ** 2
            return lg.argmin(objective, 0.0)

        g = wrap(lg.grad(theta))
        assert [g(a) for a in (0.3, 3.0, 0.7, 2.0)] == pytest.approx([1.0, 0.5, 1.0, 0.5])

    def test_branches_on_a_solution(self, wrap):
        def f(a):
            z = lg.root(lambda z: z**3 - a, 1.0)
            return z**2 if z > 1.5 else -z

        g = wrap(lg.grad(f))
        for a in (1.0, 8.0, 2.0, 27.0):
            z = a ** (1 / 3)
            dz = z / (3 * a)
            assert g(a) == pytest.approx(2 * z * dz if z > 1.5 else -dz, rel=1e-9)


def test_what_a_function_closes_over_is_read_at_every_call():
    global GLOBAL
    scale, table = 3.0, np.array([1.0, 2.0])
    settings, offsets = {"power": 2}, [0.0]

    def f(x, shift=np.zeros(2)):  # noqa: B008
        return np.sum(GLOBAL * scale * (x + shift + offsets[0]) ** settings["power"] * table)

    plain, compiled = lg.grad(f), lg.compile(lg.grad(f))
    x = np.ones(2)

    def both():
        assert compiled(x) == pytest.approx(plain(x))
        return plain(x).tolist()

    assert both() == [12.0, 24.0]
    scale = 1.0
    assert both() == [4.0, 8.0]
    try:
        GLOBAL = 5.0
        assert both() == [10.0, 20.0]
    finally:
        GLOBAL = 2.0
    table[:] = 1.0
    assert both() == [4.0, 4.0]
    table = np.array([0.0, 1.0])
    assert both() == [0.0, 4.0]
    f.__defaults__ = (np.ones(2),)
    assert both() == [0.0, 8.0]
    offsets[0] = 1.0
    assert both() == [0.0, 12.0]
    settings["power"] = 1
    assert both() == [0.0, 2.0]


def test_an_array_changed_between_two_uses_is_two_arrays():
    def f(x):
        a = np.array([1.0, 2.0])
        first = np.sum(a * x)
        a *= 10.0
        return first + np.sum(a * x)

    assert lg.grad(f)(np.ones(2)).tolist() == [11.0, 22.0]


def test_helpers_partials_and_methods_are_watched():
    class Model:
        def __init__(self):
            self.w = 2.0

        def loss(self, x):
            return helper(x) * 2.0

    helper = np.square
    g = lg.compile(lg.grad(Model().loss))
    assert g(3.0) == 12.0
    helper = lambda x: x**3

    assert g(3.0) == 54.0
    h = lg.compile(lg.grad(functools.partial(lambda k, x: k * helper(x), 2.0)))
    assert h(1.0) == 6.0


def test_a_compiled_function_is_traced_once_for_each_branch_and_shape():
    f, calls = tracings(lambda x, k=1.0: k * np.sum(x**2) if np.sum(x) > 0 else np.sum(x))
    g = lg.compile(lg.grad(f))
    for _ in range(3):
        g(np.ones(3))
        g(2.0 * np.ones(3), 5.0)
    assert len(calls) == 2
    assert g(np.ones(3), 7.0).tolist() == [14.0] * 3
    assert len(calls) == 2
    g(-np.ones(3))
    g(np.ones(4))
    g(np.ones(3, np.float32))
    assert len(calls) == 5
    for x in (np.ones(3), -np.ones(3), np.ones(4)):
        g(x)
    assert len(calls) == 5


def test_static_arguments_are_part_of_the_trace():
    def f(x, mode, n, index):
        for _ in range(n):
            x = np.sin(x) if mode == "sin" else np.exp(x)
        return x[index]

    g = lg.compile(lg.grad(f))
    x = np.array([0.1, 0.2])
    for mode in ("sin", "exp"):
        for n in (1, 2):
            for index in (0, np.array(1)):
                assert g(x, mode, n, index) == pytest.approx(lg.grad(f)(x, mode, n, index))


def test_compile_and_transforms_compose_in_either_order():
    f, calls = tracings(lambda x: x**3)
    outside, inside = lg.compile(lg.grad(f)), lg.grad(lg.compile(f))
    assert [outside(2.0), outside(3.0)] == [12.0, 27.0]
    assert [inside(2.0), inside(3.0)] == [12.0, 27.0]
    assert len(calls) == 2
    assert lg.compile(f)(2.0) == 8.0
    assert lg.grad(lg.grad(lg.compile(f)))(2.0) == 12.0
    assert lg.grad(lg.compile(lg.grad(f)))(2.0) == 12.0
    assert lg.hvp(lg.compile(f), 2.0, 1.0) == 12.0
    assert isinstance(lg.compile(lg.compile(f)), Compiled)


def test_compiled_results_do_not_share_memory_with_anything():
    g = lg.compile(lg.value_and_grad(lambda x: np.sum(x)))
    x = np.ones(3)
    _, first = g(x)
    first[:] = 9.0
    assert g(x)[1].tolist() == [1.0, 1.0, 1.0]
    identity = lg.compile(lambda x: x)
    out = identity(x)
    out[0] = 5.0
    assert x[0] == 1.0
    x[:] = 2.0
    assert identity(x).tolist() == [2.0, 2.0, 2.0]


def test_threads_trace_for_themselves():
    g, found = lg.compile(lg.grad(lambda x, n: np.sum(x**n))), {}

    def work(n):
        found[n] = [g(np.full(3, 2.0), n).tolist() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for n in range(1, 6):
        assert found[n] == [[n * 2.0 ** (n - 1)] * 3] * 20


def test_a_float_that_decides_is_fine_and_one_that_computes_is_refused():
    decided = lambda x: np.sum(x**2) if float(np.sum(x)) > 0 else np.sum(x)
    assert lg.grad(decided)(np.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(lg.TracedValueError, match=r"float\(\).*no derivative"):
        lg.grad(lambda x: math.sin(x) * x)(1.0)
    with pytest.raises(lg.TracedValueError, match=r"float\(\).*no derivative"):
        lg.compile(lg.grad(lambda x: math.exp(x)))(1.0)
    with pytest.raises(lg.TracedValueError, match=r"float\(\).*no derivative"):
        lg.jvp(lambda x: math.exp(x), (1.0,), (1.0,))
    assert lg.grad(lambda x: x * lg.stop_gradient(np.sin(x)))(1.0) == np.sin(1.0)


LEAKS = {
    "arithmetic": lambda leaked: leaked + 1.0,
    "a function": np.sin,
    "a number": float,
    "a truth": bool,
    "another trace": lambda leaked: lg.grad(lambda y: y * leaked)(1.0),
    "an argument": lambda leaked: lg.grad(lambda y: y**2)(leaked),
    "an argmin": lambda leaked: lg.argmin(lambda z: (z - leaked) ** 2, 0.0),
}


@pytest.mark.parametrize("use", LEAKS)
def test_a_value_that_left_its_trace_is_named_when_it_is_used(use):
    kept = []

    def leaky(x):
        kept.append(2.0 * x)
        return x**2

    assert lg.grad(leaky)(1.0) == 2.0
    with pytest.raises(lg.LeakedValue, match="leaky"):
        LEAKS[use](kept[0])
    assert lg.grad(leaky)(1.0) == 2.0
    with pytest.raises(lg.LeakedValue, match="leaky"):
        LEAKS[use](kept[1])


def test_a_failing_function_leaves_nothing_behind():
    def failing(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        lg.grad(failing)(1.0)
    assert lg.grad(np.sin)(0.0) == 1.0
    with pytest.raises(lg.LagradError):
        lg.grad(lambda x: np.convolve(x, x, mode="odd"))(np.ones(2))
    assert lg.argmin(lambda z: z**2, 1.0) == pytest.approx(0.0, abs=1e-15)
