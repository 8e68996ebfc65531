# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceDiffuser's denoiser (MIG 2023) in torch, with the published names, and its sampling without a vertex.

As published, every step runs the speech encoder again and moves all vertices. Neither is needed. The speech depends on
neither the noise nor the step. Of the motion x the network reads u = W x alone, and it predicts x = template + F h + b.
So u can be sampled instead of x: its prediction is (W F) h + W (template + b), and its noise has the covariance W W^T.
At the last step the sample is the prediction, and h gives the face. The motion has the published distribution; with W
times the same noise it is the published motion.

Shapes: B batch, T animation frames, R = 2 T memory frames, M width, U = 2 M inputs, N styles, X = 3V or K outputs, S
steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hosts import host_class
from .diffusion import cosine_betas, schedule
from .host_network import Example, HostNetwork, Progress
from .keys import OnKeys, head_on_keys
from .published import loaded, need, own_weights

if TYPE_CHECKING:
    from ..hosts.facediffuser import FaceDiffuser

LARGEST_BETA = 0.999
CONVOLUTION = 9
LOST = 1e-3
"""Share of the motion, root mean square, that a model on keys may lose."""
NOT_OURS = ("audio_encoder.",)
TEMPLATES = "templates_NX"
_PROGRESS_S = 0.2


