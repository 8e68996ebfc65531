# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker (ECCV 2024): settings, the heads of its releases, and the names of its released files.

One model with a head for each kind of face: weights of ARKit's blendshapes, FLAME's parameters, or components of a PCA
of vertices. `nn/unitalker.py` has the network. A model folder animates one head and keeps the others for export.

Shapes: T animation frames, R memory frames, M decoder width, K channels, N styles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ...errors import UserError
from ..frame_timing import SAMPLE_RATE_HZ, FrameGrid
from ..motion import ARKIT_CHANNELS
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.unitalker import UniTalkerNetwork

ARKIT, FLAME_PARAMETERS = "inhouse_blendshape_weight", "flame_params_from_dadhead"
BIWI, VOCASET, MESHTALK = "BIWI_23370_vertices", "FLAME_5023_vertices", "meshtalk_6172_vertices"
EMOTALK = "3DETF_blendshape_weight"
_SIDES = ("Left", "Right")


def _both(*names: str) -> tuple[str, ...]:
    return tuple(name + side for name in names for side in _SIDES)


ARKIT_ORDER: tuple[str, ...] = (
    *_both("eyeBlink", "eyeSquint", "eyeLookDown", "eyeLookIn", "eyeWide", "eyeLookOut", "eyeLookUp", "browDown"),
    *("browInnerUp", *_both("browOuterUp"), "jawOpen", "mouthClose", "jawLeft", "jawRight", "jawForward"),
    *_both("mouthUpperUp", "mouthLowerDown"),
    *("mouthRollUpper", "mouthRollLower"),
    *_both("mouthSmile", "mouthDimple", "mouthStretch", "mouthFrown", "mouthPress"),
    *("mouthPucker", "mouthFunnel", "mouthLeft", "mouthRight", "mouthShrugLower", "mouthShrugUpper"),
    *(*_both("noseSneer"), "cheekPuff", *_both("cheekSquint")),
)
"""The 51 outputs of the ARKit head: ARKit's names without tongueOut, in the order that the author gave in issue 5 of
the released repository, which is FaceScape's."""
CHANNELS = {ARKIT: ARKIT_ORDER, EMOTALK: tuple(sorted(ARKIT_CHANNELS))}
"""The outputs of the heads on blendshapes. EmoTalk's 52 are in the order of its released script for rendering."""


class Head(NamedTuple):
    """A head of the release.

    Attributes:
        width: Values that it predicts; for vertices the most components of the PCA.
        n_vertices: V of the faces that its components make; 0 for a head without PCA.
        fps: Frame rate of its data, at which the demo runs it.
        scale: Its data were multiplied by this before training.
    """

    width: int
    n_vertices: int = 0
    fps: int = 30
    scale: float = 1.0


HEADS = {
    BIWI: Head(512, 23370, 25, 0.2),
    VOCASET: Head(512, 5023),
    MESHTALK: Head(512, 6172, scale=0.001),
    EMOTALK: Head(52),
    FLAME_PARAMETERS: Head(413),
    ARKIT: Head(51),
}
SUBJECTS = (("D0", 6), ("D1", 12), ("D2", 13), ("D3", 141), ("D4", 24), ("D5", 719), ("D6", 8), ("D7", 11))
"""The data sets of the release and their subjects, in the order of the style embedding; the pivot is last."""
PIVOT = "pivot"
"""The style of no subject. It was drawn for 10 % of the clips in training, and is the demo's default."""


@dataclass(frozen=True)
class UniTalkerGrid(FrameGrid):
    """T is the recording's duration in animation frames, rounded; features are interpolated behind the encoder."""

    def animation_frames(self, n_samples: int) -> int:
        """round(N / 16000 * fps), half to even."""
        return round(n_samples / SAMPLE_RATE_HZ * self.fps)


