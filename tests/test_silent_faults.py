"""What goes wrong in silence elsewhere: here it is right, or it raises by name."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse

import lagrad as lg
from lagrad.implicit import approach as approaches
from lagrad.linear_solvers.sparse_lu import Layout

S = np.sum
TWO = np.zeros(2)
wells = lambda z: S((z**2 - 1) ** 2)
halved = lambda z: lg.fixed_point(lambda y: 0.5 * y + z, TWO)


def threaded(x):
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda k: lg.grad(lambda y: k * y**3)(x), [1.0, 2.0]))


RAISES = {
    "a maximum with a solver of one's own": (
        lambda: lg.argmin(lambda z: -S(z**2) + S(z), np.zeros(3), linear=lg.CG()),
        lg.LagradError,
    ),
    "a maximum by damping": (lambda: lg.argmin(wells, TWO, damping=5.0), lg.NotPositiveDefinite),
    "a maximum of a nested objective": (
        lambda: lg.argmin(lambda z: -S((halved(z) - 0.9) ** 2) - S(z**2), TWO),
        lg.LagradError,
    ),
    "float() of the unknown": (
        lambda: lg.argmin(lambda z: (z - 1) ** 2 + float(z) ** 2, 0.0),
        lg.TracedValueError,
    ),
    "math of the unknown": (
        lambda: lg.grad(lambda t: lg.argmin(lambda z: (z - t) ** 2 + math.sin(z), 0.0))(1.0),
        lg.TracedValueError,
    ),
    "float() of a small share": (
        lambda: lg.grad(lambda x: 1e4 * x + math.sin(float(x)))(1.0),
        lg.TracedValueError,
    ),
    "float() near a singularity": (
        lambda: lg.grad(lambda x: np.log(x) * float(x))(1e-7),
        lg.TracedValueError,
    ),
    "math at the border of its domain": (lambda: lg.grad(math.log)(1e-7), lg.TracedValueError),
    "float() in lg.trace": (
        lambda: lg.trace(lambda x: x * math.sin(float(x)), 1.0),
        lg.TracedValueError,
    ),
    "an objective at its kink": (
        lambda: lg.grad(lambda t: lg.argmin(lambda z: (z - t) ** 2 + 3 * np.abs(z), 0.0))(0.0),
        lg.SingularSystem,
    ),
    "a residual that jumps": (
        lambda: lg.grad(lambda t: lg.root(lambda z: z - t + np.sign(z), 0.0))(0.0),
        lg.SingularSystem,
    ),
    "a solution at the border of a branch": (
        lambda: lg.grad(
            lambda t: lg.fixed_point(lambda z: z / 2 + t if z < 1 else z / 4 + t + 0.25, 0.0)
        )(0.5),
        lg.SingularSystem,
    ),
    "a threshold that became negative": (
        lambda: lg.grad(lambda a: S(lg.fixed_point(lambda z: lg.prox.l1(z / 2 + 1, a), TWO)))(-0.3),
        lg.InvalidValue,
    ),
    "a repelling fixed point by plain iteration": (
        lambda: lg.fixed_point(lambda z: z**2, 1.0, solver="picard"),
        lg.NotContractive,
    ),
    "an unbounded objective": (
        lambda: lg.argmin(lambda z: -S(np.exp(z)), np.ones(2)),
        lg.NotPositiveDefinite,
    ),
    "a series in a nested derivative": (
        lambda: lg.grad(
            lg.grad(lambda x: lg.fixed_point(lambda z: z / 2 + x, 0.0, differentiate=lg.Neumann()))
        )(1.0),
        lg.InvalidFunction,
    ),
    "a transform in another thread": (lambda: lg.grad(threaded)(2.0), lg.LeakedValue),
    "lg.trace of a traced value": (
        lambda: lg.grad(lambda y: lg.trace(np.square, y).solve()["output"] * y)(2.0),
        lg.TracedValueError,
    ),
    "a masked array": (
        lambda: lg.grad(lambda x: S(x**2))(np.ma.array([1.0, 2.0], mask=[0, 1])),
        lg.UnsupportedType,
    ),
    "truths": (lambda: lg.grad(lambda x: x > 0)(1.0), lg.InvalidFunction),
    "None for an argument": (lambda: lg.grad(np.sin)(None), lg.InvalidFunction),
    "no function": (lambda: lg.fixed_point(3, 1.0), lg.InvalidFunction),
    "a wrong entry that is small": (
        lambda: lg.check_gradient(
            lambda x: x[0] * 1e6 + lg.primitive(np.square, vjp=lambda g, y, v: (4 * g * v,))(x[1]),
            np.array([1.0, 2.0]),
        ),
        lg.WrongDerivative,
    ),
}


@pytest.mark.parametrize("case", RAISES)
def test_it_raises(case):
    act, error = RAISES[case]
    with pytest.raises(error):
        act()


def test_a_value_of_a_function_that_raised_is_no_argument():
    kept = []

    def failing(x):
        kept.append(x)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        lg.grad(failing)(2.0)
    with pytest.raises(lg.LeakedValue):
        lg.grad(np.square)(kept[0])


RIGHT = {
    "the Jacobian of the identity": (
        lambda: lg.jacobian(lambda x: x, sparse=True)(np.ones(3)).toarray(),
        np.eye(3),
    ),
    "stop_gradient of np.asarray": (
        lambda: lg.grad(lambda x: x * lg.stop_gradient(np.asarray(x)))(3.0),
        3.0,
    ),
    "stop_gradient of a dict": (
        lambda: lg.grad(lambda x: x * lg.stop_gradient({"a": x})["a"])(3.0),
        3.0,
    ),
    "the order of a dict": (
        lambda: lg.compile(lambda p: next(iter(p.values())))({"b": 1.0, "a": 2.0}),
        1.0,
    ),
    "a tangent in another order": (
        lambda: lg.jvp(lambda p: p["a"] * p["b"], ({"b": 1.0, "a": 2.0},), ({"a": 1.0, "b": 0.0},))[
            1
        ],
        1.0,
    ),
    "copies of traced values": (
        lambda: lg.grad(lambda x: copy.deepcopy(x) * copy.copy(x))(3.0),
        6.0,
    ),
    "an argument called output": (
        lambda: lg.trace(lambda output: output**2, 3.0).solve().gradient("output")["output_"],
        6.0,
    ),
    "an array of traced values in an inner gradient": (
        lambda: lg.grad(lambda x: lg.grad(lambda y: y**3)(np.asarray(x)))(2.0),
        12.0,
    ),
    "centered products at a local maximum": (
        lambda: lg.argmin(wells, np.full(2, 0.1), products="centered"),
        [1.0, 1.0],
    ),
    "a nested argmin that starts near a maximum": (
        lambda: np.round(
            lg.argmin(lambda z: wells(z) + 1e-3 * S(halved(z) ** 2), np.full(2, 0.1)), 3
        ),
        [0.999, 0.999],
    ),
    "a root that meets its unknown through an inner solution only": (
        lambda: lg.root(lambda z: halved(z) - 0.9, TWO),
        [0.45, 0.45],
    ),
    "an argmin that does": (
        lambda: lg.jacobian(lambda a: lg.argmin(lambda z: S((halved(z) - a) ** 2), TWO))(
            np.ones(2)
        ),
        0.5 * np.eye(2),
    ),
    "a slow contraction in many dimensions": (
        lambda: lg.fixed_point(lambda z: 0.95 * z + 1.0, np.zeros(300)),
        np.full(300, 20.0),
    ),
    "a kink near a solution in small units": (
        lambda: lg.jacobian(lambda t: lg.fixed_point(lambda z: 0.5 * np.abs(z) + t, TWO))(
            np.array([1e-4, 2e-4])
        ),
        2 * np.eye(2),
    ),
    "a single precision check": (
        lambda: lg.check_gradient(lambda x: S(np.sin(x)), np.ones(3, np.float32)).passed,
        True,
    ),
    "questions of arrays": (
        lambda: lg.grad(lambda x: S(x) if np.all(x > 0) and np.allclose(x, x) else 0.0)(np.ones(2)),
        [1.0, 1.0],
    ),
}


@pytest.mark.parametrize("case", RIGHT)
def test_it_is_right(case):
    act, expected = RIGHT[case]
    assert np.asarray(act()) == pytest.approx(np.asarray(expected), rel=1e-8)


def test_what_a_compiled_function_reads_of_objects_and_containers():
    class Model:
        def __init__(self):
            self.w, self.table, self.weights = 3.0, {"w": 1.0}, np.ones(200)
            self.matrix = sparse.csr_array(np.eye(2))

        def loss(self, x):
            return self.w * self.table["w"] * S(self.weights) * S(self.matrix @ np.stack([x, x]))

        __call__ = loss

    for read in (lambda m: m.loss, lambda m: m, lambda m: lambda x: m.loss(x)):
        model = Model()
        compiled = lg.compile(lg.grad(read(model)))
        assert compiled(1.0) == 1200.0
        model.w = 1.0
        assert compiled(1.0) == 400.0
        model.weights[7] = 0.0
        assert compiled(1.0) == 398.0
    compiled = lg.compile(lg.grad(Model.loss, 1))
    model = Model()
    assert compiled(model, 1.0) == 1200.0
    model.w = 2.0
    assert compiled(model, 1.0) == 800.0


def test_an_exception_of_a_branch_that_is_not_taken_stays_there():
    def logarithm(x):
        if np.any(x <= 0):
            raise ValueError("mine")
        return np.log(x)

    own = lg.primitive(logarithm, vjp=lambda g, y, x: (g / x,))
    compiled = lg.compile(lambda x: own(x) if x > 0 else -x)
    assert [compiled(1.0), compiled(-2.0), compiled(math.e)] == pytest.approx([0.0, 2.0, 1.0])


def ties(n, value):
    p = lg.Program()
    a = p.parameter("a", value=value)
    z = a * 1.0
    for _ in range(n):
        z = z + 0.001 * np.tanh(z)
    d = p.define("d", np.maximum(np.exp(z), -5.0))
    p.define("f", d * d)
    return p


@pytest.mark.parametrize("value", [0.3, 0.41, 0.56, 0.78, 0.83])
def test_a_tie_is_not_told_by_a_value_computed_elsewhere(value):
    """Loops and NumPy differ in the last bit of exp; the larger argument is the larger one."""
    p, h = ties(250, value), 1e-5
    found = p.solve().hessian_vector("f", a=1.0)["a"]
    slope = lambda v: float(p.solve(a=v).gradient("f")["a"])
    assert found == pytest.approx((slope(value + h) - slope(value - h)) / (2 * h), rel=1e-6)
    matrix = p.solve().adjoint_system("f").matrix.toarray()
    assert np.abs(np.triu(matrix, 1)).max() > 0.1


def test_a_tie_in_a_row_too_long_for_a_block():
    z = np.random.default_rng(0).standard_normal((2, 100_000))
    h = lambda z: (np.maximum(np.tanh(z), -5.0), np.sum(np.maximum(np.tanh(z), -5.0), axis=1))
    _, pull = lg.vjp(h, z)
    (found,) = [pull((np.ones(z.shape), np.zeros(2)))]
    np.testing.assert_allclose(
        np.ravel(found[0] if isinstance(found, tuple) else found),
        np.ravel(1 - np.tanh(z) ** 2),
        rtol=1e-9,
    )
    top = lambda z: (np.max(np.tanh(z), axis=1), np.sum(np.tanh(z)))
    _, pull = lg.vjp(top, z)
    found = pull((np.ones(2), 0.0))
    found = found[0] if isinstance(found, tuple) else found
    assert np.count_nonzero(found) == 2


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: 0.3 * x[0], [0.3, 0, 0]),
        (lambda x: x[0] + 0.3 * x[1], [1, 0.3, 0]),
        (lambda x: np.diag(x)[0, 0] * 0.5, [0.5, 0, 0]),
        (lambda x: x[np.array([0])][0] * 0.3, [0.3, 0, 0]),
        (lambda x: x[0] ** 0 + x[1] * 0, [0, 0, 0]),
        (lambda x: np.sum(x * True), [1, 1, 1]),
    ],
)
def test_a_number_of_pythons_is_no_array(f, expected):
    for function in (lg.grad(f), lg.compile(lg.grad(f))):
        assert function(np.ones(3)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("power", [3, 4, 2.0])
def test_a_constant_exponent_has_no_partial(power):
    def f(x):
        total, y = 0.0, x
        for _ in range(300):
            y = y * 0.99
            total = total + np.power(y, power)
        return total

    value, slope = lg.jvp(f, (-0.5,), (1.0,))
    assert slope == pytest.approx(float(lg.grad(f)(-0.5)), rel=1e-12)
    assert value == pytest.approx(float(f(-0.5)))


def test_single_precision_meets_numbers_as_numpy_does_at_any_size():
    cases = [
        (lambda x: np.sum(np.where(x <= 0.1, x, 0.0)), 1.0),
        (lambda x: np.sum(np.maximum(x, 0.1)), 0.5),
        (lambda x: np.sum(np.abs(x - 0.1)), 0.0),
        (lambda x: np.sum(np.where(np.equal(x, 0.1), x, 2 * x)), 1.0),
    ]
    for n in (10, 5000):
        for f, expected in cases:
            assert lg.grad(f)(np.full(n, 0.1, np.float32))[0] == expected


def test_an_ordering_learned_by_another_thread_meanwhile(monkeypatch):
    n = 40
    A = sparse.random_array((n, n), density=0.08, rng=np.random.default_rng(1))
    A = sparse.csr_array(A + A.T + 20 * sparse.eye_array(n))
    b, asked = np.arange(1.0, n + 1), []
    of = Layout.of.__func__

    def meanwhile(cls, *args, **kwargs):
        found = of(cls, *args, **kwargs)
        if not asked:
            asked.append(1)
            lg.SparseLU().factor(A.copy())
        return found

    monkeypatch.setattr(Layout, "of", classmethod(meanwhile))
    for _ in range(3):
        assert np.abs(A @ lg.SparseLU().factor(A.copy()).solve(b) - b).max() < 1e-12


CHANGES = {
    "a long list": ([1.0] * 100, lambda s: s.__setitem__(50, 5.0)),
    "by columns": (np.asfortranarray(np.ones((300, 300))), lambda s: s.__setitem__((7, 9), 2.0)),
    "an odd length": (np.ones(150_001, np.float32), lambda s: s.__setitem__(7, 2.0)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_compiled_function_sees_a_change(what):
    state, change = CHANGES[what]
    at = (lambda: state[50]) if isinstance(state, list) else (lambda: np.sum(state))
    f = lg.compile(lg.grad(lambda x: np.sum(x) * at()))
    before = [f(np.ones(3))[0] for _ in range(4)][-1]
    change(state)
    assert f(np.ones(3))[0] != before


def test_two_entries_that_change_places_are_seen():
    big = np.ones(150_000)
    big[[7, 9]] = [2.0, 0.5]
    f = lg.compile(lg.grad(lambda x: np.sum(x) * big[7]))
    assert [f(np.ones(3))[0] for _ in range(3)] == [2.0] * 3
    big[[7, 9]] = [0.5, 2.0]
    assert f(np.ones(3))[0] == 0.5


def test_parameters_that_a_flat_tape_does_not_use():
    p = ties(250, 0.3)
    p.parameter("u", value=2.0)
    at = p.solve()
    assert at.point.flat is not None
    assert at.tangent(u=1.0)["u"] == 1.0
    assert at.gradient("u")["u"] == 1.0
    assert at.pullback(u=2.0, f=1.0)["u"] == 2.0
    assert at.gradient("f")["u"] == 0.0


def test_a_series_that_grows_before_it_shrinks_is_a_contraction():
    rng = np.random.default_rng(0)
    A = np.diag(np.full(300, 0.3)) + np.diag(np.full(299, 1.2), 1)
    A[20:] *= 0.5
    c = rng.standard_normal(300)
    solve = lambda c: lg.fixed_point(lambda z: A @ z + c, np.zeros(300))
    gradient = lg.grad(lambda c: S(solve(c)))(c)
    expected = np.linalg.solve((np.eye(300) - A).T, np.ones(300))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_roots_that_start_at_roots():
    identity = lambda z: lg.root(lambda w: w - z, z)
    assert float(lg.grad(lambda z: identity(identity(identity(z))))(1.0)) == pytest.approx(1.0)


def test_an_outer_value_as_an_array_of_numpys():
    inner = lambda z, a: np.sum((z - np.asarray(a)) ** 2)
    f = lambda a: lg.grad(inner)(np.float64(3.0), a) * a
    assert float(lg.grad(f)(2.0)) == pytest.approx(2 * 3.0 - 4 * 2.0)
    steps = lambda a: lg.iterate(lambda z: z - 0.1 * lg.grad(inner)(z, a), 0.0, 3)
    assert float(lg.grad(steps)(2.0)) == pytest.approx(1 - 0.8**3)


@pytest.mark.parametrize("start", [4.0, 6.0, 10.0])
@pytest.mark.parametrize("solver", [None, "trust-exact", "trust-ncg", "BFGS"])
def test_a_minimum_that_is_found_is_not_given_away(start, solver):
    objective = lambda z: np.log(1 + (z - 2) ** 2)
    assert lg.argmin(objective, start, solver=solver) == pytest.approx(2.0, abs=1e-8)


def test_the_hessian_of_a_minimiser_is_one_sweep(monkeypatch):
    solved, program_s = [], approaches.Problem.at
    monkeypatch.setattr(
        approaches.Problem, "at", lambda self, z: (solved.append(1), program_s(self, z))[1]
    )
    valley = lambda z: np.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2)
    np.testing.assert_allclose(lg.argmin(valley, np.zeros(30)), np.ones(30), atol=1e-8)
    assert len(solved) < 200


@pytest.mark.parametrize("n", [4, 40, 300])
def test_an_objective_without_a_minimum_is_soon_seen(n):
    asked = []

    def objective(z):
        return np.sum(z[::2] * z[1::2]) + 0.5 * z[0]

    product = approaches.Problem.product
    counted = lambda self, *args: (asked.append(1), product(self, *args))[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approaches.Problem, "product", counted)
        with pytest.raises(lg.LagradError, match=r"unbounded below|no minimum|positive"):
            lg.argmin(objective, np.full(n, 0.3))
    assert len(asked) <= 100 * n


def test_a_tangent_near_a_fold_is_no_zero():
    # dz/da = ε / (2z − 2c), of which the divisor is 12% rounding: not the zero of a symmetry.
    p = lg.Program()
    a = p.parameter("a", value=0.5378)
    z, w = p.unknown("z", start=1.4589002728), p.unknown("w")
    p.subject_to(z**2 - 2 * 1.4589 * z + 1.4589**2 == 3.46e-14 * a)
    p.subject_to(w == 3.0 * a)
    with pytest.raises(lg.SingularSystem, match="tangent"):
        p.solve(accuracy=1e-5).tangent(a=1.0)


def test_a_slope_that_turns_on_the_last_digits_of_an_unknown_is_named():
    # cos(u) at u = 10¹⁴ is any number; du/da = −… / (c + d cos u) by a factor of four.
    p = lg.Program()
    a, u = p.parameter("a", value=1.3), p.unknown("u")
    p.subject_to(1.958332e-14 * u + 1.24e-14 * np.sin(u) == 3.6603 * a)
    with pytest.raises(lg.LagradError):
        p.solve().tangent(a=1.0)
