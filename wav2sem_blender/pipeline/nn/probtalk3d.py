# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D's network (MIG 2024) in torch, with the published names.

Shapes: B batch, T animation frames, R memory frames (2T), D features, M width and latent width, N styles, Q codes,
C code width, X = 53 outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..flame_parameters import KEYS, N_EXPRESSIONS, N_PARAMETERS, Flame, key_weights, to_flame
from .codec import PARAMETERS, Codec, CodecSizes, CodecStack, LinearEmbedding, Squasher, sinusoid
from .host_network import Example, HostNetwork, Progress
from .keys import OnKeys
from .long_recordings import cross_faded

if TYPE_CHECKING:
    from ..hosts.probtalk3d import ProbTalk3D


def pairs(frames_BRD: Tensor) -> Tensor:
    """Two neighbouring frames side by side (B, T, 2D); an odd last one is dropped."""
    return frames_BRD[:, : frames_BRD.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)


class FeaturePredictor(nn.Module):
    """Speech and style to latents."""

    def __init__(self, config: ProbTalk3D, n_styles: int) -> None:
        super().__init__()
        self.audio_feature_map = nn.Linear(2 * config.feature_dim, config.dim)
        self.style_embedding = nn.Linear(n_styles, config.dim, bias=False)
        self.squasher = nn.Sequential(Squasher(config.dim))
        self.encoder_linear_embedding = LinearEmbedding(config.dim, config.dim)
        self.encoder_transformer = CodecStack(config.dim, config.heads, config.ffn_dim, config.blocks)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """(B, T, M)."""
        x_BTM = self.audio_feature_map(pairs(memory_BRM)) * self.style_embedding(style_BN)[:, None]
        x_BTM = self.encoder_linear_embedding(self.squasher(x_BTM))
        return self.encoder_transformer(x_BTM + sinusoid(x_BTM.shape[1], x_BTM.shape[2]).to(x_BTM))


