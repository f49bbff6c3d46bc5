"""Derivatives of systems declared one scalar at a time, beside dense ones by hand."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg
from lagrad.systems import scalar_partials

N = 9


def declared():
    """Σ g (d + d³/10) over the neighbours of each node of a path, and choices."""
    p = lg.Program("path")
    g, source = p.parameter("g", value=1.3), p.parameter("source", value=0.7)
    v = [p.unknown(f"v{k}", start=0.1) for k in range(N)]
    for k in range(N):
        flow = 0.0
        for other in (k - 1, k + 1):
            near = v[other] if 0 <= other < N else 0.0
            d = near - v[k]
            flow = flow + g * (d + 0.1 * d**3)
        load = np.where(v[k] > -5.0, np.sin(v[k]) * 0.05, np.sqrt(v[k]))
        p.subject_to(flow - load - 0.2 * np.maximum(v[k], -1.0) + source * (k == 3) == 0)
    p.define("f", sum(x * x for x in v))
    return p


def residual(v, g, source):
    d = np.concatenate([[0.0], v, [0.0]])
    left, right = d[:-2] - v, d[2:] - v
    flow = g * (left + 0.1 * left**3 + right + 0.1 * right**3)
    return flow - 0.05 * np.sin(v) - 0.2 * np.maximum(v, -1.0) + source * (np.arange(N) == 3)


def derivatives(v, g):
    """∂r/∂v, ∂r/∂g and ∂r/∂source by hand."""
    d = np.concatenate([[0.0], v, [0.0]])
    left, right = d[:-2] - v, d[2:] - v
    slope = g * (1 + 0.3 * left**2), g * (1 + 0.3 * right**2)
    j = np.diag(-slope[0] - slope[1] - 0.05 * np.cos(v) - 0.2)
    j += np.diag(slope[0][1:], -1) + np.diag(slope[1][:-1], 1)
    by_g = left + 0.1 * left**3 + right + 0.1 * right**3
    return j, by_g, (np.arange(N) == 3).astype(float)


@pytest.fixture(params=[scalar_partials.MANY, 10**9], ids=["in arrays", "one by one"])
def many(request, monkeypatch):
    monkeypatch.setattr(scalar_partials, "MANY", request.param)
    return request.param


def test_all_derivatives_of_a_system_of_scalars(many):
    p = declared()
    at = p.solve()
    tape = p.compiled().tape
    assert (tape.weights is None) == (many == 10**9)
    names = [f"v{k}" for k in range(N)]
    v = np.array([float(at[n]) for n in names])
    assert np.abs(residual(v, 1.3, 0.7)).max() < 1e-12
    j, by_g, by_source = derivatives(v, 1.3)
    moves = -np.linalg.solve(j, np.stack([by_g, by_source], axis=1))
    jacobian = at.jacobian(names, ["g", "source"])
    found = [[float(jacobian[n][q]) for q in ("g", "source")] for n in names]
    np.testing.assert_allclose(found, moves, rtol=1e-9, atol=1e-12)
    gradient = at.gradient("f")
    np.testing.assert_allclose(
        [float(gradient["g"]), float(gradient["source"])], 2 * v @ moves, rtol=1e-9
    )
    tangent = at.tangent(g=0.3, source=-1.0)
    np.testing.assert_allclose(
        [float(tangent[n]) for n in names], moves @ [0.3, -1.0], rtol=1e-9, atol=1e-12
    )
    second = at.hessian_vector("f", g=0.3, source=-1.0)
    near = [p.solve(g=1.3 + 0.3 * s, source=0.7 - s).gradient("f") for s in (1e-5, -1e-5)]
    for name in ("g", "source"):
        slope = (float(near[0][name]) - float(near[1][name])) / 2e-5
        assert float(second[name]) == pytest.approx(slope, rel=1e-6)
    assert at.certificate.error_bound < 1e-10


def test_a_partial_that_no_choice_takes_is_nothing(many):
    """sqrt of a negative number has no derivative; nobody takes it."""
    p = declared()
    at = p.solve(source=-0.7)
    assert np.isfinite(float(at.gradient("f")["source"]))
    assert float(at["v3"]) < 0


def test_plans_of_many_scalars_are_tapes():
    p = declared()
    first, again = p.solve(), p.solve(source=0.9)
    v = np.array([float(again[f"v{k}"]) for k in range(N)])
    assert np.abs(residual(v, 1.3, 0.9)).max() < 1e-12
    assert float(first["f"]) < float(again["f"])
