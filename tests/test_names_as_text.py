"""Names, labels and constants of the user's are text: shown and written, never obeyed."""

from __future__ import annotations

import ast
import builtins
import enum
import json
import keyword
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lagrad as lg
from lagrad.cli import main

HOSTILE = [
    'demo""";import os;"""',
    "'''\nimport os",
    "\x1b[31mred\x1b[0m\x07",
    "\x9b2J",
    "a\nb\rc\tv\x00",
    "back\\slash \\N{DIGIT ONE} \\x41",
    "100% {x} {0} {{}} %s",
    "$x$ \\end{aligned} & # ^ ~ _",
    "<script>alert(1)</script>",
    "\u202eright to left\u200f \u2028 \ud800",
    "modèle à θ 模型 😀",
    "",
    "np.load('x')",
    "_root( _array(",
]
# Names that Python or the module has another use for, and others that are allowed.
CLASHING = [
    *("np", "scipy", "special", "optimize", "base64", "zlib", "math", "solve", "_z", "_root"),
    *("_linear", "_array", "_given", "_others", "_others1", "_t1", "_c1", "_r1", "_residual1"),
    *("__builtins__", "__name__", "__debug__", "__doc__", "__import__", "print", "eval", "range"),
    *(
        "_",
        "__",
        "self",
        "match",
        "type",
        "slice",
        "float",
        "int",
        "len",
        "zip",
        "λ",
        "ﬁ",
        "𝐰",
        "α_β",
    ),
]
HOSTILE_CALL = "boom()"


class Loud(str):
    """A string whose looks are not its characters."""

    def __str__(self):
        return HOSTILE_CALL

    __repr__ = __str__

    def __format__(self, spec):
        return HOSTILE_CALL

    def isidentifier(self):
        return True


class Axis(enum.IntEnum):
    FIRST = 0
    SECOND = 1


class Key(str, enum.Enum):  # noqa: UP042 - its str() is not its value, as StrEnum's is
    RATE = "rate"


def called(text):
    """Everything that a module calls, by its written name, its own functions' bodies included."""
    return {ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)}


def run(program):
    """`solve` of a program's source, run with nothing at hand."""
    namespace = {}
    exec(program.source(), namespace)
    return namespace["solve"]


def model(name="model", x="x", z="z", y="y", equation=None):
    """One of each: a parameter, an unknown with an equation, a definition."""
    p = lg.Program(name)
    x_, z_ = p.parameter(x, value=3.0), p.unknown(z, start=1.0)
    p.subject_to(z_ * np.exp(z_) == x_, name=equation)
    p.define(y, np.sum(np.array([1.0, 2.0]) * z_) + x_)
    return p


ALLOWED = called(model(x="np").source())  # and with them what `_given` calls


@given(st.text())
@example(HOSTILE[0])
def test_whatever_a_program_is_called_its_source_calls_the_same_and_computes_the_same(name):
    p = model(name)
    assert called(p.source()) == called(model().source())
    np.testing.assert_allclose(run(p)(x=2.0)["y"], p.solve(x=2.0)["y"], rtol=1e-9)


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_is_shown_has_control_characters(name, capsys, tmp_path):
    p = model(name)
    p.name = name  # later as well
    at = p.solve()
    shown = [str(p), repr(p), p._repr_latex_(), repr(at), str(at.certificate), str(at.profile())]
    shown += [repr(at.gradient("y")), str(p.adjoint("y")), p.adjoint("y").source(), p.source()]
    shown += [str(lg.NotFinite(f"said {name}")), str(p.graph())]
    with pytest.raises(lg.InvalidName) as error:
        p.parameter("x")
    shown.append(str(error.value))
    for text in shown:
        assert all(c.isprintable() or c == "\n" for c in text), text
    assert name.isprintable() is (p.name == name)


@pytest.mark.parametrize("name", HOSTILE[:10])
def test_the_command_shows_names_escaped(name, tmp_path, capsys):
    file = tmp_path / "model.py"
    file.write_text(
        f"import lagrad as lg\nprogram = lg.Program({name!r})\n"
        "program.define('y', 2.0 * program.parameter('x', value=1.0))\n",
        encoding="utf-8",
    )
    assert main(["run", str(file)]) == 0
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)
    assert main(["run", str(file), "--json", "-"]) == 0
    written = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in written)
    assert json.loads(written)["values"] == {"x": 1.0, "y": 2.0}
    assert main(["run", str(file), "--set", f"{name}=1"]) == 1
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().err)
    file.write_text(f"raise ValueError({name!r})", encoding="utf-8")
    assert main(["run", str(file)]) == 1
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().err)


