"""Differences of nearly equal numbers: what they spoil has an error, what they do not is right."""

import mpmath
import numpy as np
import pytest
from oracles import needs_wider
from scipy import sparse, special

import lagrad as lg

VERSINE = lambda x: (1 - np.cos(x)) / x**2
SPOILT = {
    "1 - cos(x)": (VERSINE, 1e-6),
    "exp(x) - 1": (lambda x: (np.exp(x) - 1) / x, 1e-9),
    "log(1 + x)": (lambda x: np.log(1 + x) / x, 1e-9),
    "x - sin(x)": (lambda x: (x - np.sin(x)) / x**3, 1e-5),
    "sqrt(x + 1) - sqrt(x)": (lambda x: 1 / (np.sqrt(x + 1) - np.sqrt(x)), 1e12),
    "sqrt(b·b - 4)": (lambda b: np.log((b - np.sqrt(b * b - 4)) / 2), 1e8),
    "log(sqrt(x² + 1) - x)": (lambda x: np.log(np.sqrt(x**2 + 1) - x), 1e7),
    "sum(x²)": (lambda x: np.log(np.mean(x**2) - np.mean(x) ** 2), 1e8 + np.arange(4.0)),
    "power": (lambda x: 1e24 * (1 - np.cos(x)) ** 2, 1e-6),
    "arccos": (lambda x: np.arccos(np.sin(x)), np.pi / 2 - 1e-7),
    "single precision": (VERSINE, np.float32(1e-3)),
    "an array": (lambda x: np.sum(VERSINE(x)), np.array([1.0, 1e-6, 0.1])),
}


# The value of each is good to what rounding of its terms leaves; of the derivative less is left.
SPOILT_ON_THE_WAY_BACK = {
    "sqrt(x + 1) - sqrt(x)": (lambda x: np.sqrt(x + 1) - np.sqrt(x), 1e12),
    "1/x - 1/(x + 1)": (lambda x: 1 / x - 1 / (x + 1), 1e11),
    "log(x + 1) - log(x)": (lambda x: np.log(x + 1) - np.log(x), 1e12),
    "cosh(x) - sinh(x)": (lambda x: np.cosh(x) - np.sinh(x), 15.0),
    "sqrt(x² + 1) - x": (lambda x: np.sqrt(x * x + 1) - x, 1e6),
    "exp(x) - 1 - x": (lambda x: np.exp(x) - 1 - x, 3.3e-11),
    "x - sin(x)": (lambda x: x - np.sin(x), 1e-6),
    "x³ - 3x² + 3x - 1": (lambda x: x**3 - 3 * x**2 + 3 * x - 1, 1 + 1e-6),
}
# Of sums and products of tensors: exp(x) − 1 − x over x², however it is added up.
BOTH = lambda x: np.stack([np.exp(x), 1 + x])
SIGNED = lambda x: np.stack([np.exp(x), -1 - x])
SIGNS = np.array([1.0, -1.0])
DIFFERENCE = sparse.csr_array(np.array([[1.0, -1.0], [0.0, 1.0]]))
ADDED_UP = {
    "dot": lambda x: np.dot(BOTH(x), SIGNS),
    "matmul": lambda x: (np.array([[1.0, -1.0], [2.0, 3.0]]) @ BOTH(x)[:, None])[0, 0],
    "einsum": lambda x: np.einsum("i,i->", BOTH(x), SIGNS),
    "tensordot": lambda x: np.tensordot(BOTH(x), SIGNS, 1),
    "a quadratic form": lambda x: BOTH(x) @ np.diag(SIGNS) @ np.ones(2),
    "a sum of products": lambda x: np.sum(BOTH(x) * SIGNS),
    "sum": lambda x: np.sum(SIGNED(x)),
    "sum along an axis": lambda x: np.sum(SIGNED(x)[:, None], axis=0)[0],
    "Python's sum": lambda x: sum([np.exp(x), -1, -x]),
    "mean": lambda x: np.mean(SIGNED(x)),
    "average": lambda x: np.average(SIGNED(x)),
    "cumsum": lambda x: np.cumsum(SIGNED(x))[-1],
    "trace": lambda x: np.trace(np.diag(SIGNED(x))),
    "diff": lambda x: np.diff(BOTH(x))[0],
    "a sparse matrix": lambda x: (DIFFERENCE @ BOTH(x))[0],
    "convolve": lambda x: np.convolve(BOTH(x), SIGNS)[1],
    "bincount": lambda x: np.bincount([0, 0], SIGNED(x))[0],
}
for name, f in ADDED_UP.items():
    SPOILT[f"{name} of many"] = (lambda x, f=f: f(x) / x**2, 1e-5)
