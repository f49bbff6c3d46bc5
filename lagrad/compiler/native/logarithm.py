"""Logarithms of vectors, and what is made of them, to two units in the last place.

log x = k·log 2 + log m with x = 2ᵏ·m, m in [√½, √2). With s = (m − 1)/(m + 1), log m is
2·artanh s = 2s + s·z·P(z), z = s² (as in fdlibm, Sun Microsystems, 1993).
"""

from __future__ import annotations

from lagrad.compiler.native.code import (
    Value,
    fast_two_sum,
    fma,
    magnitude,
    polynomial,
    square_root,
    two_product,
    two_sum,
    with_sign,
)
from lagrad.compiler.native.exponential import exp
from lagrad.compiler.native.formats import (
    INFINITY,
    NAN,
    coefficients,
    constant,
    format_of,
    negative,
    power_of_two,
    rounded,
    split,
    whole,
)


def parts(f: Value) -> tuple[Value, Value]:
    """log(1 + f) = f − half + rest, half = f²/2."""
    s, half = f / (f + 2.0), 0.5 * f * f
    z = s * s
    return half, s * fma(z, polynomial(z, coefficients("LOG", f)), half)


def at_the_ends(x: Value, found: Value) -> Value:
    """−∞ at zero, NaN below it, infinity at infinity."""
    found = x.equals(0.0).choose(-INFINITY, found)
    found = x.equals(INFINITY).choose(INFINITY, found)
    return (x >= 0.0).choose(found, NAN)


def joined(k: Value, f: Value) -> Value:
    """k·log 2 + log(1 + f)."""
    high, low = constant("LOG_2", f)
    half, rest = parts(f)
    return fma(k, high, f - (half - fma(k, low, rest)))


def log(x: Value) -> Value:
    k, m = split(x)
    return at_the_ends(x, joined(k, m - 1.0))


def log1p(x: Value) -> Value:
    """log u with u = 1 + x; what rounding takes from u comes back as a share of m."""
    u = x + 1.0
    k, m = split(u)
    lost = (x > 1.0).choose(1.0 - (u - x), x - (u - 1.0))
    lowest = 1.0 - format_of(x).bias
    held, _ = rounded((k > -lowest).choose(lowest, -k))
    found = joined(k, fma(lost, power_of_two(held.bits), m - 1.0))
    return x.equals(0.0).choose(x, at_the_ends(u, found))


def log_by(x: Value, name: str, unit: tuple[float, ...]) -> Value:
    """k·unit + log m·c, c a constant in two parts as `unit` is."""
    k, m = split(x)
    f = m - 1.0
    half, rest = parts(f)
    high = f - half
    low = ((f - high) - half) + rest
    c, c_low = constant(name, x)
    p, e = two_product(high, x.like(c))
    b, b_low = two_product(k, x.like(unit[0]))
    total, lost = two_sum(b, p)
    more = fma(k, unit[1], fma(high, c_low, fma(low, c, e)))
    return at_the_ends(x, total + (lost + (b_low + more)))


def log2(x: Value) -> Value:
    return log_by(x, "LOG2_E", (1.0, 0.0))


def log10(x: Value) -> Value:
    return log_by(x, "LOG10_E", constant("LOG10_2", x))


def log_in_two(x: Value) -> tuple[Value, Value]:
    """log x as a sum of two numbers, to a dozen bits more than one has; x is positive."""
    k, m = split(x)
    f = m - 1.0
    d, d_low = two_sum(m, x.like(1.0))
    s = f / d
    s_low = (fma(-s, d, f) - s * d_low) / d
    z, z_low = two_product(s, s)
    z_low = fma(2.0 * s, s_low, z_low)
    # 2s + s·t, t = ⅔ z + z²·P(z), of which the first term in two parts.
    c, c_low = constant("TWO_THIRDS", x)
    t, t_low = two_product(z, x.like(c))
    t_low = t_low + fma(z, c_low, z_low * c)
    t, e = fast_two_sum(t, z * z * polynomial(z, coefficients("LOG_TAIL", x)))
    t_low = t_low + e
    p, p_low = two_product(s, t)
    p_low = p_low + fma(s, t_low, s_low * t)
    high, e = fast_two_sum(2.0 * s, p)
    low = e + fma(s_low, 2.0, p_low)
    unit, unit_low = constant("SHORT_LOG_2", x)
    high, e = two_sum(k * unit, high)
    return fast_two_sum(high, low + fma(k, unit_low, e))


