# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM's two files: stage 1, the codec ("state_dict", for MEAD "model"), and stage 2, the denoiser with its speech
encoder and the noise schedule ({"epoch", "model", "opt"}).

Shapes: D latent width, M codec width, X = 3V.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..hosts.lgldm import RELEASES, LgLdm
from ..nn.codec import VERTICES, sinusoid
from ..nn.codetalker import CODEC, is_positions
from ..nn.encoders import XLSR_53
from ..nn.lgldm import DENOISER, ENCODER, denoiser_weights, noise_schedule
from ..nn.published import own_weights
from .published import BASE_ENCODER, Published, Source, check_keys, read_file, renamed, require_architecture

PREFIX = DENOISER
HUBERT_LARGE = EncoderConfig(kind="hubert", config=XLSR_53)
"""hubert-large-ls960-ft, which differs from the base size as XLSR-53 does."""
ENCODERS = {
    "lgldm-vocaset": HUBERT_LARGE,
    "lgldm-biwi": EncoderConfig(kind="wav2vec2", config=BASE_ENCODER),
    "lgldm-mead": HUBERT_LARGE,
}
PUBLISHED_FRAMES, CODEC_POSITIONS = 630, 5000
_HEAD_KEY = f"decoder.{VERTICES[1]}.weight"
_STAGE_1 = "LG-LDM's stage-1 file (the codec)"


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    if f"{DENOISER}latent_decoder.weight" not in state:
        return None
    if f"{DENOISER}emotion_embedd.weight" in state:
        return "lgldm-mead"
    return "lgldm-biwi" if f"{DENOISER}style_embedd.0.weight" in state else "lgldm-vocaset"


def read(kind: str, source: Source) -> Published:
    """As `Format`; stage 1 is a further file."""
    release = RELEASES[kind]
    path = source.second(_STAGE_1, lambda file: file.suffix != ".npz" and _HEAD_KEY in read_file(file))
    codec = {key: value.float() for key, value in read_file(path).items() if not is_positions(key)}
    with torch.device("meta"):
        expected = release.host.network(3 * release.n_vertices, len(release.styles)).state_dict()
    denoiser = {DENOISER + key: value for key, value in denoiser_weights(source.state).items()}
    check_keys(source.path, denoiser, {key: value for key, value in expected.items() if key.startswith(DENOISER)})
    check_keys(path, codec, own_weights(expected, CODEC))
    state = {f"decoder.{key}": value for key, value in denoiser.items()}
    state |= {f"decoder.{CODEC}{key}": value for key, value in codec.items()}
    encoder = {key: value for key, value in source.state.items() if key.startswith(ENCODER)}
    return Published.of(release, ENCODERS[kind], renamed(encoder, ()) | state)


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`: stage 2 first."""
    from ..engine_torch import load_state

    config, published = model.config, model.tensors(PUBLISHED)
    host = config.host
    kind = _kind_of(host) if isinstance(host, LgLdm) else None
    if not isinstance(host, LgLdm) or kind is None or not published:
        raise UserError(
            "{model}: LG-LDM's files hold its own denoiser and codec; this model differs", model=config.name
        )
    require_architecture(config.name, config.encoder, ENCODERS[kind])
    state, last = load_state(model), f"{CODEC}decoder.{VERTICES[1]}."
    network = {key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")}
    network = {key: value for key, value in network.items() if not key.startswith(last)}
    network |= {key: torch.from_numpy(value) for key, value in published.items()}
    encoder = renamed({key: value for key, value in state.items() if key.startswith(ENCODER)}, (), back=True)
    stage_2 = {key: value.float() for key, value in noise_schedule(host.NOISE_STEPS).items()}
    stage_2 |= {DENOISER + key: value for key, value in encoder.items()}
    stage_2 |= {key: value for key, value in network.items() if key.startswith(DENOISER)}
    stage_2[f"{DENOISER}PE.pe"] = _positions(host)
    codec = {key.removeprefix(CODEC): value for key, value in network.items() if key.startswith(CODEC)}
    table_1M = sinusoid(CODEC_POSITIONS, host.codec_dim)[:, None]
    codec |= {f"{side}.{side}_pos_embedding.pe": table_1M for side in ("encoder", "decoder")}
    return {
        f"{config.name}_stage2.mpt": {"epoch": 0, "model": stage_2, "opt": {}},
        f"{config.name}_stage1.pth.tar": {"model" if kind == "lgldm-mead" else "state_dict": codec},
    }


def _kind_of(host: LgLdm) -> str | None:
    """The release with these sizes; how it samples does not count."""
    for kind, release in RELEASES.items():
        released = release.host
        assert isinstance(released, LgLdm)
        same = replace(
            host,
            on_keys=False,
            dropout=released.dropout,
            sampling_steps=released.sampling_steps,
            finished=released.finished,
        )
        if same == released:
            return kind
    return None


def _positions(host: LgLdm) -> Tensor:
    """The table of positions: (1, 630, D), (1, 5000, D), or (5000, 1, D) for BIWI."""
    if host.periodic_positions:
        return sinusoid(host.period, host.dim).repeat(PUBLISHED_FRAMES // host.period, 1)[None]
    table_nD = sinusoid(CODEC_POSITIONS, host.dim)
    return table_nD[:, None] if host.mish_on_style else table_nD[None]
