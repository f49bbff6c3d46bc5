"""Declared programs solved and differentiated beside mpmath's numbers of eighty digits."""

from __future__ import annotations

import math
import warnings

import mpmath
import numpy as np
from oracles import DIGITS, STEP, flattened, solution
from outcomes import GOOD, WRONG, Outcome, judged, largest_error, message

import lagrad as lg

# Of the others, relative: a derivative that is less is zero, as 1 − tanh(40)² is to doubles.
ZERO = mpmath.mpf(10) ** -15
EPSILON = float(np.finfo(float).eps)
# Residuals that are less are rounding, whether there is a root within it or none.
ROUNDED = 1e-12


# How far from lagrad's solution others are looked for, relative.
NEARBY = mpmath.mpf(10) ** -12


class NotKnown(Exception):
    """The oracle has no answer."""


class Truth:
    """The solution near lagrad's, and derivatives there, to sixty digits or so."""

    def __init__(self, system, given, near):
        self.system = system
        self.given = {name: mpmath.mpf(v) for name, v in given.items()}
        begin = [mpmath.mpf(v) for v in flattened([near[name] for name in system.unknowns])]
        residual = lambda z: system.at(self.given, system.shaped(z))[0]
        found = solution(residual, begin)
        # Newton's method jumps past a root where the slope changes sign close by, as of a sine of a
        # large number.
        for k in range(1, 9):
            for sign in (1, -1):
                if found is None:
                    found = solution(residual, [v * (1 + sign * k * NEARBY) for v in begin])
        self.exists = found is not None
        if not self.exists:
            self.left = max(abs(r) for r in residual(begin))
            return
        self.z, rows = found
        self.inverse = mpmath.inverse(mpmath.matrix(rows))
        matrix = np.array([[float(v) for v in row] for row in rows])
        with np.errstate(all="ignore"):
            for _ in range(4):
                matrix = matrix / np.abs(matrix).max(axis=1, keepdims=True)
                matrix = matrix / np.abs(matrix).max(axis=0, keepdims=True)
            self.condition = (
                float(np.linalg.cond(matrix)) if np.isfinite(matrix).all() else math.inf
            )
        self.scope = system.at(self.given, system.shaped(self.z))[1]

    def unknown(self, name):
        return np.asarray(self.scope[name], float)

    def moved(self, at, outputs):
        """Derivatives of outputs by a scalar, along which residuals and outputs are `at(t, z)`."""
        base, f0 = at(0, self.z)
        ahead, f1 = at(STEP, self.z)
        dz = -(
            self.inverse * mpmath.matrix([(b - a) / STEP for a, b in zip(base, ahead, strict=True)])
        )
        size = max(abs(v) for v in self.z)
        t = STEP / max([abs(d) / (abs(v) or size) for d, v in zip(dz, self.z, strict=True)] + [1])
        _, f2 = at(t, [v + t * d for v, d in zip(self.z, dz, strict=True)])
        return [(b - a) / t for a, b in zip(flattened(f0), flattened(f2), strict=True)]

    def slopes(self, outputs):
        """Of each parameter, the derivatives of the outputs' entries."""
        system = self.system

        def by(name):
            def at(t, z):
                given = {**self.given, name: self.given[name] + t}
                residuals, scope = system.at(given, system.shaped(z))
                return residuals, [scope[o] for o in outputs]

            return self.moved(at, outputs)

        return {name: by(name) for name in self.given}

    def second(self, along):
        """The Hessian of f times a unit direction, by differences of exact gradients."""
        h, ends = mpmath.mpf(10) ** -20, []
        for t in (h, -h):
            given = {**self.given, along: self.given[along] + t}
            end = Truth(self.system, given, self.scope)
            if not end.exists:
                raise NotKnown
            ends.append(end.slopes(["f"]))
        return {n: [(ends[0][n][0] - ends[1][n][0]) / (2 * h)] for n in self.given}

    def multipliers(self, output):
        system, zeros = self.system, [0] * len(self.system.items)

        def by(k):
            def at(t, z):
                residuals, scope = system.at(
                    self.given, system.shaped(z), [*zeros[:k], t, *zeros[k + 1 :]]
                )
                return residuals, [scope[output]]

            return self.moved(at, [output])[0]

        scalar = [k for k, item in enumerate(system.items) if "np.array" not in item[1] + item[2]]
        names = {
            k: f"e{k}" if system.items[k][0] == "equation" else system.items[k][1] for k in scalar
        }
        return {names[k]: by(k) for k in scalar}


