"""Random explicit functions and loops as text, for whoever NumPy's names stand for."""

from __future__ import annotations

import warnings

import numpy as np
from random_operations import (
    CUBES,
    ENTRYWISE,
    EXTREMES,
    HEAD,
    KINKED,
    LOOPS,
    MATRICES,
    ORDERED,
    PAIRED,
    PAIRS,
    REDUCED,
    SCALARS,
    SQUARE,
    STEPS,
    VECTORS,
)
from scipy import special

import lagrad as lg

# Where lagrad's engine changes its ways: FUSED_FROM, LONG, BLOCK, LONGEST_ROW and the like.
BORDERS = (256, 400, 4096, 8192, 16_384, 32_768, 65_536)
SHAPES = (
    (),
    (),
    (1,),
    (2,),
    (3,),
    (3,),
    (4,),
    (2, 3),
    (3, 3),
    (3, 1),
    (1, 4),
    (2, 2, 3),
    (2, 3, 3),
)


class Function:
    """An explicit function as text, made operation by operation where its values allow it."""

    kinds = ("small", "loops", "borders", "scalars", "single")

    def __init__(self, seed, kind):
        self.seed, self.kind, self.rng = seed, kind, np.random.default_rng(seed)
        self.lines, self.values, self.constants = [], {}, []
        single = kind == "single" or (kind == "loops" and self.rng.random() < 0.15)
        self.dtype = "float32" if single else "float64"
        self.shapes = [self.shape() for _ in range(self.rng.integers(1, 4))]
        self.names = {"np": np, "sp": special, "lg": lg}
        exec(HEAD.replace("import lagrad as lg", ""), self.names)
        exec(self.inputs_text, self.names)
        for k, value in enumerate(self.inputs(0)):
            self.values[f"x{k}"] = value
        if self.rng.random() < 0.5:
            self.constant()
        count = {
            "scalars": int(self.rng.choice([30] * 5 + [150] * 4 + [420] * 2 + [1100])),
            "loops": 5,
        }.get(kind, 8)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if kind == "loops":
                self.grow(3)
                self.loop()
            self.grow(int(self.rng.integers(2, count + 1)) if kind != "scalars" else count)
        last = list(self.values)[len(self.shapes) :]
        self.results = sorted({last[-1], *self.rng.choice(last, min(len(last), 2)), self.used()})

    def shape(self):
        if self.kind == "scalars":
            return ()
        if self.kind == "borders":
            n = int(self.rng.choice(BORDERS)) + int(self.rng.integers(-1, 2))
            return [(n,), (n,), (3, n // 3), (n, 2), (1, n)][self.rng.integers(5)]
        return SHAPES[self.rng.integers(len(SHAPES))]

    def used(self):
        """An output in which every input is."""
        name = f"v{len(self.lines)}"
        text = " + ".join(
            f"np.sum(np.sin({n} * {round(0.3 + 0.1 * k, 1)}))"
            for k, n in enumerate(self.values)
            if n[0] == "x"
        )
        self.add(name, text)
        return name

    def constant(self):
        shape = self.shapes[self.rng.integers(len(self.shapes))]
        name = f"c{len(self.constants)}"
        text = f"np.random.default_rng({self.seed + 1}).uniform(-1, 1, {shape!r})"
        text = f"{text}.astype(np.{self.dtype})"
        self.constants.append(f"{name} = {text}")
        self.values[name] = self.names[name] = eval(text, self.names)

    # --- growing ---------------------------------------------------------------------------------

    def add(self, name, text):
        value = eval(text, {**self.names, **self.values})
        self.lines.append(f"{name} = {text}")
        self.values[name] = value

    def grow(self, count):
        tries, end = 0, len(self.lines) + count
        while len(self.lines) < end and tries < 20 * count:
            tries += 1
            text = self.proposal()
            if text is None:
                continue
            try:
                value = eval(text, {**self.names, **self.values})
            except (ValueError, IndexError, np.linalg.LinAlgError):
                continue  # of a shape that it is not for
            limit = 400 if self.kind not in ("borders",) else 200_000
            if np.size(value) > limit or np.size(value) == 0 or not np.all(np.isfinite(value)):
                continue
            if np.max(np.abs(value)) > 4:
                text = f"np.tanh({text})" if self.rng.random() < 0.4 else f"0.1 * ({text})"
                value = eval(text, {**self.names, **self.values})
            if np.max(np.abs(value)) < 8:
                self.add(f"v{len(self.lines)}", text)

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def proposal(self):
        """A text of one operation, or None where what it was for is not at hand."""
        names = list(self.values)
        # Later values more often, or programs would be flat.
        a = names[-1 - int(len(names) * self.rng.random() ** 2)]
        x, kind = self.values[a], self.rng.random()
        if kind < 0.3 or (self.kind == "scalars" and kind < 0.45):
            name, *bounds = self.pick(ENTRYWISE).split(":")
            low, high = map(float, bounds) if bounds else (-4, 4)
            if np.min(x) < low or np.max(x) > high:
                return None
            return f"{name}({a})"
        if kind < 0.4:
            far = np.min(np.abs(x)) > 2e-2 and np.min(np.abs(x + 1)) > 2e-2
            return self.pick(KINKED).format(a) if far else None
        if kind < 0.62 or self.kind == "scalars":
            b = self.pick(names)
            try:
                shape = np.broadcast_shapes(np.shape(x), np.shape(self.values[b]))
            except ValueError:
                return None
            if np.prod(shape) > 300_000:
                return None
            apart = a != b and np.min(np.abs(x - self.values[b])) > 2e-2
            return self.pick(ORDERED + PAIRED if apart else PAIRED).format(a, b)
        ndim = np.ndim(x)
        if ndim == 0:
            return self.pick(SCALARS).format(a)
        if kind < 0.75:
            axis = self.pick([None, *range(-ndim, ndim)])
            kept = self.pick(["", ", keepdims=True"])
            if self.rng.random() < 0.25:
                ordered = np.sort(
                    np.ravel(x) if axis is None else x, axis=-1 if axis is None else axis
                )
                if (
                    min(np.diff(ordered, axis=-1 if axis is None else axis).ravel(), default=1)
                    < 2e-2
                ):
                    return None
                return self.pick(EXTREMES).format(a, axis, kept)
            return self.pick(REDUCED).format(a, axis, kept)
        big = np.size(x) > 64
        if ndim >= 2 and x.shape[-1] == x.shape[-2] and kind < 0.85 and not big:
            text = self.pick(SQUARE).format(a)
            if "SYMMETRIC" in text:
                turned = x + np.swapaxes(x, -1, -2) + np.diag(3.0 * np.arange(x.shape[-1]))
                gaps = np.diff(np.linalg.eigvalsh(turned))
                return text if np.min(gaps, initial=1) > 0.1 and ndim == 2 else None
            return text
        texts = {1: VECTORS, 2: MATRICES, 3: CUBES}.get(ndim)
        text = None if texts is None else self.pick(texts)
        if (
            big
            and text is not None
            and any(
                w in text
                for w in (
                    "outer",
                    "diag(",
                    "kron",
                    "@",
                    "None",
                    "'i,j",
                    "convolve({0}, {0}",
                    "tensordot",
                    "kj->ik",
                )
            )
        ):
            return None
        if text is not None and (
            ("reflect" in text and min(np.shape(x)) < 2) or ("[1:]" in text and x.size < 2)
        ):
            return None
        near = min(np.diff(np.sort(np.ravel(x))), default=1) < 2e-2
        return None if text is None or ("np.max" in text and near) else text.format(a)

    def loop(self):
        names = [n for n in self.values if np.size(self.values[n]) < 50]
        a = self.pick(names) if names else next(iter(self.values))
        fits = [
            n for n in self.values if np.shape(self.values[n]) in ((), np.shape(self.values[a]))
        ]
        b = self.pick(fits)
        n = int(self.pick([1, 2, 3, 5, 10, 17, 64, 130]))
        how = self.pick(
            [
                "",
                "",
                f", checkpoints={int(self.rng.integers(1, 6))}",
                f", checkpoints={max(1, n // 3)}",
            ]
        )
        stop = round(float(self.rng.uniform(1e-3, 0.5)), 4)
        text = (
            self.pick(LOOPS).replace("{step}", self.pick(STEPS)).replace("{pair}", self.pick(PAIRS))
        )
        text = text.format(a, b, n=n, how=how, stop=stop)
        if self.dtype == "float32" and "linspace" in text:
            text = text.replace(
                f"np.linspace(0.1, 1.0, {n})", f"np.linspace(0.1, 1.0, {n}).astype(np.float32)"
            )
        try:
            value = eval(text, {**self.names, **self.values})
        except (IndexError, ValueError, TypeError, lg.LagradError):
            return
        if np.all(np.isfinite(value)) and np.size(value):
            self.add(f"v{len(self.lines)}", text)

    # --- the function, for lagrad and for complex numbers ---------------------------------------

    @property
    def inputs_text(self):
        move = 0.01 if self.kind == "scalars" else 0.15
        lines = [
            "def inputs(k):",
            f"    rng = np.random.default_rng({self.seed})",
            f"    other = np.random.default_rng([{self.seed}, k])",
            f"    move = lambda s: (k > 0) * {move} * other.uniform(-1, 1, s)",
            "    draw = lambda s: rng.uniform(-1.3, 1.3, s) + move(s)",
            f"    return [np.asarray(draw(s), np.{self.dtype}) for s in {self.shapes}]",
            "",
        ]
        return "\n".join(lines)

    @property
    def source(self):
        arguments = ", ".join(f"x{k}" for k in range(len(self.shapes)))
        body = "\n".join(f"    {line}" for line in self.lines)
        returned = ", ".join(self.results)
        return "\n".join(
            [*self.constants, f"def f({arguments}):", body, f"    return ({returned},)", ""]
        )

    def bound_to(self, names):
        """The function with other functions under NumPy's names."""
        namespace = {}
        exec(HEAD, namespace)
        namespace.update(names)  # which the lambdas of HEAD see as well
        # Constants are numbers for everybody.
        namespace |= self.closed_over()
        text = self.source[self.source.index("def f(") :]
        exec(text, namespace)
        return namespace["f"]

    def inputs(self, k):
        """The arguments of call k."""
        return self.names["inputs"](k)

    def closed_over(self):
        names = [line.split(" = ")[0] for line in self.constants]
        return {name: self.values[name] for name in names}

    def tame(self, point):
        """Whether all values on the way are finite and of moderate size."""
        scope = {**self.names, **self.closed_over()}
        scope |= {f"x{k}": x for k, x in enumerate(point)}
        with np.errstate(all="ignore"):
            for line in self.lines:
                name, text = line.split(" = ", 1)
                scope[name] = value = eval(text, scope)
                if not np.all(np.abs(value) < 1e3):
                    return False
        return True

    def script(self, k=0):
        """A program of its own that shows call k."""
        n = len(self.shapes)
        shapes = [np.shape(self.values[r]) for r in self.results]
        return f"""{HEAD}
{self.inputs_text}
{self.source}
rng = np.random.default_rng([{self.seed}, 2])
weights = [np.asarray(rng.standard_normal(s)) for s in {shapes}]
F = lambda *xs: sum(np.sum(w * y) for w, y in zip(weights, f(*xs)))
xs = inputs({k})
rng = np.random.default_rng([{self.seed}, 3, {k}])
v = [np.asarray(rng.standard_normal(np.shape(x))) for x in xs]
print("value", F(*xs))
found = lg.grad(F, {tuple(range(n))})(*xs)
print("gradient along v", sum(np.sum(g * d) for g, d in zip(found, v)))
"""
