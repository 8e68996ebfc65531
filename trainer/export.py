# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer export RUN --out FOLDER`: a trained model becomes a folder that the extension loads.

The ONNX files are exported from the weights as they are stored, so that both engines run the same numbers.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wav2sem_blender.pipeline.checkpoint import (
    BASIS_KEY,
    ENCODER_ONNX,
    SEMANTIC_ONNX,
    ModelConfig,
    ModelFolder,
    save_model,
)
from wav2sem_blender.pipeline.grid import encoder_frames, feature_positions
from wav2sem_blender.pipeline.nn.faceformer import FaceFormer

from .finetune import read_basis

EXAMPLE_SAMPLES = 32_000
OPSET = 20


class _Memory(nn.Module):
    """What encoder.onnx computes: CNN, frame-rate conversion, transformer, fusion."""

    def __init__(self, model: FaceFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, positions: Tensor, semantic: Tensor | None = None) -> Tensor:
        return self.model.memory(waveform, positions, semantic)


def export_model(folder: Path, model: FaceFormer, basis_KV3: np.ndarray | None) -> ModelFolder:
    """Write config, weights and both ONNX files.

    Args:
        basis_KV3: vertex displacements of the channels, stored in half precision (0.02 mm at 40 mm).
    """
    config = model.config
    tensors = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    if basis_KV3 is not None:
        tensors[BASIS_KEY] = basis_KV3.astype(np.float16)
    with tempfile.TemporaryDirectory() as temp:
        onnx = export_onnx(model.cpu().eval(), config, Path(temp))
        return save_model(folder, config, tensors, onnx)


def export_run(run: Path, data: Path, out: Path) -> ModelFolder:
    """Export a finetune run; the provenance in config.json is the run's own description."""
    for name in ("model.json", "face.pt"):
        if not (run / name).is_file():
            raise FileNotFoundError(f"{run / name}: missing; {run} is not a finished finetune run")
    described = ModelConfig.from_json(json.loads((run / "model.json").read_text()))
    trained = json.loads((run / "run.json").read_text())
    config = dataclasses.replace(described, provenance={key: trained[key] for key in ("experiment", "commit", "torch")})
    model = FaceFormer(config)
    model.load_state_dict(torch.load(run / "face.pt", weights_only=True, map_location="cpu"))
    basis_KV3, _ = read_basis(data / "basis.npz", config.channels)
    return export_model(out, model, basis_KV3)


def export_onnx(model: FaceFormer, config: ModelConfig, folder: Path) -> dict[str, Path]:
    """encoder.onnx and, with a Wav2Sem, semantic.onnx; recordings of any length, one at a time."""
    positions_R = feature_positions(encoder_frames(EXAMPLE_SAMPLES), config.decoder.fps)
    waveform_1S = torch.randn(1, EXAMPLE_SAMPLES)
    samples, frames = torch.export.Dim("samples", min=400), torch.export.Dim("frames", min=2)
    inputs: dict[str, Tensor] = {
        "waveform": waveform_1S,
        "positions": torch.from_numpy(positions_R).float()[None],
    }
    shapes: dict[str, dict[int, torch.export.Dim]] = {"waveform": {1: samples}, "positions": {1: frames}}
    files = {ENCODER_ONNX: folder / ENCODER_ONNX}
    if model.wav2sem is not None and config.wav2sem is not None:
        inputs["semantic"] = torch.randn(1, len(positions_R), config.wav2sem.target_dim)
        shapes["semantic"] = {1: frames}
        files[SEMANTIC_ONNX] = folder / SEMANTIC_ONNX
        semantic_shapes = {"waveform_BS": {1: samples}, "sample_lengths_B": None}
        _export(model.wav2sem, (waveform_1S,), ["waveform"], "semantic", semantic_shapes, files[SEMANTIC_ONNX])
    _export(_Memory(model), tuple(inputs.values()), list(inputs), "memory", shapes, files[ENCODER_ONNX])
    return files


def _export(module: nn.Module, inputs: tuple, names: list[str], output: str, shapes: dict, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[output],
            dynamic_shapes=shapes if len(shapes) == len(inputs) else dict(list(shapes.items())[: len(inputs)]),
            verbose=False,
        )
    assert program is not None  # it is None only without dynamo
    program.save(path, external_data=False)
