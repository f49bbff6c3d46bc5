"""Bounds of errors hold: against fifty digits, for systems that cancel, and within products."""

import mpmath
import numpy as np
import pytest
from ill_scaled import KINDS, true_error

import lagrad as lg


def held(kind, count):
    """Errors, bounds, and whether each was refused."""
    return np.array([true_error(kind, seed) for seed in range(count)]).T


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_an_ill_scaled_system_holds_and_is_near(kind):
    errors, bounds, refused = held(kind, 25)
    assert (errors <= bounds).all()
    assert np.median(bounds / np.maximum(errors, 1e-17)) < 100
    assert (bounds[refused == 0] <= 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bounds_of_ten_thousand_ill_scaled_systems_hold(kind):
    errors, bounds, refused = held(kind, 1700)
    print(kind.__name__, "refused", refused.sum(), "worst", (errors / bounds).max())
    # A first-order bound says no more than that there is no solution, where it is as large as that.
    assert ((errors <= bounds) | (bounds > 1e-3)).all()
    assert np.median(bounds / np.maximum(errors, 1e-17)) < 100


def chained(seed):
    """Two blocks of which the second one takes the difference of large numbers."""
    rng = np.random.default_rng(seed)
    c, small = rng.uniform(0.5, 4, 6), float(10.0 ** rng.uniform(-15, -8))
    p = lg.Program("chained")
    a, z, y = p.parameter("a", value=1.0), p.unknown("z"), p.unknown("y")
    p.subject_to(c[0] * z == c[1] * a + c[2])
    p.subject_to(c[3] * z + small * y == c[5] * a)
    p.define("f", 2.2 * y + np.sin(y))
    with mpmath.workdps(50):
        m = [mpmath.mpf(v) for v in c]
        at = (m[5] - m[3] * (m[1] + m[2]) / m[0]) / small
        slope = (m[5] - m[3] * m[1] / m[0]) / small
        true = (mpmath.mpf(2.2) + mpmath.cos(at)) * slope
    return p, true


@pytest.mark.parametrize("seed", range(40))
def test_errors_of_two_blocks_do_not_cancel_in_the_bound(seed):
    p, true = chained(seed)
    try:
        gradient = p.solve().gradient("f")
    except lg.SingularSystem:
        return
    error = float(abs(gradient["a"] / true - 1))
    assert error <= max(10 * gradient.certificate.error_bound, 1e-6)
    assert error < 1e-6


def test_a_solution_that_would_move_along_a_free_direction_stays():
    # Potentials of Sinkhorn's iteration are free up to a constant. A step of 3e15 along it leaves
    # nothing of their differences, and a residual of a half.
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((4, 2)), rng.uniform(size=(3, 2))

    def cost(x):
        distances = np.sum((x[:, None] - y[None]) ** 2, axis=-1)
        other = lambda f: -np.log(3) - lg.logsumexp(f[:, None] - distances, axis=0)
        step = lambda f: -np.log(4) - lg.logsumexp(other(f)[None] - distances, axis=1)
        f = lg.fixed_point(step, np.zeros(4), solver="newton")
        return np.sum(np.exp(f[:, None] + other(f)[None] - distances) * distances)

    step = np.zeros((4, 2))
    step[1, 0] = 1e-5
    wanted = (cost(x + step) - cost(x - step)) / 2e-5
    assert lg.grad(cost)(x)[1, 0] == pytest.approx(float(wanted), rel=1e-6)
    # By the plain iteration, 3,000 times.
    assert cost(x) == pytest.approx(0.984297816624876, rel=1e-12)


@pytest.mark.parametrize("solve", ["fixed_point", "root"])
@pytest.mark.parametrize("seed", range(4))
def test_a_free_constant_is_never_a_wrong_number(solve, seed):
    matrix = np.random.default_rng(seed).uniform(size=(3, 3))

    def step(f, t):
        inner = -lg.logsumexp(f[:, None] - t * matrix, axis=0)
        return -lg.logsumexp(inner[None] - t * matrix, axis=1)

    def spread(t):
        if solve == "root":
            f = lg.root(lambda f: step(f, t) - f, np.zeros(3))
        else:
            f = lg.fixed_point(lambda f: step(f, t), np.zeros(3), solver="newton")
        return f[0] - f[2]

    def plain(t):
        f = np.zeros(3)
        for _ in range(3000):
            inner = -np.log(np.sum(np.exp(f[:, None] - t * matrix), axis=0))
            f = -np.log(np.sum(np.exp(inner[None] - t * matrix), axis=1))
        return f[0] - f[2]

    try:
        found = lg.grad(spread)(1.0)
    except (lg.SingularSystem, lg.NotConverged):
        return
    assert found == pytest.approx((plain(1 + 1e-4) - plain(1 - 1e-4)) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e-11, 1e-9])
