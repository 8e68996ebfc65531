# SPDX-License-Identifier: GPL-3.0-or-later
"""How many floating-point operations a run takes, for the estimate that the user sees before it.

A multiplication and an addition count as two. Norms, activations and softmax are left out: they are a few percent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..assets import DEFAULT_MODEL
from . import given_features
from .checkpoint import CONFIG_FILE, EncoderConfig, ModelConfig
from .frame_timing import ENCODER_RATE_HZ, SAMPLE_RATE_HZ

# What transformers' configurations have where config.json says nothing.
_BASE: dict[str, Any] = {
    **{"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
    **{"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)},
    **{"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16},
}
_WINDOW_S = 20.0  # how far a transformer looks, at most
_N_MELS = 80


def flops(config: ModelConfig, duration_s: float) -> float:
    """Of a model's encoders and its host, for a recording of this length."""
    grid = config.host.grid
    rate_hz = grid.fps * grid.memory_per_frame if grid.before_transformer else ENCODER_RATE_HZ
    total = config.host.flops(grid.animation_frames(round(duration_s * SAMPLE_RATE_HZ)))
    total += duration_s * _encoder(config.encoder, duration_s, rate_hz)
    if config.emotion is not None:
        total += duration_s * _encoder(config.emotion, duration_s)
    if config.wav2sem is not None:
        reads = _reader if config.wav2sem.shared else _waveform_encoder
        total += duration_s * reads(config.wav2sem.config, duration_s)
    return total


def _encoder(encoder: EncoderConfig, duration_s: float, rate_hz: float = ENCODER_RATE_HZ) -> float:
    """Of a second; `rate_hz` is that of the transformer's frames."""
    if given_features.is_stand_in(encoder):
        bundled = json.loads((DEFAULT_MODEL / CONFIG_FILE).read_text(encoding="utf-8"))
        return _encoder(EncoderConfig(**bundled["model"]["encoder"]), duration_s)
    if encoder.kind == given_features.KIND:
        return 0.0
    if encoder.kind == "whisper":
        return _whisper(encoder.config, duration_s)
    return _waveform_encoder(encoder.config, duration_s, rate_hz)


def _waveform_encoder(config: Mapping[str, Any], duration_s: float, rate_hz: float = ENCODER_RATE_HZ) -> float:
    """Of a second through wav2vec 2.0, HuBERT or WavLM."""
    has = {**_BASE, **config}
    frames_hz, inputs, total = float(SAMPLE_RATE_HZ), has.get("n_mels", 1), 0.0
    if "n_mels" in has:
        frames_hz = 2.0 * ENCODER_RATE_HZ
    for width, kernel, stride in zip(has["conv_dim"], has["conv_kernel"], has["conv_stride"], strict=True):
        frames_hz /= stride
        total += 2 * frames_hz * kernel * inputs * width
        inputs = width
    width = has["hidden_size"]
    total += 2 * rate_hz * width * inputs
    total += 2 * rate_hz * width**2 * has["num_conv_pos_embeddings"] / has["num_conv_pos_embedding_groups"]
    return total + _transformer(width, has["intermediate_size"], has["num_hidden_layers"], rate_hz, duration_s)


def _whisper(config: Mapping[str, Any], duration_s: float) -> float:
    """Of a second through the bundled model's encoder: two convolutions, its layers, and the adapter."""
    width, features = config["d_model"], config["hidden_size"]
    convolutions = 2 * 3 * width * (2 * _N_MELS + width) + 2 * 5 * features * (width + features)
    layers = config["encoder_layers"], ENCODER_RATE_HZ, duration_s
    return ENCODER_RATE_HZ * convolutions + _transformer(width, config["encoder_ffn_dim"], *layers)


def _reader(config: Mapping[str, Any], duration_s: float) -> float:
    """Of a second through a Wav2Sem that reads the features of another encoder."""
    width, rate_hz = config["hidden_size"], ENCODER_RATE_HZ / config["stride"]
    joined = 2 * ENCODER_RATE_HZ * config["feature_size"] * width
    return joined + _transformer(width, 4 * width, config["num_hidden_layers"], rate_hz, duration_s)


def _transformer(width: int, inner: int, n_layers: int, rate_hz: float, duration_s: float) -> float:
    n_seen = rate_hz * min(duration_s, _WINDOW_S)
    return rate_hz * n_layers * (8 * width**2 + 4 * width * inner + 4 * width * n_seen)
