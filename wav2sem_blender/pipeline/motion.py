# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: named shape-key curves over time, and how they are stored.

Shape suffixes: T animation frames, K channels, V vertices.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import MissingFileError, UserError
from ..files import atomic_file
from ..json_file import parse_json
from .array_file import is_zip, read_arrays, write_arrays
from .phones import Phones
from .words.track import Track

MOTION_FORMAT_VERSION = 1
_MAX_BYTES = 2 << 30  # an hour has 50 MB
# Rows a second of the app's own files, by which importers read the last part of a timecode.
LIVE_LINK_FPS = 60.0
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_LIVE_LINK_START = b"Timecode,BlendShapeCount,"

# The 52 blendshapes of ARKit in the column order of Live Link Face.
ARKIT_CHANNELS: tuple[str, ...] = (
    *("eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft"),
    *("eyeSquintLeft", "eyeWideLeft"),
    *("eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight"),
    *("eyeSquintRight", "eyeWideRight"),
    *("jawForward", "jawRight", "jawLeft", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)

# Live Link Face ends every row with the pose of the head and the eyes. We write 0: speech does not determine them.
LIVE_LINK_POSE: tuple[str, ...] = tuple(
    f"{part}{axis}" for part in ("Head", "LeftEye", "RightEye") for axis in ("Yaw", "Pitch", "Roll")
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Weights of K named shape keys in T frames; frame t is at `t / fps` seconds.

    Attributes:
        weights_TK: Weights, float32; 0 is rest, 1 is the full shape, other values are allowed.
        channels: K distinct names, e.g. ARKit's "jawOpen", or "key_00" … and "bias".
        fps: Animation frames per second; may be fractional (24000 / 1001).
        basis_KV3: Displacement of every vertex at weight 1 in metres, float32, in FLAME's frame (y up, z forward);
            or None.
        info: The origin of the motion, as text (model, weights_sha256, audio, audio_sha256, engine, …).
        phones: What was heard, on the motion's time; None if the model does not tell.
        memory_RM: What the decoder read of the sound, float16, so that an edit of the track needs no hearing again
            (`steering.py`); at the model's rate and on the sound's time. None if the model follows no track.
        track: The words and phones that the motion follows.

    Raises:
        UserError: The parts do not fit together; the message names the part.
    """

    weights_TK: np.ndarray
    channels: tuple[str, ...]
    fps: float
    basis_KV3: np.ndarray | None = None
    info: Mapping[str, str] = field(default_factory=dict)
    phones: Phones | None = None
    memory_RM: np.ndarray | None = None
    track: Track | None = None

    def __post_init__(self) -> None:
        weights_TK = _real_array(self.weights_TK, "weights_TK", n_axes=2)
        channels = _checked_channels(self.channels)
        fps = float(self.fps)
        if weights_TK.shape[1] != len(channels):
            raise UserError(
                "weights_TK has {n_columns} columns but there are {n_channels} channels.",
                n_columns=weights_TK.shape[1],
                n_channels=len(channels),
            )
        if not (np.isfinite(fps) and fps > 0):
            raise UserError("fps is {fps}; it must be a finite number above 0.", fps=self.fps)
        if self.basis_KV3 is not None:
            basis_KV3 = _real_array(self.basis_KV3, "basis_KV3", n_axes=3)
            if basis_KV3.shape[0] != len(channels) or basis_KV3.shape[2] != 3:
                expected = f"({len(channels)}, vertices, 3)"
                raise UserError(
                    "basis_KV3 has the shape {shape}; {expected} is needed.", shape=basis_KV3.shape, expected=expected
                )
            object.__setattr__(self, "basis_KV3", basis_KV3)
        if self.memory_RM is not None:
            memory_RM = _real_array(self.memory_RM, "memory_RM", n_axes=2)
            object.__setattr__(self, "memory_RM", memory_RM.astype(np.float16))
        info = dict(self.info)
        if not all(isinstance(key, str) and isinstance(value, str) for key, value in info.items()):
            raise UserError("info must map text to text.")
        # A recording's name of foreign bytes would be half characters, which no JSON file may have.
        info = {key: _HALF_CHARACTER.sub("\ufffd", value) for key, value in info.items()}
        object.__setattr__(self, "weights_TK", weights_TK)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "fps", fps)
        object.__setattr__(self, "info", info)

    @property
    def n_frames(self) -> int:
        """Number of animation frames, T."""
        return self.weights_TK.shape[0]

    @property
    def duration_s(self) -> float:
        """Length in seconds; every frame lasts `1 / fps`."""
        return self.n_frames / self.fps

    def at_speed(self, speed: float) -> Motion:
        """The same frames played `speed` times as fast."""
        phones, track = self.phones and self.phones.at_speed(speed), self.track and self.track.at_speed(speed)
        return replace(self, fps=self.fps * speed, phones=phones, track=track)

    def vertex_offsets(self, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """Vertex displacements from rest, float32 (T, V, 3) in metres; None without a basis.

        Args:
            start: First animation frame.
            stop: One past the last. Read a long motion in pieces: an hour of FLAME is 6.5 GB.
        """
        if self.basis_KV3 is None:
            return None
        weights_TK = self.weights_TK[start:stop]
        n_channels, n_vertices, _ = self.basis_KV3.shape
        return (weights_TK @ self.basis_KV3.reshape(n_channels, -1)).reshape(len(weights_TK), n_vertices, 3)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `.npz` (everything) or `.csv` (Live Link Face's columns); an existing file is replaced in one step.

        Raises:
            UserError: Another suffix, a csv of channels that are not ARKit's, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".npz":
            with atomic_file(path) as file:
                self._write_npz(file)
        elif suffix == ".csv":
            unknown = [name for name in self.channels if name not in ARKIT_CHANNELS]
            if unknown:
                raise UserError(
                    "{file}: Live Link Face has no column for {names}; save as .npz instead.",
                    file=path.name,
                    names=", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else ""),
                )
            with atomic_file(path) as file:
                self._write_live_link(file)
        else:
            raise UserError(
                "{file}: a motion is saved as .npz or .csv, not as '{suffix}'.", file=path.name, suffix=path.suffix
            )

    def _write_npz(self, file: IO[bytes]) -> None:
        arrays = {
            "format_version": np.array(MOTION_FORMAT_VERSION),
            "weights_TK": self.weights_TK,
            "channels": np.array(self.channels, dtype=np.str_),
            "fps": np.array(self.fps),
            "info": np.array(json.dumps(dict(self.info), ensure_ascii=False)),
        }
        if self.basis_KV3 is not None:
            arrays["basis_KV3"] = self.basis_KV3
        if self.phones is not None:  # earlier releases ignore these
            arrays |= {
                "phone_names": np.array(self.phones.names, dtype=np.str_),
                "phone_posteriors_LP": self.phones.posteriors_LP,
                "phone_timing": np.array([self.phones.rate_hz, self.phones.first_s]),
            }
        if self.memory_RM is not None:
            arrays["memory_RM"] = self.memory_RM
        if self.track is not None:
            arrays["track"] = np.array(self.track.to_text())
        write_arrays(file, **arrays)

    def _write_live_link(self, file: IO[bytes]) -> None:
        columns = [name[0].upper() + name[1:] for name in ARKIT_CHANNELS] + list(LIVE_LINK_POSE)
        file.write(_LIVE_LINK_START + (",".join(columns) + "\n").encode())
        position = [ARKIT_CHANNELS.index(name) for name in self.channels]
        row = np.zeros(len(columns))
        row_format = ",".join(["%.8f"] * len(columns))
        for anim_frame, weights_K in enumerate(self.weights_TK):
            row[position] = weights_K.clip(0, 1)  # the app writes no others
            values = row_format % tuple(row)
            file.write(f"{_timecode(anim_frame, self.fps)},{len(columns)},{values}\n".encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Motion:
        """Read a `.npz` written by `save`; nothing in the file is executed.

        Raises:
            UserError: The file is missing or damaged, is no motion, or was written by a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError("{file}: there is no such motion file.", file=path)
        try:
            arrays = read_arrays(path, limit_bytes=_MAX_BYTES)
            version = int(arrays["format_version"])
            if version == MOTION_FORMAT_VERSION:
                return cls(
                    weights_TK=arrays["weights_TK"],
                    channels=tuple(str(name) for name in np.atleast_1d(arrays["channels"])),
                    fps=float(arrays["fps"]),
                    basis_KV3=arrays.get("basis_KV3"),
                    info=parse_json(str(arrays["info"])),
                    phones=_phones(arrays) if "phone_names" in arrays else None,
                    memory_RM=arrays.get("memory_RM"),
                    track=Track.from_text(str(arrays["track"])) if "track" in arrays else None,
                )
        except KeyError as error:
            raise UserError(
                "{file}: no motion file; the entry {entry} is missing.", file=path.name, entry=error
            ) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                "{file}: damaged, or no motion file ({reason}).",
                file=path.name,
                reason=(str(error) or type(error).__name__).splitlines()[0].rstrip("."),
            ) from error
        raise UserError(
            "{file}: motion format {found}; this version reads format {known}. Update the extension.",
            file=path.name,
            found=version,
            known=MOTION_FORMAT_VERSION,
        )


def is_motion_file(path: Path) -> bool:
    """Whether `Motion.save` wrote this file, so that it may be replaced; True for an empty file.

    A take of the Live Link Face app has the same columns, but its timecode is the time of day and does not begin at 0.
    """
    if path.stat().st_size == 0:
        return True
    if is_zip(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return {"format_version.npy", "weights_TK.npy", "channels.npy"} <= set(archive.namelist())
        except (zipfile.BadZipFile, ValueError, RuntimeError):  # damaged
            return False
    with path.open("rb") as file:
        header, first = file.readline(10_000), file.readline(100)
    return header.startswith(_LIVE_LINK_START) and first.startswith(_timecode(0, 30).encode())


def _phones(arrays: Mapping[str, np.ndarray]) -> Phones:
    rate_hz, first_s = arrays["phone_timing"].tolist()
    return Phones(
        names=tuple(str(name) for name in arrays["phone_names"]),
        posteriors_LP=arrays["phone_posteriors_LP"],
        rate_hz=rate_hz,
        first_s=first_s,
    )


def _real_array(array: np.ndarray, name: str, n_axes: int) -> np.ndarray:
    """`array` as contiguous float32; raises UserError unless it has that many axes and finite values."""
    array = np.asarray(array)
    if array.ndim != n_axes or array.dtype.kind not in "fiu":
        raise UserError(
            "{array} has the shape {shape} and type {dtype}; {n_axes} axes of numbers are needed.",
            array=name,
            shape=array.shape,
            dtype=array.dtype,
            n_axes=n_axes,
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise UserError("{array} contains NaN, infinite or too large values.", array=name)
    return array


def _checked_channels(channels: tuple[str, ...]) -> tuple[str, ...]:
    channels = tuple(channels)
    if not all(isinstance(name, str) and name for name in channels):
        raise UserError("channels must be non-empty texts.")
    twice = sorted({name for name in channels if channels.count(name) > 1})
    if twice:
        raise UserError("The channel {channel} occurs twice.", channel=twice[0])
    return channels


def _timecode(anim_frame: int, fps: float) -> str:
    """HH:MM:SS:FF.mmm without dropped frames: 23.976 fps counts 24 frames per second, as editing programs do."""
    base = max(1, round(fps))
    seconds, frame = divmod(anim_frame, base)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{frame:02d}.000"
