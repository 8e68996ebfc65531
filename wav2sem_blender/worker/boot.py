# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's entry point, started by path: `python boot.py [--path DIR …] --folder DIR`.

`python boot.py [--path DIR …] --run MODULE …` runs a module's `main` instead: the chores of the preferences.

Inside Blender the package is named `bl_ext.<repository>.wav2sem_blender`, and none of that exists in the worker; so
the package is loaded here from the folder that holds this file, under its plain name.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import BinaryIO

PACKAGE = "wav2sem_blender"
MIN_PYTHON = (3, 11)


def main() -> int:
    """Prepare the interpreter, then serve until the commands end."""
    parser = argparse.ArgumentParser(prog="boot.py", description="Speech to motion, driven by JSON lines on stdin.")
    parser.add_argument("--path", action="append", default=[], help="folder with libraries; may be repeated")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--folder", type=Path, help="where events, the log and the results go")
    task.add_argument("--run", nargs=argparse.REMAINDER, help="a module of the package, and what its main() gets")
    arguments = parser.parse_args()
    if sys.version_info < MIN_PYTHON:
        # The package's own modules cannot be read by it.
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, MIN_PYTHON))
        print(f"error: {sys.executable} is Python {found}. Choose Python {needed} or newer.", file=sys.stderr)
        return 2
    _set_import_path(arguments.path)
    commands = _take_stdin()
    _load_package(Path(__file__).resolve().parents[1])
    if arguments.run:
        importlib.import_module(f"{PACKAGE}.worker.chore").end_with(commands)
        module, *rest = arguments.run
        return importlib.import_module(f"{PACKAGE}.{module}").main(rest)
    serve = importlib.import_module(f"{PACKAGE}.worker.serve")
    return serve.serve(arguments.folder, commands)


def _set_import_path(folders: list[str]) -> None:
    """Append what Blender found; drop this file's folder, whose `client.py` could shadow a library."""
    own_folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != own_folder]
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def _take_stdin() -> BinaryIO:
    """Stdin as a binary stream of its own.

    On Windows a thread that waits on the pipe behind descriptor 0 blocks every library that looks at that
    descriptor while it is loaded (numpy's do), so descriptor 0 becomes the null device.
    """
    commands = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return commands


def _load_package(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{folder} is no Python package.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.exit(main())
