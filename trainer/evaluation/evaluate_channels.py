# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate bundled --data work --out work/evaluation --model default`

Evaluates a model with ARKit's channels, run as in the extension, on one split of prepared speech and motion: lip sync
against filmed lips and phone times (`lipsync.py`), also under harder conditions (`conditions.py`) and in other
languages (`speech/espeak.py`), and errors against held-out motion.

Shapes: S samples at 16 kHz, T animation frames, K channels, V vertices, L lags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.infer import SpeechAnimator
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.words.transcript import Transcript

from ..motion.curves import MotionStore, paired_records
from ..motion.landmarks import LipGap
from ..motion.shapes import read_basis
from ..speech.phones import Timing
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from .channel_tables import channels_markdown
from .conditions import BABBLE, CLEAN, CONDITIONS, Conditions
from .given_texts import GivenTexts
from .levels import judge_levels
from .lipsync import Counts, correlations, judge, pool_closures, pool_correlations
from .mouth_shape import FILM_FPS, SpokenLips, at_film_rate, judge_shapes, learn_to_read
from .protocols import EvaluateChannels
from .tables import write_results

POOLED = "unseen voices"
READ = "grid_s1"  # whose films teach the lip reader
UNSEEN_VOICES = ("librispeech_4_aligned", "librispeech_251", "vctk")


