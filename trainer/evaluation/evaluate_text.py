# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate joint_text --data ../shared/data --out work/joint_text --model default`

What text adds to sound. A small network of convolutions predicts a filmed speaker's brows, head and lips from the
prosody or from what the bundled model's ear heard, each alone and with the sentence model's vectors of the words while
they are said; and, of many voices, which words are stressed is told from text, from sound and from both.

Every row has the same network; what it is not given is zero. The controls see as much as the text does: "times" has
the words' times alone, which is the mean of all vectors, and "shuffled" the vectors of another sentence at them, in
training too. So text says something where its row beats both. The tracker's brows and pose also move with the mouth.
With the filmed mouth given, text that only tells the mouth's movements says nothing new.

Shapes: B clips, T film frames, D audio features, E text features, H hidden, Y targets, R seeds, N clips.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.infer import SpeechAnimator

from ..speech.token_features import TokenEncoder
from .protocols import EvaluateText
from .stressed_words import stressed_words
from .tables import table, write_results
from .text_clips import N_BROWS, N_MOUTH, TARGETS, UNITS, TextClip, clean_brows, film_clips, held

SOUNDS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "prosody": ("prosody",),
    "ear and prosody": ("prosody", "ear"),
    "prosody and filmed mouth": ("prosody", "mouth"),
}
TEXTS = ("no text", "times", "shuffled", "without context", "in context")
CONTROLS = ("shuffled", "times")
EVENT_QUANTILE = 0.9  # a raised or knitted brow is above this quantile of the training frames
_HIDDEN, _TEXT_HIDDEN, _KERNEL, _DILATIONS = 48, 16, 3, (1, 2, 4, 8)
_BATCH, _RATE, _DECAY, _DROPOUT = 32, 4e-3, 0.02, 0.2
_DRAWS = 2000
_LEAST = 1e-6  # deviation of what does not move


