# SPDX-License-Identifier: GPL-3.0-or-later
"""Phone times: forced alignment of real recordings (pocketsphinx), and speech synthesised with its own times (flite).

Phones are the 39 of the CMU dictionary plus SIL; times are seconds.
"""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from wav2sem_blender.errors import MissingFileError, UserError

from .phones import PHONES, Timing

_PAD_S = 0.2
_FLITE_TO_CMU = {"PAU": "SIL", "AX": "AH", "AXR": "ER", "IX": "IH", "EL": "L", "EM": "M", "EN": "N", "DX": "D"}

_FESTVOX_TO_CMU = {
    label: tuple(phones.split(","))
    for label, phones in (pair.split(":") for pair in """
    pau:SIL a:AH aa:AA ay:AH ae:IH e:EH ee:EH i:IY ii:IY y:IH yy:IH oo:OW u:UW uu:UW ur:UW c:T,S ch:CH sch:SH sh:SH
    zh:ZH h:HH hh:HH j:Y
    """.split())
}  # fmt: skip  # any other label is its consonant's letter, once or twice


class Aligned(NamedTuple):
    """Phone times, and their score: the acoustic model's mean over the 10 ms steps of phones other than silence; it is
    below 0, and higher is better."""

    phones: list[Timing]
    score: float


class Aligner:
    """Two pocketsphinx passes: words, then their phones. It uses the default beams, as wider ones fail more often.

    espeak-ng, if installed, pronounces the words that the dictionary lacks.
    """

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
        self._rng = np.random.default_rng(0)
        self.unknown: set[str] = set()

    def __call__(self, samples_S: np.ndarray, text: str) -> list[Timing] | None:
        """Phone times of `text` in `samples_S` (int16, 16 kHz); None if alignment fails or a word has no known
        pronunciation (such words are in `unknown`)."""
        aligned = self.scored(samples_S, text)
        return aligned and aligned.phones

    def scored(self, samples_S: np.ndarray, text: str) -> Aligned | None:
        """As a call, with the score, by which two hearings of a recording compare."""
        words = [word.strip("'") for word in text.split()]
        if not words or not all([self._knows(word) for word in words]):
            return None
        return self._align(samples_S, words)

    def word_times(self, samples_S: np.ndarray, text: str) -> list[Timing] | None:
        """Times of the words of `text`, as many and in this order; None as for a call."""
        words = [word.strip("'") for word in text.split()]
        if not words or not all([self._knows(word) for word in words]):
            return None
        heard = [phones for name, phones in self._heard(samples_S, words) if not name.startswith("<")]
        if len(heard) != len(words):
            return None
        end = len(samples_S) / 16000
        return [
            (word, max(0.0, phones[0][1] - _PAD_S), min(end, phones[-1][2] - _PAD_S))
            for word, phones in zip(words, heard, strict=True)
        ]

    def pronounced(self, samples_S: np.ndarray, words: Sequence[Sequence[str]]) -> Aligned | None:
        """Phone times of words with given phones: speech in any language, or another pronunciation."""
        names = ["_".join(word) for word in words]  # the dictionary's own words are lower-case
        for name, word in zip(names, words, strict=True):
            if self._decoder.lookup_word(name) is None:
                self._decoder.add_word(name, " ".join(word), True)
        return self._align(samples_S, names) if names else None

    def _align(self, samples_S: np.ndarray, words: list[str]) -> Aligned | None:
        phones = [phone for _, of_word in self._heard(samples_S, words) for phone in of_word]
        if not phones:
            return None
        end = len(samples_S) / 16000
        times = [(p, max(0.0, b - _PAD_S), min(end, e - _PAD_S)) for p, b, e, _ in phones if e > _PAD_S]
        sounding = [(e - b, score) for p, b, e, score in phones if p != "SIL"]
        steps = 100 * sum(duration for duration, _ in sounding)
        return Aligned(times, sum(score for _, score in sounding) / max(steps, 1))

    def _heard(self, samples_S: np.ndarray, words: list[str]) -> list[tuple[str, list[tuple[str, float, float, int]]]]:
        """The aligned words, and silences as "<sil>", with their phones, which begin `_PAD_S` late; [] if it fails."""
        pad = int(_PAD_S * 16000)
        for gain in (1.0, 0.5, 1.6):
            noise = self._rng.normal(0, 4, len(samples_S) + 2 * pad)
            padded = np.clip(np.pad(samples_S * gain, pad) + noise, -32768, 32767).astype(np.int16).tobytes()
            try:
                heard = self._two_passes(padded, " ".join(words))
            except RuntimeError:  # pocketsphinx raises it if no path reached the end
                continue
            if heard:
                return heard
        return []

    def _knows(self, word: str) -> bool:
        if self._decoder.lookup_word(word) is None:
            from .espeak import pronounce

            try:
                phones = pronounce(word)
            except MissingFileError:  # espeak-ng is not installed
                phones = None
            if not phones:
                self.unknown.add(word)
                return False
            self._decoder.add_word(word, " ".join(phones), True)
        return True

    def _two_passes(self, padded: bytes, text: str) -> list[tuple[str, list[tuple[str, float, float, int]]]]:
        decoder = self._decoder
        decoder.set_align_text(text)
        for second in (False, True):
            if second:
                decoder.set_alignment()
            decoder.start_utt()
            decoder.process_raw(padded, full_utt=True)
            decoder.end_utt()
        return [
            (
                word.name,
                [(phone.name, phone.start / 100, (phone.start + phone.duration) / 100, phone.score) for phone in word],
            )
            for word in decoder.get_alignment()
        ]


