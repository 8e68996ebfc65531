# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA's golden values: vertices from windows of logits."""

from __future__ import annotations

import torch

from wav2sem_blender.pipeline.nn.voca import from_published

from . import Callable, Golden, Outputs, state_of


@torch.no_grad()
def check(golden: Golden, kind: str, beside: Callable[[str], Golden]) -> Outputs:
    """See `host_checks.Check`."""
    network = from_published(kind, state_of(golden))
    windows_BWD, style_BN = (torch.from_numpy(golden[name]) for name in ("windows", "one_hot"))
    offsets_BV3 = network.of_windows(windows_BWD, style_BN).unflatten(-1, (-1, 3)).numpy()
    return {"prediction": (golden["template"] + offsets_BV3, golden["prediction"])}
