"""`lhs == rhs` between traced values."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from lagrad.errors import InvalidEquation, TracedValueError

__all__ = ["Equation"]


class Equation:
    """`lhs == rhs` between traced values, to be given to `Program.subject_to`."""

    __slots__ = ("lhs", "rhs")

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.lhs = lhs
        self.rhs = rhs

    def __repr__(self) -> str:
        return f"{self.lhs!r} == {self.rhs!r}"

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> NoReturn:
        raise InvalidEquation.used_as_value(self)

    def __bool__(self) -> bool:
        raise TracedValueError(
            f"the equation {self!r} has no truth value while the program is declared; "
            "state it with subject_to, or compare with np.equal inside np.where."
        )
