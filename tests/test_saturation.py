"""tanh where it is nearly constant: its slope, 1 − y², does not cancel."""

import mpmath
import numpy as np
import pytest
from scipy.special import softplus

import lagrad as lg

POINTS = [0.0, 0.3, 1.47, 1.48, -3.0, 5.29, 5.31, 9.0, -15.0, 18.0, 30.0, 340.0]


def slopes(x):
    """The first three derivatives of tanh, by sech² to 60 digits."""
    with mpmath.workdps(60):
        t, s = mpmath.tanh(x), 1 / mpmath.cosh(mpmath.mpf(x)) ** 2
        return [float(s), float(-2 * t * s), float(4 * t * t * s - 2 * s * s)]


@pytest.mark.parametrize("x", POINTS)
def test_the_slopes_of_a_number(x):
    first = lg.grad(np.tanh)
    second = lg.grad(first)
    found = [first(x), second(x), lg.grad(second)(x)]
    np.testing.assert_allclose(found, slopes(x), rtol=1e-11)
    np.testing.assert_allclose(lg.jvp(np.tanh, (x,), (2.0,))[1], 2 * slopes(x)[0], rtol=1e-11)


def test_those_of_an_array_however_often():
    x, w = np.array(POINTS * 40), np.arange(1.0, 481.0)
    f = lg.compile(lg.grad(lambda x: np.sum(w * np.tanh(x))))
    wanted = w * [slopes(t)[0] for t in x]
    for _ in range(20):  # as it becomes one loop over all of it
        np.testing.assert_allclose(f(x), wanted, rtol=1e-11)
    product = lg.hvp(lambda x: np.sum(np.tanh(x)), x, np.ones(480))
    np.testing.assert_allclose(product, [slopes(t)[1] for t in x], rtol=1e-11)


def test_single_precision_and_infinity():
    found = lg.grad(lambda x: np.sum(np.tanh(x)))(np.float32([0.5, 3.0, 8.0, 40.0]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [slopes(t)[0] for t in (0.5, 3, 8, 40)], rtol=2e-6)
    for x in (800.0, np.inf, -np.inf):
        assert lg.grad(np.tanh)(x) == lg.grad(lg.grad(np.tanh))(x) == 0.0


def test_a_program_of_scalars_its_adjoint_program_and_source():
    p = lg.Program()
    xs = [p.parameter(f"x{k}", t) for k, t in enumerate(POINTS)]
    p.define("f", sum(np.tanh(x) for x in xs))
    gradient, backwards = p.solve().gradient("f"), p.adjoint("f")
    there = backwards.solve()
    namespace: dict = {}
    exec(backwards.source(), namespace)
    plain = namespace["solve"](**{f"x{k}": t for k, t in enumerate(POINTS)})
    for k, t in enumerate(POINTS):
        first, second, _ = slopes(t)
        for found in (gradient[f"x{k}"], there[f"λ_x{k}"], plain[f"λ_x{k}"]):
            assert found == pytest.approx(first, rel=1e-11, abs=0)
        bent = there.gradient(f"λ_x{k}")[f"x{k}"]
        assert bent == pytest.approx(second, rel=1e-11, abs=0)


def test_how_it_is_written():
    p = lg.Program()
    x = p.parameter("x", 0.5)
    y = p.unknown("y")
    p.subject_to(y == np.tanh(x))
    p.define("f", y**2)
    assert "(1 - tanh(x)²)" in str(p.adjoint("f"))


@pytest.mark.parametrize("x", [np.float32(45.0), np.float32(60.0), 400.0])
def test_a_slope_below_what_its_precision_holds_is_zero(x):
    # In a wider one it is a number, of which rounding has taken nothing.
    assert lg.grad(np.tanh)(x) == pytest.approx(4 * np.exp(-2 * float(x)), rel=1e-3)
    both = np.stack([x, x]) if isinstance(x, np.floating) else np.array([x, x])
    found = lg.jacobian(lambda z: np.tanh(3 * z))(both)
    np.testing.assert_allclose(found, 0.0, atol=1e-44)


SOFT = {
    "logaddexp": lambda x: np.logaddexp(x, 0.0),
    "the other way": lambda x: np.logaddexp(0.0, x),
    "softplus": softplus,
    "logsumexp": lambda x: lg.logsumexp(np.stack([x, 0 * x])),
    "its columns": lambda x: np.sum(lg.logsumexp(np.stack([[x, 0 * x]]), axis=1)),
}


@pytest.mark.parametrize("x", [-700.0, -45.0, -3.0, 0.0, 2.0, 22.0, 25.0, 38.0, 45.0, 300.0])
@pytest.mark.parametrize("name", SOFT)
def test_the_curvature_of_a_soft_maximum(name, x):
    # One share is 1 less the other, which is all that is left where it counts.
    f = SOFT[name]
    with mpmath.workdps(400):
        t = mpmath.exp(-mpmath.mpf(x))
        second = t / (1 + t) ** 2
        third = second * (t - 1) / (1 + t)
    assert lg.grad(lg.grad(f))(x) == pytest.approx(float(second), rel=1e-12, abs=0)
    assert lg.hessian(f)(x) == pytest.approx(float(second), rel=1e-12, abs=0)
    assert lg.grad(lg.grad(lg.grad(f)))(x) == pytest.approx(float(third), rel=1e-9, abs=1e-300)
    first = lambda x: lg.softmax(np.stack([x, 0 * x]))[0]
    assert lg.grad(first)(x) == pytest.approx(float(second), rel=1e-12, abs=0)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2)])
