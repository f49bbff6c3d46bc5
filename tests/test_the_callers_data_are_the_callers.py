"""Nothing that is passed in or closed over is changed, frozen, or kept where that shows."""

import numpy as np
import pytest
import scipy.sparse as sparse

import lagrad as lg

X = np.array([1.0, 2.0])


def index():
    at = np.array([0, 1])
    return at, lambda x: x[at] * np.array([1.0, 5.0])


def bins():
    base = np.array([0, 1])
    view = base[:]
    return base, lambda x: np.bincount(view, weights=x, minlength=2)


def positions():
    at = np.array([0, 1])
    return at, lambda x: np.take(x, at)


def mask():
    chosen = np.array([True, False])
    return chosen, lambda x: np.where(chosen, x, 0.0)


def chosen():
    at = np.array([True, True])
    return at, lambda x: np.sum(x[at])


def factors():
    a = np.ones(2)
    return a, lambda x: a * x


def groups():
    at = np.array([0, 1])
    return at, lambda x: lg.prox.group_l2(x, 0.1, groups=at)


def rows():
    a = np.ones((3, 2))
    return a, lambda x: lg.scan(lambda z, r: (z + r * x, None), np.zeros(2), a)[0]


def matrix(kind):
    def made():
        A = getattr(sparse, f"{kind}_array")(np.diag([1.0, 2.0]))
        return A.data, lambda x: A @ x

    made.__name__ = kind
    return made


MADE = [index, bins, positions, mask, chosen, factors, groups, rows]
MADE += [matrix(kind) for kind in ("csr", "csc", "coo", "dia", "bsr")]


@pytest.mark.parametrize("make", MADE)
def test_a_trace_keeps_no_array_of_the_callers(make):
    array, f = make()
    before = array.copy()
    expected = np.array(f(X))
    p = lg.trace(f, X)
    lg.grad(lambda x: np.sum(f(x)))(X)
    lg.compile(f)(X)
    assert array.flags.writeable
    np.testing.assert_array_equal(array, before)
    at = p.solve()
    array[...] = array[..., ::-1] * 0 + array.dtype.type(0)
    np.testing.assert_allclose(p.solve()["output"], expected)
    np.testing.assert_allclose(at["output"], expected)


def test_a_solution_keeps_what_it_was_given():
    p = lg.Program()
    value, w, start = np.ones(2), np.ones(2), np.ones(2)
    a = p.parameter("a", value=value)
    z = p.unknown("z", shape=(2,), start=start)
    p.subject_to(z**3 == w * a)
    p.define("f", np.sum(z * w))
    given = {"a": np.full(2, 8.0)}
    at = p.solve(given)
    many = p.solve_many([given])
    for array in (given["a"], value, w, start):
        array[:] = 5.0
    for one in (at, next(iter(many))):
        assert one["a"].tolist() == [8.0, 8.0]
        assert one["z"] == pytest.approx([2.0, 2.0])
        assert one.gradient("f")["a"] == pytest.approx(1.0 / 12.0)
    assert p.solve()["z"] == pytest.approx([1.0, 1.0])


RESULTS = {
    "the argument": lambda x, one: x,
    "what is closed over": lambda x, one: one,
    "an argument backwards": lambda x, one: x[::-1],
    "an argument in another shape": lambda x, one: np.reshape(x, (2, 1)),
    "a number many times": lambda x, one: np.broadcast_to(np.sum(x), (2,)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_the_callers_own(name):
    one, x = np.ones(2), X.copy()
    f = lg.compile(lambda x: RESULTS[name](x, one))
    expected = np.array(RESULTS[name](x, one))
    for _ in range(4):
        found = f(x)
        np.testing.assert_array_equal(found, expected)
        found[...] = 7.0
    assert x.tolist() == X.tolist()
    assert one.tolist() == [1.0, 1.0]


def test_a_gradient_is_the_callers_own():
    one = np.ones(2)
    for g in (lg.grad(lambda x: np.sum(one * x)), lg.compile(lg.grad(lambda x: np.sum(one * x)))):
        for _ in range(4):
            found = g(X)
            assert found.tolist() == [1.0, 1.0]
            found[:] = 7.0
    x = X.copy()
    _, pull = lg.vjp(lambda x: one * x * x, x)
    x[:] = 50.0
    for _ in range(2):
        found = np.ravel(pull(one))
        assert found.tolist() == [2.0, 4.0]
        found[:] = 7.0
    assert one.tolist() == [1.0, 1.0]


def test_a_users_primitive_may_write_into_what_it_is_given():
    buffer = np.zeros(2)

    def square(x):
        y = x**2
        if isinstance(x, np.ndarray) and x.ndim:
            x[:] = 0.0
        return y

    def rule(g, y, x):
        found = 2.0 * g * x
        for array in (g, y, x):
            if isinstance(array, np.ndarray):
                array[...] = 0.0
        return (found,)

    def doubled(x):
        return np.multiply(x, 2.0, out=buffer)

    square = lg.primitive(square, vjp=rule)
    doubled = lg.primitive(doubled, vjp=lambda g, y, x: (2.0 * g,))
    x, one = X.copy(), np.ones(2)
    for wrap in (lambda f: f, lg.compile):
        value = wrap(lg.value_and_grad(lambda x: np.sum(square(x + 1.0) * (x + 1.0))))
        for _ in range(2):
            found, slope = value(x)
            assert found == pytest.approx(np.sum((X + 1.0) ** 3))
            assert slope == pytest.approx(3.0 * (X + 1.0) ** 2)
    twice = lg.compile(lambda x: doubled(x) * doubled(x + 1.0))
    assert twice(x) == pytest.approx(4.0 * X * (X + 1.0))
    _, pull = lg.vjp(square, x)
    pull(one)
    assert x.tolist() == X.tolist()
    assert one.tolist() == [1.0, 1.0]


def test_a_warm_start_keeps_no_array_of_the_callers():
    start = np.ones(2)
    warm = lg.WarmStart(start)
    f = lg.compile(lg.grad(lambda a: np.sum(lg.root(lambda z: z**3 - a, warm))))
    assert f(np.full(2, 8.0)) == pytest.approx(1.0 / 12.0)
    assert start.tolist() == [1.0, 1.0]
