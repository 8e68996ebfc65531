# SPDX-License-Identifier: GPL-3.0-or-later
"""3DMEAD: FLAME parameters at 25 fps, reconstructed from MEAD's films of 47 speakers (EMICA, FLAME 2020).

    param/M003_012_5_2.npy    (1, T, 403): 300 shape parameters, 100 expressions, the jaw's rotation vector
    wav/M003_012_5_2.wav      the same take's sound
    flame.npz                 your FLAME 2020, with its own arrays (see docs/hosts.md)

That is what ProbTalk3D's script writes. A name has the speaker, the sentence, the emotion (0 neutral, 1 happy, 2 sad,
3 surprised, 4 fear, 5 disgusted, 6 angry, 7 contempt) and its level (0 to 2). The released code scales the sound to
-1..1; HuBERT's own normalisation undoes that.

Three splits were published: "mead_sentences" holds out sentences of the 32 training speakers (ProbTalk3D),
"mead_identities" speakers of these (LSF-Animation), and "mead_prior" other speakers, whose sound is not read (stage 1
of both).

Shapes: T animation frames, V vertices, X = 53 parameters, N styles, S = 300 shape parameters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.flame_parameters import N_EXPRESSIONS, N_PARAMETERS, N_SHAPES, OWN_FACE, Flame, from_flame
from wav2sem_blender.pipeline.hosts.probtalk3d import EMOTIONS, LEVELS, SPEAKERS, STYLES, ProbTalk3D

from .exported_faces import load_array, sound_length_s
from .face_data import FaceClip, FaceData

FLAME_FILE = "flame.npz"
_NAME = re.compile(r"(?P<speaker>[MW]\d{3})_(?P<sentence>\d{3})(?:_(?P<emotion>\d)_(?P<level>\d))?")
_WIDTH = 403
_JAW = slice(400, 403)
PRIOR_VALID = ("M032", "M033", "M034", "M035", "W033", "W035", "W036")
PRIOR_TEST = ("M037", "M039", "M040", "M041", "M042", "W037", "W038", "W040")
_BY_IDENTITY = (*SPEAKERS[-8:], *SPEAKERS[:-8])


class Take(NamedTuple):
    """What a clip's name says; `emotion` and `level` are None where it does not."""

    speaker: str
    sentence: int
    emotion: int | None
    level: int | None


def take_of(name: str) -> Take | None:
    """A name read; None for another file's."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    label = found["emotion"] and (int(found["emotion"]), int(found["level"]))
    return Take(found["speaker"], int(found["sentence"]), *(label or (None, None)))


def style_names(take: Take) -> tuple[str, str, str]:
    """The three styles that a labelled take has."""
    assert take.emotion is not None and take.level is not None
    return take.speaker, EMOTIONS[take.emotion], LEVELS[take.level]


def by_sentence(take: Take) -> str | None:
    """ProbTalk3D's split of the 32 speakers' clips."""
    if take.speaker not in SPEAKERS:
        return None
    ends = (32, 36, 40) if take.emotion == 0 else (24, 27, 30)
    return next((split for split, end in zip(_SPLITS, ends, strict=True) if take.sentence <= end), None)


def by_identity(take: Take) -> str | None:
    """LSF-Animation's split: of the 32 speakers in its order 22 learnt, 5 held out, and 5 for the test."""
    if take.speaker not in _BY_IDENTITY:
        return None
    index = _BY_IDENTITY.index(take.speaker)
    return _SPLITS[(index >= 22) + (index >= 27)]


def by_other_identities(take: Take) -> str | None:
    """Stage 1's: the 32 speakers are learnt, and others held out."""
    groups = zip(_SPLITS, (SPEAKERS, PRIOR_VALID, PRIOR_TEST), strict=True)
    return next((split for split, speakers in groups if take.speaker in speakers), None)


_SPLITS = ("train", "valid", "test")


