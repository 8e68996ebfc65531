# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that runs child processes, and the libraries that it needs. Standard library only."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .. import offline, threads
from ..errors import MissingFileError, UserError

BOOT_SCRIPT = Path(__file__).with_name("boot.py")
REQUIRED_MODULES = ("numpy", "soundfile", "soxr", "safetensors")
ENGINE_MODULES = ("onnxruntime", "torch")
TORCH_MODULES = ("torch", "transformers")
RECOGNISER_MODULES = ("faster_whisper",)

# The worker may not find these by itself, because Blender keeps an extension's wheels in a separate folder.
_LOCATED_MODULES = (*REQUIRED_MODULES, "_cffi_backend", *ENGINE_MODULES, "transformers", *RECOGNISER_MODULES)

# They would point another interpreter at Blender's libraries, or Blender's interpreter at other libraries.
_FOREIGN_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")


class MissingModuleError(UserError):
    """The worker's Python lacks a library; the message names the Python, the library and the remedy."""


@dataclass(frozen=True, kw_only=True)
class WorkerEnvironment:
    """How to start a child process.

    Attributes:
        python: The interpreter.
        options: Its options, before the script.
        paths: Folders that are appended to its `sys.path`.
        boot: The script.
        one_thread: Whether its libraries compute in one thread, because there is one such process a core.
    """

    python: Path
    options: tuple[str, ...] = ("-X", "utf8")
    paths: tuple[str, ...] = ()
    boot: Path = BOOT_SCRIPT
    one_thread: bool = False

    def command(self, folder: Path) -> list[str]:
        """The command line of a worker whose session is in `folder`."""
        return [*self._start(), "--folder", str(folder)]

    def run(self, module: str, *arguments: str) -> list[str]:
        """The command line of a task: `run(arguments)` of a module of the package, such as "worker.probe"."""
        return [*self._start(), "--run", module, *arguments]

    def _start(self) -> list[str]:
        paths = [argument for path in self.paths for argument in ("--path", path)]
        return [str(self.python), *self.options, str(self.boot), *paths]

    def variables(self) -> dict[str, str]:
        """This process's environment variables, without those of another Python; `offline` and `threads` add theirs."""
        own = {name: value for name, value in os.environ.items() if name not in _FOREIGN_VARIABLES}
        if self.one_thread:
            return {**own, **threads.ONE_EACH, **offline.VARIABLES}
        return {**threads.VARIABLES, **own, **offline.VARIABLES}


def embedded() -> WorkerEnvironment:
    """Blender's own interpreter with the libraries that Blender itself can import; the default.

    Raises:
        MissingFileError: This Blender has no Python interpreter.
    """
    folders: list[str] = []
    for name in _LOCATED_MODULES:
        folder = _folder_of(name)
        if folder and folder not in folders:
            folders.append(folder)
    # -I: ignore PYTHON* variables and the user's site-packages.
    return WorkerEnvironment(python=_own_python(), options=("-I", "-X", "utf8"), paths=tuple(folders))


def from_python(python: str | os.PathLike[str]) -> WorkerEnvironment:
    """An interpreter that the user chose, with its own libraries; usually one that has torch.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is not a program.
    """
    path = Path(python)
    if not path.is_file():
        raise MissingFileError(
            "{path}: there is no such Python. Correct the path in the add-on's preferences.",
            path=path,
        )
    if not os.access(path, os.X_OK):
        raise UserError("{path} is not a program. Choose a Python interpreter in the add-on's preferences.", path=path)
    return WorkerEnvironment(python=path.absolute())


def check_modules() -> None:
    """Check this Python before the worker's first job.

    Raises:
        MissingModuleError: A required library or both engines are missing.
    """
    missing = missing_modules(REQUIRED_MODULES)
    if missing:
        raise MissingModuleError(
            "The Python {executable} lacks {missing}. Install it there ({pip_command}) or choose another Python "
            "in the preferences.",
            executable=sys.executable,
            missing=", ".join(missing),
            pip_command=pip_command(sys.executable, missing),
        )
    if all(find_spec(name) is None for name in ENGINE_MODULES):
        raise MissingModuleError(
            "The Python {executable} has neither onnxruntime nor torch, so no model can run. Reinstall the "
            "extension, or choose a Python that has torch in its preferences.",
            executable=sys.executable,
        )


def missing_modules(names: Iterable[str]) -> list[str]:
    """Those that this Python cannot find; none is imported."""
    return [name for name in names if find_spec(name) is None]


def pip_command(python: str, names: Iterable[str]) -> str:
    """The terminal command that installs these libraries for a Python."""
    return f'"{python}" -m pip install {" ".join(names)}'


def _folder_of(module: str) -> str | None:
    """The folder that must be on `sys.path` to find `module`, which is not imported."""
    spec = find_spec(module)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return str(Path(next(iter(spec.submodule_search_locations))).parent)
    return str(Path(spec.origin).parent) if spec.origin and spec.has_location else None


def _own_python() -> Path:
    """The interpreter of this process; in unusual builds `sys.executable` is Blender itself."""
    if Path(sys.executable).name.lower().startswith("python"):
        return Path(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (Path(sys.prefix) / "bin", Path(sys.prefix)):
        for name in (version, "python3", "python.exe", "python"):
            if (folder / name).is_file():
                return folder / name
    found = shutil.which(version)
    if found is None:
        raise MissingFileError(
            "This build of Blender has no Python program. Choose a Python in the add-on's preferences.",
        )
    return Path(found)
