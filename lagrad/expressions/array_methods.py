"""Methods of traced values: those of arrays, and operators.

Operators go past NumPy's dispatch where both sides are scalars of one graph, since a program may
have millions of them.
"""

from typing import Any

import numpy as np

from lagrad.expressions.dispatch import UFUNCS
from lagrad.expressions.expression import Expression, named
from lagrad.typing import Function

# NumPy's functions bind to what they are attributes of, as Python's own do.
METHODS = (
    "all any clip cumsum diagonal dot max mean min prod ravel repeat squeeze std sum swapaxes take "
    "trace var"
)
for _name in METHODS.split():
    setattr(Expression, _name, getattr(np, _name))
Expression.flatten = np.ravel  # type: ignore[attr-defined]
Expression.PUBLIC += (*METHODS.split(), "astype", "copy", "flatten", "reshape", "transpose")


def operator(ufunc: np.ufunc, reflected: bool = False) -> Function:
    """The method of an operator, past NumPy's dispatch where both sides are known to be simple."""

    def call(self: Expression, other: Any) -> Any:
        graph = self.graph
        if type(other) is float:
            right: Expression = graph.constant(other)
        elif isinstance(other, Expression) and other.graph is graph:
            right = other
        else:
            return ufunc(other, self) if reflected else ufunc(self, other)
        inputs = (right, self) if reflected else (self, right)
        node = graph.scalars(UFUNCS[ufunc], inputs)
        return named(ufunc.__name__, UFUNCS[ufunc], graph, *inputs) if node is None else node

    return call


OPERATORS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "pow": np.power,
}
for _name, _ufunc in OPERATORS.items():
    setattr(Expression, f"__{_name}__", operator(_ufunc))
    setattr(Expression, f"__r{_name}__", operator(_ufunc, reflected=True))
