# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's decoder and heads against the released code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from wav2sem_blender.pipeline.hosts.unitalker import ARKIT, BIWI
from wav2sem_blender.pipeline.nn.unitalker import PCA_ARRAYS, Pca, UniTalkerNetwork, from_published

from . import state_of

_STYLES = {BIWI: 3, ARKIT: -1}
"""The released demo's subject of BIWI, and the pivot."""


@torch.no_grad()
def check(
    golden: Mapping[str, np.ndarray], kind: str, beside: Callable[[str], Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both heads' outputs, and the components that the PCA's loss compares."""
    state = {name: torch.from_numpy(value) for name, value in state_of(golden).items()}
    memory_1TM = F.linear(
        torch.from_numpy(golden["features"]),
        state["decoder.audio_feature_map.weight"],
        state["decoder.audio_feature_map.bias"],
    )
    pca = Pca(*(golden[f"pca_{name}"] for name in PCA_ARRAYS))
    biwi, arkit = from_published(kind, state, BIWI, pca), from_published(kind, state, ARKIT)
    template_1X = torch.from_numpy(golden["template_biwi"])
    ours = {
        "out_biwi": biwi(memory_1TM, _style(biwi, BIWI)) + template_1X,
        "out_pca": biwi.values(biwi.features(memory_1TM, _style(biwi, BIWI))),
        "gt_pca": biwi.components(torch.from_numpy(golden["gt"]) - template_1X),
        "out_arkit": arkit(memory_1TM, _style(arkit, ARKIT)) + torch.from_numpy(golden["template_arkit"]),
    }
    return {name: (value.numpy(), golden[name]) for name, value in ours.items()}


def _style(network: UniTalkerNetwork, head: str) -> torch.Tensor:
    return torch.eye(network.learnable_style_emb.num_embeddings)[[_STYLES[head]]]
