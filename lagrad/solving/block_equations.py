"""The equations of one block, compiled: residuals and Jacobians as functions of its unknowns."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse

from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Constant, Variable
from lagrad.expressions.graph import ancestors
from lagrad.linear_solvers.base import LinearSolver
from lagrad.linear_solvers.jacobian import Jacobian, Operator, Products
from lagrad.linear_solvers.selection import DENSE_AT_MOST, DENSE_FRACTION, automatic
from lagrad.solving.kinks import Kinks, Side, directions, moved
from lagrad.solving.rounding import uncertainties
from lagrad.solving.rounding_samples import Roundings
from lagrad.solving.wider_precision import WideNodes
from lagrad.systems.linearization import Linearization, joined, plus, split
from lagrad.systems.reduced_block import SMALL, ReducedBlock
from lagrad.typing import Array

# The Jacobian of an implicit function up to this size is put together; products with a larger
# one cost less.
FORMED = 512
# Unknowns of one number each, up to so many, are measured by Python.
FEW = 16


class BlockEquations(ReducedBlock):
    """The residuals of an implicit block, its definitions eliminated.

    The vector of unknowns is that of all the block's unknowns in a row, the residual that of
    all its equations.
    """

    @cached_property
    def evaluate(self) -> Plan:
        return Plan(self.inputs, self.residuals, self.defined)

    @cached_property
    def measure(self) -> Plan:
        """What each residual may be off by, in units of rounding."""
        with self.graph.reopened():
            off = uncertainties(self.residuals, self.outside, self.defined)
            return Plan(self.inputs, off, self.defined)

    @property
    def costly(self) -> bool:
        """Whether to put the Jacobian together costs many times what the residual does."""
        return self.called and self.dense is not None and self.block.size > SMALL

    @cached_property
    def stages(self) -> tuple[Plan, Plan, Plan]:
        """The residual, what is needed to differentiate it, and the Jacobian as one expression.

        The later ones go on from what the first computed.
        """
        outside, defined = self.outside, self.defined
        done = {node.index for node in ancestors(self.residuals, outside, defined)}
        goals = (self.tape.data, [] if self.dense is None else [self.dense])
        needed = ancestors(
            [node for goal in goals for node in goal],
            lambda node: node.index in done or outside(node),
            defined,
        )
        shared = [n for n in needed if n.index in done and not isinstance(n, Constant)]
        kept = [node for node in shared if not outside(node)]
        ties = self.kinks.ties if self.bent else []
        first = Plan(self.inputs, [*self.residuals, *kept], defined)
        second, third = (Plan([*self.inputs, *kept], [*goal, *ties], defined) for goal in goals)
        return first, second, third

    @cached_property
    def kinks(self) -> Kinks:
        """The selectors of its residual and its Jacobian."""
        return Kinks(self.inputs, [*self.tape.data, *self.residuals], self.defined)

    @cached_property
    def bent(self) -> bool:
        """Whether the Jacobian is not of the first degree in them."""
        return self.kinks.bend(self.tape)

    @cached_property
    def full(self) -> bool:
        """Whether the Jacobian is put together as an ndarray: small, or mostly full."""
        if self.dense is not None or (self.called and self.block.size <= FORMED):
            return True
        size, pattern = self.block.size, self.pattern
        few = pattern is not None and pattern.nnz < DENSE_FRACTION * size * size
        return size <= SMALL or (size <= DENSE_AT_MOST and not few)

    @cached_property
    def solver(self) -> LinearSolver:
        entries = self.tape.entries if self.pattern is None else int(self.pattern.nnz)
        return automatic(self.block.size, entries)

    def vector(self, values: Mapping[Variable, Array]) -> Array:
        """The unknowns' values as one vector."""
        return joined([values[v] for v in self.unknowns]).astype(self.dtype)

    def outer_values(self, values: Mapping[Any, Array]) -> list[Array]:
        return [values[node] for node in self.outer]

    def residual(self, outer: list[Array], point: Array) -> Array:
        """The residual vector at a point, NaN and infinity included."""
        return joined(self.evaluate([*outer, *split(point, self.unknowns)]))

    @cached_property
    def wider(self) -> WideNodes:
        """The residual in a wider precision."""
        with self.graph.reopened():
            return WideNodes(self.inputs, self.residuals, self.defined, self.dtype)

    @cached_property
    def wider_data(self) -> WideNodes:
        """What its local partials are made of, in a wider precision."""
        with self.graph.reopened():
            return WideNodes(self.inputs, self.tape.data, self.defined, self.dtype)

    def finer_residual(
        self, outer: list[Array], point: Array, rounded: Roundings | None = None
    ) -> Array | None:
        """The residual in a wider precision; None where there is none."""
        found = self.wider([*outer, *split(point, self.unknowns)], rounded)
        return None if found is None else joined(found)


