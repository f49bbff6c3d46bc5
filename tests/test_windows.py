"""Slices of vectors in machine code, and vectors among zeros: read where they are."""

import numpy as np
import pytest

import lagrad as lg
from lagrad.compiler.fusion import lowered_steps, native, native_steps
from lagrad.systems.constraint import definitions

pytestmark = pytest.mark.skipif(native() is None, reason="needs llvmlite")
# Around the lanes of vectors, the entries of blocks, and the work that threads share.
SIZES = [4, 9, 16, 31, 300, (1 << 14) + 1, 40_000]

FUNCTIONS = {
    "differences": lambda u: np.sum((u[2:] - 2 * u[1:-1] + u[:-2]) ** 2),
    "a chain": lambda u: np.sum(100 * (u[1:] - u[:-1] ** 2) ** 2 + (1 - u[:-1]) ** 2),
    "parts of parts": lambda u: np.sum(u[1:][:-1] * u[2:] + np.sin(u[1:-1][1:])[-1] * u[-2:][0]),
    "of what is computed": lambda u: np.sum(np.exp(np.tanh(u)[1:] * np.cos(u)[:-1])[:-1] * u[2:]),
    "spread over rows": lambda u: np.sum(u[1:] * np.outer(u[:3], u[:-1]) + np.max(u[2:])),
    "of rows made flat": lambda u: np.sum(np.outer(u[:2], u).ravel()[1:] ** 3),
    "chosen": lambda u: np.sum(np.where(u[1:] > u[:-1], u[1:] * u[:-1], u[:-1] ** 2)),
    "a norm beside its parts": lambda u: np.sqrt(np.sum(u[1:] ** 2)) + u[:-1] @ u[1:],
}


def evaluated(steps, lowered, values):
    operations = lowered.operations
    memory = {k: np.asarray(o.value) for k, o in enumerate(operations) if o.value is not None}
    memory |= dict(enumerate(values))
    for step in steps:
        found = step.function(*[memory[a] for a in step.arguments])
        memory |= zip(step.results, found if step.several else (found,), strict=True)
    return [memory[k] for k in lowered.outputs]


def parts(rng, node):
    """Slices, functions of them, and derivatives through both, which put them among zeros."""
    for _ in range(int(rng.integers(1, 6))):
        m = node.shape[0]
        if m > 3 and rng.random() < 0.6:
            a = int(rng.integers(0, m - 2))
            node = node[a : int(rng.integers(a + 2, m + 1))]
        else:
            node = np.sin(node) + 0.5 * node
    return node


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [float, np.float32])
def test_value_and_gradient(name, dtype):
    rng, tol = np.random.default_rng(0), 1e-12 if dtype is float else 1e-4
    plain = lg.value_and_grad(FUNCTIONS[name])
    for n in SIZES:
        u = rng.uniform(0.2, 1.0, n).astype(dtype)
        compiled = lg.compile(plain)
        for _ in range(6):  # machine code after a few
            value, slope = compiled(u)
        wanted, right = plain(u)
        assert slope.dtype == dtype
        assert value == pytest.approx(wanted, rel=tol)
        np.testing.assert_allclose(slope, right, rtol=tol, atol=tol * np.abs(right).max())


def test_random_parts_of_parts():
    rng, written = np.random.default_rng(1), 0
    for _ in range(60):
        n, p = int(rng.integers(3, 70)), lg.Program("parts")
        u = p.parameter("u", shape=n)
        seed = int(rng.integers(1 << 30))
        p.define("all", parts(np.random.default_rng(seed), u) * 2.0)
        p.define("total", np.sum(parts(np.random.default_rng(seed), u) ** 2))
        system = p.adjoint("total")
        defined = definitions(system)
        outputs = [system.variables[name] for name in ("all", "total", "λ_u")]
        lowered, steps = lowered_steps([system.variables["u"]], outputs, defined)
        other, values = native_steps(lowered), [rng.standard_normal(n)]
        if other is None:  # nothing in it that is worth a loop
            continue
        written += 1
        pairs = zip(
            evaluated(steps, lowered, values), evaluated(other, lowered, values), strict=True
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert written > 40


def test_all_slices_are_read_in_one_call():
    p = lg.Program("differences")
    u = p.parameter("u", shape=300)
    total = FUNCTIONS["differences"](u)
    lowered, steps = lowered_steps([u], [total], {})
    assert len(steps) == 8
    assert len(native_steps(lowered)) == 1
