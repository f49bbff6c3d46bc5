"""A primitive as data: one operation on arrays, and all that is ever asked about it.

How to evaluate it, what shape comes out, one linear map for each argument; and traits, so that
nothing elsewhere is decided by a primitive's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lagrad.expressions.linear_maps import LinearMap
from lagrad.expressions.notation import Notation
from lagrad.typing import Array, Function, Kind, Parameters, Shape

if TYPE_CHECKING:
    from lagrad.expressions.expression import Expression
    from lagrad.expressions.graph import Graph


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """One operation on arrays: its value, its output's shape and dtype, its local partials.

    Attributes
    ----------
    name : str
    kernel : callable
        `kernel(parameters)` is the function of the arguments' arrays that computes the value.
    infer : callable
        `infer(arguments, parameters)` is the output's shape and dtype.
    partial : callable
        `partial(node, k)` is the `LinearMap` of argument `k`, or None where it is zero.
    code : callable
        `code(texts, parameters)` is the operation as NumPy source.
    joint : callable, optional
        `joint(node, ks)` are the maps of several arguments, where they are found together.
    notation : callable, optional
        How a person writes it, where that is not a call: see `notation.py`.
    source : callable, optional
        `source(module, node, texts)` is the operation in a module of NumPy source, where `code`
        alone is not enough: it needs constants or functions of that module.
    elementwise : bool
        Whether each entry of the value is made of one entry of each argument. (A ufunc's is.)
    doubles : bool
        Whether it makes a double of doubles, so that scalars need no inference.
    commutative : bool
        Whether its two arguments may change places.
    kink : bool
        Whether its derivative jumps somewhere.
    parted : bool
        Whether its derivative has no value where eigenvalues are equal, among which only the sum
        over a group has one.
    share : bool
        Whether its value is what a choice takes of something: zero where that is left aside.
    conditioned : callable, optional
        Of one that may magnify rounding of its arguments without end, as the inverse of a matrix
        does: `conditioned(node)` is that matrix, or a number that is as large as that.
    level : float, optional
        The size of arguments beyond which its value is a limit to the last digit, and exact.
    singular : callable, optional
        `singular(node)` says whether its local partials may be infinite at finite arguments.
    ties : callable, optional
        Of one whose value jumps, `ties(node)` says at which entries; what it has there is the mean
        of both sides, if it is no truth.
    fresh : bool
        Whether its value is surely an array of its own, no view of an argument. (An elementwise
        one's is.)
    simplify : callable, optional
        `simplify(lowered, operation)` is where an equal value stands already in a lowered
        program, or a simpler operation. Those of NumPy's functions: `compiler/simplification.py`.
    repeats : callable, optional
        `repeats(parameters)` is the program that it runs again and again.
    breaks : callable, optional
        `breaks(parameters, arguments)` says where it stops being finite, or None.
    meets : callable, optional
        `meets(parameters)` is a function that says of the arguments whether what is repeated meets
        a kink of its own derivatives; None where it has none.
    rules : tuple of callables
        A user's functions that its maps are made by: what they close over is in derived programs.
    """

    name: str
    kernel: Callable[[Parameters], Function]
    infer: Callable[[tuple[Expression, ...], Parameters], Kind]
    partial: Callable[[Expression, int], LinearMap | None]
    code: Callable[[Sequence[str], Parameters], str]
    joint: Callable[[Expression, Shape], Sequence[LinearMap]] | None = None
    notation: Notation | None = None
    source: Callable[[Any, Expression, Sequence[str]], str] | None = None
    elementwise: bool = False
    doubles: bool = False
    commutative: bool = False
    kink: bool = False
    parted: bool = False
    share: bool = False
    conditioned: Callable[[Expression], Expression] | None = None
    level: float | None = None
    singular: Callable[[Expression], bool] | None = None
    ties: Callable[[Any], Any] | None = None
    fresh: bool = False
    simplify: Callable[[Any, Any], Any] | None = None
    repeats: Callable[[Parameters], Any] | None = None
    breaks: Callable[[Parameters, Sequence[Array]], str | None] | None = None
    meets: Callable[[Parameters], Callable[[Sequence[Array]], bool] | None] | None = None
    rules: tuple[Function, ...] = ()

    def __call__(self, graph: Graph, *arguments: Any, parameters: Parameters = ()) -> Expression:
        return graph.apply(self, tuple(map(graph.lift, arguments)), parameters)
