# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed process leaves is removed at the next start; what a living one uses is not, and nobody else's ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wav2sem_blender import files, leftovers
from wav2sem_blender.files import atomic_file, atomic_path, recover_folder, replaced_folder

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows tells by age alone")

WRITERS = {
    "file": "from wav2sem_blender.files import atomic_file as w\n"
    "with w(p / 'a.npz') as f:\n f.write(b'half'); f.flush(); stop()",
    "folder": "from wav2sem_blender.files import replaced_folder as w\n"
    "with w(p / 'model', 'a test', lambda _: ('c',), 'c') as n:\n (n / 'c').write_bytes(b'half'); stop()",
    "task": "from wav2sem_blender.leftovers import MadeFolder as w\n"
    "f = w('wav2sem_task_', p)\n(f.path / 'x').touch(); stop()",
    "aside": "import os, wav2sem_blender.files as w\nw.exchange = lambda a, b: False\nreal = type(p).rename\n"
    "def rename(a, b):\n if a.name == 'new': stop()\n return real(a, b)\n"
    "type(p).rename = rename\n"
    "with w.replaced_folder(p / 'model', 'a test', lambda _: ('c',), 'c') as n:\n (n / 'c').write_bytes(b'new')",
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a process that has cleared nothing yet, some time later."""
    monkeypatch.setattr(leftovers, "_cleared", set())
    monkeypatch.setattr(leftovers, "_YOUNG_S", 0.0)


def start(kind: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that stops in the middle."""
    code = (
        "import sys, time, pathlib\np = pathlib.Path(sys.argv[1])\n"
        f"def stop():\n print(flush=True); time.sleep(60)\n{WRITERS[kind]}"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline()
    return process


def kill(process: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> None:
    process.send_signal(how)
    process.wait()


def next_start(kind: str, folder: Path) -> None:
    """The same work, done."""
    if kind == "file":
        with atomic_file(folder / "a.npz") as file:
            file.write(b"whole")
    elif kind == "task":
        leftovers.MadeFolder("wav2sem_task_", folder).remove()
    else:
        with replaced_folder(folder / "model", "a test", lambda _folder: ("c",), "c") as new:
            (new / "c").write_bytes(b"whole")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["file", "folder", "task"])
def test_what_a_killed_process_left_is_gone_after_the_next(kind, how, tmp_path):
    process = start(kind, tmp_path)
    (left,) = names(tmp_path)
    kill(process, how)
    assert names(tmp_path) == [left]
    next_start(kind, tmp_path)
    assert names(tmp_path) == {"file": ["a.npz"], "folder": ["model"], "task": []}[kind]


@pytest.mark.parametrize("kind", ["file", "folder", "task"])
def test_what_a_living_process_writes_is_left_alone(kind, tmp_path):
    process = start(kind, tmp_path)
    try:
        (used,) = names(tmp_path)
        next_start(kind, tmp_path)
        assert used in names(tmp_path)
    finally:
        kill(process)


def test_young_things_are_left_alone(tmp_path, monkeypatch):
    kill(start("file", tmp_path))
    monkeypatch.setattr(leftovers, "_YOUNG_S", 10.0)
    next_start("file", tmp_path)
    assert len(names(tmp_path)) == 2
    monkeypatch.setattr(leftovers, "_cleared", set())
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 11,) * 2)
    next_start("file", tmp_path)
    assert names(tmp_path) == ["a.npz"]


def test_what_an_exporter_writes_by_its_name_is_left_for_a_day(tmp_path, monkeypatch):
    """It has no lock: the exporter may write a new file in its place."""
    unfinished = atomic_path(tmp_path / "a.abc")
    left = unfinished.__enter__()
    left.write_bytes(b"half")
    for age_s, stays in ((3600, True), (90_000, False)):
        monkeypatch.setattr(leftovers, "_cleared", set())
        os.utime(left, (time.time() - age_s,) * 2)
        next_start("file", tmp_path)
        assert left.exists() == stays