def test_the_jacobian_of_a_softmax(axis):
    rng = np.random.default_rng(0)
    x = 30 * rng.standard_normal((3, 4, 2))
    axes = tuple(range(3)) if axis is None else np.atleast_1d(axis) % 3
    shares = [mpmath.exp(mpmath.mpf(v)) for v in x.ravel()]
    group = np.arange(24).reshape(x.shape)
    for k in axes:
        group = np.broadcast_to(group.min(axis=int(k), keepdims=True), x.shape)
    group = group.ravel()
    with mpmath.workdps(60):
        totals = {
            g: sum(s for s, h in zip(shares, group, strict=True) if h == g) for g in set(group)
        }
        w = [s / totals[g] for s, g in zip(shares, group, strict=True)]
        wanted = np.zeros((24, 24))
        for i in range(24):
            for j in range(24):
                if group[i] == group[j]:
                    wanted[i, j] = float(w[i] * ((i == j) - w[j]))
    found = lg.jacobian(lambda x: lg.softmax(x, axis=axis))(x).reshape(24, 24)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=0)
    v = rng.standard_normal(x.shape)
    along = lg.jvp(lambda x: lg.softmax(x, axis=axis), (x,), (v,))[1]
    np.testing.assert_allclose(along.ravel(), wanted @ v.ravel(), rtol=1e-10, atol=1e-18)


def test_equal_shares_and_none_at_all():
    both = lambda x: lg.logsumexp(x)
    np.testing.assert_allclose(lg.hessian(both)(np.zeros(3)), (np.eye(3) - 1 / 3) / 3, atol=1e-15)
    found = lg.jacobian(lg.softmax)(np.array([1.0, -np.inf, 2.0]))
    share = np.exp(1) / (1 + np.exp(1)) ** 2
    np.testing.assert_allclose(found, share * np.array([[1, 0, -1], [0, 0, 0], [-1, 0, 1]]))
    np.testing.assert_array_equal(lg.jacobian(lg.softmax)(np.full(2, -np.inf)), np.zeros((2, 2)))


@pytest.mark.parametrize("scale", [1, 30, 60])
@pytest.mark.parametrize("axis", [0, 1])
def test_logarithms_of_shares(scale, axis):
    """Values, gradients and second derivatives, also of the logarithm of a share next to one."""
    x = scale * np.random.default_rng(scale).standard_normal((4, 3))
    logarithms = lambda x: lg.log_softmax(x, axis=axis)
    found, jacobian = logarithms(x), lg.jacobian(logarithms)(x)
    with mpmath.workdps(80):
        for row in range(x.shape[1 - axis]):
            at = lambda k, row=row: (k, row) if axis == 0 else (row, k)
            n = x.shape[axis]
            parts = [mpmath.exp(mpmath.mpf(x[at(k)])) for k in range(n)]
            shares = [part / mpmath.fsum(parts) for part in parts]
            rest = [1 - share for share in shares]
            for k in range(n):
                wanted = float(mpmath.log(shares[k]))
                assert found[at(k)] == pytest.approx(wanted, rel=1e-13, abs=0)
                gradient = lg.grad(lambda x, at=at, k=k: logarithms(x)[at(k)])
                second = lg.jacobian(gradient)(x)
                for i in range(n):
                    slope = float(rest[i] if i == k else -shares[i])
                    assert jacobian[at(k)][at(i)] == pytest.approx(slope, rel=1e-13, abs=0)
                    assert gradient(x)[at(i)] == pytest.approx(slope, rel=1e-13, abs=0)
                    for j in range(n):
                        bend = -shares[i] * rest[i] if i == j else shares[i] * shares[j]
                        assert second[at(i)][at(j)] == pytest.approx(float(bend), rel=1e-12, abs=0)


def test_the_loss_of_a_classifier_that_is_sure_of_itself():
    """Which `logsumexp(z) - z[0]` refuses, and its message says what to write instead."""
    z = np.array([36.0, 0.0, 1.0, -3.0])
    with pytest.raises(lg.SingularSystem, match="log_softmax"):
        lg.grad(lambda z: np.log(np.sum(np.exp(z - np.max(z)))) + np.max(z) - z[0])(z)
    loss = lambda z: -lg.log_softmax(z)[0]
    others = np.exp(z - z[0])
    wanted = np.append(-np.sum(others[1:]), others[1:])
    compiled = lg.compile(lg.value_and_grad(loss))
    for _ in range(5):
        value, gradient = compiled(z)
        assert value == pytest.approx(np.sum(others[1:]), rel=1e-14, abs=0)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-14)
    p = lg.Program()
    scores = p.parameter("scores", z)
    p.define("loss", loss(scores))
    backwards = p.adjoint("loss")
    namespace: dict = {}
    exec(backwards.source(), namespace)
    np.testing.assert_allclose(namespace["solve"](scores=z)["λ_scores"], wanted, rtol=1e-14)


def test_logarithms_of_no_shares_and_of_equal_ones():
    low = -np.inf
    assert lg.log_softmax([low, low]).tolist() == [low, low]
    assert lg.log_softmax([1.0, low]).tolist() == [0.0, low]
    found = lg.grad(lambda x: lg.log_softmax(x)[0])(np.array([1.0, low, 1.0]))
    np.testing.assert_allclose(found, [0.5, 0.0, -0.5], rtol=1e-15)
    found = lg.grad(lambda x: lg.log_softmax(x)[1])(np.zeros(4))
    np.testing.assert_allclose(found, [-0.25, 0.75, -0.25, -0.25], rtol=1e-15)
    assert lg.logsumexp([0.0, -40.0]) == pytest.approx(np.exp(-40), rel=1e-15, abs=0)
