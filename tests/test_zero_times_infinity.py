"""0·∞ in product rules within equations: q·|q|^0.852 and its like, whose derivative is a number."""

import numpy as np
import pytest
from oracles import needs_wider
from scipy import optimize

import lagrad as lg


def loss(q):
    """Of pressure along a pipe (Hazen and Williams), without its constant."""
    return q * np.abs(q) ** 0.852


@pytest.mark.parametrize("start", [1.0, 0.0, -2.0])
def test_flows_of_zero(start):
    assert float(lg.root(lambda q: loss(q) + q, start)) == pytest.approx(0.0, abs=1e-12)
    gradient = lg.grad(lambda a: lg.root(lambda q: loss(q) + q - a, start))
    assert float(gradient(0.0)) == pytest.approx(1.0)
    assert float(gradient(2.0)) == pytest.approx(1 / 2.852)  # q = 1


def test_zero_that_is_a_difference_of_parameters_and_unknowns():
    # At q = a the pipe's part has no slope: dq/da is 2, and 1.
    assert float(
        lg.grad(lambda a: lg.root(lambda q: loss(q - a) + q - 2 * a, 1.0))(0.0)
    ) == pytest.approx(2)
    assert float(
        lg.grad(lambda a: lg.root(lambda q: loss(q - a) + q - a, 3.0))(1.5)
    ) == pytest.approx(1)


ROOTS = {  # dx/da at a = 0, where x is zero
    "a root of the absolute value": (lambda x: x * np.sqrt(np.abs(x)), 1.0),
    "a square times a logarithm": (lambda x: x**2 * np.log(np.abs(x)), 1.0),
    "a higher power": (lambda x: 3 * x * np.abs(x) ** 0.7, 1.0),
}


@pytest.mark.parametrize(("term", "slope"), ROOTS.values(), ids=ROOTS)
def test_other_products(term, slope):
    assert float(lg.grad(lambda a: lg.root(lambda x: x + term(x) - a, 1.0))(0.0)) == pytest.approx(
        slope
    )


def test_fixed_points_minima_vectors_and_declared_programs():
    assert float(
        lg.grad(lambda a: lg.fixed_point(lambda q: 0.3 * loss(q) + a, 0.0))(0.0)
    ) == pytest.approx(1)
    minimum = lambda a: lg.argmin(lambda q: np.abs(q) ** 2.852 + q * q - a * q, 0.0)
    assert float(lg.grad(minimum)(0.0)) == pytest.approx(0.5)
    first = lambda a: lg.root(lambda x: x + np.linalg.norm(x) * x - a, np.ones(2))[0]
    np.testing.assert_allclose(lg.grad(first)(np.zeros(2)), [1, 0], atol=1e-12)
    p = lg.Program()
    a = p.parameter("a", value=0.0)
    q, r = p.unknown("q"), p.unknown("r")
    p.subject_to(loss(q) + r == a)
    p.subject_to(r == q - a)
    at = p.solve()
    assert float(at.gradient("q")["a"]) == pytest.approx(2)
    assert float(at.tangent(a=1.0)["r"]) == pytest.approx(1)


def test_a_network_with_a_dead_end():
    demand, heights = np.array([0.02, 0.03, 0.0]), np.array([10.0, 30.0, 58.0])

    def delivered(h, where=np.where):
        pressure = h - heights
        partly = demand * np.sqrt(np.maximum(pressure - 3, 1e-12) / 22)
        return where(pressure <= 3, 0.0, where(pressure >= 25, demand, partly))

    p = lg.Program("demand")
    d = p.parameter("d", value=demand)
    h, q = p.unknown("h", shape=3, start=55.0), p.unknown("q", shape=3, start=0.02)
    pressure = h - heights
    got = np.where(
        pressure <= 3, 0.0, np.where(pressure >= 25, d, d * np.sqrt((pressure - 3) / 22))
    )
    p.subject_to(np.stack([60 - h[0], h[0] - h[1], h[1] - h[2]]) == 2e3 * loss(q))
    p.subject_to(np.stack([q[0] - q[1], q[1] - q[2], q[2]]) == got)
    at = p.solve()
    np.testing.assert_allclose(at["h"], [53.0932295, 50.6294982, 50.6294982], rtol=1e-7)

    def residual(z):
        h, q, got = z[:3], z[3:], delivered(z[:3])
        heads = np.array([60 - h[0], h[0] - h[1], h[1] - h[2]])
        return np.r_[
            heads - 2e3 * loss(q), q[0] - q[1] - got[0], q[1] - q[2] - got[1], q[2] - got[2]
        ]

    found = optimize.root(residual, np.r_[at["h"], at["q"]] * 1.001, tol=1e-13).x
    np.testing.assert_allclose(at["q"], found[3:], rtol=1e-6, atol=1e-9)


