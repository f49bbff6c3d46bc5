"""Derivatives by other means than lagrad's: NumPy over complex numbers and over mpmath's.

A program's source is run with `np`, `sp` and `lg` bound to the names made here. Over complex
numbers the imaginary part carries a derivative (Squire and Trapp 1998, Using complex variables to
estimate derivatives): each function is the analytic one that agrees with NumPy's on the real line,
and decisions are those of the real parts. Over mpmath arrays of objects carry any number of digits.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from scipy import special

re = np.real
TINY = 1e-30


# --- NumPy over complex numbers -----------------------------------------------------------------


def signed(x):
    return x * np.sign(re(x))


def chosen(compare):
    return lambda a, b: np.where(compare(re(a), re(b)), a, b)


def extreme(place):
    def found(x, axis=None, keepdims=False):
        if isinstance(axis, tuple):
            rest = [k for k in range(x.ndim) if k not in axis]
            kept = [1 if k in axis else n for k, n in enumerate(x.shape)]
            last = np.transpose(x, [*rest, *axis]).reshape([x.shape[k] for k in rest] + [-1])
            value = found(last, axis=-1)
            return value.reshape(kept) if keepdims else value
        if axis is None:
            value = np.ravel(x)[place(re(np.ravel(x)))]
            return np.reshape(value, (1,) * np.ndim(x)) if keepdims else value
        value = np.take_along_axis(x, np.expand_dims(place(re(x), axis=axis), axis), axis)
        return value if keepdims else np.squeeze(value, axis)

    return found


def arctan2(a, b):
    # The turn from the real parts' angle is small, and has a tangent that is analytic.
    ra, rb = re(a), re(b)
    return np.arctan2(ra, rb) + np.arctan((a * rb - b * ra) / (a * ra + b * rb))


def cbrt(x):
    return np.cbrt(re(x)) * (x / re(x)) ** (1 / 3)


def logaddexp(a, b):
    high, low = chosen(np.greater)(a, b), chosen(np.less_equal)(a, b)
    return high + np.log1p(np.exp(low - high))


def logsumexp(x, axis=None, keepdims=False):
    top = np.max(re(x), axis=axis, keepdims=True)
    value = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    if keepdims:
        return value
    return np.reshape(value, ()) if axis is None else np.squeeze(value, axis)


def var(x, axis=None, ddof=0, keepdims=False):
    n = np.size(x) / np.size(np.sum(re(x), axis=axis))
    squares = np.square(x - np.mean(x, axis=axis, keepdims=True))
    return np.sum(squares, axis=axis, keepdims=keepdims) / (n - ddof)


def norm(x, ord=None, axis=None, keepdims=False):  # noqa: A002
    size = signed(x)
    if ord == np.inf:
        return extreme(np.argmax)(size, axis=axis, keepdims=keepdims)
    p = 2 if ord is None else ord
    return np.sum(size**p, axis=axis, keepdims=keepdims) ** (1 / p)


def cholesky(a):
    if a.ndim > 2:
        return np.stack([cholesky(m) for m in a])
    low = np.zeros(a.shape, complex)
    for i, j in itertools.product(range(len(a)), repeat=2):
        rest = a[i, j] - np.sum(low[i, :j] * low[j, :j]) if j <= i else 0
        low[i, j] = np.sqrt(rest) if i == j else rest / low[j, j] if j < i else 0
    return low


def eigh(a):
    if a.ndim > 2:
        pairs = [eigh(m) for m in a]
        return tuple(np.stack(part) for part in zip(*pairs, strict=True))
    # Newton's method on (A − μ)v = 0, vᵀv = 1 from the real parts' pairs.
    n, (values, vectors) = len(a), np.linalg.eigh(re(a))
    pairs = []
    for mu, v in zip(values.astype(complex), vectors.T.astype(complex), strict=True):
        for _ in range(6):
            bordered = np.block([[a - mu * np.eye(n), -v[:, None]], [-2 * v, np.zeros(1)]])
            step = np.linalg.solve(bordered, np.append(mu * v - a @ v, v @ v - 1))
            v, mu = v + step[:-1], mu + step[-1]
        pairs.append((mu, v))
    return np.stack([m for m, _ in pairs]), np.stack([v for _, v in pairs], axis=1)


def slogdet(a):
    det = np.linalg.det(a)
    return np.sign(re(det)), np.log(signed(det))


def bincount(places, weights, minlength=0):
    found = np.zeros(max(minlength, int(np.max(places)) + 1), np.result_type(weights))
    np.add.at(found, places, weights)
    return found


def gammaln(x):
    """log |Γ|, continued from the real line: below zero as log |Γ(x + 1)| − log |x|."""
    x, below = np.asarray(x), 0.0
    while np.any(np.real(x) < 0):
        under = np.real(x) < 0
        below = below + np.where(under, np.log(np.where(under, -x, 1.0)), 0.0)
        x = np.where(under, x + 1, x)
    return special.loggamma(x) - below


class Names:
    """Some functions of one's own, and what else a module has."""

    def __init__(self, module, **own):
        self.__dict__.update(own)
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


