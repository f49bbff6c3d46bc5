"""Many solves of one program: in order, with failures in their place, by every way the same."""

from __future__ import annotations

import os

import numpy as np
import pytest

import lagrad as lg

WAYS = [{}, {"threads": 3}, {"warm": True}]
if hasattr(os, "fork"):
    # Python warns of any fork beside threads, JAX of any once it was imported, as other tests do.
    forked = pytest.mark.filterwarnings(r"ignore:.*fork\(\)")
    WAYS.append(pytest.param({"processes": 2}, marks=forked))


def square_root():
    p = lg.Program("root")
    a = p.parameter("a", value=1.0)
    z = p.unknown("z", start=1.0)
    p.subject_to(z * z == a)
    p.define("y", np.exp(z))
    return p


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same(way):
    p, values = square_root(), np.linspace(0.5, 2.0, 9)
    found = p.solve_many([{"a": a} for a in values], **way)
    np.testing.assert_allclose([at["z"] for at in found], np.sqrt(values), rtol=1e-12)
    slopes = [float(at.gradient("y")["a"]) for at in found]
    np.testing.assert_allclose(slopes, np.exp(np.sqrt(values)) / (2 * np.sqrt(values)), rtol=1e-9)
    assert all(at.certificate.converged for at in found)


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_stands_in_its_place_and_loses_nothing(way):
    found = square_root().solve_many({"a": [1.0, -1.0, 4.0, np.nan]}, **way)
    assert [type(f).__name__ for f in found] == [
        *("Solution", "NotConverged", "Solution", "InvalidValue")
    ]
    assert found[2]["z"] == pytest.approx(2.0)
    assert "{z}" in str(found[1])


def test_a_sweep_that_starts_warm_needs_fewer_factorisations():
    p = lg.Program()
    k = p.parameter("k")
    u = p.unknown("u", shape=50)
    T = 2 * np.eye(50) - np.eye(50, k=1) - np.eye(50, k=-1)
    p.subject_to(T @ u + 0.1 * np.sinh(u) == k)
    cases = {"k": np.linspace(1.0, 1.2, 8)}
    count = lambda found: sum(r.factorisations for at in found for r in at.reports)
    assert count(p.solve_many(cases, warm=True)) < 0.7 * count(p.solve_many(cases))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads=0"),
        ({"processes": 1.5}, "processes=1.5"),
        ({"threads": 2, "warm": True}, "exclude one another"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(lg.InvalidValue, match=message):
        square_root().solve_many([{"a": 1.0}], **options)
    with pytest.raises(lg.InvalidValue, match="different numbers of cases"):
        square_root().solve_many({"a": [1.0], "b": [1.0, 2.0]})


def test_a_second_solve_compiles_and_derives_nothing(monkeypatch):
    p = square_root()
    at = p.solve()
    at.gradient("y")

    def refuse(*args, **kwargs):
        raise AssertionError("compiled again")

    for name in (
        "lagrad.compiler.plan.Plan.__init__",
        "lagrad.systems.linearization.Tape.__init__",
    ):
        monkeypatch.setattr(name, refuse)
    again = p.solve(a=1.1, start=at)
    assert float(again.gradient("y")["a"]) > 0


def test_a_profile_says_what_was_spent():
    at = square_root().solve(a=2.0)
    at.gradient("y")
    profile = at.profile()
    block, definition = profile.blocks
    assert block.spent.calls["factorising"] == block.factorisations > 0
    assert definition.spent.calls["evaluating"] == 1
    assert profile.derivatives[0].what == "the gradient of 'y'"
    text = str(profile)
    assert "{z}" in text
    assert "evaluations of all constraints" in text
    assert sum(block.spent.seconds.values()) <= block.seconds
