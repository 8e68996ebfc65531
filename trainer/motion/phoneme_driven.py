# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare driven`: phoneme-driven motion for aligned speech without a film.

A small network learns from the captured speaker how phones in context move every channel, and then turns the phone
times of all other voices into motion. Lips are made to meet on p, b and m, which an average leaves ajar. The face model
learns from both: captured motion shows how a face moves, driven motion shows it for many voices.

Shapes: T animation frames, P phones, K channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wav2sem_blender.pipeline.forced_phones import phone_shares
from wav2sem_blender.pipeline.frame_timing import FrameGrid
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceWeights
from wav2sem_blender.pipeline.mouth import close_lips
from wav2sem_blender.pipeline.nn.face_loss import FaceLoss

from ..speech.phones import PHONES, Timing
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechStore
from .curves import FPS, Fitted, MotionStore, paired_records, write_motion
from .shapes import read_basis
from .targets import PosedMouth, part_lips, rest_in_pauses, round_lips

STEPS = 700
CROP_FRAMES = 80
BATCH = 32
MOST_SYNTHETIC = {"flite": 300, "espeak": 240}  # clips: the face model should hear mostly real voices


class PhonesToMotion(nn.Sequential):
    """Phone shares (B, T, P) -> channel weights (B, T, K); sees half a second to each side."""

    def __init__(self, n_channels: int, width: int = 96) -> None:
        layers: list[nn.Module] = []
        for inputs in (len(PHONES), width, width):
            layers += [nn.Conv1d(inputs, width, 9, padding=4), nn.GELU()]
        super().__init__(*layers, nn.Conv1d(width, n_channels, 5, padding=2))

    def forward(self, phones_BTP: Tensor) -> Tensor:
        return super().forward(phones_BTP.transpose(1, 2)).transpose(1, 2)


def prepare_driven(data: Path, out: Path, seed: int) -> None:
    """Learn from the captured clips, drive every other aligned clip, and write a folder that `MotionStore` reads."""
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    basis_KV3, gap_K = read_basis(data / "basis.npz", motion.channels)
    model = learn_driver(speech, motion, FaceLoss(FaceWeights(), basis_KV3, gap_K), seed)
    mouth = PosedMouth(channels=motion.channels, gap_K=gap_K)
    names = {record.name for record in motion.records}
    todo = [r for r in speech.records if r.phones and r.split == "train" and r.name not in names]
    spoken = [record for record in todo if record.corpus not in MOST_SYNTHETIC]
    for corpus, most in MOST_SYNTHETIC.items():
        some = [record for record in todo if record.corpus == corpus]
        spoken += some[:: max(1, len(some) // most)][:most]
    driven: list[Fitted] = []
    for record in spoken:
        assert record.phones is not None
        n_frames = FrameGrid.at_rate(FPS).animation_frames(record.n_samples)
        driven_TK = drive(model, record.phones, n_frames, mouth)
        driven_TK = rest_in_pauses(driven_TK, record.phones, record.n_samples / SAMPLE_RATE_HZ)
        driven.append((record.name, "grid_s1", "train", driven_TK))
    write_motion(out, motion.channels, driven)
    print(f"{len(driven)} clips driven, {sum(len(clip[3]) for clip in driven) / FPS / 60:.1f} min")


def learn_driver(speech: SpeechStore, motion: MotionStore, loss: FaceLoss, seed: int) -> PhonesToMotion:
    """The network that knows how the captured speaker's face moves in phones."""
    torch.manual_seed(seed)
    filmed = [
        (record, moved)
        for record, moved in paired_records(speech, motion)
        if moved.split == "train" and moved.style == "grid_s1" and record.phones
    ]
    captured = [(shares_of(record.phones or [], moved.n_frames), motion.weights(moved)) for record, moved in filmed]
    return _learn(captured, loss, np.random.default_rng(seed))


def shares_of(phones: list[Timing], n_frames: int) -> np.ndarray:
    """The phones' shares (T, P) of a clip's frames."""
    return phone_shares(phones, 0, n_frames, FPS)


def drive(model: nn.Module, phones: list[Timing], n_frames: int, mouth: PosedMouth) -> np.ndarray:
    """The motion (T, K) of these phones, with closed, parted and rounded lips where an average has none."""
    with torch.no_grad():
        average_TK = model(torch.from_numpy(shares_of(phones, n_frames))[None])[0].numpy()
    rounded_TK = round_lips(mouth.animatable(average_TK), phones, mouth)
    closed_TK = close_lips(rounded_TK, phones, mouth, FPS)
    return mouth.animatable(part_lips(closed_TK, phones, mouth))


def _learn(
    captured: list[tuple[np.ndarray, np.ndarray]], loss_fn: FaceLoss, rng: np.random.Generator
) -> PhonesToMotion:
    model = PhonesToMotion(captured[0][1].shape[1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=STEPS)
    long_enough = [pair for pair in captured if len(pair[1]) >= CROP_FRAMES]
    for _ in range(STEPS):
        some = [long_enough[i] for i in rng.integers(len(long_enough), size=BATCH)]
        starts = [int(rng.integers(len(target) - CROP_FRAMES + 1)) for _, target in some]
        phones, target = (
            torch.from_numpy(np.stack([pair[j][i : i + CROP_FRAMES] for pair, i in zip(some, starts, strict=True)]))
            for j in (0, 1)
        )
        loss = loss_fn(model(phones), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    print(f"phones to motion: loss {loss.item():.3f}")
    return model.eval()
