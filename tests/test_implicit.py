"""Fixed points, roots and argmins: known answers, nesting, solvers, and what must raise."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import lasso, logistic, ridge, ridge_by_hand, ridge_split
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, special
from scipy.optimize import brentq

import lagrad as lg


def differences(f, x, h=1e-4):
    """Four-point differences of a function of one number."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


# Known answers


def test_kepler_to_the_second_order():
    E = lambda M, e: lg.root(lambda E: E - e * np.sin(E) - M, 1.0)
    assert E(1.0, 0.5) == pytest.approx(1.4987011335178483, rel=1e-14)
    dM, de = lg.grad(E, (0, 1))(1.0, 0.5)
    assert dM == pytest.approx(1.0373620218936459, rel=1e-13)
    assert de == pytest.approx(1.0346672323734564, rel=1e-13)
    assert lg.grad(lg.grad(E))(1.0, 0.5) == pytest.approx(-0.55671303266858778, rel=1e-12)


@pytest.mark.parametrize("solver", ["anderson", "picard", "newton", lg.Anderson(memory=1)])
def test_the_fixed_point_of_a_cosine(solver):
    z = lambda theta: lg.fixed_point(lambda z: np.cos(theta * z), 1.0, solver=solver)
    assert z(1.0) == pytest.approx(0.73908513321516064, rel=1e-14)
    closed = -z(1.0) * np.sin(z(1.0)) / (1 + np.sin(z(1.0)))
    assert lg.grad(z)(1.0) == pytest.approx(closed, rel=1e-13)
    # z″ by SciPy's root of the equation at both sides.
    at = lambda theta: brentq(lambda z: np.cos(theta * z) - z, 0, 1, xtol=1e-15, rtol=1e-15)
    slope = lambda t: -at(t) * np.sin(t * at(t)) / (1 + t * np.sin(t * at(t)))
    assert lg.grad(lg.grad(z))(1.0) == pytest.approx(differences(slope, 1.0, 1e-3), rel=1e-9)


def test_the_inside_probability_of_a_grammar_and_its_singular_point():
    Z = lambda p, q: lg.fixed_point(lambda Z: p * Z**2 + q, 0.0)
    assert Z(0.25, 0.7) == pytest.approx(0.90455488498966777, rel=1e-14)
    found = lg.grad(Z, (0, 1))(0.25, 0.7)
    assert found == pytest.approx((1.4938576634228793, 1.8257418583505537), rel=1e-13)
    with pytest.raises((lg.SingularSystem, lg.NotContractive)):
        lg.grad(Z)(0.5, 0.5)


@pytest.mark.parametrize(
    ("lam", "loss", "first", "second"),
    [
        (0.1, 1391.8609387502293, -78.8884544902128, 2537.7668267),
        (1.0, 1594.4008574141496, 258.8884446218399, -79.75894980),
    ],
)
def test_ridge(lam, loss, first, second):
    assert ridge(lam) == pytest.approx(loss, rel=1e-13)
    assert lg.grad(ridge)(lam) == pytest.approx(first, rel=1e-12)
    assert lg.hvp(ridge, lam, 1.0) == pytest.approx(second, rel=1e-9)
    assert lg.grad(lg.grad(ridge))(lam) == pytest.approx(second, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3))
def test_ridge_at_any_penalty_has_its_closed_form(exponent):
    lam = 10.0**exponent
    loss, first, second = ridge_by_hand(lam)
    value, gradient = lg.value_and_grad(ridge)(lam)
    assert [value, gradient] == pytest.approx([loss, first], rel=1e-9)
    assert lg.hvp(ridge, lam, 1.0) == pytest.approx(second, rel=1e-7)


