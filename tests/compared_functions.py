"""Random functions, explicit and implicit, called and differentiated beside complex numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
from oracles import COMPLEX, KNOWN, TINY, curvature
from outcomes import GOOD, Outcome, message
from scipy import special

import lagrad as lg

# Kinds of functions whose values are solved for.
SOLVED = ("alone", "branches")
# Values so good should not have been refused in single precision.
SINGLE = 1e-3


class Oracle:
    """Derivatives at a point, along random directions; `known` where they do not jump nearby."""

    def __init__(self, function, k):
        self.f, self.weights = function.bound_to(COMPLEX), weights_of(function)
        # Values are about one: what is less than their rounding is none of a derivative's.
        self.floor = 1e-4 if function.dtype == "float32" else 1e-6
        self.given = function.inputs(k)
        self.point = [np.asarray(x, complex) for x in self.given]
        rng = np.random.default_rng([function.seed, 3, k])
        self.v, self.u = (
            [np.asarray(rng.standard_normal(np.shape(x))) for x in self.point] for _ in "vu"
        )
        self.tangents = self.along(self.point)
        near, limit = (1e-6, 1e-3) if function.dtype == "float32" else (1e-9, 1e-5)
        other = self.along([x * (1 + near * rng.uniform(-1, 1, x.shape)) for x in self.point])
        self.values = [np.real(value) for value in self.f(*self.point)]
        finite = all(np.all(np.isfinite(part)) for part in (*self.values, *self.tangents))
        self.known = (
            finite
            and function.tame(self.given)
            and all(
                np.max(np.abs(t - o)) <= limit * (1e-3 + np.max(np.abs(t)))
                for t, o in zip(self.tangents, other, strict=True)
            )
        )
        self.total = summed(self.weights, self.tangents)
        self.known = self.known and (function.kind not in SOLVED or self.agrees())

    def agrees(self, h=1e-4):
        """Whether differences say the same, to three digits: solutions may be lost on the way."""
        ahead, behind = (
            self.f(*(x + s * h * d for x, d in zip(self.point, self.v, strict=True)))
            for s in (1, -1)
        )
        slopes = [np.real(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]
        pairs = zip(slopes, self.tangents, strict=True)
        return all(np.max(np.abs(s - t)) <= 1e-3 * (1e-2 + np.max(np.abs(t))) for s, t in pairs)

    def along(self, point):
        with np.errstate(all="ignore"):
            moved = self.f(*(x + 1j * TINY * d for x, d in zip(point, self.v, strict=True)))
        return [np.imag(value) / TINY for value in moved]

    def weighed(self, *xs):
        return sum(np.sum(w * value) for w, value in zip(self.weights, self.f(*xs), strict=True))

    def second(self, radius):
        """uᵀHv, from the curvatures along u + v and u − v."""
        ends = [[a + s * b for a, b in zip(self.u, self.v, strict=True)] for s in (1, -1)]
        plus, minus = (curvature(self.weighed, self.point, d, radius) for d in ends)
        return (plus - minus) / 4, abs(plus) + abs(minus)


def dotted(found, direction):
    """Of an array, or arrays, with a direction: the sum, and that of the terms' sizes."""
    terms = [np.asarray(a, float) * b for a, b in zip(found, direction, strict=True)]
    return sum(float(np.sum(t)) for t in terms), sum(float(np.sum(np.abs(t))) for t in terms)


FIRST = ("grad", "value_and_grad", "vjp", "jvp", "jacobian", "sparse", "trace", "compiled grad",
         "compiled value_and_grad", "compiled jacobian", "compiled")  # fmt: skip
SECOND = ("hvp", "grad of grad", "hessian", "compiled hessian")


def asked(use, f, weights, xs, oracle, made):
    """What lagrad says, in a form to compare with the oracle."""
    F = lambda *a: sum(np.sum(w * value) for w, value in zip(weights, f(*a), strict=True))
    every = tuple(range(len(xs)))
    v = [np.ones_like(x) for x in xs] if oracle is None else oracle.v
    if use == "vjp":
        found = lg.vjp(f, *xs)[1](tuple(weights))
        return found if len(xs) > 1 else (found,)
    if use == "jvp":
        return lg.jvp(f, tuple(xs), tuple(v))[1]
    if use == "trace":
        return list(lg.trace(F, *xs).solve().gradient("output").values())
    if use == "hvp":
        return [lg.hvp(lambda x: F(x, *xs[1:]), xs[0], v[0])]
    if use == "grad of grad":
        slope = lambda *a: sum(np.sum(g * d) for g, d in zip(lg.grad(F, every)(*a), v, strict=True))
        return lg.grad(slope, every)(*xs)
    if use not in made:
        kind = use.removeprefix("compiled ")
        transform = {
            "grad": lambda: lg.grad(F, every),
            "value_and_grad": lambda: lg.value_and_grad(F, every),
            "jacobian": lambda: lg.jacobian(f, every),
            "sparse": lambda: lg.jacobian(f, every, sparse=True),
            "hessian": lambda: lg.hessian(F, every),
            "compiled": lambda: f,
        }[kind]()
        made[use] = lg.compile(transform) if use.startswith("compiled") else transform
    return made[use](*xs)


