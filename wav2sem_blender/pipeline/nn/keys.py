# SPDX-License-Identifier: GPL-3.0-or-later
"""A linear head on vertices becomes named keys: the columns of the head, rotated so that the first keys move the most.

Shapes: M features, K = M + 1 keys or fewer, V vertices, X = 3V.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
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
    width = weight_XM.shape[1]
    gain = np.ones(width) if gain_M is None else gain_M.double().numpy()
    shift = np.zeros(width) if shift_M is None else shift_M.double().numpy()
    if np.abs(gain).min() < 1e-4:  # a dead unit would divide by zero: rotate the plain columns
        gain, shift = np.full_like(gain, max(np.abs(gain).max(), 1.0)), np.zeros_like(shift)
    weight, bias = weight_XM.double().numpy(), bias_X.double().numpy()
    left, strength, right = _svd(weight * gain)
    lost_X = ((left[:, max_keys:] * strength[max_keys:]) ** 2).sum(1)
    error = float(np.sqrt(lost_X.reshape(-1, 3).sum(1).max(initial=0)))
    left, strength, right = left[:, :max_keys], strength[:max_keys], right[:max_keys]
    head_KM = np.concatenate([right / gain / bound, np.zeros((1, width))])
    head_K = np.concatenate([-(right / gain) @ shift / bound, [1.0]])
    basis_KX = np.concatenate([(left * strength * bound).T, (bias + weight @ shift)[None]])
    return KeyHead(
        torch.from_numpy(head_KM).float(),
        torch.from_numpy(head_K).float(),
        key_channels(len(strength)),
        basis_KX.reshape(len(basis_KX), -1, 3).astype(np.float32),
        error,
    )


def _svd(matrix_XM: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin singular value decomposition. A QR first makes the tall matrix (70,110 x 1,024) as small as it is wide."""
    if matrix_XM.shape[0] <= matrix_XM.shape[1]:
        return np.linalg.svd(matrix_XM, full_matrices=False)
    orthogonal, upper = np.linalg.qr(matrix_XM)
    left, strength, right = np.linalg.svd(upper)
    return orthogonal @ left, strength, right
