"""A system made ready to be solved: its blocks compiled, its local partials in a row."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.compiler.scalar_tape import FLAT_FROM, ScalarTape, scalar_tape
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, conditioned, selects
from lagrad.solving.block_equations import BlockEquations
from lagrad.solving.kinks import Kinks, Side
from lagrad.solving.matrix_conditions import MatricesAt
from lagrad.solving.rounding_samples import RoundedSystem
from lagrad.solving.surplus_equations import completed
from lagrad.systems.cancellation import Differences, differences
from lagrad.systems.constraint import ImplicitGroup, definitions, excess, right_sides
from lagrad.systems.iterate_limit import labels
from lagrad.systems.linearization import Linearization, Tape
from lagrad.systems.quotients import quotients_in_turn
from lagrad.systems.structure import Block, Structure, analyse
from lagrad.systems.system import System
from lagrad.typing import Array

T = TypeVar("T")


class Run:
    """Blocks that are evaluated at once, what they define as one plan."""

    label: str

    def __init__(
        self, blocks: tuple[Block, ...], variables: list[Variable], defined: dict[int, Expression]
    ) -> None:
        self.blocks, self.variables, self.defined = blocks, variables, defined

        def outside(node: Expression) -> bool:
            return isinstance(node, Variable) and node.index not in defined

        self._order = ancestors(variables, outside, defined)
        self.inputs = [n for n in self._order if isinstance(n, Variable) and outside(n)]

    @cached_property
    def plan(self) -> Plan:
        return Plan(self.inputs, self.variables, self.defined)

    @cached_property
    def kinks(self) -> Kinks:
        return Kinks(self.inputs, self.variables, self.defined)

    def evaluate_on(self, side: Side, values: dict[Variable, Array]) -> None:
        """Add the values of what is defined, on one side of kinks."""
        results = self.kinks.evaluate([values[v] for v in self.inputs], side)
        values.update(zip(self.variables, map(np.asarray, results), strict=True))

    def evaluate(self, values: dict[Variable, Array]) -> Array | None:
        """Add the values of what is defined; those of all nodes of a tape of scalars."""
        results = self.plan([values[v] for v in self.inputs])
        for variable, value in zip(self.variables, results, strict=True):
            values[variable] = np.asarray(value, dtype=variable.dtype)
        return None


class ExplicitRun(Run):
    """Definitions that follow one another."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        defined = right_sides(c for block in blocks for c in block.constraints)
        super().__init__(blocks, [v for block in blocks for v in block.variables], defined)
        names = [v.name for v in self.variables]
        self.label = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")

    @cached_property
    def flat(self) -> ScalarTape | None:
        """The run as a tape of scalars, if it is one."""
        many = len(self._order) >= FLAT_FROM
        return scalar_tape(self.inputs, self._order, self.defined) if many else None

    @cached_property
    def _places(self) -> Array:
        assert self.flat is not None
        return np.array([self.flat.place[v.index] for v in self.variables])

    def evaluate(self, values: dict[Variable, Array]) -> Array | None:
        if self.flat is None:
            return super().evaluate(values)
        found = self.flat.forward([values[v] for v in self.inputs])
        values.update(zip(self.variables, found[self._places], strict=True))
        return found


class ImplicitRun(Run):
    """One implicit block; it defines the eliminated variables, its unknowns being known."""

    def __init__(self, equations: BlockEquations) -> None:
        self.equations, self.block = equations, equations.block
        self.label = self.block.label
        eliminated = [c.variable for c in self.block.definitions if c.variable is not None]
        super().__init__((self.block,), eliminated, equations.defined)


def variables_of(nodes: Sequence[Expression]) -> list[Variable]:
    """The variables that nodes depend on, none looked through."""
    leaves = ancestors(nodes, lambda n: isinstance(n, Variable), {})
    return [n for n in leaves if isinstance(n, Variable)]


