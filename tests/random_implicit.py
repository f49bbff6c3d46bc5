"""Random roots, fixed points and argmins, in one another, in loops and with loops in them."""

from __future__ import annotations

import warnings

import numpy as np
from oracles import COMPLEX
from random_functions import Function
from scipy import special

import lagrad as lg

# What is solved, where it may start, and for which solution: the start decides the branch.
ROOTS = (
    ("{v} + 0.3 * np.sin({v}) - {e}", (0.0, 0.5)),
    ("np.sin({v}) - 0.6 * np.tanh({e})", (6.0, 0.2, -6.4, 12.5)),
    ("0.5 * np.sin({v}) + 0.3 * np.tanh({e})", (3.3, -3.0)),
    ("{v}**3 - 3 * {v} - 0.5 * np.tanh({e})", (1.8, 0.1, -1.8)),
    ("np.exp({v}) - 1.5 - np.square({e})", (0.5, 1.0)),
    ("{v}**2 - 2.0 - 0.5 * np.cos({e})", (1.5, -1.5)),
    ("np.tan({v}) - 0.5 * np.tanh({e})", (3.2, 0.1)),
)
FIXED = (
    ("0.5 * np.cos({v}) + 0.3 * {e}", (0.3, 0.0)),
    ("{v} + 0.5 * (np.sin({v}) - 0.4 * np.tanh({e}))", (3.0, 9.3, -3.2)),
    ("np.tanh(0.6 * {v} + {e})", (0.0,)),
    ("0.5 * ({v} + (2.0 + np.square({e})) / {v})", (1.3, -1.6)),
)
MINIMA = (
    ("np.cosh({v} - {e}) + 0.3 * {v}**2", (0.0, 1.0)),
    ("({v}**2 - 1)**2 + 0.2 * np.tanh({e}) * {v}", (1.1, -1.1)),
    ("np.logaddexp(0.0, -{v}) + 0.3 * ({v} - {e})**2", (0.0, -1.0)),
    ("0.1 * np.tanh({e}) * {v} - np.cos({v})", (6.1, 0.1, -6.2)),
)
VECTOR = {
    "root": (("M @ {v} + 0.2 * np.sin({v}) - {e}", (0.0, 0.3)),
             ("{v}**3 + 2.0 * {v} - M @ np.sin({e})", (0.0,))),
    "fixed_point": (("np.tanh(0.1 * M @ {v} + {e})", (0.0, 0.2)),),
    "argmin": (("np.sum((M @ {v} - {e})**2) + np.sum(np.cosh(0.3 * {v}))", (0.0,)),
               ("np.sum(np.logaddexp(0.0, -M @ {v})) + 0.4 * np.sum(({v} - {e})**2)", (0.0, 0.5))),
}  # fmt: skip
# Of those the ones with one solution, which is found from anywhere.
ALONE = {
    "root": (ROOTS[0], ROOTS[4]),
    "fixed_point": (FIXED[0], FIXED[2]),
    "argmin": (MINIMA[0], MINIMA[2]),
}
BRANCHED = {"root": ROOTS, "fixed_point": FIXED, "argmin": MINIMA}
SOLVERS = {
    "root": ("", "", ', solver="newton-krylov"'),
    "fixed_point": ("", ', solver="anderson"', ', solver="picard"', ', solver="newton"',
                    ", solver=lg.Anderson(memory=2)", ", solver=lg.Picard(max_steps=2000)"),
    "argmin": ("", "", "", ', solver="BFGS"', ', solver="trust-exact"'),
}  # fmt: skip
OUTER = (
    "np.tanh({0})", "np.sin({0})", "{0} * {1}", "0.5 * {0} + 0.5 * {1}", "{0}", "{0}",
    "np.arctan({0} + {1})",
)  # fmt: skip


