"""What a call held is freed by counting references: large arrays do not wait for a collection."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import lagrad as lg

N = 50_000
X = np.ones(N)


def closing():
    a = np.ones(N)
    return lambda x: np.sum(a * x)


def mapping():
    a = np.ones((N // 4, 4))
    return lambda x: a.T @ (a @ x)


def fixed():
    a = np.ones(N)
    return lambda x: lg.fixed_point(lambda z: 0.5 * z + np.mean(a * x), 0.0)


def rooted():
    a = np.ones(N)
    return lambda x: lg.root(lambda z: z**3 - np.sum(a * x), 1.0)


def least():
    a = np.ones(N)
    return lambda x: lg.argmin(lambda z: np.sum((a * z - x) ** 2), 0.0)


def scanned():
    a = np.ones((10, N // 10))
    return lambda x: np.sum(lg.scan(lambda z, r: (z + np.sum(r * x), None), 0.0, a)[0])


def branching():
    a = np.ones(N)
    return lambda x: np.sum(a * x) if np.sum(a * x) > 0 else x


def often():
    f = lg.compile(lg.grad(closing()))
    return [f(X) for _ in range(3)]


def breaking():
    f = closing()
    with pytest.raises(ZeroDivisionError):
        lg.grad(lambda x: f(x) / (1 // 0))(1.0)


def within(f, call):
    return call(f)


CALLS = {
    "grad": lambda: lg.grad(closing())(X),
    "grad by a number": lambda: lg.grad(closing())(1.0),
    "value_and_grad": lambda: lg.value_and_grad(closing())(X),
    "jvp": lambda: lg.jvp(closing(), (X,), (X,)),
    "vjp": lambda: lg.vjp(closing(), X)[1](1.0),
    "hvp": lambda: lg.hvp(closing(), X, X),
    "jacobian": lambda: lg.jacobian(mapping())(np.ones(4)),
    "hessian": lambda: within(
        mapping(), lambda f: lg.hessian(lambda x: np.sum(f(x) ** 2))(np.ones(4))
    ),
    "a gradient of a gradient": lambda: within(
        closing(), lambda f: lg.grad(lambda x: lg.grad(f)(x) * x)(1.0)
    ),
    "fixed_point": lambda: lg.grad(fixed())(1.0),
    "root": lambda: lg.grad(rooted())(1.0),
    "argmin": lambda: lg.grad(least())(1.0),
    "scan": lambda: lg.grad(scanned())(1.0),
    "a branch": lambda: lg.grad(branching())(1.0),
    "compile": often,
    "compile of an argmin": lambda: lg.compile(lg.grad(least()))(1.0),
    "trace": lambda: lg.trace(closing(), X).solve(),
    "a gradient of a trace": lambda: lg.trace(closing(), X).solve().gradient("output"),
    "minimize": lambda: within(closing(), lambda f: lg.minimize(lambda z: (f(z) - 1.0) ** 2, 0.0)),
    "check_gradient": lambda: lg.check_gradient(closing(), 1.0),
    "an error": breaking,
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_freed_without_a_collection(name):
    call = CALLS[name]
    for _ in range(2):
        call()  # what is compiled once is kept
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        call()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            call()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < X.nbytes


def test_what_a_dropped_compiled_function_closed_over_is_freed():
    class Own:
        w = np.ones(3)

        def loss(self, x):
            return np.sum(self.w * x)

    net, given = Own(), Own()
    f = lg.compile(lg.grad(net.loss))
    g = lg.compile(lg.grad(Own.loss, 1))
    for _ in range(3):
        f(np.ones(3))
        g(given, np.ones(3))
    watched = weakref.ref(net)
    del f, g, net
    gc.collect()
    assert watched() is None


def test_rules_that_close_over_much_are_not_kept():
    w = np.ones(1_000_000)
    kept = weakref.ref(w)

    def gradient(w):
        scaled = lg.primitive(lambda x: np.sum(w) * x, vjp=lambda g, y, x: (g * np.sum(w),))
        return lg.grad(lambda x: scaled(x))(1.0)

    assert gradient(w) == 1_000_000.0
    del w
    gc.collect()
    assert kept() is None
