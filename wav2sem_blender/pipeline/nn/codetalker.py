# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker (CVPR 2023) in torch: speech to codes of a motion codec (stage 1, `codec.py`), frame after frame.

Parameters have the published names: stage 2's own, and stage 1 below `autoencoder.`.

Shapes: B batch, T animation frames, t frames so far, R memory frames, M width of stage 2, D width of stage 1, Z latent
width, N styles, X = 3V or K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..hosts import host_module
from .alignment import AlignmentDecoder
from .codec import VERTICES, Codec, CodecSizes, sinusoid
from .host_network import Example, HostNetwork, Progress
from .keys import KeyHead, OnKeys, head_on_keys
from .long_recordings import cross_faded
from .published import loaded, own_weights

if TYPE_CHECKING:
    from ..hosts.codetalker import CodeTalker
    from ..hosts.protocol import Host

CODEC = "autoencoder."
"""Before the names of stage 1 in the network."""
_RANDOM_CODES = 8, 64, 2
"""Clips, draws of a clip, and frames that each draw is held."""
_REACH = 10.0
"""Standard deviations that a key's weight of 1 stands for; Blender's sliders end there."""


def codec_sizes(config: CodeTalker, n_outputs: int) -> CodecSizes:
    """The sizes of stage 1."""
    return CodecSizes(
        n_outputs=n_outputs,
        width=config.codec_dim,
        heads=config.codec_heads,
        ffn_dim=config.codec_ffn_dim,
        n_blocks=config.codec_blocks,
        latent=config.latent,
        n_codes=config.n_codes,
        code_width=config.code_width,
        extra_linear=config.extra_linear,
        head_bias=config.head_bias,
    )


