"""Loops and their derivatives beside loops of Python's, and closed forms."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad.compiler import scalar_opcodes as loops
from lagrad.compiler.lowering import Lowered
from lagrad.compiler.plan import Plan
from lagrad.compiler.scalarize import scalarised
from lagrad.expressions.expression import Variable
from lagrad.expressions.graph import Graph

RNG = np.random.default_rng(5)
FAST = pytest.mark.skipif(loops.compiled() is None, reason="extra fast")
ROADS = [
    {},
    pytest.param({"compiled": "straight"}, marks=FAST),
    pytest.param({"compiled": "in turn"}, marks=FAST),
    {"checkpoints": 1},
    {"checkpoints": 3},
    {"checkpoints": 99},
    {"memory": "100 B"},
    {"disk": True},
    {"disk": True, "checkpoints": 2},
]


@pytest.fixture(params=ROADS, ids=str)
def road(request, tmp_path, monkeypatch):
    how = dict(request.param)
    compiled = how.pop("compiled", "") if loops.compiled() else ""
    monkeypatch.setattr("lagrad.loops.run_forwards.pays", lambda work: bool(compiled))
    monkeypatch.setattr("lagrad.compiler.repetition.COMPILED_FROM", 0)
    if compiled == "in turn":
        monkeypatch.setattr("lagrad.compiler.repetition.straight", lambda *step: None)
    return {k: str(tmp_path) if k == "disk" else v for k, v in how.items()}


W, U, B = RNG.standard_normal((4, 4)) / 2, RNG.standard_normal((4, 3)), RNG.standard_normal(4)
X, H = RNG.standard_normal((9, 3)), RNG.standard_normal(4)


def recurrent(W, U, b, h, X, **how):
    def step(state, x):
        h = np.tanh(W @ state["h"] + U @ x + b)
        return {"h": h, "n": state["n"] + 0.1 * h[0]}, (h * h, x[0] * h[1])

    last, (squares, products) = lg.scan(step, {"h": h, "n": 0.0}, X, **how)
    return np.sum(last["h"]) + last["n"] + np.sum(np.sin(squares)) + np.sum(products[2:])


def plain(W, U, b, h, X, backwards=False):
    n = total = 0.0
    products = [0.0] * len(X)
    for t in range(len(X))[:: -1 if backwards else 1]:
        h = np.tanh(W @ h + U @ X[t] + b)
        n = n + 0.1 * h[0]
        total = total + np.sum(np.sin(h * h))
        products[t] = X[t][0] * h[1]
    return np.sum(h) + n + total + sum(products[2:])


@pytest.mark.parametrize("backwards", [False, True])
def test_all_roads_are_python_s_loop(road, backwards):
    arguments = (W, U, B, H, X)
    f = lambda *z: recurrent(*z, backwards=backwards, **road)
    g = lambda *z: plain(*z, backwards=backwards)
    assert f(*arguments) == pytest.approx(g(*arguments), rel=1e-14)
    found = lg.grad(f, (0, 1, 2, 3, 4))(*arguments)
    for a, b in zip(found, lg.grad(g, (0, 1, 2, 3, 4))(*arguments), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert lg.jvp(f, arguments, arguments)[1] == pytest.approx(lg.jvp(g, arguments, arguments)[1])
    second = lg.hessian(lambda b: f(W, U, b, H, X))(B)
    np.testing.assert_allclose(second, lg.hessian(lambda b: g(W, U, b, H, X))(B), rtol=1e-10)
    hvp = lg.hvp(lambda W: f(W, U, B, H, X), W, np.ones_like(W))
    np.testing.assert_allclose(
        hvp, lg.hvp(lambda W: g(W, U, B, H, X), W, np.ones_like(W)), rtol=1e-10, atol=1e-13
    )
    fast = lg.compile(lg.value_and_grad(f))
    for scale in (1.0, 0.5, 1.0):
        value, gradient = fast(scale * W, U, B, H, X)
        assert value == pytest.approx(g(scale * W, U, B, H, X), rel=1e-13)
        np.testing.assert_allclose(gradient, lg.grad(g)(scale * W, U, B, H, X), rtol=1e-11)


def test_third_derivatives_of_a_loop_in_closed_form(road):
    power = lambda a: lg.iterate(lambda z: a * z, 1.0, 7, **road)
    d = lg.grad(lg.grad(lg.grad(power)))
    assert float(d(1.5)) == pytest.approx(7 * 6 * 5 * 1.5**4)


def test_loops_in_loops(road):
    def f(a):
        def outer(z, x):
            inner = lg.iterate(lambda u: np.cos(a * u) + 0.1 * x, z, 3, **road)
            return inner, lg.scan(lambda u, y: (u * a, u + y), inner, np.ones(2))[1]

        z, ys = lg.scan(outer, 0.4, np.arange(4.0), **road)
        return z + np.sum(ys)

    def g(a):
        z, total = 0.4, 0.0
        for x in range(4):
            for _ in range(3):
                z = np.cos(a * z) + 0.1 * x
            total = total + (z + 1) + (z * a + 1)
        return z + total

    assert f(0.8) == pytest.approx(g(0.8), rel=1e-14)
    assert float(lg.grad(f)(0.8)) == pytest.approx(float(lg.grad(g)(0.8)), rel=1e-12)
    assert float(lg.grad(lg.grad(f))(0.8)) == pytest.approx(
        float(lg.grad(lg.grad(g))(0.8)), rel=1e-10
    )


def test_implicit_functions_inside_loops_and_loops_inside_them(road):
    def f(a):
        step = lambda z: lg.root(lambda u: u**3 + u - a * z - 1.0, 0.5)
        return lg.iterate(step, 0.7, 4, **road)

    def step(z, a):
        u = np.roots([1.0, 0.0, 1.0, -a * z - 1.0])
        return float(u[np.abs(u.imag) < 1e-9].real[0])

    def g(a):
        z = 0.7
        for _ in range(4):
            z = step(z, a)
        return z

    assert f(0.9) == pytest.approx(g(0.9), rel=1e-10)
    assert float(lg.grad(f)(0.9)) == pytest.approx((g(0.9 + 1e-5) - g(0.9 - 1e-5)) / 2e-5, rel=1e-7)
    h = lambda a: lg.root(lambda z: lg.iterate(lambda u: np.cos(a * u) / 2, z, 3, **road) - z, 0.1)
    z = float(h(0.9))
    for _ in range(3):
        z = np.cos(0.9 * z) / 2
    assert z == pytest.approx(float(h(0.9)), rel=1e-12)
    k = lambda a: (float(h(a + 1e-5)) - float(h(a - 1e-5))) / 2e-5
    assert float(lg.grad(h)(0.9)) == pytest.approx(k(0.9), rel=1e-7)


def test_jacobians_through_loops():
    A = RNG.standard_normal((3, 3)) / 2
    f = lambda z: lg.scan(lambda u, x: (A @ u, u), z, np.ones(5))
    last, stacked = lg.jacobian(f)(np.ones(3))
    np.testing.assert_allclose(last, np.linalg.matrix_power(A, 5), rtol=1e-12)
    powers = [np.linalg.matrix_power(A, k) for k in range(5)]
    np.testing.assert_allclose(stacked, powers, rtol=1e-12, atol=1e-15)


def test_in_single_precision():
    f = lambda a: lg.iterate(lambda z: a * z, np.ones(3, np.float32), 4, checkpoints=2)
    found = lg.grad(lambda a: np.sum(f(a)))(np.float32(1.5))
    assert f(np.float32(1.5)).dtype == np.float32
    assert float(found) == pytest.approx(3 * 4 * 1.5**3, rel=1e-6)


@FAST
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_random_steps_on_single_numbers_are_numpys(seed):
    rng = np.random.default_rng(seed)
    shapes = [(3,), (2, 3), (), (3, 3), (4,)]
    graph = Graph("step")
    values = [rng.uniform(0.2, 1.2, s) for s in shapes]
    leaves = [
        Variable(graph, f"x{k}", "parameter", s, np.dtype(float), None)
        for k, s in enumerate(shapes)
    ]

    def program(a, b, c, d, e):
        made = [a, b, c, d, e]
        moves = [
            lambda: np.sin(made[0]) * made[2] + 0.5,
            lambda: made[1] @ made[0],
            lambda: np.sum(made[3], axis=int(rng.integers(2))),
            lambda: made[3] @ made[3].T,
            lambda: np.outer(made[0], made[4])[1:, ::2],
            lambda: np.concatenate([made[0], made[4]])[[0, 5, 2]],
            lambda: np.broadcast_to(made[0], (2, 3)) / made[1],
            lambda: np.sum(made[1]) * np.transpose(made[1]),
            lambda: np.einsum("ij,jk->ki", made[1], made[3]),
            lambda: np.reshape(made[3], (9,))[::-1] ** 2 - np.maximum(made[2], 0.5),
        ]
        chosen = rng.permutation(len(moves))[:5]
        return [moves[k]() for k in chosen]

    state = rng.bit_generator.state
    expected = program(*values)
    rng.bit_generator.state = state
    outputs = [graph.lift(o) for o in program(*leaves)]
    step = scalarised(Lowered(leaves, outputs, {}), len(leaves))
    assert step is not None
    memory = step.memory.copy()
    memory[step.given] = np.concatenate([np.ravel(v) for v in values])
    loops.compiled()[0](step.codes, step.firsts, step.seconds, memory, step.start)
    found = np.concatenate([np.ravel(v) for v in expected])
    np.testing.assert_allclose(memory[step.asked], found, rtol=1e-12)
    for a, b in zip(Plan(leaves, outputs)(values), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_loop_of_no_steps_gives_its_state(road):
    f = lambda a: lg.iterate(lambda z: z * a, a, 0, **road)
    assert (f(3.0), float(lg.grad(f)(3.0))) == (3.0, 1.0)
    last, outputs = lg.scan(lambda z, x: (z + x, z), 1.0, np.zeros(0), **road)
    assert (last, outputs.shape) == (1.0, (0,))


def test_a_while_loop_has_the_derivative_of_its_steps(road):
    def f(a):
        on = lambda z: np.abs(z * z - a) > 1e-8
        return lg.while_loop(on, lambda z: (z + a / z) / 2, a, 60, **road)

    fast = lg.compile(lg.value_and_grad(f))
    for a in (2.0, 3.0, 1e6, 2.0):  # of different lengths
        value, slope = fast(a)
        z = a
        while np.abs(z * z - a) > 1e-8:
            z = (z + a / z) / 2
        assert value == pytest.approx(z, rel=1e-15)
        assert slope == pytest.approx(0.5 / np.sqrt(a), rel=1e-6)
    with pytest.raises(lg.NotConverged, match="max_steps=3"):
        lg.while_loop(lambda z: z > 0, lambda z: z + 1, 1.0, 3)


def collatz_like(a, x, while_loop):
    """For each x as many steps as it takes, which differ."""

    def step(total, x):
        last = while_loop(lambda z: z[0] > 1.0, lambda z: (z[0] * a, z[1] + z[0]), (x, 0.0), 30)
        return total + last[1] * last[0], last[1]

    total, sums = 0.0, []
    if while_loop is lg.while_loop:
        return lg.scan(step, total, x)[0]
    for entry in x:
        total, found = step(total, entry)
        sums.append(found)
    return total


def python_s(condition, step, z, max_steps):
    for _ in range(max_steps):
        if not condition(z):
            return z
        z = step(z)
    raise AssertionError


def test_a_while_loop_inside_a_loop_takes_as_many_steps_as_each_needs():
    x = np.array([0.5, 3.0, 20.0, 1.5])
    looped = lambda a, x: collatz_like(a, x, lg.while_loop)
    written = lambda a, x: collatz_like(a, x, python_s)
    assert looped(0.6, x) == pytest.approx(written(0.6, x), rel=1e-14)
    for k in (0, 1):
        np.testing.assert_allclose(
            lg.grad(looped, k)(0.6, x), lg.grad(written, k)(0.6, x), rtol=1e-12
        )
    second = lg.grad(lambda a: lg.grad(looped)(a, x))(0.6)
    assert second == pytest.approx(lg.grad(lambda a: lg.grad(written)(a, x))(0.6), rel=1e-10)
    found = lg.compile(lg.grad(looped))(0.6, x[::-1].copy())
    assert found == pytest.approx(lg.grad(written)(0.6, x[::-1]), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_random_lengths_and_budgets(n, s, seed):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((3, 3)) / 2, rng.standard_normal((n, 3))

    def f(A, x, **how):
        return np.sum(
            lg.scan(lambda z, u: (np.sin(A @ z) + u, None), np.ones(3), x, length=n, **how)[0]
        )

    for a, b in zip(
        lg.grad(f, (0, 1))(A, x),
        lg.grad(lambda A, x: f(A, x, checkpoints=s), (0, 1))(A, x),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


WRONG = {
    "state.*shape \\(\\).*shape \\(2,\\)": lambda: lg.iterate(lambda z: z * np.ones(2), 1.0, 3),
    "a tuple of 2; expected one array": lambda: lg.iterate(lambda z: (z, z), 1.0, 3),
    "keys \\['b'\\]": lambda: lg.iterate(lambda z: {"b": z["a"]}, {"a": 1.0}, 3),
    "must return a pair": lambda: lg.scan(lambda z, x: z, 1.0, np.ones(3)),
    "length=-1": lambda: lg.iterate(lambda z: z, 1.0, -1),
    "length=2.5": lambda: lg.iterate(lambda z: z, 1.0, 2.5),
    "needs length": lambda: lg.scan(lambda z, x: (z, x), 1.0),
    "'inputs_1' has 4 entries": lambda: lg.scan(lambda z, x: (z, x), 1.0, [np.ones(3), np.ones(4)]),
    "is a number": lambda: lg.scan(lambda z, x: (z, x), 1.0, 3.0),
    "least that works is 800 bytes": lambda: lg.iterate(lambda z: z, np.ones(100), 5, memory=100),
    "memory='lots'": lambda: lg.iterate(lambda z: z, 1.0, 5, memory="lots"),
    "not both": lambda: lg.iterate(lambda z: z, 1.0, 5, memory=64, checkpoints=2),
    "checkpoints=0": lambda: lg.iterate(lambda z: z, 1.0, 5, checkpoints=0),
    "disk='/nowhere'": lambda: lg.iterate(lambda z: z, 1.0, 5, disk="/nowhere"),
    "branches on a value": lambda: lg.iterate(lambda z: z if z > 0 else -z, 1.0, 5),
    "truths or integers": lambda: lg.iterate(lambda z: z > 1, 1.0, 5),
    "at step 8 of 50": lambda: lg.iterate(lambda z: z * z, 10.0, 50),
    "at step 7 of 50": lambda: lg.grad(lambda a: lg.iterate(lambda z: z * z * a, 10.0, 50))(2.0),
    "takes a function": lambda: lg.iterate(3, 1.0, 5),
    "disk=True": lambda: lg.iterate(lambda z: z, 1.0, 3, disk=True),
    "calls 'function' with 2": lambda: lg.scan(lambda z: (z, z), 1.0, np.ones(2)),
    "calls 'function' with 1": lambda: lg.iterate(lambda z, y: z, 1.0, 3),
    "max_steps=9": lambda: lg.iterate(
        lambda z: lg.while_loop(lambda w: w > 0, lambda w: w + 1, z, 9), 1.0, 3
    ),
    "takes 'state' of shape \\(2,\\).*to shape \\(\\)": lambda: lg.scan(
        lambda s, u: (
            lg.while_loop(lambda z: np.sum(z) > 0.5, lambda z: np.sum(z) * 0.1, s, 9),
            None,
        ),
        np.array([1.0, 3.0]),
        np.ones(2),
    ),
    "returned shapes": lambda: lg.scan(
        lambda s, u: (lg.while_loop(lambda z: z > 0.5, lambda z: z * 0.5, s, 9), None),
        np.array([1.0, 3.0]),
        np.ones(2),
    ),
    "max_steps=2.5": lambda: lg.while_loop(lambda z: z > 0, lambda z: z, 1.0, 2.5),
    "the block \\{": lambda: lg.grad(
        lambda a: lg.while_loop(
            lambda z: z < 5, lambda z: lg.root(lambda w: w * w + a, z), 1.0, 9, checkpoints=2
        )
    )(1.0),
    "disk=''": lambda: lg.iterate(lambda z: z * 2, np.ones(3), 3, disk=""),
    "one truth": lambda: lg.while_loop(lambda z: z > 0, lambda z: z, np.ones(2), 3),
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_input_is_named(message):
    with pytest.raises(lg.LagradError, match=message):
        WRONG[message]()


def test_states_on_disk_leave_no_file_even_after_a_kill(tmp_path):
    program = """
        import sys, time, numpy as np, lagrad as lg

        def slow(z):
            print("step", flush=True)
            time.sleep(0.02)
            return 0.5 * z

        slow = lg.primitive(slow, vjp=lambda g, y, z: (0.5 * g,))
        folder = sys.argv[1]
        f = lambda a: np.sum(lg.iterate(lambda z: slow(a * z), np.ones(1000), 500, disk=folder))
        lg.grad(f)(1.0)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], stdout=subprocess.PIPE
    ) as run:
        for _ in range(10):
            run.stdout.readline()
        time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == []


