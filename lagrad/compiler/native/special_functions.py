"""The error function, and those of Γ for positive arguments, to two units in the last place.

Beyond its range, where Γ's need the sine of πx, `Code.outside` says so.
"""

from __future__ import annotations

from lagrad.compiler.native.code import (
    Value,
    fast_two_sum,
    fma,
    magnitude,
    polynomial,
    two_product,
    two_sum,
    with_sign,
)
from lagrad.compiler.native.exponential import exp_times
from lagrad.compiler.native.formats import INFINITY, NAN, coefficients, constant, within
from lagrad.compiler.native.logarithm import log, log_in_two


def erf_near(x: Value) -> Value:
    z = x * x
    return fma(x, polynomial(z, coefficients("ERF", x)), x)


def erfc_beyond(a: Value) -> Value:
    """erfc a = e^(−a²)·g(a) for a ≥ 0.45, the square in two parts.

    g(a)·(1 + 2a) is a polynomial in (a − 4)/(a + 4) (Shepherd and Laframboise, Math. Comp. 36,
    1981).
    """
    square, low = two_product(a, a)
    t = (a - 4.0) / (a + 4.0)
    first, *others = coefficients("ERFCX", a)
    p, p_low = fast_two_sum(a.like(first), t * polynomial(t, tuple(others)))
    d, d_low = two_sum(a + a, a.like(1.0))
    g = p / d
    g_low = (fma(-g, d, p) + fma(-g, d_low, p_low)) / d
    found = exp_times(-square, -low, g, g_low)
    return (a > (28.0 if a.kind == "double" else 11.0)).choose(0.0, found)


def erf(x: Value) -> Value:
    a = magnitude(x)
    far = (a > 6.5).choose(1.0, 1.0 - erfc_beyond(a))
    return (a < 1.0).choose(erf_near(x), with_sign(far, x))


def erfc(x: Value) -> Value:
    a = magnitude(x)
    beyond = erfc_beyond(a)
    far = (x < 0.0).choose(2.0 - beyond, beyond)
    return (a < 0.47).choose(1.0 - erf_near(x), far)


def ndtr(x: Value) -> Value:
    """½ erfc(−x/√2)."""
    root, low = constant("SQRT_HALF", x)
    x = within(x, -40.0, 40.0)  # beyond it is zero, or one
    return 0.5 * erfc(-fma(x, root, x * low))


def gammaln(x: Value) -> Value:
    """log Γ(2 + v) ± log p with |v| ≤ ½, some steps away, up to 4; Stirling's series beyond."""
    # Before log Γ leaves the range of floats x log x does.
    end = 1e306 if x.kind == "double" else 4.03e36
    x.code.outside.append((x < 0.0) | ((x > end) & (x < INFINITY)))
    far, low, lower, up, upper = x >= 4.0, x < 1.5, x < 0.5, x >= 2.5, x >= 3.5
    up_v = upper.choose(x - 4.0, x - 3.0)
    low_v = lower.choose(x, x - 1.0)
    v = up.choose(up_v, low.choose(low_v, x - 2.0))
    up_p = upper.choose((x - 1.0) * (x - 2.0), x - 1.0)
    # x(x + 1), of which rounding takes a share.
    twice = x * (x + 1.0)
    share = (lower & x.differs(0.0)).choose(fma(x, x + 1.0, -twice) / twice, x.like(0.0))
    p = up.choose(up_p, low.choose(lower.choose(twice, x), x.like(1.0)))
    high, rest = log_in_two(far.choose(x, p))
    first, *others = coefficients("GAMMALN", x)
    g, g_low = two_product(v, x.like(first))
    g_low = fma(v * v, polynomial(v, tuple(others)), g_low)
    sign = low.choose(-1.0, x.like(1.0))
    near, lost = two_sum(high * sign, g)
    near = near + (lost + fma(rest + share, sign, g_low))
    # (x − ½) log x − x + ½ log 2π + a series in 1/x
    z, m = 1.0 / x, x - 0.5
    tail = z * polynomial(z * z, coefficients("STIRLING", x))
    q, q_low = two_product(m, high)
    total, lost = two_sum(q, -x)
    c, c_low = constant("HALF_LOG_2_PI", x)
    total, more = two_sum(total, x.like(c))
    beyond = total + (more + (lost + (fma(m, rest, q_low) + (tail + c_low))))
    ends = x.equals(0.0) | x.equals(INFINITY)
    return ends.choose(INFINITY, far.choose(beyond, near))


def digamma(x: Value) -> Value:
    """(u − root)·P(u) for u in [1, 2], a reciprocal away up to 3; the asymptotic series beyond."""
    x.code.outside.append(x < 0.0)
    far, low, step = x >= 3.0, x < 1.0, x > 2.0
    z = 1.0 / x
    tail = polynomial(z * z, coefficients("DIGAMMA_TAIL", x))
    beyond = log(x) + fma(z * z, tail, -0.5 * z)
    u = low.choose(x, step.choose(x - 2.0, x - 1.0))  # less one
    root, root_low = constant("DIGAMMA_ROOT", x)
    d, lost = two_sum(u, x.like(-root))
    d_low = lost - root_low
    first, *others = coefficients("DIGAMMA", x)
    w = u - 0.5
    p, p_low = fast_two_sum(x.like(first), w * polynomial(w, tuple(others)))
    near, near_low = two_product(d, p)
    near_low = near_low + fma(d, p_low, d_low * p)
    by = low.choose(x, x - 1.0)
    inverse = 1.0 / by
    rest = fma(-by, inverse, 1.0) * inverse
    zero = x.like(0.0)
    inverse = low.choose(-inverse, step.choose(inverse, zero))
    rest = low.choose(-rest, step.choose(rest, zero))
    near, lost = two_sum(inverse, near)
    near = near + (lost + (rest + near_low))
    found = (x < (1e-300 if x.kind == "double" else 1e-36)).choose(-z, far.choose(beyond, near))
    found = x.equals(INFINITY).choose(INFINITY, found)
    return x.is_nan().choose(NAN, found)
