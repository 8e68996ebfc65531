# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare speech`: every recording as 16 kHz samples in one memory-mapped array, and its phone times.

Layout of the folder: audio.npy int16 (S,), all clips end to end; clips.json, one record per clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile as sf
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import FolderKind, atomic_path, write_atomically
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ

from ..datasets.corpora import CORPORA, HEARD, Clip, list_clips
from .align import Aligner, festvox_times, published_times, synthesise_flite
from .phones import Timing

_FOLDER = FolderKind(
    made_by="prepare speech", names=("audio.npy", "clips.json", "recipe.json", "audio.raw", "clips.jsonl")
)
_SPOKEN_TEXTS = ("grid_s1", "librispeech_4_aligned", "vctk", "librispeech_251")  # Picovoice's repeat few words
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True, kw_only=True)
class PreparePronunciation:
    """The network and lexicon of the add-on's pronunciation: OUT/pronunciation.npz.

    Attributes:
        epochs: Of all words.
        channels: Of the network.
        layers: Convolutions of 5 letters.
        lexicon_words: Of so many commonest words in each language, wrong ones go into the lexicon; "en" has its own.
        seed: Of the weights and the order of words.
    """

    epochs: int = 8
    channels: int = 128
    layers: int = 5
    lexicon_words: int = 1000
    lexicon_words_en: int = 15_000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PrepareSpeech:
    """Speech with phone times: OUT/speech. `synthetic` clips are spoken by flite (0 needs no flite); `languages` adds
    espeak-ng's German, Spanish, French, Mandarin and Japanese; `kokoro` adds native voices of eight languages."""

    synthetic: int = 1800
    languages: bool = True
    kokoro: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SpeechRecord:
    """One clip of the prepared speech: samples [first, first + n_samples) of audio.npy."""

    name: str
    corpus: str
    speaker: str
    split: str
    text: str | None
    first: int
    n_samples: int
    phones: list[Timing] | None


class Speech(Protocol):
    """Recordings to learn from: `SpeechStore` or `LibriSpeech`.

    A record has a name, a corpus, a speaker, a split ("train", "valid", …), a text and n_samples.
    """

    @property
    def records(self) -> Sequence[Any]:
        """Every recording."""

    def samples(self, record: Any) -> np.ndarray:
        """float32 (S,) in [-1, 1)."""

    def files(self) -> Iterable[Path]:
        """What the data hash is made of."""


