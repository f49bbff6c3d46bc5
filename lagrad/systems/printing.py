"""Programs as a person writes them: in text, in LaTeX, and, for `source`, in NumPy."""

import re
from collections.abc import Sequence

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.notation import ATOM, POWER, PRODUCT, SIGN, Rendered, Style, bracketed
from lagrad.systems.constraint import Constraint
from lagrad.systems.system import System

LONGEST = 160
SHOWN = 40

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
)
GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψω", LETTERS.split(), strict=True))


def number(value: float) -> str:
    """A number, without the zeros that say only that it is a float."""
    shown = f"{value:.10g}" if isinstance(value, float) else repr(value)
    return shown[:-2] if shown.endswith(".0") else shown


def constant_text(node: Constant) -> str:
    value = np.asarray(node.value)
    if value.ndim == 0:
        return number(value.item())
    if value.size and (value == value.flat[0]).all():
        return number(value.flat[0].item())
    if value.size <= 6:
        return str([number(v) for v in value.ravel().tolist()]).replace("'", "")
    return f"array{value.shape}"


def call_code(node: Expression, texts: Sequence[str]) -> str:
    """The NumPy call."""
    return node.primitive.code(texts, node.parameters) if node.primitive else ""


def call_text(node: Expression, texts: Sequence[str]) -> str:
    """The call without its module, and without the underscore of a generated module's own."""
    written = call_code(node, texts)
    return re.sub(r"\b(np\.linalg|scipy\.special|np)\.|^_(?=\w+\()", "", written)


def text_power(base: Rendered, exponent: Rendered) -> Rendered:
    if re.fullmatch(r"\d+", exponent[0]):
        return bracketed(base, ATOM) + exponent[0].translate(SUPERSCRIPTS), POWER
    return f"{bracketed(base, ATOM)}^{bracketed(exponent, ATOM)}", POWER


TEXT = Style(
    name=str,
    constant=constant_text,
    times="·",
    fraction=lambda a, b: (f"{bracketed(a, PRODUCT)}/{bracketed(b, SIGN)}", PRODUCT),
    power=text_power,
    transpose=lambda term: (f"{bracketed(term, ATOM)}ᵀ", ATOM),
    call=call_text,
    longest=LONGEST,
)


# What LaTeX would obey, or a page around it (`<script>`), as what it looks like.
SPECIAL = {c: f"\\{c}" for c in "{}$&#%_"} | {c: f"{{{c}}}" for c in "<>"}
SPECIAL |= {"\\": "\\backslash{}", "^": "\\wedge{}", "~": "\\sim{}"}
AS_TEXT = str.maketrans(SPECIAL)


def latex_name(name: str) -> str:
    """λ_y_1 as λ with the subscript y, 1."""
    head, *rest = [part for part in name.split("_") if part] or [name.translate(AS_TEXT)]
    spelled = [
        "".join(f"\\{GREEK[c]} " if c in GREEK else c for c in part).strip()
        for part in (head, *rest)
    ]
    first = spelled[0] if len(head) == 1 or spelled[0].startswith("\\") else f"\\mathrm{{{head}}}"
    return first + (f"_{{{','.join(spelled[1:])}}}" if rest else "")


def call_latex(node: Expression, texts: Sequence[str]) -> str:
    name = node.primitive.name if node.primitive else ""
    if name == "sqrt":
        return f"\\sqrt{{{texts[0]}}}"
    if name in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "max", "min"):
        return f"\\{name}\\left({texts[0]}\\right)"
    # The arguments are LaTeX already; the call around them is not.
    places = [f"\ue000{k}\ue001" for k in range(len(texts))]
    written = call_text(node, places)
    head = re.match(r"\w+(?=\()", written)
    shown = written[head.end() :] if head else written
    shown = shown.translate(AS_TEXT)
    if head:
        shown = f"\\operatorname{{{head[0].translate(AS_TEXT)}}}{shown}"
    return re.sub("\ue000(\\d+)\ue001", lambda place: texts[int(place[1])], shown)


