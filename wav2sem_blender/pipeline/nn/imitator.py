# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator's decoder (ICCV 2023) in torch, with the published names.

The loop starts from zeros and feeds back the decoder's newest output; the style enters behind it. (In older commits of
the released code the style is the first input.) The positional encoding is indexed by the batch, so every frame has its
row 0.

Shapes: B batch, T animation frames, R memory frames, M decoder width, N styles, X = 3V or K outputs.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hosts import host_class
from .alignment import AlignmentDecoder
from .codec import sinusoid
from .diffusion import seeded_noise
from .host_network import Example, HostNetwork, Progress
from .keys import OnKeys, head_on_keys
from .published import loaded, need, own_weights

if TYPE_CHECKING:
    from ..hosts.imitator import Imitator

PREFIX = "nn_model."
NOT_OURS = ("audio_encoder.", "audio_feature_map.", "PPE.")
"""What a released file has beside this network: the speech encoder, the memory's layer, and positions."""


HEAD = "vertice_map_r.decoder.final_out_layer"
SAMPLED_FEATURES = 4096


class MotionDecoder(nn.Module):
    """A feature and a style, added, to motion: linear layers with LeakyReLU, and a linear one."""

    def __init__(self, width: int, n_layers: int, n_outputs: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(n_layers):
            layers[str(2 * i)] = nn.Linear(width, width)
            layers[str(2 * i + 1)] = nn.LeakyReLU(0.01)
        layers["final_out_layer"] = nn.Linear(width, n_outputs)
        self.decoder = nn.Sequential(layers)
        for name, parameter in self.decoder.named_parameters():
            if name.endswith("bias") or name.startswith("final_out_layer"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    @property
    def head(self) -> nn.Linear:
        """The last layer, whose columns are blendshapes."""
        layer = self.decoder.final_out_layer
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, feature_BTM: Tensor, style_BM: Tensor) -> Tensor:
        """Motion (B, T, X)."""
        return self.decoder(feature_BTM + style_BM[:, None])


class ImitatorNetwork(HostNetwork):
    """From the memory to offsets or channel weights."""

    position_M: Tensor

    def __init__(self, config: Imitator, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.position_dropout = nn.Dropout(config.dropout)
        self.transformer_decoder = AlignmentDecoder(
            config.dim,
            config.heads,
            1,
            period=None,
            memory_per_frame=config.grid.memory_per_frame,
            dropout=config.dropout,
        )
        self.obj_vector = nn.Linear(n_styles, config.dim, bias=False)
        self.vertice_map_r = MotionDecoder(config.dim, config.mlp_layers, n_outputs)
        self.register_buffer("position_M", sinusoid(1, config.dim)[0], persistent=False)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """As `HostNetwork`, one frame a step, without gradients and dropout. Motion is never fed back, so a target
        changes nothing."""
        return self.generate(memory_BRM, style_BN)

    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """As `forward`; `progress` is called once a second of animation."""
        return self.vertice_map_r(self.features(memory_BRM, progress), self.obj_vector(style_BN))

    def loss(self, example: Example) -> Tensor:
        """Squared error, that of frames with closed lips once more, and that of the changes."""
        predicted_BTX = self.recomputed(example.memory_BRM, example.style_BN)
        return self.motion_loss(predicted_BTX, example.target_BTX, example.weight_BT)

    def motion_loss(self, predicted_BTX: Tensor, target_BTX: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        """The loss of a prediction; `weight_BT` says how much each frame counts as one with closed lips."""
        squared_BTX = (predicted_BTX - target_BTX).square()
        loss = squared_BTX.mean()
        if weight_BT is not None:
            loss = loss + self.config.bilabial_weight * (weight_BT[..., None] * squared_BTX).mean()
        return loss + self.config.velocity_weight * F.mse_loss(predicted_BTX.diff(dim=1), target_BTX.diff(dim=1))

    @torch.no_grad()
    def on_keys(self) -> OnKeys:
        """The columns of the last layer and its bias, rotated. What precedes that layer is not bounded; the keys are
        scaled so that the weights of a sample of features, in every style, lie in [-1, 1]."""
        head = self.vertice_map_r.head
        inner_NM = self._sample_before_head()
        mean_M, spread_M = inner_NM.mean(0), inner_NM.std(0)
        bound = ((inner_NM - mean_M) / spread_M.clamp(min=1e-4)).norm(dim=1).max()
        on_keys = head_on_keys(
            head.weight.cpu(), head.bias.cpu(), spread_M, mean_M, bound=float(bound), max_keys=self.config.dim
        )
        changed = {f"{HEAD}.weight": on_keys.weight_KM, f"{HEAD}.bias": on_keys.bias_K}
        return OnKeys(self.config, self.state_dict() | changed, on_keys.channels, on_keys.basis_KV3)

    def on_vertices(self, basis_KV3: np.ndarray) -> dict[str, Tensor]:
        """The reverse of `on_keys`: the state dict of a network with 3V outputs and the same motion."""
        basis_XK = torch.from_numpy(basis_KV3.reshape(len(basis_KV3), -1).T).double()
        head = self.vertice_map_r.head
        return self.state_dict() | {
            f"{HEAD}.{name}": (basis_XK @ value.detach().double()).float() for name, value in head.named_parameters()
        }

    def _sample_before_head(self) -> Tensor:
        """What the last layer reads (N, M), for features that the decoder's last norm may give, in every style."""
        norm, layers = self.transformer_decoder.layers[-1].norm3, self.vertice_map_r.decoder[:-1]
        assert isinstance(norm, nn.LayerNorm)
        noise_NM = seeded_noise((SAMPLED_FEATURES, self.config.dim), 0)
        features_NM = F.layer_norm(noise_NM, noise_NM.shape[1:], norm.weight.cpu(), norm.bias.cpu())
        styles_NM = self.obj_vector.weight.T.repeat(len(features_NM) // self.obj_vector.in_features + 1, 1)
        return copy.deepcopy(layers).cpu()(features_NM + styles_NM[: len(features_NM)].cpu())

    @torch.no_grad()
    def features(self, memory_BRM: Tensor, progress: Progress | None = None) -> Tensor:
        """The decoder's outputs (B, T, M), which do not depend on the style."""
        decoding = self.transformer_decoder.cached(memory_BRM)
        hidden_BM, hidden = memory_BRM.new_zeros(len(memory_BRM), self.config.dim), []
        n_frames = memory_BRM.shape[1] // self.transformer_decoder.memory_per_frame
        for t in range(n_frames):
            hidden_BM = decoding.step(hidden_BM + self.position_M)
            hidden.append(hidden_BM)
            if progress and t % self.config.fps == 0:
                progress(t / n_frames)
        return torch.stack(hidden, 1) if hidden else memory_BRM[:, :0]

    def recomputed(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """As `forward`, by the released loop: every step decodes the whole prefix with fresh dropout, and gradients
        flow through what is fed back. Without dropout this equals `forward`."""
        fed_BtM = memory_BRM.new_zeros(len(memory_BRM), 1, self.config.dim)
        hidden_BtM = self._decoded(fed_BtM, memory_BRM)
        for _ in range(1, memory_BRM.shape[1] // self.transformer_decoder.memory_per_frame):
            fed_BtM = torch.cat([fed_BtM, hidden_BtM[:, -1:]], 1)
            hidden_BtM = self._decoded(fed_BtM, memory_BRM)
        return self.vertice_map_r(hidden_BtM, self.obj_vector(style_BN))

    def _decoded(self, inputs_BtM: Tensor, memory_BRM: Tensor) -> Tensor:
        return self.transformer_decoder(self.position_dropout(inputs_BtM + self.position_M), memory_BRM)


def from_published(kind: str, state: Mapping[str, Tensor]) -> ImitatorNetwork:
    """The network of a released file, whose sizes are those of its weights.

    Raises:
        UserError: The weights are not Imitator's; the message names one.
    """
    own = own_weights(state, PREFIX, NOT_OURS)
    dim, n_styles = need(own, "obj_vector.weight").shape
    n_layers = sum(name.startswith("vertice_map_r.decoder.") and name.endswith(".weight") for name in own) - 1
    n_outputs = len(need(own, "vertice_map_r.decoder.final_out_layer.weight"))
    settings = cast("type[Imitator]", host_class("imitator"))
    return loaded(ImitatorNetwork(settings(dim=dim, mlp_layers=n_layers), n_outputs, n_styles), own)
