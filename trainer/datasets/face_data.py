# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech and the moving face that spoke it: the interface to VOCASET, BIWI and a studio's own recordings.

`open_face_data("vocaset" | "biwi" | "custom", folder)` recognises the layout. Every reader gives samples at 16 kHz,
vertices at the model's frame rate, the speaker's rest face, and the published split.

Texts for the oracle sentence embedding are optional: `sentences.tsv` with lines "CLIP<tab>TEXT", or
`sentencestext/SUBJECT.txt` with the text of sentence n in line n.

Shapes: S samples at 16 kHz, T animation frames, V vertices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.frame_timing import FrameGrid
from wav2sem_blender.pipeline.given_features import SUFFIXES

if TYPE_CHECKING:
    from wav2sem_blender.pipeline.listening import FeatureSource
    from wav2sem_blender.pipeline.nn.host_network import HostNetwork

SENTENCES = "sentences.tsv"
FEATURES_FOLDER = "features"

# Audio and motion of one take differ by a few frames; a larger difference means another take.
MAX_LENGTH_DIFFERENCE_S = 0.5
# Mean distance of a clip's mean face from its template, over the template's radius. It stays below 0.1 for the right
# template; another unit or pose is above 1.
MAX_TEMPLATE_DISTANCE = 0.25


@dataclass(frozen=True, kw_only=True)
class FaceClip:
    """One sentence of one subject.

    Attributes:
        split: "train", "valid", "test" or, in BIWI, "test_b" ("test" is Test-A).
        style: The name of its speaking style where that is not the subject.
    """

    name: str
    subject: str
    split: str
    text: str | None = None
    style: str = ""


