"""The command: `lagrad run [FILE.py] [--set NAME=VALUE] [--of NAME] [--wrt NAME] [--json PATH]`."""

import argparse
import io
import json
import math
import os
import runpy
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lagrad import __version__
from lagrad.errors import InvalidValue, LagradError, ProgramFileError, ShapeMismatch
from lagrad.plain_text import printable
from lagrad.programs.program import Program
from lagrad.programs.solution import Solution
from lagrad.solving.certificate import FIELDS, Certificate
from lagrad.solving.profile import BlockReport, Spent

DEFAULT = "sellar"


def examples() -> dict[str, Path]:
    """The programs that ship with the library, by name."""
    folder = Path(str(resources.files("lagrad") / "examples"))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load(place: str) -> Program:
    """The `program` that a file, or an example of that name, defines."""
    shipped = examples()
    path = shipped.get(place) or Path(place)
    if path.is_dir():
        raise ProgramFileError(f"{path} is a folder; expected a Python file.")
    if not path.is_file():
        raise ProgramFileError(f"{path}: no such file. Examples that ship: {', '.join(shipped)}.")
    try:
        # A file's own warnings are its author's business, and its errors are told with a line.
        namespace = run_file(path)
    except SyntaxError as error:
        raise ProgramFileError(
            f"{error.filename or path}:{error.lineno or 1}: does not parse: {error.msg}."
        ) from error
    except (Exception, SystemExit) as error:
        raise ProgramFileError(
            f"{path}{line_of(error, path)}: {type(error).__name__}: {error}"
        ) from error
    program = namespace.get("program")
    if not isinstance(program, Program):
        what = "defines no `program`" if program is None else f"`program` is {program!r}"
        raise ProgramFileError(f"{path}: {what}; expected `program = lg.Program(…)`.")
    return program


def run_file(path: Path) -> dict[str, Any]:
    """What a file defines; it may import its neighbours, as a script may."""
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return runpy.run_path(str(path), run_name="__lagrad__")
    finally:
        sys.path.pop(0)


def line_of(error: BaseException, path: Path) -> str:
    """The last line of the file that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def settings(program: Program, pairs: Sequence[str]) -> dict[str, Any]:
    """Values by parameter from NAME=VALUE; a value is JSON, a scalar fills its parameter."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, written = pair.partition("=")
        if not equals:
            raise InvalidValue(f"--set {pair}: expected NAME=VALUE.")
        name = name.strip()
        shape = program.variable_of(name, "parameter").shape
        try:
            value = np.asarray(json.loads(written), dtype=float)
        except (ValueError, TypeError, OverflowError, RecursionError):
            written = written if len(written) < 80 else written[:77] + "…"
            raise InvalidValue(
                f"--set {name}: {written!r} is no number and no list of numbers such as [1, 2.5]."
            ) from None
        if value.ndim and value.shape != shape:
            raise ShapeMismatch(f"--set {name}: shape {value.shape}; expected {shape}.")
        values[name] = np.broadcast_to(value, shape)
    return values


def output_of(program: Program, wanted: str | None) -> str | None:
    """The output asked for, or the last scalar that the program defines."""
    if wanted is not None:
        return program.variable(wanted).name
    scalars = [v.name for v in program.with_role("defined", "unknown") if v.size == 1]
    return scalars[-1] if scalars else None


def shown(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.12g}"
    body = np.array2string(array, precision=6, threshold=40, edgeitems=3, max_line_width=76)
    return body.replace("\n", "\n" + " " * 14)


def duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def section(title: str, rows: dict[str, Any]) -> list[str]:
    lines = [f"  {name:<10}  {shown(value)}" for name, value in rows.items()]
    return ["", title, *(lines or ["  none"])]