class LocalEquations:
    """A block's equations near a point: the residual, and what is asked for beside it."""

    def __init__(
        self, equations: BlockEquations, outer: list[Array], point: Array, side: Side | None = None
    ) -> None:
        self.equations, self.outer, self.point, self.side = equations, outer, point, side
        self.values = [*outer, *split(point, equations.unknowns)]
        found = equations.stages[0](self.values)
        count = len(equations.residuals)
        self.residual = joined(found[:count] if side is None else self._on(side)[-count:])
        self._kept = found[count:]

    @cached_property
    def terms(self) -> Array:
        """What the residual may be off by, in units of rounding."""
        found = self.equations.measure(self.values)
        pairs = zip(found, self.equations.residuals, strict=True)
        terms = joined([np.broadcast_to(off, node.shape) for off, node in pairs])
        # Of a square root at zero, say, there is no first order.
        return np.where(np.isfinite(terms), terms, np.abs(self.residual))

    def _further(self, stage: Plan) -> list[Array]:
        return stage([*self.values, *self._kept])

    @cached_property
    def partials(self) -> list[Linearization]:
        """Local partials here; at a kink those on both sides, of which the Jacobian is the mean."""
        equations, kinks = self.equations, self.equations.kinks
        tape = equations.tape
        if self.side is not None:
            return [tape.at(self._on(self.side)[: len(tape.data)])]
        found, count = self._further(equations.stages[1]), len(tape.data)
        if not any(tie.any() for tie in found[count:]):
            return [tape.at(found[:count])]
        way = next(directions(self.point.size))
        points = (split(moved([self.point], d)[0], equations.unknowns) for d in (way, -way))
        sides = [kinks.side([*self.outer, *point], self.values) for point in points]
        return [tape.at(self._on(side)[:count]) for side in sides]

    def _on(self, side: Side) -> list[Array]:
        """What the tape is made of, and the residuals, on one side of kinks."""
        return self.equations.kinks.evaluate(self.values, side)

    def products(self) -> Operator:
        """The Jacobian by its products alone."""
        equations, sides = self.equations, self.partials
        unknowns, residuals, slots = equations.unknowns, equations.residuals, equations.tape.slots
        outer = self.outer

        def carried(vector: Array, sources: Any, targets: Any, carry: Any) -> Array:
            def along(partials: Linearization) -> Array:
                values = partials.empty()
                for node, piece in zip(sources, split(np.ravel(vector), sources), strict=True):
                    values[slots[node.index]] = plus(values[slots[node.index]], piece)
                carry(partials, values)
                found = [(node, values[slots[node.index]]) for node in targets]
                return joined([np.zeros(n.shape) if value is None else value for n, value in found])

            return mean([along(partials) for partials in sides])

        return Operator(
            Products(
                lambda vector: carried(vector, unknowns, residuals, Linearization.push),
                lambda vector: carried(vector, residuals, unknowns, Linearization.pull),
                equations.block.size,
                equations.dtype,
                lambda: self.matrix(equations.full),
                lambda at: equations.residual(outer, at),
                self.point,
            )
        )

    def jacobian(self, solver: LinearSolver) -> Jacobian:
        """The Jacobian as the solver wants it: entries, or products."""
        equations = self.equations
        if solver.matrix_free:
            return self.products()
        matrix = None
        if equations.dense is not None and self.side is None:
            matrix, *ties = self._further(equations.stages[2])
            matrix = None if any(tie.any() for tie in ties) else matrix
        if matrix is None:
            matrix = self.matrix(equations.full)
        matrix = self._with_limits(matrix)
        # Factored in double precision, whatever the unknowns have.
        return Jacobian(matrix if matrix.dtype == float else matrix.astype(float))

    def _with_limits(self, matrix: Any) -> Any:
        """A Jacobian with the limits of entries of which rules say 0·∞, as of q·|q|^0.8 at zero."""
        data = matrix.data if sparse.issparse(matrix) else matrix
        if np.isfinite(data).all() or not np.isfinite(self.residual).all():
            return matrix
        dense = not sparse.issparse(matrix)
        chosen = self.matrix(dense, chosen=True)
        if np.isfinite(chosen if dense else chosen.data).all():
            return chosen
        for elsewhere in (False, True):
            step = nudge(self.point, elsewhere)
            around = [
                LocalEquations(self.equations, self.outer, self.point + move, self.side)
                for move in (step, -step)
            ]
            near = mean([there.matrix(dense, chosen=True) for there in around])
            if np.isfinite(near if dense else near.data).all():
                return np.where(np.isfinite(chosen), chosen, near) if dense else near
        return matrix

    def matrix(self, dense: bool, chosen: bool = False) -> Any:
        """The Jacobian's entries; without partials by what no choice takes, where so asked."""
        residuals, unknowns = self.equations.residuals, self.equations.unknowns
        partials = [p.reached(unknowns) for p in self.partials] if chosen else self.partials
        return mean([p.jacobian(residuals, unknowns, dense) for p in partials])


