# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer export bundled --data work/face --out wav2sem_blender/assets/models/default`

Convert a finetune run's RUN/model to a folder for the extension, or to a file for the official code. The ONNX files are
exported from the stored weights, so that both engines compute with the same numbers.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wav2sem_blender.files import check_ours
from wav2sem_blender.pipeline import log_mel
from wav2sem_blender.pipeline.checkpoint import (
    BASIS_KEY,
    ENCODER_ONNX,
    SEMANTIC_ONNX,
    ModelConfig,
    ModelFolder,
    check_replaceable,
    save_model,
)
from wav2sem_blender.pipeline.engine_torch import load_state
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.official import export_official
from wav2sem_blender.pipeline.official.wav2sem import export_wav2sem

from ..runs.run import Run, read_run
from ..runs.stages import read_wav2sem
from .face_recipes import Export

MODEL = "model"
EXAMPLE_SAMPLES = 32_000
OPSET = 20


class _Ear(nn.Module):
    """The graph of a shared encoder: its features and the phones' probabilities."""

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.hear(spectrogram)


class _Memory(nn.Module):
    """The graph of encoder.onnx: CNN, frame-rate conversion, transformer, fusion."""

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, positions: Tensor, semantic: Tensor | None = None) -> Tensor:
        return self.model.memory(waveform, positions, semantic)


def export(config: Export, run_folder: Path, out: Path) -> Path:
    """Write the experiment's files into the folder `out`.

    Raises:
        MissingFileError: The run is not finished.
        UserError: The model has no official format, or `out` holds anything that no export made.
    """
    if not config.official:
        check_replaceable(out)
        _export_folder(config, run_folder, out)
        return out
    # An official file has no mark of ours, so it is never replaced.
    check_ours(out, "an export", lambda _folder: ())
    out.mkdir(parents=True, exist_ok=True)
    if (run_folder / MODEL).is_dir():
        export_official(_finished(run_folder), out)
    else:
        export_wav2sem(*read_wav2sem(run_folder), out / "model.pth.tar")
    return out


def write_model(
    run: Run,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    basis_KV3: np.ndarray,
    graphs: Mapping[str, Path] | None = None,
) -> ModelFolder:
    """RUN/model: a finished run's model, complete for `SpeechAnimator.load`.

    Args:
        run: Where the model was made.
        config: The model's description, with `provenance_of` the run.
        state: The state dict of `FaceModel`.
        basis_KV3: Vertex displacements of the channels in the config's unit.
        graphs: ONNX files of encoders that this run did not change, by name.
    """
    tensors = {key: value.detach().cpu().numpy() for key, value in state.items()}
    return save_model(run.folder / MODEL, config, tensors | {BASIS_KEY: basis_KV3.astype(np.float32)}, graphs)


def graphs_of(folder: ModelFolder) -> dict[str, Path]:
    """The ONNX files of a model folder, by name."""
    return {name: folder.path / name for name in (ENCODER_ONNX, SEMANTIC_ONNX) if name in folder.files}


def provenance_of(run: Run) -> dict[str, Any]:
    """What a model's config.json says about the run that made it."""
    described = read_run(run.folder)
    wanted = ("experiment", "commit", "torch", "data_sha256", "encoder", "hubert", "wav2sem", "prior", "sentence_space")
    provenance = {key: described[key] for key in wanted if described.get(key)}
    # Absolute paths mean nothing on another machine.
    for key in ("encoder", "hubert", "wav2sem", "prior"):
        if key in provenance and Path(provenance[key]).is_absolute():
            provenance[key] = Path(provenance[key]).name
    return provenance


def _finished(run_folder: Path) -> ModelFolder:
    read_run(run_folder, f"{MODEL}/config.json")
    return ModelFolder.open(run_folder / MODEL)


def _export_folder(config: Export, run_folder: Path, out: Path) -> None:
    folder = _finished(run_folder)
    model = FaceModel(folder.config).eval()
    model.load_state_dict(load_state(folder))
    tensors = folder.tensors()
    if config.half_basis:
        tensors[BASIS_KEY] = tensors[BASIS_KEY].astype(np.float16)
    if folder.config.one_encoder:  # it was trained in bf16, which has fewer digits
        halved = ("audio_encoder.", "wav2sem.")
        tensors |= {key: t.astype(np.float16) for key, t in tensors.items() if key.startswith(halved)}
    with tempfile.TemporaryDirectory() as temp:
        # A run that changes no encoder keeps the graphs: 8-bit matrices made of halved weights would differ a little.
        onnx = (graphs_of(folder) or export_onnx(model, folder.config, Path(temp))) if config.onnx else {}
        save_model(out, folder.config, tensors, onnx)


