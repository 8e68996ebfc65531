# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip has what Blender needs, and the same bytes for the same sources; the version has one place."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = (
    "onnxruntime-1.28.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "onnxruntime-1.28.0-cp313-cp313-manylinux_2_28_x86_64.whl",
    "typing_extensions-4.16.0-py3-none-any.whl",
)

pytest.importorskip("packaging", reason="the packer reads constraints with packaging")


@pytest.fixture(scope="module")
def packer() -> ModuleType:
    """The packer, which is in no package."""
    spec = importlib.util.spec_from_file_location("pack_extension", ROOT / ".ci/pack_extension.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stand_in_wheels(folder: Path, mtime_s: int) -> list[Path]:
    """Write small files with real wheel names; only `nox -s extension` downloads the real ones."""
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
    older = tmp_path / "dist" / f"wav2sem_blender-{version()}-linux_x64.zip"
    older.parent.mkdir()
    older.write_text("older")
    with pytest.raises(ValueError, match=r"linux_x64\.zip has .* MB; at most"):
        packer.build_zip("linux-x64", stand_in_wheels(tmp_path / "wheels", 10**9), older.parent)
    assert [path.read_text() for path in older.parent.iterdir()] == ["older"], "old or new, and nothing beside it"


def version() -> str:
    """The extension's version."""
    return str(tomllib.loads((ROOT / "blender_manifest.toml").read_text())["version"])


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """Wheels that carry no more than what they say of themselves."""
    said = {
        "cffi-2.1.1-cp311-cp311-manylinux_2_17_x86_64.whl": ("cffi", "2.1.1", "License-Expression: MIT-0"),
        "typing_extensions-4.16.0-py3-none-any.whl": ("typing_extensions", "4.16.0", "License-Expression: PSF-2.0"),
        "safetensors-0.8.0-cp38-abi3-manylinux_2_17_x86_64.whl": (
            *("safetensors", "0.8.0"),
            "Classifier: License :: OSI Approved :: Apache Software License",
        ),
    }
    for file, (name, number, licence) in said.items():
        write_wheel(tmp_path / file, f"Name: {name}", f"Version: {number}", licence)
    return sorted(tmp_path.glob("*.whl"))


def test_each_zip_has_its_hash_and_its_bill_of_materials(packer: ModuleType, wheels: list[Path]) -> None:
    zip_path = wheels[0].with_name("it.zip")
    zip_path.write_bytes(b"zip")
    packer.write_papers(zip_path, wheels)
    names = ("it.zip.sha256", "it.zip.cdx.json")
    first = [zip_path.with_name(name).read_bytes() for name in names]
    digest = hashlib.sha256(b"zip").hexdigest()
    assert first[0].decode() == f"{digest}  it.zip\n", "as sha256sum -c reads it"
    bill = json.loads(first[1])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    parts = {part["name"]: part for part in bill["components"]}
    assert set(parts) >= {"cffi", "safetensors", "typing_extensions"}
    assert parts["typing_extensions"]["purl"].startswith("pkg:pypi/typing-extensions@4.16.0?")
    assert parts["cffi"]["licenses"] == [{"license": {"id": "MIT-0"}}]
    assert parts["safetensors"]["licenses"] == [{"license": {"name": "Apache Software License"}}]
    for wheel in wheels:
        (own,) = (part for part in bill["components"] if part["bom-ref"] == wheel.name)
        assert own["hashes"][0]["content"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert set(bill["dependencies"][0]["dependsOn"]) == {part["bom-ref"] for part in bill["components"]}
    packer.write_papers(zip_path, wheels)
    assert [zip_path.with_name(name).read_bytes() for name in names] == first, "the same bytes twice"
    assert all(any(Path(name).match(pattern) for pattern in packer.ZIP_NAMES) for name in names)


@pytest.mark.parametrize(
    "fault, said",
    [(None, ""), ("flipped bit", "is not the file"), ("foreign", "has no such wheel"), ("missing", r"cffi .* missing")],
)
def test_only_wheels_of_known_hashes_are_packed(
    packer: ModuleType, wheels: list[Path], monkeypatch: pytest.MonkeyPatch, fault: str | None, said: str
) -> None:
    monkeypatch.setattr(packer, "CARRIED", ("cffi", "safetensors", "typing_extensions"))
    monkeypatch.setattr(packer, "pinned", lambda name, _platform, _python: f"{name}=={versions[name]}")
    versions = {"cffi": "2.1.1", "safetensors": "0.8.0", "typing_extensions": "4.16.0"}
    platform = packer.Platform(tags=(), sys_platform="linux", machine="x86_64", pythons=("3.11",))
    monkeypatch.setitem(packer.PLATFORMS, "linux-x64", platform)
    known = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    if fault == "flipped bit":
        content = bytearray(wheels[0].read_bytes())
        content[40] ^= 1
        wheels[0].write_bytes(content)
    elif fault == "foreign":
        wheels.append(write_wheel(wheels[0].with_name("requests-2.0-py3-none-any.whl"), "Name: requests"))
    elif fault == "missing":
        del wheels[0]
    with pytest.raises(ValueError, match=said) if fault else nullcontext():
        packer.check_wheels("linux-x64", wheels, known)


def test_the_hashes_are_those_of_the_pins(packer: ModuleType) -> None:
    known = packer.known_hashes()
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known.values())
    pins = {
        packer.pinned(name, platform, python).replace("==", "-")
        for platform in packer.PLATFORMS.values()
        for python in platform.pythons
        for name in packer.CARRIED
    }
    assert {"-".join(name.split("-")[:2]) for name in known} == pins, (
        "run: python .ci/pack_extension.py --update-hashes"
    )


@pytest.fixture
def extension_tool(packer: ModuleType) -> Callable[..., str]:
    """Blender's own extension tool."""
    if packer.blender_ext_script() is None:
        pytest.skip("bpy is not installed; it carries Blender's extension tool")
    return packer.extension_tool


def test_blender_accepts_the_zip(extension_tool: Callable[..., str], packer: ModuleType, archive: Path) -> None:
    packer.validate(archive)


@pytest.mark.parametrize("fault", ["no package", "unknown tag"])
def test_blender_refuses_a_broken_zip(
    extension_tool: Callable[..., str], packer: ModuleType, archive: Path, tmp_path: Path, fault: str
) -> None:
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(archive) as content, zipfile.ZipFile(broken, "w") as target:
        manifest = content.read("blender_manifest.toml").decode()
        if fault == "unknown tag":
            target.writestr("__init__.py", content.read("__init__.py"))
            for name in WHEELS:
                target.writestr(f"wheels/{name}", b"")
            manifest = manifest.replace('"Rigging"', '"Talking"')
        target.writestr("blender_manifest.toml", manifest)
    with pytest.raises(ValueError, match=r"(?s)Blender refuses broken\.zip.*" + ("Talking" if "tag" in fault else "")):
        packer.validate(broken)


@pytest.fixture
def repository(
    packer: ModuleType, extension_tool: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder like dist/ after `nox -s extension`: two platforms' zips, without the model, and the index."""
    files = {name: path for name, path in packer.package_files().items() if not name.startswith("assets/")}
    monkeypatch.setattr(packer, "package_files", lambda: files)
    folder = tmp_path / "dist"
    wheels = stand_in_wheels(tmp_path / "wheels", 10**9)
    for platform in ("windows-x64", "linux-x64"):
        packer.build_zip(platform, wheels, folder)
    packer.write_index(folder)
    return folder


def test_the_index_lists_every_zip_with_its_hash_platform_and_pythons(repository: Path) -> None:
    listed = json.loads((repository / "index.json").read_text())
    assert listed["version"] == "v1" and listed["blocklist"] == []
    assert [entry["platforms"] for entry in listed["data"]] == [["linux-x64"], ["windows-x64"]]
    for entry in listed["data"]:
        content = (repository / entry["archive_url"]).read_bytes()
        assert entry["archive_size"] == len(content)
        assert entry["archive_hash"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert entry["python_versions"] == ["3.11", "3.13"], "the Pythons of the stand-in wheels"
    assert 'href="./wav2sem_blender-' in (repository / "index.html").read_text()


def test_two_versions_for_one_platform_are_no_repository(packer: ModuleType, repository: Path) -> None:
    linux = next(repository.glob("*linux*.zip"))
    shutil.copy(linux, linux.with_name("older.zip"))
    with pytest.raises(ValueError, match="two zips for one platform"):
        packer.write_index(repository)


def test_a_file_that_blender_cannot_list_is_no_repository(packer: ModuleType, repository: Path) -> None:
    with zipfile.ZipFile(repository / "other.zip", "w") as other:
        other.writestr("readme.txt", "no extension")
    with pytest.raises(ValueError, match="Blender lists"):
        packer.write_index(repository)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the local address; yields the URL."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_blender_subscribes_and_installs_from_the_repository(
    extension_tool: Callable[..., str], sessions: ModuleType, repository: Path, tmp_path: Path, scheme: str
) -> None:
    host = sessions.host_platform()
    if host not in ("linux-x64", "windows-x64"):
        pytest.skip(f"the repository of this test has no zip for {host}")
    local = tmp_path / "local"
    local.mkdir()
    with served(repository) if scheme == "http" else nullcontext(repository.as_uri()) as url:
        place = ("--local-dir", str(local), "--remote-url", f"{url}/index.json")
        extension_tool("sync", *place)
        chosen = ("--blender-version", "5.2.0", "--python-version", "3.13.0", "--local-cache", "0")
        extension_tool("install", *place, *chosen, "wav2sem_blender")
    installed = tomllib.loads((local / "wav2sem_blender" / "blender_manifest.toml").read_text())
    assert installed["platforms"] == [host]
    assert (local / "wav2sem_blender" / "__init__.py").is_file()


def test_blender_refuses_the_repository_for_a_python_without_wheels(
    extension_tool: Callable[..., str], repository: Path, tmp_path: Path
) -> None:
    place = ("--local-dir", str(tmp_path), "--remote-url", f"{repository.as_uri()}/index.json")
    extension_tool("sync", *place)
    chosen = ("--blender-version", "5.2.0", "--python-version", "3.12.0", "--local-cache", "0")
    with pytest.raises(ValueError, match="found but not compatible with this system"):
        extension_tool("install", *place, *chosen, "wav2sem_blender")


def write_wheel(path: Path, *lines: str) -> Path:
    """Write a wheel that has only these lines of metadata."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("some-1.0.dist-info/METADATA", "\n".join(["Metadata-Version: 2.4", *lines, "", "Text"]))
    return path


@pytest.mark.parametrize(
    "line, licence",
    [
        ("License-Expression: LGPL-2.1-or-later", "LGPL-2.1-or-later"),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache Software License"),
    ],
)
def test_a_wheels_licence_is_read_from_it(packer: ModuleType, tmp_path: Path, line: str, licence: str) -> None:
    wheel = write_wheel(tmp_path / "some.whl", "Classifier: Topic :: Multimedia", line)
    assert packer.licence_of(wheel) == licence


@pytest.mark.parametrize("line", ["License-Expression: LicenseRef-Proprietary", "Keywords: sound"])
def test_a_wheel_whose_licence_may_not_fit_the_gpl_is_refused(packer: ModuleType, tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"some\.whl declares the licence"):
        packer.licence_of(write_wheel(tmp_path / "some.whl", line))


@pytest.mark.parametrize(
    "platform, python, expected",
    [
        ("linux-x64", "3.11", "onnxruntime==1.28.0"),
        ("windows-x64", "3.13", "onnxruntime==1.28.0"),
        ("macos-arm64", "3.13", "onnxruntime==1.28.0"),
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
    """extensions.blender.org refuses other lengths and punctuation."""
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    for text in (manifest["tagline"], *manifest["permissions"].values()):
        assert len(text) <= 64 and text[-1].isalnum()
    assert set(manifest["permissions"]) <= {"files", "network", "clipboard", "camera", "microphone"}


def test_the_pinned_versions_lie_in_the_ranges() -> None:
    """The sessions could not install a pin outside pyproject's range."""
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
    for name in ("demo", "tests", "lint", "extension", "blender", "bench", "farm", "gui"):
        assert callable(getattr(sessions, name)) and f"`nox -s {name}`" in readme


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
def test_an_interpreter_must_answer_for_itself(
    sessions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pyenv shim exists for versions that it refuses to run; the real interpreter is in pyenv's folder."""
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
