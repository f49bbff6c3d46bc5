"""SciPy's minimize over nested values, with exact derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lagrad.errors import InvalidValue
from lagrad.solving.iterations import minimised, optimize, takes
from lagrad.systems.linearization import joined, split
from lagrad.transforms.directional import hvp
from lagrad.transforms.gradient import value_and_grad
from lagrad.transforms.jacobian import hessian
from lagrad.transforms.trace import start_of
from lagrad.trees import Tree
from lagrad.typing import Array, Function

X = TypeVar("X")

if TYPE_CHECKING:

    class OptimizeResult(dict[str, Any], Generic[X]):
        """SciPy's result, with the types that it has here."""

        x: X
        jac: X
        fun: float
        success: bool
        status: int
        message: str
        nit: int
        nfev: int


def minimize(
    f: Function,
    x0: X,
    args: Sequence[Any] = (),
    method: str = "L-BFGS-B",
    *,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[[Any], Any] | None = None,
    options: dict[str, Any] | None = None,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> OptimizeResult[X]:
    """Return SciPy's result of minimising a function over nested values.

    Parameters
    ----------
    f : callable
        `f(x, *args)`, in NumPy, with a scalar result; `lg.compile(f)` keeps its trace.
    x0 : nested arrays
        Where to start.
    args : sequence
        Further arguments of `f`.
    method : str
        A method of `scipy.optimize.minimize`. It is given gradients, Hessian-vector products or
        Hessians, whichever it takes.
    bounds : pair, or nested pairs, optional
        `(low, high)` for all entries, or two values in the structure of `x0`; None is no bound.
    tol, options
        As of SciPy.
    callback : callable, optional
        Called with each iterate, in the structure of `x0`.
    accuracy, on_failure
        As of `grad`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        SciPy's own, with `x` and `jac` in the structure of `x0`.

    Raises
    ------
    InvalidValue
        A start outside its bounds, or an unknown method.
    InvalidFunction
        The result of `f` is no scalar.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> f = lambda p: (p["a"] - 1) ** 2 + np.sum((p["b"] - p["a"]) ** 2)
    >>> result = lg.minimize(f, {"a": 0.0, "b": np.zeros(2)})
    >>> result.x["b"].round(5).tolist()
    [1.0, 1.0]
    """
    _, tree, starts = start_of(x0, "minimize")

    def nested(x: Array) -> Any:
        pieces = zip(split(np.asarray(x, dtype=float), starts), starts, strict=True)
        return tree.unflatten([piece.astype(s.dtype)[()] for piece, s in pieces])

    def vector(value: Any) -> Array:
        return joined([np.asarray(leaf, dtype=float) for leaf in tree.leaves_of(value, "a value")])

    both = value_and_grad(f, accuracy=accuracy, on_failure=on_failure)

    def objective(x: Array) -> tuple[float, Array]:
        value, gradient = both(nested(x), *args)
        return float(value), vector(gradient)

    def product(x: Array, direction: Array) -> Array:
        return vector(hvp(lambda z: f(z, *args), nested(x), nested(direction)))

    def matrix(x: Array) -> Array:
        return hessian(lambda z: f(tree.unflatten(split(z, starts)), *args))(np.asarray(x))

    takes(method)
    point = joined(starts).astype(float)
    limits = None if bounds is None else limited(bounds, starts, tree, point)
    seen = None if callback is None else lambda x: callback(nested(x))
    more = {"bounds": limits, "tol": tol, "callback": seen, "options": options}
    result: OptimizeResult[X] = minimised(method, objective, point, matrix, product, **more)
    result.x = nested(result.x)
    for name in ("jac", "grad"):
        if name in result and np.size(result[name]) == point.size:
            result[name] = nested(result[name])
    return result


def limited(bounds: Any, starts: Sequence[Array], tree: Tree, point: Array) -> Any:
    """SciPy's bounds from a pair, of numbers or of nested values; the start must be inside."""
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise InvalidValue(f"bounds={bounds!r}; expected a pair (low, high).")

    def side(bound: Any, none: float) -> Array:
        if bound is None or (np.ndim(bound) == 0 and not isinstance(bound, dict)):
            return np.full(point.size, none if bound is None else float(bound))
        pairs = zip(tree.leaves_of(bound, "a bound"), starts, strict=True)
        return joined([np.broadcast_to(np.asarray(b, float), s.shape) for b, s in pairs])

    low, high = side(bounds[0], -np.inf), side(bounds[1], np.inf)
    outside = np.flatnonzero(~((low <= point) & (point <= high)))
    if outside.size:
        k = int(outside[0])
        raise InvalidValue(
            f"the start {point[k]:g} is outside its bounds [{low[k]:g}, {high[k]:g}] (entry {k})."
        )
    return optimize.Bounds(low, high)
