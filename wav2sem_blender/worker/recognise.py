# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that writes down what is said: `boot.py --run worker.recognise AUDIO MODEL DEVICE LANGUAGE`.

It runs in a Python with faster-whisper, which may be another one than the worker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import Text
from . import environment
from .child import tell

# Where each part begins on the progress bar.
_AUDIO, _WORDS = 0.2, 0.3


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """What is said: `text`, a line for each of the recogniser's; its `language`, or ""; and the number of `words`.

    Raises:
        UserError: A library is missing, the folder is no model, or the recording cannot be read.
    """
    environment.check_modules()
    from ..pipeline.audio import Speech
    from ..pipeline.recognise import Recogniser

    audio, model, device, language = arguments
    tell(0.0, Text("Loading the Recogniser"))
    recogniser = Recogniser(Path(model), device)

    def progress(stage: str, fraction: float) -> None:
        if stage == "audio":
            tell(_AUDIO + (_WORDS - _AUDIO) * fraction, Text("Reading the Audio"))
        else:
            tell(_WORDS + (1 - _WORDS) * fraction, Text("Recognising Words"))

    with Speech.from_file(audio, progress=progress) as speech:
        progress("words", 0.0)
        found = recogniser.recognise(speech, language, progress)
    if found is None:
        return {"text": "", "language": "", "words": 0}
    return {"text": found.text, "language": found.language, "words": len(found.transcript.words)}
