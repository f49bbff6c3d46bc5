"""Roots from starts at which Newton's method has no step, or none that helps."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special

import lagrad as lg

sys.path.append(str(Path(__file__).parent.parent))
root_finders = pytest.importorskip("benchmarks.root_finders")

SINGULAR = {  # a residual, a start at which its Jacobian is singular, and one root
    "circle and line": (lambda x: [x[0] ** 2 + x[1] ** 2 - 1, x[0] + x[1]], [1.0, 1.0], None),
    "a tank": (lambda x: [1 - 0.5 * x[0], 2 * x[1] ** 2 - x[0] - 16], [0.0, 0.0], [2.0, 3.0]),
    "a straight arm": (
        lambda q: [
            0.5 * np.cos(q[0]) + 0.4 * np.cos(q[0] + q[1]) - 0.5,
            0.5 * np.sin(q[0]) + 0.4 * np.sin(q[0] + q[1]) - 0.3,
        ],
        [0.0, 0.0],
        [-0.201098830, 1.746702095],
    ),
    "a product and a sum": (lambda x: [x[0] * x[1] - 6, x[0] + x[1] - 5], [0.0, 0.0], None),
    "cubes": (lambda x: [x[0] ** 3 - 8, x[1] ** 3 + x[0] - 29], [0.0, 0.0], [2.0, 3.0]),
    "three joints": (
        lambda q: [
            np.cos(q[0]) + np.cos(q[0] + q[1]) + np.cos(q[0] + q[1] + q[2]) - 1.5,
            np.sin(q[0]) + np.sin(q[0] + q[1]) + np.sin(q[0] + q[1] + q[2]) - 1.2,
            q[0] + q[1] + q[2] - 0.4,
        ],
        [0.0, 0.0, 0.0],
        None,
    ),
    "many squares": (
        lambda x: [x[k] ** 2 - 2 + 0.1 * x[k - 1] for k in range(20)],
        [0.0] * 20,
        None,
    ),
}


@pytest.mark.parametrize(("residual", "start", "root"), SINGULAR.values(), ids=SINGULAR)
def test_a_start_where_the_jacobian_is_singular(residual, start, root):
    found = lg.root(lambda x: np.stack(residual(x)), np.array(start))
    assert np.abs(np.array(residual(found))).max() < 1e-9
    if root is not None:
        np.testing.assert_allclose(found, root, rtol=1e-8)


def test_unknowns_that_start_at_zero_unless_told():
    p = lg.Program()
    area, level = p.parameter("area", value=8.0), p.unknown("level")
    width = p.unknown("width")
    p.subject_to(width * level == area)
    p.subject_to(width == 2 * level)
    at = p.solve()
    assert abs(float(at["level"])) == pytest.approx(2.0)
    # level = √(area/2): its derivative is 1/(4 level).
    assert float(at.gradient("level")["area"]) == pytest.approx(1 / (4 * float(at["level"])))


def test_a_large_system_from_a_start_that_is_special():
    n = 400
    found = lg.root(lambda x: x**2 - 2 + 0.1 * np.roll(x, 1), np.zeros(n))
    assert np.abs(found**2 - 2 + 0.1 * np.roll(found, 1)).max() < 1e-10


SCALARS = {
    "a square from zero": (lambda z: z * z - 2, 0.0),
    "beyond a hill": (lambda z: z**3 - 3 * z**2 + 5, 2.0),
    "from the top of a hill": (lambda z: np.exp(-z * z) - 0.5, 0.0),
    "from where it is flat": (lambda z: z * np.exp(-z * z) + 0.3, 3.0),
    "friction from a smooth pipe": (
        lambda f: 1 / np.sqrt(f) + 2 * np.log10(1e-4 / 3.7 + 2.51 / (1e5 * np.sqrt(f))),
        1.0,
    ),
    "an angle far away": (lambda z: np.arctan(z - 3), 40.0),
}


@pytest.mark.parametrize(("residual", "start"), SCALARS.values(), ids=SCALARS)
def test_one_unknown_is_found_where_its_equation_changes_sign(residual, start):
    found = float(lg.root(residual, start))
    assert optimize.root_scalar(residual, x0=found, x1=found * 1.0001).root == pytest.approx(found)
    assert abs(residual(found)) < 1e-9


@pytest.mark.parametrize(
    "residual", [lambda z: 1 / (z - 1), lambda z: z * z + 1], ids=["pole", "none"]
)
def test_where_there_is_no_root_that_is_said(residual):
    with pytest.raises(lg.NotConverged):
        lg.root(residual, 1.5)


def test_no_more_steps_are_taken_than_were_asked_for():
    p = lg.Program()
    z = p.unknown("z", start=50.0)
    p.subject_to(np.exp(z) == 2.0)
    with pytest.raises(lg.NotConverged, match="2 steps"):
        p.solve(newton=lg.Newton(max_steps=2))


def test_systems_of_more_garbow_and_hillstrom():
    # From 1, 10 and 100 times their starts; Powell's singular function has a multiple root.
    said = list(root_finders.outcomes({"lagrad": root_finders.by_lagrad}))
    assert len(said) == 63
    assert {o.problem for o in said if o.said != "solved"} <= {"powell_singular 4"}
    assert not [o for o in said if o.said == "wrong"]


@pytest.mark.parametrize("times", [1, 3, 10, 30, 100])
def test_a_multiple_root_at_zero_is_said_to_be_one(times):
    """Powell's singular function: its unknowns halve until their squares are subnormal."""

    def residual(x):
        pairs = [x[0] + 10 * x[1], np.sqrt(5) * (x[2] - x[3])]
        return np.stack([*pairs, (x[1] - 2 * x[2]) ** 2, np.sqrt(10) * (x[0] - x[3]) ** 2])

    start = times * np.array([3.0, -1.0, 0.0, 1.0])
    with pytest.raises(lg.SingularSystem, match="multiple root"):
        lg.root(residual, start)
    p = lg.Program("powell")
    x = p.unknown("x", shape=4, start=start)
    p.subject_to(residual(x) == 0)
    with pytest.warns(lg.AccuracyWarning, match="multiple root"):
        at = p.solve(on_failure="warn")  # where it has arrived all the same
    np.testing.assert_allclose(at["x"], 0, atol=1e-100)