def numbers(at: Solution, of: str | None, wrt: Sequence[str]) -> dict[str, Any]:
    """What the command found."""
    found: dict[str, Any] = {
        "program": at.system.name,
        "values": {name: at[name] for name in at},
        "certificate": at.certificate,
        "blocks": list(at.reports),
    }
    if of is not None:
        gradient = at.gradient(of)
        found["output"] = of
        found["multipliers"] = dict(at.multipliers(of))
        found["gradient"] = {name: gradient[name] for name in wrt or gradient}
        found["gradient_certificate"] = gradient.certificate
    return found


def report(program: Program, found: dict[str, Any]) -> list[str]:
    """The same for a reader."""
    lines = [str(program), "", "blocks, in the order of solving"]
    for number, block in enumerate(found["blocks"], 1):
        cost = f"{block.solver}, {duration(block.seconds)}"
        if block.unknowns:
            cost = (
                f"{counted(block.unknowns, 'unknown')}, {counted(block.steps, 'Newton step')}, "
                f"{counted(block.factorisations, 'factorisation')}, {cost}"
            )
        lines.append(f"  {number}. {block.label}: {cost}")
    lines += section("values", found["values"])
    lines += ["", f"certificate of the solution: {found['certificate']}"]
    if "output" in found:
        lines += section(f"multipliers of {found['output']}", found["multipliers"])
        lines += section(f"gradient of {found['output']}", found["gradient"])
        lines += ["", f"certificate of the gradient: {found['gradient_certificate']}"]
    return lines


def plain(value: Any) -> Any:
    """What JSON writes in the place of an array, a certificate or a report."""
    if isinstance(value, Certificate):
        found = {name: getattr(value, name) for name in FIELDS}
        return {k: v if v is None or math.isfinite(v) else str(v) for k, v in found.items()}
    if isinstance(value, BlockReport):
        return {name: getattr(value, name) for name in BlockReport.__slots__}
    if isinstance(value, Spent):
        return {"calls": value.calls, "seconds": value.seconds}
    return np.asarray(value).tolist()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lagrad", description="Solve a program of equality constraints and differentiate it."
    )
    top.add_argument("--version", action="version", version=f"lagrad {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="solve a program, and print values, multipliers, gradients and certificates",
        epilog=f"Examples that ship with lagrad: {', '.join(examples())}.",
    )
    repeated: dict[str, Any] = {"action": "append", "default": []}
    run.add_argument(
        "file",
        nargs="?",
        default=DEFAULT,
        metavar="FILE",
        help="a Python file that defines `program`, or an example's name (default: %(default)s)",
    )
    run.add_argument("--set", **repeated, metavar="NAME=VALUE", help="a parameter's value, as JSON")
    run.add_argument(
        "--of", metavar="NAME", help="the output to differentiate (default: the last scalar)"
    )
    run.add_argument("--wrt", **repeated, metavar="NAME", help="a parameter to show (default: all)")
    run.add_argument(
        "--json", metavar="PATH", help="write the numbers to a file; - for standard output"
    )
    run.add_argument(
        "--profile", action="store_true", help="show what each block and the gradient cost"
    )
    return top


def run(options: argparse.Namespace) -> None:
    program = load(options.file)
    values = settings(program, options.set)
    of = output_of(program, options.of)
    for name in options.wrt:
        program.variable_of(name, "parameter")
    at = program.solve(values)
    found = numbers(at, of, options.wrt)
    if options.json != "-":
        lines = [*report(program, found), *(["", str(at.profile())] if options.profile else [])]
        print(printable("\n".join(lines), kept="\n"))
    if options.json is not None:
        written = json.dumps(found, indent=2, ensure_ascii=False, default=plain)
        if options.json == "-":
            print(written)
        else:
            Path(options.json).write_text(written + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without λ shows its number rather than nothing.
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            run(options)
        return 0
    except LagradError as error:
        print(f"lagrad: {type(error).__name__}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever read the output has seen enough of it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    except OSError as error:
        place = options.json if error.filename is None else error.filename
        print(printable(f"lagrad: {place}: {error.strerror}"), file=sys.stderr)
    return 1
