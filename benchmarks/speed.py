"""Compiled plans beside JAX, autograd, CasADi, OpenMDAO, SciPy and NumPy by hand."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import scipy.optimize
import scipy.sparse as sparse

import lagrad as lg

from .hyperparameters import installed, settled
from .timing import Row, once, ratio, seconds


def elementwise(np_, x, w):
    both = np_.tanh(w * x + 0.5) * np_.exp(-(x**2)) + np_.sin(x * w) * np_.log1p(x**2)
    return np_.sum(both)


def elementwise_by_hand(x, w):
    product, square = w * x, x * x
    t, e, s, l1 = np.tanh(product + 0.5), np.exp(-square), np.sin(product), np.log1p(square)
    by_product = (1 - t * t) * e + np.cos(product) * l1
    by_x = by_product * w + 2 * x * (s / (1 + square) - t * e)
    return np.sum(t * e + s * l1), (by_x, by_product * x)


def with_jax(function, *arguments, argnums):
    """A compiled value and gradient of JAX, on arrays of its own."""
    import jax

    jax.config.update("jax_enable_x64", True)
    given = [jax.numpy.asarray(a) for a in arguments]
    run = settled(jax, jax.value_and_grad(lambda *a: function(jax.numpy, *a), argnums))
    return lambda: run(*given)


def vectors(full: bool) -> Iterator[Row]:
    targets = {100: 0.35, 10**4: 0.7, 10**6: 0.65, 10**7: 0.6}
    sizes = [50, 100, 200, 10**4, 2 * 10**4, 5 * 10**5, 10**6, *((10**7,) if full else ())]
    f = lambda x, w: elementwise(np, x, w)
    for n in sizes:
        x, w = np.random.default_rng(0).standard_normal((2, n))
        plain = lg.value_and_grad(f, (0, 1))
        fast, value = lg.compile(plain), lg.compile(f)
        turns = max(7, min(301, 10**6 // n))
        work = f"elementwise, n = {n:.0e}"
        # Short ones too become hot: what was called often is compiled.
        for _ in range(40_000 if n < 10**4 else 600 if n < 10**5 else 50):
            fast(x, w), value(x, w)
        if installed("jax"):
            jax = with_jax(elementwise, x, w, argnums=(0, 1))
            jax()
            r, a, b = ratio(lambda: fast(x, w), jax, turns)
            yield Row(work, "compiled / JAX", r, targets.get(n), f"{seconds(a)} / {seconds(b)}")
            r, a, b = ratio(lambda: plain(x, w), jax, max(5, turns // 20))
            yield Row(work, "not compiled / JAX", r, None, f"{seconds(a)} / {seconds(b)}")
        r, a, b = ratio(lambda: fast(x, w), lambda: elementwise_by_hand(x, w), turns)
        target = 0.5 if n == 10**6 else None
        yield Row(work, "compiled / NumPy by hand", r, target, f"{seconds(a)} / {seconds(b)}")
        r, a, b = ratio(lambda: fast(x, w), lambda: value(x, w), turns)
        yield Row(work, "value and gradient / value", r, 2.5, f"{seconds(a)} / {seconds(b)}")
    x, w = np.random.default_rng(0).standard_normal((2, 10**6)).astype(np.float32)
    fast = lg.compile(lg.value_and_grad(f, (0, 1)))
    for _ in range(50):
        fast(x, w)
    if installed("jax"):
        jax = with_jax(elementwise, x, w, argnums=(0, 1))
        jax()
        r, a, b = ratio(lambda: fast(x, w), jax, 21)
        work = "elementwise, n = 1e+06, float32"
        yield Row(work, "compiled / JAX", r, 0.8, f"{seconds(a)} / {seconds(b)}")


def network(np_, weights, X, labels):
    A, a, B, b = weights
    scores = np_.tanh(X @ A + a) @ B + b
    top = np_.max(scores, axis=1, keepdims=True)
    log_sum = np_.log(np_.sum(np_.exp(scores - top), axis=1)) + top[:, 0]
    return np_.mean(log_sum - np_.sum(scores * labels, axis=1))


def perceptrons(full: bool) -> Iterator[Row]:
    for batch, target in ((64, None), (128, 1.0), (256, None)):
        rng = np.random.default_rng(0)
        weights = [
            *(rng.standard_normal((784, 256)) / 28, np.zeros(256)),
            *(rng.standard_normal((256, 10)) / 16, np.zeros(10)),
        ]
        X, labels = rng.standard_normal((batch, 784)), np.eye(10)[rng.integers(0, 10, batch)]
        fast = lg.compile(lg.value_and_grad(lambda w: network(np, w, X, labels)))
        fast(weights), fast(weights)
        work = f"MLP 784-256-10, batch {batch}"
        if installed("jax"):
            import jax

            jax.config.update("jax_enable_x64", True)
            given = [jax.numpy.asarray(p) for p in (*weights, X, labels)]
            loss = lambda w, X, labels: network(jax.numpy, w, X, labels)
            run = settled(jax, jax.value_and_grad(loss))
            theirs = lambda run=run, g=given: run(g[:4], g[4], g[5])
            theirs()
            r, a, b = ratio(lambda: fast(weights), theirs, 41)
            yield Row(work, "compiled / JAX", r, target, f"{seconds(a)} / {seconds(b)}")
        if installed("autograd"):
            import autograd
            import autograd.numpy

            own = autograd.value_and_grad(lambda w: network(autograd.numpy, w, X, labels))
            r, a, b = ratio(lambda: fast(weights), lambda: own(weights), 41)
            limit = None if target is None else 0.7
            yield Row(work, "compiled / autograd", r, limit, f"{seconds(a)} / {seconds(b)}")


def random_scalars(n: int, xs, sin, tanh):
    """Additions, products, sines and tangents of the last fifty values."""
    rng = np.random.default_rng(n)
    operations, left, right = rng.integers(0, 4, n), *rng.integers(1, 51, (2, n))
    values = list(xs)
    for o, a, b in zip(operations.tolist(), left.tolist(), right.tolist(), strict=True):
        u, v = values[-a], values[-b]
        if o == 0:
            values.append(u + v)
        elif o == 1:
            values.append(u * v)
        else:
            values.append(sin(u) if o == 2 else tanh(v))
    # All of the last ones, so that no cotangent is zero.
    total = values[-1]
    for value in values[-50:-1]:
        total = total + value
    return total


def scalars(full: bool) -> Iterator[Row]:
    for n in (5 * 10**4, 10**5, 2 * 10**5, *((10**6,) if full else ())):
        xs = [0.1 + k / 50 for k in range(50)]
        work = f"random scalar DAG, {n:.0e} operations"

        def declared(n=n, xs=xs):
            p = lg.Program()
            leaves = [p.parameter(f"x{k}", value=x) for k, x in enumerate(xs)]
            p.define("z", random_scalars(n, leaves, np.sin, np.tanh))
            at = p.solve()
            at.gradient("z")
            return p

        p = declared()  # the loops are loaded, or compiled at the very first time
        again = lambda p=p: p.solve().gradient("z")
        value = lambda p=p: p.solve()
        if installed("casadi"):
            import casadi

            def built(n=n):
                x = casadi.SX.sym("x", 50)
                z = random_scalars(n, [x[k] for k in range(50)], casadi.sin, casadi.tanh)
                run = casadi.Function("both", [x], [z, casadi.gradient(z, x)])
                return run, run(xs)

            run, (z, _) = built()
            assert abs(float(z) - p.solve()["z"]) <= 1e-9 * max(1.0, abs(float(z)))
            gc.collect()
            r, a, b = ratio(declared, built, 3)
            note = f"{seconds(a)} / {seconds(b)}"
            target = 0.35 if n in (10**5, 10**6) else None
            yield Row(work, "declare, solve, gradient / CasADi", r, target, note)
            r, a, b = ratio(again, lambda run=run, xs=xs: run(xs), 21)
            target = (1.0 if installed("llvmlite") else 10.0) if target else None
            note = f"{seconds(a)} / {seconds(b)}"
            yield Row(work, "value and gradient again / CasADi", r, target, note)
        r, a, b = ratio(again, value, 21)
        yield Row(work, "value and gradient / value", r, None, f"{seconds(a)} / {seconds(b)}")


def substitution(full: bool) -> Iterator[Row]:
    n = 10**6 if full else 10**5
    p = lg.Program()
    y = p.parameter("x", value=1.0)
    for k in range(n):
        y = p.define(f"y{k}", y + 1e-6 * np.sin(y))
    p.solve().gradient(y)
    r, a, b = ratio(lambda: p.solve().gradient(y), lambda: p.solve(), 5)
    work = f"back-substitution over {n:.0e} scalar constraints"
    yield Row(work, "value and gradient / value", r, 3.0, f"{seconds(a)} / {seconds(b)}")


def chain_of_components(n: int) -> None:
    p = lg.Program()
    y = p.parameter("x", value=1.0)
    for k in range(n):
        y = p.define(f"y{k}", y + 0.01 * np.sin(y))
    p.solve().gradient(y)


def with_openmdao(n: int) -> None:
    import openmdao.api as om

    problem = om.Problem(reports=False)
    problem.model.add_subsystem("y0", om.ExecComp("y = x + 0.01*sin(x)"))
    for k in range(1, n):
        problem.model.add_subsystem(f"y{k}", om.ExecComp("y = x + 0.01*sin(x)"))
        problem.model.connect(f"y{k - 1}.y", f"y{k}.x")
    problem.setup()
    problem.run_model()
    problem.compute_totals(of=[f"y{n - 1}.y"], wrt=["y0.x"])


def components(full: bool) -> Iterator[Row]:
    for n in (1500, 3000, *((6000,) if full else ())):
        chain_of_components(n)
        ours = min(once(lambda n=n: chain_of_components(n)) for _ in range(5))
        if installed("openmdao"):
            theirs = once(lambda n=n: with_openmdao(n))
            target = 0.01 if n == 3000 else None
            note = f"{seconds(ours)} / {seconds(theirs)}"
            yield Row(f"chain of {n} components", "lagrad / OpenMDAO", ours / theirs, target, note)


def diodes(N: int) -> tuple[lg.Program, Callable[[], None]]:
    """N ladders of three diodes and three resistors, and a loop of SciPy's `root` over some."""
    R, V = np.random.default_rng(0).uniform(50, 150, (3, N)), 5.0
    current = lambda v: 1e-3 * (np.exp(v) - 1)
    p = lg.Program("diodes")
    r = p.parameter("R", value=R)
    u = p.unknown("u", start=np.full((3, N), 0.5))
    p.subject_to((V - u[0]) / r[0] - current(u[0]) - (u[0] - u[1]) / r[1] == 0, name="a")
    p.subject_to((u[0] - u[1]) / r[1] - current(u[1]) - (u[1] - u[2]) / r[2] == 0, name="b")
    p.subject_to((u[1] - u[2]) / r[2] - current(u[2]) == 0, name="c")
    p.define("J", np.sum(u[2]))

    def residual(v, r):
        i = current(v)
        a, b = (v[0] - v[1]) / r[1], (v[1] - v[2]) / r[2]
        return [(V - v[0]) / r[0] - i[0] - a, a - i[1] - b, b - i[2]]

    def loop() -> None:
        for k in range(0, N, 10):
            scipy.optimize.root(residual, np.full(3, 0.5), args=(R[:, k],))

    return p, loop