def test_a_failure_on_the_way_leaves_no_file(tmp_path):
    calls = []

    def failing(z):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return 0.5 * z

    step = lg.primitive(failing, vjp=lambda g, y, z: (0.5 * g,))
    f = lambda a: np.sum(lg.iterate(lambda z: step(a * z), np.ones(10), 100, disk=tmp_path))
    with pytest.raises(KeyboardInterrupt):
        lg.grad(f)(1.0)
    assert os.listdir(tmp_path) == []


def leapfrog(angle, n, wrong=0.0, reversible=True):
    """A rotation by shears, which is undone exactly but for rounding."""

    def there(z):
        x = z[0] - angle * z[1]
        return x, z[1] + angle * x

    def back(z):
        y = z[1] - angle * z[0]
        return z[0] + angle * y + wrong, y

    step = lg.reversible(there, back) if reversible else there
    return lg.iterate(step, (1.0, 0.0), n)[0]


def test_a_reversible_loop_stores_no_state_and_has_the_same_derivatives(monkeypatch):
    plain = lambda a: leapfrog(a, 500, reversible=False)
    expected = float(lg.grad(plain)(0.01)), float(lg.grad(lg.grad(plain))(0.01))
    monkeypatch.setattr("lagrad.loops.run_forwards.Shelf", None)
    f = lambda a: leapfrog(a, 500)
    assert float(lg.grad(f)(0.01)) == pytest.approx(expected[0], rel=1e-10)
    assert float(lg.grad(lg.grad(f))(0.01)) == pytest.approx(expected[1], rel=1e-9)
    step, inverse = lambda z, x: (z + x * z[::-1] * 0, np.sum(z * x)), lambda z, x: z
    loop = lambda z, s: np.sum(lg.scan(s, z, X)[1])
    for a, b in zip(
        lg.jacobian(lambda z: loop(z, lg.reversible(step, inverse)))(np.ones(3)),
        lg.jacobian(lambda z: loop(z, step))(np.ones(3)),
        strict=True,
    ):
        assert a == pytest.approx(b, rel=1e-12)


