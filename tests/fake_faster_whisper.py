# SPDX-License-Identifier: GPL-3.0-or-later
"""A test double of faster-whisper 1.2.1: what it hears is in its model's model.bin, as JSON.

`{"language": "de", "lines": ["Guten Morgen."]}`; `"error"` makes the model damaged, `"crash"` ends the process, and
`"seconds"` is how long each line takes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

__version__ = "1.2.1"


class WhisperModel:
    """Has the arguments of the real one that are used, and refuses others."""

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        compute_type: str = "default",
        local_files_only: bool = False,
    ) -> None:
        assert local_files_only, "nothing is fetched"
        self._says = json.loads((Path(model_size_or_path) / "model.bin").read_text(encoding="utf-8"))
        if "error" in self._says:
            raise RuntimeError(self._says["error"])

    def transcribe(
        self,
        audio,
        language: str | None = None,
        temperature: float | list[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        condition_on_previous_text: bool = True,
    ):
        """The lines in equal parts of the sound, lazily as the real one, and what is known of the sound."""
        assert temperature == 0.0, "what is drawn at random depends on what was heard before"
        duration_s = len(audio) / 16_000
        return self._segments(duration_s), SimpleNamespace(language=language or self._says["language"])

    def _segments(self, duration_s: float) -> Iterator[SimpleNamespace]:
        lines = self._says["lines"]
        for number, text in enumerate(lines):
            if self._says.get("crash"):
                os._exit(11)
            time.sleep(self._says.get("seconds", 0.0))
            start_s, end_s = (duration_s * part / len(lines) for part in (number, number + 1))
            yield SimpleNamespace(start=start_s, end=end_s, text=f" {text}")
