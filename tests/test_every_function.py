"""All of NumPy's public functions, and scipy.special's, of traced values: right, or a named error.

`python tests/test_every_function.py` writes docs/functions.md, which lists what this finds.
"""

from __future__ import annotations

import sys
import textwrap
import warnings
from functools import cache
from inspect import ismodule
from pathlib import Path

import numpy as np
import pytest
import scipy
from scipy import special

import lagrad as lg
from lagrad.expressions.dispatch import FUNCTIONS, UFUNCS
from lagrad.expressions.expression import ENTRIES, Expression

PAGE = Path(__file__).parents[1] / "docs" / "functions.md"
MODULES = {"np": np, "np.linalg": np.linalg, "np.fft": np.fft, "scipy.special": special}
RNG = np.random.default_rng(0)
V, W = np.array([0.3, 0.7, 0.45, 0.9]), np.array([0.6, 0.2, 0.8, 0.35])
S, B = RNG.uniform(0.2, 0.9, (2, 3, 3)) + np.array([2 * np.eye(3), np.zeros((3, 3))])
S = S + S.T
A = np.asarray

# The ways in which a traced value is given, each with where it is differentiated.
DIRECT = {
    "f(x)": (lambda f, x: f(x), V),
    "f(X)": (lambda f, x: f(x), S),
    "f(s)": (lambda f, x: f(x), 0.4),
    "f(x, w)": (lambda f, x: f(x, W.copy()), V),
    "f(w, x)": (lambda f, x: f(W.copy(), x), V),
    "f(X, B)": (lambda f, x: f(x, B.copy()), S),
    "f(x, 2)": (lambda f, x: f(x, 2), V),
    "f(2, x)": (lambda f, x: f(2, x), V),
    "f(x, w, w)": (lambda f, x: f(x, W.copy(), W + 1), V),
    "f(w, w, x)": (lambda f, x: f(W.copy(), W + 1, x), V),
    "f(x + 1)": (lambda f, x: f(x + 1), V),
    "f(X, 0)": (lambda f, x: f(x, 0), S),
    "f(X, 0, 1)": (lambda f, x: f(x, 0, 1), S),
    "f(x, (2, 2))": (lambda f, x: f(x, (2, 2)), V),
    "f(x, (2, 4))": (lambda f, x: f(x, (2, 4)), V),
    "f(x, float)": (lambda f, x: f(x, float), V),
    "f('ij->j', X)": (lambda f, x: f("ij->j", x), S),
    "f(i, x)": (lambda f, x: f(A([0, 1, 1, 2]), x), V),
    "f(x > w, x, w)": (lambda f, x: f(x > W, x, W.copy()), V),
    "f([x, x])": (lambda f, x: f([x, x]), V),
    "f([s, s])": (lambda f, x: f([x[0], x[1], 1.0]), V),
}
BY_ENTRIES = {
    "f(A(x))": (lambda f, x: f(A(x)), V),
    "f(A(X))": (lambda f, x: f(A(x)), S),
    "f(A(s))": (lambda f, x: f(A(x)), 0.4),
    "f(A(x), w)": (lambda f, x: f(A(x), W.copy()), V),
    "f(w, A(x))": (lambda f, x: f(W.copy(), A(x)), V),
    "f(A(x), 2)": (lambda f, x: f(A(x), 2), V),
}
# Files, settings, and what makes functions of functions.
NO_FUNCTIONS_OF_ARRAYS = """
    DataSource errprint errstate from_dlpack frombuffer fromfile fromfunction fromiter frompyfunc
    fromregex genfromtxt get_include get_printoptions getbufsize geterr geterrcall info load
    loadtxt memmap nditer nested_iters printoptions save savetxt savez savez_compressed
    set_printoptions setbufsize seterr seterrcall show_config show_runtime test vectorize
"""
# They ask for a type, which a traced value does not have: lg.check_gradient tells.
ASKING_FOR_TYPES = {"np.bmat", "np.isscalar"}
INSTEAD = {
    "np.sort": "`np.sort(np.asarray(x))`, or `x[order]` with an order that is known",
    "np.linalg.svd": "`np.linalg.eigh(A.T @ A)`",
    "np.linalg.lstsq, np.linalg.pinv": "`np.linalg.solve(A.T @ A, A.T @ b)`",
    "np.linalg.multi_dot": "`A @ B @ C`",
    "np.cov, np.corrcoef": "`y = X - np.mean(X, axis=1, keepdims=True)`, then `y @ y.T`",
    "np.quantile, np.percentile": "of a list: `np.quantile(np.asarray(x), [q])[0]`",
    "np.mod, np.remainder": "`x - y * np.floor(x / y)`",
    "np.deg2rad, np.degrees": "`x * (np.pi / 180)`, `x * (180 / np.pi)`",
    "scipy.special.logsumexp": "`lg.logsumexp(x)`",
    "scipy.special.log_softmax": "`lg.log_softmax(x)`",
    "scipy.special.beta, scipy.special.betaln": "`scipy.special.gammaln(a) + …`",
    "scipy.special.gamma": "`np.exp(scipy.special.gammaln(x))`, of `x > 0`",
}


