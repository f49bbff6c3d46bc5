"""A system that was declared one scalar at a time, as one of arrays.

Equations of equal form are one equation between arrays, the unknowns one array: what is found of
it (its plans, its Jacobian, its bounds) costs so many operations as there are forms, not as there
are scalars. Which scalar stands in which entry is kept, and each is judged for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse import csgraph

from lagrad.expressions.expression import Expression, Variable
from lagrad.systems.constraint import Constraint
from lagrad.systems.equal_forms import DOUBLE, Form, Forms, Irregular
from lagrad.systems.matching import ones_at
from lagrad.systems.system import System
from lagrad.typing import Array

# From so many unknowns on, and so many nodes to a form, arrays cost less.
UNKNOWNS, NODES = 150, 4
# Entries of the incidence, for each unknown and in all, that are too many.
ENTRIES, AT_LEAST = 60, 4_000_000
# Blocks in a row beyond which all is one block.
LEVELS = 40


@dataclass(frozen=True, eq=False)
class Place:
    """Where a scalar, or an array, of the system stands: entries of a variable of the arrays.

    Attributes
    ----------
    variable : Variable or Constraint
    entries : int or array of ints
        Places in that, made flat, in the shape of what stands there.
    """

    variable: Any
    entries: Any


class AsArrays:
    """A system of arrays that says the same as one of scalars.

    Attributes
    ----------
    system : System
        That of the arrays.
    variables, constraints : dict
        The place of each variable and of each equation of the scalars.
    scalars_of : dict
        The variables that stand in each array, in order.
    """

    def __init__(self, scalars: System, forms: Forms, levels: Levels) -> None:
        self.scalars, self._forms, self._levels = scalars, forms, levels
        self.system = type(scalars)(f"{scalars.name}, as arrays")
        self.variables: dict[Variable, Place] = {}
        self.constraints: dict[Constraint, Place] = {}
        self._made: dict[Form, Expression] = {}
        for form in forms.all:
            self._made[form] = self._emitted(form)
        self._unused()
        self._equations()
        self.scalars_of: dict[Variable, list[Variable]] = {
            v: [] for v in self.system.variables.values()
        }
        for v, place in self.variables.items():
            self.scalars_of[place.variable].append(v)
        del self._forms, self._levels, self._made  # as large as the graph, and done with

    def _emitted(self, form: Form) -> Any:
        """The array of a form's rows."""
        graph = self.system.arena
        if form.is_number:
            return form
        if form.is_sum:
            return self._added(form)
        if form.is_defined:
            return self._defined(form)
        if form.primitive is None:
            return self._given(form)
        arguments = [
            graph.lift(self._rows(kind, np.array(column)))
            for kind, column in zip(form.arguments, form.columns, strict=True)
        ]
        found = graph.apply(form.primitive, tuple(arguments), form.parameters)
        return np.broadcast_to(found, (form.length,)) if found.shape == () else found

    def _given(self, form: Form) -> Any:
        """The variable of what is given: an array of its own, or the scalars of one role."""
        if form.of is not None:
            old = form.of
            new = self._leaf(old.name, old.role, old.shape, old.start)
            new.scale = old.scale
            self.variables[old] = Place(new, np.arange(old.size).reshape(old.shape))
            return np.reshape(new, (old.size,)) if len(old.shape) != 1 else new
        scalars = form.scalars
        role = scalars[0].role
        starts = [np.nan if v.start is None else float(v.start) for v in scalars]
        new = self._leaf(f"{role}s", role, (form.length,), np.array(starts))
        new.scale = np.array([v.scale for v in scalars])
        new.apart = np.array([self._levels.part.get(v.index, 0) for v in scalars])
        for k, v in enumerate(scalars):
            self.variables[v] = Place(new, k)
        return new

    def _defined(self, form: Form) -> Variable:
        """What is defined, as one definition."""
        rows = np.array(form.columns[0])
        whole: Any = np.broadcast_to(self._rows(form.arguments[0], rows), rows.shape)
        new = self.system.define(self.system.free("definitions"), whole)
        new.apart = np.zeros(new.size, dtype=int)
        constraint = self.system.constraints[new.name]
        for k, v in enumerate(form.scalars):
            self.variables[v] = Place(new, k)
            self.constraints[self.scalars.constraints[v.name]] = Place(constraint, k)
        return new

    def _unused(self) -> None:
        """What no equation depends on: parameters, and unknowns of size zero."""
        for v in self.scalars.with_role("parameter", "unknown"):
            if v not in self.variables:
                self._given(Form(of=v, length=v.size))

    def _leaf(self, name: str, role: str, shape: Any, start: Any) -> Variable:
        new = self.system.leaf(self.system.free(name), role, shape, DOUBLE, start)
        if role == "unknown":
            new.unknown = new.index
        return new

    def _rows(self, form: Form, rows: Array) -> Any:
        """Some rows of a form, as an array; as a number where all are one."""
        n, length = rows.size, form.length
        first = int(rows[0]) if n else 0
        if form.is_number:
            values = [form.values[k] for k in rows.tolist()]
            if all(v == values[0] for v in values):
                return self.system.arena.constant(values[0], form.made[first])
            made = [form.made[k] for k in rows.tolist()]
            return self.system.arena.constant(np.array(values), together(values, made))
        whole: Any = self._made[form]
        if n == length and np.array_equal(rows, np.arange(n)):
            return whole
        if np.array_equal(rows, np.arange(first, first + n)):
            return whole[first : first + n]
        return whole[first] if (rows == first).all() else whole[rows]

    def _added(self, form: Form) -> Any:
        """Sums: the rows of each kind of terms, as many times as they are in each sum."""
        total: Any = 0.0
        for kind, column in zip(form.arguments, form.columns, strict=True):
            rows, terms, signs = (np.array(c) for c in zip(*column, strict=True))
            one_each = rows.size == form.length and np.array_equal(rows, np.arange(rows.size))
            if kind.is_number:
                total = total + self._constant_terms(kind, rows, terms, signs, form.length)
            elif one_each and (signs == signs[0]).all():
                piece = self._rows(kind, terms)
                total = total + piece if signs[0] > 0 else total - piece
            else:
                shape = (form.length, kind.length)
                matrix = sparse.csr_array((signs, (rows, terms)), shape=shape)
                total = total + matrix @ self._made[kind]
        return total

    def _constant_terms(
        self, kind: Form, rows: Array, terms: Array, signs: Array, length: int
    ) -> Any:
        """The numbers that each sum has among its terms, added up."""
        values = np.array([float(kind.values[k]) for k in terms.tolist()])
        made = together(values, [kind.made[k] for k in terms.tolist()])
        matrix = sparse.csr_array((signs, (rows, np.arange(rows.size))), shape=(length, rows.size))
        if made is None:
            return self.system.arena.constant(matrix @ values)
        return self.system.arena.constant(
            matrix @ values, lambda dtype: matrix.astype(dtype) @ made(dtype)
        )

    def _equations(self) -> None:
        """Equations, those of one form and of one level together."""
        alike: dict[Any, list[Constraint]] = {}
        for c in self.scalars.constraints.values():
            if c.variable is None:
                key = self._forms.at[c.root.index][0], self._levels.of.get(id(c), 0)
                alike.setdefault(key, []).append(c)
        for (form, _), equations in alike.items():
            rows = np.array([self._forms.at[c.root.index][1] for c in equations])
            root: Any = np.broadcast_to(self._rows(form, rows), rows.shape)
            name = self.system.free("equations")
            residual: Any = root if not isinstance(root, Variable) else root + 0.0
            zero = self.system.arena.constant(np.zeros(rows.size))
            self.system.constraints[name] = Constraint(name, zero, residual, None, residual)
            for k, c in enumerate(equations):
                self.constraints[c] = Place(self.system.constraints[name], k)


