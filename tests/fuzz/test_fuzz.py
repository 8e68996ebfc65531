# SPDX-License-Identifier: GPL-3.0-or-later
"""A few seconds of each fuzzer, and its corpus: what once crashed, hung, took all memory or had no sentence.

`nox -s fuzz` goes on for an hour. WAV2SEM_FUZZ_SECONDS is what each target gets here.
"""

from __future__ import annotations

import os
import random
from importlib.util import find_spec
from pathlib import Path

import pytest

from . import mutate, seeds, supervisor, targets  # noqa: TID252

SECONDS = float(os.environ.get("WAV2SEM_FUZZ_SECONDS", "2"))
KEPT = sorted(path.name for path in seeds.CORPUS.iterdir() if path.name in targets.TARGETS)


def _skip_without(target: str) -> None:
    needs = targets.TARGETS[target].needs
    if needs and find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")


@pytest.mark.parametrize("target", targets.TARGETS)
def test_damaged_files_are_read_or_refused_with_a_sentence(target: str) -> None:
    _skip_without(target)
    report = supervisor.run(target, seed=0, seconds=SECONDS)
    assert not report.failures, supervisor.shown(report)
    assert report.n_cases > 0


@pytest.mark.parametrize("target", KEPT)
def test_what_once_failed_does_not(target: str) -> None:
    _skip_without(target)
    files = sorted((seeds.CORPUS / target).iterdir())
    if find_spec("torch") is None:
        files = [file for file in files if file.suffix != ".pth"]
    report = supervisor.replay(target, files)
    assert not report.failures, supervisor.shown(report)


def test_large_files_of_nothing_are_walked_in_no_time(tmp_path: Path) -> None:
    """Each took minutes: headers without end, a checksum at every byte, and a search of the whole file at every tag."""
    _skip_without("sounds")
    wav = next(content for name, content in seeds.sounds().items() if name.startswith("WAV_PCM_16_1"))
    mp3 = seeds.sounds()["MP3_MPEG_LAYER_III_1.mp3"][:400]
    contents = {
        "chunks.wav": b"RIFF\xff\xff\xff\xffWAVE" + bytes(20_000_000),
        "wavs.wav": wav * 1500,
        "pages.ogg": (b"OggS" + bytes(22) + b"\xff" * 40) * 100_000,
        "tags.mp3": (mp3 + b"LYRICSBEGIN") * 20_000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    report = supervisor.replay("sounds", [tmp_path / name for name in contents])
    assert not report.failures, supervisor.shown(report)


def test_a_case_is_the_same_everywhere() -> None:
    content, other = bytes(range(256)) * 4, b"other" * 50
    first, second = (mutate.damaged(content, other, random.Random("0 sounds 7")) for _ in range(2))
    assert first == second != content
    assert mutate.damaged_json({"a": [1, "b"]}, random.Random(3)) == mutate.damaged_json(
        {"a": [1, "b"]}, random.Random(3)
    )


FAULTS = {
    "exception": "raise ZeroDivisionError",
    "crash": "import os; os.abort()",
    "hang": "import time; time.sleep(60)",
    "memory": f"b'x' * {targets.MEMORY_BYTES + (64 << 20)}",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_and_the_cases_go_on(kind: str, monkeypatch, tmp_path: Path) -> None:
    """The fuzzer can fail: case 2 has a fault."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(supervisor.ROOT)!r})\n"
        "from tests.fuzz import targets\n"
        "def read(path):\n"
        "    if path.read_text() == '2':\n"
        f"        {FAULTS[kind]}\n"
        "def make(folder, chance, numbers=iter(range(-1, 99))):\n"
        "    (folder / 'a').write_text(str(next(numbers)))\n"
        "    return folder / 'a'\n"
        "targets.TARGETS['mappings'] = targets.Target(make, read)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if kind == "hang":
        monkeypatch.setattr(supervisor, "HANG_S", 0.3)
    report = supervisor.run("mappings", seed=0, seconds=60, last=5)
    assert [failure.kind for failure in report.failures][:1] == [kind]
    assert report.failures[0].number == 2 and report.next == 5