class NotNumeric(Exception):
    """A result that is no array of real numbers."""


def total(result, x):
    """One number made of all that a function returned."""
    parts, out = [result], 0.0 * np.sum(x)
    for k, part in enumerate(parts):
        if isinstance(part, (tuple, list)):
            parts.extend(part)
        elif isinstance(part, (np.ndarray, np.generic)) and part.dtype.kind not in "fiubO":
            raise NotNumeric
        elif isinstance(part, (np.ndarray, float, int, np.number, np.bool, Expression)):
            out = out + (1 + 0.1 * k) * np.sum(part * 1.0)
        else:
            raise NotNumeric
    return out


def outcome(function, call, at):
    """What becomes of one call: None where it makes no sense on numbers either."""
    f = lambda x: total(call(function, x.copy() if isinstance(x, np.ndarray) else x), x)
    direction = RNG.standard_normal(np.shape(at))
    h = 1e-4
    try:
        value, again = f(at), f(at)
        moved = [f(at + k * h * direction) for k in (1, -1, 2, -2)]
    except Exception:
        return None
    if not np.isfinite([value, *moved]).all() or value != again:
        return None
    expected = (8 * (moved[0] - moved[1]) - moved[2] + moved[3]) / (12 * h)
    try:
        found, gradient = lg.value_and_grad(f)(at)
    except lg.LagradError as error:
        return "error" if str(error) else "wrong: no message"
    except NotNumeric:
        return "wrong: no array"
    if not np.isclose(found, value, rtol=1e-9, atol=1e-12):
        return f"wrong: value {found}, not {value}"
    slope = float(np.sum(gradient * direction))
    if abs(slope - expected) > 1e-5 * max(1.0, abs(expected), abs(value)):
        return f"wrong: derivative {slope}, not {expected}"
    return "differentiated" if np.any(gradient) else "value"


@cache
def survey(module):
    """For each function of a module the outcomes of all calls that make sense."""
    found = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name in sorted(set(dir(MODULES[module]))):
            function = getattr(MODULES[module], name, None)
            usual = callable(function) and not isinstance(function, type) and not ismodule(function)
            if name.startswith("_") or name in NO_FUNCTIONS_OF_ARRAYS.split() or not usual:
                continue
            ways = {n: outcome(function, *way) for n, way in (DIRECT | BY_ENTRIES).items()}
            ways = {n: o for n, o in ways.items() if o is not None}
            if ways:
                found[name] = ways
    return found


def kind(function, ways):
    """The class of a function, and whether np.asarray helps where it has none."""
    if function in FUNCTIONS or function in UFUNCS:
        groups = [({n: o for n, o in ways.items() if n in DIRECT}, "")]
    else:
        # Lists of traced values become arrays of objects where NumPy does not hand them over.
        direct = {n: o for n, o in ways.items() if n in DIRECT and n[2] != "["}
        entries = {n: o for n, o in ways.items() if n[2] in "A["}
        groups = [(mainly(direct), ""), (mainly(entries), " by entries")]
    for found, how in groups:
        for best in ("differentiated", "value"):
            if best in found.values():
                return best + how
    return "error"


def mainly(ways):
    """Outcomes of one array alone, if there are any: a second one may be where results go."""
    for said in ({"f(x)", "f(X)", "f(A(x))", "f(A(X))", "f([x, x])", "f([s, s])"}, {"f(s)"}):
        if some := {n: o for n, o in ways.items() if n in said}:
            return some
    return ways


