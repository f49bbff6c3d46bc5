"""More equations than unknowns: a root where they hold together, and a named error elsewhere."""

import numpy as np
import pytest

import lagrad as lg

BACK, TOTAL = 0.7, 3.0
START = np.array([1.0, 2.0])


def reacting(k, total=TOTAL):
    """A ⇌ B at rest: both rates, of which either follows from the other, and the total."""
    rate = lambda x: k * x[0] - BACK * x[1]
    return lg.root(lambda x: np.stack([-rate(x), rate(x), x[0] + x[1] - total]), START)


def test_a_conservation_law_beside_the_rates_it_follows_from():
    exact = lambda k: BACK * TOTAL / (k + BACK)
    first = -BACK * TOTAL / (2.0 + BACK) ** 2
    np.testing.assert_allclose(reacting(2.0), [exact(2.0), TOTAL - exact(2.0)], rtol=1e-13)
    amount = lambda k: reacting(k)[0]
    assert lg.grad(amount)(2.0) == pytest.approx(first, rel=1e-12)
    np.testing.assert_allclose(lg.jvp(reacting, (2.0,), (1.0,))[1], [first, -first], rtol=1e-12)
    assert lg.grad(lg.grad(amount))(2.0) == pytest.approx(-2 * first / 2.7, rel=1e-11)
    by_total = lg.grad(lambda t: reacting(2.0, t)[0])(TOTAL)
    assert by_total == pytest.approx(BACK / 2.7, rel=1e-12)
    both = lg.compile(lg.value_and_grad(amount))
    for k in (2.0, 3.0, 0.1):
        value, slope = both(k)
        assert value == pytest.approx(exact(k), rel=1e-12)
        assert slope == pytest.approx(-BACK * TOTAL / (k + BACK) ** 2, rel=1e-11)


def closing(angle, lengths=(1.0, 3.0, 2.5, 3.0)):
    """A four-bar linkage: two closures, and the coupler's length once more."""
    crank, coupler, rocker, base = lengths

    def residuals(z):
        first = np.stack([crank * np.cos(angle), crank * np.sin(angle)])
        last = np.stack([base + rocker * np.cos(z[1]), rocker * np.sin(z[1])])
        gap = first + coupler * np.stack([np.cos(z[0]), np.sin(z[0])]) - last
        return np.concatenate([gap, np.reshape(np.sum((first - last) ** 2) - coupler**2, (1,))])

    return residuals


def test_a_redundant_closure():
    found = lambda angle: lg.root(closing(angle), np.array([0.5, 1.5]))
    square = lambda angle: lg.root(lambda z: closing(angle)(z)[:2], np.array([0.5, 1.5]))
    np.testing.assert_allclose(found(0.8), square(0.8), rtol=1e-12)
    np.testing.assert_allclose(lg.jacobian(found)(0.8), lg.jacobian(square)(0.8), rtol=1e-10)


FORMS = {
    "nested values": (lambda a, z: [z["x"] - a, z["y"] - z["x"], z["y"] ** 2 - a * a], "dict"),
    "a number": (lambda a, z: np.stack([z - a, z**2 - a**2]), "number"),
}


@pytest.mark.parametrize(("residual", "kind"), FORMS.values(), ids=FORMS)
def test_other_forms(residual, kind):
    start = {"x": 1.0, "y": 1.0} if kind == "dict" else 0.5
    read = (lambda z: z["x"] + z["y"]) if kind == "dict" else (lambda z: 2 * z)
    f = lambda a: read(lg.root(lambda z: residual(a, z), start))
    assert f(3.0) == pytest.approx(6.0, rel=1e-12)
    assert lg.grad(f)(3.0) == pytest.approx(2.0, rel=1e-10)


def test_many_linear_equations():
    matrix = np.random.default_rng(0).standard_normal((60, 20))
    right = matrix @ np.arange(20.0)
    solve = lambda s: lg.root(lambda z: matrix @ z - s * right, np.zeros(20))
    np.testing.assert_allclose(solve(1.0), np.arange(20.0), atol=1e-12)
    np.testing.assert_allclose(lg.jacobian(solve)(2.0), np.arange(20.0), atol=1e-11)


