# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech encoders (HuBERT, wav2vec 2.0, WavLM) from transformers, with FaceFormer's frame-rate conversion.

Shapes: B batch, S samples, L encoder frames (50 Hz), T animation frames (or 2T for 25 fps), C convolution channels,
D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel
from transformers.audio_utils import mel_filter_bank

from ...errors import UserError
from .. import given_features
from ..audio import SAMPLE_RATE_HZ
from ..frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES
from ..log_mel import hear
from .given_features import GivenFeatures
from .whisper import Whisper

WaveformBackbone: TypeAlias = HubertModel | Wav2Vec2Model | WavLMModel
Backbone: TypeAlias = WaveformBackbone | Whisper | GivenFeatures
KINDS: dict[str, tuple[Any, Any]] = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
}
XLSR_53: dict[str, Any] = {
    **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    **{"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
}
"""What differs in wav2vec2-large-xlsr-53 from the base size. Layer norms precede the blocks and follow every
convolution, which has a bias."""
WHISPER = "whisper"


def build_backbone(kind: str, config: Mapping[str, Any]) -> Backbone:
    """A randomly initialised encoder of `kind` ("hubert", "wav2vec2", "wavlm", "whisper" or "features"), of any size.

    SpecAugment is off by default: the released Wav2Sem has none, and inference never needs it. In addition to what
    transformers knows, `config` may have `n_mels`: a log-mel spectrogram of so many bands, at 100 Hz, then precedes the
    convolutions, which end at 50 Hz on the same frames as the published ones.
    """
    if kind == WHISPER:
        return Whisper(config)
    if kind == given_features.KIND:
        return GivenFeatures(config)
    config_class, model_class = _classes(kind)
    backbone = model_class(config_class(**{"apply_spec_augment": False, **config}))
    if "n_mels" in config:
        backbone.feature_extractor = LogMelFeatureExtractor(backbone.config)
    return backbone


def _classes(kind: str) -> tuple[Any, Any]:
    if kind not in KINDS:
        raise UserError("encoder kind {kind!r}: known are {kinds}", kind=kind, kinds=", ".join((*KINDS, WHISPER)))
    return KINDS[kind]


def sound_for(kind: str, samples_S: np.ndarray) -> np.ndarray:
    """What an encoder of `kind` reads of a whole recording at 16 kHz: the samples, or a spectrogram (F, M)."""
    return hear(samples_S) if kind == WHISPER else samples_S


class LogMel(nn.Module):
    """Log-mel spectrogram (B, M, 2L) of a waveform (B, 1, S): windows of the published receptive field, 10 ms apart.

    The transform is two fixed products, so that ONNX Runtime computes the same as torch. It is always float32, because
    bf16 lacks the precision.
    """

    FLOOR = 1e-5  # relative to the power of a frame of mean loudness; below it is silence
    MEAN, SCALE = -2.0, 3.0
    waves_F1S: Tensor
    mels_MF: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        size = RECEPTIVE_FIELD_SAMPLES
        angles = 2 * torch.pi * torch.outer(torch.arange(size // 2 + 1), torch.arange(size)).double() / size
        waves = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(size, dtype=torch.float64) / size**0.5
        mels = mel_filter_bank(size // 2 + 1, n_mels, 40.0, SAMPLE_RATE_HZ / 2, SAMPLE_RATE_HZ)
        self.register_buffer("waves_F1S", waves.float()[:, None], persistent=False)
        self.register_buffer("mels_MF", torch.from_numpy(mels.T).float(), persistent=False)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, waveform_B1S: Tensor) -> Tensor:
        """See the class."""
        parts_BFL = nn.functional.conv1d(waveform_B1S.float(), self.waves_F1S, stride=HOP_SAMPLES // 2)
        cos_BFL, sin_BFL = parts_BFL.chunk(2, dim=1)
        power_BML = self.mels_MF @ (cos_BFL.square() + sin_BFL.square())
        return ((power_BML + self.FLOOR).log() - self.MEAN) / self.SCALE


class LogMelFeatureExtractor(nn.Module):
    """Replaces transformers' convolutions on the waveform; `convolve` runs its `conv_layers`."""

    def __init__(self, config: HubertConfig | Wav2Vec2Config) -> None:
        super().__init__()
        layers: list[nn.Module] = [LogMel(config.n_mels)]
        inputs = config.n_mels
        for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
            layers.append(nn.Sequential(nn.Conv1d(inputs, width, kernel, stride, padding=kernel // 2), nn.GELU()))
            inputs = width
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """(B, C, L), as transformers' own."""
        return _through(self.conv_layers, waveform_BS)


def load_backbone(folder_or_name: str, kind: str) -> WaveformBackbone:
    """Pretrained weights of `kind` from a local folder or, with a network, from a hub.

    They are loaded as float32: group norms in half precision lose quiet recordings.
    """
    return _classes(kind)[1].from_pretrained(folder_or_name, dtype=torch.float32)


def resample_features(features_BLD: Tensor, positions_BT: Tensor) -> Tensor:
    """Read features at fractional frame positions by linear interpolation.

    With the positions of `FrameGrid` this equals `F.interpolate(mode="linear", align_corners=True)`, but it can also
    read any window of a long recording on the recording's own grid.
    """
    lower_BT = positions_BT.floor().clamp(0, features_BLD.shape[1] - 1).long()
    upper_BT = (lower_BT + 1).clamp(max=features_BLD.shape[1] - 1)
    weight_BT1 = (positions_BT - lower_BT).unsqueeze(-1).to(features_BLD.dtype)
    width = features_BLD.shape[2]
    lower_BTD = features_BLD.gather(1, lower_BT.unsqueeze(-1).expand(-1, -1, width))
    upper_BTD = features_BLD.gather(1, upper_BT.unsqueeze(-1).expand(-1, -1, width))
    return lower_BTD + (upper_BTD - lower_BTD) * weight_BT1


def convolve(backbone: Backbone, waveform_BS: Tensor) -> Tensor:
    """The CNN's features (B, L, C) of a waveform, or of a spectrogram (B, F, M) for Whisper; given ones as they are.

    transformers' own loop would also compute an unused gradient of the waveform.
    """
    if isinstance(backbone, (Whisper, GivenFeatures)):
        return backbone.convolve(waveform_BS)
    return _through(backbone.feature_extractor.conv_layers, waveform_BS).transpose(1, 2)


def _through(layers: nn.ModuleList, waveform_BS: Tensor) -> Tensor:
    features_BCL = waveform_BS[:, None]
    for layer in layers:
        features_BCL = layer(features_BCL)
    return features_BCL


def padded_features(backbone: Backbone, waveform_BS: Tensor, sample_lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """The CNN's features (B, L, C) of padded recordings, exactly, and the mask (B, L) of their real frames.

    Each recording goes through the convolutions alone: padding would change the first layer's group norm, whose
    statistics are over time. The rest is exact too: transformers sets padded frames to zero before the positional
    convolution, which pads with zeros itself, and masks them in the attention.
    """
    each_LC = [
        convolve(backbone, waveform_S[None, :length])[0]
        for waveform_S, length in zip(waveform_BS, sample_lengths_B.tolist(), strict=True)
    ]
    features_BLC = nn.utils.rnn.pad_sequence(each_LC, batch_first=True)
    frames_B = torch.tensor([len(features_LC) for features_LC in each_LC], device=features_BLC.device)
    return features_BLC, torch.arange(features_BLC.shape[1], device=features_BLC.device) < frames_B[:, None]


def encode(
    backbone: Backbone,
    waveform_BS: Tensor,
    positions_BT: Tensor | None = None,
    sample_lengths_B: Tensor | None = None,
    masked_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run an encoder; the frame rate is converted as in FaceFormer, after the CNN and before the projection.

    Args:
        waveform_BS: Normalised speech at 16 kHz.
        positions_BT: Encoder frames to read (see `resample_features`); None keeps the encoder's 50 Hz.
        sample_lengths_B: True lengths of padded recordings, at least one encoder frame each; the padding has no effect
            (see `padded_features`). Only without `positions_BT`.
        masked_BT: True where the mask embedding replaces the projected features (training only).

    Whisper is read at `positions_BT` behind its transformer, which was trained at 50 Hz.

    Returns:
        Hidden states (B, T or L, D), and the mask (B, L) of real frames (None without lengths).
    """
    mask_BL = None
    if sample_lengths_B is None:
        features_BLD = convolve(backbone, waveform_BS)
    elif positions_BT is None:
        features_BLD, mask_BL = padded_features(backbone, waveform_BS, sample_lengths_B)
    else:
        raise ValueError("padded recordings keep the encoder's rate: positions and lengths exclude each other")
    if isinstance(backbone, (Whisper, GivenFeatures)):
        hidden_BLD = contextualise(backbone, features_BLD)
        return hidden_BLD if positions_BT is None else resample_features(hidden_BLD, positions_BT), None
    if positions_BT is not None:
        features_BLD = resample_features(features_BLD, positions_BT)
    return contextualise(backbone, features_BLD, mask_BL, masked_BT), mask_BL


def contextualise(
    backbone: Backbone, features_BLC: Tensor, mask_BL: Tensor | None = None, masked_BT: Tensor | None = None
) -> Tensor:
    """Hidden states (B, L, D) of the CNN's features: the second half of `encode`, from the projection on.

    Whisper takes neither mask: it has no mask embedding, and its recordings are not padded.
    """
    if isinstance(backbone, (Whisper, GivenFeatures)):
        return backbone.contextualise(features_BLC)
    projected = backbone.feature_projection(features_BLC)
    hidden_BLD = projected[0] if isinstance(projected, tuple) else projected  # HuBERT's is no pair
    if masked_BT is not None:
        hidden_BLD = torch.where(masked_BT.unsqueeze(-1), backbone.masked_spec_embed.to(hidden_BLD.dtype), hidden_BLD)
    return backbone.encoder(hidden_BLD, attention_mask=mask_BL).last_hidden_state
