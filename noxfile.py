# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the project: `nox -s demo`, `tests`, `blender`, `gui`, `extension`, `bench`, `farm`, `fuzz`, `lint`.

Each session makes its own environment below `.nox/` from the pins in constraints.txt, with uv if it is installed, else
with virtualenv and pip. `nox -R -s NAME` runs again without installing. Arguments after `--` go to the command inside:
`nox -s tests -- -k audio`, `nox -s bench -- --short`.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
# tests/versions.py writes here; docs/versions.md is made from it.
RECORDS = {"WAV2SEM_VERSIONS": str(ROOT / "out" / "versions")}
# The only Pythons with a wheel of Blender's module.
PYTHONS = ("3.11", "3.13")


@functools.cache
def find_python(version: str) -> str | None:
    """Return the path of a CPython `version` ("3.11"), or None. Tries the one that runs nox, then PATH, then pyenv.

    Each candidate is run, because a pyenv shim exists for every installed version but works only for the selected ones.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [sys.executable, shutil.which(f"python{version}"), shutil.which("python3")]
    candidates += sorted((str(p) for p in pyenv.glob(f"{version}*/bin/python")), reverse=True)
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False)
        if answer.stdout.split() == [version, "cpython"]:
            return candidate
    return None


def nox_python(version: str) -> str | None:
    """Return `version` if nox can find it itself, else the path of the interpreter, else None."""
    path = find_python(version)
    found_by_nox = path is not None and path in (sys.executable, shutil.which(f"python{version}"))
    return version if found_by_nox else path


OWN = "{}.{}".format(*sys.version_info)
# None means the Python that runs nox. If Blender's module does not exist for it, take the newest supported one.
PYTHON = None if OWN in PYTHONS else next(filter(None, map(nox_python, reversed(PYTHONS))), None)


def require_supported_python(session: nox.Session) -> None:
    """Stop with a remedy if no Python with a wheel of Blender's module was found."""
    if OWN not in PYTHONS and PYTHON is None:
        session.error(
            f"Blender's module exists for Python {' and '.join(PYTHONS)}; nox runs on {OWN} and found neither. "
            f"Install one, then: python3.11 -m pip install nox && python3.11 -m nox -s {session.name}"
        )


def install_project(session: nox.Session, extras: str) -> None:
    """Install the project in place with `extras` ("onnx,bpy") and the pinned versions."""
    session.install("--constraint", str(CONSTRAINTS), "--editable", f".[{extras}]")


def full_python() -> str | None:
    """Return the interpreter of the session `full`, which has torch, or None if that session has not run."""
    found = [
        path for pattern in ("full*/bin/python", "full*/Scripts/python.exe") for path in (ROOT / ".nox").glob(pattern)
    ]
    return str(max(found, key=lambda path: path.lstat().st_mtime)) if found else None


def existing_tests(*folders: str) -> list[str]:
    """Return the folders below tests/ that have tests; pytest fails on one without."""
    return [f"tests/{folder}" for folder in folders if any((ROOT / "tests" / folder).glob("test_*.py"))]


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """Animate the demo head from the demo speech, without torch: out/demo/."""
    require_supported_python(session)
    install_project(session, "onnx,bpy")
    session.run("python", "-m", "wav2sem_blender.blender.demo", *session.posargs)


@nox.session(python=PYTHON, reuse_venv=True, default=False)
def full(session: nox.Session) -> None:
    """Make the environment that `tests` and `bench` share; with torch it takes several GB."""
    require_supported_python(session)
    install_project(session, "onnx,torch,train,bpy,dev")


@nox.session(python=False, requires=["full"])
def tests(session: nox.Session) -> None:
    """Run every test that needs no installed extension; arguments after -- go to pytest."""
    arguments = session.posargs or existing_tests("unit", "worker", "trainer", "blender", "fuzz")
    # Small tensors gain nothing from threads, and on a busy machine threads wait for each other.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    session.run(full_python(), "-m", "pytest", *arguments, env=threads)


@nox.session(python=PYTHON, default=False)
def farm(session: nox.Session) -> None:
    """Run a batch on the engines of many machines: Open Job Description and Dask, each losing a part in the middle."""
    require_supported_python(session)
    install_project(session, "onnx,farm")
    session.install("--constraint", str(CONSTRAINTS), "pytest")
    session.run("python", "-m", "pytest", "tests/unit/test_batch_farms.py", *session.posargs)


@nox.session(python=False, requires=["full"], default=False)
def fuzz(session: nox.Session) -> None:
    """Read damaged files for an hour, or as `-- --seconds S TARGET …` says; failed cases go to out/fuzz/."""
    session.run(full_python(), "-m", "tests.fuzz", *session.posargs)


