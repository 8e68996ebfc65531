# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune bundled --data work --out work/face --hubert work/hubert --wav2sem work/wav2sem`

The bundled face model: fusion and decoder learn captured motion, as ARKit-named channels, from the features of frozen
encoders, autoregressively, as FaceFormer was trained. The error is measured on the face that the channels make.

Shapes: B batch, S samples, T animation frames, D features, E sentence space, K channels, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wav2sem_blender.pipeline.checkpoint import ModelConfig
from wav2sem_blender.pipeline.nn import host_network
from wav2sem_blender.pipeline.nn.face_loss import FaceLoss
from wav2sem_blender.pipeline.nn.face_model import FaceModel

from ..motion.curves import MotionRecord, MotionStore, paired_records
from ..motion.shapes import read_basis
from ..motion.targets import BREATH_S, rest_in_pauses, rest_pose, seal_lips, tuck_lower_lip
from ..runs.run import Run, cosine_with_warmup, data_hash
from ..runs.stages import read_encoder, read_sentence_space, read_wav2sem
from ..speech.augment import Augmenter
from ..speech.augmentation import RECORDED
from ..speech.batches import normalise
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from .export import write_model
from .face_recipes import FinetuneChannels

PIECE_FRAMES = 600  # longer sequences are cut to FaceFormer's limit, 20 s
SPEECHLESS_S = 8.0
MAX_GRADIENT = 1.0  # the norm of all gradients together


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip to learn from; `style` is an index, `text` what is said."""

    text: str | None
    features_TD: Tensor
    semantic_E: Tensor
    target_TK: Tensor
    style: int


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Corrects captured motion (`motion/targets.py`): lips closed on p, b, m, tucked on f, v, at rest in pauses."""

    gap_K: np.ndarray
    channels: tuple[str, ...]
    rest_K: np.ndarray | None

    def __call__(self, target_TK: np.ndarray, record: SpeechRecord) -> np.ndarray:
        """(T, K); motion without phone times stays as it is."""
        if not record.phones or self.rest_K is None:
            return target_TK
        sealed_TK = seal_lips(target_TK, record.phones, self.gap_K, self.channels.index("mouthClose"))
        tucked_TK = tuck_lower_lip(sealed_TK, record.phones, self.gap_K, self.channels)
        duration_s = record.n_samples / SAMPLE_RATE_HZ
        rested_TK = rest_in_pauses(tucked_TK, record.phones, duration_s, self.rest_K, BREATH_S)
        return rested_TK.astype(np.float32)


class ChannelLearner(nn.Module):
    """The trained parts of the face model: its fusion and its decoder."""

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.fusion, self.decoder = model.fusion, model.decoder

    def forward(self, features_BTD: Tensor, semantic_B1E: Tensor, style_BN: Tensor, target_BTK: Tensor) -> Tensor:
        """The host's loss."""
        memory_BTM = self.fusion(features_BTD, semantic_B1E)
        return self.decoder.loss(host_network.Example(memory_BRM=memory_BTM, style_BN=style_BN, target_BTX=target_BTK))


def finetune_channels(config: FinetuneChannels, data: Path, run: Run, hubert: Path, wav2sem: Path) -> None:
    """Train, and write RUN/model for `SpeechAnimator.load`."""
    torch.manual_seed(config.seed)
    motion = MotionStore(data / "motion")
    files = [data / name for name in ("basis.npz", "speech/clips.json", "motion/clips.json", "motion/weights.npy")]
    run.describe(data_sha256=data_hash(files), hubert=str(hubert), wav2sem=str(wav2sem))
    run.describe(sentence_space=read_sentence_space(wav2sem))
    model = build_model(config, motion.channels, hubert, wav2sem).to(run.device)
    basis_KV3, gap_K = read_basis(data / "basis.npz", motion.channels)
    model.decoder.criterion = FaceLoss(config, basis_KV3, gap_K).to(run.device)
    examples = training_examples(config, model, data, gap_K, run.device)
    learner = run.learn(ChannelLearner(model), *descent(config, ChannelLearner(model)), clip=MAX_GRADIENT)
    for step in run.steps(config.steps):
        crops = draw(examples, config, run.rng(step))
        for part in run.share(crops):
            with run.autocast():
                loss = loss_of(part, config, learner, run.device)
            run.backward(loss)
        run.update()
        run.log(step, audio_s=sum(len(crop.target_TK) for crop in crops) / config.host.fps)
    if run.is_main:
        write_model(run, model.config, model.state_dict(), basis_KV3)


