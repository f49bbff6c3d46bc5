"""How operations are written: terms, how strongly they bind, and what stands between them.

A primitive's notation is a function of a style, of its parameters and of its arguments as they
are written. One notation serves text, LaTeX and NumPy source; a style says how each writes
products, fractions, powers and transposes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Binding strengths: a term is put in brackets where something stronger surrounds it.
SUM, PRODUCT, SIGN, POWER, ATOM = 1, 2, 3, 4, 9
# What is written, and how strongly it binds.
Rendered = tuple[str, int]


@dataclass(frozen=True)
class Style:
    """How names, numbers, products, fractions, powers, transposes and calls are written.

    `call` is given a node and its arguments. `numpy` says whether it is NumPy source.
    """

    name: Callable[[str], str]
    constant: Callable[[Any], str]
    times: str
    fraction: Callable[[Rendered, Rendered], Rendered]
    power: Callable[[Rendered, Rendered], Rendered]
    transpose: Callable[[Rendered], Rendered]
    call: Callable[[Any, Sequence[str]], str]
    longest: int
    numpy: bool = False


# Of a style, a node and its arguments, written; None where a call is as good.
Notation = Callable[[Style, Any, Sequence[Rendered]], Rendered | None]


def bracketed(term: Rendered, strength: int) -> str:
    return term[0] if term[1] >= strength else f"({term[0]})"


def plus(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered:
    (left, _), (right, _) = terms
    return f"{left} - {right[1:]}" if right.startswith("-") else f"{left} + {right}", SUM


def minus(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered:
    return f"{terms[0][0]} - {bracketed(terms[1], PRODUCT)}", SUM


def times(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered:
    return style.times.join([bracketed(terms[0], PRODUCT), bracketed(terms[1], POWER)]), PRODUCT


def opposite(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered:
    (term,) = terms
    return f"-{bracketed(term, PRODUCT)}", SIGN if term[1] > PRODUCT else PRODUCT


over: Notation = lambda style, node, terms: style.fraction(*terms)
to_the: Notation = lambda style, node, terms: style.power(*terms)


def squared(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered | None:
    return None if style.numpy else style.power(terms[0], ("2", ATOM))


def complement_of_square(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered | None:
    """1 − y²."""
    return None if style.numpy else (f"1 - {style.power(terms[0], ('2', ATOM))[0]}", SUM)


def compared(sign: str) -> Notation:
    """A comparison, which NumPy source writes as a call."""

    def notation(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered | None:
        return None if style.numpy else (f"{terms[0][0]} {sign} {terms[1][0]}", 0)

    return notation


def postfix(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered:
    """What is written behind its argument: an index."""
    return style.call(node, [bracketed(term, ATOM) for term in terms]), ATOM


def shortened(write: Callable[[Any, str], str | None]) -> Notation:
    """What a person writes shorter than NumPy does, if the function given says how."""

    def notation(style: Style, node: Any, terms: Sequence[Rendered]) -> Rendered | None:
        found = None if style.numpy else write(node, terms[0][0])
        return None if found is None else (found, ATOM)

    return notation
