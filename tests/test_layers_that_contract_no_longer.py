"""Fixed points that the iteration goes round: the automatic choice finds them all the same."""

import numpy as np
import pytest

import lagrad as lg


@pytest.mark.parametrize("rate", [3.1, 3.3, 3.5, 3.9])
def test_the_logistic_map_on_its_cycles(rate):
    # z = 1 − 1/r, round which the iteration goes: dz/dr = 1/r².
    found = lambda r: lg.fixed_point(lambda z: r * z * (1 - z), 0.2)
    assert float(found(rate)) == pytest.approx(1 - 1 / rate, rel=1e-9)
    assert float(lg.grad(found)(rate)) == pytest.approx(1 / rate**2, rel=1e-8)
    with pytest.raises(lg.NotContractive):
        lg.fixed_point(lambda z: rate * z * (1 - z), 0.2, solver="anderson")


def layer(seed, rows, size, gain):
    rng = np.random.default_rng(seed)
    weights = gain * rng.standard_normal((size, size)) / np.sqrt(size)
    inputs = rng.standard_normal((rows, size))
    return weights, lambda z, w: np.tanh(z @ w + inputs), rng.standard_normal((size, size))


@pytest.mark.parametrize(
    ("seed", "gain"), [(0, 1.2), (1, 2.0), (2, 2.0), (3, 1.6), (5, 2.5), (2, 3.0)]
)
def test_layers_of_larger_and_larger_gain(seed, gain):
    weights, step, way = layer(seed, 16, 24, gain)

    def total(w):
        return np.sum(lg.fixed_point(lambda z: step(z, w), np.zeros((16, 24))) ** 2)

    at = lg.fixed_point(lambda z: step(z, weights), np.zeros((16, 24)))
    assert np.abs(step(at, weights) - at).max() < 1e-9
    slope = np.sum(lg.grad(total)(weights) * way)
    # The derivative of the same fixed point, row by row: (I − D Wᵀ) dz = D (z way)ᵀ.
    wanted = 0.0
    for row in at:
        inner = np.diag(1 - row**2)
        moved = np.linalg.solve(np.eye(24) - inner @ weights.T, inner @ (row @ way))
        wanted += 2 * row @ moved
    assert float(slope) == pytest.approx(wanted, rel=1e-6)


def test_an_iteration_that_runs_away_is_an_error_still():
    with pytest.raises(lg.NotContractive):
        lg.fixed_point(lambda z: 2 * z + 1, 1.0)
    with pytest.raises(lg.NotContractive, match="finite"):
        lg.fixed_point(lambda z: 1.0 - z**3 - 2 * z, 0.5)


def test_where_there_is_no_fixed_point_that_is_said():
    with pytest.raises(lg.NotContractive):
        lg.fixed_point(lambda z: np.where(z > 0, -1.0, 1.0) + 0 * z, 0.5)