def farthest(found, true, least=0, bound=0.0, noise=0):
    """The largest error among arrays; one that is zero in truth is measured by the others.

    So is one that a bound, relative to these, does not tell from zero.

    Of second derivatives, as differences of first ones, nothing is known below `noise`.
    """
    true = {n: [v if abs(v) > noise else mpmath.mpf(0) for v in row] for n, row in true.items()}
    whole = max((abs(v) for row in true.values() for v in row), default=0)
    whole = whole if whole > least * ZERO else least
    errors = []
    for name, row in true.items():
        size = max(abs(v) for v in row)
        away = [
            abs(mpmath.mpf(float(f)) - v) for f, v in zip(np.ravel(found[name]), row, strict=True)
        ]
        told = size > whole * max(ZERO, bound)
        errors.append(max(away) / (size if told else whole or 1))
    return float(max(errors))


def asked(at, system, use):
    """What lagrad finds of one kind of derivative, and its certificate."""
    last, first = list(system.unknowns)[-1], next(iter(system.parameters))
    if use == "jacobian":
        whole = at.jacobian([last], list(system.parameters))
        return whole[last], whole.certificate
    found = {
        "gradient": lambda: at.gradient("f"),
        "pullback": lambda: at.pullback(f=-2.0),
        "multipliers": lambda: at.multipliers("f"),
        "tangent": lambda: at.tangent({n: 1.0 + k for k, n in enumerate(system.parameters)}),
        "hessian_vector": lambda: at.hessian_vector("f", {first: 1.0}),
    }[use]()
    return found, found.certificate


def expected(truth, system, use):
    """The same from the oracle."""
    if use == "solve":
        return {n: [mpmath.mpf(v) for v in flattened([truth.scope[n]])] for n in system.unknowns}
    if use == "multipliers":
        return {n: [v] for n, v in truth.multipliers("f").items()}
    if use == "hessian_vector":
        return truth.second(next(iter(truth.given)))
    if use == "jacobian":
        return truth.slopes([list(system.unknowns)[-1]])
    if use != "tangent":
        times = -2 if use == "pullback" else 1
        return {n: [times * v for v in row] for n, row in truth.slopes(["f"]).items()}
    names, true = [*system.unknowns, "f"], {}
    rows = truth.slopes(names).values()
    total = [sum((1 + k) * v for k, v in enumerate(row)) for row in zip(*rows, strict=True)]
    for name in names:
        size = len(flattened([truth.scope[name]]))
        true[name], total = total[:size], total[size:]
    return true


def differentiated(at, truth, system, use):
    """The errors of one kind of derivative, and its certificate."""
    found, certificate = asked(at, system, use)
    true, least, noise = expected(truth, system, use), 0, 0
    if use == "hessian_vector":
        least = max(abs(row[0]) for row in truth.slopes(["f"]).values())
        # Differences over 10⁻²⁰ of slopes to 45 digits, less those that the condition takes.
        noise = least * mpmath.mpf(10) ** -26 * max(1e6, min(truth.condition, 1e16))
    bound = certificate.error_bound
    # Where that is too much, something was told from zero, and is not known.
    return farthest(found, true, least, bound if bound <= WRONG else 0.0, noise), bound


def condition_of(truth, system, use):
    """By how much more than all numbers of a program what is asked of it moves with them."""
    other = system.nearby()
    given = {n: v * (1 + EPSILON * (k % 3 - 1)) for k, (n, v) in enumerate(truth.given.items())}
    there = Truth(other, given, truth.scope)
    if not there.exists:
        return math.inf
    pair = [expected(at, of, use) for at, of in ((truth, system), (there, other))]
    return max(truth.condition, farthest(*pair) / EPSILON)


