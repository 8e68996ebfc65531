# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune vocaset_wav2sem --data VOCASET --out work/face --wav2sem work/wav2sem`

FaceFormer's recipe on vertices: the encoder's transformer, the fusion and the host's network learn recorded motion, one
clip at a time. RUN/model is a folder that the extension loads.

Shapes: T animation frames, R memory frames, V vertices, X = 3V or parameters, N styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import given_features
from wav2sem_blender.pipeline.checkpoint import ModelConfig
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.joint_audio_text import JointNetwork
from wav2sem_blender.pipeline.official import save_on_keys

from ..datasets.closures import Closures
from ..datasets.face_data import FaceClip, FaceData
from ..datasets.opening import open_face_data
from ..evaluation.regions import find_regions
from ..runs.epochs import Epochs
from ..runs.run import Run, data_hash
from ..runs.stages import read_emotion, read_encoder, read_pretrained, read_prior, read_sentence_space, read_wav2sem
from .ablation import ablate_semantics
from .adapt import adapt_actor
from .examples import Example, Examples, example_for, remember
from .export import MODEL, provenance_of
from .face_recipes import AblateSemantics, AdaptActor, FinetuneChannels, FinetuneForced, FinetuneVertices
from .finetune_channels import finetune_channels
from .finetune_forced import finetune_forced


def finetune(
    config: FinetuneVertices | FinetuneChannels | FinetuneForced | AblateSemantics | AdaptActor,
    data: Path,
    run: Run,
    hubert: Path | None,
    wav2sem: Path | None,
    prior: Path | None = None,
) -> None:
    """Train the face model, or the models to compare, of an experiment.

    Raises:
        UserError: The command lacks an earlier run that the experiment needs.
    """
    if isinstance(config, FinetuneVertices):
        finetune_vertices(config, data, run, hubert, wav2sem, prior)
    elif isinstance(config, AdaptActor):
        adapt_actor(config, data, run, prior)
    elif isinstance(config, FinetuneForced):
        if prior is None:
            raise UserError("this experiment adds to a face: give --prior, a `finetune bundled` run or a model folder")
        finetune_forced(config, data, run, prior)
    elif hubert is None or wav2sem is None:
        raise UserError("this experiment fuses two trained encoders: give --hubert RUN and --wav2sem RUN")
    elif isinstance(config, AblateSemantics):
        ablate_semantics(config, data, run, hubert, wav2sem)
    else:
        finetune_channels(config, data, run, hubert, wav2sem)


