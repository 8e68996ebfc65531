# SPDX-License-Identifier: GPL-3.0-or-later
"""Kokoro's symbols, phone times, guard and cache. The model itself is not needed."""

from __future__ import annotations

import ctypes.util
import json
from pathlib import Path

import numpy as np
import pytest

from trainer.speech import kokoro
from trainer.speech.espeak import JUDGED_FILE, LEARNT_FILE
from trainer.speech.kokoro import SENTENCES_FILE, VOICES, BadVoiceError, Spoken, speak_all
from trainer.speech.phones import PHONES

needs_espeak = pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="espeak-ng is not installed")


@pytest.mark.parametrize(
    ("symbol", "language", "read"),
    [
        ("ˈaɪ", "en-us", [("ˈ", ("+",)), ("I", ("AY",))]),
        ("ɜː", "en-us", [("ɜ", ("+",)), ("ɹ", ("ER",))]),  # one phone, which begins with the first of two symbols
        ("ɜː", "en-gb", [("ɜ", ("ER",)), ("ː", ("-",))]),
        ("ɾ", "en-us", [("T", ("D",))]),
        ("ɾ", "es", [("ɾ", ("D",))]),
        ("tsː", "it", [("ʦ", ("T", "S")), ("ː", ("-",))]),
        ("pʰ", "hi", [("p", ("P",)), ("ʰ", ("HH",))]),  # the lips are open in the aspiration
        ("cʰ", "hi", [("c", ("CH",)), ("ʰ", ("HH",))]),
        ("tɕ", "ja", [("ʨ", ("CH",))]),
        ("o̞o̞", "ja", [("o", ("OW", "OW")), ("ː", ("-",))]),
        ("ph", "cmn-latn-pinyin", [("p", ("P",)), ("ʰ", ("HH",))]),
        ("ˈɑu5", "cmn-latn-pinyin", [("ɑ", ("+",)), ("ʊ", ("AW",)), ("↘", ("-",))]),
        ("ˈɔ̃", "fr-fr", [("ˈ", ("+",)), ("ɔ", ("AO",)), ("\u0303", ("-",))]),
    ],
)
def test_symbols_of_espeak_as_kokoro_reads_them(symbol: str, language: str, read: list[tuple[str, tuple]]) -> None:
    assert kokoro._tokens(symbol, language) == read


def test_the_japanese_n_closes_the_lips_before_p_b_and_m() -> None:
    assert kokoro._japanese(["ɕ", "i", "ũ", "ˈb", "ɯᵝ", "ˈũ", "k", "ũ"]) == ["ɕ", "i", "m", "ˈb", "ɯᵝ", "ŋ", "k", "ɴ"]


def test_marks_join_their_sound_and_short_gaps_the_next_one() -> None:
    phones = [("SIL",), ("B",), ("+",), ("AA",), ("-",), ("SIL",), ("M",), ("T", "S"), ("SIL",), ("P",), ("SIL",)]
    ends = np.cumsum([0.2, 0.1, 0.025, 0.1, 0.025, 0.025, 0.1, 0.1, 0.2, 0.1, 0.3])
    timed = kokoro._timings(phones, ends, 1.3)
    assert [phone for phone, _, _ in timed] == ["SIL", "B", "AA", "M", "T", "S", "SIL", "P", "SIL"]
    starts = [0, 0.14, 0.3, 0.45, 0.575, 0.625, 0.675, 0.815, 0.975]  # stops close 60 ms before a pause ends
    assert [start for _, start, _ in timed] == pytest.approx(starts)
    assert [end for _, _, end in timed] == pytest.approx([*starts[1:], 1.3])


def test_a_sound_before_a_pause_ends_where_it_fades() -> None:
    samples_S = np.zeros(16_000, np.int16)
    samples_S[1600:6400] = 8000 * np.sin(np.arange(4800) / 9)
    ended = kokoro._ended_by_silence(samples_S, [("AA", 0.1, 0.8), ("SIL", 0.8, 1.0)])
    assert ended == [("AA", 0.1, pytest.approx(0.4)), ("SIL", pytest.approx(0.4), 1.0)]


