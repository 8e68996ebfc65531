# SPDX-License-Identifier: GPL-3.0-or-later
"""The motion codec that is stage 1 of CodeTalker, LG-LDM, ProbTalk3D and LSF-Animation.

It turns motion into latents, takes the nearest rows of a codebook, and turns those into motion again. Modules have the
published names, so a published state dict loads as it is.

Shapes: B batch, T animation frames, X motion (3V vertices or parameters), M width, H heads, Z latent width, C code
width, Q codes, N rows of the codebook, E emotions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMMITMENT = 0.25
ROWS_OF_AN_EMOTION = 256
SMALLEST_PUBLISHED = 256
VERTICES = ("vertice_mapping", "vertice_map_reverse")
PARAMETERS = ("feature_mapping", "feature_mapping_reverse")


def sinusoid(n_rows: int, width: int) -> Tensor:
    """The positional encoding (n, M): sines in even columns, cosines in odd ones."""
    position = torch.arange(n_rows, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    table = torch.zeros(n_rows, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table


class Squasher(nn.Sequential):
    """A convolution over 5 frames, then every channel's mean and variance over time removed: two frames at least."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv1d(width, width, 5, padding=2, padding_mode="replicate"),
            nn.LeakyReLU(0.2),
            nn.InstanceNorm1d(width, affine=False),
        )

    def forward(self, x_BTM: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x_BTM.transpose(1, 2)).transpose(1, 2)


class LinearEmbedding(nn.Module):
    """A linear layer under the name `net`."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Linear(n_inputs, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_outputs)."""
        return self.net(x)


