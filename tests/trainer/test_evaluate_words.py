# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate words`: published word times are read, and an ear that hears all of it right gets the figures of one."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from trainer.__main__ import main
from trainer.evaluation import evaluate_words
from trainer.speech.word_times import russian_words, timed_clips
from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.phones import PHONES, Phones
from wav2sem_blender.pipeline.words.pronunciation import pronounce
from wav2sem_blender.pipeline.words.track_files import Interval

SENTENCES = ("pepper makes my father happy", "the window opens every morning", "orange shadows move about a table")
RATE_HZ, PHONE_S, PAUSE_S = 50.0, 0.1, 0.2


def labels_of(text: str) -> list[tuple[str, str, float, float]]:
    """Words and phones (tier, label, start, end), with a pause before and after each word."""
    rows, at = [], PAUSE_S
    for word in text.split():
        first = at
        for phone in pronounce([word], "en")[0]:
            rows.append(("phones", phone, at, at + PHONE_S))
            at += PHONE_S
        rows += [("words", word, first, at), ("words", "", at, at + PAUSE_S)]
        at += PAUSE_S
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two readers with three sentences each. The first sample of a sound says which sentence it is."""
    folder = tmp_path / "data" / "librispeech_4_aligned"
    folder.mkdir(parents=True)
    lines = ["clip\ttier\tstart_s\tend_s\tlabel\n"]
    for speaker in ("4088", "4406"):
        for i, text in enumerate(SENTENCES):
            name = f"{speaker}-1-{i:04}"
            sound = np.zeros(16_000, np.float32)
            sound[0] = (i + 1) / 10
            soundfile.write(folder / f"{name}.flac", sound, 16_000)
            with (folder / "transcripts.tsv").open("a") as table:
                table.write(f"{name}\t{text.upper()}\n")
            rows = labels_of(text)
            lines += [f"{name}\t{tier}\t{start:.3f}\t{end:.3f}\t{label}\n" for tier, label, start, end in rows]
    with gzip.open(folder / "alignments.tsv.gz", "wt") as table:
        table.writelines(lines)
    return folder.parent


class Ear:
    """Hears what was said, `late_s` after it was."""

    notes = ()
    late_s = 0.0
    folder = SimpleNamespace(config=SimpleNamespace(phones=PHONES, name="ear"), weights_sha256="0")

    def animate(self, samples_S: np.ndarray, rate_hz: int) -> SimpleNamespace:
        rows = [row for row in labels_of(SENTENCES[round(10 * samples_S[0]) - 1]) if row[0] == "phones"]
        n_frames = round((rows[-1][3] + PAUSE_S) * RATE_HZ)
        posteriors_LP = np.full((n_frames, len(PHONES)), 0.1 / len(PHONES))
        said_L = np.zeros(n_frames, int)
        for _, phone, start, end in rows:
            said_L[round(start * RATE_HZ) : round(end * RATE_HZ)] = PHONES.index(phone)
        posteriors_LP[np.arange(n_frames), said_L] += 0.9
        phones = Phones(posteriors_LP=posteriors_LP, rate_hz=RATE_HZ, first_s=0.5 / RATE_HZ + self.late_s)
        return SimpleNamespace(phones=phones)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    made = Ear()
    monkeypatch.setattr(evaluate_words, "SpeechAnimator", SimpleNamespace(load=lambda *_, **__: made))
    return made


def test_an_ear_that_hears_right_finds_every_word(data: Path, tmp_path: Path, ear: Ear) -> None:
    assert main(["evaluate", "words", "--data", str(data), "--out", str(tmp_path / "out"), "--model", "default"]) == 0
    report = (tmp_path / "out" / "results.md").read_text()
    for group in ("unseen", "heard in training"):
        assert f"| librispeech_4_aligned, en, {group}: 3 | 1 | 16 | 1.000 | 0 | 0 | 0 | 1.000 | +0 |" in report.replace(
            "-0 |", "+0 |"
        )
    assert "readers, all clips of each as one: 2 | 2 | 32 | 1.000 |" in report


def test_a_late_ear_is_told_by_its_bias_and_wrong_words_are_doubted(data: Path, tmp_path: Path, ear: Ear) -> None:
    ear.late_s = 0.1
    config = evaluate_words.EvaluateWords()
    results = evaluate_words.evaluate_words(config, data, tmp_path, "default", "cpu")
    edges = results["edges"][0]
    assert edges["bias_ms"] == pytest.approx(100, abs=3) and edges["near"] == 0 and edges["found"] == 1
    assert len(results["wrong"]) == 2, "both readers' recordings as one have the same text, so there is no other"
    for row in results["wrong"]:
        assert row["wrong_doubted"] >= 0.9 and row["right_trusted"] >= 0.8 and row["other_trusted"] <= 0.2
    assert [row["n"] for row in results["phones"]] == [10, 10], "p, b and m of the sentences"


def test_another_recordings_text_is_another_text(data: Path, ear: Ear) -> None:
    first, second, *_, again, _, _ = timed_clips(data, 0)
    assert first.text == again.text != second.text
    heard = [(clip, ear.animate(soundfile.read(clip.path)[0], 16_000).phones) for clip in (first, again, second)]
    others = evaluate_words._others(evaluate_words._Group("all", heard))
    assert [clip.name for clip in others] == [second.name, second.name, first.name]


def test_no_recordings_with_times(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no recordings with published word times"):
        list(timed_clips(tmp_path, 10))


def test_russian_words_are_found_in_the_labels_of_their_sounds() -> None:
    labels, at = [], 0.0
    for label in "pau j i vv oo pau ss ay s tt r aa m m aa tt i".split():
        labels.append(Interval(label, at, at + 1))
        at += 1
    words = russian_words(["Её", "сестра", "с", "ьъ", "мать"], labels)
    assert [(word.text, word.start_s, word.end_s) for word in words[:2]] == [("Её", 1, 5), ("сестра", 6, 12)]
    assert np.isnan([*words[2][1:], *words[3][1:]]).all(), "nothing there has their sounds"
    assert (words[4].start_s, words[4].end_s) == (13, 16)


def test_kokoros_pauses_leave_the_end_before_them_open(tmp_path: Path) -> None:
    folder = tmp_path / "kokoro_times"
    folder.mkdir()
    rows = [("^", 0.2), ("b", 0.1), ("ɑ", 0.1), (" ", 0.05), ("p", 0.1), (",", 0.2), (" ", 0.05), ("m", 0.1), ("$", 1)]
    (folder / "transcripts.tsv").write_text("en_00_af_heart\tBa, p, m.\nen_01_af_heart\tTwo words joined.\n")
    with gzip.open(folder / "phones_ipa.tsv.gz", "wt", encoding="utf-8") as table:
        table.write("clip\tstart_s\tend_s\tsymbol\n")
        at = 0.0
        for symbol, length in rows:
            table.write(f"en_00_af_heart\t{at:.3f}\t{at + length:.3f}\t{symbol}\n")
            at += length
    (clip,) = timed_clips(tmp_path, 0)
    assert (clip.language, clip.speaker, clip.text) == ("en", "af_heart", "Ba, p, m.")
    times = [(word.text, word.start_s, word.end_s) for word in clip.words]
    np.testing.assert_allclose([start for _, start, _ in times], [0.2, 0.4, 0.8])
    np.testing.assert_allclose([end for *_, end in times], [0.4, np.nan, np.nan])
