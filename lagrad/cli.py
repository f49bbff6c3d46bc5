"""The command: `lagrad run [FILE.py] [--set NAME=VALUE] [--of NAME] [--wrt NAME] [--json PATH]`."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, LagradError, ProgramFileError, ShapeMismatch, UnknownName
from lagrad.programs.program import Program
from lagrad.programs.solution import Solution
from lagrad.solving.certificate import FIELDS
from lagrad.solving.derivatives import Gradient
from lagrad.solving.profile import Spent

DEFAULT = "sellar"


def examples() -> dict[str, Path]:
    """The programs that ship with the library, by name."""
    folder = Path(str(resources.files("lagrad") / "examples"))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load(place: str | None) -> Program:
    """The `program` that a file, or an example of that name, defines."""
    shipped = examples()
    wanted = DEFAULT if place is None else place
    path = shipped.get(wanted) or Path(wanted)
    if path.is_dir():
        raise ProgramFileError(f"{path} is a folder; expected a Python file.")
    if not path.is_file():
        known = ", ".join(shipped)
        raise ProgramFileError(f"{path}: no such file. Examples that ship: {known}.")
    try:
        # A file's own warnings are its author's business, and its errors are told with a line.
        namespace = run_file(path)
    except LagradError as error:
        raise ProgramFileError(
            f"{path}{line_of(error, path)}: {type(error).__name__}: {error}"
        ) from error
    except SyntaxError as error:
        raise ProgramFileError(
            f"{path}:{error.lineno or 1}: does not parse: {error.msg}."
        ) from error
    except UnicodeDecodeError as error:
        raise ProgramFileError(f"{path}: is no text file: {error.reason}.") from error
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
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""


def settings(program: Program, pairs: Sequence[str]) -> dict[str, Any]:
    """Values by parameter from NAME=VALUE; a value is JSON, a scalar fills its parameter."""
    values: dict[str, Any] = {}
    parameters = {v.name: v for v in program.with_role("parameter")}
    for pair in pairs:
        name, equals, written = pair.partition("=")
        name = name.strip()
        if not equals:
            raise InvalidValue(f"--set {pair}: expected NAME=VALUE.")
        if name not in parameters:
            raise UnknownName.among(name, parameters, "parameter")
        try:
            value = np.asarray(json.loads(written), dtype=float)
        except (ValueError, TypeError, OverflowError, RecursionError):
            written = written if len(written) < 80 else written[:77] + "…"
            raise InvalidValue(
                f"--set {name}: {written!r} is no number and no list of numbers such as [1, 2.5]."
            ) from None
        shape = parameters[name].shape
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


def section(title: str, rows: dict[str, Any]) -> list[str]:
    lines = ["", title]
    lines += [f"  {name:<10}  {shown(value)}" for name, value in rows.items()] or ["  none"]
    return lines


def report(program: Program, at: Solution, of: str | None, wrt: Sequence[str]) -> list[str]:
    """What the command prints."""
    lines = [str(program), "", "blocks, in the order of solving"]
    for number, block in enumerate(at.reports, 1):
        cost = f"{block.solver}, {duration(block.seconds)}"
        if block.unknowns:
            cost = (
                f"{block.unknowns} unknown{'s' * (block.unknowns != 1)}, "
                f"{block.steps} Newton step{'s' * (block.steps != 1)}, "
                f"{block.factorisations} factorisation{'s' * (block.factorisations != 1)}, {cost}"
            )
        lines.append(f"  {number}. {block.label}: {cost}")
    lines += section("values", {name: at[name] for name in at})
    lines += ["", f"certificate of the solution: {at.certificate}"]
    if of is not None:
        gradient = at.gradient(of)
        lines += section(f"multipliers of {of}", dict(at.multipliers(of)))
        lines += section(f"gradient of {of}", {name: gradient[name] for name in wrt or gradient})
        lines += ["", f"certificate of the gradient: {gradient.certificate}"]
    return lines


def as_json(at: Solution, of: str | None, wrt: Sequence[str]) -> dict[str, Any]:
    """The same numbers for a machine."""
    found: dict[str, Any] = {
        "program": at.system.name,
        "values": {name: plain(at[name]) for name in at},
        "certificate": certificate(at.certificate),
        "blocks": [
            {name: plain_part(getattr(block, name)) for name in type(block).__slots__}
            for block in at.reports
        ],
    }
    if of is not None:
        gradient: Gradient = at.gradient(of)
        found["output"] = of
        found["multipliers"] = {name: plain(v) for name, v in at.multipliers(of).items()}
        found["gradient"] = {name: plain(gradient[name]) for name in wrt or gradient}
        found["gradient_certificate"] = certificate(gradient.certificate)
    return found


def certificate(given: Any) -> dict[str, Any]:
    found = {name: getattr(given, name) for name in FIELDS}
    return {k: v if v is None or math.isfinite(v) else str(v) for k, v in found.items()}


def plain_part(value: Any) -> Any:
    return {"calls": value.calls, "seconds": value.seconds} if isinstance(value, Spent) else value


def plain(value: Any) -> Any:
    return np.asarray(value).tolist()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lagrad", description="Solve a program of equality constraints and differentiate it."
    )
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="solve a program, and print values, multipliers, gradients and certificates",
        epilog=f"Examples that ship with lagrad: {', '.join(examples())}.",
    )
    run.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=f"a Python file that defines `program`, or an example's name (default: {DEFAULT})",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter's value, as JSON",
    )
    run.add_argument(
        "--of", metavar="NAME", help="the output to differentiate (default: the last scalar)"
    )
    run.add_argument(
        "--wrt",
        action="append",
        default=[],
        metavar="NAME",
        help="a parameter to show (default: all)",
    )
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
    parameters = {v.name for v in program.with_role("parameter")}
    for name in options.wrt:
        if name not in parameters:
            raise UnknownName.among(name, parameters, "parameter")
    at = program.solve(values)
    if options.json != "-":
        print("\n".join(report(program, at, of, options.wrt)))
        if options.profile:
            print(f"\n{at.profile()}")
    if options.json is not None:
        written = json.dumps(as_json(at, of, options.wrt), indent=2, ensure_ascii=False)
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
    except LagradError as error:
        print(f"lagrad: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough of it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 1
    except OSError as error:
        place = options.json if error.filename is None else error.filename
        print(f"lagrad: {place}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