# Much less than the rounding of what is added up, and not zero, as a wider precision shows.
SPOILT |= {
    "a root of x² - bx + 1": (lambda b: (np.sqrt(b * b - 4) - b) / 2, 1e8),
    "sqrt(x + 1) - sqrt(x) far out": (lambda x: np.sqrt(x + 1) - np.sqrt(x), 1e14),
    "the same, scaled": (lambda x: 1e20 * (np.sqrt(x + 1) - np.sqrt(x)), 1e15),
    "x - sin(x) near zero": (lambda x: x - np.sin(x), 1e-8),
}
SPOILT |= {f"{name} itself": case for name, case in SPOILT_ON_THE_WAY_BACK.items()}


UNSEEN = (
    "a root of x² - bx + 1",
    "sqrt(x + 1) - sqrt(x) far out",
    "x - sin(x) near zero",
    "a series",
    "a recurrence",
    "chaos",
)


def cases(table):
    """A table's rows, of which some need a precision wider than a double."""
    marks = {name: needs_wider if name in UNSEEN else () for name in table}
    return [pytest.param(*row, id=name, marks=marks[name]) for name, row in table.items()]


@pytest.mark.parametrize(("function", "x"), cases(SPOILT))
def test_a_gradient_that_cancellation_has_spoilt_raises(function, x):
    with pytest.raises(lg.SingularSystem, match="cancel"):
        lg.grad(function)(x)


def test_the_error_names_the_difference_and_holds_for_every_derivative():
    for transform in (lg.grad, lg.value_and_grad, lg.jacobian, lg.hessian):
        with pytest.raises(lg.SingularSystem, match=r"left in 1 - cos\(x\)"):
            transform(VERSINE)(1e-6)
    with pytest.raises(lg.SingularSystem, match=r"1 - cos\(x\)"):
        lg.jvp(VERSINE, (1e-6,), (1.0,))
    with pytest.raises(lg.SingularSystem, match=r"1 - cos\(x\)"):
        lg.compile(lg.grad(VERSINE))(1e-6)
    program = lg.Program("lens")
    angle = program.parameter("angle", value=1e-6)
    program.define("sag", (1 - np.cos(angle)) / angle**2)
    at = program.solve()
    assert float(at["sag"]) == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(lg.SingularSystem, match=r"'sag'.*1 - cos\(angle\)"):
        at.gradient("sag")


def test_the_error_says_which_line():
    def spread(x):
        grown = np.exp(x) - 1
        return grown / x

    derivatives = {
        "grad": lambda: lg.grad(spread)(1e-6),
        "compiled": lambda: lg.compile(lg.grad(spread))(1e-6),
        "of a compiled function": lambda: lg.grad(lg.compile(spread))(1e-6),
        "jvp": lambda: lg.jvp(spread, (1e-6,), (1.0,)),
        "vjp": lambda: lg.vjp(spread, 1e-6)[1](1.0),
        "hvp": lambda: lg.hvp(spread, 1e-6, 1.0),
    }
    for name, derivative in derivatives.items():
        with pytest.raises(lg.SingularSystem, match=r"line \d+: grown = np.exp\(x\) - 1") as raised:
            derivative()
        assert raised.value.operation == "exp(x) - 1", name


