"""What docs/architecture.md says of the house holds: the reader's path, and the recipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from walks import ROOT, WALKS, climbs

HERE = Path(__file__).parent
TEXT = (HERE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", TEXT.split("## How to add")[1], flags=re.DOTALL)


@pytest.fixture(scope="module")
def walked():
    """The files of each walk, in a process in which nothing was traced before."""
    command = [sys.executable, str(HERE / "walks.py")]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.parametrize("name", WALKS)
def test_a_value_climbs_at_most_five_times(name, walked):
    assert len(climbs(walked[name])) <= 5


@pytest.mark.parametrize("name", WALKS)
def test_the_readers_path_is_the_one_that_values_take(name, walked):
    section = TEXT.split(f"### {name.replace('_', ' ')}\n")[1].split("\n##")[0]
    assert re.findall(r"`(\w+/\w+\.py)`", section) == walked[name]


def test_every_file_that_the_document_names_is_there():
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", TEXT):
        assert (HERE.parent / name).exists() or any(ROOT.rglob(name)), name


@pytest.mark.parametrize("number", range(3))
def test_a_recipe_runs(number):
    # In a process of its own: one adds a primitive to the table.
    subprocess.run([sys.executable, "-c", RECIPES[number]], check=True)
