# SPDX-License-Identifier: GPL-3.0-or-later
"""LSF-Animation's network (SIGGRAPH Asia 2025) in torch, with the published names.

Its fusion attends to all pairs of an emotion frame and a speech frame, which as written takes memory and time with the
square of the recording's length. The keys and values of a pair are sums of one term of each frame, so the softmax over
pairs is the product of two over frames, and the result is the sum of two plain attentions: the same values, linear in
the length (`PairAttention`).

Shapes: B batch, T animation frames, R memory frames (2T), D features, M width, N styles, E shape parameters, H heads,
F fusion tokens, W width of the fusion's attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..flame_parameters import OWN_FACE
from .codec import CodecStack, LinearEmbedding, Squasher, sinusoid
from .keys import OnKeys
from .probtalk3d import ProbTalk3DNetwork, pairs

if TYPE_CHECKING:
    from ..hosts.lsf import LSF

IDENTITY_NAME = "identity_extractor."
STYLE_NAME = "feature_predictor.style_proj.weight"
IDENTITY_WIDTHS = (256, 128)


class PairAttention(nn.Module):
    """Tokens attend to all pairs of an emotion frame i and a speech frame j.

    The released layer `kv` reads both frames side by side, without a bias. With its columns for the one and for the
    other, k_ij = k_i + k_j and v_ij = v_i + v_j. So exp(q k_ij) = exp(q k_i) exp(q k_j), and the mean of v_ij under it
    is the mean of v_i plus that of v_j. Scores are scaled by the width of a head as it would be without narrowing.
    """

    def __init__(self, config: LSF) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.dim, config.fusion_dim, bias=False)
        self.kv = nn.Linear(2 * config.dim, 2 * config.fusion_dim, bias=False)
        self.proj = nn.Linear(config.fusion_dim, config.dim)

    def forward(self, token_BFM: Tensor, emotion_BTM: Tensor, speech_BTM: Tensor) -> Tensor:
        """(B, F, M)."""
        width = token_BFM.shape[-1]
        query_BHFd = self.q(token_BFM).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_BHFd = torch.zeros_like(query_BHFd)
        for frames_BTM, columns in ((emotion_BTM, slice(width)), (speech_BTM, slice(width, None))):
            both = F.linear(frames_BTM, self.kv.weight[:, columns]).unflatten(-1, (2, self.heads, -1))
            key, value = both.permute(2, 0, 3, 1, 4).unbind()
            scale = (width / self.heads) ** -0.5
            mixed_BHFd = mixed_BHFd + F.scaled_dot_product_attention(query_BHFd, key, value, scale=scale)
        return self.proj(mixed_BHFd.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, ffn_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class FusionBlock(nn.Module):
    """What the tokens take from both streams."""

    def __init__(self, config: LSF) -> None:
        super().__init__()
        self.norm_mm, self.norm_a, self.norm_v, self.norm_mlp = (nn.LayerNorm(config.dim) for _ in range(4))
        self.attn = PairAttention(config)
        self.mlp = _Mlp(config.dim, config.ffn_dim)

    def forward(self, token_BFM: Tensor, emotion_BTM: Tensor, speech_BTM: Tensor) -> Tensor:
        """(B, F, M)."""
        attended = self.attn(self.norm_mm(token_BFM), self.norm_v(emotion_BTM), self.norm_a(speech_BTM))
        token_BFM = token_BFM + attended
        return token_BFM + self.mlp(self.norm_mlp(token_BFM))


class FusedPredictor(nn.Module):
    """Speech, emotion and style to latents.

    In every layer each stream is preceded by the tokens, so that it hears of the other stream what they took in the
    layer before; what becomes of the tokens in the stream is dropped. `out_norm` and the last layer's emotion block and
    fusion are in the released files, but nothing reads what they would give.
    """

    def __init__(self, config: LSF, n_styles: int) -> None:
        super().__init__()
        self.config, width = config, config.dim
        self.audio_feat = nn.Linear(2 * config.feature_dim, width)
        self.emo_feat = nn.Linear(2 * config.emotion_dim, width)
        self.style_proj = nn.Linear(n_styles, width, bias=False)
        self.squash_a, self.squash_e = Squasher(width), Squasher(width)
        self.lin_embed = LinearEmbedding(width, width)
        self.fusion_tokens = nn.Parameter(0.02 * torch.randn(1, config.tokens, width))
        self.audio_blocks, self.emo_blocks = (
            nn.ModuleList(CodecStack(width, config.heads, config.ffn_dim, 1) for _ in range(config.blocks))
            for _ in range(2)
        )
        self.fusion_blocks = nn.ModuleList(FusionBlock(config) for _ in range(config.blocks))
        self.out_norm = nn.LayerNorm(width)

    def forward(self, memory_BRD: Tensor, style_BN: Tensor) -> Tensor:
        """(B, T, M)."""
        speech_BRD, emotion_BRD = memory_BRD.split((self.config.feature_dim, self.config.emotion_dim), -1)
        style_BM = self.style_proj(style_BN)
        speech_BTM = self._stream(self.audio_feat(pairs(speech_BRD)), style_BM, self.squash_a)
        emotion_BTM = self._stream(self.emo_feat(pairs(emotion_BRD)), style_BM, self.squash_e)
        n_frames = speech_BTM.shape[1]
        token_BFM = self.fusion_tokens.expand(len(memory_BRD), -1, -1)
        for layer, speech_block in enumerate(self.audio_blocks):
            speech_BTM = speech_block(torch.cat([token_BFM, speech_BTM], 1), n_frames)
            if layer + 1 < len(self.audio_blocks):
                emotion_BTM = self.emo_blocks[layer](torch.cat([token_BFM, emotion_BTM], 1), n_frames)
                token_BFM = self.fusion_blocks[layer](token_BFM, emotion_BTM, speech_BTM)
        return speech_BTM

    def _stream(self, x_BTM: Tensor, style_BM: Tensor, squasher: Squasher) -> Tensor:
        x_BTM = self.lin_embed(squasher(x_BTM * style_BM[:, None]))
        return x_BTM + sinusoid(x_BTM.shape[1], x_BTM.shape[2]).to(x_BTM)


class LSFNetwork(ProbTalk3DNetwork):
    """From the memory of both encoders, side by side (B, R, D + the emotion's), to FLAME parameters between 0 and 1."""

    config: LSF

    def __init__(self, config: LSF, n_outputs: int, n_styles: int) -> None:
        super().__init__(config, n_outputs, n_styles)
        self.identity_extractor: nn.Sequential | None = None
        if config.shape_dim:
            first, second = IDENTITY_WIDTHS
            self.identity_extractor = nn.Sequential(
                *(nn.Linear(config.shape_dim, first), nn.ReLU()),
                *(nn.Linear(first, second), nn.ReLU()),
                *(nn.Linear(second, n_styles), nn.Softmax(-1)),
            )

    def _predictor(self, n_styles: int) -> nn.Module:
        return FusedPredictor(self.config, n_styles)

    def latents(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """As `ProbTalk3DNetwork`. `style_BN` may be FLAME shapes (B, E) instead: the speaker is then read from them."""
        if self.identity_extractor is not None and style_BN.shape[1] == self.config.shape_dim:
            style_BN = self.identity_extractor(style_BN)
        wanted = self.config.feature_dim + self.config.emotion_dim
        if memory_BRM.shape[2] != wanted:
            raise UserError(
                "lsf reads {wanted} features, of the speech and the emotion side by side, not {found}: `feature_dim` "
                "and `emotion_dim` are the widths of its two encoders",
                wanted=wanted,
                found=memory_BRM.shape[2],
            )
        return super().latents(memory_BRM, style_BN)

    def on_keys(self) -> OnKeys:
        """As `ProbTalk3DNetwork`, with one style more, the first: the speaker that `shape_S` makes.

        Without it, FLAME's mean face makes the speaker. A style goes through one matrix without a bias, so a mixture of
        speakers is a column of its own.
        """
        keyed = super().on_keys()
        if self.identity_extractor is None:
            return keyed
        shape_S = torch.zeros(self.config.shape_dim) if self.shape_S is None else torch.from_numpy(self.shape_S).float()
        with torch.no_grad():
            mixed_N = self.identity_extractor(shape_S.to(keyed.state[STYLE_NAME]))
        identity = {name: value for name, value in keyed.state.items() if name.startswith(IDENTITY_NAME)}
        state = {name: value for name, value in keyed.state.items() if name not in identity}
        state[STYLE_NAME] = torch.cat([(state[STYLE_NAME] @ mixed_N)[:, None], state[STYLE_NAME]], 1)
        return keyed._replace(
            host=replace(keyed.host, shape_dim=0),
            state=state,
            published={**keyed.published, **identity},
            more_styles=(OWN_FACE,),
        )
