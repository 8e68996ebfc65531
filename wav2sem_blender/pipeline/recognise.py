# SPDX-License-Identifier: GPL-3.0-or-later
"""Words without a transcript: a Whisper model that the user has on disk writes one, by faster-whisper.

Neither is part of the program. What the recogniser writes is treated as any transcript: its words get their times from
our ear, and those that do not fit what was heard are not followed. So words that it makes up in music or silence do no
harm. The same recording gives the same words, whatever was heard before: nothing is drawn at random.

Shape: S samples.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import MissingFileError, UserError
from ..offline import silence_libraries
from .frame_timing import SAMPLE_RATE_HZ
from .words.pronunciation import known_language
from .words.transcript import Line, Transcript, parse_transcript

if TYPE_CHECKING:
    from .audio import Speech
    from .sound_file import StageProgress

MODULE = "faster_whisper"
FILES = ("model.bin", "config.json", "tokenizer.json")
"""What a folder of faster-whisper has; without the last it would ask a hub."""
VOCABULARIES = ("vocabulary.txt", "vocabulary.json")
"""One of these is there, too."""
_PART_S, _CUT_S = 300.0, 30.0  # a long recording is heard in parts, cut at the quietest place of their last seconds
_RMS = 0.05
_IN_BRACKETS = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|[*{}\[\]]")


class Recognised(NamedTuple):
    """What a recogniser wrote.

    Attributes:
        transcript: Its lines with their times.
        language: The language that it heard, as in `LANGUAGES`, or "".
        text: The same lines as they are written; read as a transcript, it has the same words.
    """

    transcript: Transcript
    language: str
    text: str


class NoLibraryError(UserError):
    """This Python has no faster-whisper, or one that does not load."""


def check_folder(folder: Path) -> None:
    """Check that a folder may be a Whisper model, by the names of its files; nothing is read.

    Raises:
        MissingFileError: There is no such folder.
        UserError: It lacks files; the message names them.
    """
    if not folder.is_dir():
        raise MissingFileError("{folder}: there is no such folder with a speech recogniser.", folder=folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in VOCABULARIES):
        missing.append(VOCABULARIES[0])
    if missing:
        raise UserError(
            "{folder} is no Whisper model for faster-whisper: it has no {missing}.",
            folder=folder,
            missing=", ".join(missing),
        )


class Recogniser:
    """A loaded speech recogniser."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load it.

        Args:
            folder: A Whisper model in CTranslate2's format, of any size.
            device: As of a model, such as "auto" or "cuda:1"; what is no "cuda" is heard on the CPU.

        Raises:
            MissingFileError: There is no such folder.
            NoLibraryError: faster-whisper is not installed, or does not load.
            UserError: The folder has no model that it reads.
        """
        check_folder(folder)
        silence_libraries()
        try:
            from faster_whisper import WhisperModel
        except (ImportError, OSError) as error:  # OSError: a library of the system that its own need
            raise no_library(_reason(error)) from error
        try:
            is_cuda = device.startswith("cuda")
            self._model: Any = WhisperModel(
                str(folder),
                device="cuda" if is_cuda else "cpu",
                compute_type="default" if is_cuda else "int8",
                local_files_only=True,
            )
        except Exception as error:  # the libraries raise RuntimeError, ValueError and their own
            raise UserError(
                "{folder}: this model cannot be loaded ({reason}).", folder=folder, reason=_reason(error)
            ) from error

    def recognise(self, speech: Speech, language: str = "", progress: StageProgress | None = None) -> Recognised | None:
        """Write down what is said; None if no words are.

        Args:
            speech: The recording, of any length.
            language: What is spoken, such as "de"; "" lets the recogniser hear it, once for the recording.
            progress: Called with ("words", fraction).

        Raises:
            UserError: The model does not know the language.
        """
        language = known_language(language) if language else ""
        lines: list[Line] = []
        texts: list[str] = []
        for first, samples_S in _parts(speech):
            try:
                found, about = self._model.transcribe(
                    samples_S,
                    language=_NAMES.get(language, language) or None,
                    condition_on_previous_text=False,
                    temperature=0.0,
                )
                for each in found:
                    start_s, end_s = (first / SAMPLE_RATE_HZ + float(t) for t in (each.start, each.end))
                    text = " ".join(_IN_BRACKETS.sub(" ", each.text).split())
                    if these := list(_lines(text, start_s, end_s)):
                        lines += these
                        texts.append(text)
                    if progress:
                        progress("words", min(1.0, end_s * SAMPLE_RATE_HZ / speech.n_samples))
            except ValueError as error:
                raise UserError(
                    "The recogniser does not know the language {language!r} ({reason}).",
                    language=language,
                    reason=_reason(error),
                ) from error
            language = language or _known(about.language)
        if progress:
            progress("words", 1.0)
        if not lines:
            return None
        return Recognised(Transcript(lines=tuple(lines)), language, "\n".join(texts))


def no_library(reason: str) -> NoLibraryError:
    """The error of a Python without faster-whisper."""
    return NoLibraryError(
        "Recognising words needs faster-whisper, which the Python {executable} does not load ({reason}). In Blender, "
        "install it in the add-on's preferences; elsewhere: pip install faster-whisper.",
        executable=sys.executable,
        reason=reason,
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


_NAMES = {"nb": "no"}  # what Whisper calls our languages


def _known(language: str) -> str:
    try:
        return known_language(language)
    except UserError:
        return ""


def _lines(text: str, start_s: float, end_s: float) -> Iterator[Line]:
    """A recogniser's line, without its brackets, which hold sounds, and its asterisks, which are no markup."""
    try:
        lines = parse_transcript(text).lines
    except UserError:  # no words
        return
    for line in lines:
        yield line._replace(start_s=start_s, end_s=end_s)


def _parts(speech: Speech) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of a recording: the first sample of each, and its samples (S,) at a usual level."""
    first, n_part, n_cut = 0, int(_PART_S * SAMPLE_RATE_HZ), int(_CUT_S * SAMPLE_RATE_HZ)
    while first < speech.n_samples:
        samples_S = speech.read(first, min(first + n_part, speech.n_samples))
        if first + len(samples_S) < speech.n_samples:
            hop = SAMPLE_RATE_HZ // 4
            levels = np.square(samples_S[-n_cut:].reshape(-1, hop)).mean(1)
            samples_S = samples_S[: len(samples_S) - n_cut + int(levels.argmin()) * hop + hop // 2]
        yield first, np.clip(samples_S * _RMS, -1, 1).astype(np.float32)
        first += len(samples_S)