@pytest.mark.parametrize("start", [-1.0, -0.3, 0.0, 0.5, 1.3, 2.0, 10.0])
def test_a_single_unknown_between_poles(start):
    # Rachford and Rice's equation of a flash: from most starts Newton runs off.
    k, z = np.array([2.1, 0.9, 0.4]), np.array([0.3, 0.3, 0.4])
    r = lambda v: np.sum(z * (k - 1) / (1 + v * (k - 1)))
    found = float(lg.root(r, start))
    poles = sorted(1 / (1 - k))
    roots = [optimize.brentq(r, a + 1e-9, b - 1e-9) for a, b in itertools.pairwise(poles)]
    assert min(abs(found - root) for root in roots) < 1e-12 * max(1, abs(found))


POLES = {
    "tangent": (np.tan, np.pi / 2),
    "reciprocal": (lambda x: 1 / (x - 1) + 0.5, 1 + 2.3e-16),
    "digamma": (special.digamma, -1 + 1.2e-16),
    "a sum": (lambda v: np.sum(np.array([0.3, -0.03, -0.24]) / (1 + v * K)), 10.0),
}
K = np.array([2.0, 0.9, 0.4]) - 1


@pytest.mark.parametrize("name", POLES)
def test_a_pole_is_no_root(name):
    # Beside it rounding is as large as the residual, and every correction is within it.
    f, start = POLES[name]
    found = lg.root(f, start)
    assert abs(f(found)) < 1e-12


def test_a_pole_among_several_equations_is_named():
    residual = lambda z: np.stack([1 / (z[0] - 1) + z[1] - 2, z[1] - z[0]])  # z² − 3z + 3 > 0
    with pytest.raises(lg.NotConverged, match="ended at a pole of its equations"):
        lg.root(residual, np.array([1 + 2.3e-16, 1.0]))


def test_a_batch_of_which_some_members_are_hard():
    # In one search the members from which Newton's method finds no way hold up all others.
    rng = np.random.default_rng(2)
    weights = 2.5 * rng.standard_normal((24, 24)) / np.sqrt(24)
    inputs = rng.standard_normal((16, 24))
    found = lg.root(lambda z: np.tanh(z @ weights + inputs) - z, np.zeros((16, 24)))
    np.testing.assert_allclose(np.tanh(found @ weights + inputs), found, atol=1e-12)


@pytest.mark.parametrize("step", [lambda z: z + np.exp(-z), lambda z: np.sqrt(z * z + 1)])
def test_what_runs_away_is_no_multiple_root(step):
    with pytest.raises(lg.NotConverged, match=r"runs away.*may\s+have no solution"):
        lg.fixed_point(step, 1.0)


def test_exponentials_of_sizes_far_apart():
    found = lg.root(lambda z: np.exp(z) - np.array([1e100, 1.0, 1e-200]), np.zeros(3))
    np.testing.assert_allclose(found, np.log([1e100, 1.0, 1e-200]), rtol=1e-13, atol=1e-13)
    assert float(lg.root(lambda z: np.exp(z) - 1e300, 0.0)) == pytest.approx(np.log(1e300))


@pytest.mark.parametrize("power", [2, 3])
@pytest.mark.parametrize("size", [1e-30, 1e-63, 1e-100, 1e-200])
def test_a_small_root_is_reached_from_afar(power, size):
    """Each step of Newton's leaves 1 - 1/power of it until it is there, as at a multiple root."""
    root = lambda k: lg.root(lambda x: x**power - k, 1.0)
    assert root(size) == pytest.approx(size ** (1 / power), rel=1e-9)
    wanted = size ** (1 / power - 1) / power
    assert lg.grad(root)(size) == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(lg.SingularSystem, match="multiple root"):
        lg.root(lambda x: x**power, 1.0)


@pytest.mark.parametrize("constant", [1e20, 1e26, 1e30, 1e34])
def test_a_small_unknown_beside_others_is_reached_from_afar(constant):
    """CO + O₂/2 = CO₂ where next to nothing is left of the oxide."""
    residual = lambda z: np.stack(
        [
            constant * z[0] * z[0] * z[1] - z[2] ** 2,
            z[0] + z[2] - 1,
            z[0] + 2 * z[2] + 2 * z[1] - 2.5,
        ]
    )
    found = lg.root(residual, np.array([0.1, 0.1, 0.9]))
    assert abs(found[0]) == pytest.approx(2 / np.sqrt(constant), rel=1e-6)
    np.testing.assert_allclose(found[1:], [0.25, 1.0], rtol=1e-9)
