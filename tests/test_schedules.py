"""Schedules of stored states, beside a search over all of them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import lagrad as lg
from lagrad.checkpoints import Shelf
from lagrad.evaluation import Evaluation
from lagrad.schedules import Advance, evaluations, reversal


@functools.cache
def least(n, s):
    """Forward steps of the best schedule, by trying every place for the next stored state."""
    if n == 1:
        return 1
    if s == 1:
        return n + n * (n - 1) // 2
    return min(m + least(m, s) + least(n - m, s - 1) for m in range(1, n))


@pytest.mark.parametrize("s", range(1, 11))
def test_schedules_are_optimal_and_store_no_more_than_they_may(s):
    for n in range(1, 61):
        run, stored, reversed_, here = 0, {0}, [], None
        for action in reversal(n, s):
            if isinstance(action, Advance):
                assert action.first in stored
                run += action.last - action.first
                here = action.last
                if action.stored:
                    stored.add(action.last)
            else:
                assert action.step in stored or action.step == here
                run += 1
                reversed_.append(action.step)
                if action.last:
                    stored.remove(action.step)
            assert len(stored) <= s
        assert reversed_ == list(range(n - 1, -1, -1))
        assert run == evaluations(n, s) == least(n, s)


def test_known_counts():
    known = {(10, 3): 25, (100, 5): 416, (1000, 10): 4636, (1000, 31): 3439, (1000, 50): 2948}
    assert {case: evaluations(*case) for case in known} == known


@pytest.mark.parametrize(("n", "s"), [(10, 3), (100, 5), (30, 1), (7, 7), (1, 1), (12, 40)])
def test_a_loop_runs_as_many_steps_as_its_schedule(monkeypatch, n, s):
    calls: dict[int, int] = {}
    plain = Evaluation.__call__

    def counted(self, values):
        calls[id(self)] = calls.get(id(self), 0) + 1
        return plain(self, values)

    def f(a):
        return lg.iterate(lambda z: np.sin(a * z) + z, 0.3, n, checkpoints=s)

    monkeypatch.setattr(Evaluation, "__call__", counted)
    lg.grad(f)(0.7)
    # Beside the schedule's, the last step, which only the value needs.
    assert sum(calls.values()) == evaluations(n, min(s, n)) + 1
    assert min(calls.values()) == n


def test_stored_states_are_as_many_as_asked(monkeypatch):
    shelves = []

    class Seen(Shelf):
        def __init__(self, *given):
            super().__init__(*given)
            shelves.append(self)

    monkeypatch.setattr("lagrad.sweeps.Shelf", Seen)
    lg.grad(lambda a: lg.iterate(lambda z: np.sin(a * z) + z, 0.3, 200, checkpoints=6))(0.7)
    (shelf,) = shelves
    assert shelf.most == 6
