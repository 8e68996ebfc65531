# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune vocaset_wav2sem --data VOCASET --out work/face --wav2sem work/wav2sem`

FaceFormer's recipe on vertices: the encoder's transformer, the fusion and the decoder learn recorded motion, one clip
at a time, fed with what they said a frame before. RUN/model is a folder that the extension loads.

What is frozen is computed once a clip: the CNN's features on the animation's grid, and the sentence vector.

Shapes: S samples, L encoder frames (50 Hz), T animation frames, R memory frames (T at 30 fps, 2T at 25 fps), C channels
of the CNN, E sentence space, V vertices, X = 3V, N styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import DecoderConfig, ModelConfig
from wav2sem_blender.pipeline.frame_timing import encoder_frames
from wav2sem_blender.pipeline.nn.encoders import contextualise, convolve, resample_features
from wav2sem_blender.pipeline.nn.faceformer import FaceFormer
from wav2sem_blender.pipeline.official import key_channels, vertices_to_keys

from ..datasets.face_data import FaceClip, FaceData
from ..datasets.opening import open_face_data
from ..experiments.face import AblateSemantics, FinetuneChannels, FinetuneVertices
from ..runs.epochs import Epochs
from ..runs.run import Run, data_hash
from ..runs.stages import read_encoder, read_pretrained, read_sentence_space, read_wav2sem
from ..speech.batches import normalise
from ..speech.prepared import SAMPLE_RATE_HZ
from .ablation import ablate_semantics
from .export import write_model
from .finetune_channels import finetune_channels


def finetune(
    config: FinetuneVertices | FinetuneChannels | AblateSemantics,
    data: Path,
    run: Run,
    hubert: Path | None,
    wav2sem: Path | None,
) -> None:
    """Train a face model by the recipe that the config belongs to, or many to compare them.

    Raises:
        ValueError: an earlier run that the experiment needs is missing from the command.
    """
    if isinstance(config, FinetuneVertices):
        finetune_vertices(config, data, run, hubert, wav2sem)
    elif hubert is None or wav2sem is None:
        raise UserError("this experiment fuses two trained encoders: give --hubert RUN and --wav2sem RUN")
    elif isinstance(config, AblateSemantics):
        ablate_semantics(config, data, run, hubert, wav2sem)
    else:
        finetune_channels(config, data, run, hubert, wav2sem)


def finetune_vertices(
    config: FinetuneVertices, data: Path, run: Run, hubert: Path | None, wav2sem: Path | None
) -> None:
    """Train; RUN/model is a folder that `SpeechAnimator.load` reads, RUN/valid.json its errors on held-out clips.

    Raises:
        FileNotFoundError: data, an encoder or an earlier run is missing.
        ValueError: the parts do not fit together, a clip cannot be used, or the loss is not a number.
    """
    faces = open_face_data(config.data, data)
    train = [clip for clip in faces.clips if clip.split == "train"]
    valid = [clip for clip in faces.clips if clip.split == "valid"][: config.valid_clips]
    if not train:
        raise UserError(
            "{data}: no clip of the training split is here ({dict})",
            data=data,
            dict=dict(faces.skipped),
        )
    torch.manual_seed(config.seed)
    model = build_model(config, faces, hubert, wav2sem)
    run.describe(
        data_sha256=data_hash(faces.files()),
        skipped=dict(faces.skipped),
        clips={"train": len(train), "valid": len(valid)},
        encoder=config.pretrained if hubert is None else "",
        hubert=str(hubert or ""),
        wav2sem=str(wav2sem or "") if config.semantics else "",
        sentence_space=read_sentence_space(wav2sem) if config.semantics and wav2sem else {},
    )
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # One kernel for the update: the same to rounding, several times as fast on a CPU.
    optimiser = torch.optim.Adam(learnt, lr=config.learning_rate, fused=True)
    learner = run.learn(Learner(config, model), optimiser)
    examples = Examples(model, faces, run.device)
    epochs = Epochs([1] * len(train), run.rng, size=config.batch)
    for step in run.steps(config.epochs * len(epochs)):
        learner.train()
        clips = [train[i] for i in epochs(step)]
        heard_s = 0.0
        for part in run.share(clips):
            some = [examples(clip) for clip in part]
            heard_s += sum(example.audio_s for example in some)
            with run.autocast():
                loss = learner(some)
            if not torch.isfinite(loss):
                names = ", ".join(clip.name for clip in part)
                raise UserError(
                    "step {step}, {names}: the loss is {item}; the last checkpoint is as it was",
                    step=step,
                    names=names,
                    item=loss.item(),
                )
            run.backward(loss)
        run.update()
        epoch_ends = (step + 1) % len(epochs) == 0
        watched = {"valid_loss": validation_loss(model, examples, valid)} if epoch_ends and valid else {}
        run.log(step, epoch_ends, audio_s=heard_s * run.n_processes, **watched)
    if run.is_main:
        finish(model.eval(), examples, valid, run)


