"""A system of equality constraints: what is declared, and checked as it is declared."""

import copy
import itertools
import keyword
from collections.abc import Mapping
from typing import Any

import numpy as np

from lagrad.errors import (
    ForeignValue,
    InvalidEquation,
    InvalidName,
    InvalidValue,
    MissingValue,
    ShapeMismatch,
    UnknownName,
    UnsupportedType,
)
from lagrad.expressions.expression import Constant, Equation, Expression, Variable
from lagrad.expressions.graph import Graph, stacked
from lagrad.expressions.real_arrays import in_dtype, real_array
from lagrad.plain_text import as_read, plain, printable
from lagrad.public import Public
from lagrad.systems.constraint import Constraint, ImplicitGroup
from lagrad.typing import Array, DType, Shape

# Keywords of Program.solve, which takes parameters as keywords too.
OPTIONS = ("start", "newton", "linear", "accuracy", "on_failure")


class System(Public):
    """Variables and the constraints between them.

    A variable's role is "parameter", "unknown" or "defined"; "data" is a given one that nothing is
    differentiated by, as an array that a traced function closes over.
    """

    def __init__(self, name: str = "program") -> None:
        self.name = name
        self.arena = Graph(self.name)
        self.variables: dict[str, Variable] = {}
        self.constraints: dict[str, Constraint] = {}
        self.groups: list[ImplicitGroup] = []
        self.slopes: list[Expression] = []  # derivatives that its function asked for
        self.derived = False  # whether values of variables are derivatives

    @property
    def name(self) -> str:
        """What messages call it: any text, in which characters that do not print are escaped."""
        return self._name

    @name.setter
    def name(self, text: Any) -> None:
        if not isinstance(text, str):
            raise InvalidName(f"{text!r} is no name of a program: expected text.")
        self._name = printable(text)

    def snapshot(self) -> "System":
        """The system as it is now, whatever is declared later."""
        kept = copy.copy(self)
        kept.variables, kept.constraints = dict(self.variables), dict(self.constraints)
        kept.groups, kept.slopes = list(self.groups), list(self.slopes)
        return kept

    def __getitem__(self, name: str) -> Variable:
        return self.variable(name)

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            return as_read(key) in self.variables
        return any(key is v for v in self.variables.values())

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.variables)

    def _named(self, given: Any) -> str:
        name = identifier(given)
        if name in self.variables or name in self.constraints:
            held = self.variables.get(name)
            what = "a constraint" if held is None else f"the name of a variable ({held.role})"
            raise InvalidName(f"{name!r} is already {what} of program {self.name!r}.")
        return name

    def free(self, name: str) -> str:
        """A name like this one that nothing has yet."""
        names = itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2)))
        return next(n for n in names if n not in self.variables and n not in self.constraints)

    def leaf(self, name: str, role: str, shape: Shape, dtype: DType, start: Any) -> Variable:
        """A new variable, of a name that was checked."""
        variable = Variable(self.arena, name, role, shape, dtype, start)
        self.variables[name] = variable
        return variable

    def parameter(
        self, name: str, value: Any = None, shape: Any = None, dtype: Any = None
    ) -> Variable:
        """Declare an input, and return it as a traced value.

        Parameters
        ----------
        name : str
            An identifier that the program does not have yet.
        value : array_like, optional
            The value where `solve` is given none. Integers are promoted to float64.
        shape : int or tuple of ints, optional
            By default the shape of `value`, or ().
        dtype : float32 or float64, optional
            By default that of `value`, or float64.

        Raises
        ------
        InvalidName, InvalidValue, ShapeMismatch, UnsupportedType

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> p.parameter("x", value=[1, 2]).dtype
        dtype('float64')
        """
        name = self._named(name)
        if name in OPTIONS:
            raise InvalidName(f"{name!r} is an option of solve: give the parameter another name.")
        array, shape, dtype = declared(f"parameter {name!r}", value, shape, dtype, True)
        return self.leaf(name, "parameter", shape, dtype, array)

    def unknown(
        self, name: str, shape: Any = None, start: Any = None, dtype: Any = None, scale: Any = None
    ) -> Variable:
        """Declare a value that equations determine, and return it as a traced value.

        Parameters
        ----------
        name : str
            An identifier that the program does not have yet.
        shape : int or tuple of ints, optional
            By default the shape of `start`, or (). A scalar start fills any shape.
        start : array_like, optional
            Where a nonlinear solve begins; zeros by default.
        dtype : float32 or float64, optional
            By default that of `start`, or float64.
        scale : float, optional
            In its own unit, a size below which it is as good as zero: its error is relative to
            this where its value is less.

        Raises
        ------
        InvalidName, InvalidValue, ShapeMismatch, UnsupportedType

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> p.unknown("u", shape=(3,), start=0.5).shape
        (3,)
        """
        name = self._named(name)
        if start is None or (shape is not None and np.ndim(start) == 0):
            full = normal_shape(f"unknown {name!r}", shape) or ()
            start = np.broadcast_to(0.0 if start is None else start, full)
        array, shape, dtype = declared(f"unknown {name!r}", start, shape, dtype)
        variable = self.leaf(name, "unknown", shape, dtype, array)
        variable.unknown = variable.index
        if scale is not None and not (np.ndim(scale) == 0 and 0 < float(scale) < np.inf):
            raise InvalidValue(f"unknown {name!r} has scale={scale!r}; expected a positive number.")
        variable.scale = 0.0 if scale is None else float(scale)
        return variable

    def define(self, name: str, value: Any) -> Variable:
        """Declare the constraint `name == value`, and return the new variable.

        Parameters
        ----------
        name : str
            An identifier that the program does not have yet; it names the constraint as well.
        value : traced value or array_like

        Raises
        ------
        ForeignValue, InvalidName, InvalidEquation

        Examples
        --------
        >>> import numpy as np, lagrad as lg
        >>> p = lg.Program()
        >>> x = p.parameter("x", value=0.0)
        >>> y = p.define("y", np.exp(x))
        >>> float(p.solve()["y"])
        1.0
        """
        name = self._named(name)
        if isinstance(value, Equation):
            raise InvalidEquation(f"define({name!r}, …) takes a value; subject_to takes equations.")
        right = self._side(value)
        if right.dtype.kind != "f":
            right = np.astype(right, float)  # type: ignore[call-overload]
        variable = self.leaf(name, "defined", right.shape, right.dtype, None)
        variable.unknown = right.unknown
        self.constraints[name] = Constraint(name, variable, right, variable, None)
        return variable

    def subject_to(self, equation: Any, name: str | None = None) -> Constraint:
        """Declare an equation between traced values, and return it.

        Parameters
        ----------
        equation : `lhs == rhs`
            Sides of shapes that broadcast together. The equation need not say which unknown it
            determines, and its size need only fit in total.
        name : str, optional
            By default the unknown on one side alone, or the one unknown in the equation.

        Raises
        ------
        ForeignValue, InvalidEquation, InvalidName, ShapeMismatch

        Examples
        --------
        >>> import lagrad as lg
        >>> p = lg.Program()
        >>> z = p.unknown("z", start=1.0)
        >>> p.subject_to(z * z == 2.0).name
        'z'
        """
        stated = equation.primitive if isinstance(equation, Expression) else None
        if stated is not None and stated.name == "equal":
            equation = Equation(*equation.arguments)
        if not isinstance(equation, Equation):
            raise InvalidEquation(f"subject_to takes an equation, lhs == rhs; got {equation!r}.")
        said = "" if name is None else f" {name!r}"
        left, right = self._side(equation.lhs), self._side(equation.rhs)
        try:
            residual: Any = np.subtract(right, left)
        except ShapeMismatch:
            raise ShapeMismatch(
                f"the equation{said} has sides of shapes {left.shape} and {right.shape}, "
                "which do not broadcast together."
            ) from None
        if isinstance(residual, Constant) or residual.unknown is None:
            raise InvalidEquation(
                f"the equation{said} has no unknown in it, so it constrains nothing; "
                "declare what it should determine with `unknown`."
            )
        name = self._constraint_name(name, left, right, residual.unknown)
        constraint = Constraint(name, left, right, None, residual)
        self.constraints[name] = constraint
        return constraint

    def _side(self, value: Any) -> Expression:
        """One side of a constraint as a node of this program."""
        if isinstance(value, (list, tuple)) or (
            isinstance(value, np.ndarray) and value.dtype == object
        ):
            value = stacked(np.array(value, dtype=object), self.arena)
        node = self.arena.lift(value)
        if isinstance(node, Constant) and not np.all(np.isfinite(node.value)):
            raise InvalidValue("a side of a constraint is NaN or infinite.")
        return node

    def _constraint_name(
        self, name: str | None, left: Expression, right: Expression, unknown: int
    ) -> str:
        if name is not None:
            name = identifier(name)
            other = self.variables.get(name)
            if name in self.constraints or (other is not None and other.role != "unknown"):
                raise InvalidName(f"{name!r} is already a name in program {self.name!r}.")
            return name
        sides = [s.name for s in (left, right) if isinstance(s, Variable) and s.role == "unknown"]
        if unknown != Expression.SEVERAL:
            only: Any = self.arena.nodes[unknown]
            sides.append(only.name)
        numbered = (f"equation_{k}" for k in itertools.count(len(self.constraints) + 1))
        return next(n for n in itertools.chain(sides, numbered) if n not in self.constraints)

    def variable(self, key: Any, what: str = "variable") -> Variable:
        """The variable of this name, or the variable itself."""
        if isinstance(key, Variable):
            if self.variables.get(key.name) is not key:
                raise ForeignValue(f"{key!r} does not belong to program {self.name!r}.")
            return key
        if isinstance(key, Expression):
            raise UnknownName(f"{key!r} is no variable; give it a name with define.")
        found = self.variables.get(as_read(key)) if isinstance(key, str) else None
        if found is None:
            raise UnknownName.among(key, self.variables, what)
        return found

    def variable_of(self, key: Any, role: str) -> Variable:
        """The variable of this name, or the variable itself, which must have that role."""
        found = {v.name: v for v in self.with_role(role)}
        if isinstance(key, Variable):
            self.variable(key)
        name = as_read(key.name if isinstance(key, Variable) else key)
        if name in found:
            return found[name]
        if name in self.variables:
            raise UnknownName(f"{name!r} is {self.variables[name].role}; expected: {role}.")
        raise UnknownName.among(name, found, role)

    def scalar(self, key: Any) -> Variable:
        """The variable of this name, which must have one entry."""
        variable = self.variable(key)
        if variable.size != 1:
            raise ShapeMismatch(
                f"{variable.name!r} has shape {variable.shape}; a gradient is of a scalar. "
                "Use jacobian, or define its sum."
            )
        return variable

    def with_role(self, *roles: str) -> list[Variable]:
        return [v for v in self.variables.values() if v.role in roles]

    def accuracy(self) -> float:
        """The accuracy that is asked for unless told: single precision gives less."""
        return 1e-3 if any(v.dtype == np.float32 for v in self.variables.values()) else 1e-6

    def parameter_values(self, given: Mapping[Any, Any]) -> dict[Variable, Array]:
        """An array for every parameter, given or declared."""
        named = {self.variable_of(key, "parameter").name: value for key, value in given.items()}
        values = {}
        for variable in self.with_role("parameter"):
            name = variable.name
            value = named.get(name, variable.start)
            if name in named and value is None:
                raise InvalidValue(f"parameter {name!r} was given None; leave it out instead.")
            if value is None:
                raise MissingValue(f"parameter {name!r} has no value: solve({name}=…).")
            values[variable] = fitted(f"parameter {name!r}", value, variable, True)
        return values


