"""Loops in machine code: elementary functions beside mpmath, index spaces beside NumPy."""

from __future__ import annotations

import gc
import itertools
import threading

import minimax
import mpmath as mp
import numpy as np
import pytest
from scipy import special

import lagrad as lg
from lagrad.compiler import fusion
from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Variable
from lagrad.expressions.graph import Graph

pytestmark = pytest.mark.skipif(fusion.native() is None, reason="extra fast")
mp.mp.dps = 40
INF = np.inf
TINY = 5e-324


@pytest.fixture(autouse=True)
def few_operations_too(monkeypatch):
    """Machine code for what NumPy does as fast."""
    monkeypatch.setattr(fusion, "WORTH", 0)


def hot(f, *arrays):
    """A function of arrays as a plan in machine code."""
    graph = Graph("native")
    leaves = [
        Variable(graph, f"x{k}", "parameter", a.shape, a.dtype, None) for k, a in enumerate(arrays)
    ]
    found = f(*leaves)
    plan = Plan(leaves, [graph.lift(o) for o in (found if isinstance(found, tuple) else (found,))])
    plan.hasten()
    return plan


def kernels(plan):
    return [step.function for step in plan.fast if type(step.function).__name__ == "Kernel"]


def native(f, *arrays):
    plan = hot(f, *arrays)
    (kernel,) = kernels(plan)
    kernel.reference = None  # it is not asked
    return plan(list(arrays))[0]


def cube_root(x):
    return mp.sign(x) * mp.cbrt(abs(x))


def log1p(x):
    return mp.log1p(x) if x > -1 else -mp.inf


