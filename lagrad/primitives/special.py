"""The ufuncs of `scipy.special`, and `logsumexp` and `softmax`, which are right at −∞."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from lagrad.errors import UnsupportedFunction
from lagrad.expressions.dispatch import FUNCTIONS
from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Compose, LinearMap, Scale, Transpose
from lagrad.expressions.notation import shortened
from lagrad.primitives.kernels import exp_ratio, hurwitz_zeta, logsumexp
from lagrad.primitives.reduction import kept_shape, normal_axis, reduced_shape, spread_map
from lagrad.primitives.registry import broadcast, call, declare, elementwise, graph_of, implements
from lagrad.typing import Parameters, Value

SPECIAL = "scipy.special"


def gaussian(x: Value) -> Value:
    return np.exp(-np.square(x))


erf = elementwise(special.erf, lambda y, x: 2 / math.sqrt(math.pi) * gaussian(x), module=SPECIAL)
erfc = elementwise(special.erfc, lambda y, x: -2 / math.sqrt(math.pi) * gaussian(x), module=SPECIAL)
expit = elementwise(special.expit, lambda y, x: y * special.expit(-x), module=SPECIAL)
logit = elementwise(special.logit, lambda y, x: 1 / (x * (1 - x)), module=SPECIAL)


# ζ(s, q) = Σ (k + q)⁻ˢ has ∂ζ/∂q = −s·ζ(s + 1, q); digamma' = ζ(2, x) (DLMF 25.11.17, 5.15.1).
def _zeta_partial(node: Expression, k: int) -> LinearMap | None:
    if k == 0:
        raise UnsupportedFunction("the derivative of zeta(s, q) by s has no rule.")
    s, q = node.arguments
    return Scale(-s * hurwitz_zeta(s + 1, q), q.shape, node.shape)


zeta = declare(
    "zeta",
    lambda parameters: hurwitz_zeta,
    lambda arguments, parameters: (
        broadcast("zeta", [a.shape for a in arguments]),
        np.result_type(arguments[1].dtype, np.float32),
    ),
    _zeta_partial,
    call("scipy.special.zeta"),
)
FUNCTIONS[hurwitz_zeta] = lambda s, q: zeta(graph_of(s, q), s, q)
digamma = elementwise(
    special.psi, lambda y, x: hurwitz_zeta(2.0, x), name="digamma", module=SPECIAL
)
gammaln = elementwise(special.gammaln, lambda y, x: special.digamma(x), module=SPECIAL)
xlogy = elementwise(
    special.xlogy,
    lambda y, x, a: np.where(np.equal(x, 0) * np.equal(a, 0), 0, np.log(a)),
    lambda y, x, a: np.where(np.equal(x, 0), 0, x / a),
    module=SPECIAL,
)
xlog1py = elementwise(
    special.xlog1py,
    lambda y, x, a: np.where(np.equal(x, 0) * np.equal(a, -1), 0, np.log1p(a)),
    lambda y, x, a: np.where(np.equal(x, 0), 0, x / (1 + a)),
    module=SPECIAL,
)
entr = elementwise(special.entr, lambda y, x: -np.log(x) - 1, module=SPECIAL)
ndtr = elementwise(
    special.ndtr, lambda y, x: gaussian(x / math.sqrt(2)) / math.sqrt(2 * math.pi), module=SPECIAL
)
# exp(x²) erfc(x): what is left of erfc where both underflow.
erfcx = elementwise(special.erfcx, lambda y, x: 2 * x * y - 2 / math.sqrt(math.pi), module=SPECIAL)
log_ndtr = elementwise(
    special.log_ndtr,
    lambda y, x: math.sqrt(2 / math.pi) / special.erfcx(x / -math.sqrt(2)),
    module=SPECIAL,
)


def _logsumexp_partial(node: Expression, k: int) -> LinearMap:
    (x,), (axes,) = node.arguments, node.parameters
    weight = exp_ratio(x, np.reshape(node, kept_shape(x.shape, axes)))
    return Compose(Transpose(spread_map(x.shape, axes)), Scale(weight, x.shape, x.shape))


def _logsumexp_code(texts: Any, parameters: Parameters) -> str:
    return f"scipy.special.logsumexp({texts[0]}, axis={parameters[0]!r})"


_logsumexp = declare(
    "logsumexp",
    lambda parameters: lambda x: logsumexp(x, axis=parameters[0]),
    lambda arguments, parameters: (
        reduced_shape(arguments[0].shape, parameters[0]),
        np.result_type(arguments[0].dtype, np.float32),
    ),
    _logsumexp_partial,
    _logsumexp_code,
    notation=shortened(lambda node, text: f"logsumexp({text})" if node.shape == () else None),
)


@implements(logsumexp)
def _traced_logsumexp(a: Expression, axis: Any = None, keepdims: bool = False) -> Any:
    axes = normal_axis(axis, a.ndim)
    out = _logsumexp(a.graph, a, parameters=(axes,))
    return np.reshape(out, kept_shape(a.shape, axes)) if keepdims else out


def softmax(x: Any, axis: Any = None) -> Any:
    """Return `exp(x) / sum(exp(x))` over the given axes, without overflow.

    Parameters
    ----------
    x : array_like, shape (…)
    axis : int or tuple of ints, optional
        The axes to normalise over; all of them by default.

    Returns
    -------
    ndarray
        Of the shape of `x`; zero where `x` is −∞.

    Examples
    --------
    >>> import lagrad as lg
    >>> lg.softmax([0.0, -float("inf")]).tolist()
    [1.0, 0.0]
    """
    if not isinstance(x, Expression):
        x = np.asarray(x)
        x = x if x.dtype.kind == "f" else x.astype(float)
    return exp_ratio(x, logsumexp(x, axis=axis, keepdims=True))