@pytest.mark.parametrize("name", [None, 3, b"x", ["x"]])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(lg.InvalidName):
        lg.Program(name)
    with pytest.raises(lg.InvalidName):
        lg.Program().parameter(name)


@pytest.mark.parametrize("role", ["x", "z", "y", "equation"])
@pytest.mark.parametrize("name", CLASHING)
def test_any_name_is_the_name_in_source_too(name, role):
    p = model(**{role: name})
    x = name if role == "x" else "x"
    read = unicodedata.normalize("NFKC", name if role == "y" else "y")
    solve, at = run(p), p.solve({x: 2.0})
    found = solve(**{unicodedata.normalize("NFKC", x): 2.0})
    assert set(found) == set(p.variables)
    np.testing.assert_allclose(found[read], at[read], rtol=1e-9)
    adjoint = p.adjoint("z" if role != "z" else name)
    written = run(adjoint)(**{unicodedata.normalize("NFKC", x): 2.0})
    at = adjoint.solve({x: 2.0})
    for v in adjoint.variables:
        np.testing.assert_allclose(written[v], at[v], rtol=1e-7, atol=1e-9)


identifiers = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "Mn", "Pc"]), min_size=1)
identifiers = identifiers.map(lambda t: t if t.isidentifier() else f"_{t}").filter(
    lambda t: t.isidentifier() and not keyword.iskeyword(unicodedata.normalize("NFKC", t))
)


@given(st.lists(st.one_of(st.sampled_from([*CLASHING, *dir(builtins)]), identifiers), min_size=3))
def test_any_three_names_and_their_programs_source(names):
    names = [n for n in names if not keyword.iskeyword(n)]
    plain = list(dict.fromkeys(unicodedata.normalize("NFKC", n) for n in names))
    options = {"start", "newton", "linear", "accuracy", "on_failure"}
    plain = [n for n in plain if n not in options]
    if len(plain) < 3:
        return
    x, z, y = plain[:3]
    p = model("m", x, z, y)
    text = p.source()
    assert called(text) <= ALLOWED
    np.testing.assert_allclose(run(p)(**{x: 2.0})[y], p.solve({x: 2.0})[y], rtol=1e-9)
    for shown in (str(p), p._repr_latex_(), repr(p.solve())):
        assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_renamed_parameter_without_a_value_is_asked_for_and_others_are_refused():
    p = lg.Program()
    p.define("y", 2.0 * p.parameter("np") + p.parameter("x", value=1.0))
    solve = run(p)
    assert solve(np=2.0)["y"] == 5.0
    with pytest.raises(TypeError, match="np"):
        solve()
    with pytest.raises(TypeError, match="nq"):
        solve(np=2.0, nq=1.0)


def test_keys_of_a_traced_functions_arguments_are_names():
    def f(x, options):
        return x * options["lambda"] + options["x²"] + options["a b"] * options["ﬁ"]

    options = {"lambda": 3.0, "x²": 5.0, "a b": 7.0, "ﬁ": 2.0}
    traced = lg.trace(f, 2.0, options)
    assert traced.solve()["output"] == run(traced)()["output"] == 25.0
    assert lg.grad(f, argnums=1)(2.0, options) == {"lambda": 2.0, "x²": 1.0, "a b": 2.0, "ﬁ": 7.0}
    compiled = lg.compile(lambda x, **given: f(x, given))
    assert compiled(2.0, **options) == 25.0


def test_names_in_a_loop_keep_clear_of_the_modules():
    def f(x):
        def step(np_, _c1):
            return {"sum": np_["sum"] * 0.5 + _c1, "_step1": np_["_step1"] + np_["sum"]}, None

        def wrapped(state, row):
            return step(state, row)

        last, _ = lg.scan(wrapped, {"sum": x, "_step1": 0.0 * x}, np.linspace(0.0, 1.0, 30))
        return last["_step1"]

    traced = lg.trace(f, 2.0)
    namespace = {}
    exec(traced.source(), namespace)
    np.testing.assert_allclose(namespace["solve"]()["output"], f(2.0), rtol=1e-14)


