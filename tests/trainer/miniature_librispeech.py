# SPDX-License-Identifier: GPL-3.0-or-later
"""A miniature LibriSpeech in the published layout: real speech from ../shared/data if it exists, else from the demo.

    texts = write_librispeech(folder, subsets=…, speakers=…, utterances=…)

The folder then is LibriSpeech's own ("LibriSpeech/", with README.TXT and subsets). Everything is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

from wav2sem_blender.assets import ASSETS

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "librispeech_4_aligned"
RATE_HZ = 16_000
SIDE_FILES = ("README.TXT", "LICENSE.TXT", "BOOKS.TXT", "CHAPTERS.TXT", "SPEAKERS.TXT")
WORDS = "THE SHIP SHEEP SET OFF OFTEN WHITE WIDE HORSE HOUSE IN A NEVER ENDING FIELD OF FILLED BOTTLES".split()


def write_librispeech(
    folder: Path,
    *,
    subsets: Sequence[str] = ("train-clean-100", "dev-clean"),
    speakers: int = 2,
    chapters: int = 1,
    utterances: int = 3,
    longest_s: float = 2.0,
) -> dict[str, str]:
    """Write it; recordings are 0.5 s to `longest_s` long. Returns utterance name -> text as in the transcripts."""
    rng = np.random.default_rng(0)
    clips = _clips()
    texts: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIDE_FILES:
        (folder / name).write_text("; a miniature\n")
    for number, subset in enumerate(subsets):
        for speaker in range(speakers):
            for chapter in range(chapters):
                spoken, read = str(100 * (number + 1) + speaker), str(1000 + chapter)
                place = folder / subset / spoken / read
                place.mkdir(parents=True, exist_ok=True)
                lines = []
                for i in range(utterances):
                    name = f"{spoken}-{read}-{i:04d}"
                    samples_S, text = next(clips)
                    n_samples = int(rng.uniform(0.5, longest_s) * RATE_HZ)
                    first = int(rng.integers(max(1, len(samples_S) - n_samples)))
                    sf.write(place / f"{name}.flac", samples_S[first : first + n_samples], RATE_HZ)
                    texts[name] = text or " ".join(rng.choice(WORDS, 5))
                    lines.append(f"{name} {texts[name]}\n")
                (place / f"{spoken}-{read}.trans.txt").write_text("".join(lines))
    return texts


def _clips() -> Iterator[tuple[np.ndarray, str]]:
    """Recordings (S,) and their texts ("" for the demo), repeated."""
    lines = (SHARED / "transcripts.tsv").read_text().splitlines() if SHARED.is_dir() else []
    told = [line.split("\t") for line in lines if (SHARED / f"{line.split()[0]}.flac").is_file()]
    sources = [(SHARED / f"{name}.flac", " ".join(text.split()[:8])) for name, text, *_ in told]
    while True:
        for path, text in sources or [(ASSETS / "demo_speech.flac", "")]:
            yield sf.read(path, dtype="int16")[0], text
