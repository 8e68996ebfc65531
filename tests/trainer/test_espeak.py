# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech by espeak-ng: its phone times agree with the energy of the sound, in every language."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

from trainer.speech import espeak
from trainer.speech.espeak import (
    JUDGED_FILE,
    JUDGED_VARIANTS,
    LEARNT_FILE,
    LEARNT_VARIANTS,
    pronounce,
    speak_languages,
    synthesise_espeak,
    to_cmu,
)
from trainer.speech.phones import PHONES, Timing

VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())


def _is_installed() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not _is_installed(), reason="espeak-ng is not installed (`apt install espeak-ng`)")


def _level(samples_S: np.ndarray, start_s: float, end_s: float) -> float:
    """Root mean square between two times."""
    piece_S = samples_S[round(start_s * 16000) : round(end_s * 16000)].astype(np.float64)
    return float(np.sqrt(np.mean(piece_S**2)))


def _after_vowels(phones: list[Timing], wanted: str) -> list[tuple[Timing, Timing, Timing]]:
    triples = zip(phones, phones[1:], phones[2:], strict=False)
    return [(a, b, c) for a, b, c in triples if a[0] in VOWELS and b[0] in wanted.split() and c[0] in VOWELS]


@needs_espeak
@pytest.mark.parametrize("voice", ["en-us", "en-us+m3", "en-us+f3", "en-gb+f1"])
def test_voiceless_stops_begin_with_their_closure(voice: str) -> None:
    samples_S, phones = synthesise_espeak("A paper cup, a puppy. A tuba to Peter, a copy to Jacob.", voice)
    found = _after_vowels(phones, "P T K")
    assert len(found) >= 6
    for (_, vowel_s, start_s), (name, _, _), _ in found:
        closed = _level(samples_S, start_s + 0.007, start_s + 0.027)
        vowel = _level(samples_S, vowel_s, start_s)
        assert closed < 0.12 * vowel, f"{name} at {start_s:.3f} s"
        before = _level(samples_S, start_s - 0.02, start_s)
        assert before > 0.25 * vowel, f"the vowel before {name} at {start_s:.3f} s has ended already"


@needs_espeak
@pytest.mark.parametrize("voice", ["en-us", "de+m3", "cmn-latn-pinyin+f1"])
def test_lips_part_where_a_nasal_ends(voice: str) -> None:
    samples_S, phones = synthesise_espeak(
        "ma ma, ma mo, na mo." if voice != "de+m3" else "Mama, Mann, Oma, Name.", voice
    )
    pairs = [(a, b) for a, b in zip(phones, phones[1:], strict=False) if a[0] in ("M", "N") and b[0] in VOWELS]
    assert len(pairs) >= 4
    for (name, start_s, end_s), _ in pairs:
        opened = _level(samples_S, end_s + 0.003, end_s + 0.018)
        murmur = _level(samples_S, end_s - 0.018, end_s - 0.003)
        assert opened > 1.25 * murmur, f"{name} {start_s:.3f} to {end_s:.3f} s"


@needs_espeak
def test_times_run_from_zero_to_the_end() -> None:
    samples_S, phones = synthesise_espeak("Stop. Bob, wait!", "en-us", rate=120, pitch=70)
    assert samples_S.dtype == np.int16
    assert phones[0][1] == 0 and phones[-1][2] == pytest.approx(len(samples_S) / 16000, abs=1e-3)
    assert all(a[2] == b[1] for a, b in zip(phones, phones[1:], strict=False)) and all(e > s for _, s, e in phones)
    assert [p for p, _, _ in phones if p != "SIL"] == "S T AA P B AA B W EY T".split()
    pause = max((e - s, s, e) for p, s, e in phones if p == "SIL")
    assert pause[0] > 0.1 and _level(samples_S, *pause[1:]) < 5


