# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that install, measure and remove a runtime: `boot.py --run worker.install VERB FOLDER`.

The runtime is an ordinary `venv` that pip fills from wheels of known hashes. After a cancelled installation, installing
again continues it: pip finds its downloads in the cache and keeps what is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Text, UserError
from . import environment
from .child import tell
from .runtime import ALL, PIP_HASHES, PYTHONS, TORCH, Runtime, Size, disk_use, in_words
from .task import TaskFailedError, TaskProcess

# Where each part begins on the progress bar; unpacking is a fraction of the download's part.
_DOWNLOAD, _UNPACK, _CHECK = 0.05, 0.75, 0.95
# The first version of pip that reports the progress of a download in lines for programs.
_PIP_WITH_PROGRESS = (24, 1)
# What pip says of a file with another hash.
_CHANGED = "DO NOT MATCH THE HASHES"
_ASK = (
    "import importlib.util as u, json, sys; has = [u.find_spec(m) is not None for m in ('venv', 'ensurepip', 'pip')]; "
    "print(json.dumps([list(sys.version_info[:2]), *has]))"
)


def run(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Install, measure or remove a runtime.

    Raises:
        UserError, OSError: It failed; the message names the remedy.
    """
    parser = argparse.ArgumentParser(prog="worker.install")
    parser.add_argument("verb", choices=("install", "measure", "remove"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", default=TORCH.name, choices=ALL, help="what is installed")
    parser.add_argument("--index", default="", help="URL of a package index that is used besides PyPI")
    parser.add_argument("--pip-option", action="append", default=[], help="option for pip; may be repeated")
    parser.add_argument(
        "--requirement", action="append", default=[], help="installed instead of those; may be repeated"
    )
    options = parser.parse_args(arguments)
    if options.verb == "measure":
        return {"size_bytes": disk_use(options.folder)}
    if options.verb == "remove":
        shutil.rmtree(options.folder)
        return {}
    pip_options = [*options.pip_option, *(["--extra-index-url", options.index] if options.index else [])]
    runtime = Runtime(options.folder, ALL[options.packages])
    size = Size(1, 1, Text("")) if options.requirement else runtime.packages.expected_size(bool(options.index))
    packages = options.requirement
    if not packages:
        # Another index has other files of the same versions, such as torch for one kind of GPU.
        packages = runtime.packages.requirements if options.index else _hashed(runtime.packages.hashes)
    return _install(runtime, [*pip_options, *packages], size, must_work=not options.requirement)


def _hashed(file: Path) -> list[str]:
    """pip's options for the packages of a file with hashes, and nothing else."""
    return ["--require-hashes", "--requirement", str(file)]


def _install(runtime: Runtime, packages: Sequence[str], size: Size, *, must_work: bool) -> Mapping[str, Any]:
    runtime.folder.mkdir(parents=True, exist_ok=True)
    runtime.set_unfinished()
    missing_bytes = size.disk_bytes + size.download_bytes - disk_use(runtime.folder)
    free_bytes = shutil.disk_usage(runtime.folder).free
    if free_bytes < missing_bytes:
        raise UserError(
            "The disk of {folder} has {free} free, and the installation needs {needed}. Free some space and press "
            "Install again.",
            folder=runtime.folder,
            free=in_words(free_bytes),
            needed=in_words(missing_bytes),
        )
    tell(0.0, Text("Looking for a Python"))
    pip = _make_environment(runtime)
    # Only the progress bar needs the newer pip; if the upgrade fails, the old one installs as well.
    upgrade = [*pip, "install", "--upgrade", "--quiet", *_hashed(PIP_HASHES)]
    if _pip_version(pip) < _PIP_WITH_PROGRESS and _output_of(upgrade).returncode == 0:
        pip = _pip_of(runtime.python)
    has_progress = _pip_version(pip) >= _PIP_WITH_PROGRESS
    progress = Progress(size.download_bytes)
    command = [*pip, "install", "--cache-dir", str(runtime.cache), "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", "raw" if has_progress else "off", *packages]
    for line in _lines_of(command):
        if progress.read(line):
            tell(_DOWNLOAD + progress.fraction * (_CHECK - _DOWNLOAD), progress.text)
    tell(_CHECK, Text("Checking the Installation"))
    found = _check(runtime, must_work=must_work)
    runtime.set_complete()
    shutil.rmtree(runtime.cache, ignore_errors=True)
    return {"python": str(runtime.python), "size_bytes": runtime.size_bytes, "versions": found}


def _make_environment(runtime: Runtime) -> list[str]:
    """Make the environment if there is none; returns the command that starts its pip.

    Raises:
        UserError: No Python on this computer can make it.
    """
    there = _ask(str(runtime.python)) if runtime.python.is_file() else None
    if there is not None and there.has_pip:
        return _pip_of(runtime.python)
    tried = []
    for candidate in _candidates():
        base = _ask(candidate)
        if base is None or not base.has_venv or base.version not in PYTHONS:
            continue
        if not base.has_ensurepip and not base.has_pip:
            tried.append(candidate)
            continue
        # An environment without pip is useful only to a Python of its version that has pip.
        if there is None or there.version != base.version or not base.has_pip:
            version = ".".join(map(str, base.version))
            tell(_DOWNLOAD / 2, Text("Making an Environment with Python {version}", version=version))
            command = [candidate, "-I", "-m", "venv", "--clear", str(runtime.environment)]
            # The Python's own pip can install into the environment, and is there at once.
            command += ["--without-pip"] if base.has_pip else []
            if _output_of(command).returncode:
                tried.append(candidate)
                continue
        return [*_pip_of(candidate), "--python", str(runtime.python)] if base.has_pip else _pip_of(runtime.python)
    without_pip = Text(" ({pythons}: no pip)", pythons=", ".join(tried)) if tried else ""
    raise UserError(
        "No Python on this computer can make an environment{without_pip}. On Debian and Ubuntu, run `sudo apt install "
        "python3-venv`; elsewhere, install Python 3.13. Then press Install again.",
        without_pip=without_pip,
    )


@dataclass(frozen=True)
class _Base:
    version: tuple[int, int]
    has_venv: bool
    has_ensurepip: bool
    has_pip: bool


def _candidates() -> Iterator[str]:
    """Blender's own Python, then those on the search path."""
    known = {os.path.realpath(sys.executable)}
    yield sys.executable
    for name in ("python3.13", "python3.12", "python3.11", "python3.14", "python3", "python"):
        found = shutil.which(name)
        if found is not None and os.path.realpath(found) not in known:
            known.add(os.path.realpath(found))
            yield found


def _ask(python: str) -> _Base | None:
    try:
        (major, minor), *has = json.loads(_output_of([python, "-I", "-c", _ASK], limit_s=60).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):  # not a working Python
        return None
    return _Base((major, minor), *has)


def _pip_of(python: str | Path) -> list[str]:
    # -X utf8: pip's messages then have the same encoding on Windows.
    return [str(python), "-I", "-X", "utf8", "-m", "pip", "--disable-pip-version-check"]


def _pip_version(pip: list[str]) -> tuple[int, ...]:
    found = re.match(r"pip (\d+)\.(\d+)", _output_of([*pip, "--version"]).stdout)
    return tuple(map(int, found.groups())) if found else ()


def _output_of(command: list[str], limit_s: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=limit_s, check=False
    )


def _lines_of(command: list[str]) -> Iterator[str]:
    """The lines that pip prints.

    Raises:
        UserError: It failed; the message has pip's last error. Or a file has another hash.
    """
    complaints: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield line
            if line.startswith("ERROR: "):
                complaints.append(line.removeprefix("ERROR: ").strip())
    if any(_CHANGED in complaint for complaint in complaints):
        raise UserError(
            "A package that was downloaded is not the file that this version of the add-on knows, so it was not "
            "installed. Update the add-on, or try again later; if it goes on, tell us."
        )
    if process.returncode:
        status = Text("exit status {status}", status=process.returncode)
        raise UserError(
            "pip could not install the runtime: {reason}. Correct that, and press Install to continue.",
            reason=complaints[-1] if complaints else status,
        )


def _check(runtime: Runtime, *, must_work: bool) -> dict[str, str]:
    """Run the probe with the new Python, which loads the libraries; returns their versions.

    Raises:
        UserError: It cannot do what it is made for.
    """
    made = environment.from_python(runtime.python)
    found: dict[str, Any] = {}
    reason: str = ""
    try:
        found = TaskProcess(made.run("worker.probe"), made.variables(), "").wait()
    except TaskFailedError as error:
        reason = error.text
    if must_work and not found.get(runtime.packages.proof):
        raise UserError(
            "The runtime was installed, but its libraries do not load. {reason} Remove the runtime and try again.",
            reason=found.get("recogniser_trouble") or found.get("trouble") or reason,
        )
    return found.get("versions", {})


class Progress:
    """The progress of an installation, read from pip's output.

    Attributes:
        fraction: 0..1 of download and unpacking.
        text: What pip is doing.
    """

    def __init__(self, expected_bytes: int) -> None:
        self.fraction, self.text = 0.0, Text("Looking for the Packages")
        self._expected_bytes = expected_bytes
        self._finished_bytes = self._current_bytes = 0.0
        self._name, self._size_bytes = "", 0.0

    def read(self, line: str) -> bool:
        """Read one line; True if it changed something."""
        if counted := re.match(r"Progress (\d+) of (\d+)", line):
            return self._set_current(float(counted[1]), float(counted[2]))
        if asked := re.match(r"\s*(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line):
            self.text = Text("Looking for {package}", package=asked[1])
        elif got := re.match(r"\s*(?:Downloading|Using cached) (\S+)(?: \(([\d.]+) ([kMG]?)B\))?", line):
            self._begin(got[1], float(got[2] or 0) * {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}[got[3] or ""])
        elif line.startswith("Installing collected packages"):
            self.fraction = _UNPACK
            n_packages = line.count(",") + 1
            self.text = Text("Unpacking {n_packages} Packages (a few Minutes)", n_packages=n_packages)
        elif line.startswith("Successfully installed"):
            self.fraction = 1.0
        else:
            return False
        return True

    def _begin(self, file: str, size_bytes: float) -> None:
        """Begin another file; the one before is complete."""
        self._finished_bytes += max(self._current_bytes, self._size_bytes)
        self._current_bytes = 0.0
        self._name, self._size_bytes = file.rpartition("/")[2].partition("-")[0], size_bytes
        self._show()

    def _set_current(self, done_bytes: float, of_bytes: float) -> bool:
        self._current_bytes, self._size_bytes = done_bytes, of_bytes
        self._show()
        return True

    def _show(self) -> None:
        done_bytes = self._finished_bytes + self._current_bytes
        self.fraction = max(self.fraction, _UNPACK * min(1.0, done_bytes / self._expected_bytes))
        self.text = Text(
            "Downloading {package} ({done} of about {expected})",
            package=self._name,
            done=in_words(done_bytes),
            expected=in_words(self._expected_bytes),
        )
