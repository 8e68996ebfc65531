# SPDX-License-Identifier: GPL-3.0-or-later
"""Features that no encoder of the model computes: from a file that the user made, or a stand-in from the bundled model.

VOCA reads the logits of DeepSpeech 0.1.0, a frozen TensorFlow graph. Whoever has it writes them into a file beside the
recording. The stand-in is what the bundled model hears: the probabilities of its phones, through a linear layer. Its
name is in config.json, and every run that uses it says so.

Shapes: L frames (50 Hz), D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingFileError, UserError
from .array_file import read_array
from .checkpoint import EncoderConfig
from .frame_timing import ENCODER_RATE_HZ
from .phones import PHONES

if TYPE_CHECKING:
    from .audio import Speech

KIND = "features"
"""Of such an encoder in config.json."""
FROM_FILE, STAND_IN = "file", "stand-in"
"""Where its features come from: `config["source"]`."""
SUFFIXES = (".npy", ".npz")
TEXT_SUFFIXES = (".text.npy", ".text.npz")
"""Of features of what is said, for a host that reads them beside the sound (`Host.text_width`)."""
MAX_LENGTH_DIFFERENCE_S = 0.5


def encoder(of: str, width: int, *, stand_in: bool) -> EncoderConfig:
    """What stands for the encoder in config.json.

    Args:
        of: What the features are, for messages, such as "DeepSpeech's logits".
        width: D.
        stand_in: A linear layer makes them from the bundled model's phones. Otherwise they are read from a file.
    """
    source, inputs = (STAND_IN, len(PHONES)) if stand_in else (FROM_FILE, width)
    config = {"source": source, "of": of, "input_size": inputs, "hidden_size": width}
    return EncoderConfig(kind=KIND, config=config)


def is_stand_in(encoder: EncoderConfig) -> bool:
    """Whether the model hears by the stand-in."""
    return encoder.kind == KIND and encoder.config["source"] == STAND_IN


def read_for(
    speech: Speech, config: Mapping[str, Any], suffixes: tuple[str, ...] = SUFFIXES
) -> tuple[Path, np.ndarray]:
    """The file of a recording's features, and what is in it, (L, D).

    Raises:
        MissingFileError: There is none; the message says where it is expected.
        UserError: The recording is no file of its own, or as `read_features`.
    """
    file, of = speech.features, config["of"]
    if file is None:
        if speech.recording is None:
            template = (
                "{audio}: this model reads {features} from a file beside the recording, and this sound has none: it is "
                "mixed or in memory. Choose a sound file, or name the features' file."
            )
            raise UserError(template, audio=speech.name, features=of)
        wanted = [speech.recording.with_suffix(suffix) for suffix in suffixes]
        file = next((found for found in wanted if found.is_file()), wanted[0])
    if not file.is_file():
        template = (
            "{file}: missing. This model reads {features} from it: {width} values for each 0.02 s of {audio}. "
            "docs/hosts.md says how to make it."
        )
        raise MissingFileError(template, file=file, features=of, width=config["input_size"], audio=speech.name)
    return file, read_features(file, config["input_size"], speech.duration_s, speech.begins_s)


def read_features(file: Path, width: int, duration_s: float, begins_s: float | None = None) -> np.ndarray:
    """Features float32 (L, D) of a .npy file, or of the only array of a .npz file; (L, 1, D) is read too.

    Args:
        file: The file.
        width: D.
        duration_s: Of the recording, or of a part of it.
        begins_s: Where the part begins; it is rounded to a frame. None for the whole recording.

    Raises:
        UserError: It is no such file, or of another width, rate or recording.
    """
    try:
        stored = read_array(file)
    except (OSError, UserError) as error:
        raise UserError("{file}: not one array of NumPy ({error})", file=file, error=error) from error
    shape = stored.shape
    if stored.ndim == 3 and shape[1] == 1:
        stored = stored[:, 0]
    if stored.ndim != 2 or stored.shape[1] != width or stored.dtype.kind != "f":
        template = "{file}: {dtype} of the shape {shape}; floats of the shape (frames, {width}) are needed"
        raise UserError(template, file=file, dtype=stored.dtype, shape=shape, width=width)
    if not np.isfinite(stored).all():
        raise UserError("{file}: some values are NaN or infinite; make it again", file=file)
    length_s, end_s = len(stored) / ENCODER_RATE_HZ, (begins_s or 0.0) + duration_s
    if length_s < end_s - MAX_LENGTH_DIFFERENCE_S or (begins_s is None and length_s > end_s + MAX_LENGTH_DIFFERENCE_S):
        raise UserError(
            "{file}: {n_frames} frames are {length_s:.2f} s at {rate_hz} a second, but the recording has "
            "{duration_s:.2f} s; they are of another recording or rate",
            file=file,
            n_frames=len(stored),
            length_s=length_s,
            rate_hz=ENCODER_RATE_HZ,
            duration_s=end_s,
        )
    if begins_s is not None:
        first = min(round(begins_s * ENCODER_RATE_HZ), len(stored) - 1)
        stored = stored[first : first + math.ceil(duration_s * ENCODER_RATE_HZ)]
    return stored.astype(np.float32)
