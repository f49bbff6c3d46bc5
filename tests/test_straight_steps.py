"""Loops over small steps as straight machine code, beside the same loops in Python."""

import numpy as np
import pytest

import lagrad as lg
from lagrad.compiler import repetition
from lagrad.compiler.scalar_opcodes import compiled
from lagrad.loops import run_forwards

pytestmark = pytest.mark.skipif(compiled() is None, reason="needs llvmlite")
# Around the lanes of the processor's vectors, and of those that are written.
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 33]
STEPS = 5


@pytest.fixture
def runs(monkeypatch):
    """How often straight code has run, from the first call on."""
    counts = {"straight": 0, "outside": 0}
    make = repetition.straight

    def watched(*step):
        run = make(*step)

        def counted(*arrays):
            within = run(*arrays)
            counts["straight" if within else "outside"] += 1
            return within

        return None if run is None else counted

    monkeypatch.setattr(run_forwards, "pays", lambda work: True)
    monkeypatch.setattr(repetition, "COMPILED_FROM", 0)
    monkeypatch.setattr(repetition, "straight", watched)
    return counts


def in_python(step, state, xs, backwards=False):
    rows = [None] * len(xs)
    for t in reversed(range(len(xs))) if backwards else range(len(xs)):
        state, rows[t] = step(state, xs[t])
    return state, np.stack(rows)


def elementwise(z, x):
    new = np.tanh(z) * np.cos(x) + np.exp(-z * z) / (1 + np.abs(x)) - np.log1p(z * z)
    return new, np.sqrt(np.abs(new)) + np.arctan(z) ** 3


def moves(z, x):
    turned = np.concatenate([z[1:], z[:1]]) if z.size > 1 else z
    return 0.5 * turned[::-1] + 0.1 * x, np.maximum(z, x) - np.minimum(turned, 0.2)


def sums(z, x):
    total = np.sum(z * x) / z.size
    return 0.9 * z + 0.1 * total, np.sin(total) * np.ones_like(z) + z.mean()


def products(z, x):
    n = z.size
    table = np.outer(z, x) / n
    return np.tanh(table @ z + table.T @ x + 0.1), np.sum(table, axis=0) + table[0] * table[:, -1]


def powers(z, x):
    base = 1 + z * z
    new = base**0.37 + base**-3 + base**1.5 - np.hypot(z, x)
    return np.arctan2(new, base), np.power(base, np.abs(x)) + np.expm1(0.1 * z)


STEP = {f.__name__: f for f in (elementwise, moves, sums, products, powers)}


@pytest.mark.parametrize("name", STEP)
@pytest.mark.parametrize(
    ("n", "dtype", "backwards"),
    [
        *((n, float, False) for n in SIZES),
        (9, float, True),
        *((n, np.float32, False) for n in (1, 9, 17)),
    ],
)
def test_values_and_derivatives(runs, name, n, dtype, backwards):
    rng = np.random.default_rng(n)
    given = [rng.uniform(0.2, 1.0, s).astype(dtype) for s in ((n,), (STEPS, n))]
    step, tol = STEP[name], 1e-13 if dtype is float else 1e-6

    def ours(z, xs):
        return lg.scan(step, z, xs, backwards=backwards)

    def plain(z, xs):
        return in_python(step, z, xs, backwards)

    def of(run):
        return lambda *given: sum(np.sum(np.sin(part)) for part in run(*given))

    for found, right in zip(ours(*given), plain(*given), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, right, rtol=tol, atol=tol)
    slopes = lg.grad(of(ours), (0, 1))(*given)
    for slope, right in zip(slopes, lg.grad(of(plain), (0, 1))(*given), strict=True):
        assert slope.dtype == dtype
        np.testing.assert_allclose(slope, right, rtol=50 * tol, atol=50 * tol)
    along, right = (lg.jvp(of(run), given, given)[1] for run in (ours, plain))
    assert along == pytest.approx(right, rel=50 * tol, abs=50 * tol)
    assert runs["straight"] >= 2  # what is long is left to NumPy
    assert not runs["outside"]


def test_what_no_step_changes_is_computed_once_and_is_right(runs):
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((12, 12)) / 4, rng.standard_normal(12)
    f = lambda W, b: np.sum(lg.iterate(lambda z: np.tanh(np.exp(-W @ W.T) @ z + b * b), b, 40))

    def plain(W, b):
        z = b
        for _ in range(40):
            z = np.tanh(np.exp(-W @ W.T) @ z + b * b)
        return np.sum(z)

    for slope, right in zip(lg.grad(f, (0, 1))(W, b), lg.grad(plain, (0, 1))(W, b), strict=True):
        np.testing.assert_allclose(slope, right, rtol=1e-9, atol=1e-12)
    assert runs["straight"]


def test_outside_of_a_functions_range_the_other_way_is_taken(runs):
    f = lambda z: lg.iterate(lambda z: np.sin(1e12 * z) + 0.5, z, 3)
    z = np.array([0.3, 0.7])
    right = z
    for _ in range(3):
        right = np.sin(1e12 * right) + 0.5
    np.testing.assert_allclose(f(z), right, rtol=1e-12)
    assert runs["outside"]


def test_nothing_to_do(runs):
    z = np.ones(3)
    np.testing.assert_array_equal(lg.iterate(np.sin, z, 0), z)
    np.testing.assert_array_equal(lg.iterate(lambda z: z, z, 5), z)
    swapped = lg.iterate(lambda pair: (pair[1], pair[0]), (z, 2 * z), 3)
    np.testing.assert_array_equal(swapped[0], 2 * z)
    np.testing.assert_array_equal(swapped[1], z)


def test_steps_that_are_long_are_not_written_out():
    step = repetition.Scalarised(np.dtype(float))
    step.groups = [1] * 10_000
    assert repetition.straight(step, 0, 0) is None


def test_threads_and_repeated_calls_share_one_machine(runs):
    from concurrent.futures import ThreadPoolExecutor

    f = lg.compile(lg.grad(lambda z: np.sum(lg.iterate(lambda z: np.sin(z) + 0.1 * z, z, 200))))
    points = [np.linspace(0, 1 + k, 9) for k in range(16)]
    right = [f(x) for x in points]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(f, points), right, strict=True):
            np.testing.assert_array_equal(found, wanted)
