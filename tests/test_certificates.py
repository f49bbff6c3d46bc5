"""What is certified is right, and what is not raises."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.sparse as sparse
from oracles import WIDER, needs_wider

import lagrad as lg


def linear(matrix, right):
    p = lg.Program("linear")
    b = p.parameter("b", value=right)
    z = p.unknown("z", shape=np.shape(right))
    p.subject_to(matrix @ z == b)
    p.define("total", np.sum(z))
    return p


def well(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n)) + n * np.eye(n), rng.standard_normal(n)


@pytest.mark.parametrize("n", [1, 2, 5, 40, 200])
@pytest.mark.parametrize("solver", [lg.DenseLU(), lg.SparseLU(), lg.GMRES()])
def test_the_condition_is_numpys_to_a_factor_of_three(n, solver):
    matrix, right = well(n)
    certificate = linear(matrix, right).solve(linear=solver).certificate
    exact = np.linalg.cond(matrix, 1)
    assert exact / 3 <= certificate.condition <= exact * (1 + 1e-9)
    assert certificate.converged


def test_the_error_bound_holds_for_ill_conditioned_systems():
    for n in (4, 6, 8):
        hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
        at = linear(hilbert, np.ones(n)).solve(accuracy=1.0)
        with mpmath.workdps(60):
            exact = mpmath.lu_solve(mpmath.matrix(hilbert.tolist()), mpmath.matrix([1] * n))
        exact = np.array([float(v) for v in exact])
        error = np.abs(at["z"] - exact).max() / np.abs(exact).max()
        assert error <= 10 * at.certificate.error_bound + 1e-15


def test_systems_too_ill_conditioned_for_the_accuracy_raise():
    n = 12
    hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    with pytest.raises(lg.SingularSystem, match=r"certified|singular"):
        linear(hilbert, np.ones(n)).solve()


@needs_wider
@pytest.mark.parametrize("n", [6, 8, 10])
def test_ill_conditioned_systems_are_right_by_residuals_in_a_wider_precision(n):
    hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    at = linear(hilbert, np.ones(n)).solve()
    with mpmath.workdps(60):
        exact = mpmath.lu_solve(mpmath.matrix(hilbert.tolist()), mpmath.matrix([1.0] * n))
        error = max(abs(e - float(f)) / abs(e) for e, f in zip(exact, at["z"], strict=True))
    assert error <= at.certificate.error_bound <= 1e-6


@needs_wider
@pytest.mark.parametrize("load", [1.0, 1e-3, 1e-4, 1e-5, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("form", ["function", "program"])
def test_a_small_unknown_is_right_or_refused_however_small(load, form):
    # Of a shallow truss, whose bars' lengths before and after cancel.
    length = float(np.hypot(1.0, 0.2))

    def residual(w, load, module=np):
        now = module.sqrt(1 + (0.2 - w) * (0.2 - w))
        return 4e8 * (length - now) / length * (0.2 - w) / now - load

    with mpmath.workdps(50):
        start = mpmath.mpf(load) * 6.6e-8
        wanted = mpmath.findroot(lambda w: residual(w, mpmath.mpf(load), mpmath), start)
    try:
        if form == "function":
            found = lg.root(lambda w: residual(w, load), 0.0)
        else:
            p = lg.Program()
            w = p.unknown("w")
            p.subject_to(residual(w, p.parameter("P", load)) == 0)
            found = p.solve()["w"]
    except lg.SingularSystem:
        assert load < 1e-4
        return
    assert abs(found - wanted) <= 1e-6 * abs(wanted)


def test_bad_scaling_alone_is_no_ill_conditioning():
    scales = 10.0 ** np.arange(-12, 13, 4)
    at = linear(np.diag(scales) + 0.0, np.ones(7)).solve()
    np.testing.assert_allclose(at["z"], 1 / scales, rtol=1e-13)
    assert at.certificate.error_bound < 1e-12


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_singular_systems_name_the_dependent_equations(size, form):
    matrix = 2 * np.eye(size) - np.roll(np.eye(size), 1, axis=0) - np.roll(np.eye(size), -1, axis=0)
    p = lg.Program("circuit")
    z = p.unknown("z", shape=size)
    p.subject_to(form(matrix) @ z == 0.0, name="kirchhoff")
    with pytest.raises(lg.SingularSystem, match=r"kirchhoff\[.*combination of 'kirchhoff"):
        p.solve()


def test_no_convergence_tells_its_history():
    p = lg.Program()
    z = p.unknown("z", start=1.0)
    p.subject_to(z**2 + 1 == 0, name="impossible")
    with pytest.raises(lg.NotConverged, match=r"step  correction   residual") as caught:
        p.solve()
    assert "{z}" in str(caught.value)
    with pytest.raises(lg.NotConverged, match="2 steps"):
        near = lg.Program()
        w = near.unknown("w", start=50.0)
        near.subject_to(np.exp(w) == 2.0)
        near.solve(newton=lg.Newton(max_steps=2))


def test_a_start_outside_the_domain_is_named():
    p = lg.Program()
    z = p.unknown("z", start=-1.0)
    p.subject_to(np.log(z) == 1.0, name="logarithm")
    with pytest.raises(lg.NotConverged, match="'logarithm' is NaN or infinite at the start of z"):
        p.solve()
    np.testing.assert_allclose(p.solve(start={"z": 0.1})["z"], np.e, rtol=1e-15)


@pytest.mark.parametrize("start", [1e-6, 0.5, 60.0, 1e4])
def test_newton_backtracks_out_of_nan_and_overflow(start):
    p = lg.Program()
    z = p.unknown("z", start=start)
    p.subject_to(np.log(z) + np.sqrt(z) + z == 3.0)
    with mpmath.workdps(30):
        exact = mpmath.findroot(lambda s: mpmath.log(s) + mpmath.sqrt(s) + s - 3, 1.4)
    np.testing.assert_allclose(p.solve()["z"], float(exact), rtol=1e-14)


def test_those_who_insist_are_warned():
    p = lg.Program()
    a, b, x = p.unknown("a"), p.unknown("b"), p.parameter("x", value=1.0)
    p.subject_to(a + b == x)
    p.subject_to(2 * a + 2 * b == 2 * x)
    with pytest.warns(lg.AccuracyWarning, match="singular"):
        at = p.solve(on_failure="warn")
    assert not at.certificate.converged
    assert at.certificate.error_bound == np.inf
    with pytest.warns(lg.AccuracyWarning, match="certified"):
        gradient = at.gradient("a")
    assert not gradient.certificate.converged


def test_a_loose_solve_says_what_its_gradient_is_worth():
    def program():
        p = lg.Program()
        x = p.parameter("x", value=2.0)
        z = p.unknown("z", start=1.0)
        p.subject_to(z * z == x)
        p.define("steep", np.exp(20 * z))
        return p

    exact = 20 * np.exp(20 * np.sqrt(2)) / (2 * np.sqrt(2))
    loose = program().solve(newton=lg.Newton(tol=1e-2), accuracy=10.0)
    gradient = loose.gradient("steep")
    assert abs(gradient["x"] / exact - 1) <= gradient.certificate.error_bound
    tight = program().solve().gradient("steep")
    np.testing.assert_allclose(tight["x"], exact, rtol=1e-13)
    assert tight.certificate.error_bound < 1e-10


@pytest.mark.parametrize("weight", [0.0, 1e-13, 1e-300, 1e12])
def test_the_size_of_the_multipliers_right_side_is_nothing_special(weight):
    matrix, right = well(5)
    for solver in (lg.DenseLU(), lg.SparseLU(), lg.GMRES()):
        p = linear(matrix, right)
        p.define("f", weight * p.variables["total"])
        at = p.solve(linear=solver)
        gradient = at.gradient("f")
        np.testing.assert_allclose(
            gradient["b"], weight * np.linalg.solve(matrix.T, np.ones(5)), rtol=1e-11
        )
        assert gradient.certificate.error_bound < 1e-9


def test_an_unknown_that_the_output_does_not_depend_on():
    p = lg.Program()
    x = p.parameter("x", value=2.0)
    a, b = p.unknown("a", start=1.0), p.unknown("b", start=1.0)
    p.subject_to(a * a == x)
    p.subject_to(b * b == a, name="b")
    p.define("f", 3 * x)
    at = p.solve()
    assert at.gradient("f")["x"] == 3.0
    assert dict(at.multipliers("f")) == {"a": 0.0, "b": 0.0, "f": 1.0}
    assert p.adjoint("f").solve()["λ_x"] == 3.0
    assert at.hessian_vector("f", x=1.0)["x"] == 0.0


def test_a_solution_at_zero_is_nothing_special():
    p = lg.Program()
    x = p.parameter("x", value=1.0)
    z, w = p.unknown("z", start=1.0), p.unknown("w")
    p.subject_to(np.sin(z) + z**3 == x - 1.0)
    p.subject_to(w + 1.0 == x)
    at = p.solve()
    np.testing.assert_allclose([at["z"], at["w"]], 0.0, atol=1e-15)
    np.testing.assert_allclose(at.gradient("z")["x"], 1.0, rtol=1e-14)


def test_triple_roots_and_folds_are_singular():
    p = lg.Program()
    x, z = p.parameter("x", value=0.0), p.unknown("z", start=1.0)
    p.subject_to((z - 0.3) ** 3 == x)
    with pytest.raises(lg.SingularSystem):
        p.solve()
    fold = lg.Program()
    u = fold.unknown("u", shape=2, start=0.4)
    fold.subject_to(u[0] + u[1] == 1.0)
    fold.subject_to(u[0] ** 2 + u[1] ** 2 == 0.5)
    with pytest.raises(lg.SingularSystem):
        fold.solve()


def test_near_a_fold_the_certificate_grows_until_it_raises():
    def gradient(gap):
        p = lg.Program()
        x, z = p.parameter("x", value=gap), p.unknown("z", start=1.0)
        p.subject_to((z - 1.0) ** 2 == x)
        return p.solve(start={"z": 2.0}).gradient("z")

    for gap in (1e-2, 1e-4, 1e-6, 1e-14):
        found = gradient(gap)
        error = abs(found["x"] * 2 * np.sqrt(gap) - 1)
        assert error <= found.certificate.error_bound + 1e-14
    with pytest.raises(lg.SingularSystem):
        gradient(1e-20)


def test_float32_programs_are_solved_and_certified_in_their_own_precision():
    p = lg.Program()
    x = p.parameter("x", value=np.float32(2.0))
    z = p.unknown("z", start=np.float32(1.0))
    p.subject_to(z * z == x)
    p.define("y", np.exp(z))
    at = p.solve()
    assert at.point.values[p.variables["y"]].dtype == np.float32
    gradient = at.gradient("y")
    assert gradient["x"].dtype == np.float32
    exact = np.exp(np.sqrt(2)) / (2 * np.sqrt(2))
    assert abs(gradient["x"] / exact - 1) <= gradient.certificate.error_bound
    assert gradient.certificate.error_bound < 1e-5


@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_a_double_root_is_singular_however_its_equation_is_spelled(gap):
    for spell in (
        lambda Z, x: Z * Z / 2 + x - Z == 0,
        lambda Z, x: Z == Z * Z / 2 + x,
        lambda Z, x: -Z + x == -Z * Z / 2,
    ):
        p = lg.Program()
        x, Z = p.parameter("x", value=0.5), p.unknown("Z", start=1 - gap)
        p.subject_to(spell(Z, x))
        p.define("f", 1.0 * Z)
        with pytest.raises(lg.SingularSystem):
            p.solve().gradient("f")


def test_entries_of_one_unknown_converge_each_by_itself():
    p = lg.Program()
    a, z = p.parameter("a", value=2.0), p.unknown("z", start=[1.0, 30.0])
    p.subject_to(z[0] == 1e14 + a - 2)
    p.subject_to(np.exp(z[1]) * z[1] + 1e-20 * z[0] == a)
    p.define("f", 1.0 * z[1])
    at = p.solve()
    with mpmath.workdps(30):
        w = mpmath.lambertw(2 - mpmath.mpf("1e-6"))
        np.testing.assert_allclose(at["f"], float(w.real), rtol=1e-12)
        slope = float((1 / (mpmath.exp(w) * (1 + w))).real)
    np.testing.assert_allclose(at.gradient("f")["a"], slope, rtol=1e-9)


def test_nearly_dependent_columns_show_in_the_bound():
    e = 1e-12
    p = lg.Program()
    b = p.parameter("b", value=[1 / 3 + e, 1 / 7 + e])
    x, y = p.unknown("x", start=0.5), p.unknown("y", start=0.5)
    p.subject_to(e * x + y / 3 == b[0])
    p.subject_to(e * x + y / 7 == b[1])
    at = p.solve(accuracy=1e-6 if WIDER else 1.0)
    with mpmath.workdps(60):
        first, second = (mpmath.mpf(float(v)) for v in at["b"])
        E, third, seventh = mpmath.mpf(e), mpmath.mpf(1) / 3, mpmath.mpf(1) / 7
        exact = (first * seventh - second * third) / (E * (seventh - third))
    assert abs(at["x"] / float(exact) - 1) <= at.certificate.error_bound


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-10])
def test_cancellation_inside_a_side_shows_in_the_bound(gap):
    p = lg.Program()
    a, z = p.parameter("a", value=1 - gap), p.unknown("z", start=3.0)
    p.subject_to(z * z - 2 * z + a == 0)
    at = p.solve(accuracy=1.0)
    gradient = at.gradient("z")
    root = np.sqrt(1 - at["a"])
    assert abs(at["z"] / (1 + root) - 1) <= at.certificate.error_bound + 1e-15
    assert abs(gradient["a"] * -2 * root - 1) <= gradient.certificate.error_bound + 1e-15


def test_what_follows_magnifies_the_error_and_the_bound_says_so():
    p = lg.Program()
    a, z = p.parameter("a", value=2.0), p.unknown("z", start=1.0)
    p.subject_to(z * z == a)
    p.define("f", np.sin(1e9 * z))
    gradient = p.solve(newton=lg.Newton(tol=1e-3), accuracy=1.0).gradient("f")
    with mpmath.workdps(40):
        exact = float(mpmath.cos(10**9 * mpmath.sqrt(2)) * 10**9 / (2 * mpmath.sqrt(2)))
    assert abs(gradient["a"] / exact - 1) <= gradient.certificate.error_bound


def test_a_small_difference_is_known_to_its_own_digits_only():
    p = lg.Program()
    a, z = p.parameter("a", value=1e-10), p.unknown("z", start=2.0)
    p.subject_to(np.exp(z) == 1 + a)
    p.define("f", np.log(z))
    at = p.solve(accuracy=1e-3)
    gradient = at.gradient("f")
    assert (
        abs(gradient["a"] * np.log1p(1e-10) * (1 + 1e-10) - 1) <= gradient.certificate.error_bound
    )
    assert gradient.certificate.error_bound > 1e-9


def test_errors_are_carried_from_block_to_block():
    p = lg.Program()
    a = p.parameter("a", value=2.0)
    z, w = p.unknown("z", start=1.0), p.unknown("w", start=0.5)
    p.subject_to(z * z == a)
    p.subject_to(w + 0.1 * np.sin(w) == 1e7 * (z - np.sqrt(2)) + 1, name="second")
    at = p.solve()
    with mpmath.workdps(40):
        right = 10**7 * (mpmath.sqrt(2) - mpmath.mpf(float(np.sqrt(2)))) + 1
        exact = float(mpmath.findroot(lambda v: v + mpmath.mpf(0.1) * mpmath.sin(v) - right, 0.9))
    assert 1e-12 < abs(at["w"] / exact - 1) <= at.certificate.error_bound


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_for_badly_scaled_systems(seed):
    rng = np.random.default_rng(seed)
    n = 40
    scales = 10.0 ** rng.uniform(-6, 5, n)[:, None], 10.0 ** rng.uniform(-3, 2, n)
    matrix = scales[0] * rng.standard_normal((n, n)) * scales[1]
    p = linear(matrix, matrix @ np.ones(n))
    p.define("f", np.sum(p.variables["z"] ** 2))
    at = p.solve(accuracy=1.0)
    with mpmath.workdps(50):
        A = mpmath.matrix(matrix.tolist())
        x = mpmath.lu_solve(A, mpmath.matrix(at["b"].tolist()))
        g = mpmath.lu_solve(A.T, 2 * x)
    x, g = (np.array([float(v) for v in vector]) for vector in (x, g))
    assert np.abs(at["z"] - x).max() / np.abs(x).max() <= at.certificate.error_bound
    gradient = at.gradient("f")
    assert np.abs(gradient["b"] - g).max() / np.abs(g).max() <= gradient.certificate.error_bound
    assert gradient.certificate.error_bound < 1e-5


def test_a_point_that_runs_away_is_no_multiple_root():
    for equation in (lambda z: np.exp(-z) == 0, lambda z: 1 / z == 0):
        p = lg.Program()
        p.subject_to(equation(p.unknown("z", start=1.0)))
        with pytest.raises(lg.NotConverged):
            p.solve()


def test_every_derivative_has_its_certificate():
    p = lg.Program()
    x, z = p.parameter("x", value=2.0), p.unknown("z", start=1.0)
    p.subject_to(z * z == x)
    p.define("f", z**3)
    at = p.solve()
    for found in (
        at.gradient("f"),
        at.multipliers("f"),
        at.tangent(x=1.0),
        at.jacobian("f", "x"),
        at.hessian_vector("f", x=1.0),
    ):
        assert found.certificate.converged
        assert 0 <= found.certificate.error_bound < 1e-10
        assert found.certificate.multiplier_residual < 1e-12


def test_where_any_accuracy_will_do_the_bound_is_the_same():
    matrix = np.outer([0.7, 1.1], [1.3, 0.9]) + 1e-9 * np.array([[1.0, 2.0], [3.0, -1.0]])
    p = lg.Program()
    b, z = p.parameter("b", value=np.array([1.0, 2.0])), p.unknown("z", shape=2)
    p.subject_to(matrix @ z == b)
    p.define("f", np.sum(z**2))
    asked, any_will_do = (
        p.solve(accuracy=accuracy).gradient("f").certificate.error_bound
        for accuracy in (1e-6, np.inf)
    )
    assert any_will_do == asked > 1e-10


@needs_wider
@pytest.mark.parametrize("start", [0.0, 0.05, 1.0])
def test_a_derivative_does_not_ask_for_an_unknown_that_is_zero_but_for_the_last_bit(start):
    """y = log(0.1 / a) at a = 0.1, where 3a is 0.3 but for rounding: dy/da = -1/a."""
    zero = lambda a: lg.root(lambda y: np.exp(y) * a * 3 - 0.3, start)
    assert lg.grad(zero)(0.1) == pytest.approx(-10, rel=1e-9)
    assert lg.grad(lambda a: 1 + zero(a))(0.1) == pytest.approx(-10, rel=1e-9)
    assert lg.jacobian(zero)(0.1) == pytest.approx(-10, rel=1e-9)
    price = lambda y, c: sum(100 * c * np.exp(-y * t) for t in range(1, 31))
    bond = lambda c: lg.root(lambda y: price(y, c) + 100 * np.exp(-30 * y) - 250.0, start / 20)
    weights = np.arange(1, 31) * 5.0
    assert lg.grad(bond)(0.05) == pytest.approx(3000 / (weights.sum() + 3000), rel=1e-9)


@needs_wider
@pytest.mark.parametrize("size", [1e-16, 1e-14, 1e-12, 1e-8])
def test_where_it_does_it_is_right_or_refused(size):
    unknown = lambda p: lg.root(lambda y: np.exp(y) - 1 - p, 0.0)
    assert lg.grad(unknown)(size) == pytest.approx(1 / (1 + size), rel=1e-9)
    try:
        found = lg.grad(lambda p: np.log(unknown(p)))(size)
    except lg.SingularSystem:
        assert size < 1e-12
    else:
        assert found == pytest.approx(1 / ((1 + size) * np.log1p(size)), rel=1e-6)


@needs_wider
@pytest.mark.parametrize("constant", [1e-18, 1e-20, 1e-22])
def test_entries_of_an_array_are_as_good_each_as_itself(constant):
    """A weak acid: the ion is nothing beside the rest, and felt in an equation all the same."""

    def ion(constant):
        return lg.root(
            lambda z: np.stack(
                [
                    z[0] * z[1] - 1e-14,
                    z[0] * z[2] - constant * z[3],
                    z[2] + z[3] - 1e-3,
                    z[0] - z[1] - z[2],
                ]
            ),
            np.array([1e-7, 1e-7, 0.05, 0.05]),
        )[2]

    with mpmath.workdps(60):
        k, water, total = mpmath.mpf(constant), mpmath.mpf(1e-14), mpmath.mpf(1e-3)
        acid = lambda a: a * (a + mpmath.sqrt(a * a + 4 * water)) / 2 - k * (total - a)
        wanted = float(mpmath.findroot(acid, k * total / mpmath.sqrt(water)))
    for found in (ion(constant), lg.compile(ion)(constant), lg.value_and_grad(ion)(constant)[0]):
        assert found == pytest.approx(wanted, rel=1e-9, abs=0)
    slope = lg.grad(lambda k: np.log(ion(k)))(constant)
    assert slope == pytest.approx(1 / constant, rel=1e-6)


def test_a_start_between_two_scales():
    """n p = n_i², n - p = N: the minority carriers, from a start as large as the others."""
    found = lg.root(lambda z: np.stack([z[0] * z[1] - 1, z[0] - z[1] - 1e18]), np.full(2, 1e18))
    np.testing.assert_allclose(found, [1e18, 1e-18], rtol=1e-12)
