"""Jacobians and Hessians of functions, dense or at the cost of their entries."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ParamSpec

import numpy as np
import scipy.sparse as sparse_matrices

from lagrad.errors import InvalidFunction, NotFinite
from lagrad.expressions.expression import Variable
from lagrad.solving.sides import around
from lagrad.solving.solved_point import SolvedPoint
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.linearization import Linearization
from lagrad.transforms.gradient import grad
from lagrad.transforms.transform import Backend, Numbers, Positions, Symbols, Transform, plain
from lagrad.typing import Array

P = ParamSpec("P")

# Of each output by each parameter, by their names.
Blocks = dict[tuple[str, str], Any]


class FunctionJacobian(Transform):
    with_value = False

    def __init__(self, function: Any, argnums: Any, sparse: bool, *rest: Any) -> None:
        super().__init__(function, argnums, *rest)
        self.sparse = sparse

    def result(self, at: Backend) -> Any:
        trace = at.trace
        blocks = self.numeric(at) if isinstance(at, Numbers) else self.symbolic(at)
        rows = [[blocks[o, n] for n in trace.parameters] for o in trace.outputs]
        return trace.tree.unflatten([self.structure(trace).unflatten(row) for row in rows])

    def numeric(self, at: Numbers) -> Blocks:
        """The matrix of each output by each parameter."""
        outputs = at.trace.returned
        inputs = [at.trace.program.variables[name] for name in at.trace.parameters]
        if self.sparse:
            return sparse_jacobian(at.solution, outputs, inputs)
        blocks, found = Blocks(), at.solution.jacobian(outputs, inputs)
        for o, i in product(outputs, inputs):
            block = np.asarray(found[o.name][i.name], np.result_type(o.dtype, i.dtype))
            blocks[o.name, i.name] = plain(block)
        return blocks

    def symbolic(self, at: Symbols) -> Blocks:
        if self.sparse:
            raise InvalidFunction(
                "jacobian(…, sparse=True) returns numbers; inside a traced function use "
                "jacobian without it, vjp or jvp."
            )
        # One pull-back for each entry of the result, all of the same program.
        zeros = {v.name: np.zeros(v.shape) for v in at.trace.returned}
        blocks = Blocks()
        for o in at.trace.returned:
            units = np.eye(o.size).reshape(o.size, *o.shape)
            rows = [at.pullback({**zeros, o.name: unit}) for unit in units]
            for n in at.trace.parameters:
                shape = o.shape + at.trace.program.variables[n].shape
                blocks[o.name, n] = np.zeros(shape)
                if rows:
                    blocks[o.name, n] = np.reshape(np.stack([row[n] for row in rows]), shape)
        return blocks


def jacobian(
    f: Callable[P, Any],
    argnums: Positions = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[P, Any]:
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
    return FunctionJacobian(f, argnums, sparse, accuracy, on_failure)


def hessian(
    f: Callable[P, Any],
    argnums: Positions = 0,
    *,
    sparse: bool = False,
    accuracy: float | None = None,
    on_failure: str = "raise",
) -> Callable[P, Any]:
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
    return FunctionJacobian(grad(f, argnums), argnums, sparse, accuracy, on_failure)


def sparse_jacobian(
    solution: SolvedSystem, outputs: Sequence[Variable], inputs: Sequence[Variable]
) -> Blocks:
    """For each variable and each parameter the matrix, (size of one, size of the other).

    Where nothing is implicit, local partials are multiplied as sparse matrices; through an
    implicit block a derivative is full as a rule, and is solved for.
    """
    point, found = solution.point, Blocks()
    if point.solved:
        dense = solution.jacobian(outputs, inputs)
        for o, i in product(outputs, inputs):
            full = np.reshape(dense[o.name][i.name], (o.size, i.size))
            found[o.name, i.name] = sparse_matrices.csr_array(full)
        return found
    rng = np.random.default_rng(0)
    for i in inputs:
        if i.size:  # its product with some vector is certified, or raises
            solution.tangent({i: rng.uniform(0.5, 1.0, i.shape).astype(i.dtype)}, outputs)
        with np.errstate(all="ignore"):
            blocks = point.linearization.blocks([i])
        for o in outputs:
            matrix = sparse_matrices.csr_array(blocks.assembled([o], [i]), copy=True)
            if point.tied:
                matrix = sparse_mean(point, matrix, o, i)
            if not np.isfinite(matrix.data).all():
                raise NotFinite(f"the Jacobian of {o.name!r} by {i.name!r} is NaN or infinite.")
            matrix.eliminate_zeros()
            found[o.name, i.name] = matrix
    return found


def sparse_mean(point: SolvedPoint, here: Any, output: Variable, parameter: Variable) -> Any:
    """The mean of a matrix over the sides of the kinks that a point is at."""

    def assembled(partials: Linearization) -> Any:
        matrix = partials.blocks([parameter]).assembled([output], [parameter])
        return sparse_matrices.csr_array(matrix)

    def entries(matrix: Any) -> list[Array]:
        return [np.asarray(matrix[rows, columns])]

    rows, columns = assembled(point.compiled.tape.pattern()).nonzero()
    if not rows.size:
        return here
    taken = lambda at: entries(assembled(at.linearization))
    beside = lambda at: entries(assembled(around(at)))
    (found,), _ = point.mean(entries(here), taken, beside)
    return sparse_matrices.csr_array((found, (rows, columns)), shape=here.shape)
