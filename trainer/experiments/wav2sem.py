# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain` (Wav2Sem).

`paper` and `released` are the two published recipes, which differ; `fast` is the same model in far fewer updates.
Their --data is LibriSpeech. `bundled` is the bundled model's, on prepared speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wav2sem_blender.errors import UserError

from . import hubert
from .augmentation import Augmentation
from .hubert import TOY_SIZES

BATCHING = ("shuffled", "bucketed", "neighbours")
OPTIMISERS = ("adam", "adamw")
SCHEDULES = ("constant", "halving", "cosine")
PUBLISHED_DROPOUTS = {
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "feat_proj_dropout": 0.1,
    "layerdrop": 0.1,
}


@dataclass(frozen=True, kw_only=True)
class PretrainWav2Sem:
    """Audio into a text model's sentence space.

    Attributes:
        encoder_config: what differs from wav2vec 2.0's base size; see `EncoderConfig`.
        text_model: folder or hub name of a BERT-architecture model. "" is the MiniLM from PyPI (384-d instead of BERT's
            768, so a projection follows the encoder), which also takes the place of a name that no hub answers for;
            run.json names the one that was taken.
        target: "cls" (last hidden state's first token) or "mean" (of the text's own tokens).
        normalise_target: scale targets to length sqrt(E); the published ones are raw.
        contrastive: weight of the term beside L1 that keeps vectors from collapsing onto the mean sentence: the right
            text among the global batch's. 0 is the published loss.
        corpora: subsets to train on, as ("train-clean-100",); () takes every one with a training split.
        augmentation: rooms, noise and bands; None takes recordings as they are.
        batching: "shuffled": `batch` utterances at random, each once an epoch; "bucketed": `batch_s` seconds of like
            lengths, each utterance once an epoch; "neighbours": `batch` of like lengths of one corpus, every corpus as
            often, drawn anew each step.
        batch_s: padded speech of a global batch, in seconds, shared by all processes: 100 s at full size in bf16 took
            7 GB on a CPU.
        epochs, steps: the run's length; one of them is 0.
        longest_s: longer utterances are left out (LibriSpeech's longest is 35 s).
        schedule: "halving" halves the rate every `halve_epochs` epochs; "cosine" warms up for `warmup_steps` first.
        clip: longest gradient; None does not clip.
        fused: one kernel for the optimiser: the same update to rounding, several times as fast on a CPU.
        published_init: torch's default weights, as the released code starts from, instead of wav2vec 2.0's own.
        valid_clips: at most so many held-out utterances a subset are listened to, every `validate_every` steps (a
            multiple of 50; 0: at the end only).
    """

    encoder_config: Mapping[str, Any]
    text_model: str = ""
    target: str = "cls"
    normalise_target: bool = False
    contrastive: float = 0.0
    corpora: tuple[str, ...] = ()
    augmentation: Augmentation | None = None
    batching: str = "shuffled"
    batch: int = 1
    batch_s: float = 0.0
    epochs: int = 0
    steps: int = 0
    longest_s: float = 40.0
    optimiser: str = "adamw"
    peak_lr: float
    weight_decay: float = 0.0
    schedule: str = "constant"
    halve_epochs: int = 20
    warmup_steps: int = 0
    clip: float | None = None
    fused: bool = False
    published_init: bool = False
    valid_clips: int = 200
    validate_every: int = 0
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        choices = (
            ("batching", BATCHING),
            ("optimiser", OPTIMISERS),
            ("schedule", SCHEDULES),
            ("target", ("cls", "mean")),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise UserError(
                    "{name} {getattr!r}: known are {known}",
                    name=name,
                    getattr=getattr(self, name),
                    known=", ".join(known),
                )
        if (self.epochs > 0) == (self.steps > 0) or (self.epochs and self.batching == "neighbours"):
            raise UserError("give the length as epochs or as steps, not both; neighbours are drawn in steps")
        if (self.batch_s > 0) != (self.batching == "bucketed") or self.batch < 1:
            raise UserError(
                "bucketed batches have batch_s (seconds of speech), others batch (utterances, at least 1)",
            )


def paper() -> PretrainWav2Sem:
    """The paper's text: 8 heads, pre-norm, Adam 1e-4, one utterance an update, 200 epochs, CLS."""
    from wav2sem_blender.pipeline.nn.wav2sem import PAPER

    return PretrainWav2Sem(
        encoder_config=PAPER | PUBLISHED_DROPOUTS,
        text_model="bert-base-uncased",
        optimiser="adam",
        peak_lr=1e-4,
        epochs=200,
        published_init=True,
        validate_every=5000,
    )


def paper_mean() -> PretrainWav2Sem:
    """`paper` with the mean of tokens as target, its variant m."""
    return replace(paper(), target="mean")


def released() -> PretrainWav2Sem:
    """The released code: 12 heads, post-norm, AdamW 1e-5 halved every 20 epochs, one utterance an update, CLS."""
    from wav2sem_blender.pipeline.nn.wav2sem import RELEASED

    return replace(
        paper(),
        encoder_config=RELEASED | PUBLISHED_DROPOUTS,
        optimiser="adamw",
        peak_lr=1e-5,
        weight_decay=0.01,
        schedule="halving",
    )


def fast() -> PretrainWav2Sem:
    """The released model in large batches of like lengths, bf16, with a contrastive term; no dropout but LayerDrop.

    Few passes over much speech do not overfit, and dropout is what a CPU's step spends most on after the products.
    """
    dropouts = dict.fromkeys(PUBLISHED_DROPOUTS, 0.0) | {"layerdrop": 0.1}
    return replace(
        released(),
        encoder_config=dict(released().encoder_config) | dropouts,
        contrastive=0.2,
        batching="bucketed",
        batch_s=100.0,
        epochs=40,
        peak_lr=2e-4,
        schedule="cosine",
        warmup_steps=2000,
        clip=1.0,
        fused=True,
        published_init=False,
        precision="bf16",
    )


def smoke() -> PretrainWav2Sem:
    """A few steps of `fast` at toy size."""
    return replace(
        fast(),
        encoder_config=dict(fast().encoder_config) | TOY_SIZES,
        text_model="",
        batch_s=20.0,
        epochs=0,
        steps=3,
        warmup_steps=1,
        valid_clips=4,
        validate_every=0,
        precision="no",
    )


def bundled() -> PretrainWav2Sem:
    """The bundled model's Wav2Sem: the phone encoder's first three layers as a start, MiniLM's mean vectors."""
    return PretrainWav2Sem(
        encoder_config=dict(hubert.bundled().encoder.config) | {"num_hidden_layers": 3},
        corpora=("grid_s1", "librispeech_4_aligned", "librispeech_251", "vctk", "flite"),
        augmentation=replace(hubert.ANYWHERE, codec_chance=0.0),
        target="mean",
        normalise_target=True,
        contrastive=0.2,
        batching="neighbours",
        batch=10,
        steps=700,
        longest_s=16.0,
        peak_lr=6e-4,
        weight_decay=0.01,
        schedule="cosine",
        warmup_steps=50,
        clip=1.0,
        valid_clips=10_000,
        precision="bf16",
        checkpoint_every=500,
    )


def bundled_smoke() -> PretrainWav2Sem:
    """A few steps of `bundled` at toy size."""
    config = hubert.bundled_smoke().encoder.config
    return replace(bundled(), encoder_config=config, corpora=("grid_s1", "vctk"), steps=3, batch=2, warmup_steps=1)


EXPERIMENTS = (paper, paper_mean, released, fast, bundled, smoke, bundled_smoke)