class ProbTalk3DNetwork(HostNetwork):
    """From the memory to FLAME parameters between 0 and 1 (`flame_parameters.to_flame`).

    Attributes:
        motion_prior: The codec. Stage 1 trains it (`prior_loss`), and stage 2 leaves it as it is.
        flame: The user's FLAME file, and the shape parameters of the face to animate, for `on_keys`.
        beside: Tensors of a released file that only an export needs.
    """

    PRIOR = "motion_prior."

    def __init__(self, config: ProbTalk3D, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.flame: Flame | None = None
        self.shape_S: np.ndarray | None = None
        self.beside: dict[str, Tensor] = {}
        self.motion_prior = Codec(
            CodecSizes(
                n_outputs=N_PARAMETERS if config.flame_keys else n_outputs,
                width=config.dim,
                heads=config.heads,
                ffn_dim=config.ffn_dim,
                n_blocks=config.prior_blocks,
                latent=config.dim,
                n_codes=config.n_codes,
                code_width=config.code_width,
                head_bias=False,
                by_time=True,
                prefix="motion_",
                layers=PARAMETERS,
            )
        )
        self.feature_predictor = self._predictor(n_styles)

    def _predictor(self, n_styles: int) -> nn.Module:
        return FeaturePredictor(self.config, n_styles)

    def latents(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """What the codebook is searched for (B, T, M).

        Raises:
            UserError: The recording has a single frame, over which nothing can be normalised.
        """
        if memory_BRM.shape[1] < 4:
            raise UserError("the recording is too short: {kind} needs at least 0.1 s", kind=self.config.KIND)
        return self.feature_predictor(memory_BRM, style_BN)

    def quantised(self, latent_BTM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest codes' latents (B, T, M), the codes (Q,), and the codebook's loss.

        As released, the latents are cut channel by channel: a code is C consecutive moments of one channel.
        """
        quantised_BMT, codes_Q, loss = self.motion_prior.quantize(latent_BTM.transpose(1, 2))
        return quantised_BMT.transpose(1, 2), codes_Q, loss

    def drawn(self, latent_BTM: Tensor, seed: int) -> Tensor:
        """Latents (B, T, M) of codes that are drawn with the probabilities softmax(-d / temperature), d the squared
        distance. The seed gives the same draw on every device."""
        quantizer, latent_BMT = self.motion_prior.quantize, latent_BTM.transpose(1, 2)
        odds_QN = (-quantizer.distances(latent_BMT).cpu().double() / self.config.temperature).softmax(1).cumsum(1)
        level_Q1 = torch.rand(len(odds_QN), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        codes_Q = torch.searchsorted(odds_QN, level_Q1 * odds_QN[:, -1:])[:, 0].to(latent_BTM.device)
        return quantizer.lookup(codes_Q, latent_BMT).transpose(1, 2)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Parameters (B, T, X) of the nearest codes; nothing is fed back."""
        return self.motion_prior.motion_from(self.quantised(self.latents(memory_BRM, style_BN))[0])

    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Parameters (B, T, X) of drawn codes, as in the released demo; or weights of `KEYS` (B, T, K)."""
        config, style_BN = self.config, self._whole_style(style_BN)

        def window(start: int, stop: int, _progress: Progress) -> Tensor:
            latent_BtM = self.latents(memory_BRM[:, 2 * start : 2 * stop], style_BN)
            return self.motion_prior.motion_from(self.drawn(latent_BtM, seed + start))

        size = {"longest": config.longest, "overlap": config.overlap}
        motion_BTX = cross_faded(memory_BRM.shape[1] // 2, window, progress, **size)
        if not config.flame_keys:
            return motion_BTX
        weights = [key_weights(to_flame(motion_TX)) for motion_TX in motion_BTX.cpu().numpy()]
        return torch.from_numpy(np.stack(weights)).to(motion_BTX)

    def _whole_style(self, style_BN: Tensor) -> Tensor:
        """The style with what it leaves open: the first speaker, neutral, level 1, or level 2 of another emotion."""
        if sum(self.config.style_parts) != style_BN.shape[1]:
            return style_BN
        speaker, emotion, level = style_BN.split(self.config.style_parts, 1)
        first_B = torch.zeros(len(style_BN), dtype=torch.long, device=style_BN.device)
        emotion = _or_default(emotion, first_B)
        level = _or_default(level, (emotion[:, 0] < 0.5).long())
        return torch.cat([_or_default(speaker, first_B), emotion, level], 1)

    def on_keys(self) -> OnKeys:
        """As `HostNetwork`, on keys of the user's FLAME.

        Raises:
            UserError: `flame` is missing.
        """
        if self.flame is None:
            raise UserError(
                "{kind} predicts FLAME's parameters: give your FLAME file, an .npz, with --with FILE (docs/hosts.md)",
                kind=self.config.KIND,
            )
        basis_KV3, error_m = self.flame.keys(self.shape_S)
        host = replace(self.config, flame_keys=True)
        return OnKeys(host, self.state_dict(), KEYS, basis_KV3, error_m, self.beside)

    def loss(self, example: Example) -> Tensor:
        """Stage 2: absolute errors of the quantised latents, the expressions and the jaw."""
        quantised_BTM, _, _ = self.quantised(self.latents(example.memory_BRM, example.style_BN))
        with torch.no_grad():
            wanted_BTM, _, _ = self.quantised(self.motion_prior.encode(example.target_BTX))
        config, motion_BTX = self.config, self.motion_prior.motion_from(quantised_BTM)
        parts = self._errors(motion_BTX, example.target_BTX)
        weights = config.latent_weight, config.expression_weight, config.jaw_weight
        return _weighted(weights, F.l1_loss(quantised_BTM, wanted_BTM), *parts)

    def prior_loss(self, target_BTX: Tensor, style_BN: Tensor | None = None) -> Tensor:
        """Stage 1: the codebook's loss, and absolute errors of the expressions and the jaw."""
        quantised_BTM, _, codebook = self.quantised(self.motion_prior.encode(target_BTX))
        parts = self._errors(self.motion_prior.motion_from(quantised_BTM), target_BTX)
        return _weighted(PRIOR_WEIGHTS, codebook, *parts)

    def _errors(self, motion_BTX: Tensor, target_BTX: Tensor) -> tuple[Tensor, Tensor]:
        """Of the expressions and of the jaw."""
        expressions, jaw = slice(N_EXPRESSIONS), slice(N_EXPRESSIONS, None)
        return (
            F.l1_loss(motion_BTX[..., expressions], target_BTX[..., expressions]),
            F.l1_loss(motion_BTX[..., jaw], target_BTX[..., jaw]),
        )


PRIOR_WEIGHTS = (1.5, 0.5, 0.1)
"""Of the codebook's loss, the expressions and the jaw in stage 1."""


def _weighted(weights: tuple[float, ...], *parts: Tensor) -> Tensor:
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


def _or_default(part_BN: Tensor, index_B: Tensor) -> Tensor:
    """Rows that are not all 0, and one-hot ones in place of the others."""
    default_BN = F.one_hot(index_B, part_BN.shape[1]).to(part_BN)
    return torch.where(part_BN.any(1, keepdim=True), part_BN, default_BN)