class TextMotionNet(nn.Module):
    """Residual convolutions over time that see 0.6 s to both sides, of audio features and projected text."""

    def __init__(self, n_audio: int, n_text: int, n_targets: int) -> None:
        super().__init__()
        self.audio, self.text = nn.Linear(n_audio, _HIDDEN), nn.Linear(n_text, _TEXT_HIDDEN)
        self.join = nn.Linear(_TEXT_HIDDEN, _HIDDEN)
        self.wide = nn.ModuleList(
            nn.Conv1d(_HIDDEN, _HIDDEN, _KERNEL, padding=_KERNEL // 2 * step, dilation=step) for step in _DILATIONS
        )
        self.mix = nn.ModuleList(nn.Conv1d(_HIDDEN, _HIDDEN, 1) for _ in _DILATIONS)
        self.head, self.drop = nn.Linear(_HIDDEN, n_targets), nn.Dropout(_DROPOUT)

    def forward(self, audio_BTD: Tensor, text_BTE: Tensor) -> Tensor:
        """(B, T, Y)."""
        x_BHT = (self.audio(audio_BTD) + self.join(self.drop(self.text(text_BTE)))).transpose(1, 2)
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x_BHT = x_BHT + mix(self.drop(functional.gelu(wide(x_BHT))))
        return self.head(self.drop(x_BHT.transpose(1, 2)))  # type: ignore[no-any-return]


def evaluate_text(config: EvaluateText, data: Path, out: Path, model: str, device: str) -> dict[str, Any]:
    """Write results.json and results.md.

    `rows`: for each sound and text the explained variance (`ev`, pooled over the split's clips, each about its mean)
    and `r` (mean over clips) of every target: mean and standard deviation over seeds, and for the brows the `auc` of
    frames above the 0.9 quantile. `gains`: what text in context adds to each sound beside each control, with the 95 %
    interval over clips. `stressed`: see `stressed_words`.

    Raises:
        MissingFileError: There is no model or no data.
        UserError: The model does not keep what it hears.
    """
    animator = SpeechAnimator.load(model, device=device)
    if not animator.folder.config.steerable:
        raise UserError("{model} does not tell what it hears; choose the default model", model=model)
    encoder = TokenEncoder(config.text_model)
    clips = film_clips(data, animator, encoder)
    results = {
        "model": {"name": animator.folder.config.name, "weights_sha256": animator.folder.weights_sha256},
        "date": date.today().isoformat(),
        "split": config.split,
        "clips": {split: sum(clip.split == split for clip in clips) for split in ("train", "valid", "test")},
        "signal": brow_signal([clip for clip in clips if clip.split == "train"]),
        **film_rows(config, clips),
        "stressed": stressed_words(config, data, animator, encoder),
    }
    write_results(out, results, _markdown(results))
    return results


def brow_signal(clips: Sequence[TextClip]) -> dict[str, float]:
    """How much of the brows tracked in training clips is brows.

    Deviations in mm, r of the raise with the lips' opening, r of the two sides (as tracked, and without what the
    confounders explain), and the largest cleaned raise.
    """
    cleaned = clean_brows(clips)
    moved = np.concatenate([clip.face.moved_TY for clip in clips])
    own = np.concatenate([cleaned[clip.name] for clip in clips])
    sides = np.concatenate([clip.face.brows_T2 for clip in clips])
    confounders = np.concatenate([clip.face.confounders_TX for clip in clips])
    rest = sides - confounders @ np.linalg.lstsq(confounders, sides, rcond=None)[0]
    return {
        "sd_mm": float(moved[:, 0].std()),
        "cleaned_sd_mm": float(own[:, 0].std()),
        "r_lips": float(np.corrcoef(moved[:, 0], moved[:, TARGETS.index("lip opening")])[0, 1]),
        "r_sides": float(np.corrcoef(sides.T)[0, 1]),
        "cleaned_r_sides": float(np.corrcoef(rest.T)[0, 1]),
        "largest_mm": float(own[:, 0].max()),
    }


def film_rows(config: EvaluateText, clips: Sequence[TextClip]) -> dict[str, Any]:
    """`rows` and `gains` of `evaluate_text`."""
    goals = clean_brows(clips)
    goals = {name: goal_TY - goal_TY.mean(0) for name, goal_TY in goals.items()}
    learnt = [clip for clip in clips if clip.split == "train"]
    pooled_TY = np.concatenate([goals[clip.name] for clip in learnt])
    events_Y, scale_Y = np.quantile(pooled_TY, EVENT_QUANTILE, axis=0), pooled_TY.std(0).clip(_LEAST)
    judged = [clip for clip in clips if clip.split == config.split]
    truth = [goals[clip.name] for clip in judged]
    rows: list[dict[str, Any]] = []
    errors: dict[tuple[str, str], np.ndarray] = {}
    kinds = [pair for pair in itertools.product(SOUNDS, TEXTS) if pair != ("nothing", "no text")]
    for sound, text in tqdm(kinds, desc="rows", unit="row"):
        told = [
            _predict(config, clips, _inputs(clips, sound, text, seed), goals, scale_Y, seed) for seed in config.seeds
        ]
        scores = [_scores(one, truth, events_Y) for one in told]
        errors[sound, text] = np.mean([_squared(one, truth) for one in told], axis=0)
        rows.append(
            {"sound": sound, "text": text}
            | {key: [float(np.mean(v)) for v in zip(*(s[key] for s in scores), strict=True)] for key in scores[0]}
            | {
                f"{key}_sd": [float(np.std(v)) for v in zip(*(s[key] for s in scores), strict=True)]
                for key in scores[0]
            }
        )
    total_NY = np.stack([np.square(goal_TY).sum(0) for goal_TY in truth]).clip(_LEAST)
    gains = [
        {"sound": sound, "over": control, "ev": _gain(errors[sound, control], errors[sound, TEXTS[-1]], total_NY)}
        for sound in SOUNDS
        for control in (*CONTROLS, TEXTS[0])
        if (sound, control) in errors
    ]
    return {"rows": rows, "gains": gains}


def _inputs(clips: Sequence[TextClip], sound: str, text: str, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Audio (T, D) and text (T, 1 + E) of every clip, standardised by the training clips."""
    audio = [
        np.concatenate([part if name in SOUNDS[sound] else 0 * part for name, part in parts.items()], 1)
        for parts in (
            {"prosody": c.prosody_TP, "ear": c.ear_TM, "mouth": c.face.confounders_TX[:, :N_MOUTH]} for c in clips
        )
    ]
    learnt = np.concatenate([audio_TD for audio_TD, clip in zip(audio, clips, strict=True) if clip.split == "train"])
    mean_D, sd_D = learnt.mean(0), learnt.std(0).clip(_LEAST)
    kind = "without context" if text == "without context" else "in context"
    vectors = [clip.vectors[kind] for clip in clips]
    known = np.concatenate(
        [vectors_WE for vectors_WE, clip in zip(vectors, clips, strict=True) if clip.split == "train"]
    )
    mean_E, sd = known.mean(0), known.std()
    order = np.arange(len(clips))
    if text == "shuffled":
        rng = np.random.default_rng(seed)
        for split in ("train", "valid", "test"):
            own = rng.permutation(np.flatnonzero([clip.split == split for clip in clips]))
            order[own] = np.roll(own, 1)
    found = []
    for i, clip in enumerate(clips):
        audio_TD = (audio[i] - mean_D) / sd_D
        other_WE = (vectors[order[i]] - mean_E) / sd
        own_WE = other_WE[np.arange(len(clip.words)) % len(other_WE)]
        text_TE = held(own_WE, clip.words, clip.face.fps, len(audio_TD))
        if text == "no text":
            text_TE[:] = 0
        elif text == "times":
            text_TE[:, 1:] = 0
        found.append((audio_TD.astype(np.float32), text_TE.astype(np.float32)))
    return found


def _predict(
    config: EvaluateText,
    clips: Sequence[TextClip],
    inputs: Sequence[tuple[np.ndarray, np.ndarray]],
    goals: dict[str, np.ndarray],
    scale_Y: np.ndarray,
    seed: int,
) -> list[np.ndarray]:
    """Predictions (T, Y) of the judged clips; each target's are of the epoch that was best for it on "valid"."""
    torch.manual_seed(seed)
    n_frames = max(len(audio_TD) for audio_TD, _ in inputs)

    def padded(arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([np.pad(a, ((0, n_frames - len(a)), (0, 0))) for a in arrays])).float()

    audio, text = (padded([each[k] for each in inputs]) for k in (0, 1))
    goal = padded([goals[clip.name] / scale_Y for clip in clips])
    there = padded([np.ones((len(goals[clip.name]), 1)) for clip in clips])
    rows = {
        split: torch.tensor([i for i, clip in enumerate(clips) if clip.split == split])
        for split in ("train", "valid", config.split)
    }
    net = TextMotionNet(audio.shape[2], text.shape[2], goal.shape[2])
    optimiser = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    n_steps = config.epochs * -(-len(rows["train"]) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=n_steps)
    best_Y = torch.full((goal.shape[2],), torch.inf)
    kept = torch.zeros(len(rows[config.split]), n_frames, goal.shape[2])
    for _ in range(config.epochs):
        net.train()
        for some in rows["train"][torch.randperm(len(rows["train"]))].split(_BATCH):
            error = (net(audio[some], text[some]) - goal[some]).square() * there[some]
            optimiser.zero_grad()
            (error.sum() / there[some].sum() / goal.shape[2]).backward()
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            found = {split: net(audio[rows[split]], text[rows[split]]) for split in ("valid", config.split)}
        valid = rows["valid"]
        error_Y = ((found["valid"] - goal[valid]).square() * there[valid]).sum((0, 1))
        better_Y = error_Y < best_Y
        best_Y = torch.where(better_Y, error_Y, best_Y)
        kept[..., better_Y] = found[config.split][..., better_Y]
    lengths = [len(goals[clips[i].name]) for i in rows[config.split]]
    told = [kept[k, :n].numpy() * scale_Y for k, n in enumerate(lengths)]
    return [one_TY - one_TY.mean(0) for one_TY in told]


def _squared(told: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> np.ndarray:
    """Squared errors by clip (N, Y)."""
    return np.stack([np.square(a - b).sum(0) for a, b in zip(told, truth, strict=True)])


def _scores(told: Sequence[np.ndarray], truth: Sequence[np.ndarray], events_Y: np.ndarray) -> dict[str, list[float]]:
    from sklearn.metrics import roc_auc_score

    total_Y = np.sum([np.square(goal_TY).sum(0) for goal_TY in truth], axis=0).clip(_LEAST)
    with np.errstate(invalid="ignore"):  # a prediction that does not move has no correlation
        r = [
            [np.corrcoef(a[:, y], b[:, y])[0, 1] for y in range(len(TARGETS))] for a, b in zip(told, truth, strict=True)
        ]
    every, true = np.concatenate(told), np.concatenate(truth)
    return {
        "ev": (1 - _squared(told, truth).sum(0) / total_Y).tolist(),
        "r": np.nanmean(r, axis=0).tolist(),
        "auc": [float(roc_auc_score(true[:, y] > events_Y[y], every[:, y])) for y in range(N_BROWS)],
    }


def _gain(without_NY: np.ndarray, with_NY: np.ndarray, total_NY: np.ndarray) -> list[list[float]]:
    """For each target the difference of the explained variances, and its 2.5 and 97.5 percentiles over clips."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(total_NY), size=(_DRAWS, len(total_NY)))
    drawn = (without_NY - with_NY)[draws].sum(1) / total_NY[draws].sum(1)
    mean_Y = (without_NY - with_NY).sum(0) / total_NY.sum(0)
    return np.stack([mean_Y, *np.quantile(drawn, (0.025, 0.975), axis=0)], 1).tolist()  # type: ignore[no-any-return]


def _markdown(results: dict[str, Any]) -> str:
    def cells(row: dict[str, Any], key: str) -> list[str]:
        return [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(row[key], row[f"{key}_sd"], strict=True)]

    def named(key: str) -> list[list[str]]:
        return [[row["sound"], row["text"], *cells(row, key)] for row in results["rows"]]

    gains = [
        [row["sound"], row["over"], *(_with_interval(each, "+") for each in row["ev"])] for row in results["gains"]
    ]
    stressed = results["stressed"]
    words = [
        [row["sound"], row["text"], _with_interval(row["auc"]), _with_interval(row["gain"], "+")]
        for row in stressed["rows"]
    ]
    targets = ", ".join(f"{name} in {unit}" for name, unit in zip(TARGETS, UNITS, strict=True))
    return (
        f"# Text beside sound: {results['model']['name']}, {results['split']} split\n\n"
        f"GRID speaker 1, clips: {results['clips']}. Targets: {targets}.\n\n"
        f"Tracked brows: {', '.join(f'{key} {value:.2f}' for key, value in results['signal'].items())}.\n\n"
        f"Explained variance, mean and deviation over seeds:\n\n{table(('sound', 'text', *TARGETS), named('ev'))}\n\n"
        f"r, mean over clips:\n\n{table(('sound', 'text', *TARGETS), named('r'))}\n\n"
        f"AUC of frames above the {EVENT_QUANTILE:g} quantile:\n\n"
        f"{table(('sound', 'text', *TARGETS[:N_BROWS]), named('auc'))}\n\n"
        "Explained variance that text in context adds, 95 % over clips:\n\n"
        f"{table(('sound', 'over', *TARGETS), gains)}\n\n"
        f"Which of {stressed['words']} words of {stressed['recordings']} recordings are stressed "
        f"({stressed['share']:.0%} are): AUC, and what is more than by place and length, 95 % over recordings:\n\n"
        f"{table(('sound', 'text', 'AUC', 'more'), words)}\n"
    )


def _with_interval(values: Sequence[float], sign: str = "") -> str:
    middle, low, high = (f"{value:{sign}.3f}" for value in values)
    return f"{middle} ({low}, {high})"
