# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bytes of a sound file hold, since libsndfile believes headers: it stops where they say that the sound ends.

mp3, Ogg (RFC 3533), FLAC (RFC 9639), WAVE/RF64, AIFF, AU, W64 and CAF are walked, not decoded. What the headers get
wrong is put right in a view of the file, and streams that were joined byte by byte become parts.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from .sound_mp3 import mp3
from .sound_view import FORGET_BYTES, Bytes, Found, Piece, after_id3, forget, patched


def found_in(data: Bytes) -> Found:
    """Walk a file."""
    head = data[:12]
    if head[:4] == b"OggS":
        return _ogg(data)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wav(data)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(data)
    if head[:4] in (b".snd", b"dns."):
        return _au(data)
    if head[:4] == b"riff":
        return _w64(data)
    if head[:4] == b"caff":
        return _caf(data)
    start = after_id3(data, 0)
    if data[start : start + 4] == b"fLaC":
        return _flac(data, start)
    return mp3(data, start)


# --- Ogg and FLAC ----------------------------------------------------------------------------------------------------

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST, _LAST = 2, 4
# A checksum at every byte of a hostile file would take minutes.
_MAX_HOLES = 1000
_FLAC = b"fLaC\0\0\0\x22"


def _page_checksum(page: bytes) -> int:
    """Ogg's CRC-32 is zlib's with all bits in the other order, without inversion."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "big").translate(_REVERSED), "little")


@dataclass
class _Link:
    start: int
    stop: int = 0
    sequence: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)


def _ogg(data: Bytes) -> Found:
    links: list[_Link] = []
    at = holes = kept = 0
    in_heads = open_end = False
    while at < len(data):
        if holes > _MAX_HOLES:
            return Found(holes=holes, open_end=True)
        if at > kept + FORGET_BYTES:
            kept = at
            forget(data, at)
        if data[at : at + 4] != b"OggS" or at + 27 > len(data):
            after = data.find(b"OggS", at + 1)
            holes += after >= 0
            open_end = open_end or (after < 0 and any(data[at : at + 65_536]))
            if after < 0:
                break
            at = after
            continue
        flags = data[at + 5]
        serial, sequence, checksum = struct.unpack("<III", data[at + 14 : at + 26])
        stop = at + 27 + data[at + 26]
        stop += sum(data[at + 27 : stop])
        if stop > len(data):
            after = data.find(b"OggS", at + 1)
            open_end = open_end or after < 0
            holes += after >= 0
            at = after if after >= 0 else len(data)
            continue
        page = data[at:stop]
        if _page_checksum(page[:22] + bytes(4) + page[26:]) != checksum:
            holes += 1
            at = max(at + 1, data.find(b"OggS", at + 1)) if data[stop : stop + 4] != b"OggS" else stop
            continue
        if flags & _FIRST and not in_heads:
            links.append(_Link(at))
        in_heads = bool(flags & _FIRST)
        if links:
            link = links[-1]
            holes += sequence != link.sequence.get(serial, sequence - 1) + 1
            link.sequence[serial] = sequence
            if flags & _LAST:
                link.ended.add(serial)
            link.stop = stop
        at = stop
    unfinished = [link for link in links if link.ended != set(link.sequence)]
    open_end = open_end or bool(links and links[-1] in unfinished)
    holes += sum(link is not links[-1] for link in unfinished)
    parts = [[(link.start, link.stop)] for link in links] if len(links) > 1 else None
    return Found(parts, holes, open_end)


def _flac(data: Bytes, start: int) -> Found:
    starts = [start]
    for at in range(0, len(data), FORGET_BYTES):
        after = at
        while (after := data.find(_FLAC, max(after, starts[-1]) + 1, at + FORGET_BYTES + len(_FLAC))) >= 0:
            starts.append(after)
        forget(data, at)
    parts: list[list[Piece]] = []
    lengths = []
    for begin, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        count = data[begin + 21 : begin + 26]  # the last 36 bits are the number of samples; 0 is unknown
        if len(count) < 5:
            return Found()
        parts.append([(begin, begin + 21), bytes((count[0] & 0xF0, 0, 0, 0, 0)), (begin + 26, stop)])
        lengths.append((count[0] & 15) << 32 | int.from_bytes(count[1:], "big"))
    return Found(parts, lengths=lengths)


# --- headers with sizes ----------------------------------------------------------------------------------------------


# A file of nothing but chunks or pages would be walked for minutes.
_MAX_CHUNKS = 10_000
_ZEROS = re.compile(rb"\0*")


def _is_chunk(data: Bytes, at: int, order: str) -> bool:
    name = data[at : at + 4]
    if at + 8 > len(data) or not all(32 <= byte < 127 for byte in name):
        return False
    return at + 8 + struct.unpack(order + "I", data[at + 4 : at + 8])[0] <= len(data) + 1


def _wav(data: Bytes) -> Found:
    parts: list[Sequence[Piece]] = []
    base: int | None = 0
    while base is not None:
        begin = base
        base, found = _one_wav(data, begin)
        parts += [[(begin, base)]] if base is not None else found.parts or ([[(begin, len(data))]] if parts else [])
    return Found(parts or None)


def _one_wav(data: Bytes, base: int) -> tuple[int | None, Found]:
    """Where a further wav file begins after that at `base`, else what is wrong with its header."""
    order = ">" if data[base : base + 4] == b"RIFX" else "<"
    size, at = len(data), base + 12
    wide_at = None
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            return None, Found()
        name, n_bytes = data[at : at + 4], struct.unpack(order + "I", data[at + 4 : at + 8])[0]
        if name == b"ds64" and at + 24 <= size:
            wide_at = at + 16
        if name == b"data":
            break
        at += 8 + n_bytes + n_bytes % 2
    else:
        return None, Found()
    begin = at + 8
    if wide_at is not None and n_bytes == 0xFFFFFFFF:
        n_bytes = struct.unpack("<Q", data[wide_at : wide_at + 8])[0]
    stop = begin + n_bytes
    if stop >= size:
        return None, Found()
    after = stop + n_bytes % 2
    if further := _next_wave(data, after, order):
        return further, Found()
    zeros = _ZEROS.match(data, after)  # type: ignore[arg-type]
    is_padding = zeros is not None and zeros.end() == size
    if _is_chunk(data, after, order) or data[after : after + 3] in (b"ID3", b"TAG") or is_padding:
        return None, Found()
    patches = {base + 4: b"\xff" * 4, at + 4: b"\xff" * 4}
    if wide_at is not None:
        patches = {wide_at: struct.pack("<Q", size - begin)}
    return None, Found([patched(data, patches, base)])


def _next_wave(data: Bytes, at: int, order: str) -> int | None:
    """Where a further wav file begins, after the chunks of this one."""
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            return None
        if data[at : at + 4] in (b"RIFF", b"RF64", b"RIFX") and data[at + 8 : at + 12] == b"WAVE":
            return at
        if not _is_chunk(data, at, order):
            return None
        n_bytes = struct.unpack(order + "I", data[at + 4 : at + 8])[0]
        at += 8 + n_bytes + n_bytes % 2
    return None


def _aiff(data: Bytes) -> Found:
    size, at = len(data), 12
    common = None
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            return Found()
        name, n_bytes = data[at : at + 4], struct.unpack(">I", data[at + 4 : at + 8])[0]
        if name == b"COMM" and at + 16 <= size:
            common = at + 8
        if name == b"SSND":
            break
        at += 8 + n_bytes + n_bytes % 2
    else:
        return Found()
    begin = at + 16
    if n_bytes > 8 or common is None or size <= begin:
        return Found()
    n_channels, n_frames, n_bits = struct.unpack(">HIH", data[common : common + 8])
    n_frames = n_frames or (size - begin) // max(1, n_channels * -(-n_bits // 8))
    patches = {4: struct.pack(">I", size - 8), at + 4: struct.pack(">I", size - at - 8)}
    return Found([patched(data, patches | {common + 2: struct.pack(">I", n_frames)})])


def _au(data: Bytes) -> Found:
    if len(data) > 28 and data[8:12] == bytes(4):
        return Found([patched(data, {8: b"\xff" * 4})])
    return Found()


def _w64(data: Bytes) -> Found:
    size, at = len(data), 40
    for _ in range(_MAX_CHUNKS):
        if at + 24 > size:
            break
        n_bytes = struct.unpack("<Q", data[at + 16 : at + 24])[0]
        if data[at : at + 4] == b"data":
            if n_bytes > 24 or size <= at + 24:
                break
            patches = {16: struct.pack("<Q", size), at + 16: struct.pack("<Q", size - at)}
            return Found([patched(data, patches)])
        at += max(24, n_bytes + -n_bytes % 8)
    return Found()


def _caf(data: Bytes) -> Found:
    size, at = len(data), 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > size:
            break
        n_bytes = struct.unpack(">q", data[at + 4 : at + 12])[0]
        if data[at : at + 4] == b"data":
            if n_bytes <= 4 and size > at + 16:
                return Found([patched(data, {at + 4: struct.pack(">q", size - at - 12)})])
            break
        at += 12 + max(0, n_bytes)
    return Found()
