"""What a trace alone does not tell: derivatives that it has missed, and where NaN came from.

The function is called again with numbers where it asked for floats; for an operation that made
NaN or infinity first the trace is searched where its solution is not finite.
"""

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.errors import LagradError, SingularSystem, TracedValueError
from lagrad.finite_differences import along
from lagrad.solving.certificate import Policy
from lagrad.solving.solve import solve_named
from lagrad.solving.solved_system import SolvedSystem
from lagrad.systems.constraint import definitions
from lagrad.transforms.trace import Trace, TracedCall
from lagrad.transforms.trace import trace as traced
from lagrad.transforms.tracing_graph import numbers
from lagrad.trees import flatten
from lagrad.typing import Array

# A derivative that is off by more than this was not followed.
OFF = 1e-6


def require_followed(trace: Trace, solution: SolvedSystem | None) -> None:
    """TracedValueError where what was asked of a traced value took a part of the derivative.

    Python's floats carry no derivative. Where they only decide something, nothing is lost; where
    they are computed with, the derivative along a random direction differs from the function's.
    So it does where NumPy chose one of two equal objects at a kink.
    """
    if solution is None:
        solution = solve_named(trace.program.compiled(), trace.values, trace.starts)
    elif trace.symbolic:
        return  # the function traced around it is followed as a whole
    rng = np.random.default_rng(0)
    values = {name: np.asarray(trace.values[name]) for name in trace.parameters}
    sizes = {name: float(np.abs(v).max(initial=0.0)) or 1.0 for name, v in values.items()}
    direction = {name: rng.standard_normal(v.shape) * sizes[name] for name, v in values.items()}
    variables = trace.program.variables
    moves = {variables[name]: d.astype(values[name].dtype) for name, d in direction.items()}
    with np.errstate(all="ignore"):
        tangent = solution.tangent(moves)
    expected = np.concatenate([np.ravel(tangent[name]) for name in trace.outputs])
    known = np.concatenate([np.ravel(solution[name]) for name in trace.outputs])

    def moved(share: Array) -> Array:
        # The leaves of the function's result at other values of its parameters.
        at = {name: v + share * direction[name] for name, v in values.items()}
        args = [*trace.call.args]
        for position, argument in zip(trace.call.positions, trace.arguments, strict=True):
            args[position] = argument.tree.unflatten([at[name][()] for name in argument.names])
        leaves, _ = flatten(trace.call.function(*args, **trace.call.kwargs))
        return np.concatenate([np.ravel(numbers(leaf)).astype(float) for leaf in leaves])

    found = expected
    for step in (1e-4, 1e-6):
        try:
            with np.errstate(all="ignore"):
                found = along(moved, np.array(0.0), np.array(1.0), step)
        except (ValueError, ArithmeticError, TypeError) as error:
            raise TracedValueError(
                f"{trace.program.name!r} took numbers out of traced values, and broke off "
                f"where its derivative was to be compared with differences: {error}. {REMEDY}"
            ) from error
        size = np.abs(expected).max(initial=0.0)
        noise = 100 * float(np.finfo(float).eps) * np.abs(known).max(initial=0.0) / step
        if np.abs(found - expected).max(initial=0.0) <= OFF * size + noise:
            return
    raise TracedValueError(
        f"{trace.program.name!r} computes with float() of a traced value, which carries no "
        "derivative, or NumPy chose between equal entries of an array of them: along a random "
        f"direction the trace has {expected[0]:.9g}, and the function {found[0]:.9g}. {REMEDY}"
    )


def require_inside(trace: Trace, policy: Policy) -> None:
    """SingularSystem where a value sits on the border of a branch that was taken.

    A branch that only raises is none: the function is not defined there.
    """
    for number, guard in enumerate(trace.guards):
        if guard.border and not raises_otherwise(trace.call, number):
            policy.fail(
                SingularSystem(
                    f"{trace.program.name!r} takes a branch (`if`, `while`, `and`, max, sorted) "
                    "on a comparison whose two sides are equal to rounding, question "
                    f"{number + 1} of {len(trace.guards)}: beyond that border it is another "
                    "function, and one side alone tells no derivative. Choose by np.where, "
                    "np.maximum or np.abs, move the point, or state what a search approaches "
                    "(bisection, say) as an equation: lg.root."
                )
            )
            return


def raises_otherwise(call: TracedCall, number: int) -> bool:
    """Whether a function only raises where a question is answered the other way."""
    try:
        with np.errstate(all="ignore"):
            traced(call.function, call.args, call.kwargs, call.positions, otherwise=number)
    except LagradError:
        return False
    except Exception:
        return True
    return False


REMEDY = (
    "Use NumPy's functions, not math's, leave float() and np.asarray out, make arrays by np.stack "
    "or np.block in the place of np.array or of assigned entries, or hold the value constant on "
    "purpose by lg.stop_gradient outside of the function."
)


def where_not_finite(trace: Trace) -> str | None:
    """A sentence that names data, or a step of a loop, with NaN or infinity, if there is one."""
    for name, array in trace.values.items():
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0].tolist()
            what = "argument " + repr(name) if name in trace.passed else "an array"
            return (
                f"{what} of shape {values.shape}, which {trace.program.name!r} computes with, is "
                f"{values[tuple(place)]} at {place}."
            )
    program = trace.program
    if program.with_role("unknown"):
        return None
    inputs = [program.variables[name] for name in trace.values]
    for node in program.arena.nodes:
        if node.primitive is not None and node.primitive.breaks is not None:
            arguments = Plan(inputs, node.arguments, definitions(program))
            given = arguments(list(trace.values.values()))
            if (said := node.primitive.breaks(node.parameters, given)) is not None:
                return said
    return None
