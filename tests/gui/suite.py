# SPDX-License-Identifier: GPL-3.0-or-later
"""Run tests/blender inside the real Blender with pytest-blender: the second half of `nox -s gui`.

    python tests/gui/suite.py [--output out/gui] [PYTEST ARGUMENTS ...]

pytest-blender wants one executable: for Debian's Blender that is a script that enters it. The libraries that the
default engine needs are unpacked from the extension's wheels, and Blender is told to see them.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import debian_blender  # noqa: E402
import run  # noqa: E402
from packaging.utils import parse_wheel_filename  # noqa: E402

# These start another Python and import bpy there, which the program cannot.
OF_THE_MODULE = (
    "tests/blender/test_command.py::test_the_example_script",
    "tests/blender/test_meddling.py::test_blenders_end_is_the_workers",
    "tests/blender/test_registration.py::test_blenders_process_loads_no_engine",
)


def write_wrapper(program: run.Program, python: str, libraries: Path, folder: Path) -> Path:
    """Write a program that behaves like Blender's executable, and return it."""
    own = {
        "BLENDER_USER_RESOURCES": str(folder / "user"),
        "PYTHONPATH": str(libraries),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        **run.records(),
    }
    if program.named:
        line = ["env", "--unset=PYTEST_ADDOPTS", *_assignments(own), program.named]
    else:
        readable = [run.ROOT, Path(sysconfig.get_path("purelib"))]
        blender = [debian_blender.BLENDER]
        # Debian's Python searches here by default; the tests' workers start without Blender's search path.
        site = {libraries: f"/usr/local/lib/python{python}/dist-packages"}
        enter = debian_blender.command(
            program.root,
            blender,
            readable=readable,
            writable=[folder, *map(Path, run.records().values())],
            elsewhere=site,
            folder=run.ROOT,
        )
        line = ["env", "--ignore-environment", *_assignments(debian_blender.environment(own)), *enter]
    path = folder / "blender"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(line)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def _assignments(variables: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def python_version(program: run.Program) -> str:
    """Blender's Python, as in "3.13"."""
    ask = "import sys; print('python %d.%d' % sys.version_info[:2])"
    answer = program.run(["--background", "--factory-startup", "--python-expr", ask], window=False, capture_output=True)
    found = re.search(r"^python (\d+\.\d+)$", answer.stdout, re.MULTILINE)
    if found is None:
        raise ValueError(f"Blender does not start:\n{answer.stdout}{answer.stderr}")
    return found[1]


def unpack_wheels(archive: Path, python: str, folder: Path) -> Path:
    """Unpack those wheels of the extension's zip that are for `python`; return the folder with the libraries."""
    target = folder / "libraries"
    with zipfile.ZipFile(archive) as extension:
        for name in extension.namelist():
            if name.startswith("wheels/") and is_for(python, Path(name).name):
                with extension.open(name) as wheel, zipfile.ZipFile(wheel) as content:
                    content.extractall(target)
    return target


def is_for(python: str, wheel: str) -> bool:
    """Whether a wheel of this name fits `python` ("3.13"), apart from its platform."""
    minor = int(python.partition(".")[2])
    tags = parse_wheel_filename(wheel)[3]
    exact = {f"cp3{minor}", "py3"}
    return any(
        tag.interpreter in exact or (tag.abi == "abi3" and int(tag.interpreter.removeprefix("cp3")) <= minor)
        for tag in tags
    )


def main() -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=run.ROOT / "out" / "gui_suite", help="default: out/gui_suite")
    options, arguments = parser.parse_known_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        program = run.Program(folder)
    except debian_blender.UnavailableError as error:
        print(f"SKIPPED: Blender's program cannot be had: {error}")
        return 0
    python = python_version(program)
    libraries = unpack_wheels(run.pack(folder), python, folder)
    executable = write_wrapper(program, python, libraries, folder)
    command = [sys.executable, "-m", "pytest", "--blender-executable", str(executable), "-p", "no:cacheprovider"]
    command += [f"--deselect={name}" for name in OF_THE_MODULE]
    command += [*(arguments or ["tests/blender"]), "--", "--factory-startup", "--python-use-system-env"]
    # The outer pytest only starts Blender; it lacks the libraries that conftest.py needs.
    environment = {**os.environ, "PYTEST_ADDOPTS": "--noconftest"}
    return subprocess.run(command, cwd=run.ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