def test_nobody_elses_files_are_touched(tmp_path):
    others = [".a.tmp", ".a.12345678.tmp~", "a.12345678.tmp.npz", ".a.1234567g.tmp.npz", ".12345678.tmp", ".hidden"]
    for name in others:
        (tmp_path / name).write_text("theirs")
    for name in (".model-12345678", ".model-backup_1", ".model-old"):
        (tmp_path / name / "old").mkdir(parents=True)
        (tmp_path / name / "notes").touch()
    (tmp_path / ".b.12345678.tmp").symlink_to(tmp_path / ".hidden")
    before = names(tmp_path)
    next_start("file", tmp_path)
    next_start("folder", tmp_path)
    assert names(tmp_path) == sorted([*before, "a.npz", "model"])


def model(folder: Path, content: bytes) -> None:
    with replaced_folder(folder / "model", "a test", lambda _folder: ("c",), "c") as new:
        (new / "c").write_bytes(content)


def test_a_folder_and_its_new_content_change_places_in_one_step(tmp_path, monkeypatch):
    if not files.exchange(*(tmp_path / name for name in "ab")) and sys.platform not in ("linux", "darwin"):
        pytest.skip("this system cannot do that")
    model(tmp_path, b"old")
    seen = []
    real = files.exchange

    def watched(one, other):
        seen.append((one / "c").read_bytes())
        assert real(one, other)
        seen.append((one / "c").read_bytes())
        return True

    monkeypatch.setattr(files, "exchange", watched)
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("two steps"))
    model(tmp_path, b"new")
    assert seen == [b"new", b"old"] and (tmp_path / "model" / "c").read_bytes() == b"new"
    assert names(tmp_path) == ["model"]


def test_folders_that_cannot_be_exchanged_are_as_they_were(tmp_path):
    (tmp_path / "a").mkdir()
    assert not files.exchange(tmp_path / "a", tmp_path / "b") and names(tmp_path) == ["a"]


def test_a_folder_that_was_moved_aside_by_a_killed_process_comes_back(tmp_path):
    """Where the system cannot exchange folders: the process dies between the two steps."""
    model(tmp_path, b"old")
    process = start("aside", tmp_path)
    try:
        assert not (tmp_path / "model").exists()
        recover_folder(tmp_path / "model")
        assert not (tmp_path / "model").exists(), "the process lives, and is about to move the new one there"
    finally:
        kill(process)
    recover_folder(tmp_path / "model")
    assert (tmp_path / "model" / "c").read_bytes() == b"old"
    leftovers._cleared.clear()
    model(tmp_path, b"newer")
    assert (tmp_path / "model" / "c").read_bytes() == b"newer" and names(tmp_path) == ["model"]


def test_the_only_copy_is_never_cleared(tmp_path, monkeypatch):
    model(tmp_path, b"old")
    kill(start("aside", tmp_path))
    monkeypatch.setattr(files, "recover_folder", lambda _folder: None)
    model(tmp_path, b"new")
    kept = [path for path in tmp_path.iterdir() if path.name != "model"]
    assert [(path / "old" / "c").read_bytes() for path in kept] == [b"old"]


def test_opening_a_model_brings_it_back(tmp_path):
    from wav2sem_blender.assets import DEFAULT_MODEL
    from wav2sem_blender.pipeline import checkpoint

    (tmp_path / ".model-abcd1234").mkdir()
    shutil.copytree(DEFAULT_MODEL, tmp_path / ".model-abcd1234" / "old")
    assert checkpoint.open_folder(tmp_path / "model").path == tmp_path / "model"
    assert (tmp_path / "model" / checkpoint.CONFIG_FILE).is_file()


def test_disks_without_locks_tell_by_age(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    kill(start("file", tmp_path))

    def no_locks(*_arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for age_s, n_files in ((3600, 2), (90_000, 1)):
        monkeypatch.setattr(leftovers, "_cleared", set())
        for path in tmp_path.iterdir():
            os.utime(path, (time.time() - age_s,) * 2)
        next_start("file", tmp_path)
        assert len(names(tmp_path)) == n_files
