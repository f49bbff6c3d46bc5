"""Schedules of stored states, beside a search over all of them."""

from __future__ import annotations

import functools
from math import comb

import numpy as np
import pytest

import lagrad as lg
from lagrad.loops.chain import Evaluation
from lagrad.loops.checkpoint_schedules import Advance, Online, evaluations, reversal
from lagrad.loops.state_storage import Shelf


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


@pytest.mark.parametrize("s", range(1, 11))
def test_schedules_are_those_of_another_package(s):
    other = pytest.importorskip("checkpoint_schedules")
    for n in range(1, 61):
        run, stored = 0, set()
        for action in other.Revolve(n, s) if s < n else other.Revolve(n, max(1, n - 1)):
            if isinstance(action, other.Forward):
                run += action.n1 - action.n0
                if action.write_ics:
                    stored.add(action.n0)
        assert run == evaluations(n, min(s, max(1, n - 1)))


def online(n, s):
    schedule, stored = Online(s), set()
    for step in range(n):
        dropped = schedule.store(step)
        if dropped != step:
            stored.add(step)
            stored.discard(dropped)
        assert len(stored) <= s
        assert 0 in stored
    return sorted(stored)


@pytest.mark.parametrize("s", range(1, 11))
def test_a_length_that_is_not_known_costs_no_more_repetitions(s):
    """Each step is run as often as with the best schedule for its length, by the worst step."""
    for n in range(1, 121):
        stored = online(n, s)
        times = dict.fromkeys(range(n), 1)  # by the run that finds the length
        reversed_, here = [], None
        for action in reversal(n, s, stored):
            if isinstance(action, Advance):
                assert action.first in stored
                for step in range(action.first, action.last):
                    times[step] += 1
                here = action.last
                if action.stored:
                    stored.append(action.last)
            else:
                assert action.step in stored or action.step == here
                reversed_.append(action.step)
                if action.last:
                    stored.remove(action.step)
            assert len(stored) <= s
        assert reversed_ == list(range(n - 1, -1, -1))
        # r repetitions, the first run and the one before the reversal among them.
        r = 0
        while comb(s + r, s) < n:
            r += 1
        assert max(times.values()) <= r + 1
        if s > 1:
            assert sum(times.values()) + n <= 1.25 * (evaluations(n, s) + n)


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

    monkeypatch.setattr("lagrad.loops.run_forwards.Shelf", Seen)
    lg.grad(lambda a: lg.iterate(lambda z: np.sin(a * z) + z, 0.3, 200, checkpoints=6))(0.7)
    (shelf,) = shelves
    assert shelf.most == 6


@pytest.mark.parametrize(("n", "s"), [(40, 3), (200, 6), (5, 9)])
def test_a_while_loop_finds_its_length_and_stores_states_in_one_run(monkeypatch, n, s):
    calls = []
    plain = Evaluation.__call__
    monkeypatch.setattr(
        Evaluation,
        "__call__",
        lambda self, values: (calls.append(self.asked), plain(self, values))[1],
    )

    def f(a):
        last = lg.while_loop(
            lambda z: z[1] < n,
            lambda z: (np.sin(a * z[0]) + z[0], z[1] + 1),
            (0.3, 0.0),
            999,
            checkpoints=s,
        )
        return last[0]

    g = lambda a: lg.iterate(lambda z: np.sin(a * z) + z, 0.3, n)
    assert f(0.7) == g(0.7)
    calls.clear()
    f(0.7)
    assert len(calls) == 2 * n + 1  # n steps, and the condition once more
    assert float(lg.grad(f)(0.7)) == pytest.approx(float(lg.grad(g)(0.7)), rel=1e-12)
    assert float(lg.grad(lg.grad(f))(0.7)) == pytest.approx(
        float(lg.grad(lg.grad(g))(0.7)), rel=1e-10
    )
    fast = lg.compile(lg.grad(f))
    for _ in range(3):
        calls.clear()
        assert float(fast(0.7)) == pytest.approx(float(lg.grad(g)(0.7)), rel=1e-12)
    # Twice the length's n steps and n + 1 conditions (a guard, and the run), then the way back.
    stored = online(n, s)
    ends = zip(stored, [*stored[1:], n], strict=True)
    back = sum(evaluations(high - low, s - k) for k, (low, high) in enumerate(ends))
    assert len(calls) == 2 * (2 * n + 1) + back - (n - 1 - stored[-1])


@pytest.mark.parametrize(
    ("how", "near", "far"),
    [
        ({"checkpoints": 6, "memory": 16}, 2, 4),
        ({"checkpoints": 6, "memory": 4}, 0, 6),
        ({"checkpoints": 6}, 0, 6),
        ({"memory": 80}, 10, 190),
        ({}, 0, 200),
        ({"memory": 8000}, 200, 0),
    ],
)
def test_the_disk_takes_what_memory_has_no_room_for(monkeypatch, tmp_path, how, near, far):
    shelves, most = [], []

    class Seen(Shelf):
        def __init__(self, *given):
            super().__init__(*given)
            shelves.append(self)
            most.append([0, 0])

        def put(self, *given):
            super().put(*given)
            most[-1] = [max(most[-1][0], len(self._held)), max(most[-1][1], len(self._slots))]

    monkeypatch.setattr("lagrad.loops.run_forwards.Shelf", Seen)
    f = lambda a, **how: lg.iterate(lambda z: np.sin(a * z) + z, 0.3, 200, **how)
    found = lg.grad(lambda a: f(a, disk=tmp_path, **how))(0.7)
    assert found == pytest.approx(lg.grad(f)(0.7), rel=1e-13)
    (shelf,) = shelves
    assert (shelf.near, shelf.count - shelf.near) == (near, far)
    assert most == [[near, far]]
    assert not list(tmp_path.iterdir())
