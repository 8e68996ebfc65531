# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune bundled_ablation --data work --out OUT --hubert work/hubert --wav2sem work/wav2sem`

Do semantics help the bundled face? The same fusion and decoder are trained with one kind of sentence vector after
another, on the same features, crops and seeds, and judged on held-out clips with the same kind. Only the gain of
"wav2sem" over "constant" and "shuffled" comes from what is said; "text" bounds the gain of a perfect Wav2Sem.

Shapes: T animation frames, D features, E sentence space, K channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wav2sem_blender.files import write_atomically
from wav2sem_blender.pipeline.nn.face_loss import FaceLoss
from wav2sem_blender.pipeline.nn.face_model import FaceModel

from ..evaluation.evaluate_channels import motion_errors
from ..evaluation.lipsync import Counts, judge, pool_closures
from ..evaluation.tables import table
from ..motion.curves import MotionStore, paired_records
from ..motion.shapes import read_basis
from ..runs.run import Run, data_hash
from ..runs.stages import read_sentence_space
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from ..speech.sentences import TextTargets
from .face_recipes import AblateSemantics, FinetuneChannels
from .finetune_channels import (
    MAX_GRADIENT,
    ChannelLearner,
    Example,
    build_model,
    descent,
    draw,
    listen,
    loss_of,
    training_examples,
)

Row = dict[str, float]


class Held(NamedTuple):
    """A held-out clip: its speech, what is heard of it, and its captured motion (T, K), empty where there is none."""

    record: SpeechRecord
    example: Example
    target_TK: np.ndarray


HEADS = {
    "r_grid_s1": "aperture r, known speaker",
    "r_grid_others": "aperture r, other faces",
    "mve_mm": "MVE mm, filmed faces",
    "f1": "closure F1, unseen voices",
    "auc": "AUC, unseen voices",
}


def ablate_semantics(
    config: AblateSemantics, data: Path, run: Run, hubert: Path, wav2sem: Path
) -> dict[str, list[Row]]:
    """Train and judge. Write results.json after every model, where --resume continues, and results.md."""
    face = config.face
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    run.describe(data_sha256=data_hash(speech.files()), hubert=str(hubert), wav2sem=str(wav2sem))
    basis_KV3, gap_K = read_basis(data / "basis.npz", motion.channels)
    model = build_model(face, motion.channels, hubert, wav2sem).to(run.device)
    groups = training_examples(face, model, data, gap_K, run.device)
    held = _held_out(face, model, speech, motion, run.device)
    space = read_sentence_space(wav2sem)
    texts = [e.text for e in (*(e for group in groups for e in group), *(h.example for h in held)) if e.text]
    targets = TextTargets(texts, space["text_model"], space["target"], normalise=space["normalise_target"])
    moving_KV3 = basis_KV3[:, np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.002]
    path = run.folder / "results.json"
    results: dict[str, list[Row]] = json.loads(path.read_text()) if path.is_file() else {}
    for seed in config.seeds:
        for kind in config.semantics:
            done = results.setdefault(kind, [])
            if any(row["seed"] == seed for row in done):
                continue
            given = [_given(kind, group, groups[0], targets, seed) for group in groups]
            told = _given(kind, [h.example for h in held], groups[0], targets, seed)
            learner = _learn(replace(face, seed=seed), model, given, FaceLoss(face, basis_KV3, gap_K), run)
            row = _judge(
                face, learner, [h._replace(example=e) for h, e in zip(held, told, strict=True)], gap_K, moving_KV3
            )
            run.keep()
            done.append({"seed": seed} | row)
            write_atomically(path, (json.dumps(results, indent=1) + "\n").encode())
            run.say(f"{kind}, seed {seed}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    report = _markdown(results)
    write_atomically(run.folder / "results.md", report.encode())
    run.say(report)
    return results


def _held_out(
    face: FinetuneChannels, model: FaceModel, speech: SpeechStore, motion: MotionStore, device: torch.device
) -> list[Held]:
    """Every validation clip as recorded."""
    moved = {record.name: known for record, known in paired_records(speech, motion)}
    held = []
    for record in tqdm([r for r in speech.records if r.split == "valid" and r.phones], desc="held out", unit="clip"):
        features_TD, semantic_E = listen(model, speech.samples(record), device)
        known = moved.get(record.name)
        target_TK = motion.weights(known) if known else np.zeros((0, len(motion.channels)), np.float32)
        style = face.styles.index(known.style) if known and known.style in face.styles else None
        example = Example(
            text=record.text,
            features_TD=features_TD,
            semantic_E=semantic_E,
            targets_NTK=torch.zeros(0),
            only_style=style,
        )
        held.append(Held(record, example, target_TK))
    return held


def _given(
    kind: str, some: Sequence[Example], training: Sequence[Example], targets: TextTargets, seed: int
) -> list[Example]:
    """The same clips with another kind of sentence vector."""
    mean_E = torch.stack([example.semantic_E for example in training]).mean(0)
    others = np.random.default_rng(seed).permutation(len(some))

    def vector(i: int, example: Example) -> Tensor:
        match kind:
            case "none":
                return torch.zeros_like(mean_E)
            case "constant":
                return mean_E
            case "shuffled":
                return some[others[i]].semantic_E
            case "text":
                return targets([example.text])[0] if example.text else mean_E
        return example.semantic_E

    return [replace(example, semantic_E=vector(i, example)) for i, example in enumerate(some)]


def _learn(
    face: FinetuneChannels, model: FaceModel, groups: list[list[Example]], loss_fn: FaceLoss, run: Run
) -> ChannelLearner:
    """A new fusion and decoder; `draw` gives every kind the same crops.

    Without `Run.steps`: a run holds one model and its checkpoints, and this trains many, each from its own seed.
    """
    torch.manual_seed(face.seed)
    fresh = FaceModel(model.config)
    fresh.decoder.criterion = loss_fn
    learner = ChannelLearner(fresh).to(run.device)
    optimiser, schedule = descent(face, learner)
    for step in tqdm(range(face.steps), desc="face", unit="step", disable=not run.is_main):
        crops = draw(groups, face, np.random.default_rng([face.seed, step]))
        loss = loss_of(crops, face, learner, run.device)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), MAX_GRADIENT)
        optimiser.step()
        schedule.step()
    return learner.eval().cpu()


