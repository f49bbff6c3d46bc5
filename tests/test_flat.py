"""Programs of many scalars: the flat tape against NumPy, differences, and plain Python."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import lagrad as lg
from lagrad.compiler import scalar_opcodes as loops
from lagrad.compiler.scalar_tape import partials_of

RNG = np.random.default_rng(3)
# Where each function is smooth.
INSIDE = {"arcsin": 0.9, "arccos": 0.9, "log": 3.0, "sqrt": 3.0, "power": 3.0, "tan": 1.2}
ENGINES = [
    "python",
    "written",
    "levels",
    pytest.param(
        "machine code", marks=pytest.mark.skipif(loops.compiled() is None, reason="extra fast")
    ),
]


@pytest.fixture
def engine(request, monkeypatch):
    """One of the four ways to run a tape, whatever its size."""
    chosen = loops.compiled() if request.param == "machine code" else None
    monkeypatch.setattr("lagrad.compiler.scalar_tape.loops", lambda size: chosen)
    if request.param in ("python", "written"):
        monkeypatch.setattr("lagrad.compiler.scalar_tape.levels", lambda *tape: None)
        monkeypatch.setattr(
            "lagrad.compiler.scalar_tape.WRITTEN_FROM", 0 if request.param == "written" else 1e9
        )
    elif request.param == "levels":
        monkeypatch.setattr("lagrad.compiler.scalar_tape.WIDE", 0)


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


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
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
    assert gradient.certificate.error_bound < 1e-11


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("name", [n for n in loops.CODES if n not in ("copy", "tanh_slope")])
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


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
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
    (slope,) = partials_of("abs", 1)([np.zeros(1), np.zeros(1)])
    assert slope.tolist() == [0.0]
    both = partials_of("maximum", 1)([np.ones(1), np.ones(1), np.ones(1)])
    assert [float(v[0]) for v in both] == [0.5, 0.5]


def test_a_function_of_scalars_has_its_gradient_by_the_tape():
    f = lambda x: random_program(3000, [x[k] for k in range(50)]) * x[3]
    x = np.linspace(0.2, 1.2, 50)
    expected = [(f(x + h) - f(x - h))[()] / 2e-5 for h in 1e-5 * np.eye(50)]
    for function in (lg.value_and_grad(f), lg.compile(lg.value_and_grad(f))):
        for _ in range(2):
            value, gradient = function(x)
            assert value == pytest.approx(float(f(x)), rel=1e-12)
            np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(lg.NotFinite):
        lg.grad(lambda x: random_program(3000, [x[k] for k in range(50)]) / (x[0] - 0.2))(x)


def test_equal_rows_of_a_batch_are_a_few_calls(monkeypatch):
    monkeypatch.setattr("lagrad.compiler.scalar_tape.loops", lambda size: None)
    p = lg.Program()
    xs = [[p.parameter(f"x{r}_{k}", value=0.1 * k + r / 100) for k in range(3)] for r in range(300)]
    for r, (a, b, c) in enumerate(xs):
        p.define(f"y{r}", np.sin(a * b) + np.exp(c) * a)
    at = p.solve()
    assert len(at.point.flat.tape.levels.groups) <= 7
    assert at["y7"] == pytest.approx(math.sin(0.07 * 0.17) + math.exp(0.27) * 0.07)
    gradient = at.gradient("y7")
    assert gradient["x7_2"] == pytest.approx(math.exp(0.27) * 0.07)
    assert float(gradient["x8_2"]) == 0.0
