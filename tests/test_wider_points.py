"""What doubles would have to refuse is found in a wider precision, block after block."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider

import lagrad as lg


class Model:
    """A program of a and b with an output, and the same as a function of mpmath's numbers."""

    def __init__(self, equations, starts, output):
        self.equations, self.starts, self.output = equations, starts, output

    def program(self):
        p = lg.Program("model")
        given = [p.parameter("a", value=1.25), p.parameter("b", value=0.75)]
        unknowns = [p.unknown(f"u{k}", start=s) for k, s in enumerate(self.starts)]
        for left in self.equations(np, *given, *unknowns):
            p.subject_to(left == 0)
        p.define("f", self.output(np, *unknowns))
        return p

    def at(self, a, b):
        """The output where the equations hold; the determinant of each block is far from zero."""
        residual = lambda *u: self.equations(mpmath, a, b, *u)
        found = mpmath.findroot(residual, [mpmath.mpf(s) for s in self.starts], tol=1e-90)
        return self.output(mpmath, *found)

    def derivative(self, *orders):
        with mpmath.workdps(70):
            at = (mpmath.mpf(1.25), mpmath.mpf(0.75))
            return float(mpmath.diff(self.at, at, orders, h=mpmath.mpf(10) ** -20))


MODELS = {
    # What u2 is of cancels between two blocks, ten digits of it.
    "a difference of two blocks": Model(
        lambda m, a, b, x, y, w: [
            x + m.sin(x) / 10 - b,
            y + m.sin(y) / 10 - b - a / 2**33,
            w / 2**33 - m.exp(y) + m.exp(x),
        ],
        [0.7, 0.7, 1.0],
        lambda m, x, y, w: w + m.sin(w),
    ),
    # 1 − cos v is known to five digits, and so is what it makes of v.
    "a small cosine": Model(
        lambda m, a, b, u, v: [u + m.sin(u) / 10 - a, m.sin(u) * (1 - m.cos(v)) - a * b / 2**36],
        [1.2, 5e-6],
        lambda m, u, v: u + 1e5 * v,
    ),
    # The second equation is the first once more, but for a billionth.
    "parallel equations": Model(
        lambda m, a, b, u, v: [
            1.75 * u + 1.375 * v - b - 2,
            1.2388 * (1.75 * u + 1.375 * v) + (v - a) * v / 2**31 - 1.2388 * (b + 2),
        ],
        [0.5, 1.2],
        lambda m, u, v: u * v,
    ),
    "a large unknown of a small slope": Model(
        lambda m, a, b, u, v: [0.875 * u - 2.5 * a - 2, 3.75 * u + v / 2**30 - 3 * a * b],
        [5.0, 0.0],
        lambda m, u, v: u + m.sin(v),
    ),
}


@needs_wider
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_programs_that_magnify_rounding(name):
    model = MODELS[name]
    found = model.program().solve().gradient("f")
    for entry, orders in {"a": (1, 0), "b": (0, 1)}.items():
        true = model.derivative(*orders)
        assert abs(float(found[entry]) - true) <= found.certificate.error_bound * abs(true) + 1e-14
    assert found.certificate.error_bound <= 1e-6


@needs_wider
@pytest.mark.parametrize("name", MODELS)
def test_other_derivatives_of_the_same(name):
    model = MODELS[name]
    at = model.program().solve()
    a, b = model.derivative(1, 0), model.derivative(0, 1)
    along = float(at.tangent({"a": 1.0, "b": -2.0})["f"])
    assert along == pytest.approx(a - 2 * b, rel=1e-6, abs=1e-6 * (abs(a) + 2 * abs(b)))
    row = at.jacobian(["f"], ["a", "b"])["f"]
    assert [float(row[n]) for n in "ab"] == pytest.approx([a, b], rel=1e-6)
    second = at.hessian_vector("f", {"a": 1.0})
    true = [model.derivative(2, 0), model.derivative(1, 1)]
    assert [float(second[n]) for n in "ab"] == pytest.approx(true, rel=1e-6)


@needs_wider
def test_a_solution_is_as_good_as_its_own_last_bits():
    # In doubles w is off by a millionth of itself: y − x, of two blocks, is a billionth of them.
    at = MODELS["a difference of two blocks"].program().solve()
    with mpmath.workdps(70):
        residual = lambda x, y, w: MODELS["a difference of two blocks"].equations(
            mpmath, mpmath.mpf(1.25), mpmath.mpf(0.75), x, y, w
        )
        true = [float(v) for v in mpmath.findroot(residual, (0.7, 0.7, 1.0), tol=1e-90)]
    for k, value in enumerate(true):
        assert abs(float(at[f"u{k}"]) - value) <= (at.certificate.bounds[f"u{k}"] + 1e-15) * value


