# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loops' configurations. No torch here: `--help` imports this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import EncoderConfig

from ..speech.augmentation import Augmentation

BATCHING = ("shuffled", "bucketed", "neighbours")
OPTIMISERS = ("adam", "adamw")
SCHEDULES = ("constant", "halving", "cosine")


@dataclass(frozen=True, kw_only=True)
class MaskedClusters:
    """HuBERT's task, which needs no transcripts: predict the k-means cluster of every masked frame, at 50 Hz.

    Attributes:
        source: "mfcc" (first iteration) or "features" (second: layer `layer` of the run that --hubert names).
        fit_share: share of the recordings (0..1) that the clusters are fitted to; all recordings are labelled.
        kmeans_batch: frames per step of mini-batch k-means, which ends after `kmeans_max_iter` passes or
            `kmeans_patience` steps without improvement. The best of `kmeans_starts` k-means++ initialisations is taken.
        batch_s: speech of one update (s), over all processes and micro-batches. Published: 32 GPUs x 87.5 s.
        crop_s: recordings shorter than the first value are left out, longer than the second are cropped at random (s).
        mask_share: share of masked frames if spans did not overlap (they may); a span has `mask_frames`.
        head_dim, temperature: logits are cosines to label embeddings of `head_dim`, over `temperature`.
        feature_penalty: weight of the convolutions' mean square, beside the mean cross-entropy of masked frames.
        feature_gradient: factor on the gradient that reaches the convolutions.
        normalise: zero mean and unit variance per crop; off as published. Face models normalise, so switch it on for
            their encoders.
    """

    source: str
    n_clusters: int
    layer: int = 6
    fit_share: float = 1.0
    kmeans_batch: int = 10_000
    kmeans_max_iter: int = 100
    kmeans_patience: int = 100
    kmeans_starts: int = 20
    batch_s: float = 32 * 87.5
    crop_s: tuple[float, float] = (2.0, 15.625)
    mask_share: float = 0.8
    mask_frames: int = 10
    head_dim: int = 256
    temperature: float = 0.1
    feature_penalty: float = 10.0
    feature_gradient: float = 0.1
    normalise: bool = False


@dataclass(frozen=True, kw_only=True)
class MaskedPhones:
    """Predict aligned phones at every animation frame, masked or not.

    `mask_chance` is the share of frames that start a masked span of `mask_frames`; `batch` crops of one random length
    within `crop_s` (s) make an update. `fps` 50 keeps the encoder's own frames.

    `teacher_weight` is that of the phone probabilities that the run of --hubert gives for the same crop without noise,
    beside the labels: a student then learns what its teacher hears.
    """

    corpus_weights: Mapping[str, float]
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch: int = 8
    crop_s: tuple[float, float] = (3.0, 6.0)
    mask_chance: float = 0.02
    mask_frames: int = 6
    label_smoothing: float = 0.05
    fps: int = 30
    teacher_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PretrainHubert:
    """Frame-label prediction under masking, with AdamW; `decay` after the warm-up is "linear" or "cosine", to zero.

    `accumulate` micro-batches on each process make an update: on one GPU, take as many as the published recipe had
    GPUs. `pretrained` names Whisper's published encoder (a folder or hub name) for an encoder of kind "whisper", whose
    layers then learn at `pretrained_rate` times the rate of what is new; 0 freezes them.
    """

    encoder: EncoderConfig
    task: MaskedClusters | MaskedPhones
    steps: int
    peak_lr: float
    warmup_steps: int
    decay: str = "linear"
    adam_eps: float = 1e-6
    clip: float = 10.0
    precision: str = "fp16"
    accumulate: int = 1
    checkpoint_every: int = 5000
    pretrained: str = ""
    pretrained_rate: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PretrainWav2Sem:
    """Audio into a text model's sentence space.

    Attributes:
        encoder_config: what differs from wav2vec 2.0's base size; see `EncoderConfig`. Of a `shared` one, the sizes of
            `nn.wav2sem.FeatureReader`.
        shared: read the features of the encoder that --hubert names, instead of the recording.
        versions: of a shared one: how many augmented copies of a recording are heard.
        text_model: folder or hub name of a BERT-architecture model. "" is the MiniLM from PyPI (384-d instead of BERT's
            768, so a projection follows the encoder); it also replaces a hub's model if no hub can be reached.
            run.json names the model used.
        target: "cls" (last hidden state's first token) or "mean" (of the text's own tokens).
        normalise_target: scale targets to length sqrt(E); the published ones are raw.
        contrastive: weight, beside L1, of choosing the right text among the global batch's. It keeps vectors from
            collapsing onto the mean sentence. 0 is the published loss.
        corpora: subsets to train on, as ("train-clean-100",); () takes every one with a training split.
        augmentation: rooms, noise and bands; None leaves recordings unchanged.
        batching: "shuffled": `batch` utterances at random, each once an epoch; "bucketed": `batch_s` seconds of similar
            lengths, each utterance once an epoch; "neighbours": `batch` of similar lengths from one corpus, drawn anew
            each step, with every corpus equally often.
        batch_s: padded speech of a global batch over all processes, in seconds; 100 s at full size in bf16 took 7 GB on
            a CPU.
        epochs, steps: the run's length; one of them is 0.
        longest_s: longer utterances are left out (LibriSpeech's longest is 35 s).
        schedule: "halving" halves the rate every `halve_epochs` epochs; "cosine" warms up for `warmup_steps` first.
        clip: largest norm of the gradient; None does not clip.
        fused: one kernel for the optimiser: the same update up to rounding, several times as fast on a CPU.
        published_init: start from torch's default weights, as the released code does, instead of wav2vec 2.0's.
        valid_clips: most held-out utterances per subset to validate on, every `validate_every` steps (a multiple of 50;
            0: only at the end).
    """

    encoder_config: Mapping[str, Any]
    shared: bool = False
    versions: int = 3
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
                    "{name} {value!r}: choose from {known}",
                    name=name,
                    value=getattr(self, name),
                    known=", ".join(known),
                )
        if (self.epochs > 0) == (self.steps > 0) or (self.epochs and self.batching == "neighbours"):
            raise UserError("give the length in epochs or in steps, not both; neighbours need steps")
        if (self.batch_s > 0) != (self.batching == "bucketed") or self.batch < 1:
            raise UserError(
                "bucketed batches need batch_s (seconds of speech), others batch (utterances, at least 1)",
            )