class SpeechStore:
    """Prepared speech, opened for reading."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "clips.json").is_file():
            raise MissingFileError(
                "{folder}: no prepared speech; run `python -m trainer prepare speech` first",
                folder=folder,
            )
        self.folder = folder
        self.audio_S = np.load(folder / "audio.npy", mmap_mode="r")
        self.records = [SpeechRecord(**record) for record in json.loads((folder / "clips.json").read_text())]

    def files(self) -> list[Path]:
        """What the data hash is made of."""
        return [self.folder / "audio.npy", self.folder / "clips.json"]

    def samples(self, record: SpeechRecord) -> np.ndarray:
        """float32 (S,) in [-1, 1)."""
        return self.audio_S[record.first : record.first + record.n_samples].astype(np.float32) / 32768


def prepare_speech(data: Path, out: Path, config: PrepareSpeech) -> None:
    """Align every transcribed clip, synthesise more in English and other languages, and write the folder.

    A stopped run with the same settings continues after its last clip. A complete folder gets what it lacks: Kokoro's
    speech may come later, so it stands last.
    """
    _FOLDER.claim(out)
    clips = list(list_clips(data))
    raw_path, lines_path = out / "audio.raw", out / "clips.jsonl"
    recipe = json.dumps(asdict(replace(config, kokoro=True)) | {"clips": [clip.name for clip in clips]})
    _reopen(out, raw_path, lines_path, recipe)
    records = _begun(raw_path, lines_path, recipe)
    try:
        with raw_path.open("ab") as raw, lines_path.open("a", encoding="utf-8") as lines:
            for clip, samples_S, phones in _all_clips(data, clips, config, {record.name for record in records}):
                first = records[-1].first + records[-1].n_samples if records else 0
                record = SpeechRecord(
                    name=clip.name, corpus=clip.corpus, speaker=clip.speaker, split=clip.split, text=clip.text,
                    first=first, n_samples=len(samples_S), phones=phones,
                )  # fmt: skip
                raw.write(samples_S.tobytes())
                raw.flush()
                lines.write(json.dumps(asdict(record)) + "\n")
                lines.flush()
                records.append(record)
    except OSError as error:
        if isinstance(error, UserError) or error.filename:
            raise
        raise UserError(  # a full disk names no file
            "{folder}: the speech cannot be written ({reason}). Free some space and repeat the command: it continues",
            folder=out,
            reason=error.strerror or str(error),
        ) from error
    with atomic_path(out / "audio.npy") as whole:
        np.save(whole, np.memmap(raw_path, np.int16, "r"))
    write_atomically(out / "clips.json", json.dumps([asdict(record) for record in records]).encode())
    write_atomically(out / "recipe.json", recipe.encode())
    lines_path.unlink()
    raw_path.unlink()
    _report(records)


def _reopen(out: Path, raw_path: Path, lines_path: Path, recipe: str) -> None:
    """Make a complete folder of the same recipe a begun one. It stays readable."""
    made = out / "recipe.json"
    if lines_path.is_file() or not made.is_file() or made.read_text(encoding="utf-8") != recipe:
        return
    store = SpeechStore(out)
    store.audio_S.tofile(raw_path)
    lines = [recipe, *(json.dumps(asdict(record)) for record in store.records)]
    write_atomically(lines_path, ("\n".join(lines) + "\n").encode())


def _begun(raw_path: Path, lines_path: Path, recipe: str) -> list[SpeechRecord]:
    """The clips of a stopped run with the same recipe, with the file cut after the last whole one; [] if there is
    none."""
    recipe_line = recipe + "\n"
    kept: list[SpeechRecord] = []
    if raw_path.is_file() and lines_path.is_file():
        head, *lines = lines_path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        if head == recipe_line:
            kept = [SpeechRecord(**json.loads(line)) for line in lines if line.endswith("\n")]
    lines_path.write_text(recipe_line + "".join(json.dumps(asdict(r)) + "\n" for r in kept), encoding="utf-8")
    with raw_path.open("ab") as raw:
        raw.truncate(2 * sum(record.n_samples for record in kept))
    return kept


def _all_clips(
    data: Path, clips: list[Clip], config: PrepareSpeech, done: set[str]
) -> Iterator[tuple[Clip, np.ndarray, list[Timing] | None]]:
    """All clips whose names are not in `done`."""
    yield from _aligned_clips([clip for clip in clips if clip.name not in done], _published_times(data))
    rng = np.random.default_rng(config.seed)
    texts = sorted(
        {clip.text for clip in clips if clip.text and clip.corpus in _SPOKEN_TEXTS and clip.split == "train"}
    )
    for i in tqdm(range(config.synthetic), desc="synthesise", unit="clip"):
        text, stretch, pitch = _shuffled_words(texts, rng), rng.uniform(0.8, 1.3), rng.uniform(0.75, 1.35)
        if (name := f"flite_{i}") in done:
            continue
        voice = FLITE_VOICES[i % len(FLITE_VOICES)]
        samples_S, phones = synthesise_flite(text, voice, stretch=stretch, pitch=pitch)
        clip = Clip(name=name, corpus="flite", speaker=f"flite/{voice}", path=Path(), text=text, split="train")
        yield clip, samples_S, phones
    for wanted, spoken in ((config.languages, _foreign_clips(config.seed)), (config.kokoro, _kokoro_clips())):
        if wanted:
            yield from (found for found in spoken if found[0].name not in done)


def _aligned_clips(
    clips: list[Clip], published: dict[str, list[Timing]]
) -> Iterator[tuple[Clip, np.ndarray, list[Timing] | None]]:
    """Recordings with published times or aligned words: of two hearings, those that the aligner scores higher."""
    aligner = Aligner()
    n_others = 0
    for clip in tqdm(clips, desc="align", unit="clip"):
        samples_S = _decode(clip.path)
        if (phones := published.get(clip.name)) or clip.text is None:
            yield clip, samples_S, phones
            continue
        aligned = aligner.scored(samples_S, clip.text)
        other = aligner.scored(samples_S, clip.other_text) if clip.other_text else None
        if other and (aligned is None or other.score > aligned.score):
            clip, aligned = replace(clip, text=clip.other_text), other
            n_others += 1
        yield clip, samples_S, aligned and aligned.phones
    if n_others:
        print(f"{n_others} clips: Whisper's words fit better than those of {HEARD.name}")
    if aligner.unknown:
        print(
            f"warning: clips with {len(aligner.unknown)} words that the dictionary lacks, as {min(aligner.unknown)!r}, "
            "have no phone times; espeak-ng (`apt install espeak-ng`) can pronounce them"
        )


def _foreign_clips(seed: int) -> Iterator[tuple[Clip, np.ndarray, list[Timing]]]:
    """Speech in other languages, if espeak-ng is installed; without text, since sentence models are English. All of it
    is spoken even if some is known, as the engine's voice depends on what it said before."""
    from .espeak import speak_foreign

    try:
        for _, name, samples_S, phones in tqdm(speak_foreign(seed), desc="languages", unit="clip"):
            speaker = f"espeak/{name.split('_')[1]}"
            clip = Clip(name=f"espeak_{name}", corpus="espeak", speaker=speaker, path=Path(), text=None, split="train")
            yield clip, samples_S, phones
    except MissingFileError as error:
        print(f"warning: no speech in other languages: {error}")