def test_a_long_operation_is_shortened_to_its_short_terms():
    def long(x):
        product = np.exp(x)
        for _ in range(40):
            product = product * np.cos(x)
        return (product - 1 - x) / x**2

    with pytest.raises(lg.SingularSystem, match=r"left in … - x, .*\n.*line \d+: return"):
        lg.grad(long)(1e-5)


def exponential(x):
    """The exponential of −x by its series."""
    total = term = 1.0 + 0 * x
    for k in range(1, 150):
        term = -term * x / k
        total += term
    return total


def sine(x):
    total = term = 1.0 * x
    for k in range(1, 100):
        term = -term * x * x / (2 * k * (2 * k + 1))
        total = total + term
    return total


def by_steps(x):
    step = lambda s: (s[0] - s[1] * x / s[2], -s[1] * x / s[2], s[2] + 1)
    return lg.iterate(step, (1.0 + 0 * x, 1.0 + 0 * x, 1.0 + 0 * x), 150)[0]


def integral(a):
    """∫₀¹ xⁿ/(x + a) dx by its recurrence in n, which is stable downwards only."""
    found = np.log((1 + a) / a)
    for n in range(1, 25):
        found = 1 / n - a * found
    return found


def logistic(x):
    for _ in range(60):
        x = 4 * x * (1 - x)
    return x


def polygon(x):
    """Archimedes' π by polygons, of 6·2²⁵ sides."""
    tangent = x / np.sqrt(3.0)
    for _ in range(25):
        tangent = ((1 + tangent * tangent) ** 0.5 - 1) / tangent
    return tangent * 2.0**25


# Little by little: no sum leaves a hundredth of its terms, or none in two lines.
GRADUALLY = {
    "a series": (exponential, 20.0),
    "the sine's": (sine, 30.0),
    "a series by a loop": (by_steps, 20.0),
    "a recurrence": (integral, 10.0),
    "chaos": (logistic, 0.3),
    "polygons": (polygon, 1.0),
    "a sum by a scan": (
        lambda x: lg.scan(lambda s, a: (s + a, None), 0 * x, SIGNED(x))[0] / x**2,
        1e-5,
    ),
}


@pytest.mark.parametrize(("function", "x"), cases(GRADUALLY))
def test_rounding_that_is_magnified_little_by_little_raises(function, x):
    with pytest.raises(lg.SingularSystem, match=r"magnifie|cancel|divides"):
        lg.grad(function)(x)


def test_the_remedies_for_loops_and_recurrences_run():
    with pytest.raises(lg.SingularSystem, match=r"nothing cancels, take fewer.*accuracy="):
        lg.grad(by_steps)(20.0)
    assert np.isfinite(lg.grad(by_steps, accuracy=1e3)(20.0))
    stable = lambda x: 1 / by_steps(-x)  # whose terms have one sign
    assert lg.grad(stable)(20.0) == pytest.approx(-np.exp(-20), rel=1e-11)

    def downwards(a):
        found = 0.0 * a
        for n in range(60, 24, -1):  # Iₙ₋₁ = (1/n − Iₙ)/a
            found = (1 / n - found) / a
        return found

    points, weights = np.polynomial.legendre.leggauss(60)
    x = (points + 1) / 2
    assert lg.grad(downwards)(10.0) == pytest.approx(
        -np.sum(weights / 2 * x**24 / (x + 10) ** 2), rel=1e-11
    )


def test_the_same_where_it_is_not():
    assert lg.grad(exponential)(2.0) == pytest.approx(-np.exp(-2), rel=1e-12)
    assert lg.grad(by_steps)(2.0) == pytest.approx(-np.exp(-2), rel=1e-12)
    assert lg.grad(sine)(1.0) == pytest.approx(np.cos(1), rel=1e-12)
    # ∫ −xⁿ/(x + a)² at n = 24, a = 0.1, by Gauss's rule.
    points, weights = np.polynomial.legendre.leggauss(60)
    x = (points + 1) / 2
    wanted = -np.sum(weights / 2 * x**24 / (x + 0.1) ** 2)
    assert lg.grad(integral)(0.1) == pytest.approx(wanted, rel=1e-9)