def compared(use, found, oracle):
    """The error of what was found, relative to what adds up to it; None where it is not known."""
    if "hessian" in use or use in ("hvp", "grad of grad"):
        return second_error(use, found, oracle)
    if use.endswith("value_and_grad"):
        parts = summed(map(np.abs, oracle.weights), map(np.abs, oracle.values))
        off = abs(float(found[0]) - summed(oracle.weights, oracle.values)) / (parts + 1e-12)
        return max(off, compared("grad", found[1], oracle))
    if use == "compiled":
        return worst(found, oracle.values, oracle.floor)
    if use == "jvp":
        return worst(found, oracle.tangents, oracle.floor)
    if "jacobian" in use or use == "sparse":
        moved = []
        for rows, tangent in zip(found, oracle.tangents, strict=True):
            blocks = [r.toarray() if use == "sparse" else np.asarray(r) for r in rows]
            pairs = zip(blocks, oracle.v, strict=True)
            parts = [b.reshape(tangent.size, -1) @ v.ravel() for b, v in pairs]
            moved.append(sum(parts).reshape(tangent.shape))
        return worst(moved, oracle.tangents, oracle.floor)
    value, size = dotted(found, oracle.v)
    return abs(value - oracle.total) / (size + 1e-12)


def second_error(use, found, oracle):
    if use == "hvp" and len(oracle.v) > 1:
        return None
    # Two may agree by chance, beside a point at which a function turns within a step.
    (far, _), (true, size), (near, _) = (oracle.second(step) for step in (0.02, 0.01, 0.005))
    if not max(abs(far - true), abs(near - true)) <= 1e-8 * (abs(true) + size + 1e-3):
        return None
    if "hessian" not in use:
        value, terms = dotted(found, oracle.u)
    else:
        moved = [
            sum(np.reshape(b, (u.size, -1)) @ v.ravel() for b, v in zip(row, oracle.v, strict=True))
            for row, u in zip(found, oracle.u, strict=True)
        ]
        value, terms = dotted(moved, [u.ravel() for u in oracle.u])
    return abs(value - true) / (max(terms, size) + 1e-3)


def summed(left, right):
    return float(sum(np.sum(a * b) for a, b in zip(left, right, strict=True)))


def worst(found, true, floor):
    return max(
        float(np.max(np.abs(np.asarray(a, float) - b)) / (floor + np.max(np.abs(b))))
        for a, b in zip(found, true, strict=True)
    )


def weights_of(function):
    """What makes one number of a function's results."""
    rng = np.random.default_rng([function.seed, 2])
    return [np.asarray(rng.standard_normal(np.shape(function.values[r]))) for r in function.results]


# How often a function is called: once as a rule, and past where plans rewrite themselves.
CALLS = (*[1] * 40, *[3] * 40, *[14] * 14, *[40] * 5, 500)
LOOKED_AT = (0, 1, 2, 11, 12, 13, 30, 31, 39, 499)


def check(function, calls=None):
    """Ask for one or two of its derivatives, at as many points as there are calls."""
    rng = np.random.default_rng([function.seed, 1])
    size = sum(math.prod(s) for s in function.shapes)
    size += sum(np.size(function.values[r]) for r in function.results) // 4
    often = function.kind in ("small", "single")
    calls = int(rng.choice(CALLS)) if calls is None else calls
    calls = min(calls, 500 if often else 14 if size < 300 else 3)
    uses = [str(rng.choice([u for u in FIRST if size < 60 or ("jac" not in u and u != "sparse")]))]
    if function.kind != "scalars" and calls < 100 and rng.random() < 0.4:
        uses.append(str(rng.choice(SECOND if size < 60 else SECOND[:2])))
    f, outcomes = function.bound_to({"np": np, "sp": special, "lg": lg}), []
    KNOWN.clear()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for use in uses:
            made = {}
            for k in range(calls):
                oracle = Oracle(function, k) if k in LOOKED_AT else None
                outcome = once(function, f, use, k, made, oracle)
                outcomes += [outcome] if outcome is not None else []
    return outcomes


def once(function, f, use, k, made, oracle):
    """The verdict on one call; None where there is none to be had."""
    call, wrong = f"{use}, call {k}", 2e-2 if function.dtype == "float32" else 1e-6
    weights = weights_of(function)
    try:
        found = asked(use, f, weights, function.inputs(k), oracle, made)
    except Exception as error:
        if oracle is None or not oracle.known:
            return None
        if not isinstance(error, lg.LagradError):
            return Outcome(call, "foreign", said=message(error))
        off = refused(use, f, weights, function.inputs(k), oracle)
        good = GOOD if off is None or function.dtype == "float64" else SINGLE
        kind = "false alarm" if off is None or off < good else "refused"
        return Outcome(call, kind, math.nan if off is None else off, said=message(error))
    if oracle is None or not oracle.known:
        return None
    error = compared(use, found, oracle)
    if error is None:
        return Outcome(call, "skipped")
    bound = 0.0
    if not error <= wrong and use in FIRST:
        bound = max(bound_of(f, w, place, function.inputs(k)) for place, w in enumerate(weights))
    return Outcome(call, "right" if error <= max(10 * bound, wrong) else "silent", error, bound)


def refused(use, f, weights, xs, oracle):
    """How far off a value that raises is; None where nobody tells it."""
    F = lambda *a: sum(np.sum(w * value) for w, value in zip(weights, f(*a), strict=True))
    every, kind = tuple(range(len(xs))), use.removeprefix("compiled ")
    of = {"grad": F, "value_and_grad": F, "trace": F, "jacobian": f, "hessian": F}
    if kind not in of:
        return None
    transform = getattr(lg, kind if kind != "trace" else "grad")
    try:
        return compared(use, transform(of[kind], every, on_failure="warn")(*xs), oracle)
    except lg.LagradError:
        return None


def bound_of(f, weight, place, xs):
    """What the gradient's certificate says of one result: rounding, as of 1 − tanh² near one."""
    solved = lg.trace(lambda *a: np.sum(weight * f(*a)[place]), *xs).solve()
    return solved.gradient("output").certificate.error_bound
