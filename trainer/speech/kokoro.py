# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech by Kokoro-82M (Apache-2.0) in native voices of eight languages, with its phone times.

espeak-ng gives the symbols, which name the phones and which the model reads. Its duration predictor says how many
frames each symbol lasts. What is spoken is kept in the cache, so a stopped run continues.

Shapes: S samples, N symbols that the model reads.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import atomic_path
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ

from ..datasets.published_files import KOKORO, KOKORO_SYMBOLS, KOKORO_VOICES, cache_folder, fetch
from .espeak import LEARNT_FILE, pronounced_symbols, to_cmu
from .phones import Timing

SENTENCES_FILE = Path(__file__).with_name("sentences_for_kokoro.json")
VOICES = {
    "en": (
        *("af_heart", "am_michael", "bf_emma", "bm_george", "af_bella", "am_fenrir", "bf_isabella", "bm_fable"),
        *("af_aoede", "am_puck", "bf_alice", "bm_lewis", "af_kore", "am_echo", "bf_lily", "bm_daniel", "af_sarah"),
        *("am_eric", "af_nova", "am_liam", "af_sky", "am_onyx", "af_alloy", "af_jessica", "af_river", "af_nicole"),
        "am_adam",
    ),
    "es": ("ef_dora", "em_alex", "em_santa"),
    "fr": ("ff_siwis",),
    "it": ("if_sara", "im_nicola"),
    "pt": ("pf_dora", "pm_alex", "pm_santa"),
    "hi": ("hf_alpha", "hm_omega", "hf_beta", "hm_psi"),
    "ja": ("jf_alpha", "jm_kumo", "jf_gongitsune", "jf_nezumi", "jf_tebukuro"),
    "cmn": (
        *("zf_xiaobei", "zm_yunjian", "zf_xiaoni", "zm_yunxi"),
        *("zf_xiaoxiao", "zm_yunxia", "zf_xiaoyi", "zm_yunyang"),
    ),
}
TIMES = {"en": 3, "es": 3, "it": 3, "fr": 2, "pt": 2, "hi": 2, "ja": 2, "cmn": 2}
"""How often each sentence is said, by another voice each time where there is one."""

