"""One compiled function in several threads, which trace the same thing at the same time."""

import sys
import threading

import numpy as np
import pytest

import lagrad as lg

FUNCTIONS = {
    "a root": (lambda x: lg.root(lambda z: z**3 + z - x[0] * x[1], 1.0) ** 2, 2),
    "branches": (
        lambda x: x[0] ** 2 if x[0] > 1 else (np.sin(x[1]) if x[1] > 1 else x[0] * x[1]),
        2,
    ),
    "shapes": (lambda x: np.sum(x**2), None),
    "a loop": (lambda x: lg.scan(lambda c, u: (c * np.cos(u), None), 1 + 0 * x[0], x)[0], 3),
    "many answers": (lambda x: x[0] * int(x[1] * 50), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_threads_that_call_one_compiled_function(name):
    function, size = FUNCTIONS[name]
    compiled, plain, failed = lg.compile(lg.grad(function)), lg.grad(function), []

    def work(number):
        rng = np.random.default_rng(number)
        for k in range(40):
            x = rng.uniform(0.5, 2, rng.integers(1, 9) if size is None else size)
            try:
                found = compiled(x)
                if k % 10 == 0 and name != "many answers":  # which asks for a whole number
                    np.testing.assert_allclose(found, plain(x), rtol=1e-12)
            except Exception as error:
                failed.append(repr(error)[:200])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    assert len(compiled.kept) == sum(len(b.kept) for b in compiled.branches.values())