def test_what_contradicts_is_named_and_the_remedy_runs():
    residual = lambda z, a: np.stack([z[0] - a, z[0] - 1.0])
    with pytest.raises(lg.NotConverged, match=r"contradict one another.*lg\.argmin"):
        lg.root(residual, np.zeros(1), 2.0)
    least = lambda a: lg.argmin(lambda z: np.sum(residual(z, a) ** 2), np.zeros(1))[0]
    assert least(2.0) == pytest.approx(1.5)
    # Where they hold together here only there is a solution, and no derivative.
    found = lambda a: lg.root(lambda z: residual(z, a), np.zeros(1))[0]
    assert found(1.0) == pytest.approx(1.0)
    for derivative in (lambda: lg.grad(found)(1.0), lambda: lg.jvp(found, (1.0,), (1.0,))):
        with pytest.raises(lg.SingularSystem, match=r"hold together here only"):
            derivative()
    assert lg.grad(least)(1.0) == pytest.approx(0.5)


def test_of_too_low_a_rank_only_what_they_determine_has_a_derivative():
    residual = lambda z, a: np.stack([k * (z[0] + z[1] - a) for k in (1.0, 2.0, 3.0)])
    solve = lambda a: lg.root(lambda z: residual(z, a), np.zeros(2))
    assert np.sum(solve(1.0)) == pytest.approx(1.0, rel=1e-12)
    assert lg.grad(lambda a: np.sum(solve(a)))(1.0) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(lg.SingularSystem, match="depends on"):
        lg.grad(lambda a: solve(a)[0])(1.0)


def test_too_few_are_refused():
    with pytest.raises(lg.ShapeMismatch, match="as many or more"):
        lg.root(lambda z: z[:1], np.zeros(2))


def network(flows):
    """Flows on a triangle: the balance of every node, of which one is too many."""
    p = lg.Program("network")
    a, r = p.parameter("a", value=2.0), p.parameter("r", value=np.array([1.0, 2.0, 3.0]))
    q, h = p.unknown("q", start=flows), [p.unknown(f"h{k}") for k in range(2)]
    heads = [*h, 0.0]
    ends = [(0, 1), (1, 2), (0, 2)]
    for k, (i, j) in enumerate(ends):
        p.subject_to(
            heads[i] - heads[j] == r[k] * q[k] * np.sqrt(1.0 + q[k] ** 2), name=f"pipe_{k}"
        )
    given = [a, -0.25 * a, -0.75 * a]
    for node in range(3):
        out = sum(q[k] for k, e in enumerate(ends) if e[0] == node)
        into = sum(q[k] for k, e in enumerate(ends) if e[1] == node)
        p.subject_to(out - into == given[node], name=f"balance_{node}")
    p.define("loss", h[0] * a + q[2] ** 2)
    return p


def test_a_declared_program_with_a_redundant_conservation_law():
    p = network(np.ones(3))
    at = p.solve()
    # The same without the balance of the last node.
    full = network(np.ones(3))
    del full.constraints["balance_2"]
    other = full.solve()
    for name in ("q", "h0", "h1", "loss"):
        np.testing.assert_allclose(at[name], other[name], rtol=1e-12)
    np.testing.assert_allclose(at["off"], 0.0, atol=1e-13)
    for name in ("a", "r"):
        np.testing.assert_allclose(
            at.gradient("loss")[name], other.gradient("loss")[name], rtol=1e-9
        )
    along = {"a": 1.0, "r": np.array([0.5, -1.0, 2.0])}
    assert at.tangent(along)["loss"] == pytest.approx(other.tangent(along)["loss"], rel=1e-9)
    second, true = (s.hessian_vector("loss", along) for s in (at, other))
    np.testing.assert_allclose(second["r"], true["r"], rtol=1e-8)
    assert p.adjoint("loss").solve()["λ_a"] == pytest.approx(other.gradient("loss")["a"], rel=1e-9)
    again = p.solve(start=at, a=2.5)
    assert again["loss"] == pytest.approx(full.solve(a=2.5)["loss"], rel=1e-12)
    assert [float(s["loss"]) for s in p.solve_many({"a": [2.0, 2.5]})] == pytest.approx(
        [float(at["loss"]), float(again["loss"])]
    )
    module = {}
    exec(p.source(), module)
    assert module["solve"]()["loss"] == pytest.approx(at["loss"], rel=1e-9)


