# SPDX-License-Identifier: GPL-3.0-or-later
"""The default engine: encoders and fusion in ONNX Runtime, on the CPU, without torch.

Shapes: S samples, F spectrogram frames, L encoder frames, D features, P phones, R memory frames, E sentence space, M
memory width or, of a spectrogram, mel bands.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from .. import threads
from ..errors import UserError
from .checkpoint import ENCODER_ONNX, SEMANTIC_ONNX, ModelFolder

# Windows builds report to the system's event log as well; `offline` has stopped the rest.
ort.disable_telemetry_events()


class OnnxEngine:
    """Runs a model folder's encoder.onnx and semantic.onnx."""

    name = "onnx"
    device = "cpu"

    def __init__(self, folder: ModelFolder) -> None:
        """UserError if the model was not exported for this engine."""
        if not folder.has_onnx:
            raise UserError(
                "model {model} has no {file}; use the torch engine, or make it with `python -m trainer export`",
                model=folder.config.name,
                file=ENCODER_ONNX,
            )
        self._encoder = _session(folder, ENCODER_ONNX)
        self._semantic = _session(folder, SEMANTIC_ONNX) if SEMANTIC_ONNX in folder.files else None

    def semantic(self, heard: np.ndarray) -> np.ndarray:
        """F_s (E,) of one utterance: of its samples (S,), or of its features (L, D) if the encoder is shared."""
        assert self._semantic is not None
        return self._semantic.run(None, {self._semantic.get_inputs()[0].name: heard[None]})[0][0]

    def hear(self, spectrogram_FM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A shared encoder's features (L, D), and the phones' probabilities (L, P)."""
        features_1LD, phones_1LP = self._encoder.run(None, {"spectrogram": spectrogram_FM[None]})
        return features_1LD[0], phones_1LP[0]

    def memory(self, waveform_S: np.ndarray, positions_R: np.ndarray, semantic_RE: np.ndarray | None) -> np.ndarray:
        """The memory (R, M) of one window, read at `positions_R` (encoder frames of the window)."""
        inputs = {"waveform": waveform_S[None], "positions": positions_R[None].astype(np.float32)}
        if semantic_RE is not None:
            inputs["semantic"] = semantic_RE[None]
        return self._encoder.run(None, inputs)[0][0]


def _session(folder: ModelFolder, file_name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads.of_onnx()
    # A memory plan is kept for each input length, and utterances all differ in length.
    options.enable_mem_pattern = False
    # Waiting threads sleep. Spinning, they would take the cores from Blender and from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(folder.path / file_name, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise UserError(
            "{file}: ONNX Runtime cannot read it ({error})", file=folder.path / file_name, error=error
        ) from error
