# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune imitator_adapt --data DATA --out work/actor --prior work/imitator/model`

Imitator's adaptation to an actor from a few clips: first the actor's style is learnt, then the style and the last
layer. The decoder's features depend on neither, so they are computed once. (The released code also keeps them, with the
dropout of the first pass; ours have none.)

Shapes: T animation frames, R memory frames, M decoder width, N styles, X = 3V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.engine_torch import load_state
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.imitator import ImitatorNetwork
from wav2sem_blender.pipeline.official import save_on_keys

from ..datasets.face_data import FaceClip, FaceData
from ..datasets.opening import open_face_data
from ..runs.epochs import Epochs
from ..runs.run import Run, data_hash
from ..speech.batches import normalise
from .export import MODEL, provenance_of
from .face_recipes import AdaptActor


class Actor(nn.Module):
    """The network's style and motion decoder, on features of the actor's clips.

    As published, the epoch counts in the end whose loss of held-out clips is the least. Its weights are buffers, so
    that a stopped run continues with them.

    Attributes:
        learnt: The style's layer, and the last layer's weight and bias.
    """

    least: Tensor

    def __init__(self, network: ImitatorNetwork, style: int) -> None:
        super().__init__()
        self.network = network
        self.learnt = [network.obj_vector.weight, *network.vertice_map_r.head.parameters()]
        self.style_1N = torch.eye(network.obj_vector.in_features, device=self.learnt[0].device)[[style]]
        self.register_buffer("least", torch.tensor(torch.inf))
        for i, parameter in enumerate(self.learnt):
            self.register_buffer(f"best_{i}", parameter.detach().clone())

    @torch.no_grad()
    def watch(self, clips: Sequence[tuple[Tensor, Tensor]]) -> float:
        """The loss of held-out clips; the weights are kept if it is the least."""
        loss = self(clips)
        if loss < self.least:
            self.least.copy_(loss)
            for i, parameter in enumerate(self.learnt):
                self.get_buffer(f"best_{i}").copy_(parameter)
        return float(loss)

    @torch.no_grad()
    def take_best(self) -> None:
        """Set the weights to those of the least loss."""
        for i, parameter in enumerate(self.learnt):
            parameter.copy_(self.get_buffer(f"best_{i}"))

    def forward(self, clips: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Mean loss of clips: features (1, T, M) and offsets (1, T, X)."""
        style_1M = self.network.obj_vector(self.style_1N)
        losses = [
            self.network.motion_loss(self.network.vertice_map_r(features_1TM, style_1M), target_1TX)
            for features_1TM, target_1TX in clips
        ]
        return torch.stack(losses).mean()


def adapt_actor(config: AdaptActor, data: Path, run: Run, general: Path | None) -> None:
    """Train, and write RUN/model, in which the actor has the place of `config.start_style`, and RUN/valid.json.

    That has the loss of the held-out clips before, and the least, whose weights the model has.

    Raises:
        MissingFileError: The data or the general model is missing.
        UserError: The model is not Imitator's, or of other vertices; there is no such style; or the clips are too few.
    """
    if general is None:
        raise UserError("adaptation starts from a general model of Imitator: give --prior MODEL")
    faces = open_face_data(config.data, data)
    subject, clips = _clips(config, faces)
    model, style = _general_model(general, faces, config.start_style)
    network = model.decoder
    assert isinstance(network, ImitatorNetwork)
    run.describe(
        data_sha256=data_hash(faces.files()), subject=subject, clips=[clip.name for clip in clips], prior=str(general)
    )
    model.eval().requires_grad_(False).to(run.device)
    heard = [_heard(model, faces, clip, run.device) for clip in clips]
    train, valid = heard[: config.train_clips], heard[config.train_clips :]
    actor = Actor(network, style)
    for parameter in actor.learnt:
        parameter.requires_grad_(True)
    # In the first stage the last layer has a rate of 0.
    groups: list[dict[str, Any]] = [{"params": actor.learnt[:1]}, {"params": actor.learnt[1:], "lr": 0.0}]
    optimiser = torch.optim.Adam(groups, lr=config.learning_rate)
    with torch.no_grad():
        before = float(actor(valid))
    learner = run.learn(actor, optimiser)
    epochs = Epochs([1] * len(train), run.rng)
    first_steps, last_steps = (count * len(epochs) for count in config.epochs)
    for step in run.steps(first_steps + last_steps):
        if step == first_steps:
            # As published, the second stage is a training of its own.
            actor.take_best()
            optimiser.state.clear()
        optimiser.param_groups[1]["lr"] = config.learning_rate if step >= first_steps else 0.0
        chosen = [train[i] for i in epochs(step)]
        for part in run.share(chosen):
            run.backward(learner(part))
        run.update()
        epoch_ends = (step + 1) % len(epochs) == 0
        watched = {"valid_loss": actor.watch(valid)} if epoch_ends else {}
        run.log(step, epoch_ends, audio_s=sum(len(target_1TX[0]) for _, target_1TX in chosen) / faces.fps, **watched)
    if run.is_main:
        actor.take_best()
        styles = tuple(subject if i == style else name for i, name in enumerate(model.config.styles))
        described = replace(model.config, name=f"imitator-{subject}", styles=styles, provenance=provenance_of(run))
        save_on_keys(run.folder / MODEL, described, model)
        run.report("valid", {"before": before, "adapted": float(actor.least)})


@torch.no_grad()
def _heard(model: FaceModel, faces: FaceData, clip: FaceClip, device: torch.device) -> tuple[Tensor, Tensor]:
    """A clip's features (1, T, M) and offsets (1, T, X)."""
    vertices_TV3, samples_S = faces.vertices(clip), faces.samples(clip)
    waveform_1S = torch.from_numpy(normalise(samples_S))[None].to(device)
    positions_R = model.config.host.grid.positions(len(samples_S), len(vertices_TV3))
    positions_1R = torch.from_numpy(positions_R).float()[None].to(device)
    memory_1RM = model.memory(waveform_1S, positions_1R, model.semantics(waveform_1S))
    target_TX = torch.from_numpy(vertices_TV3 - faces.template(clip.subject)).flatten(1)
    assert isinstance(model.decoder, ImitatorNetwork)
    return model.decoder.features(memory_1RM), target_TX[None].to(device)


def _clips(config: AdaptActor, faces: FaceData) -> tuple[str, list[FaceClip]]:
    """The actor and the clips, those that are learnt first."""
    subjects = sorted({clip.subject for clip in faces.clips})
    subject = config.subject or (subjects[0] if len(subjects) == 1 else "")
    if subject not in subjects:
        raise UserError(
            "the data have the subjects {subjects}; set `subject` of the experiment to one of them",
            subjects=", ".join(subjects),
        )
    wanted = config.train_clips + config.valid_clips
    clips = [clip for clip in faces.clips if clip.subject == subject][:wanted]
    if len(clips) < wanted:
        raise UserError(
            "{subject} has {found} clips; {train} are learnt and {valid} held out",
            subject=subject,
            found=len(clips),
            train=config.train_clips,
            valid=config.valid_clips,
        )
    return subject, clips


def _general_model(path: Path, faces: FaceData, start_style: str) -> tuple[FaceModel, int]:
    """The model with 3V outputs, and the number of the style whose place the actor takes."""
    folder = ModelFolder.open(path)
    config, basis_KV3 = folder.config, folder.basis()
    on_keys = FaceModel(config)
    state = load_state(folder)
    on_keys.load_state_dict(state)
    if not isinstance(on_keys.decoder, ImitatorNetwork) or basis_KV3 is None:
        raise UserError("{model}: a model of {kind}; adaptation is Imitator's", model=path, kind=config.host.KIND)
    if basis_KV3.shape[1] != faces.n_vertices or config.host.grid.fps != faces.fps:
        raise UserError(
            "{model}: {n_vertices} vertices at {fps} fps, the data have {n_data} at {data_fps}",
            model=path,
            n_vertices=basis_KV3.shape[1],
            fps=config.host.grid.fps,
            n_data=faces.n_vertices,
            data_fps=faces.fps,
        )
    if start_style not in config.styles:
        raise UserError(
            "{model}: there is no style {style} to start from; it has {styles}",
            model=path,
            style=start_style,
            styles=", ".join(config.styles),
        )
    model = FaceModel(config, 3 * faces.n_vertices)
    on_vertices = {f"decoder.{name}": value for name, value in on_keys.decoder.on_vertices(basis_KV3).items()}
    model.load_state_dict(state | on_vertices)
    return model, config.styles.index(start_style)
