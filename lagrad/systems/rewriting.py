"""Systems copied: into a graph of their own, or into another system in the place of a call."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import Graph, ancestors
from lagrad.systems.constraint import definitions
from lagrad.systems.system import System

# What stands in the place of a node, given what its arguments became; None for itself.
Instead = Callable[[Expression, dict[int, Expression]], Expression | None]


def transplanted(
    order: Iterable[Expression],
    graph: Graph,
    leaf: Callable[[Variable, dict[int, Expression]], Expression],
    instead: Instead | None = None,
) -> dict[int, Expression]:
    """The nodes in another graph, by their old index; `leaf` says what becomes of variables.

    `instead` may say what stands for other nodes.
    """
    node: dict[int, Expression] = {}
    for old in order:
        other = None if instead is None else instead(old, node)
        if other is not None:
            node[old.index] = other
        elif isinstance(old, Variable):
            node[old.index] = leaf(old, node)
        elif isinstance(old, Constant):
            node[old.index] = graph.constant(old.value, old.made)
        else:
            assert old.primitive is not None
            arguments = tuple(node[a.index] for a in old.arguments)
            node[old.index] = graph.apply(old.primitive, arguments, old.parameters)
    return node


def everything(system: System) -> list[Expression]:
    """All nodes that a system's constraints and groups are made of, in order."""
    roots = [
        *system.variables.values(),
        *(side for c in system.constraints.values() for side in (c.lhs, c.rhs, c.root)),
        *(node for group in system.groups for node in group.given),
    ]
    return ancestors(roots, lambda node: False, definitions(system))


def copied(
    system: System,
    name: str,
    roles: Mapping[str, str] | None = None,
    instead: Callable[[System], Instead] | None = None,
) -> System:
    """A system with the same variables and constraints, in a graph of its own.

    Variables that `roles` names have another role there. `instead` is given the copy, where it may
    state more.
    """
    copy = type(system)(name)
    copy.derived = system.derived
    defined = definitions(system)

    def leaf(old: Variable, node: dict[int, Expression]) -> Variable:
        role = (roles or {}).get(old.name, old.role)
        new = copy.leaf(old.name, role, old.shape, old.dtype, old.start)
        new.scale, new.derivative, new.apart = old.scale, old.derivative, old.apart
        if old.role == "unknown":
            new.unknown = new.index
        elif old.index in defined:
            new.unknown = node[defined[old.index].index].unknown
        return new

    order = everything(system)
    node = transplanted(order, copy.arena, leaf, None if instead is None else instead(copy))
    copy.variables = {n: copy.variables[n] for n in [*system.variables, *copy.variables]}
    for c in system.constraints.values():
        variable = None if c.variable is None else copy.variables[c.variable.name]
        copy.constraints[c.name] = c.moved(node, c.name, variable)
    copy.groups = [group.moved(node) for group in system.groups]
    return copy


def given(system: System, known: Mapping[str, str]) -> Callable[[System], Instead]:
    """Data, of the names in `known`, in the place of what some variables are defined by."""

    def instead(copy: System) -> Instead:
        held: dict[int, Expression] = {}
        for of, data in known.items():
            v = system.variables[of]
            held[system.constraints[of].rhs.index] = copy.leaf(data, "data", v.shape, v.dtype, None)
        return lambda old, node: held.get(old.index)

    return instead


def inlined(
    system: System, into: System, given: Mapping[str, Expression], starts: Mapping[str, object]
) -> dict[str, Expression]:
    """A system's constraints stated within another one; its variables' values there, by name.

    Parameters
    ----------
    given : mapping
        What stands for each parameter, each array of data, and unknowns that are known.
    starts : mapping
        Where further unknowns start, by name.
    """
    defined = definitions(system)

    def leaf(old: Variable, node: dict[int, Expression]) -> Expression:
        if old.name in given:
            return given[old.name]
        if old.index in defined:
            return node[defined[old.index].index]
        assert old.role == "unknown", old
        start = starts.get(old.name, old.start)
        new = into.unknown(into.free(old.name), old.shape, start, old.dtype, old.scale or None)
        new.derivative = old.derivative
        return new

    node = transplanted(everything(system), into.arena, leaf)
    for c in system.constraints.values():
        if c.residual is not None:
            name = into.free(c.name)
            into.constraints[name] = c.moved(node, name)
    into.groups += [group.moved(node) for group in system.groups]
    return {name: node[v.index] for name, v in system.variables.items()}


def restated(
    roots: Sequence[Expression], system: System, graph: Graph, values: Mapping[str, Expression]
) -> list[Expression]:
    """Nodes of a system in another graph, where its variables have these values there."""
    order = ancestors(roots, lambda node: isinstance(node, Variable), {})
    node = transplanted(order, graph, lambda old, _: values[old.name])
    return [node[root.index] for root in roots]
