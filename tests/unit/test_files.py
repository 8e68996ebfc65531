# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic files: whatever fails, the folder holds the old content or the new, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import FolderKind, atomic_file, atomic_path, write_atomically

OLD, NEW = b"old", b"new and longer"
WRITERS = ("write_atomically", "atomic_file", "atomic_path")


def write(kind: str, path: Path) -> None:
    if kind == "write_atomically":
        write_atomically(path, NEW)
    elif kind == "atomic_file":
        with atomic_file(path) as file:
            file.write(NEW)
    else:
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(NEW)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=[None, OLD], ids=["new file", "old file"])
def before(request, tmp_path):
    if request.param:
        (tmp_path / "a.npz").write_bytes(request.param)
    return contents(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_leaves_the_new_content_alone(kind, before, tmp_path):
    write(kind, tmp_path / "a.npz")
    assert contents(tmp_path) == {"a.npz": NEW}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_step_that_fails_leaves_what_was_there(kind, step, before, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UserError, match=r"a\.npz cannot be written \(No space left on device\); choose another folder"):
        write(kind, tmp_path / "a.npz")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("n_bytes", [0, 1, 5])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), r"cannot be written \(No space left on device\)"),
        (OSError("the exporter gave up.\nTraceback"), r"cannot be written \(the exporter gave up\)"),
        (MissingFileError("x.wav: there is no such file."), "^x.wav: there is no such file.$"),
        (RuntimeError("a bug"), "^a bug$"),
        (KeyboardInterrupt("stop"), "^stop$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_block_that_fails_half_way_leaves_what_was_there(n_bytes, error, said, before, tmp_path):
    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match=said), atomic_file(tmp_path / "a.npz") as file:
        file.write(NEW[:n_bytes])
        raise error
    assert contents(tmp_path) == before


def test_a_block_that_writes_nothing_is_a_failure(before, tmp_path):
    with pytest.raises(UserError, match=r"a\.npz cannot be written"), atomic_path(tmp_path / "a.npz"):
        pass
    assert contents(tmp_path) == before


def test_content_is_on_the_disk_before_it_gets_its_name(before, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(("fsync", os.fstat(descriptor).st_size)))
    whole = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: steps.append(("replace", paths[1])) or whole(*paths))
    write_atomically(tmp_path / "a.npz", NEW)
    assert steps == [("fsync", len(NEW)), ("replace", tmp_path / "a.npz")]


def test_folders(tmp_path):
    write_atomically(tmp_path / "one" / "two" / "a", NEW)
    assert (tmp_path / "one" / "two" / "a").read_bytes() == NEW
    for parent in ("none", "one/two/a"):  # absent, and a file
        with pytest.raises(UserError, match="cannot be written"), atomic_file(tmp_path / parent / "b.npz") as file:
            file.write(NEW)
    assert contents(tmp_path / "one" / "two") == {"a": NEW} and [p.name for p in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_command_left_does_not_make_its_folder_foreign(tmp_path):
    kind = FolderKind(made_by="the bench", names=("result.json",))
    kind.claim(tmp_path / "out")
    unfinished = atomic_path(tmp_path / "out" / "result.json")
    unfinished.__enter__().write_bytes(b"half")  # and the process is gone
    kind.claim(tmp_path / "out")
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".json"]
    with pytest.raises(UserError, match="which another did not make"):
        FolderKind(made_by="another", names=("result.json",)).claim(tmp_path / "out")