def test_parts_that_are_declared_twice_beside_others_that_are_not():
    p = lg.Program()
    a = p.parameter("a", value=2.0)
    x, y, z, w = (p.unknown(n, start=1.0) for n in "xyzw")
    p.subject_to(x == a, name="one")
    p.subject_to(x * x == a * a, name="its_square")
    d = p.define("d", np.exp(w))
    p.subject_to(d == 1 + a, name="exponential")
    p.subject_to(2 * d == 2 + 2 * a, name="twice")
    p.subject_to(y**3 == x + w)
    p.subject_to(z + y == x)
    p.define("f", z * w)
    at = p.solve()
    w0, y0 = np.log(3.0), (2.0 + np.log(3.0)) ** (1 / 3)
    assert at["f"] == pytest.approx((2 - y0) * w0, rel=1e-13)
    slope = (1 - (1 + 1 / 3) / (3 * y0**2)) * w0 + (2 - y0) / 3
    assert at.gradient("f")["a"] == pytest.approx(slope, rel=1e-10)


def test_declared_equations_that_contradict_and_the_remedy():
    p = lg.Program()
    a = p.parameter("a", value=1.0)
    x, y = p.unknown("x"), p.unknown("y")
    p.subject_to(x == a, name="one")
    p.subject_to(x == 2 - a, name="two")
    p.subject_to(y == x * a)
    said = r"'one', 'two' are 2 for 1 unknown, 'x', and contradict one another.*lg\.argmin"
    with pytest.raises(lg.NotConverged, match=said):
        p.solve(a=3.0)
    # They hold together at one only.
    at = p.solve()
    assert at["y"] == 1.0
    with pytest.raises(lg.SingularSystem, match="hold together here only"):
        at.gradient("y")
    least = lambda a: lg.argmin(lambda x: (x - a) ** 2 + (x - (2 - a)) ** 2, 0.0) * a
    assert lg.grad(least)(3.0) == pytest.approx(1.0)


