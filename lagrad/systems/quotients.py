"""Whether a program divides in turn, as an iteration that is written out does."""

from lagrad.systems.constraint import definitions
from lagrad.systems.system import System

# Quotients that depend on each other make an iteration from so many on, and by so few numbers.
IN_TURN, FEW = 4, 16


def quotients_in_turn(system: System) -> bool:
    """Whether a program divides by few numbers, which quotients have made, again and again.

    So do steps of an iteration that are written one after the other.
    """
    defined, depths = definitions(system), dict[int, int]()
    for node in system.arena.nodes:
        right, primitive = defined.get(node.index), node.primitive
        arguments = node.arguments if right is None else (right,)
        depth = max((depths.get(a.index, 0) for a in arguments), default=0)
        if primitive is not None and primitive.singular is not None:
            depth += primitive.singular(node) and node.arguments[-1].size <= FEW
        depths[node.index] = depth
    return max(depths.values(), default=0) >= IN_TURN
