"""What is said to have one sign has it, whatever the numbers are; what cannot cancel is left."""

import warnings

import numpy as np
import pytest
from scipy import special

import lagrad as lg
from lagrad.expressions.graph import ancestors
from lagrad.systems.cancellation import differences
from lagrad.systems.constraint import definitions
from lagrad.systems.signs import signs

OF_ONE = [
    *(np.exp, np.exp2, np.cosh, np.abs, np.square, np.tanh, np.sinh, np.arctan, np.expm1, np.cbrt),
    *(special.expit, special.ndtr, special.erfc, special.erf, np.sin, np.cos, np.negative),
    *(lambda x: x**2, lambda x: x**3, lambda x: (x * x) ** 0.3, lambda x: 1 / x, lambda x: x[::-1]),
    *(lambda x: np.sum(x) + x, lambda x: np.max(x) + 0 * x, lambda x: np.cumsum(x)),
    *(lambda x: np.where(x > 0, x, -x), lambda x: np.where(x > 0.1, np.exp(x), x * x)),
    *(lambda x: np.concatenate([x[1:], x[:1]]), lambda x: np.sqrt(np.abs(x)), np.reciprocal),
]
OF_TWO = [
    *(np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.hypot),
    *(lambda a, b: a @ b + 0 * a, lambda a, b: np.outer(a, b) @ a, np.logaddexp),
    *(lambda a, b: np.outer(a, a) @ np.ones(a.size), lambda a, b: a @ a + 0 * b),
]


@pytest.mark.parametrize("seed", range(40))
def test_signs_of_random_functions(seed):
    rng, p, n = np.random.default_rng(seed), lg.Program("random"), 5
    x = p.parameter("x", shape=n)
    pool = [x, 2.0 + 0 * x, x * 0.5 - 1.0]
    for _ in range(25):
        if rng.random() < 0.6:
            pool.append(OF_ONE[rng.integers(len(OF_ONE))](pool[rng.integers(len(pool))]))
        else:
            a, b = (pool[k] for k in rng.integers(len(pool), size=2))
            pool.append(OF_TWO[rng.integers(len(OF_TWO))](a, b))
    nodes = ancestors(pool, lambda node: node is x, {})
    found = signs(nodes, {})
    claimed = [node for node in pool if node.index in found]
    for k, node in enumerate(claimed):
        p.define(f"v{k}", node)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not finite
        for _ in range(6):
            at = p.solve(x=rng.standard_normal(n) * 10.0 ** rng.integers(-2, 2), on_failure="warn")
            for k, node in enumerate(claimed):
                value = found[node.index] * np.asarray(at[f"v{k}"])
                assert (np.isnan(value) | (value >= 0)).all()


@pytest.mark.parametrize(
    ("f", "looked_at"),
    [
        (lambda x: np.sum(1 / (1 + np.exp(-x))), False),
        (lambda x: np.sum(np.sqrt(1 + x**2) + np.abs(x)), False),
        (lambda x: np.sum(np.exp(x) - np.tanh(-np.exp(x))), False),
        (lambda x: np.sum(np.exp(x) - 1), True),
        (lambda x: np.sum(np.sin(x)), True),
        (lambda x: np.sum(1 / (1 - np.exp(-x * x))), True),
    ],
)
def test_what_may_cancel_is_looked_at(f, looked_at):
    p = lg.Program("sums")
    x = p.parameter("x", shape=4)
    p.define("total", f(x))
    roots = [c.root for c in p.constraints.values()]
    with p.arena.reopened():
        assert (differences(roots, definitions(p)) is not None) is looked_at


@pytest.mark.parametrize("n", [1, 100, 300])
def test_what_cancels_in_a_derivative_alone(n):
    # No sum of values cancels in erf(x)/x and in sinh(x)/x; of their slopes nothing else is left.
    for f in (lambda x: np.prod(special.erf(x) / x), lambda x: np.prod(np.sinh(x) / x)):
        with pytest.raises(lg.SingularSystem):
            lg.grad(f)(np.full(n, 1e-6))