_RATE_HZ, _FRAME = 24000, 600
_LATE_S = 0.05  # the sound comes this much before the predicted times: by the silence of stops, and by alignment
_SPEEDS = (0.85, 1.2)
_LONGEST_EDGE_S = 0.3  # silence that is kept at either end
_SHORTEST_PAUSE_S = 0.06  # a shorter gap between words belongs to the word after
_CLOSURE_S = 0.06  # of a stop after a pause
_SILENT_DB = -38.0  # under the loudest 10 ms: a sound that fades so far before a pause has ended
_STOPS = frozenset("P T K B D G CH JH".split())
_DURATIONS = "/encoder/Clip_output_0"  # frames per symbol, inside the graph
_MARKS = "ˈˌ"  # spoken with the sound after
_AFTER = "ːʲ\u0303→↗↓↘"  # spoken with the sound before
_ENGLISH_TEXT = "əl:ᵊl ʔn̩:tn n̩:ᵊn ɐ:ə r:ɹ x:k ʔ:t"
# What the model reads for espeak-ng's symbols, in this order. espeak-ng does not tell Mandarin's first tone from its
# fourth; the lips are the same.
_READ = {
    language: [tuple(pair.split(":")) for pair in table.split()]
    for language, table in {
        "": "aɪ:I aʊ:W eɪ:A oʊ:O əʊ:Q ɔɪ:Y dʒ:ʤ tʃ:ʧ ts:ʦ dz:ʣ c\u0327:ç r.:ɽ -: ^:",
        "en-us": _ENGLISH_TEXT + " ɜː:ɜɹ ɚ:əɹ ɾ:T ː:",
        "en-gb": _ENGLISH_TEXT,
        "ja": "ˈ: ˌ: \u0308: \u031e: ᵝ: aa:aː ii:iː ɯɯ:ɯː ee:eː oo:oː tɕ:ʨ dʑ:ʥ ɽ:ɾ",
        "cmn-latn-pinyin": """
            ˈ: tɕh:ʨʰ tɕ:ʨ ts.h:ꭧʰ ts.:ꭧ ʦ.h:ꭧʰ ʦ.:ꭧ ʦh:ʦʰ s.:ʂ ʐ:ɻ χ:x ph:pʰ th:tʰ kh:kʰ onɡ:ʊŋ iou:jou uei:weɪ uai:waɪ
            uo:wo ua:wa uə:wə iɛ:jɛ iɑ:jɑ yɛ:ɥɛ yæ:ɥɛ yə:y yu:jʊ i\u032a:ɨ i.:ɨ ər:ɚ ɑu:ɑʊ
            ei:eɪ ai:aɪ ou:oʊ jj:j 5:↘ ɜ:↗ 2:↓ 1:
            """,
    }.items()
}
# Hindi's affricates are written as palatal stops, and Mandarin's symbols have tones.
_SOUNDS_AS = {"hi": {"c": "tʃ", "ɟ": "dʒ"}, "cmn-latn-pinyin": dict.fromkeys("125ɜ", "")}
_MARKS_ELSEWHERE = str.maketrans("।、。，！？；：", ".,.,!?;:")
_JAPANESE_N = {"p": "m", "b": "m", "m": "m", "k": "ŋ", "ɡ": "ŋ"} | dict.fromkeys("t d n s z ts tɕ dʑ ɽ".split(), "n")


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A sentence spoken: int16 (S,) at 16 kHz, and the phones without gaps from 0 to the end."""

    name: str
    language: str
    voice: str
    text: str
    samples_S: np.ndarray
    phones: list[Timing]


class BadVoiceError(UserError):
    """The voice gave no speech."""


class Kokoro:
    """The model on one thread, in 0.7 s per second of speech."""

    def __init__(self) -> None:
        """Raises UserError if the model's files cannot be fetched."""
        import onnx
        import onnxruntime as ort

        graph = onnx.load(fetch(KOKORO))
        graph.graph.output.append(onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._numbers: dict[str, int] = json.loads(fetch(KOKORO_SYMBOLS).read_text(encoding="utf-8"))["vocab"]
        self._voices = cache(_read_voice)

    def __call__(self, text: str, language: str, voice: str, speed: float = 1.0) -> tuple[np.ndarray, list[Timing]]:
        """Samples int16 (S,) at 16 kHz of a sentence, and its phones without gaps.

        Args:
            language: what espeak-ng calls it: "en-us", "es", "fr-fr".
            voice: one of `VOICES`.
            speed: above 1 is faster.

        Raises:
            BadVoiceError: the voice gave silence, clipping, or numbers that are not finite.
            MissingFileError: espeak-ng is not installed.
        """
        read, phones = _symbols(text, language)
        known = [(symbol, phone) for symbol, phone in zip(read, phones, strict=True) if symbol in self._numbers]
        tokens_N = np.array([[0, *(self._numbers[symbol] for symbol, _ in known), 0]], np.int64)
        style = self._voices(voice)[min(len(known), 509)][None]
        audio, frames = self._session.run(
            ["audio", _DURATIONS], {"tokens": tokens_N, "style": style, "speed": np.array([speed], np.float32)}
        )
        audio_S = audio.ravel()
        _check(audio_S, voice)
        ends = np.cumsum(frames.ravel()) * _FRAME / _RATE_HZ - _LATE_S
        samples_S = (np.clip(soxr.resample(audio_S, _RATE_HZ, SAMPLE_RATE_HZ), -1, 1) * 32767).astype(np.int16)
        names = [("SIL",), *(phone for _, phone in known), ("SIL",)]
        timed = _timings(names, ends, len(samples_S) / SAMPLE_RATE_HZ)
        return _cut(samples_S, _ended_by_silence(samples_S, timed))


def speak_all(seed: int = 0) -> Iterator[Spoken]:
    """Every sentence of `SENTENCES_FILE`, and of `LEARNT_FILE` where a voice speaks its language, from the cache or
    spoken now: about an hour. A voice that fails is left out from then on, with a warning.

    Raises:
        UserError: the model cannot be fetched, or the cache cannot be written.
        MissingFileError: espeak-ng is not installed.
    """
    folder = cache_folder() / "kokoro"
    model: Kokoro | None = None
    failed: Counter[str] = Counter()
    for name, language, dialect, voice, text, speed in tqdm(_plan(seed), desc="kokoro", unit="clip"):
        if voice in failed:
            failed[voice] += 1
            continue
        key = json.dumps([text, dialect, voice, speed, KOKORO.sha256, _LATE_S])
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
        if not path.is_file():
            model = model or Kokoro()
            try:
                samples_S, phones = model(text, dialect, voice, speed)
            except BadVoiceError as error:
                print(f"warning: {error.text}; it is left out")
                failed[voice] += 1
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as unfinished:
                np.savez(unfinished, samples=samples_S, phones=json.dumps(phones))
        with np.load(path, allow_pickle=False) as kept:
            phones = [(phone, start, end) for phone, start, end in json.loads(str(kept["phones"]))]
            yield Spoken(
                name=name, language=language, voice=voice, text=text, samples_S=kept["samples"], phones=phones
            )  # fmt: skip
    if failed:
        print(f"warning: {failed.total()} clips left out with the voices {', '.join(failed)}")


def _plan(seed: int) -> list[tuple[str, str, str, str, str, float]]:
    """Name, language, espeak-ng's name of it, voice, text and speed of every clip; the languages take turns, so that
    the first part of it is a fair sample."""
    own, learnt = (json.loads(file.read_text(encoding="utf-8")) for file in (SENTENCES_FILE, LEARNT_FILE))
    rng = np.random.default_rng(seed)
    plan = []
    for language, spoken in own.items():
        texts = spoken["sentences"] + learnt.get(language, {"sentences": []})["sentences"]
        for i in range(len(texts) * TIMES[language]):
            time, number = divmod(i, len(texts))
            voice = VOICES[language][(number + time) % len(VOICES[language])]
            dialect = "en-gb" if voice.startswith("b") else spoken["voice"]
            speed = round(float(rng.uniform(*_SPEEDS)), 3)
            place = i / (len(texts) * TIMES[language])
            plan.append((place, (f"{language}_{i:03d}_{voice}", language, dialect, voice, texts[number], speed)))
    return [clip for _, clip in sorted(plan)]


def _read_voice(voice: str) -> np.ndarray:
    """float32 (510, 256): a style for each number of symbols."""
    with tarfile.open(fetch(KOKORO_VOICES)) as opened:
        content = opened.extractfile(f"package/voices/{voice}.bin")
        assert content is not None, voice
        return np.frombuffer(content.read(), np.float32).reshape(-1, 256)


def _symbols(text: str, language: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """The N symbols that the model reads, and what the mouth does at each: phones, or ("+",) for what belongs to the
    sound after it, ("-",) to the one before."""
    symbols: list[tuple[str, tuple[str, ...]]] = []
    for clause, mark in re.findall(r"([^,.;:!?…।、。，！？；：]+)(\W*)", text):
        for word in pronounced_symbols(clause.strip(), language):
            for symbol in _japanese(word) if language == "ja" else word:
                symbols += _tokens(symbol, language)
            symbols.append((" ", ("SIL",)))
        if mark.strip() and symbols:
            symbols[-1:] = [(mark.strip()[0].translate(_MARKS_ELSEWHERE), ("SIL",)), (" ", ("SIL",))]
    return [symbol for symbol, _ in symbols[:-1]], [phones for _, phones in symbols[:-1]]


def _japanese(word: list[str]) -> list[str]:
    """espeak-ng's Japanese symbols with the syllable's n (ũ) as it sounds before the next one."""
    following = [unicodedata.normalize("NFD", symbol).lstrip(_MARKS) for symbol in [*word[1:], ""]]
    return [
        _JAPANESE_N.get(after.rstrip("ʲ"), "ɴ") if "u\u0303" in unicodedata.normalize("NFD", symbol) else symbol
        for symbol, after in zip(word, following, strict=True)
    ]


def _tokens(symbol: str, language: str) -> list[tuple[str, tuple[str, ...]]]:
    """One of espeak-ng's symbols as the model's, with their phones."""
    sounds, text = symbol, unicodedata.normalize("NFD", symbol)
    for theirs, ours in _SOUNDS_AS.get(language, {}).items():
        sounds = sounds.replace(theirs, ours)
    phones = to_cmu(sounds)
    for theirs, ours in [*_READ[""], *_READ.get(language, ())] if language != "ja" else [*_READ["ja"], *_READ[""]]:
        text = text.replace(theirs, ours)
    marks = {**dict.fromkeys(_MARKS, "+"), **dict.fromkeys(_AFTER, "-"), "ʰ": "HH"}
    tokens: list[tuple[str, tuple[str, ...]]] = [(token, (marks[token],) if token in marks else ()) for token in text]
    sounding = [i for i, (_, phone) in enumerate(tokens) if not phone]
    for place, i in enumerate(sounding):  # they share the phones in order; a phone of several begins with the first
        first, end = (len(phones) * k // len(sounding) for k in (place, place + 1))
        tokens[i] = (tokens[i][0], phones[first:end] or ("+",))
    return tokens


def _timings(phones: Sequence[tuple[str, ...]], ends: np.ndarray, duration_s: float) -> list[Timing]:
    """The phones of symbols that end at `ends` (s), without gaps from 0 to `duration_s`."""
    spans: list[tuple[str, float, float]] = []
    start, waiting = 0.0, None
    for names, raw_end in zip(phones, [*ends[:-1], duration_s], strict=True):
        end = min(max(float(raw_end), start), duration_s)
        if names == ("+",):
            waiting = start if waiting is None else waiting
        elif names == ("-",) and spans:
            spans[-1] = (*spans[-1][:2], end)
        else:
            begin = start if waiting is None else waiting
            waiting = None
            step = (end - begin) / len(names)
            spans += [(name, begin + i * step, begin + (i + 1) * step) for i, name in enumerate(names)]
        start = end
    return _with_pauses(spans)


def _with_pauses(spans: list[Timing]) -> list[Timing]:
    """Give short gaps between words to the sound after; a stop closes before the end of a longer one."""
    kept: list[Timing] = []
    for name, start, end in spans:
        if end <= start:
            continue
        before = kept[-1] if kept else None
        if before is None or before[0] != "SIL":
            kept.append((name, start, end))
        elif name == "SIL":
            kept[-1] = ("SIL", before[1], end)
        elif before[1] > 0 and before[2] - before[1] < _SHORTEST_PAUSE_S:
            kept[-1] = (name, before[1], end)
        elif name in _STOPS and before[2] - before[1] > _CLOSURE_S:
            kept[-1:] = [("SIL", before[1], before[2] - _CLOSURE_S), (name, before[2] - _CLOSURE_S, end)]
        else:
            kept.append((name, start, end))
    return kept


def _ended_by_silence(samples_S: np.ndarray, phones: list[Timing]) -> list[Timing]:
    """End the sounds before pauses where they fade: the model counts some silence to them."""
    step = SAMPLE_RATE_HZ // 100
    frames_TS = samples_S[: len(samples_S) // step * step].astype(np.float64).reshape(-1, step)
    level_T = 10 * np.log10(np.mean(frames_TS**2, axis=1) + 1)
    heard_T = level_T > level_T.max() + _SILENT_DB
    ended = list(phones)
    for i in range(len(ended) - 1):
        (name, start, end), (after, _, after_end) = ended[i : i + 2]
        if name == "SIL" or after != "SIL":
            continue
        heard = np.flatnonzero(heard_T[int(start * 100) : int(end * 100)])
        faded = min(end, start + max(0.04, (int(heard[-1]) + 1) / 100 if len(heard) else 0.0))
        ended[i : i + 2] = [(name, start, faded), (after, faded, after_end)]
    return ended


def _cut(samples_S: np.ndarray, phones: list[Timing]) -> tuple[np.ndarray, list[Timing]]:
    """Cut long silence from both ends."""
    first = max(0.0, phones[0][2] - _LONGEST_EDGE_S) if phones[0][0] == "SIL" else 0.0
    last = min(phones[-1][2], phones[-1][1] + _LONGEST_EDGE_S) if phones[-1][0] == "SIL" else phones[-1][2]
    first_sample, end_sample = int(first * SAMPLE_RATE_HZ), int(last * SAMPLE_RATE_HZ)
    moved = [(name, max(0.0, start - first), min(end, last) - first) for name, start, end in phones]
    return samples_S[first_sample:end_sample], [
        (name, round(start, 4), round(end, 4)) for name, start, end in moved if end > start
    ]


def _check(audio_S: np.ndarray, voice: str) -> None:
    """Raises BadVoiceError unless it is speech."""
    if not np.isfinite(audio_S).all():
        raise BadVoiceError("Kokoro's voice {voice}: its samples are not finite", voice=voice)
    if np.sqrt(np.mean(audio_S**2)) < 0.003:
        raise BadVoiceError("Kokoro's voice {voice} is silent", voice=voice)
    if np.mean(np.abs(audio_S) >= 0.999) > 0.001:
        raise BadVoiceError("Kokoro's voice {voice} is clipped", voice=voice)