def test_single_precision():
    start = np.float32(1.0)
    gradient = lg.grad(lambda a: lg.root(lambda q: loss(q) + q - a, start))
    assert float(gradient(np.float32(0.0))) == pytest.approx(1.0, rel=1e-4)


# A demand that falls to nothing below a head of 10, whose square root's slope is infinite there.
STARVED = {
    "clip": lambda p: np.sqrt(np.clip(p, 0, 1)),
    "maximum": lambda p: np.sqrt(np.minimum(np.maximum(p, 0), 1)),
    "a power": lambda p: np.clip(p, 0, 1) ** 0.5,
    "where": lambda p: np.sqrt(np.where(p > 0, p, 0.0)),
}


@pytest.mark.parametrize("demand", STARVED.values(), ids=STARVED)
@pytest.mark.parametrize("start", [5.5, 25.0])
@pytest.mark.parametrize("size", [1, 3, 300])
def test_what_no_choice_takes_is_zero_in_a_jacobian_too(demand, start, size):
    p = lg.Program("tank")
    inflow, head = p.parameter("S", np.full(size, 5.0)), p.unknown("h", shape=size, start=start)
    p.subject_to(inflow - head == demand((head - 10) / 20))
    p.define("total", np.sum(head))
    at = p.solve()
    np.testing.assert_allclose(at["h"], np.full(size, 5.0), rtol=1e-12)
    np.testing.assert_allclose(at.gradient("total")["S"], np.ones(size), rtol=1e-9)
    np.testing.assert_allclose(at.tangent({"S": np.ones(size)})["h"], np.ones(size), rtol=1e-9)
    found = lg.root(lambda h: 5.0 - h - demand((h - 10) / 20), np.full(size, start))
    np.testing.assert_allclose(found, np.full(size, 5.0), rtol=1e-12)


@needs_wider
@pytest.mark.parametrize("start", [(78.0, 77.0), (78.0, 78.0)])
@pytest.mark.parametrize("drawn", [0.0, 1e-9, 1e-6])
def test_heads_of_a_dead_end(start, drawn):
    # Its flow by the heads has an infinite slope at no flow.
    flow = lambda by, r: np.sign(by) * (np.abs(by) / r) ** (1 / 1.852)

    def balance(h, r):
        through = flow(h[0] - h[1], r[1])
        return np.stack([flow(80 - h[0], r[0]) - through - 0.05, through - drawn])

    heads = lambda r: lg.root(lambda h: balance(h, r), np.array(start))
    r = np.array([1e3, 1e3])
    first = 80 - 1e3 * (0.05 + drawn) ** 1.852
    np.testing.assert_allclose(heads(r), [first, first - 1e3 * drawn**1.852], rtol=1e-9)
    slope = -((0.05 + drawn) ** 1.852)
    np.testing.assert_allclose(lg.jacobian(heads)(r)[:, 0], [slope, slope], rtol=1e-7)