# The function, mpmath's, and ranges; of the logarithm of numbers where they begin with "log".
FUNCTIONS = {
    "exp": (np.exp, mp.exp, [(-746, 710), (-1, 1), (-1e-9, 1e-9)]),
    "exp2": (np.exp2, lambda x: mp.mpf(2) ** x, [(-1075, 1025), (-1, 1)]),
    "expm1": (np.expm1, mp.expm1, [(-40, 710), (-1, 1), (-1e-9, 1e-9), (0.3, 2)]),
    "log": (np.log, mp.log, [("log", TINY, 1e308), (0.5, 2), (0.99, 1.01)]),
    "log2": (np.log2, lambda x: mp.log(x) / mp.log(2), [("log", TINY, 1e308), (0.5, 2)]),
    "log10": (np.log10, mp.log10, [("log", TINY, 1e308), (0.5, 2), (0.99, 1.01)]),
    "log1p": (np.log1p, log1p, [(-1, 1), (-1e-9, 1e-9), ("log", 1e-300, 1e300), (0, 5)]),
    "sin": (np.sin, mp.sin, [(-10, 10), (-9e8, 9e8), (-1e-8, 1e-8), (3.1415, 3.1416)]),
    "cos": (np.cos, mp.cos, [(-10, 10), (-9e8, 9e8), (1.5707, 1.5708)]),
    "tan": (np.tan, mp.tan, [(-10, 10), (-9e8, 9e8), (1.57, 1.5708), (0.7, 0.9)]),
    "sinh": (np.sinh, mp.sinh, [(-711, 711), (-2, 2), (0.9, 1.1)]),
    "cosh": (np.cosh, mp.cosh, [(-711, 711), (-2, 2)]),
    "tanh": (np.tanh, mp.tanh, [(-20, 20), (-1, 1), (0.5, 0.6), (-1e-5, 1e-5)]),
    "arcsin": (np.arcsin, mp.asin, [(-1, 1), (0.49, 0.51), (-1e-8, 1e-8), (0.999, 1)]),
    "arccos": (np.arccos, mp.acos, [(-1, 1), (0.49, 0.51), (-0.1, 0.1), (-1, -0.99)]),
    "arctan": (np.arctan, mp.atan, [(-1, 1), (-3, 3), (0.41, 0.42), ("log", 1e-300, 1e300)]),
    "arcsinh": (np.arcsinh, mp.asinh, [(-1, 1), (-20, 20), ("log", 1e-300, 1e300)]),
    "arccosh": (np.arccosh, mp.acosh, [(1, 1.01), (1, 20), ("log", 1, 1e300)]),
    "arctanh": (np.arctanh, mp.atanh, [(-0.999, 0.999), (-1e-5, 1e-5), (0.99, 0.9999)]),
    "cbrt": (np.cbrt, cube_root, [(-10, 10), ("log", TINY, 1e308), (0.99, 1.01)]),
    "expit": (special.expit, lambda x: 1 / (1 + mp.exp(-x)), [(-740, 740), (-4, 4)]),
    "logit": (special.logit, lambda p: mp.log(p / (1 - p)), [(0.01, 0.99), ("log", 1e-300, 1)]),
    "erf": (special.erf, mp.erf, [(-1, 1), (-6, 6), (0.9, 1.1), (-1e-9, 1e-9)]),
    "erfc": (special.erfc, mp.erfc, [(-6, 6), (0, 26), (0.4, 0.6), (25, 26.5)]),
    "gammaln": (special.gammaln, mp.loggamma, [(0.001, 1), (1, 3), (2, 9), ("log", 1e-300, 1e300)]),
    "digamma": (special.digamma, mp.digamma, [(0.001, 1), (1, 3), (1.46, 1.463), (2, 9)]),
}
# What has two arguments, with a range for each.
PAIRS = {
    "power": (
        np.power,
        mp.power,
        [((0.01, 10), (-20, 20)), ((0.9, 1.1), (-500, 500)), ((1, 2), (500, 1000))],
    ),
    "arctan2": (np.arctan2, mp.atan2, [((-1, 1), (-1, 1)), ((-1e150, 1e150), (-1, 1))]),
    "hypot": (
        np.hypot,
        mp.hypot,
        [((-1, 1), (-1, 1)), ((-1e-300, 1e-300),) * 2, ((-8e307, 8e307),) * 2],
    ),
    "logaddexp": (
        np.logaddexp,
        lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
        [((0, 5), (0, 5)), ((20, 700), (20, 700))],
    ),
}
SPECIAL = [0.0, -0.0, INF, -INF, np.nan, 1e-310, -1e-310, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -3.0]
SPECIAL += [1e300, -1e300, 1e-300, TINY, -TINY, 1e-45, 1e38, 710.0, -746.0, 89.0, -104.0, 0.25]


def drawn(rng, bounds, count, dtype):
    low, high = bounds[-2:]
    if dtype == np.float32:
        low, high = max(low, -4e36), min(high, 4e36)
    if bounds[0] == "log":
        low = max(low, 1e-44) if dtype == np.float32 else low
        return np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(dtype)
    return rng.uniform(low, high, count).astype(dtype)


def places_off(found, exact):
    """The error in units of the last place."""
    kind = found.dtype.type
    worst = 0.0
    for value, x in zip(found.tolist(), exact, strict=True):
        with np.errstate(all="ignore"):
            nearest = float(kind(float(x)))
        if not np.isfinite(nearest) or not np.isfinite(value):
            assert value == nearest or (np.isnan(value) and np.isnan(nearest))
            continue
        worst = max(
            worst, float(abs(mp.mpf(value) - x) / mp.mpf(float(np.spacing(kind(abs(nearest))))))
        )
    return worst