ROADS = {
    "cholesky": {},
    "LU": {"linear": lg.DenseLU()},
    "cg": {"linear": lg.CG()},
    "minres": {"linear": lg.MINRES()},
    "gmres": {"linear": lg.GMRES()},
    "jacobi": {"preconditioner": "jacobi"},
    "ilu": {"preconditioner": "ilu"},
    "own preconditioner": {"preconditioner": lambda v: v / 4.0},
    "centered": {"products": "centered"},
    "series": {"differentiate": lg.Neumann()},
    "lbfgs": {"solver": "L-BFGS-B"},
    "bfgs": {"solver": "BFGS"},
    "newton-cg": {"solver": "Newton-CG"},
    "trust-krylov": {"solver": "trust-krylov"},
    "trust-exact": {"solver": "trust-exact"},
    "minimize": {"solver": lg.Minimize("CG", tol=1e-9)},
}


@pytest.mark.parametrize("road", ROADS)
def test_every_solver_finds_the_same_gradient(road):
    found = lg.grad(lambda lam: ridge(lam, **ROADS[road]))(1.0)
    assert found == pytest.approx(258.8884446218399, rel=1e-9)


def test_logistic_regression_where_it_is_ill_conditioned():
    value, gradient = lg.value_and_grad(logistic)(0.01)
    assert value == pytest.approx(29.282915018199205, rel=1e-12)
    assert gradient == pytest.approx(-1308.676932705873, rel=1e-10)
    assert lg.grad(logistic)(1.0) == pytest.approx(1.5951133200300462, rel=1e-11)
    each = lg.grad(logistic)(np.full(30, 0.01))
    assert np.sum(each) == pytest.approx(-1308.676932705873, rel=1e-10)


@pytest.mark.parametrize(
    ("alpha", "loss", "slope", "tol"),
    [
        (1.0, 3583.344275885606, 1147.4342838547911, 1e-11),
        (0.1, 2792.873824688415, -4.604290713, 1e-9),
    ],
)
def test_lasso(alpha, loss, slope, tol):
    value, gradient = lg.value_and_grad(lasso)(np.log(alpha))
    assert value == pytest.approx(loss, rel=1e-11)
    assert gradient == pytest.approx(slope, rel=tol)


def test_the_lasso_has_no_gradient_at_a_knot_of_its_path():
    X, y, _, _ = ridge_split()
    knot = np.log(np.abs(X.T @ y).max() / 300)
    with pytest.raises(lg.SingularSystem, match="kinks"):
        lg.grad(lasso)(knot)
    assert lg.grad(lasso)(knot + 0.01) == 0.0
    assert lg.grad(lasso)(knot - 0.01) == pytest.approx(
        differences(lasso, knot - 0.01, 1e-4), rel=1e-6
    )


# Structure, nesting, closures


def test_starts_and_results_are_nested():
    def residual(z, a):
        return {"first": z["x"] ** 2 - a, "second": z["y"] - z["x"] * np.arange(2.0)}

    z = lg.root(residual, {"x": 1.0, "y": np.zeros(2)}, 4.0)
    assert z["x"] == pytest.approx(2.0)
    assert z["y"] == pytest.approx([0.0, 2.0])
    f = lambda a: np.sum(lg.root(residual, {"x": 1.0, "y": np.zeros(2)}, a)["y"])
    assert lg.grad(f)(4.0) == pytest.approx(0.25)


def test_an_argmin_of_a_function_that_holds_a_fixed_point():
    def best(lam):
        def objective(t):
            z = lg.fixed_point(lambda z: 0.5 * np.cos(z) * t + 0.1, 0.0)
            return (z - 0.3) ** 2 + lam * t**2

        return lg.argmin(objective, 0.5)

    assert lg.grad(best)(0.1) == pytest.approx(differences(best, 0.1, 1e-3), rel=1e-8)
    second = lg.grad(lg.grad(best))(0.1)
    assert second == pytest.approx(differences(lg.grad(best), 0.1, 1e-3), rel=1e-8)


