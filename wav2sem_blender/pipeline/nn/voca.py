# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA's network (CVPR 2019) in torch: a window of logits and the style -> weights of keys -> vertex offsets.

Shapes: B batch, T animation frames, W frames of a window, D logits, N styles, C channels, M hidden units, K keys,
X = 3V outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..hosts import host_module
from .host_network import Example, HostNetwork, Progress
from .keys import OnKeys, head_on_keys
from .published import loaded, need

if TYPE_CHECKING:
    import numpy as np

    from ..hosts.voca import Voca

FRAMES_AT_ONCE = 4096
"""How many windows are in memory at a time."""
CONVOLUTIONS = 4
_SPEECH, _EXPRESSION = "VOCA/SpeechEncoder/", "VOCA/ExpressionLayer/"
_LAYERS = {
    **{f"conv{i + 1}": _SPEECH for i in range(CONVOLUTIONS)},
    **{"fc1": _SPEECH, "fc2": _SPEECH, "expression_offset": _EXPRESSION},
}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
OFFICIAL_NAMES = {
    **{f"batch_norm.{ours}": f"{_SPEECH}batch_norm/{theirs}" for ours, theirs in _NORM.items()},
    **{f"{layer}.weight": f"{scope}{layer}/weights" for layer, scope in _LAYERS.items()},
    **{f"{layer}.bias": f"{scope}{layer}/biases" for layer, scope in _LAYERS.items()},
}
"""Our name of a tensor -> TensorFlow's."""
IGNORED_PARTS = ("Adam", "beta1_power", "beta2_power", "global_step")
"""Of the names of what only training needs."""
HEAD_KEY = OFFICIAL_NAMES["expression_offset.bias"]