def export_onnx(model: FaceModel, config: ModelConfig, folder: Path) -> dict[str, Path]:
    """encoder.onnx and, with a Wav2Sem, semantic.onnx, for one recording of any length."""
    if config.one_encoder:
        return _export_shared(model, folder)
    positions_R = config.host.grid.positions(EXAMPLE_SAMPLES)
    waveform_1S = torch.randn(1, EXAMPLE_SAMPLES)
    samples, frames = torch.export.Dim("samples", min=400), torch.export.Dim("frames", min=2)
    inputs: dict[str, Tensor] = {
        "waveform": waveform_1S,
        "positions": torch.from_numpy(positions_R).float()[None],
    }
    shapes: dict[str, dict[int, torch.export.Dim]] = {"waveform": {1: samples}, "positions": {1: frames}}
    files = {ENCODER_ONNX: folder / ENCODER_ONNX}
    if width := config.wav2sem.target_dim if config.wav2sem else config.host.text_width:
        inputs["semantic"] = torch.randn(1, len(positions_R), width)
        shapes["semantic"] = {1: frames}
    if model.wav2sem is not None:
        files[SEMANTIC_ONNX] = folder / SEMANTIC_ONNX
        semantic_shapes = {"waveform_BS": {1: samples}, "sample_lengths_B": None}
        _export(model.wav2sem, (waveform_1S,), ["waveform"], ["semantic"], semantic_shapes, files[SEMANTIC_ONNX])
    _export(_Memory(model), tuple(inputs.values()), list(inputs), ["memory"], shapes, files[ENCODER_ONNX])
    return files


def _export_shared(model: FaceModel, folder: Path) -> dict[str, Path]:
    """As `export_onnx`, for an encoder that phones, sentence vectors and face share. Its matrices are 8-bit."""
    spectrogram_1FM = torch.randn(1, EXAMPLE_SAMPLES // log_mel.HOP_SAMPLES, log_mel.N_MELS)
    frames = torch.export.Dim("frames", min=4, max=3000)
    files = {ENCODER_ONNX: folder / ENCODER_ONNX}
    outputs = ["features", "phones"]
    _export(
        _Ear(model), (spectrogram_1FM,), ["spectrogram"], outputs, {"spectrogram": {1: frames}}, files[ENCODER_ONNX]
    )
    if model.wav2sem is not None:
        files[SEMANTIC_ONNX] = folder / SEMANTIC_ONNX
        features_1LD = torch.randn(1, EXAMPLE_SAMPLES // HOP_SAMPLES, model.audio_encoder.config.hidden_size)
        shapes = {"features_BLD": {1: torch.export.Dim("frames", min=4, max=1500)}, "lengths_B": None}
        _export(model.wav2sem, (features_1LD,), ["features"], ["semantic"], shapes, files[SEMANTIC_ONNX])
    for path in files.values():
        _quantise(path)
    return files


def _quantise(path: Path) -> None:
    """Replace a graph's float32 matrices by 8-bit ones; ONNX Runtime then computes 1.7 times as fast."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    model.graph.ClearField("value_info")  # the exporter's shapes contradict those that the quantiser infers
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # the quantiser asks for a step that changes nothing here
    try:
        quantize_dynamic(
            model, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"]
        )
    finally:
        log.setLevel(level)


def _export(module: nn.Module, inputs: tuple, names: list[str], outputs: list[str], shapes: dict, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes if len(shapes) == len(inputs) else dict(list(shapes.items())[: len(inputs)]),
            verbose=False,
        )
    assert program is not None  # it is None only without dynamo
    program.save(path, external_data=False)
    _forget_origins(path)


def _forget_origins(path: Path) -> None:
    """Remove the source lines, with this machine's paths, that the exporter stores with every node."""
    import onnx

    model = onnx.load(path)
    for part in (model.graph, *model.functions):
        for thing in (part, *part.node, *part.value_info):
            thing.ClearField("metadata_props")
            thing.ClearField("doc_string")
    model.ClearField("metadata_props")
    onnx.save(model, path)
