"""The numbers of `lagrad/compiler/native/coefficients.py`: run this file to write them anew.

Polynomials are minimax ones by the exchange of E. Remez (C. R. Acad. Sci. Paris 198, 1934): the
error, weighed so that it is relative to the function, is as large at one point more than there
are coefficients, with alternating signs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from mpmath import mp, mpf

Real = Callable[[mpf], mpf]
PLACE = Path(__file__).parent.parent / "lagrad" / "compiler" / "native" / "coefficients.py"


def value(coefficients: list[mpf], t: mpf) -> mpf:
    """Of a polynomial, constant first."""
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * t + c
    return total


def remez(f: Real, weight: Real, low: mpf, high: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """The polynomial with the least largest weight·|p − f|, constant first; and that."""
    count = degree + 2
    middle, half = (low + high) / 2, (high - low) / 2
    # Not at an end, nor in the middle, where a weight may be zero.
    points = [middle - half * mp.cos(mp.pi * (k + mpf("0.37")) / count) for k in range(count)]
    fine = 30 * count
    grid = [middle + half * mp.cos(mp.pi * (k + mpf("0.5")) / fine) for k in range(fine)]
    known = [(t, f(t), weight(t)) for t in grid]
    for _ in range(12):
        rows = [
            [*(t**k for k in range(degree + 1)), (-1) ** i / weight(t)]
            for i, t in enumerate(points)
        ]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([f(t) for t in points]))
        found = [solution[k] for k in range(degree + 1)]
        errors = [(t, w * (value(found, t) - y)) for t, y, w in known]
        peaks: list[tuple[mpf, mpf]] = []  # one for each stretch of one sign
        for t, error in errors:
            if peaks and (peaks[-1][1] > 0) == (error > 0):
                peaks[-1] = max(peaks[-1], (t, error), key=lambda peak: abs(peak[1]))
            else:
                peaks.append((t, error))
        while len(peaks) > count:
            peaks.pop(0 if abs(peaks[0][1]) < abs(peaks[-1][1]) else -1)
        sizes = [abs(error) for _, error in peaks]
        if len(peaks) < count or max(sizes) < min(sizes) * mpf("1.001"):
            break
        points = [t for t, _ in peaks]
    return found, max(abs(error) for _, error in errors)


def of_root(g: Real, *taken: mpf) -> Real:
    """(g(√z)/√z − taken[0])/z, and so on: what is left of an odd function's series."""

    def f(z: mpf) -> mpf:
        z = max(z, mpf(10) ** -12)
        value = g(mp.sqrt(z)) / mp.sqrt(z)
        for term in taken:
            value = (value - term) / z
        return value

    return f


def tail_of(g: Real, terms: int) -> Real:
    """What is left of a function's series at zero after so many terms, over the next power."""

    def f(t: mpf) -> mpf:
        if abs(t) < mpf(10) ** -8:
            t = mpf(10) ** -8
        return (g(t) - sum(t**k / mp.factorial(k) for k in range(terms))) / t**terms

    return f


def scaled_erfc(x: mpf) -> mpf:
    return mp.exp(x * x) * mp.erfc(x)


def from_quotient(t: mpf) -> mpf:
    """x of t = (x − 4)/(x + 4)."""
    return 4 * (1 + t) / (1 - t)


def to_quotient(x: str) -> mpf:
    return (mpf(x) - 4) / (mpf(x) + 4)


def of_reciprocal(g: Real) -> Real:
    """g(1/√z)."""
    return lambda z: g(1 / mp.sqrt(max(z, mpf(10) ** -8)))


def stirling(x: mpf) -> mpf:
    """x times what log Γ(x) has beyond (x − ½) log x − x + ½ log 2π."""
    return (mp.loggamma(x) - (x - mpf(1) / 2) * mp.log(x) + x - mp.log(2 * mp.pi) / 2) * x


def digamma_tail(x: mpf) -> mpf:
    """x² times what ψ(x) has beyond log x − 1/(2x)."""
    return (mp.digamma(x) - mp.log(x) + 1 / (2 * x)) * x * x


def by_root(root: mpf) -> Real:
    """ψ(3/2 + w) over the distance from its root."""

    def f(w: mpf) -> mpf:
        x = mpf(3) / 2 + w
        return (
            mp.digamma(x) / (x - root) if abs(x - root) > mpf(10) ** -12 else mp.polygamma(1, root)
        )

    return f


