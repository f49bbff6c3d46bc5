"""A program as runnable NumPy source, one statement for each constraint."""

import ast
import base64
import builtins
import inspect
import keyword
import re
import zlib
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from lagrad.errors import UnsupportedFunction
from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.notation import Rendered
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.primitives import kernels
from lagrad.primitives.cofactors import cofactor, cofactor_change
from lagrad.primitives.repeated_eigenvalues import equal_shares, inverse_gaps
from lagrad.programs import source_runtime
from lagrad.solving.compiled_system import CompiledSystem, ExplicitRun
from lagrad.systems.constraint import definitions
from lagrad.systems.printing import CODE, call_code, render
from lagrad.systems.system import System
from lagrad.typing import Array, Function

HELPERS: dict[str, Function] = {
    f"_{function.__name__}": function
    for function in (
        *(source_runtime.array, source_runtime.gather, source_runtime.scatter),
        *(source_runtime.embed, cofactor, kernels.logistic_share, kernels.exp_ratio),
        *(kernels.tanh_slope, kernels.hypot_share, kernels.unit_complement),
        *(kernels.inverse_mills, cofactor_change),
        *(kernels.logsumexp, kernels.softmax, kernels.log_softmax, equal_shares, inverse_gaps),
        *(kernels.larger_share, kernels.extreme_share, kernels.branch_share),
        *(source_runtime.root, source_runtime.linear, source_runtime.chain, source_runtime.settled),
        source_runtime.together,
        source_runtime.given,
    )
}
IMPORTS = {
    "base64": "import base64",
    "math": "import math",
    "zlib": "import zlib",
    "np": "import numpy as np",
    "optimize": "from scipy import optimize",
    "scipy.sparse": "import scipy.sparse.linalg",
    "scipy.special": "import scipy.special",
    "special": "from scipy import special",
}


@cache
def helper(name: str) -> str:
    """The text of a helper, with one line of explanation.

    Decorators and annotations are left out: a module lacks their names.
    """
    (function,) = ast.parse(inspect.getsource(HELPERS[name])).body
    assert isinstance(function, ast.FunctionDef)
    function.name, function.decorator_list = name, []
    function.body[0] = ast.Expr(ast.Constant((ast.get_docstring(function) or "").split("\n")[0]))
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(function)


# What a module calls by name, so that nothing of the program's may be called so in it.
RESERVED = {*HELPERS, *IMPORTS, *dir(builtins), *keyword.kwlist, "scipy", "solve", "_z"}


def numbers(value: Any) -> str:
    """A number, or a list of some, as source."""
    return re.sub("nan|inf", r"np.\g<0>", repr(value))


# How much one line may compute before a part of it gets a line of its own.
LONGEST_LINE = 24


