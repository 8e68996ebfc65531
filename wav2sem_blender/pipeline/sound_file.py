# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound files, read in blocks by libsndfile; a file that it cannot read is refused, with what the file is instead.

Shape suffixes: C channels, N source samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from ..errors import MissingFileError, Text, UserError
from ..leftovers import made_folder
from .sound_parts import found_in
from .sound_view import View
from .stand_ins import refuse_stand_in

BLOCK = 65_536
# MP3 headers count frames of 1152 samples and may include the encoder's padding.
_MP3_FRAME = 1152
_MP3_SLACK = 3 * _MP3_FRAME
# How long to wait for a pipe's first byte, and for each next one; and what is read of it at most.
_FIRST_BYTE_S, _NEXT_BYTE_S = 10.0, 60.0
_MAX_PIPE_BYTES = 4 << 30
# What a recording may have: 2.8 GB once it is decoded, and as many samples as stereo at 192 kHz has in that time.
MAX_DURATION_S = 12 * 3600.0
_MAX_VALUES = int(MAX_DURATION_S) * 192_000 * 2
# Recordings that were joined into one file; each one's decoder takes memory.
_MAX_PARTS = 1000

StageProgress = Callable[[str, float], None]


class _ForwardOnly(soundfile.SoundFile):
    """A sound file that is only read from start to end.

    After every read of a seekable file, soundfile seeks to the current position. That clears the bit reservoir of
    libsndfile's mp3 decoder: the first 46 ms of every block were wrong, by up to 0.35 of full scale (measured).
    """

    def seekable(self) -> bool:
        return False


