# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare speech`: the corpora's speakers, texts and times; it continues after a stop, and adds what came later."""

from __future__ import annotations

import errno
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from trainer.datasets.corpora import Clip, list_clips  # noqa: E402
from trainer.experiments.preparation import PrepareSpeech  # noqa: E402
from trainer.speech import prepared as speech  # noqa: E402
from trainer.speech.align import Aligned  # noqa: E402
from trainer.speech.kokoro import Spoken  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402

ALIGNED_ONLY = PrepareSpeech(synthetic=0, languages=False, kokoro=False)
SCORES = {"ah": -3.0, "or": -2.0, "uh": -4.0}


class CountingAligner:
    """Gives one phone for each clip, and stops at one of them."""

    unknown: frozenset[str] = frozenset()
    heard = 0
    stops_at: int | None = None

    def scored(self, samples_S: np.ndarray, text: str) -> Aligned:
        cls = type(self)
        cls.heard += 1
        if cls.heard == cls.stops_at:
            raise KeyboardInterrupt
        return Aligned([("AA", 0.0, len(samples_S) / 16_000)], SCORES[text])


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
    return CountingAligner


def prepared(folder: Path) -> tuple[bytes, str]:
    assert {path.name for path in folder.iterdir()} == {".made_by.json", "audio.npy", "clips.json", "recipe.json"}
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