USES = ("gradient", "pullback", "tangent", "jacobian", "multipliers", "hessian_vector")


# How often a program is solved, with the parameters moved.
CALLS = (*[1] * 60, *[3] * 30, *[14] * 9, 500)


def check(system, calls=None):
    """Solve it for some values of the parameters, and compare what is asked of the solutions."""
    outcomes = []
    rng = np.random.default_rng([system.seed, 1])
    program = system.program()
    uses = ["gradient", str(rng.choice(USES[1:]))]
    calls = int(rng.choice(CALLS)) if calls is None else calls
    for call in range(calls):
        move = {
            n: v * (1 + (1e-3 * rng.uniform(-1, 1) if call else 0))
            for n, v in system.parameters.items()
        }
        if calls > 3 and call not in (1, 11, 12, 13, 30, calls - 1):
            attempt(lambda move=move: program.solve(move).gradient("f"))
            continue
        with mpmath.workdps(DIGITS):
            outcomes += compared(system, program, move, uses)
    return outcomes


def compared(system, program, given, uses):
    """The verdicts on one solution, and on what is asked of it."""
    at, refusal = attempt(lambda: program.solve(given))
    warned = at
    if refusal is not None:
        warned, _ = attempt(lambda: program.solve(given, on_failure="warn"))
    truth = Truth(system, given, system.values if warned is None else warned)
    if not truth.exists:
        verdict = "skipped" if refusal or truth.left < ROUNDED else "silent"
        return [Outcome("solve", verdict, said=message(refusal) if refusal else "no root near")]

    def primal():
        errors = [largest_error(warned[n], truth.unknown(n)) for n in system.unknowns]
        return max(errors), warned.certificate.error_bound

    condition = lambda use: condition_of(truth, system, use)
    outcomes = [verdict_on("solve", *attempt(primal), refusal, condition)]
    for use in uses if refusal is None else ():
        found, refusal = attempt(lambda use=use: differentiated(at, truth, system, use))
        missing = refusal
        if isinstance(refusal, lg.LagradError):
            again = program.solve(given, on_failure="warn")
            found, missing = attempt(lambda u=use, a=again: differentiated(a, truth, system, u))
        outcomes.append(verdict_on(use, found, missing, refusal, condition))
    return outcomes


def verdict_on(use, found, missing, refusal, condition):
    """Of a value's error and bound, or of what there is in their place."""
    if isinstance(missing, NotKnown):
        return Outcome(use, "skipped")
    error, bound = (math.nan, math.nan) if found is None else found
    if refusal is None:
        return judged(use, error, bound)
    try:
        condition = condition(use)
    except (NotKnown, ZeroDivisionError):
        condition = math.inf
    kind = "false alarm" if error < GOOD else "refused"
    kind = kind if isinstance(refusal, lg.LagradError) else "foreign"
    return Outcome(use, kind, error, bound, condition, message(refusal))


def attempt(call):
    """A value, and the error in its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(), None
    except Exception as error:  # whatever lagrad raises is what is judged
        return None, error


def script(system):
    """A program of its own that shows the solution and the gradient beside what is true."""
    lines = ["import numpy as np", "import lagrad as lg", "", system.source]
    lines += ['at = p.solve(on_failure="warn")', "print(at, at.certificate)"]
    lines += ['g = at.gradient("f")', "print(dict(g), g.certificate)"]
    with mpmath.workdps(DIGITS):
        truth = Truth(system, system.parameters, system.values)
        if truth.exists:
            shown = {name: truth.unknown(name).tolist() for name in system.unknowns}
            slopes = {name: float(row[0]) for name, row in truth.slopes(["f"]).items()}
            lines += [f"# expected: {shown}", f"# gradient of f: {slopes}"]
    return "\n".join(lines)
