# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled recipe on miniature data, and the exports of a finished run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_prepared import CHANNELS, write_prepared  # noqa: E402
from trainer.experiments.export import bundled, official  # noqa: E402
from trainer.experiments.export import torch as for_torch  # noqa: E402
from trainer.experiments.face import bundled_smoke  # noqa: E402
from trainer.experiments.hubert import bundled_smoke as hubert_smoke  # noqa: E402
from trainer.loops.export import export  # noqa: E402
from trainer.loops.finetune import finetune  # noqa: E402
from trainer.loops.finetune_channels import build_model  # noqa: E402
from trainer.motion.shapes import read_basis  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

SPEECH = np.random.default_rng(3).standard_normal(24_000).astype(np.float32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Prepared data, and two earlier runs: a HuBERT that hears a spectrogram, and a Wav2Sem of its own."""
    root = tmp_path_factory.mktemp("prepared")
    write_prepared(root)
    encoder = hubert_smoke().encoder
    torch.manual_seed(0)
    phones = build_backbone(encoder.kind, encoder.config).state_dict()
    earlier = {
        "hubert/encoder.pt": {f"audio_encoder.{key}": value for key, value in phones.items()},
        "wav2sem/wav2sem.pt": Wav2Sem(encoder.config, 24).state_dict(),
    }
    for name, state in earlier.items():
        (root / name).parent.mkdir()
        torch.save(state, root / name)
    described = {"encoder": {"kind": encoder.kind, "config": dict(encoder.config)}}
    (root / "hubert" / "run.json").write_text(json.dumps({"config": described}))
    learnt = {"encoder_config": dict(encoder.config), "target": "mean", "normalise_target": True}
    (root / "wav2sem" / "run.json").write_text(json.dumps({"config": learnt, "text_model": "bert-of-ours"}))
    return root


@pytest.fixture(scope="module")
def face(prepared: Path) -> Path:
    """A finished run of the bundled recipe."""
    config = replace(bundled_smoke(), peak_lr=3e-2, steps=12)
    run = Run(prepared / "face", verb="finetune", name="bundled_smoke", config=config, device="cpu")
    finetune(config, prepared, run, prepared / "hubert", prepared / "wav2sem")
    run.close()
    return prepared / "face"


def test_the_run_itself_is_a_model(face: Path, prepared: Path) -> None:
    """Its encoders are the earlier runs', untouched; its basis is the prepared one; its decoder has learnt."""
    motion = SpeechAnimator.load(face / "model").animate(SPEECH, 16_000, style="artist")
    assert motion.channels == CHANNELS and np.abs(motion.weights_TK).max() > 0
    assert motion.vertex_offsets().shape == (44, 5023, 3)
    folder = ModelFolder.open(face / "model")
    np.testing.assert_array_equal(folder.basis(), read_basis(prepared / "basis.npz", CHANNELS)[0])
    start = build_model(bundled_smoke(), CHANNELS, prepared / "hubert", prepared / "wav2sem").state_dict()
    for key, value in folder.tensors().items():
        if key.startswith(("audio_encoder.", "wav2sem.")):
            np.testing.assert_array_equal(value, start[key])
    assert folder.tensors("decoder.")["motion_head.bias"].any()
    assert folder.config.provenance["experiment"] == "bundled_smoke"
    assert folder.config.provenance["wav2sem"] == "wav2sem"  # without the path of the machine that made it
    space = {"text_model": "bert-of-ours", "target": "mean", "normalise_target": True}
    assert folder.config.provenance["sentence_space"] == space


def test_earlier_runs_are_needed(prepared: Path, tmp_path) -> None:
    config = bundled_smoke()
    run = Run(tmp_path / "face", verb="finetune", name="bundled_smoke", config=config, device="cpu")
    with pytest.raises(ValueError, match="give --hubert RUN and --wav2sem RUN"):
        finetune(config, prepared, run, prepared / "hubert", None)
    run.close()


def test_an_export_runs_without_torch_too(face: Path, tmp_path) -> None:
    out = export(bundled(), face, tmp_path / "embedded")
    by_engine = {name: SpeechAnimator.load(out, engine=name).animate(SPEECH, 16_000) for name in ("onnx", "torch")}
    trained = SpeechAnimator.load(face / "model").animate(SPEECH, 16_000)
    for motion in by_engine.values():
        np.testing.assert_allclose(motion.weights_TK, trained.weights_TK, atol=1e-4)
        np.testing.assert_allclose(motion.basis_KV3, trained.basis_KV3, atol=2e-5)
    assert ModelFolder.open(out).has_onnx
    for file in out.glob("*.onnx"):
        assert b".py" not in file.read_bytes(), f"{file.name} tells where this machine keeps its programs"


def test_an_export_for_torch_is_exact(face: Path, tmp_path) -> None:
    exported = ModelFolder.open(export(for_torch(), face, tmp_path / "exact"))
    assert not exported.has_onnx and exported.weights_sha256 == ModelFolder.open(face / "model").weights_sha256


def test_what_cannot_be_exported_is_named(face: Path, prepared: Path, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="not a finished run"):
        export(bundled(), tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="faceformer_channels has no published format"):
        export(official(), face, tmp_path / "official")
    with pytest.raises(ValueError, match="this Wav2Sem: its encoder has hidden_size = 32"):
        export(official(), prepared / "wav2sem", tmp_path / "official")
