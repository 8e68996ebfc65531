# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain` (Wav2Sem).

`paper` and `released` are the two published recipes, which differ; `fast` trains the same model in far fewer updates.
Their --data is LibriSpeech. `bundled` makes the bundled model's Wav2Sem from prepared speech.
"""

from __future__ import annotations

from dataclasses import replace

from ..loops.recipes import PretrainWav2Sem
from . import hubert
from .hubert import TOY_SIZES

PUBLISHED_DROPOUTS = {
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "feat_proj_dropout": 0.1,
    "layerdrop": 0.1,
}


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
    """The released model in large batches of similar lengths, bf16, with a contrastive term and no dropout but
    LayerDrop.

    Few passes over much speech do not overfit, and dropout is the most expensive part of a CPU's step after the matrix
    products.
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
    """The bundled model's Wav2Sem: starts from the phone encoder's first three layers, learns MiniLM's mean vectors."""
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


def shared() -> PretrainWav2Sem:
    """The bundled model's Wav2Sem: it reads the features of the ear (--hubert) and learns MiniLM's mean vectors."""
    return replace(
        bundled(),
        encoder_config={
            "feature_size": 256,
            "hidden_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "stride": 4,
            "dropout": 0.1,
        },
        shared=True,
        versions=2,
        corpora=("grid_s1", "librispeech_4_aligned", "librispeech_251", "vctk", "picovoice_orders"),
        batch=32,
        steps=2000,
        precision="no",
    )


def bundled_smoke() -> PretrainWav2Sem:
    """A few steps of `bundled` at toy size."""
    config = hubert.bundled_smoke().encoder.config
    return replace(bundled(), encoder_config=config, corpora=("grid_s1", "vctk"), steps=3, batch=2, warmup_steps=1)


EXPERIMENTS = (paper, paper_mean, released, fast, bundled, shared, smoke, bundled_smoke)
