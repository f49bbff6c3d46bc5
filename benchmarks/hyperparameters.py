"""Hypergradients and fixed points: lagrad beside NumPy by hand, jaxopt and optimistix."""

from __future__ import annotations

import importlib.util
import time
import tracemalloc
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from scipy.special import expit

import lagrad as lg

from .timing import Row, once, ratio, seconds


def labelled(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and held-out rows, X ~ N(0, 1), labels ±1 from a sparse logistic model."""
    rng = np.random.default_rng(seed)
    w = np.zeros(d)
    w[: max(3, d // 10)] = 2.0 * rng.standard_normal(max(3, d // 10))

    def rows() -> tuple[np.ndarray, np.ndarray]:
        X = rng.standard_normal((n, d))
        return X, np.where(rng.random(n) < expit(X @ w), 1.0, -1.0)

    return *rows(), *rows()


class Penalties:
    """Held-out log-loss of L2 logistic regression by one log-penalty for each feature."""

    def __init__(self, X, y, V, u) -> None:
        self.data = (X, y, V, u)
        self.a = np.zeros(X.shape[1])

    def loss(self, a):
        X, y, V, u = self.data
        train = lambda w: np.sum(np.logaddexp(0, -y * (X @ w))) + 0.5 * np.sum(np.exp(a) * w**2)
        return np.sum(np.logaddexp(0, -u * (V @ lg.argmin(train, np.zeros(a.size)))))

    def by_newton(self, a):
        """Newton with Cholesky, as an expert writes it."""
        X, y, V, u = self.data
        w, e, diagonal = np.zeros(a.size), np.exp(a), np.diag_indices(a.size)

        def factor(w):
            p = expit(-y * (X @ w))
            H = (X.T * (p * (1 - p))) @ X
            H[diagonal] += e
            return scipy.linalg.cho_factor(H, check_finite=False), -(X.T @ (y * p)) + e * w

        for _ in range(50):
            factors, gradient = factor(w)
            step = scipy.linalg.cho_solve(factors, gradient, check_finite=False)
            w = w - step
            if np.abs(step).max() < 1e-9 * np.abs(w).max():
                break
        factors, _ = factor(w)
        margin = u * (V @ w)
        outer = -(V.T @ (u * expit(-margin)))
        multiplier = scipy.linalg.cho_solve(factors, outer, check_finite=False)
        return np.logaddexp(0, -margin).sum(), -multiplier * e * w

    def by_jaxopt(self):
        """The value and gradient by jaxopt's L-BFGS and conjugate gradients, compiled."""
        import jax
        import jaxopt

        jax.config.update("jax_enable_x64", True)
        X, y, V, u = map(jax.numpy.asarray, self.data)
        np_ = jax.numpy

        def train(w, a):
            return np_.sum(np_.logaddexp(0, -y * (X @ w))) + 0.5 * np_.sum(np_.exp(a) * w**2)

        solver = jaxopt.LBFGS(
            train, tol=1e-8, maxiter=500, implicit_diff_solve=jaxopt.linear_solve.solve_cg
        )

        def loss(a):
            w = solver.run(np_.zeros(a.size), a).params
            return np_.sum(np_.logaddexp(0, -u * (V @ w)))

        return settled(jax, jax.value_and_grad(loss))

    def by_optimistix(self):
        """The same by optimistix's BFGS and its implicit adjoint, compiled."""
        import jax
        import optimistix

        jax.config.update("jax_enable_x64", True)
        X, y, V, u = map(jax.numpy.asarray, self.data)
        np_ = jax.numpy

        def slope(w, a):
            return -(X.T @ (y * jax.nn.sigmoid(-y * (X @ w)))) + np_.exp(a) * w

        solver = optimistix.Newton(rtol=1e-9, atol=1e-9)

        def loss(a):
            w = optimistix.root_find(slope, solver, np_.zeros(a.size), a, max_steps=100).value
            return np_.sum(np_.logaddexp(0, -u * (V @ w)))

        return settled(jax, jax.value_and_grad(loss))


def settled(jax, function):
    """A compiled function that waits for its result."""
    compiled = jax.jit(function)
    return lambda *args: jax.block_until_ready(compiled(*args))


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


def small_penalties() -> Iterator[Row]:
    problem = Penalties(*labelled(400, 30, 0))
    a = problem.a
    first = once(lambda: lg.value_and_grad(problem.loss)(a))
    yield Row("400×30 penalties", "first call, tracing included / 50 ms", first / 0.05, 1.0)
    fast = lg.compile(lg.value_and_grad(problem.loss))
    contestants = {"by hand (Newton, Cholesky)": (problem.by_newton, 1.0)}
    if installed("jax", "jaxopt", "optimistix"):
        contestants["jaxopt, CG"] = (problem.by_jaxopt(), None)
        contestants["optimistix, Newton"] = (problem.by_optimistix(), None)
    yield from against("400×30 penalties", fast, contestants, a, 101)


def against(work, ours, contestants, argument, turns, what="lagrad compiled") -> Iterator[Row]:
    """A row for each contestant, its results compared with ours first."""
    value, gradient = ours(argument)
    for name, (theirs, target) in contestants.items():
        their_value, their_gradient = theirs(argument)
        off = np.abs(np.asarray(their_gradient) - gradient).max() / np.abs(gradient).max()
        assert abs(float(their_value) - value) < 1e-6 * abs(value), (name, value, their_value)
        share, mine, other = ratio(lambda: ours(argument), lambda t=theirs: t(argument), turns)
        note = f"{seconds(mine)} / {seconds(other)}, its gradient within {off:.0e}"
        yield Row(work, f"{what} / {name}", share, target, note)


def large_penalties() -> Iterator[Row]:
    problem = Penalties(*labelled(5000, 300, 0))
    fast = lg.compile(lg.value_and_grad(problem.loss))
    contestants = {"by hand (Newton, Cholesky)": (problem.by_newton, None)}
    if installed("jax", "jaxopt"):
        contestants["jaxopt, CG"] = (problem.by_jaxopt(), 0.8)
    yield from against("5000×300 penalties", fast, contestants, problem.a, 11)


def equilibrium() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    n, batch = 512, 64
    W, U = 0.5 * rng.standard_normal((n, n)) / np.sqrt(n), rng.standard_normal((n, n)) / np.sqrt(n)
    x, b = rng.standard_normal((batch, n)), 0.1 * rng.standard_normal(n)

    def loss(W):
        z = lg.fixed_point(lambda z: np.tanh(z @ W + x @ U + b), np.zeros((batch, n)))
        return np.sum(z**2)

    def by_hand(W):
        c, z = x @ U + b, np.zeros((batch, n))
        for _ in range(500):
            before, z = z, np.tanh(z @ W + c)
            if np.abs(z - before).max() < 1e-11:
                break
        s, right = 1 - z * z, 2 * z
        multiplier = right
        for _ in range(500):
            before, multiplier = multiplier, right + (multiplier * s) @ W.T
            if np.abs(multiplier - before).max() < 1e-10:
                break
        return np.sum(z**2), z.T @ (multiplier * s)

    fast = lg.compile(lg.value_and_grad(loss))
    contestants = {"by hand": (by_hand, None)}
    if installed("jax", "jaxopt"):
        contestants["jaxopt, GMRES"] = (equilibrium_by_jaxopt(x, U, b), 1.0)
    yield from against("DEQ 512, batch 64", fast, contestants, W, 11)
    exact = by_hand(W)[1]
    off = np.abs(fast(W)[1] - exact).max() / np.abs(exact).max()
    yield Row("DEQ 512, batch 64", "relative error of the gradient / 1e-9", off / 1e-9, 1.0)


def equilibrium_by_jaxopt(x, U, b):
    import jax
    import jaxopt

    jax.config.update("jax_enable_x64", True)
    x, U, b = map(jax.numpy.asarray, (x, U, b))
    # Its default of 1e-5 leaves the gradient wrong in the sixth digit.
    solver = jaxopt.FixedPointIteration(
        lambda z, W: jax.numpy.tanh(z @ W + x @ U + b),
        tol=1e-10,
        maxiter=500,
        implicit_diff_solve=jaxopt.linear_solve.solve_gmres,
    )

    def loss(W):
        return jax.numpy.sum(solver.run(jax.numpy.zeros(x.shape), W).params ** 2)

    return settled(jax, jax.value_and_grad(loss))


def breast_cancer() -> Iterator[Row]:
    if not installed("sklearn"):
        return
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    X = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    y = np.where(data.target > 0, 1.0, -1.0)
    problem = Penalties(X[:400], y[:400], X[400:], y[400:])
    began = time.perf_counter()
    result = lg.minimize(
        lg.compile(problem.loss), np.zeros(30), bounds=(-6.0, 6.0), options={"maxfun": 24}
    )
    took = time.perf_counter() - began
    note = f"{result.nfev} evaluations, {seconds(took)}"
    yield Row("breast cancer, 30 penalties", "outer loss / 4.628", result.fun / 4.628, 1.0, note)
    yield Row("breast cancer, 30 penalties", "time / 0.2 s", took / 0.2, 1.0, note)


def thousand_steps() -> Iterator[Row]:
    """hypertorch's logistic example: 1000 outer steps, T = 100 inner ones, K = 10."""
    rng = np.random.default_rng(1)
    n, d = 1000, 20
    X = rng.standard_normal((n, d))
    w = rng.standard_normal(d)
    y = np.where(X @ w + 0.1 * rng.standard_normal(n) > 0, 1.0, -1.0)
    X, V, y, u = X[:500], X[500:], y[:500], y[500:]
    step = 4.0 / np.linalg.norm(X, 2) ** 2 * 500

    def loss(a, start):
        train = lambda w: np.mean(np.logaddexp(0, -y * (X @ w))) + 0.5 * np.mean(np.exp(a) * w**2)
        z = lg.argmin(train, start, tol=1e-6)
        return np.mean(np.logaddexp(0, -u * (V @ z))), z

    def run():
        function = lg.compile(lg.transforms.Certified(loss, 0, 1e-3, "raise"))
        a, z = np.zeros(d), np.zeros(d)
        for _ in range(1000):
            (_, z), gradient, _ = function(a, z)
            a = a - 10.0 * gradient
        return loss(a, z)[0]

    def by_hand():
        """T steps of gradient descent from the last weights, and K of the adjoint iteration."""
        a, z, multiplier = np.zeros(d), np.zeros(d), np.zeros(d)
        for _ in range(1000):
            e = np.exp(a) / d
            for _ in range(100):
                z = z - step * (-(X.T @ (y * expit(-y * (X @ z)))) / 500 + e * z)
            p = expit(-y * (X @ z))
            curvature = p * (1 - p) / 500
            outer = -(V.T @ (u * expit(-u * (V @ z)))) / 500
            for _ in range(10):
                product = X.T @ (curvature * (X @ multiplier)) + e * multiplier
                multiplier = multiplier - step * (product - outer)
            a = a + 10.0 * multiplier * e * z
        return np.mean(np.logaddexp(0, -u * (V @ z)))

    ours, theirs = once(run), once(by_hand)
    yield Row("1000 outer steps, 20 penalties", "time / 3 s", ours / 3.0, 1.0, seconds(ours))
    note = f"{seconds(ours)} / {seconds(theirs)}"
    yield Row("1000 outer steps, 20 penalties", "lagrad / by hand", ours / theirs, None, note)


def sparse_design() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    n, d = 20_000, 50_000
    X = sparse.random_array((n, d), density=1e-3, rng=rng, format="csr")
    V = sparse.random_array((n // 4, d), density=1e-3, rng=rng, format="csr")
    w = rng.standard_normal(d) * (rng.random(d) < 0.01) * 10
    y = np.where(rng.random(n) < expit(X @ w), 1.0, -1.0)
    u = np.where(rng.random(n // 4) < expit(V @ w), 1.0, -1.0)
    a = np.zeros(d)
    problem = Penalties(X, y, V, u)

    def by_hand(a):
        """SciPy's trust-region Newton, and its conjugate gradients for the multipliers."""
        e, Xt = np.exp(a), X.T.tocsr()

        def objective(w):
            margin = y * (X @ w)
            slope = -(Xt @ (y * expit(-margin))) + e * w
            return np.logaddexp(0, -margin).sum() + 0.5 * np.sum(e * w * w), slope

        def product(w, v):
            p = expit(-y * (X @ w))
            return Xt @ (p * (1 - p) * (X @ v)) + e * v

        w = scipy.optimize.minimize(
            objective, np.zeros(d), jac=True, hessp=product, method="trust-krylov", tol=1e-9
        ).x
        margin = u * (V @ w)
        outer = -(V.T @ (u * expit(-margin)))
        p = expit(-y * (X @ w))
        curvature = p * (1 - p)
        hessian = sparse_linalg.LinearOperator(
            (d, d), matvec=lambda v: Xt @ (curvature * (X @ v)) + e * v
        )
        multiplier, _ = sparse_linalg.cg(hessian, outer, rtol=1e-10)
        return np.logaddexp(0, -margin).sum(), -multiplier * e * w

    ours = lg.value_and_grad(problem.loss)
    tracemalloc.start()
    ours(a)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    contestants = {"by hand (SciPy)": (by_hand, 1.3)}
    yield from against("sparse 20,000×50,000", ours, contestants, a, 5, "lagrad, tracing included")
    yield Row("sparse 20,000×50,000", "peak memory / 1 GiB", peak / 2**30, 1.0)


def rows(full: bool) -> Iterator[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in (
            small_penalties,
            large_penalties,
            thousand_steps,
            equilibrium,
            breast_cancer,
            sparse_design,
        ):
            yield from part()