def finetune_vertices(
    config: FinetuneVertices,
    data: Path,
    run: Run,
    hubert: Path | None,
    wav2sem: Path | None,
    prior: Path | None = None,
) -> None:
    """Train, and write RUN/model for `SpeechAnimator.load` and RUN/valid.json, the errors on held-out clips.

    Raises:
        MissingFileError: The data, an encoder or an earlier run is missing.
        UserError: The parts do not fit together, a clip cannot be used, or the loss is not finite.
    """
    faces = open_face_data(config.data, data)
    train = [clip for clip in faces.clips if clip.split in config.train_splits]
    valid = [clip for clip in faces.clips if clip.split == "valid"][: config.valid_clips]
    if not train:
        raise UserError(
            "{data}: there is no clip of the training split ({skipped})",
            data=data,
            skipped=dict(faces.skipped),
        )
    torch.manual_seed(config.seed)
    model = build_model(config, faces, hubert, wav2sem)
    freeze_prior(model, prior)
    faces.prepare(model.decoder)
    if isinstance(model.decoder, JointNetwork):
        model.decoder.weigh(find_regions(data, faces.topology, faces.n_vertices).upper.indices_R)
    model.decoder.prepare(lambda n_frames: faces.spaced_offsets(train, n_frames))
    closures = Closures(data) if config.closures else None
    examples = Examples(model, faces, run.device, closures)
    run.describe(
        closures="" if closures is None else closures.source,
        data_sha256=data_hash([*faces.files(), *examples.given_files()]),
        skipped=dict(faces.skipped),
        clips={"train": len(train), "valid": len(valid)},
        encoder=config.pretrained if hubert is None else "",
        hubert=str(hubert or ""),
        wav2sem=str(wav2sem or "") if config.semantics else "",
        prior=str(prior or ""),
        sentence_space=read_sentence_space(wav2sem) if config.semantics and wav2sem else {},
    )
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Fused: equal up to rounding, and several times as fast on a CPU.
    optimiser = torch.optim.AdamW(
        learnt,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    learner = run.learn(Learner(config, model), optimiser)
    epochs = Epochs([1] * len(train), run.rng, size=config.batch)
    thaws = config.frozen_epochs * len(epochs)
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
                raise UserError(
                    "step {step}, {clips}: the loss is {loss}; the last checkpoint is unchanged",
                    step=step,
                    clips=", ".join(clip.name for clip in part),
                    loss=loss.item(),
                )
            run.backward(loss)
        if step < thaws:
            model.audio_encoder.zero_grad()
        elif step == thaws > 0:
            optimiser.state.clear()
        run.update()
        epoch_ends = (step + 1) % len(epochs) == 0
        watched = {"valid_loss": validation_loss(model, examples, valid)} if epoch_ends and valid else {}
        run.log(step, epoch_ends, audio_s=heard_s * run.n_processes, **watched)
    if run.is_main:
        finish(model.eval(), examples, valid, run)


def build_model(config: FinetuneVertices, faces: FaceData, hubert: Path | None, wav2sem: Path | None) -> FaceModel:
    """The host with 3V outputs, its encoders loaded and frozen as published.

    Raises:
        UserError: The experiment fuses a Wav2Sem and none is given, or the other way round; or the host has no such
            frame rate.
    """
    if config.semantics and config.host.text_width:
        raise UserError("this host reads what is said itself: it is trained without a Wav2Sem")
    if config.semantics and wav2sem is None:
        raise UserError("this experiment fuses a Wav2Sem: give --wav2sem RUN")
    if not config.semantics and wav2sem is not None:
        raise UserError("this experiment has no semantics: leave --wav2sem out")
    encoder, weights = config.encoder, None
    if hubert is not None:
        encoder, weights = read_encoder(hubert)
    elif config.pretrained:
        encoder, weights = read_pretrained(config.pretrained, encoder.kind)
    sentences, sentence = read_wav2sem(wav2sem) if wav2sem is not None else (None, {})
    emotion, feeling = config.emotion, None
    if emotion is not None and config.emotion_weights:
        emotion, feeling = read_emotion(emotion, config.emotion_weights, faces.folder)
    host = config.host.at_rate(faces.fps)
    described = ModelConfig(
        name=f"{config.host.KIND}-{faces.name}",
        encoder=encoder,
        wav2sem=sentences,
        host=host,
        channels=(),
        styles=host.styles_of(faces.styles),
        topology=faces.topology,
        basis_unit=faces.unit,
        license=config.license,
        emotion=emotion,
    )
    model = FaceModel(described, faces.n_outputs)
    if model.emotion_encoder is not None and feeling is not None:
        model.emotion_encoder.load_state_dict(feeling)
    if weights is not None:
        model.audio_encoder.load_state_dict(weights)
    if config.frozen_layers:
        frozen = ("feature_projection.", *(f"encoder.layers.{i}." for i in range(config.frozen_layers)))
        for name, parameter in model.audio_encoder.named_parameters():
            if name.startswith(frozen):
                parameter.requires_grad_(False)
    if model.wav2sem is not None:
        try:
            model.wav2sem.load_state_dict(sentence)
        except RuntimeError as error:
            raise UserError(
                "{wav2sem}: its weights do not fit its own description ({error})",
                wav2sem=wav2sem,
                error=error,
            ) from error
    if encoder.kind != given_features.KIND:
        model.audio_encoder.feature_extractor.requires_grad_(False)
        if not config.mask_share:
            model.audio_encoder.masked_spec_embed.requires_grad_(False)
    return model


def freeze_prior(model: FaceModel, prior: Path | None) -> None:
    """Load what an earlier stage trained into the host's network, and freeze it.

    Raises:
        UserError: The host needs --prior and none is given, or the other way round; or its weights do not fit.
    """
    prefix = model.decoder.PRIOR
    if not prefix:
        if prior is not None:
            raise UserError("this host has one stage: leave --prior out")
        return
    if prior is None:
        raise UserError("this host is trained on an earlier stage: give --prior RUN, of `pretrain-prior`")
    theirs = {prefix + key: value for key, value in read_prior(prior).items()}
    ours = {key: value for key, value in model.decoder.state_dict().items() if key.startswith(prefix)}
    if {key: value.shape for key, value in theirs.items()} != {key: value.shape for key, value in ours.items()}:
        raise UserError("{prior}: its prior is of another host or data set; train one for this host", prior=prior)
    model.decoder.load_state_dict(theirs, strict=False)
    for name, parameter in model.decoder.named_parameters():
        if name.startswith(prefix):
            parameter.requires_grad_(False)


class Learner(nn.Module):
    """The model and its loss, for `Run.learn`."""

    def __init__(self, config: FinetuneVertices, model: FaceModel) -> None:
        super().__init__()
        self.config, self.model = config, model

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """The host's loss of the clips."""
        remembered = []
        for example in examples:
            memory_1RM = remember(self.model, example, self._masked(example.convolved))
            remembered.append(example_for(memory_1RM.float(), example, example.style_KN[:1]))
        # In full precision: rounding errors would be fed back frame after frame.
        with torch.autocast(remembered[0].memory_BRM.device.type, enabled=False):
            return self.model.decoder.batch_loss(remembered)

    def _masked(self, convolved: Tensor) -> Tensor | None:
        if not (self.training and self.config.mask_share):
            return None
        n_frames = convolved.shape[1]
        masked = mask_spans(n_frames, self.config.mask_share, self.config.mask_frames, self.config.min_masks)
        return masked.to(convolved.device)


def mask_spans(n_frames: int, share: float, length: int, at_least: int) -> Tensor:
    """SpecAugment in time as in wav2vec 2.0: bool (R,), drawn from torch's generator.

    The number of spans is `share` of the frames divided by `length`, rounded up or down at random. Their starts differ,
    but they may overlap.
    """
    wanted = max(at_least, int(share * n_frames / length + torch.rand(()).item()))
    length = min(length, n_frames)
    starts = torch.randperm(n_frames - length + 1)[:wanted]
    masked_R = torch.zeros(n_frames, dtype=torch.bool)
    masked_R[(starts[:, None] + torch.arange(length)).flatten()] = True
    return masked_R


@torch.no_grad()
def validation_loss(model: FaceModel, examples: Examples, clips: Sequence[FaceClip]) -> float:
    """Mean over clips and styles of the squared error with teacher forcing, as published."""
    model.eval()
    losses = []
    for example in map(examples, clips):
        losses.append(model.decoder.validation_loss(example_for(remember(model, example), example, example.style_KN)))
    return float(torch.stack(losses).mean())


def finish(model: FaceModel, examples: Examples, valid: Sequence[FaceClip], run: Run) -> None:
    """Write RUN/model, and RUN/valid.json with the errors of motion that is fed its own frames, as in the extension."""
    save_on_keys(run.folder / MODEL, replace(model.config, provenance=provenance_of(run)), model)
    if valid:
        run.report("valid", free_running_errors(model, examples, valid))


@torch.no_grad()
def free_running_errors(model: FaceModel, examples: Examples, clips: Sequence[FaceClip]) -> dict[str, float]:
    """Mean over clips and styles: `mse` of the vertices, and `max_error`, the mean over frames of the largest distance;
    of data that are parameters, of these.

    It uses the recorded number of frames, so it compares runs; `python -m trainer evaluate` gives the paper's table.
    """
    errors = []
    for example in map(examples, clips):
        memory_1RM = remember(model, example)
        for style_N in example.style_KN:
            predicted_TX = model.decoder.generate(memory_1RM, style_N[None])[0]
            off_TV3 = (predicted_TX - example.target_TX[: len(predicted_TX)]).unflatten(1, (-1, examples.point_width))
            errors.append(torch.stack([off_TV3.square().mean(), off_TV3.norm(dim=-1).amax(1).mean()]))
    mse, max_error = torch.stack(errors).mean(0).tolist()
    return {"clips": len(clips), "mse": mse, "max_error": max_error}
