"""The derivative at a kink is the mean of the whole derivative on all its sides."""

import mpmath
import numpy as np
import pytest

import lagrad as lg

S = np.sum
relu = lambda x: np.maximum(x, 0)


def both_sides(f, order, at=0.0):
    """The mean of one-sided derivatives, by mpmath at 60 digits, a step off the kink."""
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -12
        sides = [mpmath.diff(f, at + s * step, order, h=mpmath.mpf(10) ** -18) for s in (1, -1)]
        return float((sides[0] + sides[1]) / 2)


def repeated(f, order):
    for _ in range(order):
        f = lg.grad(f)
    return f


# Of one number at zero: a function, and the same for mpmath.
PLAIN = {
    "|x|²": (lambda x: np.abs(x) ** 2, lambda x: abs(x) ** 2),
    "|x|³": (lambda x: np.abs(x) ** 3, lambda x: abs(x) ** 3),
    "|x|⁴": (lambda x: np.abs(x) ** 4, lambda x: abs(x) ** 4),
    "|x|x": (lambda x: np.abs(x) * x, lambda x: abs(x) * x),
    "|x|³ sign x": (lambda x: np.abs(x) ** 3 * np.sign(x), lambda x: x**3),
    "(x sign x)²": (lambda x: (x * np.sign(x)) ** 2, lambda x: x**2),
    "|x||2x|": (lambda x: np.abs(x) * np.abs(2 * x), lambda x: 2 * x**2),
    "|x²|": (lambda x: np.abs(x**2), lambda x: x**2),
    "||x||²": (lambda x: np.abs(np.abs(x)) ** 2, lambda x: x**2),
    "relu²": (lambda x: relu(x) ** 2, lambda x: max(x, 0) ** 2),
    "relu·relu": (lambda x: relu(x) * relu(x), lambda x: max(x, 0) ** 2),
    "relu³": (lambda x: relu(x) ** 3, lambda x: max(x, 0) ** 3),
    "relu(x)relu(−x)": (lambda x: relu(x) * relu(-x), lambda x: 0 * x),
    "relu relu": (lambda x: relu(relu(x)), lambda x: max(x, 0)),
    "|relu|": (lambda x: np.abs(relu(x)), lambda x: max(x, 0)),
    "min²": (lambda x: np.minimum(x, 0) ** 2, lambda x: min(x, 0) ** 2),
    "fmax²": (lambda x: np.fmax(x, 0) ** 2, lambda x: max(x, 0) ** 2),
    "fmin²": (lambda x: np.fmin(x, 0.0) ** 2, lambda x: min(x, 0) ** 2),
    "max(x, −x)²": (lambda x: np.maximum(x, -x) ** 2, lambda x: x**2),
    "clip²": (lambda x: np.clip(x, 0, 1) ** 2, lambda x: max(x, 0) ** 2),
    "clip² at its upper end": (lambda x: np.clip(x + 1, 0, 1) ** 2, lambda x: min(x + 1, 1) ** 2),
    "where x², −x²": (lambda x: np.where(x > 0, x**2, -(x**2)), lambda x: abs(x) * x),
    "where x², 3x²": (
        lambda x: np.where(x >= 0, x**2, 3 * x**2),
        lambda x: x**2 * (2 - mpmath.sign(x)),
    ),
    "where x², 3x": (lambda x: np.where(x < 0, x**2, 3 * x), lambda x: x**2 if x < 0 else 3 * x),
    "a mask": (lambda x: x**2 * (x > 0), lambda x: max(x, 0) ** 2),
    "two conditions": (
        lambda x: np.where(np.logical_and(x > 0, x < 1), x**2, 0 * x),
        lambda x: max(x, 0) ** 2,
    ),
    "Huber at its joint": (
        lambda x: np.where(np.abs(x + 1) <= 1, 0.5 * (x + 1) ** 2, np.abs(x + 1) - 0.5),
        lambda x: (x + 1) ** 2 / 2 if abs(x + 1) <= 1 else abs(x + 1) - mpmath.mpf(0.5),
    ),
    "cos|x|": (lambda x: np.cos(np.abs(x)), mpmath.cos),
    "exp(−|x|²)": (lambda x: np.exp(-(np.abs(x) ** 2)), lambda x: mpmath.exp(-(x**2))),
    "|x| sin|x|": (lambda x: np.abs(x) * np.sin(np.abs(x)), lambda x: x * mpmath.sin(x)),
    "|x|²/(1+|x|)": (lambda x: np.abs(x) ** 2 / (1 + np.abs(x)), lambda x: x**2 / (1 + abs(x))),
    "soft threshold²": (lambda x: lg.prox.l1(x + 1, 1.0) ** 2, lambda x: max(x, 0) ** 2),
    "√(|x|²)²": (lambda x: np.sqrt(np.abs(x) ** 2) ** 2, lambda x: x**2),
    "logaddexp": (lambda x: np.logaddexp(x, 0), lambda x: mpmath.log(1 + mpmath.exp(x))),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_the_mean_of_both_sides_to_every_order(name, order):
    f, exact = PLAIN[name]
    expected = both_sides(exact, order)
    found = repeated(f, order)(0.0)
    assert float(found) == pytest.approx(expected, abs=2e-9)
    assert float(lg.compile(repeated(f, order))(0.0)) == pytest.approx(float(found), abs=1e-12)


def test_every_transform_has_the_same_mean():
    f = lambda x: S(np.abs(x) ** 2) + S(relu(x - 1) ** 2)
    x, v = np.array([0.0, 1.0, -2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    expected = np.diag([2.0, 3.0, 2.0, 4.0])
    assert lg.hessian(f)(x) == pytest.approx(expected)
    assert lg.hessian(f, sparse=True)(x).toarray() == pytest.approx(expected)
    assert lg.jacobian(lg.grad(f))(x) == pytest.approx(expected)
    assert lg.hvp(f, x, v) == pytest.approx(expected @ v)
    assert lg.jvp(lg.grad(f), (x,), (v,))[1] == pytest.approx(expected @ v)
    back = lambda z: lg.vjp(f, z)[1](1.0)
    assert lg.vjp(back, x)[1](v) == pytest.approx(expected @ v)
    compiled = lg.compile(lambda x: lg.hessian(f)(x))
    for at in (x, x + 0.5, x):
        kinks = np.diag(2.0 + 2.0 * (at > 1) + 1.0 * (at == 1))
        assert compiled(at) == pytest.approx(kinks)
    value, gradient = lg.value_and_grad(lambda x: S(lg.grad(f)(x)))(x)
    assert (value, list(gradient)) == (8.0, [2.0, 3.0, 2.0, 4.0])
    assert lg.hessian(f)(x.astype(np.float32)) == pytest.approx(expected)


def test_distinct_kinks_are_independent_and_the_same_one_is_the_same():
    zero = np.zeros(2)
    assert lg.hessian(lambda x: np.abs(x[0]) * np.abs(x[1]))(zero) == pytest.approx(
        np.zeros((2, 2))
    )
    for n in (2, 3, 7, 70):
        assert lg.hessian(lambda x: S(np.abs(x)) ** 2)(np.zeros(n)) == pytest.approx(2 * np.eye(n))
    assert lg.hessian(lambda x: np.prod(np.abs(x) ** 2))(np.array([0.0, 3.0])) == pytest.approx(
        np.diag([18.0, 0.0])
    )
    apart = lambda a, b: np.abs(a - b) ** 2
    found = lg.hessian(apart, argnums=(0, 1))(1.0, 1.0)
    assert np.array(found) == pytest.approx(np.array([[2.0, -2.0], [-2.0, 2.0]]))


def test_the_largest_entries_take_turns():
    for n in (2, 3, 4):
        found = lg.hessian(lambda x: np.max(x) ** 2)(np.ones(n))
        assert found == pytest.approx(2 / n * np.eye(n))
        assert lg.grad(np.max)(np.ones(n)) == pytest.approx(np.full(n, 1 / n))
    assert lg.grad(np.max)(np.ones(5)).tolist() == [0.2] * 5
    assert lg.hessian(lambda x: np.maximum(x[0], x[1]) ** 2)(np.ones(2)) == pytest.approx(np.eye(2))
    assert lg.hessian(lambda x: np.linalg.norm(x, np.inf) ** 2)(np.zeros(2)) == pytest.approx(
        np.eye(2)
    )
    assert lg.hessian(lambda x: np.linalg.norm(x, 1) ** 2)(np.zeros(2)) == pytest.approx(
        2 * np.eye(2)
    )


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: np.linalg.norm(x) ** 2, 2.0),
        (lambda x: np.hypot(x[0], x[1]) ** 2, 2.0),
        (lambda x: np.hypot(x[0], x[1]) * np.hypot(2 * x[0], 2 * x[1]), 4.0),
        (lambda x: np.linalg.norm(x) ** 3, 0.0),
        (lambda x: np.linalg.norm(x) ** 4, 0.0),
    ],
)
def test_the_tip_of_a_cone_squared_is_smooth(f, expected):
    zero = np.zeros(2)
    assert lg.grad(f)(zero) == pytest.approx(zero)
    assert lg.hessian(f)(zero) == pytest.approx(expected * np.eye(2), abs=1e-9)
    assert lg.hvp(f, zero, np.ones(2)) == pytest.approx(expected * np.ones(2), abs=1e-9)