@nox.session(python=False, requires=["full"])
def bench(session: nox.Session) -> None:
    """Measure the ratios of docs/performance.md (a table, out/bench.json); -- --short takes under 3 minutes."""
    session.run(full_python(), "tests/bench", *session.posargs)


@nox.session(python=PYTHON)
def extension(session: nox.Session) -> None:
    """Build one zip per platform in dist/, validate them with Blender's own tool, and write a repository's index."""
    require_supported_python(session)
    session.install("--constraint", str(CONSTRAINTS), "bpy", "packaging", "pip")
    session.run("python", ".ci/pack_extension.py", "--validate", "--index", *session.posargs)


def blender_matrix() -> list[tuple[str, str]]:
    """Return (bpy version, Python version) of every supported Blender, from constraints.txt."""
    pattern = r'^(?:#matrix )?bpy==(\S+); python_version (<|>=) "3\.13"$'
    lines = re.findall(pattern, CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted((bpy, PYTHONS[0] if comparison == "<" else PYTHONS[1]) for bpy, comparison in lines)


def constraints_without_bpy(session: nox.Session) -> str:
    """Write the pins without bpy, which the matrix sets, and return the file."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    path = Path(session.create_tmp()) / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not line.startswith("bpy==")), encoding="utf-8")
    return str(path)


def host_platform() -> str:
    """Return Blender's name for this platform, such as "linux-x64"."""
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    return f"{system}-{'arm64' if platform.machine().lower() in ('arm64', 'aarch64') else 'x64'}"


@nox.session
@nox.parametrize(
    "bpy,python", [nox.param(bpy, nox_python(python) or False, id=f"bpy-{bpy}") for bpy, python in blender_matrix()]
)
def blender(session: nox.Session, bpy: str) -> None:
    """Install the extension's zip in one Blender of the support matrix and animate, without torch."""
    if session.python is False:
        needed = dict(blender_matrix())[bpy]
        session.skip(f"SKIPPED: bpy {bpy} needs Python {needed}, which is neither on PATH nor in pyenv")
    pins = constraints_without_bpy(session)
    session.install("--constraint", pins, f"bpy=={bpy}", "packaging", "pip", "pytest")
    session.run("python", "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is not None)")
    folder = Path(session.create_tmp()).resolve()
    for leftover in folder.glob("user*"):
        shutil.rmtree(leftover)
    zips = folder / "zips"
    session.run("python", ".ci/pack_extension.py", "--platform", host_platform(), "--output", str(zips))
    archive = next(zips.glob("*.zip"))
    # First the zip, in an environment without its libraries, which an earlier run may have installed.
    wheels = ROOT / ".wheels" / host_platform()
    names = sorted({wheel.name.partition("-")[0] for wheel in wheels.glob("*.whl")})
    pip = ("python", "-m", "pip", "--quiet")
    session.run(*pip, "uninstall", "--yes", *names, silent=True)
    script = "tests/blender/installed_extension.py"
    session.run("python", script, str(archive), env={"BLENDER_USER_RESOURCES": str(folder / "user"), **RECORDS})
    if (torch_python := full_python()) and bpy == dict(map(reversed, blender_matrix()))[PYTHONS[0]]:
        # One run with the worker in the environment that has torch.
        user = {"BLENDER_USER_RESOURCES": str(folder / "user_torch")}
        session.run("python", script, str(archive), "--worker-python", torch_python, env=user)
    # Then the tests, on the checkout, with the same wheels installed.
    if folders := existing_tests("blender"):
        session.run(*pip, "install", "--no-index", "--no-deps", "--find-links", str(wheels), *names)
        session.run("python", "-m", "pytest", *folders, env=RECORDS)


@nox.session(python=PYTHON)
def gui(session: nox.Session) -> None:
    """Drive the add-on in a real Blender window (pictures: out/gui/), install from a repository, run tests/blender.

    Arguments after -- choose scenarios (tests/gui/scenarios*.py) and "repository", and leave out tests/blender.
    """
    require_supported_python(session)
    session.install("--constraint", str(CONSTRAINTS), "packaging", "pip", "pytest", "pytest-blender")
    everything = not session.posargs
    scenarios = [name for name in session.posargs if name != "repository"]
    if everything or scenarios:
        session.run("python", "tests/gui/run.py", *scenarios, env=RECORDS if everything else {})
    if everything or "repository" in session.posargs:
        session.run("python", "tests/gui/repository.py", env=RECORDS)
    if everything:
        session.run("python", "tests/gui/suite.py", env=RECORDS)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style, layering (the nested ruff.toml files) and types."""
    session.install("--constraint", str(CONSTRAINTS), "ruff", "mypy", "numpy", "fake-bpy-module-5.0")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
