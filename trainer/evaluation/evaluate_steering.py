# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate steering --data work --out work/steering --model default`

Does the mouth follow forced phones: in prepared recordings of voices that it never heard, phones are exchanged, and the
mouth is measured where they are and beside them.

Shapes: T animation frames.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.infer import SpeechAnimator, style_weights
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import SILENCE
from wav2sem_blender.pipeline.steering import FADE_S, Steering
from wav2sem_blender.pipeline.visemes import MEASURE_NAMES, measured
from wav2sem_blender.pipeline.words.track import Phone, Track

from ..speech.phones import BILABIALS, Timing
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechStore
from .lipsync import Counts, judge, pool_closures
from .protocols import EvaluateSteering
from .tables import table, write_results

LEAST_S = 0.06
CLOSED_MM = 0.3
OPENING, WIDTH = MEASURE_NAMES.index("opening"), MEASURE_NAMES.index("width")
HEADS = ("forced", "over", "clips' phones", "measure", "before", "after", "as wanted")


class _Clip:
    """A recording as it was heard, and its motion with a track."""

    def __init__(self, animator: SpeechAnimator, steering: Steering, samples_S: np.ndarray, style: str | int) -> None:
        self.heard = animator.animate(samples_S, SAMPLE_RATE_HZ, style)
        self._steering = steering
        self._style_N = style_weights(style, animator.folder.config.styles)

    def motion(self, *phones: Phone) -> np.ndarray:
        """The weights (T, K) with forced phones."""
        heard = self.heard
        assert heard.memory_RM is not None and heard.phones is not None
        return self._steering.weights(heard.memory_RM, heard.phones, Track(phones=phones), self._style_N)

    def measured(self, weights_TK: np.ndarray) -> np.ndarray:
        """The mouth's measures in mm."""
        motion = Motion(weights_TK=weights_TK, channels=self.heard.channels, fps=self.heard.fps)
        return measured(motion)


def evaluate_steering(config: EvaluateSteering, data: Path, out: Path, model: str, device: str) -> dict[str, Any]:
    """Write results.json and results.md.

    `exchanges`: for each exchange how many, the measure in mm before and after (median), and the share that is as
    wanted. `beside_mm`: the largest change of the opening further than the fade from an edit. `closures`: F1 of p, b
    and m as heard, and with all phones forced at the times by which they are judged.

    Raises:
        MissingFileError: There is no model, or speech was not prepared.
        UserError: The model follows no track, or the split has no unseen voices.
    """
    animator = SpeechAnimator.load(model, device=device)
    steering = Steering(animator.folder)
    speech = SpeechStore(data / "speech")
    records = [r for r in speech.records if r.split == config.split and r.phones and not r.corpus.startswith("grid")]
    if not records:
        raise UserError("{folder}: no unseen voice in the {split} split", folder=data, split=config.split)
    rng = np.random.default_rng(config.seed)
    chosen = [records[i] for i in rng.permutation(len(records))[: config.clips]]
    rows: dict[tuple[str, str], list[tuple[float, float, bool]]] = {}
    beside_mm: list[float] = []
    counts: dict[str, list[Counts]] = {"heard": [], "forced": []}
    for record in tqdm(chosen, desc="force", unit="clip"):
        clip = _Clip(animator, steering, speech.samples(record), config.style)
        before_TM = clip.measured(clip.motion())
        duration_s, fps = record.n_samples / SAMPLE_RATE_HZ, clip.heard.fps
        phones: list[Timing] = [timing for timing in record.phones or [] if timing[2] > timing[1]]
        said = [(name, start, end) for name, start, end in phones if name != SILENCE and end - start > LEAST_S]
        for name, start_s, end_s in said:
            for forced, over, column, wanted in EXCHANGES:
                if name in over and rng.random() < config.share:
                    after_TM = clip.measured(clip.motion(Phone(forced, start_s, end_s)))
                    inside = slice(round(start_s * fps), round(end_s * fps) + 1)
                    if inside.start < len(after_TM):
                        before, after = wanted(before_TM[inside, column]), wanted(after_TM[inside, column])
                        rows.setdefault((forced, " ".join(over)), []).append((*_as_wanted(forced, before, after),))
                    far = np.ones(len(after_TM), bool)
                    far[max(0, round((start_s - FADE_S) * fps)) : round((end_s + FADE_S) * fps) + 1] = False
                    beside_mm.append(float(np.abs(after_TM - before_TM)[far, OPENING].max(initial=0)))
        everything = [Phone(name, start, end) for name, start, end in phones if name != SILENCE]
        for kind, some_TM in (("heard", before_TM), ("forced", clip.measured(clip.motion(*everything)))):
            opening_T = np.maximum(some_TM[:, OPENING], 0) / 1000
            counts[kind].append(judge(opening_T, fps, record.phones or [], duration_s))
    results = {
        "model": {"name": animator.folder.config.name, "weights_sha256": animator.folder.weights_sha256},
        "split": config.split,
        "style": config.style,
        "date": date.today().isoformat(),
        "clips": len(chosen),
        "exchanges": [_row(*key, some) for key, some in rows.items()],
        "beside_mm": float(np.percentile(beside_mm, 99)) if beside_mm else 0.0,
        "closures": {kind: pool_closures(some).f1 for kind, some in counts.items()},
    }
    write_results(out, results, _markdown(results))
    return results


EXCHANGES = (
    ("UW", ("IY", "IH", "EY"), WIDTH, np.min),
    ("IY", ("UW", "W", "OW"), WIDTH, np.max),
    ("P", ("AA", "AE", "AH", "EH", "IY", "S", "T", "K"), OPENING, np.min),
    ("AA", BILABIALS, OPENING, np.max),
)
"""A forced phone, those that it replaces, the measure, and what of it counts in the phone's time."""


def _as_wanted(forced: str, before: float, after: float) -> tuple[float, float, bool]:
    change = after - before
    wanted = {"UW": change < 0, "IY": change > 0, "P": after < CLOSED_MM, "AA": change > 1}[forced]
    return float(before), float(after), bool(wanted)


def _row(forced: str, over: str, some: list[tuple[float, float, bool]]) -> dict[str, Any]:
    before, after, wanted = (np.array(column, float) for column in zip(*some, strict=True))
    return {
        "forced": forced,
        "over": over,
        "n": len(some),
        "measure": "width" if forced in ("UW", "IY") else "opening",
        "before_mm": float(np.median(before)),
        "after_mm": float(np.median(after)),
        "change_mm": float(np.median(after - before)),
        "as_wanted": float(wanted.mean()),
    }


def _markdown(results: dict[str, Any]) -> str:
    rows = [
        [
            row["forced"],
            row["over"],
            str(row["n"]),
            f"{row['measure']}, mm",
            f"{row['before_mm']:.1f}",
            f"{row['after_mm']:.1f}",
            f"{row['as_wanted']:.2f}",
        ]
        for row in results["exchanges"]
    ]
    closures = results["closures"]
    return (
        f"# Forced phones: {results['model']['name']}, {results['split']} split\n\n"
        f"{table(HEADS, rows)}\n\n"
        f"Medians over {results['clips']} clips of unseen voices. Beyond {1000 * FADE_S:g} ms from an edit the opening "
        f"changes by {results['beside_mm']:.2f} mm at most (99th percentile), before it is faded out.\n\n"
        f"Closure F1 as heard {closures['heard']:.3f}; with all phones forced, at the times by which they are judged, "
        f"{closures['forced']:.3f}.\n"
    )