def _kokoro_clips() -> Iterator[tuple[Clip, np.ndarray, list[Timing]]]:
    """Kokoro's native voices, from its cache or spoken now."""
    from .kokoro import speak_all

    for spoken in speak_all():
        yield Clip(
            name=f"kokoro_{spoken.name}", corpus="kokoro", speaker=f"kokoro/{spoken.voice}", path=Path(),
            text=spoken.text if spoken.language == "en" else None, split="train",
        ), spoken.samples_S, spoken.phones  # fmt: skip


def _published_times(data: Path) -> dict[str, list[Timing]]:
    tables = (read(data / corpus) for corpus in CORPORA for read in (published_times, festvox_times))
    return {name: times for table in tables for name, times in table.items()}


def _shuffled_words(texts: list[str], rng: np.random.Generator) -> str:
    """Two sentences' words, shuffled in runs of three, for new phone contexts with natural stress in the runs."""
    words = " ".join(rng.choice(texts, 2)).split()[:24]
    runs = [words[i : i + 3] for i in range(0, len(words), 3)]
    rng.shuffle(runs)
    return " ".join(word for run in runs for word in run)


def _decode(path: Path) -> np.ndarray:
    samples_S, rate_hz = sf.read(path, dtype="int16")
    if rate_hz != SAMPLE_RATE_HZ or samples_S.ndim != 1:
        raise UserError(
            "{path}: {rate_hz} Hz, {axes} axes; 16 kHz mono is needed",
            path=path,
            rate_hz=rate_hz,
            axes=samples_S.ndim,
        )
    return samples_S


def _report(records: list[SpeechRecord]) -> None:
    for corpus in sorted({record.corpus for record in records}):
        some = [record for record in records if record.corpus == corpus]
        minutes = sum(record.n_samples for record in some) / SAMPLE_RATE_HZ / 60
        timed = sum(record.phones is not None for record in some)
        print(f"{corpus}: {len(some)} clips, {minutes:.1f} min, {timed} with phone times")