def test_less_may_be_asked_for():
    found = lg.grad(VERSINE, accuracy=0.1)(1e-3)
    assert found == pytest.approx(-1e-3 / 12, rel=1e-3)


SERIES = lambda x: np.where(np.abs(x) < 1e-2, 0.5 - x**2 / 24 + x**4 / 720, VERSINE(x))
REMEDIES = {
    "expm1": (lambda x: np.expm1(x) / (x + 1), lambda x: mpmath.expm1(x) / (x + 1), 1e-9),
    "log1p": (lambda x: np.log1p(x) / (x + 1), lambda x: mpmath.log1p(x) / (x + 1), 1e-9),
    "half angles": (
        lambda x: np.log(2 * np.sin(x / 2) ** 2),
        lambda x: mpmath.log(2 * mpmath.sin(x / 2) ** 2),
        1e-6,
    ),
    "roots": (
        lambda x: 1 / (1 / (np.sqrt(x + 1) + np.sqrt(x))),
        lambda x: mpmath.sqrt(x + 1) + mpmath.sqrt(x),
        1e12,
    ),
    "a series": (SERIES, lambda x: (1 - mpmath.cos(x)) / x**2, 1e-6),
}


@pytest.mark.parametrize(("function", "exact", "x"), REMEDIES.values(), ids=REMEDIES)
def test_the_remedies_that_the_error_names(function, exact, x):
    with mpmath.workdps(60):
        wanted = float(mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(x) * mpmath.mpf(10) ** -20))
    assert lg.grad(function)(x) == pytest.approx(wanted, rel=1e-9)


DRAWN = np.random.default_rng(0).standard_normal(5)
HARMLESS = {
    "exp(x) - 1 alone": (lambda x: np.exp(x) - 1, 1e-12, np.exp(1e-12)),
    "log(1 + x) alone": (lambda x: np.log(1 + x), 1e-12, 1 / (1 + 1e-12)),
    "a variance": (
        lambda x: np.log(np.mean((x - np.mean(x)) ** 2)),
        1e8 + np.arange(4.0),
        (np.arange(4.0) - 1.5) / 2 / 1.25,
    ),
    "given numbers": (lambda x: 1 / (x - 0.3), 0.3 + 1e-9, -1 / (0.3 + 1e-9 - 0.3) ** 2),
    "two that are equal": (lambda x: np.sum((2 * x - 2 * x[::-1]) ** 2), np.ones(3), np.zeros(3)),
    "a kink at a difference": (
        lambda x: np.sum(np.maximum(x - np.mean(x), 0.0)) + np.sum(x),
        np.ones(4),
        np.ones(4),
    ),
    "deviations of what is constant": (
        lambda x: np.sum(np.abs(x - np.mean(x))) + 2 * np.sum(x),
        np.full(3, 0.7),
        np.full(3, 2.0),
    ),
    "a logarithm of products": (
        lambda x: np.sum(np.log(x)) - np.log(np.prod(x)),
        np.array([1.3, 1.7, 1.1, 1.9]),
        np.zeros(4),
    ),
    "an identity": (lambda x: np.sum(np.sin(x) ** 2 + np.cos(x) ** 2 - 1), np.arange(4.0), 0.0),
    "a shift": (lambda s: np.sum(np.sin((DRAWN + s)[:, None] - (DRAWN + s)) ** 2), 0.3, 0.0),
    "centred": (lambda x: np.sum((x - np.mean(x)) * DRAWN), DRAWN, DRAWN - DRAWN.mean()),
    "far from it": (VERSINE, 1.0, 0.8414709848078965 - 2 * (1 - 0.5403023058681398)),
}


