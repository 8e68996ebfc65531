# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound files, read in blocks by libsndfile; a file that it cannot read is refused, with what the file is instead.

Shape suffixes: C channels, N source samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..errors import MissingFileError, Text, UserError

BLOCK = 65_536
# MP3 headers count frames of 1152 samples and may include the encoder's padding.
_MP3_SLACK = 3 * 1152

StageProgress = Callable[[str, float], None]


class _ForwardOnly(soundfile.SoundFile):
    """A sound file that is only read from start to end.

    After every read of a seekable file, soundfile seeks to the current position. That clears the bit reservoir of
    libsndfile's mp3 decoder: the first 46 ms of every block were wrong, by up to 0.35 of full scale (measured).
    """

    def seekable(self) -> bool:
        return False


def file_blocks(source: soundfile.SoundFile, name: str, progress: StageProgress | None) -> Iterator[np.ndarray]:
    """Blocks (samples, C) of int16 or float32; raises UserError if the file is shorter than its header says."""
    n_read, rate_hz = 0, source.samplerate
    dtype = "int16" if source.subtype == "PCM_16" else "float32"  # libsndfile converts slower than it reads
    # libsndfile returns the largest integer if the header has no length (flac from a pipe).
    n_promised = source.frames if 0 <= source.frames < 2**60 else 0
    while True:
        try:
            block_NC = source.read(BLOCK, dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _cut_off(name, n_read / rate_hz, n_promised / rate_hz) from error
        if not len(block_NC):
            break
        n_read += len(block_NC)
        yield block_NC
        if progress and n_promised:
            progress("audio", min(1.0, n_read / n_promised))
    slack = _MP3_SLACK if source.format == "MP3" else 0
    if n_read < n_promised - slack:
        raise _cut_off(name, n_read / rate_hz, n_promised / rate_hz)


def _cut_off(name: str, read_s: float, promised_s: float) -> UserError:
    if not promised_s:
        return UserError(
            "{file}: the file is damaged or cut off after {read_s:.1f} s; copy or export it again.",
            file=name,
            read_s=read_s,
        )
    return UserError(
        "{file}: the file is damaged or cut off after {read_s:.1f} s of {promised_s:.1f} s; copy or export it again.",
        file=name,
        read_s=read_s,
        promised_s=promised_s,
    )


def open_sound(path: Path) -> soundfile.SoundFile:
    """Open the file with libsndfile; raises UserError with what the file is instead."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError("{file}: the file is empty (0 bytes); record or export it again.", file=path.name)
    container = _foreign_container(head)
    if container:
        raise UserError(
            "{file}: {container} cannot be decoded here. Blender can decode it: choose it in the Speech panel, or "
            "convert it to wav.",
            file=path.name,
            container=Text(container),
        )
    try:
        return _ForwardOnly(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        reason = "it contains text" if _is_text(head) else "no known format, or a damaged header"
        raise UserError(
            "{file}: this is no audio file ({reason}); choose a wav, flac, ogg or mp3 file.",
            file=path.name,
            reason=Text(reason),
        ) from error


def _foreign_container(head: bytes) -> str | None:
    """The name of a common format that libsndfile cannot read, recognised by content; None for any other."""
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
    """Hash of the file's bytes; raises UserError for a file that is missing or unreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise MissingFileError(
            "{file}: there is no such audio file. Choose it again where it is now.", file=path
        ) from error
    except OSError as error:
        reason = Text("it is a folder") if path.is_dir() else error.strerror
        raise UserError(
            "{file} cannot be read ({reason}); choose an audio file that can be opened.", file=path, reason=reason
        ) from error
    return digest.hexdigest()
