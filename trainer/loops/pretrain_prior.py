# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer pretrain-prior codetalker_vocaset --data VOCASET --out work/prior`

Stage 1 of the hosts that have two: a codec learns recorded motion, without sound. `finetune --prior work/prior` trains
stage 2 on it and leaves it as it is.

A host takes part if its network has a `PRIOR`, and a `prior_loss` of offsets (B, T, X) that uses nothing else of it.

Shapes: B batch, T animation frames, X outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.nn.host_network import HostNetwork

from ..datasets.face_data import FaceClip, FaceData
from ..datasets.opening import open_face_data
from ..runs.epochs import Epochs
from ..runs.run import Run, data_hash
from ..runs.stages import PRIOR_FILE
from .prior_recipes import PretrainPrior


def pretrain_prior(config: PretrainPrior, data: Path, run: Run) -> None:
    """Train, and write RUN/prior.pt and RUN/valid.json, the loss on held-out clips.

    Raises:
        MissingFileError: The data is missing.
        UserError: The host has one stage, a clip cannot be used, or the loss is not finite.
    """
    faces = open_face_data(config.data, data)
    train = [clip for clip in faces.clips if clip.split in config.train_splits]
    valid = [clip for clip in faces.clips if clip.split == "valid"][: config.valid_clips]
    if not train:
        raise UserError(
            "{data}: there is no clip of the training split ({skipped})", data=data, skipped=dict(faces.skipped)
        )
    torch.manual_seed(config.seed)
    learner = PriorLearner(config.host.at_rate(faces.fps).network(faces.n_outputs, len(faces.styles)))
    run.describe(
        data_sha256=data_hash(faces.files()),
        skipped=dict(faces.skipped),
        clips={"train": len(train), "valid": len(valid)},
    )
    optimiser = torch.optim.AdamW(
        learner.parameters(),
        config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
    )
    epochs = Epochs([1] * len(train), run.rng, size=config.batch)
    period = config.halve_every * len(epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 ** (step // period if period else 0))
    wrapped = run.learn(learner, optimiser, schedule)
    for step in run.steps(config.epochs * len(epochs)):
        wrapped.train()
        moved_s = 0.0
        for part in run.share([train[i] for i in epochs(step)]):
            some = [motion_of(faces, clip, run.device) for clip in part]
            moved_s += sum(motion_1TX.shape[1] for motion_1TX, _ in some) / faces.fps
            with run.autocast():
                loss = wrapped(some)
            run.backward(loss)
        run.update()
        epoch_ends = (step + 1) % len(epochs) == 0
        watched = {"valid_loss": held_out_loss(learner, faces, valid, run.device)} if epoch_ends and valid else {}
        run.log(step, epoch_ends, audio_s=moved_s * run.n_processes, **watched)
    run.save(PRIOR_FILE, learner.prior.state_dict())
    if run.is_main and valid:
        run.report("valid", {"clips": len(valid), "loss": held_out_loss(learner, faces, valid, run.device)})


class PriorLearner(nn.Module):
    """The prior of a host's network and its loss, for `Run.learn`; the rest is neither trained nor saved."""

    def __init__(self, network: HostNetwork) -> None:
        super().__init__()
        if not network.PRIOR:
            raise UserError("this host has one stage: train it with `finetune`")
        self.prior = network.get_submodule(network.PRIOR.rstrip(".")).requires_grad_(True)
        self._loss = network.prior_loss

    def forward(self, clips: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Mean of the clips' losses; each has its motion (1, T, X) and its style (1, N)."""
        return torch.stack([self._loss(*clip) for clip in clips]).mean()


def motion_of(faces: FaceData, clip: FaceClip, device: torch.device) -> tuple[Tensor, Tensor]:
    """A clip's offsets from the rest face, or its parameters (1, T, X), and its style (1, N)."""
    style_1N = torch.from_numpy(faces.style(clip, faces.styles)[:1])
    return torch.from_numpy(faces.targets(clip))[None].to(device), style_1N.to(device)


@torch.no_grad()
def held_out_loss(learner: PriorLearner, faces: FaceData, clips: Sequence[FaceClip], device: torch.device) -> float:
    """Mean of the clips' losses."""
    learner.eval()
    return sum(float(learner([motion_of(faces, clip, device)])) for clip in clips) / len(clips)
