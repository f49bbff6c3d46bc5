"""A block with its definitions eliminated: residuals of its unknowns alone, before any number.

What can be known of them from structure: where the Jacobian can have entries, whether it is
constant, whether it jumps, and whether each entry of the unknowns can be determined at all.
"""

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.errors import StructureError
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.linear_solvers.selection import FACTORABLE_ENTRIES
from lagrad.systems.constraint import right_sides
from lagrad.systems.dense_jacobian import dense_jacobian
from lagrad.systems.linearization import Tape
from lagrad.systems.matching import deficient_parts, matched
from lagrad.systems.structure import Block, listed

# Blocks up to this size are dense, whatever their pattern.
SMALL = 64


class ReducedBlock:
    """The residuals of an implicit block as functions of its unknowns and of what is outside."""

    def __init__(self, block: Block, called: bool) -> None:
        self.block = block
        self.called = called  # whether implicit functions introduced its unknowns
        self.unknowns = block.unknowns
        self.residuals = [c.root for c in block.equations]
        self.graph = self.unknowns[0].graph
        self.defined = right_sides(block.definitions)
        with self.graph.reopened():
            self.tape = Tape(self.residuals, self.unknowns, self.outside, self.defined)
            # The Jacobian as one expression, where it has that form.
            self.dense: Expression | None = None
            if len(self.unknowns) == len(self.residuals) == 1:
                self.dense = dense_jacobian(self.tape, self.residuals[0], self.unknowns[0])
        self.inside = frozenset(v.index for v in self.unknowns)
        leaves = ancestors(self.residuals, self.outside, self.defined)
        variables = [node for node in leaves if isinstance(node, Variable) and self.outside(node)]
        self.outer = [v for v in variables if v.index not in self.inside]
        self.inputs = [*self.outer, *self.unknowns]
        self.dtype = np.result_type(*[v.dtype for v in self.unknowns])

    def outside(self, node: Expression) -> bool:
        """Whether a node is a leaf: its value is given, or an unknown."""
        return isinstance(node, Variable) and node.index not in self.defined

    @cached_property
    def linear(self) -> bool:
        """Whether the Jacobian is the same wherever it is taken."""
        nodes = ancestors(self.tape.data, self.outside, self.defined)
        return not self.tape.broken and not any(node.index in self.inside for node in nodes)

    @cached_property
    def kinked(self) -> bool:
        """Whether its equations have kinks, beyond which the Jacobian is another one."""
        inside = set(self.inside)
        for node in ancestors(self.residuals, self.outside, self.defined):
            right = self.defined.get(node.index)
            if any(a.index in inside for a in (node.arguments if right is None else (right,))):
                inside.add(node.index)
            if node.index in inside and node.primitive is not None and node.primitive.kink:
                return True
        return False

    @cached_property
    def opaque(self) -> bool:
        """Whether rounding within some of its operations, a loop's or a user's, is not known."""
        nodes = ancestors(self.residuals, self.outside, self.defined)
        found = (node.primitive for node in nodes if node.primitive is not None)
        return any(p.joint is not None or p.rules for p in found)

    @cached_property
    def pattern(self) -> Any | None:
        """Where the Jacobian can have entries, or None where that is too much to write down."""
        if self.tape.entries > FACTORABLE_ENTRIES:
            return None
        dense = self.block.size <= SMALL
        pattern = self.tape.pattern().jacobian(self.residuals, self.unknowns, dense)
        return sparse.csr_array(pattern) if dense else pattern

    def require_structural_rank(self) -> None:
        """StructureError where some entries of the unknowns cannot be determined."""
        pattern = self.pattern
        if pattern is None or self.block.size < 2 or pattern.diagonal().all():
            return
        ones = np.ones(self.block.size, dtype=int)
        pairs = matched(pattern, ones, ones)
        if pairs.nnz == self.block.size:
            return
        parts = zip(("over", "under"), deficient_parts(pattern, pairs, ones, ones), strict=True)
        lines = [
            f"  {what}determined: {len(r)} equation(s) for {len(c)} unknown(s): "
            f"equations {listed([entry_name(self.block.equations, i) for i in r])}; "
            f"unknowns {listed([entry_name(self.unknowns, j) for j in c])}."
            for what, (r, c) in parts
        ]
        raise StructureError(
            "\n".join([f"the block {self.block.label} is structurally singular.", *lines])
        )


def entry_name(things: Any, position: int) -> str:
    """The name of one scalar among variables or constraints in a row: 'u', or 'u[2, 3]'."""
    for thing in things:
        if position < thing.size:
            if thing.size == 1:
                return str(thing.name)
            index = np.unravel_index(position, thing.shape)
            return f"{thing.name}[{', '.join(str(int(i)) for i in index)}]"
        position -= thing.size
    raise IndexError(position)
