# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of Lightning and fairseq, which store settings as objects of any library beside the weights.

torch refuses such files as a whole. Here every name in the file that is not torch's own is answered by an empty class,
so the weights are read and nothing in the file runs. What then is no tensor is refused by the caller, as ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..restricted_pickle import check_claims

STATE_NAMES = ("state_dict", "model")
"""What the weights are called: by Lightning and most others, and by fairseq."""


class _Placeholder:
    """Stands for anything: it takes every argument and every state, and does nothing."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def load(path: Path) -> Any:
    """What torch stored in `path`, with placeholders for what is neither tensors nor plain containers.

    Raises:
        Exception: As `torch.load` and `check_claims`.
    """
    check_claims(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # the rest is no file of torch
            raise
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins: list[Any] = [(type(name.rpartition(".")[2], (_Placeholder,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict) or not any(isinstance(loaded.get(name), dict) for name in STATE_NAMES):
            raise
        return loaded
