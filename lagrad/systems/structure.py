"""What determines what, before any number is known: blocks in the order of their solving.

Constraints and variables form a bipartite graph. A maximum flow, each equation giving as many
units as it has entries, pairs them; what stays unpaired leads to the under- and overdetermined
parts (Dulmage and Mendelsohn 1958), and the strong components of what is paired are the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse import csgraph

from lagrad.errors import StructureError
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.lazy_import import LazyImport
from lagrad.systems.constraint import Constraint
from lagrad.systems.matching import deficient_parts, matched, ones_at
from lagrad.systems.system import System
from lagrad.typing import Array

nx = LazyImport("networkx")


@dataclass(frozen=True, eq=False)
class Block:
    """Constraints that are solved together for their variables.

    An explicit block evaluates one definition. An implicit one solves `equations` for
    `unknowns`; its `definitions` are evaluated on the way.
    """

    variables: tuple[Variable, ...]
    constraints: tuple[Constraint, ...]

    @cached_property
    def unknowns(self) -> tuple[Variable, ...]:
        return tuple(v for v in self.variables if v.role == "unknown")

    @cached_property
    def equations(self) -> tuple[Constraint, ...]:
        return tuple(c for c in self.constraints if c.variable is None)

    @cached_property
    def definitions(self) -> tuple[Constraint, ...]:
        return tuple(c for c in self.constraints if c.variable is not None)

    @property
    def explicit(self) -> bool:
        return not self.equations

    @cached_property
    def size(self) -> int:
        """The number of scalar unknowns."""
        return sum(v.size for v in self.unknowns)

    @cached_property
    def parts(self) -> Array | None:
        """Which of several independent parts each unknown's entries belong to; None of one."""
        if all(v.apart is None for v in self.unknowns):
            return None
        rows = [
            np.full(v.size, -1 - k) if v.apart is None else v.apart
            for k, v in enumerate(self.unknowns)
        ]
        found, parts = np.unique(np.concatenate(rows), return_inverse=True)
        return parts if found.size > 1 else None

    @property
    def label(self) -> str:
        names = [v.name for v in self.variables]
        return "{" + ", ".join(names[:6]) + (", …" if len(names) > 6 else "") + "}"