def circuits(full: bool) -> Iterator[Row]:
    for N in (5000, 10_000, 20_000):
        p, loop = diodes(N)
        p.solve().gradient("J")
        r, a, b = ratio(lambda p=p: p.solve(), loop, 3)
        work, target = f"{N} diode circuits", 0.2 if N == 10_000 else None
        yield Row(work, "solve / loop of root", r / 10, target, f"{seconds(a)} / {seconds(10 * b)}")
        at = p.solve()
        gradient = statistics.median(once(lambda at=at: at.gradient("J")) for _ in range(5))
        yield Row(work, "gradient / solve", gradient / a, 0.2, seconds(gradient))


def pagerank(full: bool) -> Iterator[Row]:
    for n in (5 * 10**4, 10**5, *((10**6,) if full else ())):
        m, rng = 10 * n, np.random.default_rng(0)
        source, target = rng.integers(0, n, m), np.sort(rng.integers(0, n, m))
        w, worth = rng.random(m) + 0.1, rng.random(n)
        w /= np.bincount(source, w, n)[source]

        def loss(alpha, w, n=n, source=source, target=target, worth=worth):
            step = lambda r: (1 - alpha) / n + alpha * np.bincount(target, r[source] * w, n)
            found = lg.fixed_point(step, np.full(n, 1 / n), solver=lg.Anderson(tol=1e-12))
            return np.sum(worth * found)

        def by_hand(alpha, w, n=n, source=source, target=target, worth=worth):
            rows = np.searchsorted(target, np.arange(n + 1))
            A = sparse.csr_array((w, source, rows), shape=(n, n))
            At, r, multiplier = A.T.tocsr(), np.full(n, 1 / n), worth
            while True:
                before, r = r, (1 - alpha) / n + alpha * (A @ r)
                if np.abs(r - before).max() < 1e-12 * r.max():
                    break
            while True:
                before, multiplier = multiplier, worth + alpha * (At @ multiplier)
                if np.abs(multiplier - before).max() < 1e-9 * multiplier.max():
                    break
            by_alpha = multiplier @ (A @ r - 1 / n)
            return worth @ r, (by_alpha, alpha * multiplier[target] * r[source])

        fast, value = lg.compile(lg.value_and_grad(loss, (0, 1))), lg.compile(loss)
        for _ in range(2):
            found = fast(0.85, w)
            value(0.85, w)
        np.testing.assert_allclose(found[1][1], by_hand(0.85, w)[1][1], rtol=1e-6)
        work = f"PageRank, {n:.0e} nodes, {m:.0e} edges"
        ours, hand = lambda f=fast, w=w: f(0.85, w), lambda g=by_hand, w=w: g(0.85, w)
        r, a, b = ratio(ours, hand, 3)
        target = 1.3 if n == 10**6 else None
        yield Row(work, "compiled / SciPy by hand", r, target, f"{seconds(a)} / {seconds(b)}")
        solve = statistics.median(once(lambda v=value, w=w: v(0.85, w)) for _ in range(3))
        target = 1.5 if n == 10**6 else None
        yield Row(work, "gradient / solve", (a - solve) / solve, target, seconds(solve))


