"""A program as runnable NumPy source, one statement for each constraint."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from lagrad.expressions.expression import Constant, Expression, Variable
from lagrad.expressions.graph import ancestors
from lagrad.expressions.notation import Rendered
from lagrad.expressions.real_arrays import NUMBERS
from lagrad.solving.compiled_system import CompiledSystem, ExplicitRun
from lagrad.systems.constraint import definitions
from lagrad.systems.printing import CODE, render
from lagrad.systems.system import System

HELPERS = {
    "_array": '''
def _array(packed, dtype, shape):
    """An array from its compressed bytes."""
    data = zlib.decompress(base64.b85decode(packed))
    return np.frombuffer(data, dtype=dtype).reshape(shape)
''',
    "_gather": '''
def _gather(x, index):
    """x.ravel()[index], zero where the index is -1."""
    index = np.asarray(index)
    return np.where(index < 0, 0.0, np.ravel(x)[index])
''',
    "_scatter": '''
def _scatter(c, index, shape):
    """Entries of c added into zeros at the flat positions of index; -1 is dropped."""
    index = np.ravel(index)
    out = np.zeros(int(np.prod(shape)))
    np.add.at(out, index[index >= 0], np.ravel(c)[index >= 0])
    return out.reshape(shape)
''',
    "_embed": '''
def _embed(c, key, shape):
    """c in its place among zeros."""
    out = np.zeros(shape)
    out[key] = c
    return out
''',
    "_cofactor": '''
def _cofactor(x):
    """det(x) times the transposed inverse of x, of singular x too."""
    u, s, vt = np.linalg.svd(x)
    sign = np.linalg.det(u) * np.linalg.det(vt)
    others = np.where(np.eye(s.shape[-1], dtype=bool), 1.0, s[..., None, :])
    return (u * (np.prod(others, axis=-1) * sign[..., None])[..., None, :]) @ vt
''',
    "_logistic_share": '''
def _logistic_share(a, b):
    """exp(a) / (exp(a) + exp(b)), zero where both are -inf."""
    with np.errstate(invalid="ignore"):
        share = scipy.special.expit(np.subtract(a, b))
    return np.where(np.isnan(share) & (np.asarray(a) == -np.inf), 0.0, share)
''',
    "_exp_ratio": '''
def _exp_ratio(x, y):
    """exp(x - y), zero where both are -inf."""
    return np.exp(x - np.where(np.asarray(y) == -np.inf, 0.0, y))
''',
    "_root": '''
def _root(residual, start, ends):
    """Solve residual(z) = 0 by Newton's method, damped until the next correction is shorter."""
    z = np.asarray(start, dtype=float)
    if z.size > 300:
        return scipy.optimize.newton_krylov(residual, z, f_tol=1e-12)

    def largest(v):
        return np.array([np.abs(part).max() for part in np.split(v, ends)])

    with np.errstate(all="ignore"):
        top, damping = largest(z), 1.0
        for _ in range(100):
            r = residual(z)
            steps = 1e-6 * np.maximum(np.abs(z), 1e-6)
            columns = [(residual(z + e) - residual(z - e)) / (2 * e.max()) for e in np.diag(steps)]
            jacobian = np.stack(columns, axis=1)
            step = -np.linalg.solve(jacobian, r)
            size = np.where(top > 0, top, largest(step))
            length, damping = (largest(step) / size).max(), min(1.0, 4 * damping)
            while damping > 1e-10:
                trial = z + damping * step
                ahead = residual(trial)
                if not np.isfinite(ahead).all():
                    damping *= 0.5
                    continue
                after = -np.linalg.solve(jacobian, ahead)
                if (largest(after) / size).max() <= (1 - damping / 4) * length or length < 1e-12:
                    break
                bend = (largest(after - (1 - damping) * step) / size).max()
                damping = np.clip(0.5 * length * damping**2 / bend, 0.1 * damping, 0.5 * damping)
            else:
                raise ArithmeticError("no solution found: no progress")
            z, top = trial, np.maximum(top, largest(trial))
            if damping == 1.0 and (np.abs(after) <= 1e-12 * np.abs(z) + 1e-18 * size.max()).all():
                return z + after
            if length < 1e-13:
                return z
    raise ArithmeticError("no solution found in 100 steps")
''',
    "_chain": '''