def together(values: Any, made: Sequence[Any]) -> Any:
    """What numbers are in another precision, in a row; None where none of them is rounded."""
    if all(m is None for m in made):
        return None
    pairs = list(zip(values, made, strict=True))
    return lambda dtype: np.array([v if m is None else m(dtype) for v, m in pairs], dtype)


def as_arrays(system: System) -> AsArrays | None:
    """The system as one of arrays; None where scalars serve as well."""
    if system.groups or system.derived:
        return None
    if any(v.dtype != DOUBLE for v in system.variables.values()):
        return None
    constraints = list(system.constraints.values())
    if any(c.shape for c in constraints):
        return None
    roots = [*system.with_role("defined"), *(c.root for c in constraints)]
    try:
        forms = Forms(system, roots, {})
        levels = Levels(system, forms)
        if levels.many:
            forms = Forms(system, roots, levels.of)
    except Irregular:
        return None
    rows = sum(form.length for form in forms.all if form.arguments)
    if rows < NODES * len(forms.all):
        return None
    return AsArrays(system, forms, levels)


class Levels:
    """Which unknowns must be found before which, by levels: level k needs those below it.

    Attributes
    ----------
    of : dict
        The level of each scalar unknown, by its index, and of each equation, by its `id`.
    part : dict
        The block that each scalar unknown would be in, by its index.
    many : bool
        Whether there is more than one.
    """

    def __init__(self, system: System, forms: Forms) -> None:
        self.of: dict[int, int] = {}
        self.part: dict[int, int] = {}
        self.many = False
        unknowns = system.with_role("unknown")
        equations = [c for c in system.constraints.values() if c.variable is None]
        begin = np.cumsum([0, *(v.size for v in unknowns)])
        columns = dict(zip([v.index for v in unknowns], begin.tolist(), strict=False))
        pattern = self._incidence(forms, equations, columns, int(begin[-1]))
        if pattern.shape[0] != pattern.shape[1]:
            raise Irregular  # which says what is too many
        paired = csgraph.maximum_bipartite_matching(pattern, perm_type="column")
        if (paired < 0).any():
            raise Irregular
        # An unknown needs all others of the equation that it is paired with; an array's entries
        # need one another.
        edges = pattern.tocoo()
        tails, heads = [paired[edges.row]], [edges.col]
        for v, start in zip(unknowns, begin, strict=False):
            if v.size > 1:
                ring = np.arange(start, start + v.size)
                tails.append(ring)
                heads.append(np.roll(ring, 1))
        n = pattern.shape[0]
        needs = ones_at(np.concatenate(tails), np.concatenate(heads), (n, n))
        count, labels = csgraph.connected_components(needs, directed=True, connection="strong")
        if count == 1:
            return
        for v, start in zip(unknowns, begin, strict=False):
            self.part[v.index] = int(labels[start])
        level = levels_of(count, labels, needs.tocoo())
        if level is None:
            return
        self.many = bool(level.any())
        each = level[labels]
        for v, start in zip(unknowns, begin, strict=False):
            self.of[v.index] = int(each[start])
        for c, column in zip(equations, paired.tolist(), strict=True):
            self.of[id(c)] = int(each[column])

    def _incidence(
        self, forms: Forms, equations: Sequence[Constraint], columns: Mapping[int, int], n: int
    ) -> Any:
        """Which unknowns are in which equations."""
        depends: dict[Form, Any] = {}
        for form in forms.all:
            if form.arguments:
                parts = [
                    picked(depends[kind], column, form)
                    for kind, column in zip(form.arguments, form.columns, strict=True)
                    if depends[kind] is not None
                ]
                depends[form] = sum(parts[1:], parts[0]).astype(bool) if parts else None
                if parts and depends[form].nnz > max(AT_LEAST, ENTRIES * (n + form.length)):
                    raise Irregular
                continue
            entries = self._entries(form, columns)
            if entries is None:
                depends[form] = None
            else:
                depends[form] = ones_at(np.arange(form.length), entries, (form.length, n))
        groups: dict[Form, list[tuple[int, int]]] = {}
        for k, c in enumerate(equations):
            form, row = forms.at[c.root.index]
            groups.setdefault(form, []).append((k, row))
        order: list[int] = []
        pieces = []
        for form, members in groups.items():
            numbers, rows = zip(*members, strict=True)
            if depends[form] is None:
                raise Irregular
            order += numbers
            pieces.append(sparse.csr_array(depends[form])[np.array(rows)])
        if not pieces:
            raise Irregular
        return sparse.csr_array(sparse.vstack(pieces))[np.argsort(order)]

    def _entries(self, form: Form, columns: Mapping[int, int]) -> Any:
        """The columns of a form's rows, where they are unknowns."""
        if form.is_number:
            return None
        if form.of is not None:
            start = columns.get(form.of.index)
            return None if start is None else np.arange(start, start + form.length)
        found = [columns.get(v.index) for v in form.scalars]
        return None if found[0] is None else np.array(found)


def picked(depends: Any, column: Any, form: Form) -> Any:
    """What the rows of an argument depend on, for each row of a form."""
    if not form.is_sum:
        return sparse.csr_array(depends)[np.array(column)]
    rows, terms, _ = (np.array(c) for c in zip(*column, strict=True))
    return ones_at(rows, terms, (form.length, depends.shape[0])) @ depends


def levels_of(count: int, labels: Array, edges: Any) -> Array | None:
    """The longest way down from each component; None where that is long."""
    after, before = labels[edges.row], labels[edges.col]
    between = after != before
    after, before = after[between], before[between]
    level = np.zeros(count, dtype=int)
    for _ in range(LEVELS):
        higher = level.copy()
        np.maximum.at(higher, after, level[before] + 1)
        if np.array_equal(higher, level):
            return level
        level = higher
    return None
