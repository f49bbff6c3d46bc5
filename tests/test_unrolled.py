"""Derivatives of iterations, beside implicit ones, closed forms and differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg
from lagrad.loops.exact_momentum import Digits, ExactMomentum, ratio

RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((8, 4)), RNG.standard_normal(8)
V, T = RNG.standard_normal((5, 4)), RNG.standard_normal(5)
descent = lg.optim.gradient_descent
BY_MOMENTUM = lambda *settings: lg.Reversible(20, lg.optim.sgd_momentum(*settings))


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
    "momentum": (lg.optim.sgd_momentum(0.3, 0.9), 500, 1e-8),
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


def trained(settings, start, optimizer=lg.optim.sgd_momentum):
    loss = lambda z: np.sum((A @ z["a"] - Y) ** 2) / 8 + np.sum(np.cos(z["b"]))
    begin = {"a": start, "b": 0.5 * start[:2]}
    z = lg.argmin(loss, begin, differentiate=lg.Unrolled(12, optimizer(**settings)))
    return np.sum((V @ z["a"] - T) ** 2) + np.sum(z["b"])


@pytest.mark.parametrize("optimizer", ["sgd_momentum", "heavy_ball", "adam", "gradient_descent"])
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


WAYS = [
    lg.Unrolled(60, descent(0.02)),
    lg.Unrolled(60, descent(0.02), last=7),
    lg.Unrolled(60, descent(0.02), checkpoints=4),
    lg.Unrolled(25, lg.optim.adam(0.05)),
    lg.Reversible(40, lg.optim.sgd_momentum(0.01, 0.5)),
    lg.Neumann(terms=6),
]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_the_distance_from_the_implicit_derivative(how):
    def f(lam):
        loss = lambda z: np.sum((A @ z - Y) ** 2) + lam * np.sum(z * z)
        return np.sum(lg.argmin(loss, np.zeros(4), differentiate=how) ** 2)

    # z = (AᵀA + λ)⁻¹Aᵀy, dz/dλ = −(AᵀA + λ)⁻¹z.
    hessian = A.T @ A + 0.3 * np.eye(4)
    z = np.linalg.solve(hessian, A.T @ Y)
    exact = -2 * z @ np.linalg.solve(hessian, z)
    p = lg.trace(f, 0.3)
    found = p.solve(accuracy=10.0).gradient("output")
    distance = abs(float(found["lam"]) - exact) / abs(exact)
    assert found.certificate.distance == pytest.approx(distance, rel=1e-6, abs=1e-12)
    assert found.certificate.differentiated in str(found.certificate)
    if not isinstance(how, (lg.Neumann, lg.Reversible)) and how.checkpoints is None:
        module = {}
        exec(p.source(), module)
        assert module["solve"]()["output"] == pytest.approx(p.solve(accuracy=10.0)["output"])


def test_where_there_is_no_implicit_derivative_there_is_no_distance():
    how = lg.Unrolled(5, descent(0.1))
    linear = lambda a: lg.argmin(lambda z: a * z, 0.0, differentiate=how)
    certificate = lg.trace(linear, 2.0).solve().gradient("output").certificate
    assert certificate.distance is None
    looped = lambda a: lg.iterate(
        lambda z: lg.argmin(lambda w: (w - a * z) ** 2, 0.0, differentiate=how), 1.0, 3
    )
    certificate = lg.trace(looped, 0.5).solve().gradient("output").certificate
    assert certificate.differentiated == "unrolled: 5 steps of gradient_descent"
    assert certificate.distance is None
    assert lg.trace(np.sin, 2.0).solve().gradient("output").certificate.distance == 0.0


def test_the_distance_is_that_of_the_whole_gradient():
    """The rate has no part in the solution, and a little one in the steps."""

    def f(lam, rate):
        loss = lambda z: np.sum((A @ z - Y) ** 2) + lam * np.sum(z * z)
        return np.sum(
            lg.argmin(loss, np.zeros(4), differentiate=lg.Unrolled(60, descent(rate))) ** 2
        )

    found = lg.trace(f, 0.3, 0.02).solve(accuracy=10.0).gradient("output")
    z = np.linalg.solve(A.T @ A + 0.3 * np.eye(4), A.T @ Y)
    exact = -2 * z @ np.linalg.solve(A.T @ A + 0.3 * np.eye(4), z)
    off = max(abs(float(found["lam"]) - exact), abs(float(found["rate"])))
    assert found.certificate.distance == pytest.approx(off / abs(exact), rel=1e-6)


def test_certificates_in_declared_programs_and_beside_a_series():
    loss = lambda a: lambda z: (z - a) ** 2 + z**4
    how = lg.Unrolled(5, lg.optim.adam(0.1))
    p = lg.Program()
    a = p.parameter("a", value=2.0)
    p.define("w", lg.argmin(loss(a), 0.0, differentiate=how))
    found = p.solve().gradient("w").certificate
    traced = lg.trace(lambda a: lg.argmin(loss(a), 0.0, differentiate=how), 2.0)
    expected = traced.solve().gradient("output").certificate
    assert found.differentiated == expected.differentiated == "unrolled: 5 steps of adam"
    assert found.distance == pytest.approx(expected.distance, rel=1e-9)
    assert found.distance > 0.9
    with pytest.raises(lg.InvalidValue, match="optimizer"):
        lg.argmin(loss(a), 0.0, differentiate=lg.Unrolled(5))

    def both(x):
        one = lg.argmin(loss(x), 0.0, differentiate=lg.Unrolled(4, descent(0.1)))
        other = lg.fixed_point(
            lambda z: 0.5 * np.cos(x * z), 0.0, differentiate=lg.Neumann(terms=2)
        )
        return one + other

    certificate = lg.trace(both, 0.7).solve(accuracy=1.0).gradient("output").certificate
    assert "Neumann series of 2 terms; unrolled: 4 steps" in certificate.differentiated


def test_the_distance_of_several_iterations_in_one_another():
    inner = lg.Unrolled(3, descent(0.3))

    def f(a):
        z = lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=inner)
        w = lg.fixed_point(lambda w: 0.5 * np.cos(w) + z, 0.0, differentiate=lg.Unrolled(4))
        return w * w

    found = lg.trace(f, 0.7).solve().gradient("output")
    w = 0.0
    for _ in range(200):
        w = 0.5 * np.cos(w) + 0.7
    exact = 2 * w / (1 + 0.5 * np.sin(w))
    distance = abs(float(found["a"]) - exact) / abs(exact)
    assert distance > 0.01
    assert found.certificate.distance == pytest.approx(distance, rel=1e-9)
    assert "gradient_descent; unrolled: 4 steps" in found.certificate.differentiated


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
        ("steps=-1", lambda: lg.Reversible(-1, lg.optim.sgd_momentum(0.1))),
        ("decay=None", lambda: held_out(0.3, lg.Unrolled(3, lg.optim.sgd_momentum(0.1, None)))),
        ("at step", lambda: held_out(0.3, lg.Unrolled(3000, descent(1.0)))),
    ],
)
def test_bad_input_is_named(message, call):
    with pytest.raises(lg.LagradError, match=message):
        call()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.9, 0.98, 0.5, 1.0, 0.75, 0.123]), min_size=1, max_size=300),
    st.integers(0, 10**6),
)
def test_decays_are_undone_bit_for_bit(decays, seed):
    rng = np.random.default_rng(seed)
    start = v = rng.integers(-(2**60), 2**60, 5)
    digits, pushes = Digits(np.zeros(5, np.uint64)), []
    for t, decay in enumerate(decays):
        pushes.append(rng.integers(-(2**50), 2**50, 5))
        v = digits.decay(t, v, *ratio(decay)) + pushes[t]
        assert np.abs(v).max() < 2**62
    for t in range(len(decays) - 1, -1, -1):
        v = digits.undo(t, v - pushes[t], *ratio(decays[t]))
    assert np.array_equal(v, start)
    assert not digits.rest.any()
    assert not digits.words


@pytest.mark.parametrize("decay", [0.9, 0.98])
def test_momentum_reversed_in_whole_numbers(monkeypatch, decay):
    bits, plain = [], ExactMomentum.run

    def seen(self):
        plain(self)
        bits.extend(d.bits for d in self.digits)

    monkeypatch.setattr(ExactMomentum, "run", seen)
    optimizer = lg.optim.sgd_momentum(0.3, decay)
    found = lg.grad(lambda lam: held_out(lam, lg.Reversible(1000, optimizer)))(0.3)
    stored = lg.grad(lambda lam: held_out(lam, lg.Unrolled(1000, optimizer)))(0.3)
    assert float(found) == pytest.approx(float(stored), rel=1e-9)
    assert max(bits) / 1000 == pytest.approx(-np.log2(decay), rel=0.1)
    assert len(bits) == 1  # the value's run serves the way back


def test_rates_and_decays_of_reversed_momentum():
    def trained_by(how):
        def f(rate, decay):
            loss = lambda z: np.sum((A @ z["a"] - Y) ** 2) / 8 + np.sum(np.cos(z["b"]))
            begin = {"a": np.ones(4), "b": np.zeros((2, 2)) + 0.3}
            optimizer = lg.optim.sgd_momentum(rate, decay)
            z = lg.argmin(loss, begin, differentiate=how(25, optimizer))
            return np.sum((V @ z["a"] - T) ** 2) + np.sum(z["b"])

        return f

    at = np.full(25, 0.1), np.linspace(0.5, 0.9, 25).round(2)
    found = lg.grad(trained_by(lg.Reversible), (0, 1))(*at)
    for a, b in zip(found, lg.grad(trained_by(lg.Unrolled), (0, 1))(*at), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("expected lg.optim.sgd_momentum", lambda: lg.Reversible(3, descent(0.1))),
        ("steps=1.5", lambda: lg.Reversible(1.5, lg.optim.sgd_momentum(0.1))),
        (
            "momentum is for an argmin",
            lambda: lg.fixed_point(np.cos, 1.0, differentiate=BY_MOMENTUM(0.1)),
        ),
        ("cannot be reversed", lambda: held_out(0.3, BY_MOMENTUM(0.1, -0.5))),
        ("cannot be reversed", lambda: held_out(0.3, BY_MOMENTUM(0.1, 1.5))),
        ("whole numbers cannot hold", lambda: held_out(0.3, BY_MOMENTUM(1e9))),
    ],
)
def test_what_cannot_be_reversed_is_named(message, call):
    with pytest.raises(lg.LagradError, match=message):
        call()


def test_rates_by_function_and_by_list_may_be_traced():
    def trained(rates):
        how = lg.Unrolled(3, descent(rates))
        return lg.argmin(lambda z: (z - 1) ** 2, 0.0, differentiate=how)

    left = lambda rates: 1 - np.prod([1 - 2 * r for r in rates])
    by_function = lambda r: trained(lambda t: r * 0.5**t)
    for r in (0.1, 0.3):
        assert float(by_function(r)) == pytest.approx(left([r, r / 2, r / 4]))
        slope = (by_function(r + 1e-6) - by_function(r - 1e-6)) / 2e-6
        assert float(lg.grad(by_function)(r)) == pytest.approx(float(slope), rel=1e-8)
    assert float(lg.grad(lambda r: trained([r, 0.2, 0.3]))(0.1)) == pytest.approx(2 * 0.6 * 0.4)
    empty = lg.Unrolled(0, descent(lambda t: 0.1))
    assert lg.argmin(lambda z: (z - 1) ** 2, 0.5, differentiate=empty) == 0.5


@pytest.mark.parametrize("how", [lg.Unrolled(40), lg.Unrolled(200, lg.optim.adam(0.1))])
def test_single_precision_stays(how):
    z = lg.argmin(lambda z: np.sum((z - 1.0) ** 2), np.zeros(2, np.float32), differentiate=how)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, 1.0, rtol=1e-3)


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_no_rate_without_curvature(sign):
    loss = lambda z: sign * (z - 1.0) ** 2 + z
    with pytest.raises(lg.InvalidValue, match="curvature at the start"):
        lg.argmin(loss, 0.0, differentiate=lg.Unrolled(5))


def test_the_distance_of_a_damped_system():
    """With damping μ the multipliers solve (H + μ) λ = g in the place of H λ = g."""
    hessian = 2 * (A.T @ A + 0.3 * np.eye(4))

    def f(lam):
        loss = lambda z: np.sum((A @ z - Y) ** 2) + lam * np.sum(z * z)
        return np.sum(lg.argmin(loss, np.zeros(4), damping=0.5) ** 2)

    found = lg.trace(f, 0.3).solve(accuracy=10.0).gradient("output")
    z = np.linalg.solve(hessian, 2 * A.T @ Y)
    exact = -2 * z @ np.linalg.solve(hessian, 2 * z)
    damped = -2 * z @ np.linalg.solve(hessian + 0.5 * np.eye(4), 2 * z)
    assert float(found["lam"]) == pytest.approx(damped, rel=1e-8)
    distance = abs(damped - exact) / abs(exact)
    assert found.certificate.distance == pytest.approx(distance, rel=1e-6)