def test_a_step_that_is_short_beside_a_large_unknown_is_no_solution_yet(scale):
    # Many roots lie within 1e-10 of the unknown's size: the residual says which it is near.
    p = lg.Program()
    c, u = p.parameter("c", value=-13.1), p.unknown("u")
    p.subject_to(4.3472 * scale * u + 4.323 * scale * np.sin(u) == c)
    try:
        at = p.solve()
    except (lg.NotConverged, lg.SingularSystem):
        return
    with mpmath.workdps(40):
        left = 4.3472 * scale * mpmath.mpf(at["u"]) + 4.323 * scale * mpmath.sin(at["u"]) + 13.1
    assert abs(left) < 1e-13


def normal_equations(singular_values, factored):
    rng = np.random.default_rng(0)
    u, _, w = np.linalg.svd(rng.standard_normal((7, 4)), full_matrices=False)
    a = u @ np.diag(singular_values) @ w
    b, c = rng.standard_normal(7), rng.standard_normal(4)
    exact = np.array(mpmath.matrix(a.tolist()) * inverse_gram(a, c), dtype=float).ravel()

    def fitted(b, t):
        gram = t * (a.T @ a)
        right = t * (a.T @ b)
        return c @ (np.linalg.solve(gram, right) if factored else np.linalg.inv(gram) @ right)

    return fitted, b, exact


def inverse_gram(a, c):
    with mpmath.workdps(60):
        m = mpmath.matrix(a.tolist())
        return mpmath.lu_solve(m.T * m, mpmath.matrix(c.tolist()))


@pytest.mark.parametrize("factored", [True, False])
def test_an_explicit_solve_with_an_ill_conditioned_matrix_is_refused(factored):
    fitted, b, _ = normal_equations([1, 1e-3, 1e-6, 1e-8], factored)
    both = lg.grad(fitted, argnums=(0, 1))
    for function in (both, lg.compile(both), lg.value_and_grad(fitted, argnums=(0, 1))):
        with pytest.raises(lg.SingularSystem, match="condition"):
            function(b, 1.0)
    with pytest.raises(lg.SingularSystem):
        lg.jvp(lambda b: fitted(b, 1.0 + 0 * b[0]), (b,), (b,))


@pytest.mark.parametrize("factored", [True, False])
def test_an_explicit_solve_that_is_accurate_enough_is_not(factored):
    fitted, b, exact = normal_equations([1, 0.1, 0.03, 0.003], factored)
    assert lg.grad(fitted)(b, 1.0) == pytest.approx(exact, rel=1e-7)
    at = lg.trace(fitted, b, 1.0).solve()
    assert 1e4 < at.certificate.condition < 1e6
    assert at.gradient("output").certificate.error_bound < 1e-8


def test_explicit_cancellation_stands_in_the_certificate():
    quotient = lambda x: (np.exp(x) - 1) / x
    bounds = []
    for x, true in ((1e-3, 0.5003334583750331), (1e-6, 0.5000003333334583), (1e-9, 0.5)):
        gradient = lg.trace(quotient, x).solve(accuracy=1e3).gradient("output")
        bounds.append(gradient.certificate.error_bound)
        assert abs(true / gradient["x"] - 1) < 10 * bounds[-1]
    assert bounds[0] < 1e-8
    assert bounds[2] > 0.5
