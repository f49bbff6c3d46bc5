"""Inner implicit functions start where they are told, whatever iterates around them.

sin v = b has v = 2π + arcsin b from a start of 6, and arcsin b from zero.
"""

import numpy as np
import pytest

import lagrad as lg

EXACT, SLOPE = -0.39191835884530857, -1.8779421361337694


def inner(b):
    return lg.root(lambda v: np.sin(v) - b, 6.0)


def step(b, t):
    return b + 0.5 * (np.sin(inner(b) / 2) - t)


def plain(t, b=0.1):
    for _ in range(400):
        b = b + 0.5 * (np.sin((2 * np.pi + np.arcsin(b)) / 2) - t)
    return b


@pytest.mark.parametrize("solver", ["anderson", "picard", "newton"])
def test_a_fixed_point_of_a_root(solver):
    assert plain(0.2) == pytest.approx(EXACT, rel=1e-12)
    f = lambda t: lg.fixed_point(lambda b: step(b, t), 0.1, solver=solver)
    assert f(0.2) == pytest.approx(EXACT, rel=1e-10)
    assert lg.grad(f)(0.2) == pytest.approx(SLOPE, rel=1e-8)


def test_a_root_a_minimum_and_a_compiled_root_of_a_root():
    root = lambda t: lg.root(lambda b: np.sin(inner(b) / 2) - t, 0.1)
    least = lambda t: lg.argmin(lambda b: (np.sin(inner(b) / 2) - t) ** 2, -0.3)
    compiled = lg.compile(lg.grad(root))
    for derivative in (lg.grad(root), lg.grad(least), compiled, compiled, compiled):
        assert derivative(0.2) == pytest.approx(SLOPE, rel=1e-6)
    assert root(0.2) == pytest.approx(EXACT, rel=1e-10)


def test_arrays_of_which_each_entry_has_a_start_of_its_own():
    signs, starts = np.array([1.0, -1.0, -1.0]), np.array([6.0, 0.0, 12.0])
    solved = lambda b: lg.root(lambda v: np.sin(v) - b, starts)
    f = lambda t: lg.fixed_point(
        lambda b: b + 0.3 * (np.sin(solved(b) / 2) * signs - t), np.full(3, 0.1)
    )
    found = f(0.2)
    angles = np.array([2 * np.pi, 0.0, 4 * np.pi]) + np.arcsin(found)
    assert np.sin(angles / 2) * signs == pytest.approx(np.full(3, 0.2), rel=1e-9)
    assert lg.jacobian(f)(0.2) == pytest.approx(np.full(3, SLOPE), rel=1e-6)


def test_within_a_loop_and_three_deep():
    looped = lambda t: lg.iterate(lambda b: step(b, t), 0.1, 80)
    assert looped(0.2) == pytest.approx(EXACT, rel=1e-9)
    assert lg.grad(looped)(0.2) == pytest.approx(SLOPE, rel=1e-7)
    deep = lambda t: lg.root(lambda q: lg.fixed_point(lambda b: step(b, q), 0.1) - t, 0.1)
    assert deep(EXACT) == pytest.approx(0.2, rel=1e-9)
    assert lg.grad(deep)(EXACT) == pytest.approx(1 / SLOPE, rel=1e-8)


def test_warm_starts():
    warm = lg.WarmStart(0.1)
    f = lg.grad(lambda t: lg.fixed_point(lambda b: step(b, t), warm))
    found = [float(f(t)) for t in (0.2, 0.21, 0.2)]
    assert found[0] == pytest.approx(SLOPE, rel=1e-8)
    assert found[2] == pytest.approx(SLOPE, rel=1e-8)
    differences = (plain(0.21 + 1e-5) - plain(0.21 - 1e-5)) / 2e-5
    assert found[1] == pytest.approx(differences, rel=1e-6)


def test_inner_functions_that_jump_to_another_solution_on_the_way_are_right_or_named():
    # From 4.5 Newton's first step goes far, and where it lands depends on b.
    jumping = lambda b: lg.root(lambda v: np.sin(v) - b, 4.5)
    f = lambda t: lg.fixed_point(lambda b: b + 0.5 * (np.sin(jumping(b) / 2) - t), 0.1)
    for t in (0.2, 0.5, -0.3):
        try:
            found = float(f(t))
        except lg.LagradError:
            continue
        assert np.sin(float(jumping(found)) / 2) == pytest.approx(t, abs=1e-6)
