"""The house: packages import one way, at the head of files that are about one thing each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lagrad

ROOT = Path(lagrad.__file__).parent
# A package imports from those before it, and any file from the ground.
GROUND = (
    "errors",
    "typing",
    "public",
    "trees",
    "finite_differences",
    "optim",
    "lazy_import",
    "plain_text",
)
PACKAGES = "linear_solvers expressions primitives systems compiler solving programs transforms"
PACKAGES = [*PACKAGES.split(), "loops", "implicit"]
STRANGERS = {"systems", "compiler"}  # neither knows the other


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix("__init__").rstrip("."), path


MODULES = dict(modules())


def imported(tree):
    """The modules of lagrad that a file names, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lagrad":
            base = node.module.removeprefix("lagrad").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lagrad":
                    yield alias.name.removeprefix("lagrad").lstrip(".")


@pytest.mark.parametrize("name", MODULES)
def test_imports_between_packages_point_one_way(name):
    own = name.split(".")[0]
    for other in {i.split(".")[0] for i in imported(ast.parse(MODULES[name].read_text("utf-8")))}:
        if own in GROUND:
            assert other in GROUND, other
        elif own in PACKAGES and other not in GROUND:
            assert PACKAGES.index(other) <= PACKAGES.index(own), other
            assert {own, other} != STRANGERS, other


@pytest.mark.parametrize("name", MODULES)
def test_imports_stand_at_the_head_and_files_stay_small(name):
    text = MODULES[name].read_text(encoding="utf-8")
    tree = ast.parse(text)
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(function))
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= 400
    assert not {"utils", "misc", "helpers", "common"} & set(name.split("."))


def test_public_names_have_docstrings_with_examples():
    for name in lagrad.__all__:
        thing = getattr(lagrad, name)
        assert thing.__doc__, name
    for method in (
        "parameter",
        "unknown",
        "define",
        "subject_to",
        "solve",
        "adjoint",
        "source",
        "graph",
    ):
        assert "Examples\n" in getattr(lagrad.Program, method).__doc__, method
    for method in (
        "gradient",
        "multipliers",
        "jacobian",
        "tangent",
        "hessian_vector",
        "adjoint_system",
    ):
        assert "Examples\n" in getattr(lagrad.Solution, method).__doc__, method
