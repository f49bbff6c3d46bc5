"""Values of a trace compared with the function on numbers, and derivatives with its differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, NotFinite, WrongDerivative
from lagrad.finite_differences import along
from lagrad.systems.linearization import joined, split
from lagrad.transforms.directional import hvp, jvp, vjp
from lagrad.transforms.gradient import grad
from lagrad.transforms.trace import argument_names, at_hand
from lagrad.trees import flatten
from lagrad.typing import Array, Function


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kind of derivative beside its differences."""

    what: str
    error: float
    correlation: float

    def __str__(self) -> str:
        return f"{self.what}: relative error {self.error:.1e}, correlation {self.correlation:.9f}"


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """What a check of derivatives found.

    Attributes
    ----------
    comparisons : tuple
        Each with `what`, `error` (the largest difference over the largest value) and
        `correlation` of derivatives and differences over all directions.
    worst : str
        The entry of the arguments at which they differ most.
    tol : float
        The relative error that is allowed.
    """

    comparisons: tuple[Comparison, ...]
    worst: str
    tol: float

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max(c.error for c in self.comparisons)

    @property
    def passed(self) -> bool:
        return all(c.error <= self.tol for c in self.comparisons)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.comparisons), f"worst entry: {self.worst}"])


def check_gradient(
    f: Function, *args: Any, order: int = 1, directions: int = 5, tol: float = 1e-6, seed: int = 0
) -> GradientCheck:
    """Compare a function's derivatives with centred differences along random directions.

    Its value where it is traced is compared with that on numbers, too: a function that asks for
    types, `isinstance(x, np.ndarray)` among them, may take another branch where it is traced.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    *args
        All its arguments; every one is differentiated by.
    order : {1, 2}
        2 compares Hessian-vector products with differences of the gradient as well, of a
        function with one argument and a scalar result.
    directions : int
        How many random directions; steps are relative to each argument's size.
    tol : float
        The relative error that is allowed.
    seed : int

    Returns
    -------
    GradientCheck
        Both modes' relative error and correlation, and the worst entry.

    Raises
    ------
    WrongDerivative
        A derivative differs by more than `tol`, or the value does; the message is the report.
    NotFinite
        The function is not finite near its arguments.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> report = lg.check_gradient(lambda x: np.sum(np.sin(x)), np.array([0.5, 1.0]), order=2)
    >>> report.passed, len(report.comparisons)
    (True, 3)
    """
    if order not in (1, 2) or directions < 1 or not tol > 0:
        raise InvalidValue(
            f"order={order!r}, directions={directions!r}, tol={tol!r}; expected 1 or 2, at least "
            "one direction, and a tolerance above zero."
        )
    if order == 2 and len(args) != 1:
        raise InvalidValue("order=2 is for functions of one argument; put them into a tuple.")
    point = Point(f, args)
    rng = np.random.default_rng(seed)
    # Entries of all sizes are moved by their argument's size.
    moves = rng.standard_normal((directions, point.vector.size)) * point.sizes
    differences = np.stack([point.difference(point.value, move) for move in moves])
    if not np.isfinite(differences).all():
        raise NotFinite("the function is NaN or infinite near its arguments.")
    at = point.nested(point.vector)
    forward = np.stack([point.flat(jvp(f, at, point.nested(move))[1]) for move in moves])
    weights = rng.standard_normal(differences.shape[1])
    value, pull = vjp(f, *at)
    leaves, tree = flatten(value)
    point.require_value(leaves, float(np.abs(differences).max()), tol)
    gradient = point.flat(pull(tree.unflatten(parts(weights, [np.asarray(x) for x in leaves]))))
    comparisons = [
        compared("forward mode", forward, differences),
        compared("reverse mode", moves @ gradient, differences @ weights),
    ]
    if order == 2:
        slope = lambda vector: point.flat(grad(f)(*point.nested(vector)))
        curvature = np.stack([point.flat(hvp(f, *at, *point.nested(move))) for move in moves])
        expected = np.stack([point.difference(slope, move) for move in moves])
        comparisons.append(compared("second order", curvature, expected))
    if all(c.error <= tol for c in comparisons):
        return GradientCheck(tuple(comparisons), "none is off", tol)
    report = GradientCheck(tuple(comparisons), point.worst(weights, gradient), tol)
    raise WrongDerivative(f"derivatives differ by more than {tol:.1e}.\n{report}")


