# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare speech` continues after a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from trainer.datasets.corpora import Clip  # noqa: E402
from trainer.experiments.preparation import PrepareSpeech  # noqa: E402
from trainer.speech import prepared as speech  # noqa: E402

ALIGNED_ONLY = PrepareSpeech(synthetic=0, languages=False)


class CountingAligner:
    """Gives one phone for each clip, and stops at one of them."""

    unknown: frozenset[str] = frozenset()
    heard = 0
    stops_at: int | None = None

    def __call__(self, samples_S: np.ndarray, text: str) -> list[tuple[str, float, float]]:
        cls = type(self)
        cls.heard += 1
        if cls.heard == cls.stops_at:
            raise KeyboardInterrupt
        return [("AA", 0.0, len(samples_S) / 16_000)]


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> type[CountingAligner]:
    def clips(_data: Path) -> list[Clip]:
        paths = (Path(f"/corpus/clip_{i}.flac") for i in range(6))
        facts = {"corpus": "vctk", "speaker": "one", "text": "ah", "split": "train"}
        return [Clip(name=path.stem, path=path, **facts) for path in paths]

    def decode(path: Path) -> np.ndarray:
        i = int(path.stem[-1])
        return np.full(1000 + 10 * i, i, np.int16)

    CountingAligner.heard, CountingAligner.stops_at = 0, None
    monkeypatch.setattr(speech, "list_clips", clips)
    monkeypatch.setattr(speech, "_decode", decode)
    monkeypatch.setattr(speech, "Aligner", CountingAligner)
    monkeypatch.setattr(speech, "published_times", lambda _folder: {})
    return CountingAligner


def prepared(folder: Path) -> tuple[bytes, str]:
    assert {path.name for path in folder.iterdir()} == {".made_by.json", "audio.npy", "clips.json"}
    return (folder / "audio.npy").read_bytes(), (folder / "clips.json").read_text()


def test_a_stopped_run_continues_after_its_last_clip(corpus: type[CountingAligner], tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    speech.prepare_speech(tmp_path, whole, ALIGNED_ONLY)
    corpus.heard, corpus.stops_at = 0, 4
    with pytest.raises(KeyboardInterrupt):
        speech.prepare_speech(tmp_path, stopped, ALIGNED_ONLY)
    # A power cut may leave half a record, and samples without a record.
    with (stopped / "clips.jsonl").open("a") as lines, (stopped / "audio.raw").open("ab") as raw:
        lines.write('{"name": "clip_3", "cor')
        raw.write(bytes(77))
    corpus.heard, corpus.stops_at = 0, None
    speech.prepare_speech(tmp_path, stopped, ALIGNED_ONLY)
    assert corpus.heard == 3
    assert prepared(stopped) == prepared(whole)


def test_other_settings_start_again(corpus: type[CountingAligner], tmp_path: Path) -> None:
    corpus.stops_at = 4
    with pytest.raises(KeyboardInterrupt):
        speech.prepare_speech(tmp_path, tmp_path / "out", ALIGNED_ONLY)
    corpus.heard, corpus.stops_at = 0, None
    speech.prepare_speech(tmp_path, tmp_path / "out", PrepareSpeech(synthetic=0, languages=False, seed=1))
    assert corpus.heard == 6
    assert len(speech.SpeechStore(tmp_path / "out").records) == 6
