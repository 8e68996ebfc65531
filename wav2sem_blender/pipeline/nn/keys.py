# SPDX-License-Identifier: GPL-3.0-or-later
"""A linear head on vertices becomes named keys: the columns of the head, rotated so that the first keys move the most.

Shapes: M features, K = M + 1 keys or fewer, V vertices, X = 3V.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ..hosts.protocol import Host

BIAS_CHANNEL = "bias"
MAX_KEYS = 128
"""A head of more columns than this loses those that move the least; Blender's panel of keys stays usable."""


class OnKeys(NamedTuple):
    """A host's network on named channels.

    Attributes:
        host: Its settings.
        state: State dict of `host.network(len(channels), n_styles)`.
        channels: Their names.
        basis_KV3: What they move, in the unit of the vertices; None where the channels have names of their own, such as
            ARKit's.
        error: What the keys lose: the greatest root mean square of a vertex, in that unit, for features as in `head`.
        published: Tensors that a file in the released format needs and `state` does not hold exactly.
        more_styles: Names of styles that `state` has before those of the released model.
    """

    host: Host
    state: dict[str, Tensor]
    channels: tuple[str, ...]
    basis_KV3: np.ndarray | None
    error: float = 0.0
    published: dict[str, Tensor] = {}  # noqa: RUF012 (never changed)
    more_styles: tuple[str, ...] = ()


class KeyHead(NamedTuple):
    """A head on keys: its weight and bias, the keys' names, what they move, and the error (see `OnKeys`)."""

    weight_KM: Tensor
    bias_K: Tensor
    channels: tuple[str, ...]
    basis_KV3: np.ndarray
    error: float


def key_channels(n_keys: int) -> tuple[str, ...]:
    """Names of so many keys and of the bias."""
    return (*(f"key_{i:02d}" for i in range(n_keys)), BIAS_CHANNEL)


@torch.no_grad()
def head_on_keys(
    weight_XM: Tensor,
    bias_X: Tensor,
    gain_M: Tensor | None = None,
    shift_M: Tensor | None = None,
    bound: float = 1.0,
    max_keys: int = MAX_KEYS,
) -> KeyHead:
    """Turn a head on vertices into one on rotated keys and a constant key, which give the same vertices.

    Args:
        weight_XM: The head.
        bias_X: Its bias, which becomes a key that is always 1.
        gain_M, shift_M: The features are gain * n + shift. The rotation is solved for n, whose components should have
            the same scale: the gain and the shift of a last layer norm, or the features' standard deviation and mean.
        bound: |n| at most. Keys are divided by it, so that every weight lies in [-1, 1], as Blender's sliders.
        max_keys: How many columns are kept; if there are more, the error says what is lost for an n of unit variance.
    """
    gain_M = torch.ones(weight_XM.shape[1]) if gain_M is None else gain_M
    shift_M = torch.zeros(weight_XM.shape[1]) if shift_M is None else shift_M
    if gain_M.abs().min() < 1e-4:  # a dead unit would divide by zero: rotate the plain columns
        gain_M, shift_M = gain_M.abs().max().clamp(min=1.0).expand_as(gain_M), torch.zeros_like(shift_M)
    gain_M, shift_M = gain_M.double(), shift_M.double()
    bias_X = bias_X.double() + weight_XM.double() @ shift_M
    scaled_XM = weight_XM.double() * gain_M
    # The right singular vectors, of a matrix as small as the head is wide; the head may be 70,110 x 1,024.
    rotation_MM = torch.linalg.eigh(scaled_XM.T @ scaled_XM).eigenvectors
    n_keys = min(max_keys, *scaled_XM.shape)
    rotation_KM = rotation_MM.flip(1).T[:n_keys]
    moved_XK = scaled_XM @ rotation_KM.T
    error = 0.0
    if n_keys < min(scaled_XM.shape):
        lost_X = scaled_XM.square().sum(1) - moved_XK.square().sum(1)
        error = float(lost_X.reshape(-1, 3).sum(1).max().clamp(min=0).sqrt())
    head_KM = rotation_KM / gain_M / bound
    basis_KX = torch.cat([(moved_XK * bound).T, bias_X[None]])
    return KeyHead(
        F.pad(head_KM, (0, 0, 0, 1)).float(),
        F.pad(-head_KM @ shift_M, (0, 1), value=1.0).float(),
        key_channels(n_keys),
        basis_KX.reshape(len(basis_KX), -1, 3).float().numpy(),
        error,
    )