def evaluate_channels(config: EvaluateChannels, data: Path, out: Path, model: str, device: str) -> dict[str, Any]:
    """Write results.json and results.md; write OUT/apertures/CORPUS/CLIP.npz (`aperture` in metres, `fps`).

    The results: `lip_sync`, scores (`closures`, `correlation`) by corpus and for all unseen voices;
    `conditions`, the same by condition and corpus; `languages`, `closures` by language; and `motion` by style:
    `mve_mm`, the mean error over frames and vertices of the mouth region; `lve_mm`, the mean over frames of the
    largest error; `rest_mve_mm`, the mean error of a motionless face; `aperture_r`, the mean over clips of Pearson's r
    with the held-out lip gap; and `shapes` by corpus, `mouth_shape.judge_shapes` against the films, read by a lip
    reader that learnt from GRID speaker 1's training films (nothing without such films).

    Raises:
        MissingFileError: there is no model, or speech, motion or tracked lips were not prepared.
        UserError: an unknown condition, or a split without recordings.
    """
    animator = SpeechAnimator.load(model, device=device)
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    records = _records(speech, config.split)
    basis_KV3, gap_K = read_basis(data / "basis.npz", animator.folder.config.channels)
    mouth = MouthModel(animator=animator, gap_K=gap_K, semantic_strength=config.semantic_strength)
    moving_V = np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.002
    lips = motion.tracked_lips()
    truth = {record.name: moved for record, moved in paired_records(speech, motion)}
    heard = Conditions(speech, config.split, config.seed)
    asked = _asked(config, records)
    texts = GivenTexts(config.transcripts, [record.text for record in records], config.seed)
    mesh, films = motion.mesh_lips(), {r.name: spoken for r in speech.records if (spoken := _film(r, lips.get(r.name)))}
    shapes: dict[str, list[tuple[SpokenLips, SpokenLips]]] = {}
    judged: list[Judged] = []
    errors: dict[str, list[dict[str, float]]] = {}
    for record in tqdm(records, desc="animate", unit="clip"):
        known, tracked = truth.get(record.name), lips.get(record.name)
        for condition in asked if record.phones or tracked else (CLEAN,):
            samples_S, style = heard.samples(record, condition), known.style if known else None
            predicted = mouth.animate(samples_S, style, texts.of(record.text), "en")
            aperture_T = mouth.aperture(predicted)
            judged.append(_judged(record, condition, aperture_T, predicted.fps, tracked))
            if condition == CLEAN:
                target = out / "apertures" / record.corpus / f"{record.name}.npz"
                target.parent.mkdir(parents=True, exist_ok=True)
                np.savez(target, aperture=aperture_T, fps=predicted.fps)
                if mesh and record.name in films:
                    film = films[record.name]
                    ours_TP2 = at_film_rate(mesh.moved(predicted.weights_TK), predicted.fps, len(film.lips_TP2))
                    shapes.setdefault(record.corpus, []).append((replace(film, lips_TP2=ours_TP2), film))
                if known:
                    row = motion_errors(predicted.weights_TK, motion.weights(known), basis_KV3[:, moving_V], gap_K)
                    errors.setdefault(known.style.split("/")[0], []).append(row)
    voices = [r for r in records if r.phones and not r.corpus.startswith("grid")]
    some = [speech.samples(r) for r in voices[:: -(-len(voices) // max(config.level_clips, 1)) or 1]]
    levels = _levels(mouth, some, config) if config.level_clips and len(some) > 1 else {}
    languages, note = _languages(mouth) if config.languages else ({}, "Not asked for.")
    by_condition = {name: _by_corpus([j for j in judged if j.condition == name]) for name in asked}
    results = {
        "model": {"name": animator.folder.config.name, "weights_sha256": animator.folder.weights_sha256},
        "split": config.split,
        "semantic_strength": config.semantic_strength,
        "transcripts": config.transcripts,
        "date": date.today().isoformat(),
        "lip_sync": by_condition[CLEAN],
        "conditions": by_condition,
        "levels": levels,
        "languages": languages,
        "languages_note": note,
        "shapes": _shapes(speech, films, shapes),
        "motion": {style: {"clips": len(some)} | _means(some) for style, some in errors.items()},
        "motion_vertices": int(moving_V.sum()),
    }
    write_results(out, results, channels_markdown(results))
    return results


def _film(record: SpeechRecord, tracked: LipGap | None) -> SpokenLips | None:
    """A film whose face was never lost, at the reader's rate, with phone times."""
    if tracked is None or tracked.points_TP2 is None or tracked.fps != FILM_FPS or not record.phones:
        return None
    return SpokenLips(lips_TP2=tracked.points_TP2, phones=record.phones)


def _shapes(
    speech: SpeechStore, films: Mapping[str, SpokenLips], pairs: Mapping[str, list[tuple[SpokenLips, SpokenLips]]]
) -> dict[str, dict[str, Any]]:
    """`judge_shapes` by corpus."""
    taught = [films[r.name] for r in speech.records if r.corpus == READ and r.split == "train" and r.name in films]
    if not taught or not pairs:
        return {}
    reader = learn_to_read(taught)
    return {corpus: judge_shapes(reader, some) for corpus, some in pairs.items()}


@dataclass(frozen=True, kw_only=True)
class MouthModel:
    """A loaded model and what each of its channels does to the inner lip gap (K,), in metres."""

    animator: SpeechAnimator
    gap_K: np.ndarray
    semantic_strength: float

    def animate(
        self, samples_S: np.ndarray, style: str | None = None, transcript: Transcript | None = None, language: str = ""
    ) -> Motion:
        """Predict in a style, or in the model's first if it lacks that style (as for unseen speakers)."""
        chosen = style if style in self.animator.folder.config.styles else 0
        return self.animator.animate(
            samples_S, SAMPLE_RATE_HZ, chosen, self.semantic_strength, transcript=transcript, language=language
        )

    def aperture(self, predicted: Motion) -> np.ndarray:
        """Lip opening (T,) in metres; 0 is closed, as at rest."""
        return np.maximum(predicted.weights_TK @ self.gap_K, 0)


def _levels(mouth: MouthModel, clips_S: list[np.ndarray], config: EvaluateChannels) -> dict[str, dict[str, float]]:
    fps = float(mouth.animator.folder.config.host.grid.fps)
    moved = judge_levels(lambda clip_S: mouth.aperture(mouth.animate(clip_S)), clips_S, fps, config.seed)
    return {place: row._asdict() for place, row in moved.items()}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One animated clip: counts if its phones are known, r (L,) if its lips were filmed."""

    corpus: str
    condition: str
    counts: Counts | None
    r_L: np.ndarray | None


def _records(speech: SpeechStore, split: str) -> list[SpeechRecord]:
    records = [record for record in speech.records if record.split == split]
    if not records:
        there = ", ".join(sorted({record.split for record in speech.records}))
        raise UserError(
            "{folder}: no recording of the {split} split, only of: {there}",
            folder=speech.folder,
            split=split,
            there=there,
        )
    return records


def _asked(config: EvaluateChannels, records: list[SpeechRecord]) -> tuple[str, ...]:
    """The conditions, starting with clean, which the others are compared with."""
    unknown = set(config.conditions or ()) - set(CONDITIONS)
    if unknown:
        raise UserError(
            "condition {unknown!r}: choose from {conditions}",
            unknown=min(unknown),
            conditions=", ".join(CONDITIONS),
        )
    if config.conditions is not None:
        return tuple(dict.fromkeys((CLEAN, *config.conditions)))
    alone = len({record.speaker for record in records}) == 1
    return tuple(name for name in CONDITIONS if not (alone and name == BABBLE))


def _judged(record: SpeechRecord, condition: str, aperture_T: np.ndarray, fps: float, tracked: LipGap | None) -> Judged:
    duration_s = record.n_samples / SAMPLE_RATE_HZ
    return Judged(
        corpus=record.corpus,
        condition=condition,
        counts=judge(aperture_T, fps, record.phones, duration_s) if record.phones else None,
        r_L=None if tracked is None else correlations(aperture_T, fps, tracked),
    )


def _by_corpus(judged: list[Judged]) -> dict[str, dict[str, Any]]:
    """Scores by corpus, then for all unseen voices; corpora without a reference are left out."""
    corpora = {corpus: (corpus,) for corpus in dict.fromkeys(one.corpus for one in judged)}
    found = {}
    for name, members in (corpora | {POOLED: UNSEEN_VOICES}).items():
        scores = _scores([one for one in judged if one.corpus in members])
        if scores:
            found[name] = scores
    return found


def _scores(judged: Iterable[Judged]) -> dict[str, Any]:
    some = list(judged)
    counts = [one.counts for one in some if one.counts is not None]
    lags = [one.r_L for one in some if one.r_L is not None]
    scores: dict[str, Any] = {}
    if counts:
        scores["closures"] = asdict(pool_closures(counts))
    if lags:
        scores["correlation"] = asdict(pool_correlations(lags))
    return scores


Spoken = tuple[str, str, np.ndarray, list[Timing]]


def _languages(mouth: MouthModel) -> tuple[dict[str, dict[str, Any]], str]:
    """Closures of synthetic speech by language, or nothing and the reason."""
    from ..speech.espeak import speak_languages

    try:
        return judge_languages(mouth, speak_languages()), ""
    except MissingFileError as error:
        return {}, f"Not measured: {error}."


def judge_languages(mouth: MouthModel, spoken: Iterable[Spoken]) -> dict[str, dict[str, Any]]:
    """Closures by language of (language, name, int16 samples (S,) at 16 kHz, phones)."""
    counts: dict[str, list[Counts]] = {}
    for language, _, samples_S, phones in tqdm(spoken, desc="languages", unit="clip"):
        predicted = mouth.animate(samples_S)
        one = judge(mouth.aperture(predicted), predicted.fps, phones, len(samples_S) / SAMPLE_RATE_HZ)
        counts.setdefault(language, []).append(one)
    return {language: {"closures": asdict(pool_closures(some))} for language, some in counts.items()}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def motion_errors(
    predicted_TK: np.ndarray, target_TK: np.ndarray, basis_KV3: np.ndarray, gap_K: np.ndarray
) -> dict[str, float]:
    """`evaluate_channels`' figures of one clip's motion, over the frames in common."""
    n_frames = min(len(target_TK), len(predicted_TK))
    target_TK, predicted_TK = target_TK[:n_frames], predicted_TK[:n_frames]
    totals = np.zeros(3)
    for start in range(0, n_frames, 300):  # in pieces, so that the vertices of a long clip fit in memory
        piece = slice(start, start + 300)
        error_TV = 1000 * np.linalg.norm(np.tensordot(predicted_TK[piece] - target_TK[piece], basis_KV3, 1), axis=-1)
        rest_TV = 1000 * np.linalg.norm(np.tensordot(target_TK[piece], basis_KV3, 1), axis=-1)
        totals += error_TV.mean(1).sum(), error_TV.max(1).sum(), rest_TV.mean(1).sum()
    gap_T, true_gap_T = predicted_TK @ gap_K, target_TK @ gap_K
    r = np.corrcoef(gap_T, true_gap_T)[0, 1] if gap_T.std() > 0 and true_gap_T.std() > 0 else 0.0
    mve, lve, rest = totals / n_frames
    return {"mve_mm": mve, "lve_mm": lve, "rest_mve_mm": rest, "aperture_r": r}
