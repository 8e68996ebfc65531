# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of the pronunciation: it learns, and the add-on's NumPy says what torch says."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from trainer.__main__ import main
from trainer.evaluation import evaluate_pronunciation
from trainer.evaluation.protocols import EvaluatePronunciation
from trainer.speech import pronunciation as trained
from trainer.speech.prepared import PreparePronunciation
from wav2sem_blender.pipeline.phones import PHONES
from wav2sem_blender.pipeline.words import language, pronunciation

SOUNDS = {"a": "AA", "b": "B", "m": "M", "o": "OW", "t": "T", "u": "UW"}
CONFIG = PreparePronunciation(epochs=15, channels=24, layers=2, lexicon_words=5, lexicon_words_en=5)


def words(code: str) -> list[tuple[str, tuple[str, ...]]]:
    """Words of three letters, each of which has one sound; in German every o is an u."""
    letters = sorted(SOUNDS)
    sounds = SOUNDS | ({"o": "UW"} if code == "de" else {})
    spelled = [a + b + c for a in letters for b in letters for c in letters if len({a, b, c}) == 3]
    return [(word, tuple(sounds[letter] for letter in word)) for word in spelled] * 10


@pytest.fixture
def made(tmp_path, monkeypatch):
    fake = SimpleNamespace(
        top_n_list=lambda _code, n, **_: ["mat", "tom"][:n], get_frequency_dict=lambda _code: {"mat": 0.5, "tom": 0.2}
    )
    monkeypatch.setitem(sys.modules, "wordfreq", fake)
    monkeypatch.setattr(trained, "espeak_phones", lambda word, _code: ("T", "UW") if word == "2" else ())
    said = {"de": words("de"), "en": words("en"), "zh": [("妈", ("M", "AA"))]}
    network, letters = trained.train({code: said[code] for code in ("de", "en")}, CONFIG)
    path = trained.write(tmp_path, network, letters, said, CONFIG)
    for module in (pronunciation, language):
        monkeypatch.setattr(module, "PRONUNCIATION", path)
    monkeypatch.setattr(pronunciation, "_model", pronunciation._Pronunciation)
    return network, letters


def test_what_the_add_on_says_is_what_was_learnt(made) -> None:
    network, letters = made
    assert letters == "abmotu"
    spelled = ["bat", "tom", "mob", "out", "tuba", "abmotu"]
    for i, code in enumerate(("de", "en")):
        said = pronunciation.pronounce(spelled, code)
        rows = [(i, [letters.index(c) + 2 for c in word], []) for word in spelled]
        letters_NM, languages_N, lengths_N = trained._tensors(rows)
        paths = network(letters_NM, languages_N).argmax(-1).numpy()
        for word, phones, path, n in zip(spelled, said, paths, lengths_N.tolist(), strict=True):
            assert phones == pronunciation._collapsed(path[: pronunciation.OUTPUTS * n]), word
    right = [pronunciation.pronounce([word], "en")[0] == phones for word, phones in words("en")]
    assert np.mean(right) > 0.9


def test_numbers_chinese_letters_and_unknown_signs(made) -> None:
    assert pronunciation.pronounce(["2", "妈", "龘", "!"], "zh") == [("T", "UW"), ("M", "AA"), (), ()]
    assert pronunciation.pronounce(["2"], "de") == [("T", "UW")]


def test_without_word_lists_it_says_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(trained, "find_spec", lambda name: None if name == "wordfreq" else object())
    assert main(["prepare", "pronunciation", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "wordfreq is not installed; pip install wordfreq" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_edit_distance() -> None:
    assert [trained.edit_distance(*pair) for pair in (("", "ab"), ("kitten", "sitting"), ("ab", "ab"))] == [2, 3, 0]
    assert set(SOUNDS.values()) <= set(PHONES)


def test_errors_are_counted_by_phone_word_and_lips(tmp_path, monkeypatch) -> None:
    said = {"de": [("mama", ("M", "AA", "M", "AA")), ("tuba", ("T", "UW", "B", "AA"))]}
    monkeypatch.setattr(evaluate_pronunciation, "find_spec", lambda _name: object())
    monkeypatch.setattr(evaluate_pronunciation, "rare_words", lambda code: iter(said.get(code, ())))
    monkeypatch.setattr(
        evaluate_pronunciation, "pronounce", lambda words, _code: [("M", "AA", "M", "AA"), ("T", "UW", "P", "AA", "S")]
    )
    (row,) = evaluate_pronunciation.evaluate_pronunciation(EvaluatePronunciation(), tmp_path)["languages"]
    assert (row["language"], row["words"], row["word_error"]) == ("German", 2, 0.5)
    assert row["phone_error"] == pytest.approx(2 / 8) and row["lip_error"] == pytest.approx(1 / 3)
    assert "| German | 2 | 0.250 | 0.500 | 0.333 |" in (tmp_path / "results.md").read_text()
