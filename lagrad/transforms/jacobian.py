"""Jacobians and Hessians of functions, dense or at the cost of their entries."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse_matrices

from lagrad.errors import InvalidFunction, NotFinite
from lagrad.programs.derived_programs import pullback
from lagrad.solving.solved_system import SolvedSystem
from lagrad.transforms.gradient import Transform, grad, placed, plain
from lagrad.transforms.trace import Argument, Trace
from lagrad.transforms.tracing_graph import Tracing
from lagrad.typing import Function


def built(values: Mapping[str, Any], argument: Argument) -> Any:
    """Values by name in the structure of an argument."""
    return argument.tree.unflatten([values[name] for name in argument.names])


class Jacobian(Transform):
    def __init__(self, function: Any, argnums: Any, sparse: bool, *rest: Any) -> None:
        super().__init__(function, argnums, *rest)
        self.sparse = sparse

    def computed(self, trace: Trace, solution: SolvedSystem) -> Any:
        names, variables = trace.parameters, trace.program.variables
        if self.sparse:
            matrices = sparse_jacobian(solution, list(trace.outputs), names)
        else:
            outputs, inputs = ([variables[n] for n in some] for some in (trace.outputs, names))
            found = solution.jacobian(outputs, inputs)
            dtypes = {n: variables[n].dtype for n in (*trace.outputs, *names)}
            matrices = {
                (o, i): plain(np.asarray(found[o][i], np.result_type(dtypes[o], dtypes[i])))
                for o in trace.outputs
                for i in names
            }
        return trace.tree.unflatten(
            [
                self.in_structure(
                    trace, functools.partial(built, {n: matrices[o, n] for n in names})
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
                seeds = {derived.seeds[v.name]: outer.lift(np.zeros(v.shape)) for v in outputs}
                seeds[derived.seeds[output.name]] = outer.lift(row.reshape(output.shape))
                found = placed(derived.system, trace, seeds, outer)
                rows.append({n: found[g] for n, g in derived.gradients.items()})
            values = {
                n: np.reshape(np.stack([row[n] for row in rows]), output.shape + rows[0][n].shape)
                for n in trace.parameters
            }
            blocks.append(self.in_structure(trace, functools.partial(built, values)))
        return trace.tree.unflatten(blocks)


def jacobian(
    f: Function,
    argnums: int | Sequence[int] = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Function:
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
    f: Function,
    argnums: int | Sequence[int] = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Function:
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


def sparse_jacobian(
    solution: SolvedSystem, of: Sequence[str], wrt: Sequence[str]
) -> dict[tuple[str, str], Any]:
    """For each variable and each parameter the matrix, (size of one, size of the other).

    Where nothing is implicit, local partials are multiplied as sparse matrices; through an
    implicit block a derivative is full as a rule, and is solved for.
    """
    point = solution.point
    outputs = {name: solution.system.variables[name] for name in of}
    inputs = {name: solution.system.variables[name] for name in wrt}
    if point.solved:
        dense = solution.jacobian(list(outputs.values()), list(inputs.values()))
        return {
            (o, i): sparse_matrices.csr_array(dense[o][i].reshape(outputs[o].size, inputs[i].size))
            for o in of
            for i in wrt
        }
    found = {}
    for i, source in inputs.items():
        with np.errstate(all="ignore"):
            blocks = point.linearization.blocks([source])
        for o, output in outputs.items():
            matrix = sparse_matrices.csr_array(blocks.assembled([output], [source]), copy=True)
            if not np.isfinite(matrix.data).all():
                raise NotFinite(f"the Jacobian of {o!r} by {i!r} is NaN or infinite.")
            matrix.eliminate_zeros()
            found[o, i] = matrix
    return found
