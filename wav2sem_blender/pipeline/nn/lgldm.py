# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM in torch: a denoiser of the codec's latents, guided by the speech frame by frame.

Parameters have the published names: `denoise_fn.*` is the stage-2 file, `autoencoder.*` the stage-1 file.

Shapes: B batch, T animation frames, R memory frames, M encoder width, N styles, E emotions, D latent width, L layers,
X = 3V outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ..hosts import host_module
from .alignment import AlignmentDecoder
from .codec import Codec, CodecSizes, sinusoid
from .codetalker import CODEC, codec_keys, codec_on_keys, is_positions
from .diffusion import cosine_betas, schedule, seeded_noise
from .host_network import Example, HostNetwork, Progress
from .keys import OnKeys
from .long_recordings import cross_faded
from .published import loaded, need, own_weights

if TYPE_CHECKING:
    from ..hosts.lgldm import LgLdm

LARGEST_BETA = 0.9999
ENCODER, POSITIONS = "audio_encoder.", "PE."
DENOISER = "denoise_fn."


class Denoiser(nn.Module):
    """Predicts the latents x_0 from noisy ones, the speech, the speaker and the time."""

    def __init__(self, config: LgLdm, n_subjects: int) -> None:
        super().__init__()
        dim = config.dim
        self.config, self.n_subjects = config, n_subjects
        self.audio_extract = nn.Sequential(
            nn.Linear(config.memory_per_frame * config.audio_dim, dim), nn.Mish(), nn.Linear(dim, dim)
        )
        self.time_embedd = nn.Sequential(nn.Linear(config.NOISE_STEPS, dim), nn.Mish())
        style, latents = nn.Linear(n_subjects, dim), nn.Linear(dim, dim)
        on_style = config.mish_on_style
        self.style_embedd: nn.Module = nn.Sequential(style, nn.Mish()) if on_style else style
        self.latent_encoder: nn.Module = latents if on_style else nn.Sequential(latents, nn.Mish())
        if config.emotions:
            self.emotion_embedd = nn.Linear(config.emotions, dim)
        self.position_dropout = nn.Dropout(config.dropout)
        self.transformer_decoder = AlignmentDecoder(
            dim, config.heads, config.n_layers, period=config.period, dropout=config.dropout
        )
        self.latent_decoder = nn.Linear(dim, dim)
        nn.init.zeros_(self.latent_decoder.weight)
        nn.init.zeros_(self.latent_decoder.bias)

    def heard(self, memory_BRM: Tensor) -> Tensor:
        """What the speech tells (B, T, D), the same at every time."""
        n_frames = memory_BRM.shape[1] // self.config.memory_per_frame
        return self.audio_extract(
            memory_BRM[:, : n_frames * self.config.memory_per_frame].reshape(len(memory_BRM), n_frames, -1)
        )

    def told(self, style_BN: Tensor) -> Tensor:
        """What the subject and the emotion tell (B, 1, D)."""
        subject_BN, emotion_BE = split_style(style_BN, self.config.emotions)
        told_BD = self.style_embedd(subject_BN)
        if self.config.emotions:
            told_BD = told_BD + self.emotion_embedd(emotion_BE)
        return told_BD[:, None]

    def forward(self, latents_BTD: Tensor, times_B: Tensor, heard_BTD: Tensor, told_B1D: Tensor) -> Tensor:
        """x_0 (B, T, D), as long as the shorter of the latents and the speech."""
        n_frames = min(latents_BTD.shape[1], heard_BTD.shape[1])
        query_BTD = self.position_dropout(self._query(latents_BTD[:, :n_frames], told_B1D))
        memory_BTD = heard_BTD[:, :n_frames] + self._time(times_B)
        return self.latent_decoder(self.transformer_decoder(query_BTD, memory_BTD))

    def prepared(self, heard_BTD: Tensor, told_B1D: Tensor) -> Callable[[Tensor, int], Tensor]:
        """`forward` in eval mode for many times: the function of x_t and t.

        A frame attends to one memory frame alone, so the weight of that is 1 and cross-attention is a linear map of
        the memory. What it makes of the speech is computed here, what it makes of the time is one vector.
        """
        layers = [layer for layer in self.transformer_decoder.layers if isinstance(layer, nn.TransformerDecoderLayer)]
        maps = [_cross_map(layer.multihead_attn) for layer in layers]
        attended_L = [F.linear(heard_BTD, weight, bias) for weight, bias in maps]
        n_frames = heard_BTD.shape[1]
        bias_HTT = self.transformer_decoder.bias(n_frames, heard_BTD.device).to(heard_BTD.dtype)
        heads = self.config.heads

        def denoise(latents_BTD: Tensor, time: int) -> Tensor:
            time_B1D = self._time(torch.full((len(latents_BTD),), time, device=latents_BTD.device))
            x_BTD = self._query(latents_BTD, told_B1D)
            for layer, attended_BTD, (weight_DD, _) in zip(layers, attended_L, maps, strict=True):
                attention = layer.self_attn
                projected = F.linear(x_BTD, attention.in_proj_weight, attention.in_proj_bias)
                query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
                mixed_BHTd = F.scaled_dot_product_attention(query, key, value, attn_mask=bias_HTT)
                x_BTD = layer.norm1(x_BTD + attention.out_proj(mixed_BHTd.transpose(1, 2).flatten(2)))
                x_BTD = layer.norm2(x_BTD + attended_BTD + F.linear(time_B1D, weight_DD))
                x_BTD = layer.norm3(x_BTD + layer.linear2(F.relu(layer.linear1(x_BTD))))
            return self.latent_decoder(x_BTD)

        return denoise

    def _query(self, latents_BTD: Tensor, told_B1D: Tensor) -> Tensor:
        n_frames, config = latents_BTD.shape[1], self.config
        n_rows = min(n_frames, config.period) if config.periodic_positions else n_frames
        positions_TD = sinusoid(n_rows, config.dim)[torch.arange(n_frames) % max(n_rows, 1)].to(latents_BTD)
        return self.latent_encoder(latents_BTD) + told_B1D + positions_TD

    def _time(self, times_B: Tensor) -> Tensor:
        """(B, 1, D)."""
        dtype = self.latent_decoder.weight.dtype
        return self.time_embedd(F.one_hot(times_B, self.config.NOISE_STEPS).to(dtype))[:, None]


