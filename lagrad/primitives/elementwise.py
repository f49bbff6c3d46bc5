"""NumPy's elementwise functions, one line each: the ufunc, then its partials.

A partial is a number, or a function of the output `y` and the arguments. Comparisons, `sign`,
`floor` and `ceil` are constant almost everywhere. At a kink the derivative is the mean of both
sides.
"""

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import UnsupportedFunction
from lagrad.expressions import notation
from lagrad.expressions.dispatch import FUNCTIONS, UFUNCS
from lagrad.expressions.expression import Constant, Expression
from lagrad.expressions.graph import Graph
from lagrad.expressions.linear_maps import Scale
from lagrad.primitives.kernels import (
    branch_share,
    exp_ratio,
    hypot_share,
    larger_share,
    logistic_share,
    tanh_slope,
    unit_complement,
)
from lagrad.primitives.registry import elementwise, entrywise, graph_of, implements, promoted, unary
from lagrad.typing import Function, Value


def by_variable(node: Expression) -> bool:
    """Whether a quotient's divisor may become zero."""
    return not isinstance(node.arguments[1], Constant)


def by_power(node: Expression) -> bool:
    """Whether a power is none that a product of its base with itself is."""
    n = node.arguments[1]
    if not isinstance(n, Constant):
        return True
    return bool(np.any(np.less(n.value, 0)) or np.any(np.not_equal(n.value, np.rint(n.value))))


def somewhere(node: Expression) -> bool:
    return True


add = elementwise(np.add, 1, 1, commutative=True, notation=notation.plus)
subtract = elementwise(np.subtract, 1, -1, notation=notation.minus)


def factor(other: Value, this: Value) -> Value:
    """What a factor is multiplied by; a truth chooses between it and zero."""
    return branch_share(other, this, 0.0) if other.dtype.kind == "b" else other


multiply = elementwise(
    np.multiply,
    lambda y, a, b: factor(b, a),
    lambda y, a, b: factor(a, b),
    commutative=True,
    notation=notation.times,
)
divide = elementwise(
    np.true_divide,
    lambda y, a, b: 1 / b,
    lambda y, a, b: -y / b,
    notation=notation.over,
    singular=by_variable,
)
negative = elementwise(np.negative, -1, notation=notation.opposite)


def power_by_base(y: Value, x: Value, n: Value) -> Value:
    """n·xⁿ⁻¹, without 0·∞ at n = 0 and without a power where n − 1 is one."""
    if isinstance(n, Constant) and n.shape == ():
        exponent = n.value if isinstance(n.value, (int, float)) else n.value[()]
        if exponent == 0:
            return 0.0
        return exponent * (x if exponent == 2 else x ** (exponent - 1))
    # Guarded where both are zero only: elsewhere n·xⁿ⁻¹ has derivatives by n at n = 0.
    safe = np.where(np.equal(n, 0) * np.equal(x, 0), 1, x)
    return n * safe ** (n - 1)


def power_by_exponent(y: Value, x: Value, n: Value) -> Value:
    """xⁿ·log x; zero where xⁿ is, as at x = 0 for n > 0."""
    return y * np.log(np.where(np.equal(y, 0), 1, x))


power = elementwise(
    np.power, power_by_base, power_by_exponent, notation=notation.to_the, singular=by_power
)