class _Attention(nn.Module):
    """Self-attention over all frames; scores are divided by the root of the whole width, not of a head's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x_BTM: Tensor, n_last: int = 0) -> Tensor:
        """(B, T, M), or of the last `n_last` frames alone."""
        width = x_BTM.shape[-1]
        query, key, value = self.to_qkv(x_BTM).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        query = query[:, :, -n_last:]  # all of them for 0
        mixed_BHTd = F.scaled_dot_product_attention(query, key, value, scale=width**-0.5)
        return self.to_out(mixed_BHTd.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, ffn_dim: int) -> None:
        super().__init__()
        self.l1 = nn.Linear(width, ffn_dim)
        self.l2 = nn.Linear(ffn_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.l2(F.gelu(self.l1(x), approximate="tanh"))


class _PreNorm(nn.Module):
    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = layer

    def forward(self, x_BTM: Tensor, *last: int) -> Tensor:
        return self.fn(self.norm(x_BTM), *last)


class _Residual(nn.Module):
    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn = _PreNorm(width, layer)

    def forward(self, x_BTM: Tensor, *last: int) -> Tensor:
        """The same shape, or of the `last` frames alone."""
        return (x_BTM[:, -last[0] :] if last else x_BTM) + self.fn(x_BTM, *last)


class CodecStack(nn.Module):
    """Pre-norm transformer blocks without masks and dropout. `net.{2j}` is the attention of block j, `net.{2j+1}` its
    MLP."""

    def __init__(self, width: int, heads: int, ffn_dim: int, n_blocks: int) -> None:
        super().__init__()
        self.net = nn.ModuleList()
        for _ in range(n_blocks):
            for layer in (_Attention(width, heads), _Mlp(width, ffn_dim)):
                self.net.append(_Residual(width, layer))

    def forward(self, x_BTM: Tensor, n_last: int | None = None) -> Tensor:
        """The same shape, or the last `n_last` frames alone, for which the last block computes no others."""
        for index, layer in enumerate(self.net):
            is_last_attention = index == len(self.net) - 2
            x_BTM = layer(x_BTM, n_last) if n_last is not None and is_last_attention else layer(x_BTM)
        return x_BTM


@dataclass(frozen=True, kw_only=True)
class CodecSizes:
    """The sizes of a codec; the defaults are CodeTalker's for VOCASET.

    Attributes:
        n_outputs: X.
        latent: Z, a multiple of the code width.
        n_codes: N.
        extra_linear: One linear layer more on either side of the latents (CodeTalker's class for BIWI).
        head_bias: Whether the last layer has a bias.
        emotions: E; above 0 each has `ROWS_OF_AN_EMOTION` rows of the codebook (LG-LDM's class for MEAD).
        by_time: Positions count frames. False: every frame has row 0, since the published code reads the batch index.
        prefix: Before `encoder` and `decoder`.
        layers: Names of the first and the last layer.
    """

    n_outputs: int
    width: int = 1024
    heads: int = 8
    ffn_dim: int = 1536
    n_blocks: int = 6
    latent: int = 1024
    n_codes: int = 256
    code_width: int = 64
    extra_linear: bool = False
    head_bias: bool = True
    emotions: int = 0
    by_time: bool = False
    prefix: str = ""
    layers: tuple[str, str] = VERTICES

    @classmethod
    def of(cls, state: Mapping[str, Tensor], *, by_time: bool = False) -> CodecSizes:
        """The sizes of a published codec; KeyError names what it lacks.

        Positions and heads leave no trace in it: all published ones have 8 heads, and golden values come from models
        of less width with 4.
        """
        prefix = "motion_" if any(key.startswith("motion_encoder.") for key in state) else ""
        layers = PARAMETERS if prefix else VERTICES
        encoder, decoder = f"{prefix}encoder", f"{prefix}decoder"
        width, n_outputs = state[f"{encoder}.{layers[0]}.0.weight"].shape
        blocks = [key for key in state if key.startswith(f"{encoder}.encoder_transformer.net.") and "to_qkv" in key]
        latent_key = f"{encoder}.encoder_linear_embedding_post.net.weight"
        n_codes, code_width = state["quantize.embedding.weight"].shape
        emotion = state.get(f"{encoder}.emotion_mapping.0.weight")
        return cls(
            n_outputs=n_outputs,
            width=width,
            heads=8 if width >= SMALLEST_PUBLISHED else 4,
            ffn_dim=len(state[f"{encoder}.encoder_transformer.net.1.fn.fn.l1.weight"]),
            n_blocks=len(blocks),
            latent=len(state.get(latent_key, state[f"{encoder}.encoder_linear_embedding.net.weight"])),
            n_codes=n_codes,
            code_width=code_width,
            extra_linear=latent_key in state,
            head_bias=f"{decoder}.{layers[1]}.bias" in state,
            emotions=0 if emotion is None else emotion.shape[1],
            by_time=by_time,
            prefix=prefix,
            layers=layers,
        )

    def stack(self) -> CodecStack:
        """A transformer of these sizes."""
        return CodecStack(self.width, self.heads, self.ffn_dim, self.n_blocks)

    def positions(self, x_BTM: Tensor) -> Tensor:
        """What is added to every frame (T or 1, M)."""
        return sinusoid(x_BTM.shape[1] if self.by_time else 1, self.width).to(x_BTM)


class CodecEncoder(nn.Module):
    """Motion to latents."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.add_module(sizes.layers[0], nn.Sequential(nn.Linear(sizes.n_outputs, sizes.width), nn.LeakyReLU(0.2)))
        if sizes.emotions:
            self.emotion_mapping = nn.Sequential(nn.Linear(sizes.emotions, sizes.width), nn.LeakyReLU(0.2))
        self.squasher = nn.Sequential(Squasher(sizes.width))
        self.encoder_transformer = sizes.stack()
        width = sizes.width if sizes.extra_linear else sizes.latent
        self.encoder_linear_embedding = LinearEmbedding(sizes.width, width)
        if sizes.extra_linear:
            self.encoder_linear_embedding_post = LinearEmbedding(sizes.width, sizes.latent)

    def forward(self, motion_BTX: Tensor, emotion_BE: Tensor | None = None) -> Tensor:
        """(B, T, Z). `emotion_BE` is one-hot, for a codec that has emotions."""
        x_BTM = self.get_submodule(self.sizes.layers[0])(motion_BTX)
        if emotion_BE is not None:
            x_BTM = x_BTM + self.emotion_mapping(emotion_BE)[:, None]
        x_BTM = self.encoder_linear_embedding(self.squasher(x_BTM))
        x_BTM = self.encoder_transformer(x_BTM + self.sizes.positions(x_BTM))
        return self.encoder_linear_embedding_post(x_BTM) if self.sizes.extra_linear else x_BTM


class CodecDecoder(nn.Module):
    """Quantised latents to motion."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        self.sizes = sizes
        if sizes.extra_linear:
            self.decoder_linear_embedding_pre = LinearEmbedding(sizes.latent, sizes.width)
        self.expander = nn.Sequential(Squasher(sizes.width))
        self.decoder_transformer = sizes.stack()
        self.decoder_linear_embedding = LinearEmbedding(sizes.width, sizes.width)
        self.add_module(sizes.layers[1], nn.Linear(sizes.width, sizes.n_outputs, bias=sizes.head_bias))

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        layer = self.get_submodule(self.sizes.layers[1])
        assert isinstance(layer, nn.Linear)
        return layer

    def hidden(self, latent_BTZ: Tensor, n_last: int | None = None) -> Tensor:
        """What the last layer reads (B, T, M), or of the last `n_last` frames alone."""
        x_BTM = self.decoder_linear_embedding_pre(latent_BTZ) if self.sizes.extra_linear else latent_BTZ
        x_BTM = self.decoder_linear_embedding(self.expander(x_BTM))
        return self.decoder_transformer(x_BTM + self.sizes.positions(x_BTM), n_last)

    def forward(self, latent_BTZ: Tensor) -> Tensor:
        """(B, T, X)."""
        return self.head(self.hidden(latent_BTZ))


class VectorQuantiser(nn.Module):
    """The nearest rows of a codebook, by Euclidean distance; of equally near ones the first.

    Latents of any shape are cut, in the order of memory, into pieces of C values. For ProbTalk3D and LSF pass
    (B, Z, T): their code is a run of moments of one channel.
    """

    def __init__(self, n_codes: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_codes, code_width)
        nn.init.uniform_(self.embedding.weight, -1 / n_codes, 1 / n_codes)

    def distances(self, latent: Tensor, emotion: int | None = None) -> Tensor:
        """Squared distances (Q, N) of the pieces to the rows, or to the rows of an emotion."""
        rows_NC = self._rows(emotion)
        pieces_QC = latent.reshape(-1, rows_NC.shape[1])
        squares = pieces_QC.square().sum(1, keepdim=True) + rows_NC.square().sum(1)
        return squares - 2 * pieces_QC @ rows_NC.T

    def codes(self, latent: Tensor, emotion: int | None = None) -> Tensor:
        """Rows of the codebook (Q,), counted from the first of the emotion."""
        return self.distances(latent, emotion).argmin(1)

    def lookup(self, codes_Q: Tensor, like: Tensor, emotion: int | None = None) -> Tensor:
        """The rows of these codes, in the shape of `like`."""
        return F.embedding(codes_Q, self._rows(emotion)).reshape(like.shape)

    def forward(self, latent: Tensor, emotion: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantised latents, through which gradients pass as if nothing had happened; codes (Q,); and the loss that
        draws rows and latents together."""
        codes_Q = self.codes(latent, emotion)
        quantised = self.lookup(codes_Q, latent, emotion)
        loss = F.mse_loss(quantised, latent.detach()) + COMMITMENT * F.mse_loss(quantised.detach(), latent)
        return latent + (quantised - latent).detach(), codes_Q, loss

    def _rows(self, emotion: int | None) -> Tensor:
        weight = self.embedding.weight
        return weight if emotion is None else weight[ROWS_OF_AN_EMOTION * emotion :][:ROWS_OF_AN_EMOTION]


class Codec(nn.Module):
    """Encoder, codebook and decoder: stage 1. Motion is an offset from the neutral face, or parameters."""

    def __init__(self, sizes: CodecSizes, *, has_encoder: bool = True) -> None:
        super().__init__()
        self.sizes = sizes
        if has_encoder:
            self.add_module(f"{sizes.prefix}encoder", CodecEncoder(sizes))
        self.add_module(f"{sizes.prefix}decoder", CodecDecoder(sizes))
        self.quantize = VectorQuantiser(sizes.n_codes, sizes.code_width)

    def encode(self, motion_BTX: Tensor, emotion_BE: Tensor | None = None) -> Tensor:
        """Latents before the codebook (B, T, Z)."""
        return self.get_submodule(f"{self.sizes.prefix}encoder")(motion_BTX, emotion_BE)

    def loss(self, motion_BTX: Tensor, emotion_BE: Tensor | None = None, emotion: int | None = None) -> Tensor:
        """The published training loss: mean absolute error of the motion, and the codebook's."""
        quantised_BTZ, _, codebook = self.quantize(self.encode(motion_BTX, emotion_BE), emotion)
        return F.l1_loss(self.motion_from(quantised_BTZ), motion_BTX) + codebook

    @property
    def motion_from(self) -> CodecDecoder:
        """The decoder."""
        decoder = self.get_submodule(f"{self.sizes.prefix}decoder")
        assert isinstance(decoder, CodecDecoder)
        return decoder