class FaceDiffuserNetwork(HostNetwork):
    """From the memory to offsets or channel weights.

    Attributes:
        templates_NX: The neutral face of each style's subject, which `loss` learns from its examples. In the folded
            form `rest_NU` instead, which is W (template + b), and `noise_UU`, whose square is W W^T.
    """

    templates_NX: Tensor
    rest_NU: Tensor
    noise_UU: Tensor

    def __init__(self, config: FaceDiffuser, n_outputs: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        width, n_inputs = config.dim, config.dim if config.folded else n_outputs
        self.cond_projection = nn.Linear(2 * config.audio_dim, width)
        convolution = nn.Conv1d(1, 1, CONVOLUTION, padding=CONVOLUTION // 2)
        self.input_projection = nn.Sequential(nn.Linear(n_inputs, 2 * width), convolution)
        self.time_mlp = nn.Sequential(nn.Linear(config.steps, width), nn.Mish())
        self.norm_cond = nn.LayerNorm(3 * width)
        self.gru = nn.GRU(3 * width, width, num_layers=2, batch_first=True, dropout=config.dropout)
        self.final_layer = nn.Linear(width, n_outputs)
        nn.init.zeros_(self.final_layer.weight)
        nn.init.zeros_(self.final_layer.bias)
        self.obj_vector = nn.Linear(n_styles, width, bias=False)
        if config.folded:
            self.register_buffer("rest_NU", torch.zeros(n_styles, 2 * width))
            self.register_buffer("noise_UU", torch.zeros(2 * width, 2 * width))
        else:
            self.register_buffer(TEMPLATES, torch.zeros(n_styles, n_outputs))
        self._exact: dict[str, Tensor] = {}  # what a face's part in u is computed from
        self.schedule = schedule(cosine_betas(config.steps, LARGEST_BETA))

    @property
    def input_layer(self) -> nn.Linear:
        """W, of vertices; in the folded form W F, of the network's own features."""
        layer = self.input_projection[0]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def log_variance_S(self) -> Tensor:
        """Logarithm of the variance of each step's noise, float64: the posterior's, but at step 0 that of step 1."""
        variance_S = self.schedule["posterior_variance"]
        return torch.cat([variance_S[1:2], variance_S[1:]]).log()

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """As `generate`, with the seed 0. Motion is never fed back, so a target changes nothing."""
        return self.generate(memory_BRM, style_BN)

    @torch.no_grad()
    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Sampled motion (B, T, X): offsets from the template of the style's subject, or channel weights.

        The noise is drawn on the CPU, so that a seed means the same on every device.
        """
        fold_UM, rest_NU, noise_UU = self.folded()
        generator = torch.Generator().manual_seed(seed)
        shape = len(memory_BRM), memory_BRM.shape[1] // 2, len(noise_UU)

        def noises() -> Iterator[Tensor]:
            while True:
                yield torch.randn(shape, generator=generator).to(memory_BRM) @ noise_UU.T

        return self.final_layer(self.sample(memory_BRM, style_BN, fold_UM, rest_NU, noises(), progress))

    @torch.no_grad()
    def sample(
        self,
        memory_BRM: Tensor,
        style_BN: Tensor,
        fold_UM: Tensor,
        rest_NU: Tensor,
        noises: Iterator[Tensor],
        progress: Progress | None = None,
    ) -> Tensor:
        """What the last layer reads (B, T, M), after all steps.

        Args:
            memory_BRM: F_p + FC(F_s), two frames for each animation frame.
            style_BN: Weights of the styles.
            fold_UM, rest_NU: Of `folded`.
            noises: Noise of u (B, T, U): of the start, and of every step but the last, which has none.
            progress: Called a few times a second.
        """
        audio_BTM, rest_B1U = self._audio(memory_BRM), (style_BN @ rest_NU)[:, None]
        of_prediction_S, of_state_S = (self.schedule[f"posterior_mean_coef{i}"].tolist() for i in (1, 2))
        spread_S = (self.log_variance_S / 2).exp().tolist()
        state_BTU, told_at = next(noises), time.monotonic()
        hidden_BTM = audio_BTM
        if audio_BTM.shape[1] == 0:
            return audio_BTM
        for step in reversed(range(self.config.steps)):
            step_B = torch.full((len(memory_BRM),), step, device=memory_BRM.device)
            hidden_BTM = self._denoised(state_BTU, step_B, audio_BTM, style_BN)
            if step == 0:
                break
            predicted_BTU = F.linear(hidden_BTM, fold_UM) + rest_B1U
            state_BTU = of_prediction_S[step] * predicted_BTU + of_state_S[step] * state_BTU
            state_BTU = state_BTU + spread_S[step] * next(noises)
            if progress and time.monotonic() - told_at > _PROGRESS_S:
                told_at = time.monotonic()
                progress(1 - step / self.config.steps)
        return hidden_BTM

    def denoise(
        self, noised_BTX: Tensor, step_B: Tensor, memory_BRM: Tensor, style_BN: Tensor, template_BX: Tensor
    ) -> Tensor:
        """The published network: the face (B, T, X), predicted from the noised face at a step of the diffusion."""
        state_BTU = F.linear(noised_BTX, self.input_layer.weight)
        hidden_BTM = self._denoised(state_BTU, step_B, self._audio(memory_BRM), style_BN)
        return self.final_layer(hidden_BTM) + template_BX[:, None]

    def noised(self, face_BTX: Tensor, step_B: Tensor, noise_BTX: Tensor) -> Tensor:
        """The face at a step of the diffusion."""
        kept_B, added_B = (
            self.schedule[name][step_B.cpu()].to(face_BTX)
            for name in ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
        )
        return kept_B[:, None, None] * face_BTX + added_B[:, None, None] * noise_BTX

    def loss(self, example: Example) -> Tensor:
        """Huber's loss of the face, predicted from one that is noised to a random step."""
        assert example.template_BX is not None, "FaceDiffuser learns faces, not offsets"
        with torch.no_grad():
            for style_N, template_X in zip(example.style_BN, example.template_BX, strict=True):
                self.templates_NX[style_N.argmax()] = template_X
        return self._loss_at_random(example, None)

    def validation_loss(self, example: Example) -> Tensor:
        """As `loss`, with the same noise and steps every time."""
        return self._loss_at_random(example, torch.Generator().manual_seed(0))

    def loss_at(self, example: Example, step_B: Tensor, noise_BTX: Tensor) -> Tensor:
        """Huber's loss at given steps and with given noise. Motion and speech are cut to the shorter."""
        assert example.template_BX is not None, "FaceDiffuser learns faces, not offsets"
        n_frames = min(example.target_BTX.shape[1], example.memory_BRM.shape[1] // 2)
        face_BTX = (example.target_BTX + example.template_BX[:, None])[:, :n_frames]
        predicted_BTX = self.denoise(
            self.noised(face_BTX, step_B, noise_BTX[:, :n_frames]),
            step_B,
            example.memory_BRM[:, : 2 * n_frames],
            example.style_BN,
            example.template_BX,
        )
        return F.huber_loss(predicted_BTX, face_BTX)

    def _loss_at_random(self, example: Example, generator: torch.Generator | None) -> Tensor:
        target_BTX = example.target_BTX
        step_B = torch.randint(self.config.steps, (len(target_BTX),), generator=generator)
        noise_BTX = torch.randn(target_BTX.shape, generator=generator)
        return self.loss_at(example, step_B.to(target_BTX.device), noise_BTX.to(target_BTX))

    def _audio(self, memory_BRM: Tensor) -> Tensor:
        """The speech (B, T, M), of pairs of memory frames."""
        return self.cond_projection(memory_BRM.unflatten(1, (-1, 2)).flatten(2))

    def _denoised(self, state_BTU: Tensor, step_B: Tensor, audio_BTM: Tensor, style_BN: Tensor) -> Tensor:
        """What the last layer reads (B, T, M). `state_BTU` is the input layer's product, without its bias."""
        inputs_BTU = state_BTU + self.input_layer.bias
        convolved = self.input_projection[1](inputs_BTU.flatten(0, 1)[:, None])
        face_BTM = F.max_pool1d(F.relu(convolved), 2).view_as(audio_BTM)
        time_BM = self.time_mlp(F.one_hot(step_B, self.config.steps).to(audio_BTM))
        together = torch.cat([audio_BTM, face_BTM, time_BM[:, None].expand_as(audio_BTM)], -1)
        return self.gru(self.norm_cond(together))[0] * self.obj_vector(style_BN)[:, None]

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """W F (U, M), W (template + b) of every style (N, U), and a root (U, U) of the noise's covariance W W^T."""
        weight_UX: Tensor = self.input_layer.weight
        if self.config.folded:
            return weight_UX, self.rest_NU, self.noise_UU
        exact = (weight_UX, self.final_layer.weight, self.final_layer.bias, self.templates_NX)
        weight_UX, head_XM, bias_X, templates_NX = (value.detach().cpu().double() for value in exact)
        # By eigenvectors, as W W^T may be singular: with fewer vertices than inputs it is.
        strength_U, vectors_UU = torch.linalg.eigh(weight_UX @ weight_UX.T)
        noise_UU = vectors_UU * strength_U.clamp(min=0).sqrt()
        parts = weight_UX @ head_XM, (templates_NX + bias_X) @ weight_UX.T, noise_UU
        fold_UM, rest_NU, noise_UU = (part.to(self.templates_NX) for part in parts)
        return fold_UM, rest_NU, noise_UU

    @torch.no_grad()
    def move_face(self, template_X: Tensor, published: Callable[[], Mapping[str, Tensor]]) -> None:
        """As `HostNetwork`: in every style."""
        if not self.config.folded:
            self.templates_NX.copy_(template_X)
            return
        if not self._exact:
            self._exact = dict(published())
        weight_UX, bias_X = (self._exact[name].double() for name in ("input_projection.0.weight", "final_layer.bias"))
        self.rest_NU.copy_(weight_UX @ (template_X.double() + bias_X))

    @torch.no_grad()
    def on_keys(self) -> OnKeys:
        """The columns of the last layer and its bias, rotated, without those that make less than `LOST` of the motion.

        A recurrent layer's outputs lie in -1 to 1, and the style scales them.
        """
        largest_M = self.obj_vector.weight.abs().amax(1).cpu()
        weight_XM, bias_X = self.final_layer.weight.cpu(), self.final_layer.bias.cpu()
        scaled_XM = (weight_XM * largest_M).double()
        energy_M = torch.linalg.eigvalsh(scaled_XM.T @ scaled_XM).flip(0).clamp(min=0).cumsum(0)
        n_keys = int((energy_M < (1 - LOST**2) * energy_M[-1]).sum()) + 1
        head = head_on_keys(weight_XM, bias_X, largest_M, bound=math.sqrt(self.config.dim), max_keys=n_keys)
        fold_UM, rest_NU, noise_UU = self.folded()
        state = {name: value for name, value in self.state_dict().items() if name != TEMPLATES}
        exact = ("input_projection.0.weight", "final_layer.weight", "final_layer.bias")
        published = {name: state[name] for name in exact}
        state |= {"input_projection.0.weight": fold_UM, "rest_NU": rest_NU, "noise_UU": noise_UU}
        state |= {"final_layer.weight": head.weight_KM, "final_layer.bias": head.bias_K}
        host = replace(self.config, folded=True)
        return OnKeys(host, state, head.channels, head.basis_KV3, head.error, published)


def from_published(kind: str, state: Mapping[str, Tensor]) -> FaceDiffuserNetwork:
    """The network of a released file, whose sizes are those of its weights. Its templates are 0.

    Raises:
        UserError: The weights are not FaceDiffuser's; the message names one.
    """
    own = own_weights(state, "", NOT_OURS)
    dim, n_inputs = need(own, "cond_projection.weight").shape
    settings = cast("type[FaceDiffuser]", host_class("facediffuser"))
    steps, fps = need(own, "time_mlp.0.weight").shape[1], 25 if kind.endswith("biwi") else 30
    host = settings(dim=dim, steps=steps, fps=fps, audio_dim=n_inputs // 2)
    n_outputs, n_styles = len(need(own, "final_layer.weight")), need(own, "obj_vector.weight").shape[1]
    network = FaceDiffuserNetwork(host, n_outputs, n_styles)
    return loaded(network, own | {TEMPLATES: network.templates_NX})
