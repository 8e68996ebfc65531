# SPDX-License-Identifier: GPL-3.0-or-later
"""What `evaluate joint_text` learns from: GRID's filmed clips with prosody, what the ear hears, and the words' vectors.

Shapes: T film frames, W words, E text features, M memory width, P hops of prosody, Y targets, X of the tracker's own
confounders, N landmarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.infer import SpeechAnimator
from wav2sem_blender.pipeline.prosody import Prosody, listen

from ..datasets.corpora import Clip, grid_words, list_clips
from ..motion.landmarks import BROWS, CHIN, EYE_CORNERS, EYES, FLAME_EYES_MM, points_px
from ..speech.phones import Timing
from ..speech.token_features import TokenEncoder

TARGETS = ("brow raise", "frown", "pitch", "yaw", "roll", "lip opening", "lip width")
UNITS = ("mm", "mm", "deg/s", "deg/s", "deg/s", "mm", "mm")
N_BROWS = 2  # the first targets are what is left of the brows when the tracker's confounders are taken away
N_MOUTH = 3  # the first confounders: the lips' opening and width, and the chin
_STRESS_S = 0.1  # a stressed syllable is a bump of this width in the model's input


@dataclass(frozen=True, kw_only=True)
class FilmedFace:
    """A face as it was tracked: `moved_TY` in `UNITS`, and what moves the tracker's brows although brows do not move:
    lips, chin, lids, gaze and pose `confounders_TX`. Positions are about their mean over the clip."""

    moved_TY: np.ndarray
    confounders_TX: np.ndarray
    brows_T2: np.ndarray
    fps: float


@dataclass(frozen=True, kw_only=True)
class TextClip:
    """One clip: targets, inputs at the film's frames, and its words with their vectors, in context and without."""

    name: str
    split: str
    face: FilmedFace
    prosody_TP: np.ndarray
    ear_TM: np.ndarray
    words: list[Timing]
    vectors: dict[str, np.ndarray]


