# SPDX-License-Identifier: GPL-3.0-or-later
"""Joint audio-text, a re-derivation: FaceFormer that reads what is said, word by word, beside how it sounds.

Fan et al., "Joint Audio-Text Model for Expressive Speech-Driven 3D Facial Animation" (2022, arXiv 2112.02214) published
no code, and its abstract is all that we have of its method: contextual embeddings of a pre-trained language model are
fused with the speech, for the motion of the upper face. The rest is our choice. The hidden states of a BERT model's
tokens, each over the time of its word, enter through FC where Wav2Sem's F_s enters FaceFormer, and the loss weighs the
upper face. So it differs from FaceFormer with Wav2Sem in what is told and in how errors count, and in nothing else.

The features are read from a file beside the recording (`given_features.py`), which
`python -m trainer.speech.token_features` makes.

Shapes: T animation frames, E text features, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import UserError
from .faceformer import FaceFormer
from .protocol import Release

if TYPE_CHECKING:
    from ..nn.joint_audio_text import JointNetwork


@dataclass(frozen=True, kw_only=True)
class JointAudioText(FaceFormer):
    """FaceFormer's settings, and two more.

    Attributes:
        text_dim: E, 768 of BERT base.
        upper_weight: A squared error in the upper face counts as many times as one elsewhere. It moves less than the
            mouth: its errors are smaller, and would be learnt last.
    """

    KIND: ClassVar[str] = "joint_audio_text"

    text_dim: int = 768
    upper_weight: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_dim < 1 or self.upper_weight < 1:
            raise UserError(
                "joint_audio_text: text_dim {text_dim} and upper_weight {upper_weight} must be at least 1",
                text_dim=self.text_dim,
                upper_weight=self.upper_weight,
            )

    @property
    def text_width(self) -> int:
        """As `Host`."""
        return self.text_dim

    def network(self, n_outputs: int, n_styles: int) -> JointNetwork:
        """The torch decoder."""
        from ..nn.joint_audio_text import JointNetwork

        return JointNetwork(self, n_outputs, n_styles)


RELEASES: dict[str, Release] = {}
"""None: nothing was published."""
