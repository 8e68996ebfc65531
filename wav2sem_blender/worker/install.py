# SPDX-License-Identifier: GPL-3.0-or-later
"""Make or remove the torch runtime: `python boot.py --run worker.install {install,measure,remove} FOLDER`.

Nothing here is Blender's: a plain environment by `venv`, filled by pip from wheels. Run again after a cancelled try, it
goes on: pip takes what it has downloaded from its cache and leaves alone what is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from . import chore, environment
from .runtime import PYTHONS, REQUIREMENTS, Runtime, Size, disk_use, expected_size, in_words

# The bar's parts: before the download, and before the unpacking.
_DOWNLOAD, _UNPACK, _CHECK = 0.05, 0.75, 0.95
# From this version on, pip says how far a download is in lines that a program can read.
_PIP_THAT_COUNTS = (24, 1)
_ASK = (
    "import importlib.util as u, json, sys; has = [u.find_spec(m) is not None for m in ('venv', 'ensurepip', 'pip')]; "
    "print(json.dumps([list(sys.version_info[:2]), *has]))"
)


class InstallError(UserError):
    """The runtime cannot be made; the message names the remedy."""


def main(arguments: Sequence[str]) -> int:
    """Do it, telling the progress as a chore."""
    parser = argparse.ArgumentParser(prog="worker.install")
    parser.add_argument("verb", choices=("install", "measure", "remove"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", default="", help="address of another package index, asked besides pip's own")
    parser.add_argument("--pip-option", action="append", default=[], help="handed to pip; may be repeated")
    parser.add_argument("--requirement", action="append", default=[], help="instead of the runtime's own")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "measure":
            chore.answer({"size_bytes": disk_use(options.folder)})
        elif options.verb == "remove":
            chore.tell(0.0, "Removing")
            shutil.rmtree(options.folder)
        else:
            pip_options = [*options.pip_option, *(["--extra-index-url", options.index] if options.index else [])]
            size = Size(1, 1, "") if options.requirement else expected_size(bool(options.index))
            _install(Runtime(options.folder), options.requirement or REQUIREMENTS, pip_options, size)
    except OSError as error:
        chore.complain(str(error))
        return 1
    return 0


def _install(runtime: Runtime, requirements: Sequence[str], pip_options: list[str], size: Size) -> None:
    runtime.folder.mkdir(parents=True, exist_ok=True)
    runtime.set_unfinished()
    missing_bytes = size.disk_bytes + size.download_bytes - disk_use(runtime.folder)
    free_bytes = shutil.disk_usage(runtime.folder).free
    if free_bytes < missing_bytes:
        raise UserError(
            "The disk of {folder} has {in_words} left, and the installation needs {in_words_2} for a while. Free "
            "some space and press Install again.",
            folder=runtime.folder,
            in_words=in_words(free_bytes),
            in_words_2=in_words(missing_bytes),
        )
    chore.tell(0.0, "Looking for a Python")
    pip = _make_environment(runtime)
    # Only for the sake of the bar: whatever comes of it, the old one installs as well.
    upgrade = [*pip, "install", "--upgrade", "--quiet", "pip", *pip_options]
    if _pip_version(pip) < _PIP_THAT_COUNTS and _run(upgrade).returncode == 0:
        pip = _pip_of(runtime.python)
    counting = _pip_version(pip) >= _PIP_THAT_COUNTS
    progress = Progress(size.download_bytes)
    command = [*pip, "install", "--cache-dir", str(runtime.cache), "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", "raw" if counting else "off", *pip_options, *requirements]
    for line in _output(command):
        if progress.read(line):
            chore.tell(_DOWNLOAD + progress.fraction * (_CHECK - _DOWNLOAD), progress.text)
    chore.tell(_CHECK, "Checking What Was Installed")
    found = _check(runtime, requirements)
    runtime.set_complete()
    shutil.rmtree(runtime.cache, ignore_errors=True)
    chore.answer({"python": str(runtime.python), "size_bytes": runtime.size_bytes, "versions": found})


def _make_environment(runtime: Runtime) -> list[str]:
    """Make it, or find that it is there; returns the command that starts its pip.

    Raises:
        InstallError: No Python of this machine can do it.
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
        # Without a pip of its own, it is of use to another's only.
        if there is None or there.version != base.version or not base.has_pip:
            chore.tell(_DOWNLOAD / 2, f"Making an Environment with Python {'.'.join(map(str, base.version))}")
            command = [candidate, "-I", "-m", "venv", "--clear", str(runtime.environment)]
            # A pip that is there serves as well as one of the environment's own, and at once.
            command += ["--without-pip"] if base.has_pip else []
            if _run(command).returncode:
                tried.append(candidate)
                continue
        return [*_pip_of(candidate), "--python", str(runtime.python)] if base.has_pip else _pip_of(runtime.python)
    because = f" ({', '.join(tried)}: no pip to begin with)" if tried else ""
    raise UserError(
        "No Python of this machine can make an environment{because}. On Debian and Ubuntu, `sudo apt install "
        "python3-venv` helps; elsewhere, install Python 3.13. Then press Install again.",
        because=because,
    )