def test_an_inverse_that_does_not_invert_is_measured_and_named():
    with pytest.raises(lg.InvalidFunction, match="'there' does not lead back: at step 499 of 500"):
        lg.grad(lambda a: leapfrog(a, 500, wrong=1e-4))(0.01)
    with pytest.raises(lg.ShapeMismatch, match="is a tuple of 2"):
        lg.iterate(lg.reversible(lambda z: z, lambda z: (z, z)), 1.0, 3)
    with pytest.raises(lg.InvalidFunction, match="takes functions"):
        lg.reversible(lambda z: z, None)


WRONG_INVERSES = {
    "hidden by growth": (3.0, lambda a, z: a * z * z, lambda a, z: np.sqrt(z) / a, "lead back"),
    "hidden by another array": (
        (1e8, 0.5),
        lambda a, z: (z[0], z[1] * a + z[1] ** 2),
        lambda a, z: z,
        "lead back.*state_1",
    ),
    "a shape": (np.ones(3), lambda a, z: z * a, lambda a, z: np.sum(z) / a, "inverse of.*\\(\\)"),
    "a structure": (1.0, lambda a, z: z * a, lambda a, z: (z, z), "the inverse of.*a tuple"),
    "a branch": (
        np.ones(3),
        lambda a, z: z * a,
        lambda a, z: z / a if z[0] > 0 else z,
        "the inverse of .* branches",
    ),
    "arguments": (1.0, lambda a, z: z * a, None, "'the inverse of function' with 1 argument"),
}