def build_model(config: FinetuneVertices, faces: FaceData, hubert: Path | None, wav2sem: Path | None) -> FaceFormer:
    """FaceFormer with 3V outputs, its encoders loaded and frozen as published.

    Raises:
        ValueError: the experiment fuses a Wav2Sem and none is given, or the other way round.
    """
    if config.semantics != (wav2sem is not None):
        wanted = "fuses a Wav2Sem: give --wav2sem RUN" if config.semantics else "has no semantics: leave --wav2sem out"
        raise UserError("this experiment {wanted}", wanted=wanted)
    encoder, weights = config.encoder, None
    if hubert is not None:
        encoder, weights = read_encoder(hubert)
    elif config.pretrained:
        encoder, weights = read_pretrained(config.pretrained, encoder.kind)
    sentences, sentence = read_wav2sem(wav2sem) if wav2sem is not None else (None, {})
    described = ModelConfig(
        name=f"faceformer-{faces.name}",
        encoder=encoder,
        wav2sem=sentences,
        decoder=DecoderConfig(
            dim=config.dim,
            heads=config.heads,
            ffn_dim=2 * config.dim,
            period=faces.fps,
            fps=faces.fps,
            memory_per_frame=2 if faces.fps == 25 else 1,
            dropout=config.dropout,
        ),
        channels=key_channels(config.dim),
        styles=faces.styles,
        topology=faces.topology,
        basis_unit=faces.unit,
        license=config.license,
    )
    model = FaceFormer(described, 3 * faces.n_vertices)
    if weights is not None:
        model.audio_encoder.load_state_dict(weights)
    if model.wav2sem is not None:
        try:
            model.wav2sem.load_state_dict(sentence)
        except RuntimeError as error:
            raise UserError(
                "{wav2sem}: its weights do not fit its own description ({error})",
                wav2sem=wav2sem,
                error=error,
            ) from error
    model.audio_encoder.feature_extractor.requires_grad_(False)
    if not config.mask_share:
        model.audio_encoder.masked_spec_embed.requires_grad_(False)
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A clip on the device.

    `features_RC` are the CNN's, `semantic_11E` is F_s or None, `target_TX` the offsets from the template, `style_KN`
    the one-hot styles to predict it in: its own, or all of them for a subject that training does not know.
    """

    name: str
    features_RC: Tensor
    semantic_11E: Tensor | None
    target_TX: Tensor
    style_KN: Tensor
    audio_s: float


class Examples:
    """Clips made ready; what no training changes is computed once and kept."""

    def __init__(self, model: FaceFormer, faces: FaceData, device: torch.device) -> None:
        self._model, self._faces, self._device = model, faces, device
        self._kept: dict[str, tuple[Tensor, Tensor | None, float]] = {}

    def __call__(self, clip: FaceClip) -> Example:
        """Read a clip.

        Raises:
            ValueError: it cannot be used (see `FaceData`), or a training clip's subject has no style.
        """
        faces, styles = self._faces, self._faces.styles
        if clip.split == "train" and clip.subject not in styles:
            raise UserError(
                "{clip}: its subject {subject} is none of the styles ({styles})",
                clip=clip.name,
                subject=clip.subject,
                styles=", ".join(styles),
            )
        vertices_TV3 = faces.vertices(clip)
        if clip.name not in self._kept:
            self._kept[clip.name] = self._listen(faces.samples(clip), len(vertices_TV3))
        features_RC, semantic_11E, audio_s = self._kept[clip.name]
        target_TX = torch.from_numpy(vertices_TV3 - faces.template(clip.subject)).flatten(1)
        style_NN = torch.eye(len(styles), device=self._device)
        return Example(
            name=clip.name,
            features_RC=features_RC,
            semantic_11E=semantic_11E,
            target_TX=target_TX.to(self._device),
            style_KN=style_NN[[styles.index(clip.subject)]] if clip.subject in styles else style_NN,
            audio_s=audio_s,
        )

    @torch.no_grad()
    def _listen(self, samples_S: np.ndarray, n_anim_frames: int) -> tuple[Tensor, Tensor | None, float]:
        """The frozen parts' features (R, C), F_s (1, 1, E), and the duration."""
        model = self._model
        waveform = torch.from_numpy(normalise(samples_S))[None].to(self._device)
        positions_R = training_positions(encoder_frames(len(samples_S)), n_anim_frames, self._faces.fps)
        features_BLC = convolve(model.audio_encoder, waveform)
        positions = torch.from_numpy(positions_R).float()[None].to(self._device)
        features_RC = resample_features(features_BLC, positions)[0]
        return features_RC, model.semantics(waveform), len(samples_S) / SAMPLE_RATE_HZ


