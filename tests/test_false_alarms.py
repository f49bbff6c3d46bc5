"""Sound problems that look like trouble: zeros, symmetry, restarts. None of them raises."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg


def everything(p, output, direction):
    """All derivatives of an output, each of which must be certified."""
    at = p.solve()
    at.gradient(output)
    at.multipliers(output)
    at.tangent(direction)
    at.hessian_vector(output, direction)
    p.adjoint(output).solve()
    return at


def test_equations_of_other_shapes_than_the_unknowns():
    p = lg.Program()
    f, u = p.parameter("f", value=np.ones(9)), p.unknown("u", shape=11)
    inner = (u[2:] - 2 * u[1:-1] + u[:-2]) * 100 + u[1:-1] ** 3 + f
    p.subject_to(inner == 0, name="ode")
    p.subject_to(u[0] == 0, name="left")
    p.subject_to(u[-1] == 0, name="right")
    p.define("c", np.sum(u**2))
    at = everything(p, "c", {"f": np.ones(9)})
    step = 1e-4
    up, down = (p.solve(f=1 + s * np.ones(9)).gradient("c")["f"] for s in (step, -step))
    second = at.hessian_vector("c", f=np.ones(9))["f"]
    np.testing.assert_allclose(second, (up - down) / (2 * step), rtol=1e-6)
    q = lg.Program()
    y, z = q.unknown("y", start=1.0), q.unknown("z", start=1.0)
    x = q.parameter("x", value=2.0)
    q.subject_to(np.stack([y * y - x, y * z - 1.0]) == np.zeros(2), name="both")
    q.define("f", y + z)
    everything(q, "f", {"x": 1.0})


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z + z**3,
        lambda z: z + 0.1 * np.sin(z),
        lambda z: z + z**2,
        lambda z: z + 0.1 * np.sinh(z),
        lambda z: z - 0.5 * np.tanh(z),
    ],
)
def test_solutions_that_are_zero(function):
    for size in ((), (5,)):
        p = lg.Program()
        x = p.parameter("x", value=np.zeros(size))
        z = p.unknown("z", shape=size, start=0.3)
        p.subject_to(function(z) == x)
        p.define("square", np.sum(z**2))
        at = everything(p, "square", {"x": np.ones(size)})
        np.testing.assert_allclose(at["z"], 0.0, atol=1e-15)
        np.testing.assert_allclose(at.gradient("square")["x"], 0.0, atol=1e-15)


def test_starts_where_an_unknown_does_not_move_at_first():
    for power in (2, 3):
        p = lg.Program()
        z, w = p.unknown("z"), p.unknown("w")
        p.subject_to(z + 0.1 * w == 1.0)
        p.subject_to(w == z**power, name="power")
        at = p.solve()
        np.testing.assert_allclose(at["z"] + 0.1 * at["z"] ** power, 1.0, rtol=1e-14)


def test_restarts_at_the_solution():
    rng = np.random.default_rng(0)
    for _ in range(30):
        p = lg.Program()
        c = p.parameter("c", value=[0.0, rng.standard_normal()])
        z = p.unknown("z", start=np.ones(2))
        p.subject_to(z + 0.3 * np.sinh(z) == c)
        p.define("J", np.sum(z**2))
        at = p.solve()
        for _ in range(3):
            at = p.solve(start=at)
        np.testing.assert_allclose(at["z"] + 0.3 * np.sinh(at["z"]), at["c"], atol=1e-14)
        adjoint = p.adjoint("J")
        adjoint.solve(start=adjoint.solve())


@pytest.mark.parametrize("n", [9, 31])
def test_antisymmetric_sources(n):
    h = 1.0 / (n + 1)
    grid = h * np.arange(1, n + 1)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    p = lg.Program("reaction")
    source = p.parameter("source", value=np.sin(2 * np.pi * x) * np.sin(np.pi * y))
    rate = p.parameter("rate", value=0.5)
    u = p.unknown("u", shape=(n, n))
    q = np.pad(u, 1)
    around = q[2:, 1:-1] + q[:-2, 1:-1] + q[1:-1, 2:] + q[1:-1, :-2]
    p.subject_to((around - 4 * u) / h**2 + source == rate * np.sinh(u))
    p.define("total", h * h * np.sum(u))
    p.define("middle", u[n // 2, n // 2])
    p.define("energy", h * h * np.sum(u**2))
    for output in ("total", "middle", "energy"):
        everything(p, output, {"rate": 1.0})
    at = p.solve()
    # Odd about the middle, as its source is.
    np.testing.assert_allclose(at["u"], -at["u"][::-1], atol=1e-14)
    assert abs(float(at.gradient("total")["rate"])) < 1e-12
    assert float(at["energy"]) > 0


def test_a_balanced_bridge():
    p = lg.Program("bridge")
    R = [p.parameter(f"R{i}", value=v) for i, v in enumerate((100.0, 220.0, 100.0, 220.0, 47.0))]
    V = p.parameter("V", value=5.0)
    a, b = p.unknown("a", start=1.0), p.unknown("b", start=2.0)
    p.subject_to((V - a) / R[0] - a / R[1] - (a - b) / R[4] == 0)
    p.subject_to((V - b) / R[2] - b / R[3] + (a - b) / R[4] == 0)
    across = p.define("across", (a - b) / R[4])
    p.define("power", R[4] * across**2)
    for output in ("across", "power"):
        everything(p, output, {"V": 1.0})
    np.testing.assert_allclose(p.solve().gradient("power")["R0"], 0.0, atol=1e-18)


def test_a_sum_that_cancels():
    p = lg.Program()
    c = p.parameter("c", value=[1.0, -1.0])
    s, z = p.unknown("s"), p.unknown("z", start=[0.5, -0.7])
    p.subject_to(z - s + 0.1 * np.sinh(z - s) == c)
    p.subject_to(s == 0.3 * np.sum(z))
    p.define("S", np.sum(z) ** 2)
    everything(p, "S", {"c": np.ones(2)})
    at = p.solve()
    # z = ±x with x + sinh(x)/10 = 1, whose sum is zero.
    np.testing.assert_allclose(at["z"] + 0.1 * np.sinh(at["z"]), [1.0, -1.0], atol=1e-14)
    assert abs(float(at["s"])) < 1e-14
    np.testing.assert_allclose(at.gradient("S")["c"], 0.0, atol=1e-12)


def test_single_precision_with_zeros_among_the_inputs():
    n = 50
    p = lg.Program()
    x = p.parameter("x", value=np.r_[np.linspace(-1, 1, 25), np.zeros(25)].astype(np.float32))
    W = p.parameter("W", value=(0.1 * np.eye(n)).astype(np.float32))
    z = p.unknown("z", start=np.full(n, 0.3, np.float32))
    p.subject_to(z == np.tanh(W @ z + x))
    p.define("e", np.sum(z**2))
    at = everything(p, "e", {"x": np.ones(n)})
    np.testing.assert_allclose(at["z"], np.tanh(0.1 * at["z"] + at["x"]), atol=1e-6)


def test_the_adjoint_program_is_ones_own_to_extend():
    p = lg.Program()
    c, z = p.parameter("c", value=np.ones(2)), p.unknown("z", shape=2)
    p.subject_to(z + 0.1 * np.tanh(z) == c)
    p.define("y", np.sum(z * z))
    mine = p.adjoint("y")
    mine.define("q", np.sum(mine.variables["λ_c"] ** 2))
    p.solve().hessian_vector("y", c=np.ones(2))
    p.adjoint("y").define("q", 1.0)
    np.testing.assert_allclose(mine.solve()["q"], np.sum(p.solve().gradient("y")["c"] ** 2))


def test_random_starts_of_steep_systems():
    failures = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 8))
        matrix = rng.standard_normal((n, n)) * 0.3 + np.eye(n)
        p = lg.Program()
        c = p.parameter("c", value=rng.standard_normal(n))
        z = p.unknown("z", start=rng.standard_normal(n) * 3)
        p.subject_to(matrix @ z + 0.5 * np.sinh(matrix @ z) + z**3 == c)
        try:
            p.solve()
        except (lg.NotConverged, lg.SingularSystem):
            failures += 1
    assert failures <= 2


def test_saturated_functions_of_large_unknowns():
    # 1 − tanh² is zero there, and no rounding of it is multiplied by 10⁹ twice.
    p = lg.Program()
    a, z = p.parameter("a", value=1.5), p.unknown("z")
    p.subject_to(1e-9 * z + 1e-10 * z / (2.0 + a**2) == a)
    p.define("f", np.tanh(z) + a**3)
    at = p.solve()
    assert at.gradient("f")["a"] == pytest.approx(6.75, rel=1e-12)
    assert at.hessian_vector("f", a=1.0)["a"] == pytest.approx(9.0, rel=1e-12)


def test_one_uncertain_unknown_says_nothing_of_what_does_not_see_it():
    # Near its fold w is known to half the digits, and its multiplier to three; f is of z alone.
    p = lg.Program()
    a, z, w = p.parameter("a", value=1.5), p.unknown("z"), p.unknown("w", start=0.6494)
    p.subject_to(z + z**3 == a)
    p.subject_to(w**2 - 2 * 0.6493 * w + 0.6493**2 == 3.6e-12)
    p.define("f", z**2)
    at = p.solve(accuracy=1e-2)
    slope = 2 * at["z"] / (1 + 3 * at["z"] ** 2)
    gradient = at.gradient("f")
    assert gradient["a"] == pytest.approx(slope, rel=1e-12)
    assert gradient.certificate.error_bound < 1e-10


def test_steps_that_shrink_slowly_by_chance_end_at_no_multiple_root():
    # On the last digits of a large unknown a sine turns: each step is about half the one before.
    p = lg.Program()
    a = p.parameter("a", value=1.8864)
    u2, u3 = p.unknown("u2"), p.unknown("u3")
    p.subject_to(2.5124 * u2 == 0.655 * a + 2.2242)
    p.subject_to(3.0221 * u2 + 5.3642213999999995e-12 * u3 + 2.298e-12 * np.sin(u3) == 2.1646 * a)
    assert p.solve()["u3"] == pytest.approx(
        (2.1646 * 1.8864 - 3.0221 * 1.377086451202038) / 5.3642214e-12, rel=1e-10
    )


@pytest.mark.parametrize("m", [2, 3, 5])
@pytest.mark.parametrize("c", [0.0, 1.0, 1e5])
def test_multiple_roots_are_still_named(m, c):
    p = lg.Program()
    z = p.unknown("z", start=c + 0.3)
    p.subject_to((z - c) ** m == 0)
    with pytest.raises(lg.SingularSystem):
        p.solve()