class BatchNorm(nn.Module):
    """Of windows (B, W, D), with one scale for all values; a training step keeps 0.9 of the old statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.register_buffer("running_mean", torch.zeros(1))
        self.register_buffer("running_var", torch.ones(1))

    def forward(self, windows_BWD: Tensor) -> Tensor:
        """See the class."""
        flat_B1X, own = windows_BWD.flatten(1)[:, None], (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(flat_B1X, *own, self.training, 0.1, 1e-5).view_as(windows_BWD)


class VocaNetwork(HostNetwork):
    """The memory holds the logits, with FC(F_s) where there is a Wav2Sem.

    The one-hot style enters twice: beside the logits of every frame of a
    window, and beside what the convolutions made of the window.
    """

    def __init__(self, config: Voca, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.batch_norm = BatchNorm()
        inputs, n_frames = config.features + n_styles, config.window
        for i, width in enumerate(config.conv_dims):
            self.add_module(f"conv{i + 1}", nn.Conv1d(inputs, width, 3, stride=2))
            inputs, n_frames = width, -(-n_frames // 2)
        self.fc1 = nn.Linear(inputs * n_frames + n_styles, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.keys)
        self.expression_offset = nn.Linear(config.keys, n_outputs)
        # The released code starts from a basis of expressions, which is not published with it.
        nn.init.normal_(self.expression_offset.weight, std=1e-3)
        nn.init.zeros_(self.expression_offset.bias)

    def forward(self, memory_BTD: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Prediction (B, T, X); no frame depends on another's prediction, so `target_BTX` changes nothing."""
        windows_BTWD = self.windows(memory_BTD)
        style_BTN = style_BN[:, None].expand(-1, memory_BTD.shape[1], -1)
        return self.of_windows(windows_BTWD.flatten(0, 1), style_BTN.flatten(0, 1)).unflatten(0, memory_BTD.shape[:2])

    def windows(self, memory_BTD: Tensor) -> Tensor:
        """(B, T, W, D): window t holds the frames t - W/2 … t + W/2 - 1, zeros beyond the recording."""
        before = self.config.window // 2
        padded_BtD = F.pad(memory_BTD, (0, 0, before, self.config.window - before - 1))
        return padded_BtD.unfold(1, self.config.window, 1).transpose(2, 3)

    def of_windows(self, windows_BWD: Tensor, style_BN: Tensor) -> Tensor:
        """Prediction (B, X) of each window."""
        style_BWN = style_BN[:, None].expand(-1, windows_BWD.shape[1], -1)
        hidden_BCW = torch.cat([self.batch_norm(windows_BWD), style_BWN], -1).transpose(1, 2)
        for i in range(len(self.config.conv_dims)):
            # TensorFlow's "SAME" puts the one frame that is missing behind, and an odd number of frames needs two.
            padding = (1, 1) if hidden_BCW.shape[2] % 2 else (0, 1)
            hidden_BCW = self.get_submodule(f"conv{i + 1}")(F.pad(hidden_BCW, padding)).relu()
        joined_BC = torch.cat([hidden_BCW.transpose(1, 2).flatten(1), style_BN], -1)
        return self.expression_offset(self.fc2(self.fc1(joined_BC).tanh()))

    def loss(self, example: Example) -> Tensor:
        """Mean over frames and vertices of the squared distance, and that of the motion from frame to frame.

        Source: section 4.2 of the paper; the weight of the second is the released one.
        """
        return self._loss(self(example.memory_BRM, example.style_BN) - example.target_BTX)

    def batch_loss(self, examples: Sequence[Example]) -> Tensor:
        """As `loss`, of pairs of frames that are drawn from each clip and go through the network together, so that the
        batch norm sees all of them."""
        if not self.config.pairs:
            return super().batch_loss(examples)
        windows, styles, targets = [], [], []
        for example in examples:
            starts = torch.randint(example.memory_BRM.shape[1] - 1, (self.config.pairs,))
            pairs = torch.stack([starts, starts + 1], 1).flatten().to(example.memory_BRM.device)
            windows.append(self.windows(example.memory_BRM)[0, pairs])
            styles.append(example.style_BN.expand(len(pairs), -1))
            targets.append(example.target_BTX[0, pairs])
        predicted_BX = self.of_windows(torch.cat(windows), torch.cat(styles))
        return self._loss((predicted_BX - torch.cat(targets)).unflatten(0, (-1, 2)))

    def _loss(self, off_BTX: Tensor) -> Tensor:
        off_BTV3 = off_BTX.unflatten(-1, (-1, 3))
        position = off_BTV3.square().sum(-1).mean()
        velocity = off_BTV3.diff(dim=1).square().sum(-1).mean()
        return position + self.config.velocity_weight * velocity

    def generate(self, memory_BTD: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """As `HostNetwork`; the windows are made piece by piece, so that an hour needs no more memory than a minute."""
        n_frames, around = memory_BTD.shape[1], self.config.window
        parts = []
        for start in range(0, n_frames, FRAMES_AT_ONCE):
            before = max(0, start - around)
            stop = min(start + FRAMES_AT_ONCE, n_frames)
            part_BtX = self(memory_BTD[:, before : stop + around], style_BN)
            parts.append(part_BtX[:, start - before : stop - before])
            if progress is not None:
                progress(stop / n_frames)
        return torch.cat(parts, 1)

    def on_keys(self) -> OnKeys:
        """As `HostNetwork`: exact, because the last two layers are one linear map of as many columns as keys."""
        last, inner = self.expression_offset, self.fc2
        weight_XM, bias_X = last.weight @ inner.weight, last(inner.bias)
        keys = head_on_keys(
            weight_XM.detach(), bias_X.detach(), bound=self.config.hidden**0.5, max_keys=self.config.keys
        )
        n_keys = len(keys.channels) - 1
        state = {
            **self.state_dict(),
            "fc2.weight": keys.weight_KM[:n_keys],
            "fc2.bias": keys.bias_K[:n_keys],
            "expression_offset.weight": torch.eye(n_keys + 1, n_keys),
            "expression_offset.bias": torch.eye(n_keys + 1)[n_keys],
        }
        return OnKeys(replace(self.config, keys=n_keys), state, keys.channels, keys.basis_KV3)


def from_published(kind: str, state: Mapping[str, np.ndarray | Tensor]) -> VocaNetwork:
    """A network of the sizes that the TensorFlow variables have, with their weights, in eval mode.

    Raises:
        UserError: A variable is missing or unknown, or a shape does not fit the others; the message names it.
    """
    ours = {theirs: name for name, theirs in OFFICIAL_NAMES.items()}
    given = {name: torch.as_tensor(value) for name, value in state.items()}
    others = {name for name in given if name not in ours and not any(part in name for part in IGNORED_PARTS)}
    tensors = {own: _from_tensorflow(need(given, theirs)) for theirs, own in ours.items()}
    conv_dims = tuple(len(tensors[f"conv{i + 1}.bias"]) for i in range(CONVOLUTIONS))
    # The convolutions make one frame of the 16.
    n_styles = tensors["fc1.weight"].shape[-1] - conv_dims[-1]
    n_features = tensors["conv1.weight"].shape[1] - n_styles
    if min(n_styles, n_features) < 1:
        names = OFFICIAL_NAMES["fc1.weight"], OFFICIAL_NAMES["conv1.weight"]
        raise UserError("the shapes of {one} and {other} do not fit together", one=names[0], other=names[1])
    config: Voca = host_module("voca").Voca(
        features=n_features,
        conv_dims=conv_dims,
        hidden=len(tensors["fc1.bias"]),
        keys=len(tensors["fc2.bias"]),
    )
    network = VocaNetwork(config, len(tensors["expression_offset.bias"]), n_styles)
    return loaded(network, {**tensors, **{name: torch.empty(0) for name in others}})


def to_published(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A network's state dict as TensorFlow's variables."""
    return {theirs: _to_tensorflow(state[ours]).numpy() for ours, theirs in OFFICIAL_NAMES.items()}


def _from_tensorflow(value: Tensor) -> Tensor:
    """(in, out) or (k, 1, in, out), as torch has it."""
    if value.ndim == 4:
        value = value.flatten(0, 1)
    return value.permute(*reversed(range(value.ndim))).contiguous()


def _to_tensorflow(value: Tensor) -> Tensor:
    """The reverse of `_from_tensorflow`."""
    value = value.permute(*reversed(range(value.ndim)))
    return (value[:, None] if value.ndim == 3 else value).contiguous()
