# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate prompts --data FOLDER --out work/prompts --model default`

How well a channel model closes its lips for real voices in other languages (`datasets/prompts.py`): `lipsync.py` scores
against aligned phones, and `prompt_times.py` says how reliable these are. English is measured twice: aligned like the
others, and with the dictionary's pronunciations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import atomic_path
from wav2sem_blender.pipeline.infer import SpeechAnimator

from ..datasets.prompts import list_prompts
from ..motion.shapes import flame_opening
from ..speech.align import Aligner
from ..speech.phones import Timing
from ..speech.prepared import SAMPLE_RATE_HZ
from .channel_tables import prompts_markdown
from .evaluate_channels import MouthModel
from .given_texts import GivenTexts
from .lipsync import judge, pool_closures
from .prompt_times import TimedPrompt, timed_prompts
from .protocols import EvaluatePrompts
from .tables import write_results

BY_DICTIONARY = "en, by dictionary"
_DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))


def evaluate_prompts(config: EvaluatePrompts, data: Path, out: Path, model: str, device: str) -> dict[str, Any]:
    """Write results.json and results.md; lip openings in OUT/apertures that the same weights made are reused.

    The results, by language: `speaker`, `closures` (scores), `alignment` (`timed_prompts`' figures).

    Raises:
        MissingFileError: no prompts, no model, no espeak-ng or no ffmpeg.
        UserError: a model without a basis.
    """
    spoken = list_prompts(data, config.shortest_s, config.longest_s)
    texts = GivenTexts(config.transcripts, [one.text for some in spoken.values() for one in some], config.seed)
    opening = _opening(config, model, out, device, texts)
    languages: dict[str, dict[str, Any]] = {}
    for language, prompts in spoken.items():
        clips, figures = timed_prompts(prompts[: config.max_clips], config)
        curves = [opening(clip) for clip in tqdm(clips, desc=language, unit="clip")]
        row = {"speaker": prompts[0].speaker}
        languages[language] = row | _closures(clips, curves, [clip.phones for clip in clips]) | {"alignment": figures}
        if language == "en":
            languages[BY_DICTIONARY] = row | _closures(clips, curves, _by_dictionary(clips))
    results = {"model": model, "experiment": asdict(config), "date": date.today().isoformat(), "languages": languages}
    write_results(out, results, prompts_markdown(results))
    return results


_Opening = tuple[np.ndarray, float]


def _opening(
    config: EvaluatePrompts, model: str, out: Path, device: str, texts: GivenTexts
) -> Callable[[TimedPrompt], _Opening]:
    """A function from a clip to the model's lip opening (T,) and frame rate."""
    animator = SpeechAnimator.load(model, device=device)
    basis_KV3 = animator.folder.basis()
    if basis_KV3 is None:
        raise UserError("{model}: has no basis, so its lip opening is unknown", model=model)
    mouth = MouthModel(animator=animator, gap_K=flame_opening(basis_KV3), semantic_strength=config.semantic_strength)
    made_by = f"{animator.folder.weights_sha256[:12]}_{config.semantic_strength:g}_{config.transcripts}"

    def opening(clip: TimedPrompt) -> _Opening:
        path = out / "apertures" / made_by / clip.prompt.speaker / f"{clip.prompt.name}.npz"
        if not path.is_file():
            language = clip.prompt.language
            predicted = mouth.animate(
                clip.samples_S, transcript=texts.of(clip.prompt.text, language), language=language
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as whole:
                np.savez(whole, aperture=mouth.aperture(predicted), fps=predicted.fps)
        with np.load(path) as file:
            return file["aperture"], float(file["fps"])

    return opening


def _closures(
    clips: list[TimedPrompt], curves: list[_Opening], phones: list[list[Timing] | None] | list[list[Timing]]
) -> dict[str, Any]:
    """Scores of the clips that have phones."""
    counts = [
        judge(*curve, times, len(clip.samples_S) / SAMPLE_RATE_HZ)
        for clip, curve, times in zip(clips, curves, phones, strict=True)
        if times
    ]
    return {"closures": asdict(pool_closures(counts))}


def _by_dictionary(clips: list[TimedPrompt]) -> list[list[Timing] | None]:
    """English phones, aligned as for training."""
    aligner = Aligner()
    spelt = (re.sub(r"\d", lambda digit: f" {_DIGITS[digit[0]]} ", clip.prompt.text.lower()) for clip in clips)
    return [
        aligner(clip.samples_S, " ".join(re.findall(r"[a-z']+", text))) for clip, text in zip(clips, spelt, strict=True)
    ]
