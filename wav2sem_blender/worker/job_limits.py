# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory and time a job of the worker may take: by the size of its recording and of its model.

The limits are many times what any published model needs. They end a job that a damaged or hostile model would let grow
or compute for ever. Standard library only.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ..errors import Text
from . import protocol

# Libraries, and what a short recording needs; then for each byte of the model and of the recording.
_MEMORY_BYTES, _PER_MODEL_BYTE, _PER_SOUND_BYTE = 8 << 30, 6, 4000
# Without any progress: a large model may load for minutes from a slow disk, and some hosts report none as they compute.
_STALLED_S, _S_PER_SOUND_BYTE = 1800.0, 1 / 5000
_LOOK_S = 0.5


class JobLimits:
    """The limits of one job.

    Attributes:
        memory_bytes: What the process may have in memory.
        stalled_s: How long it may report no progress.
    """

    def __init__(self, command: protocol.Command) -> None:
        sound_bytes = size_bytes(Path(command.audio)) if command.audio else 0
        model = getattr(command, "model", "default")
        model_bytes = 0 if model == "default" else size_bytes(Path(model))
        self.memory_bytes = _MEMORY_BYTES + _PER_MODEL_BYTE * model_bytes + _PER_SOUND_BYTE * sound_bytes
        self.stalled_s = _STALLED_S + _S_PER_SOUND_BYTE * sound_bytes
        self._progress_s = self._looked_s = time.monotonic()

    def heard(self) -> None:
        """The job has reported something."""
        self._progress_s = time.monotonic()

    def exceeded(self, pid: int) -> Text | None:
        """Which limit the process with this id exceeds; None for none."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now_s
        if now_s - self._progress_s > self.stalled_s:
            return Text(
                "The worker reported no progress for {minutes:.0f} minutes, so it was ended. Use another model, or a "
                "shorter recording.",
                minutes=self.stalled_s / 60,
            )
        if resident_bytes(pid) > self.memory_bytes:
            return Text(
                "The worker took more than {limit_gb:.0f} GB of memory, so it was ended. Use a smaller model, or a "
                "shorter recording.",
                limit_gb=self.memory_bytes / 1e9,
            )
        return None


def resident_bytes(pid: int) -> int:
    """What a process has in memory; 0 where only Linux could tell."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def size_bytes(path: Path) -> int:
    """Of a file, or of the files in a folder."""
    with suppress(OSError):
        return sum(size_bytes(entry) for entry in path.iterdir()) if path.is_dir() else path.stat().st_size
    return 0
