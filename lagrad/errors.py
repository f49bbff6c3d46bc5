"""The exceptions and warnings of lagrad: one tree under `LagradError`."""

from collections.abc import Iterable
from difflib import get_close_matches

from lagrad.plain_text import printable


class LagradError(Exception):
    """Base of every error that lagrad raises.

    Attributes
    ----------
    operation, line : str
        The operation that is the reason, and where that stands, as far as either is known.
    """

    operation = line = ""

    def __str__(self) -> str:
        # What a message quotes was written by others, and a terminal obeys control characters.
        return printable(super().__str__(), kept="\n")


class InvalidName(LagradError, ValueError):
    """A name is not an identifier, or is taken."""


class UnknownName(LagradError, ValueError):
    """A name that the program does not have."""

    @classmethod
    def among(cls, name: object, known: Iterable[str], what: str) -> "UnknownName":
        """The error for `name`, with its nearest match among the `known` ones."""
        known = list(known)
        near = get_close_matches(str(name), known, n=1)
        if near:
            remedy = f"did you mean {near[0]!r}?"
        elif known:
            shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            remedy = f"there are: {shown}."
        else:
            remedy = "there are none."
        return cls(f"no {what} is named {str(name)!r}; {remedy}")


class MissingValue(LagradError, ValueError):
    """A parameter has no value."""


class ShapeMismatch(LagradError, ValueError):
    """Shapes that do not fit together."""


class InvalidValue(LagradError, ValueError):
    """A value that no computation should start from, NaN or infinity among them."""


class UnsupportedType(LagradError, TypeError):
    """A value of a type that lagrad does not differentiate."""


class InvalidEquation(LagradError, ValueError):
    """An equation that constrains nothing, or that is none."""

    @classmethod
    def used_as_value(cls, equation: object) -> "InvalidEquation":
        """The error for an equation in the place of a value."""
        return cls(
            f"the equation {equation!r} is used as a value; np.equal compares the two sides."
        )


class ForeignValue(LagradError, ValueError):
    """A value used in a program that it does not belong to."""


class StructureMismatch(LagradError, ValueError):
    """Nested values of different structure where they must be the same."""


class InvalidFunction(LagradError, TypeError):
    """A function whose result, or whose arguments, cannot be differentiated."""


class InPlaceUpdate(LagradError, TypeError):
    """An update in place of a traced value."""


class TracedValueError(LagradError, TypeError):
    """A number was asked of a value that has none while a program is declared."""


class LeakedValue(TracedValueError):
    """A traced value is used after the trace that it belongs to has ended."""


class UnsupportedFunction(LagradError, TypeError):
    """A NumPy function that lagrad has no rule for."""

    @classmethod
    def missing(cls, name: str) -> "UnsupportedFunction":
        """The error for a NumPy function that traced values do not have."""
        return cls(
            f"np.{name} has no rule for traced values. Write it with functions that have one, or "
            f"give it a rule: f = lg.primitive(np.{name}, vjp=…)."
        )


class StructureError(LagradError, ValueError):
    """Equations and unknowns that cannot determine each other, whatever the numbers."""


class NotConverged(LagradError, ArithmeticError):
    """A solve that stopped before its solution."""


class SingularSystem(LagradError, ArithmeticError):
    """A system with no unique solution, or too ill-conditioned to certify one."""


class NotContractive(NotConverged):
    """A fixed-point iteration that does not approach a fixed point."""


class NotPositiveDefinite(SingularSystem):
    """A Hessian with a direction of no curvature, or of negative curvature, at a minimum."""


class WrongDerivative(LagradError, ArithmeticError):
    """A derivative that differs from what differences of the function show."""


class NotFinite(LagradError, ArithmeticError):
    """A computed value is NaN or infinite."""


class ProgramFileError(LagradError, ValueError):
    """A file from which no program could be loaded."""


class AccuracyWarning(UserWarning):
    """A result that is returned although it could not be certified."""
