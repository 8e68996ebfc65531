# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D's Lightning checkpoint of stage 2. It holds the codec of stage 1, so the one file is a whole model.

The released model predicts FLAME's parameters: a model folder needs the user's FLAME file, an .npz, beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import UserError
from ..checkpoint import EncoderConfig, ModelFolder
from ..flame_parameters import Flame
from ..hosts.probtalk3d import RELEASES, ProbTalk3D
from ..nn.codec import CodecSizes
from ..nn.host_network import HostNetwork
from ..nn.probtalk3d import ProbTalk3DNetwork
from ..nn.published import loaded, need, own_weights
from .published import BASE_ENCODER, Published, Source, check_rows, renamed

PREFIX = ""
ENCODER = EncoderConfig(kind="hubert", config=BASE_ENCODER)
ENCODER_NAME = "feature_extractor.audiomodel."
MEASURED = ("_losses.", "metrics.", "motion_prior._losses.", "motion_prior.metrics.")
"""What the training measured."""
STYLE_KEY = "feature_predictor.style_embedding.weight"
PRIOR_KEY = "motion_encoder.feature_mapping.0.weight"
DECODER_PARTS = ("motion_prior.", "feature_predictor.", "identity_extractor.")


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    return "probtalk3d-mead" if STYLE_KEY in state else None


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    refuse_stage_1(source)
    release = RELEASES[kind]
    source.take(STYLE_KEY)
    check_columns(source, STYLE_KEY, kind, len(release.styles))
    return Published.of(
        release, ENCODER, face_state(source), n_outputs=n_outputs(source.state), prepare=flame_beside(source)
    )


def refuse_stage_1(source: Source) -> None:
    """Raise UserError for the codec alone."""
    if PRIOR_KEY in source.state:
        raise UserError(
            "{file}: the codec of stage 1, which does not hear speech. The file of stage 2 holds it too; import that",
            file=source.path.name,
        )


def check_columns(source: Source, key: str, kind: str, n_columns: int) -> None:
    """Raise UserError unless the styles are as many as the release's."""
    check_rows(Source(path=source.path, state={key: source.take(key).T}), key, kind, n_columns)


def face_state(source: Source) -> dict[str, Tensor]:
    """State dict of `FaceModel`, without what the training measured."""
    names = ((ENCODER_NAME, "audio_encoder."), *((part, f"decoder.{part}") for part in DECODER_PARTS))
    return renamed(own_weights(source.state, others=MEASURED), names)


def flame_beside(source: Source) -> Any:
    """A function that gives a network the user's FLAME, and the shape of a neutral face if one was given too."""
    flame = next((Flame.read(path) for path in source.beside if path.suffix.lower() == ".npz"), None)

    def prepare(network: HostNetwork) -> None:
        assert isinstance(network, ProbTalk3DNetwork)
        network.flame = flame

    return prepare


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    raise NotImplementedError


def common_sizes(state: Mapping[str, Tensor], heads: int, n_blocks: int) -> dict[str, Any]:
    """The settings that the tensors of a released file show, and the heads, of which they have no trace."""
    try:
        sizes = CodecSizes.of(own_weights(state, "motion_prior."))
    except KeyError as error:
        need(state, f"motion_prior.{error.args[0]}")
        raise
    return {
        "dim": sizes.width,
        "heads": heads,
        "ffn_dim": sizes.ffn_dim,
        "prior_blocks": sizes.n_blocks,
        "blocks": n_blocks,
        "n_codes": sizes.n_codes,
        "code_width": sizes.code_width,
    }


def n_outputs(state: Mapping[str, Tensor]) -> int:
    """X of a released file."""
    return len(need(state, "motion_prior.motion_decoder.feature_mapping_reverse.weight"))


def own_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the host's network."""
    others = (*MEASURED, "feature_extractor.", "audio_model.")
    return own_weights(state, others=others)


def from_published(kind: str, state: Mapping[str, Tensor], heads: int = 8) -> ProbTalk3DNetwork:
    """The network of a released file, of the sizes that its tensors have; without the speech encoder.

    Raises:
        UserError: A tensor is missing, unknown or of another shape; the message names it.
    """
    state = own_part(state)
    audio, style = need(state, "feature_predictor.audio_feature_map.weight"), need(state, STYLE_KEY)
    n_blocks = sum(key.startswith("feature_predictor.encoder_transformer.") and "to_qkv" in key for key in state)
    config = ProbTalk3D(feature_dim=audio.shape[1] // 2, **common_sizes(state, heads, n_blocks))
    return loaded(config.network(n_outputs(state), style.shape[1]), state)
