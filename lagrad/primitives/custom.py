"""Primitives of the user's own: a function of arrays, and its derivative in one direction."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import ShapeMismatch, UnsupportedFunction
from lagrad.expressions.expression import Expression, innermost
from lagrad.expressions.linear_maps import LinearMap, Transpose
from lagrad.expressions.primitive import Primitive
from lagrad.finite_differences import centred
from lagrad.plain_text import printable
from lagrad.primitives.registry import floating
from lagrad.typing import DType, Function, Kind, Parameters, Shape, Value

Rule = Function


class Custom(LinearMap):
    """The partial of a user's function by its argument `k`, from its VJP, its JVP, or both."""

    def __init__(
        self,
        name: str,
        vjp: Rule | None,
        jvp: Rule | None,
        k: int,
        data: tuple[Value, ...],
        shapes: Any,
    ) -> None:
        self.name, self.vjp, self.jvp, self.k = name, vjp, jvp, k
        self.data = data  # the output, then the arguments
        self.shapes = shapes
        self.target: Shape = shapes[0]
        self.source: Shape = shapes[1 + k]

    def with_data(self, data: tuple[Value, ...]) -> LinearMap:
        return Custom(self.name, self.vjp, self.jvp, self.k, data, self.shapes)

    @property
    def symbolic(self) -> bool:
        return any(isinstance(value, Expression) for value in self.data)

    @property
    def entries(self) -> int:
        return math.prod(self.source) * math.prod(self.target)

    def pattern(self) -> LinearMap:
        ones = [np.ones(shape) for shape in self.shapes[1:]]
        return Custom(self.name, lambda *_: ones, None, self.k, (), self.shapes)

    def absolute(self) -> LinearMap:
        return self  # one direction at a time is all that is known of it

    def mv(self, tangent: Value) -> Value:
        if self.jvp is None and (self.symbolic or isinstance(tangent, Expression)):
            return product(self, tangent, back=False)
        if self.jvp is None:
            return np.reshape(self.as_sparse() @ np.ravel(tangent), self.target)
        tangents: list[Value] = [np.zeros(shape) for shape in self.shapes[1:]]
        tangents[self.k] = tangent
        return shaped(self.jvp(own(tangents), *own(self.data)), self.target, "jvp")

    def rmv(self, cotangent: Value) -> Value:
        if self.vjp is None and (self.symbolic or isinstance(cotangent, Expression)):
            return product(self, cotangent, back=True)
        if self.vjp is None:
            return np.reshape(self.as_sparse().T @ np.ravel(cotangent), self.source)
        found = self.vjp(*own((cotangent, *self.data)))
        count = len(self.shapes) - 1
        if count == 1 and not isinstance(found, (tuple, list)):
            found = (found,)
        if not isinstance(found, (tuple, list)) or len(found) != count:
            raise ShapeMismatch(f"vjp returned {found!r}; expected {count} cotangents in a tuple.")
        return shaped(found[self.k], self.source, "vjp")

    def as_sparse(self) -> sparse.csr_array:
        forward = self.jvp is not None
        apply, start, end = (
            (self.mv, self.source, self.target) if forward else (self.rmv, self.target, self.source)
        )
        size = math.prod(start)
        images = [np.ravel(apply(unit)) for unit in np.eye(size).reshape(size, *start)]
        lines = np.reshape(images, (size, math.prod(end)))
        return sparse.csr_array(lines.T if forward else lines)


def products(name: str, vjp: Rule | None, jvp: Rule | None, k: int, back: bool) -> Primitive:
    """The product with a user's partial, or its transpose, in the mode for which it has no rule."""

    def linear(data: Sequence[Value], shapes: Any) -> LinearMap:
        found = Custom(name, vjp, jvp, k, tuple(data), shapes)
        return Transpose(found) if back else found

    def kernel(parameters: Parameters) -> Function:
        (shapes,) = parameters
        return lambda vector, *data: linear(data, shapes).mv(vector)

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        (shapes,) = parameters
        return shapes[1 + k] if back else shapes[0], precision(arguments)

    def partial(node: Expression, place: int) -> LinearMap:
        if place == 0:
            return linear(node.arguments[1:], *node.parameters)
        raise UnsupportedFunction(
            f"second derivatives of the primitive {name!r} need a rule for both modes, written "
            "in NumPy: lg.primitive(f, vjp=…, jvp=…). A black box has first ones alone, which "
            "are enough for lg.minimize(…, method='BFGS')."
        )

    rules = tuple([rule for rule in (vjp, jvp) if rule is not None])
    code = lambda texts, parameters: f"{name}{'ᵀ' if back else '′'}({', '.join(texts)})"
    return Primitive(name, kernel, infer, partial, code, source=unwritten, rules=rules)


