"""Iterations that have converged: a right derivative, or an error that calls it rounding."""

from collections.abc import Callable

import numpy as np
import pytest

import lagrad as lg
from lagrad.errors import SingularSystem

rng = np.random.default_rng(0)
X, y = rng.standard_normal((30, 4)), rng.standard_normal(30)


def hessian(penalty):
    return X.T @ X + penalty * np.eye(4)


def slope(z, penalty):
    return X.T @ (X @ z - y) + penalty * z


def train(z, penalty):
    return 0.5 * np.sum((X @ z - y) ** 2) + 0.5 * penalty * np.sum(z * z)


SOLUTION = np.linalg.solve(hessian(1.0), X.T @ y)
# H dw = −w
CHANGE = -np.linalg.solve(hessian(1.0), SOLUTION)
ROOT = 0.5 / np.sqrt(2.0)


def steps_of_lbfgs(start, steps, **how):
    inner = lg.Unrolled(steps, lg.optim.lbfgs(1.0), **how)
    return lambda penalty: lg.argmin(train, start, penalty, differentiate=inner)


def total(f):
    return lambda x: np.sum(f(x))


ASKED: dict[str, Callable] = {
    "grad": lambda f, at: lg.grad(total(f))(at),
    "compile": lambda f, at: lg.compile(lg.grad(total(f)))(at),
    "jvp": lambda f, at: np.sum(lg.jvp(f, (at,), (1.0,))[1]),
    "jacobian": lambda f, at: np.sum(lg.jacobian(f)(at)),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("steps", [5, 50])
def test_steps_of_lbfgs_from_the_solution_are_refused(steps, asked):
    with pytest.raises(SingularSystem, match="rounding"):
        asked(steps_of_lbfgs(SOLUTION, steps), 1.0)


@pytest.mark.parametrize("how", [{"checkpoints": 5}, {"last": 10}])
def test_they_are_with_few_states_stored_and_of_the_last_steps(how):
    with pytest.raises(SingularSystem, match="rounding"):
        lg.grad(total(steps_of_lbfgs(SOLUTION, 30, **how)))(1.0)


def test_a_start_that_is_the_solution_exactly_is_refused():
    inner = lg.Unrolled(5, lg.optim.lbfgs(1.0))
    f = lambda a: lg.argmin(lambda z: (z - a) ** 2, 1.0, differentiate=inner)
    with pytest.raises(SingularSystem, match="rounding"):
        lg.grad(f)(1.0)
    assert abs(lg.grad(f)(3.0) - 1.0) < 1e-12


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("steps", [50, 200])
def test_steps_of_lbfgs_that_converge_and_go_on_have_the_derivative_of_the_solution(steps, asked):
    found = asked(steps_of_lbfgs(np.zeros(4), steps), 1.0)
    np.testing.assert_allclose(found, CHANGE.sum(), rtol=1e-7)


def test_a_compiled_gradient_sees_a_start_that_has_converged():
    inner = lg.Unrolled(40, lg.optim.lbfgs(1.0))
    f = lambda penalty, z: np.sum(
        lg.argmin(lambda z, p: train(z, p[0]), z, penalty, differentiate=inner)
    )
    slopes, at = lg.compile(lg.grad(f)), np.array([1.0])
    for _ in range(3):
        np.testing.assert_allclose(slopes(at, np.zeros(4)), CHANGE.sum(), rtol=1e-7)
    with pytest.raises(SingularSystem, match="rounding"):
        slopes(at, SOLUTION)


def test_second_derivatives_of_such_steps_are_refused():
    f = total(steps_of_lbfgs(SOLUTION, 8))
    for asked in (lambda: lg.hvp(f, 1.0, 1.0), lambda: lg.grad(lg.grad(f))(1.0)):
        with pytest.raises(SingularSystem, match=r"rounding|condition"):
            asked()
    with pytest.raises(SingularSystem, match="rounding"):
        lg.compile(lambda penalty: lg.jvp(f, (penalty,), (1.0,))[1])(1.0)


def broyden(steps, loop=lg.iterate):
    """Broyden's method for z₀² + z₁ = a, z₀ − z₁² = −1."""

    def solved(a):
        F = lambda z: np.stack([z[0] ** 2 + z[1] - a, z[0] - z[1] ** 2 + 1])

        def step(state):
            z, f, B = state
            d = -np.linalg.solve(B, f)
            new = F(z + d)
            return z + d, new, B + np.outer(new - f - B @ d, d) / (d @ d)

        z = np.array([1.0, 1.0])
        return loop(step, (z, F(z), np.array([[2.0, 1.0], [1.0, -2.0]])), steps)[0]

    return solved


def written_out(step, state, steps):
    for _ in range(steps):
        state = step(state)
    return state


def scanned(step, state, steps):
    return lg.scan(lambda s, _: (step(s), None), state, length=steps)[0]


def until(tolerance):
    return lambda step, state, steps: lg.while_loop(
        lambda s: np.max(np.abs(s[1])) > tolerance, step, state, steps
    )


@pytest.mark.parametrize("loop", [lg.iterate, scanned, written_out])
def test_differences_that_have_become_rounding_are_refused_in_every_loop(loop):
    for asked in (ASKED["grad"], ASKED["jvp"]):
        with pytest.raises(SingularSystem, match=r"rounding|condition"):
            asked(broyden(16, loop), 2.5)


def test_a_loop_that_ends_where_it_has_converged_is_not_refused():
    z = np.array([1.0, 1.0])
    for _ in range(50):  # Newton's method on numbers
        J = np.array([[2 * z[0], 1.0], [1.0, -2 * z[1]]])
        z = z - np.linalg.solve(J, [z[0] ** 2 + z[1] - 2.5, z[0] - z[1] ** 2 + 1])
    change = np.linalg.solve(J, [1.0, 0.0])
    found = lg.jacobian(broyden(60, until(1e-9)))(2.5)
    np.testing.assert_allclose(found, change, rtol=1e-6)


def conjugate_gradients(penalty):
    def step(state):
        z, r, p = state
        Hp = hessian(penalty) @ p
        rate = (r @ r) / (p @ Hp)
        new = r - rate * Hp
        return z + rate * p, new, new + (new @ new) / (r @ r) * p

    r = X.T @ y
    return lg.iterate(step, (np.zeros(4), r, r), 12)[0]


def steepest_descent(penalty):
    def step(z):
        g = slope(z, penalty)
        return z - (g @ g) / (g @ (hessian(penalty) @ g)) * g

    return lg.iterate(step, SOLUTION, 400)


def secant(a):
    f = lambda z: z * z - a
    step = lambda s: (s[1], s[1] - f(s[1]) * (s[1] - s[0]) / (f(s[1]) - f(s[0])))
    return lg.iterate(step, (1.0, 2.0), 8)[1]


def power_iteration(t):
    A = np.diag([1.0, 2.0, 4.0]) + t * np.array([[0, 1.0, 2], [1, 3, 0], [2, 0, 5]])
    q = lg.iterate(lambda q: A @ q / np.linalg.norm(A @ q), np.array([0.0, 0.0, 1.0]), 100)
    return q @ A @ q


# What divides by rounding, or converges, and has the right derivative all the same.
RIGHT = {
    "conjugate gradients": (conjugate_gradients, 1.0, CHANGE.sum()),
    "steepest descent from the solution": (steepest_descent, 1.0, CHANGE.sum()),
    "secant": (secant, 2.0, ROOT),
    "Heron": (lambda a: lg.iterate(lambda z: (z + a / z) / 2, 1.0, 100), 2.0, ROOT),
    "Newton from the root": (
        lambda a: lg.iterate(lambda z: z - (z * z - a) / (2 * z), np.sqrt(2.0), 20),
        *(2.0, ROOT),
    ),
    "power iteration from the vector": (power_iteration, 0.0, 5.0),
    "Newton, written out": (
        lambda a: written_out(lambda z: z - (z * z - a) / (2 * z), 1.0, 12),
        *(2.0, ROOT),
    ),
    "counter": (
        lambda r: lg.iterate(
            lambda s: (s[0] + np.where(s[1] == 3, r, 0.0) / (s[1] + 1), s[1] + 1), (1.0, 0.0), 10
        )[0],
        *(2.0, 0.25),
    ),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize(("f", "at", "expected"), RIGHT.values(), ids=RIGHT)
def test_iterations_whose_derivative_is_right_are_not_refused(f, at, expected, asked):
    np.testing.assert_allclose(asked(f, at), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "start"),
    [
        (lg.optim.gradient_descent(0.02), SOLUTION),
        (lg.optim.gradient_descent(0.02), np.zeros(4)),
        (lg.optim.adam(0.05), np.zeros(4)),
    ],
)
def test_optimisers_that_do_not_divide_by_rounding_are_not_refused(optimizer, start):
    inner = lg.Unrolled(400, optimizer)
    f = total(lambda penalty: lg.argmin(train, start, penalty, differentiate=inner))
    found = lg.grad(f)(1.0)
    np.testing.assert_allclose(lg.jvp(f, (1.0,), (1.0,))[1], found, rtol=1e-6)
    if optimizer.name == "gradient_descent":
        np.testing.assert_allclose(found, CHANGE.sum(), rtol=1e-7)
