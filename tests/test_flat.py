"""Programs of many scalars: the flat tape against NumPy, differences, and plain Python."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import lagrad as lg
from lagrad import loops
from lagrad.flat import partials_of

RNG = np.random.default_rng(3)
# Where each function is smooth.
INSIDE = {"arcsin": 0.9, "arccos": 0.9, "log": 3.0, "sqrt": 3.0, "power": 3.0}
BOTH = [
    "python",
    pytest.param("numba", marks=pytest.mark.skipif(loops.compiled() is None, reason="extra fast")),
]


@pytest.fixture
def engine(request, monkeypatch):
    """The loops in Python, or compiled ones, whatever the size."""
    python = (loops.forward_in_python, loops.backward_in_python, loops.tangent_in_python)
    chosen = python if request.param == "python" else loops.compiled()
    monkeypatch.setattr("lagrad.flat.loops", lambda size: chosen)


def random_program(n, xs, sin=np.sin, tanh=np.tanh):
    """A random graph over `xs` by the last fifty values; products kept near one."""
    rng = np.random.default_rng(n)
    operations, left, right = rng.integers(0, 4, n), *rng.integers(1, 51, (2, n))
    values = list(xs)
    for o, a, b in zip(operations.tolist(), left.tolist(), right.tolist(), strict=True):
        u, v = values[-a], values[-b]
        values.append([u + 0.3, u * v, sin(u), tanh(v) + 1.2][o] * 0.9)
    return values[-1]


def declared(n):
    p = lg.Program()
    xs = [p.parameter(f"x{k}", value=0.2 + k / 50) for k in range(50)]
    p.define("z", random_program(n, xs))
    return p


@pytest.mark.parametrize("engine", BOTH, indirect=True)
def test_a_random_graph_against_differences_of_plain_python(engine):
    p = declared(2000)
    at = p.solve()
    assert at.point.flat is not None
    xs = [0.2 + k / 50 for k in range(50)]
    plain = lambda k, h: random_program(
        2000, [x + h * (i == k) for i, x in enumerate(xs)], math.sin, math.tanh
    )
    assert at["z"] == pytest.approx(plain(0, 0.0), rel=1e-12)
    gradient, h = at.gradient("z"), 1e-5
    for k in range(0, 50, 7):
        expected = (plain(k, h) - plain(k, -h)) / (2 * h)
        assert gradient[f"x{k}"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert at.tangent({f"x{k}": 1.0})["z"] == pytest.approx(gradient[f"x{k}"], rel=1e-11)
    assert gradient.certificate.error_bound < 1e-12


@pytest.mark.parametrize("engine", BOTH, indirect=True)
@pytest.mark.parametrize("name", [n for n in loops.CODES if n != "copy"])
def test_each_function_is_numpys_and_has_its_slope(name, engine):
    ufunc = getattr(np, name)
    count = 2 if loops.CODES[name] < loops.BINARY else 1
    points = RNG.uniform(0.2, INSIDE.get(name, 2.0), (count, 450))
    p = lg.Program()
    xs = [
        [p.parameter(f"x{i}_{k}", value=v) for k, v in enumerate(row)]
        for i, row in enumerate(points)
    ]
    for k in range(450):
        p.define(f"y{k}", ufunc(*[row[k] for row in xs]))
    at = p.solve()
    assert at.point.flat is not None
    expected = ufunc(*points)
    np.testing.assert_allclose([at[f"y{k}"] for k in range(450)], expected, rtol=1e-13)
    tape, partials = at.point.flat.tape, at.point.flat.partials
    nodes = tape.start + np.flatnonzero(tape.code[tape.start :] == loops.CODES[name])
    h = 1e-6
    for i in range(count):
        step = np.zeros((count, 450))
        step[i] = h
        slope = (ufunc(*(points + step)) - ufunc(*(points - step))) / (2 * h)
        np.testing.assert_allclose(partials[i][nodes], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("engine", BOTH, indirect=True)
def test_infinities_and_nans_are_numpys(engine):
    p = lg.Program()
    x = p.parameter("x", value=-1.0)
    y = x
    for k in range(450):
        y = p.define(f"y{k}", y * 1.0 + 0.0)
    p.define("z", np.log(y))
    with pytest.raises(lg.NotFinite, match="'z'"):
        p.solve()
    assert p.solve(x=1.0)["z"] == 0.0


def test_a_chain_of_components_by_its_closed_form():
    p = lg.Program()
    y = p.parameter("x", value=1.0)
    for k in range(3000):
        y = p.define(f"y{k}", y + 0.01 * np.sin(y))
    at = p.solve()
    value, slope = 1.0, 1.0
    for _ in range(3000):
        value, slope = value + 0.01 * math.sin(value), slope * (1 + 0.01 * math.cos(value))
    assert at["y2999"] == pytest.approx(value, rel=1e-12)
    assert float(at.gradient("y2999")["x"]) == pytest.approx(slope, rel=1e-12)


def test_equal_definitions_have_multipliers_of_their_own():
    p = lg.Program()
    x = p.parameter("x", value=2.0)
    y = x
    for k in range(450):
        y = p.define(f"y{k}", y + 1.0)
    a, b = p.define("a", np.exp(x)), p.define("b", np.exp(x))
    c = p.define("c", b)
    p.define("f", 3.0 * a + 5.0 * b + 7.0 * c + y)
    at = p.solve()
    assert at.point.flat is not None
    multipliers = at.multipliers("f")
    assert [float(multipliers[n]) for n in ("a", "b", "c")] == [3.0, 12.0, 7.0]
    assert float(at.gradient("f")["x"]) == pytest.approx(15.0 * math.exp(2.0) + 1.0)


def test_a_deep_chain_neither_recurses_nor_overflows():
    p = lg.Program()
    x = p.parameter("x", value=0.5)
    y = x
    for _ in range(30 * sys.getrecursionlimit()):
        y = y * 0.999 + 0.001
    p.define("z", y)
    at = p.solve()
    assert at["z"] == pytest.approx(1.0, abs=1e-9)
    p.solve(x=0.6).gradient("z")


def test_partials_are_the_declared_ones_at_kinks():
    (slope,) = partials_of("abs")([np.zeros(1), np.zeros(1)])
    assert slope.tolist() == [0.0]
    both = partials_of("maximum")([np.ones(1), np.ones(1), np.ones(1)])
    assert [float(v[0]) for v in both] == [0.5, 0.5]