def test_a_redundant_law_of_many_equations():
    n = 600
    p = lg.Program()
    s = p.parameter("s", value=1.0)
    u = p.unknown("u", shape=n)
    p.subject_to(2 * u[1:-1] - u[2:] - u[:-2] + 0.1 * u[1:-1] ** 3 == s, name="inner")
    p.subject_to(u[0] == 0.0, name="left")
    p.subject_to(u[-1] == 0.0, name="right")
    inner = 2 * u[1:-1] - u[2:] - u[:-2] + 0.1 * u[1:-1] ** 3
    p.subject_to(np.sum(inner) == s * (n - 2), name="total")
    p.define("middle", u[n // 2])
    at = p.solve()
    assert at["middle"] == pytest.approx(10 ** (1 / 3), rel=1e-9)
    assert at.gradient("middle")["s"] == pytest.approx(10 ** (1 / 3) / 3, rel=1e-7)


LAPLACIAN = np.array([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]])


def potentials(demand, grounded=False, rows=slice(None)):
    p = lg.Program("potentials")
    h, d = p.unknown("h", shape=3), p.parameter("d", value=np.array(demand))
    p.subject_to((LAPLACIAN @ h)[rows] == d[rows], name="balance")
    if grounded:
        p.subject_to(h[0] == 0.0, name="ground")
    return p


def test_potentials_without_a_ground_and_with_numbers_that_do_not_balance():
    balanced, other = [1.0, -0.5, -0.5], [1.0, -0.5, -0.4]
    with pytest.raises(lg.SingularSystem, match="Add one that fixes what is free"):
        potentials(balanced).solve()
    np.testing.assert_allclose(potentials(balanced, True).solve()["h"], [0, -0.5, -0.5], atol=1e-14)
    with pytest.raises(lg.SingularSystem, match=r"leaves 1.0e-01: they\s+contradict") as caught:
        potentials(other).solve()
    assert "Change the numbers in them so that it leaves nothing, or drop an equation" in str(
        caught.value
    )
    dropped = potentials(other, True, rows=slice(0, 2)).solve()["h"]
    np.testing.assert_allclose((LAPLACIAN @ dropped)[:2], other[:2], atol=1e-14)
    with pytest.raises(lg.NotConverged, match="contradict one another"):
        potentials(other, True).solve()
    with pytest.raises(lg.SingularSystem, match="contradict one another"):
        lg.root(lambda h: LAPLACIAN @ h - np.array(other), np.zeros(3))
    found = lg.root(lambda h: LAPLACIAN @ h - np.array(balanced), np.zeros(3))
    np.testing.assert_allclose(LAPLACIAN @ found, balanced, atol=1e-14)


def test_single_precision():
    f = np.float32
    p = lg.Program()
    r, s = p.parameter("r", value=f(5)), p.parameter("s", value=f(7))
    x, y = p.unknown("x", start=f(4)), p.unknown("y", start=f(2))
    p.subject_to(x**2 + y**2 == r**2)
    p.subject_to(x + y == s)
    p.subject_to(x * y == (s**2 - r**2) / 2)
    found = p.solve().gradient("x")
    assert (float(found["r"]), float(found["s"])) == pytest.approx((5.0, -3.0), rel=1e-4)
    q = lg.Program()
    a, x = q.parameter("a", value=f(1)), q.unknown("x", start=f(0))
    q.subject_to(x == a)
    q.subject_to(x == 2 - a)
    with pytest.raises(lg.SingularSystem, match="hold together here only"):
        q.solve().gradient("x")


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e10])
def test_a_module_says_so_where_equations_contradict_one_another(scale):
    p = lg.Program("module")
    a, b, x = p.parameter("a", value=2.0), p.parameter("b", value=2.0), p.unknown("x", start=1.0)
    y = p.unknown("y", start=1.0)
    p.subject_to(scale * x == scale * a)
    p.subject_to(scale * x == scale * b)
    p.subject_to(x * y == 1.0)
    module = {}
    exec(p.source(), module)
    assert module["solve"]()["x"] == pytest.approx(2.0, rel=1e-12)
    with pytest.raises(ArithmeticError, match="contradict one another"):
        module["solve"](b=2.1)


def test_derivatives_of_redundant_equations_are_written_by_nobody():
    # Whether they have one is seen where parameters move: a module would not look.
    def twice(second):
        p = lg.Program("twice")
        a, x = p.parameter("a", value=2.0), p.unknown("x", start=1.0)
        p.subject_to(x == a)
        if second:
            p.subject_to(2 * x == 2 * a)
        return p.adjoint("x")

    with pytest.raises(lg.UnsupportedFunction, match=r"use solve\(\), or leave equations out"):
        twice(True).source()
    assert twice(True).solve()["λ_a"] == pytest.approx(1.0, rel=1e-12)
    module = {}
    exec(twice(False).source(), module)
    assert module["solve"]()["λ_a"] == pytest.approx(1.0, rel=1e-12)


FLAT = {
    "a square": lambda x, a: (x - a) ** 2,
    "a fourth power": lambda x, a: (x - a) ** 4,
    "in other units": lambda x, a: 1e6 * (x - a) ** 2,
    "cosh": lambda x, a: np.cosh(x - a) - 1,
    "a kink": lambda x, a: np.abs(x - a),
}


# A hyperbolic cosine overflows on the way to the largest.
CASES = [(flat, at) for at in (3e-8, 3.0, 3e8) for flat in FLAT if flat != "cosh" or at < 1e8]