@pytest.mark.parametrize("what", WRONG_INVERSES)
def test_wrong_inverses_are_named(what):
    start, step, inverse, message = WRONG_INVERSES[what]

    def f(a):
        back = (lambda z, x: z) if inverse is None else (lambda z: inverse(a, z))
        last = lg.iterate(lg.reversible(lambda z: step(a, z), back), start, 5)
        return sum(np.sum(part) for part in (last if isinstance(last, tuple) else (last,)))

    with pytest.raises(lg.LagradError, match=message):
        lg.grad(f)(1.5)


def turned(z, a):
    return z[0] * np.cos(a) - z[1] * np.sin(a), z[0] * np.sin(a) + z[1] * np.cos(a)


def test_an_inverse_is_seen_to_be_none_where_the_loop_returns_to_its_start():
    f = lambda a: lg.iterate(lg.reversible(lambda z: turned(z, a), lambda z: z), (1.0, 2.0), 8)[0]
    with pytest.raises(lg.InvalidFunction, match="lead back: at step 7 of 8"):
        lg.grad(f)(2 * np.pi / 8)
    step, inverse = lambda a: lambda z, _: (a - z, z**3), lambda z, _: z
    g = lambda a: np.sum(lg.scan(lg.reversible(step(a), inverse), 1.0, None, 4)[1])
    with pytest.raises(lg.InvalidFunction, match="lead back"):
        lg.grad(g)(1.3)