def test_a_path_that_stands_still_where_nothing_holds_goes_on_another_way():
    # At −4·10¹¹ sines of other signs lie within a few thousand spacings: Newton's steps go astray.
    p = lg.Program("far")
    a = p.parameter("a", value=1.796)
    u, v = p.unknown("u"), p.unknown("v")
    p.subject_to(1.171 * u == 1.234 * a + 3.2676)
    p.subject_to(2.4275 * u + 1.485054e-11 * v + 1.545e-11 * np.sin(v) == 2.9999 * a)
    for k in range(40):
        at = p.solve(a=1.796 * (1 + 1e-4 * k))
        first, second = float(at["u"]), float(at["v"])
        with mpmath.workdps(40):
            left = 2.4275 * mpmath.mpf(first) + 1.485054e-11 * mpmath.mpf(second)
            left += 1.545e-11 * mpmath.sin(second) - 2.9999 * mpmath.mpf(1.796 * (1 + 1e-4 * k))
        assert abs(left) < 3e-14


@needs_wider
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("x", [-0.4630209044220559, 0.3, 1.7])
def test_multipliers_that_are_zero_but_for_rounding(x, steps):
    # By Heron's step z ↦ (z + c/z)/2 nothing changes at its fixed point: what second derivatives
    # carry through it is zero, or the rounding of what cancels.
    root = lambda x: lg.fixed_point(lambda z: 0.5 * (z + (2.0 + x * x) / z), 1.5, solver="picard")
    times = np.linspace(0.5, 1, steps)
    step = lambda x: lambda z, t: (0.4 * z + 0.3 * t * root(x), z * t)
    f = lambda x: lg.scan(step(x), x, times, checkpoints=1)[0]
    share = sum(0.3 * t * 0.4 ** (steps - 1 - k) for k, t in enumerate(times))
    wanted = share * 2 / (2 + x * x) ** 1.5
    assert lg.hessian(f)(x) == pytest.approx(wanted, rel=1e-9)
    assert lg.grad(lg.grad(f))(x) == pytest.approx(wanted, rel=1e-9)


def test_multipliers_that_are_nothing_beside_others():
    # q(q − 1) + … of q = 1/(1 − 0.3) is zero but for the last bits of 0.3.
    q = 10 / 7
    third = q * (q - 1) * (q - 2) / 8
    capital = lambda b: lg.fixed_point(lambda k: 0.5 * b * k**0.3, 1.0)
    for f in (capital, lambda b: lg.root(lambda k: 0.5 * b * k**0.3 - k, 1.0)):
        assert lg.grad(lg.grad(lg.grad(f)))(2.0) == pytest.approx(third, rel=1e-9)


@pytest.mark.parametrize("a", [0.3, 0.7, 1.1, 2.0])
def test_the_second_derivative_of_a_value_at_an_optimum(a):
    # a cos a − cos² a/4, of what is free along a direction: the multipliers are rounding.
    def value(a):
        loss = lambda z: (z[0] + z[1] - a) ** 2 + np.cos(a) * (z[0] + z[1])
        return loss(lg.argmin(loss, np.zeros(2)))

    exact = lambda a: a * mpmath.cos(a) - mpmath.cos(a) ** 2 / 4
    wanted = float(mpmath.diff(exact, mpmath.mpf(a), 2))
    assert lg.grad(lg.grad(value))(a) == pytest.approx(wanted, rel=1e-8)
    assert lg.hvp(value, a, 1.0) == pytest.approx(wanted, rel=1e-8)


@needs_wider
def test_a_derivative_is_no_zero_beside_values_that_it_is_not_made_of():
    """du/db of an unknown at 1e14 beside its square: its own size, not 1e28, says what is zero."""
    p = lg.Program()
    b = p.parameter("b", value=1.1832)
    u = p.unknown("u", start=0.0)
    p.subject_to(5.0284850000000005e-14 * u + 4.942e-14 * np.sin(u) == 3.82 * b - 10.5)
    p.define("f", u**2)
    refused = 0
    for share in np.linspace(-1e-3, 1e-3, 41):
        value = 1.1832 * (1 + share)
        with mpmath.workdps(40):
            here = lambda x, value=value: (
                mpmath.mpf(5.0284850000000005e-14) * x
                + mpmath.mpf(4.942e-14) * mpmath.sin(x)
                - mpmath.mpf(3.82) * mpmath.mpf(value)
                + mpmath.mpf(10.5)
            )
            low, high = mpmath.mpf(-2e14), mpmath.mpf(-1e14)
            for _ in range(140):
                middle = (low + high) / 2
                low, high = (middle, high) if here(middle) < 0 else (low, middle)
            slope = mpmath.mpf(5.0284850000000005e-14) + mpmath.mpf(4.942e-14) * mpmath.cos(low)
            wanted = float(mpmath.mpf(3.82) / slope)
        try:
            found = p.solve(b=value).jacobian(["u"], ["b"])["u"]["b"]
        except lg.LagradError:
            refused += 1
        else:
            assert found == pytest.approx(wanted, rel=1e-6)
    assert refused < 41