class SourceWriter:
    """Statements, temporaries and constants of one module.

    The writer of a loop's step writes within the module of an `outer` one.
    """

    def __init__(self, system: System, outer: "SourceWriter | None" = None) -> None:
        self.system = system
        self.names: dict[int, str] = {}
        self.memo: dict[int, Rendered] = {}
        self.constants: list[str] = outer.constants if outer else []
        self.steps: dict[Any, str] = outer.steps if outer else {}
        # The module's own names, and with them those of the program's variables.
        self.reserved: set[str] = outer.reserved if outer else set(RESERVED)
        self.taken: set[str] = outer.taken if outer else set(RESERVED)
        self.taken |= {*system.variables, *system.constraints}
        # A variable that is called like something the module needs gets another name there.
        self.called = {
            name: name if name not in self.reserved else self.fresh(f"{name}_")
            for name in system.variables
        }
        self.style = replace(
            CODE, name=lambda name: self.called[name], constant=self._constant, call=self._call
        )

    def fresh(self, stem: str) -> str:
        names = (f"{stem}{number}" for number in count(1))
        name = next(name for name in names if name not in self.taken)
        self.taken.add(name)
        self.reserved.add(name)
        return name

    def stored(self, array: Any) -> str:
        """The name of a constant array."""
        array = np.ascontiguousarray(array)
        name = self.fresh("_c")
        packed = base64.b85encode(zlib.compress(array.tobytes())).decode()
        self.constants.append(f"{name} = _array({packed!r}, {array.dtype.str!r}, {array.shape})")
        return name

    def array(self, value: Array) -> str:
        """An array as source: written out where it is short, and the name of a constant else."""
        if value.ndim == 0:
            return numbers(value.item())
        fill = value.flat[0].item() if value.size else 0.0
        if (value == fill).all():
            return f"np.full({value.shape}, {numbers(fill)})"
        return self.stored(value) if value.size > 16 else f"np.array({numbers(value.tolist())})"

    def _constant(self, node: Constant) -> str:
        return numbers(node.value) if type(node.value) in NUMBERS else self.array(node.value)

    def _call(self, node: Expression, texts: Any) -> str:
        if node.primitive is not None and node.primitive.source is not None:
            return node.primitive.source(self, node, texts)
        return call_code(node, texts)

    def sparse(self, matrix: Any) -> str:
        """The name of a constant sparse matrix."""
        parts = [self.stored(a) for a in (matrix.data, matrix.indices, matrix.indptr)]
        name = self.fresh("_A")
        built = f"scipy.sparse.csr_array(({', '.join(parts)}), shape={matrix.shape})"
        self.constants.append(f"{name} = {built}")
        return name

    def step(self, chain: Any) -> str:
        """The name of a function of a loop's step."""
        asked = (*chain.after, *chain.outputs)
        key = (chain.step, chain.given, asked)
        if key not in self.steps:
            name = self.steps[key] = self.fresh("_step")
            inner = SourceWriter(chain.step, self)
            variables = [chain.step.variables[name] for name in asked]
            body = inner.body(chain.step.compiled(), variables)
            given, found = ([inner.called[n] for n in names] for names in (chain.given, asked))
            lines = [f"def {name}({', '.join(given)}):", *(f"    {line}" for line in body)]
            self.constants.append("\n".join([*lines, f"    return [{', '.join(found)}]"]))
        return self.steps[key]

    def body(self, compiled: CompiledSystem, asked: list[Variable] | None = None) -> list[str]:
        """The statements that find all variables, or what some of them need."""
        needed = list(self.system.variables.values())
        if asked is not None and not self.system.with_role("unknown"):
            found = ancestors(asked, lambda node: False, definitions(self.system))
            needed = [node for node in found if isinstance(node, Variable)]
        names = {v.name for v in needed}
        # No equation determines an unknown without entries, or need determine it.
        empty = [v for v in needed if v.role == "unknown" and v.size == 0]
        lines = [f"{self.called[v.name]} = {self.array(v.start)}" for v in empty]
        for run in compiled.runs:
            if isinstance(run, ExplicitRun):
                defined = [c for b in run.blocks for c in b.constraints if c.name in names]
                lines += self.statements([(self.called[c.name], c.rhs) for c in defined])
            else:
                lines += implicit_block(self, run)
        return lines

    def written(self, node: Expression) -> bool:
        """Whether a node has a name already."""
        return isinstance(node, Variable) or node.index in self.names

    def apart(self, targets: list[Expression]) -> set[int]:
        """The indices of nodes that get a line of their own: used often, or long to write."""
        needed = ancestors(targets, self.written, {})
        nodes = [node for node in needed if not self.written(node)]
        uses = Counter(argument.index for node in nodes for argument in node.arguments)
        cost: Counter[int] = Counter()
        found = set()
        for node in nodes:
            spent = 1 + sum(cost[a.index] for a in node.arguments)
            if node.primitive is not None and (uses[node.index] > 1 or spent > LONGEST_LINE):
                found.add(node.index)
            elif node.primitive is not None:
                cost[node.index] = spent
        return found

    def statements(self, targets: list[tuple[str, Expression]]) -> list[str]:
        """Assignments in order, each after the temporaries that it needs.

        Temporaries are shared by all targets, so that the source stays as long as the graph.
        """
        apart = self.apart([root for _, root in targets])
        lines = []
        for name, root in targets:
            needed = ancestors([root], self.written, {})
            temporaries = [n for n in needed if n.index in apart and not self.written(n)]
            for node in [*(n for n in temporaries if n is not root), root]:
                called = name if node is root else self.fresh("_t")
                lines.append(f"{called} = {render(node, self.style, self.names, self.memo)[0]}")
                if node.index in apart:
                    self.names[node.index] = called
                    self.memo.pop(node.index, None)
        return lines