class Sound:
    """An open sound file, whose parts are heard one after the other; a context manager.

    Attributes:
        notes: What is missing or damaged, once the blocks are read.
        samplerate: In Hz.
        channels: C.
        frames: Samples that the file promises; 0 if it promises nothing.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self.notes: list[Text] = []
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._found = found_in(data)
            if self._found.parts and len(self._found.parts) > _MAX_PARTS:
                raise UserError(
                    "{file}: more than {limit} recordings are joined in this file; split it.",
                    file=name,
                    limit=_MAX_PARTS,
                )
            # soundfile encodes a text strictly, and a name in Latin-1 from an old archive is no UTF-8.
            whole = str(path) if os.name == "nt" else os.fsencode(path)
            sources = [View(file, pieces) for pieces in self._found.parts] if self._found.parts else [whole]
            self._parts = [stack.enter_context(_ForwardOnly(source)) for source in sources]
            first = self._parts[0]
            self.samplerate, self.channels = first.samplerate, first.channels
            alike = all((part.samplerate, part.channels) == (self.samplerate, self.channels) for part in self._parts)
            if self._found.mixed or not alike:
                raise UserError(
                    "{file}: recordings of different sample rates or channels are joined in this file; convert each to "
                    "wav.",
                    file=name,
                )
            self._on_close = stack.pop_all()
        # libsndfile returns the largest integer if the header has no length (flac from a pipe).
        stated = self._found.lengths or [part.frames if 0 <= part.frames < 2**60 else 0 for part in self._parts]
        self.frames = sum(stated)
        promised, present = self._found.n_frames or (0, 0)
        self._lacks_frames = present + _MP3_FRAME < promised  # some encoders count the frame that says so
        if self._found.parts:  # then their lengths are what is present
            self.frames += max(0, promised - present)

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *error: object) -> None:
        self._on_close.close()

    def check_length(self, n_samples: int) -> None:
        """Raise UserError if that many samples are more than a recording may have: packed silence takes no space."""
        if n_samples > MAX_DURATION_S * self.samplerate or n_samples * self.channels > _MAX_VALUES:
            raise UserError(
                "{file}: more than {hours:g} hours of sound (at 192 kHz in stereo, or less of a larger format); cut it "
                "into parts.",
                file=self._name,
                hours=MAX_DURATION_S / 3600,
            )

    def blocks(self, progress: StageProgress | None) -> Iterator[np.ndarray]:
        """Blocks (samples, C) of int16 or float32.

        Raises:
            UserError: The file is clearly shorter than it promises, or longer than a recording may be.
        """
        n_read, rate_hz = 0, self.samplerate
        for part in self._parts:
            dtype = "int16" if part.subtype == "PCM_16" else "float32"  # libsndfile converts slower than it reads
            while True:
                try:
                    block_NC = part.read(BLOCK, dtype=dtype, always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise _cut_off(self._name, n_read / rate_hz, self.frames / rate_hz) from error
                if not len(block_NC):
                    break
                n_read += len(block_NC)
                self.check_length(n_read)
                yield block_NC
                if progress and self.frames:
                    progress("audio", min(1.0, n_read / self.frames))
        n_missing = self.frames - n_read
        if n_missing > (_MP3_SLACK if self._parts[0].format == "MP3" else 0):
            raise _cut_off(self._name, n_read / rate_hz, self.frames / rate_hz)
        if self._found.holes:
            self.notes.append(
                Text("the file is damaged in {n_places} places, where sound is missing", n_places=self._found.holes)
            )
        if self._found.open_end or self._lacks_frames:
            template = "the file is cut off after {read_s:.1f} s; the end of the recording may be missing"
            self.notes.append(Text(template, read_s=n_read / rate_hz))


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


def open_sound(path: Path, name: str | None = None) -> Sound:
    """Open the file with libsndfile; raises UserError with what the file is instead.

    Args:
        path: The file.
        name: What messages call it, if it is a copy.
    """
    name = name or path.name
    if not path.is_file() and path.exists():  # opening a pipe waits for its other end
        raise UserError("{file}: this is no file, but a folder, a pipe or a device; choose a sound file.", file=name)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError("{file}: the file is empty (0 bytes); record or export it again.", file=name)
    refuse_stand_in(path, name)
    if container := _foreign_container(head):
        raise _undecodable(name, container)
    try:
        return Sound(path, name)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        if container := _foreign_codec(head):
            raise _undecodable(name, container) from error
        reason = "it contains text" if _is_text(head) else "no known format, or a damaged header"
        raise UserError(
            "{file}: this is no audio file ({reason}); choose a wav, flac, ogg or mp3 file.",
            file=name,
            reason=Text(reason),
        ) from error


def _undecodable(name: str, container: Text) -> UserError:
    return UserError(
        "{file}: {container} cannot be decoded here. Blender can decode it: choose it in the Speech panel, or "
        "convert it to wav.",
        file=name,
        container=container,
    )


@contextlib.contextmanager
def regular_file(path: Path, temp_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The file itself, or a temporary copy of what can be read only once: a pipe.

    Raises:
        UserError: Nothing comes out of the pipe for a while, too much does, or it is a device.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = stat.S_IFREG  # whoever opens it says why
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        yield path
        return
    if not stat.S_ISFIFO(mode):
        raise UserError("{file}: this is a device, not a recording; save the sound to a file.", file=path)
    with made_folder("wav2sem_pipe_", None if temp_dir is None else Path(temp_dir)) as folder:
        try:
            with (folder / "sound").open("wb") as copy:
                _drain(path, copy)
        except OSError as error:
            raise UserError(
                "{file} cannot be read ({reason}); choose an audio file that can be opened.",
                file=path,
                reason=error.strerror,
            ) from error
        yield folder / "sound"


def _drain(path: Path, copy: IO[bytes]) -> None:
    n_bytes = 0
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        deadline_s = time.monotonic() + _FIRST_BYTE_S
        while True:
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(pipe, 1 << 16)
                if not chunk and n_bytes:
                    return
                if chunk:
                    n_bytes += copy.write(chunk)
                    if n_bytes > _MAX_PIPE_BYTES:
                        raise UserError(
                            "{file}: more than {limit_gb:.0f} GB come out of this pipe; save the sound to a file.",
                            file=path,
                            limit_gb=_MAX_PIPE_BYTES / 1e9,
                        )
                    deadline_s = time.monotonic() + _NEXT_BYTE_S
                    continue
            if time.monotonic() > deadline_s:
                raise UserError("{file}: nothing comes out of this pipe; save the sound to a file.", file=path)
            time.sleep(0.02)
    finally:
        os.close(pipe)


def _foreign_container(head: bytes) -> Text | None:
    """The name of a common format that libsndfile cannot read, recognised by content; None for any other."""
    if head[4:8] == b"ftyp":
        return Text("an MPEG-4 / QuickTime file (m4a, mp4, mov)")
    if head[4:8] in (b"moov", b"wide", b"mdat"):
        return Text("a QuickTime file (mov)")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return Text("a Matroska file (mkv, webm)")
    if head.startswith(b"\x30\x26\xb2\x75"):
        return Text("a Windows Media file (wma, wmv)")
    if head.startswith((b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9", b"ADIF")):
        return Text("an AAC file")
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return Text("an AVI file")
    for codec, starts in _CODECS.items():
        if head.startswith(starts):
            return Text("a file with {codec} sound", codec=codec)
    if head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
        return Text("a file with {codec} sound", codec="MPEG-TS")
    return None


def _foreign_codec(head: bytes) -> Text | None:
    """The codec in a container that libsndfile reads, where it does not read the codec."""
    codec = None
    if head.startswith((b"RIFF", b"RIFX", b"RF64")) and (at := head.find(b"fmt ", 12)) >= 0:
        tag_at = at + 32 if head[at + 8 : at + 10] in (b"\xfe\xff", b"\xff\xfe") else at + 8
        tag = int.from_bytes(head[tag_at : tag_at + 2], "big" if head.startswith(b"RIFX") else "little")
        codec = None if tag in _WAV_CODECS_READ else _WAV_CODECS.get(tag, f"0x{tag:04X}")
    elif head.startswith(b"OggS") and len(head) > 28:
        packet = head[27 + head[26] :]
        codec = next((name for name, start in _OGG_CODECS.items() if packet.startswith(start)), None)
    elif head.startswith(b"FORM") and head[8:12] == b"AIFC" and (at := head.find(b"COMM", 12)) >= 0:
        codec = _four(
            head[at + 26 : at + 30], b"NONE sowt twos raw  fl32 FL32 fl64 FL64 in24 in32 ulaw ULAW alaw ALAW ima4"
        )
    elif head.startswith(b"caff"):
        codec = _four(head[28:32], b"lpcm alac ulaw alaw")
    elif head.startswith(b".snd") and (encoding := int.from_bytes(head[12:16], "big")) not in _AU_ENCODINGS_READ:
        codec = f"AU {encoding}"
    return None if codec is None else Text("a file with {codec} sound", codec=codec)


def _four(name: bytes, known: bytes) -> str | None:
    is_foreign = len(name) == 4 and name not in known and all(32 <= byte < 127 for byte in name)
    return name.decode("ascii").strip() if is_foreign else None


# Formats by how their files begin.
_CODECS = {
    "AC-3": (b"\x0b\x77", b"\x77\x0b"),
    "DTS": (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8", b"DTSHDHDR"),
    "AMR": (b"#!AMR",),
    "SILK": (b"#!SILK", b"\x02#!SILK"),
    "WavPack": (b"wvpk",),
    "Monkey's Audio": (b"MAC ",),
    "True Audio": (b"TTA1", b"TTA2"),
    "TAK": (b"tBaK",),
    "OptimFROG": (b"OFR ",),
    "Shorten": (b"ajkg",),
    "Musepack": (b"MPCK", b"MP+"),
    "DSD": (b"DSD ", b"FRM8"),
    "LATM": (b"\x56\xe0",),
    "Flash Video": (b"FLV\x01",),
    "MPEG-PS": (b"\0\0\1\xba",),
    "RealAudio": (b".RMF", b".ra\xfd"),
}
_OGG_CODECS = {"Ogg FLAC": b"\x7fFLAC", "Speex": b"Speex   ", "Theora": b"\x80theora", "OGM": b"\1video"}
# Those that libsndfile reads, and names of common others.
_WAV_CODECS_READ = {0x01, 0x02, 0x03, 0x06, 0x07, 0x11, 0x31, 0x55}
_WAV_CODECS = {
    0x08: "DTS",
    0x10: "OKI ADPCM",
    0x14: "G.723",
    0x22: "TrueSpeech",
    0x40: "G.721",
    0x45: "G.726",
    0x50: "MPEG",
    0x61: "Duck ADPCM",
    0x64: "G.726",
    0x65: "G.722",
    0x69: "IMA ADPCM",
    0xFF: "AAC",
    0x160: "Windows Media",
    0x161: "Windows Media",
    0x162: "Windows Media",
    0x270: "ATRAC3",
    0x1610: "AAC",
    0x2000: "AC-3",
    0x2001: "DTS",
    0xA109: "Speex",
    0xF1AC: "FLAC",
}
_AIFC_CODECS_READ = b"NONE sowt twos raw  fl32 FL32 fl64 FL64 in24 in32 ulaw ULAW alaw ALAW ima4"
_AU_ENCODINGS_READ = {1, 2, 3, 4, 5, 6, 7, 23, 25, 26, 27}


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