def given_plan(group: ImplicitGroup) -> Plan:
    """What an implicit function is given, from the variables that it depends on."""
    return Plan(variables_of(group.given), group.given)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The steps of the tape that belong to one run."""

    run: ExplicitRun | ImplicitRun
    steps: range
    inward: Sequence[int]  # those through which cotangents reach a block's unknowns
    outward: Sequence[int]  # those to parameters, to earlier blocks and to definitions


def stretch(tape: Tape, steps: range, run: ExplicitRun | ImplicitRun) -> Stretch:
    """A run's steps: those that carry cotangents to a block's unknowns, and that carry them on.

    Before the multipliers are known only the first matter, and afterwards only the others: what
    flows back to the unknowns sums to zero then.
    """
    if isinstance(run, ExplicitRun):
        return Stretch(run, steps, (), steps)
    inner = {tape.steps[k].target for k in steps}
    unknowns = {tape.slots[v.index] for v in run.block.unknowns}
    wanted = {tape.slots[v.index] for v in run.variables}
    dependent = set(unknowns)
    inward, outward = [], []
    for k in steps:
        step = tape.steps[k]
        if step.source in dependent:
            inward.append(k)
            dependent.add(step.target)
        if step.source in wanted or not (step.source in inner or step.source in unknowns):
            outward.append(k)
            wanted.add(step.target)
    return Stretch(run, steps, inward, outward)


class CompiledSystem:
    """A system's structure, plans and tape."""

    def __init__(self, system: System) -> None:
        system = completed(system) if excess(system) > 0 else system.snapshot()
        self.system = system
        # What derivatives are of where iterations stand for what they approach.
        self.label = labels(system.arena.nodes)
        # Whether it may be an iteration that is written out.
        self.iterates = quotients_in_turn(system)
        self._derived: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def structure(self) -> Structure:
        return analyse(self.system)

    @cached_property
    def runs(self) -> list[ExplicitRun | ImplicitRun]:
        """What is solved in turn; StructureError where equations cannot determine it."""
        # Of an implicit function the start and the method say where to look; a declared block
        # stands or falls with its equations.
        called = {v for group in self.system.groups for v in group.unknowns}
        runs: list[ExplicitRun | ImplicitRun] = []
        for blocks in self.structure.runs:
            if blocks[0].explicit:
                runs.append(ExplicitRun(blocks))
                continue
            equations = BlockEquations(blocks[0], called.issuperset(blocks[0].unknowns))
            # What an implicit function leaves free its multipliers do as well.
            if not (equations.called or (called and all(v.derivative for v in equations.unknowns))):
                equations.require_structural_rank()
            runs.append(ImplicitRun(equations))
        return runs

    @cached_property
    def explicit(self) -> bool:
        """Whether there is nothing to solve."""
        return all(isinstance(run, ExplicitRun) for run in self.runs)

    def compiled(self) -> "CompiledSystem":
        """Itself, where a program would compile itself first."""
        return self

    def prepare(self) -> None:
        """Compile all that a solve and a gradient need, before several threads ask for it."""
        _ = self._planned
        for run in self.runs:
            if isinstance(run, ExplicitRun):
                _ = run.flat or run.plan
            else:
                _ = run.plan, run.equations.stages, run.equations.measure, run.equations.evaluate

    def once(self, derive: Callable[..., T], *arguments: Any) -> T:
        """What a function of hashable arguments derives from the system, derived at first use."""
        key = (derive, *arguments)
        if key not in self._derived:
            self._derived[key] = derive(*arguments)
        found: T = self._derived[key]
        return found

    @property
    def tape(self) -> Tape:
        """The local partials of all constraints, in solving order."""
        return self._taped[0]

    @property
    def stretches(self) -> list[Stretch]:
        """The steps of the tape, run by run."""
        return self._taped[1]

    @property
    def flat(self) -> ScalarTape | None:
        """The whole system as one flat tape, if it is one."""
        run = self.runs[0] if len(self.runs) == 1 else None
        return run.flat if isinstance(run, ExplicitRun) else None

    @cached_property
    def _taped(self) -> tuple[Tape, list[Stretch]]:
        """The local partials of all constraints, in solving order, and whose they are."""
        defined = definitions(self.system)
        leaves = self.system.with_role("parameter", "unknown")
        known = lambda node: isinstance(node, Variable) and node.index not in defined
        stretches = []
        # What a finished trace is derived by is made in its graph, still.
        with self.system.arena.reopened():
            tape = Tape([], leaves, known, defined)
            for run in self.runs:
                start = len(tape.steps)
                for block in run.blocks:
                    tape.extend([*block.variables, *(c.root for c in block.equations)])
                stretches.append(stretch(tape, range(start, len(tape.steps)), run))
        return tape, stretches

    @cached_property
    def given(self) -> list[Variable]:
        """The variables that nothing defines: those given, and the unknowns."""
        defined = definitions(self.system)
        return [v for v in self.system.variables.values() if v.index not in defined]

    @property
    def still(self) -> str:
        """The role of variables that nothing is differentiated by.

        A value that is a derivative may be one by data, which were an inner function's parameters.
        """
        return "" if self.system.derived else "data"

    @cached_property
    def moving(self) -> list[Variable]:
        """The given variables that others are differentiated by."""
        roles = ("parameter", "data")
        return [v for v in self.system.with_role(*roles) if v.role != self.still]

    @cached_property
    def kinks(self) -> Kinks | None:
        """The selectors on which derivatives depend by more than their mean at a kink; None if so.

        First derivatives are of the first degree in them as a rule; others, and the inverse of a
        block's Jacobian, are not. Values that are derivatives themselves count as such.
        """
        if not selects([*self.system.arena.nodes, *self.tape.data]):
            return None
        defined = definitions(self.system)
        values = list(self.system.variables.values())
        within = Kinks(self.given, values, defined)
        outputs = [*self.tape.data, *(values if self.system.derived else ())]
        kinks = Kinks(self.given, outputs, defined, self.still)
        if not kinks.selectors:
            return None
        higher = within.selectors or not self.explicit
        return kinks if higher or kinks.bend(self.tape) else None

    @cached_property
    def loops(self) -> tuple[list[Callable[[Sequence[Array]], bool]], list[int], Plan] | None:
        """What says of loops whether they meet kinks of derivatives, and how it is given."""
        if not self.explicit:
            return None
        roots, defined = list(self.system.variables.values()), definitions(self.system)
        asked: list[Callable[[Sequence[Array]], bool]] = []
        arguments: list[Expression] = []
        counts: list[int] = []
        for node in ancestors(roots, lambda node: False, defined):
            meets = None if node.primitive is None else node.primitive.meets
            if meets is not None and (met := meets(node.parameters)) is not None:
                asked.append(met)
                arguments += node.arguments
                counts.append(len(node.arguments))
        return (asked, counts, Plan(self.given, arguments, defined)) if asked else None

    def meets_kinks(self, values: Mapping[str, Array]) -> bool:
        """Whether a loop meets a kink of derivatives that it makes, given values by name."""
        if self.loops is None:
            return False
        asked, counts, plan = self.loops
        found = iter(plan([values[v.name] for v in self.given]))
        given = [list(itertools.islice(found, count)) for count in counts]
        return any(met(arguments) for met, arguments in zip(asked, given, strict=True))

    @cached_property
    def _planned(self) -> tuple[list[Variable], Plan]:
        """The variables whose values the tape's data are computed from, and where ties are."""
        variables = list(self.system.variables.values())
        values: dict[int, tuple[Expression, Variable]] = {v.index: (v, v) for v in variables}
        for constraint in self.system.constraints.values():
            root, variable = constraint.rhs, constraint.variable
            if variable is None or isinstance(root, (Constant, Variable)):
                continue
            # A right side has its variable's value: nothing below it is evaluated again.
            if root.dtype == variable.dtype:
                values[root.index] = (root, variable)
        nodes, known = zip(*values.values(), strict=True) if values else ((), ())
        ties = [] if self.kinks is None else self.kinks.ties
        return list(known), Plan(nodes, [*self.tape.data, *ties])

    def given_values(self, group: ImplicitGroup, values: Mapping[Variable, Array]) -> list[Array]:
        """The values of what an implicit function was given: its arguments, then its starts."""
        if all(isinstance(node, Variable) for node in group.given):
            return [values[node] for node in group.given]  # type: ignore[index]
        plan = self.once(given_plan, group)
        return plan([values[v] for v in plan.inputs])  # type: ignore[index]

    def is_given(self, group: ImplicitGroup, values: Mapping[Variable, Array]) -> bool:
        """Whether all of it is known."""
        return all(v in values for v in variables_of(group.given))

    @cached_property
    def conditioned(self) -> MatricesAt | None:
        """The matrices whose condition decides how accurate definitions are, if there are any."""
        defined = definitions(self.system)
        with self.system.arena.reopened():
            found = conditioned([c.root for c in self.system.constraints.values()], defined)
        return MatricesAt(found, defined) if found else None

    @cached_property
    def differences(self) -> Differences | None:
        """The sums that may cancel in definitions, if there are any."""
        roots = [c.root for c in self.system.constraints.values()]
        with self.system.arena.reopened():
            return differences(roots, definitions(self.system))

    @cached_property
    def _difference_plan(self) -> Plan:
        found = self.differences
        assert found is not None
        return Plan(found.inputs, found.arguments, definitions(self.system))

    def cancels(self, values: Mapping[Variable, Array]) -> tuple[Expression | None, float]:
        """The first sum of which little is left, if there is one, and how large its terms are."""
        if self.differences is None:
            return None, 0.0
        given = [values[v] for v in self.differences.inputs]
        return self.differences.first(self._difference_plan(given))

    @cached_property
    def parted(self) -> bool:
        """Whether eigenvalues of matrices have a part in it."""
        return any(n.primitive is not None and n.primitive.parted for n in self.system.arena.nodes)

    @property
    def operations(self) -> int:
        return len(self.system.arena.nodes)

    @cached_property
    def rounded(self) -> RoundedSystem:
        """Its definitions and its tape's data, to be computed with other roundings."""
        with self.system.arena.reopened():
            return RoundedSystem(self.system, self.tape)

    @cached_property
    def cancelling(self) -> RoundedSystem:
        """The same with the terms of differences rounded, and nothing else."""
        assert self.differences is not None
        with self.system.arena.reopened():
            return RoundedSystem(self.system, self.tape, self.differences.spoilt)

    def linearize(self, values: Mapping[Variable, Array]) -> tuple[Linearization, bool]:
        """The tape at a solution, and whether that is at a kink."""
        known, plan = self._planned
        found, count = plan([values[variable] for variable in known]), len(self.tape.data)
        return self.tape.at(found[:count]), any(tie.any() for tie in found[count:])

    def sided(
        self, values: Mapping[Variable, Array], side: Side, origin: Mapping[Variable, Array]
    ) -> Linearization:
        """The tape with the selectors of a side where they are tied at a point nearby."""
        assert self.kinks is not None
        here, there = ([at[v] for v in self.given] for at in (values, origin))
        found = self.kinks.evaluate(here, side, there)
        return self.tape.at(found[: len(self.tape.data)])