COMPLEX_LINALG = Names(
    np.linalg, norm=norm, cholesky=cholesky, eigh=eigh, slogdet=slogdet,
    eigvalsh=lambda a: eigh(a)[0],
)  # fmt: skip
COMPARED = {
    name: (lambda f: lambda a, b: f(re(a), re(b)))(getattr(np, name))
    for name in ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]
}
COMPLEX_NP = Names(
    np, linalg=COMPLEX_LINALG, abs=signed, absolute=signed, sign=lambda x: np.sign(re(x)),
    floor=lambda x: np.floor(re(x)), ceil=lambda x: np.ceil(re(x)),
    maximum=chosen(np.greater), fmax=chosen(np.greater),
    minimum=chosen(np.less), fmin=chosen(np.less),
    clip=lambda x, low, high: chosen(np.less)(chosen(np.greater)(x, low), high),
    max=extreme(np.argmax), min=extreme(np.argmin), hypot=lambda a, b: np.sqrt(a * a + b * b),
    arctan2=arctan2, cbrt=cbrt, logaddexp=logaddexp, var=var,
    std=lambda x, **how: np.sqrt(var(x, **how)),
    vdot=lambda a, b: np.sum(np.ravel(a) * np.ravel(b)),
    bincount=bincount, astype=lambda x, dtype: x, **COMPARED,
)  # fmt: skip
COMPLEX_SP = Names(
    special, expit=lambda x: 1 / (1 + np.exp(-x)), logit=lambda x: np.log(x / (1 - x)),
    gammaln=gammaln, entr=lambda x: -x * np.log(x), xlogy=lambda x, a: x * np.log(a),
    xlog1py=lambda x, a: x * np.log1p(a),
)  # fmt: skip


# --- loops and implicit functions over any numbers ------------------------------------------------


def scan(step, state, inputs=None, length=None, backwards=False, **how):
    n = len(inputs) if length is None else length
    outputs = [None] * n
    for t in reversed(range(n)) if backwards else range(n):
        state, outputs[t] = step(state, None if inputs is None else inputs[t])
    return state, None if outputs[0] is None else np.stack(outputs)


def iterate(step, state, length, **how):
    for _ in range(length):
        state = step(state)
    return state


def while_loop(condition, step, state, max_steps, **how):
    for _ in range(max_steps):
        if not condition(state):
            return state
        state = step(state)
    return np.nan * state


def differences(f, z, h, weights=(0.5,)):
    """The Jacobian of a function of an array, by central differences."""
    flat = np.ravel(z)
    columns = []
    for k in range(flat.size):
        unit = np.zeros(flat.size)
        unit[k] = h
        at = lambda t, unit=unit: np.ravel(f(np.reshape(flat + t * unit, np.shape(z))))
        columns.append(sum(w * (at(t) - at(-t)) for t, w in enumerate(weights, 1)) / h)
    return np.stack(columns, axis=1)


# Solutions and slopes by what was solved and from where: chords go on from them while it is near.
KNOWN: dict = {}


def root(residual, start, *args, code=None, **how):
    """Newton's method on real parts, then with the Jacobian found there on all of it."""
    f = lambda z: residual(z, *args)
    real = lambda z: np.asarray(re(f(np.asarray(re(z), complex))), complex)
    z = np.asarray(re(start), complex)
    key = code or residual.__code__, z.tobytes()
    if key in KNOWN and (near := chords(f, *KNOWN[key], 12, 0.05)) is not None:
        return near
    for _ in range(40):
        slope = re(differences(real, z, 1e-4))
        step = np.reshape(np.linalg.solve(slope, -re(np.ravel(real(z)))), np.shape(z))
        z = z + step
        if np.max(np.abs(step)) < 1e-7 * (1e-3 + np.max(np.abs(z))):
            break
    KNOWN[key] = re(z) + 0j, slope
    found = chords(f, z, slope, 60, np.inf)
    return np.full(np.shape(z), np.nan + 0j) if found is None else found


def chords(f, z, slope, most, longest):
    """The root by steps with one Jacobian; None where they are too long or too many."""
    for _ in range(most):
        step = np.reshape(np.linalg.solve(slope, -np.ravel(f(z))), np.shape(z))
        z = z + step
        sizes = np.max(np.abs(re(z))) + 1e-3, np.max(np.abs(z.imag))
        moved = np.max(np.abs(re(step))), np.max(np.abs(step.imag))
        if not moved[0] <= longest:
            return None
        if moved[0] <= 3e-12 * sizes[0] and moved[1] <= 1e-9 * sizes[1]:
            return z
    return None