def filmed_face(path: Path) -> FilmedFace | None:
    """Read a track; None where the face was lost.

    The head's rotation is removed by the tracker's, its place by the corners of the eyes alone: the nose, by which the
    lips are stabilised, moves with an opening mouth in the tracker's mesh.
    """
    with np.load(path) as track:
        if not track["ok"].all():
            return None
        points_TN3, names = points_px(track)
        rotation_T33, fps = track["mat"][:, :3, :3].astype(float), float(track["fps"])
        scores = track["bs_names"].tolist()
        rows = [scores.index(f"eye{what}{side}") for what in ("Blink", "LookDown") for side in ("Left", "Right")]
        lids_T4 = track["bs_u8"][:, rows].astype(float)
    points_TN3 = np.einsum("tji,tnj->tni", rotation_T33, points_TN3 * (1, -1, -1))

    def at(some: Sequence[int]) -> np.ndarray:
        return points_TN3[:, [names[name] for name in some]]

    def apart(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(np.diff(at((a, b))[..., :2], axis=1)[:, 0], axis=-1)

    points_TN3 = points_TN3 - at(EYES).mean(1, keepdims=True)
    points_TN3 = points_TN3 * (FLAME_EYES_MM / np.median(apart(*EYE_CORNERS)))
    right, left = (at(side)[..., 1].mean(1) for side in BROWS)
    inner = at((BROWS[1][-1], BROWS[0][-1]))[..., 0]
    r = rotation_T33
    angles_T3 = np.stack(
        [np.arctan2(r[:, 2, 1], r[:, 2, 2]), np.arcsin(-r[:, 2, 0].clip(-1, 1)), np.arctan2(r[:, 1, 0], r[:, 0, 0])], 1
    )
    angles_T3 = np.degrees(angles_T3)
    opening, width = apart(13, 14), apart(61, 291)
    speeds = np.gradient(angles_T3, axis=0) * fps
    moved = np.stack([(right + left) / 2, inner[:, 1] - inner[:, 0], *speeds.T, opening, width], 1)
    moved[:, (0, 1, 5, 6)] -= moved[:, (0, 1, 5, 6)].mean(0)
    confounders = np.column_stack([opening, width, at(CHIN)[..., 1].mean(1), lids_T4, angles_T3])
    brows = np.stack([right, left], 1)
    return FilmedFace(
        moved_TY=moved, confounders_TX=confounders - confounders.mean(0), brows_T2=brows - brows.mean(0), fps=fps
    )


def film_clips(data: Path, animator: SpeechAnimator, encoder: TokenEncoder) -> list[TextClip]:
    """GRID's speaker 1, of whom there is enough film.

    Raises:
        MissingFileError: There are no clips of it, or a part of them is empty.
    """
    clips = [clip for clip in list_clips(data) if clip.corpus == "grid_s1"]
    films = [
        found
        for clip in tqdm(clips, desc="hear and read", unit="clip")
        if (found := _film_clip(clip, animator, encoder))
    ]
    if {clip.split for clip in films} != {"train", "valid", "test"}:
        raise MissingFileError("{folder}: films for training, choosing and judging are needed", folder=data / "grid_s1")
    return films


def _film_clip(clip: Clip, animator: SpeechAnimator, encoder: TokenEncoder) -> TextClip | None:
    face = filmed_face(clip.path.with_suffix(".npz"))
    words = grid_words(clip.path.with_suffix(".align"))
    if face is None or not words:
        return None
    with Speech.from_file(clip.path) as speech:
        memory_RM = animator.animate_speech(speech).memory_RM
        assert memory_RM is not None  # `evaluate_text` asked for a model that can be steered
        prosody = listen(speech)
    times_T = np.arange(len(face.moved_TY)) / face.fps
    rate_hz = animator.folder.config.host.grid.fps
    ear = [np.interp(times_T, np.arange(len(memory_RM)) / rate_hz, column) for column in memory_RM.T.astype(float)]
    contextual_WE, embeddings_WE = encoder.of_words([word for word, _, _ in words])
    return TextClip(
        name=clip.name, split=clip.split, face=face, prosody_TP=prosody_at(prosody, times_T), ear_TM=np.stack(ear, 1),
        words=words, vectors={"in context": contextual_WE, "without context": embeddings_WE},
    )  # fmt: skip


def prosody_at(prosody: Prosody, times_T: np.ndarray) -> np.ndarray:
    """Loudness, pitch and whether there is any, speech, and stressed syllables by their prominence (T, 5)."""
    hops_T = np.clip(np.round(times_T / prosody.hop_s).astype(int), 0, len(prosody.level_db_P) - 1)
    smooth = np.ones(3) / 3
    voiced_P = np.isfinite(prosody.pitch_st_P)
    columns_P = (prosody.level_db_P, np.where(voiced_P, prosody.pitch_st_P, 0.0), voiced_P, prosody.speaking())
    columns = [np.convolve(column, smooth, mode="same")[hops_T] for column in columns_P]
    at_N, prominence_N = prosody.stresses()
    bumps_TN = np.exp(-np.square((times_T[:, None] - at_N) / _STRESS_S))
    return np.stack([*columns, bumps_TN @ prominence_N], 1)


def held(vectors_WE: np.ndarray, words: Sequence[Timing], fps: float, n_frames: int) -> np.ndarray:
    """1 and the word's vector from its start to its end, zeros elsewhere (T, 1 + E)."""
    told_TE = np.zeros((n_frames, 1 + vectors_WE.shape[1]))
    times_T = np.arange(n_frames) / fps
    for vector_E, (_, start_s, end_s) in zip(vectors_WE, words, strict=True):
        told_TE[(times_T >= start_s) & (times_T < end_s)] = [1.0, *vector_E]
    return told_TE


def clean_brows(clips: Iterable[TextClip]) -> dict[str, np.ndarray]:
    """Targets (T, Y) by clip, in which the brows are what the confounders, by least squares on "train", do not say."""
    clips = list(clips)
    learnt = [clip.face for clip in clips if clip.split == "train"]
    fit_XB, *_ = np.linalg.lstsq(
        np.concatenate([face.confounders_TX for face in learnt]),
        np.concatenate([face.moved_TY[:, :N_BROWS] for face in learnt]),
        rcond=None,
    )
    cleaned = {}
    for clip in clips:
        moved_TY = clip.face.moved_TY.copy()
        moved_TY[:, :N_BROWS] -= clip.face.confounders_TX @ fit_XB
        cleaned[clip.name] = moved_TY
    return cleaned