SINGLE = np.float32
RIGHT_INVERSES = {
    "single precision": (
        (SINGLE(1), SINGLE(0)),
        lambda a, z: turned((z[0], z[1]), SINGLE(0.01) * a),
        lambda a, z: turned((z[0], z[1]), -SINGLE(0.01) * a),
        1000,
        SINGLE(1.3),
    ),
    "a clock from zero": (
        (0.0, 0.0),
        lambda a, z: (z[0] + 0.1, z[1] + 0.1 * np.sin(z[0] * a)),
        lambda a, z: (z[0] - 0.1, z[1] - 0.1 * np.sin((z[0] - 0.1) * a)),
        10_000,
        1.3,
    ),
    "a small start": (
        (1e-9, 1.0),
        lambda a, z: (z[0] + z[1] * a, z[1]),
        lambda a, z: (z[0] - z[1] * a, z[1]),
        1000,
        1.3,
    ),
}


@pytest.mark.parametrize("what", RIGHT_INVERSES)
def test_right_inverses_raise_no_alarm(what):
    start, step, inverse, n, at = RIGHT_INVERSES[what]

    def f(a, reverse):
        forth, back = lambda z: step(a, z), lambda z: inverse(a, z)
        last = lg.iterate(lg.reversible(forth, back) if reverse else forth, start, n)
        return last[0] + last[1]

    found, expected = lg.grad(lambda a: f(a, True))(at), lg.grad(lambda a: f(a, False))(at)
    assert found == pytest.approx(expected, rel=1e-3 if what == "single precision" else 1e-9)


