# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of `speech/augment.py`: how recordings are changed for training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Chances (0..1) and ranges of the changes to a crop.

    `speed` changes tempo, pitch and formants together. `level_db` changes the level after normalisation, since a
    recording's variance depends on its pauses. With `passage_chance` parts of the crop are up to `passage_db` quieter
    than the rest. `speechless_chance` is that of a crop of only noise or music. Of the disturbances, `one_voice_share`
    are another speaker, `crowd_share` several, `MUSIC_SHARE` music, the rest noise.
    """

    speed: tuple[float, float] = (0.85, 1.18)
    level_db: tuple[float, float] = (0.0, 0.0)
    passage_chance: float = 0.0
    passage_db: float = 30.0
    speechless_chance: float = 0.0
    room_chance: float = 0.25
    clip_chance: float = 0.0
    noise_chance: float = 0.5
    noise_snr_db: tuple[float, float] = (4.0, 35.0)
    one_voice_share: float = 0.15
    crowd_share: float = 0.15
    equaliser_db: float = 0.0
    band_chance: float = 0.2
    codec_chance: float = 0.0


RECORDED = Augmentation(speed=(1.0, 1.0), room_chance=0, noise_chance=0, band_chance=0)
"""No change."""
