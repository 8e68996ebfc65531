# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's `UniTalker-B-D0-D7.pt` and `UniTalker-L-D0-D7.pt`: a bare state dict with a head for each kind of face.

A model folder animates one head and keeps the others. A head on vertices needs the pca.npz of the release for its data
set; files of one's own training hold the PCA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import Text, UserError
from ..array_file import read_arrays
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..flame_parameters import Flame
from ..hosts.unitalker import CHANNELS, HEADS, PIVOT, RELEASES, STYLES, UniTalker
from ..nn.encoders import XLSR_53
from ..nn.host_network import HostNetwork
from ..nn.unitalker import (
    FLAME_EXPRESSIONS,
    HEAD_PREFIX,
    PCA_ARRAYS,
    PCA_BUFFERS,
    Pca,
    UniTalkerNetwork,
    from_published,
    pca_in,
)
from .published import BASE_ENCODER, Published, Source, renamed, require_architecture

PREFIX = ""
ENCODERS: Mapping[str, EncoderConfig] = {
    "B": EncoderConfig(kind="wavlm", config=BASE_ENCODER),
    "L": EncoderConfig(kind="wav2vec2", config=XLSR_53),
}
STYLE_KEY, MEMORY_PREFIX = "decoder.learnable_style_emb.weight", "decoder.audio_feature_map."
_ONLY_WAVLM = "audio_encoder.encoder.layers.0.attention.gru_rel_pos_const"
_IN_FACE_MODEL = "fusion.audio_feature_map."


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`: the first kind whose head the file has. ARKit's is the first, as it needs no second file."""
    if STYLE_KEY not in state:
        return None
    kinds = (kind for kind, release in RELEASES.items() if f"{HEAD_PREFIX}{_head(release.host)}.weight" in state)
    return next(kinds, None)


def _head(host: object) -> str:
    assert isinstance(host, UniTalker)
    return host.head


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    release, state = RELEASES[kind], dict(source.state)
    head = _head(release.host)
    weight_PM, style_NS = source.take(f"{HEAD_PREFIX}{head}.weight"), source.take(STYLE_KEY)
    state[STYLE_KEY] = style_NS.roll(1, 0)  # the pivot comes first
    pca = None
    if release.n_vertices and (pca := pca_in(state, head)) is None:
        file = source.second(f"the pca.npz of {kind}", lambda path: path.suffix == ".npz")
        pca = read_pca(file, 3 * release.n_vertices, len(weight_PM))
    try:
        network = from_published(kind, state, head, pca)
    except UserError as error:
        raise UserError("{file}: {error}", file=source.path.name, error=error.text) from error
    if head in CHANNELS:
        template = (
            "{file} was not used: UniTalker's ARKit weights need no other file. For another head, choose its kind."
        )
        source.notes += [Text(template, file=other.name) for other in source.beside]
    kept = {key: value for key, value in state.items() if key.startswith("audio_encoder.")}
    memory = {key: value for key, value in state.items() if key.startswith(MEMORY_PREFIX)}
    network.config = replace(network.config, fps=HEADS[head].fps, scale=HEADS[head].scale)
    return Published.of(
        release,
        ENCODERS["B" if _ONLY_WAVLM in state else "L"],
        renamed(kept | memory, ((MEMORY_PREFIX, _IN_FACE_MODEL),))
        | {f"decoder.{key}": value for key, value in network.state_dict().items()},
        host=network.config,
        prepare=_with_flame(source, kind) if network.config.predicts_flame else _nothing,
        n_outputs=3 * release.n_vertices or len(weight_PM),
        styles=STYLES if len(style_NS) == len(STYLES) else (PIVOT, *(str(i) for i in range(1, len(style_NS)))),
    )


def _nothing(_network: HostNetwork) -> None:
    pass


def _with_flame(source: Source, kind: str) -> Callable[[HostNetwork], None]:
    """A function that gives a network the user's FLAME."""
    file = source.second(f"your FLAME as .npz for {kind}", lambda path: path.suffix == ".npz")
    flame = Flame.read(file, FLAME_EXPRESSIONS)

    def prepare(network: HostNetwork) -> None:
        assert isinstance(network, UniTalkerNetwork)
        network.flame = flame

    return prepare


def read_pca(file: Path, n_values: int, n_components: int) -> Pca:
    """A PCA of vertices with `n_values` coordinates and at least as many components.

    Raises:
        UserError: The file is no npz, lacks an array, or is another data set's or another release's.
    """
    try:
        stored = read_arrays(file, PCA_ARRAYS)
        pca = Pca(*(stored[name].astype(np.float32) for name in PCA_ARRAYS))
    except (OSError, ValueError, KeyError) as error:
        template = "{file}: no pca.npz of UniTalker's release ({error}); give the one of this data set"
        raise UserError(template, file=file, error=error) from error
    found = pca.components_QX.shape
    if found[1:] != (n_values,) or found[0] < n_components or pca.mean_X.shape != (n_values,):
        raise UserError(
            "{file}: its components have the shape {found}; at least {n_components} of {n_values} values are needed. "
            "Give the pca.npz of this data set and release.",
            file=file,
            found=found,
            n_components=n_components,
            n_values=n_values,
        )
    return pca


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`, with all heads, and beside it the PCA of a head on vertices."""
    from ..engine_torch import load_state

    config = model.config
    wanted = next((encoder for encoder in ENCODERS.values() if encoder.kind == config.encoder.kind), None)
    if not isinstance(config.host, UniTalker) or wanted is None or config.styles[0] != PIVOT:
        raise UserError(
            "{model}: UniTalker's format holds its decoder, WavLM or wav2vec 2.0, and the style {pivot} first; this "
            "model differs",
            model=config.name,
            pivot=PIVOT,
        )
    require_architecture(config.name, config.encoder, wanted)
    names = (("decoder.out_head_dict.", HEAD_PREFIX), (_IN_FACE_MODEL, MEMORY_PREFIX))
    kept = {
        key: value
        for key, value in load_state(model).items()
        if key.startswith(("audio_encoder.", "decoder.", _IN_FACE_MODEL))
        and key.removeprefix("decoder.") not in PCA_BUFFERS
    }
    state = {_renamed(key, names): value for key, value in kept.items()}
    state[STYLE_KEY] = state[STYLE_KEY].roll(-1, 0)
    pca = model.tensors(PUBLISHED)
    return {f"{config.name}.pt": state, **({"pca.npz": pca} if pca else {})}


def _renamed(key: str, names: tuple[tuple[str, str], ...]) -> str:
    """The released name. The positional convolution keeps its new names, which torch 2.2, that UniTalker needs, has."""
    for ours, released in names:
        key = released + key.removeprefix(ours) if key.startswith(ours) else key
    return key
