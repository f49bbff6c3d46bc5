"""Random declared programs with several blocks, mild and ill-conditioned; mpmath is the oracle."""

from __future__ import annotations

import copy
import math
import re
import zlib

import mpmath
import numpy as np
from oracles import MP_NP, flattened

import lagrad as lg

SCALINGS = (
    *("mild", "rows", "columns", "parallel", "products", "differences", "signed", "fold", "chain"),
)
TERMS = ("np.sin({0})", "np.tanh({0})", "{0}**2", "np.exp(0.4 * {0})", "np.arctan({0})")
TERMS += ("{0} * {1}", "{0} * np.cos({1})", "{0}**3", "np.sqrt(3.0 + {0})", "{0} / (2.0 + {1}**2)")


NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e[-+]?\d+)?")


def moved_numbers(text):
    """A text with its numbers off by up to their spacing, each in its own way."""
    share = lambda place: (zlib.crc32(f"{place} {text}".encode()) % 5 - 2) / 2
    eps = float(np.finfo(float).eps)
    return NUMBER.sub(lambda m: f"({m[0]} * (1 + ONE * {share(m.start()) * eps!r}))", text)


class System:
    """A declared program as text, with values near its solution."""

    def __init__(self, seed, scaling):
        self.seed, self.scaling = seed, scaling
        self.rng = np.random.default_rng(seed)
        self.values = {}  # of parameters and unknowns, and of definitions
        self.parameters, self.unknowns, self.items = {}, {}, []
        for name in "abc"[: self.rng.integers(1, 4)]:
            self.parameters[name] = self.values[name] = self.number(0.5, 2.0)
        for _ in range(self.rng.integers(1, 4)):
            self.block()
        if scaling != "mild":
            getattr(self, scaling)()
        self.output()

    # --- pieces --------------------------------------------------------------------------------

    def number(self, low=-1.5, high=1.5):
        return round(float(self.rng.uniform(low, high)), 4)

    def small(self):
        """How bad it gets: from 1e-2 to 1e-14."""
        return float(f"{10.0 ** -self.rng.uniform(2, 14):.3e}")

    def value(self, text):
        return eval(text, {"np": np}, self.values)

    def pick(self, names):
        return str(self.rng.choice(list(names)))

    def scalars(self):
        """Texts of numbers that can be used: parameters, entries of unknowns, definitions."""
        return [
            name if np.ndim(v) == 0 else f"{name}[{self.rng.integers(np.size(v))}]"
            for name, v in self.values.items()
        ]

    def term(self, names):
        text = self.pick(TERMS).format(self.pick(names), self.pick(names))
        return text if np.isfinite(self.value(text)) else self.pick(self.parameters)

    def unknown(self, value, near=0.05):
        name = f"u{len(self.unknowns)}"
        self.values[name] = value
        start = np.round(np.asarray(value) * (1 + near * self.rng.uniform(-1, 1)), 12)
        self.unknowns[name] = start.tolist() if start.ndim else float(start)
        if near and self.rng.random() < 0.3 and self.scaling == "mild":
            self.unknowns[name] = np.zeros_like(start).tolist() if start.ndim else 0.0
        return name

    def equation(self, left, right="0.0"):
        """An equation that holds at the values at hand but for rounding."""
        rest = np.asarray(self.value(left)) - self.value(right)
        rest = f"np.array({rest.tolist()})" if rest.ndim else repr(float(rest))
        self.items.append(("equation", left, rest if right == "0.0" else f"{right} + {rest}"))

    def define(self, text):
        name = f"d{len(self.items)}"
        self.values[name] = self.value(text)
        self.items.append(("define", name, text))
        return name

    def block(self):
        """Coupled equations for one to three unknowns, or for an array of them."""
        if self.rng.random() < 0.6:
            self.define(f"{self.number()} * {self.term(self.scalars())}")
        outer, kind, n = self.scalars(), self.rng.random(), int(self.rng.integers(1, 4))
        if kind < 0.3:
            n += 1
            matrix = np.round(self.rng.uniform(-1, 1, (n, n)) + 3 * np.eye(n), 3).tolist()
            name = self.unknown(np.round(self.rng.uniform(0.3, 1.5, n), 3))
            bend = self.pick(["0.0", "0.5 * np.sin({0})", "0.3 * {0}**2"]).format(name)
            right = f"{self.number()} * {self.term(outer)}"
            self.equation(f"np.array({matrix}) @ {name} + {bend}", right)
            return
        names = [self.unknown(self.number(0.3, 1.5)) for _ in range(n)]
        linear = self.rng.random() < 0.4
        for name in names:
            parts = [f"{self.number(2.5, 4.0)} * {name}"]
            parts += [f"{self.number(-0.8, 0.8)} * {other}" for other in names if other != name]
            if not linear:
                parts.append(f"{self.number(-0.5, 0.5)} * {self.term(names)}")
            right = f"{self.number()} * {self.pick(outer)}"
            if self.rng.random() < 0.5:
                right += f" + {self.number()} * {self.term(outer)}"
            self.equation(" + ".join(parts), right)

    def output(self):
        terms = [f"{self.number(0.5, 2.0)} * {text}" for text in self.scalars()]
        last = list(self.unknowns)[-1]
        last = last if np.ndim(self.values[last]) == 0 else f"{last}[0]"
        kept = [t for t in terms if self.rng.random() < 0.5]
        bend = self.pick(["np.sin({0})", "{0}", "{0}**2", "np.tanh({0})"]).format(last)
        self.items.append(("define", "f", " + ".join([*kept, f"{self.number(0.5, 2)} * {bend}"])))

    # --- what makes a program ill-conditioned -----------------------------------------------------

    def rows(self):
        """Equations in different units."""
        for k, (kind, left, right) in enumerate(self.items):
            if kind == "equation":
                s = self.scale()
                self.items[k] = (kind, f"{s} * ({left})", f"{s} * ({right})")

    def scale(self):
        return float(f"{10.0 ** self.rng.uniform(-7, 7):.3e}")

    def columns(self):
        """Unknowns in different units, coupled."""
        size = [self.scale() for _ in range(int(self.rng.integers(2, 4)))]
        names = [self.unknown(float(f"{self.number(0.4, 1.6) * s:.6e}")) for s in size]
        ones = [f"({n} / {s})" for n, s in zip(names, size, strict=True)]
        for one in ones:
            others = " + ".join(f"{self.number(-0.8, 0.8)} * {o}" for o in ones if o != one)
            bend = f"{self.number(-0.3, 0.3)} * {self.term_of(ones)}"
            left = f"{self.number(2, 4)} * {one} + {others} + {bend}"
            self.equation(left, f"{self.number()} * {self.pick(self.parameters)}")

    def term_of(self, texts):
        return self.pick(TERMS[:8]).format(self.pick(texts), self.pick(texts))

    def parallel(self):
        """Two equations that are nearly one."""
        x, y = self.unknown(self.number(0.4, 1.6)), self.unknown(self.number(0.4, 1.6))
        m, n, k = self.number(1, 2), self.number(1, 2), self.number(0.5, 2)
        delta = self.small()
        bend = self.pick(["0.0", "0.2 * np.sin({0})", "0.1 * {0} * {1}"]).format(x, y)
        a, b = self.pick(self.parameters), self.pick(self.parameters)
        self.equation(f"{m} * {x} + {n} * {y} + {bend}", a)
        tilt = self.pick([y, f"{x} * {y}", f"np.exp({y})"])
        # Both sides change alike with the parameters, or the solution would run off.
        self.equation(
            f"{k} * ({m} * {x} + {n} * {y} + {bend}) + {delta} * {tilt}",
            f"{k} * {a} + {delta} * {b}",
        )

    def products(self):
        """A difference of nearly equal numbers that something multiplies or divides."""
        delta, a = self.small(), self.pick(self.parameters)
        w = self.unknown(float(f"{math.sqrt(delta) * self.number(0.5, 2):.6e}"), 0.02)
        v = self.unknown(self.number(0.5, 1.5), 0.02)
        c = float(self.value(f"np.sqrt(1 + {w}**2)") - delta)
        length = f"np.sqrt(1 + {w}**2)"
        form = self.rng.integers(6)
        if form == 0:
            left = f"{2.0 ** self.rng.integers(0, 20)} * ({length} - {c!r}) * {w} / {length}"
        elif form == 1:
            left = f"({length} - {c!r}) * np.exp({w} * {v}) * {v}"
        elif form == 2:
            left = f"(np.exp({w}) - 1.0) * {v}"
        elif form == 3:
            left = f"(np.exp({w} * {v}) - 1.0) / ({v} + {w})"
        elif form == 4:
            left = f"(({v} + {w}) ** 2 - {v} ** 2) * {v}"
        else:
            left = f"np.sin({v}) * (np.cos({w}) - 1.0) * {v}"
        load = self.value(left)
        share = float(load / self.values[a])
        self.items.append(("equation", left, f"{share!r} * {a}"))
        self.equation(f"{self.number(2, 3)} * {v} + 0.1 * np.sin({v})", self.pick(self.parameters))

    def differences(self):
        """An unknown that is a small difference of two."""
        delta = self.small()
        x = self.number(0.5, 1.5)
        y = self.unknown(x)
        z = self.unknown(x * (1 + delta))
        a, b = self.pick(self.parameters), self.pick(self.parameters)
        m, n = self.number(2, 4), self.number(0.2, 0.5)
        self.equation(f"{m} * {y} + {n} * np.sin({y})", a)
        self.equation(f"{m} * {z} + {n} * np.sin({z})", f"{a} + {delta} * {b}")
        w = self.unknown(self.number(0.5, 1.5))
        form = self.pick(
            ["{1} - {0}", "np.exp({1}) - np.exp({0})", "{1}**2 - {0}**2", "{1}/{0} - 1.0"]
        )
        left = form.format(y, z)
        self.items.append(("equation", f"{w} * {delta}", left))
        self.values[w] = float(self.value(left) / delta)

    def signed(self):
        """Two blocks, the second of which amplifies the error of the first."""
        c = [self.number(0.5, 4) for _ in range(6)]
        tiny = self.small()
        a = self.pick(self.parameters)
        z, y = self.unknown(0.0, 0), self.unknown(0.0, 0)
        self.values[z] = (c[1] * self.values[a] + c[2]) / c[0]
        self.values[y] = (c[5] * self.values[a] - c[3] * self.values[z]) / (c[4] * tiny)
        self.items.append(("equation", f"{c[0]} * {z}", f"{c[1]} * {a} + {c[2]}"))
        bend = self.pick(["", f" + {tiny} * np.sin({y})", ""])
        self.items.append(
            ("equation", f"{c[3]} * {z} + {c[4] * tiny!r} * {y}{bend}", f"{c[5]} * {a}")
        )

    def fold(self):
        """A root close to another one."""
        delta, a = self.small(), self.pick(self.parameters)
        at = self.number(0.5, 1.5)
        x = self.unknown(at + math.sqrt(delta), 0)
        self.unknowns[x] = at + 2 * math.sqrt(delta)
        share = float(delta / self.values[a])
        form = self.pick(
            [
                "({0} - {1})**2",
                "2.0 * (np.cosh({0} - {1}) - 1.0)",
                "{0}**2 - 2 * {1} * {0} + {1}**2",
            ]
        )
        self.items.append(("equation", form.format(x, at), f"{share!r} * {a}"))

    def chain(self):
        """Blocks in a row, each with an error larger than that of the one before."""
        link = f"{self.number()} * {self.pick(self.scalars())}"
        for _ in range(int(self.rng.integers(2, 5))):
            gain = float(f"{10.0 ** -self.rng.uniform(0.5, 4):.3e}")
            at = self.value(link)
            name = self.unknown(self.number(0.3, 1.5))
            bend = self.pick(["", f" + {gain / 5!r} * np.sin({name})"])
            rest = float(self.value(f"{gain} * {name}{bend}") - at)
            self.items.append(("equation", f"{gain} * {name}{bend}", f"{link} + {rest!r}"))
            link = f"{self.number(0.5, 1.5)} * {name}"

    # --- the program, for lagrad and for mpmath --------------------------------------------------

    @property
    def source(self):
        lines = ['p = lg.Program("random")']
        for name, value in self.parameters.items():
            lines.append(f"{name} = p.parameter({name!r}, value={value!r})")
        for name, start in self.unknowns.items():
            shape = f", shape=({len(start)},)" if isinstance(start, list) else ""
            lines.append(f"{name} = p.unknown({name!r}, start={start!r}{shape})")
        for k, (kind, left, right) in enumerate(self.items):
            if kind == "define":
                lines.append(f"{left} = p.define({left!r}, {right})")
            else:
                lines.append(f'p.subject_to({left} == {right}, name="e{k}")')
        return "\n".join(lines)

    def program(self):
        namespace = {"np": np, "lg": lg}
        exec(self.source, namespace)
        return namespace["p"]

    def at(self, given, values, added=()):
        """Residuals and definitions for mpmath's numbers; `added` goes to each right side."""
        names = {"np": MP_NP, "ONE": mpmath.mpf(1)}
        scope = {**given, **values}
        residuals = []
        for k, (kind, left, right) in enumerate(self.code()):
            found = eval(right, names, scope)
            if len(added):
                found = found + added[k]
            if kind == "define":
                scope[left] = found
            else:
                residuals.append(found - eval(left, names, scope))
        return flattened(residuals), scope

    def nearby(self):
        """The same program with each of its numbers moved by about its spacing."""
        other = copy.copy(self)
        other.items = [(kind, *map(moved_numbers, parts)) for kind, *parts in self.items]
        vars(other).pop("_code", None)
        return other

    def code(self):
        if not hasattr(self, "_code"):
            compiled = lambda text: compile(text, "system", "eval")
            self._code = [
                (kind, left if kind == "define" else compiled(left), compiled(right))
                for kind, left, right in self.items
            ]
        return self._code

    def shaped(self, z):
        found, z = {}, list(z)
        for name, start in self.unknowns.items():
            if isinstance(start, list):
                found[name], z = np.array(z[: len(start)], object), z[len(start) :]
            else:
                found[name], z = z[0], z[1:]
        return found
