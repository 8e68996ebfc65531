# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of any legal name: of any bytes, as long as the disk lets them be, in any alphabet."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.errors import UserError
from wav2sem_blender.files import atomic_path, cut_to_bytes, replaced_folder, write_atomically
from wav2sem_blender.pipeline import Motion, SpeechAnimator
from wav2sem_blender.pipeline.audio import Speech

soundfile = pytest.importorskip("soundfile")
RATE_HZ = 16_000
# Latin-1, which is no UTF-8: an old archive on Linux. Windows and macOS have no such names.
STEMS = [b"a" * 251, "声".encode() * 83, "ж".encode() * 125, b"a\nb", b"-rf ~", "🙂".encode() * 62] + (
    [b"gr\xfc\xdfe", b"\xff" * 251] if sys.platform == "linux" else []
)


def named(folder: Path, stem: bytes, suffix: str) -> Path:
    """A path whose name has these bytes; skips where the disk has no such name."""
    path = folder / f"{os.fsdecode(stem)}{suffix}"
    try:
        path.touch()
        path.unlink()
    except (OSError, ValueError):
        pytest.skip("this disk has no such names")
    return path


@pytest.mark.parametrize("stem", STEMS, ids=lambda stem: f"{len(stem)} bytes {stem[:6]!r}")
def test_a_recording_is_read_and_a_result_is_written_under_every_legal_name(stem: bytes, tmp_path: Path) -> None:
    recording, result = named(tmp_path, stem, ".wav"), named(tmp_path, stem, ".npz")
    plain = tmp_path / "t.wav"
    soundfile.write(plain, np.sin(np.arange(RATE_HZ) / 9), RATE_HZ)
    plain.rename(recording)
    with Speech.from_file(recording, tmp_path) as speech:
        assert speech.n_samples == RATE_HZ and speech.name == recording.name
    info = {"audio": recording.name}
    motion = Motion(weights_TK=np.zeros((3, 1), np.float32), channels=("jawOpen",), fps=30, info=info)
    motion.save(result)
    assert Motion.load(result).info == motion.info and len(motion.info["audio"]) == len(recording.name)
    assert sorted(tmp_path.iterdir()) == sorted((recording, result))


@pytest.mark.parametrize("n", [1, 99, 143, 200, 251])
def test_an_unfinished_file_has_a_name_that_is_legal_where_that_of_the_file_is(n: int, tmp_path: Path) -> None:
    path = tmp_path / f"{'é' * (n // 2)}{'a' * (n % 2)}.npz"
    with atomic_path(path) as unfinished:
        assert len(os.fsencode(unfinished.name)) <= max(143, len(os.fsencode(path.name)))
        assert unfinished.parent == tmp_path and unfinished.suffix == ".npz" and unfinished.name.startswith(".")
        unfinished.write_bytes(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("stem", [b"mod\xfcle", "模型 ü".encode(), b"a\nb"])
def test_a_model_lies_in_a_folder_of_any_name(stem: bytes, engine: str, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "torch": "torch"}[engine])
    folder = named(tmp_path, stem, "")
    shutil.copytree(DEFAULT_MODEL, folder)
    noise_S = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    assert SpeechAnimator.load(folder, engine=engine, device="cpu").animate(noise_S, RATE_HZ).n_frames > 20


def test_a_name_that_is_too_long_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this name is too long for the disk; shorten it") as caught:
        write_atomically(tmp_path / f"{'a' * 300}.npz", b"")
    assert "free some space" not in str(caught.value) and not list(tmp_path.iterdir())


def test_names_are_cut_between_characters() -> None:
    assert [cut_to_bytes("aé声", n) for n in range(7)] == ["", "a", "a", "aé", "aé", "aé", "aé声"]


@pytest.mark.parametrize("stem", STEMS, ids=lambda stem: f"{len(stem)} bytes {stem[:6]!r}")
def test_a_folder_of_every_legal_name_is_replaced(stem: bytes, tmp_path: Path) -> None:
    folder = named(tmp_path, stem, "")
    for content in (b"old", b"new"):
        with replaced_folder(folder, "a test", lambda _folder: ("a",), "a") as new:
            (new / "a").write_bytes(content)
    assert (folder / "a").read_bytes() == b"new" and list(tmp_path.iterdir()) == [folder]
