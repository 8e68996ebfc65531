# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's decoder (ECCV 2024) in torch, with the published names.

Three convolutions over the memory and a style, then a linear head for each kind of face. Nothing is fed back, so all
frames are computed at once, in training and in inference.

Shapes: B batch, T animation frames (one memory frame each), M decoder width, N styles, S style width, P values of a
head, X = 3V or K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..flame_parameters import N_SHAPES, Flame, key_names, key_weights
from ..hosts import host_class
from .host_network import Example, HostNetwork, Progress
from .keys import MAX_KEYS, OnKeys, key_channels
from .published import loaded, need, own_weights

if TYPE_CHECKING:
    from ..hosts.unitalker import UniTalker

HEAD_PREFIX, PCA_PREFIX = "out_head_dict.", "pca_layer_dict."
PCA_ARRAYS = ("components_to_data", "original_data_mean", "data_components_mean", "data_components_std")
"""The arrays of pca.npz, in the order of `Pca`."""
PCA_NAMES = ("feat_to_data", "data_bias", "feat_mean", "feat_std")
NOT_OURS = ("audio_encoder.", "decoder.audio_feature_map.", PCA_PREFIX)
"""What a released file has beside this network: the speech encoder, the memory's layer, and in files of one's own
training the PCA."""
PCA_BUFFERS = ("components_PX", "mean_X", "centre_P", "spread_P")
PCA_FRAMES = 4096
KEY_BOUND = 3.0
FLAME_EXPRESSIONS = 100
FLAME_MOTION = slice(N_SHAPES, N_SHAPES + FLAME_EXPRESSIONS + 3)
"""Of the parameters: behind FLAME's shape are its expressions and the jaw's rotation vector, then the head's pose."""


class Pca(NamedTuple):
    """A PCA of vertices: Q orthonormal components (Q, X), the mean (X,), and the mean and standard deviation of every
    component in the data (Q,)."""

    components_QX: np.ndarray
    mean_X: np.ndarray
    centre_Q: np.ndarray
    spread_Q: np.ndarray


def pca_of(frames_BX: np.ndarray, n_components: int) -> Pca:
    """The first components of the frames.

    Raises:
        UserError: There are not more frames than components.
    """
    if len(frames_BX) <= n_components:
        raise UserError(
            "a PCA of {n_components} components needs more frames than the {n_frames} of the training clips",
            n_components=n_components,
            n_frames=len(frames_BX),
        )
    mean_X = frames_BX.mean(0)
    centred_BX = torch.from_numpy(frames_BX - mean_X).float()
    # Of the small matrix, as frames are fewer than coordinates.
    strengths_B, vectors_BB = torch.linalg.eigh((centred_BX @ centred_BX.T).double())
    spread_Q = (strengths_B.flip(0)[:n_components].clamp_min(0) / len(frames_BX)).sqrt()
    components_QX = F.normalize(vectors_BB.flip(1)[:, :n_components].float().T @ centred_BX, dim=1)
    return Pca(components_QX.numpy(), mean_X, np.zeros(n_components, np.float32), spread_Q.float().numpy())