def training_positions(n_enc_frames: int, n_anim_frames: int, fps: int) -> np.ndarray:
    """Where, in encoder frames, a recorded clip's features are read: its own number of frames, as published.

    Training knows how many frames were recorded; inference counts them from the audio (`grid.feature_positions`).
    """
    if fps == 25:
        return np.arange(2 * n_anim_frames, dtype=np.float64)
    return np.linspace(0, n_enc_frames - 1, n_anim_frames)


class Learner(nn.Module):
    """The model and its loss, for `Run.learn`."""

    def __init__(self, config: FinetuneVertices, model: FaceFormer) -> None:
        super().__init__()
        self.config, self.model = config, model

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """Mean over the clips of the mean squared error of their vertices."""
        return torch.stack([self._loss(example) for example in examples]).mean()

    def _loss(self, example: Example) -> Tensor:
        masked_R = self._masked(len(example.features_RC))
        memory_BRM = remember(self.model, example, masked_R)
        decoder, style_BN, target_BTX = self.model.decoder, example.style_KN[:1], example.target_TX[None]
        # In full precision: rounding errors would be fed back frame after frame.
        with torch.autocast(memory_BRM.device.type, enabled=False):
            memory_BRM = memory_BRM.float()
            if self.config.feedback == "published":
                predicted_BTX = decoder.recomputed(memory_BRM, style_BN)
            else:
                teacher = target_BTX if self.config.feedback == "teacher" else None
                predicted_BTX = decoder(memory_BRM, style_BN, teacher)
            return F.mse_loss(predicted_BTX, target_BTX)

    def _masked(self, n_frames: int) -> Tensor | None:
        if not (self.training and self.config.mask_share):
            return None
        masked_R = mask_spans(n_frames, self.config.mask_share, self.config.mask_frames, self.config.min_masks)
        return masked_R.to(self.model.decoder.positions.device)


def mask_spans(n_frames: int, share: float, length: int, at_least: int) -> Tensor:
    """SpecAugment in time as wav2vec 2.0 has it: bool (R,), distinct starts; drawn from torch's generator.

    `share` of the frames over `length`, rounded up or down at random, is the number of spans; they may overlap.
    """
    wanted = max(at_least, int(share * n_frames / length + torch.rand(()).item()))
    length = min(length, n_frames)
    starts = torch.randperm(n_frames - length + 1)[:wanted]
    masked_R = torch.zeros(n_frames, dtype=torch.bool)
    masked_R[(starts[:, None] + torch.arange(length)).flatten()] = True
    return masked_R


def remember(model: FaceFormer, example: Example, masked_R: Tensor | None = None) -> Tensor:
    """Decoder memory (1, R, M) of a clip."""
    masked = None if masked_R is None else masked_R[None]
    hidden_BRD = contextualise(model.audio_encoder, example.features_RC[None], masked_BT=masked)
    return model.fusion(hidden_BRD, example.semantic_11E)


@torch.no_grad()
def validation_loss(model: FaceFormer, examples: Examples, clips: Sequence[FaceClip]) -> float:
    """Mean over clips and styles of the squared error with teacher forcing, as published."""
    model.eval()
    losses = []
    for example in map(examples, clips):
        memory_KRM = remember(model, example).expand(len(example.style_KN), -1, -1)
        target_KTX = example.target_TX.expand(len(example.style_KN), -1, -1)
        losses.append(F.mse_loss(model.decoder(memory_KRM, example.style_KN, target_KTX), target_KTX))
    return float(torch.stack(losses).mean())


def finish(model: FaceFormer, examples: Examples, valid: Sequence[FaceClip], run: Run) -> None:
    """Write RUN/model and, as an extension user would meet them, the errors of unguided motion."""
    on_keys, basis_KV3 = vertices_to_keys({key: value.detach().cpu() for key, value in model.state_dict().items()})
    write_model(run, model.config, on_keys, basis_KV3)
    if valid:
        run.report("valid", free_running_errors(model, examples, valid))


@torch.no_grad()
def free_running_errors(model: FaceFormer, examples: Examples, clips: Sequence[FaceClip]) -> dict[str, float]:
    """Mean over clips and styles: `mse` of the vertices and `max_error`, the mean over frames of the largest distance.

    The frames are the recorded ones, so this is for comparing runs; `python -m trainer evaluate` gives the table.
    """
    errors = []
    for example in map(examples, clips):
        memory_1RM = remember(model, example)
        for style_N in example.style_KN:
            off_TV3 = (model.decoder(memory_1RM, style_N[None])[0] - example.target_TX).unflatten(1, (-1, 3))
            errors.append(torch.stack([off_TV3.square().mean(), off_TV3.norm(dim=-1).amax(1).mean()]))
    mse, max_error = torch.stack(errors).mean(0).tolist()
    return {"clips": len(clips), "mse": mse, "max_error": max_error}