def compared(what: str, found: Array, expected: Array) -> Comparison:
    size = max(float(np.abs(expected).max()), float(np.abs(found).max()))
    error = float(np.abs(found - expected).max()) / size if size else 0.0
    a, b = np.ravel(found), np.ravel(expected)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Comparison(what, error, float(a @ b) / lengths if lengths else 1.0)


def parts(vector: Array, like: Sequence[Array]) -> list[Any]:
    """A vector cut into arrays, or numbers, of the shapes of others."""
    return [piece[()] for piece in split(vector, like)]


class Point:
    """A function at its arguments, between vectors."""

    def __init__(self, f: Function, args: Sequence[Any]) -> None:
        self.f = f
        leaves, self.tree = flatten(tuple(args))
        # In double precision, whatever it is used in: differences need the digits.
        self.leaves = [at_hand(leaf, "an argument").astype(float) for leaf in leaves]
        self.vector = joined(self.leaves)
        scale = [max(1e-3, float(np.abs(leaf).max(initial=0.0))) for leaf in self.leaves]
        self.sizes = np.repeat(scale, [leaf.size for leaf in self.leaves])
        names = zip(argument_names(f, len(args)), args, strict=True)
        self.names = [path for name, arg in names for path in flatten(arg)[1].paths(name)]

    def nested(self, vector: Array) -> tuple[Any, ...]:
        return (*self.tree.unflatten(parts(vector, self.leaves)),)

    def flat(self, value: Any) -> Array:
        return joined([np.asarray(leaf, dtype=float) for leaf in flatten(value)[0]])

    def value(self, vector: Array) -> Array:
        return self.flat(self.f(*self.nested(vector)))

    def require_value(self, leaves: Sequence[Any], change: float, tol: float) -> None:
        """WrongDerivative where the traced value is not that on numbers, which changes so much."""
        found, expected = self.flat(leaves), self.value(self.vector)
        # Sums that cancel are known to rounding of their terms only.
        size = max(change, float(np.abs(expected).max()))
        if found.shape != expected.shape or not np.abs(found - expected).max() <= tol * size:
            raise WrongDerivative(
                f"the function returns {expected.tolist()[:3]} on numbers, and "
                f"{found.tolist()[:3]} where it is traced. It asks for what a traced value does "
                "not share with an array: its type (isinstance, type(x) is, np.isscalar), an "
                "attribute (hasattr), an error (try). Ask for np.ndim(x) or np.shape(x) instead."
            )

    def difference(self, function: Callable[[Array], Array], move: Array) -> Array:
        """The derivative along a move, whose length is that of the arguments."""
        with np.errstate(all="ignore"):
            shifted = lambda share: function(self.vector + share * move)
            return along(shifted, np.array(0.0), np.array(1.0))

    def worst(self, weights: Array, gradient: Array) -> str:
        """The entry whose derivative is off most, by one difference for each, up to a thousand."""
        worst, where = -1.0, ""
        entries = parts(np.arange(self.vector.size), self.leaves)
        for name, places in zip(self.names, entries, strict=True):
            for index, k in islice(np.ndenumerate(places), 1000):
                move = np.zeros(self.vector.size)
                move[k] = self.sizes[k]
                expected = float(self.difference(self.value, move) @ weights) / self.sizes[k]
                off = abs(gradient[k] - expected) * self.sizes[k]
                if not off <= worst:
                    entry = f"{name}{list(index) if index else ''}"
                    said = f"derivative {gradient[k]:.9g}, difference {expected:.9g}"
                    worst, where = off, f"{entry}: {said}"
        return where