def _chain(step, counts, length, backwards, *arguments):
    """Steps one after the other: the last states, then the outputs of all, in a row."""
    m, p = counts
    state, inputs, constants = arguments[:m], arguments[m : m + p], arguments[m + p :]
    outputs = [None] * length
    for t in reversed(range(length)) if backwards else range(length):
        found = step(*state, *[np.asarray(x)[t] for x in inputs], *constants)
        state, outputs[t] = found[:m], found[m:]
    rows = [np.ravel(row) for rows in zip(*outputs) for row in rows]
    return np.concatenate([*[np.ravel(part) for part in state], *rows])
''',
    "_settled": '''
def _settled(state, on):
    """A state, once its loop's condition has failed."""
    if on:
        raise ArithmeticError("a loop's condition still holds after all its steps")
    return state
''',
    "_linear": '''
def _linear(residual, size):
    """Solve residual(z) = 0, an affine function of z."""
    offset = residual(np.zeros(size))
    if size <= 2000:
        matrix = np.stack([residual(row) - offset for row in np.eye(size)], axis=1)
        return np.linalg.solve(matrix, -offset)
    operator = scipy.sparse.linalg.LinearOperator(
        (size, size), matvec=lambda v: residual(v) - offset, dtype=float
    )
    found, info = scipy.sparse.linalg.gmres(operator, -offset, rtol=1e-12, restart=200)
    if info:
        raise ArithmeticError("no solution found by GMRES")
    return found
