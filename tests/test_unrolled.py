"""Derivatives of iterations, beside implicit ones, closed forms and differences."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg

RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((8, 4)), RNG.standard_normal(8)
V, T = RNG.standard_normal((5, 4)), RNG.standard_normal(5)
descent = lg.optim.gradient_descent


def held_out(lam, how):
    """A held-out loss of ridge regression by its log-penalty."""
    loss = lambda z: np.sum((A @ z - Y) ** 2) + np.exp(lam) * np.sum(z**2)
    return np.sum((V @ lg.argmin(loss, np.zeros(4), differentiate=how) - T) ** 2)


def closed_form(lam):
    H, e = A.T @ A, np.exp(lam) * np.eye(4)
    z = np.linalg.solve(H + e, A.T @ Y)
    slope = np.linalg.solve(H + e, -np.exp(lam) * z)
    return 2 * (V @ z - T) @ V @ slope


OPTIMIZERS = {
    "by default": (None, 400, 1e-12),
    "gradient descent": (descent(0.02), 400, 1e-12),
    "momentum": (lg.optim.momentum(0.3, 0.9), 500, 1e-8),
    "heavy ball": (lg.optim.heavy_ball(0.02, 0.5), 400, 1e-12),
    "adam": (lg.optim.adam(lambda t: 0.1 / (1 + t / 50)), 1500, 1e-9),
    "l-bfgs": (lg.optim.lbfgs(0.9), 30, 1e-8),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("more", [{}, {"checkpoints": 7}])
def test_unrolled_to_the_end_is_the_implicit_derivative(name, more):
    optimizer, steps, close = OPTIMIZERS[name]
    how = lg.Unrolled(steps, optimizer, **more)
    found = lg.grad(lambda lam: held_out(lam, how))(0.3)
    assert float(found) == pytest.approx(closed_form(0.3), rel=close)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_truncated_unrolling_of_a_quadratic_is_the_truncated_series(k):
    last = lg.Unrolled(2500, descent(0.02), last=k)
    series = lg.Neumann(terms=k, step=0.02)
    a, b = (float(lg.grad(lambda lam, h=how: held_out(lam, h))(0.3)) for how in (last, series))
    assert a == pytest.approx(b, rel=1e-9)


def trained(settings, start, optimizer=lg.optim.momentum):
    loss = lambda z: np.sum((A @ z["a"] - Y) ** 2) / 8 + np.sum(np.cos(z["b"]))
    begin = {"a": start, "b": 0.5 * start[:2]}
    z = lg.argmin(loss, begin, differentiate=lg.Unrolled(12, optimizer(**settings)))
    return np.sum((V @ z["a"] - T) ** 2) + np.sum(z["b"])


@pytest.mark.parametrize("optimizer", ["momentum", "heavy_ball", "adam", "gradient_descent"])
def test_rates_decays_and_starts_are_hyperparameters(optimizer):
    make = getattr(lg.optim, optimizer)
    settings = {"rate": np.full(12, 0.05)}
    if optimizer == "adam":
        settings |= {"b1": 0.8, "b2": 0.95}
    elif optimizer != "gradient_descent":
        settings |= {"decay": np.linspace(0.5, 0.7, 12)}
    f = lambda s, z: trained(s, z, make)
    start = RNG.standard_normal(4)
    report = lg.check_gradient(f, settings, start)
    assert report.error < 1e-6


def test_the_certificate_tells_what_is_differentiated():
    def said(how):
        f = lambda lam: held_out(lam, how)
        return lg.trace(f, 0.3).solve({"lam": 0.3}).gradient("output").certificate.differentiated

    assert said("implicit") == "implicit"
    assert said(lg.Unrolled(50, descent(0.02))) == "unrolled: 50 steps of gradient_descent"
    text = said(lg.Unrolled(50, descent(0.02), last=5))
    assert "the last 5 of 50 steps" in text


def test_fixed_points_unrolled():
    z = lambda x, how: lg.fixed_point(lambda z: np.cos(x * z), 0.5, differentiate=how)
    exact = lg.grad(lambda x: z(x, "implicit"))(0.9)
    found = lg.grad(lambda x: z(x, lg.Unrolled(200)))(0.9)
    assert float(found) == pytest.approx(float(exact), rel=1e-9)
    second = lg.grad(lg.grad(lambda x: z(x, lg.Unrolled(200))))(0.9)
    implicit = lg.grad(lg.grad(lambda x: z(x, "implicit")))(0.9)
    assert float(second) == pytest.approx(float(implicit), rel=1e-8)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("steps=-1", lambda: lg.Unrolled(-1)),
        ("steps=1.5", lambda: lg.Unrolled(1.5)),
        ("last=-2", lambda: lg.Unrolled(3, last=-2)),
        ("optimizer=2", lambda: lg.Unrolled(3, optimizer=2)),
        ("has no step", lambda: lg.root(lambda z: z, 1.0, differentiate=lg.Unrolled(3))),
        (
            "leave optimizer out",
            lambda: lg.fixed_point(np.cos, 1.0, differentiate=lg.Unrolled(3, descent(1))),
        ),
        ("shape \\(4,\\) for 3 steps", lambda: held_out(0.3, lg.Unrolled(3, descent(np.ones(4))))),
        ("memory=0", lambda: lg.optim.lbfgs(memory=0)),
        ("at step", lambda: held_out(0.3, lg.Unrolled(3000, descent(1.0)))),
    ],
)
def test_bad_input_is_named(message, call):
    with pytest.raises(lg.LagradError, match=message):
        call()
