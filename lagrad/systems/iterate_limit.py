"""What iterations end with, in the place of what they approach."""

from collections.abc import Sequence
from dataclasses import dataclass

from lagrad.expressions.expression import Expression
from lagrad.expressions.linear_maps import Scale
from lagrad.expressions.primitive import Primitive
from lagrad.systems.system import System


@dataclass(frozen=True)
class Statement:
    """What the values of an iteration would solve, did it end.

    Attributes
    ----------
    label : str
        What the iteration is, for certificates.
    system : System
        Residuals as functions of the values and of what they depend on.
    values, others, residuals : tuple of str
        Its variables: the values', those of what they depend on, and the residuals.
    """

    label: str
    system: System | None = None
    values: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    residuals: tuple[str, ...] = ()


def same(node: Expression, k: int) -> Scale | None:
    return Scale(1.0, node.shape, node.shape) if k == node.parameters[1] else None


# The k-th of the values of an iteration, which come first among the arguments; what they depend on
# comes after them. A plan leaves it out.
APPROACHED = Primitive(
    "approached",
    lambda parameters: lambda *arguments: arguments[parameters[1]],
    lambda arguments, parameters: (arguments[parameters[1]].shape, arguments[parameters[1]].dtype),
    same,
    lambda texts, parameters: f"approached({texts[parameters[1]]})",
    simplify=lambda lowered, operation: operation.arguments[operation.parameters[1]],
    source=lambda module, node, texts: f"({texts[node.parameters[1]]})",  # what steps ended with
)


def labels(nodes: Sequence[Expression]) -> str:
    """What derivatives are of where iterations stand for what they approach, within loops too."""
    if not any(p is APPROACHED or p.repeats for p in {n.primitive for n in nodes} if p):
        return ""
    found = []
    for node in nodes:
        if node.primitive is APPROACHED:
            found.append(node.parameters[0].label)
        elif node.primitive is not None and node.primitive.repeats is not None:
            found.append(labels(node.primitive.repeats(node.parameters).arena.nodes))
    return "; ".join(dict.fromkeys(label for label in found if label))
