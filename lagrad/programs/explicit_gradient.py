"""Values and gradients of programs without equations to solve, as one straight line.

Where every variable is defined there is nothing to iterate and nothing to certify: the adjoint
program is a straight line too, and one plan of both shares what they have in common. Programs of
many scalars are swept on their tape. What comes out not finite is left to the solution proper,
which says where it comes from.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.compiler.plan import Plan
from lagrad.compiler.wider import WidePlan
from lagrad.expressions.expression import Variable
from lagrad.expressions.graph import conditioned, repeats, selects
from lagrad.programs.derived_programs import Derivable, adjoint
from lagrad.solving.adjoint_sweep import ScalarPoint, ScalarSweep
from lagrad.solving.block_equations import largest
from lagrad.solving.kinks import Kinks, Side, directions, moved
from lagrad.solving.last_bits import DIVIDES, STEADY, doubting, in_last_bits, moving, rounded
from lagrad.solving.matrix_conditions import HARMLESS, worst
from lagrad.solving.relative_change import relative_change
from lagrad.solving.rounding_samples import SAMPLES, SPACINGS, Roundings, stepping
from lagrad.systems.constraint import definitions
from lagrad.systems.system import System
from lagrad.typing import Array

# The roles of variables whose values are given.
GIVEN = ("parameter", "data")


class ExplicitGradient:
    """The values of some outputs, and the gradient of one of them.

    Parameters
    ----------
    program : Program
        One without equations.
    outputs : tuple of str
        The variables whose values are asked for.
    of : str or None
        The one whose gradient is.

    Attributes
    ----------
    inputs : list of str
        What it is a function of.
    """

    def __init__(self, program: Derivable, outputs: tuple[str, ...], of: str | None) -> None:
        self.compiled = compiled = program.compiled()
        variables = compiled.system.variables
        self.outputs = [variables[name] for name in outputs]
        self.of = None if of is None else variables[of]
        self.parameters = [] if of is None else compiled.system.with_role("parameter")
        self.loops, self.iterates = False, of is not None and compiled.iterates
        self.wide: WidePlan | None = None
        if compiled.flat is not None:
            (run,) = compiled.runs
            self.inputs, self.run = [v.name for v in run.inputs], self._swept
            self.whole = [v.role == "parameter" for v in run.inputs if isinstance(v, Variable)]
            return
        system, names = compiled.system, list(outputs)
        if of is not None:
            derived = adjoint(program, of)
            system = derived.system
            names += [derived.gradients[v.name] for v in self.parameters]
        self.given = given = [v for v in system.variables.values() if v.role in GIVEN]
        self.inputs, self.run = [v.name for v in given], self._planned
        self.whole = [v.role == "parameter" for v in given]
        results = [system.variables[n] for n in names]
        self.kinks = self._kinks(system, given, results)
        ties = [] if self.kinks is None else {t.index: t for t in self.kinks.ties}.values()
        self.kinked_loops = self.compiled.loops is not None
        self.loops = repeats(system.arena.nodes)
        matrices = conditioned([system.variables[n] for n in outputs], definitions(system))
        self.tie_count = len(ties)
        self.plan = Plan(given, [*results, *ties, *matrices], definitions(system))
        self.wide = WidePlan(self.plan)
        # Each result is an array of its own, and a gradient has its parameter's dtype.
        wanted = [v.dtype for v in (*self.outputs, *self.parameters)]
        self.copied = [
            dtype if shared or dtype != v.dtype else None
            for v, shared, dtype in zip(results, self.plan.shared, wanted, strict=False)
        ]

    def _kinks(
        self, system: System, given: list[Variable], results: list[Variable]
    ) -> Kinks | None:
        """The selectors on which derivatives depend by more than their mean at a kink."""
        own = self.compiled.system
        self.plain = 0 if own.derived else len(self.outputs)
        if not selects(system.arena.nodes):
            return None
        kinks = Kinks(given, results[self.plain :], definitions(system), self.compiled.still)
        if not kinks.selectors:
            return None
        within = Kinks(self.compiled.given, list(own.variables.values()), definitions(own))
        bent = within.selectors or kinks.degree(kinks.outputs) > 1
        return kinks if bent else None

    def __call__(self, values: Sequence[Array], hot: bool = False) -> list[Array] | None:
        """The outputs' values, and the gradient by each parameter, each an array of its own.

        None where not all is finite, where derivatives may be rounding, or where a matrix is so
        ill-conditioned that the accuracy is to be asked for. Where it is `hot`, only loops are
        asked for doubts about rounding.
        """
        if not (self.loops or (self.iterates and not hot)):
            found = self.run(values)
            return None if not hot and self.spoilt(values, found) else found
        with doubting() as doubts:
            found = self.run(values)
        if not hot and self.spoilt(values, found):
            return None
        if not (doubts or (found is not None and self.iterates and not hot)):
            return found
        change = self._rounding(values)
        if change <= STEADY:
            return found
        if self.of is None:  # derivatives that the function itself asks for
            why = dict.fromkeys(doubts or [f"the program {DIVIDES}"])
            raise rounded(f"a derivative in {self.compiled.system.name!r}", change, why)
        return None

    def spoilt(self, values: Sequence[Array], found: list[Array] | None) -> bool:
        """Whether rounding may be much of a gradient: to be looked at closely.

        Where it costs little, a wider precision finds another one; elsewhere little is left of a
        sum.
        """
        if self.of is None or found is None:
            return False
        wide = self.wide
        agrees = None if wide is None else wide.agrees(values, found, len(self.outputs))
        # Zeros agree where terms are so large that the wider precision rounds them as well.
        if agrees is not None and (not agrees or all(map(np.any, found[len(self.outputs) :]))):
            return not agrees
        variables = self.compiled.system.variables
        named = {variables[k]: v for k, v in zip(self.inputs, values, strict=True)}
        return self.compiled.cancels(named)[0] is not None

    def _planned(self, values: Sequence[Array]) -> list[Array] | None:
        found, finite = self.plan.checked(values)
        count = len(self.copied)
        if not finite:
            return None
        if self.kinked_loops:
            named = dict(zip(self.inputs, values, strict=True))
            if self.compiled.meets_kinks(named):
                return None
        ties, matrices = found[count : count + self.tie_count], found[count + self.tie_count :]
        if matrices and not worst(matrices) < HARMLESS:
            return None
        if any(tie.any() for tie in ties):
            found[self.plain :] = self._mean(values, found[self.plain : count])
        del found[count:]
        for k, dtype in enumerate(self.copied):
            if dtype is not None:
                found[k] = np.array(found[k], dtype)[()]
        return found

    def _rounding(self, values: Sequence[Array]) -> float:
        """How far derivatives change where all that they are made of moves by its last bits.

        On one side of kinks: their mean has nothing to do with it.
        """
        rng, first = np.random.default_rng(0), 0 if self.of is None else len(self.outputs)
        found = self._one_side(values)
        if found is None:
            return 0.0  # what is not finite is named by others
        others, scale = [], max(map(largest, found))
        for _ in range(SAMPLES):
            pairs = zip(values, self.whole, strict=True)
            with moving(rng):
                other = self._one_side([in_last_bits(np.asarray(a), rng, w) for a, w in pairs])
            if other is None:
                return np.inf
            others.append(dict(enumerate(other[first:])))
        for number in range(SAMPLES if self.loops else 0):
            with stepping(Roundings(number, SPACINGS)):
                other = self._one_side(values)
            if other is None:
                return np.inf
            pairs = zip(found, other, strict=True)
            moved = [a + (b - a) / SPACINGS for a, b in pairs]
            others.append(dict(enumerate(moved[first:])))
        return relative_change(dict(enumerate(found[first:])), others, {}, scale)

    def _one_side(self, values: Sequence[Array]) -> list[Array] | None:
        """The results as they stand; None where not all is finite."""
        if self.compiled.flat is not None:
            return self._swept(values)
        found, finite = self.plan.checked(values)
        return found[: len(self.copied)] if finite else None

    def _mean(self, values: Sequence[Array], plain: list[Array]) -> list[Array]:
        """The mean over the sides of the kinks that there are."""
        kinks = self.kinks
        assert kinks is not None
        parameters = [k for k, node in enumerate(self.given) if node.role != kinks.still]

        def fallen(way: Array) -> Side:
            there = dict(zip(parameters, moved([values[k] for k in parameters], way), strict=True))
            return kinks.side([there.get(k, a) for k, a in enumerate(values)], values)

        def pairs() -> Iterator[tuple[Side, Side]]:
            for way in directions(sum(values[k].size for k in parameters)):
                yield fallen(way), fallen(-way)

        with np.errstate(all="ignore"):
            evaluate = lambda side: kinks.evaluate(values, side)
            found, _ = kinks.mean(plain, kinks.side(values), pairs(), evaluate)
        return [array[()] for array in found]

    def _swept(self, values: Sequence[Array]) -> list[Array] | None:
        tape = self.compiled.flat
        assert tape is not None
        memory = tape.forward(values)
        if not all_finite([memory]):
            return None
        if tape.tied(memory) and self.compiled.kinks is not None:
            return None
        sweep = ScalarSweep(self.compiled, ScalarPoint(tape, memory))
        found = [memory[tape.place[v.index]] for v in self.outputs]
        if self.of is not None:
            sweep.seed(self.of, 1.0)
            sweep.back()
            found += [np.array(sweep.value(v))[()] for v in self.parameters]
        return found if all_finite(found) else None


def direct(program: Derivable, outputs: tuple[str, ...], of: str | None) -> ExplicitGradient | None:
    """The straight line of a program without equations, made once; None for others."""
    compiled = program.compiled()
    if not compiled.explicit:
        return None
    return compiled.once(ExplicitGradient, program, outputs, of)
