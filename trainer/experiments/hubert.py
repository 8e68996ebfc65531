# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain-hubert`.

`base_mfcc`, then `base_features --hubert RUN_OF_BASE_MFCC`, repeat HuBERT base; `small_mfcc` and `small_features` do
the same for an encoder that a CPU can train. `ear`, then `ear_languages --hubert RUN_OF_EAR`, train the bundled model's
ear; `ear_frozen` and `student --hubert RUN_OF_EAR` stand beside it. `bundled`, then `bundled_anywhere`, trained that of
0.1.0; `bundled_unlabelled` and `bundled_short` measure what clusters before its phones are worth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wav2sem_blender.pipeline.checkpoint import EncoderConfig

from ..loops.recipes import MaskedClusters, MaskedPhones, PretrainHubert
from ..speech.augmentation import Augmentation

# Encoders of the `smoke` experiments, which run everything and learn nothing.
TOY_SIZES: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SMALL_CNN = {
    "conv_dim": [32, 64, 96, 128, 192, 256, 256],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "num_conv_pos_embedding_groups": 16,
}
HUBERT_DROPOUTS = {
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.1,
    "layerdrop": 0.05,
}
# Recordings as users may have them. Pitch and formants change with the tempo.
ANYWHERE = Augmentation(
    speed=(0.74, 1.4),
    level_db=(-8.0, 8.0),
    speechless_chance=0.04,
    room_chance=0.3,
    clip_chance=0.05,
    noise_chance=0.6,
    noise_snr_db=(2.0, 35.0),
    equaliser_db=8.0,
    band_chance=0.2,
    codec_chance=0.1,
)
# Noisier places and crowds: half of the disturbances are other people.
NOISY_PLACES = replace(
    ANYWHERE, room_chance=0.45, noise_chance=0.7, noise_snr_db=(0.0, 28.0), one_voice_share=0.12, crowd_share=0.35
)
# For the ear of the bundled model, whose spectrogram has no overall level.
EVERYWHERE = replace(NOISY_PLACES, level_db=(0.0, 0.0), passage_chance=0.3, room_chance=0.35, noise_snr_db=(3.0, 30.0))


_BASE = MaskedClusters(source="mfcc", n_clusters=100)
_SMALL = replace(_BASE, batch_s=87.5, normalise=True)
_SMOKE = replace(_SMALL, n_clusters=8, batch_s=8.0, crop_s=(1.0, 2.0))


def base_mfcc() -> PretrainHubert:
    """HuBERT base, first iteration, as published: 100 clusters of MFCC, 250k updates of 2,800 s."""
    return PretrainHubert(
        encoder=EncoderConfig(kind="hubert", config=HUBERT_DROPOUTS),
        task=_BASE,
        steps=250_000,
        peak_lr=5e-4,
        warmup_steps=32_000,
        accumulate=32,
    )


def base_features() -> PretrainHubert:
    """HuBERT base, second iteration, as published: 500 clusters of layer 6 fitted to 10 % of the data, 400k updates."""
    task = replace(_BASE, source="features", n_clusters=500, layer=6, fit_share=0.1)
    return replace(base_mfcc(), task=task, steps=400_000)


def small_mfcc() -> PretrainHubert:
    """The first iteration for 5.4 M parameters: hours of speech on a CPU."""
    sizes = {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "num_conv_pos_embeddings": 64,
    }
    return replace(
        base_mfcc(),
        encoder=EncoderConfig(kind="hubert", config=SMALL_CNN | HUBERT_DROPOUTS | sizes),
        task=_SMALL,
        steps=20_000,
        warmup_steps=1_600,
        precision="bf16",
        accumulate=1,
        checkpoint_every=500,
    )


def small_features() -> PretrainHubert:
    """The second iteration of `small_mfcc`, on the middle layer's clusters."""
    return replace(small_mfcc(), task=replace(_SMALL, source="features", n_clusters=500, layer=3), steps=32_000)


