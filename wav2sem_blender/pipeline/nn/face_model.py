# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole face model: speech encoder, optional Wav2Sem, fusion, and the network of its host.

Shapes: B batch, S samples, L encoder frames (50 Hz), R memory frames, C channels of the CNN, D features, E sentence
space, M memory width, N styles, T animation frames, X outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .emotion2vec import build_emotion_encoder, feel
from .encoders import build_backbone, contextualise, convolve, encode, resample_features
from .forced_phones import PhoneReader
from .wav2sem import FeatureReader, SemanticFusion, Wav2Sem

if TYPE_CHECKING:
    from ..checkpoint import ModelConfig


class FaceModel(nn.Module):
    """Speech to channel weights.

    The Wav2Sem is frozen and stays in eval mode: under `train()` its dropout and LayerDrop would make F_s random. So is
    the emotion encoder, if the host has one.
    """

    def __init__(self, config: ModelConfig, n_outputs: int | None = None) -> None:
        """`n_outputs`: X where the network does not predict the channels (3V in training on vertices)."""
        super().__init__()
        self.config = config
        self.audio_encoder = build_backbone(config.encoder.kind, config.encoder.config)
        self.wav2sem: Wav2Sem | FeatureReader | None = None
        if config.wav2sem is not None:
            architecture = FeatureReader if config.wav2sem.shared else Wav2Sem
            self.wav2sem = architecture(config.wav2sem.config, config.wav2sem.target_dim)
        if self.wav2sem is not None:
            self.wav2sem.eval().requires_grad_(False)
        self.emotion_encoder = build_emotion_encoder(config.emotion) if config.emotion else None
        if self.emotion_encoder is not None:
            self.emotion_encoder.eval().requires_grad_(False)
        width = self.audio_encoder.config.hidden_size
        self.phone_head = nn.Linear(width, len(config.phones)) if config.phones else None
        self.fusion = SemanticFusion(
            config.host.feature_width(width),
            config.host.memory_width,
            config.wav2sem.target_dim if config.wav2sem else config.host.text_width or None,
            legacy_predict=config.legacy_predict,
        )
        self.decoder = config.host.network(n_outputs or len(config.channels), len(config.styles))
        self.forced = PhoneReader(len(config.phones), config.host.memory_width or width) if config.steerable else None

    def train(self, mode: bool = True) -> FaceModel:
        """As for every module, without the Wav2Sem and the emotion encoder."""
        super().train(mode)
        for frozen in (self.wav2sem, self.emotion_encoder):
            if frozen is not None:
                frozen.eval()
        return self

    def semantics(self, waveform_BS: Tensor) -> Tensor | None:
        """F_s (B, 1, E) without gradients, or None without a Wav2Sem."""
        if self.wav2sem is None:
            return None
        with torch.no_grad():
            return self.wav2sem(waveform_BS).unsqueeze(1)

    def emotions(self, waveform_BS: Tensor, positions_BR: Tensor) -> Tensor | None:
        """The emotion encoder's hidden states (B, R, D) without gradients, or None without one."""
        if self.emotion_encoder is None:
            return None
        with torch.no_grad():
            return resample_features(feel(self.emotion_encoder, waveform_BS), positions_BR)

    def hear(self, spectrogram_BFM: Tensor) -> tuple[Tensor, Tensor]:
        """Of a shared encoder: its features (B, L, D) and the phones' probabilities (B, L, P)."""
        features_BLD, _ = encode(self.audio_encoder, spectrogram_BFM)
        if self.phone_head is None:
            return features_BLD, features_BLD.new_zeros(*features_BLD.shape[:2], 0)
        return features_BLD, self.phone_head(features_BLD).softmax(-1)

    def convolved(self, waveform_BS: Tensor, positions_BR: Tensor) -> Tensor:
        """The CNN's features (B, R, C), or (B, L, C) for a host that reads positions behind the transformer."""
        features_BLC = convolve(self.audio_encoder, waveform_BS)
        if self.config.host.grid.before_transformer:
            return resample_features(features_BLC, positions_BR)
        return features_BLC

    def features(self, convolved: Tensor, positions_BR: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """F_p (B, R, D) of `convolved`; `masked_BT` hides frames of it behind the mask embedding."""
        hidden_BTD = contextualise(self.audio_encoder, convolved, masked_BT=masked_BT)
        if self.config.host.grid.before_transformer:
            return hidden_BTD
        return resample_features(hidden_BTD, positions_BR)

    def memory(self, waveform_BS: Tensor, positions_BR: Tensor, semantic_BTE: Tensor | None) -> Tensor:
        """The memory (B, R, M), with the emotion's features beside the speech's if the host has them; `semantic_BTE` is
        F_s, scaled already."""
        features_BRD = self.features(self.convolved(waveform_BS, positions_BR), positions_BR)
        return self.beside(self.fusion(features_BRD, semantic_BTE), self.emotions(waveform_BS, positions_BR))

    def beside(self, memory_BRM: Tensor, emotion_BRD: Tensor | None) -> Tensor:
        """The memory with the emotion's features, if there are any."""
        return memory_BRM if emotion_BRD is None else torch.cat([memory_BRM, emotion_BRD], -1)

    def forward(self, waveform_BS: Tensor, positions_BR: Tensor, style_BN: Tensor) -> Tensor:
        """Prediction (B, T, X), with semantics at full strength."""
        return self.decoder(self.memory(waveform_BS, positions_BR, self.semantics(waveform_BS)), style_BN)