def checked(name, table, count, dtype):
    function, oracle, ranges = table[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    for bounds in ranges:
        each = bounds if isinstance(bounds[0], tuple) else (bounds,)
        arguments = [drawn(rng, b, count, dtype) for b in each]
        if dtype == np.float32 and name in ("sin", "cos", "tan"):
            arguments = [np.clip(a, -3e4, 3e4) for a in arguments]
        exact = [oracle(*(mp.mpf(float(v)) for v in row)) for row in zip(*arguments, strict=True)]
        assert places_off(native(function, *arguments), exact) <= 2.1, (name, bounds)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_within_two_units_of_the_last_place(name, dtype):
    checked(name, FUNCTIONS, 200, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", PAIRS)
def test_a_function_of_two_numbers_is_within_two_units(name, dtype):
    checked(name, PAIRS, 200, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*FUNCTIONS, *PAIRS])
def test_many_numbers_are_within_two_units(name, dtype):
    checked(name, FUNCTIONS if name in FUNCTIONS else PAIRS, 20_000, dtype)


# SciPy's gammaln is infinite at subnormal numbers, where log Γ is not.
SUBNORMAL = {"gammaln": 1e-300}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*FUNCTIONS, *PAIRS])
def test_special_values_are_numpys(name, dtype):
    function = (FUNCTIONS if name in FUNCTIONS else PAIRS)[name][0]
    with np.errstate(all="ignore"):
        x = np.array(SPECIAL).astype(dtype)
        if name in SUBNORMAL:
            x = x[(np.abs(x) >= SUBNORMAL[name]) | (x == 0)]
        given = [x] if name in FUNCTIONS else [a.ravel() for a in np.meshgrid(x, x)]
        expected = function(*given)
        found = hot(function, *given)(given)[0]
    with np.errstate(all="ignore"):
        close = np.abs(found - expected) <= 4 * np.spacing(np.abs(expected))
    same = (found == expected) & (np.signbit(found) == np.signbit(expected))
    alike = same | close | (np.isnan(found) & np.isnan(expected))
    wrong = np.flatnonzero(~alike)
    assert not wrong.size, [(*(a[k] for a in given), found[k], expected[k]) for k in wrong]


@pytest.mark.parametrize("x", [1e10, -3e15, 1e22, 1.7e308, 1e9 + 0.5])
def test_large_angles_are_numpys(x):
    array = np.array([0.5, x, 1.0])
    for f in (np.sin, np.cos, np.tan):
        assert np.array_equal(hot(f, array)([array])[0], f(array))


def test_constants_that_are_spread_are_there_for_numpy_too(monkeypatch):
    array = np.array([0.5, 1e10, 1.0])
    f = lambda v: np.sin(v) * np.broadcast_to(np.full(1, 2.5), (3,)) - np.broadcast_to(3.0, (3,))
    assert np.array_equal(hot(f, array)([array])[0], f(array))
    monkeypatch.setattr(fusion, "WORTH", 100)  # NumPy's calls in the place of a loop
    small = lambda v: -np.broadcast_to(np.full(1, 2.5), (3,)) * v
    assert np.array_equal(hot(small, array)([array])[0], small(array))


def test_what_a_function_is_not_written_for_is_numpys():
    x = np.array([-0.5, 2.0, -3.7])
    for f in (special.gammaln, special.digamma):
        np.testing.assert_array_equal(hot(f, x)([x])[0], f(x))


POWERS = [-8.0, -3.0, -2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 6.0, 8.0, 9.0, 0.3, -7.3]


@pytest.mark.parametrize("exponent", POWERS)
def test_constant_powers(exponent):
    x = np.array([0.0, -0.0, 1e-3, 0.7, 1.0, 2.5, 1e10, INF, -INF, -1.5, np.nan])
    with np.errstate(all="ignore"):
        expected = np.power(x, np.full(x.size, exponent))
    found = hot(lambda v: v**exponent * 1.0, x)([x])[0]
    np.testing.assert_allclose(found, expected, rtol=2e-15)
    assert np.array_equal(np.signbit(found[:2]), np.signbit(expected[:2]))


