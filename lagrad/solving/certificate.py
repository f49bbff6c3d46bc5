"""What is known of a result's accuracy, and what happens where that is too little."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lagrad.errors import AccuracyWarning, InvalidValue, LagradError, SingularSystem
from lagrad.plain_text import printable
from lagrad.public import Public

FIELDS = ("converged", "primal_residual", "multiplier_residual", "condition", "error_bound")


@dataclass(frozen=True, slots=True)
class Certificate(Public):
    """How accurate a solution or a gradient is.

    Attributes
    ----------
    converged : bool
        Whether every solve ended at its tolerance.
    primal_residual : float
        The largest absolute residual of the equations at the solution.
    multiplier_residual : float or None
        The largest residual of the multipliers' (or tangents') equations over their largest
        right side, with the Jacobian at the solution; None of a primal solution.
    condition : float
        An estimate of the largest 1-norm condition number among the blocks' Jacobians; made when
        it is asked for, where it costs solves of its own.
    differentiated : str
        "implicit", or what the derivative is of instead, as asked for: a truncated series, or a
        damped system.
    truncation : float
        The largest relative residual that this leaves in the multipliers' equation: the distance
        from the implicit derivative, times at most the condition number. Not in the bound.
    distance : float or None
        How far the derivative is from the implicit one, relative to its largest entry; None where
        that does not exist. Solved for when it is asked for, where the two are not the same.
    kink : float
        By how much of itself the derivative differs between the sides of a kink that the point is
        at; zero elsewhere. At a kink it is the mean of both sides.
    error_bound : float
        A first-order bound of the relative error: of the unknowns' largest entries for a
        solution, of each array's largest entry for a derivative; where that cannot be told from
        zero, of the largest of all in the units of their values. Where nothing is solved for, it
        is what rounding does, found when it is asked for, and for up to 100,000 operations.
    bounds : mapping
        The same of each variable of a solution by itself, by its name. One that is nearly zero
        may be less certain than was asked for: that refuses nothing where its error is not felt
        in its equations.
    """

    PUBLIC = (*FIELDS, "bounds", "differentiated", "truncation", "distance", "kink")

    converged: bool
    primal_residual: float
    multiplier_residual: float | None
    estimate: Callable[[], float] = field(repr=False, compare=False)
    bound: Callable[[], float] = field(repr=False, compare=False)
    differentiated: str = "implicit"
    truncation: float = 0.0
    kink: float = 0.0
    each: Callable[[], Mapping[str, float]] = field(default=dict, repr=False, compare=False)
    compare: Callable[[], float | None] = field(default=lambda: 0.0, repr=False, compare=False)

    def __reduce__(self) -> Any:
        # What is found when it is asked for is found now: solutions stay where they are.
        told = (self.converged, self.primal_residual, self.multiplier_residual)
        found = (partial(float, self.condition), partial(float, self.error_bound))
        named = (self.differentiated, self.truncation, self.kink)
        each, distance = dict(self.bounds), {"distance": self.distance}
        return Certificate, (*told, *found, *named, each.copy, partial(distance.get, "distance"))

    @property
    def distance(self) -> float | None:
        return self.compare()

    @property
    def error_bound(self) -> float:
        return self.bound()

    @property
    def bounds(self) -> Mapping[str, float]:
        return self.each()

    @property
    def condition(self) -> float:
        return self.estimate()

    def __str__(self) -> str:
        said = f"{'' if self.converged else 'NOT '}converged: "
        said += f"primal residual {self.primal_residual:.1e}, "
        if self.multiplier_residual is not None:
            said += f"multiplier residual {self.multiplier_residual:.1e}, "
        said += f"condition {self.condition:.1e}, error bound {self.error_bound:.1e}"
        if self.differentiated != "implicit":
            said += f"; {printable(self.differentiated)}"
        said += f", {self.truncation:.1e} left" if self.truncation else ""
        if self.kink:
            said += f"; at a kink: a mean, of which the sides differ by {self.kink:.1e}"
        return said


@dataclass(frozen=True, slots=True)
class Policy:
    """The accuracy asked for, of `values` or of derivatives alone, and what its lack does."""

    accuracy: float = 1e-6
    on_failure: str = "raise"
    values: bool = True

    def __post_init__(self) -> None:
        if self.on_failure not in ("raise", "warn"):
            raise InvalidValue(f"on_failure is {self.on_failure!r}; expected 'raise' or 'warn'.")
        if not isinstance(self.accuracy, (int, float)) or not self.accuracy > 0:
            raise InvalidValue(f"accuracy is {self.accuracy!r}; expected a number above zero.")

    def require(self, certificate: Certificate, what: str, hints: Callable[[], str] = str) -> None:
        """Raise, or warn, where the certificate does not reach the accuracy."""
        if not certificate.error_bound <= self.accuracy:
            self.fail(
                SingularSystem(
                    f"{what} cannot be certified to accuracy {self.accuracy:.1e}: "
                    f"{certificate}.\n{hints()}  Rescale or reformulate the equations, or ask for "
                    "less: accuracy=…."
                )
            )

    def fail(self, error: LagradError) -> None:
        """Raise the error, or warn of it."""
        if self.on_failure == "raise":
            raise error
        warnings.warn(str(error), AccuracyWarning, stacklevel=4)
