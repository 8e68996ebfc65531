# SPDX-License-Identifier: GPL-3.0-or-later
"""From the model's motion to a file: what `animate` and `batch` do alike after the model."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .curve_table import is_table, save_table
from .motion import ARKIT_CHANNELS, LIVE_LINK_FPS, Motion, is_motion_file
from .retarget import covering, prepared, resample
from .tongue import TONGUE_CHANNELS, with_tongue
from .words.heard import heard_track
from .words.track import Track
from .words.track_files import is_track_file, save_track

_LIVE_LINK_TONGUE = tuple(name for name in TONGUE_CHANNELS if name in ARKIT_CHANNELS)


def delivered(
    motion: Motion,
    format_name: str,
    *,
    strength: float = 1.0,
    smoothing_s: float = 0.0,
    delay_s: float = 0.0,
    fps: float | None = None,
    tongue: bool = True,
) -> Motion:
    """The motion as it is written: with the tongue, strength, smoothing, at the file's frame rate. Words stay as heard.

    Args:
        motion: As the model made it.
        format_name: Of `curve_formats.SUFFIXES`.
        strength: Factor for all curves.
        smoothing_s: Width of the smoothing.
        delay_s: Delay of the face; below 0 it leads.
        fps: Frames a second; None for the model's, or the 60 of the Live Link Face app.
        tongue: Whether the tongue is moved by rule.

    Raises:
        UserError: A number is impossible.
    """
    if format_name == "textgrid":
        return motion
    live_link = format_name == "csv"
    if tongue:
        motion = with_tongue(motion, _LIVE_LINK_TONGUE if live_link else TONGUE_CHANNELS)
    motion = prepared(motion, strength=strength, smoothing_s=smoothing_s)
    return covering(resample(motion, fps or (LIVE_LINK_FPS if live_link else motion.fps), delay_s))


def save(motion: Motion, path: Path, format_name: str) -> None:
    """Write it; an existing file is replaced in one step.

    Raises:
        UserError: The channels have no columns there, or the file cannot be written.
    """
    if format_name == "table":
        save_table(motion, path)
    elif format_name == "textgrid":
        save_words(words_of(motion), path)
    else:
        motion.save(path)


def words_of(motion: Motion) -> Track | None:
    """What a motion follows, or the phones that were heard; None if the model does not tell them."""
    if motion.phones is None:
        return None
    return motion.track or heard_track(motion.phones)


def save_words(track: Track | None, path: Path) -> None:
    """Write the words and phones of a recording, in its own times, as `words.track_files.save_track` does.

    Raises:
        UserError: There are none, because the model does not tell them.
    """
    if track is None:
        raise UserError("This model does not tell which phones it hears, so it writes no words and phones.")
    save_track(track, path)


def is_ours(path: Path, format_name: str) -> bool:
    """Whether `save` wrote this file, so that it may be replaced; True for an empty file."""
    if format_name == "textgrid":
        return is_track_file(path)
    return is_table(path) if format_name == "table" else is_motion_file(path)


def check_format(format_name: str, channels: tuple[str, ...]) -> None:
    """Refuse Live Link Face's table for a model with other channels, before the model runs.

    Raises:
        UserError: It has a channel without a column.
    """
    unknown = [name for name in channels if name not in ARKIT_CHANNELS]
    if format_name == "csv" and unknown:
        raise UserError(
            "This model's channels ({names}) have no columns in Live Link Face's table; choose npz or table.",
            names=", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else ""),
        )