SPACES = {
    "row over matrix": ((7, 30), (30,), (7, 1), ()),
    "short rows": ((50, 3), (3,), (50, 1), (1, 1)),
    "three": ((4, 5, 6), (5, 1), (4, 1, 6), (1, 6)),
    "four": ((2, 3, 4, 5), (3, 1, 5), (2, 1, 1, 1), (4, 1)),
    "ones": ((1, 9, 1), (9, 1), (1, 1, 1), ()),
    "one": ((1,), (1,), (), ()),
    "number": ((), (), (), ()),
    "long": ((40_001,), (1,), (), (40_001,)),
    "tall": ((9001, 2), (2,), (9001, 1), ()),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", SPACES)
def test_index_spaces_and_reductions(case, dtype):
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in SPACES[case]]
    a = arrays[0]
    axes = [None, *range(a.ndim), *([(0, 1)] if a.ndim > 2 else []), tuple(range(a.ndim))[1:]]

    def f(a, b, c, d):
        whole = np.tanh(a * b + c) - d * a
        found = [whole, np.where(a > b, whole, d), np.maximum(whole, c)]
        for axis in axes:
            if axis != ():
                found += [np.sum(whole, axis=axis), np.max(whole, axis=axis)]
                found += [np.min(whole * a, axis=axis), np.sum(a * whole, axis=axis)]
        return tuple(found)

    close = 1e-12 if dtype == np.float64 else 2e-4
    plan = hot(f, *arrays)
    for found, expected in zip(plan(arrays), f(*arrays), strict=True):
        assert np.shape(found) == np.shape(expected)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=close, atol=close)