@dataclass(frozen=True)
class _Base:
    version: tuple[int, int]
    has_venv: bool
    has_ensurepip: bool
    has_pip: bool


def _candidates() -> Iterator[str]:
    """Blender's own Python, then those that a terminal would find, newest well-tried first."""
    known = {os.path.realpath(sys.executable)}
    yield sys.executable
    for name in ("python3.13", "python3.12", "python3.11", "python3.14", "python3", "python"):
        found = shutil.which(name)
        if found is not None and os.path.realpath(found) not in known:
            known.add(os.path.realpath(found))
            yield found


def _ask(python: str) -> _Base | None:
    try:
        (major, minor), *has = json.loads(_run([python, "-I", "-c", _ASK], limit_s=60).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):  # a stand-in that runs nothing
        return None
    return _Base((major, minor), *has)


def _pip_of(python: str | Path) -> list[str]:
    # -X utf8: what it prints about folders with other letters in their names can be read on Windows, too.
    return [str(python), "-I", "-X", "utf8", "-m", "pip", "--disable-pip-version-check"]


def _pip_version(pip: list[str]) -> tuple[int, ...]:
    found = re.match(r"pip (\d+)\.(\d+)", _run([*pip, "--version"]).stdout)
    return tuple(map(int, found.groups())) if found else ()


def _run(command: list[str], limit_s: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=limit_s, check=False
    )


def _output(command: list[str]) -> Iterator[str]:
    """The lines that pip prints.

    Raises:
        InstallError: It failed; with what it says about that.
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
    if process.returncode:
        what = complaints[-1] if complaints else f"exit status {process.returncode}"
        raise UserError(
            "pip could not install the runtime: {what}. Look after that, and press Install to go on.",
            what=what,
        )


def _check(runtime: Runtime, requirements: Sequence[str]) -> dict[str, str]:
    """Have the new Python look at itself, which loads torch.

    Raises:
        InstallError: It cannot run the torch engine.
    """
    made = environment.from_python(runtime.python)
    report, why = {}, ""
    try:
        # A chore of this chore: it lives as long as its stdin is open, and ends with this process.
        report = chore.Chore(made.run("worker.probe"), made.variables(), "").wait()
    except chore.ChoreFailedError as error:
        why = str(error)
    if requirements == REQUIREMENTS and not report.get("larger"):
        why = (report.get("trouble") or why).rstrip(".")
        raise UserError(
            "The runtime was installed, but torch does not load: {why}. Remove it and try again.",
            why=why,
        )
    return report.get("versions", {})


class Progress:
    """What pip's output says about how far it is.

    Attributes:
        fraction: 0..1 of download and unpacking.
        text: What it is doing.
    """

    def __init__(self, expected_bytes: int) -> None:
        self.fraction, self.text = 0.0, "Asking for the Packages"
        self._expected_bytes = expected_bytes
        self._finished_bytes = self._current_bytes = 0.0
        self._name, self._size_bytes = "", 0.0

    def read(self, line: str) -> bool:
        """Take one line; True when there is news."""
        if counted := re.match(r"Progress (\d+) of (\d+)", line):
            return self._set_current(float(counted[1]), float(counted[2]))
        if asked := re.match(r"\s*(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line):
            self.text = f"Asking for {asked[1]}"
        elif got := re.match(r"\s*(?:Downloading|Using cached) (\S+)(?: \(([\d.]+) ([kMG]?)B\))?", line):
            self._begin(got[1], float(got[2] or 0) * {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}[got[3] or ""])
        elif line.startswith("Installing collected packages"):
            self.fraction = _UNPACK
            self.text = f"Unpacking {line.count(',') + 1} Packages (some Minutes)"
        elif line.startswith("Successfully installed"):
            self.fraction = 1.0
        else:
            return False
        return True

    def _begin(self, file: str, size_bytes: float) -> None:
        """Another file; the one before it is there."""
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
        self.text = f"Downloading {self._name} ({in_words(done_bytes)} of about {in_words(self._expected_bytes)})"
