# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes share the work before the first step through files: none waits in a barrier, none does it twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402
from trainer.datasets import librispeech  # noqa: E402
from trainer.datasets.librispeech import LibriSpeech  # noqa: E402
from trainer.runs import sharing  # noqa: E402
from trainer.runs.sharing import divide  # noqa: E402

ROOT = Path(__file__).parents[2]
N_UTTERANCES = 30_000  # LibriSpeech's 960 hours have 281,241, and what is measured here grows with their number

# Makes the vectors of six parts, two seconds each, then meets the other processes in a barrier of three seconds.
VECTORS = """
import datetime, os, sys, time
from pathlib import Path
import numpy as np
import torch.distributed as dist
from trainer.speech import sentences

n_processes = int(os.environ.get("WORLD_SIZE", "1"))
if n_processes > 1:
    dist.init_process_group("gloo")
    dist.barrier()  # both are there
    impatient = dist.new_group(timeout=datetime.timedelta(seconds=3))
made = []

def slow(texts):
    time.sleep(2)
    made.append(len(texts))
    return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

sentences.PART_TEXTS = 2
sentences._embedder = lambda *arguments: slow
texts = [chr(97 + i) * (i % 5 + 1) for i in range(12)]
targets = sentences.TextTargets(texts, "text model", cache=Path(sys.argv[1]))
assert targets(texts).tolist() == [[len(text), ord(text[0])] for text in texts]
if n_processes > 1:
    dist.barrier(group=impatient)
print(f"MADE {len(made)}", flush=True)
"""
LISTING = """
import json, resource, sys, time
from trainer.datasets import librispeech
from pathlib import Path
opened = []
librispeech._n_samples = lambda path: opened.append(path) or 200_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
speech = librispeech.LibriSpeech(Path(sys.argv[1]))
found = [(record.name, record.text, record.split) for record in (speech.records[0], speech.records[-1])]
grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"opened": len(opened), "records": len(speech.records), "found": found, "grown_mb": grown_mb}))
"""


def start(code: str, *arguments: object, processes: int = 0, **variables: object) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in variables.items()}
    command = [sys.executable, *launcher, *map(str, (code, *arguments))]
    return subprocess.Popen(command, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen) -> str:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said[-3000:]
    return said


def parts_in(cache: Path) -> list[Path]:
    """The finished parts."""
    return [path for path in cache.glob("*.parts/*.npy") if not path.name.startswith(".")]


def test_each_piece_is_made_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sharing, "POLL_S", 0.01)
    pieces = [tmp_path / "new" / str(i) for i in range(5)]
    made = []
    for _ in range(2):
        divide(pieces, lambda piece: made.append(piece) or piece.write_text("whole"))
    assert made == pieces
    assert sorted((tmp_path / "new").iterdir()) == pieces, "no lock is left"


def test_an_error_leaves_no_lock_and_the_piece_to_others(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        divide([tmp_path / "piece"], lambda piece: 1 / 0)
    assert list(tmp_path.iterdir()) == []
    divide([tmp_path / "piece"], Path.touch)


def test_vectors_longer_than_the_barrier_go_on_after_a_kill(tmp_path: Path) -> None:
    """One process is killed; two then make what is left, for longer than their barrier waits."""
    code = tmp_path / "vectors.py"
    code.write_text(VECTORS)
    cache = tmp_path / "cache"
    killed = start(code, cache)
    deadline = time.monotonic() + 200
    while len(parts_in(cache)) < 2:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    n_kept = len(parts_in(cache))
    said = finish(start(code, cache, processes=2))
    made = [int(number) for number in re.findall(r"MADE (\d+)", said)]  # the two may write on one line
    assert sum(made) == 6 - n_kept and min(made) >= 1, "both work, and nothing is made twice"
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    assert finish(start(code, cache)).split() == ["MADE", "0"]


def test_a_large_librispeech_is_listed_by_one_process(tmp_path: Path) -> None:
    """Empty files by its names; at the next start nobody opens one of them, and 281,241 need less than 200 MB."""
    root = tmp_path / "LibriSpeech"
    n_left, chapter = N_UTTERANCES, 0
    try:
        while n_left:
            speaker, chapter = str(10 + chapter // 3), chapter + 1
            folder = root / ("dev-clean" if chapter % 50 == 0 else "train-clean-360") / speaker / str(chapter)
            folder.mkdir(parents=True)
            names = [f"{speaker}-{chapter}-{i:04d}" for i in range(min(48, n_left))]
            for name in names:
                os.close(os.open(folder / f"{name}.flac", os.O_CREAT))
            text = "".join(f"{name} A SENTENCE OF TWENTY WORDS IS ABOUT THIS LONG\n" for name in names)
            (folder / f"{speaker}-{chapter}.trans.txt").write_text(text)
            n_left -= len(names)
        code = tmp_path / "listing.py"
        code.write_text(LISTING)
        both = [start(code, root, WAV2SEM_CACHE=tmp_path / "cache") for _ in range(2)]
        first = [json.loads(finish(process).splitlines()[-1]) for process in both]
        assert sorted(listing["opened"] for listing in first) == [0, N_UTTERANCES]
        again = json.loads(finish(start(code, root, WAV2SEM_CACHE=tmp_path / "cache")).splitlines()[-1])
        assert again["opened"] == 0 and again["records"] == N_UTTERANCES
        assert first[0]["found"] == first[1]["found"] == again["found"]
        assert N_UTTERANCES > librispeech.INDEXED_FROM and again["grown_mb"] < 200 * N_UTTERANCES / 281_241
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_a_kept_list_is_of_the_files_as_they_are(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path / "cache"))
    write_librispeech(tmp_path / "LibriSpeech")
    small = LibriSpeech(tmp_path / "LibriSpeech")
    assert not (tmp_path / "cache").exists(), "a small folder's list is not kept"
    monkeypatch.setattr(librispeech, "INDEXED_FROM", 1)
    opened = []
    n_samples = librispeech._n_samples
    monkeypatch.setattr(librispeech, "_n_samples", lambda path: opened.append(path) or n_samples(path))

    def listed(**options: bool) -> tuple[LibriSpeech, int]:
        opened.clear()
        speech = LibriSpeech(tmp_path / "LibriSpeech", **options)
        assert len(list((tmp_path / "cache" / "librispeech").iterdir())) == (1 if not options else 2)
        return speech, len(opened)

    speech, n_opened = listed()
    assert speech.records == small.records and speech.skipped == small.skipped and n_opened == 12
    speech, n_opened = listed()
    assert speech.records == small.records and speech.skipped == small.skipped and n_opened == 0
    damaged = small.records[0].path
    damaged.write_bytes(damaged.read_bytes()[:-400])
    speech, n_opened = listed()
    assert n_opened == 12 and len(speech.records) == 11 and speech.skipped["unreadable flac"]["count"] == 1
    (damaged.parent / "note.txt").write_text("new")
    assert listed()[0].skipped["stray file"]["count"] == 1
    damaged.unlink()
    speech, n_opened = listed()
    assert n_opened == 11 and "unreadable flac" not in speech.skipped
    next(damaged.parent.glob("*.trans.txt")).unlink()
    speech, n_opened = listed()
    assert len(speech.records) == 9
    assert len(listed(transcribed=False)[0].records) == 11