def test_an_argmin_of_a_function_that_holds_an_argmin():
    def outer(a):
        def upper(x):
            y = lg.argmin(lambda y: (y - x) ** 2 + 0.1 * y**4, 0.0)
            return (y - a) ** 2 + 0.3 * x**2

        return lg.argmin(upper, 0.2)

    assert lg.grad(outer)(1.0) == pytest.approx(differences(outer, 1.0, 1e-3), rel=1e-7)


def test_a_root_inside_a_fixed_point_inside_a_root():
    def f(a):
        def equation(x):
            z = lg.fixed_point(
                lambda z: 0.3 * np.sin(z) + lg.root(lambda w: w**3 + w - x, 0.5), 0.1
            )
            return z * x - a

        return lg.root(equation, 1.0)

    assert lg.grad(f)(1.3) == pytest.approx(differences(f, 1.3, 1e-3), rel=1e-8)


def test_arguments_and_closures_are_the_same():
    X = np.random.default_rng(0).standard_normal((5, 3))
    closing = lambda y: lg.argmin(lambda w: np.sum((X @ w - y) ** 2), np.zeros(3))
    passing = lambda y: lg.argmin(lambda w, y: np.sum((X @ w - y) ** 2), np.zeros(3), y)
    y = np.arange(5.0)
    expected = np.linalg.pinv(X)
    assert lg.jacobian(closing)(y) == pytest.approx(expected)
    assert lg.jacobian(passing)(y) == pytest.approx(expected)
    assert closing(y) == pytest.approx(expected @ y)


def test_second_order_through_an_argmin_of_several_parameters():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((6, 3))

    def f(a):
        w = lg.argmin(
            lambda w: np.sum(np.logaddexp(0, A @ w)) + np.sum(np.exp(a) * w**2), np.zeros(3)
        )
        return np.sum(np.sin(w))

    a, t = rng.standard_normal(3), rng.standard_normal(3)
    along = lambda h: lg.grad(f)(a + h * t)
    expected = differences(along, 0.0, 1e-3)
    assert lg.hvp(f, a, t) == pytest.approx(expected, rel=1e-8)
    assert lg.hessian(f)(a) @ t == pytest.approx(expected, rel=1e-8)


def test_a_batch_of_equilibria():
    rng = np.random.default_rng(0)
    n, batch = 40, 16
    W, x = 0.5 * rng.standard_normal((n, n)) / np.sqrt(n), rng.standard_normal((batch, n))
    f = lambda W: np.sum(lg.fixed_point(lambda z: np.tanh(z @ W + x), np.zeros((batch, n))) ** 2)
    value, gradient = lg.value_and_grad(f)(W)
    z = np.zeros((batch, n))
    for _ in range(200):
        z = np.tanh(z @ W + x)
    s, lam = 1 - z * z, 2 * z
    for _ in range(200):
        lam = 2 * z + (lam * s) @ W.T
    assert value == pytest.approx(np.sum(z**2), rel=1e-12)
    assert gradient == pytest.approx(z.T @ (lam * s), rel=1e-9, abs=1e-9)


def test_single_precision():
    f = lambda a: lg.argmin(lambda z: np.sum((z - a) ** 2 + z**4), np.zeros(2, np.float32))
    found = lg.jacobian(f)(np.array([1.0, 2.0], np.float32))
    assert found.dtype == np.float32
    z = f(np.array([1.0, 2.0], np.float32))
    assert np.diag(found) == pytest.approx(1 / (1 + 6 * z**2), rel=1e-3)


# Approximate derivatives, asked for


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_truncated_series_is_that_of_so_many_terms(k):
    A = 0.4 * np.array([[0.5, 1.0], [-0.3, 0.8]])
    f = lambda x: np.sum(
        lg.fixed_point(lambda z: A @ z + x, np.zeros(2), differentiate=lg.Neumann(terms=k))
    )
    expected = sum(np.linalg.matrix_power(A.T, i) @ np.ones(2) for i in range(k))
    assert lg.grad(f)(np.ones(2)) == pytest.approx(expected)
    certificate = lg.trace(f, np.ones(2)).solve().gradient("output").certificate
    assert certificate.differentiated == f"Neumann series of {k} terms"
    left = np.linalg.matrix_power(A.T, k) @ np.ones(2)
    assert certificate.truncation == pytest.approx(np.abs(left).max(), rel=1e-9)


