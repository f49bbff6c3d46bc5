"""Iterations that lead to a root, a fixed point or a minimum, as data."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue
from lagrad.lazy_import import LazyImport
from lagrad.solving.acceleration import Accelerated, relative
from lagrad.typing import Array

optimize = LazyImport("scipy.optimize")

# Of the step before: one that is hardly shorter.
SLOW = 0.99


@dataclass(frozen=True, slots=True)
class Newton:
    """Newton's method with step lengths that keep it from running away.

    Parameters
    ----------
    tol : float
        The estimated relative error of each unknown at which it ends, (largest error over
        largest entry).
    max_steps : int
        How many Jacobians may be factored.
    smallest_damping : float
        The step length below which it gives up.

    Examples
    --------
    >>> import lagrad as lg
    >>> p = lg.Program()
    >>> z = p.unknown("z", start=1.0)
    >>> equation = p.subject_to(z * z == 2.0)
    >>> float(p.solve(newton=lg.Newton(tol=1e-12))["z"].round(6))
    1.414214
    """

    tol: float = 1e-10
    max_steps: int = 100
    smallest_damping: float = 1e-10

    def __post_init__(self) -> None:
        if not (0 < self.tol < 1 and 0 < self.smallest_damping < 1 and self.max_steps >= 1):
            raise InvalidValue(f"{self!r}: tol and smallest_damping in (0, 1), max_steps ≥ 1.")


@dataclass(frozen=True, slots=True)
class Picard:
    """The plain fixed-point iteration, z ← step(z).

    Parameters
    ----------
    tol : float
        The relative length of the last step at which it ends.
    max_steps : int

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> round(float(lg.fixed_point(np.cos, 1.0, solver=lg.Picard())), 12)
    0.739085133215
    """

    tol: float = 1e-10
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), max_steps ≥ 1.")

    def run(self, step: Callable[[Array], Array], point: Array) -> tuple[Array, list[float]]:
        """The point reached, and the relative length of each step."""
        history: list[float] = []
        for _ in range(self.max_steps):
            after = step(point)
            history.append(relative(after - point, after))
            point = after
            if not history[-1] > self.tol:
                break
        return point, history


@dataclass(frozen=True, slots=True)
class Anderson:
    """The fixed-point iteration, accelerated by its last steps.

    It ends where plain steps do: these go on until they shrink, a combination that leads away is
    given up, and where it has led to a point that plain steps leave, they are taken instead.

    Parameters
    ----------
    memory : int
        How many earlier steps are combined.
    tol : float
        The relative length of the last step at which it ends.
    max_steps : int
        How often the step is evaluated.

    References
    ----------
    Walker and Ni (2011), Anderson acceleration for fixed-point iterations, doi:10.1137/10078356X.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> round(float(lg.fixed_point(np.cos, 1.0, solver=lg.Anderson(memory=2))), 12)
    0.739085133215
    """

    memory: int = 5
    tol: float = 1e-10
    max_steps: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1 or self.memory < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), memory and max_steps ≥ 1.")

    def run(self, step: Callable[[Array], Array], point: Array) -> tuple[Array, list[float]]:
        """The point reached, and the relative length of each step."""
        path = Accelerated(step, point, self.memory)
        history = [path.change]
        while history[-1] > self.tol and path.evaluations < self.max_steps:
            with np.errstate(all="ignore"):  # a path that diverges ends with infinity
                path.advance()
            history.append(path.change)
        return path.image, history


@dataclass(frozen=True, slots=True)
class Minimize:
    """SciPy's `minimize`, with exact gradients and Hessian-vector products.

    Parameters
    ----------
    method : str
        A method of `scipy.optimize.minimize`: "L-BFGS-B", "BFGS", "CG", "Newton-CG",
        "trust-ncg", "trust-krylov", "trust-exact" and others.
    tol : float, optional
        SciPy's `tol`; by default as tight as the method allows.
    max_steps : int

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> quartic = lambda z: np.sum((z - 1) ** 4 + z**2)
    >>> lg.argmin(quartic, np.zeros(2), solver=lg.Minimize("BFGS")).round(6).tolist()
    [0.410245, 0.410245]
    """

    method: str = "L-BFGS-B"
    tol: float | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        takes(self.method)

    def run(
        self,
        objective: Callable[[Array], tuple[float, Array]],
        point: Array,
        hessian: Callable[[Array], Array],
        product: Callable[[Array, Array], Array],
    ) -> Any:
        """SciPy's result, each stopping rule as tight as the method allows unless `tol` is given.

        Parameters
        ----------
        objective : callable
            The value and the gradient at a point.
        """
        name, needs = self.method.lower(), takes(self.method)
        options: dict[str, Any] = {"maxiter": self.max_steps}
        if name == "l-bfgs-b":
            options |= {"ftol": 1e-15, "gtol": 1e-10, "maxfun": 20 * self.max_steps}
        elif self.tol is None and "jac" in needs:
            options["xtol" if name == "newton-cg" else "gtol"] = 1e-10
        if name.startswith("trust-") and name != "trust-constr":
            # As far as it goes: where there is no minimum, that is soon seen.
            options["max_trust_radius"] = 1e12
        return minimised(
            self.method, objective, point, hessian, product, tol=self.tol, options=options
        )


# The derivatives that each method of SciPy's minimize is given, by the names of its arguments.
METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("nelder-mead", "powell", "cobyla", "cobyqa"), ()),
    **dict.fromkeys(("cg", "bfgs", "l-bfgs-b", "tnc", "slsqp"), ("jac",)),
    **dict.fromkeys(("newton-cg", "trust-ncg", "trust-krylov", "trust-constr"), ("jac", "hessp")),
    **dict.fromkeys(("dogleg", "trust-exact"), ("jac", "hess")),
}


def takes(method: str) -> tuple[str, ...]:
    """What a method is given; InvalidValue for one that SciPy does not have."""
    found = METHODS.get(method.lower()) if isinstance(method, str) else None
    if found is None:
        raise InvalidValue(
            f"no method of scipy.optimize.minimize is named {method!r}; there are: "
            f"{', '.join(METHODS)}."
        )
    return found


def minimised(
    method: str,
    objective: Callable[[Array], tuple[float, Array]],
    point: Array,
    hessian: Callable[[Array], Array],
    product: Callable[[Array, Array], Array],
    **more: Any,
) -> Any:
    """SciPy's `minimize`, given whichever derivatives a method takes."""
    needs, all_of_them = takes(method), {"jac": True, "hess": hessian, "hessp": product}
    more |= {name: all_of_them[name] for name in needs}
    function = objective if needs else lambda x: objective(x)[0]
    if point.size == 0:  # which SciPy's methods have no answer for
        found = {"x": point, "fun": objective(point)[0], "jac": point, "nit": 0, "nfev": 1}
        said = "nothing varies"
        return optimize.OptimizeResult(**found, success=True, status=0, message=said)
    return optimize.minimize(function, point.astype(float), method=method, **more)