@pytest.mark.parametrize("f", [np.sqrt, np.cbrt, lambda x: np.sqrt(np.abs(x))])
def test_an_infinite_slope_has_no_mean(f):
    with pytest.raises(lg.NotFinite):
        lg.grad(f)(0.0)


def test_where_a_branch_jumps_the_chosen_one_counts():
    assert lg.grad(lambda x: np.where(x <= 1, x, 0.0))(1.0) == 1.0
    assert lg.grad(lambda x: np.where(x < 1, x, 0.0))(1.0) == 0.0
    assert lg.grad(lambda x: np.where(x > 0, x + 1, 3 * x))(0.0) == 3.0
    # Equality chooses: at zero it is that branch alone, whatever kink is met beside it.
    safe = lambda x: np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1.0, x))
    f = lambda x: safe(x[0]) + np.abs(x[1]) ** 2
    assert lg.hessian(f)(np.zeros(2)) == pytest.approx(np.diag([0.0, 2.0]))


def test_a_side_without_a_finite_derivative_leaves_the_chosen_one():
    f = lambda x: np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
    assert lg.grad(f)(0.0) == 0.0


A, Y = np.array([[1.0, 0], [0, 1], [0, 1]]), np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize("x", [0.3, -0.7, 0.0])
def test_a_condition_that_is_a_number_chooses_where_it_is_not_zero(x):
    f = lambda x: np.where(x, 3.0 * x, 5.0) + np.where(np.sin(x), x, 2.0 * x)
    assert lg.grad(f)(x) == (4.0 if x else 2.0)
    assert lg.grad(lambda x: np.sinc(np.asarray(x)))(0.3) == pytest.approx(-0.9020281301, rel=1e-8)


