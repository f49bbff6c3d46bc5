"""Every block of the README runs, and every docstring's example."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import lagrad
from lagrad.cli import main

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [
    line.split("#")[0].strip()
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
]


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_blocks_run(number, capsys):
    exec(compile(PYTHON[number], f"README block {number}", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("lagrad run")])
def test_commands_run(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)[1:]) == 0
    assert "gradient of" in capsys.readouterr().out


def test_the_two_commands_for_a_fresh_machine_stand_there():
    assert "python -m pip install . && lagrad run" in SHELL
    assert 'python -m pip install -e ".[test]" && python -m pytest' in SHELL


def names():
    return [
        found.name
        for found in pkgutil.walk_packages(lagrad.__path__, "lagrad.")
        if ".examples" not in found.name and not found.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", names())
def test_docstring_examples_run(name):
    failures, _ = doctest.testmod(importlib.import_module(name), verbose=False)
    assert failures == 0


def test_there_are_examples_in_the_docstrings():
    finder = doctest.DocTestFinder()
    count = sum(bool(t.examples) for n in names() for t in finder.find(importlib.import_module(n)))
    assert count > 20
