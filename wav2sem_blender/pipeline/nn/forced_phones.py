# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of phones that were not heard, in torch; see `pipeline/forced_phones.py`.

Shapes: B batch, R memory frames, P phones, M memory width.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..forced_phones import HIDDEN, TAPS


class PhoneReader(nn.Sequential):
    """Three convolutions without padding: of R frames, those are answered that have `REACH` neighbours."""

    def __init__(self, n_phones: int, memory_width: int) -> None:
        super().__init__(
            nn.Conv1d(n_phones, HIDDEN, TAPS[0]),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, HIDDEN, TAPS[1]),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, memory_width, TAPS[2]),
        )

    def forward(self, shares_BRP: Tensor) -> Tensor:
        """The memory (B, R - 2 REACH, M)."""
        return super().forward(shares_BRP.transpose(1, 2)).transpose(1, 2)