def test_least_squares_by_absolute_values_has_the_pseudo_inverse():
    fit = lambda y: lg.argmin(lambda w: S(np.abs(A @ w - y) ** 2), np.zeros(2))
    assert lg.jacobian(fit)(Y) == pytest.approx(np.linalg.pinv(A))
    B = np.random.default_rng(0).normal(size=(5, 3))
    w = np.array([1.0, 2.0, 3.0])
    exact = lambda y: lg.argmin(lambda w: S(np.abs(B @ w - y) ** 2), w)
    assert lg.jacobian(exact)(B @ w) == pytest.approx(np.linalg.pinv(B))


@pytest.mark.parametrize(
    ("f", "first", "second"),
    [
        # z = |x|²: explicit in all but name.
        (lambda x: lg.fixed_point(lambda z: z / 2 + np.abs(x) ** 2, 0.0), 0, 4),
        (lambda x: lg.root(lambda z: z + z**3 - np.abs(x) ** 2, 0.0), 0, 2),
        # z + g(z) = x has z″ = −g″ z′³.
        (lambda x: lg.root(lambda z: z + np.abs(z) ** 2 - x, 0.0), 1, -2),
        (lambda x: lg.root(lambda z: z + z * np.abs(z) - x, 0.0), 1, 0),
        (lambda x: lg.root(lambda z: z + relu(z) ** 2 - x, 0.0), 1, -1),
        (lambda x: np.abs(lg.root(lambda z: z - 2 * x, 0.0)) ** 2, 0, 8),
        (lambda x: np.abs(lg.root(lambda z: z - 2 * x, 0.0) - x) * np.abs(x), 0, 2),
        # 2(w − t) + 3w|w| = 0
        (lambda t: lg.argmin(lambda w: (w - t) ** 2 + np.abs(w) ** 3, 0.0), 1, 0),
    ],
)
def test_in_blocks_it_is_the_mean_too(f, first, second):
    assert lg.grad(f)(0.0) == pytest.approx(first, abs=1e-9)
    assert lg.hessian(f)(0.0) == pytest.approx(second, abs=1e-9)
    assert lg.grad(lg.grad(f))(0.0) == pytest.approx(second, abs=1e-9)
    assert lg.hvp(f, 0.0, 1.0) == pytest.approx(second, abs=1e-9)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (
            lambda x: lg.scan(lambda c, t: (c + np.abs(x * t) ** 2, 0.0), 0.0, np.arange(1.0, 4.0))[
                0
            ],
            28,
        ),
        (lambda x: S(lg.scan(lambda c, t: (np.abs(c), c**2), x, np.arange(3.0))[1]), 6),
        (lambda x: S(lg.scan(lambda c, t: (relu(c), relu(c) ** 2), x, np.arange(3.0))[1]), 3),
        (lambda x: lg.iterate(np.abs, x, 3) ** 2, 2),
    ],
)
def test_in_loops_it_is_the_mean_too(f, expected):
    assert lg.hessian(f)(0.0) == pytest.approx(expected, abs=1e-9)
    assert lg.grad(lg.grad(f))(0.0) == pytest.approx(expected, abs=1e-9)
    assert lg.hvp(f, 0.0, 1.0) == pytest.approx(expected, abs=1e-9)


