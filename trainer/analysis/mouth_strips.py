# SPDX-License-Identifier: GPL-3.0-or-later
"""Mouths in slow motion: which sounds of which held-out sentences are shown, and each face's lips during them.

Filmed speakers and models are read at the same landmarks (`landmarks.USED`), in FLAME's frame and size, without head
motion, relative to their own mouth at rest. Lengths are in millimetres.

Shapes: F columns of a picture, T frames of a track or motion, P landmarks, K channels, V vertices of the mouth region,
G its triangles, X anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile as sf

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.motion import Motion

from ..datasets.corpora import Clip, list_clips
from ..evaluation.lipsync import OPEN_VOWELS
from ..motion.curves import FPS
from ..motion.landmarks import CHIN, USED, landmark_basis, stabilise, tracked_rest_pose
from ..speech.align import Aligner, published_times
from ..speech.phones import BILABIALS, LABIODENTALS, PHONES, Timing, frame_labels
from .ground_truth import FLAME_FILE
from .homophones import pronunciations
from .pictures import Mouth, ShadedMouth

SOUNDS: Mapping[str, frozenset[str]] = {
    "p, b, m": frozenset(BILABIALS),
    "f, v": frozenset(LABIODENTALS),
    "w, oo": frozenset(("W", "UW")),
    "open vowel": OPEN_VOWELS - {"AO"},  # many speakers round AO, above all before r
}
MIN_SOUND_S = 0.05  # one and a half animation frames: at least one column shows it
COLUMN_FRAMES = np.arange(-4, 5)
READERS = ("librispeech", "vctk")
# MediaPipe's rings: from one corner of the mouth along the upper lip, and back along the lower.
OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
CHIN_LINE = (176, 148, 152, 377, 400)
CORNERS, MIDDLES = (61, 291), (13, 14)
# The part of the mesh that is kept: slightly more than a picture shows, and the front of the neck.
HALF_WIDTH_M, ABOVE_M, BELOW_M, BEHIND_M = 0.06, 0.035, 0.085, 0.1
INSIDE_M = (0.003, 0.009)  # depth behind the lips' front over which the mesh turns from lip colour to the mouth's dark


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A held-out recording (S,) at 16 kHz with its phones, and the speaker's film if there is one."""

    name: str
    speaker: str
    text: str
    samples_S: np.ndarray
    phones: list[Timing]
    track: Path | None


