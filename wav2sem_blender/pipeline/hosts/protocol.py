# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host offers to inference, training and import. No torch at run time.

Shapes: B batch, T animation frames, R memory frames, M memory width, N styles, K channels, V vertices, X = 3V or K.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..frame_timing import FrameGrid

if TYPE_CHECKING:
    from ..nn.host_network import HostNetwork


class Host(Protocol):
    """The settings of a face model: a frozen dataclass of plain values, stored in config.json.

    A host derives from this class, and so has the methods with a body unless it overrides them.

    Attributes:
        KIND: Its name in `hosts.HOSTS`.
        IN_NUMPY: Whether `decoder` computes its motion. Otherwise the torch engine runs `network`.
        SAMPLES: Whether its motion depends on a seed.
        NOBODYS_STYLE: The style of no subject, in which it was trained too; "" if it has none.
    """

    KIND: ClassVar[str]
    IN_NUMPY: ClassVar[bool] = False
    SAMPLES: ClassVar[bool] = False
    NOBODYS_STYLE: ClassVar[str] = ""
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def grid(self) -> FrameGrid:
        """From audio samples to animation frames and memory frames."""

    @property
    def memory_width(self) -> int | None:
        """M: a linear layer maps F_p + FC(F_s) to the memory. None: F_p + FC(F_s) itself is the memory."""

    def feature_width(self, encoder_width: int) -> int:
        """Width of the features F_p that FC(F_s) is added to: the encoder's hidden states, unless a host has others."""
        return encoder_width

    @property
    def text_width(self) -> int:
        """Width of the text features that enter where F_s enters other hosts; 0 for a host that reads no text."""
        return 0

    def flops(self, n_frames: int) -> float:
        """Floating-point operations of the network for so many animation frames, without the encoder's."""

    def styles_of(self, subjects: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the speaking styles of a model that is trained on these subjects."""
        return subjects

    def at_rate(self, fps: int) -> Host:
        """The same settings for motion of another frame rate; UserError where the host has none for it."""

    def decoder(self, tensors: Mapping[str, np.ndarray]) -> Decoder:
        """What inference runs without torch, if `IN_NUMPY`; `tensors` is the state dict of `network`."""
        raise TypeError(f"{self.KIND} runs in torch")

    def shapes(self, n_channels: int, n_styles: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the tensors that `decoder` reads, if `IN_NUMPY`."""
        return {}

    def network(self, n_outputs: int, n_styles: int) -> HostNetwork:
        """The torch module that is trained."""


class Decoder(Protocol):
    """Inference: from the memory of a whole recording to its motion."""

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> np.ndarray:
        """Channel weights, float32 (T, K).

        Args:
            memory_RM: The memory, `FrameGrid.memory_per_frame` rows for each animation frame.
            style_N: Weights of the speaking styles: one-hot or a mixture.
            seed: Of the noise, for hosts that sample.
            progress: Called with the fraction done.
        """


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published checkpoint of a host.

    Attributes:
        host: Its settings.
        n_vertices: V of its faces.
        topology: "flame" or "biwi".
        basis_unit: Unit of its vertices: "m", or "sqrt_area" where faces are divided by the root of their area.
        styles: Its training subjects, in the order of the one-hot style.
    """

    host: Host
    n_vertices: int
    topology: str
    basis_unit: str
    styles: tuple[str, ...]