LATEX = Style(
    name=latex_name,
    constant=lambda node: constant_text(node).replace("array", "\\mathrm{array}"),
    times=" ",
    fraction=lambda a, b: (f"\\frac{{{a[0]}}}{{{b[0]}}}", ATOM),
    power=lambda a, b: (f"{bracketed(a, ATOM)}^{{{b[0]}}}", POWER),
    transpose=lambda term: (f"{bracketed(term, ATOM)}^{{\\top}}", ATOM),
    call=call_latex,
    longest=4 * LONGEST,
)

CODE = Style(
    name=str,
    constant=lambda node: repr(node.value),
    times=" * ",
    fraction=lambda a, b: (f"{bracketed(a, PRODUCT)} / {bracketed(b, SIGN)}", PRODUCT),
    power=lambda a, b: (f"{bracketed(a, ATOM)} ** {bracketed(b, ATOM)}", POWER),
    transpose=lambda term: (f"np.transpose({term[0]})", ATOM),
    call=call_code,
    longest=10**9,
    numpy=True,
)


def render(
    root: Expression, style: Style, names: dict[int, str], memo: dict[int, Rendered]
) -> Rendered:
    """An expression, bottom up, so that neither depth nor sharing costs more than its length."""
    leaf = lambda node: node.index in memo or node.index in names
    for node in ancestors([root], leaf, {}):
        if node.index in memo:
            continue
        if node.index in names:
            done: Rendered = names[node.index], ATOM
        elif isinstance(node, Variable):
            done = style.name(node.name), ATOM
        elif isinstance(node, Constant):
            shown = style.constant(node)
            done = shown, SIGN if shown.startswith("-") else ATOM
        else:
            terms = [memo[a.index] for a in node.arguments]
            notation = None if node.primitive is None else node.primitive.notation
            found = None if notation is None else notation(style, node, terms)
            done = found or (style.call(node, [text for text, _ in terms]), ATOM)
            if len(done[0]) > style.longest:
                done = "…", ATOM
        memo[node.index] = done
    return memo[root.index]


def sides(constraint: Constraint, style: Style, memo: dict[int, Rendered]) -> tuple[str, str]:
    left = render(constraint.lhs, style, {}, memo)[0]
    return left, render(constraint.rhs, style, {}, memo)[0]


def text(system: System) -> str:
    """The constraints of a system, a line each, after its parameters and unknowns."""
    lines = [f"program {system.name}"]
    for role, what in (("parameter", "parameters"), ("unknown", "unknowns")):
        found = [v.name + (str(list(v.shape)) if v.shape else "") for v in system.with_role(role)]
        if found:
            rest = f", … {len(found) - 12} more" if len(found) > 12 else ""
            lines.append(f"  {what}: {', '.join(found[:12])}{rest}")
    memo: dict[int, Rendered] = {}
    wanted = list(system.constraints.values())
    if len(wanted) > SHOWN:
        wanted = [*wanted[: SHOWN // 2], *wanted[-(SHOWN // 2) :]]
    rows = []
    for constraint in wanted:
        left, right = sides(constraint, TEXT, memo)
        known = constraint.variable is not None or constraint.name == left
        rows.append(f"  {left} = {right}" + ("" if known else f"    [{constraint.name}]"))
    if len(system.constraints) > len(rows):
        rows.insert(SHOWN // 2, f"  … {len(system.constraints) - len(rows)} more constraints …")
    return "\n".join(lines + rows)


def latex(system: System) -> str:
    """The constraints of a system as an aligned display."""
    memo: dict[int, Rendered] = {}
    rows = []
    for constraint in list(system.constraints.values())[:SHOWN]:
        left, right = sides(constraint, LATEX, memo)
        rows.append(f"{left} &= {right}".replace("…", "\\dots"))
    if len(system.constraints) > SHOWN:
        rows.append(f"&\\;\\vdots\\;\\text{{{len(system.constraints) - SHOWN} more}}")
    return "$$\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}$$"
