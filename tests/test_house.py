"""The floors: a file imports only from lower ones, at its head, and is about one thing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lagrad

ROOT = Path(lagrad.__file__).parent
FLOORS = [
    ["errors", "differences", "lazy", "spending"],
    ["kernels", "equation", "dispatch", "trees"],
    ["constants"],
    ["linmaps"],
    ["products"],
    ["expression"],
    ["methods"],
    ["primitives.registry"],
    ["primitives.reduction", "primitives.elementwise", "primitives.custom"],
    ["primitives.indexing"],
    ["primitives.shaping"],
    ["primitives.special", "primitives.contraction", "primitives.linalg"],
    ["primitives"],
    ["system", "prox", "iterations", "stopping"],
    ["approached"],
    ["parallel", "vectorised", "lowering", "schedules"],
    ["checkpoints"],
    ["loops"],
    ["lanes", "scalarised"],
    ["blockwise", "finite"],
    ["fusing"],
    ["plan"],
    ["levels", "written"],
    ["flat", "copying"],
    ["patterns", "comparing"],
    ["structure", "tape", "linear", "orderings", "certificate", "printing"],
    ["sparse_lu"],
    ["cholesky"],
    ["derivatives", "krylov", "formulas"],
    ["neumann", "packages"],
    ["wrapped", "options"],
    ["dense_jacobian"],
    ["blocks"],
    ["histories", "hybrid"],
    ["endpoint"],
    ["ending"],
    ["nonlinear", "compiled"],
    ["adjoint", "flatsweep", "derive", "source"],
    ["direct"],
    ["second_order", "solvedpoint", "carrying"],
    ["solution"],
    ["solving", "batches"],
    ["program"],
    ["command", "tracing", "evaluation"],
    ["sharing", "guards", "approaches", "watching", "chain"],
    ["exact"],
    ["accumulating"],
    ["sweeps"],
    ["chained"],
    ["traced"],
    ["replay"],
    ["counting", "transforms", "declaring", "optim", "reversing"],
    ["directional", "jacobians", "compiling", "scanning"],
    ["conditional"],
    ["unrolled"],
    ["implicit"],
    ["minimizing", "checking"],
    ["", "__main__", "examples"],
    # The extra: built on the public library.
    ["sklearn.ranges"],
    ["sklearn.families"],
    ["sklearn.search"],
    ["sklearn"],
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


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


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("examples")])
def test_imports_point_down(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for other in imported(tree):
        assert FLOOR[other] < FLOOR[name], f"{name} imports {other}"


@pytest.mark.parametrize("name", MODULES)
def test_imports_stand_at_the_head_and_files_stay_small(name):
    text = MODULES[name].read_text(encoding="utf-8")
    tree = ast.parse(text)
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(function))
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= 450
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
