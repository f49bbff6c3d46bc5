"""Arrays of size zero: NumPy's own results, shapes and dtypes; or an error with a name."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy import special

import lagrad as lg
from lagrad.expressions.dispatch import UFUNCS

SHAPES = [(0,), (2, 0), (0, 3), (2, 0, 3)]
EMPTY = [np.zeros(shape) for shape in SHAPES]

UNARY = {u.__name__: u for u in UFUNCS if u.nin == 1}
BINARY = {u.__name__: u for u in UFUNCS if u.nin == 2}
REDUCTIONS = {
    **{f.__name__: f for f in (np.sum, np.prod, np.mean, np.var, np.std, np.max, np.min)},
    **{f.__name__: f for f in (np.any, np.all, np.average, np.linalg.norm, np.cumsum)},
    "norm1": lambda x, axis=0: np.linalg.norm(x, 1, axis),
    "largest": lambda x, axis=0: np.linalg.norm(x, np.inf, axis),
    "norm3": lambda x, axis=0: np.linalg.norm(x, 3, axis),
    "diff": lambda x, axis=-1: np.diff(x, axis=axis),
    "softmax": lambda x, axis=None: lg.softmax(x, axis=axis),
    "log_softmax": lambda x, axis=None: lg.log_softmax(x, axis=axis),
}
MOVES = {
    "reshape": lambda x: np.reshape(x, (0, 5)),
    "unknown_length": lambda x: np.reshape(x, (-1, 2)),
    "impossible_length": lambda x: np.reshape(x, (0, -1)),
    "transpose": np.transpose,
    "flip": np.flip,
    "roll": lambda x: np.roll(x, 1),
    "tile": lambda x: np.tile(x, (2, 2)),
    "repeat": lambda x: np.repeat(x, 2, axis=0),
    "diag": np.diag,
    "tril": lambda x: np.tril(np.atleast_2d(x)),
    "trace": lambda x: np.trace(np.atleast_2d(x)),
    "pad": lambda x: np.pad(x, 1),
    "take": lambda x: np.take(x, np.zeros(0, int)),
    "take_what_is_not_there": lambda x: np.take(x, [0]),
    "concatenate": lambda x: np.concatenate([x, np.ones((2, *x.shape[1:]))]),
    "stack": lambda x: np.stack([x, x], 1),
    "split": lambda x: np.split(x, [0])[0],
    "part": lambda x: x[:0],
    "mask": lambda x: x[np.zeros(x.shape, bool)],
    "none": lambda x: x[[]],
    "entry": lambda x: x[0],
    "broadcast": lambda x: np.broadcast_to(x, (4, *x.shape)),
    "outer": lambda x: np.outer(x, np.ones(3)),
    "kron": lambda x: np.kron(x, np.ones(2)),
    "convolve": lambda x: np.convolve(x, np.ones(3)),
    "vdot": lambda x: np.vdot(x, x),
    "tensordot": lambda x: np.tensordot(x, x, 0),
    "einsum": lambda x: np.einsum("i...,i...->...", x, x),
    "astype": lambda x: x.astype(np.float32),
    "where": lambda x: np.where(x > 0, x, 1.0),
    "clip": lambda x: np.clip(x, 0, 1),
    "held": lambda x: lg.stop_gradient(x) + x,
    "erf": special.erf,
    "l1": lambda x: lg.prox.l1(x, 0.1),
    "box": lambda x: lg.prox.box(x, 0.0, 1.0),
    "groups": lambda x: lg.prox.group_l2(x, 0.1),
}
PRODUCTS = [
    *[((0,), (0,)), ((2, 0), (0,)), ((0,), (0, 3)), ((2, 0), (0, 3)), ((0, 3), (3,))],
    *[((0, 3), (3, 2)), ((2, 3), (3, 0)), ((4, 2, 0), (4, 0, 3)), ((0, 2, 3), (0, 3, 2))],
    *[((0, 0), (0, 0)), ((3,), (3, 0))],
]
MATRICES = [(0, 0), (3, 0, 0), (0, 2, 2)]
LINEAR = {
    **{f.__name__: f for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky)},
    "logdet": lambda x: np.linalg.slogdet(x)[1],
    "eigvalsh": np.linalg.eigvalsh,
    "eigenvectors": lambda x: np.linalg.eigh(x)[1],
}


def numpys(f, arrays):
    """NumPy's value on numbers, or None where it raises; NaN counts as no value."""
    with np.errstate(all="ignore"):
        try:
            value = np.asarray(f(*arrays))
        except (ValueError, IndexError, ZeroDivisionError, TypeError, np.linalg.LinAlgError):
            return None
    return value if np.isfinite(value).all() else None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def agrees(f, *arrays):
    """Check value, both modes, Jacobians, Hessians, a compiled gradient, a declared program."""
    f_ = lambda *x: f(*x) * 1.0  # truths and integers as floats
    expected = numpys(f_, arrays)
    if expected is None:
        try:
            found = lg.vjp(f_, *arrays)[0]
        except lg.LagradError:
            return
        assert np.size(found) == 0, found  # a mean of nothing, of which there is none
        return
    value, pull = lg.vjp(f_, *arrays)
    assert value.shape == expected.shape
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value, expected)
    cotangents = pull(np.ones_like(expected))
    for a, c in zip(arrays, cotangents if len(arrays) > 1 else [cotangents], strict=True):
        assert np.shape(c) == a.shape
        assert np.asarray(c).dtype == a.dtype
    ones = tuple(np.ones_like(a) for a in arrays)
    assert np.shape(lg.jvp(f_, arrays, ones)[1]) == expected.shape
    total = lambda *x: np.sum(f_(*x))
    for k, a in enumerate(arrays):
        assert np.shape(lg.jacobian(f_, argnums=k)(*arrays)) == expected.shape + a.shape
        assert np.shape(lg.hessian(total, argnums=k)(*arrays)) == a.shape * 2
        assert np.shape(lg.compile(lg.grad(total, argnums=k))(*arrays)) == a.shape
        nested = lambda *x, k=k: np.sum(lg.jacobian(f_, argnums=k)(*x))
        assert np.shape(lg.grad(nested, argnums=k)(*arrays)) == a.shape
        if expected.ndim <= 1 and a.ndim <= 1:
            found = lg.jacobian(f_, argnums=k, sparse=True)(*arrays)
            assert found.shape == (expected.size, a.size)
    p = lg.Program()
    p.define("y", f_(*(p.parameter(f"x{k}", value=a) for k, a in enumerate(arrays))))
    p.define("f", np.sum(p["y"]))
    at, namespace = p.solve(), {}
    assert at["y"].shape == expected.shape
    assert at.gradient("f")["x0"].shape == p.adjoint("f").solve()["λ_x0"].shape == arrays[0].shape
    exec(p.source(), namespace)
    assert np.shape(namespace["solve"]()["y"]) == expected.shape