class Mead(FaceData):
    """The parameters, scaled as the published models read them; vertices through the user's FLAME.

    Attributes:
        heard: Whether the clips have sound.
        labelled: Whether a style is the speaker, the emotion and its level; otherwise it is the face's shape.
        learner: The host whose labels these are, for messages.
    """

    fps, n_vertices, unit, topology = 25, 5023, "m", "flame"
    n_outputs, point_width = N_PARAMETERS, 1
    learner = "ProbTalk3D"

    def __init__(
        self, folder: Path, split: Callable[[Take], str | None], *, name: str, heard: bool = True, labelled: bool = True
    ) -> None:
        self.folder, self.name, self.heard, self.labelled = folder, name, heard, labelled
        self.styles = STYLES if labelled else SPEAKERS
        motions = {path.stem for path in (folder / "param").glob("*.npy")}
        if not motions:
            raise MissingFileError(
                "{folder}: there is no param/*.npy here; 3DMEAD is one .npy (1, T, 403) for each take, such as "
                "param/M003_012_5_2.npy",
                folder=folder,
            )
        recordings = {path.stem for path in (folder / "wav").glob("*.wav")}
        skipped: Counter[str] = Counter()
        clips = []
        for clip_name in sorted(motions):
            take = take_of(clip_name)
            part = split(take) if take else None
            if take is None:
                skipped["another name"] += 1
            elif labelled and take.emotion is None:
                raise UserError(
                    "{file}: its name has no emotion and level, which {host} learns; call it {example}",
                    file=f"{clip_name}.npy",
                    host=self.learner,
                    example=f"{clip_name}_EMOTION_LEVEL.npy",
                )
            elif labelled and not self._is_label(take):
                raise UserError(
                    "{file}: emotion {emotion}, level {level}; emotions are 0 to {emotions}, levels 0 to {levels}",
                    file=f"{clip_name}.npy",
                    emotion=take.emotion,
                    level=take.level,
                    emotions=len(EMOTIONS) - 1,
                    levels=len(LEVELS) - 1,
                )
            elif part is None:
                skipped["not in the published split"] += 1
            elif heard and clip_name not in recordings:
                skipped["recording missing"] += 1
            else:
                style = " + ".join(style_names(take)) if labelled else OWN_FACE
                clips.append(FaceClip(name=clip_name, subject=take.speaker, split=part, style=style))
        self.clips, self.skipped = tuple(clips), dict(skipped)

    @staticmethod
    def _is_label(take: Take) -> bool:
        return take.emotion in range(len(EMOTIONS)) and take.level in range(len(LEVELS))

    @cached_property
    def flame(self) -> Flame:
        """The user's FLAME.

        Raises:
            MissingFileError: There is no flame.npz.
        """
        path = self.folder / FLAME_FILE
        if not path.is_file():
            raise MissingFileError(
                "{file} is missing: your FLAME 2020 as .npz, which makes a face of the parameters (docs/hosts.md)",
                file=path,
            )
        return Flame.read(path)

    def files(self) -> list[Path]:
        motions = [self._motion(clip) for clip in self.clips]
        return [*motions, *(self._recording(clip) for clip in self.clips if self.heard)]

    def targets(self, clip: FaceClip) -> np.ndarray:
        """(T, X) as the network predicts them. Motion longer than the sound is cut (ProbTalk3D) or compressed (LSF)."""
        parameters_TX = self.parameters(clip)
        if self.heard:
            if clip.name not in self._n_samples:
                self.samples(clip)
            n_heard = ProbTalk3D().grid.animation_frames(self._n_samples[clip.name])
            if not self.labelled and n_heard < len(parameters_TX):
                parameters_TX = _resampled(parameters_TX, n_heard)
            parameters_TX = parameters_TX[:n_heard]
        return from_flame(parameters_TX)

    def rest(self, subject: str) -> np.ndarray:
        """Nothing: parameters are no offsets."""
        return np.zeros(N_PARAMETERS, np.float32)

    def parameters(self, clip: FaceClip) -> np.ndarray:
        """FLAME's 50 expressions and the jaw's rotation vector (T, X).

        Raises:
            UserError: The file has another shape, or a value is not finite.
        """
        whole_TP = self._whole(clip)
        return np.concatenate([whole_TP[:, N_SHAPES : N_SHAPES + N_EXPRESSIONS], whole_TP[:, _JAW]], 1)

    def shape(self, clip: FaceClip) -> np.ndarray:
        """The speaker's FLAME shape (S,), of the first frame as published."""
        return self._whole(clip)[0, :N_SHAPES].astype(np.float32)

    def style(self, clip: FaceClip, styles: Sequence[str]) -> np.ndarray:
        """(1, N): speaker, emotion and level; or the shape (1, S)."""
        if not self.labelled:
            return self.shape(clip)[None]
        take = take_of(clip.name)
        assert take is not None
        return np.array([[style in style_names(take) for style in styles]], np.float32)

    def prepare(self, network: object) -> None:
        """Give a network the FLAME that makes its keys."""
        network.flame = self.flame  # type: ignore[attr-defined]

    def _whole(self, clip: FaceClip) -> np.ndarray:
        path = self._motion(clip)
        whole = load_array(path)
        if whole.dtype.kind != "f" or whole.shape[-1:] != (_WIDTH,) or whole.ndim != 3 or len(whole) != 1:
            raise UserError(
                "{file}: {dtype} {shape}; floats of shape (1, frames, 403) are needed: 300 shape, 100 expression and 3 "
                "jaw parameters",
                file=path.name,
                dtype=whole.dtype,
                shape=whole.shape,
            )
        if not np.isfinite(whole).all():
            raise UserError("{file}: some parameters are NaN or infinite; make it again", file=path.name)
        return np.asarray(whole[0], np.float64)

    def _motion(self, clip: FaceClip) -> Path:
        return self.folder / "param" / f"{clip.name}.npy"

    def _recording(self, clip: FaceClip) -> Path:
        return self.folder / "wav" / f"{clip.name}.wav"

    def _speech(self, clip: FaceClip) -> Speech:
        return Speech.from_file(self._recording(clip))

    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        return sound_length_s(self._recording(clip)), load_array(self._motion(clip)).shape[1] / self.fps

    def _vertices(self, clip: FaceClip) -> np.ndarray:
        # On one shape for all clips of a speaker, since their reconstructions differ in it.
        return self.flame.vertices(self.parameters(clip), self._shape_of(clip.subject))

    def _template(self, subject: str) -> np.ndarray:
        return self.flame.neutral(self._shape_of(subject)).astype(np.float32)

    def _shape_of(self, subject: str) -> np.ndarray:
        return self.shape(next(clip for clip in self.clips if clip.subject == subject))


def _resampled(values_TX: np.ndarray, n_frames: int) -> np.ndarray:
    """Linearly, from the first frame to the last."""
    at_T = np.linspace(0, len(values_TX) - 1, n_frames)
    lower_T = at_T.astype(int).clip(max=len(values_TX) - 2)
    share_T1 = (at_T - lower_T)[:, None]
    return values_TX[lower_T] * (1 - share_T1) + values_TX[lower_T + 1] * share_T1


def open_mead_sentences(folder: Path) -> Mead:
    """ProbTalk3D's split."""
    return Mead(folder, by_sentence, name="mead_sentences")


def open_mead_identities(folder: Path) -> Mead:
    """LSF-Animation's split; a style is a face."""
    return Mead(folder, by_identity, name="mead_identities", labelled=False)


def open_mead_prior(folder: Path) -> Mead:
    """Stage 1's split, without sound."""
    return Mead(folder, by_other_identities, name="mead_prior", heard=False, labelled=False)