def pca_in(state: Mapping[str, Tensor], head: str) -> Pca | None:
    """The PCA of a head in a file of one's own training; released files have none."""
    names = [f"{PCA_PREFIX}{head}.{name}" for name in PCA_NAMES]
    return Pca(*(state[name].numpy() for name in names)) if names[0] in state else None


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

    Where a head predicts components of vertices, outputs are `values @ components_PX + mean_X`, divided by the
    settings' scale. On named keys this is the map from the components to the keys' weights.

    Attributes:
        components_PX, mean_X: The PCA, of vertices times the scale.
        centre_P, spread_P: Mean and standard deviation of each component in the data.
        flame: The user's FLAME, for `on_keys` of the head on its parameters.
        blendshapes_KX: The shapes that the loss of a blendshape head compares; None compares the weights alone.
    """

    components_PX: Tensor
    mean_X: Tensor
    centre_P: Tensor
    spread_P: Tensor
    blendshapes_KX: Tensor | None

    def __init__(self, config: UniTalker, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.flame: Flame | None = None
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
            self.register_buffer("centre_P", torch.zeros(config.head_width))
            self.register_buffer("spread_P", torch.ones(config.head_width))
        self.register_buffer("blendshapes_KX", None, persistent=False)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """As `HostNetwork`. Motion is never fed back, so a target changes nothing."""
        return self.outputs(self.values(self.features(memory_BRM, style_BN)))

    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """As `HostNetwork`; where the settings say so, weights of the keys of FLAME's expressions and jaw."""
        predicted_BTX = self(memory_BRM, style_BN)
        if not self.config.flame_keys:
            return predicted_BTX
        parameters_BTX = predicted_BTX[..., FLAME_MOTION].cpu().numpy()
        weights_BTK = np.stack([key_weights(parameters_TX) for parameters_TX in parameters_BTX])
        return torch.from_numpy(weights_BTK).to(predicted_BTX)

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
        return self._scaled(values_BTP) / self.config.scale if self.config.has_components else values_BTP

    def _scaled(self, values_BTP: Tensor) -> Tensor:
        return values_BTP @ self.components_PX + self.mean_X

    def components(self, target_BTX: Tensor) -> Tensor:
        """The components (B, T, P) of vertices: the projection on an orthonormal basis."""
        return (target_BTX * self.config.scale - self.mean_X) @ self.components_PX.T

    def set_pca(self, pca: Pca) -> None:
        """Use the first P of a PCA's components."""
        for name, array in zip(PCA_BUFFERS, pca, strict=True):
            buffer = getattr(self, name)
            buffer.copy_(torch.from_numpy(array[: len(buffer)]))

    def on_keys(self) -> OnKeys:
        """ARKit's weights as they are; of a PCA, the components that move the most, and what never changes as one key.

        A key's weight is 1 where its component is `KEY_BOUND` standard deviations above its mean. The error is that of
        the components left out. Of FLAME's parameters, the expressions and the jaw; the face keeps its own shape.
        """
        config = self.config
        if config.predicts_flame:
            assert self.flame is not None, "the importer gives it"
            basis_KV3, error_m = self.flame.keys()
            names = key_names(FLAME_EXPRESSIONS)
            return OnKeys(replace(config, flame_keys=True), self.state_dict(), names, basis_KV3, error_m)
        if not config.has_components:
            return OnKeys(config, self.state_dict(), config.channels, None)
        components_PX, mean_X, centre_P, spread_P = (getattr(self, name).detach().cpu() for name in PCA_BUFFERS)
        n_keys = min(MAX_KEYS, len(components_PX))
        unit_k = KEY_BOUND * spread_P[:n_keys].clamp_min(1e-6 * float(spread_P.max()))
        rest_X = mean_X + centre_P @ components_PX
        basis_KX = torch.cat([components_PX[:n_keys] * unit_k[:, None], rest_X[None]]) / config.scale
        lost_X = (spread_P[n_keys:].square() @ components_PX[n_keys:].square()) / config.scale**2
        to_keys_PK = torch.zeros(len(components_PX), n_keys + 1)
        to_keys_PK[:n_keys, :n_keys] = (1 / unit_k).diag()
        changed = {"components_PX": to_keys_PK, "mean_X": torch.cat([-centre_P[:n_keys] / unit_k, torch.ones(1)])}
        return OnKeys(
            replace(config, scale=1.0),
            self.state_dict() | changed,
            key_channels(n_keys),
            basis_KX.unflatten(1, (-1, 3)).numpy(),
            float(lost_X.unflatten(0, (-1, 3)).sum(1).max().sqrt()),
            dict(zip(PCA_ARRAYS, (components_PX, mean_X, centre_P, spread_P), strict=True)),
        )

    def prepare(self, frames: Callable[[int], np.ndarray]) -> None:
        """Find the PCA of the training data; released training does it over all frames."""
        if self.config.has_components:
            self.set_pca(pca_of(frames(PCA_FRAMES) * self.config.scale, self.config.head_width))

    def loss(self, example: Example) -> Tensor:
        """The squared error of the vertices, and a little of the components or of the blendshapes' weights.

        In training, some clips are learnt in the style of the pivot, the first one.
        """
        style_BN = example.style_BN
        if self.training and float(torch.rand(())) < self.config.pivot_share:
            style_BN = F.one_hot(torch.zeros(len(style_BN), dtype=torch.long), style_BN.shape[1]).to(style_BN)
        values_BTP = self.values(self.features(example.memory_BRM, style_BN))
        return self.motion_loss(values_BTP, example.target_BTX)

    def motion_loss(self, values_BTP: Tensor, target_BTX: Tensor) -> Tensor:
        """The loss of what the head predicts."""
        config = self.config
        if config.has_components:
            error = F.mse_loss(self._scaled(values_BTP), target_BTX * config.scale)
            return error + config.components_weight * F.mse_loss(values_BTP, self.components(target_BTX))
        weights = F.mse_loss(values_BTP, target_BTX)
        if self.blendshapes_KX is None:
            return weights
        shapes = ((values_BTP - target_BTX) @ self.blendshapes_KX).square().mean()
        return shapes + config.blendshapes_weight * weights


def from_published(kind: str, state: Mapping[str, Tensor], head: str = "", pca: Pca | None = None) -> UniTalkerNetwork:
    """The network of a released file, whose sizes are those of its weights, with all its heads.

    Args:
        kind: Any; the heads tell.
        state: By the released names.
        head: The one that animates; by default ARKit's, or else the first.
        pca: For a head on vertices, where the state has none.

    Raises:
        UserError: The weights are not UniTalker's; the message names one. Or the head needs a pca.npz.
    """
    own = {name.removeprefix("decoder."): value for name, value in own_weights(state, others=NOT_OURS).items()}
    heads = {
        name.removeprefix(HEAD_PREFIX).removesuffix(".weight"): len(value)
        for name, value in own.items()
        if name.startswith(HEAD_PREFIX) and name.endswith(".weight")
    }
    settings = cast("type[UniTalker]", host_class("unitalker"))
    head = head or (settings.head if settings.head in heads or not heads else next(iter(heads)))
    need(own, f"{HEAD_PREFIX}{head}.weight")
    n_styles, style_dim = need(own, "learnable_style_emb.weight").shape
    first = "tcn.first_net.conv_layers."
    config = settings(
        dim=len(need(own, f"{first}0.conv.weight")),
        style_dim=style_dim,
        layers=sum(name.startswith(first) and name.endswith(".conv.weight") for name in own),
        head=head,
        heads=tuple(heads.items()),
    )
    if not config.has_components:
        return loaded(UniTalkerNetwork(config, heads[head], n_styles), own)
    pca = pca or pca_in(state, head)
    if pca is None:
        raise UserError("the head {head} predicts components of a PCA; the release's pca.npz is needed too", head=head)
    network = UniTalkerNetwork(config, len(pca.mean_X), n_styles)
    network.set_pca(pca)
    return loaded(network, own | {name: getattr(network, name) for name in PCA_BUFFERS})