def test_damping_makes_a_singular_hessian_solvable():
    flat = lambda a, **k: np.sum(lg.argmin(lambda z: (z[0] + z[1] - a) ** 2, np.zeros(2), **k))
    # The sum is what is determined.
    assert lg.grad(flat)(1.0) == pytest.approx(1.0, rel=1e-12)
    # The smallest change of z that follows a: the pseudo-inverse.
    damped = lambda a: flat(a, damping=1e-6)
    assert lg.grad(damped)(1.0) == pytest.approx(1.0, rel=1e-5)
    certificate = lg.trace(damped, 1.0).solve().gradient("output").certificate
    assert "damping" in certificate.differentiated


def test_black_boxes_by_differences():
    simulator = lambda z, x: np.array([np.cos(float(x) * float(z[0]))])
    box = lg.primitive(simulator, jvp="centered")
    step = lambda x: lg.fixed_point(box, np.array([1.0]), x)[0]
    equation = lambda x: lg.root(lambda z, x: z - box(z, x), np.array([1.0]), x)[0]
    z = 0.73908513321516064
    closed = -z * np.sin(z) / (1 + np.sin(z))
    assert lg.grad(step)(1.0) == pytest.approx(closed, rel=1e-9)
    assert lg.grad(equation)(1.0) == pytest.approx(closed, rel=1e-9)
    slope = lg.primitive(lambda z, lam: np.asarray(2 * (z - 3) + 2 * lam * z), jvp="centered")
    theta = lambda lam: lg.argmin(None, 0.0, lam, gradient=slope)
    assert lg.grad(theta)(1.0) == pytest.approx(-0.75, rel=1e-9)


def test_a_preconditioner_is_transposed_where_the_system_is():
    rng = np.random.default_rng(0)
    n = 200
    A = np.diag(np.geomspace(1, 1e2, n)) + np.triu(rng.standard_normal((n, n)), 1) / 4
    inverse = np.linalg.inv(A) @ (np.eye(n) + 1e-4 * rng.standard_normal((n, n)))

    def gradient(preconditioner):
        # So few steps that only a preconditioner for this very system reaches the end.
        linear = lg.GMRES(tol=1e-10, restart=10, max_steps=40)
        solution = lambda x: lg.root(
            lambda z: A @ z - x, np.zeros(n), linear=linear, preconditioner=preconditioner
        )
        return lg.grad(lambda x: np.sum(solution(x)))(np.ones(n))

    expected = np.linalg.solve(A.T, np.ones(n))
    turning = lambda v, transposed: (inverse.T if transposed else inverse) @ v
    for given_ in (inverse, sparse.csr_array(inverse), turning):
        assert gradient(given_) == pytest.approx(expected, rel=1e-7, abs=1e-10)
    with pytest.raises(lg.NotConverged, match="GMRES"):
        gradient(lambda v, transposed: inverse @ v)


def test_a_warm_start_saves_steps_and_changes_nothing():
    def gradient(start):
        return lg.compile(
            lg.grad(
                lambda a: np.sum(
                    lg.argmin(
                        lambda w: np.sum(np.cosh(w)) + np.sum((w - a) ** 2), start, linear=lg.CG()
                    )
                )
            )
        )

    warm = lg.WarmStart(np.zeros(20))
    cold, kept = gradient(np.zeros(20)), gradient(warm)
    for shift in (0.0, 0.01, 3.0, 3.0):
        a = np.linspace(-2, 2, 20) + shift
        assert kept(a) == pytest.approx(cold(a), rel=1e-8)
    w = warm.value
    assert np.sinh(w) + 2 * (w - a) == pytest.approx(np.zeros(20), abs=1e-9)
    assert warm.multipliers is not None


