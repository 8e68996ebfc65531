# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips of recorded motion as `finetune` learns them.

The frozen parts are computed once for each clip: the CNN's features, the sentence vector and the emotion's features.

Shapes: S samples, T animation frames, R memory frames, C channels of the CNN, D features, E sentence space, V vertices,
X = 3V or parameters, K styles that a clip is predicted in, N styles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import given_features
from wav2sem_blender.pipeline.listening import FeatureSource, TextSource
from wav2sem_blender.pipeline.nn import host_network
from wav2sem_blender.pipeline.nn.face_model import FaceModel

from ..datasets.closures import Closures
from ..datasets.face_data import FaceClip, FaceData
from ..speech.batches import normalise
from ..speech.prepared import SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A clip on the device.

    Attributes:
        name: Of the clip.
        convolved: Of `FaceModel.convolved`, (1, R, C) or (1, L, C).
        positions_1R: Where the memory frames are read.
        semantic_11E: F_s, or the text's features (1, R, E), or None where the host is told neither.
        target_TX: Of `FaceData.targets`: offsets from the template, or parameters.
        template_X: The subject's rest face.
        weight_T: Weights of the frames, for hosts that have such a loss.
        style_KN: Of `FaceData.style`: what the clip is predicted in.
        audio_s: Its duration.
        emotion_1RD: What the emotion encoder hears, if the host has one.
    """

    name: str
    convolved: Tensor
    positions_1R: Tensor
    semantic_11E: Tensor | None
    target_TX: Tensor
    template_X: Tensor
    style_KN: Tensor
    audio_s: float
    weight_T: Tensor | None = None
    emotion_1RD: Tensor | None = None


Kept = tuple[Tensor, Tensor, Tensor | None, Tensor | None, float]


class Examples:
    """Reads clips; what the frozen parts make of them is computed once and kept."""

    def __init__(
        self, model: FaceModel, faces: FaceData, device: torch.device, closures: Closures | None = None
    ) -> None:
        self._model, self._faces, self._device, self._closures = model, faces, device, closures
        self._weights: dict[str, Tensor] = {}
        self._kept: dict[str, Kept] = {}
        self.point_width = faces.point_width
        encoder = model.config.encoder
        width = model.config.host.text_width
        self._text = TextSource(width, []) if width else None
        self._source = FeatureSource(encoder, str(device), []) if encoder.kind == given_features.KIND else None

    def __call__(self, clip: FaceClip) -> Example:
        """Read a clip.

        Raises:
            UserError: It cannot be used (see `FaceData`), or a training clip's subject has no style.
        """
        faces, styles = self._faces, self._model.config.styles
        if clip.split == "train" and clip.subject not in styles:
            raise UserError(
                "{clip}: its subject {subject} is not among the styles ({styles})",
                clip=clip.name,
                subject=clip.subject,
                styles=", ".join(styles),
            )
        target_TX = torch.from_numpy(faces.targets(clip))
        if clip.name not in self._kept:
            self._kept[clip.name] = self._listen(clip, len(target_TX))
        convolved, positions_1R, semantic_11E, emotion_1RD, audio_s = self._kept[clip.name]
        return Example(
            name=clip.name,
            convolved=convolved,
            positions_1R=positions_1R,
            semantic_11E=semantic_11E,
            emotion_1RD=emotion_1RD,
            target_TX=target_TX.to(self._device),
            template_X=torch.from_numpy(faces.rest(clip.subject)).to(self._device),
            style_KN=torch.from_numpy(faces.style(clip, styles)).to(self._device),
            audio_s=audio_s,
            weight_T=self._weight(clip, len(target_TX)),
        )

    def _weight(self, clip: FaceClip, n_anim_frames: int) -> Tensor | None:
        if self._closures is None or clip.split != "train":
            return None
        if clip.name not in self._weights:
            weight_T = self._closures(clip, self._faces.samples(clip), n_anim_frames, self._faces.fps)
            self._weights[clip.name] = torch.from_numpy(weight_T).to(self._device)
        return self._weights[clip.name]

    def given_files(self) -> list[Path]:
        """The files of features that are read, of the clips that have one."""
        sources = [source for source in (self._text, self._source) if source is not None and source.from_files]
        clips = ((clip, source.SUFFIXES) for source in sources for clip in self._faces.clips)
        return [file for clip, suffixes in clips if (file := self._faces.features_file(clip, suffixes)) is not None]

    @torch.no_grad()
    def _listen(self, clip: FaceClip, n_anim_frames: int) -> Kept:
        """The CNN's features, their positions (1, R), F_s (1, 1, E), the emotion's features, and the duration.

        As published, T is the number of recorded frames; inference counts it from the audio.
        """
        model, samples_S = self._model, self._faces.samples(clip)
        waveform = torch.from_numpy(normalise(samples_S))[None].to(self._device)
        heard = waveform if model.config.encoder.normalised else torch.from_numpy(samples_S)[None].to(self._device)
        if self._source is not None:
            heard = torch.from_numpy(self._faces.features(clip, self._source))[None].to(self._device)
        positions_R = model.config.host.grid.positions(len(samples_S), n_anim_frames)
        positions_1R = torch.from_numpy(positions_R).float()[None].to(self._device)
        convolved = model.convolved(heard, positions_1R)
        semantic = model.semantics(waveform)
        if self._text is not None:
            said_RE = self._text.at(self._faces.features(clip, self._text), positions_R)
            semantic = torch.from_numpy(said_RE)[None].to(self._device)
        emotion = model.emotions(waveform, positions_1R)
        return convolved, positions_1R, semantic, emotion, len(samples_S) / SAMPLE_RATE_HZ


def remember(model: FaceModel, example: Example, masked: Tensor | None = None) -> Tensor:
    """The memory (1, R, M) of a clip."""
    masked_BT = None if masked is None else masked[None]
    features_1RD = model.features(example.convolved, example.positions_1R, masked_BT)
    return model.beside(model.fusion(features_1RD, example.semantic_11E), example.emotion_1RD)


def example_for(memory_1RM: Tensor, example: Example, style_KN: Tensor) -> host_network.Example:
    """A clip as its host's network learns it, once for each of the styles."""
    n_styles = len(style_KN)
    return host_network.Example(
        memory_BRM=memory_1RM.expand(n_styles, -1, -1),
        style_BN=style_KN,
        target_BTX=example.target_TX.expand(n_styles, -1, -1),
        template_BX=example.template_X.expand(n_styles, -1),
        weight_BT=None if example.weight_T is None else example.weight_T.expand(n_styles, -1),
    )