class CodeTalkerNetwork(HostNetwork):
    """Stage 2, and the frozen stage 1 that makes its motion."""

    PRIOR = CODEC
    positions: Tensor

    def __init__(self, config: CodeTalker, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.learnable_style_emb = nn.Embedding(n_styles, config.dim)
        self.position_dropout = nn.Dropout(config.dropout)
        self.transformer_decoder = AlignmentDecoder(
            config.dim,
            config.heads,
            config.layers,
            period=config.period,
            memory_per_frame=config.memory_per_frame,
            ffn_dim=config.ffn_dim,
            dropout=config.dropout,
        )
        self.feat_map = nn.Linear(config.dim, config.latent, bias=False)
        nn.init.zeros_(self.feat_map.weight)
        self.autoencoder = Codec(codec_sizes(config, n_outputs), has_encoder=not config.folded)
        self.autoencoder.eval().requires_grad_(False)
        if config.folded:
            self.feedback = nn.Linear(config.codec_dim, config.dim)
        else:
            self.vertice_map = nn.Linear(n_outputs, config.dim)
        self.register_buffer("positions", sinusoid(config.period, config.dim), persistent=False)

    def train(self, mode: bool = True) -> CodeTalkerNetwork:
        """As for every module; stage 1 stays frozen."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Offsets (B, T, X): inference, or with a target one parallel pass that is fed the true previous frames."""
        if target_BTX is None:
            return self.generate(memory_BRM, style_BN)
        quantised_BTZ, _, _ = self.autoencoder.quantize(self._teacher_forced(memory_BRM, style_BN, target_BTX))
        return self.autoencoder.motion_from(quantised_BTZ)

    def loss(self, example: Example) -> Tensor:
        """Squared errors of the vertices and of the latents."""
        motion, latents = self.losses(example)
        return motion + latents

    def losses(self, example: Example) -> tuple[Tensor, Tensor]:
        """Mean squared error of the vertices, and of the latents against the recording's quantised ones."""
        latent_BTZ = self._teacher_forced(example.memory_BRM, example.style_BN, example.target_BTX)
        quantised_BTZ, _, _ = self.autoencoder.quantize(latent_BTZ)
        with torch.no_grad():
            recorded_BTZ, _, _ = self.autoencoder.quantize(self.autoencoder.encode(example.target_BTX))
        predicted_BTX = self.autoencoder.motion_from(quantised_BTZ)
        return F.mse_loss(predicted_BTX, example.target_BTX), F.mse_loss(latent_BTZ, recorded_BTZ)

    def prior_loss(self, motion_BTX: Tensor, style_BN: Tensor | None = None) -> Tensor:
        """Stage 1's: see `Codec.loss`."""
        return self.autoencoder.loss(motion_BTX)

    def _teacher_forced(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor) -> Tensor:
        """Latents before the codebook (B, T, Z). As published, frame 0 is fed a motion of zero."""
        previous_BTM = self.vertice_map(F.pad(target_BTX[:, :-1], (0, 0, 1, 0)))
        index_T = torch.arange(previous_BTM.shape[1], device=previous_BTM.device) % self.config.period
        fed_BTM = previous_BTM + self._style(style_BN)[:, None] + self.positions[index_T]
        return self.feat_map(self.transformer_decoder(self.position_dropout(fed_BTM), memory_BRM))

    def _style(self, style_BN: Tensor) -> Tensor:
        """A style, or a mixture of them as in the published interpolation (B, M)."""
        return style_BN @ self.learnable_style_emb.weight

    @torch.no_grad()
    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Offsets (B, T, X), frame after frame; `progress` after every step. Nothing is drawn.

        Up to `LONGEST` frames this is the published inference. Longer recordings are made in windows.
        """
        per_frame = self.config.memory_per_frame

        def make(start: int, stop: int, report: Progress) -> Tensor:
            hidden_BTD = self._window(memory_BRM[:, start * per_frame : stop * per_frame], style_BN, report)
            return self.autoencoder.motion_from.head(hidden_BTD)

        n_frames = memory_BRM.shape[1] // per_frame
        return cross_faded(n_frames, make, progress, longest=self.config.LONGEST, overlap=self.config.OVERLAP)

    def _window(self, memory_BRM: Tensor, style_BN: Tensor, report: Progress) -> Tensor:
        """What the codec's last layer reads (B, T, D)."""
        style_BM, decoding = self._style(style_BN), self.transformer_decoder.cached(memory_BRM)
        n_frames = memory_BRM.shape[1] // self.config.memory_per_frame
        codec, fold = self.autoencoder, self.fold()
        latent_BTZ = memory_BRM.new_zeros(len(memory_BRM), n_frames, self.config.latent)
        fed_BM = style_BM
        for t in range(n_frames):
            latent_BZ = self.feat_map(decoding.step(fed_BM + self.positions[t % self.config.period]))
            latent_BTZ[:, t], _, _ = codec.quantize(latent_BZ)
            if t + 1 < n_frames:
                fed_BM = F.linear(self._decoded(latent_BTZ[:, : t + 1], 1)[:, 0], *fold) + style_BM
            report((t + 1) / n_frames)
        return self._decoded(latent_BTZ)

    def _decoded(self, latent_BtZ: Tensor, n_last: int | None = None) -> Tensor:
        """The codec's hidden states. As published, a single frame is decoded twice over and the first one kept."""
        if latent_BtZ.shape[1] == 1:
            return self.autoencoder.motion_from.hidden(latent_BtZ.expand(-1, 2, -1))[:, :1]
        return self.autoencoder.motion_from.hidden(latent_BtZ, n_last)

    def fold(self) -> tuple[Tensor, Tensor]:
        """From the codec's hidden state to what is fed back, without vertices: weight (M, D) and bias (M,)."""
        if self.config.folded:
            return self.feedback.weight, self.feedback.bias
        head, feedback = self.autoencoder.motion_from.head, self.vertice_map
        bias_M = feedback.bias if head.bias is None else F.linear(head.bias, feedback.weight, feedback.bias)
        return feedback.weight @ head.weight, bias_M

    @torch.no_grad()
    def on_keys(self) -> OnKeys:
        """The last layer on rotated keys, without those that move the face least; the feedback keeps all of it."""
        n_styles = len(self.learnable_style_emb.weight)
        keys = codec_keys(self.autoencoder)
        on_keys = CodeTalkerNetwork(replace(self.config, folded=True, head_bias=True), len(keys.channels), n_styles)
        changed = dict(zip(("feedback.weight", "feedback.bias"), self.fold(), strict=True))
        return codec_on_keys(self, on_keys, on_keys.config, keys, changed)


def codec_on_keys(
    network: HostNetwork, keyed: HostNetwork, host: Host, keys: KeyHead, changed: Mapping[str, Tensor]
) -> OnKeys:
    """Weights of `keyed`, which is `network` with an `autoencoder` that ends in keys; some more may be `changed`."""
    last = f"{CODEC}decoder.{VERTICES[1]}"
    changed = {**changed, f"{last}.weight": keys.weight_KM, f"{last}.bias": keys.bias_K}
    state, kept = network.state_dict(), keyed.state_dict()
    return OnKeys(
        host=host,
        state={name: changed.get(name, state.get(name, value)) for name, value in kept.items()},
        channels=keys.channels,
        basis_KV3=keys.basis_KV3,
        error=keys.error,
        published={name: value for name, value in state.items() if name in changed or name not in kept},
    )


def codec_keys(codec: Codec) -> KeyHead:
    """A codec's last layer as keys, for hidden states that spread as those of random codes do: no recordings are here.

    The codec normalises every channel over time, so random codes reach its blocks on the scale of speech.
    """
    sizes, head = codec.sizes, codec.motion_from.head
    generator = torch.Generator().manual_seed(0)
    clips, frames, held = _RANDOM_CODES
    codes = torch.randint(sizes.n_codes, (clips, frames, sizes.latent // sizes.code_width), generator=generator).to(
        head.weight.device
    )
    like = head.weight.new_empty(clips, frames * held, sizes.latent)
    latent_BTZ = codec.quantize.lookup(codes.repeat_interleave(held, 1).flatten(), like)
    hidden_SD = codec.motion_from.hidden(latent_BTZ).flatten(0, 1).double().cpu()
    variance_D, axes_DD = torch.linalg.eigh(torch.cov(hidden_SD.T))
    spread_D = variance_D.clamp(min=0).sqrt()
    keys = head_on_keys(
        head.weight.double().cpu() @ axes_DD,
        torch.zeros(head.out_features) if head.bias is None else head.bias.cpu(),
        spread_D.clamp(min=max(1e-3, 1e-3 * float(spread_D.max()))),
        hidden_SD.mean(0) @ axes_DD,
        bound=_REACH,
    )
    return keys._replace(weight_KM=(keys.weight_KM.double() @ axes_DD.T).float())


def from_published(kind: str, state: Mapping[str, Tensor]) -> CodeTalkerNetwork:
    """The network of published files, of the sizes that their tensors have, in eval mode.

    Args:
        kind: Of `hosts.codetalker.RELEASES`.
        state: Stage 2 without `audio_encoder.*`, `audio_feature_map.*` and Wav2Sem, and stage 1 with `CODEC` before its
            names. Position tables are not needed.

    Raises:
        UserError: A tensor is missing or unknown, or has another shape.
    """
    config, n_outputs, n_styles = settings_of(kind, state)
    weights = {name: value for name, value in state.items() if not is_positions(name)}
    return loaded(config.network(n_outputs, n_styles), weights)


def settings_of(kind: str, state: Mapping[str, Tensor]) -> tuple[CodeTalker, int, int]:
    """Settings, outputs and styles of published tensors, as `from_published` takes them.

    Raises:
        UserError: A tensor that tells a size is missing.
    """
    try:
        sizes = CodecSizes.of(own_weights(state, CODEC))
        prefix = "transformer_decoder.layers."
        config = replace(
            cast("CodeTalker", host_module("codetalker").RELEASES[kind].host),
            dim=len(state["vertice_map.bias"]),
            layers=len({key.split(".")[2] for key in state if key.startswith(prefix)}),
            ffn_dim=len(state[f"{prefix}0.linear1.bias"]),
            codec_dim=sizes.width,
            codec_heads=sizes.heads,
            codec_ffn_dim=sizes.ffn_dim,
            codec_blocks=sizes.n_blocks,
            latent=sizes.latent,
            code_width=sizes.code_width,
            n_codes=sizes.n_codes,
            extra_linear=sizes.extra_linear,
            head_bias=sizes.head_bias,
        )
        return config, sizes.n_outputs, len(state["learnable_style_emb.weight"])
    except KeyError as error:
        raise UserError("the weight {name} is missing; this is another model's file", name=error.args[0]) from error


def is_positions(key: str) -> bool:
    """Whether a published tensor is a table of positions, which we compute."""
    return key.endswith(".pe")