''',
}


def literal(value: float) -> str:
    """A number as source."""
    if np.isfinite(value):
        return repr(value)
    return "np.nan" if np.isnan(value) else "np.inf" if value > 0 else "-np.inf"


RESERVED = {*HELPERS, "np", "scipy", "base64", "zlib", "solve", "_z"}
# How much one line may compute before a part of it gets a line of its own.
LONGEST_LINE = 24


class Writer:
    """Statements, temporaries and constants of one module."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.constants: list[str] = []
        self.names: dict[int, str] = {}
        self.memo: dict[int, Rendered] = {}
        self.steps: dict[Any, str] = {}
        self.taken = set(system.variables) | set(system.constraints) | RESERVED
        # A variable that is called like something the module needs gets another name there.
        self.called = {
            name: name if name not in RESERVED else f"{name}_of_{system.name}"
            for name in system.variables
        }
        self.style = replace(
            CODE, name=lambda name: self.called[name], constant=self._constant, call=self._call
        )

    def fresh(self, stem: str) -> str:
        number = 1
        while f"{stem}{number}" in self.taken:
            number += 1
        self.taken.add(f"{stem}{number}")
        return f"{stem}{number}"

    def stored(self, array: Any) -> str:
        """The name of a constant array."""
        array = np.ascontiguousarray(array)
        name = self.fresh("_c")
        packed = base64.b85encode(zlib.compress(array.tobytes())).decode()
        self.constants.append(f"{name} = _array({packed!r}, {array.dtype.str!r}, {array.shape})")
        return name

    def _constant(self, node: Constant) -> str:
        value = node.value
        if type(value) in NUMBERS:
            return literal(value)
        if value.ndim == 0:
            return literal(value.item())
        if value.size and (value == value.flat[0]).all():
            return f"np.full({value.shape}, {literal(value.flat[0].item())})"
        if value.size > 16 or not np.isfinite(value).all():
            return self.stored(value)
        return f"np.array({value.tolist()!r})"

    def _call(self, node: Expression, texts: Any) -> str:
        assert node.primitive is not None
        if node.primitive.source is not None:
            return node.primitive.source(self, node, texts)
        return node.primitive.code(texts, node.parameters)

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
            inner = Writer(chain.step)
            inner.taken |= self.taken
            inner.constants, inner.steps = self.constants, self.steps
            variables = [chain.step.variables[name] for name in asked]
            body = inner.body(chain.step.compiled(), variables)
            self.taken |= inner.taken
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
        names, lines = {v.name for v in needed}, []
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

    def apart(self, targets: list[Expression]) -> list[Expression]:
        """Nodes that get a line of their own: used more than once, or long to write."""
        leaf = self.written
        nodes = ancestors(targets, leaf, {})
        uses: dict[int, int] = {}
        for node in nodes:
            for argument in () if leaf(node) else node.arguments:
                uses[argument.index] = uses.get(argument.index, 0) + 1
        cost: dict[int, int] = {}
        found = []
        for node in nodes:
            cost[node.index] = 0
            if node.primitive is None or leaf(node):
                continue
            spent = 1 + sum(cost[a.index] for a in node.arguments)
            if uses.get(node.index, 0) > 1 or spent > LONGEST_LINE:
                found.append(node)
            else:
                cost[node.index] = spent
        return found

    def expression(self, root: Expression) -> str:
        return render(root, self.style, self.names, self.memo)[0]

    def statements(self, targets: list[tuple[str, Expression]]) -> list[str]:
        """Assignments in order, each after the temporaries that it needs.

        Temporaries are shared by all targets, so that the source stays as long as the graph.
        """
        apart = {node.index for node in self.apart([root for _, root in targets])}
        lines = []
        for name, root in targets:
            for node in ancestors([root], self.written, {}):
                if node.index in apart and node.index not in self.names and node is not root:
                    temporary = self.fresh("_t")
                    lines.append(f"{temporary} = {self.expression(node)}")
                    self.names[node.index] = temporary
                    self.memo.pop(node.index, None)
            lines.append(f"{name} = {self.expression(root)}")
            if root.index in apart:
                self.names[root.index] = name
                self.memo.pop(root.index, None)
        return lines


def source(system: System, compiled: CompiledSystem) -> str:
    """The module of a program: its helpers, its constants, and `solve`."""
    writer = Writer(system)
    parameters = system.with_role("parameter")
    signature = ", ".join(
        writer.called[v.name] + ("" if v.start is None else f"={default(writer, v.start)}")
        for v in parameters
    )
    body = writer.body(compiled)
    names = ", ".join(f'"{name}": {called}' for name, called in writer.called.items())
    code = [
        f"def solve({'*, ' if parameters else ''}{signature}):",
        f'    """The values of all variables of {system.name}."""',
        *(f"    {line}" for line in body),
        f"    return {{{names}}}",
    ]
    text = "\n".join([*writer.constants, *code])
    helpers = [h for name, h in HELPERS.items() if f"{name}(" in text]
    imports = ["import numpy as np"]
    everything = "\n".join([*helpers, text])
    for module in ("scipy.optimize", "scipy.sparse.linalg", "scipy.sparse", "scipy.special"):
        if f"{module}." in everything:
            imports.insert(len(imports), f"import {module}")
    if "_array(" in text:
        imports = ["import base64", "import zlib", "", *imports]
    head = f'"""{system.name}, as NumPy source."""\n\n' + "\n".join(imports) + "\n"
    constants = "\n".join(writer.constants)
    parts = [head, *helpers, constants + "\n" if constants else "", "\n" + "\n".join(code) + "\n"]
    return "\n".join(part for part in parts if part)


def default(writer: Writer, value: Any) -> str:
    return repr(value.item()) if value.ndim == 0 else f"np.array({value.tolist()!r})"


def implicit_block(writer: Writer, run: Any) -> list[str]:
    """A nested residual function of one vector, and the call that solves it."""
    block, equations = run.block, run.equations
    name = writer.fresh("_residual")
    inner = [f"def {name}(_z):"]
    unpack = []
    start = 0
    for v in block.unknowns:
        piece = f"_z[{start}:{start + v.size}].reshape({v.shape})" if v.shape else f"_z[{start}]"
        unpack.append(f"{writer.called[v.name]} = {piece}")
        start += v.size
    kept_names, kept_memo = dict(writer.names), dict(writer.memo)
    definitions = [(writer.called[c.name], c.rhs) for c in block.definitions]
    results = [(writer.fresh("_r"), c.residual) for c in block.equations]
    lines = [*unpack, *writer.statements([*definitions, *results])]
    writer.names, writer.memo = kept_names, kept_memo
    returned = [f"np.ravel({name})" for name, _ in results]
    inner += [f"    {line}" for line in lines]
    inner.append(f"    return np.concatenate([{', '.join(returned)}])")
    if equations.linear:
        solved = f"_z = _linear({name}, {block.size})"
    else:
        starts = ", ".join(f"np.ravel({begin(writer, v)})" for v in block.unknowns)
        ends = np.cumsum([v.size for v in block.unknowns])[:-1].tolist()
        solved = f"_z = _root({name}, np.concatenate([{starts}]), {ends})"
    return [*inner, solved, *unpack, *writer.statements(definitions)]


def begin(writer: Writer, variable: Variable) -> str:
    value = variable.start
    if value.size and (value == value.flat[0]).all():
        return f"np.full({variable.shape}, {value.flat[0].item()!r})"
    return f"np.array({value.tolist()!r})"