absolute = elementwise(np.absolute, lambda y, x: np.sign(x), name="abs", kink=True)
sign = elementwise(np.sign, kink=True, ties=lambda y: np.equal(y.arguments[0], 0))
floor = elementwise(np.floor)
ceil = elementwise(np.ceil)
sqrt = elementwise(np.sqrt, lambda y, x: 0.5 / y, singular=somewhere)
cbrt = elementwise(np.cbrt, lambda y, x: 1 / (3 * np.square(y)), singular=somewhere)
square = elementwise(np.square, lambda y, x: 2 * x, notation=notation.squared)
reciprocal = elementwise(np.reciprocal, lambda y, x: -np.square(y), singular=somewhere)
exp = elementwise(np.exp, lambda y, x: y)
exp2 = elementwise(np.exp2, lambda y, x: y * math.log(2))
expm1 = elementwise(np.expm1, lambda y, x: np.exp(x))
log = elementwise(np.log, lambda y, x: 1 / x, singular=somewhere)
log2 = elementwise(np.log2, lambda y, x: 1 / (x * math.log(2)), singular=somewhere)
log10 = elementwise(np.log10, lambda y, x: 1 / (x * math.log(10)), singular=somewhere)
log1p = elementwise(np.log1p, lambda y, x: 1 / (1 + x))
sin = elementwise(np.sin, lambda y, x: np.cos(x))
cos = elementwise(np.cos, lambda y, x: -np.sin(x))
tan = elementwise(np.tan, lambda y, x: 1 + np.square(y))
arcsin = elementwise(np.arcsin, lambda y, x: 1 / np.sqrt(unit_complement(x)))
arccos = elementwise(np.arccos, lambda y, x: -1 / np.sqrt(unit_complement(x)))
arctan = elementwise(np.arctan, lambda y, x: 1 / (1 + np.square(x)))
arctan2 = elementwise(
    np.arctan2,
    lambda y, a, b: b / np.hypot(a, b) / np.hypot(a, b),
    lambda y, a, b: -a / np.hypot(a, b) / np.hypot(a, b),
    singular=somewhere,
)
sinh = elementwise(np.sinh, lambda y, x: np.cosh(x))
cosh = elementwise(np.cosh, lambda y, x: np.sinh(x))
tanh = elementwise(np.tanh, lambda y, x: tanh_slope(y, x), level=20.0)
arcsinh = elementwise(np.arcsinh, lambda y, x: 1 / np.hypot(1, x))
arccosh = elementwise(np.arccosh, lambda y, x: 1 / (np.sqrt(x - 1) * np.sqrt(x + 1)))
arctanh = elementwise(np.arctanh, lambda y, x: 1 / unit_complement(x))
hypot = elementwise(
    np.hypot,
    lambda y, a, b: hypot_share(a, b),
    lambda y, a, b: hypot_share(b, a),
    commutative=True,
    singular=somewhere,
)


def pairwise(
    name: str, kernel: Function, *partials: Function | None, called: str = "", **traits: Any
) -> None:
    """A function of two arrays, entry by entry, that is no ufunc."""
    plain = getattr(kernel, "__wrapped__", kernel)  # without the search for traced values
    dtype = lambda *kinds: promoted(*kinds, np.float32)
    made = entrywise(name, plain, partials, dtype, called or f"_{name}", **traits)
    FUNCTIONS[kernel] = lambda a, b: made(graph_of(a, b), a, b)


# Of a/h with h = √(a² + b²): by a it is b²/h³, where 1/h − a²/h³ would cancel.
pairwise(
    "hypot_share",
    hypot_share,
    lambda s, a, b: np.square(hypot_share(b, a)) / np.hypot(a, b),
    lambda s, a, b: -s * hypot_share(b, a) / np.hypot(a, b),
    singular=somewhere,
)


def single(name: str, kernel: Function, partial: Function) -> None:
    """A function of one array, entry by entry, that is no ufunc."""
    plain = getattr(kernel, "__wrapped__", kernel)
    dtype = lambda kind: promoted(kind, np.float32)
    made = entrywise(name, plain, (partial,), dtype, f"_{name}")
    FUNCTIONS[kernel] = lambda x: made(graph_of(x), x)