def test_what_is_spread_reshaped_and_spread_again():
    x, row = np.linspace(1, 2, 15).reshape(5, 3), np.array([0.5, -1.0, 2.0])

    def f(x, row):
        once = np.broadcast_to(np.sum(row * row), (5,)) + 0.0 * x[:, 0]
        number = np.reshape(np.broadcast_to(np.sum(np.exp(row)), (5,)), (5, 1))
        again = np.reshape(np.broadcast_to(np.exp(row), (5, 3)), (3, 5)).T
        return x * number + again * x, np.sum(np.broadcast_to(np.reshape(once, (5, 1)), (5, 3)) * x)

    for found, expected in zip(hot(f, x, row)([x, row]), f(x, row), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


SPREAD = [
    (own, axes)
    for own in itertools.product((1, 2), (1, 3), (1, 4))
    for count in (1, 2, 3)
    for axes in itertools.combinations(range(3), count)
]


@pytest.mark.parametrize(("own", "axes"), SPREAD)
def test_what_is_added_up_may_have_been_spread_along_some_dimensions(own, axes):
    # Of an index space of three, any; of the other array too, which keeps others apart.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(own), rng.standard_normal(own[1:])

    def f(x, y):
        spread = np.broadcast_to(x, (2, 3, 4))
        several = np.sum(spread, axes), np.sum(spread * y, axes), np.max(np.cosh(spread), axes)
        return tuple(np.sin(total) * 2 for total in several)

    for found, exact in zip(hot(f, x, y)([x, y]), f(x, y), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-13)


def layouts(x):
    """The same numbers in memory otherwise."""
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    raw = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    yield from (read_only, np.asfortranarray(x), wide[..., ::2], x[::-1][::-1], raw)
    yield x.astype(x.dtype.newbyteorder())


def test_arrays_of_any_layout():
    x = np.random.default_rng(0).standard_normal((13, 17))
    f = lambda a: (np.exp(a) * a, np.sum(a * a, axis=1))
    plan, expected = hot(f, x), f(x)
    for array in layouts(x):
        for found, wanted in zip(plan([array]), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_truths_and_whole_numbers_among_floats():
    x = np.linspace(-2, 2, 37)
    truths, counts = x > 0.3, np.arange(37) - 9

    def f(a, t, n):
        both = np.logical_and(t, np.less(a, 1.0))
        return np.where(both, a * n, -a), both, np.logical_not(t) * a, np.sum(t * a)

    for found, expected in zip(
        hot(f, x, truths, counts)([x, truths, counts]), f(x, truths, counts), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_sizes_of_zero_are_left_to_numpy():
    x = np.empty((0, 3))
    found = hot(lambda a: (np.exp(a), np.sum(a * 2, axis=0), np.sum(a)), x)([x])
    assert [np.shape(a) for a in found] == [(0, 3), (3,), ()]


@pytest.mark.parametrize("shape", [(600_001,), (3, 250_000), (250_000, 3)])
def test_sums_of_many_lose_no_more_digits_than_numpys(shape):
    x = np.full(shape, 0.1)
    plan = hot(lambda v: (np.sum(np.sqrt(v) * v), np.sum(np.sqrt(v) * v, axis=-1)), x)
    whole, rows = plan([x])
    term = np.sqrt(np.longdouble(0.1)) * np.longdouble(0.1)
    assert abs(whole / (term * x.size) - 1) < 3e-13
    assert np.max(np.abs(rows / (term * shape[-1]) - 1)) < 3e-13


@pytest.mark.parametrize("kind", [">f8", ">f4", ">i4", "<f8"])
def test_bytes_in_the_other_order_are_left_to_numpy(kind):
    f = lambda x, w: np.sum(np.tanh(x) * w + np.sin(x * w) + w * w)
    for given, w in (
        (np.arange(1.0, 5.0), np.arange(1.0, 5.0).astype(kind)),
        (np.arange(1.0, 5.0).astype(kind.replace("i", "f")), np.arange(1.0, 5.0)),
    ):
        compiled = lg.compile(lg.value_and_grad(lambda x, w=w: f(x, w)))
        for k in range(5):
            x = given + k if given.dtype.isnative else (given + k).astype(given.dtype)
            value, slope = compiled(x)
            plain = x.astype(float)
            assert value == pytest.approx(f(plain, w.astype(float)), rel=1e-5)
            exact = w * (1 - np.tanh(plain) ** 2) + w * np.cos(plain * w)
            np.testing.assert_allclose(slope, exact, rtol=2e-4, atol=2e-5)


def test_the_normal_distribution_at_its_ends():
    x = np.array([-INF, INF, np.nan, -38.0, 9.0, 0.0])
    np.testing.assert_allclose(native(special.ndtr, x), special.ndtr(x), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("exponent", [-8.0, -7.5, -2.0])
def test_powers_that_are_nearly_nothing(exponent):
    x = np.array([77625.5, 2e19, 1e4, INF, -3e10]).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(float), exponent).astype(np.float32)
    np.testing.assert_allclose(
        hot(lambda v: v**exponent * 1.0, x)([x])[0], expected, rtol=1e-5, atol=3e-45
    )


def test_what_is_run_can_be_looked_at():
    x = np.linspace(0, 1, 11)
    plan = hot(lambda a: np.sum(np.exp(a) * np.sin(a)), x)
    assert "(11,): exp sin" in str(plan)
    assert "@llvm.masked.load" in plan.source("llvm")
    assert "define void @loop0" in plan.source("llvm")


def test_one_form_is_compiled_once():
    x, y = np.linspace(0, 1, 11), np.linspace(0, 1, 500)
    one, other = (kernels(hot(lambda a: np.exp(a) * np.sin(a) + a, v))[0] for v in (x, y))
    assert one.machine is other.machine


def test_a_thousand_kernels_leave_nothing_behind():
    from lagrad.compiler.native.machine import KEPT

    gc.collect()
    before = len(KEPT)
    for k in range(30):
        x = np.ones(5)
        native(lambda a, k=k: np.exp(a) * (k + 0.5) + a, x)
    gc.collect()
    assert len(KEPT) <= before + 1


def test_threads_share_a_kernel():
    x = np.random.default_rng(1).standard_normal(5000)
    f = lg.compile(lg.value_and_grad(lambda v: np.sum(np.sin(v) * np.exp(-v * v))))
    expected = f(x)
    wrong = []

    def run():
        for _ in range(200):
            value, slope = f(x)
            if abs(value - expected[0]) > 1e-12 or np.abs(slope - expected[1]).max() > 1e-12:
                wrong.append(value)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_coefficients_are_those_of_their_script():
    assert minimax.PLACE.read_text(encoding="utf-8") == minimax.text()