@pytest.mark.parametrize("start", [0.0, 0.01])
def test_a_starved_network_with_a_dead_end(start):
    # Reservoir → node → dead end: q·|q|^0.852 at no flow, and a demand that is not served.
    p = lg.Program("starved")
    source, r = p.parameter("H", 9.0), p.parameter("r", np.array([2.0, 3.0]))
    q, h = p.unknown("q", shape=2, start=start), p.unknown("h", shape=2, start=5.0)
    ahead = np.stack([source, h[0]])
    p.subject_to(ahead - h == r * q * np.abs(q) ** 0.852)
    demand = np.sqrt(np.clip((h - 10) / 20, 0, 1))
    p.subject_to(np.stack([q[0] - q[1] - 1.0, q[1]]) == demand)
    p.define("last", h[1])
    at = p.solve()
    np.testing.assert_allclose(at["q"], [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(at["h"], [7.0, 7.0], rtol=1e-12)
    gradient = at.gradient("last")
    assert gradient["H"] == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(gradient["r"], [-1.0, 0.0], atol=1e-9)


# Powers whose derivative tends to its value at zero, and faster than a logarithm: 1e-6 is theirs.
SLOW = {
    "x·|x|^0.8": (lambda x: 1e-6 * x + x * np.abs(x) ** 0.8, 1e-6),
    "x·sqrt|x|": (lambda x: x * np.sqrt(np.abs(x)), 0.0),
    "x·cbrt|x|": (lambda x: 2 * x + x * np.cbrt(np.abs(x)), 2.0),
    "(x²)^0.75": (lambda x: (x * x) ** 0.75, 0.0),
    "sin of it": (lambda x: np.sin(x + 3 * x * np.abs(x) ** 0.3) + np.cos(x), 1.0),
}


@pytest.mark.parametrize("case", SLOW)
def test_powers_that_tend_to_a_derivative_slowly(case):
    f, right = SLOW[case]
    assert lg.grad(f)(0.0) == pytest.approx(right, rel=1e-9, abs=1e-15)
    assert lg.jvp(f, (0.0,), (1.0,))[1] == pytest.approx(right, rel=1e-9, abs=1e-15)
    compiled = lg.compile(lg.grad(lambda x: np.sum(f(x))))
    for n in (1, 1, 1, 300):
        np.testing.assert_allclose(compiled(np.zeros(n)), right, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    "f", [lambda x: np.abs(x) ** 0.9, lambda x: np.sqrt(np.abs(x)) * np.cos(x)]
)
def test_powers_that_tend_to_none(f):
    with pytest.raises(lg.NotFinite):
        lg.grad(f)(0.0)


# Kernels of distances between all points, those of each from itself among them: a loss by all
# pairs' kernels, and the same by pairs of different points alone.
KERNELS = {
    "squares": lambda r: r**2,
    "exponential": lambda r: np.exp(-r),
    "Matérn 3/2": lambda r: (1 + r) * np.exp(-r),
    "the distances": lambda r: r,
}
DISTANCES = {
    "norm": lambda d: np.linalg.norm(d, axis=-1),
    "square root": lambda d: np.sqrt(np.sum(d**2, -1)),
}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_distances_of_all_points(kernel, distance):
    points = np.random.default_rng(0).standard_normal((6, 2))
    of, far = KERNELS[kernel], DISTANCES[distance]
    one, other = np.triu_indices(6, 1)

    def loss(x, scales):
        return np.sum(of(far((x[:, None] - x[None]) / scales)))

    def apart(x, scales):
        return 2 * np.sum(of(far((x[one] - x[other]) / scales)))

    given = points, np.array([0.7, 1.3])
    right = lg.grad(apart, (0, 1))(*given)
    compiled = lg.compile(lg.grad(loss, (0, 1)))
    for _ in range(3):
        compiled(*given)
    for slopes in (lg.grad(loss, (0, 1))(*given), compiled(*given)):
        for found, wanted in zip(slopes, right, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    ways = points + 1, np.array([0.2, -0.5])
    along = lg.jvp(loss, given, ways)[1]
    assert along == pytest.approx(lg.jvp(apart, given, ways)[1], rel=1e-9)


@pytest.mark.parametrize("k", [1.0, 1e3, 1e4, 1e5, 1e6])
def test_what_bends_within_a_short_way(k):
    """A Matérn kernel and a wave at the tip of a norm's cone: −k² and 2 on the diagonal."""
    norm, z = np.linalg.norm, np.zeros(2)
    matern = lambda x: (1 + k * norm(x)) * np.exp(-k * norm(x))
    np.testing.assert_allclose(lg.hessian(matern)(z) / k**2, -np.eye(2), atol=1e-7)
    wave = lambda x: norm(x) ** 2 * np.cos(k * x[0])
    np.testing.assert_allclose(lg.hessian(wave)(z), 2 * np.eye(2), atol=1e-7)
    steep = lambda x: np.sin(k * x) + np.sqrt(x**2)
    assert lg.grad(steep)(0.0) == pytest.approx(k, rel=1e-9)
