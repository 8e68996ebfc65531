# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch engine: any checkpoint of any size, on a GPU if there is one.

Shapes: S samples, R memory frames, E sentence space, M memory width, N styles, T animation frames, K channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .checkpoint import BASIS_KEY, CONFIG_FILE, PUBLISHED, ModelFolder, Wav2SemFolder
from .nn.face_model import FaceModel
from .nn.wav2sem import Wav2Sem

Module = TypeVar("Module", bound=nn.Module)
_OTHERS = (BASIS_KEY, PUBLISHED)
"""Beginnings of the names of tensors that no module has."""


def choose_device(wanted: str) -> str:
    """The torch device for "auto", "cuda", "mps", "xpu" or "cpu".

    Raises:
        UserError: The named device is not there.
    """
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if wanted == "auto":
        return next(name for name, is_available in available.items() if is_available())
    kind = wanted.partition(":")[0]
    if kind not in available:
        raise UserError(
            "device {wanted!r}: known are auto, {available}",
            wanted=wanted,
            available=", ".join(available),
        )
    if not available[kind]():
        raise UserError(
            "device {wanted!r} is not available to torch {version} here; choose auto or cpu",
            wanted=wanted,
            version=torch.__version__,
        )
    return wanted


class TorchEngine:
    """The encoders and the fusion of a model folder, or a Wav2Sem alone, in eval mode, without gradients."""

    name = "torch"

    def __init__(self, folder: ModelFolder | Wav2SemFolder, device: str) -> None:
        self.device = choose_device(device)
        if isinstance(folder, ModelFolder):
            self._face = _built(folder, lambda: FaceModel(folder.config), "")
            self._wav2sem = self._face.wav2sem
            self._whole: nn.Module = self._face
        else:
            config = folder.config
            self._whole = self._wav2sem = _built(folder, lambda: Wav2Sem(config.config, config.target_dim), "wav2sem.")
        self._whole.eval().requires_grad_(False).to(self.device)

    def move_to_cpu(self) -> None:
        """Give the GPU's memory back."""
        self._whole.to("cpu")
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self.device = "cpu"

    def semantic(self, heard: np.ndarray) -> np.ndarray:
        """F_s (E,) of one utterance: of its samples (S,), or of its features (L, D) if the encoder is shared."""
        assert self._wav2sem is not None
        with _memory_errors():
            return self._wav2sem(self._tensor(heard))[0].cpu().numpy()

    def hear(self, spectrogram_FM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A shared encoder's features (L, D), and the phones' probabilities (L, P)."""
        with _memory_errors():
            features_1LD, phones_1LP = self._face.hear(self._tensor(spectrogram_FM))
            return features_1LD[0].cpu().numpy(), phones_1LP[0].cpu().numpy()

    def memory(self, waveform_S: np.ndarray, positions_R: np.ndarray, semantic_RE: np.ndarray | None) -> np.ndarray:
        """The memory (R, M) of one window, read at `positions_R` (encoder frames of the window)."""
        semantic_BRE = None if semantic_RE is None else self._tensor(semantic_RE)
        with _memory_errors():
            memory_BRM = self._face.memory(self._tensor(waveform_S), self._tensor(positions_R), semantic_BRE)
            return memory_BRM[0].cpu().numpy()

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> np.ndarray:
        """As `hosts.protocol.Decoder`, by the host's network: for hosts without a decoder of their own."""
        with _memory_errors():
            memory_BRM, style_BN = self._tensor(memory_RM), self._tensor(style_N)
            return self._face.decoder.generate(memory_BRM, style_BN, seed, progress)[0].cpu().numpy()

    def move_face(self, template_V3: np.ndarray, folder: ModelFolder) -> None:
        """Move this neutral face, in the unit of the basis; see `HostNetwork.move_face`."""

        def published() -> dict[str, Tensor]:
            return {key: torch.from_numpy(value) for key, value in folder.tensors(PUBLISHED).items()}

        self._face.decoder.move_face(torch.from_numpy(template_V3).flatten(), published)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))[None].to(self.device)


def _built(folder: ModelFolder | Wav2SemFolder, build: Callable[[], Module], prefix: str) -> Module:
    """A module with a folder's weights below `prefix`.

    It is first built without memory, and compared with the file: a description may ask for any size.

    Raises:
        UserError: The settings make no module, or the weights are another module's.
    """
    try:
        with torch.device("meta"):
            wanted = build().state_dict()
    except UserError:
        raise
    except Exception as error:  # torch and transformers raise anything for settings that contradict each other
        raise UserError(
            "{file}: its settings make no model ({kind}: {error})",
            file=folder.path / CONFIG_FILE,
            kind=type(error).__name__,
            error=str(error).partition("\n")[0],
        ) from error
    besides = ("fusion.", *_OTHERS) if prefix else _OTHERS
    folder.check_shapes({f"{prefix}{key}": tuple(value.shape) for key, value in wanted.items()}, besides)
    module = build()
    module.load_state_dict(load_state(folder, prefix))
    return module


def load_state(folder: ModelFolder | Wav2SemFolder, prefix: str = "") -> dict[str, Tensor]:
    """A folder's weights below `prefix` as a torch state dict, without the basis and what only an export needs."""
    return {key: torch.from_numpy(t) for key, t in folder.tensors(prefix).items() if not key.startswith(_OTHERS)}


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):  # the CPU's has no class of its own
            raise MemoryError(str(error)) from error
        raise
