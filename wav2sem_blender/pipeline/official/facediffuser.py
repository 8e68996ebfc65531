# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceDiffuser's `pretrained_vocaset.pth` and `pretrained_BIWI.pth`: a bare state dict.

The network denoises whole faces, and the file has none. So the neutral faces of the training subjects are read from the
user's copy of the data set.

Shapes: N styles, V vertices, X = 3V.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..checkpoint import PUBLISHED, EncoderConfig, ModelFolder
from ..hosts.facediffuser import RELEASES, FaceDiffuser
from ..nn.facediffuser import TEMPLATES
from ..restricted_pickle import read_templates
from .published import BASE_ENCODER, Published, Source, check_rows, renamed, require_architecture

PREFIX = ""
HEAD_KEY, AUDIO_KEY = "final_layer.weight", "cond_projection.weight"
_OWN = (
    *("cond_projection.", "input_projection.", "time_mlp.", "norm_cond."),
    *("gru.", "final_layer.", "obj_vector."),
)
NAMES = tuple((name, f"decoder.{name}") for name in _OWN)
ENCODER = EncoderConfig(kind="hubert", config=BASE_ENCODER)
BIWI_SUBJECTS = (*(f"F{number}" for number in range(1, 9)), *(f"M{number}" for number in range(1, 7)))
TEMPLATES_FILE = "the neutral faces of its training subjects, the data set's templates.pkl,"


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`."""
    n_rows = len(state.get(HEAD_KEY, ())) if AUDIO_KEY in state else 0
    return next((kind for kind, release in RELEASES.items() if 3 * release.n_vertices == n_rows), None)


def read(kind: str, source: Source) -> Published:
    """As `Format`; the templates are a second file."""
    release = RELEASES[kind]
    check_rows(source, HEAD_KEY, kind, 3 * release.n_vertices)
    n_styles, width = source.take("obj_vector.weight").shape[1], len(source.take(AUDIO_KEY))
    assert isinstance(release.host, FaceDiffuser)
    host = replace(release.host, dim=width, steps=source.take("time_mlp.0.weight").shape[1])
    styles = next((known for known in (release.styles, BIWI_SUBJECTS) if len(known) == n_styles), None)
    if styles is None:
        raise UserError(
            "{file}: it has {found} speaking styles; the released files of {kind} have {expected}",
            file=source.path.name,
            found=n_styles,
            kind=kind,
            expected=len(release.styles),
        )
    file = source.second(TEMPLATES_FILE, lambda path: path.suffix == ".pkl")
    templates_NX = _templates(file, styles, 3 * release.n_vertices, in_box=release.basis_unit == "template_box")
    state = renamed(source.state, NAMES) | {f"decoder.{TEMPLATES}": torch.from_numpy(templates_NX)}
    return Published.of(release, ENCODER, state, host=host, styles=styles)


def _templates(file: Path, styles: tuple[str, ...], n_values: int, *, in_box: bool) -> np.ndarray:
    """The neutral faces (N, X) of the styles' subjects. `in_box`: as FaceDiffuser's script for BIWI scales them, each
    axis to a mean of 0 and a length of 1; faces that it scaled stay as they are."""
    by_subject = read_templates(file)
    for subject in styles:
        if subject not in by_subject or by_subject[subject].size != n_values:
            raise UserError(
                "{file}: it has no face of {subject} with {n_vertices} vertices; give the templates.pkl of the "
                "data that this model learnt from",
                file=file.name,
                subject=subject,
                n_vertices=n_values // 3,
            )
    faces_NV3 = np.stack([by_subject[subject].reshape(-1, 3) for subject in styles]).astype(np.float64)
    if in_box:
        faces_NV3 = (faces_NV3 - faces_NV3.mean(1, keepdims=True)) / np.ptp(faces_NV3, axis=1, keepdims=True)
    return faces_NV3.reshape(len(styles), -1).astype(np.float32)


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    from ..engine_torch import load_state

    config, exact = model.config, model.tensors(PUBLISHED)
    if not isinstance(config.host, FaceDiffuser) or not exact:
        raise UserError(
            "{model}: FaceDiffuser's format holds its denoiser and a vertex head; this model differs", model=config.name
        )
    require_architecture(config.name, config.encoder, ENCODER)
    others = ("decoder.rest_NU", "decoder.noise_UU")
    state = {key: value for key, value in load_state(model).items() if key not in others}
    state |= {f"decoder.{key}": torch.from_numpy(value) for key, value in exact.items()}
    kept = {key: value for key, value in state.items() if key.startswith(("audio_encoder.", "decoder."))}
    return {f"{config.name}.pth": renamed(kept, NAMES, back=True)}
