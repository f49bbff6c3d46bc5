"""Proximal operators against a solver of their definition, and as fixed points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import lagrad as lg


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_each_is_the_minimiser_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    v, t = 2 * rng.standard_normal(4), rng.uniform(0.1, 1.5)
    groups = np.array([0, 0, 1, 1])
    penalties = {
        "l1": (lg.prox.l1(v, t), lambda z: t * np.abs(z).sum()),
        "group": (
            lg.prox.group_l2(v, t, groups),
            lambda z: t * (np.linalg.norm(z[:2]) + np.linalg.norm(z[2:])),
        ),
    }
    for z, penalty in penalties.values():
        objective = lambda z, penalty=penalty: 0.5 * np.sum((z - v) ** 2) + penalty(z)
        for _ in range(50):
            assert objective(z) <= objective(z + 1e-3 * rng.standard_normal(4)) + 1e-12
    box, face = lg.prox.box(v, -0.5, 1.0), lg.prox.simplex(v, 2.0)
    for z, limits, constraints in (
        (box, [(-0.5, 1.0)] * 4, ()),
        (face, [(0, None)] * 4, {"type": "eq", "fun": lambda z: z.sum() - 2.0}),
    ):
        found = minimize(
            lambda z: 0.5 * np.sum((z - v) ** 2),
            np.full(4, 0.5),
            jac=lambda z: z - v,
            bounds=limits,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-14},
        ).x
        assert z == pytest.approx(found, abs=1e-6)


OPERATORS = {
    "l1": lambda v, t: lg.prox.l1(v, t),
    "box": lambda v, t: lg.prox.box(v, -t, 2 * t),
    "group": lambda v, t: lg.prox.group_l2(v, t, np.array([0, 1, 1, 0, 2])),
    "rows": lambda v, t: lg.prox.group_l2(np.stack([v, 2 * v]), t),
    "simplex": lambda v, t: lg.prox.simplex(v * t),
    "simplices": lambda v, t: lg.prox.simplex(np.stack([v, v * t]), radius=0.5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_derivatives_in_both_modes(name):
    v = np.array([1.3, -0.2, 0.7, -2.1, 0.05])
    assert lg.check_gradient(OPERATORS[name], v, 0.6, tol=1e-8).passed


def test_many_features_are_restricted_to_the_support():
    """The hyperparameter gradient of a lasso in closed form on its support."""
    rng = np.random.default_rng(0)
    n, d = 80, 600
    X, w = rng.standard_normal((n, d)), np.zeros(d)
    w[:5] = [3.0, -2.0, 1.5, -1.0, 2.5]
    y = X @ w + 0.1 * rng.standard_normal(n)
    step = n / np.linalg.norm(X, 2) ** 2

    def solution(alpha):
        descend = lambda w: lg.prox.l1(w - step * (X.T @ (X @ w - y)) / n, step * alpha)
        return lg.fixed_point(descend, np.zeros(d), solver=lg.Anderson(max_steps=3000))

    found = lg.jacobian(solution)(0.3)
    w = solution(0.3)
    free = np.flatnonzero(w)
    assert 3 <= free.size < 50
    gram = X[:, free].T @ X[:, free] / n
    expected = np.zeros(d)
    expected[free] = -np.linalg.solve(gram, np.sign(w[free]))
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)
    pulled = lg.grad(lambda a: np.sum(solution(a) ** 2))(0.3)
    assert pulled == pytest.approx(2 * w @ expected, rel=1e-7)


def test_a_portfolio_on_the_simplex():
    """min ½zᵀSz − aᵀz on the simplex: by the equality-constrained system of its support."""
    rng = np.random.default_rng(2)
    B = rng.standard_normal((5, 5))
    S = B @ B.T + np.eye(5)
    step = 1 / np.linalg.norm(S, 2)
    weights = lambda a: lg.fixed_point(
        lambda z: lg.prox.simplex(z - step * (S @ z - a)), np.full(5, 0.2)
    )
    a = np.array([1.0, 0.5, -3.0, 0.8, 0.2])
    z = weights(a)
    free = np.flatnonzero(z > 0)
    assert 2 <= free.size < 5
    K = np.block([[S[np.ix_(free, free)], np.ones((free.size, 1))], [np.ones((1, free.size)), 0]])
    expected = np.zeros((5, 5))
    expected[np.ix_(free, free)] = np.linalg.inv(K)[:-1, :-1]
    assert lg.jacobian(weights)(a) == pytest.approx(expected, abs=1e-9)


def test_bad_input_is_named():
    with pytest.raises(lg.InvalidValue, match="threshold"):
        lg.prox.l1(np.ones(2), -1.0)
    with pytest.raises(lg.InvalidValue, match="bound"):
        lg.prox.box(np.ones(2), 1.0, 0.0)
    with pytest.raises(lg.InvalidValue, match="radius"):
        lg.prox.simplex(np.ones(2), 0.0)
    with pytest.raises(lg.ShapeMismatch, match="groups"):
        lg.prox.group_l2(np.ones(2), 1.0, groups=[0.5, 1.0])
    assert lg.prox.group_l2(np.zeros(2), 1.0).tolist() == [0.0, 0.0]
    zero = lg.grad(lambda v: np.sum(lg.prox.group_l2(v, 1.0)))(np.zeros(2))
    assert zero.tolist() == [0.0, 0.0]
