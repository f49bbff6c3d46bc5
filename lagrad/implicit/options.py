"""What the options of implicit functions mean, checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, UnsupportedType
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.krylov import CG, GMRES, Krylov
from lagrad.linear_solvers.neumann import Neumann
from lagrad.solving.iterations import Anderson, Minimize, Picard
from lagrad.typing import Function

SOLVERS: dict[str, Function] = {"anderson": Anderson, "picard": Picard}


def options(
    kind: str,
    solver: Any,
    linear: Any,
    preconditioner: Any,
    damping: Any,
    differentiate: Any,
    tol: Any,
) -> dict[str, Any]:
    """What an approach is told, checked."""
    if not isinstance(damping, (int, float, np.number)) or not 0 <= float(damping) < np.inf:
        raise InvalidValue(f"damping={damping!r}; expected a number of zero or more.")
    if not isinstance(differentiate, Neumann) and not (
        isinstance(differentiate, str) and differentiate == "implicit"
    ):
        raise InvalidValue(
            f"differentiate={differentiate!r}; expected 'implicit', lg.Neumann(terms=…) "
            "or lg.Unrolled(steps)."
        )
    if tol is not None and not (isinstance(tol, (int, float)) and 0 < tol < 1):
        raise InvalidValue(f"tol={tol!r}; expected a number between zero and one.")
    if linear is not None and not isinstance(linear, LinearSolver):
        raise UnsupportedType(f"linear={linear!r}; expected a solver such as lg.CG().")
    if linear is None and (solver == "newton-krylov" or preconditioner is not None):
        linear = CG(positive=True) if kind == "argmin" else GMRES()
    if kind == "argmin" and isinstance(linear, CG):
        linear = replace(linear, positive=True)
    if preconditioner is not None:
        if not isinstance(linear, Krylov):
            raise InvalidValue(f"preconditioner=… goes with CG, MINRES or GMRES, not {linear!r}.")
        linear = replace(linear, preconditioner=preconditioner)
    series = differentiate if isinstance(differentiate, Neumann) else None
    if series is not None and series.step is None and kind == "fixed_point":
        series = replace(series, step=-1.0)
    return {
        "method": method_of(solver, kind, tol),
        "linear": linear,
        "damping": float(damping),
        "tol": tol,
        "differentiate": series,
    }


def method_of(solver: Any, kind: str, tol: float | None) -> Any:
    """The iteration that a solver's name stands for; None for Newton's method alone."""
    if solver is None:
        solver = "anderson" if kind == "fixed_point" else "newton"
    if isinstance(solver, str):
        if solver in ("newton", "newton-krylov"):
            return None
        if kind == "argmin":
            return Minimize(solver, tol)
        if kind == "fixed_point" and solver in SOLVERS:
            return SOLVERS[solver](tol=tol or 1e-10)
    wanted: tuple[type, ...] = {
        "argmin": (Minimize,),
        "fixed_point": (Picard, Anderson),
        "root": (),
    }[kind]
    if wanted and isinstance(solver, wanted):
        return solver
    others = {"fixed_point": map(repr, SOLVERS), "argmin": ["a method of minimize"], "root": []}
    names = ["'newton'", "'newton-krylov'", *others[kind]]
    raise UnsupportedType(
        f"{kind}(solver={solver!r}); expected {', '.join(names)}"
        + "".join(f" or lg.{w.__name__}(…)" for w in wanted)
        + "."
    )