def test_long_silence_is_cut_from_both_ends() -> None:
    samples_S, phones = kokoro._cut(np.arange(32_000, dtype=np.int16), [("SIL", 0, 0.5), ("M", 0.5, 1), ("SIL", 1, 2)])
    assert (samples_S[0], len(samples_S)) == (3200, 17_600)
    assert phones == [("SIL", 0.0, 0.3), ("M", 0.3, 0.8), ("SIL", 0.8, 1.1)]


@pytest.mark.parametrize(
    ("audio_S", "fault"),
    [
        (np.array([0.1, np.nan]), "not finite"),
        (np.full(100, 1e-4), "silent"),
        (np.tile([0.2, -1.0], 50), "clipped"),
    ],
)
def test_what_is_no_speech_is_refused_by_the_voices_name(audio_S: np.ndarray, fault: str) -> None:
    with pytest.raises(BadVoiceError, match=f"ff_siwis.*{fault}"):
        kokoro._check(audio_S, "ff_siwis")


class OneBadVoice:
    """Stands for the model: one voice fails."""

    said: list[tuple[str, str]] = []

    def __call__(self, text: str, language: str, voice: str, speed: float) -> tuple[np.ndarray, list]:
        type(self).said.append((language, voice))
        if voice == "im_nicola":
            raise BadVoiceError("Kokoro's voice {voice} is silent", voice=voice)
        return np.full(100, len(text), np.int16), [("M", 0.0, 0.1)]


@pytest.fixture
def two_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = {"en": {"voice": "en-us", "sentences": ["one", "three"]}, "it": {"voice": "it", "sentences": ["due"]}}
    (tmp_path / "sentences.json").write_text(json.dumps(sentences))
    monkeypatch.setattr(kokoro, "SENTENCES_FILE", tmp_path / "sentences.json")
    monkeypatch.setattr(kokoro, "Kokoro", OneBadVoice)
    monkeypatch.setattr(OneBadVoice, "said", [])
    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("two_sentences")
def test_a_failing_voice_is_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    spoken = list(speak_all())
    assert [(s.language, s.voice) for s in spoken if s.language == "it"] == [("it", "if_sara")] * 2
    assert OneBadVoice.said.count(("it", "im_nicola")) == 1
    said = capsys.readouterr().out
    assert "warning: Kokoro's voice im_nicola is silent; it is left out" in said
    assert "1 clips left out with the voices im_nicola" in said


@pytest.mark.usefixtures("two_sentences")
def test_a_stopped_run_continues_from_the_cache() -> None:
    first: list[Spoken] = []
    for spoken in speak_all():
        first.append(spoken)
        if len(first) == 3:
            break
    OneBadVoice.said.clear()
    again = list(speak_all())
    assert len(OneBadVoice.said) == len(again) - 3 + 1  # and the failing one
    for one, two in zip(first, again, strict=False):
        assert (one.name, one.phones, one.samples_S.tolist()) == (two.name, two.phones, two.samples_S.tolist())


def test_sentences_are_many_and_not_those_of_the_evaluation() -> None:
    own, judged, learnt = (
        json.loads(f.read_text(encoding="utf-8")) for f in (SENTENCES_FILE, JUDGED_FILE, LEARNT_FILE)
    )
    assert set(own) == set(VOICES)
    for language, spoken in own.items():
        others = [file.get(language, {"sentences": []})["sentences"] for file in (judged, learnt)]
        assert not set(spoken["sentences"]) & {*others[0], *others[1]}, language
        assert len(set(spoken["sentences"])) + len(others[1]) >= 60, language


@needs_espeak
def test_every_sentence_has_known_phones() -> None:
    for _, _, dialect, _, text, _ in kokoro._plan(0):
        read, phones = kokoro._symbols(text, dialect)
        assert len(read) == len(phones) > 10
        assert {phone for some in phones for phone in some} <= {*PHONES, "+", "-"}, text
    assert "".join(kokoro._symbols("Mamma, dove vai?", "it")[0]) == "mˈamma, dˈove vˈaj?"