@needs_espeak
def test_rate_and_pitch_have_an_effect() -> None:
    slow_S, _ = synthesise_espeak("Many people", "en-us", rate=100)
    fast_S, _ = synthesise_espeak("Many people", "en-us", rate=250)
    assert len(slow_S) > 1.4 * len(fast_S)

    def pitch_hz(pitch: int) -> float:
        samples_S, phones = synthesise_espeak("aaah", "en-us", pitch=pitch)
        middle = samples_S[len(samples_S) // 4 :][:3200].astype(np.float64)
        similar = np.correlate(middle, middle, "full")[len(middle) :]
        return 16000 / (40 + int(similar[39:320].argmax()))

    assert pitch_hz(90) > 1.3 * pitch_hz(10)


@needs_espeak
def test_every_language_is_spoken_in_its_own_phones() -> None:
    found: dict[str, float] = {}
    names = []
    for language, name, samples_S, phones in speak_languages():
        assert {p for p, _, _ in phones} <= set(PHONES)
        assert phones[-1][2] == pytest.approx(len(samples_S) / 16000, abs=1e-3), name
        found[language] = found.get(language, 0) + len(samples_S) / 16000
        names.append(name)
    assert set(found) == {"en", "de", "es", "fr", "cmn", "ja"} and all(50 < s < 150 for s in found.values()), found
    assert len(set(names)) == len(names) == 6 * 24
    assert {name.split("_")[1] for name in names} == set(JUDGED_VARIANTS)


@needs_espeak
@pytest.mark.parametrize(
    ("voice", "text", "phones"),
    [
        ("cmn-latn-pinyin", "爸爸买苹果", "P AA P AA M AY P IY NG K W AO"),
        ("ja", "ぱぱと ふゆ", "P AA P AA T OW F UW Y UW"),
        ("de", "ich höre Bücher", "IH HH HH OW R AH B UW HH ER"),
        ("fr", "un bon pain", "ER B AO P EH"),
        ("es", "mucho jamón", "M UW CH OW HH AA M OW N"),
        ("en-us", "oar, fire, bottle", "AO R F AY ER B AA D AH L"),
    ],
)
def test_foreign_phones_become_the_nearest_in_lip_shape(voice: str, text: str, phones: str) -> None:
    assert [p for p, _, _ in synthesise_espeak(text, voice)[1] if p != "SIL"] == phones.split()


@needs_espeak
def test_what_the_voice_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\(en\)'"):
        synthesise_espeak("日本", "ja")
    with pytest.raises(ValueError, match="nothing that the voice de could say"):
        synthesise_espeak(" ", "de")
    with pytest.raises(ValueError, match="no variant 'nosuch'"):
        synthesise_espeak("Hallo", "de+nosuch")
    with pytest.raises(ValueError, match="'nosuch'.*espeak-ng --voices"):
        synthesise_espeak("Hallo", "nosuch")


@needs_espeak
def test_words_are_pronounced_as_the_dictionary_would() -> None:
    assert pronounce("butter") == "B AH T ER".split()
    assert pronounce("button") == "B AH T AH N".split()
    assert pronounce("wikipedia") == "W IH K IY P IY D IY AH".split()
    assert pronounce("café") == "K AE F EY".split()
    assert pronounce("don't") == "D OW N T".split()
    assert pronounce("日本") is None and pronounce("'") is None and pronounce("") is None


@needs_espeak
def test_pronunciations_agree_with_the_dictionary() -> None:
    from trainer.analysis.homophones import phone_distances, pronunciations

    words = list(pronunciations())[::800]
    nearest = [
        float(phone_distances(tuple(pronounce(word) or ()), [tuple(v) for v in pronunciations()[word]]).min())
        for word in words
    ]
    assert len(words) > 100 and np.mean(nearest) < 0.25


def test_unknown_symbols_are_named() -> None:
    assert to_cmu("ˈɑ̃ː") == ("AA",) and to_cmu("t͡ʃ") == ("CH",) and to_cmu("ç") == ("HH",) and to_cmu("ä") == ("AA",)
    with pytest.raises(ValueError, match="'ʘ'"):
        to_cmu("ʘ")


def test_sentences_close_the_lips_often() -> None:
    spoken = json.loads(JUDGED_FILE.read_text(encoding="utf-8"))
    for language in ("en", "de", "es", "fr"):
        letters = "".join(spoken[language]["sentences"]).lower()
        assert sum(letters.count(c) for c in "pbm") > 0.06 * len(letters), language
    assert all(len(s["sentences"]) == len(set(s["sentences"])) == 24 for s in spoken.values())


def test_evaluation_and_training_share_no_sentence() -> None:
    judged, learnt = (json.loads(file.read_text(encoding="utf-8")) for file in (JUDGED_FILE, LEARNT_FILE))
    assert not set(JUDGED_VARIANTS) & set(LEARNT_VARIANTS)
    for language, spoken in learnt.items():
        assert spoken["voice"] == judged[language]["voice"]
        assert not set(spoken["sentences"]) & set(judged[language]["sentences"]), language


def test_a_missing_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(FileNotFoundError, match="apt install espeak-ng"):
        espeak._Engine()