class TooLong(np.ndarray):
    """Samples for which the disk has no room."""

    def tobytes(self) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_step_and_a_rerun_continues(
    corpus: type[CountingAligner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decode = tmp_path / "out", speech._decode
    kind = {"clip_3": TooLong}
    with monkeypatch.context() as full:
        full.setattr(speech, "_decode", lambda path: decode(path).view(kind.get(path.stem, np.ndarray)))
        with pytest.raises(UserError, match=r"the speech cannot be written \(No space left.*it continues"):
            speech.prepare_speech(tmp_path, out, ALIGNED_ONLY)
    speech.prepare_speech(tmp_path, out, ALIGNED_ONLY)
    assert [record.name for record in speech.SpeechStore(out).records] == [f"clip_{i}" for i in range(6)]
    assert corpus.heard == 4 + 3


def test_other_settings_start_again(corpus: type[CountingAligner], tmp_path: Path) -> None:
    corpus.stops_at = 4
    with pytest.raises(KeyboardInterrupt):
        speech.prepare_speech(tmp_path, tmp_path / "out", ALIGNED_ONLY)
    corpus.heard, corpus.stops_at = 0, None
    speech.prepare_speech(tmp_path, tmp_path / "out", replace(ALIGNED_ONLY, seed=1))
    assert corpus.heard == 6
    assert len(speech.SpeechStore(tmp_path / "out").records) == 6


def test_a_complete_folder_gets_the_speech_that_came_later(
    corpus: type[CountingAligner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = [
        Spoken(
            name=f"{language}_0", language=language, voice="v", text="ah", samples_S=np.full(500, 7, np.int16),
            phones=[("M", 0.0, 0.03)],
        )
        for language in ("en", "it")
    ]  # fmt: skip
    out = tmp_path / "out"
    speech.prepare_speech(tmp_path, out, ALIGNED_ONLY)
    before = speech.SpeechStore(out)
    monkeypatch.setattr("trainer.speech.kokoro.speak_all", lambda: iter(spoken))
    speech.prepare_speech(tmp_path, out, replace(ALIGNED_ONLY, kokoro=True))
    assert corpus.heard == 6  # nothing was aligned again
    after = speech.SpeechStore(out)
    assert after.records[:6] == before.records
    assert [(r.name, r.speaker, r.text, r.split) for r in after.records[6:]] == [
        ("kokoro_en_0", "kokoro/v", "ah", "train"),
        ("kokoro_it_0", "kokoro/v", None, "train"),  # the sentence model knows English only
    ]
    assert np.array_equal(after.audio_S[: len(before.audio_S)], before.audio_S)
    assert np.array_equal(after.samples(after.records[-1]), np.full(500, 7 / 32768, np.float32))


def test_of_two_hearings_the_one_that_fits_better_is_taken(
    corpus: type[CountingAligner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [
        Clip(
            name=f"c_{i}", corpus="librispeech_251", speaker="s", path=Path(f"c_{i}.flac"), text="ah",
            split="train", other_text=other,
        )
        for i, other in enumerate(("or", "uh", None))
    ]  # fmt: skip
    monkeypatch.setattr(speech, "list_clips", lambda _data: clips)
    speech.prepare_speech(tmp_path, tmp_path / "out", ALIGNED_ONLY)
    assert [record.text for record in speech.SpeechStore(tmp_path / "out").records] == ["or", "ah", "ah"]


def test_speakers_texts_and_times_of_the_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    for name in ("picovoice_orders/order_1", "picovoice_words/alexa_1", "picovoice_words/jarvis_2"):
        write_flac(data / f"{name}.flac")
    write_flac(data / "librispeech_251" / "103-1240-0000.flac")
    voices = "clip\torigin\tpath\tvoice (clustered)\n{}\n"
    (data / "picovoice_orders" / "sources.tsv").write_text(voices.format("order_1\to\tp\tvoice_1"))
    (data / "picovoice_words" / "sources.tsv").write_text(
        voices.format("alexa_1\to\tp\tvoice_1\njarvis_2\to\tp\tvoice_2")
    )
    (data / "picovoice_orders" / "transcripts.tsv").write_text("order_1\tA Mocha, please.\n")
    (data / "picovoice_words" / "transcripts.tsv").write_text("alexa_1\talexa\njarvis_2\tjarvis\n")
    whisper = data / "librispeech_251_whisper"
    whisper.mkdir()
    (whisper / "transcripts.tsv").write_text("103-1240-0000\tWhere the road dipped down\t-0.2\t4\t34\n")
    # Debian's package of the Russian voice is unpacked into the cache; one of its recordings has no transcript.
    for name in ("ru_0001", "ru_0002"):
        write_flac(tmp_path / "cache" / "festvox_ru" / "usr" / "wav" / f"{name}.wav")
    russian = data / "festvox_ru"
    russian.mkdir()
    (russian / "transcripts_all.tsv").write_text("ru_0001\tмама цепь\n", encoding="utf-8")
    labels = [(0, 0.1, "pau"), (0.1, 0.2, "mm"), (0.2, 0.3, "ay"), (0.3, 0.5, "c"), (0.5, 0.6, "ee"), (0.6, 0.7, "pp")]
    with gzip.open(russian / "phones.tsv.gz", "wt") as table:
        table.write("clip\tstart_s\tend_s\tphone\n")
        table.writelines(f"ru_0001\t{start}\t{end}\t{phone}\n" for start, end, phone in labels)

    clips = {clip.name: clip for clip in list_clips(data)}
    assert set(clips) == {"order_1", "alexa_1", "jarvis_2", "103-1240-0000", "ru_0001"}
    order, word = clips["order_1"], clips["alexa_1"]
    assert (order.speaker, order.text) == ("picovoice/voice_1", "a mocha please")
    assert (word.speaker, word.split) == (order.speaker, order.split)  # a speaker is in one split, in both sets
    assert clips["103-1240-0000"].other_text == "where the road dipped down"
    assert (clips["ru_0001"].text, clips["ru_0001"].split) == (None, "train")

    speech.prepare_speech(data, tmp_path / "out", ALIGNED_ONLY)
    records = {record.name: record for record in speech.SpeechStore(tmp_path / "out").records}
    assert records["ru_0001"].phones == [
        ["SIL", 0.0, 0.1], ["M", 0.1, 0.2], ["AH", 0.2, 0.3], ["T", 0.3, 0.4], ["S", 0.4, 0.5], ["EH", 0.5, 0.6],
        ["P", 0.6, 0.7],
    ]  # fmt: skip


def test_digits_are_no_second_hearing(tmp_path: Path) -> None:
    write_flac(tmp_path / "librispeech_251" / "103-1240-0000.flac")
    (tmp_path / "librispeech_251_whisper").mkdir()
    (tmp_path / "librispeech_251_whisper" / "transcripts.tsv").write_text("103-1240-0000\tChapter 1\n")
    assert [clip.other_text for clip in list_clips(tmp_path)] == [None]


def write_flac(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    soundfile.write(path, (rng.normal(0, 300, 16_000)).astype(np.int16), 16_000)
