# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames of an mp3 (ISO 11172-3), walked and counted, because libsndfile estimates their number.

It takes the mean length of the first frames, or the number that an info frame states. That is the number of the first
file where several were joined. It then stops early.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from .sound_view import FORGET_BYTES, Bytes, Found, after_id3, forget

_RATES_HZ = (44_100, 48_000, 32_000)
_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[2, 3] = _KBPS[2, 2]
_TAG_V1_BYTES = 128


def _frame_lengths() -> dict[int, int]:
    """Bytes of a frame by the second and third byte of its header; free formats are left out."""
    lengths = {}
    for version, bits in ((1, 3), (2, 2), (2.5, 0)):
        for layer in (1, 2, 3):
            for index, kbps in enumerate(_KBPS[min(2, int(version)), layer], start=1):
                for rate_index, rate_hz in enumerate(_RATES_HZ):
                    true_hz = rate_hz // (1, 2, 4)[(1, 2, 2.5).index(version)]
                    for padding in (0, 1):
                        if layer == 1:
                            length = (12_000 * kbps // true_hz + padding) * 4
                        else:
                            length = (72_000 if layer == 3 and version > 1 else 144_000) * kbps // true_hz + padding
                        second = 0xE0 | bits << 3 | (4 - layer) << 1
                        third = index << 4 | rate_index << 2 | padding << 1
                        for crc, private in ((0, 0), (0, 1), (1, 0), (1, 1)):
                            lengths[(second | crc) << 8 | third | private] = length
    return lengths


_LENGTHS = _frame_lengths()
# Samples that mpg123 leaves out beyond what an info frame says.
_DECODER_DELAY = 529
# What all frames of a stream have in common: version and layer, rate.
_KIND = 0x1E0C


def _frames_at(data: Bytes, at: int, n_frames: int) -> int | None:
    """The kind of so many frames in a row, fewer at the end of the file; None if they are not there."""
    kind = None
    while n_frames and at + 4 <= len(data):
        key = data[at + 1] << 8 | data[at + 2]
        length = _LENGTHS.get(key) if data[at] == 0xFF else None
        if length is None or (kind is not None and key & _KIND != kind):
            return None
        kind = key & _KIND
        at += length
        n_frames -= 1
    return kind


def mp3(data: Bytes, first: int) -> Found:  # noqa: PLR0912, PLR0915 (one walk)
    start = kind = None
    for match in re.finditer(rb"\xff[\xe2-\xff]", data[first : first + 65_536]):  # type: ignore[arg-type]
        start = first + match.start()
        if (kind := _frames_at(data, start, 3)) is not None:
            break
    if start is None or kind is None:
        return Found()
    at = begin = start
    ranges: list[tuple[int, int]] = []
    mono = data[at + 3] >> 6 == 3
    n_frames = holes = 0
    open_end = mixed = False
    size, lengths, kept = len(data), _LENGTHS, 0
    while at + 4 <= size:
        if at > kept + FORGET_BYTES:
            kept = at
            forget(data, at)
        key = data[at + 1] << 8 | data[at + 2]
        if data[at] == 0xFF and key & _KIND == kind and key in lengths:
            if at + lengths[key] > size:
                open_end = True
                break
            if (data[at + 3] >> 6 == 3) != mono:
                mixed = True
                break
            at += lengths[key]
            n_frames += 1
            continue
        ranges.append((begin, at))
        after = _after_tag(data, at)
        if after == at:  # neither frame nor tag: look for the next frames
            after = size
            for match in _SYNC.finditer(data, at):  # type: ignore[arg-type]
                if (other := _frames_at(data, match.start(), 3)) is not None:
                    after, mixed = match.start(), mixed or other != kind
                    break
            holes += after < size
            open_end = open_end or after == size
        at = begin = after
        if mixed:
            break
    ranges.append((begin, min(at, size)))
    ranges = [(a, b) for a, b in ranges if a < b]
    if not ranges:
        return Found()
    info = _info_frame(data, start, kind, mono)
    samples = 384 if kind >> 9 & 3 == 3 else 576 if kind >> 9 & 3 == 1 and kind >> 11 & 3 != 3 else 1152
    if mixed:
        return Found(mixed=True)
    promised = None
    if info.at is not None:
        n_frames -= 1
        promised = info.n_frames
    promise = None if promised is None else (promised * samples, n_frames * samples)
    as_promised = promised is not None and n_frames <= promised and len(ranges) == 1
    if as_promised or kind >> 9 & 3 != 1:  # libsndfile counts the frames of the other layers right
        return Found(holes=holes, open_end=open_end, n_frames=promise)
    ranges[0] = (start + info.length if info.at is not None else start, ranges[0][1])
    first_frames = info.frames(n_frames, sum(stop - begin for begin, stop in ranges), samples)
    return Found([[first_frames, *ranges]], holes, open_end, promise)


_SYNC = re.compile(rb"\xff[\xe2-\xff]")


_LYRICS_BYTES = 1 << 16


def _after_tag(data: Bytes, at: int) -> int:
    """The first byte after a tag or zeros; `at` if there is neither."""
    if data[at : at + 3] == b"ID3":
        return min(after_id3(data, at), len(data))
    if data[at : at + 3] == b"TAG":
        return min(at + _TAG_V1_BYTES, len(data))
    if data[at : at + 8] == b"APETAGEX":
        size, flags = struct.unpack("<I4xI", data[at + 12 : at + 24])
        return min(at + 32 + (size if flags & 1 << 29 else 0), len(data))
    if data[at : at + 11] == b"LYRICSBEGIN" and (end := data.find(b"LYRICS200", at, at + _LYRICS_BYTES)) >= 0:
        return end + 9
    if data[at] == 0:
        match = re.compile(rb"\0+").match(data, at)  # type: ignore[arg-type]
        return match.end() if match else at
    return at


@dataclass(frozen=True)
class _InfoFrame:
    """The first frame of an mp3, which says how many follow; or one like it for an mp3 that has none."""

    at: int | None
    length: int
    n_frames: int | None
    content: bytes
    marker: int

    def frames(self, n_frames: int, n_bytes: int, samples: int) -> bytes:
        """Such a frame that says so.

        mpg123 then leaves out its decoder's delay. Without such a frame it would not, nor does Blender, so the sound
        gets a frame of silence before it, and the rest of that frame is left out as well.
        """
        frame = bytearray(self.content)
        if not any(frame[4:]):
            silence, n_frames, n_bytes = bytes(frame), n_frames + 1, n_bytes + len(frame)
            delay = (samples - _DECODER_DELAY) << 12
            frame[self.marker + 12 : self.marker + 16] = b"LAME"
            frame[self.marker + 33 : self.marker + 36] = delay.to_bytes(3, "big")
        else:
            silence = b""
        frame[self.marker : self.marker + 12] = b"Info" + struct.pack(">II", frame[self.marker + 7] | 1, n_frames)
        flags = frame[self.marker + 7]
        if flags & 2:
            frame[self.marker + 12 : self.marker + 16] = struct.pack(">I", len(frame) + n_bytes)
        lame = self.marker + 12 + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
        if len(frame) >= lame + 24:  # nothing is cut off at the end
            frame[lame + 22] &= 0xF0
            frame[lame + 23] = 0
        return bytes(frame) + silence


def _info_frame(data: Bytes, start: int, kind: int, mono: bool) -> _InfoFrame:
    is_mpeg1 = kind >> 11 & 3 == 3
    marker = 4 + (17 if mono else 32) if is_mpeg1 else 4 + (9 if mono else 17)
    length = _LENGTHS[data[start + 1] << 8 | data[start + 2]]
    frame = data[start : start + length]
    if frame[marker : marker + 4] in (b"Xing", b"Info"):
        flags, n_frames = struct.unpack(">II", frame[marker + 4 : marker + 12])
        if flags & 1:
            return _InfoFrame(start, length, n_frames, frame, marker)
        return _InfoFrame(start, length, None, _empty_frame(data, start, marker), marker)
    at = start if frame[36:40] == b"VBRI" and len(frame) >= 54 else None
    n_frames = struct.unpack(">I", frame[50:54])[0] if at is not None else None
    return _InfoFrame(at, length, n_frames, _empty_frame(data, start, marker), marker)


def _empty_frame(data: Bytes, start: int, marker: int) -> bytes:
    """A frame of silence like the stream's that has room for what it says."""
    second, third, fourth = data[start + 1] | 1, data[start + 2], data[start + 3]
    for index in range(1, 15):
        length = _LENGTHS[second << 8 | index << 4 | third & 0x0C]
        if length >= marker + 160:
            return bytes((0xFF, second, index << 4 | third & 0x0C, fourth)) + bytes(length - 4)
    raise AssertionError