def rosenbrock(full: bool) -> Iterator[Row]:
    f = lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    for n in (5 * 10**4, 10**5, 2 * 10**5):
        x = np.random.default_rng(0).standard_normal(n)
        hessian, gradient = lg.compile(lg.hessian(f, sparse=True)), lg.compile(lg.grad(f))
        for _ in range(3):
            hessian(x), gradient(x)
        r, a, b = ratio(lambda x=x: hessian(x), lambda x=x: gradient(x), 9)
        work, target = f"sparse Hessian, Rosenbrock, n = {n:.0e}", 20.0 if n == 10**5 else None
        yield Row(work, "Hessian / gradient", r, target, f"{seconds(a)} / {seconds(b)}")


SCIPY = (
    "import numpy, scipy.linalg.lapack, scipy.optimize, scipy.sparse.csgraph, "
    "scipy.sparse.linalg, scipy.special\n"
)
FIRST = (
    "import numpy as np, lagrad as lg\n"
    "def f(x):\n    y = np.sin(x) * x\n    for k in range(7):\n        y = y + np.exp(-y * k)\n"
    "    return np.sum(y)\n"
)


def seconds_in_child(before: str, timed: str) -> float:
    code = f"import time\n{before}began = time.perf_counter()\n{timed}\n"
    code += "print(time.perf_counter() - began)"
    # As it is installed: not compiled anew at each start.
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=own
        )
        for _ in range(7)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def starting(full: bool) -> Iterator[Row]:
    spent = seconds_in_child(SCIPY, "import lagrad")
    yield Row("import lagrad", "beyond SciPy's own import / 0.35 s", spent / 0.35, 1.0)
    spent = seconds_in_child(FIRST, "lg.grad(f)(np.ones(5))")
    yield Row("first gradient", "of a ten-line function / 10 ms", spent / 0.01, 1.0, seconds(spent))


def rows(full: bool) -> Iterator[Row]:
    parts = (vectors, perceptrons, scalars, substitution, components, circuits)
    for part in (*parts, pagerank, rosenbrock, starting):
        yield from part(full)