@dataclass(frozen=True, eq=False)
class Structure:
    """The blocks of a system, in the order in which they are solved."""

    blocks: tuple[Block, ...]
    pairs: dict[int, list[Expression]]  # by a unit's root: the nodes that it is paired with

    def determines(self, constraint: Constraint) -> list[Variable]:
        """What a constraint is solved for: its own variable, or the unknowns it is paired with.

        An equation may be paired with the value of a definition, and that with an unknown.
        """
        if constraint.variable is not None:
            return [constraint.variable]
        found: dict[Variable, None] = {}
        seen: set[int] = set()
        stack = list(self.pairs.get(id(constraint), []))
        while stack:
            node = stack.pop()
            if isinstance(node, Variable) and node.role == "unknown":
                found[node] = None
            elif node.index not in seen:
                seen.add(node.index)
                stack.extend(self.pairs.get(-node.index - 1, []))
        return list(found)

    @cached_property
    def runs(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks with neighbouring explicit ones put together."""
        runs: list[tuple[Block, ...]] = []
        for explicit, group in groupby(self.blocks, lambda block: block.explicit):
            blocks = tuple(group)
            runs += [blocks] if explicit else [(block,) for block in blocks]
        return tuple(runs)


@dataclass(frozen=True, eq=False, slots=True)
class Unit:
    """A vertex pair of the graph: a constraint, or a node that several constraints share."""

    root: Expression
    constraint: Constraint | None

    @property
    def own(self) -> Expression | None:
        """The node that the unit evaluates; None of an equation."""
        return self.root if self.constraint is None else self.constraint.variable


def units_and_incidence(system: System) -> tuple[list[Unit], list[list[int]]]:
    """The units of a system and, for each, the indices of variables and shared nodes in it.

    Each node is walked once: one that a second constraint reaches becomes a unit of its own.
    """
    owner: dict[int, int] = {}
    shared: dict[int, Expression] = {}
    # An equation of size zero states nothing, and an unknown of size zero is known.
    constraints = [c for c in system.constraints.values() if c.size or c.variable is not None]
    for number, constraint in enumerate(constraints):
        stack = [constraint.root]
        while stack:
            node = stack.pop()
            if node.primitive is None:
                continue
            seen = owner.setdefault(node.index, number)
            if seen != number:
                shared[node.index] = node
            elif node.index not in shared:
                stack.extend(a for a in node.arguments if owner.get(a.index) != number)
    units = [Unit(c.root, c) for c in constraints]
    units += [Unit(shared[i], None) for i in sorted(shared)]
    ends = {*shared, *(v.index for v in system.variables.values() if determined(v))}
    incidence = []
    for unit in units:
        root_itself = unit.constraint is not None and unit.root.index in shared
        begin = root_itself or unit.root.primitive is None
        roots = [unit.root] if begin else unit.root.arguments
        reached = ends & {n.index for n in ancestors(roots, lambda n: n.index in ends, {})}
        if unit.own is not None:
            reached.add(unit.own.index)
        incidence.append(sorted(reached))
    return units, incidence


def determined(node: Expression) -> bool:
    """Whether a node is a variable that constraints determine."""
    return isinstance(node, Variable) and (
        node.role == "defined" or (node.role == "unknown" and node.size > 0)
    )


def analyse(system: System) -> Structure:
    """The blocks of a system; StructureError where its equations cannot determine it."""
    constraints = list(system.constraints.values())
    explicit = [Block((c.variable,), (c,)) for c in constraints if c.variable is not None]
    if len(explicit) == len(constraints) and not system.with_role("unknown"):
        # Definitions name only what was there before them: their order is a solving order.
        return Structure(tuple(explicit), {})
    pairing = Pairing(system)
    if deficiency := pairing.deficiency():
        # An implicit function may leave directions free, as x₀ - x₁ does; its start decides. So do
        # its multipliers.
        called = frozenset(v.index for group in system.groups for v in group.unknowns)
        dual = frozenset(v.index for v in system.with_role("unknown") if v.derivative)
        if not called or (pairing := Pairing(system, called | dual)).deficiency():
            raise StructureError(deficiency)
    return Structure(pairing.blocks(), pairing.paired())


class Pairing:
    """The bipartite graph of a system: its units, the nodes in them, and which are paired.

    The unknowns `within` are in every equation that depends on them, however it does.
    """

    def __init__(self, system: System, within: frozenset[int] = frozenset()) -> None:
        self.units, incidence = units_and_incidence(system)
        for unit, reached in zip(self.units, incidence, strict=True):
            if within and unit.own is None:
                nodes = ancestors([unit.root], lambda n: n.index in within, {})
                reached += sorted(within.intersection(n.index for n in nodes).difference(reached))
        variables = [v for v in system.variables.values() if determined(v)]
        self.nodes = [*variables, *(u.root for u in self.units if not u.constraint)]
        self.place = {node.index: j for j, node in enumerate(self.nodes)}
        rows = np.repeat(np.arange(len(incidence)), [len(i) for i in incidence])
        columns = np.array([self.place[j] for reached in incidence for j in reached], dtype=int)
        self.pattern = ones_at(rows, columns, (len(incidence), len(self.nodes)))
        self.unit_sizes = np.array([unit.root.size for unit in self.units])
        self.node_sizes = np.array([node.size for node in self.nodes])
        self.pairs = matched(self.pattern, self.unit_sizes, self.node_sizes)

    def paired(self) -> dict[int, list[Expression]]:
        """The nodes that each equation, or each evaluated node, is paired with."""
        keys = [id(u.constraint) if u.own is None else -u.own.index - 1 for u in self.units]
        columns, spans = self.pairs.indices.tolist(), pairwise(self.pairs.indptr.tolist())
        return {
            key: [self.nodes[j] for j in columns[begin:end]]
            for key, (begin, end) in zip(keys, spans, strict=True)
        }

    def surplus(self) -> list[tuple[list[Constraint], list[Variable]]]:
        """The parts with more equations than unknowns; none where unknowns are missing as well.

        With all that they are made of: a definition in them is as good as written out.
        """
        over, under = deficient_parts(self.pattern, self.pairs, self.unit_sizes, self.node_sizes)
        if under[1].size:
            return []
        m, n = self.pattern.shape
        own = [(i, self.place[u.own.index]) for i, u in enumerate(self.units) if u.own is not None]
        rows, columns = np.array(own, dtype=int).reshape(-1, 2).T
        evaluated = ones_at(rows, columns, (m, n))
        entries, back = self.pattern, (self.pairs + evaluated).T
        graph = sparse.block_array([[None, entries], [back, None]], format="csr")
        inside = np.zeros(m + n, bool)
        inside[over[0]] = True
        while not inside[reached := graph[inside].indices].all():
            inside[reached] = True
        _, labels = csgraph.connected_components(graph[inside][:, inside], connection="weak")
        label = dict(zip(np.flatnonzero(inside).tolist(), labels.tolist(), strict=True))
        parts: list[tuple[list[Constraint], list[Variable]]]
        parts = [([], []) for _ in range(max(label.values()) + 1)]
        for k, part in label.items():
            constraint = self.units[k].constraint if k < m else None
            node = self.nodes[k - m] if k >= m else None
            if constraint is not None and constraint.variable is None:
                parts[part][0].append(constraint)
            elif isinstance(node, Variable) and node.role == "unknown":
                parts[part][1].append(node)
        return parts

    def deficiency(self) -> str:
        """Which equations are too many, and which unknowns; nothing where all are paired."""
        if self.pairs.sum() == self.unit_sizes.sum() == self.node_sizes.sum():
            return ""
        parts = deficient_parts(self.pattern, self.pairs, self.unit_sizes, self.node_sizes)
        lines = []
        for what, part in zip(("over", "under"), parts, strict=True):
            # A definition and its own variable always balance: only the rest is in question.
            rows, columns = self.balanced(*part)
            constraints = [c for i in rows if (c := self.units[i].constraint) is not None]
            stated = [c for c in constraints if c.variable is None]
            variables = [v for j in columns if isinstance(v := self.nodes[j], Variable)]
            unknown = [v for v in variables if v.role == "unknown"]
            if not stated and not unknown:
                continue
            have, want = sum(c.size for c in stated), sum(v.size for v in unknown)
            lines.append(
                f"  {what}determined: {have} equation{'s' * (have != 1)} for {want} "
                f"unknown{'s' * (want != 1)}: equations {listed([c.name for c in stated])}; "
                f"unknowns {listed([v.name for v in unknown])}."
            )
        lines.append("  Add or drop equations so that each part has as many as unknowns.")
        return "the system is structurally singular.\n" + "\n".join(lines)

    def balanced(self, rows: Array, columns: Array) -> tuple[list[int], list[int]]:
        """A part of the graph, in which each definition has its own variable.

        So has what several equations share. Where a part has only one of the two, the equation
        that determines the other, or the unknown that it determines, takes its place.
        """
        own = {i: self.place[u.own.index] for i, u in enumerate(self.units) if u.own is not None}
        unit = {j: i for i, j in own.items()}
        by_row, by_column = self.pairs.tocsr(), self.pairs.tocsc()

        def completed(have: Array, others: Array, own: dict[int, int], pairs: Any) -> list[int]:
            found, known = dict.fromkeys(have.tolist()), set(others.tolist())
            waiting = [own[i] for i in found if i in own and own[i] not in known]
            while waiting:
                j = waiting.pop()
                known.add(j)
                for i in pairs.indices[pairs.indptr[j] : pairs.indptr[j + 1]].tolist():
                    found[i] = None
                    if i in own and own[i] not in known:
                        waiting.append(own[i])
            return sorted(found)

        return completed(rows, columns, own, by_column), completed(columns, rows, unit, by_row)

    def blocks(self) -> tuple[Block, ...]:
        """Strong components in the order of dependence, ties in the order of declaration."""
        m, n = self.pattern.shape
        # A unit needs the values of its nodes; a node needs the units that it is paired with. A
        # definition is never inverted: its own node needs it, whatever the two are paired with.
        own = [(self.place[u.own.index], i) for i, u in enumerate(self.units) if u.own is not None]
        rows, columns = np.array(own, dtype=int).reshape(-1, 2).T
        evaluated = self.pairs.T + ones_at(rows, columns, (n, m))
        needs = sparse.block_array([[None, self.pattern], [evaluated, None]], format="csr")
        count, labels = csgraph.connected_components(needs, directed=True, connection="strong")
        edges = needs.tocoo()
        between = labels[edges.row] != labels[edges.col]
        after, before = labels[edges.row][between], labels[edges.col][between]
        # csgraph does not document the order of its labels, so it is checked before it is used.
        order = list(range(count))
        if not (before < after).all():
            condensed = nx.DiGraph(zip(before.tolist(), after.tolist(), strict=True))
            condensed.add_nodes_from(range(count))
            order = list(nx.lexicographical_topological_sort(condensed))
        constraints: list[list[Constraint]] = [[] for _ in range(count)]
        variables: list[list[Variable]] = [[] for _ in range(count)]
        for i, unit in enumerate(self.units):
            if unit.constraint is not None:
                constraints[labels[i]].append(unit.constraint)
        for j, node in enumerate(self.nodes):
            if isinstance(node, Variable):
                variables[labels[m + j]].append(node)
        return tuple(
            Block(tuple(variables[k]), tuple(constraints[k])) for k in order if constraints[k]
        )


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first hundred of many."""
    if not names:
        return "none"
    rest = f" and {len(names) - 100} more" if len(names) > 100 else ""
    return ", ".join(map(repr, names[:100])) + rest