def smoke() -> PretrainHubert:
    """A few steps of the first iteration at toy size."""
    small = small_mfcc()
    tiny = dict(small.encoder.config) | {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    return replace(
        small,
        encoder=EncoderConfig(kind="hubert", config=tiny),
        task=_SMOKE,
        steps=3,
        warmup_steps=1,
        precision="no",
    )


def smoke_features() -> PretrainHubert:
    """A few steps of the second iteration, after `smoke`."""
    return replace(smoke(), task=replace(_SMOKE, source="features", n_clusters=12, layer=1))


def bundled() -> PretrainHubert:
    """The bundled model's phone-level encoder: HuBERT's transformer on a log-mel spectrogram, 2.2 M parameters."""
    sizes = {
        "n_mels": 80,
        "conv_dim": [256, 256],
        "conv_kernel": [3, 3],
        "conv_stride": [1, 2],
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 768,
        "num_conv_pos_embeddings": 64,
        "num_conv_pos_embedding_groups": 16,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.1,
        "layerdrop": 0.0,
    }
    weights = {"grid_s1": 0.12, "librispeech_4_aligned": 0.06, "librispeech_251": 0.37, "vctk": 0.2, "flite": 0.25}
    return PretrainHubert(
        encoder=EncoderConfig(kind="hubert", config=sizes),
        task=MaskedPhones(corpus_weights=weights, augmentation=ANYWHERE, batch=16),
        steps=7000,
        peak_lr=1.2e-3,
        warmup_steps=300,
        decay="cosine",
        adam_eps=1e-8,
        clip=1.0,
        precision="bf16",
        checkpoint_every=500,
    )


def bundled_anywhere() -> PretrainHubert:
    """Continues `bundled` in noisier places and with five more languages (by espeak-ng)."""
    first = bundled()
    assert isinstance(first.task, MaskedPhones)
    weights = {"grid_s1": 0.1, "librispeech_4_aligned": 0.06, "librispeech_251": 0.38, "vctk": 0.2}
    weights |= {"flite": 0.16, "espeak": 0.1}
    task = replace(first.task, corpus_weights=weights, augmentation=NOISY_PLACES)
    return replace(first, task=task, steps=8000, peak_lr=7e-4)


WHISPER_BASE = "openai/whisper-base"
_EAR = {
    "d_model": 512,
    "encoder_layers": 4,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "hidden_size": 256,
}
EAR_CORPORA = {
    **{"grid_s1": 0.1, "librispeech_4_aligned": 0.06, "librispeech_251": 0.36, "vctk": 0.14},
    **{"picovoice_orders": 0.09, "picovoice_words": 0.05, "festvox_ru": 0.09, "flite": 0.07, "espeak": 0.04},
}


def ear() -> PretrainHubert:
    """The bundled model's ear: the first four layers of Whisper base, fine-tuned on the phones of prepared speech."""
    return PretrainHubert(
        encoder=EncoderConfig(kind="whisper", config=_EAR | {"dropout": 0.05}),
        task=MaskedPhones(corpus_weights=EAR_CORPORA, augmentation=EVERYWHERE, batch=12, fps=50, mask_chance=0.0),
        steps=1500,
        peak_lr=1e-3,
        warmup_steps=100,
        decay="cosine",
        adam_eps=1e-8,
        clip=1.0,
        precision="bf16",
        checkpoint_every=250,
        pretrained=WHISPER_BASE,
        pretrained_rate=0.05,
    )


def ear_languages() -> PretrainHubert:
    """Continues `ear` (--hubert) with Kokoro's native voices in a third of the crops."""
    first = ear()
    assert isinstance(first.task, MaskedPhones)
    others = {corpus: 0.65 * weight for corpus, weight in EAR_CORPORA.items()}
    task = replace(first.task, corpus_weights=others | {"kokoro": 0.35})
    return replace(first, task=task, steps=400, peak_lr=5e-4, warmup_steps=40)


def ear_frozen() -> PretrainHubert:
    """The ceiling: all six layers of Whisper base as published, with an adapter that learns the phones."""
    return replace(
        ear(),
        encoder=EncoderConfig(kind="whisper", config=_EAR | {"encoder_layers": 6}),
        pretrained_rate=0.0,
        steps=600,
    )


def student() -> PretrainHubert:
    """The bundled HuBERT of 2.2 M parameters again, with the ear of --hubert as its teacher."""
    task = MaskedPhones(corpus_weights=EAR_CORPORA, augmentation=EVERYWHERE, batch=16, teacher_weight=0.7)
    return replace(bundled(), task=task, steps=7000)


def bundled_short() -> PretrainHubert:
    """`bundled` in a fifth of its steps; run it with and without --hubert RUN_OF_BUNDLED_UNLABELLED to compare."""
    return replace(bundled(), steps=1500)


def bundled_unlabelled() -> PretrainHubert:
    """HuBERT's first iteration for the bundled encoder, on all prepared speech without its labels.

    The published recipe's penalty and slowed gradients protect convolutions on a waveform; a log-mel spectrogram needs
    neither, as its scale is fixed.
    """
    task = replace(_BASE, batch_s=72.0, crop_s=(2.0, 8.0), normalise=True, feature_penalty=0.0, feature_gradient=1.0)
    return replace(bundled(), task=task, steps=750)


def bundled_smoke() -> PretrainHubert:
    """A few steps of `bundled` at toy size."""
    full = bundled()
    tiny = {"conv_dim": [32, 32], "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    return replace(
        full,
        encoder=EncoderConfig(kind="hubert", config=dict(full.encoder.config) | tiny),
        task=MaskedPhones(corpus_weights={"grid_s1": 0.5, "vctk": 0.5}, batch=2, crop_s=(1.0, 1.5)),
        steps=3,
        warmup_steps=1,
    )


EXPERIMENTS = (
    base_mfcc,
    base_features,
    small_mfcc,
    small_features,
    bundled,
    bundled_anywhere,
    ear,
    ear_languages,
    ear_frozen,
    student,
    bundled_short,
    bundled_unlabelled,
    smoke,
    smoke_features,
    bundled_smoke,
)
