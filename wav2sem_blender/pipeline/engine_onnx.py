# SPDX-License-Identifier: GPL-3.0-or-later
"""The default engine: encoders and fusion in ONNX Runtime, on the CPU, without torch.

Shapes: S samples, F spectrogram frames, L encoder frames, D features, P phones, R memory frames, E sentence space, M
memory width or, of a spectrogram, mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .. import threads
from ..errors import UserError
from .checkpoint import ENCODER_ONNX, SEMANTIC_ONNX, ModelFolder

# Windows builds report to the system's event log as well; `offline` has stopped the rest.
ort.disable_telemetry_events()

# What a graph's tensors may take: a window of 20 s needs 1 GB of the largest encoder; weights are kept twice at most.
_TENSORS_BYTES, _WEIGHTS_FACTOR = 2 << 30, 3


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
        config = folder.config
        inputs: tuple[str, ...] = ("waveform", "positions")
        if config.one_encoder:
            inputs = ("spectrogram",)
        elif config.wav2sem is not None or config.host.text_width:
            inputs = (*inputs, "semantic")
        self._encoder = _Graph(folder, ENCODER_ONNX, inputs)
        self._semantic = _Graph(folder, SEMANTIC_ONNX) if SEMANTIC_ONNX in folder.files else None
        self._width = config.encoder.config.get("hidden_size", 0)
        self._n_phones, self._semantic_width = len(config.phones), config.wav2sem.target_dim if config.wav2sem else 0
        self._memory_width = config.host.memory_width

    def semantic(self, heard: np.ndarray) -> np.ndarray:
        """F_s (E,) of one utterance: of its samples (S,), or of its features (L, D) if the encoder is shared."""
        assert self._semantic is not None
        return self._semantic.run([heard[None]], [(1, self._semantic_width)])[0][0]

    def hear(self, spectrogram_FM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A shared encoder's features (L, D), and the phones' probabilities (L, P)."""
        shapes = [(1, None, self._width), (1, None, self._n_phones)]
        features_1LD, phones_1LP = self._encoder.run([spectrogram_FM[None]], shapes)
        return features_1LD[0], phones_1LP[0]

    def memory(self, waveform_S: np.ndarray, positions_R: np.ndarray, semantic_RE: np.ndarray | None) -> np.ndarray:
        """The memory (R, M) of one window, read at `positions_R` (encoder frames of the window)."""
        inputs = [waveform_S[None], positions_R[None].astype(np.float32)]
        if semantic_RE is not None:
            inputs.append(semantic_RE[None])
        return self._encoder.run(inputs, [(1, len(positions_R), self._memory_width)])[0][0]


class _Graph:
    """One file of a model, whose results must be what the model's description says: a stranger may have written it."""

    def __init__(self, folder: ModelFolder, file_name: str, inputs: tuple[str, ...] | None = None) -> None:
        """UserError if ONNX Runtime cannot read it, or it has other inputs than `inputs`; None: one of any name."""
        self._path = folder.path / file_name
        self._session = _session(self._path)
        self._inputs = [port.name for port in self._session.get_inputs()]
        if len(self._inputs) != 1 if inputs is None else self._inputs != list(inputs):
            raise self._foreign(", ".join(self._inputs))

    def run(self, inputs: list[np.ndarray], shapes: Sequence[tuple[int | None, ...]]) -> list[np.ndarray]:
        """The outputs for `inputs`; in `shapes`, None is any number.

        Raises:
            UserError: The graph cannot be run, or an output has another shape.
            MemoryError: It needs more memory than there is.
        """
        try:
            outputs = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise _memory_error(error) or UserError(
                "{file}: ONNX Runtime cannot run it ({error}); export the model again",
                file=self._path,
                error=str(error).splitlines()[0],
            ) from error
        if len(outputs) < len(shapes):
            raise self._foreign(f"{len(outputs)} outputs")
        for output, shape in zip(outputs, shapes, strict=False):
            found = getattr(output, "shape", ())
            fits = len(found) == len(shape) and all(n in (None, m) for n, m in zip(shape, found, strict=True))
            if not fits or output.dtype != np.float32:
                raise self._foreign(f"{getattr(output, 'dtype', 'no array')} {found}")
        return outputs

    def _foreign(self, found: str) -> UserError:
        template = "{file}: its inputs or outputs ({found}) are not those of the model in config.json; export it again"
        return UserError(template, file=self._path, found=found)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads.of_onnx()
    # A memory plan is kept for each input length, and utterances all differ in length.
    options.enable_mem_pattern = False
    # Waiting threads sleep. Spinning, they would take the cores from Blender and from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _limit_memory(options, path.stat().st_size)
    try:
        return ort.InferenceSession(_source(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise _memory_error(error) or UserError(
            "{file}: ONNX Runtime cannot read it ({error})", file=path, error=str(error).splitlines()[0]
        ) from error


def _source(path: Path) -> Path | bytes:
    """What ONNX Runtime opens: the file, or its content where a name in the path is no Unicode."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return path


def _limit_memory(options: ort.SessionOptions, file_bytes: int) -> None:
    """Let the session's tensors take only so much: three numbers in a graph can make one of any size.

    The window that is heard is of a fixed length, so a longer recording needs no more.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    limit = {"max_mem": _TENSORS_BYTES + _WEIGHTS_FACTOR * file_bytes, "arena_extend_strategy": 1}
    defaults = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    # Sessions that exist keep the allocator that they began with.
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({**limit, **defaults}))
    options.add_session_config_entry("session.use_env_allocators", "1")


def _memory_error(error: Exception) -> MemoryError | None:
    """What stands for an exception of ONNX Runtime that memory ran out; None for another one."""
    words = ("bad_alloc", "bad allocation", "Failed to allocate memory", "smaller than requested bytes")
    return MemoryError(str(error)) if any(word in str(error) for word in words) else None
