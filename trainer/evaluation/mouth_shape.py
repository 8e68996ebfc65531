# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the shape of a mouth follows speech, which the lip opening of `lipsync.py` does not show.

A mouth is 16 lip points seen from the front, in millimetres. Everything is compared at the film's 25 frames a second.

- `width_r`, `width_sd_ratio`: Pearson's r of the distance of the mouth's corners with the filmed one, and the ratio of
  their standard deviations; mean over clips. The filmed deviation has the tracker's noise in it.
- `means`: by class of phones, at their middles, the mean difference from the clip's own mean of the width, the gap
  between the lips, and the thickness of the upper and of the lower lip, in millimetres.
- `legibility`: share of the phones whose class a lip reader tells, mean over the 11 classes (chance 0.09). The reader
  is a linear discriminant with equal priors that learnt from film: five frames of lip points without the clip's mean.
  The film's own legibility is the ceiling.

Shapes: T frames, P lip points, N examples, D = 5 * P * 2 features, K channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..motion.landmarks import LIPS
from ..speech.phones import Timing

FILM_FPS = 25.0
HALF = 2  # frames that the reader sees before and after
CLASSES: Mapping[str, tuple[str, ...]] = {
    "pbm": ("P", "B", "M"),
    "fv": ("F", "V"),
    "round": ("UW", "OW", "W", "UH", "OY"),
    "r": ("R", "ER"),
    "th": ("TH", "DH"),
    "alv": ("T", "D", "N", "L", "S", "Z"),
    "sh": ("SH", "CH", "JH", "ZH"),
    "kg": ("K", "G", "NG", "HH"),
    "open": ("AA", "AO", "AH", "AY", "AW", "AE"),
    "e": ("EH", "EY"),
    "i": ("IY", "IH", "Y"),
}
VISEMES = {phone: name for name, phones in CLASSES.items() for phone in phones}
DISTANCES = {"width": (61, 291), "gap": (13, 14), "upper": (0, 13), "lower": (14, 17)}


class Reader(Protocol):
    """A fitted classifier of scikit-learn."""

    def predict(self, X: np.ndarray, /) -> np.ndarray:
        """Class names (N,) of examples (N, D)."""


@dataclass(frozen=True, kw_only=True)
class SpokenLips:
    """Lip points (T, P, 2) at 25 frames a second, in millimetres, and what is said."""

    lips_TP2: np.ndarray
    phones: Sequence[Timing]


def at_film_rate(lips_TP2: np.ndarray, fps: float, n_frames: int) -> np.ndarray:
    """(n_frames, P, 2) at 25 frames a second, interpolated linearly."""
    wanted_s, times_s = np.arange(n_frames) / FILM_FPS, np.arange(len(lips_TP2)) / fps
    columns = [np.interp(wanted_s, times_s, column_T) for column_T in lips_TP2.reshape(len(lips_TP2), -1).T]
    return np.stack(columns, 1).reshape(n_frames, *lips_TP2.shape[1:])


def distances(lips_TP2: np.ndarray) -> dict[str, np.ndarray]:
    """The lengths (T,) of `DISTANCES`."""
    return {
        name: np.linalg.norm(np.diff(lips_TP2[:, [LIPS.index(a), LIPS.index(b)]], axis=1)[:, 0], axis=-1)
        for name, (a, b) in DISTANCES.items()
    }


def visemes(spoken: SpokenLips) -> list[tuple[str, int]]:
    """Class and middle frame of every phone that has a class, and frames enough around it."""
    found = []
    for phone, start, end in spoken.phones:
        name, frame = VISEMES.get(phone.rstrip("012")), round((start + end) / 2 * FILM_FPS)
        if name and HALF <= frame < len(spoken.lips_TP2) - HALF:
            found.append((name, frame))
    return found


def examples(clips: Iterable[SpokenLips]) -> tuple[np.ndarray, np.ndarray]:
    """What the reader sees (N, D), and the class names (N,)."""
    seen, names = [], []
    for spoken in clips:
        moved_TD = (spoken.lips_TP2 - spoken.lips_TP2.mean(0)).reshape(len(spoken.lips_TP2), -1)
        for name, frame in visemes(spoken):
            seen.append(moved_TD[frame - HALF : frame + HALF + 1].ravel())
            names.append(name)
    return np.array(seen), np.array(names)


def learn_to_read(clips: Iterable[SpokenLips]) -> Reader:
    """The lip reader that these films teach."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    seen_ND, names_N = examples(clips)
    n_classes = len(set(names_N))
    reader = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes))
    return reader.fit(seen_ND, names_N)  # type: ignore[no-any-return]


def legibility(reader: Reader, clips: Iterable[SpokenLips]) -> float:
    """Balanced accuracy of the reader."""
    seen_ND, names_N = examples(clips)
    told_N = reader.predict(seen_ND) == names_N
    return float(np.mean([told_N[names_N == name].mean() for name in np.unique(names_N)]))


def class_means(clips: Iterable[SpokenLips]) -> dict[str, dict[str, float]]:
    """By class: the mean of every distance in mm from the clip's mean, and the number `n` of phones."""
    found: dict[str, list[list[float]]] = {}
    for spoken in clips:
        lengths = {key: value_T - value_T.mean() for key, value_T in distances(spoken.lips_TP2).items()}
        for name, frame in visemes(spoken):
            found.setdefault(name, []).append([value_T[frame] for value_T in lengths.values()])
    return {
        name: dict(zip(DISTANCES, np.mean(rows, axis=0).tolist(), strict=True)) | {"n": len(rows)}
        for name, rows in sorted(found.items())
    }


def judge_shapes(reader: Reader, pairs: Sequence[tuple[SpokenLips, SpokenLips]]) -> dict[str, Any]:
    """The scores of the module's docstring over clips of (predicted, filmed) lips of equal length, at least one."""
    widths = [(distances(ours.lips_TP2)["width"], distances(film.lips_TP2)["width"]) for ours, film in pairs]
    with np.errstate(invalid="ignore"):  # a motionless mouth has no correlation; such clips are left out
        r_N = [np.corrcoef(ours_T, film_T)[0, 1] for ours_T, film_T in widths]
    predicted, filmed = [ours for ours, _ in pairs], [film for _, film in pairs]
    return {
        "clips": len(pairs),
        "width_r": float(np.nanmean(r_N)),
        "width_sd_ratio": float(np.mean([ours_T.std() / film_T.std() for ours_T, film_T in widths])),
        "legibility": legibility(reader, predicted),
        "legibility_film": legibility(reader, filmed),
        "means": class_means(predicted),
        "means_film": class_means(filmed),
    }