TITLES = {
    "differentiated": "Differentiated",
    "value": "Value only (a derivative of zero, a shape, a truth)",
    "differentiated by entries": "Differentiated entry by entry, of `np.asarray(x)` or a list",
    "value by entries": "Value only, of `np.asarray(x)` or a list",
    "error": "A named error",
}
HEAD = """\
# Functions

What becomes of each public function of NumPy, and of `scipy.special`, that is given a traced
value: it is differentiated, or has a value alone, or raises an error of lagrad.
`tests/test_every_function.py` calls each in over a dozen ways, compares values with the function
on numbers and derivatives with differences, and writes this page (NumPy {numpy}, SciPy {scipy}).

## Arrays of traced values

`np.asarray(x)` of a traced `x` is a NumPy array of its entries, each traced: shape, length and
size are those of `x`; arithmetic, sums, sorting and NumPy's functions of objects go on entry by
entry; and where it meets a traced value, or is returned, it is one again. That is slower than `x`
itself, and ends at {entries} entries: leave `np.asarray` out where NumPy's functions take `x` as
it is.

The array's dtype is object, though. A library that refuses that raises, and lagrad names the
line. One that goes another way because of it is found: a function whose values went into such
arrays, into sets or into dicts is called once more on numbers, and compared. Where NumPy chose
one of two equal entries (`np.maximum` at a tie), or took a float (`p.mean()` of such an array
`p`, where `np.mean(x)` and `p.sum() / p.size` do not), the derivative is compared with
differences.

An array of traced scalars is made by `np.stack([a, 2 * a, 3.0])`, a matrix by
`np.block([[2.0, a], [a, 3.0]])`. `np.array` of them is an array of objects, which `np.exp`,
`np.mean` and `np.linalg` do not take once numbers stand in it; the error says so.

In a declared program there are no numbers to compare with: leave `np.asarray` out there.

## What cannot be seen

A traced value is no `np.ndarray`, and a traced scalar no `float`. A function that asks for that
takes another branch where it is traced, and nothing tells lagrad so: `isinstance(x, np.ndarray)`,
`type(x) is np.ndarray`, `match`, `functools.singledispatch`, `hasattr(x, "sort")`,
`np.isscalar(x)`, `isinstance(x, numbers.Real)`, `len(str(x))`, and `try` around what a traced
value refuses. Libraries ask too: `np.bmat`, and `np.polynomial`'s `polyval` with coefficients in
two axes. `np.ndim(x)`, `np.shape(x)`, `len(x)`, `x.dtype` and `np.issubdtype(x.dtype, …)` answer
as of an array.

`lg.check_gradient(f, x)` finds it: it compares the value where `f` is traced with that on
numbers.

## A function without a rule

- `lg.primitive(f, vjp=…)` gives it one, `lg.primitive(f, jvp="centered")` takes differences.
- `lg.fixed_point`, `lg.root` and `lg.argmin` stand where SciPy's solvers and minimisers would.

| in the place of | |
|---|---|
"""


def page():
    """docs/functions.md."""
    text = HEAD.format(numpy=release(np), scipy=release(scipy), entries=f"{ENTRIES:,}")
    text += "".join(f"| `{name}` | {instead} |\n" for name, instead in INSTEAD.items())
    for module in MODULES:
        text += f"\n## {module}\n"
        functions = vars(MODULES[module])
        kinds = {name: kind(functions[name], ways) for name, ways in survey(module).items()}
        for one, title in TITLES.items():
            names = [f"`{name}`" for name, k in kinds.items() if k == one]
            if names:
                text += "\n" + textwrap.fill(f"**{title}**: {', '.join(names)}.", 100) + "\n"
    return text


def release(library):
    return ".".join(library.__version__.split(".")[:2])


@pytest.mark.parametrize("module", MODULES)
def test_a_function_is_right_or_its_error_has_a_name(module):
    wrong = {
        f"{module}.{name} as {way}": said
        for name, ways in survey(module).items()
        for way, said in ways.items()
        if said.startswith("wrong") and f"{module}.{name}" not in ASKING_FOR_TYPES
    }
    assert not wrong


def test_the_page_of_functions_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    if f"(NumPy {release(np)}, SciPy {release(scipy)})" not in text:
        pytest.skip("the page is of other releases")
    assert text == page(), "python tests/test_every_function.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