# (1 − x)(1 + x), whose factors' changes would cancel.
single("unit_complement", unit_complement, lambda y, x: -2 * x)
# All of the change of 1 − y² with y = tanh x is said to be x's.
pairwise(
    "tanh_slope",
    tanh_slope,
    None,
    lambda s, y, x: -2 * y * s,
    notation=notation.complement_of_square,
)
# s = eᵃ/(eᵃ + eᵇ) has ∂s/∂a = s(1 − s) = −∂s/∂b.
# 1 − s is the other's share, which has all its digits.
pairwise(
    "logistic_share",
    logistic_share,
    lambda s, a, b: s * logistic_share(b, a),
    lambda s, a, b: -s * logistic_share(b, a),
)
pairwise("exp_ratio", exp_ratio, lambda w, x, y: w, lambda w, x, y: -w)
logaddexp = elementwise(
    np.logaddexp,
    lambda y, a, b: logistic_share(a, b),
    lambda y, a, b: logistic_share(b, a),
    commutative=True,
)


def tied(y: Expression) -> Value:
    """Where two arguments are equal, and compared with each other jump."""
    a, b = y.arguments
    return np.equal(a, b)


equal = elementwise(np.equal, commutative=True, notation=notation.compared("=="))
INEQUALITIES = {np.less: "<", np.less_equal: "<=", np.greater: ">", np.greater_equal: ">="}
for _ufunc, _sign in INEQUALITIES.items():
    elementwise(_ufunc, notation=notation.compared(_sign), ties=tied)
TRUTHS = "not_equal logical_and logical_or logical_xor logical_not isfinite isnan isinf"
for _name in TRUTHS.split():
    elementwise(getattr(np, _name))


pairwise("larger_share", larger_share, None, None, ties=tied, share=True)


def extreme(ufunc: np.ufunc, larger: bool, missing: bool) -> None:
    """The larger or the smaller one; where NaNs are `missing`, the other one counts."""

    def weight(this: Value, other: Value) -> Value:
        """One where this argument is the extreme one, half where it is a tie.

        The arguments are compared with each other, not with the value: that may have been
        computed elsewhere, and differ in its last bit.
        """
        share = larger_share(this, other) if larger else larger_share(other, this)
        return np.where(np.isnan(other), 1, share) if missing else share

    partials = (lambda y, a, b: weight(a, b), lambda y, a, b: weight(b, a))
    elementwise(ufunc, *partials, commutative=True, kink=True)


extreme(np.maximum, True, missing=False)
extreme(np.minimum, False, missing=False)
extreme(np.fmax, True, missing=True)
extreme(np.fmin, False, missing=True)


def _negative(graph: Graph, x: Any) -> Expression:
    """−x; the negative of a negative is what it was."""
    node = graph.lift(x)
    return node.arguments[0] if node.primitive is negative else negative(graph, node)


UFUNCS[np.negative] = _negative
UFUNCS[np.positive] = lambda graph, x: graph.lift(x)


def of_truths(name: str, logical: np.ufunc) -> Function:
    """`&`, `|`, `^` or `~` of truths; of whole numbers there is no rule."""

    def applied(graph: Graph, *arguments: Any) -> Any:
        kinds = {np.dtype(getattr(a, "dtype", type(a))).kind for a in arguments}
        if kinds != {"b"}:
            raise UnsupportedFunction(f"np.{name} on traced values is one of comparisons only.")
        return logical(*arguments)

    return applied


UFUNCS[np.bitwise_and] = of_truths("bitwise_and", np.logical_and)
UFUNCS[np.bitwise_or] = of_truths("bitwise_or", np.logical_or)
UFUNCS[np.bitwise_xor] = of_truths("bitwise_xor", np.logical_xor)
UFUNCS[np.invert] = of_truths("invert", np.logical_not)


def border(condition: Expression) -> Value:
    """Where a condition is about to change: at equal numbers on both sides of an inequality."""
    primitive = condition.primitive
    if primitive is None or not primitive.elementwise or condition.dtype.kind != "b":
        return False
    if primitive.ties is not None:
        return primitive.ties(condition)
    borders = [border(argument) for argument in condition.arguments]
    return functools.reduce(np.logical_or, borders)