def published_times(folder: Path) -> dict[str, list[Timing]]:
    """Phone times published with a corpus (alignments.tsv.gz: clip, tier, start, end, label), by clip name."""
    times: dict[str, list[Timing]] = {}
    path = folder / "alignments.tsv.gz"
    if not path.is_file():
        return times
    with gzip.open(path, "rt", encoding="utf-8") as table:
        for line in table:
            clip, tier, start, end, label = line.rstrip("\n").split("\t")
            phone = label.upper().rstrip("012")
            if tier == "phones":
                times.setdefault(clip, []).append((phone if phone in PHONES else "SIL", float(start), float(end)))
    return times


def festvox_times(folder: Path) -> dict[str, list[Timing]]:
    """Phone times of festvox-ru (phones.tsv.gz: clip, start, end, label), by clip name; {} if `folder` has none.

    A doubled vowel is stressed, a doubled consonant is soft; `ay`, `ae` and `ur` are reduced vowels.
    """
    times: dict[str, list[Timing]] = {}
    if not (folder / "phones.tsv.gz").is_file():
        return times
    with gzip.open(folder / "phones.tsv.gz", "rt", encoding="utf-8") as table:
        next(table)
        for line in table:
            clip, start, end, label = line.split()
            phones = _FESTVOX_TO_CMU.get(label) or (label[0].upper(),)
            at, step = float(start), (float(end) - float(start)) / len(phones)
            timed = times.setdefault(clip, [])
            timed += [(phone, at + i * step, at + (i + 1) * step) for i, phone in enumerate(phones)]
    return times


def synthesise_flite(text: str, voice: str, stretch: float, pitch: float) -> tuple[np.ndarray, list[Timing]]:
    """Speech of a flite voice with exact phone times.

    Args:
        stretch: duration factor; pitch: factor on the voice's mean pitch.

    Returns:
        samples (S,) int16 at 16 kHz and the phones.

    Raises:
        MissingFileError: flite is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={stretch:.3f}"]
        command += ["--setf", f"f0_shift={pitch:.3f}", "-t", text, "-o", str(wav)]
        try:
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError as error:
            raise MissingFileError("flite is not installed (Debian: `apt install flite`)") from error
        samples_S, _ = sf.read(wav, dtype="int16")
    phones: list[Timing] = []
    start = 0.0
    for item in printed.split():
        name, _, end = item.rpartition(":")
        phone = _FLITE_TO_CMU.get(name.upper(), name.upper())
        if phone not in PHONES:
            raise UserError("flite's phone {name!r} has no counterpart in the CMU set", name=name)
        phones.append((phone, start, float(end)))
        start = float(end)
    return samples_S, phones