def source(compiled: CompiledSystem) -> str:
    """The module of a program: its helpers, its constants, and `solve`."""
    system = compiled.system
    if system.derived and any(g.approach.redundancy is not None for g in system.groups):
        raise UnsupportedFunction(
            "source() of derivatives of equations that are more than their unknowns: whether there "
            "are any is seen by solve() alone; use solve(), or leave equations out."
        )
    writer = SourceWriter(system)
    parameters = system.with_role("parameter")
    spoken = [v for v in parameters if writer.called[v.name] == v.name]
    renamed = [v for v in parameters if writer.called[v.name] != v.name]
    signature = [v.name + ("" if v.start is None else f"={writer.array(v.start)}") for v in spoken]
    body = []
    if renamed:
        others = writer.fresh("_others")
        signature.append(f"**{others}")
        starts = [f"{v.name!r}: {writer.array(v.start)}" for v in renamed if v.start is not None]
        targets = "".join(f"{writer.called[v.name]}, " for v in renamed)
        own = [v.name for v in renamed]
        body.append(f"{targets}= _given({others}, {own}, {{{', '.join(starts)}}})")
    body += writer.body(compiled)
    names = ", ".join(f'"{name}": {called}' for name, called in writer.called.items())
    code = [
        f"def solve({'*, ' if spoken else ''}{', '.join(signature)}):",
        f"    {f'The values of all variables of {system.name}.'!r}",
        *(f"    {line}" for line in body),
        f"    return {{{names}}}",
    ]
    constants = "\n".join(writer.constants)
    text = "\n".join([constants, *code])
    helpers = [helper(name) for name in HELPERS if f"{name}(" in text]
    everything = "\n".join([*helpers, text])
    imports = [
        line for name, line in IMPORTS.items() if re.search(rf"(?<![\w.]){name}\.", everything)
    ]
    parts = ["\n".join(imports), *helpers, constants, "\n".join(code)]
    head = f"{f'{system.name}, as NumPy source.'!r}\n\n"
    return head + "\n\n\n".join(part for part in parts if part) + "\n"


def implicit_block(writer: SourceWriter, run: Any) -> list[str]:
    """A nested residual function of one vector, and the call that solves it."""
    block = run.block
    name = writer.fresh("_residual")
    ends = np.cumsum([v.size for v in block.unknowns]).tolist()
    unpack = [
        f"{writer.called[v.name]} = "
        + (f"_z[{end - v.size}:{end}].reshape({v.shape})" if v.shape else f"_z[{end - 1}]")
        for v, end in zip(block.unknowns, ends, strict=True)
    ]
    kept_names, kept_memo = dict(writer.names), dict(writer.memo)
    definitions = [(writer.called[c.name], c.rhs) for c in block.definitions]
    results = [(writer.fresh("_r"), c.residual) for c in block.equations]
    lines = [*unpack, *writer.statements([*definitions, *results])]
    writer.names, writer.memo = kept_names, kept_memo
    returned = ", ".join(f"np.ravel({result})" for result, _ in results)
    lines.append(f"return np.concatenate([{returned}])")
    if run.equations.linear:
        solved = f"_z = _linear({name}, {block.size})"
    else:
        starts = ", ".join(f"np.ravel({writer.array(v.start)})" for v in block.unknowns)
        solved = f"_z = _root({name}, np.concatenate([{starts}]), {ends[:-1]})"
    function = [f"def {name}(_z):", *(f"    {line}" for line in lines)]
    places = dict(zip(block.unknowns, zip([0, *ends], ends, strict=False), strict=True))
    agreed = [
        "_together({}, _z, {}, {})".format(name, *places[group.unknowns[-1]])
        for group in writer.system.groups
        if hasattr(group.approach, "redundancy") and set(places).issuperset(group.unknowns)
    ]
    return [*function, solved, *unpack, *agreed, *writer.statements(definitions)]
