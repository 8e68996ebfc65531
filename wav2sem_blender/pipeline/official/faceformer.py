# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer's `vocaset.pth` and `biwi.pth`: a bare state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..checkpoint import EncoderConfig, ModelFolder
from ..hosts.faceformer import RELEASES, FaceFormer
from .published import BASE_ENCODER, Published, Source, check_rows, renamed, require_architecture

PREFIX = ""
HEAD_KEY, POSITIONS_KEY = "vertice_map_r.weight", "PPE.pe"
NAMES = (
    ("audio_feature_map.", "fusion.audio_feature_map."),
    ("transformer_decoder.layers.0.", "decoder.layer."),
    ("obj_vector.", "decoder.style."),
    ("vertice_map_r.", "decoder.motion_head."),
    ("vertice_map.", "decoder.feedback_map."),
)
ENCODER = EncoderConfig(kind="wav2vec2", config=BASE_ENCODER)
PUBLISHED_FRAMES = 600


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    n_rows = len(state.get(HEAD_KEY, ()))
    return next((kind for kind, release in RELEASES.items() if 3 * release.n_vertices == n_rows), None)


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    release = RELEASES[kind]
    check_rows(source, HEAD_KEY, kind, 3 * release.n_vertices)
    kept = {key: value for key, value in source.state.items() if key != POSITIONS_KEY}
    return Published.of(release, ENCODER, renamed(kept, NAMES))


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    from ..engine_torch import load_state

    config, host, basis_KV3 = model.config, model.config.host, model.basis()
    if not isinstance(host, FaceFormer) or basis_KV3 is None:
        raise UserError(
            "{model}: FaceFormer's format holds its decoder and a vertex head; this model differs", model=config.name
        )
    require_architecture(config.name, EncoderConfig(kind="wav2vec2", config=config.encoder.config), ENCODER)
    state = load_state(model)
    decoder = host.network(len(config.channels), len(config.styles))
    decoder.load_state_dict({key.removeprefix("decoder."): t for key, t in state.items() if key.startswith("decoder.")})
    on_vertices = {f"decoder.{key}": value for key, value in decoder.on_vertices(basis_KV3).items()}
    others = {key: value for key, value in state.items() if key.startswith(("audio_encoder.", "fusion."))}
    positions_pM = torch.from_numpy(host.positions())
    positions = positions_pM.repeat(PUBLISHED_FRAMES // host.period + 1, 1)[None]
    return {f"{config.name}.pth": renamed(others | on_vertices, NAMES, back=True) | {POSITIONS_KEY: positions}}
