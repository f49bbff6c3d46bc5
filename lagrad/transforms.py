"""Derivatives of plain functions: the function becomes a program, and the program is derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lagrad.certificate import Policy
from lagrad.copying import inlined
from lagrad.derive import adjoint, pullback, tangent
from lagrad.errors import InvalidFunction, InvalidValue, ShapeMismatch
from lagrad.expression import Expression
from lagrad.program import Program
from lagrad.solution import Solution
from lagrad.sparse_jacobian import sparse_jacobian
from lagrad.system import System
from lagrad.tracing import Argument, Trace, Tracing, name_of, tracing
from lagrad.tracing import trace as traced

__all__ = [
    "Keeper",
    "Transform",
    "Value",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "trace",
    "value_and_grad",
    "vjp",
]

Array = Any


def positions_of(argnums: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """The positions of arguments, counted from the front."""
    single = isinstance(argnums, (int, np.integer))
    wanted: Sequence[Any] = (argnums,) if single else tuple(argnums)  # type: ignore[assignment, arg-type]
    if not wanted or not all(isinstance(k, (int, np.integer)) for k in wanted):
        raise InvalidValue(f"argnums={argnums!r}; expected a position or several.")
    for k in wanted:
        if not -count <= k < count:
            raise InvalidValue(
                f"argnums={argnums!r}, but {name!r} was called with {count} positional "
                f"argument{'s' * (count != 1)}."
            )
    found = tuple(int(k) % count for k in wanted)
    if len(set(found)) < len(found):
        raise InvalidValue(f"argnums={argnums!r} names an argument twice.")
    return found


def numeric(values: Mapping[str, Array], argument: Argument) -> Any:
    """Arrays by name in the structure of an argument; a scalar is a NumPy float."""
    return argument.tree.unflatten([plain(values[name]) for name in argument.names])


def plain(value: Any) -> Any:
    array = np.array(value)
    return array[()] if array.ndim == 0 else array


def solved(trace: Trace, policy: Policy | None) -> Solution:
    """The traced program solved at the arguments at hand."""
    return trace.program.solved(trace.values, trace.starts, policy)


def returned(trace: Trace, solution: Solution) -> Any:
    """What the function itself returned, as numbers."""
    return trace.tree.unflatten([plain(solution[name]) for name in trace.outputs])


def scalar_output(trace: Trace, name: str, what: str) -> str:
    """The one output, which must have one entry."""
    shapes = [trace.program.variables[n].shape for n in trace.outputs]
    if len(shapes) != 1 or trace.program.variables[trace.outputs[0]].size != 1:
        shown = shapes[0] if len(shapes) == 1 else shapes
        raise InvalidFunction(
            f"{what} needs a function with a scalar result; {name!r} returned shape {shown}. "
            "Return its sum or mean, or use lg.jacobian."
        )
    return trace.outputs[0]


def placed(
    derived: System, trace: Trace, seeds: Mapping[str, Expression], outer: Tracing
) -> dict[str, Expression]:
    """A program derived from a trace, stated in the outer trace; its variables' values there."""
    given = {
        **{name: outer.lift(value) for name, value in trace.values.items()},
        **{name: outer.lift(value) for name, value in trace.captured.items()},
        **{name: outer.lift(value) for name, value in trace.given.items()},
        **seeds,
    }
    found = inlined(derived, outer.system, given, trace.starts)
    outer.inherit(trace.program, trace.guards, found)
    return found


class Keeper:
    """A function that keeps its traces."""

    function: Callable[..., Any]

    def run(self, transform: Transform, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a transform makes of the function at these arguments."""
        raise NotImplementedError


class Transform:
    """A function of the same arguments as another one, made from its trace."""

    def __init__(
        self,
        function: Callable[..., Any],
        argnums: int | Sequence[int],
        accuracy: float | None,
        on_failure: str,
    ) -> None:
        if not callable(function):
            raise InvalidFunction(f"{function!r} is no function.")
        self.function = function
        self.argnums = argnums
        self.accuracy = accuracy
        self.on_failure = on_failure
        self.__name__ = f"{type(self).__name__}_of_{name_of(function)}"
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.function, Keeper) and tracing() is None:
            return self.function.run(self, args, kwargs)
        return self.of(traced(self.plain, args, kwargs, self.positions(len(args))))

    @property
    def plain(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function.function if isinstance(self.function, Keeper) else self.function

    def positions(self, count: int) -> tuple[int, ...]:
        return positions_of(self.argnums, count, name_of(self.function))

    def solved(self, trace: Trace) -> Solution:
        accuracy = trace.program.accuracy() if self.accuracy is None else self.accuracy
        return solved(trace, Policy(accuracy, self.on_failure))

    def of(self, trace: Trace) -> Any:
        """The derivative, as numbers or as values of the function traced around."""
        outer = tracing()
        if outer is not None and trace.symbolic:
            return self.stated(trace, outer)
        return self.computed(trace, self.solved(trace))

    def in_structure(self, trace: Trace, build: Callable[[Argument], Any]) -> Any:
        found = tuple(build(argument) for argument in trace.arguments)
        return found[0] if isinstance(self.argnums, (int, np.integer)) else found

    def computed(self, trace: Trace, solution: Solution) -> Any:
        """The result as numbers."""
        raise NotImplementedError

    def stated(self, trace: Trace, outer: Tracing) -> Any:
        """The result as values of an outer trace."""
        raise NotImplementedError


class Value(Transform):
    """The function itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, (), None, "raise")

    def positions(self, count: int) -> tuple[int, ...]:
        return ()

    def computed(self, trace: Trace, solution: Solution) -> Any:
        return returned(trace, solution)


