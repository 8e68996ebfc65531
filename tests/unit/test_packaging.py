# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip is the same bytes for the same sources and holds what Blender needs; the version has one place."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = (
    "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    "onnxruntime-1.31.1-cp313-cp313-manylinux_2_28_x86_64.whl",
    "typing_extensions-4.16.0-py3-none-any.whl",
)

pytest.importorskip("packaging", reason="the packer reads constraints with packaging")


@pytest.fixture(scope="module")
def packer() -> ModuleType:
    """The packer, which lies outside every package."""
    spec = importlib.util.spec_from_file_location("pack_extension", ROOT / ".ci/pack_extension.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stand_in_wheels(folder: Path, mtime_s: int) -> list[Path]:
    """Write small files under real wheel names; the real ones are downloaded by `nox -s extension` only."""
    folder.mkdir()
    for name in WHEELS:
        (folder / name).write_bytes(name.encode() * 10)
        os.utime(folder / name, (mtime_s, mtime_s))
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def archive(packer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Linux zip with stand-in wheels."""
    folder = tmp_path_factory.mktemp("zip")
    return packer.build_zip("linux-x64", stand_in_wheels(folder / "wheels", 10**9), folder)


def test_two_builds_give_the_same_bytes(packer: ModuleType, archive: Path, tmp_path: Path) -> None:
    wheels = stand_in_wheels(tmp_path / "other", 15 * 10**8)
    again = packer.build_zip("linux-x64", wheels, tmp_path)
    assert again.read_bytes() == archive.read_bytes()


def test_zip_lists_its_wheels_and_its_platform(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        manifest = tomllib.loads(content.read("blender_manifest.toml").decode())
        names = content.namelist()
    assert manifest["platforms"] == ["linux-x64"]
    assert manifest["wheels"] == [f"./wheels/{name}" for name in sorted(WHEELS)]
    assert [name for name in names if name.startswith("wheels/")] == [f"wheels/{name}" for name in sorted(WHEELS)]
    source = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    assert {key: manifest[key] for key in source} == source


def test_zip_holds_the_package_at_its_root_and_nothing_hidden(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        names = [entry.filename for entry in entries]
    assert {"__init__.py", "blender_manifest.toml", "LICENSE", "LICENSE-weights", "pipeline/motion.py"} <= set(names)
    assert names == sorted(set(names))
    parts = [part for name in names for part in name.split("/")]
    assert not [part for part in parts if part.startswith(".") or part == "__pycache__" or part == "ruff.toml"]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_zip_carries_every_asset_of_the_package(archive: Path) -> None:
    assets = {p.relative_to(ROOT / "wav2sem_blender").as_posix() for p in ROOT.glob("wav2sem_blender/assets/**/*.*")}
    with zipfile.ZipFile(archive) as content:
        missing = {name for name in assets if "__pycache__" not in name} - set(content.namelist())
    assert missing == set()


def test_too_large_a_zip_is_refused(packer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "MAX_ZIP_BYTES", 1000)
    with pytest.raises(ValueError, match=r"linux_x64\.zip has .* MB; at most"):
        packer.build_zip("linux-x64", stand_in_wheels(tmp_path / "wheels", 10**9), tmp_path)


def test_blender_accepts_the_zip(packer: ModuleType, archive: Path) -> None:
    if packer.blender_ext_script() is None:
        pytest.skip("bpy is not installed; it carries Blender's extension tool")
    packer.validate(archive)


def test_blender_refuses_a_zip_without_the_package(packer: ModuleType, archive: Path, tmp_path: Path) -> None:
    if packer.blender_ext_script() is None:
        pytest.skip("bpy is not installed; it carries Blender's extension tool")
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(archive) as content, zipfile.ZipFile(broken, "w") as target:
        target.writestr("blender_manifest.toml", content.read("blender_manifest.toml"))
    with pytest.raises(ValueError, match="Blender refuses broken.zip"):
        packer.validate(broken)


@pytest.mark.parametrize(
    "platform, python, expected",
    [
        ("linux-x64", "3.11", "onnxruntime==1.31.1"),
        ("windows-x64", "3.13", "onnxruntime==1.31.1"),
        ("macos-arm64", "3.13", "onnxruntime==1.31.1"),
        ("macos-x64", "3.11", "onnxruntime==1.23.2"),
    ],
)
def test_markers_are_read_for_the_target_not_for_this_machine(
    packer: ModuleType, platform: str, python: str, expected: str
) -> None:
    assert packer.pinned("onnxruntime", packer.PLATFORMS[platform], python) == expected


def test_every_carried_library_is_pinned_for_every_platform(packer: ModuleType) -> None:
    for platform in packer.PLATFORMS.values():
        for python in platform.pythons:
            for name in packer.CARRIED:
                assert re.fullmatch(rf"{name}==[\d.]+", packer.pinned(name, platform, python))
    with pytest.raises(ValueError, match="pins no antigravity"):
        packer.pinned("antigravity", packer.PLATFORMS["linux-x64"], "3.11")


def test_the_version_has_one_place() -> None:
    version = tomllib.loads((ROOT / "blender_manifest.toml").read_text())["version"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    found = re.search(
        project["tool"]["hatch"]["version"]["pattern"], (ROOT / "blender_manifest.toml").read_text(), re.M
    )
    assert found is not None and found["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_manifest_keeps_blenders_limits() -> None:
    """Lengths and punctuation that extensions.blender.org refuses."""
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    for text in (manifest["tagline"], *manifest["permissions"].values()):
        assert len(text) <= 64 and text[-1].isalnum()
    assert set(manifest["permissions"]) <= {"files", "network", "clipboard", "camera", "microphone"}


def test_the_pinned_versions_lie_in_the_ranges() -> None:
    """A pin outside pyproject's range could not be installed by the sessions."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    ranges = {r.name: r.specifier for r in (Requirement(text) for group in groups for text in group)}
    ranges.pop("wav2sem-blender")
    outside = [pin for pin in pins if pin.name in ranges and not ranges[pin.name].contains(str(pin.specifier)[2:])]
    assert outside == []
    assert set(ranges) <= {pin.name for pin in pins}


@pytest.fixture(scope="module")
def sessions() -> ModuleType:
    """The noxfile as a module."""
    pytest.importorskip("nox", reason="the noxfile needs nox")
    spec = importlib.util.spec_from_file_location("project_noxfile", ROOT / "noxfile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_support_matrix_is_the_manifests_and_the_readmes(sessions: ModuleType) -> None:
    matrix = [(bpy.rpartition(".")[0], python) for bpy, python in sessions.blender_matrix()]
    assert matrix == [("4.5", "3.11"), ("5.0", "3.11"), ("5.1", "3.13"), ("5.2", "3.13")]
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    assert manifest["blender_version_min"].startswith(matrix[0][0])
    assert "Blender 4.5 LTS, 5.0, 5.1 and 5.2 LTS" in (ROOT / "README.md").read_text()


def test_the_readme_explains_every_session(sessions: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("demo", "tests", "lint", "extension", "blender", "bench", "gui"):
        assert callable(getattr(sessions, name)) and f"`nox -s {name}`" in readme


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
def test_an_interpreter_must_answer_for_itself(
    sessions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pyenv shim exists for versions that it then refuses to run; a real one lies in pyenv's own folder."""
    own = "{}.{}".format(*sys.version_info)
    shims, versions = tmp_path / "shims", tmp_path / "versions" / "3.99.1" / "bin"
    for folder, answer in ((shims, "exit 127"), (versions, "echo 3.99 cpython")):
        folder.mkdir(parents=True)
        script = folder / ("python3.99" if folder == shims else "python")
        script.write_text(f"#!/bin/sh\n{answer}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(shims), prepend=os.pathsep)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "empty"))
    assert sessions.find_python("3.99") is None and sessions.nox_python("3.99") is None
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    sessions.find_python.cache_clear()
    assert sessions.find_python("3.99") == str(versions / "python")
    assert sessions.nox_python("3.99") == str(versions / "python")
    assert sessions.find_python(own) == sys.executable and sessions.nox_python(own) == own
    sessions.find_python.cache_clear()