class MouthRegion:
    """The front of FLAME around the mouth, and the landmarks that films have too.

    Raises:
        MissingFileError: the data folder has no FLAME.
    """

    def __init__(self, data: Path) -> None:
        if not (data / FLAME_FILE).is_file():
            raise MissingFileError(
                "{file}: there is no such file; it holds the lips that models move", file=data / FLAME_FILE
            )
        with np.load(data / FLAME_FILE) as file:
            self._flame = {key: file[key] for key in file.files}
        self._rest_V3 = self._flame["v_template"].astype(float)
        rest = landmark_basis(self._flame, np.zeros((1, *self._rest_V3.shape)), np.zeros((len(CHIN), 3)))
        self._rigid_R3, self._rest_P3 = rest.rigid_R3, rest.rest_P3
        from_mouth_V3 = self._rest_V3 - _middle(self._rest_P3)
        near_V = (np.abs(from_mouth_V3[:, 0]) < HALF_WIDTH_M) & (from_mouth_V3[:, 2] > -BEHIND_M)
        near_V &= (from_mouth_V3[:, 1] < ABOVE_M) & (from_mouth_V3[:, 1] > -BELOW_M)
        faces_F3 = self._flame["faces"].astype(int)
        kept, triangles = np.unique(faces_F3[near_V[faces_F3].all(1)], return_inverse=True)
        self._kept_V, self._triangles_G3 = kept, triangles.reshape(-1, 3)
        self._lip_V, self._inside_V = self._regions(self._rest_V3[kept])

    def filmed(self, name: str, track: Path, times_F: np.ndarray) -> Mouth:
        """The tracked lips; columns where no face was found are NaN."""
        used_TP3, found_T, fps = stabilise(track, self._rigid_R3)
        rest_P3 = tracked_rest_pose(used_TP3, found_T)
        used_TP3 = np.where(found_T[:, None, None], used_TP3, np.nan)
        return _mouth(name, at_times(used_TP3, fps, times_F), rest_P3, None)

    def moved(self, name: str, motion: Motion, times_F: np.ndarray) -> Mouth:
        """FLAME's lips and skin, moved by a model whose basis is FLAME's, in metres."""
        assert motion.basis_KV3 is not None
        weights_FK = at_times(motion.weights_TK, motion.fps, times_F)
        basis_KP3 = landmark_basis(self._flame, motion.basis_KV3, np.zeros((len(CHIN), 3))).basis_KP3
        vertices_FV3 = self._rest_V3[self._kept_V] + np.tensordot(weights_FK, motion.basis_KV3[:, self._kept_V], 1)
        shaded = ShadedMouth(
            vertices_mm_FV3=1000 * (vertices_FV3 - _middle(self._rest_P3)),
            triangles_G3=self._triangles_G3,
            lip_V=self._lip_V,
            inside_V=self._inside_V,
        )
        return _mouth(name, self._rest_P3 + np.tensordot(weights_FK, basis_KP3, 1), self._rest_P3, shaded)

    def _regions(self, rest_V3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much each vertex (V,) is lip, and how much it lies inside the mouth, 0..1."""
        from matplotlib.path import Path as Outline

        ring_P3 = self._rest_P3[_rows(OUTER_LIP)]
        front = np.argsort(ring_P3[:, 0])
        lips_z_V = np.interp(rest_V3[:, 0], ring_P3[front, 0], ring_P3[front, 2])
        inside_lips_V = Outline(ring_P3[:, :2]).contains_points(rest_V3[:, :2])
        depth_V = np.clip((lips_z_V - rest_V3[:, 2] - INSIDE_M[0]) / (INSIDE_M[1] - INSIDE_M[0]), 0, 1)
        return inside_lips_V.astype(float), np.where(inside_lips_V, depth_V, 0.0)


def held_out_sentences(data: Path, filmed: int, heard: int) -> list[Sentence]:
    """Validation sentences in which each of `SOUNDS` is long enough to be seen: `filmed` of GRID, then `heard` of
    voices without a film; one of each speaker in turn.

    Raises:
        MissingFileError: the data folder holds none of the corpora.
    """
    clips = [clip for clip in list_clips(data) if clip.split == "valid" and clip.text and _says_all(clip.text)]
    aligner = Aligner()
    return [
        sentence
        for corpora, count in ((("grid",), filmed), (READERS, heard))
        for sentence in islice(_aligned([clip for clip in clips if clip.corpus.startswith(corpora)], aligner), count)
    ]


def _aligned(clips: Sequence[Clip], aligner: Aligner) -> Iterator[Sentence]:
    for clip in _in_turn(clips):
        samples_S, _ = sf.read(clip.path, dtype="int16")
        found = published_times(clip.path.parent).get(clip.name) or aligner(samples_S, clip.text or "") or []
        phones = [(phone, round(start, 3), round(end, 3)) for phone, start, end in found]
        if all(kind in sounds(phones) for kind in SOUNDS):
            track = clip.path.with_suffix(".npz")
            yield Sentence(
                name=clip.name,
                speaker=clip.speaker,
                text=clip.text or "",
                samples_S=samples_S.astype(np.float32) / 32768,
                phones=phones,
                track=track if track.is_file() else None,
            )


def _in_turn(clips: Sequence[Clip]) -> list[Clip]:
    """The first clip of every speaker, then the second of every speaker, …"""
    said = Counter[str]()
    turns = []
    for clip in clips:
        turns.append((said[clip.speaker], clip))
        said[clip.speaker] += 1
    return [clip for _, clip in sorted(turns, key=lambda turn: turn[0])]


def sounds(phones: Sequence[Timing]) -> dict[str, Timing]:
    """Kind -> its longest sound, preferably one between other sounds: beside a pause the lips rest."""
    chosen: dict[str, tuple[bool, float, Timing]] = {}
    for i, (phone, start, end) in enumerate(phones):
        around = [phones[j][0] if 0 <= j < len(phones) else "SIL" for j in (i - 1, i + 1)]
        rank = ("SIL" not in around, end - start)
        for kind, members in SOUNDS.items():
            if phone in members and end - start >= MIN_SOUND_S and (kind not in chosen or rank > chosen[kind][:2]):
                chosen[kind] = (*rank, (phone, start, end))
    return {kind: chosen[kind][2] for kind in SOUNDS if kind in chosen}


def columns(sound: Timing) -> tuple[np.ndarray, np.ndarray]:
    """Times (F,) of consecutive animation frames around the middle of a sound, in seconds, and flags: inside the
    sound."""
    _, start, end = sound
    times_F = (round((start + end) / 2 * FPS) + COLUMN_FRAMES) / FPS
    return times_F, (times_F >= start) & (times_F < end)


def phones_at(phones: list[Timing], times_F: np.ndarray) -> list[str]:
    """The phone that sounds in each column."""
    return [PHONES[i] for i in frame_labels(phones, times_F)]


def at_times(values_TX: np.ndarray, fps: float, times_F: np.ndarray) -> np.ndarray:
    """Values (F, …) of a track at other times, interpolated linearly; beyond its ends the first and last hold."""
    place_F = np.clip(np.asarray(times_F) * fps, 0, len(values_TX) - 1)
    low_F = np.minimum(place_F.astype(int), max(0, len(values_TX) - 2))
    high_F = np.minimum(low_F + 1, len(values_TX) - 1)
    share_F = (place_F - low_F).reshape(-1, *(1,) * (values_TX.ndim - 1))
    return values_TX[low_F] * (1 - share_F) + values_TX[high_F] * share_F


def _mouth(name: str, lips_FP3: np.ndarray, rest_P3: np.ndarray, shaded: ShadedMouth | None) -> Mouth:
    def ring(names: tuple[int, ...]) -> np.ndarray:
        return 1000 * (lips_FP3[:, _rows(names), :2] - _middle(rest_P3)[:2])

    def above_rest(pair: tuple[int, int]) -> np.ndarray:
        now_F, rest = (np.linalg.norm(np.diff(x[..., _rows(pair), :2], axis=-2)[..., 0, :], axis=-1)
                       for x in (lips_FP3, rest_P3))  # fmt: skip
        return 1000 * (now_F - rest)

    return Mouth(
        name=name,
        outer_mm_FP2=ring(OUTER_LIP),
        inner_mm_FP2=ring(INNER_LIP),
        chin_mm_FP2=ring(CHIN_LINE),
        opening_mm_F=above_rest(MIDDLES),
        width_mm_F=above_rest(CORNERS),
        shaded=shaded,
    )


def _middle(landmarks_P3: np.ndarray) -> np.ndarray:
    """Where the lips meet."""
    return landmarks_P3[_rows(MIDDLES)].mean(0)


def _rows(names: Sequence[int]) -> list[int]:
    return [USED.index(name) for name in names]


def _says_all(text: str) -> bool:
    known = pronunciations()
    said = {phone for word in text.split() for phone in known.get(word, ((),))[0]}
    return all(said & members for members in SOUNDS.values())