class FaceData(ABC):
    """A data set of clips, opened for reading; clips are decoded on demand.

    Attributes:
        name: "vocaset", "biwi" or "custom".
        folder: Where it is.
        fps: Frame rate of `vertices`: 30 or 25, or 60 for all of VOCASET's frames.
        n_vertices: V.
        unit: "m", or "sqrt_area": lengths divided by the square root of the face's area (BIWI).
        topology: "flame", "biwi", or the studio's own name.
        clips: The clips on disk of the published splits, by split, subject and sentence.
        styles: The training subjects in the order of the style's one-hot columns.
        skipped: Reason -> number of clips that the splits name but the folder lacks, or the reverse.
    """

    name: str
    folder: Path
    fps: int
    n_vertices: int
    unit: str
    topology: str
    clips: tuple[FaceClip, ...]
    styles: tuple[str, ...]
    skipped: Mapping[str, int]
    point_width = 3
    """How many values of `targets` belong together: x, y and z of a vertex."""

    @property
    def n_outputs(self) -> int:
        """X: what a network of this data predicts."""
        return 3 * self.n_vertices

    def targets(self, clip: FaceClip) -> np.ndarray:
        """What a network learns of a clip, float32 (T, X): offsets from the rest face; errors as `vertices`."""
        vertices_TV3 = self.vertices(clip)
        return (vertices_TV3 - self.template(clip.subject)).reshape(len(vertices_TV3), -1)

    def rest(self, subject: str) -> np.ndarray:
        """What `targets` are offsets from, float32 (X,)."""
        return self.template(subject).ravel()

    def style(self, clip: FaceClip, styles: Sequence[str]) -> np.ndarray:
        """The styles to predict a clip in, float32 (K, N): its own, or all of them for a subject that is not learnt."""
        every_NN = np.eye(len(styles), dtype=np.float32)
        return every_NN[[styles.index(clip.subject)]] if clip.subject in styles else every_NN

    def prepare(self, network: HostNetwork) -> None:  # noqa: B027 (most networks need nothing)
        """Give a network what it needs of the data beside clips."""

    @cached_property
    def _n_samples(self) -> dict[str, int]:
        """Clip -> samples at 16 kHz, of the recordings that were decoded: decoding one again takes long."""
        return {}

    @abstractmethod
    def files(self) -> list[Path]:
        """Every file that is read; the data's hash covers them."""

    @abstractmethod
    def _speech(self, clip: FaceClip) -> Speech: ...

    @abstractmethod
    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        """Seconds of audio and of motion, from headers alone."""

    @abstractmethod
    def _vertices(self, clip: FaceClip) -> np.ndarray:
        """The whole clip at `fps` as (T, V, 3), unchecked."""

    @abstractmethod
    def _template(self, subject: str) -> np.ndarray:
        """(V, 3) or (3V,), unchecked; KeyError if there is none."""

    def features_file(self, clip: FaceClip, suffixes: tuple[str, ...] = SUFFIXES) -> Path | None:
        """The clip's file in `features`, for models that are given them; None if there is none."""
        files = (self.folder / FEATURES_FOLDER / f"{clip.name}{suffix}" for suffix in suffixes)
        return next((file for file in files if file.is_file()), None)

    def features(self, clip: FaceClip, source: FeatureSource) -> np.ndarray:
        """What such a model is given of a clip, (L, D).

        Raises:
            MissingFileError: There is no file of it.
            UserError: The file does not fit.
        """
        with self._speech(clip) as speech:
            wanted = self.folder / FEATURES_FOLDER / f"{clip.name}{source.SUFFIXES[0]}"
            speech.features = self.features_file(clip, source.SUFFIXES) or wanted
            return source.read(speech, lambda _stage, _fraction: None)[0]

    def samples(self, clip: FaceClip) -> np.ndarray:
        """Mono 16 kHz float32 (S,), resampled as the pipeline does, not normalised.

        Raises:
            MissingFileError: the recording is gone.
            UserError: it cannot be decoded, or is silent.
        """
        with self._speech(clip) as speech:
            self._n_samples[clip.name] = speech.n_samples
            return speech.read(0, speech.n_samples, normalised=False).copy()

    def vertices(self, clip: FaceClip) -> np.ndarray:
        """Motion at `fps`, float32 (T, V, 3).

        At 30 fps (VOCASET) all frames stay, since training interpolates the audio's features to them. At 25 fps (BIWI)
        longer motion is cropped to the audio's L // 2 frames, as in FaceFormer.

        Raises:
            UserError: wrong vertex count, NaN or infinity, or another subject's template.
        """
        vertices_TV3 = _checked_motion(clip.name, self._vertices(clip), self.n_vertices, self.fps)
        _check_template_fits(clip.name, vertices_TV3, self.template(clip.subject))
        grid = FrameGrid.at_rate(self.fps)
        if grid.interpolated:
            return vertices_TV3
        if clip.name not in self._n_samples:
            self.samples(clip)
        return vertices_TV3[: grid.animation_frames(self._n_samples[clip.name])]

    def template(self, subject: str) -> np.ndarray:
        """The subject's rest face, float32 (V, 3), in the unit and frame of `vertices`.

        Raises:
            UserError: there is none, it has another vertex count, or a value is not finite.
        """
        try:
            template = np.asarray(self._template(subject))
        except KeyError as error:
            raise UserError(
                "{name}: there is no template of subject {subject}; add it",
                name=self.name,
                subject=subject,
            ) from error
        if template.dtype.kind != "f" or template.size != 3 * self.n_vertices:
            raise UserError(
                "template of {subject}: {dtype} {shape}; floats of shape ({n_vertices}, 3) are needed",
                subject=subject,
                dtype=template.dtype,
                shape=template.shape,
                n_vertices=self.n_vertices,
            )
        template_V3 = template.reshape(self.n_vertices, 3).astype(np.float32)
        if not np.isfinite(template_V3).all():
            raise UserError(
                "template of {subject}: holds NaN or infinity; copy or export it again",
                subject=subject,
            )
        return template_V3

    def spaced_offsets(self, clips: Sequence[FaceClip], n_frames: int) -> np.ndarray:
        """Up to so many offsets from the template, float32 (n, 3V), evenly spaced in each clip."""
        found = []
        for clip in clips:
            vertices_TV3 = self.vertices(clip)
            count = min(len(vertices_TV3), max(1, n_frames // len(clips)))
            chosen = np.linspace(0, len(vertices_TV3) - 1, count).round().astype(int)
            found.append((vertices_TV3[chosen] - self.template(clip.subject)).reshape(count, -1))
        return np.concatenate(found)[:n_frames]

    def _different_lengths(self, clip: FaceClip) -> str | None:
        """The fault if a clip's recording belongs to another take, or None."""
        audio_s, motion_s = self._lengths_s(clip)
        if abs(motion_s - audio_s) <= MAX_LENGTH_DIFFERENCE_S:
            return None
        return f"{clip.name}: {audio_s:.2f} s of audio, but {motion_s:.2f} s of motion"


def _checked_motion(name: str, vertices: np.ndarray, n_vertices: int, fps: int) -> np.ndarray:
    """float32 (T, V, 3), from that or (T, 3V)."""
    frame_size = vertices[0].size if vertices.ndim in (2, 3) and len(vertices) else 0
    if vertices.dtype.kind != "f" or frame_size != 3 * n_vertices:
        raise UserError(
            "{name}: motion is {dtype} {shape}; floats of {n_vertices} vertices a frame are needed",
            name=name,
            dtype=vertices.dtype,
            shape=vertices.shape,
            n_vertices=n_vertices,
        )
    vertices_TV3 = vertices.reshape(len(vertices), n_vertices, 3).astype(np.float32)
    finite_T = np.isfinite(vertices_TV3).all(axis=(1, 2))
    if not finite_T.all():
        raise UserError(
            "{name}: {count} frames have NaN or infinite vertices, the first at {time_s:.2f} s (frame {frame} at "
            "{fps} fps); repair or remove the clip",
            name=name,
            count=int((~finite_T).sum()),
            time_s=int(np.argmin(finite_T)) / fps,
            frame=int(np.argmin(finite_T)),
            fps=fps,
        )
    return vertices_TV3


def _check_template_fits(name: str, vertices_TV3: np.ndarray, template_V3: np.ndarray) -> None:
    radius = float(np.sqrt(np.square(template_V3 - template_V3.mean(axis=0)).sum(axis=1).mean()))
    distance = float(np.linalg.norm(vertices_TV3.mean(axis=0) - template_V3, axis=1).mean())
    if distance > MAX_TEMPLATE_DISTANCE * radius:
        raise UserError(
            "{name}: its mean face is {distance:.3g} away from the subject's template, whose radius is {radius:.3g}; "
            "motion and template differ in unit, pose or person",
            name=name,
            distance=distance,
            radius=radius,
        )


def sentence_texts(folder: Path) -> Mapping[str, str]:
    """Clip name (SUBJECT_eNN, SUBJECT_sentenceNN, …) or "SUBJECT/n" -> text, from the optional files."""
    texts: dict[str, str] = {}
    table = folder / SENTENCES
    if table.is_file():
        for line in table.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition("\t")
            texts[name.strip()] = text.strip()
    for path in sorted((folder / "sentencestext").glob("*.txt")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            texts[f"{path.stem}/{number}"] = text.strip()
    return {name: text for name, text in texts.items() if text}
