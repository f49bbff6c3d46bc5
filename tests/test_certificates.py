"""What is certified is right, and what is not raises."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.sparse as sparse

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
    n = 10
    hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    with pytest.raises(lg.SingularSystem, match="certified"):
        linear(hilbert, np.ones(n)).solve()
    linear(hilbert, np.ones(n)).solve(accuracy=1e3)


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

    for gap in (1e-2, 1e-4, 1e-6, 1e-15):
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
    assert at._point.values[p.variables["y"]].dtype == np.float32
    gradient = at.gradient("y")
    assert gradient["x"].dtype == np.float32
    exact = np.exp(np.sqrt(2)) / (2 * np.sqrt(2))
    assert abs(gradient["x"] / exact - 1) <= gradient.certificate.error_bound
    assert gradient.certificate.error_bound < 1e-5
