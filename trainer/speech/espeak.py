# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech by espeak-ng with its phone times, in any of its languages, and its pronunciations of English words.

All voices come from one formant engine, so they sound alike: keep them a small part of the training data. Phones are
those of `phones.PHONES`; a foreign one becomes the one with the nearest lip shape.

Shapes: S samples.
"""

from __future__ import annotations

import ctypes
import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import soxr

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ

from .phones import Timing

# For evaluation and for training: they share no sentence and no variant.
JUDGED_FILE, LEARNT_FILE = (Path(__file__).with_name(f"sentences_{end}.json") for end in ("of_languages", "to_learn"))
JUDGED_VARIANTS = ("m1", "f1", "m3", "f4")
LEARNT_VARIANTS = (
    "m2",
    "f2",
    "m4",
    "f3",
    "m5",
    "f5",
    "m7",
)  # coprime to the number of sentences: each voice says all
TIMES_LEARNT = 4

# The engine's symbols as CMU phones of the same lip shape; the longest matching key is taken, from left to right.
_CMU = {
    symbol: tuple(phones.split(","))
    for symbol, phones in (pair.split(":") for pair in """
    i:IY y:UW u:UW ɨ:IH ʉ:UW ɯ:UW ɪ:IH ᵻ:IH ʏ:UH ʊ:UH e:EY ø:OW ɘ:AH ɵ:UH ɤ:AH o:OW ə:AH ɛ:EH œ:ER ɜ:ER ɞ:ER ʌ:AH
    ɔ:AO æ:AE ɐ:AH a:AA ɶ:AO ɑ:AA ɒ:AO ɚ:ER ɝ:ER eɪ:EY ei:EY ɛɪ:EY aɪ:AY ai:AY ɑɪ:AY aʊ:AW ɑu:AW au:AW ɔɪ:OY ɔø:OY
    ɔy:OY oʊ:OW əʊ:OW ou:OW oɹ:AO,R oɪ:OY onɡ:OW,NG yɛ:W,EH yæ:W,AE yə:W,AH ər:ER i.:IH i̪:IH l̩:AH,L n̩:AH,N
    m̩:AH,M uo:W,AO uə:W,AH ua:W,AA uai:W,AY uei:W,EY iɛ:Y,EH iɑ:Y,AA iou:Y,OW
    p:P b:B t:T d:D ʈ:T ɖ:D c:K ɟ:G k:K ɡ:G g:G q:K ɢ:G ʔ:T ??:T ph:P th:T kh:K tʃ:CH dʒ:JH tɕ:CH tɕh:CH dʑ:JH
    ts.:CH ts.h:CH tsh:T,S m:M ɱ:M n:N ɳ:N ɲ:N ŋ:NG ɴ:NG r:R ʀ:R ʁ:R ɹ:R ɻ:R ɾ:D ɽ:D r.:D l:L ɫ:L ɬ:L ɭ:L ʎ:L ʟ:L ɸ:F
    β:V f:F v:V ʋ:V θ:TH ð:DH s:S z:Z s.:SH ʃ:SH ʒ:ZH ʂ:SH ʐ:ZH ɕ:SH ʑ:ZH ç:HH ʝ:Y x:HH χ:HH ɣ:G ħ:HH h:HH ɦ:HH j:Y ʲ:Y
    w:W ʍ:W ɥ:W ɰ:G
    """.split())
}  # fmt: skip
_LONGEST = max(map(len, _CMU))
_IGNORED = dict.fromkeys(map(ord, "ˈˌːˑ˥˦˧˨˩ʰʷˠˤᵝ͡-'\"^"))  # the last two: Russian vowels beside soft consonants
_COMBINING_THAT_COUNT = "\u0327\u0329\u032a"  # cedilla (ç), syllabic (n̩), dental (Mandarin's i̪)

_STOPS = frozenset("P T K B D G CH JH".split())
_NASALS = frozenset("M N NG".split())
_VOICED_CLOSED = _NASALS | frozenset("B D G".split())
_VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
_AFTER_VOICED_STOPS = _VOWELS | frozenset("L R W Y".split())
_SILENT = 0.15  # of the loudest sample before; echoing variants leave 0.1 in a closure
_CLOSURE_S, _SHORTEST_CLOSURE_S, _LONGEST_CLOSURE_S = 0.06, 0.02, 0.12
_SHORTEST_PAUSE_S = 0.02
_BURST_S = 0.01  # belongs to a voiced stop, as in aligned recordings
_WINDOW_S, _HOP_S = 0.012, 0.001  # one pitch cycle of the lowest voice

_SYNCHRONOUS, _PHONEME_EVENTS_IN_IPA, _DO_NOT_EXIT, _UTF8 = 2, 0x0003, 0x8000, 1
_RATE, _PITCH = 1, 3
_PHONEME = 7


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("symbol", ctypes.c_ubyte * 8),  # a union with an int and a pointer
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender_age_variant_reserved", ctypes.c_ubyte * 4),
        ("score", ctypes.c_int),
        ("reserved", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """libespeak-ng: one per process, and not thread-safe."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise MissingFileError("espeak-ng is not installed (Debian: `apt install espeak-ng`)") from error
        flags = _PHONEME_EVENTS_IN_IPA | _DO_NOT_EXIT
        self.rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, flags)
        if self.rate_hz <= 0:
            raise MissingFileError("espeak-ng's data are missing (Debian: `apt install espeak-ng-data`)")
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_Info.restype = ctypes.c_char_p
        data = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(data))
        self._variants = Path((data.value or b"").decode()) / "voices" / "!v"
        self._pieces: list[np.ndarray] = []
        self._symbols: list[tuple[str, int]] = []
        self._callback = _Callback(self._receive)  # kept alive: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def select(self, voice: str) -> None:
        """Speak with this voice from now on; "language" or "language+variant"."""
        if voice == self._voice:
            return
        language, _, variant = voice.partition("+")
        if variant and not (self._variants / variant).is_file():  # the library would silently take its plain voice
            raise UserError(
                "{voice}: espeak-ng has no variant {variant!r}; `espeak-ng --voices=variant` lists them",
                voice=voice,
                variant=variant,
            )
        if self._library.espeak_SetVoiceByName(voice.encode()):
            self._select_language(language, variant)
        self._voice = voice

    def speak(self, text: str, rate: int, pitch: int) -> tuple[np.ndarray, list[tuple[str, int]]]:
        """Samples int16 (S,) at `rate_hz`, and the IPA symbols with their first samples ("" is a pause)."""
        self._pieces, self._symbols = [], []
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        self._library.espeak_Synth(encoded, size, 0, 1, 0, _UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *self._pieces]), self._symbols

    def words(self, text: str) -> list[list[str]]:
        """IPA symbols of the text, word by word, without speaking it."""
        buffer = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses = []
        while rest.value:  # the library advances it by a clause, and to NULL at the end
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, 0x02 | ord("_") << 8))
        words = (word.split("_") for clause in clauses for word in clause.decode().split(" "))
        return [[symbol for symbol in word if symbol] for word in words]

    def _select_language(self, language: str, variant: str) -> None:
        wanted = _Voice(languages=language.encode())
        if not language or self._library.espeak_SetVoiceByProperties(ctypes.byref(wanted)):
            raise UserError(
                "{language!r}: espeak-ng has no such voice; `espeak-ng --voices` lists them",
                language=language,
            )
        if variant:
            identifier = self._library.espeak_GetCurrentVoice().contents.identifier
            self._library.espeak_SetVoiceByName(identifier + b"+" + variant.encode())

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], n: int, events: ctypes._Pointer[_Event]) -> int:
        if n > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (n,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == _PHONEME:
                symbol = bytes(events[i].symbol).partition(b"\0")[0]
                self._symbols.append((symbol.decode(errors="ignore"), events[i].sample))
            i += 1
        return 0


_engine = cache(_Engine)


def synthesise_espeak(text: str, voice: str, *, rate: int = 175, pitch: int = 50) -> tuple[np.ndarray, list[Timing]]:
    """Speech of an espeak-ng voice with its phone times.

    The engine's times are corrected to those of the lips: a stop begins with its closure, which the engine counts to
    the sound before, and a voiced closure ends where the mouth opens, not where the vowel is steady.

    Args:
        voice: a language, or a language and a variant, as `espeak-ng --voices` names them: "de", "en-us+f3".
        rate: words per minute, 80 to 450; 175 is normal.
        pitch: 0 to 99; 50 is the voice's own.

    Returns:
        samples (S,) int16 at 16 kHz and the phones, without gaps from 0 to the end. The engine's flutter continues from
        call to call, so only the same calls in the same order give the same samples.

    Raises:
        MissingFileError: espeak-ng is not installed.
        UserError: there is no such voice, nothing to say, or a symbol without counterpart; one such symbol is a
            language's name in parentheses, where the voice uses another language's rules.
    """
    engine = _engine()
    engine.select(voice)
    samples_S, symbols = engine.speak(text, rate, pitch)
    names, starts = _phones(symbols, len(samples_S), int(_SHORTEST_PAUSE_S * engine.rate_hz))
    if set(names) <= {"SIL"}:
        raise UserError("{text!r}: has nothing that the voice {voice} could say", text=text, voice=voice)
    _begin_with_closures(samples_S, names, starts, engine.rate_hz)
    _end_with_releases(samples_S, names, starts, engine.rate_hz)
    resampled_S = soxr.resample(samples_S.astype(np.float32), engine.rate_hz, SAMPLE_RATE_HZ)
    resampled_S = np.clip(resampled_S.round(), -32768, 32767).astype(np.int16)
    ends = [*starts[1:], len(samples_S)]
    spans = [(n, s / engine.rate_hz, e / engine.rate_hz) for n, s, e in zip(names, starts, ends, strict=True) if e > s]
    return resampled_S, spans


def pronounce(word: str) -> list[str] | None:
    """CMU phones of an English (en-us) word; None if it is not written in Latin letters or has no sound.

    Raises:
        MissingFileError: espeak-ng is not installed.
    """
    letters = word.replace("'", "").replace("-", "")
    if not letters or not all(unicodedata.name(letter, "").startswith("LATIN") for letter in letters):
        return None
    engine = _engine()
    engine.select("en-us")
    found: list[str] = []
    for symbol in chain.from_iterable(engine.words(word)):
        # The dictionary writes the flap of "butter" as T.
        found += [phone for phone in to_cmu(symbol.replace("ɾ", "t")) if phone != "R" or found[-1:] != ["R"]]
    return found or None


def pronounced_symbols(text: str, voice: str) -> list[list[str]]:
    """IPA symbols of a text in the voice's language, word by word, with stress marks; errors as in
    `pronounce_words`."""
    engine = _engine()
    engine.select(voice)
    return [word for word in engine.words(text) if word]


def pronounce_words(text: str, voice: str) -> list[tuple[str, ...]]:
    """CMU phones of a text in the voice's language, word by word, as pronounced in context.

    Raises:
        MissingFileError: espeak-ng is not installed.
        UserError: there is no such voice, or a symbol without counterpart, as in `synthesise_espeak`.
    """
    words = [tuple(phone for symbol in word for phone in to_cmu(symbol)) for word in pronounced_symbols(text, voice)]
    return [word for word in words if word]


def to_cmu(symbol: str) -> tuple[str, ...]:
    """CMU phones of one of the engine's IPA symbols; stress, length, tone and nasality are dropped.

    Raises:
        UserError: the table lacks the symbol or a part of it.
    """
    decomposed = unicodedata.normalize("NFD", symbol)
    kept = "".join(c for c in decomposed if not unicodedata.combining(c) or c in _COMBINING_THAT_COUNT)
    bare = unicodedata.normalize("NFC", kept).translate(_IGNORED)
    phones: list[str] = []
    at = 0
    while at < len(bare):
        fits = (bare[at : at + n] for n in range(_LONGEST, 0, -1) if bare[at : at + n] in _CMU)
        key = next(fits, None)
        if key is None and bare[at] in _COMBINING_THAT_COUNT and at:
            at += 1  # other letters need it
            continue
        if key is None:
            raise UserError("{symbol!r}: this symbol of espeak-ng has no counterpart in the CMU set", symbol=symbol)
        if key != "ʲ" or not phones:  # alone it is a glide; after a consonant it only colours it
            phones += _CMU[key]
        at += len(key)
    return tuple(phones)


def speak_languages(seed: int = 0) -> Iterator[tuple[str, str, np.ndarray, list[Timing]]]:
    """The sentences of `JUDGED_FILE`, each spoken once: 1 to 1.6 minutes per language, alternating four variants.

    Yields:
        language ("en", "de", …), a name for the clip, samples (S,) int16 at 16 kHz, and the phones.
    """
    return _speak_file(JUDGED_FILE, JUDGED_VARIANTS, 1, (120, 170), seed)


def speak_foreign(seed: int = 0) -> Iterator[tuple[str, str, np.ndarray, list[Timing]]]:
    """The sentences of `LEARNT_FILE`, without English, as from `speak_languages`, each `TIMES_LEARNT` times."""
    return _speak_file(LEARNT_FILE, LEARNT_VARIANTS, TIMES_LEARNT, (110, 210), seed)


def _speak_file(
    file: Path, variants: Sequence[str], times: int, rates: tuple[int, int], seed: int
) -> Iterator[tuple[str, str, np.ndarray, list[Timing]]]:
    rng = np.random.default_rng(seed)
    for language, spoken in json.loads(file.read_text(encoding="utf-8")).items():
        for i, text in enumerate(spoken["sentences"] * times):
            variant = variants[i % len(variants)]
            rate, pitch = int(rng.integers(*rates)), int(rng.integers(35, 66))
            samples_S, phones = synthesise_espeak(text, f"{spoken['voice']}+{variant}", rate=rate, pitch=pitch)
            yield language, f"{language}_{variant}_{i:02d}", samples_S, phones


def _phones(symbols: list[tuple[str, int]], n_samples: int, shortest_pause: int) -> tuple[list[str], list[int]]:
    """Phones and their first samples, from 0 on. The phones of one symbol share its time equally.

    The short gap that the engine leaves between some words is not a pause: it belongs to the phone before.
    """
    names, starts = ["SIL"], [0]
    for (symbol, first), (_, end) in zip(symbols, [*symbols[1:], ("", n_samples)], strict=True):
        phones = to_cmu(symbol) if symbol else ("SIL",)
        for i, phone in enumerate(phones):
            if phone == "SIL" and (names[-1] == "SIL" or end - first < shortest_pause):
                continue
            names.append(phone)
            starts.append(first + (end - first) * i // len(phones))
    return names, starts


def _begin_with_closures(samples_S: np.ndarray, names: list[str], starts: list[int], rate_hz: int) -> None:
    """Move the beginnings of stops, in place, to include the silence right before them.

    The engine counts it to the sound before (50 ms after vowels). A silence of at most `_LONGEST_CLOSURE_S` is all
    closure; of a longer one, the last `_CLOSURE_S` are.
    """
    for i in range(1, len(names)):
        if names[i] not in _STOPS:
            continue
        voiced = next((j for j in range(i - 1, -1, -1) if names[j] != "SIL"), None)
        before_S = np.abs(samples_S[starts[voiced] if voiced is not None else 0 : starts[i]].astype(np.float32))
        loud = np.flatnonzero(before_S > _SILENT * before_S.max(initial=0))
        silence = len(before_S) - (int(loud[-1]) + 1 if len(loud) else 0)
        closure = silence if silence <= _LONGEST_CLOSURE_S * rate_hz else int(_CLOSURE_S * rate_hz)
        first = starts[i] - min(closure, silence)
        for j in range(i, -1, -1):  # a pause that was all closure keeps no time
            starts[j] = min(starts[j], first)
            if j and starts[j - 1] <= first:
                break


def _end_with_releases(samples_S: np.ndarray, names: list[str], starts: list[int], rate_hz: int) -> None:
    """Move the ends of voiced closures, in place, to where the spectrum rises most, as the mouth opens there.

    The engine counts a vowel's beginning to the nasal (24 ms on average) or voiced stop (15 ms) before it.
    """
    window, hop = int(_WINDOW_S * rate_hz), int(_HOP_S * rate_hz)
    for i in range(len(names) - 1):
        followers = _VOWELS if names[i] in _NASALS else _AFTER_VOICED_STOPS
        if names[i] not in _VOICED_CLOSED or names[i + 1] not in followers:
            continue
        shortest = max(int(_SHORTEST_CLOSURE_S * rate_hz), window)
        at = np.arange(starts[i] + shortest, min(starts[i + 1], len(samples_S) - window) + 1, hop)
        if len(at):
            rise_NF = _log_bands(samples_S, at, window) - _log_bands(samples_S, at - window, window)
            burst = 0 if names[i] in _NASALS else int(_BURST_S * rate_hz)
            starts[i + 1] = min(starts[i + 1], int(at[np.maximum(rise_NF, 0).mean(1).argmax()]) + burst)


def _log_bands(samples_S: np.ndarray, firsts_N: np.ndarray, window: int) -> np.ndarray:
    """Decibels in bands of about 350 Hz up to 5 kHz (N, F), of the windows that begin at the given samples."""
    frames_NS = samples_S[firsts_N[:, None] + np.arange(window)].astype(np.float32) * np.hanning(window)
    power_NF = np.abs(np.fft.rfft(frames_NS)[:, 1:61]) ** 2
    bands_NF = power_NF.reshape(len(firsts_N), 15, 4).mean(2)
    return 10 * np.log10(bands_NF + 1e-4 * bands_NF.max())
