"""Nodes of equal form, found in one pass over a graph: each form is one array of rows.

Whoever declares a grid or a network one scalar at a time writes the same few equations again and
again, of other variables and other numbers. Two nodes have one form where the same primitive is
applied to arguments of one form; unknowns are one form, parameters another, numbers a third. So a
form is a row of columns, which say in which rows of other forms the arguments stand. Sums of three
terms and more are one form, however many terms each of them has: their terms are rows of others.

What has no form, as a product of matrices in between, makes none of it worth while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.primitive import Primitive
from lagrad.primitives.elementwise import add, power, subtract
from lagrad.systems.constraint import definitions
from lagrad.systems.system import System
from lagrad.typing import Array, Parameters

DOUBLE = np.dtype(float)
# Sums of fewer terms are differences as they are written.
TERMS = 3
# What moves entries about, through which a number is found in the array that it is an entry of.
MOVED, APPLIED = "moved", "applied"
MOVES = frozenset(["getitem", "gather", "reshape", "transpose"])


class Irregular(Exception):
    """A node that has no form."""


@dataclass(eq=False)
class Form:
    """Rows of one form.

    Attributes
    ----------
    primitive : Primitive or None
        None of what is given or defined, of numbers, and of sums.
    arguments : tuple of Form
        Of a sum those of its terms.
    columns : list of lists
        For each argument, the rows that it has; of a sum the row, its term's row and its sign.
    values : list
        Numbers, of a form of such.
    made : list
        What they are in another precision, each where it is rounded.
    of : Variable or None
        The array whose entries its rows are.
    scalars : list of Variable
        Of scalars that are given, or defined, each row's.
    """

    primitive: Primitive | None = None
    parameters: Parameters = ()
    arguments: tuple[Form, ...] = ()
    columns: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    of: Variable | None = None
    scalars: list[Variable] = field(default_factory=list)
    length: int = 0
    place: dict[Form, Any] = field(default_factory=dict)  # of a sum, the column of each kind

    @property
    def is_sum(self) -> bool:
        return self.primitive is None and bool(self.arguments) and not self.scalars

    @property
    def is_defined(self) -> bool:
        return bool(self.scalars) and bool(self.arguments)

    @property
    def is_number(self) -> bool:
        return bool(self.values)


class Forms:
    """The forms of the nodes that some roots are made of.

    Attributes
    ----------
    all : list of Form
        Each after those of its arguments.
    at : dict
        The form of each node and its row there, by the node's index.
    """

    def __init__(
        self, system: System, roots: Iterable[Expression], level: Mapping[int, int]
    ) -> None:
        self.all: list[Form] = []
        self.at: dict[int, tuple[Form, int]] = {}
        self._level = level  # of unknowns that are found one after the other
        self._found: dict[Any, Form] = {}
        self._takes: dict[Any, str] = {}
        self._places: dict[int, tuple[Form, Array]] = {}
        self._terms: dict[int, list[tuple[float, Expression]]] = {}
        # Equations that are sums are one form, whatever they add up, at each level.
        equations = [c for c in system.constraints.values() if c.variable is None]
        self._roots = {c.root.index: level.get(id(c), 0) for c in equations}
        self._last: dict[int, Form] = {}
        defined, roots = definitions(system), list(roots)
        order = ancestors(roots, lambda node: False, defined)
        uses, within = uses_of(order, roots)
        inner = {k for k in within if uses[k] == 1}
        self._roots = {k: at for k, at in self._roots.items() if uses[k] == 1}
        for node in order:
            if node.index in defined:
                self._define(node, *self.at[defined[node.index].index])
            elif type(node) is Constant:
                if not node.shape:
                    self._number(node)
            elif node.primitive is None:
                self._given(node)
            elif node.shape:
                self._part(node)
            elif is_sum(node):
                self._sum(node, node.index in inner)
            else:
                self._apply(node)
        for form in self._last.values():
            form.arguments, form.columns = tuple(form.place), list(form.place.values())
            self.all.append(form)

    def _form(self, key: Any, **what: Any) -> Form:
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = Form(**what)
            self.all.append(found)
        return found

    def _number(self, node: Constant) -> None:
        form = self._form(type(node.value))
        self.at[node.index] = form, len(form.values)
        form.values.append(node.value)
        form.made.append(node.made)
        form.length += 1

    def _given(self, node: Expression) -> None:
        """A variable: the rows of an array, or of the scalars of its role."""
        if not isinstance(node, Variable) or node.dtype != DOUBLE:
            raise Irregular
        if node.shape:
            form = self._form(node.index, of=node, length=node.size)
            self._places[node.index] = form, np.arange(node.size).reshape(node.shape)
        else:
            form = self._form((node.role, self._level.get(node.index, 0)))
            form.scalars.append(node)
            self.at[node.index] = form, form.length
            form.length += 1

    def _define(self, node: Expression, kind: Form, row: int) -> None:
        """A variable that equals a row of some form."""
        assert isinstance(node, Variable)
        form = self._form(("defined", kind), arguments=(kind,), columns=[[]])
        form.columns[0].append(row)
        form.scalars.append(node)
        self.at[node.index] = form, form.length
        form.length += 1

    def _part(self, node: Expression) -> None:
        """What only moves the entries of an array: where each of them stands in that."""
        primitive = node.primitive
        if primitive is None or primitive.name not in MOVES:
            raise Irregular
        form, places = self._places.get(node.arguments[0].index) or irregular()
        self._places[node.index] = form, primitive.kernel(node.parameters)(places)

    def _sum(self, node: Expression, inner: bool) -> None:
        """A sum, its terms found in what it adds up; one that only another sum needs waits."""
        left, right = node.arguments
        terms = self._terms.pop(left.index, None) or [(1.0, left)]
        sign = 1.0 if node.primitive is add else -1.0
        others = self._terms.pop(right.index, None) or [(1.0, right)]
        terms += [(sign * s, term) for s, term in others]
        if inner:
            self._terms[node.index] = terms
            return
        if len(terms) < TERMS:
            self._apply(node)
            return
        placed = []
        for sign, term in terms:
            kind, row = self.at.get(term.index) or irregular()
            # A zero that a loop starts from is no term.
            if not (kind.values and kind.values[row] == 0):
                placed.append((kind, row, sign))
        if node.index in self._roots:
            form = self._last.setdefault(self._roots[node.index], Form())
            for kind, _, _ in placed:
                form.place.setdefault(kind, [])
        else:
            form = self._sum_of(tuple(dict.fromkeys([kind for kind, _, _ in placed])))
        row_here = form.length
        for kind, row, sign in placed:
            form.place[kind].append((row_here, row, sign))
        self.at[node.index] = form, row_here
        form.length = row_here + 1

    def _sum_of(self, kinds: tuple[Form, ...]) -> Form:
        """The form of sums of terms of some forms, in whichever order."""
        key = frozenset(kinds)
        form = self._found.get(key)
        if form is None:
            form = self._form(key, arguments=kinds, columns=[[] for _ in kinds])
            form.place = dict(zip(kinds, form.columns, strict=True))
        return form

    def _apply(self, node: Expression) -> None:
        primitive: Any = node.primitive
        if primitive not in self._takes:
            self._takes[primitive] = taken(primitive)
        if self._takes[primitive] == MOVED:
            form, places = self._places.get(node.arguments[0].index) or irregular()
            row = primitive.kernel(node.parameters)(places)
            self.at[node.index] = form, int(row)
            return
        found = [self.at.get(a.index) or irregular() for a in node.arguments]
        kinds = tuple([form for form, _ in found])
        key: Any = (primitive, node.parameters, kinds)
        if primitive is power and kinds[1].values:
            # The slope by the base depends on what number the exponent is.
            key = (*key, node.arguments[1].index)
        form = self._found.get(key)
        if form is None:
            what = {"primitive": primitive, "parameters": node.parameters}
            form = self._form(key, arguments=kinds, columns=[[] for _ in kinds], **what)
        for column, (_, row) in zip(form.columns, found, strict=True):
            column.append(row)
        self.at[node.index] = form, form.length
        form.length += 1


def taken(primitive: Any) -> str:
    """Whether a primitive moves entries, or is of one entry of each argument; else Irregular."""
    if primitive.name in MOVES:
        return MOVED
    if not primitive.elementwise or primitive.rules or primitive.joint is not None:
        raise Irregular
    return APPLIED


def irregular() -> Any:
    raise Irregular


def is_sum(node: Expression) -> bool:
    """Whether a node adds numbers up: of truths `+` is "or", and a sum of those is no such sum."""
    return (node.primitive is add or node.primitive is subtract) and node.dtype == DOUBLE


def uses_of(
    order: Sequence[Expression], roots: Iterable[Expression]
) -> tuple[Counter[int], set[int]]:
    """How often each node is needed, and which sums another sum needs."""
    uses = Counter(root.index for root in roots)
    within: set[int] = set()
    for node in order:
        adds = is_sum(node)
        for a in node.arguments:
            uses[a.index] += 1
            if adds and is_sum(a):
                within.add(a.index)
    return uses, within
