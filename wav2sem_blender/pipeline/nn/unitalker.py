# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's decoder (ECCV 2024) in torch, with the published names.

Three convolutions over the memory and a style, then a linear head for each kind of face. Nothing is fed back, so all
frames are computed at once, in training and in inference.

Shapes: B batch, T animation frames (one memory frame each), M decoder width, N styles, S style width, P values of a
head, X = 3V or K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..hosts.unitalker import ARKIT, UniTalker
from .host_network import Example, HostNetwork
from .published import loaded, need, own_weights

if TYPE_CHECKING:
    import numpy as np

HEAD_PREFIX = "out_head_dict."
NOT_OURS = ("audio_encoder.", "decoder.audio_feature_map.", "pca_layer_dict.")
"""What a released file has beside this network: the speech encoder, the memory's layer, and in files of one's own
training the PCA."""


class Layer(nn.Module):
    """A convolution with a layer norm of the channels, and the input, through one more convolution if it is wider."""

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_inputs, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        same = n_inputs == width
        self.residual_layer = nn.Sequential() if same else nn.Sequential(nn.Conv1d(n_inputs, width, 3, padding=1))

    def forward(self, x_BMT: Tensor) -> Tensor:
        """See the class."""
        return F.relu(self.norm(self.conv(x_BMT).mT).mT + self.residual_layer(x_BMT))


class UniTalkerNetwork(HostNetwork):
    """From the memory to channel weights or vertices.

    Where a head predicts components of vertices, outputs are `values @ components_PX + mean_X`. On named keys this is
    the map from the components to the keys' weights.

    Attributes:
        blendshapes_KX: The shapes that the loss of a blendshape head compares; None compares the weights alone.
    """

    components_PX: Tensor
    mean_X: Tensor
    blendshapes_KX: Tensor | None

    def __init__(self, config: UniTalker, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.learnable_style_emb = nn.Embedding(n_styles, config.style_dim)
        widths = [config.dim + config.style_dim, *[config.dim] * config.layers]
        layers = nn.Sequential(*(Layer(*pair) for pair in zip(widths, widths[1:], strict=False)))
        self.tcn = nn.ModuleDict({"first_net": nn.ModuleDict({"conv_layers": layers})})
        self.dropout = nn.Dropout(config.dropout)
        self.out_head_dict = nn.ModuleDict({name: nn.Linear(config.dim, width) for name, width in config.heads})
        for parameter in self.out_head_dict.parameters():
            nn.init.zeros_(parameter)
        if config.has_components:
            self.register_buffer("components_PX", torch.zeros(config.head_width, n_outputs))
            self.register_buffer("mean_X", torch.zeros(n_outputs))
        self.register_buffer("blendshapes_KX", None, persistent=False)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """As `HostNetwork`. Motion is never fed back, so a target changes nothing."""
        return self.outputs(self.values(self.features(memory_BRM, style_BN)))

    def features(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """What every head reads, (B, T, M)."""
        style_BSR = (style_BN @ self.learnable_style_emb.weight)[..., None].expand(-1, -1, memory_BRM.shape[1])
        if not memory_BRM.shape[1]:
            return memory_BRM
        layers = self.get_submodule("tcn.first_net.conv_layers")
        return layers(torch.cat([self.dropout(memory_BRM).mT, style_BSR], 1)).mT

    def values(self, features_BTM: Tensor, head: str | None = None) -> Tensor:
        """What a head predicts (B, T, P); without a name, the head of the settings."""
        return self.out_head_dict[head or self.config.head](features_BTM)

    def outputs(self, values_BTP: Tensor) -> Tensor:
        """Outputs (B, T, X) of the head's values."""
        return values_BTP @ self.components_PX + self.mean_X if self.config.has_components else values_BTP

    def components(self, target_BTX: Tensor) -> Tensor:
        """The components (B, T, P) of vertices: the projection on an orthonormal basis."""
        return (target_BTX - self.mean_X) @ self.components_PX.T

    def set_components(self, components_QX: np.ndarray, mean_X: np.ndarray) -> None:
        """Use the first P of a PCA's Q components."""
        kept = components_QX[: self.config.head_width]
        self.components_PX.copy_(torch.from_numpy(kept))
        self.mean_X.copy_(torch.from_numpy(mean_X))

    def loss(self, example: Example) -> Tensor:
        """The squared error of the vertices, and a little of the components or of the blendshapes' weights."""
        values_BTP = self.values(self.features(example.memory_BRM, example.style_BN))
        return self.motion_loss(values_BTP, example.target_BTX)

    def motion_loss(self, values_BTP: Tensor, target_BTX: Tensor) -> Tensor:
        """The loss of what the head predicts."""
        config = self.config
        if config.has_components:
            error = F.mse_loss(self.outputs(values_BTP), target_BTX)
            return error + config.components_weight * F.mse_loss(values_BTP, self.components(target_BTX))
        weights = F.mse_loss(values_BTP, target_BTX)
        if self.blendshapes_KX is None:
            return weights
        shapes = ((values_BTP - target_BTX) @ self.blendshapes_KX).square().mean()
        return shapes + config.blendshapes_weight * weights


def from_published(
    kind: str, state: Mapping[str, Tensor], head: str = "", pca: tuple[np.ndarray, np.ndarray] | None = None
) -> UniTalkerNetwork:
    """The network of a released file, whose sizes are those of its weights, with all its heads.

    Args:
        kind: Any; the heads tell.
        state: By the released names.
        head: The one that animates; by default ARKit's, or else the first.
        pca: Components (Q, X) and mean (X,) of the release's pca.npz, for a head on vertices.

    Raises:
        UserError: The weights are not UniTalker's; the message names one. Or the head needs a pca.npz.
    """
    own = {name.removeprefix("decoder."): value for name, value in own_weights(state, others=NOT_OURS).items()}
    heads = {
        name.removeprefix(HEAD_PREFIX).removesuffix(".weight"): len(value)
        for name, value in own.items()
        if name.startswith(HEAD_PREFIX) and name.endswith(".weight")
    }
    head = head or (ARKIT if ARKIT in heads or not heads else next(iter(heads)))
    need(own, f"{HEAD_PREFIX}{head}.weight")
    n_styles, style_dim = need(own, "learnable_style_emb.weight").shape
    first = "tcn.first_net.conv_layers."
    config = UniTalker(
        dim=len(need(own, f"{first}0.conv.weight")),
        style_dim=style_dim,
        layers=sum(name.startswith(first) and name.endswith(".norm.weight") for name in own),
        head=head,
        heads=tuple(heads.items()),
    )
    if not config.has_components:
        return loaded(UniTalkerNetwork(config, heads[head], n_styles), own)
    if pca is None:
        raise UserError("the head {head} predicts components of a PCA; the release's pca.npz is needed too", head=head)
    network = UniTalkerNetwork(config, len(pca[1]), n_styles)
    network.set_components(*pca)
    return loaded(network, {**own, **dict(network.named_buffers())})