def power(x: Value, y: Value) -> Value:
    """e^(y log |x|) with y log |x| in two parts; the ends as C's pow has them."""
    f, a = format_of(x), magnitude(x)
    high, low = log_in_two(a)
    p, p_low = two_product(y, high)
    p_low = (magnitude(p) > 2 * f.highest).choose(0.0, fma(y, low, p_low))
    found = exp(p, low=p_low)
    integer, below = whole(y), y < 0.0
    odd = integer & ~whole(y * 0.5)
    zero, far = a.equals(0.0), a.equals(INFINITY)
    large = (zero & below) | (far & ~below)
    found = (zero | far).choose(large.choose(INFINITY, x.like(0.0)), found)
    without_end = magnitude(y).equals(INFINITY)
    grows = ((a > 1.0) & ~below) | ((a < 1.0) & below)
    limit = a.equals(1.0).choose(1.0, grows.choose(INFINITY, x.like(0.0)))
    found = without_end.choose(limit, found)
    found = (negative(x) & odd).choose(-found, found)
    found = ((x < 0.0) & ~integer & ~far).choose(NAN, found)
    found = (x.is_nan() | y.is_nan()).choose(NAN, found)
    return (x.equals(1.0) | y.equals(0.0)).choose(1.0, found)


def cbrt(x: Value) -> Value:
    """A third of the exponent, then Halley's step twice, then Newton's with an exact residual."""
    f, a = format_of(x), magnitude(x)
    small, large = a < 2.0 ** (f.mantissa - f.bias), a > 2.0 ** (f.bias - 5)
    e = f.mantissa // 3 + 9
    u = large.choose(a * 2.0 ** (-3 * e), small.choose(a * 2.0 ** (3 * e), a))
    # The bits of u as a number, in units of the last place of its exponent.
    k, m = split(u)
    held, third = rounded(k * (1 / 3))
    t = power_of_two(held.bits) * fma(k - 3.0 * third + (m - 1.0), 1 / 3, 1.0)
    for _ in range(3):
        c = t * t * t
        t = t * ((c + 2.0 * u) / (2.0 * c + u))
    s, s_low = two_product(t, t)
    c, c_low = two_product(s, t)
    t = t - ((c - u) + fma(s_low, t, c_low)) / (3.0 * s)
    t = large.choose(t * 2.0**e, small.choose(t * 2.0**-e, t))
    ends = a.equals(0.0) | a.equals(INFINITY)
    return with_sign(ends.choose(a, t), x)


def hypot(x: Value, y: Value) -> Value:
    f, a, b = format_of(x), magnitude(x), magnitude(y)
    top, least = (a > b).choose(a, b), (a > b).choose(b, a)
    e = f.bias // 2 + 4
    far, near = top > 2.0 ** (f.bias // 2 - 2), top < 2.0 ** (f.mantissa + 4 - f.bias // 2)
    by = far.choose(2.0**-e, near.choose(2.0**e, x.like(1.0)))
    back = far.choose(2.0**e, near.choose(2.0**-e, x.like(1.0)))
    p, q = top * by, least * by
    found = square_root(fma(q, q, p * p)) * back
    found = (x.is_nan() | y.is_nan()).choose(NAN, found)
    return (a.equals(INFINITY) | b.equals(INFINITY)).choose(INFINITY, found)


def logaddexp(a: Value, b: Value) -> Value:
    top = a.is_nan().choose(a, (a > b).choose(a, b))
    found = top + log1p(exp(-magnitude(a - b)))
    return a.equals(b).choose(a + constant("LOG_2", a)[0], found)


def logit(p: Value) -> Value:
    """±log(1 + |2p − 1|/min(p, 1 − p)): both 2p − 1 and 1 − p are exact where they matter."""
    f = format_of(p)
    low = p < 0.5
    least = magnitude(low.choose(p, 1.0 - p))
    tiny, e = least < 2.0 ** (4 - f.bias), f.mantissa + 12
    ratio = magnitude(fma(p, 2.0, -1.0)) / tiny.choose(least * 2.0**e, least)
    found = log1p(ratio)
    found = tiny.choose(found + e * constant("LOG_2", p)[0], found)
    found = low.choose(-found, found)
    return ((p < 0.0) | (p > 1.0)).choose(NAN, found)


def arcsinh(x: Value) -> Value:
    """log(a + √(1 + a²)) = log(1 + a + a²/(1 + √(1 + a²)))."""
    a = magnitude(x)
    far = a > 2.0 ** (format_of(x).mantissa // 2 + 2)
    b = far.choose(1.0, a)
    z = b * b
    found = log1p(far.choose(a - 1.0, b + z / (1.0 + square_root(z + 1.0))))
    return with_sign(far.choose(found + constant("LOG_2", x)[0], found), x)


def arccosh(x: Value) -> Value:
    """log(1 + t + √(2t + t²)) with t = x − 1."""
    far = x > 2.0 ** (format_of(x).mantissa // 2 + 2)
    t = far.choose(1.0, x - 1.0)
    found = log1p(far.choose(x - 1.0, t + square_root(fma(t, t, t + t))))
    found = far.choose(found + constant("LOG_2", x)[0], found)
    return (x < 1.0).choose(NAN, found)


def arctanh(x: Value) -> Value:
    """½ log(1 + 2a/(1 − a))."""
    a = magnitude(x)
    return with_sign(0.5 * log1p((a + a) / (1.0 - a)), x)
