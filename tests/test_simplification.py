"""What a program is simplified to computes the same numbers: every rule beside every other."""

import itertools
import operator

import numpy as np
import pytest

import lagrad as lg

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, np.minimum]
UNARY = [operator.neg, np.square, lambda t: t**1, lambda t: t**2, lambda t: +t, np.abs]
NUMBERS = [0.0, 1.0, -1.0, 2.0]


def a_program(rng: np.random.Generator, arguments: list) -> list:
    """Random expressions, each of two that came before: the same steps whatever they are of."""
    terms, pairs = [*arguments, *NUMBERS], []
    for _ in range(14):
        first, second = rng.integers(len(terms), size=2)
        if pairs and rng.random() < 0.5:
            second, first = pairs[rng.integers(len(pairs))]  # what was met before, turned round
        pairs.append((first, second))
        a, b = terms[first], terms[second]
        if rng.random() < 0.4:
            a = UNARY[rng.integers(len(UNARY))](a)
        with np.errstate(all="ignore"):
            operations = BINARY if second < len(arguments) else [*BINARY[:3], BINARY[-1]]
            terms.append(operations[rng.integers(len(operations))](a, b))
    return terms[len(arguments) + len(NUMBERS) :]


@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=["scalars", "one entry", "arrays"])
def test_random_programs_are_to_the_bit_what_numpy_says(shape):
    for seed in range(150):
        values = [np.asarray(a) for a in np.random.default_rng(seed).uniform(1, 3, (3, *shape))]

        def program(*arguments, seed=seed):
            return a_program(np.random.default_rng(seed), list(arguments))

        wanted = program(*values)
        if not all(np.isfinite(a).all() for a in wanted):
            continue
        for found in (lg.compile(program), lg.compile(lg.compile(program))):
            with np.errstate(all="ignore"):
                for ours, theirs in zip(found(*values), wanted, strict=True):
                    np.testing.assert_array_equal(ours, theirs, err_msg=f"seed {seed}")


def test_every_two_differences_beside_each_other():
    # Each spelled in all ways: by a minus, by a sum with minus something, with minus one.
    spelled = [
        lambda a, b: a - b,
        lambda a, b: b - a,
        lambda a, b: a + -b,
        lambda a, b: -a + b,
        lambda a, b: a + -1 * b,
        lambda a, b: b * -1 + a,
        lambda a, b: -(a - b),
        lambda a, b: a - -b,
        lambda a, b: -b - a,
    ]
    for one, other in itertools.product(spelled, repeat=2):
        both = lambda a, b, one=one, other=other: (one(a, b), other(a, b))
        assert lg.compile(both)(5.0, 3.0) == both(5.0, 3.0)
        weighted = lambda a, b, one=one, other=other: one(a, b) ** 2 + 7 * other(a, b)
        partials = [one(1.0, 0.0), one(0.0, 1.0)], [other(1.0, 0.0), other(0.0, 1.0)]
        wanted = [2 * one(5.0, 3.0) * p + 7 * q for p, q in zip(*partials, strict=True)]
        assert lg.grad(weighted, (0, 1))(5.0, 3.0) == tuple(wanted)


@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=["scalars", "one entry", "arrays"])
def test_the_derivative_of_one_function_is_the_other(shape):
    # cosh' = sinh and sinh' = cosh: sinh - cosh on the way there, cosh - sinh on the way back.
    x = np.full(shape, 0.7)
    falls = lambda x: np.sum(np.cosh(x) - np.sinh(x))
    rises = lambda x: np.sum(np.sinh(x) - np.cosh(x))
    turns = lambda x: np.sum(np.sin(x) - np.cos(x)) + np.sum(np.cos(x) - np.sin(x))
    np.testing.assert_allclose(lg.grad(falls)(x), -np.exp(-x), rtol=1e-14)
    np.testing.assert_allclose(lg.grad(rises)(x), np.exp(-x), rtol=1e-14)
    np.testing.assert_allclose(lg.value_and_grad(falls)(x)[1], -np.exp(-x), rtol=1e-14)
    np.testing.assert_allclose(lg.grad(lambda x: np.sum(lg.grad(falls)(x)))(x), np.exp(-x))
    np.testing.assert_allclose(lg.grad(turns)(x), 0 * x, atol=1e-15)