@pytest.mark.parametrize(("function", "x", "wanted"), HARMLESS.values(), ids=HARMLESS)
def test_what_cancels_and_does_no_harm_is_right(function, x, wanted):
    assert lg.grad(function)(x) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def rosenbrock(x):
    return np.sum((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2)


@pytest.mark.parametrize("distance", [1e-4, 1e-8, 1e-10, 1e-12, 1e-13, 1e-14, 1e-15, 0.0])
def test_a_gradient_that_vanishes_at_an_optimum_is_no_cancellation(distance):
    # What is left of the differences there is what is left of the gradient.
    rng = np.random.default_rng(0)
    matrix, best, weights = rng.standard_normal((20, 5)), rng.standard_normal(5), np.arange(1.0, 6)
    target = matrix @ best
    misfit = lambda x: np.sum((matrix @ x - target) ** 2)
    spread = lambda x: np.log(np.sum(np.exp(x - np.max(x)))) + np.max(x) - np.mean(x)
    cosine = lambda x: -np.sum(x * weights) / np.sqrt(np.sum(x * x) * np.sum(weights * weights))
    for _ in range(6):
        step = distance * rng.standard_normal(5)
        assert np.abs(lg.grad(rosenbrock)(1 + step)).max() <= 1e4 * distance + 1e-10
        assert np.abs(lg.grad(misfit)(best + step)).max() <= 1e4 * distance + 1e-10
        assert np.abs(lg.grad(spread)(0.3 + step)).max() <= 1e2 * distance + 1e-10
        assert np.abs(lg.grad(cosine)(weights + step)).max() <= 1e2 * distance + 1e-10


def test_loops_and_functions_of_the_users_are_not_run_to_look_at_it():
    runs = []
    counted = lg.primitive(
        lambda x: runs.append(x) or np.cos(x), jvp=lambda t, y, x: -np.sin(x) * t[0]
    )
    lg.grad(lambda x: (1 - counted(x)) / x**2)(1.0)
    assert len(runs) <= 2  # the shape of the result, and the value


@pytest.mark.parametrize("x", [29.9, 30.1, 1e3, 1e5, 1e7])
def test_the_rule_of_erfcx_does_not_cancel_either(x):
    with mpmath.workdps(60):
        exact = lambda t: mpmath.exp(t * t) * mpmath.erfc(t)
        first, second = (float(mpmath.diff(exact, mpmath.mpf(x), n)) for n in (1, 2))
    assert lg.grad(special.erfcx)(x) == pytest.approx(first, rel=1e-11)
    assert lg.grad(lg.grad(special.erfcx))(x) == pytest.approx(second, rel=1e-8)


QUOTIENTS = {
    "expm1(x)/x": lambda x: np.expm1(x) / x,
    "log1p(x)/x": lambda x: np.log1p(x) / x,
    "x/sin(x)": lambda x: x / np.sin(x),
}


@needs_wider
@pytest.mark.parametrize("x", [1e-6, 1e-8, 1e-9, 1e-10, 1e-12, 1e-14])
@pytest.mark.parametrize("name", QUOTIENTS)
def test_second_derivatives_of_which_even_a_wider_precision_loses_all(name, x):
    # Terms of 1/x² cancel to a third: a zero, or 10⁸, is what rounding has left of them.
    f = QUOTIENTS[name]
    for derivative in (lg.hessian(f), lg.grad(lg.grad(f)), lg.compile(lg.hessian(f))):
        with pytest.raises(lg.SingularSystem):
            derivative(x)


@needs_wider
def test_zeros_that_terms_of_no_size_cancel_to_are_zeros():
    turned = lambda x: np.sin(x) ** 2 + np.cos(x) ** 2
    assert abs(lg.grad(turned)(0.7)) < 1e-15
    assert abs(lg.hessian(turned)(0.7)) < 1e-14
    mixed = lambda x: x[0] * x[1] - x[1] * x[0]
    np.testing.assert_array_equal(lg.grad(mixed)(np.array([1e3, 2e-3])), 0.0)
    np.testing.assert_array_equal(lg.hessian(mixed)(np.array([1e3, 2e-3])), 0.0)