class Implicit(Function):
    """A function with implicit functions in it."""

    kinds = ("alone", "branches")

    def __init__(self, seed, kind):
        self.seed, self.kind, self.rng = seed, kind, np.random.default_rng(seed)
        self.lines, self.values, self.constants, self.dtype = [], {}, [], "float64"
        self.n, self.count = int(self.rng.integers(2, 4)), 0
        self.shapes = [self.pick([(), (), (self.n,)]) for _ in range(self.rng.integers(1, 3))]
        matrix = np.round(self.rng.uniform(-0.6, 0.6, (self.n, self.n)) + 2 * np.eye(self.n), 2)
        self.constants = [f"M = np.array({matrix.tolist()})"]
        self.values["M"] = matrix
        self.names = {"np": np, "sp": special, "lg": lg}
        exec(self.inputs_text, self.names)
        for k, value in enumerate(self.inputs(0)):
            self.values[f"x{k}"] = value
        scope = {name: np.shape(v) for name, v in self.values.items() if name != "M"}
        for _ in range(self.rng.integers(1, 3)):
            vector = self.rng.random() < 0.3
            name = f"v{len(self.lines)}"
            depth = (
                int(self.pick([1, 1, 1, 2, 2, 2, 2, 2, 2, 3]))
                if not vector
                else int(self.pick([1, 1, 2]))
            )
            text = (
                self.looped(scope) if self.rng.random() < 0.25 else self.node(scope, depth, vector)
            )
            self.lines.append(f"{name} = {text}")
            scope[name] = (self.n,) if vector and "lg.iterate(lambda z" not in text[:20] else ()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for name, value in zip(list(scope)[len(self.shapes) :], self.evaluated(), strict=True):
                self.values[name] = np.real(value)
        self.results = list(scope)[len(self.shapes) :]

    def evaluated(self):
        self.results = [line.split(" = ")[0] for line in self.lines]
        xs = [np.asarray(x, complex) for x in self.inputs(0)]
        return self.bound_to(COMPLEX)(*xs)

    def tame(self, point):
        return True  # what does not converge is not finite, or jumps

    def expression(self, scope, vector):
        """An expression of about one in size of what is in scope."""

        def one():
            name = list(scope)[-1 - int(len(scope) * self.rng.random() ** 1.5)]
            text = f"np.mean({name})" if scope[name] and not vector else name
            return f"{text} * np.ones({self.n})" if vector and not scope[name] else text

        return self.pick(OUTER).format(one(), one())

    def node(self, scope, depth, vector=False):
        """A call of an implicit function; the unknown is in scope for those inside."""
        kind = str(self.rng.choice(["root", "fixed_point", "argmin"]))
        scalar = ALONE if self.kind == "alone" else BRANCHED
        forms = VECTOR[kind] if vector else scalar[kind]
        form, starts = self.pick(forms)
        self.count += 1
        v = f"z{self.count}"
        start = repr(float(self.pick(starts)))
        outer = self.expression(scope, vector)
        if self.rng.random() < 0.1:
            x = next((n for n, s in scope.items() if s == ()), None)
            start = f"{start} + 0.05 * {x}" if x else start
        start = f"({start}) * np.ones({self.n})" if vector else start
        inner = {**scope, v: (self.n,) if vector else ()}
        e = outer
        if depth > 1:
            # The oracle differentiates objectives by differences, which see noise of one another.
            free = kind == "argmin" and self.rng.random() < 0.6
            for _ in range(20):
                nested = self.node(
                    scope if free else inner, depth - 1, vector and self.rng.random() < 0.5
                )
                if free or kind != "argmin" or "argmin" not in nested:
                    break
            e = f"(0.8 * {outer} + 0.15 * np.tanh({nested}))"
        elif self.rng.random() < 0.15 and not vector:
            loop = self.pick([
                f"lg.iterate(lambda s: 0.5 * s + 0.3 * np.sin({v}), {v}, 4)",
                f"lg.scan(lambda s, t: (0.6 * s + t * {v}, s), {v}, np.linspace(0, 0.3, 4))[0]",
            ])  # fmt: skip
            e = f"({outer} + 0.1 * np.tanh({loop}))"
        how = self.pick(SOLVERS[kind])
        return f"lg.{kind}(lambda {v}: {form.format(v=v, e=f'({e})')}, {start}{how})"

    def looped(self, scope):
        """A loop that solves at each step."""
        name = self.pick(list(scope))
        begin = f"np.mean({name})" if scope[name] else name
        inner = {**scope, "z": ()}
        node = self.node(inner, int(self.pick([1, 1, 2])))
        n = int(self.pick([1, 2, 3, 5]))
        how = self.pick(["", "", ", checkpoints=1", ", checkpoints=2"])
        return self.pick([
            f"lg.iterate(lambda z: 0.4 * z + 0.3 * {node}, {begin}, {n}{how})",
            f"lg.scan(lambda z, t: (0.4 * z + 0.3 * t * {node}, z * t), {begin}, "
            f"np.linspace(0.5, 1, {n}){how})[0]",
            f"np.sum(lg.scan(lambda z, t: (0.4 * z + 0.3 * {node}, np.sin(z)), {begin}, "
            f"None, {n}{how})[1])",
            f"lg.while_loop(lambda z: z < 3.14, lambda z: z + 1.0 + 0.3 * np.tanh({node}), "
            f"{begin}, 30{how})",
        ])  # fmt: skip
