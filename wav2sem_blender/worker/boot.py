# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point of every child process, started by its path.

    python boot.py [--path DIR …] --folder DIR          the worker, whose session is in a folder
    python boot.py [--path DIR …] --run MODULE …        a task: `run(arguments)` of a module of the package
    blender --background --python boot.py -- --run …    the same inside Blender

Inside Blender the package is named `bl_ext.<repository>.wav2sem_blender`, which does not exist here; so the package is
loaded from the folder that holds this file, under its plain name.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

PACKAGE = "wav2sem_blender"
MIN_PYTHON = (3, 11)


def main() -> int:
    """Prepare the interpreter, then run the worker or a task; returns the exit status."""
    parser = argparse.ArgumentParser(prog="boot.py", description="A child process of Wav2Sem for Blender.")
    parser.add_argument("--path", action="append", default=[], help="folder with libraries; may be repeated")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--folder", type=Path, help="the worker's session: its log and its results")
    work.add_argument("--run", nargs=argparse.REMAINDER, help="a module of the package, and the task's arguments")
    # Blender's own arguments come before "--".
    arguments = parser.parse_args(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else None)
    if sys.version_info < MIN_PYTHON:
        # This Python cannot read the package, so the event is written by hand.
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, MIN_PYTHON))
        template = "{python} is Python {found}. Choose Python {needed} or newer."
        values = {"python": sys.executable, "found": found, "needed": needed}
        print(json.dumps({"error": {"template": template, "values": values}}), flush=True)
        return 2
    _set_import_path(arguments.path)
    _load_package(Path(__file__).resolve().parents[1])
    child = importlib.import_module(f"{PACKAGE}.worker.child")
    stdin = child.take_streams()
    if not arguments.run:
        importlib.import_module(f"{PACKAGE}.worker.serve").serve(arguments.folder, stdin)
        return 0
    module, *rest = arguments.run
    status = child.run(f"{PACKAGE}.{module}", rest, stdin)
    if "bpy" in sys.modules:
        # Blender has an exit status of its own, and is slow to end.
        os._exit(status)
    return status


def _set_import_path(folders: list[str]) -> None:
    """Append `folders`; remove this file's folder, because its `client.py` could hide a library."""
    own_folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != own_folder]
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def _load_package(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{folder} is not a Python package.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.exit(main())