def test_a_declared_program_says_that_it_is_at_a_kink():
    p = lg.Program()
    x = p.parameter("x", value=[0.0, 1.0, 3.0])
    p.define("f", S(relu(x - 1) ** 2))
    p.define("g", S(np.abs(x) ** 2))
    at = p.solve()
    bent, smooth = (at.hessian_vector(name, x=np.ones(3)) for name in "fg")
    assert bent["x"].tolist() == [0.0, 1.0, 2.0]
    assert smooth["x"].tolist() == [2.0, 2.0, 2.0]
    # One side has 0, the other 2, of a largest entry of 2.
    assert bent.certificate.kink == pytest.approx(1.0)
    assert "at a kink" in str(bent.certificate)
    assert smooth.certificate.kink == pytest.approx(0.0)
    assert "kink" not in str(smooth.certificate)
    assert p.adjoint("f").solve()["λ_x"].tolist() == [0.0, 0.0, 4.0]


def test_a_solved_program_says_so_as_well():
    p = lg.Program()
    z = p.unknown("z", start=0.1)
    p.subject_to(z + relu(z) ** 2 == p.parameter("x", value=0.0))
    bent = p.solve().hessian_vector("z", x=1.0)
    assert bent["x"] == pytest.approx(-1.0)
    assert bent.certificate.kink == pytest.approx(1.0)
    assert "at a kink" in str(bent.certificate)


def test_what_is_no_kink_costs_no_sides(monkeypatch):
    from lagrad.solving.kinks import Kinks

    def refused(*_):
        raise AssertionError("a side was asked for")

    monkeypatch.setattr(Kinks, "side", refused)
    f = lambda x: S(relu(np.abs(x) - 1) ** 2)
    x = np.array([0.5, -2.0, 3.0])
    assert lg.hessian(f)(x) == pytest.approx(np.diag([0.0, 2.0, 2.0]))
    assert lg.grad(lambda x: S(np.abs(x)))(np.zeros(3)).tolist() == [0.0] * 3
    assert lg.grad(lambda x: S(relu(x)))(np.zeros(3)).tolist() == [0.5] * 3


def test_many_scalars_on_a_tape_have_the_mean():
    def f(x):
        total = 0.0
        for k in range(300):
            total = total + np.abs(np.abs(x[k % 3]) - x[2]) * (k % 5)
        return total

    x = np.array([0.0, 2.0, 0.0])
    near = lambda step: np.array([lg.grad(f)(x + s * step) for s in (1, -1)]).mean(axis=0)
    expected = np.mean([near(np.array([a, 0.1, b]) * 1e-6) for a in (1, -1) for b in (3, -0.3)], 0)
    assert lg.grad(f)(x)[1] == pytest.approx(expected[1])
    assert np.isfinite(lg.grad(f)(x)).all()


def test_a_sparse_jacobian_at_a_kink_of_what_does_not_depend_on_it():
    f = lambda x, y: (np.maximum(x, 0.0), np.sin(y))
    rows = lg.jacobian(f, (0, 1), sparse=True)(np.zeros(2), np.ones(3))
    assert rows[0][0].toarray().tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert rows[0][1].nnz == rows[1][0].nnz == 0