def test_starts_may_be_traced_and_carry_no_derivative():
    f = lambda a, s: lg.root(lambda z: z**2 - a, s)
    assert lg.grad(f)(4.0, 3.0) == pytest.approx(0.25)
    assert lg.grad(f, 1)(4.0, 3.0) == 0.0
    compiled = lg.compile(f)
    assert [compiled(4.0, 3.0), compiled(4.0, -3.0)] == pytest.approx([2.0, -2.0])


# What must raise


def test_a_repelling_fixed_point_is_no_limit_of_the_iteration():
    with pytest.raises(lg.NotContractive, match="not shrinking"):
        lg.fixed_point(lambda z: 2 * z + 1, 1.0)
    with pytest.raises(lg.NotContractive, match="spectral radius is 2"):
        lg.fixed_point(lambda z: 2 * z + 1, -1.0)
    with pytest.raises(lg.NotContractive, match="Picard"):
        lg.fixed_point(lambda z: 2 * z + 1, 1.0, solver="picard")
    assert lg.fixed_point(lambda z: 2 * z + 1, 1.0, solver="newton") == -1.0


def test_an_iteration_that_stops_early_raises_with_its_history():
    with pytest.raises(lg.NotContractive, match="3 steps"):
        lg.fixed_point(lambda z: 0.999 * z + 1, np.zeros(300), solver=lg.Picard(max_steps=3))


def test_a_saddle_is_no_minimum():
    double_well = lambda z: np.sum(z**2) - 3 * z[0] ** 2 + 0.1 * np.sum(z**4)
    with pytest.raises(lg.NotPositiveDefinite, match=r"curvature.*'z\[0\]'"):
        lg.argmin(double_well, np.zeros(2))
    for start in (np.full(2, 0.1), np.array([0.0, 1.0])):
        assert np.abs(lg.argmin(double_well, start)) == pytest.approx([np.sqrt(10), 0], abs=1e-9)


def test_a_maximum_is_no_minimum_for_conjugate_gradients_either():
    with pytest.raises(lg.NotPositiveDefinite, match="curvature"):
        lg.argmin(lambda z: -np.sum(z**2), np.ones(3), linear=lg.CG(positive=True))