def product(of: Custom, vector: Value, back: bool) -> Expression:
    """That product over expressions."""
    graph = innermost((vector, *of.data))
    assert graph is not None
    made = products(of.name, of.vjp, of.jvp, of.k, back)
    return made(graph, vector, *of.data, parameters=(of.shapes,))


def precision(arguments: Any) -> DType:
    """The dtype of a value: single where all arguments are."""
    return floating(*(np.asarray(a).dtype if np.isscalar(a) else a.dtype for a in arguments))


def own(values: Sequence[Value]) -> tuple[Value, ...]:
    """Copies of arrays, which a user's function may write into."""
    return tuple([v.copy() if isinstance(v, np.ndarray) else v for v in values])


def shaped(value: Value, shape: Shape, rule: str) -> Value:
    """What a rule returned, of the shape that it must have."""
    value = value if isinstance(value, Expression) else np.array(value)
    if value.shape != shape:
        raise ShapeMismatch(f"{rule} returned an array of shape {value.shape}; expected {shape}.")
    return value


def unwritten(module: Any, node: Expression, texts: Any) -> str:
    assert node.primitive is not None
    raise UnsupportedFunction(
        f"{node.primitive.name} is a primitive of your own: source() writes NumPy's only."
    )


def primitive(
    value: Function,
    *,
    vjp: Rule | None = None,
    jvp: Rule | str | None = None,
    shape: Function | None = None,
    name: str | None = None,
) -> Function:
    """Return a function that works on traced values, from one of arrays and its derivative.

    Parameters
    ----------
    value : callable
        `value(*x)` is an array of floats for arrays `x`.
    vjp : callable, optional
        `vjp(cotangent, y, *x)` is a tuple of one cotangent for each argument.
    jvp : callable or "centered", optional
        `jvp(tangents, y, *x)` is the tangent of `y` for a tuple of one tangent for each argument.
        One of the two is enough for gradients; written in NumPy they serve second orders too.
        "centered" takes differences of four values around each argument, at two steps that agree
        and more where these do not: for what cannot be differentiated otherwise, at two to three
        digits less than the value has. NotFinite where no two steps agree.
    shape : callable, optional
        `shape(*shapes)` is the shape of `y`; found by calling `value` with ones by default.
    name : str, optional
        What messages and printed programs call it.

    Returns
    -------
    callable

    Raises
    ------
    UnsupportedFunction
        Neither rule is given.
    ShapeMismatch
        A rule returns an array of the wrong shape, once it is called.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> cube = lg.primitive(lambda x: x * x * x, vjp=lambda g, y, x: (3 * g * x * x,))
    >>> p = lg.Program()
    >>> y = p.define("y", cube(p.parameter("x", value=2.0)))
    >>> float(p.solve().gradient("y")["x"])
    12.0
    """
    named = printable(name or getattr(value, "__name__", "function")).strip("<>")
    if isinstance(jvp, str):
        if jvp != "centered":
            raise UnsupportedFunction(f"primitive({named}, jvp={jvp!r}); a rule, or 'centered'.")
        jvp = centred(value, named)
    if vjp is None and jvp is None:
        raise UnsupportedFunction(
            f"primitive({named}) needs a rule: vjp=… or jvp=…, or jvp='centered' for differences."
        )

    def kernel(parameters: Parameters) -> Function:
        (expected,) = parameters
        # The user's function may write into what it is given, and return the same array again.
        return lambda *x: shaped(np.asarray(value(*own(x)), dtype=precision(x)), expected, named)

    def infer(arguments: tuple[Expression, ...], parameters: Parameters) -> Kind:
        return parameters[0], precision(arguments)

    def partial(node: Expression, k: int) -> LinearMap:
        shapes = (node.shape, *(a.shape for a in node.arguments))
        return Custom(named, vjp, jvp, k, (node, *node.arguments), shapes)

    code = lambda texts, parameters: f"{named}({', '.join(texts)})"
    rules = tuple([rule for rule in (vjp, jvp) if rule is not None])
    made = Primitive(named, kernel, infer, partial, code, source=unwritten, rules=rules)

    def function(*x: Any) -> Any:
        graph = innermost(x)
        if graph is None:
            return value(*x)
        shapes = [a.shape for a in map(graph.lift, x)]
        given = np.shape(value(*map(np.ones, shapes))) if shape is None else shape(*shapes)
        return made(graph, *x, parameters=(tuple(given),))

    function.__name__ = named
    return function