def training_examples(
    config: FinetuneChannels, model: FaceModel, data: Path, gap_K: np.ndarray, device: torch.device
) -> list[list[Example]]:
    """The captured clips, and the driven ones if the config has a share of them."""
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    train = [pair for pair in paired_records(speech, motion) if pair[1].split == "train"]
    timed = [(motion.weights(moved), record.phones) for record, moved in train if record.phones]
    taught = Teacher(gap_K=gap_K, channels=motion.channels, rest_K=rest_pose(timed) if timed else None)
    groups = [_examples(config, model, speech, motion, taught, train, config.versions, device)]
    if config.driven_share:
        driven = MotionStore(data / "driven")
        pairs = paired_records(speech, driven)
        groups.append(_examples(config, model, speech, driven, taught, pairs, config.driven_versions, device))
        if taught.rest_K is not None:
            groups[1] += _speechless(config, model, speech, taught.rest_K, device)
    return [[e for e in group if len(e.target_TK) > config.crop_frames // 2] for group in groups]


def build_model(config: FinetuneChannels, channels: tuple[str, ...], hubert: Path, wav2sem: Path) -> FaceModel:
    """The whole model with both pretrained encoders, which are frozen: eval mode and no gradients."""
    encoder, phones = read_encoder(hubert)
    sentences, sentence = read_wav2sem(wav2sem)
    described = ModelConfig(
        name="wav2sem-default",
        encoder=encoder,
        wav2sem=sentences,
        host=config.host,
        channels=channels,
        styles=config.styles,
        license="CC-BY-4.0; see LICENSE-weights",
    )
    model = FaceModel(described).eval()
    assert model.wav2sem is not None
    model.wav2sem.load_state_dict(sentence)
    model.audio_encoder.load_state_dict(phones)
    model.audio_encoder.requires_grad_(False)
    return model


@torch.no_grad()
def listen(model: FaceModel, samples_S: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """A whole clip's features (T, D) and sentence vector (E,), on the CPU."""
    assert model.wav2sem is not None
    waveform = torch.from_numpy(normalise(samples_S))[None].to(device)
    positions_1T = torch.from_numpy(model.config.host.grid.positions(waveform.shape[1])).float()[None].to(device)
    features_1TD = model.features(model.convolved(waveform, positions_1T), positions_1T)
    return features_1TD[0].cpu(), model.wav2sem(waveform)[0].cpu()


def _examples(
    config: FinetuneChannels,
    model: FaceModel,
    speech: SpeechStore,
    motion: MotionStore,
    taught: Teacher,
    pairs: list[tuple[SpeechRecord, MotionRecord]],
    versions: int,
    device: torch.device,
) -> list[Example]:
    """`versions` copies of every clip: the first as recorded, the others augmented."""
    rng = np.random.default_rng(config.seed)
    augmenters = [Augmenter(speech, config.augmentation, config.seed + i) for i in range(versions)]
    augmenters[0] = Augmenter(speech, RECORDED, config.seed)
    examples = []
    for version, augment in enumerate(augmenters):
        for record, moved in tqdm(pairs, desc=f"features {version + 1}/{versions}", unit="clip"):
            samples_S, target_TK = speech.samples(record), taught(motion.weights(moved), record)
            speed = 1.0 if version == 0 else rng.uniform(*config.augmentation.speed)
            for piece_S, piece_TK in _pieces(samples_S, target_TK, config.host.fps):
                changed_S, changed_TK = change_speed(piece_S, piece_TK, speed)
                features_TD, semantic_E = listen(model, augment(changed_S), device)
                n_frames = min(len(features_TD), len(changed_TK))
                example = Example(
                    text=record.text,
                    features_TD=features_TD[:n_frames],
                    semantic_E=semantic_E,
                    target_TK=torch.tensor(changed_TK[:n_frames]),
                    style=config.styles.index(moved.style),
                )
                examples.append(example)
    return examples


def _speechless(
    config: FinetuneChannels, model: FaceModel, speech: SpeechStore, rest_K: np.ndarray, device: torch.device
) -> list[Example]:
    """Noise and music, to which the mouth rests, in every style."""
    augment = Augmenter(speech, config.augmentation, config.seed)
    examples = []
    for i in range(config.speechless):
        rng = np.random.default_rng([config.seed, i])
        sound_S = augment.speechless(int(SPEECHLESS_S * SAMPLE_RATE_HZ), rng)
        features_TD, semantic_E = listen(model, sound_S, device)
        target_TK = torch.from_numpy(rest_K).float().expand(len(features_TD), -1)
        style = i % len(config.styles)
        examples.append(
            Example(text=None, features_TD=features_TD, semantic_E=semantic_E, target_TK=target_TK, style=style)
        )
    return examples


def _pieces(samples_S: np.ndarray, target_TK: np.ndarray, fps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    per_frame = SAMPLE_RATE_HZ / fps
    starts = range(0, max(1, len(target_TK) - PIECE_FRAMES // 4), PIECE_FRAMES)
    return [
        (samples_S[int(i * per_frame) : int((i + PIECE_FRAMES) * per_frame)], target_TK[i : i + PIECE_FRAMES])
        for i in starts
    ]


def change_speed(samples_S: np.ndarray, target_TK: np.ndarray, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Speech and motion `speed` times as fast (and the voice that much higher)."""
    if speed == 1.0:
        return samples_S, target_TK
    at_S = np.arange(int(len(samples_S) / speed)) * speed
    at_T = np.arange(int(len(target_TK) / speed)) * speed
    frames_T = np.arange(len(target_TK))
    moved_TK = np.stack([np.interp(at_T, frames_T, target_T) for target_T in target_TK.T], 1)
    return np.interp(at_S, np.arange(len(samples_S)), samples_S).astype(np.float32), moved_TK.astype(np.float32)


def draw(examples: list[list[Example]], config: FinetuneChannels, rng: np.random.Generator) -> list[Example]:
    """A global batch: crops of equal length, captured and driven by their shares."""
    n_driven = round(config.driven_share * config.batch)
    some: list[Example] = []
    for group, count in zip(examples, (config.batch - n_driven, n_driven), strict=False):
        some += [group[i] for i in rng.integers(len(group), size=count)]
    n_frames = min(config.crop_frames, *(len(example.target_TK) for example in some))
    starts = [int(rng.integers(len(example.target_TK) - n_frames + 1)) for example in some]
    return [
        replace(e, features_TD=e.features_TD[i : i + n_frames], target_TK=e.target_TK[i : i + n_frames])
        for e, i in zip(some, starts, strict=True)
    ]


def descent(
    config: FinetuneChannels, learner: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser and its schedule."""
    optimiser = torch.optim.AdamW(learner.parameters(), lr=config.peak_lr, weight_decay=0.01)
    return optimiser, cosine_with_warmup(optimiser, config.warmup_steps, config.steps)


def loss_of(crops: list[Example], config: FinetuneChannels, learner: nn.Module, device: torch.device) -> Tensor:
    """The loss of crops of equal length: a scalar."""
    features_BTD = torch.stack([crop.features_TD for crop in crops]).to(device)
    semantic_B1E = torch.stack([crop.semantic_E for crop in crops])[:, None].to(device)
    target_BTK = torch.stack([crop.target_TK for crop in crops]).to(device)
    style_BN = torch.eye(len(config.styles))[[crop.style for crop in crops]].to(device)
    return learner(features_BTD, semantic_B1E, style_BN, target_BTK)