class Gradient(Transform):
    with_value = False

    def computed(self, trace: Trace, solution: Solution) -> Any:
        name = scalar_output(trace, name_of(self.function), "grad")
        found = solution.gradient(name)
        gradient = self.in_structure(trace, lambda a: numeric(found, a))
        return (returned(trace, solution), gradient) if self.with_value else gradient

    def stated(self, trace: Trace, outer: Tracing) -> Any:
        name = scalar_output(trace, name_of(self.function), "grad")
        derived = adjoint(trace.program.compiled(), name)
        found = placed(derived.system, trace, {}, outer)
        gradient = self.in_structure(
            trace,
            lambda a: a.tree.unflatten([found[derived.gradients[n]] for n in a.names]),
        )
        return (found[name], gradient) if self.with_value else gradient


class ValueAndGradient(Gradient):
    with_value = True


def grad(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[..., Any]:
    """Return the function that computes the gradient of `f`.

    Parameters
    ----------
    f : callable
        A function in NumPy with a scalar result. It is traced at each call, so that whatever it
        closes over, and whichever branch it takes, is as it is then.
    argnums : int or sequence of ints
        Which positional arguments to differentiate by.
    accuracy : float, optional
        The relative error to which the gradient must be certified: 1e-6 by default, 1e-3 for
        float32.
    on_failure : {"raise", "warn"}
        What happens where it cannot be certified.

    Returns
    -------
    callable
        Of the same arguments; the gradient has the structure of the argument, and is a tuple
        where `argnums` is a sequence.

    Raises
    ------
    InvalidFunction, InvalidValue
        When it is called: a result that is no scalar, or `argnums` out of range.
    NotConverged, SingularSystem, NotFinite
        When it is called: the gradient cannot be certified.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    >>> float(lg.grad(lg.grad(np.sin))(0.5)) == -np.sin(0.5)
    True
    """
    return Gradient(f, argnums, accuracy, on_failure)


def value_and_grad(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[..., Any]:
    """Return the function that computes the value of `f` and its gradient.

    Parameters
    ----------
    f, argnums, accuracy, on_failure
        As of `grad`.

    Returns
    -------
    callable
        Of the same arguments; it returns a tuple of both.

    Examples
    --------
    >>> import lagrad as lg
    >>> value, gradient = lg.value_and_grad(lambda x: x**3)(2.0)
    >>> float(value), float(gradient)
    (8.0, 12.0)
    """
    return ValueAndGradient(f, argnums, accuracy, on_failure)


class Pullback:
    """The function from cotangents of a result to cotangents of the arguments."""

    def __init__(self, trace: Trace, solution: Solution | None, outer: Tracing | None) -> None:
        self.trace = trace
        self.solution = solution
        self.outer = outer

    def __call__(self, cotangent: Any) -> Any:
        trace = self.trace
        leaves = trace.tree.leaves_of(cotangent, "the cotangent")
        shapes = [trace.program.variables[name].shape for name in trace.outputs]
        require_shapes("cotangent", trace.outputs, leaves, shapes)
        outer = tracing()
        if self.solution is None or (
            outer is not None and any(isinstance(leaf, Expression) for leaf in leaves)
        ):
            assert outer is not None
            derived = pullback(trace.program.compiled(), trace.outputs)
            seeds = {
                f"seed_{n}": outer.lift(leaf) for n, leaf in zip(trace.outputs, leaves, strict=True)
            }
            found = placed(derived.system, trace, seeds, outer)
            values: Mapping[str, Any] = {n: found[g] for n, g in derived.gradients.items()}
            results = [a.tree.unflatten([values[n] for n in a.names]) for a in trace.arguments]
        else:
            values = self.solution.pullback(dict(zip(trace.outputs, leaves, strict=True)))
            results = [numeric(values, a) for a in trace.arguments]
        return results[0] if len(results) == 1 else tuple(results)


def require_shapes(
    what: str, names: Sequence[str], leaves: Sequence[Any], shapes: Sequence[tuple[int, ...]]
) -> None:
    for name, leaf, shape in zip(names, leaves, shapes, strict=True):
        if np.shape(leaf) != shape:
            raise ShapeMismatch(
                f"the {what} of {name!r} has shape {np.shape(leaf)}; expected {shape}."
            )


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the value of a function and its pull-back.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    *primals
        All its arguments.

    Returns
    -------
    value
        `f(*primals)`.
    pullback : callable
        From a cotangent in the structure of the value to one in that of the argument, or to a
        tuple of them for several. All calls share one solution and its factors.

    Raises
    ------
    ShapeMismatch, StructureMismatch
        A cotangent that does not fit.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> value, pullback = lg.vjp(lambda x: x**2, np.array([1.0, 3.0]))
    >>> pullback(np.array([1.0, 10.0])).tolist()
    [2.0, 60.0]
    """
    trace = traced(f, primals, {}, range(len(primals)))
    outer = tracing()
    if outer is not None and trace.symbolic:
        found = placed(trace.program, trace, {}, outer)
        value = trace.tree.unflatten([found[name] for name in trace.outputs])
        return value, Pullback(trace, None, outer)
    solution = solved(trace, None)
    return returned(trace, solution), Pullback(trace, solution, None)


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return the value of a function and its derivative along a direction.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    primals, tangents : tuples
        Its arguments, and a tangent in the structure of each.

    Returns
    -------
    value, tangent
        `f(*primals)`, and its derivative in the same structure.

    Raises
    ------
    ShapeMismatch, StructureMismatch
        A tangent that does not fit.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> value, tangent = lg.jvp(np.sin, (0.0,), (2.0,))
    >>> float(value), float(tangent)
    (0.0, 2.0)
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise InvalidFunction("jvp(f, primals, tangents) takes a tuple of each: (x,), (t,).")
    if len(primals) != len(tangents):
        raise ShapeMismatch(f"jvp was given {len(primals)} primals and {len(tangents)} tangents.")
    trace = traced(f, primals, {}, range(len(primals)))
    directions: dict[str, Any] = {}
    for k, (argument, tangent_) in enumerate(zip(trace.arguments, tangents, strict=True)):
        leaves = argument.tree.leaves_of(tangent_, f"tangent {k}")
        shapes = [trace.program.variables[name].shape for name in argument.names]
        require_shapes("tangent", argument.names, leaves, shapes)
        directions.update(zip(argument.names, leaves, strict=True))
    outer = tracing()
    if outer is not None and (
        trace.symbolic or any(isinstance(d, Expression) for d in directions.values())
    ):
        derived = tangent(trace.program.compiled())
        seeds = {f"seed_{name}": outer.lift(d) for name, d in directions.items()}
        found = placed(derived.system, trace, seeds, outer)
        names = [derived.tangents[name] for name in trace.outputs]
        return (
            trace.tree.unflatten([found[name] for name in trace.outputs]),
            trace.tree.unflatten([found[name] for name in names]),
        )
    solution = solved(trace, None)
    moved = solution.tangent(directions)
    return (
        returned(trace, solution),
        trace.tree.unflatten([plain(moved[name]) for name in trace.outputs]),
    )


def hvp(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """Return the Hessian of a scalar function times a direction.

    Parameters
    ----------
    f : callable
        A function in NumPy of one argument, with a scalar result.
    x, v : nested arrays
        The argument, and a direction in its structure.

    Returns
    -------
    nested arrays
        In the structure of `x`. No Hessian is formed.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    if tracing() is None:
        trace = traced(f, (x,), {}, (0,))
        name = scalar_output(trace, name_of(f), "hvp")
        argument = trace.arguments[0]
        leaves = argument.tree.leaves_of(v, "the direction")
        shapes = [trace.program.variables[n].shape for n in argument.names]
        require_shapes("direction", argument.names, leaves, shapes)
        found = solved(trace, None).hessian_vector(
            name, dict(zip(argument.names, leaves, strict=True))
        )
        return numeric(found, argument)
    return jvp(grad(f), (x,), (v,))[1]


class Jacobian(Transform):
    def __init__(self, function: Any, argnums: Any, sparse: bool, *rest: Any) -> None:
        super().__init__(function, argnums, *rest)
        self.sparse = sparse

    def computed(self, trace: Trace, solution: Solution) -> Any:
        names = trace.parameters
        if self.sparse:
            matrices = sparse_jacobian(solution, list(trace.outputs), names)
        else:
            found = solution.jacobian(list(trace.outputs), names)
            matrices = {(o, i): plain(found[o][i]) for o in trace.outputs for i in names}
        return trace.tree.unflatten(
            [
                self.in_structure(
                    trace, lambda a, o=o: a.tree.unflatten([matrices[o, n] for n in a.names])
                )
                for o in trace.outputs
            ]
        )

    def stated(self, trace: Trace, outer: Tracing) -> Any:
        if self.sparse:
            raise InvalidFunction(
                "jacobian(…, sparse=True) returns numbers; inside a traced function use "
                "jacobian without it, vjp or jvp."
            )
        # One pull-back for each entry of the result, all of the same program.
        outputs = [trace.program.variables[name] for name in trace.outputs]
        derived = pullback(trace.program.compiled(), trace.outputs)
        blocks = []
        for output in outputs:
            rows = []
            for row in np.eye(output.size):
                seeds = {f"seed_{v.name}": outer.lift(np.zeros(v.shape)) for v in outputs}
                seeds[f"seed_{output.name}"] = outer.lift(row.reshape(output.shape))
                found = placed(derived.system, trace, seeds, outer)
                rows.append({n: found[g] for n, g in derived.gradients.items()})
            values = {
                n: np.reshape(np.stack([row[n] for row in rows]), output.shape + rows[0][n].shape)
                for n in trace.parameters
            }
            blocks.append(
                self.in_structure(
                    trace, lambda a, v=values: a.tree.unflatten([v[n] for n in a.names])
                )
            )
        return trace.tree.unflatten(blocks)


def jacobian(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian of `f`.

    Parameters
    ----------
    f : callable
        A function in NumPy; its result may be nested.
    argnums : int or sequence of ints
        Which positional arguments to differentiate by.
    sparse : bool
        Whether to return `scipy.sparse` matrices, (size of result, size of argument), whose
        cost is that of their entries.
    accuracy, on_failure
        As of `grad`.

    Returns
    -------
    callable
        Of the same arguments. For each leaf of the result it returns the structure of the
        argument, each leaf of the shape of the result's followed by that of the argument's.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.jacobian(lambda x: np.stack([x[0] * x[1], x[1]]))(np.array([2.0, 3.0])).tolist()
    [[3.0, 2.0], [0.0, 1.0]]
    """
    return Jacobian(f, argnums, sparse, accuracy, on_failure)


def hessian(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[..., Any]:
    """Return the function that computes the Hessian of `f`, the Jacobian of its gradient.

    Parameters
    ----------
    f : callable
        A function in NumPy with a scalar result.
    argnums, sparse, accuracy, on_failure
        As of `jacobian`.

    Returns
    -------
    callable
        Of the same arguments.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> lg.hessian(lambda x: x[0] * x[1] ** 2)(np.array([1.0, 2.0])).tolist()
    [[0.0, 4.0], [4.0, 2.0]]
    >>> lg.hessian(lambda x: np.sum(x**3), sparse=True)(np.ones(3)).nnz
    3
    """
    return Jacobian(grad(f, argnums), argnums, sparse, accuracy, on_failure)


def trace(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Program:
    """Return a function at some arguments as a program.

    Parameters
    ----------
    f : callable
        A function in NumPy.
    *args
        Its arguments; each becomes a parameter, or several where it is nested, named after the
        function's own.
    **kwargs
        Passed on as they are.

    Returns
    -------
    Program
        Its output is named "output", or "output_…" for each leaf of a nested result. Branches
        are those taken at these arguments.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> p = lg.trace(lambda x, y: np.sin(x) * y, 0.0, 2.0)
    >>> float(p.solve(x=0.0).gradient("output")["x"])
    2.0
    """
    return declared(traced(f, args, kwargs, range(len(args)), opaque=False, shared=False))


def declared(trace: Trace) -> Program:
    """A traced program as one that was declared: with starts, and with values of parameters."""
    program = trace.program
    system = Program(program.name)
    given: dict[str, Expression] = {}
    for argument in trace.arguments:
        for name in argument.names:
            value = trace.values[name]
            own = f"{name}_" if name in RESERVED else name
            given[name] = system.parameter(own, value=value)
    found = inlined(program, system, given, trace.starts)
    for name in trace.outputs:
        system.define(name, found[name])
    return system


RESERVED = ("start", "newton", "linear", "accuracy", "on_failure")