BAD = {
    "vector objective": (
        lambda: lg.argmin(lambda z: z**2, np.ones(2)),
        lg.InvalidFunction,
        r"\(2,\).*np.sum",
    ),
    "linear objective": (lambda: lg.argmin(lambda z: -z, 0.0), lg.InvalidFunction, "linear"),
    "step of another shape": (
        lambda: lg.fixed_point(lambda z: np.concatenate([z, z]), np.ones(2)),
        lg.ShapeMismatch,
        r"\(2,\).*\(4,\)",
    ),
    "step of another dtype": (
        lambda: lg.fixed_point(lambda z: z * np.ones(2), np.ones(2, np.float32)),
        lg.ShapeMismatch,
        "float32.*float64",
    ),
    "step of another structure": (
        lambda: lg.fixed_point(lambda z: {"a": z["a"]}, {"a": 1.0, "b": 1.0}),
        lg.ShapeMismatch,
        "keys",
    ),
    "too few residuals": (
        lambda: lg.root(lambda z: np.sum(z), np.ones(2)),
        lg.ShapeMismatch,
        "1 numbers, for 2 unknowns",
    ),
    "empty start": (lambda: lg.root(lambda z: z, {}), lg.InvalidFunction, "at least one"),
    "text start": (lambda: lg.root(lambda z: z, "a"), lg.UnsupportedType, "start"),
    "NaN start": (lambda: lg.root(lambda z: z, np.nan), lg.InvalidValue, "NaN"),
    "unknown solver": (lambda: lg.root(lambda z: z, 1.0, solver="x"), lg.UnsupportedType, "'x'"),
    "unknown method": (lambda: lg.argmin(lambda z: z**2, 1.0, solver="x"), lg.InvalidValue, "'x'"),
    "damping": (lambda: lg.root(lambda z: z, 1.0, damping=-1), lg.InvalidValue, "damping"),
    "tol": (lambda: lg.root(lambda z: z, 1.0, tol=2.0), lg.InvalidValue, "tol"),
    "series": (lambda: lg.Neumann(terms=0), lg.InvalidValue, "terms"),
    "differentiate": (
        lambda: lg.root(lambda z: z, 1.0, differentiate="x"),
        lg.InvalidValue,
        "differentiate",
    ),
    "products": (lambda: lg.argmin(lambda z: z**2, 1.0, products="x"), lg.InvalidValue, "products"),
    "preconditioner": (
        lambda: lg.root(lambda z: z, 1.0, preconditioner="x"),
        lg.InvalidValue,
        "preconditioner",
    ),
    "NaN in data": (
        lambda: lg.argmin(lambda w: np.sum((w - np.array([1.0, np.nan])) ** 2), np.zeros(2)),
        lg.NotFinite,
        r"nan at \[1\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    act, error, message = BAD[case]
    with pytest.raises(error, match=message):
        act()


# Where steps have several fixed points, plain ones from the start say which is meant.

MAPS = {
    "steps of gradient descent on a double well": (lambda z: z - 0.3 * (z**3 - z), (-1.6, 1.6)),
    "steps beside a repelling point": (lambda z: np.tanh(1.5 * z), (-3, 3)),
    "a saturating map": (lambda z: 1 - np.exp(-2 * z), (0.01, 5)),
    "a sum with its sine": (lambda z: z + 0.8 * np.sin(z), (-20, 20)),
    "a population": (lambda z: z * np.exp(1.5 * (1 - z)), (0.05, 4)),
    "two competitors": (
        lambda z: z * np.exp(0.6 * (1 - np.array([[1, 1.5], [1.5, 1]]) @ z)), (0.1, 2)
    ),
    "wells with saddles between": (
        lambda z: z - 0.05 * (4 * z * (z * z - 1) + np.array([[0.9, 0.4], [0.4, 0.3]]) @ z),
        (-2, 2),
    ),
}  # fmt: skip


def plainly(step, z):
    for _ in range(20_000):
        before, z = z, step(z)
        if np.max(np.abs(z - before)) <= 1e-13 * np.max(np.abs(z)):
            return z
    raise AssertionError("no limit")


@pytest.mark.parametrize("name", MAPS)
def test_acceleration_ends_where_plain_steps_do(name):
    step, (low, high) = MAPS[name]
    rng = np.random.default_rng(0)
    solve = lg.compile(lambda start: lg.fixed_point(step, start))
    for _ in range(25):
        start = rng.uniform(low, high, 2)
        if name not in ("two competitors", "wells with saddles between"):
            start = start[0]
        assert solve(start) == pytest.approx(plainly(step, start), rel=1e-6, abs=1e-8)


def test_acceleration_costs_fewer_steps_than_plain_ones():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((50, 50)))
    matrix, b = basis @ np.diag(np.linspace(-0.99, 0.99, 50)) @ basis.T, rng.standard_normal(50)
    counts = []

    def step(z):
        counts.append(1)
        return matrix @ z + b

    found, _ = lg.Anderson().run(step, np.zeros(50))
    assert found == pytest.approx(np.linalg.solve(np.eye(50) - matrix, b), rel=1e-7)
    assert len(counts) < 400  # plain steps: about 2,000


# A branch on which nothing is found leads to another one.


@pytest.mark.parametrize(
    ("residual", "start", "root", "slope"),
    [
        (lambda x, a: x**2 if x > 1 else 2 * x - a, 5.0, 0.4, 0.5),  # a multiple root beyond
        (lambda x, a: x + 3 * a if x > 1 else 2 * x - a, 5.0, 0.4, 0.5),
        (lambda x, a: np.exp(x) if x > 0 else x + a, 3.0, -0.8, -1.0),  # no root there
        (lambda x, a: x**2 + 1 if x > 1 else 2 * x - a, 5.0, 0.4, 0.5),
    ],
)
def test_a_root_beyond_the_branch_of_the_start(residual, start, root, slope):
    solve = lambda a: lg.root(residual, start, a)
    assert solve(0.8) == pytest.approx(root, rel=1e-12)
    assert lg.grad(solve)(0.8) == pytest.approx(slope, rel=1e-9)
    assert lg.compile(solve)(0.8) == pytest.approx(root, rel=1e-12)


def test_no_root_on_any_branch():
    with pytest.raises(lg.NotConverged):
        lg.root(lambda x: x**2 + 1 if x > 0 else x * x + 2, 5.0)


def test_large_fixed_points_beside_a_repelling_one():
    # At zero each step leaves; the iteration itself settles at ±0.86.
    step = lambda z: np.tanh(1.5 * z)
    start = 1e-3 * np.cos(np.arange(400.0))
    expected = plainly(step, start)
    assert lg.fixed_point(step, start) == pytest.approx(expected, rel=1e-7)
    with pytest.raises(lg.NotContractive):
        lg.fixed_point(step, np.zeros(400))


STEPS = {
    "fixed_point": lambda a: lg.fixed_point(
        lambda z: {"y": 0.5 * z["x"], "x": 0.5 * np.cos(z["y"]) + a}, {"x": 0.0, "y": 0.0}
    ),
    "unrolled": lambda a: lg.fixed_point(
        lambda z: {"y": 0.5 * z["x"], "x": 0.5 * np.cos(z["y"]) + a},
        {"x": 0.0, "y": 0.0},
        differentiate=lg.Unrolled(60),
    ),
    "root": lambda a: lg.root(
        lambda z: {"y": 0.5 * z["x"] - z["y"], "x": 0.5 * np.cos(z["y"]) + a - z["x"]},
        {"x": 0.0, "y": 0.0},
    ),
    "gradient": lambda a: lg.argmin(
        lambda z: (z["x"] - a) ** 2 + (z["y"] - 0.5 * z["x"]) ** 2,
        {"x": 0.0, "y": 0.0},
        gradient=lambda z: {
            "y": 2 * (z["y"] - 0.5 * z["x"]),
            "x": 2 * (z["x"] - a) - (z["y"] - 0.5 * z["x"]),
        },
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_results_whose_keys_stand_in_another_order(name):
    found, slope = lg.value_and_grad(lambda a: STEPS[name](a)["y"])(1.0)
    if name == "gradient":
        assert (float(found), float(slope)) == pytest.approx((0.5, 0.5), rel=1e-10)
    else:
        y = brentq(lambda y: 2 * y - 1 - 0.5 * np.cos(y), 0, 2, xtol=1e-15)
        assert float(found) == pytest.approx(y, rel=1e-10)
        assert float(slope) == pytest.approx(1 / (2 + 0.5 * np.sin(y)), rel=1e-9)


def test_second_derivatives_of_a_root_of_digamma():
    # Its slope is zeta(2, z), of whose order nobody asks a derivative: dz/da = 1/ψ', −ψ''/ψ'³.
    solve = lambda a: lg.root(lambda z: special.digamma(z) - a, 1.5)
    z = float(solve(0.0))
    first, second = (float(special.polygamma(k, z)) for k in (1, 2))
    assert lg.grad(solve)(0.0) == pytest.approx(1 / first, rel=1e-12)
    assert lg.grad(lg.grad(solve))(0.0) == pytest.approx(-second / first**3, rel=1e-10)