def test_subclasses_of_str_are_their_characters():
    p = lg.Program(Loud("loud"))
    x, z = p.parameter(Loud("x"), value=2.0), p.unknown(Loud("z"), start=1.0)
    p.subject_to(z * z == x, name=Loud("square"))
    p.define(Loud("y"), np.einsum(Loud("i,ij->j"), np.ones(3) * z, np.ones((3, 2)))[0])
    assert p.name == "loud"
    assert set(map(type, p.variables)) == {str}
    assert list(p.variables) == ["x", "z", "y"]
    assert list(p.constraints) == ["square", "y"]
    at = p.solve({Loud("x"): 9.0})
    assert at["y"] == at[Loud("y")] == 9.0
    assert Loud("y") in at
    assert Loud("x") in at.gradient(Loud("y"))
    assert at.gradient("y")[Loud("x")] == 0.5
    text = p.source()
    assert "boom" not in text + str(p) + p._repr_latex_() + repr(at)
    np.testing.assert_allclose(run(p)(x=9.0)["y"], 9.0)
    with pytest.raises(lg.InvalidName):
        p.parameter(Loud("no name"))
    q = lg.Program()
    q.define("y", 2.0 * q.parameter(Key.RATE, value=1.0))
    assert q.solve({Key.RATE: 3.0})["y"] == 6.0


def test_constants_of_the_users_own_classes_are_numbers_in_source():
    p = lg.Program()
    x = p.parameter("x", value=np.arange(6.0).reshape(2, 3))
    cases = {
        "rolled": np.roll(x, Axis.SECOND, Axis.SECOND),
        "taken": np.take(x, np.int64(1), axis=Axis.SECOND),
        "wrapped": np.take(x, [5, -1], Axis.SECOND, mode=Loud("wrap")),
        "repeated": np.repeat(x, (2, 1), Axis.FIRST),
        "tiled": np.tile(x, (Axis.SECOND, True)),
        "row": x[Axis.SECOND],
        "columns": x[:, Axis.SECOND :],
        "picked": x[[Axis.SECOND, 0], :: Axis.SECOND],
        "turned": np.transpose(x, (Axis.SECOND, Axis.FIRST)),
        "spread": np.broadcast_to(x, (np.int64(2), Axis.SECOND + 1, Axis(1) + 2)),
        "sums": np.sum(x, axis=Axis.SECOND),
        "running": np.cumsum(x, axis=Axis.SECOND),
        "most": np.max(x, axis=(Axis.FIRST, Axis.SECOND)),
        "exps": lg.logsumexp(x, axis=Axis.SECOND),
        "contracted": np.einsum(Loud("ij,kj"), x, np.ones((2, 3))),
        "single": x.astype(">f4"),
        "held": 10.0 - lg.stop_gradient(x + 1.0),
        "padded": np.pad(x, ((1, 0), (0, Axis.SECOND))),
    }
    for name, value in cases.items():
        p.define(name, value)
    text = p.source()
    assert "boom" not in text
    assert "Axis" not in text
    found, at = run(p)(), p.solve()
    for name in cases:
        np.testing.assert_allclose(found[name], at[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", [*HOSTILE, Loud("loud")])
def test_a_primitives_name_is_shown_and_not_obeyed(name):
    double = lg.primitive(lambda x: 2 * x, vjp=lambda g, y, x: (2 * g,), name=name)
    p = lg.Program()
    p.define("y", double(p.parameter("x", value=2.0)) + 1.0)
    assert p.solve().gradient("y")["x"] == 2.0
    for shown in (str(p), p._repr_latex_()):
        assert all(c.isprintable() or c == "\n" for c in shown)
    row = p._repr_latex_().splitlines()[1]
    assert "<script>" not in row
    assert "boom" not in row
    plain = row.replace("\\$", "").replace("\\&", "").replace("\\#", "").replace("\\%", "")
    assert not set("$#%") & set(plain)
    assert plain.count("&") == 1
    assert "\\end{" not in plain
    opened = plain.replace("\\{", "").replace("\\}", "")
    assert opened.count("{") == opened.count("}")
    with pytest.raises(lg.UnsupportedFunction):
        p.source()


@pytest.mark.parametrize("name", ["_", "__", "___"])
def test_a_name_of_underscores_alone_is_latex(name):
    p = lg.Program()
    p.define("y", 2.0 * p.parameter(name, value=1.0))
    assert "\\_" in p._repr_latex_()


def test_labels_of_derivatives_are_shown_escaped():
    rule = replace(lg.optim.gradient_descent(0.1), name="\x1b[31mred")
    solve = lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, differentiate=lg.Unrolled(3, rule))
    certificate = lg.trace(solve, 1.0).solve().gradient("output").certificate
    assert "\x1b" not in str(certificate)
    assert "red" in str(certificate)


def test_errors_quote_what_they_are_given_escaped():
    def f(x):
        return None

    f.__name__ = "\x1b[31mred"
    with pytest.raises(lg.InvalidFunction) as error:
        lg.grad(f)(1.0)
    assert "\x1b" not in str(error.value)
    assert "red" in str(error.value)
    with pytest.raises(lg.UnknownName) as error:
        lg.Program().solve({"\x1b[31m": 1.0})
    assert "\x1b" not in str(error.value)
