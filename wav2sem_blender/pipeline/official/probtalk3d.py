# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D's Lightning checkpoint of stage 2. It holds the codec of stage 1, so the one file is a whole model.

The released model predicts FLAME's parameters: the user's FLAME file, an .npz, must be given with it. A neutral face in
FLAME's order, as .npy or .obj, may be given too; its shape then turns the jaw's keys about its own joint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...errors import UserError
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..flame_parameters import Flame, neutral_face
from ..hosts.probtalk3d import RELEASES, ProbTalk3D
from ..nn.codec import CodecSizes
from ..nn.host_network import HostNetwork
from ..nn.probtalk3d import ProbTalk3DNetwork
from ..nn.published import loaded, need, own_weights
from .published import BASE_ENCODER, Published, Source, State, renamed, require_architecture

PREFIX = ""
ENCODER = EncoderConfig(kind="hubert", config=BASE_ENCODER)
ENCODER_NAME = "feature_extractor.audiomodel."
PARTS = ("motion_prior.", "feature_predictor.", "identity_extractor.")
"""The host's network."""
MEASURED = ("_losses.", "metrics.", "motion_prior._losses.", "motion_prior.metrics.")
"""What the training measured; the released code wants to read it again."""
STYLE_KEY, PRIOR_KEY = "feature_predictor.style_embedding.weight", "motion_encoder.feature_mapping.0.weight"
NAMES = ((ENCODER_NAME, "audio_encoder."), *((part, f"decoder.{part}") for part in PARTS))


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    return "probtalk3d-mead" if STYLE_KEY in state else None


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    release = RELEASES[kind]
    check_stage(kind, source, STYLE_KEY, len(release.styles))
    own, beside = parted(source.state)
    return Published.of(
        release,
        ENCODER,
        renamed(own, NAMES),
        n_outputs=n_outputs(source.state),
        prepare=with_flame(source, beside),
    )


def check_stage(kind: str, source: Source, style_key: str, n_styles: int) -> None:
    """Raise UserError for the codec of stage 1 alone, and for another number of styles."""
    if PRIOR_KEY in source.state:
        raise UserError(
            "{file}: this is stage 1, the codec, which does not hear speech. Import the file of stage 2: it has the "
            "codec too",
            file=source.path.name,
        )
    found = source.take(style_key).shape[1]
    if found != n_styles:
        raise UserError(
            "{file}: {key} has {found} styles, {kind} has {expected}",
            file=source.path.name,
            key=style_key,
            found=found,
            kind=kind,
            expected=n_styles,
        )


def parted(state: Mapping[str, Tensor], others: tuple[str, ...] = ()) -> tuple[State, State]:
    """The model's tensors, and those that only the released code reads: `MEASURED` and `others`."""
    own = own_weights(state, others=(*MEASURED, *others))
    return own, {key: value for key, value in state.items() if key not in own}


def with_flame(source: Source, beside: State) -> Callable[[HostNetwork], None]:
    """A function that gives a network the user's FLAME and face, and what only an export needs."""
    flame = next((Flame.read(path) for path in source.beside if path.suffix.lower() == ".npz"), None)
    face_V3 = next((neutral_face(path) for path in source.beside if path.suffix.lower() in (".npy", ".obj")), None)

    def prepare(network: HostNetwork) -> None:
        assert isinstance(network, ProbTalk3DNetwork)
        network.flame, network.beside = flame, beside
        if flame is not None and face_V3 is not None:
            network.shape_S = flame.shape_of(face_V3)

    return prepare


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    if not isinstance(model.config.host, ProbTalk3D) or model.config.host.KIND != ProbTalk3D.KIND:
        raise UserError("{model}: ProbTalk3D's format holds its own model; this one differs", model=model.config.name)
    return written(model, NAMES)


def written(model: ModelFolder, names: tuple[tuple[str, str], ...], **replaced: Tensor) -> dict[str, dict[str, Any]]:
    """The file of a model, with some tensors of the network replaced, by their released names."""
    import torch

    from ..engine_torch import load_state

    require_architecture(model.config.name, model.config.encoder, ENCODER)
    state = {key: value for key, value in load_state(model).items() if not key.startswith(("wav2sem.", "fusion."))}
    published = {key: torch.from_numpy(value) for key, value in model.tensors(PUBLISHED).items()}
    whole = renamed(state, names, back=True) | published | replaced
    return {f"{model.config.name}.ckpt": {"state_dict": whole}}


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


def from_published(kind: str, state: Mapping[str, Tensor], heads: int = 8) -> ProbTalk3DNetwork:
    """The network of a released file, of the sizes that its tensors have; without the speech encoder.

    Raises:
        UserError: A tensor is missing, unknown or of another shape; the message names it.
    """
    state = own_weights(state, others=(*MEASURED, ENCODER_NAME))
    audio, style = need(state, "feature_predictor.audio_feature_map.weight"), need(state, STYLE_KEY)
    n_blocks = sum(key.startswith("feature_predictor.encoder_transformer.") and "to_qkv" in key for key in state)
    config = ProbTalk3D(feature_dim=audio.shape[1] // 2, **common_sizes(state, heads, n_blocks))
    return loaded(config.network(n_outputs(state), style.shape[1]), state)
