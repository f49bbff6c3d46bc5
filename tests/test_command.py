"""The command: what it prints, what it writes, and one clear message where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from lagrad.cli import examples, main


def run(capsys, *arguments):
    status = main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


MINE = """
import numpy as np, lagrad as lg
program = lg.Program("mine")
x = program.parameter("x", value=2.0)
v = program.parameter("v", value=[1.0, 2.0])
z = program.unknown("z", start=1.0)
program.subject_to(z * z == x)
program.define("f", z * np.sum(v))
"""


def test_without_a_file_an_example_runs(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    for part in (
        "program sellar",
        "1. {y1, y2}: 2 unknowns",
        "values",
        "multipliers of obj",
        "9.6100105",
    ):
        assert part in out
    assert "certificate of the gradient: converged" in out


@pytest.mark.parametrize("name", list(examples()))
def test_every_example_runs(capsys, name):
    status, out, err = run(capsys, name)
    assert (status, err) == (0, "")
    assert "gradient of" in out


def test_a_file_of_ones_own(capsys, file):
    status, out, _ = run(
        capsys, file(MINE), "--set", "x=9", "--set", "v=[3, 4]", "--wrt", "v", "--of", "f"
    )
    assert status == 0
    assert "3\n" in out
    gradient = out.split("gradient of f")[1]
    assert "[3. 3.]" in gradient
    assert "  x " not in gradient


def test_a_scalar_fills_its_parameter(capsys, file):
    path = file(MINE)
    status, out, _ = run(capsys, path, "--set", "v=5", "--json", "-")
    assert status == 0
    assert json.loads(out)["values"]["v"] == [5.0, 5.0]


def test_json_holds_the_same_numbers(capsys, file, tmp_path):
    target = tmp_path / "numbers.json"
    status, _, _ = run(capsys, file(MINE), "--json", target)
    found = json.loads(target.read_text(encoding="utf-8"))
    assert status == 0
    np.testing.assert_allclose(found["values"]["z"], np.sqrt(2), rtol=1e-15)
    np.testing.assert_allclose(found["gradient"]["x"], 3 / (2 * np.sqrt(2)), rtol=1e-14)
    assert found["output"] == "f"
    assert found["certificate"]["converged"] is True
    assert found["blocks"][0]["unknowns"] == 1
    assert set(found["multipliers"]) == {"z", "f"}


def test_python_dash_m(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lagrad", "run", "domke"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "20.918727" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("program = (", ":1: does not parse"),
        ("x = 1", "defines no `program`"),
        ("program = 3", "`program` is 3"),
        ("import lagrad as lg\nlg.Program().parameter('2')", ":2: InvalidName"),
        ("\n\nraise KeyError('gone')", ":3: KeyError"),
        ("import nowhere", ":1: ModuleNotFoundError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_files_that_define_no_program(capsys, file, text, said):
    status, out, err = run(capsys, file(text))
    assert status == 1
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "xx=1"], "did you mean 'x'"),
        (["--set", "x"], "expected NAME=VALUE"),
        (["--set", "x=abc"], "'abc' is no number"),
        (["--set", "x=NaN"], "is NaN"),
        (["--set", "v=[1, 2, 3]"], r"expected (2,)"),
        (["--set", "v=[1, [2]]"], "no number"),
        (["--of", "g"], "no variable is named 'g'"),
        (["--of", "v"], "scalar"),
        (["--wrt", "zz"], "no parameter is named 'zz'"),
        (["--set", "x=-1"], "NotConverged"),
        (["--json", "/no/such/place.json"], "No such file"),
    ],
)
def test_arguments_that_do_not_fit(capsys, file, arguments, said):
    status, _, err = run(capsys, file(MINE), *arguments)
    assert status == 1
    assert said in err
    assert err.startswith("lagrad: ")


def test_a_file_that_does_not_exist_lists_the_examples(capsys, tmp_path):
    for place in (tmp_path / "none.py", "selar"):
        status, _, err = run(capsys, place)
        assert status == 1
        assert "sellar" in err
    assert "is a folder" in run(capsys, tmp_path)[2]


def test_a_file_may_import_its_neighbours(capsys, file):
    file("value = 4.0", "neighbour_of_mine.py")
    path = file(
        MINE.replace("value=2.0", "value=neighbour_of_mine.value").replace(
            "import", "import neighbour_of_mine,", 1
        )
    )
    status, out, _ = run(capsys, path)
    assert status == 0
    assert "  z           2\n" in out


def test_a_neighbour_that_does_not_parse_is_named(capsys, file):
    neighbour = file("\n\nvalue = (", "broken_neighbour.py")
    status, _, err = run(capsys, file("import broken_neighbour"))
    assert status == 1
    assert f"{neighbour}:3: does not parse" in err


def test_a_binary_file_and_bad_usage(capsys, tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"\xff\xfe\x00\x01")
    status, _, err = run(capsys, path)
    assert status == 1
    assert "Traceback" not in err
    with pytest.raises(SystemExit) as stopped:
        main(["walk"])
    assert stopped.value.code == 2


def test_a_program_without_a_scalar_prints_its_values(capsys, file):
    text = "import lagrad as lg\nprogram = lg.Program()\n"
    text += "program.define('y', 2 * program.parameter('x', value=[1.0, 2.0]))"
    status, out, _ = run(capsys, file(text))
    assert status == 0
    assert "[2. 4.]" in out
    assert "gradient of" not in out