@torch.no_grad()
def _judge(
    face: FinetuneChannels, learner: ChannelLearner, held: Sequence[Held], gap_K: np.ndarray, moving_KV3: np.ndarray
) -> Row:
    """Pearson's r of the lip gap with filmed faces, closures for voices without film, error of filmed mouths."""
    decoder = face.host.decoder({key: value.numpy() for key, value in learner.decoder.state_dict().items()})
    r: dict[str, list[float]] = {}
    errors_mm: list[float] = []
    counts: list[Counts] = []
    for record, example, target_TK in held:
        memory_TM = learner.fusion(example.features_TD[None].float(), example.semantic_E[None, None])[0].numpy()
        weights_TK = decoder.decode(memory_TM, np.eye(len(face.styles))[example.only_style or 0])
        gap_T = np.maximum(weights_TK @ gap_K, 0)
        if n_frames := min(len(target_TK), len(gap_T)):
            true_T = np.maximum(target_TK[:n_frames] @ gap_K, 0)
            r.setdefault(record.corpus, []).append(float(np.corrcoef(gap_T[:n_frames], true_T)[0, 1]))
            errors_mm.append(float(motion_errors(weights_TK, target_TK, moving_KV3, gap_K)["mve_mm"]))
        else:
            counts.append(judge(gap_T, face.host.fps, record.phones or [], record.n_samples / SAMPLE_RATE_HZ))
    scores = pool_closures(counts)
    by_corpus = {f"r_{corpus}": float(np.mean(values)) for corpus, values in r.items()}
    return by_corpus | {"mve_mm": float(np.mean(errors_mm)), "f1": scores.f1, "auc": scores.auc or 0.0}


def summary(results: dict[str, list[Row]]) -> list[list[str]]:
    """A line for each kind of sentence vector: its name, how many seeds, and each figure of `HEADS` over them."""
    return [
        [kind, str(len(rows)), *(_spread([row.get(key, np.nan) for row in rows]) for key in HEADS)]
        for kind, rows in results.items()
    ]


def _markdown(results: dict[str, list[Row]]) -> str:
    return (
        "# What semantics do for the bundled face\n\n"
        f"{table(('F_s', 'seeds', *HEADS.values()), summary(results))}\n\n"
        "Mean and standard deviation over the seeds, validation split; every row was trained and judged with its own "
        "kind of sentence vector.\n"
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"
