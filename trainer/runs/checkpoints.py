# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a run: written atomically and verified on load; the newest intact one is used.

A file is named `step-00001234-<sha256, 16 digits>.pt`, so its name proves its content.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import write_atomically

KEPT = 2
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.pt")


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """A state of tensors and plain containers, as torch saves it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint after `step` steps and remove all but the newest `KEPT`."""
    data = to_bytes(state)
    path = folder / f"step-{step:08d}-{hashlib.sha256(data).hexdigest()[:16]}.pt"
    write_atomically(path, data)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return path


def load_newest(folder: Path, report: Callable[[str], object] = print) -> tuple[int, dict[str, Any]] | None:
    """The newest intact checkpoint and its step, or None if there are no checkpoints.

    A damaged one is reported by `report(text)` and skipped.

    Raises:
        UserError: all checkpoints are damaged.
    """
    paths = _newest_first(folder)
    for path in paths:
        match = _NAME.fullmatch(path.name)
        assert match is not None
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:16] == match[2]:
            return int(match[1]), torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        report(f"{path}: damaged ({len(data)} bytes do not have the hash in its name); trying the one before")
    if paths:
        raise UserError("{folder}: every checkpoint is damaged; start again with another --out", folder=folder)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)), reverse=True)