class Measure:
    """Lengths of vectors of unknowns, each measured against its own size."""

    def __init__(self, equations: BlockEquations) -> None:
        unknowns = equations.unknowns
        parts = [[v.size] if v.apart is None else [1] * v.size for v in unknowns]
        self.sizes = [size for sizes in parts for size in sizes]
        self.starts = np.cumsum([0, *self.sizes[:-1]])
        # A few numbers: in Python, since calls of NumPy would cost more than what they do.
        self.numbers = len(self.sizes) <= FEW and set(self.sizes) == {1}
        self.epsilon = float(np.finfo(equations.dtype).eps)
        self.declared = np.concatenate([np.atleast_1d(v.scale) for v in unknowns])
        self.top: Array = np.zeros(len(self.sizes))  # the largest values on the way

    def largest(self, vector: Array) -> Array:
        """The largest entry of each unknown."""
        if self.numbers:
            return np.abs(vector).astype(float, copy=False)
        if len(self.sizes) == 1:
            return np.array([largest(vector)])
        if min(self.sizes) == 0:
            return np.array([largest(piece) for piece in np.split(vector, self.starts[1:])])
        return np.maximum.reduceat(np.abs(vector), self.starts).astype(float)

    def see(self, point: Array) -> None:
        """Take note of how large the unknowns have been."""
        self.top = np.maximum(self.top, self.largest(point))

    @property
    def units(self) -> Array:
        """The largest value seen of the unknown that each number belongs to."""
        return np.repeat(self.top, self.sizes)

    def length(self, vector: Array, against: Array | None = None) -> float:
        """The length of a vector, against the largest values seen unless told otherwise."""
        against = self.top if against is None else against
        if self.numbers:
            tops = against.tolist()
            most = max(tops)
            pairs = zip(vector.tolist(), tops, strict=True)
            lengths = [abs(v) / max(t or most, 1e-300) for v, t in pairs]
            return float(max([0.0, *(length for length in lengths if length > 0)]))
        if len(self.sizes) == 1:
            top = largest(vector)
            return top / max(float(against[0]), 1e-300) if top else 0.0
        # An unknown that has no size of its own is measured by the others.
        against = np.where(against > 0, against, against.max(initial=0.0))
        sizes = self.largest(vector)
        some = sizes > 0
        return largest(sizes[some] / np.maximum(against[some], 1e-300))


def nudge(array: Array, elsewhere: bool) -> Array:
    """A step to one side, of the zeros in an array, or of its other entries as well.

    So short that what is multiplied by zero here is as good as zero there.
    """
    kind = np.finfo(array.dtype)
    share = 500 * float(kind.eps) if elsewhere else 0.0
    step = np.where(array == 0, float(kind.tiny) ** (1 / 3), share * np.abs(array))
    return np.asarray(step * next(directions(array.size)).reshape(array.shape), array.dtype)


def mean(values: list[Any]) -> Any:
    """The mean of a few arrays or matrices; of one, itself."""
    return values[0] if len(values) == 1 else sum(values[1:], values[0]) / len(values)


def largest(array: Array) -> float:
    """The largest absolute value in an array; zero of an empty one."""
    return float(np.abs(array).max(initial=0.0))