@dataclass(frozen=True, kw_only=True)
class UniTalker(Host):
    """UniTalker's settings; the defaults are those of the release.

    Attributes:
        dim: M.
        style_dim: Width of a style's embedding.
        layers: Convolutions of the decoder.
        head: The head that animates, of `heads`.
        heads: Name and width of every head that the model holds.
        flame_keys: The head on FLAME's parameters gives weights of keys (`flame_parameters.key_names`).
        fps: Animation frames per second.
        scale: What vertices are multiplied by before they are learnt; 0.2 for BIWI as published.
        pivot_share: How often a training clip is given the pivot's style instead of its subject's.
        components_weight: Of the squared error of the components, beside that of the vertices.
        blendshapes_weight: Of the squared error of the weights, beside that of the vertices that they make.
    """

    KIND: ClassVar[str] = "unitalker"
    NOBODYS_STYLE: ClassVar[str] = PIVOT

    dim: int = 256
    style_dim: int = 64
    layers: int = 3
    head: str = ARKIT
    heads: tuple[tuple[str, int], ...] = ((ARKIT, 51),)
    flame_keys: bool = False
    fps: int = 30
    scale: float = 1.0
    dropout: float = 0.1
    pivot_share: float = 0.1
    components_weight: float = 0.01
    blendshapes_weight: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple((str(name), int(width)) for name, width in self.heads))
        if self.head not in dict(self.heads):
            known = ", ".join(name for name, _ in self.heads)
            raise UserError("unitalker has no head {head}; this model has {known}", head=self.head, known=known)
        if self.flame_keys and (self.head, self.head_width) != (FLAME_PARAMETERS, HEADS[FLAME_PARAMETERS].width):
            raise UserError("flame_keys is for the head {head} alone", head=FLAME_PARAMETERS)

    @property
    def head_width(self) -> int:
        """Values that the head predicts."""
        return dict(self.heads)[self.head]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what a head on blendshapes predicts."""
        return CHANNELS[self.head]

    @property
    def has_components(self) -> bool:
        """Whether the head predicts components of a PCA of vertices."""
        return self.head.endswith("_vertices")

    @property
    def predicts_flame(self) -> bool:
        """Whether the head predicts FLAME's parameters."""
        return self.head == FLAME_PARAMETERS

    @property
    def grid(self) -> FrameGrid:
        """Frames are interpolated behind the encoder. Long recordings are cut as in the released demo."""
        return UniTalkerGrid(fps=self.fps, before_transformer=False, window_s=25.0, overlap_s=5.0, separate=True)

    @property
    def memory_width(self) -> int:
        """M, after `audio_feature_map`."""
        return self.dim

    def flops(self, n_frames: int) -> float:
        """As `Host`: each convolution reads three frames, the first one twice."""
        convolutions = 6 * (self.dim + self.style_dim) + 3 * (self.layers - 1) * self.dim
        return 2 * n_frames * self.dim * (convolutions + self.head_width)

    def styles_of(self, subjects: tuple[str, ...]) -> tuple[str, ...]:
        """The pivot, then the subjects."""
        return (PIVOT, *subjects)

    def at_rate(self, fps: int) -> UniTalker:
        """At any rate: only the interpolation depends on it."""
        return replace(self, fps=fps)

    def network(self, n_outputs: int, n_styles: int) -> UniTalkerNetwork:
        """The torch decoder."""
        from ..nn.unitalker import UniTalkerNetwork

        return UniTalkerNetwork(self, n_outputs, n_styles)


STYLES = (PIVOT, *(f"{data}-{i + 1}" for data, n_subjects in SUBJECTS for i in range(n_subjects)))
"""The pivot, which a model without a choice should have, is the first style of a model folder."""


def release_of(head: str, topology: str, basis_unit: str) -> Release:
    """The released model with one of its heads."""
    _, n_vertices, fps, scale = HEADS[head]
    heads = tuple((name, described.width) for name, described in HEADS.items())
    host = UniTalker(head=head, heads=heads, fps=fps, scale=scale)
    return Release(host=host, n_vertices=n_vertices, topology=topology, basis_unit=basis_unit, styles=STYLES)


RELEASES = {
    "unitalker-arkit": release_of(ARKIT, "arkit", ""),
    "unitalker-emotalk": release_of(EMOTALK, "arkit", ""),
    "unitalker-vocaset": release_of(VOCASET, "flame", "m"),
    "unitalker-biwi": release_of(BIWI, "biwi", "sqrt_area"),
    "unitalker-flame": release_of(FLAME_PARAMETERS, "flame", "m"),
}
