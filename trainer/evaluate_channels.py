# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate bundled --data work --out work/evaluation --model default`

A model whose channels are ARKit's, run as the extension runs it, on the prepared validation split: errors against the
motion that was held out, and aperture curves of every held-out recording for a lip-sync scorer.

Shapes: T animation frames, K channels, V vertices.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wav2sem_blender.pipeline.infer import SpeechAnimator
from wav2sem_blender.pipeline.motion import Motion

from .checkpoints import write_atomically
from .curves import MotionRecord, MotionStore
from .experiments.evaluation import EvaluateChannels
from .finetune_channels import paired_records, read_basis
from .speech import SAMPLE_RATE_HZ, SpeechStore
from .tables import table


def evaluate_channels(
    config: EvaluateChannels, data: Path, out: Path, model: str, device: str
) -> dict[str, dict[str, float]]:
    """Write results.json and results.md; write OUT/apertures/CORPUS/CLIP.npz (`aperture` in metres, `fps`).

    Per style: `mve_mm`, mean over frames and vertices of the mouth region of the error; `lve_mm`, mean over frames of
    its largest; `rest_mve_mm`, the same for a face that never moves; `aperture_r`, mean over clips of Pearson's r of
    the lip gap with the held-out motion's.
    """
    animator = SpeechAnimator.load(model, device=device)
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    basis_KV3, gap_K = read_basis(data / "basis.npz", animator.folder.config.channels)
    moving_V = np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.002
    truth = {record.name: moved for record, moved in paired_records(speech, motion)}
    rows: dict[str, list[dict[str, float]]] = {}
    for record in tqdm([r for r in speech.records if r.split == "valid"], desc="animate", unit="clip"):
        known = truth.get(record.name)
        style = known.style if known and known.style in animator.folder.config.styles else 0
        predicted = animator.animate(speech.samples(record), SAMPLE_RATE_HZ, style, config.semantic_strength)
        aperture_T = np.maximum(predicted.weights_TK @ gap_K, 0)
        target = out / "apertures" / record.corpus / f"{record.name}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, aperture=aperture_T, fps=predicted.fps)
        if known is not None:
            errors = _errors(predicted, motion, known, basis_KV3[:, moving_V], gap_K)
            rows.setdefault(known.style.split("/")[0], []).append(errors)
    results = {
        style: {"clips": len(some)} | {key: float(np.mean([row[key] for row in some])) for key in some[0]}
        for style, some in rows.items()
    }
    write_atomically(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    region = f"the {int(moving_V.sum())} vertices that a channel moves by more than 2 mm"
    report = _markdown(results, animator, config, region)
    write_atomically(out / "results.md", report.encode())
    print(report)
    return results


def _markdown(
    results: dict[str, dict[str, float]], animator: SpeechAnimator, config: EvaluateChannels, region: str
) -> str:
    folder = animator.folder
    head = [key for row in results.values() for key in row]
    lines = [(style, *(f"{value:.4g}" for value in row.values())) for style, row in results.items()]
    return (
        f"# Prepared speech and motion, valid split: {folder.config.name}\n\n"
        f"{table(('style', *dict.fromkeys(head)), lines)}\n\n"
        f"{folder.config.name}, weights {folder.weights_sha256[:12]}, semantics at {config.semantic_strength:g}; "
        f"millimetres on {region}, mean over frames of a clip, then over clips; lve_mm is the largest distance (no "
        f"square), rest_mve_mm a face that never moves, aperture_r Pearson's r of the lip gap; "
        f"{date.today().isoformat()}.\n"
    )


def _errors(
    predicted: Motion, motion: MotionStore, known: MotionRecord, basis_KV3: np.ndarray, gap_K: np.ndarray
) -> dict[str, float]:
    target_TK = motion.weights(known)
    n_frames = min(len(target_TK), len(predicted.weights_TK))
    target_TK, predicted_TK = target_TK[:n_frames], predicted.weights_TK[:n_frames]
    totals = np.zeros(3)
    for start in range(0, n_frames, 300):  # vertices of a few hundred frames at a time: minutes fit in memory
        piece = slice(start, start + 300)
        error_TV = 1000 * np.linalg.norm(np.tensordot(predicted_TK[piece] - target_TK[piece], basis_KV3, 1), axis=-1)
        rest_TV = 1000 * np.linalg.norm(np.tensordot(target_TK[piece], basis_KV3, 1), axis=-1)
        totals += error_TV.mean(1).sum(), error_TV.max(1).sum(), rest_TV.mean(1).sum()
    gap_T, true_gap_T = predicted_TK @ gap_K, target_TK @ gap_K
    r = np.corrcoef(gap_T, true_gap_T)[0, 1] if gap_T.std() > 0 and true_gap_T.std() > 0 else 0.0
    mve, lve, rest = totals / n_frames
    return {"mve_mm": mve, "lve_mm": lve, "rest_mve_mm": rest, "aperture_r": r}
