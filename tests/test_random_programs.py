"""Random programs beside other oracles: drawn by Hypothesis, and those of tests/generate.py.

A failure of the latter says of which kind and seed it is;
`python tests/generate.py --kind … --seed … --script` prints it as a program of its own.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from generate import KINDS, programs
from hypothesis import given, settings
from hypothesis import strategies as st

import lagrad as lg

UNARY = {
    "sin": (np.sin, mpmath.sin),
    "tanh": (np.tanh, mpmath.tanh),
    "exp": (lambda x: np.exp(0.3 * x), lambda x: mpmath.exp(mpmath.mpf(0.3) * x)),
    "atan": (np.arctan, mpmath.atan),
    "square": (lambda x: 0.3 * np.square(x), lambda x: mpmath.mpf(0.3) * x * x),
}
BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: 0.5 * (a * b),
}


@st.composite
def recipes(draw, cyclic):
    """Operations on earlier values (and, if cyclic, on the unknowns), by position."""
    inputs = draw(st.integers(1, 3))
    unknowns = draw(st.integers(1, 3)) if cyclic else 0
    operations = []
    for k in range(draw(st.integers(2, 8))):
        choices = st.integers(0, inputs + unknowns + k - 1)
        if draw(st.booleans()):
            operations.append((draw(st.sampled_from(sorted(UNARY))), draw(choices)))
        else:
            operations.append((draw(st.sampled_from(sorted(BINARY))), draw(choices), draw(choices)))
    total = inputs + unknowns + len(operations)
    feedback = [draw(st.integers(0, total - 1)) for _ in range(unknowns)]
    values = [draw(st.floats(-1.0, 1.0).map(lambda v: round(v, 3))) for _ in range(inputs)]
    return inputs, unknowns, operations, feedback, values


def evaluate(recipe, arguments, unknowns, define):
    """All values of a recipe, its operations passed through `define`."""
    found = [*arguments, *unknowns]
    for k, (name, *places) in enumerate(recipe[2]):
        if name in UNARY:
            value = UNARY[name][0 if define else 1](found[places[0]])
        else:
            value = BINARY[name](*(found[i] for i in places))
        found.append(define(k, value) if define else value)
    return found


def declared(recipe):
    p = lg.Program()
    inputs, unknowns, _, feedback, values = recipe
    x = [p.parameter(f"x{i}", value=values[i]) for i in range(inputs)]
    z = [p.unknown(f"z{i}") for i in range(unknowns)]
    found = evaluate(recipe, x, z, lambda k, value: p.define(f"v{k}", value))
    for i in range(unknowns):
        p.subject_to(z[i] == 0.1 * np.sin(found[feedback[i]]) + 0.2, name=f"loop{i}")
    total = sum((np.cos(v) for v in found), start=0.0)
    p.define("f", total)
    return p


def exact(recipe, values):
    """The output at fifty digits, its unknowns found by mpmath."""
    inputs, unknowns, _, feedback, _ = recipe

    def loop(*z):
        found = evaluate(recipe, values, list(z), None)
        tenth, fifth = mpmath.mpf(0.1), mpmath.mpf(0.2)
        return [z[i] - tenth * mpmath.sin(found[feedback[i]]) - fifth for i in range(unknowns)]

    z = []
    if unknowns:
        solution = mpmath.findroot(loop, [mpmath.mpf("0.2")] * unknowns, tol=mpmath.mpf(10) ** -80)
        z = (
            list(solution)
            if unknowns > 1
            else [solution[0] if hasattr(solution, "rows") else solution]
        )
    return sum(mpmath.cos(v) for v in evaluate(recipe, values, z, None))


def check(recipe):
    p = declared(recipe)
    at = p.solve()
    inputs, _, _, _, values = recipe
    gradient = at.gradient("f")
    direction = {f"x{i}": 1.0 - 0.5 * i for i in range(inputs)}
    curvature = at.hessian_vector("f", direction)
    with mpmath.workdps(50):
        point = [mpmath.mpf(v) for v in values]
        step = mpmath.mpf(10) ** -12

        def moved(i, t):
            return exact(recipe, [v + (t if j == i else 0) for j, v in enumerate(point)])

        def along(t):
            return [v + t * mpmath.mpf(direction[f"x{j}"]) for j, v in enumerate(point)]

        np.testing.assert_allclose(at["f"], float(exact(recipe, point)), rtol=1e-12, atol=1e-12)
        for i in range(inputs):
            slope = (moved(i, step) - moved(i, -step)) / (2 * step)
            np.testing.assert_allclose(gradient[f"x{i}"], float(slope), rtol=1e-10, atol=1e-11)
        second = (
            exact(recipe, along(step)) - 2 * exact(recipe, point) + exact(recipe, along(-step))
        ) / step**2
        found = sum(float(curvature[name]) * weight for name, weight in direction.items())
        np.testing.assert_allclose(found, float(second), rtol=1e-9, atol=1e-9)
    # The assembled system, the derived program and its source agree with the quick road.
    multipliers = at.multipliers("f")
    for name, value in at.adjoint_system("f").solve().items():
        np.testing.assert_allclose(value, multipliers[name], rtol=1e-11, atol=1e-12)
    adjoint = p.adjoint("f").solve()
    namespace = {}
    exec(p.adjoint("f").source(), namespace)
    written = namespace["solve"]()
    for i in range(inputs):
        np.testing.assert_allclose(adjoint[f"λ_x{i}"], gradient[f"x{i}"], rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(written[f"λ_x{i}"], gradient[f"x{i}"], rtol=1e-7, atol=1e-8)


@settings(max_examples=40)
@given(recipes(cyclic=False))
def test_acyclic_programs(recipe):
    check(recipe)


@settings(max_examples=40)
@given(recipes(cyclic=True))
def test_cyclic_programs(recipe):
    check(recipe)


# A thousand functions and more take as long as a hundred systems: mpmath is slow.
COUNTS = dict.fromkeys((k for k in KINDS if k.startswith("systems/")), 14) | {
    "functions/small": 1230,
    "functions/single": 520,
    "functions/loops": 70,
    "functions/borders": 10,
    "functions/scalars": 24,
    "implicit/alone": 10,
    "implicit/branches": 10,
}


def require_right(tally):
    assert not tally.failed("silent", "foreign"), tally
    if not any(kind.startswith("systems/") for kind in tally.programs):
        assert not tally.failed("false alarm"), tally


def test_there_are_two_thousand():
    assert sum(COUNTS.values()) == 2000


@pytest.mark.parametrize("kind", list(COUNTS))
def test_no_program_is_wrong_in_silence(kind):
    require_right(programs([kind], range(COUNTS[kind]), calls=1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_nor_is_one_of_a_hundred_thousand(kind):
    tally = programs([kind], range(10_000, 10_000 + 50 * COUNTS[kind]))
    print(
        f"seeds from 10000, {tally.programs[kind]} of {kind}",
        *tally.failed("silent", "false alarm"),
    )
    print(tally)
    require_right(tally)