def table() -> tuple[dict[str, tuple[list[float], list[float], float, float]], dict[str, mpf]]:
    """Polynomials with their errors, for doubles and for floats; and constants."""
    mp.dps = 50
    one, linear = (lambda t: mpf(1)), (lambda z: z)
    near = mpf("1.0001")
    log2 = mp.log(2) / 2 * near
    root = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * near
    eighth, tangent = (mp.pi / 4) ** 2 * near, mp.tan(mp.pi / 8) ** 2 * near
    zero = mp.findroot(mp.digamma, mpf("1.4616"))
    half = mpf("0.5001")
    atanh2: Real = lambda s: 2 * mp.atanh(s)
    cosine: Real = lambda z: (
        (mp.cos(mp.sqrt(max(z, mpf(10) ** -12))) - 1 + z / 2) / max(z, mpf(10) ** -12) ** 2
    )
    gamma: Real = lambda v: mp.loggamma(2 + v) / v if abs(v) > mpf(10) ** -10 else 1 - mp.euler
    erfcx: Real = lambda t: scaled_erfc(from_quotient(t)) * (1 + 2 * from_quotient(t))
    psi = by_root(zero)
    wanted = {
        "EXP": (tail_of(mp.exp, 2), lambda t: t * t, -log2, log2, 10, 4),
        "EXPM1": (tail_of(mp.exp, 3), lambda t: t * t, -log2, log2, 9, 4),
        "LOG": (of_root(atanh2, mpf(2)), linear, mpf(0), root, 6, 2),
        "LOG_TAIL": (of_root(atanh2, mpf(2), mpf(2) / 3), linear, mpf(0), root, 7, 2),
        "SIN": (of_root(mp.sin, mpf(1)), linear, mpf(0), eighth, 5, 2),
        "COS": (cosine, lambda z: z * z, mpf(0), eighth, 5, 2),
        "SINH": (of_root(mp.sinh, mpf(1)), linear, mpf(0), mpf(1), 6, 3),
        "TANH": (of_root(mp.tanh, mpf(1)), linear, mpf(0), mpf("0.3"), 9, 4),
        "ARCSIN": (of_root(mp.asin, mpf(1)), linear, mpf(0), mpf("0.25"), 12, 5),
        "ARCTAN": (of_root(mp.atan, mpf(1)), linear, mpf(0), tangent, 10, 4),
        "ERF": (lambda z: of_root(mp.erf)(z) - 1, one, mpf(0), mpf(1), 13, 6),
        "ERFCX": (erfcx, lambda t: 1 / erfcx(t), to_quotient("0.45"), to_quotient("27.5"), 22, 10),
        "GAMMALN": (gamma, one, -half, half, 19, 8),
        "STIRLING": (of_reciprocal(stirling), one, mpf(10) ** -7, mpf(1) / 16, 9, 3),
        "DIGAMMA": (psi, lambda w: 1 / psi(w), -half, half, 22, 9),
        "DIGAMMA_TAIL": (of_reciprocal(digamma_tail), linear, mpf(10) ** -7, mpf(1) / 9, 11, 4),
    }
    found = {}
    for name, (f, weight, low, high, *degrees) in wanted.items():
        (double, first), (single, second) = (remez(f, weight, low, high, d) for d in degrees)
        found[name] = (
            [float(c) for c in double],
            [float(c) for c in single],
            float(first),
            float(second),
        )
    constants = {
        "LOG_2": mp.log(2),
        "LOG2_E": 1 / mp.log(2),
        "LOG10_E": 1 / mp.log(10),
        "LOG10_2": mp.log(2) / mp.log(10),
        "PI": mp.pi,
        "HALF_PI": mp.pi / 2,
        "QUARTER_PI": mp.pi / 4,
        "TWO_THIRDS": mpf(2) / 3,
        "HALF_LOG_2_PI": mp.log(2 * mp.pi) / 2,
        "SQRT_HALF": mp.sqrt(mpf(1) / 2),
        "DIGAMMA_ROOT": zero - 1,  # less one
    }
    return found, constants


def single(number: mpf) -> float:
    return float(struct.unpack("f", struct.pack("f", float(number)))[0])


def parts(number: mpf, rounding: Callable[[mpf], float], count: int) -> tuple[float, ...]:
    """A number as a sum of floats, the largest first."""
    found = []
    for _ in range(count):
        found.append(rounding(number))
        number -= found[-1]
    return tuple(found)


def text() -> str:
    """The file."""
    polynomials, constants = table()
    lines = [
        '"""Polynomials of elementary functions, and constants in parts.',
        "",
        "`tests/minimax.py` writes them: of each first those of doubles, then those of floats. The",
        "largest error is relative to the function, or to the part of it that is written there.",
        '"""',
        "",
        "POLYNOMIALS: dict[tuple[str, str], tuple[float, ...]] = {",
    ]
    for name, (*both, first, second) in polynomials.items():
        for kind, numbers, error in zip(("double", "float"), both, (first, second), strict=True):
            lines.append(f'    ("{name}", "{kind}"): (  # {error:.1e}')
            lines += [f"        {number!r}," for number in numbers]
            lines.append("    ),")
    lines += ["}", "", "CONSTANTS: dict[tuple[str, str], tuple[float, ...]] = {"]
    for name, number in constants.items():
        count = 3 if name == "HALF_PI" else 2
        for kind, rounding in (("double", float), ("float", single)):
            lines.append(f'    ("{name}", "{kind}"): {parts(number, rounding, count)!r},')
    # So few bits that products with exponents are exact.
    for kind, bits, rounding in (("double", 40, float), ("float", 15, single)):
        first = mp.floor(mp.log(2) * 2**bits) / mpf(2) ** bits
        lines.append(
            f'    ("SHORT_LOG_2", "{kind}"): {(float(first), rounding(mp.log(2) - first))!r},'
        )
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
