# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that are counted by formula against those that torch counts in a real pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.pipeline import cost, given_features
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, ModelFolder, Wav2SemConfig
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.hosts.voca import Voca

SIZES = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 200}
SIZES |= {"conv_dim": [64] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
MODEL = ModelConfig(
    name="x",
    encoder=EncoderConfig(kind="wav2vec2", config=SIZES),
    wav2sem=Wav2SemConfig(config=SIZES | {"hidden_size": 64}, target_dim=64),
    host=FaceFormer(),
    channels=("a",),
    styles=("one",),
)
GIVEN = given_features.encoder("x", 29, stand_in=False)


@pytest.mark.parametrize("duration_s", [1.0, 8.0])
def test_separate_encoders_are_counted_as_torch_counts_them(duration_s: float) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    model = FaceModel(MODEL).eval()
    n_samples = round(duration_s * 16_000)
    waveform_BS = torch.zeros(1, n_samples)
    positions_BR = torch.from_numpy(MODEL.host.grid.positions(n_samples)).float()[None]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.memory(waveform_BS, positions_BR, model.semantics(waveform_BS))
    network = MODEL.host.flops(MODEL.host.grid.animation_frames(n_samples))
    assert cost.flops(MODEL, duration_s) - network == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_the_bundled_model_is_counted_as_torch_counts_it() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if not DEFAULT_MODEL.is_dir():
        pytest.skip("there is no bundled model")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    config = ModelFolder.open(DEFAULT_MODEL).config
    model = FaceModel(config).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        features_BLD, _ = model.hear(torch.zeros(1, 1_000, 80))
        model.wav2sem(features_BLD)
    network = config.host.flops(config.host.grid.animation_frames(160_000))
    assert cost.flops(config, 10.0) - network == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_given_features_cost_nothing_and_the_stand_in_the_bundled_ear() -> None:
    voca = replace(MODEL, encoder=GIVEN, wav2sem=None, host=Voca())
    assert cost.flops(voca, 10.0) == Voca().flops(600)
    if DEFAULT_MODEL.is_dir():
        stand_in = replace(voca, encoder=given_features.encoder("x", 29, stand_in=True))
        bundled = replace(voca, encoder=ModelFolder.open(DEFAULT_MODEL).config.encoder)
        assert cost.flops(stand_in, 10.0) == cost.flops(bundled, 10.0) > 50 * cost.flops(voca, 10.0)


def test_a_longer_recording_costs_in_proportion() -> None:
    one, ten = cost.flops(MODEL, 60.0), cost.flops(MODEL, 600.0)
    assert 9.9 < ten / one < 10.1
