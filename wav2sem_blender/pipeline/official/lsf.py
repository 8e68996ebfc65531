# SPDX-License-Identifier: GPL-3.0-or-later
"""LSF-Animation's Lightning checkpoint of stage 2, which holds the codec and both encoders.

As ProbTalk3D's, it needs the user's FLAME file. The neutral face makes the speaker: give it too, or FLAME's mean face
makes one. A file without the emotion encoder needs emotion2vec's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..hosts.lsf import LSF, RELEASES
from ..nn.emotion2vec import BASE, EMOTION2VEC
from ..nn.lsf import IDENTITY_NAME, STYLE_NAME, LSFNetwork
from ..nn.published import loaded, need, own_weights
from . import probtalk3d
from .probtalk3d import ENCODER, ENCODER_NAME, MEASURED, check_stage, common_sizes, n_outputs, parted, with_flame
from .published import Published, Source, State, read_file, renamed

PREFIX = ""
EMOTION_NAME = "audio_model."
SCALE_KEY = "modality_encoders.AUDIO.alibi_scale"
PRETRAINING = tuple(f"modality_encoders.AUDIO.{name}" for name in ("decoder.", "recon_proj.")) + ("_ema",)
"""Parts of emotion2vec that only its own training uses."""
NAMES = (*probtalk3d.NAMES, (EMOTION_NAME, "emotion_encoder."))


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    return "lsf-mead" if STYLE_NAME in state else None


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    release = RELEASES[kind]
    check_stage(kind, source, STYLE_NAME, len(release.styles))
    source.take(f"{IDENTITY_NAME}0.weight")
    own, beside = parted(source.state, tuple(EMOTION_NAME + name for name in PRETRAINING))
    if EMOTION_NAME + SCALE_KEY not in own:
        own |= {EMOTION_NAME + key: value for key, value in _emotion2vec(source).items()}
    return Published.of(
        release,
        ENCODER,
        renamed(own, NAMES),
        n_outputs=n_outputs(own),
        emotion=emotion_config(own[EMOTION_NAME + SCALE_KEY]),
        prepare=with_flame(source, beside),
    )


def _emotion2vec(source: Source) -> State:
    """The encoder's tensors from its own file beside the checkpoint."""

    def fits(path: Path) -> bool:
        return path.suffix.lower() in (".pt", ".pth", ".ckpt") and SCALE_KEY in read_file(path)

    file = source.second("the emotion encoder, emotion2vec_base.pt,", fits)
    return {key: value.float() for key, value in own_weights(read_file(file), others=PRETRAINING).items()}


def emotion_config(alibi_scale: Tensor) -> EncoderConfig:
    """emotion2vec with as many scales of the distance as a file has."""
    found = {"alibi_layers": alibi_scale.shape[0], "alibi_heads": alibi_scale.shape[2]}
    return EncoderConfig(kind=EMOTION2VEC, config={name: value for name, value in found.items() if value != BASE[name]})


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    host, emotion = model.config.host, model.config.emotion
    identity = {key for key in model.tensors(PUBLISHED) if key.startswith(IDENTITY_NAME)}
    if not isinstance(host, LSF) or emotion is None or emotion.kind != EMOTION2VEC or not identity:
        raise UserError(
            "{model}: LSF-Animation's format holds its own model, the speaker's network and emotion2vec; this one "
            "differs",
            model=model.config.name,
        )
    style_MN = torch.from_numpy(model.tensors(f"decoder.{STYLE_NAME}")[""])
    return probtalk3d.written(model, NAMES, **{STYLE_NAME: style_MN[:, 1:].clone()})


def from_published(kind: str, state: Mapping[str, Tensor], heads: int = 8) -> LSFNetwork:
    """The network of a released file, of the sizes that its tensors have; without the two encoders.

    Raises:
        UserError: A tensor is missing, unknown or of another shape; the message names it.
    """
    state, prefix = own_weights(state, others=(*MEASURED, ENCODER_NAME, EMOTION_NAME)), "feature_predictor."
    names = ("audio_feat.weight", "emo_feat.weight", "fusion_tokens")
    speech, emotion, tokens = (need(state, prefix + name) for name in names)
    shape = state.get(f"{IDENTITY_NAME}0.weight")
    n_blocks = sum(key.startswith(f"{prefix}audio_blocks.") and "to_qkv" in key for key in state)
    config = LSF(
        **common_sizes(state, heads, n_blocks),
        feature_dim=speech.shape[1] // 2,
        emotion_dim=emotion.shape[1] // 2,
        tokens=tokens.shape[1],
        fusion_dim=len(need(state, f"{prefix}fusion_blocks.0.attn.q.weight")),
        shape_dim=0 if shape is None else shape.shape[1],
    )
    return loaded(config.network(n_outputs(state), need(state, STYLE_NAME).shape[1]), state)
