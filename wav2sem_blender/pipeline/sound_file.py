# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound files: opened by libsndfile and read in blocks, or refused with a sentence that says what the file is instead.

Shape suffixes: C channels, N source samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..errors import MissingFileError, UserError

BLOCK = 65_536
# MP3 headers count frames of 1152 samples and may include the encoder's padding.
_MP3_SLACK = 3 * 1152

Progress = Callable[[str, float], None]


class _ForwardOnly(soundfile.SoundFile):
    """A sound file that is only read from start to end.

    soundfile seeks to where it already is after every read of a seekable file. libsndfile's mp3 decoder loses its bit
    reservoir by that: the first 46 ms of every block came out wrong (measured, by up to 0.35 of full scale).
    """

    def seekable(self) -> bool:
        return False


def file_blocks(source: soundfile.SoundFile, name: str, progress: Progress | None) -> Iterator[np.ndarray]:
    """Blocks of float32 (samples, C); raises ValueError when the file ends before its header says."""
    n_read, rate_hz = 0, source.samplerate
    # A header without a length (flac from a pipe) reads as the largest integer.
    n_promised = source.frames if 0 <= source.frames < 2**60 else 0
    while True:
        try:
            block_NC = source.read(BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = str(error).rstrip(".")
            raise ValueError(_cut_off(name, n_read / rate_hz, n_promised / rate_hz, f" ({reason})")) from error
        if not len(block_NC):
            break
        n_read += len(block_NC)
        yield block_NC
        if progress and n_promised:
            progress("audio", min(1.0, n_read / n_promised))
    slack = _MP3_SLACK if source.format == "MP3" else 0
    if n_read < n_promised - slack:
        raise ValueError(_cut_off(name, n_read / rate_hz, n_promised / rate_hz))


def _cut_off(name: str, read_s: float, promised_s: float, reason: str = "") -> str:
    of = f" of {promised_s:.1f} s" if promised_s else ""
    return f"{name}: the file is damaged or cut off after {read_s:.1f} s{of}{reason}; copy or export it again."


def open_sound(path: Path) -> soundfile.SoundFile:
    """The file opened by libsndfile, or an error that says what the file is instead."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError("{path}: the file is empty (0 bytes); record or export it again.", path=path.name)
    container = _foreign_container(head)
    if container:
        raise UserError(
            "{path}: {container} cannot be decoded here. Blender can decode it: choose it in the Speech panel, or "
            "convert it to wav.",
            path=path.name,
            container=container,
        )
    try:
        return _ForwardOnly(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        what = "it contains text" if _is_text(head) else "no known format, or a damaged header"
        raise UserError(
            "{path}: this is no audio file ({what}); choose a wav, flac, ogg or mp3 file.",
            path=path.name,
            what=what,
        ) from error


def _foreign_container(head: bytes) -> str | None:
    """Formats people have and libsndfile does not read, recognised by content because names lie."""
    if head[4:8] == b"ftyp":
        return "an MPEG-4 / QuickTime file (m4a, mp4, mov)"
    if head[4:8] in (b"moov", b"wide", b"mdat"):
        return "a QuickTime file (mov)"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "a Matroska file (mkv, webm)"
    if head.startswith(b"\x30\x26\xb2\x75"):
        return "a Windows Media file (wma, wmv)"
    if head.startswith((b"\xff\xf1", b"\xff\xf9")):
        return "an AAC file"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "an AVI file"
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character cut in two at the end is still text
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def file_sha256(path: Path) -> str:
    """Hash of the file's bytes; first to touch the file, so a missing or unreadable one is noticed here (OSError)."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise MissingFileError(
            "{path}: there is no such audio file. Choose it again where it lies now.", path=path
        ) from error
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror
        raise UserError(
            "{path} cannot be read ({reason}); choose an audio file that can be opened.",
            path=path,
            reason=reason,
        ) from error
    return digest.hexdigest()
