"""One unknown that is nearly zero does not speak for the others."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider

import lagrad as lg


def wall(outside):
    """A wall between 20 °C and outside: its surfaces' temperatures a and b."""
    p = lg.Program("wall")
    inside, out = p.parameter("Ti", value=20.0), p.parameter("To", value=outside)
    a, b = p.unknown("a"), p.unknown("b")
    p.subject_to(8 * (inside - a) + 1e-9 * a**3 == 2 * (a - b))
    p.subject_to(2 * (a - b) == 8 * (b - out))
    return p


@pytest.mark.parametrize(
    "outside", [-3.0, -4.0000001024000085, -4.0000001014, -4.00000010241, -4.0001]
)
def test_a_temperature_near_zero_degrees(outside):
    with mpmath.workdps(40):
        out = mpmath.mpf(outside)
        equations = lambda a, b: [
            8 * (20 - a) + 1e-9 * a**3 - 2 * (a - b),
            2 * (a - b) - 8 * (b - out),
        ]
        a, b = mpmath.findroot(lambda a, b: equations(a, b), (16, 0))
    at = wall(outside).solve()
    assert float(at["a"]) == pytest.approx(float(a), rel=1e-12)
    assert abs(float(at["b"]) - float(b)) < 1e-13
    assert float(at.gradient("a")["Ti"]) == pytest.approx(0.83333334, rel=1e-7)
    # Each has a bound of its own, which holds; of a zero it is against what its equations add up.
    bounds = at.certificate.bounds
    assert bounds["a"] < 1e-12
    size = abs(float(b)) if abs(b) > 1e-12 else 32.0
    assert abs(float(at["b"]) - float(b)) <= bounds["b"] * size + 1e-15
    assert bounds["b"] <= 2 * at.certificate.error_bound


@pytest.mark.parametrize(
    "start", [(1e-3, 1e-3, 1e-3, 1e-3), (1e-4, 1e-10, 1e-9, 1e-9), (1e-4, 1e-8, 1e-6, 1e-6)]
)
def test_an_acid_without_its_salt(start):
    p = lg.Program("acid")
    c, s = p.parameter("C", value=0.0), p.parameter("s", value=1e-4)
    names = ("H", "OH", "Ac", "HAc")
    h, oh, ac, hac = (p.unknown(n, start=v) for n, v in zip(names, start, strict=True))
    p.subject_to(h * oh == 1e-14)
    p.subject_to(ac + hac == c)
    p.subject_to(h * ac == 1e-5 * hac)
    p.subject_to(h == oh + ac + s)
    at = p.solve()
    assert float(at["H"]) == pytest.approx((1e-4 + np.sqrt(1e-8 + 4e-14)) / 2, rel=1e-12)
    assert float(at["OH"]) == pytest.approx(1e-14 / float(at["H"]), rel=1e-9)
    assert abs(float(at["Ac"])) < 1e-20


def test_a_trace_that_matters_in_its_own_equation_is_asked_for_still():
    # z is what is left of 1 + 1e-13 and 1, and is divided by: nobody knows it to a millionth.
    p = lg.Program()
    a = p.parameter("a", value=1.0)
    x, z, w = p.unknown("x", start=1.0), p.unknown("z", start=1e-13), p.unknown("w", start=1.0)
    p.subject_to(x + 0.1 * np.sin(x) == 1.1 * a)
    p.subject_to(z + x**3 == x**3 + 1e-13 * x)
    p.subject_to(w * z == 1e-13)
    with pytest.raises(lg.SingularSystem):
        p.solve()


def scaled_wall(scale):
    """Temperatures in degrees of a wall, of which one is zero but for rounding."""
    p = lg.Program("wall")
    inside, outside = p.parameter("Ti", 20.0), p.parameter("To", -4.0000001024000085)
    a, b = p.unknown("a"), p.unknown("b", scale=scale)
    p.subject_to(8 * (inside - a) + 1e-9 * a**3 == 2 * (a - b))
    p.subject_to(2 * (a - b) == 8 * (b - outside))
    return p


@needs_wider
def test_a_scale_says_below_what_an_unknown_is_as_good_as_zero():
    told, untold = scaled_wall(1e-3).solve(), scaled_wall(None).solve()
    assert told["a"] == untold["a"] == pytest.approx(16.0000004096, rel=1e-10)
    assert told.certificate.error_bound < 1e-9 < untold.certificate.error_bound
    adjoint = scaled_wall(1e-3).adjoint("a").solve()
    assert adjoint.certificate.error_bound < 1e-9


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan, [1.0, 2.0]])
def test_a_scale_is_a_positive_number(scale):
    with pytest.raises(lg.InvalidValue, match="'b' has scale"):
        scaled_wall(scale)


def two_bars(rise, load):
    p = lg.Program("two_bars")
    w = p.unknown("w")
    length, first = np.sqrt(1.0 + (rise - w) ** 2), float(np.hypot(1.0, rise))
    force = 2e3 * (first - length) / first * (rise - w) / length
    p.subject_to(force == p.parameter("P", value=load))
    return p


def two_bars_exactly(rise, share):
    """The load that is such a share of the limit, the displacement, and its slope."""
    with mpmath.workdps(50):
        first, h = mpmath.mpf(float(np.hypot(1.0, rise))), mpmath.mpf(float(rise))
        length = lambda w: mpmath.sqrt(1 + (h - w) ** 2)
        force = lambda w: 2000 * (first - length(w)) / first * (h - w) / length(w)
        top = h * (1 - 1 / mpmath.sqrt(3))
        load = float(share * force(top))
        true = mpmath.findroot(lambda w: force(w) - load, (0, top), solver="anderson")
        return load, float(true), float(1 / mpmath.diff(force, true))


@needs_wider
def test_shallow_trusses_over_six_decades_of_load():
    rng = np.random.default_rng(0)
    for rise, share in zip(
        10 ** rng.uniform(-3, -0.5, 60), 10 ** rng.uniform(-6, 0, 60), strict=True
    ):
        load, true, slope = two_bars_exactly(rise, share)
        at = two_bars(rise, load).solve()
        assert abs(float(at["w"]) / true - 1) <= at.certificate.error_bound + 1e-15
        assert float(at.gradient("w")["P"]) == pytest.approx(slope, rel=2e-6)


@needs_wider
def test_a_load_that_rounding_nearly_hides_leads_to_no_other_shape():
    # Newton's method arrives at once, and its steps are rounding: no reason to look further away.
    p = two_bars(0.0104, 4.4e-12)
    assert float(p.solve()["w"]) == pytest.approx(4.4e-12 / (2000 * 0.0104**2), rel=1e-3)
    with pytest.raises(lg.SingularSystem, match=r"accuracy=…"):
        two_bars(0.0104, 4.4e-13).solve()
    at = two_bars(0.0104, 4.4e-13).solve(accuracy=1e-4)  # as the message says
    assert float(at["w"]) == pytest.approx(4.4e-13 / (2000 * 0.0104**2), rel=1e-3)
