# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator's checkpoints, general and personalised: those of PyTorch Lightning.

A personalised one holds its actor's style in the place of the training subject that adaptation began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import UserError
from ..checkpoint import EncoderConfig, ModelFolder
from ..hosts.imitator import RELEASES, Imitator
from ..nn.codec import sinusoid
from ..nn.imitator import HEAD, PREFIX, ImitatorNetwork
from .published import BASE_ENCODER, Published, Source, check_rows, renamed, require_architecture

__all__ = ["PREFIX", "read", "recognised", "write"]

HEAD_KEY, POSITIONS_KEY = f"{HEAD}.weight", "PPE.pe"
NAMES = (
    ("audio_feature_map.", "fusion.audio_feature_map."),
    *((name, f"decoder.{name}") for name in ("transformer_decoder.", "obj_vector.", "vertice_map_r.")),
)
ENCODER = EncoderConfig(kind="wav2vec2", config=BASE_ENCODER)
PUBLISHED_FRAMES = 600


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    n_rows = len(state.get(PREFIX + HEAD_KEY, ()))
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
    from ..nn.face_model import FaceModel

    config, basis_KV3 = model.config, model.basis()
    if not isinstance(config.host, Imitator) or basis_KV3 is None:
        raise UserError(
            "{model}: Imitator's format holds its decoder and a vertex head; this model differs", model=config.name
        )
    require_architecture(config.name, config.encoder, ENCODER)
    face = FaceModel(config)
    face.load_state_dict(load_state(model))
    assert isinstance(face.decoder, ImitatorNetwork)
    own = {key: value for key, value in face.state_dict().items() if key.startswith(("audio_encoder.", "fusion.audio"))}
    own |= {f"decoder.{key}": value for key, value in face.decoder.on_vertices(basis_KV3).items()}
    positions = {POSITIONS_KEY: sinusoid(PUBLISHED_FRAMES, config.host.dim)[:, None]}
    state = {PREFIX + key: value for key, value in (renamed(own, NAMES, back=True) | positions).items()}
    return {f"{config.name}.ckpt": {"state_dict": state}}