@pytest.mark.parametrize("name", UNARY)
def test_ufuncs_of_one_array(name):
    for x in EMPTY[:2]:
        agrees(UNARY[name], x)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", [((0,), ()), ((0, 3), (3,)), ((0, 1), (1, 3))])
def test_ufuncs_of_two_arrays(name, shapes):
    agrees(BINARY[name], *map(np.ones, shapes))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_all_and_along_each_axis(name):
    for x in EMPTY:
        agrees(REDUCTIONS[name], x)
        for axis in range(x.ndim):
            agrees(lambda a, axis=axis: REDUCTIONS[name](a, axis=axis), x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", MOVES)
def test_what_moves_entries_about(name, dtype):
    if name in ("l1", "box", "groups") and dtype == np.float32:
        return  # on numbers these make doubles
    for x in EMPTY:
        agrees(MOVES[name], x.astype(dtype))


@pytest.mark.parametrize("shapes", PRODUCTS)
def test_products(shapes):
    a, b = map(np.ones, shapes)
    agrees(np.matmul, a, b)
    agrees(np.dot, a, b)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("name", LINEAR)
def test_functions_of_matrices(name, shape):
    agrees(LINEAR[name], np.array(np.broadcast_to(np.eye(shape[-1]), shape)))


@pytest.mark.parametrize(
    "shapes", [((0, 0), (0,)), ((0, 0), (0, 3)), ((2, 2), (2, 0)), ((0, 2, 2), (0, 2, 3))]
)
def test_linear_systems(shapes):
    matrix = np.array(np.broadcast_to(np.eye(shapes[0][-1]), shapes[0]))
    agrees(np.linalg.solve, matrix, np.ones(shapes[1]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_sparse_matrices(shape):
    matrix = sparse.csr_array(shape)
    agrees(lambda x: matrix @ x, np.ones(shape[1]))
    agrees(lambda x: matrix @ x, np.ones((shape[1], 2)))
    agrees(lambda x: x @ matrix, np.ones((2, shape[0])))


def test_what_is_made_of_no_entries_is_constant():
    x = np.zeros(0)
    assert lg.jvp(np.linalg.norm, (x,), (x,)) == (0.0, 0.0)
    assert lg.grad(lambda x: np.exp(lg.logsumexp(x)) + np.sum(x))(x).shape == (0,)
    assert lg.grad(lambda x, a: np.sqrt(x @ x) * a, argnums=1)(x, 3.0) == 0.0
    assert lg.grad(lambda x, a: a * np.linalg.det(x), argnums=1)(np.zeros((0, 0)), 3.0) == 1.0
    assert lg.logsumexp(x) == -np.inf


@pytest.mark.parametrize(
    "f", [np.max, np.mean, np.std, lg.logsumexp, lg.prox.simplex, lambda x: np.min(x, axis=0)]
)
def test_what_nothing_has_is_named(f):
    with pytest.raises(lg.LagradError):
        lg.grad(lambda x: np.sum(f(x)))(np.zeros(0))


STEP = lambda z, x: 0.5 * z + x
IMPLICIT = {
    "anderson": lambda x: lg.fixed_point(STEP, np.zeros(x.shape), x),
    "picard": lambda x: lg.fixed_point(STEP, np.zeros(x.shape), x, solver="picard"),
    "steps of Newton": lambda x: lg.fixed_point(STEP, np.zeros(x.shape), x, solver="newton"),
    "damped": lambda x: lg.fixed_point(STEP, np.zeros(x.shape), x, damping=0.1),
    "warm": lambda x: lg.fixed_point(STEP, lg.WarmStart(np.zeros(x.shape)), x),
    "root": lambda x: lg.root(lambda z: z**3 - x, np.zeros(x.shape)),
    "krylov": lambda x: lg.root(lambda z: z**3 - x, np.zeros(x.shape), solver="newton-krylov"),
    "proximal": lambda x: lg.fixed_point(lambda z: lg.prox.l1(0.5 * z + x, 0.1), np.zeros(x.shape)),
    "neumann": lambda x: lg.fixed_point(
        STEP, np.zeros(x.shape), x, differentiate=lg.Neumann(terms=3)
    ),
    "unrolled": lambda x: lg.fixed_point(STEP, np.zeros(x.shape), x, differentiate=lg.Unrolled(3)),
}
OBJECTIVE = lambda z, x: np.sum((z - x) ** 2)
HOW = {
    **{name: {"solver": name} for name in ("newton", "BFGS", "L-BFGS-B", "trust-ncg", "Powell")},
    "damped": {"damping": 0.1},
    "stated by its gradient": {"gradient": lambda z, x: 2 * (z - x)},
    "neumann": {"differentiate": lg.Neumann(terms=3)},
    "unrolled": {"differentiate": lg.Unrolled(3)},
    "adam": {"differentiate": lg.Unrolled(3, lg.optim.adam(0.1))},
    "lbfgs": {"differentiate": lg.Unrolled(3, lg.optim.lbfgs())},
    "reversible": {"differentiate": lg.Reversible(3, lg.optim.sgd_momentum(0.1))},
}
for _name, _how in HOW.items():
    IMPLICIT[f"argmin {_name}"] = lambda x, how=_how: lg.argmin(
        OBJECTIVE, np.zeros(x.shape), x, **how
    )


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_functions_of_nothing(name, shape):
    solution, x = IMPLICIT[name], np.zeros(shape)
    total = lambda x: np.sum(solution(x))
    assert np.shape(solution(x)) == shape
    assert lg.grad(total)(x).shape == shape
    assert lg.compile(lg.grad(total))(x).shape == shape
    assert lg.jacobian(solution)(x).shape == shape * 2
    if not {"neumann", "reversible", "damped"} & set(name.split()):
        assert lg.hessian(total)(x).shape == shape * 2


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_unknowns_of_size_zero_beside_others(shape):
    x = {"a": np.zeros(shape), "b": np.array([8.0, 27.0])}
    begin = {"a": np.zeros(shape), "b": np.ones(2)}
    cases = [
        lambda x: lg.root(lambda z: {k: z[k] ** 3 - x[k] for k in z}, begin),
        lambda x: lg.fixed_point(lambda z: {k: 0.5 * z[k] + x[k] / 2 for k in z}, begin),
        lambda x: lg.argmin(lambda z: sum(np.sum(np.cosh(z[k] - x[k])) for k in z), begin),
    ]
    expected = [np.array([1 / 12, 1 / 27]), np.ones(2), np.ones(2)]
    for solve, slope in zip(cases, expected, strict=True):
        total = lambda x, solve=solve: np.sum(solve(x)["b"])
        for gradient in (lg.grad(total), lg.compile(lg.grad(total))):
            found = gradient(x)
            np.testing.assert_allclose(found["b"], slope, rtol=1e-7)
            assert found["a"].shape == shape
        traced = lg.trace(total, x)
        namespace = {}
        exec(traced.source(), namespace)
        np.testing.assert_allclose(namespace["solve"]()["output"], total(x), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_regressions_without_rows_or_without_columns(shape):
    A, b, begin = np.zeros(shape), np.zeros(shape[0]), np.ones(shape[1])
    ridge = lambda A, b: np.sum(lg.argmin(lambda w: np.sum((A @ w - b) ** 2) + w @ w, begin))
    assert lg.grad(ridge)(A, b).shape == shape
    assert lg.grad(ridge, argnums=1)(A, b).shape == b.shape
    step = lambda w, t: lg.prox.l1(w - 0.1 * (A.T @ (A @ w - b) + w), 0.1 * t)
    assert lg.grad(lambda t: np.sum(lg.fixed_point(step, begin, t)))(0.3) == 0.0


@pytest.mark.parametrize("options", [{}, {"checkpoints": 1}, {"checkpoints": 2}])
@pytest.mark.parametrize("length", [0, 3])
def test_loops_without_steps_and_over_nothing(length, options):
    rows = np.ones(length)

    def check(x, shape):
        last = lambda x: lg.scan(lambda z, u: (0.5 * z + x, u), x * 1.0, rows, **options)[0]
        assert lg.grad(lambda x: np.sum(last(x)))(x).shape == shape
        assert lg.jacobian(last)(x).shape == shape * 2
        outputs = lg.scan(lambda z, u: (0.5 * z, x + z), 1.0, rows, **options)[1]
        assert outputs.shape == (length, *shape)
        over = lambda x: lg.scan(lambda z, u: (z + np.sum(u**2), None), 0.0, x)[0]
        assert lg.compile(lg.hessian(over))(x).shape == shape * 2

    for shape in SHAPES[:3]:
        check(np.zeros(shape), shape)
    nothing = np.zeros((length, 0))
    power = lambda a: lg.scan(lambda z, u: (a * z + np.sum(u), z), 1.0, nothing, **options)
    np.testing.assert_allclose(lg.grad(lambda a: power(a)[0])(0.5), length * 0.25)
    assert lg.grad(lambda a: np.sum(power(a)[1]))(0.5) == (0.0 if length == 0 else 2.0)
    ends = lambda a: lg.iterate(lambda z: 0.5 * z + a, a * 1.0, length, **options)
    assert lg.grad(ends)(2.0) == (1.0 if length == 0 else 1.875)
    never = lambda a: lg.while_loop(lambda z: z < 0, lambda z: 0.5 * z, a * 1.0, 5, **options)
    assert lg.grad(never)(2.0) == 1.0


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_declared_programs_solve_for_nothing(shape):
    p = lg.Program()
    a, c = p.parameter("a", value=np.zeros(shape)), p.parameter("c", value=3.0)
    z, w = p.unknown("z", shape=shape), p.unknown("w", shape=2, start=1.0)
    p.subject_to(z**3 + z == a + np.sum(w))
    p.subject_to(w**3 + w + np.sum(z) == c)
    p.define("y", np.sum(w) + np.sum(2.0 * z))
    at = p.solve()
    slope = 2 / (3 * at["w"][0] ** 2 + 1)
    np.testing.assert_allclose(at["w"], 1.2134116627622296, rtol=1e-12)
    np.testing.assert_allclose(at.gradient("y")["c"], slope, rtol=1e-12)
    np.testing.assert_allclose(at.tangent(c=1.0)["y"], slope, rtol=1e-12)
    np.testing.assert_allclose(p.adjoint("y").solve()["λ_c"], slope, rtol=1e-12)
    assert at.gradient("y")["a"].shape == at["z"].shape == shape
    assert at.jacobian("z", "a")["z"]["a"].shape == shape * 2
    assert at.hessian_vector("y", a=np.zeros(shape))["a"].shape == shape
    assert at.adjoint_system("y").solve() is not None
    assert str(p)
    assert str(at.profile())
    for system in (p, p.adjoint("y")):
        namespace = {}
        exec(system.source(), namespace)
        found = namespace["solve"]()
        assert found["z"].shape == shape
        np.testing.assert_allclose(found["w"], at["w"], rtol=1e-9)
    for options in ({}, {"threads": 2}, {"warm": True}, {"processes": 2}):
        assert p.solve_many([], **options) == []
        assert p.solve_many({"a": np.zeros((0, *shape))}, **options) == []
    assert [s["z"].shape for s in p.solve_many({"a": np.zeros((2, *shape))})] == [shape] * 2


def test_an_unknown_without_entries_needs_no_equation():
    p = lg.Program()
    p.define("y", np.sum(p.unknown("z", shape=(0, 2))) + 1.0)
    namespace = {}
    exec(p.source(), namespace)
    assert p.solve()["y"] == namespace["solve"]()["y"] == 1.0


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize(
    "method",
    [
        "BFGS",
        "L-BFGS-B",
        "CG",
        "TNC",
        "SLSQP",
        "Newton-CG",
        "trust-ncg",
        "trust-exact",
        "Powell",
        "COBYLA",
    ],
)
def test_nothing_is_minimised_over_nothing(shape, method):
    result = lg.minimize(lambda z: np.sum((z - 1) ** 2) + 3.0, np.zeros(shape), method=method)
    assert result.success
    assert result.fun == 3.0
    assert result.x.shape == result.jac.shape == shape


def test_optimisers_and_the_checker_take_nothing():
    x = np.zeros((0, 2))
    assert lg.check_gradient(lambda x, a: np.sum(np.sin(x)) + a, x, 1.0) is not None
    rules = [lg.optim.gradient_descent(0.1), lg.optim.heavy_ball(0.1), lg.optim.adam(0.1)]
    for rule in [*rules, lg.optim.lbfgs()]:
        state = rule.init(x)
        for _ in range(3):
            state = rule.step(state, 2 * state["z"], **rule.settings)
        assert state["z"].shape == x.shape