def _cross_map(cross: nn.MultiheadAttention) -> tuple[Tensor, Tensor]:
    """Cross-attention to a single key as one linear map: weight (D, D) and bias (D,)."""
    width = cross.embed_dim
    value_weight, value_bias = cross.in_proj_weight[2 * width :], cross.in_proj_bias[2 * width :]
    return cross.out_proj.weight @ value_weight, cross.out_proj(value_bias)


def split_style(style_BN: Tensor, emotions: int) -> tuple[Tensor, Tensor | None]:
    """The weights of the subjects, and those of the emotions at the end; None where there are no emotions."""
    if not emotions:
        return style_BN, None
    return style_BN[:, :-emotions], style_BN[:, -emotions:]


def ddim_times(n_steps: int, n_times: int) -> list[int]:
    """The published times, from the noisiest down to -1: as integers of `linspace`, which are rounded towards 0."""
    return np.linspace(-1, n_times - 1, n_steps + 1).astype(np.int32)[::-1].tolist()


class LgLdmNetwork(HostNetwork):
    """The frozen codec and the denoiser. `autoencoder` is None only where stage 2 is checked alone."""

    PRIOR = CODEC

    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor

    def __init__(self, config: LgLdm, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.denoise_fn = Denoiser(config, n_styles - config.emotions)
        self.autoencoder: Codec | None = None
        if n_outputs:
            sizes = codec_sizes(config, n_outputs)
            self.autoencoder = Codec(sizes, has_encoder=not config.on_keys).requires_grad_(False)
        for name, value_S in noise_schedule(
            config.NOISE_STEPS
        ).items():  # computed, so a model folder need not hold them
            self.register_buffer(name, value_S.float(), persistent=False)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Motion (B, T, X): sampled with seed 0, or with `target_BTX` its latents denoised from half of the noise."""
        if target_BTX is None:
            return self.generate(memory_BRM, style_BN)
        latents_BTD = self.encode(target_BTX, style_BN)
        times_B = torch.full((len(style_BN),), self.config.NOISE_STEPS // 2, device=memory_BRM.device)
        noise_BTD = seeded_noise(latents_BTD.shape, 0).to(latents_BTD)
        heard_BTD, told_B1D = self.denoise_fn.heard(memory_BRM), self.denoise_fn.told(style_BN)
        x0_BTD = self.denoise_fn(self.noisy(latents_BTD, times_B, noise_BTD), times_B, heard_BTD, told_B1D)
        return self.decode(x0_BTD, style_BN)

    def loss(self, example: Example) -> Tensor:
        """MSE of the latents before the codebook, at a random time, plus MSE of the motion that they decode to."""
        style_BN, target_BTX = example.style_BN, example.target_BTX
        with torch.no_grad():
            latents_BTD = self.encode(target_BTX, style_BN)
        times_B = torch.randint(0, self.config.NOISE_STEPS, (len(style_BN),), device=latents_BTD.device)
        denoising, x0_BTD = self.denoising_loss(
            example.memory_BRM, style_BN, latents_BTD, times_B, torch.randn_like(latents_BTD)
        )
        motion_BTX = self.decode(x0_BTD, style_BN)
        return denoising + F.mse_loss(motion_BTX, target_BTX[:, : motion_BTX.shape[1]])

    def prior_loss(self, motion_BTX: Tensor, style_BN: Tensor | None = None) -> Tensor:
        """Stage 1's, for clips of one emotion: see `Codec.loss`."""
        assert self.autoencoder is not None
        if not self.config.emotions:
            return self.autoencoder.loss(motion_BTX)
        assert style_BN is not None
        return self.autoencoder.loss(
            motion_BTX, split_style(style_BN, self.config.emotions)[1], next(self._emotions(style_BN))
        )

    def denoising_loss(
        self, memory_BRM: Tensor, style_BN: Tensor, latents_BTD: Tensor, times_B: Tensor, noise_BTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """MSE of x_0, and x_0 (B, T, D) itself."""
        heard_BTD, told_B1D = self.denoise_fn.heard(memory_BRM), self.denoise_fn.told(style_BN)
        x0_BTD = self.denoise_fn(self.noisy(latents_BTD, times_B, noise_BTD), times_B, heard_BTD, told_B1D)
        return F.mse_loss(x0_BTD, latents_BTD[:, : x0_BTD.shape[1]]), x0_BTD

    def noisy(self, latents_BTD: Tensor, times_B: Tensor, noise_BTD: Tensor) -> Tensor:
        """x_t (B, T, D)."""
        signal_B, noise_B = self.sqrt_alphas_cumprod[times_B], self.sqrt_one_minus_alphas_cumprod[times_B]
        return signal_B[:, None, None] * latents_BTD + noise_B[:, None, None] * noise_BTD

    @torch.no_grad()
    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Motion (B, T, X), sampled from the noise of a seed.

        Up to `LgLdm.LONGEST` this is the published inference. Longer recordings are sampled in windows.

        Raises:
            UserError: There is a single frame, whose variance over time the codec would divide by.
        """
        per_frame = self.config.memory_per_frame
        n_frames = memory_BRM.shape[1] // per_frame
        if n_frames < 2:
            raise UserError("LG-LDM makes no fewer than 2 animation frames; this recording has {n}", n=n_frames)
        noise_BTD = seeded_noise((len(memory_BRM), n_frames, self.config.dim), seed).to(memory_BRM)

        def sampled(start: int, stop: int, report: Progress) -> Tensor:
            memory_BrM = memory_BRM[:, start * per_frame : stop * per_frame]
            latents_BtD = self.ddim(memory_BrM, style_BN, noise_BTD[:, start:stop], progress=report)
            return self.decode(latents_BtD, style_BN)

        return cross_faded(n_frames, sampled, progress, longest=self.config.LONGEST, overlap=self.config.OVERLAP)

    @torch.no_grad()
    def ddim(
        self,
        memory_BRM: Tensor,
        style_BN: Tensor,
        noise_BTD: Tensor,
        n_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Latents (B, T, D) by deterministic DDIM (Song et al. 2021, equation 12 without noise).

        As published the step to time -1 is skipped, unless the settings say `finished`.
        """
        times = ddim_times(n_steps or self.config.sampling_steps, self.config.NOISE_STEPS)
        denoise = self.denoise_fn.prepared(self.denoise_fn.heard(memory_BRM), self.denoise_fn.told(style_BN))
        x_BTD = noise_BTD
        for index, (time, following) in enumerate(zip(times[:-1], times[1:], strict=True)):
            if progress:
                progress(index / (len(times) - 1))
            if following < 0 and not self.config.finished:
                break
            x0_BTD = denoise(x_BTD, time)
            if following < 0:
                return x0_BTD
            scaled_BTD = self.sqrt_recip_alphas_cumprod[time] * x_BTD - x0_BTD
            noise_BTD = scaled_BTD / self.sqrt_recipm1_alphas_cumprod[time]
            kept = self.alphas_cumprod[following]
            x_BTD = kept.sqrt() * x0_BTD + (1 - kept).sqrt() * noise_BTD
        return x_BTD

    def on_keys(self) -> OnKeys:
        """The codec's last layer on rotated keys, without those that move the face least; its encoder is left out."""
        assert self.autoencoder is not None
        keys, n_styles = codec_keys(self.autoencoder), self.denoise_fn.n_subjects + self.config.emotions
        on_keys = LgLdmNetwork(replace(self.config, on_keys=True), len(keys.channels), n_styles)
        return codec_on_keys(self, on_keys, on_keys.config, keys, {})

    def encode(self, motion_BTX: Tensor, style_BN: Tensor) -> Tensor:
        """The codec's latents before the codebook (B, T, D)."""
        assert self.autoencoder is not None
        return self.autoencoder.encode(motion_BTX, split_style(style_BN, self.config.emotions)[1])

    def decode(self, latents_BTD: Tensor, style_BN: Tensor) -> Tensor:
        """Latents through the codebook to motion (B, T, X). Gradients pass the codebook as if it were not there."""
        assert self.autoencoder is not None
        quantised = [
            self.autoencoder.quantize(latents_1TD, emotion)[0]
            for latents_1TD, emotion in zip(latents_BTD.split(1), self._emotions(style_BN), strict=True)
        ]
        return self.autoencoder.motion_from(torch.cat(quantised))

    def _emotions(self, style_BN: Tensor) -> Iterator[int | None]:
        """Whose rows of the codebook count. Neutral is no row of its own: as published it takes the first's."""
        _, emotion_BE = split_style(style_BN, self.config.emotions)
        for row in style_BN if emotion_BE is None else emotion_BE:
            yield None if emotion_BE is None else int(row.argmax())


def noise_schedule(n_times: int) -> dict[str, Tensor]:
    """The twelve buffers of the stage-2 file, float64 (n_times,)."""
    return schedule(cosine_betas(n_times, LARGEST_BETA))


def codec_sizes(config: LgLdm, n_outputs: int) -> CodecSizes:
    """Stage 1 by its settings."""
    return CodecSizes(
        n_outputs=n_outputs,
        width=config.codec_dim,
        heads=config.codec_heads,
        ffn_dim=config.codec_ffn_dim,
        n_blocks=config.codec_blocks,
        latent=config.dim,
        n_codes=config.n_codes,
        code_width=config.code_width,
        extra_linear=config.codec_extra_linear,
        head_bias=config.on_keys or not config.codec_extra_linear,
        emotions=config.emotions,
    )


def from_published(kind: str, state: Mapping[str, Tensor]) -> LgLdmNetwork:
    """The network of a published kind with these weights; its sizes are the weights'.

    Args:
        kind: Of `hosts.lgldm.RELEASES`.
        state: `denoise_fn.*` of the stage-2 file (the prefix may be left out) and, as `autoencoder.*`, the stage-1
            file. Without these the network denoises latents but makes no motion.

    Raises:
        UserError: A weight is missing, unknown or of another shape.
    """
    codec = {key: value for key, value in own_weights(state, CODEC).items() if not is_positions(key)}
    prefix = DENOISER if any(key.startswith(DENOISER) for key in state) else ""
    denoiser = denoiser_weights(own_weights(state, prefix))
    host = cast("LgLdm", host_module("lgldm").RELEASES[kind].host)
    layers = {key.split(".")[2] for key in denoiser if key.startswith("transformer_decoder.layers.")}
    style = "style_embedd.0.weight" if host.mish_on_style else "style_embedd.weight"
    dim = len(need(denoiser, "latent_decoder.weight"))
    settings = replace(
        host,
        dim=dim,
        n_layers=len(layers),
        audio_dim=need(denoiser, "audio_extract.0.weight").shape[1] // host.memory_per_frame,
        code_width=dim,
    )
    n_styles, n_outputs = need(denoiser, style).shape[1] + host.emotions, 0
    if codec:
        sizes = CodecSizes.of(codec)
        settings, n_outputs = with_sizes(settings, sizes), sizes.n_outputs
    network = LgLdmNetwork(settings, n_outputs, n_styles)
    names = {f"{DENOISER}{key}": value for key, value in denoiser.items()}
    return loaded(network, names | {f"{CODEC}{key}": value for key, value in codec.items()})


def denoiser_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to `Denoiser` in a stage-2 file whose prefix is gone; the speech encoder and tables do not."""
    return own_weights(state, "", (ENCODER, POSITIONS, CODEC, *noise_schedule(1)))


def with_sizes(host: LgLdm, sizes: CodecSizes) -> LgLdm:
    """The settings that `codec_sizes` turns into these sizes."""
    return replace(
        host,
        codec_dim=sizes.width,
        codec_heads=sizes.heads,
        codec_ffn_dim=sizes.ffn_dim,
        codec_blocks=sizes.n_blocks,
        n_codes=sizes.n_codes,
        code_width=sizes.code_width,
        codec_extra_linear=sizes.extra_linear,
    )