def fixed_point(step, start, *args, **how):
    """The limit of the plain iteration."""
    z = np.asarray(re(start), complex)
    key = step.__code__, z.tobytes()
    if (
        key in KNOWN
        and (near := chords(lambda z: step(z, *args) - z, *KNOWN[key], 12, 0.05)) is not None
    ):
        return near
    for _ in range(3000):
        before, z = z, np.asarray(re(step(z, *args)), complex)
        if np.max(np.abs(z - before)) < 1e-6 * (1e-3 + np.max(np.abs(z))):
            break
    found = root(lambda z: step(z, *args) - z, z, code=("fixed", step.__code__))
    KNOWN[key] = KNOWN[("fixed", step.__code__), z.tobytes()]
    return found


def argmin(objective, start, *args, **how):
    # To the fourth order, of which rounding leaves twelve digits.
    f, weights = lambda z: objective(z, *args), (2 / 3, -1 / 12)
    slope = lambda z: np.reshape(differences(f, z, 2e-3, weights), np.shape(z))
    return root(slope, start, code=objective.__code__)


COMPLEX_LG = SimpleNamespace(
    scan=scan, iterate=iterate, while_loop=while_loop, root=root, fixed_point=fixed_point,
    argmin=argmin, logsumexp=logsumexp, stop_gradient=re,
    softmax=lambda x, axis=None: np.exp(x - logsumexp(x, axis=axis, keepdims=True)),
    log_softmax=lambda x, axis=None: x - logsumexp(x, axis=axis, keepdims=True),
    Picard=lambda **how: None, Anderson=lambda **how: None,
)  # fmt: skip
COMPLEX = {"np": COMPLEX_NP, "sp": COMPLEX_SP, "lg": COMPLEX_LG}


def along(f, point, direction):
    """The derivative of each output of `f` along a direction."""
    with np.errstate(all="ignore"):
        moved = f(*(x + 1j * TINY * np.asarray(d) for x, d in zip(point, direction, strict=True)))
    return [np.imag(value) / TINY for value in moved]


def curvature(f, point, direction, radius, count=8):
    """The second derivative of a scalar function along a direction, by Cauchy's integral."""
    turns = np.exp(2j * np.pi * np.arange(count) / count)
    with np.errstate(all="ignore"):
        values = [
            f(*(x + radius * t * np.asarray(d) for x, d in zip(point, direction, strict=True)))
            for t in turns
        ]
    return 2 * np.mean(np.asarray(values) * turns**-2).real / radius**2


# --- NumPy over mpmath ----------------------------------------------------------------------------


def entrywise(function):
    whole = np.frompyfunc(function, 1, 1)
    return lambda x: whole(x) if isinstance(x, np.ndarray) else function(x)


DIGITS, STEP = 80, mpmath.mpf(10) ** -35
MP_NAMES = ["sin", "cos", "tan", "exp", "sqrt", "tanh", "sinh", "cosh", "expm1", "log", "log1p"]
MP_NP = Names(
    np, arctan=entrywise(mpmath.atan), arcsinh=entrywise(mpmath.asinh),
    square=lambda x: x * x, **{name: entrywise(getattr(mpmath, name)) for name in MP_NAMES},
)  # fmt: skip


def exact(value):
    """A double, or an array of them, as mpmath's numbers."""
    array = np.asarray(value)
    if array.ndim == 0:
        return mpmath.mpf(float(array))
    return np.array([mpmath.mpf(float(v)) for v in array.ravel()], object).reshape(array.shape)


def flattened(values):
    return [v for value in values for v in (value.ravel() if np.ndim(value) else [value])]


def slopes(f, z):
    """A function from a list to a list of mpmath's numbers: its Jacobian, by rows, and value."""
    base, columns = f(z), []
    for k, value in enumerate(z):
        h = STEP * (abs(value) or 1)
        moved = f([*z[:k], value + h, *z[k + 1 :]])
        columns.append([(b - a) / h for a, b in zip(base, moved, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)], base


def solution(f, z, steps=40):
    """The root near `z`, to half the digits, and the Jacobian there; None where there is none."""
    small = mpmath.mpf(10) ** (DIGITS // -2)
    for _ in range(steps):
        rows, value = slopes(f, z)
        try:
            step = mpmath.lu_solve(mpmath.matrix(rows), -mpmath.matrix(value))
        except ZeroDivisionError:
            return None
        z = [a + b for a, b in zip(z, step, strict=True)]
        size = max(abs(a) for a in z)
        if all(abs(b) <= small * max(abs(a), size * small) for a, b in zip(z, step, strict=True)):
            return z, rows
    return None


# Where long doubles are doubles (Windows, Apple's processors) some errors cannot be seen.
WIDER = np.finfo(np.longdouble).eps < np.finfo(float).eps / 1000
needs_wider = pytest.mark.skipif(not WIDER, reason="nothing is wider than a double here")
