# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker's two files: stage 2, which is the one to import, and stage 1, the codec, which it cannot do without.

Each is `{"state_dict": …}`. A stage-2 file with Wav2Sem is imported as the released code infers: `predict` adds F_s
without its FC, although training has it. Files that we write say so themselves (`FC_IN_PREDICT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import MissingFileError, UserError
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..hosts.codetalker import MAX_FRAMES, RELEASES, CodeTalker
from ..nn.codec import VERTICES, sinusoid
from ..nn.codetalker import CODEC, is_positions, settings_of
from .published import BASE_ENCODER, Published, Source, State, read_file, renamed, require_architecture

PREFIX = ""
NAMES = (
    ("audio_encoder.", "audio_encoder."),
    ("audio_feature_map.", "fusion.audio_feature_map."),
    ("", "decoder."),
)
ENCODER = EncoderConfig(kind="wav2vec2", config=BASE_ENCODER)
FEEDBACK_KEY, STAGE_1_KEY = "vertice_map.weight", "encoder.vertice_mapping.0.weight"
FC_IN_PREDICT = "fc_in_predict"
_NOT_PUBLISHED = ("wav2sem.", "fusion.semantic", "decoder.feedback.", f"decoder.{CODEC}decoder.{VERTICES[1]}.")
_CODEC_POSITIONS = 5000


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    width = _columns(state) if "feat_map.weight" in state else 0
    return next((kind for kind, release in RELEASES.items() if 3 * release.n_vertices == width), None)


def _columns(state: Mapping[str, Tensor], key: str = FEEDBACK_KEY) -> int:
    return state[key].shape[-1] if key in state else 0


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    n_outputs = 3 * RELEASES[kind].n_vertices
    if STAGE_1_KEY in source.state:
        raise MissingFileError(
            "{file}: this is stage 1, the codec; {kind} needs stage 2 too. Give that one as FILE, and this one with "
            "--with FILE",
            file=source.path.name,
            kind=kind,
        )
    source.take(FEEDBACK_KEY)
    _check_vertices(source.path, kind, n_outputs, _columns(source.state))
    stage_1 = _stage_1(kind, source)
    state = {key: value for key, value in source.state.items() if not is_positions(key)}
    state |= {CODEC + key: value for key, value in stage_1.items() if not is_positions(key)}
    try:
        host, _, _ = settings_of(kind, state)
    except UserError as error:
        raise UserError("{file}: {error}", file=source.path.name, error=error.text) from error
    legacy = not _says_that_fc_counts(source.path)
    return Published.of(RELEASES[kind], ENCODER, renamed(state, NAMES), host=host, legacy_predict=legacy)


def _says_that_fc_counts(path: Path) -> bool:
    try:
        return bool(torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(FC_IN_PREDICT))
    except RuntimeError:  # torch's format before 1.6, which we never wrote, cannot be mapped
        return False


def _stage_1(kind: str, source: Source) -> State:
    """The tensors of stage 1, from the file beside."""
    found: dict[Path, State] = {}

    def fits(path: Path) -> bool:
        found[path] = read_file(path)
        return STAGE_1_KEY in found[path]

    path = source.second("stage 1, the codec of the same data set", fits)
    state = {key: value.float() for key, value in found[path].items()}
    _check_vertices(path, kind, 3 * RELEASES[kind].n_vertices, _columns(state, STAGE_1_KEY))
    return state


def _check_vertices(path: Path, kind: str, n_expected: int, n_found: int) -> None:
    if n_found != n_expected:
        raise UserError(
            "{file}: it moves {n_found} vertices, {kind} has {n_expected}: both stages must be of that data set",
            file=path.name,
            n_found=n_found // 3,
            kind=kind,
            n_expected=n_expected // 3,
        )


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`: stage 2, then stage 1."""
    from ..engine_torch import load_state

    config, host = model.config, model.config.host
    whole = {key: torch.from_numpy(value) for key, value in model.tensors(PUBLISHED).items()}
    if not isinstance(host, CodeTalker) or FEEDBACK_KEY not in whole:
        raise UserError(
            "{model}: CodeTalker's format holds both of its stages on vertices; this model differs", model=config.name
        )
    require_architecture(config.name, config.encoder, ENCODER)
    kept = {key: value for key, value in load_state(model).items() if not key.startswith(_NOT_PUBLISHED)}
    state = renamed(kept, NAMES, back=True) | whole
    stage_1 = {key.removeprefix(CODEC): value for key, value in state.items() if key.startswith(CODEC)}
    stage_2 = {key: value for key, value in state.items() if not key.startswith(CODEC)}
    stage_2["PPE.pe"] = sinusoid(host.period, host.dim).repeat(MAX_FRAMES // host.period + 1, 1)[None]
    for part in ("encoder", "decoder"):
        stage_1[f"{part}.{part}_pos_embedding.pe"] = sinusoid(_CODEC_POSITIONS, host.codec_dim)[:, None]
    return {
        f"{config.name}_stage2.pth.tar": {"state_dict": stage_2, FC_IN_PREDICT: not config.legacy_predict},
        f"{config.name}_stage1.pth.tar": {"state_dict": stage_1},
    }
