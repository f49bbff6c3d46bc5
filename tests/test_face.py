"""What a user sees of an object: its public names, completion, and what entries are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lagrad as lg
from lagrad.cli import main


def shown(thing):
    return {name for name in dir(thing) if not name.startswith("__")}


@pytest.fixture(scope="module")
def solved():
    p = lg.Program("root")
    x, w = p.parameter("x", value=4.0), p.parameter("w", value=np.ones(3))
    z = p.unknown("z", start=1.0)
    p.subject_to(z * z == x, name="square")
    p.define("y", z * np.sum(w))
    return p, p.solve()


def test_the_library_shows_its_public_names():
    assert set(dir(lg)) == {*lg.__all__, "__version__"}
    assert len(dir(lg)) < 80


def test_objects_show_what_users_may_use(solved):
    p, at = solved
    assert shown(p) >= {
        "parameter",
        "unknown",
        "define",
        "subject_to",
        "solve",
        "adjoint",
        "source",
    }
    assert shown(at) >= {"gradient", "multipliers", "jacobian", "tangent", "certificate", "profile"}
    assert shown(at.gradient("y")) == {"certificate", "get", "items", "keys", "values"}
    assert {"shape", "dtype", "T", "sum", "name"} <= shown(p["z"])
    assert {"error_bound", "condition", "converged"} <= shown(at.certificate)
    things = [p, at, p["z"], p["z"] + 1.0, at.gradient("y"), at.certificate, at.profile()]
    things += [at.adjoint_system("y"), lg.DenseLU(), lg.CG(), lg.WarmStart(1.0)]
    things += [lg.DenseLU().factor(np.eye(2)), lg.grad(np.cos), lg.compile(np.cos)]
    for thing in things:
        for name in shown(thing):
            assert not name.startswith("_"), (thing, name)
            assert hasattr(thing, name), (thing, name)
    hidden = {"arena", "leaf", "snapshot", "point", "graph_of", "index", "primitive", "arguments"}
    for thing in things:
        assert not hidden & shown(thing), thing


def test_a_programs_entries_are_its_traced_variables():
    p = lg.Program()
    x = p.parameter("x", value=2.0)
    y = p.define("y", x * x)
    assert p["y"] is y
    assert "y" in p
    assert y in p
    assert "z" not in p
    z = p.define("z", p["y"] + p["x"])
    assert p.solve()["z"] == p.solve()[z] == 6.0
    with pytest.raises(lg.UnknownName, match="nope"):
        p["nope"]


def test_completion_offers_the_names_of_variables(solved):
    p, at = solved
    assert p._ipython_key_completions_() == ["x", "w", "z", "y"]
    assert at._ipython_key_completions_() == ["x", "w", "z", "y"]
    assert at.gradient("y")._ipython_key_completions_() == ["x", "w"]


def test_entries_of_solutions_and_of_derivatives_are_of_one_kind(solved):
    _, at = solved
    gradient, tangent = at.gradient("y"), at.tangent(x=1.0)
    for scalar in (at["z"], gradient["x"], tangent["z"], at.multipliers("y")["square"]):
        assert type(scalar) is np.float64
    for array in (at["w"], gradient["w"], tangent["w"]):
        assert type(array) is np.ndarray
        assert not array.flags.writeable
    assert dict(at)["y"] == 6.0
    assert len(at) == 4


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.split() == ["lagrad", lg.__version__]


def test_a_first_gradient_loads_nothing_that_it_does_not_need():
    code = (
        "import sys, lagrad as lg; lg.grad(lambda x: x * x)(1.0); "
        "print([m for m in ('networkx', 'llvmlite', 'sklearn', 'matplotlib', 'pandas', 'jax', "
        "'tqdm', 'scipy.optimize') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_types_that_editors_show_are_checked():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert "tests/typed.py" in text
