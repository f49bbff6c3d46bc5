"""The same computation with its operations rounded otherwise: what differs is rounding.

Each operation's result is moved by up to a spacing of floating-point numbers, at random but the
same each time. What cancels inside a partial, between blocks or on the way back to a parameter
shows itself, however deep, and correlated errors stay correlated (Vignes, Discrete Stochastic
Arithmetic for Validating Results of Numerical Software, 2004,
doi:10.1023/B:NUMA.0000049483.75679.ce).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors, moves
from lagrad.systems.constraint import definitions
from lagrad.systems.linearization import Tape
from lagrad.systems.system import System
from lagrad.typing import Array, DType, Function, Indices

# Operations that are rounded, and those of which some arguments are.
Only: TypeAlias = tuple[set[int], dict[int, tuple[bool, ...]]]
# Two errors that cancel in one sample may add up in the other.
SAMPLES = 2
# How many spacings a sample is moved by, to be divided by them: of whole ones, one forth and one
# back, too many sums are zero.
SPACINGS = 4.0
# How coarsely terms are rounded that may cancel: two moves by one spacing often make none.
COARSE = 32.0
# So many more where two leave open whether a result is zero.
FURTHER = 6
# Of what the size of a sample is in doubt: signs are random, and lengths from a half to one.
SAFETY = 3.0
# The same where the further samples are taken, as where two leave a bound above what was asked
# for: each operation is moved by three times what rounding does to it, root mean square.
CLOSER = 1.0


# Shares of a spacing, in a row long enough that its pieces have nothing in common.
POOL = 1 << 16


def shares(count: int) -> Array:
    """Random numbers of a half to one in size, of either sign."""
    found = np.random.default_rng(0).random(count)
    return found - (found < 0.5)


@cache
def factors(dtype: str, times: float) -> Array:
    """One, off by those shares of so many spacings."""
    return 1 + times * np.finfo(dtype).eps * shares(2 * POOL).astype(dtype)


class Roundings:
    """Factors near one, of random signs: a sequence that is the same for the same number."""

    def __init__(self, number: int, times: float = 1.0) -> None:
        self.place, self.times = 7919 * number, times
        self.moves = np.random.default_rng(number)

    def share(self, parts: Array | None = None) -> Any:
        """A random number of a half to one in size, of either sign; one for each of some parts."""
        if parts is not None:
            each = self.moves.random(int(parts.max()) + 1)
            return (each - (each < 0.5))[parts]
        found = float(self.moves.random())
        return found - (found < 0.5)

    def __call__(self, value: Any) -> Any:
        """A value whose entries are each off by up to their spacing."""
        if type(value) is float:
            value = np.float64(value)
        if value.dtype.kind != "f":
            return value
        size, place = value.size, self.place
        self.place = (place + size + 12) % POOL
        row = factors(value.dtype.str, self.times)
        if value.ndim == 0:
            return value * row[place]
        piece = row[place : place + size] if size <= POOL else np.resize(row[place:], size)
        return value * piece.reshape(value.shape)


# How the operations within the steps of loops are rounded, where that is asked for.
STEPS: ContextVar[Roundings | None] = ContextVar("lagrad_steps", default=None)


@contextmanager
def stepping(rounded: Roundings | None) -> Iterator[None]:
    """Have the operations within the steps of loops rounded otherwise, or as they are."""
    token = STEPS.set(rounded)
    try:
        yield
    finally:
        STEPS.reset(token)


class RoundedConstants:
    """Constants that are rounded from others, as 1/3 is."""

    def __init__(self) -> None:
        self.nodes: list[Constant] = []

    def see(self, node: Constant) -> None:
        """Take a constant, if it is one."""
        if node.made is None or node.dtype.kind != "f":
            return
        with np.errstate(all="ignore"):
            try:
                finer = node.made(np.dtype(np.longdouble))
            except TypeError:  # it knows nothing wider
                return
        if not np.array_equal(finer, node.value):
            self.nodes.append(node)

    def otherwise(self, rounded: Roundings) -> dict[int, Any]:
        """Their values rounded otherwise, by index."""
        return {node.index: rounded(np.asarray(node.value)) for node in self.nodes}

    def wide(self, dtype: DType) -> dict[int, Any]:
        """Their values in another precision."""
        with np.errstate(all="ignore"):
            return {n.index: n.made(dtype) for n in self.nodes if n.made is not None}


@dataclass(frozen=True, slots=True)
class Operation:
    """One node: where its value goes, what it is of, and what of it is rounded."""

    index: int
    kernel: Function
    arguments: Indices
    rounds: bool
    conditioned: tuple[bool, ...]
    level: float | None


class RoundedSystem:
    """The definitions of a system and the data of its tape, evaluated node by node.

    Where only some operations are to be rounded, `only` has these, and those of which some of what
    they are given is, for them alone.
    """

    def __init__(self, system: System, tape: Tape, only: Only | None = None) -> None:
        defined = definitions(system)
        variables = list(system.variables.values())
        self.tape, self.within = tape, only is None
        self.constants: list[tuple[int, Any]] = []
        self.rounded = RoundedConstants()
        self.order: list[Operation | tuple[int, int]] = []
        self.variables = [v for v in variables if v.index in defined]
        leaf = lambda n: isinstance(n, Variable) and n.index not in defined
        values = {node.index for node in ancestors(self.variables, leaf, defined)}
        for node in ancestors([*self.variables, *tape.data], leaf, defined):
            if isinstance(node, Constant):
                self.constants.append((node.index, np.asarray(node.value)))
                if only is None:
                    self.rounded.see(node)
            elif node.index in defined:
                self.order.append((node.index, defined[node.index].index))
            elif node.primitive is not None:
                self.order.append(operation(node, only, node.index in values))

    def __call__(
        self, values: Mapping[Variable, Array], rounded: Roundings
    ) -> tuple[dict[Variable, Array], Sequence[Array]]:
        """The defined variables' values and the tape's data, from the values of all others."""
        with stepping(rounded if self.within else None):
            return self._evaluated(values, rounded)

    def _evaluated(
        self, values: Mapping[Variable, Array], rounded: Roundings
    ) -> tuple[dict[Variable, Array], Sequence[Array]]:
        memory: dict[int, Any] = {v.index: a for v, a in values.items()}
        memory.update(self.constants)
        memory.update(self.rounded.otherwise(rounded))
        for step in self.order:
            if isinstance(step, tuple):
                memory[step[0]] = memory[step[1]]
                continue
            given = [memory[a] for a in step.arguments]
            if step.conditioned:
                pairs = zip(given, step.conditioned, strict=True)
                given = [rounded(np.asarray(a)) if spoilt else a for a, spoilt in pairs]
            found = step.kernel(*given)
            if step.level is not None:
                exact = np.abs(given[0]) > step.level
                memory[step.index] = np.where(exact, found, rounded(found))
            else:
                memory[step.index] = rounded(found) if step.rounds else found
        others = {v: np.asarray(memory[v.index], dtype=v.dtype) for v in self.variables}
        return others, [memory[node.index] for node in self.tape.data]


def exact(node: Expression) -> bool:
    """Whether an operation rounds nothing."""
    primitive = node.primitive
    return node.dtype.kind != "f" or moves(node) or (primitive is not None and primitive.kink)


def operation(node: Expression, only: Only | None = None, valued: bool = True) -> Operation:
    """What is to be done for a node, and whether values are made of it, or derivatives alone.

    Which eigenvectors of nearly equal eigenvalues are taken has a part in values that are the same
    for all of them; derivatives of single eigenvalues depend on them.
    """
    primitive = node.primitive
    assert primitive is not None
    kernel, arguments = primitive.kernel(node.parameters), tuple(a.index for a in node.arguments)
    if only is not None:
        conditioned = only[1].get(node.index, ())
        return Operation(node.index, kernel, arguments, node.index in only[0], conditioned, None)
    inside = primitive.conditioned is not None or (primitive.parted and not valued)
    rounds = not (exact(node) or inside)
    level = primitive.level if rounds else None
    conditioned = (True,) * len(arguments) if inside else ()
    return Operation(node.index, kernel, arguments, rounds, conditioned, level)


def closer(
    found: Mapping[Any, Array], other: Mapping[Any, Array], times: float = SPACINGS
) -> dict[Any, Array]:
    """What a spacing would have done, where numbers were rounded to so many of them."""
    return {key: array + (other[key] - array) / times for key, array in found.items()}
