"""Loops: memory against time, and the cost of a step, beside JAX's scan."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

import lagrad as lg

from .timing import Row, once, ratio, seconds

ROUNDS = 3


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


def peak(run: Callable[[], object]) -> int:
    """The bytes of arrays at most, beside those before."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most - before


def recurrent(full: bool) -> Iterator[Row]:
    """1,000 steps of a tanh RNN 1,000 wide, a batch of 64 states."""
    n, width, batch = 1000, 1000, 64
    rng = np.random.default_rng(0)
    W = rng.standard_normal((width, width)) / np.sqrt(width)
    h = rng.standard_normal((width, batch))

    def loss(W, h, **how):
        return np.sum(lg.iterate(lambda z: np.tanh(W @ z), h, n, **how) ** 2)

    def by(**how):
        f = lg.compile(lg.value_and_grad(lambda W, h: loss(W, h, **how)))
        return lambda: f(W, h)

    work = f"RNN {width} wide, batch {batch}, {n} steps"
    roads = {"all": by(), "√n": by(checkpoints=31), "5%": by(checkpoints=n // 20)}
    for run in roads.values():
        run()
    everything = peak(roads["all"])
    for name in ("√n", "5%"):
        few = peak(roads[name])
        yield Row(work, f"peak memory, {name} / all stored", few / everything, None)
        r, a, b = ratio(roads[name], roads["all"], ROUNDS)
        limit = 1.34 if name == "5%" else None
        yield Row(work, f"time, {name} / all stored", r, limit, f"{seconds(a)} / {seconds(b)}")
    if installed("jax"):
        import jax

        jax.config.update("jax_enable_x64", True)

        def with_jax(W, h):
            step = jax.checkpoint(lambda z, _: (jax.numpy.tanh(W @ z), None))
            last, _ = jax.lax.scan(step, h, None, length=n)
            return jax.numpy.sum(last**2)

        compiled = jax.jit(jax.value_and_grad(with_jax))
        theirs = lambda: jax.block_until_ready(compiled(W, h))
        theirs()
        r, a, b = ratio(roads["all"], theirs, ROUNDS)
        yield Row(work, "all stored / jax.checkpoint, jit", r, 1.0, f"{seconds(a)} / {seconds(b)}")


def long_states(full: bool) -> Iterator[Row]:
    """10⁵ steps of a state of 10⁵ numbers, 80 GB if stored."""
    n, size = (10**5, 10**5) if full else (10**4, 10**4)
    x = np.linspace(0.1, 1.0, size)
    spent = []

    def gradient():
        f = lg.grad(
            lambda a: (
                np.sum(lg.iterate(lambda z: z + 1e-6 * a * z * (1 - z), x, n, memory="1 GB")) / size
            )
        )
        spent.append(once(lambda: f(1.0)))

    most = peak(gradient)
    work = f"{n:.0e} steps, state of {size:.0e}"
    yield Row(work, "peak memory / 2 GiB", most / 2**31, 1.0, seconds(spent[0]))


def small_states(full: bool) -> Iterator[Row]:
    """A state of ten numbers: microseconds of the gradient for each step."""
    W = np.random.default_rng(0).standard_normal((10, 10)) * 0.3

    def loss(W, n):
        return np.sum(lg.iterate(lambda z: np.tanh(W @ z + 0.1), np.ones(10), n))

    each = {}
    for n in (10**3, 10**4, 10**5, *((10**6,) if full else ())):
        f = lg.compile(lg.grad(lambda W, n=n: loss(W, n)))
        for _ in range(max(3, 10**5 // n)):  # hot: loops are compiled when they have run a while
            f(W)
        each[n] = min(once(lambda f=f: f(W)) for _ in range(3)) / n
        limit = 1.5 if installed("llvmlite") else 25.0
        yield Row(f"state of 10, {n:.0e} steps", "gradient, µs a step", 1e6 * each[n], limit)
    growth = each[max(each)] / each[10**3]
    yield Row("state of 10", "growth of a step's time with length", growth, 1.5)


def kalman(full: bool) -> Iterator[Row]:
    """The log-likelihood of a linear Gaussian model, four states, by all its matrices."""
    n = 10**4
    rng = np.random.default_rng(0)
    A = 0.95 * np.eye(4) + 0.02 * rng.standard_normal((4, 4))
    C, Q, R = rng.standard_normal((2, 4)), 0.1 * np.eye(4), 0.5 * np.eye(2)
    ys = rng.standard_normal((n, 2))

    def likelihood(np_, scan, A, C, Q, R):
        def step(state, y):
            m, P = state
            m, P = A @ m, A @ P @ A.T + Q
            S = C @ P @ C.T + R
            det = S[0, 0] * S[1, 1] - S[0, 1] * S[1, 0]
            inverse = (
                np_.stack([np_.stack([S[1, 1], -S[0, 1]]), np_.stack([-S[1, 0], S[0, 0]])]) / det
            )
            e = y - C @ m
            K = P @ C.T @ inverse
            value = -0.5 * (e @ (inverse @ e) + np_.log(det))
            return (m + K @ e, P - K @ C @ P), value

        _, values = scan(step, (np_.zeros(4), np_.eye(4)), ys)
        return np_.sum(values)

    ours = lg.compile(lg.grad(lambda *M: likelihood(np, lg.scan, *M), (0, 1, 2, 3)))
    for _ in range(3):
        found = ours(A, C, Q, R)
    if installed("jax"):
        import jax

        jax.config.update("jax_enable_x64", True)
        theirs = jax.jit(jax.grad(lambda *M: likelihood(jax.numpy, jax.lax.scan, *M), (0, 1, 2, 3)))
        for a, b in zip(found, theirs(A, C, Q, R), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)
        r, a, b = ratio(
            lambda: ours(A, C, Q, R), lambda: jax.block_until_ready(theirs(A, C, Q, R)), 7
        )
        note = f"{seconds(a)} / {seconds(b)}"
        yield Row(f"Kalman, 4 states, {n:.0e} steps", "compiled / JAX's scan", r, 0.7, note)


def reversed_momentum(full: bool) -> Iterator[Row]:
    """1,000 steps of momentum on scikit-learn's digits, run backwards in whole numbers."""
    if not installed("sklearn"):
        return
    from sklearn.datasets import load_digits

    from lagrad.loops.exact_momentum import ExactMomentum

    X, y = load_digits(return_X_y=True)
    X, Y = X[:600] / 16.0, np.eye(10)[y[:600]]
    kept: list[int] = []
    plain = ExactMomentum.run

    def run(self):
        plain(self)
        kept.extend(digits.bits for digits in self.digits)

    def by(how):
        def held_out(log_penalty, rates):
            def train(W):
                scores = X[:300] @ W
                fit = np.sum(lg.logsumexp(scores, axis=1)) - np.sum(scores * Y[:300])
                return fit / 300 + np.exp(log_penalty) * np.sum(W * W)

            inner = how(1000, lg.optim.sgd_momentum(rates, 0.9))
            scores = X[300:] @ lg.argmin(train, np.zeros((64, 10)), differentiate=inner)
            return np.sum(lg.logsumexp(scores, axis=1)) - np.sum(scores * Y[300:])

        return lg.grad(held_out, (0, 1))

    at = (-6.0, np.full(1000, 0.5))
    ExactMomentum.run = run
    try:
        spent = once(lambda: kept.append(by(lg.Reversible)(*at)))
    finally:
        ExactMomentum.run = plain
    found, stored = kept.pop(), by(lg.Unrolled)(*at)
    off = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, stored, strict=True))
    work = "momentum on digits, 1,000 steps, γ = 0.9"
    theory = -1000 * np.log2(0.9)
    yield Row(work, "bits stored / theory", max(kept) / theory, 1.1, seconds(spent))
    yield Row(work, "gradient, off from the stored one / 1e-8", off / 1e-8, 1.0)


def rows(full: bool) -> Iterator[Row]:
    for part in (recurrent, long_states, small_states, kalman, reversed_momentum):
        yield from part(full)
