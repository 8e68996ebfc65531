# SPDX-License-Identifier: GPL-3.0-or-later
"""How much each frame counts as one in which p, b or m close the lips: Imitator's loss counts those frames more.

Imitator's release has these weights for VOCASET, mbp_weights_win03_weight05.zip. Unpack it to DATA/closures: a CLIP.npy
(T,) for each clip, at the motion's frame rate. How its authors made them is not published. Without that folder the
weights come from the phones that the bundled model hears: 1 in a p, b or m, and less in the frames beside it.

Shapes: S samples, T animation frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import SpeechAnimator

from .face_data import FaceClip

FOLDER = "closures"
BILABIALS = ("P", "B", "M")
FRAMES_BESIDE = 3


class Closures:
    """Weights of clips.

    Attributes:
        source: Where they come from, for the run's description.
    """

    def __init__(self, data: Path) -> None:
        """Raises MissingFileError where neither the folder nor the bundled model is there."""
        self._folder = data / FOLDER
        self._hears = None if self._folder.is_dir() else SpeechAnimator.load("default")
        self.source = f"{FOLDER}/*.npy of the data" if self._hears is None else "phones that the bundled model hears"

    def __call__(self, clip: FaceClip, samples_S: np.ndarray, n_frames: int, fps: float) -> np.ndarray:
        """Weights of a clip's frames, float32 (T,).

        Raises:
            MissingFileError: The folder has no file of this clip.
            UserError: The file has too few weights, or they are no numbers.
        """
        if self._hears is None:
            return _read(self._folder / f"{clip.name}.npy", n_frames)
        phones = self._hears.animate(samples_S, 16_000).phones
        assert phones is not None
        spans = [(span.start_s, span.end_s) for span in phones.spans() if span.name in BILABIALS]
        return weights_of(spans, n_frames, fps)


def weights_of(spans_s: list[tuple[float, float]], n_frames: int, fps: float) -> np.ndarray:
    """1 within the spans (start and end in seconds), falling to 0 in `FRAMES_BESIDE` frames beside them."""
    time_T = np.arange(n_frames) / fps
    weight_T = np.zeros(n_frames)
    for start_s, end_s in spans_s:
        outside_T = np.maximum(np.maximum(start_s - time_T, time_T - end_s), 0) * fps
        weight_T = np.maximum(weight_T, 1 - outside_T / (FRAMES_BESIDE + 1))
    return weight_T.astype(np.float32)


def _read(path: Path, n_frames: int) -> np.ndarray:
    if not path.is_file():
        raise MissingFileError("{file}: no such file; it has the weights of this clip's frames", file=path)
    try:
        weight_T = np.load(path, allow_pickle=False).astype(np.float32).reshape(-1)
    except (OSError, ValueError, EOFError) as error:
        raise UserError("{file}: not an array of numbers ({error})", file=path, error=error) from error
    if len(weight_T) < n_frames or not np.isfinite(weight_T).all():
        raise UserError(
            "{file}: {found} weights; {needed} finite ones are needed, one for each frame",
            file=path,
            found=len(weight_T),
            needed=n_frames,
        )
    return weight_T[:n_frames]