def meeting(y: Expression) -> Value:
    """Where a condition is at its border, and both values are the same: no jump, but a kink."""
    condition, a, b = y.arguments
    if (edge := border(condition)) is False:
        return np.less(y, -1)
    epsilon = float(np.finfo(y.dtype).eps)
    gap = np.abs(np.subtract(a, b))
    near = 1e4 * epsilon * (np.abs(a) + np.abs(b)) + 10 * epsilon
    # A value that is infinite jumps to any other.
    alike = np.logical_and(np.less_equal(gap, near), np.less(gap, np.inf))
    return np.logical_and(edge, alike)


def _alone(lowered: Any, operation: Any) -> Any:
    """The share without the two values, which it has for the sake of its border."""
    condition = operation.arguments[0]
    if lowered.operations[condition].shape != operation.shape:
        return operation
    parameters = (operation.dtype.str,)
    return replace(operation, primitive=cast, parameters=parameters, arguments=(condition,))


_share = entrywise(
    "branch_share",
    branch_share.__wrapped__,  # type: ignore[attr-defined]
    (),
    lambda condition, *kinds: promoted(*kinds, np.float32),
    "_branch_share",
    ties=meeting,
    simplify=_alone,
    share=True,
)
FUNCTIONS[branch_share] = lambda c, a, b: _share(graph_of(c, a, b), c, a, b)


where = entrywise(
    "where",
    np.where,
    (
        None,
        lambda y, c, a, b: branch_share(c, a, b),
        # The values say where they meet: in one order, both shares have one tie.
        lambda y, c, a, b: branch_share(np.logical_not(c), a, b),
    ),
    lambda condition, *kinds: promoted(*kinds),
    "np.where",
    kink=True,
)


@implements(np.where)
def _where(condition: Any, x: Any, y: Any) -> Expression:
    graph = graph_of(condition, x, y)
    chosen = graph.lift(condition)
    # A number is true where it is not zero.
    return where(graph, chosen if chosen.dtype.kind == "b" else np.not_equal(chosen, 0), x, y)


@implements(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


cast = unary(
    "astype",
    lambda x, dtype: np.asarray(x).astype(dtype),
    lambda y, x, dtype: Scale(1, y.shape, y.shape) if y.dtype.kind == x.dtype.kind == "f" else None,
    dtype=lambda given, dtype: np.dtype(dtype),
    code=lambda texts, parameters: f"np.asarray({texts[0]}, {np.dtype(parameters[0]).name!r})",
    elementwise=True,
)


@implements(np.astype)
def _astype(x: Expression, dtype: Any, copy: bool = True) -> Expression:
    dtype = np.dtype(dtype)
    return x if dtype == x.dtype else cast(x.graph, x, parameters=(dtype.str,))


def _questioned(function: Function, reduction: Function) -> Function:
    """np.any or np.all: whether the largest, or the smallest, truth is one."""

    def handler(a: Any, *args: Any, **kwargs: Any) -> Any:
        if np.size(a) == 0:
            return function(np.zeros(np.shape(a), dtype=bool), *args, **kwargs)
        return np.greater(reduction(np.where(a, 1.0, 0.0), *args, **kwargs), 0.5)

    return handler


FUNCTIONS[np.any] = _questioned(np.any, np.max)
FUNCTIONS[np.all] = _questioned(np.all, np.min)


@implements(np.isclose)
def _isclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    near = np.less_equal(np.abs(a - b), atol + rtol * np.abs(b))
    return np.logical_or(np.logical_and(near, np.isfinite(b)), _equal(a, b, equal_nan))


def _equal(a: Any, b: Any, equal_nan: bool) -> Any:
    same = np.equal(a, b)
    return np.logical_or(same, np.logical_and(np.isnan(a), np.isnan(b))) if equal_nan else same


implements(np.allclose)(lambda *args, **kwargs: np.all(np.isclose(*args, **kwargs)))


@implements(np.array_equal)
def _array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    return np.shape(a1) == np.shape(a2) and np.all(_equal(a1, a2, equal_nan))