def test_a_reversible_loop_keeps_single_precision():
    single = np.float32
    step = lambda a: lambda z: (z[0] + a, z[1] * a)
    back = lambda a: lambda z: (z[0] - a, z[1] / a)
    f = lambda a: lg.iterate(lg.reversible(step(a), back(a)), (single(1), a), 4)[0]
    assert lg.grad(f)(single(1.5)).dtype == single


def test_a_while_loop_elsewhere_than_where_it_was_traced_has_the_length_it_had(road):
    f = lambda a: lg.while_loop(lambda z: z > 0.1, lambda z: z * a, 1.0, 200, **road)
    for at, there, n in ((0.9, 0.8, 22), (0.5, 0.9, 4)):
        solution = lg.trace(f, at).solve(a=there)
        assert solution["output"] == pytest.approx(there**n, rel=1e-12)
        assert solution.gradient("output")["a"] == pytest.approx(n * there ** (n - 1), rel=1e-12)
        assert solution.tangent(a=1.0)["output"] == pytest.approx(n * there ** (n - 1), rel=1e-12)
    square = lambda a: lg.while_loop(
        lambda z: abs(z * z - a) > 1e-12 * a, lambda z: (z + a / z) / 2, 1.0 + 0 * a, 60, **road
    )
    assert lg.argmin(lambda z: (square(z) - 0.3) ** 2, 4.0) == pytest.approx(0.09, rel=1e-6)


def test_steps_after_the_end_have_no_effect_even_where_they_cannot_be_taken():
    falling = lambda a: lg.while_loop(lambda z: z > 0, lambda z: z - np.sqrt(z) - 1.0, a, 20)
    looped = lambda a: lg.scan(lambda s, x: (s, falling(s)), a, length=2)[1][0]
    assert lg.grad(looped)(1.7) == pytest.approx(float(lg.grad(falling)(1.7)), rel=1e-12)
    p = lg.Program()
    p.define("f", falling(p.parameter("a", value=1.7)))
    assert p.solve().gradient("f")["a"] == pytest.approx(float(lg.grad(falling)(1.7)), rel=1e-12)


def test_a_while_loop_in_a_branch_that_is_not_taken_is_no_obstacle():
    f = lambda x: lg.while_loop(lambda z: z > 1.0, lambda z: z * 0.5, x, 10) if x < 100 else x * x
    fast = lg.compile(lg.grad(f))
    assert [float(fast(x)) for x in (5.0, 1e6, 50.0)] == [0.125, 2e6, 2.0**-6]


def test_source_raises_where_a_loop_does_not_end():
    p = lg.Program()
    a = p.parameter("a", value=2.0)
    p.define("w", lg.while_loop(lambda z: z < 100, lambda z: z * a, 1.0, 9))
    module = {}
    exec(p.source(), module)
    assert module["solve"]()["w"] == 128.0
    with pytest.raises(ArithmeticError, match="still holds"):
        module["solve"](a=1.01)
    traced = lg.trace(
        lambda a: lg.while_loop(lambda z: z > 0.1, lambda z: z * a, 1.0, 9, checkpoints=2), 0.5
    )
    exec(traced.source(), module)
    assert module["solve"]()["output"] == 0.0625


