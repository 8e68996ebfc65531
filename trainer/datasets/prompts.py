# SPDX-License-Identifier: GPL-3.0-or-later
"""Telephone prompts of professional speakers, in the layout of Debian's packages of Asterisk's core sounds.

For evaluation only: one speaker per language, none of whom the bundled model learnt from. Each language has two
packages, unpacked into one folder: LANGUAGE's transcripts, `core-sounds-LANGUAGE.txt.gz` (lines of "name: text"),
and its recordings, `sounds/VOICE/NAME.g722`, where VOICE starts with the language.
"""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ

ESPEAK_VOICES = {"en": "en-us", "es": "es-419", "fr": "fr", "it": "it", "ru": "ru"}
G722_BYTES_PER_S = 8000
_NOT_SPOKEN = re.compile(r"[\[(]|\?\s+[^\W\dA-Z_]")  # a note about a sound; a letter lost by an encoding


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A recording and what is said in it."""

    name: str
    language: str
    speaker: str
    text: str
    path: Path

    @property
    def duration_s(self) -> float:
        """From the file's size, as the codec's rate is constant."""
        return self.path.stat().st_size / G722_BYTES_PER_S

    def samples(self) -> np.ndarray:
        """int16 (S,) at 16 kHz.

        Raises:
            MissingFileError: ffmpeg is not installed.
            UserError: ffmpeg cannot read the file.
        """
        command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", str(self.path)]
        command += ["-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-"]
        try:
            decoded = subprocess.run(command, capture_output=True, check=True).stdout
        except FileNotFoundError as error:
            raise MissingFileError("ffmpeg is not installed (Debian: `apt install ffmpeg`)") from error
        except subprocess.CalledProcessError as error:
            raise UserError(
                "{path}: {reason}", path=self.path, reason=error.stderr.decode(errors="replace").strip()
            ) from error
        return np.frombuffer(decoded, np.int16)


def list_prompts(data: Path, shortest_s: float, longest_s: float) -> dict[str, list[Prompt]]:
    """Prompts by language with a transcript and a duration in range, ordered by a hash of their names, so that the
    first few are a fair sample.

    Raises:
        MissingFileError: `data` holds none.
    """
    found: dict[str, list[Prompt]] = {}
    for transcripts in sorted(data.rglob("core-sounds-*.txt.gz")):
        language = transcripts.name.removeprefix("core-sounds-").removesuffix(".txt.gz")
        for folder in sorted(data.rglob(f"sounds/{language}_*")) if language in ESPEAK_VOICES else ():
            prompts = [
                Prompt(name=name, language=language, speaker=folder.name, text=text, path=folder / f"{name}.g722")
                for name, text in _lines(transcripts)
                if (folder / f"{name}.g722").is_file()
            ]
            heard = [prompt for prompt in prompts if shortest_s <= prompt.duration_s <= longest_s]
            if heard:
                found[language] = sorted(heard, key=lambda prompt: crc32(prompt.name.encode()))
    if not found:
        raise MissingFileError(
            "{data}: no prompts; unpack Debian's asterisk-core-sounds-fr and asterisk-core-sounds-fr-g722 there "
            "(languages: {languages})",
            data=data,
            languages=", ".join(ESPEAK_VOICES),
        )
    return found


def _lines(transcripts: Path) -> Iterator[tuple[str, str]]:
    """Name and text of the prompts that consist of words."""
    with gzip.open(transcripts, "rt", encoding="utf-8") as lines:
        for line in lines:
            name, colon, text = line.strip().partition(": ")
            if colon and not name.startswith(";") and not _NOT_SPOKEN.search(text):
                yield name, text