def not_reached(history: Sequence[float], method: str) -> str:
    """What a fixed-point iteration that did not end went through."""
    shown = ", ".join(f"{h:.2e}" for h in history[-8:])
    finite = [h for h in history[-20:] if np.isfinite(h) and h > 0]
    factor = (finite[-1] / finite[0]) ** (1 / (len(finite) - 1)) if len(finite) > 1 else np.inf
    found = "not shrinking"
    if not np.isfinite(history[-1]):
        found = "they end outside the finite numbers"
    elif factor < 1:
        found = f"each is {factor:.4g} of the one before, on average"
        if factor > SLOW:
            found += ", too slow to arrive"
    return (
        f"{method} did not reach a fixed point in {len(history)} steps. The last relative steps "
        f"are {shown}: {found}. Those of a contraction shrink: damp the step, start nearer, or "
        'solve z = step(z) by solver="newton".'
    )


def without_contracting(step: Callable[[Array], Array], starts: Sequence[Array]) -> Array | None:
    """A fixed point by Newton–Krylov (SciPy), which asks for no contraction; None where none is.

    Full steps first: a search along the line is stopped by hills that they step over.
    """
    ways: list[dict[str, Any]] = [
        {"method": "gmres", "inner_maxiter": 60, "line_search": None},
        {"method": "lgmres"},
    ]
    for point, way in itertools.product(starts, ways):
        if not np.isfinite(point).all():
            continue
        left = lambda z, kind=point.dtype: step(z.astype(kind)) - z
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = optimize.newton_krylov(left, point, f_tol=1e-11, maxiter=50, **way)
            except (optimize.NoConvergence, ValueError, ArithmeticError, np.linalg.LinAlgError):
                continue
        if np.isfinite(found).all():
            return np.asarray(found, point.dtype)
    return None