@pytest.mark.parametrize("how", [{}, {"checkpoints": 3}])
def test_progress_is_shown_both_ways_and_changes_nothing(capsys, how):
    pytest.importorskip("tqdm")
    f = lambda a, **more: lg.iterate(lambda z: np.sin(a * z) + z, 0.3, 40, **how, **more)
    found = lg.grad(lambda a: f(a, progress=True))(0.7)
    assert found == lg.grad(f)(0.7)
    assert "/40" in capsys.readouterr().err


def test_a_root_found_from_a_start_that_differs_from_step_to_step():
    square = lambda start: lg.root(lambda w: w * w - 4.0, start)
    found = lg.scan(lambda z, y: (z, square(y)), 0.0, np.array([1.0, -1.0, 1.0]))[1]
    np.testing.assert_allclose(found, [2.0, -2.0, 2.0])
    fast = lg.compile(square)
    assert [float(fast(y)) for y in (1.0, -1.0, 3.0)] == pytest.approx([2.0, -2.0, 2.0])


def test_a_step_with_an_equation_in_it_and_a_result_that_the_derivative_needs(road):
    f = lambda a: lg.iterate(lambda z: 2 * lg.root(lambda w: w * w - z - a, 1.0), 1.0, 4, **road)
    g = lambda a: lg.iterate(lambda z: np.exp(np.sqrt(z + a)), 1.0, 4, **road)
    h = lambda a: lg.iterate(
        lambda z: np.exp(lg.root(lambda w: w * w - z - a, 1.0)), 1.0, 4, **road
    )
    z, expected = 1.0, 0.0
    for _ in range(4):
        z, expected = 2 * np.sqrt(z + 1.0), (expected + 1.0) / np.sqrt(z + 1.0)
    assert float(lg.grad(f)(1.0)) == pytest.approx(expected, rel=1e-10)
    assert float(lg.grad(h)(1.0)) == pytest.approx(float(lg.grad(g)(1.0)), rel=1e-10)


def declared(p, a, W, z):
    """Loops over what a program declares, in an equation and in definitions."""
    y = p.define("y", lg.iterate(lambda s: np.tanh(W @ s + a), z, 5))
    p.subject_to(z == 1 + 0.1 * y, name="cycle")
    rows = np.arange(1.0, 4) * y[0]
    last, outputs = lg.scan(lambda s, x: (s * a + x, s * x), np.zeros(()), rows)
    w = lg.while_loop(lambda s: s < 10.0, lambda s: s * (1 + a), 1.0 + last, 40)
    p.define("J", np.sum(y) + last + np.sum(outputs) + w)


