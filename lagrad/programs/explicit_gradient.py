"""Values and gradients of programs without equations to solve, as one straight line.

Where every variable is defined there is nothing to iterate and nothing to certify: the adjoint
program is a straight line too, and one plan of both shares what they have in common. Programs of
many scalars are swept on their tape. What comes out not finite is left to the solution proper,
which says where it comes from.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.compiler.plan import Plan
from lagrad.expressions.expression import Expression, Variable
from lagrad.expressions.graph import ancestors, conditioned, repeats, selects
from lagrad.programs.derived_programs import Derivable, adjoint
from lagrad.programs.quick_gradient import QuickGradient, turned
from lagrad.solving.adjoint_sweep import ScalarPoint, ScalarSweep
from lagrad.solving.kinks import Kinks, Side, directions, moved
from lagrad.solving.last_bits import DIVIDES, STEADY, doubting, in_last_bits, moving, rounded
from lagrad.solving.matrix_conditions import HARMLESS, worst
from lagrad.solving.relative_change import ALL_BUT_ZERO, MAGNIFIED, relative_change
from lagrad.solving.rounding_samples import COARSE, SAFETY, SAMPLES, SPACINGS, Roundings, stepping
from lagrad.solving.wider_precision import SMALL, WideNodes, close
from lagrad.systems.cancellation import differences
from lagrad.systems.constraint import definitions
from lagrad.systems.rewriting import copied
from lagrad.systems.system import System
from lagrad.typing import Array

# What of a sum's terms a wider precision knows by few digits.
NOTHING = 1e-11
# What is left of a few sums among many, from which a gradient that is asked for once is looked at.
FEW = 1e-5
# Numbers of a gradient whose own sums are looked at in every call.
LOOKED_AT = 1_000_000
# Operations of a program, from which rounding may be magnified on the way, however often it is run.
LONG = 100
# The roles of variables whose values are given.
GIVEN = ("parameter", "data")


class LookCloser(Exception):
    """Derivatives that a function itself asks for may be rounding: these are to be certified."""


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
        self.wide: WideNodes | None = None
        # Sums that may cancel, and where their terms are among what is computed.
        own = self._asked_inside() if of is None else []
        self.differences = compiled.differences if (asked := own or of is not None) else None
        self.terms: Any = None
        self.own: Any = slice(0, 0)  # where derivatives are that the function itself asks for
        if compiled.flat is not None:
            (run,) = compiled.runs
            self.inputs, self.run = [v.name for v in run.inputs], self._swept
            self.own = compiled.flat.places(own)
            if self.differences is not None:
                self.terms = compiled.flat.places(self.differences.arguments)
            self.whole = [v.role == "parameter" for v in run.inputs if isinstance(v, Variable)]
            return
        system, names = compiled.system, list(outputs)
        if of is not None:
            derived = adjoint(program, of)
            system = derived.system
            names += [derived.gradients[v.name] for v in self.parameters]
        self.system, self.names = system, names
        self.given = given = [v for v in system.variables.values() if v.role in GIVEN]
        self.inputs, self.run = [v.name for v in given], self._planned
        self.whole = [v.role == "parameter" for v in given]
        results = [system.variables[n] for n in names]
        self.kinks = self._kinks(system, given, results)
        ties = [] if self.kinks is None else {t.index: t for t in self.kinks.ties}.values()
        self.kinked_loops = self.compiled.loops is not None
        self.loops = repeats(system.arena.nodes)
        with system.arena.reopened():
            matrices = conditioned([system.variables[n] for n in outputs], definitions(system))
        self.tie_count, self.ties, self.matrices = len(ties), list(ties), bool(matrices)
        self.wide = self._wide(results, definitions(system))
        if asked:
            roots = [system.constraints[name].root for name in compiled.system.constraints]
            slopes = own or results[len(outputs) :]
            if sum(v.size for v in slopes) <= LOOKED_AT:
                roots += [definitions(system).get(v.index, v) for v in slopes]
            needed = ancestors(slopes, lambda node: False, definitions(system))
            within = {node.index for node in needed}
            self.differences = differences(roots, definitions(system), within)
        terms = [] if self.differences is None else self.differences.arguments
        self.checked = len(results) + len(ties) + len(matrices)
        self.own = slice(self.checked, self.checked + len(own))
        self.terms = slice(self.own.stop, None)
        wanted = [*results, *ties, *matrices, *own, *terms]
        self.plan = Plan(given, wanted, definitions(system))
        # Each result is an array of its own, and a gradient has its parameter's dtype.
        dtypes = [v.dtype for v in (*self.outputs, *self.parameters)]
        self.copied = [
            dtype if shared or dtype != v.dtype else None
            for v, shared, dtype in zip(results, self.plan.shared, dtypes, strict=False)
        ]

    def quick(self, given: Collection[str]) -> QuickGradient | None:
        """The same with what is to be looked at in one number, of values `given` by a caller.

        None where it is looked at otherwise.
        """
        plain = self.of is not None and self.compiled.flat is None and not self.matrices
        if not plain or self.loops or self.kinked_loops:
            return None
        results = [self.system.variables[name] for name in self.names]
        return QuickGradient(self, results, self.ties, given, self.compiled.operations > LONG)

    def _asked_inside(self) -> list[Expression]:
        """The derivatives that the function itself asks for, and makes its results of."""
        system = self.compiled.system
        if not system.slopes:
            return []
        needed = ancestors(self.outputs, lambda node: False, definitions(system))
        within = {node.index for node in needed}
        return [node for node in system.slopes if node.index in within]

    def _wide(self, results: list[Variable], defined: dict[int, Expression]) -> WideNodes | None:
        """The gradient in a wider precision, where it is of few numbers."""
        usual = np.result_type(*[v.dtype for v in self.given], np.float32)
        found = WideNodes(self.given, results[len(self.outputs) :], defined, usual)
        return None if found.dtype is None or found.size > 3 * SMALL else found

    def _agrees(self, values: Sequence[Array], slopes: Sequence[Array]) -> bool | None:
        """Whether a gradient is what a wider precision makes of it; None where there is none."""
        with np.errstate(all="ignore"):
            finer = None if self.wide is None else self.wide(values)
            if finer is None:
                return None
            pairs = zip(finer, slopes, strict=True)
            return all(size_of(b - a) <= close(np.result_type(b)) * size_of(a) for b, a in pairs)

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
        ill-conditioned that the accuracy is to be asked for. Where it is `hot`, programs are not
        asked whether they divide by what rounding has left.
        """
        if not (self.loops or (self.iterates and not hot)):
            found, terms = self.run(values)
            return None if self._is_spoilt(values, found, terms, hot) else found
        with doubting() as doubts:
            found, terms = self.run(values)
        if self._is_spoilt(values, found, terms, hot):
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

    def _is_spoilt(
        self, values: Sequence[Array], found: list[Array] | None, terms: Any, hot: bool
    ) -> bool:
        """Whether a gradient is to be looked at closely; `LookCloser` of derivatives inside."""
        spoilt = self.spoilt(values, found, terms, hot)
        if spoilt and self.of is None:
            raise LookCloser
        return spoilt

    def spoilt(
        self, values: Sequence[Array], found: list[Array] | None, terms: Any, hot: bool
    ) -> bool:
        """Whether rounding may be much of a gradient: to be looked at closely.

        Where it costs little, a wider precision finds another one; elsewhere, and where it is
        `hot`, little is left of a sum.
        """
        if found is None or (self.of is None and not terms):
            return False
        if self.of is None:
            return self._closer(values, *terms)
        slopes = found[len(self.outputs) :]
        agrees = None if hot else self._agrees(values, slopes)
        if agrees is not None and not agrees:
            return True
        # They agree as well where so little is left that the wider precision has none of it.
        long = self.compiled.operations > LONG
        if (agrees or long) and self._unusual(values, found, bool(agrees)):
            return True
        if self.differences is None:
            return False
        known = agrees is not None and all(map(np.any, slopes))
        with np.errstate(all="ignore"):
            few = None if hot else max(FEW, self.differences.least)
            if self.differences.first(terms, NOTHING if known else few)[0] is None:
                return False
            return known or self._turns(values, slopes)

    def _closer(
        self, values: Sequence[Array], own: Sequence[Array], terms: Sequence[Array]
    ) -> bool:
        """Whether derivatives that the function itself asks for have to be certified."""
        by = max([1.0, *map(size_of, values)])
        long = self.compiled.operations > LONG
        if long and any(size_of(slope) * by > MAGNIFIED for slope in own):
            return True
        with np.errstate(all="ignore"):
            return self.differences is not None and self.differences.first(terms)[0] is not None

    def _turns(self, values: Sequence[Array], slopes: Sequence[Array]) -> bool:
        """Whether a gradient changes where the terms of sums are rounded otherwise."""
        if self.compiled.flat is not None:
            return True  # it is quick to look closely at so few numbers
        if self.kinks is not None and (side := self._one_side(values)) is not None:
            slopes = side[len(self.outputs) :]
        for plan in self._coarse:
            for plain, other in zip(slopes, plan(values), strict=True):
                change = SAFETY / COARSE * size_of(other - plain)
                if not change <= turned(self.given) * size_of(plain):
                    return True
        return False

    @cached_property
    def _coarse(self) -> list[Plan]:
        """The gradient with the terms of sums that may cancel rounded coarsely."""
        assert self.differences is not None
        found = []
        for number in range(SAMPLES):
            hook = self.differences.rounded(Roundings(number, COARSE))
            other = copied(self.system, self.system.name, None, hook)
            inputs, results = (
                [other.variables[name] for name in names]
                for names in (self.inputs, self.names[len(self.outputs) :])
            )
            found.append(Plan(inputs, results, definitions(other)))
        return found

    def _unusual(self, values: Sequence[Array], found: list[Array], small: bool) -> bool:
        """Whether a derivative is so large that rounding may be magnified on a long way.

        Or so `small` that sums may have taken all of its digits, in a wider precision too.
        """
        count, named = len(self.outputs), dict(zip(self.inputs, values, strict=True))
        top = max(1.0, *(size_of(a) for a in found[:count]))
        for v, slope in zip(self.parameters, found[count:], strict=True):
            by = size_of(named[v.name])
            tiny = size_of(slope) * max(1.0, by) < ALL_BUT_ZERO * top
            if small and slope.size and tiny:
                return True
            if size_of(slope) * by > MAGNIFIED * top:
                return True
        return False

    def _planned(self, values: Sequence[Array]) -> tuple[list[Array] | None, Any]:
        found, finite = self.plan.checked(values)
        count, terms = len(self.copied), found[self.terms]
        if self.of is None:  # where there are none, there is nothing to be looked at
            terms = [found[self.own], terms] if self.own.stop > self.own.start else []
        if not finite and not all_finite(found[: self.checked]):
            return None, terms
        if self.kinked_loops:
            named = dict(zip(self.inputs, values, strict=True))
            if self.compiled.meets_kinks(named):
                return None, terms
        ties = found[count : count + self.tie_count]
        matrices = found[count + self.tie_count : self.checked]
        if matrices and not worst(matrices) < HARMLESS:
            return None, terms
        if any(tie.any() for tie in ties):
            found[self.plain :] = self._mean(values, found[self.plain : count])
        del found[count:]
        for k, dtype in enumerate(self.copied):
            if dtype is not None:
                found[k] = np.array(found[k], dtype)[()]
        return found, terms

    def _rounding(self, values: Sequence[Array]) -> float:
        """How far derivatives change where all that they are made of moves by its last bits.

        On one side of kinks: their mean has nothing to do with it.
        """
        rng, first = np.random.default_rng(0), 0 if self.of is None else len(self.outputs)
        found = self._one_side(values)
        if found is None:
            return 0.0  # what is not finite is named by others
        others, scale = [], max(map(size_of, found))
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
            return self._swept(values)[0]
        found = self.plan(values)[: self.checked]
        return found[: len(self.copied)] if all_finite(found) else None

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

    def _swept(self, values: Sequence[Array]) -> tuple[list[Array] | None, Any]:
        tape = self.compiled.flat
        assert tape is not None
        memory = tape.forward(values)
        if not all_finite([memory]):
            return None, ()
        if tape.tied(memory) and self.compiled.kinks is not None:
            return None, ()
        sweep = ScalarSweep(self.compiled, ScalarPoint(tape, memory))
        found = [memory[tape.place[v.index]] for v in self.outputs]
        if self.of is not None:
            sweep.seed(self.of, 1.0)
            sweep.back()
            found += [np.array(sweep.value(v))[()] for v in self.parameters]
        terms: Any = () if self.terms is None else memory[self.terms]
        if self.of is None:
            terms = [memory[self.own], terms] if self.own.size else []
        return (found if all_finite(found) else None), terms


def size_of(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def direct(program: Derivable, outputs: tuple[str, ...], of: str | None) -> ExplicitGradient | None:
    """The straight line of a program without equations, made once; None for others."""
    compiled = program.compiled()
    if not compiled.explicit:
        return None
    return compiled.once(ExplicitGradient, program, outputs, of)