@pytest.mark.parametrize("transform", [lg.hessian, lambda f: lg.compile(lg.hessian(f))])
def test_kinks_where_masks_choose(transform):
    # At the zeros of a triangle |v| has kinks; f'' there is the mean of both sides' f''.
    f = lambda x: np.sum(np.log2(np.hypot(np.tril(x), 1.5 + np.abs(np.tril(x)))))
    x = np.array([[0.3, 0.7], [-0.4, 0.2]])
    found = transform(f)(x).reshape(4, 4)
    slope = lambda x: lg.grad(f)(x).ravel()
    steps = 1e-6 * np.eye(4).reshape(4, 2, 2)
    rows = [(slope(x + s) - slope(x - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(found, rows, atol=1e-8)


@pytest.mark.parametrize("linear", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("ratio", [1e-2, 1e4, 1e7, 1e9, 1e12])
def test_no_kink_where_a_law_turns_smoothly(linear, ratio):
    """a q + b q|q| = Δp at no flow: dq/dΔp = 1/a however large b, and within a step of q = 0."""

    def flow(drop):
        return lg.root(lambda q: linear * q + linear * ratio * q * np.abs(q) - drop, 0.1)

    assert lg.grad(flow)(0.0) == pytest.approx(1 / linear, rel=1e-9)
    p = lg.Program()
    drop, q = p.parameter("drop", 0.0), p.unknown("q", start=0.1)
    p.subject_to(linear * q + linear * ratio * q * np.abs(q) == drop)
    assert p.solve().gradient("q")["drop"] == pytest.approx(1 / linear, rel=1e-9)
    drop = linear * 1e-3 / ratio
    q = 2e-3 / ratio / (1 + np.sqrt(1 + 4e-3))
    assert lg.grad(flow)(drop) == pytest.approx(1 / (linear * (1 + 2 * ratio * q)), rel=1e-9)


@pytest.mark.parametrize("b", [0.5, 1e8])
def test_a_kink_is_one_however_steep(b):
    with pytest.raises(lg.SingularSystem, match="kink"):
        lg.grad(lambda drop: lg.root(lambda q: q + b * np.abs(q) - drop, 0.1))(0.0)


def test_what_does_not_move_has_a_derivative_at_a_kink():
    """Huber's location of 0, 1 and a point far away: z = 1 wherever that is."""

    def location(x):
        law = lambda z: np.clip(z, -1, 1) + np.clip(z - 1, -1, 1) + np.clip(z - x, -1, 1)
        return lg.root(law, 0.0)

    assert location(10.0) == 1.0
    assert lg.grad(location)(10.0) == 0.0
    still = lambda x: lg.root(lambda z: np.maximum(z, 0) + z + 0 * x, 1.0)
    assert lg.grad(still)(3.0) == 0.0
    with pytest.raises(lg.SingularSystem, match="kink"):
        lg.grad(lambda x: lg.root(lambda z: np.maximum(z, 0) + z - x, 1.0))(0.0)


# What all of these gain along ones is what the values do, whatever the order of equal entries is:
# shares add up to one where entries are equal on all sides, since they are the same ones.
EQUAL_EVERYWHERE = {
    "max of min(x, reversed)": (lambda x: np.max(np.minimum(x, x[::-1])), 1),
    "min of max(x, reversed)": (lambda x: np.min(np.maximum(x, x[::-1])), 1),
    "min of max(x, rolled)": (lambda x: np.min(np.maximum(x, np.roll(x, 1))), 1),
    "max of min of neighbours": (lambda x: np.max(np.minimum(x[1:], x[:-1])), 1),
    "max of what is doubled": (lambda x: np.max(np.concatenate([x, x])) ** 2, 2),
    "max and max of min": (lambda x: np.max(x) + np.max(np.minimum(x, np.max(x))), 2),
    "distance from the mean": (lambda x: np.max(np.abs(x - np.mean(x))), 0),
    "spread": (lambda x: np.max(x) - np.min(x[::-1]), 0),
}


@pytest.mark.parametrize("n", [2, 3, 5, 9, 40])
@pytest.mark.parametrize("case", EQUAL_EVERYWHERE)
def test_shares_of_entries_that_are_equal_on_all_sides(case, n):
    f, gain = EQUAL_EVERYWHERE[case]
    x = np.ones(n)
    compiled = lg.compile(lg.grad(f))
    for _ in range(3):
        compiled(x)
    for slope in (lg.grad(f), compiled):
        assert S(slope(x)) == pytest.approx(gain, abs=1e-12)
    assert lg.jvp(f, (x,), (x,))[1] == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("side", [lambda z: np.maximum(z, 0) + z, lambda z: np.abs(z) + 2 * z])
def test_a_solution_that_only_touches_its_kink(side):
    """z + max(z, 0) = x², z = x²/2: at zero its derivative is zero on both sides."""
    z = lambda x: lg.root(lambda z: side(z) - x**2, 0.5)
    for x in (0.0, 0.1, -0.3):
        steep = side(1.0)
        assert lg.grad(z)(x) == pytest.approx(2 * x / steep, abs=1e-12)
    with pytest.raises(lg.SingularSystem, match="kink"):
        lg.grad(lambda x: lg.root(lambda z: side(z) - x, 0.5))(0.0)
