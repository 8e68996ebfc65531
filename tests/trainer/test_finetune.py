# SPDX-License-Identifier: GPL-3.0-or-later
"""The published recipe on miniature VOCASET, BIWI and studio data: what it learns, what stays frozen, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import write_biwi, write_custom, write_vocaset  # noqa: E402
from trainer.experiments.face import biwi_smoke, custom_smoke, smoke, smoke_wav2sem  # noqa: E402
from trainer.face_data import open_face_data  # noqa: E402
from trainer.finetune import Examples, Learner, build_model, finetune, mask_spans, training_positions  # noqa: E402
from trainer.runs import Run  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.grid import encoder_frames, feature_positions  # noqa: E402
from wav2sem_blender.pipeline.nn.faceformer import FaceFormer  # noqa: E402


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported")
    return folder


def open_run(folder: Path, config, **more) -> Run:
    return Run(folder, verb="finetune", name="smoke", config=config, device="cpu", **more)


def trained(config, data: Path, folder: Path, wav2sem: Path | None = None) -> Path:
    run = open_run(folder, config)
    try:
        finetune(config, data, run, None, wav2sem)
    finally:
        run.close()
    return folder


@pytest.fixture(scope="module")
def vocaset_run(vocaset: Path, tmp_path_factory) -> Path:
    return trained(replace(smoke(), learning_rate=1e-2, epochs=3), vocaset, tmp_path_factory.mktemp("runs") / "face")


def test_a_run_ends_with_a_model_that_animates(vocaset_run: Path, vocaset: Path) -> None:
    """No further step; and what the folder says of every vertex is what the trained torch module says."""
    animator = SpeechAnimator.load(vocaset_run / "model")
    faces = open_face_data("vocaset", vocaset)
    clip = next(clip for clip in faces.clips if clip.split == "valid")
    samples = faces.samples(clip)
    motion = animator.animate(samples, 16_000, style=3)
    assert motion.fps == 30 and motion.channels[0] == "key_00" and animator.folder.config.styles == faces.styles

    from trainer.batches import normalise
    from trainer.checkpoints import load_newest

    found = load_newest(vocaset_run / "checkpoints")
    assert found is not None
    state = {key.removeprefix("model."): value for key, value in found[1]["model"].items()}
    model = FaceFormer(animator.folder.config, 3 * 5023).eval()
    model.load_state_dict(state)
    positions = torch.from_numpy(feature_positions(encoder_frames(len(samples)), 30)).float()[None]
    with torch.no_grad():
        expected_TX = model(torch.from_numpy(normalise(samples))[None], positions, torch.eye(8)[[3]])[0].numpy()
    offsets_TX = motion.vertex_offsets().reshape(len(expected_TX), -1)
    assert np.abs(expected_TX).max() > 1e-3
    np.testing.assert_allclose(offsets_TX, expected_TX, atol=1e-4 * np.abs(expected_TX).max())


def test_a_run_describes_itself(vocaset_run: Path) -> None:
    described = json.loads((vocaset_run / "run.json").read_text())
    assert described["clips"] == {"train": 4, "valid": 1} and len(described["data_sha256"]) == 64
    assert described["skipped"], "the miniature lacks most of the published sentences"
    provenance = SpeechAnimator.load(vocaset_run / "model").folder.config.provenance
    assert provenance["experiment"] == "smoke" and provenance["data_sha256"] == described["data_sha256"]
    rows = [json.loads(line) for line in (vocaset_run / "metrics.jsonl").read_text().splitlines()]
    watched = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert len(watched) == 3 and watched[-1] != watched[0]