def test_loops_in_declared_programs():
    p = lg.Program("declared")
    a, W = p.parameter("a", value=0.5), p.parameter("W", value=0.3 * np.eye(2))
    declared(p, a, W, p.unknown("z", shape=2, start=1.0))

    def written(a, W):
        z = np.ones(2)
        for _ in range(40):  # contracts by less than 0.1
            y = z
            for _ in range(5):
                y = np.tanh(W @ y + a)
            z = 1 + 0.1 * y
        last = total = 0.0
        for k in (1.0, 2.0, 3.0):
            total = total + last * k * y[0]
            last = last * a + k * y[0]
        w = 1.0 + last
        while w < 10:
            w = w * (1 + a)
        return np.sum(y) + last + total + w

    at = p.solve()
    value, slopes = lg.value_and_grad(written, (0, 1))(0.5, 0.3 * np.eye(2))
    assert at["J"] == pytest.approx(value, rel=1e-12)
    found = at.gradient("J")
    for name, expected in zip(("a", "W"), slopes, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
    moved = at.hessian_vector("J", a=1.0)
    expected = lg.grad(lambda a: lg.grad(written, 0)(a, 0.3 * np.eye(2)))(0.5)
    np.testing.assert_allclose(moved["a"], expected, rtol=1e-7)
    for program, name in ((p, "J"), (p.adjoint("J"), "λ_a")):
        module = {}
        exec(program.source(), module)
        np.testing.assert_allclose(module["solve"]()[name], program.solve()[name], rtol=1e-8)


def test_states_with_nothing_in_them(road):
    f = lambda a: lg.iterate(lambda z: (z[0] * a, z[1]), (1.0, np.zeros(0)), 3, **road)
    assert float(lg.grad(lambda a: f(a)[0])(2.0)) == 12.0
    nothing = lambda x: np.sum(lg.iterate(lambda z: z * x, x * x, 0, **road) ** 2)
    np.testing.assert_allclose(lg.hessian(nothing)(np.array([1.0, 2.0])), np.diag([12.0, 48.0]))


def test_the_likelihood_of_a_linear_gaussian_model():
    """By the Kalman filter as a loop, beside the density of all observations at once."""
    rng = np.random.default_rng(2)
    n, A, C = 6, np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[1.0, 0.5]])
    Q, R, ys = np.array([[0.3, 0.1], [0.1, 0.4]]), np.array([[0.5]]), rng.standard_normal((n, 1))

    def likelihood(A, C, Q, R):
        def step(state, y):
            m, P = A @ state[0], A @ state[1] @ A.T + Q
            S = C @ P @ C.T + R
            e = y - C @ m
            K = P @ C.T @ np.linalg.inv(S)
            value = -0.5 * (e @ np.linalg.solve(S, e) + np.log(np.linalg.det(2 * np.pi * S)))
            return (m + K @ e, P - K @ C @ P), value

        return np.sum(lg.scan(step, (np.zeros(2), np.eye(2)), ys)[1])

    def density(A, C, Q, R):
        """The covariance of y₁, …, yₙ written out."""
        states = [np.eye(2)]
        for _ in range(n):
            states.append(A @ states[-1] @ A.T + Q)
        rows = []
        for i in range(1, n + 1):
            row = []
            for j in range(1, n + 1):
                low, high = min(i, j), max(i, j)
                move = np.linalg.matrix_power(A, high - low) @ states[low]
                block = C @ (move if i >= j else move.T) @ C.T
                row.append(block[0, 0] + (R[0, 0] if i == j else 0.0))
            rows.append(row)
        S, y = np.array(rows), ys.ravel()
        return -0.5 * (y @ np.linalg.solve(S, y) + np.linalg.slogdet(2 * np.pi * S)[1])

    matrices = A, C, Q, R
    assert likelihood(*matrices) == pytest.approx(density(*matrices), rel=1e-12)
    found = lg.grad(likelihood, (0, 1, 2, 3))(*matrices)
    for k, (gradient, matrix) in enumerate(zip(found, matrices, strict=True)):
        for place in np.ndindex(matrix.shape):
            h = np.zeros_like(matrix)
            h[place] += 1e-6
            slope = gradient[place]
            if k >= 2:  # a covariance stays symmetric
                h[place[::-1]] += 1e-6
                slope = slope + gradient[place[::-1]]
            ends = [density(*matrices[:k], matrix + s * h, *matrices[k + 1 :]) for s in (1, -1)]
            assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-7)


def test_runge_kutta_steps_of_an_oscillator_in_closed_form(road):
    def end(k, n=120, T=2.0):
        h = T / n
        f = lambda z: np.stack([z[1], -k * z[0]])

        def step(z):
            a = f(z)
            b = f(z + h / 2 * a)
            c = f(z + h / 2 * b)
            return z + h / 6 * (a + 2 * b + 2 * c + f(z + h * c))

        return lg.iterate(step, np.array([1.0, 0.0]), n, **road)[0]

    w = np.sqrt(1.7)
    assert end(1.7) == pytest.approx(np.cos(2 * w), abs=1e-7)
    assert float(lg.grad(end)(1.7)) == pytest.approx(-np.sin(2 * w) / w, abs=1e-7)
    second = (-2 * np.cos(2 * w) * w + np.sin(2 * w)) / (2 * w**3)
    assert float(lg.grad(lg.grad(end))(1.7)) == pytest.approx(second, abs=1e-6)


def test_keys_of_a_state_may_come_back_in_another_order():
    doubled = lambda s: {"b": s["b"] + s["a"], "a": 2 * s["a"]}
    start = {"a": 1.0, "b": 0.0}
    until = lambda a: lg.while_loop(lambda s: s["a"] < 5 * a, doubled, {"a": a, "b": 0.0}, 9)
    assert until(1.0) == {"a": 8.0, "b": 7.0}
    assert lg.grad(lambda a: until(a)["b"])(1.0) == 7.0
    assert lg.iterate(doubled, start, 3) == {"a": 8.0, "b": 7.0}
    final, seen = lg.scan(lambda s, x: (doubled(s), s["a"] * x), start, np.arange(3.0))
    assert final == {"a": 8.0, "b": 7.0}
    np.testing.assert_array_equal(seen, [0.0, 2.0, 8.0])
    with pytest.raises(lg.ShapeMismatch, match="keys"):
        lg.iterate(lambda s: {"a": s["a"]}, start, 3)
