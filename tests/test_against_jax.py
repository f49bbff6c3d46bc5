"""The same functions in JAX and jaxopt, where they are installed (extra `bench`)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lagrad as lg

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install lagrad[bench]")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3))
X = RNG.standard_normal(3)


def mixed(np_, x):
    y = np_.tanh(A @ x) * np_.exp(-np_.sum(x**2))
    return np_.stack([np_.sum(y), np_.prod(x), np_.linalg.det(B + np_.outer(x, x))])


def pooled(np_, x):
    rows = np_.concatenate([np_.sin(x), x[::-1] * x, np_.where(x > 0, x, 0.1 * x)]).reshape(3, 3)
    return np_.max(rows, axis=1) + np_.logaddexp(rows[0], rows[1]) - np_.einsum("ij,ij->j", rows, B)


def solved(np_, x):
    M = B @ B.T + np_.diag(np_.exp(x))
    return np_.linalg.solve(M, np_.cos(x)) + np_.linalg.slogdet(M)[1]


@pytest.mark.parametrize("f", [mixed, pooled, solved])
def test_first_and_second_order(f):
    ours, theirs = lambda x: f(np, x), lambda x: f(jnp, x)
    assert lg.jacobian(ours)(X) == pytest.approx(np.array(jax.jacobian(theirs)(X)), rel=1e-10)
    scalar, their_scalar = lambda x: np.sum(ours(x) ** 2), lambda x: jnp.sum(theirs(x) ** 2)
    assert lg.hessian(scalar)(X) == pytest.approx(np.array(jax.hessian(their_scalar)(X)), rel=1e-9)


def test_nested_derivatives():
    def nested(np_, grad, jvp):
        inner = lambda x, y: np_.sum(np_.sin(x * y) ** 2)
        slope = lambda x: grad(lambda y: inner(x, y) * x[0])(x**2)
        return lambda x: np_.sum(jvp(slope, (x,), (np_.cos(x),))[1] ** 2)

    ours, theirs = nested(np, lg.grad, lg.jvp), nested(jnp, jax.grad, jax.jvp)
    assert lg.grad(ours)(X) == pytest.approx(np.array(jax.grad(theirs)(X)), rel=1e-9)


def test_a_fixed_point_and_an_argmin_against_jaxopt():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jaxopt = pytest.importorskip("jaxopt", reason="jaxopt is not installed")
        W = 0.3 * RNG.standard_normal((6, 6))
        step = lambda np_: lambda z, W: np_.tanh(W @ z + 0.5)
        fixed = jaxopt.FixedPointIteration(
            step(jnp),
            tol=1e-13,
            maxiter=1000,
            implicit_diff_solve=lambda mv, b: jaxopt.linear_solve.solve_gmres(mv, b, tol=1e-13),
        )
        theirs = jax.grad(lambda W: jnp.sum(fixed.run(jnp.zeros(6), W).params ** 3))(W)
        data, labels = RNG.standard_normal((30, 4)), np.sign(RNG.standard_normal(30))
        train = lambda np_: (
            lambda w, a: (
                np_.sum(np_.logaddexp(0, -labels * (data @ w))) + np_.sum(np_.exp(a) * w**2)
            )
        )
        minimum = jaxopt.BFGS(
            train(jnp),
            tol=1e-12,
            maxiter=1000,
            implicit_diff_solve=lambda mv, b: jaxopt.linear_solve.solve_cg(mv, b, tol=1e-13),
        )
        their_slope = jax.grad(lambda a: jnp.sum(minimum.run(jnp.zeros(4), a).params ** 3))(
            jnp.zeros(4)
        )
    ours = lg.grad(lambda W: np.sum(lg.fixed_point(step(np), np.zeros(6), W) ** 3))(W)
    assert ours == pytest.approx(np.array(theirs), rel=1e-7, abs=1e-10)
    slope = lg.grad(lambda a: np.sum(lg.argmin(train(np), np.zeros(4), a) ** 3))(np.zeros(4))
    assert slope == pytest.approx(np.array(their_slope), rel=1e-7, abs=1e-10)