@pytest.mark.parametrize(("flat", "at"), CASES)
def test_an_equation_more_that_is_flat_where_it_holds(flat, at):
    # Its derivative is zero there: so is that of what it is off by, which has no size.
    root = lambda a: lg.root(lambda x: np.stack([x - a, FLAT[flat](x, a)]), 1.0)
    assert lg.value_and_grad(root)(at) == pytest.approx((at, 1.0), rel=1e-8)


@pytest.mark.parametrize("off", [1e-4, 1e-10, 1e-20])
def test_a_flat_equation_that_does_not_hold(off):
    with pytest.raises(lg.NotConverged, match="contradict one another"):
        lg.root(lambda x: np.stack([x - 3.0, (x - 3.0) ** 2 - off]), 1.0)
    with pytest.raises(lg.SingularSystem, match="hold together here only"):
        lg.grad(lambda b: lg.root(lambda x: np.stack([x - 3.0, (x - 3.0) ** 2 + b]), 1.0))(0.0)


def cubic(y):
    return lg.root(lambda z: z**3 + z - y, 0.0)


def twice_cubic(y):
    return lg.root(lambda z: np.stack([z**3 + z - y, 2 * z**3 + 2 * z - 2 * y]), 0.0)


@pytest.mark.parametrize("inner", [cubic, twice_cubic])
def test_roots_inside_roots_of_more_equations(inner):
    # z(x) = a where x = a³ + a.
    root = lambda a: lg.root(lambda x: np.stack([inner(x) - a, x - a**3 - a]), 1.0)
    assert lg.value_and_grad(root)(1.5) == pytest.approx((4.875, 7.75), rel=1e-9)
    assert lg.hessian(root)(1.5) == pytest.approx(9.0, rel=1e-8)
    assert lg.compile(lg.grad(root))(1.5) == pytest.approx(7.75, rel=1e-9)
    steps = lambda a: lg.iterate(lambda z: root(a) + 0.5 * z, 0.0, 3)
    assert lg.grad(steps)(1.5) == pytest.approx(7.75 * 1.75, rel=1e-9)
    with pytest.raises(lg.NotConverged, match="contradict one another"):
        lg.root(lambda x: np.stack([inner(x) - 1.5, x - 4.0]), 1.0)


def both_ways(y):
    """z with z = y and z = y², which is so where y is 0 or 1."""
    return lg.root(lambda z: np.stack([z - y, z - y**2]), 0.5)


AROUND = {
    "a root": lambda a: lg.root(lambda x: both_ways(x) - a, 0.7),
    "a fixed point": lambda a: lg.fixed_point(lambda x: x - 0.5 * (both_ways(x) - a), 0.7),
    "a minimum": lambda a: lg.argmin(lambda x: (both_ways(x) - a) ** 2, 0.7),
    "more equations": lambda a: lg.root(lambda x: np.stack([both_ways(x) - a, x - a]), 0.7),
}


@pytest.mark.parametrize("kind", AROUND)
def test_contradictions_inside_another_implicit_function(kind):
    # What solves the outer equations need not leave the inner ones a solution.
    with pytest.raises(lg.NotConverged, match="contradict one another"):
        AROUND[kind](0.5)


def test_a_declared_system_whose_other_equations_settle_a_redundant_one():
    # z is known by the last equation; what is left has more equations than x alone.
    p = lg.Program("settled")
    a, z = p.parameter("a", value=1.0), p.unknown("z", start=0.5)
    x = p.unknown("x", start=0.7)
    p.subject_to(z == x)
    p.subject_to(z == x**2)
    p.subject_to(z == a)
    assert float(p.solve()["x"]) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(lg.SingularSystem, match="hold together here only"):
        p.solve().gradient("x")
    with pytest.raises(lg.NotConverged, match="contradict one another"):
        p.solve(a=0.5)


def test_a_root_inside_whose_equations_part_where_parameters_move():
    with pytest.raises(lg.SingularSystem, match="hold together here only"):
        lg.grad(AROUND["a root"])(1.0)
