"""Walks over the nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lagrad.expressions.expression import Expression


def ancestors(
    outputs: Iterable[Expression],
    known: Callable[[Expression], bool],
    defined: dict[int, Expression],
) -> list[Expression]:
    """The nodes that the outputs need, in order, those that are `known` as leaves.

    A defined variable is looked through to its right side, which comes before it.
    """
    found: dict[int, Expression] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.index in found:
            continue
        found[node.index] = node
        if known(node):
            continue
        if node.index in defined:
            stack.append(defined[node.index])
        else:
            stack.extend(node.arguments)
    return [found[i] for i in sorted(found)]