def identifier(name: Any) -> str:
    """A name as Python reads it (NFKC), which must be an identifier."""
    read: str = as_read(name)
    if not isinstance(name, str) or not plain(name).isidentifier() or keyword.iskeyword(read):
        raise InvalidName(f"{name!r} is no name: expected an identifier, such as 'x' or 'y_1'.")
    return read


def normal_shape(what: str, shape: Any) -> Shape | None:
    """A shape as a tuple of lengths."""
    if shape is None:
        return None
    try:
        lengths = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        normal = tuple(int(n) for n in lengths)
    except (TypeError, ValueError):
        raise ShapeMismatch(f"{what} has shape {shape!r}; expected lengths.") from None
    if normal != lengths or any(n < 0 for n in normal):
        raise ShapeMismatch(f"{what} has shape {shape!r}; expected lengths of zero or more.")
    return normal


def declared(
    what: str, value: Any, shape: Any, dtype: Any, infinite: bool = False
) -> tuple[Array | None, Shape, DType]:
    """The value, shape and dtype of a variable from what was given of them."""
    shape = normal_shape(what, shape)
    if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
        raise UnsupportedType(f"{what} has dtype {np.dtype(dtype)}; expected float32 or float64.")
    if value is None:
        return None, shape or (), np.dtype(dtype or float)
    array = real_floats(what, value, infinite)
    if shape is not None and array.shape != shape:
        raise ShapeMismatch(f"{what} has shape {shape}, and its value {array.shape}.")
    array = array if dtype is None else in_dtype(array, dtype)
    return array, array.shape, array.dtype


def real_floats(what: str, value: Any, infinite: bool = False) -> Array:
    """A read-only copy of floats, finite unless told otherwise; integers are promoted."""
    if isinstance(value, Expression):
        raise UnsupportedType(f"{what} was given {value!r}; expected numbers.")
    try:
        array = real_array(value, what)
    except ValueError as error:
        raise InvalidValue(f"{what}: {error}") from None
    if array.dtype.kind != "f":
        array = in_dtype(array, float)
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        place = f" at {np.argwhere(bad)[0].tolist()}" if bad.ndim else ""
        raise InvalidValue(f"{what} is {'NaN' if infinite else 'NaN or infinite'}{place}.")
    return array


def fitted(what: str, value: Any, variable: Variable, infinite: bool = False) -> Array:
    """A value in a variable's shape and dtype."""
    array = value if value is variable.start else real_floats(what, value, infinite)
    if array.shape != variable.shape:
        raise ShapeMismatch(f"{what} has shape {variable.shape}; the value given {array.shape}.")
    return in_dtype(array, variable.dtype)
