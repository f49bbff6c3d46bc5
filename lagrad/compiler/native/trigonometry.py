"""Trigonometric functions of vectors and their inverses, to two units in the last place.

x = k·π/2 + r with π/2 in three parts (Cody and Waite 1980); beyond the range where those have
digits enough, `Code.outside` says so.
"""

from __future__ import annotations

from lagrad.compiler.native.code import (
    Value,
    fast_two_sum,
    fma,
    magnitude,
    polynomial,
    square_root,
    two_sum,
    with_sign,
)
from lagrad.compiler.native.formats import (
    INFINITY,
    NAN,
    coefficients,
    constant,
    format_of,
    negative,
)


def reduced(x: Value) -> tuple[Value, Value]:
    """The integer k, in the low bits, and r."""
    f = format_of(x)
    a = magnitude(x)
    x.code.outside.append((a > f.periodic) & (a < INFINITY))
    held = fma(x, 1 / constant("HALF_PI", x)[0], f.magic)
    k, r = held - f.magic, x
    for part in constant("HALF_PI", x):
        r = fma(k, -part, r)
    return held.bits, r


def sine(r: Value) -> Value:
    """sin r − r."""
    z = r * r
    return r * z * polynomial(z, coefficients("SIN", r))


def cosine(r: Value) -> Value:
    """cos r − 1 + r²/2."""
    z = r * r
    return z * z * polynomial(z, coefficients("COS", r))


def turned(x: Value, quarters: int) -> Value:
    """sin(x + quarters·π/2)."""
    k, r = reduced(x)
    k = k + quarters if quarters else k
    s, c = r + sine(r), fma(r * r, -0.5, 1.0) + cosine(r)
    found = (k & 1).differs(0).choose(c, s)
    return (found.bits ^ ((k >> 1) << format_of(x).sign)).floating


def sin(x: Value) -> Value:
    return x.equals(0.0).choose(x, turned(x, 0))


def cos(x: Value) -> Value:
    return turned(x, 1)


def tan(x: Value) -> Value:
    """sin r/cos r, or −cos r/sin r, both in two parts."""
    k, r = reduced(x)
    s, s_low = fast_two_sum(r, sine(r))
    c, c_low = fast_two_sum(r.like(1.0), fma(r * r, -0.5, cosine(r)))
    odd = (k & 1).differs(0)
    n, n_low = odd.choose(-c, s), odd.choose(-c_low, s_low)
    d, d_low = odd.choose(s, c), odd.choose(s_low, c_low)
    inverse = 1.0 / d
    y = n * inverse
    found = fma(fma(-y, d, n) + fma(-y, d_low, n_low), inverse, y)
    return x.equals(0.0).choose(x, found)


def arc(x: Value) -> tuple[Value, Value, Value]:
    """Whether |x| is beyond ½, t and a rest: arcsin |x| = π/2 − 2(t + rest) with t = √½(1 − |x|).

    Elsewhere arcsin |x| = t + rest, t = |x|.
    """
    a = magnitude(x)
    far = a > 0.5
    z = far.choose((1.0 - a) * 0.5, a * a)
    root = square_root(z)
    lost = (far & z.differs(0.0)).choose(fma(-root, root, z) / (root + root), x.like(0.0))
    t = far.choose(root, a)
    return far, t, fma(t * z, polynomial(z, coefficients("ARCSIN", x)), lost)


def less(total: tuple[float, ...], t: Value, rest: Value) -> Value:
    """A constant in two parts, less t and what belongs to it."""
    found, lost = fast_two_sum(t.like(total[0]), -t)
    return found + (lost + (total[1] - rest))


def arcsin(x: Value) -> Value:
    far, t, rest = arc(x)
    beyond = less(constant("HALF_PI", x), 2.0 * t, 2.0 * rest)
    return with_sign(far.choose(beyond, t + rest), x)


def arccos(x: Value) -> Value:
    far, t, rest = arc(x)
    left = x < 0.0
    near = less(constant("HALF_PI", x), left.choose(-t, t), left.choose(-rest, rest))
    beyond = less(constant("PI", x), 2.0 * t, 2.0 * rest)
    return far.choose(left.choose(beyond, 2.0 * (t + rest)), near)


def arctan_of(y: Value, x: Value) -> Value:
    """arctan(y/x) for y, x ≥ 0 of which one is positive.

    With b = 0, 1 or ∞ it is arctan b + arctan t, t = (y − bx)/(x + by), |t| ≤ tan(π/8).
    """
    steep = 2.414213562373095  # tan(3π/8)
    low, high = y * steep < x, y > x * steep
    between = ~(low | high)
    difference, d = y - x, y + x
    n_low = two_sum(y, -x)[1]
    d_low = two_sum(y, x)[1]
    n = low.choose(y, high.choose(-x, difference))
    n_low = between.choose(n_low, x.like(0.0))
    d = low.choose(x, high.choose(y, d))
    d_low = between.choose(d_low, x.like(0.0))
    t = n / d
    z = t * t
    rest = fma(
        t * z, polynomial(z, coefficients("ARCTAN", x)), (fma(-t, d, n) + fma(-t, d_low, n_low)) / d
    )
    (half, half_low), (quarter, quarter_low) = constant("HALF_PI", x)[:2], constant("QUARTER_PI", x)
    base, lost = fast_two_sum(high.choose(half, x.like(quarter)), t)
    beyond = base + (lost + (high.choose(half_low, x.like(quarter_low)) + rest))
    return low.choose(t + rest, beyond)


def arctan(x: Value) -> Value:
    a, far = magnitude(x), 2.0 ** (format_of(x).mantissa + 3)
    return with_sign(arctan_of((a > far).choose(far, a), x.like(1.0)), x)


def arctan2(y: Value, x: Value) -> Value:
    f, a, b = format_of(x), magnitude(y), magnitude(x)
    one, zero = x.like(1.0), x.like(0.0)
    top = (a > b).choose(a, b)
    large, small = top > 2.0 ** (f.bias - 3), top < 2.0 ** (-f.bias // 2)
    by = large.choose(2.0 ** -(f.mantissa + 6), small.choose(2.0 ** (f.bias // 2 - 4), one))
    # At infinity, and where both are zero, by the directions that they stand for.
    steep, flat = a.equals(INFINITY), b.equals(INFINITY)
    ends = steep | flat
    n = ends.choose(steep.choose(1.0, zero), a * by)
    d = ends.choose(flat.choose(1.0, zero), top.equals(0.0).choose(1.0, b * by))
    found = arctan_of(n, d)
    # Where the quotient has no digits left it is the angle.
    found = (n < d * 2.0 ** -(f.mantissa + 8)).choose(n / d, found)
    found = negative(x).choose(less(constant("PI", x), found, zero), found)
    found = (y.is_nan() | x.is_nan()).choose(NAN, found)
    return with_sign(found, y)
