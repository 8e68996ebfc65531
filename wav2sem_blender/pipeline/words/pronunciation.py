# SPDX-License-Identifier: GPL-3.0-or-later
"""How words sound: letters become phones, in the languages of `LANGUAGES`, by a small network in NumPy.

Three convolved outputs for each letter, of which blanks and repetitions are dropped (CTC), trained on what espeak-ng
says, and for English on the CMU Pronouncing Dictionary. A lexicon has common words that the network gets wrong,
numbers, and Chinese letters. `python -m trainer prepare pronunciation` makes both. A foreign phone is the one of our
set with the nearest lip shape, as the ear was taught.

Shape suffixes: N words, M letters, E and C channels, K taps of a convolution, P phones.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from ...assets import PRONUNCIATION
from ...errors import UserError
from ..phones import PHONES

LANGUAGES = {
    **{"ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish"},
    **{"de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish"},
    **{"fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian"},
    **{"is": "Icelandic", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian"},
    **{"mk": "Macedonian", "ms": "Malay", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese"},
    **{"ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "ta": "Tamil"},
    **{"tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese"},
}
# Other names, and the nearest language of those that are not known.
_ALIASES = {
    **{"no": "nb", "nn": "nb", "cmn": "zh", "yue": "zh", "sh": "hr", "bs": "hr", "sr": "hr", "me": "hr", "iw": "he"},
    **{"gl": "pt", "oc": "ca", "eu": "es", "eo": "es", "la": "it", "af": "nl", "lb": "de", "fo": "is", "be": "ru"},
    **{"kk": "ru", "az": "tr", "tl": "id", "fil": "id", "jv": "id", "sw": "id", "et": "fi", "mr": "hi", "ne": "hi"},
    **{"in": "id", "as": "bn", "rm": "it", "sc": "it"},
}
# Languages of other letters than ours say words in our letters as in English, and the reverse.
_SCRIPT_LANGUAGES = {
    **{"LATIN": "en", "CYRILLIC": "ru", "GREEK": "el", "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh"},
    **{"ARABIC": "ar", "HEBREW": "he", "DEVANAGARI": "hi", "BENGALI": "bn", "TAMIL": "ta"},
}
_SCRIPTS = {
    **{code: ("LATIN",) for code in LANGUAGES},
    **{code: ("CYRILLIC",) for code in ("bg", "mk", "ru", "uk")},
    **{code: ("ARABIC",) for code in ("ar", "fa", "ur")},
    **{"el": ("GREEK",), "ko": ("HANGUL",), "ja": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "zh": ("CJK",)},
    **{"he": ("HEBREW",), "hi": ("DEVANAGARI",), "bn": ("BENGALI",), "ta": ("TAMIL",), "hr": ("LATIN", "CYRILLIC")},
}
# Short words that lean on the next one; espeak-ng, which the network learned from, says the letter's name.
_LEANING = {
    **{"ru": "в:V с:S к:K б:B ж:ZH", "uk": "в:V з:Z й:Y б:B", "bg": "в:V с:S", "mk": "в:V с:S", "pl": "w:V z:Z"},
    **{
        "cs": "v:V s:S k:K z:Z",
        "sk": "v:V s:S k:K z:Z",
        "sl": "s:S k:K z:Z",
        "hr": "s:S k:K",
        "pt": "o:UH e:IY às:AA,SH",
    },
}
_VOWEL_LETTERS = {code: "аеёиоуыэюяіїє" for code in ("ru", "uk")}
_VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
CODES = "".join(chr(ord("0") + i) for i in range(len(PHONES)))
"""One sign for each of `PHONES`, in the lexicon."""
LONGEST_WORD = 40  # letters
OUTPUTS = 3  # for each letter
_WORDS_AT_ONCE = 512


def known_language(language: str) -> str:
    """The code in `LANGUAGES` for "en-US", "pt_BR", "no" or "Deutsch"-like codes of neighbours.

    Raises:
        UserError: There is no such language.
    """
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    code = _ALIASES.get(code, code)
    if code not in LANGUAGES:
        raise UserError(
            "{language!r} is no language that is known here; known are {known}.",
            language=language[:40],
            known=", ".join(LANGUAGES),
        )
    return code


def languages_in(script: str) -> list[str]:
    """The languages that are written in a script, as `script_of` names it."""
    return [code for code, scripts in _SCRIPTS.items() if script in scripts]


def script_of(word: str) -> str:
    """The script of the first letter by its Unicode name, such as "LATIN"; "" without letters."""
    for letter in word:
        if letter.isalpha():
            return unicodedata.name(letter, "").partition(" ")[0]
    return ""


def pronounce(words: Sequence[str], language: str) -> list[tuple[str, ...]]:
    """The phones of each word; () for one without a sound that is known, such as an unknown Chinese letter.

    Args:
        words: As they are said; one may have several parts with spaces between.
        language: A key of `LANGUAGES`.
    """
    parts = [part for word in words for part in word.split()]
    spoken = iter(_model().phones(parts, language))
    return [tuple(phone for _ in word.split() for phone in next(spoken)) for word in words]


@cache
def _model() -> _Pronunciation:
    return _Pronunciation()


class _Pronunciation:
    def __init__(self) -> None:
        with np.load(PRONUNCIATION, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(zlib.decompress(arrays["about"].tobytes()))
        self._letters = {letter: i + 2 for i, letter in enumerate(about["letters"])}  # 0: none, 1: unknown
        self._languages = {code: i for i, code in enumerate(about["languages"])}
        self._lexicon: dict[str, dict[str, str]] = about["lexicon"]
        self._leaning = {
            (word, code): tuple(sound.split(","))
            for code, listed in _LEANING.items()
            for word, _, sound in (unicodedata.normalize("NFD", pair).partition(":") for pair in listed.split())
        }
        self._letters_E, self._languages_E, self._languages_C = (
            _dequantised(arrays, name) for name in ("letters_E", "languages_E", "languages_C")
        )
        self._taps = [
            (_dequantised(arrays, f"taps_{i}_KCC"), arrays[f"bias_{i}_C"].astype(np.float32))
            for i in range(int(about["layers"]))
        ]
        self._out_CP, self._bias_P = _dequantised(arrays, "out_CP"), arrays["bias_out_P"].astype(np.float32)

    def phones(self, words: Sequence[str], language: str) -> list[tuple[str, ...]]:
        said: dict[tuple[str, str], tuple[str, ...]] = {}
        asked: dict[str, list[str]] = {}
        keys = [self._key(word, language) for word in words]
        for word, code in keys:
            entry = self._lexicon.get(code, {}).get(word)
            if entry is not None:
                said[word, code] = tuple(PHONES[ord(sign) - ord("0")] for sign in entry)
            elif code in self._languages and any(letter in self._letters for letter in word):
                asked.setdefault(code, []).append(word)
        for code, rest in asked.items():
            unique = sorted(set(rest), key=len)
            for first in range(0, len(unique), _WORDS_AT_ONCE):
                some = unique[first : first + _WORDS_AT_ONCE]
                said |= zip(((word, code) for word in some), self._network(some, code), strict=True)
        said |= {key: self._leaning[key] for key in keys if key in self._leaning}
        return [_unrounded(said.get(key, ()), *key) for key in keys]

    @staticmethod
    def _key(word: str, language: str) -> tuple[str, str]:
        """The word as the lexicon and the network spell it, and the language in which it is said."""
        word = word.lower().replace("’", "'")
        script = script_of(word)
        if script and script not in _SCRIPTS[language]:
            language = _SCRIPT_LANGUAGES.get(script, language)
        return unicodedata.normalize("NFD", word)[:LONGEST_WORD], language

    def _network(self, words: Sequence[str], code: str) -> list[tuple[str, ...]]:
        letters_NM = np.zeros((len(words), max(map(len, words))), np.int64)
        for row, word in zip(letters_NM, words, strict=True):
            row[: len(word)] = [self._letters.get(letter, 1) for letter in word]
        there_NM1 = (letters_NM > 0)[:, :, None].astype(np.float32)
        language = self._languages[code]
        first_KEC, first_bias_C = self._taps[0]
        x_NMC = (self._letters_E[letters_NM] + self._languages_E[language]) * there_NM1
        x_NMC = np.maximum(_convolved(x_NMC, first_KEC) + first_bias_C + self._languages_C[language], 0) * there_NM1
        for taps_KCC, bias_C in self._taps[1:]:
            x_NMC = (x_NMC + np.maximum(_convolved(x_NMC, taps_KCC) + bias_C, 0)) * there_NM1
        scores = (x_NMC @ self._out_CP + self._bias_P).reshape(len(words), -1, len(PHONES))
        return [_collapsed(path[: OUTPUTS * len(word)]) for path, word in zip(scores.argmax(-1), words, strict=True)]


def _unrounded(phones: tuple[str, ...], word: str, code: str) -> tuple[str, ...]:
    """Russian ы is no "oo": espeak-ng writes y for it, which is a rounded vowel elsewhere."""
    if code not in _VOWEL_LETTERS or "UW" not in phones:
        return phones
    letters = [letter for letter in unicodedata.normalize("NFC", word) if letter in _VOWEL_LETTERS[code]]
    places = [i for i, phone in enumerate(phones) if phone in _VOWELS]
    if len(letters) != len(places):
        letters = ["у" if "у" in letters or "ю" in letters else "ы"] * len(places)
    wrong = {i for i, letter in zip(places, letters, strict=True) if phones[i] == "UW" and letter not in "ую"}
    return tuple("IH" if i in wrong else phone for i, phone in enumerate(phones))


def _convolved(x_NMC: np.ndarray, taps_KCC: np.ndarray) -> np.ndarray:
    """As one product of matrices, which takes a third of the time of one for each word and tap."""
    n_taps, (n_words, n_letters, _) = len(taps_KCC), x_NMC.shape
    padded = np.pad(x_NMC, ((0, 0), (n_taps // 2, n_taps // 2), (0, 0)))
    columns = np.concatenate([padded[:, k : k + n_letters] for k in range(n_taps)], 2)
    flat = columns.reshape(n_words * n_letters, -1) @ taps_KCC.reshape(-1, taps_KCC.shape[2])
    return flat.reshape(n_words, n_letters, -1)


def _collapsed(path: np.ndarray) -> tuple[str, ...]:
    """The phones of a CTC path, whose blank is 0."""
    kept = path[(path > 0) & (path != np.concatenate([[0], path[:-1]]))]
    return tuple(PHONES[i] for i in kept)


def quantised(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """An array as 8-bit numbers with a scale for each of the last axis, by the names under which they are stored."""
    scale = np.abs(values).max(tuple(range(values.ndim - 1))) / 127
    scale = np.maximum(scale, 1e-12)
    return {name: np.rint(values / scale).astype(np.int8), f"{name}_scale": scale.astype(np.float32)}


def _dequantised(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    return arrays[name].astype(np.float32) * arrays[f"{name}_scale"]
