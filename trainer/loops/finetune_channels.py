# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune bundled --data work --out work/face --hubert work/hubert --wav2sem work/wav2sem`

The bundled face model: fusion and decoder learn captured motion, as ARKit-named channels, from the features of frozen
encoders, autoregressively, as FaceFormer was trained. The error is measured on the face that the channels make.

Shapes: B batch, S samples, L encoder frames, T animation frames, D features, E sentence space, N styles, K channels,
V vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import ModelConfig
from wav2sem_blender.pipeline.nn import host_network
from wav2sem_blender.pipeline.nn.encoders import WHISPER, resample_features, sound_for
from wav2sem_blender.pipeline.nn.face_loss import FaceLoss
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.phones import PHONES

from ..motion.curves import MotionRecord, MotionStore, paired_records
from ..motion.shapes import read_basis
from ..motion.targets import PosedMouth, manners, mixed
from ..runs.run import Run, cosine_with_warmup, data_hash
from ..runs.stages import below, read_encoder, read_recogniser, read_sentence_space, read_wav2sem
from ..speech.augment import Augmenter
from ..speech.augmentation import RECORDED
from ..speech.batches import normalise
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from .export import provenance_of, write_model
from .face_recipes import FinetuneChannels

PIECE_FRAMES = 600  # longer sequences are cut to FaceFormer's limit, 20 s
SPEECHLESS_S = 8.0
MAX_GRADIENT = 1.0  # the norm of all gradients together


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip to learn from.

    Attributes:
        text: What is said.
        features_TD: Half precision.
        targets_NTK: The motion in every style.
        only_style: Index of the one style that was captured, if the others are not to be learnt from this clip.
    """

    text: str | None
    features_TD: Tensor
    semantic_E: Tensor
    targets_NTK: Tensor
    only_style: int | None = None


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of an example, with the motion in one style or between two."""

    features_TD: Tensor
    semantic_E: Tensor
    target_TK: Tensor
    style_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Turns prepared motion into what is taught (`motion/targets.py`)."""

    mouth: PosedMouth

    def manners(self, target_TK: np.ndarray, record: SpeechRecord) -> dict[str, np.ndarray]:
        """The motion (T, K) in every manner."""
        return manners(target_TK, record.phones, record.n_samples / SAMPLE_RATE_HZ, self.mouth)

    def __call__(
        self, target_TK: np.ndarray, record: SpeechRecord, manner_weights: Mapping[str, float] = {"natural": 1.0}
    ) -> np.ndarray:
        """(T, K), between manners."""
        return mixed(self.manners(target_TK, record), manner_weights).astype(np.float32)


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
        run.log(step, audio_s=sum(len(crop.features_TD) for crop in crops) / config.host.fps)
    if run.is_main:
        described = replace(model.config, provenance=provenance_of(run))
        write_model(run, described, model.state_dict(), basis_KV3)


def training_examples(
    config: FinetuneChannels, model: FaceModel, data: Path, gap_K: np.ndarray, device: torch.device
) -> list[list[Example]]:
    """The captured clips, and the driven ones if the config has a share of them."""
    speech, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    train = [pair for pair in paired_records(speech, motion) if pair[1].split == "train"]
    taught = Teacher(mouth=PosedMouth(channels=motion.channels, gap_K=gap_K))
    groups = [_examples(config, model, speech, motion, taught, train, config.versions, device)]
    if config.driven_share:
        driven = MotionStore(data / "driven")
        pairs = paired_records(speech, driven)
        groups.append(_examples(config, model, speech, driven, taught, pairs, config.driven_versions, device))
        groups[1] += _speechless(config, model, speech, device)
    return [[e for e in group if len(e.features_TD) > config.crop_frames // 2] for group in groups]


def build_model(config: FinetuneChannels, channels: tuple[str, ...], hubert: Path, wav2sem: Path) -> FaceModel:
    """The whole model with both pretrained encoders, which are frozen: eval mode and no gradients."""
    encoder, state = read_encoder(hubert)
    sentences, sentence = read_wav2sem(wav2sem)
    shared = encoder.kind == WHISPER
    if shared != sentences.shared:
        raise UserError(
            "--wav2sem {wav2sem} does not fit --hubert {hubert}: a Wav2Sem that reads features (`pretrain shared`) "
            "goes with an ear (`pretrain-hubert ear`), any other with a HuBERT",
            wav2sem=wav2sem,
            hubert=hubert,
        )
    described = ModelConfig(
        name="wav2sem-default",
        encoder=encoder,
        wav2sem=sentences,
        host=config.host,
        channels=channels,
        styles=config.styles,
        articulation=config.articulation,
        phones=PHONES if shared else (),
        license="CC-BY-4.0; see LICENSE-weights",
    )
    model = FaceModel(described).eval()
    assert model.wav2sem is not None
    model.wav2sem.load_state_dict(sentence)
    model.audio_encoder.load_state_dict(state)
    if model.phone_head is not None:
        model.phone_head.load_state_dict(below("head.", read_recogniser(hubert)))
        model.phone_head.requires_grad_(False)
    model.audio_encoder.requires_grad_(False)
    return model


@torch.no_grad()
def listen(model: FaceModel, samples_S: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """A whole clip's features (T, D) in half precision, and its sentence vector (E,), on the CPU."""
    assert model.wav2sem is not None
    samples_S = normalise(samples_S)
    positions_1T = torch.from_numpy(model.config.host.grid.positions(len(samples_S))).float()[None].to(device)
    sound = torch.from_numpy(sound_for(model.config.encoder.kind, samples_S))[None].to(device)
    if model.config.one_encoder:
        heard_1LD, _ = model.hear(sound)
        features_1TD, semantic_1E = resample_features(heard_1LD, positions_1T), model.wav2sem(heard_1LD)
    else:
        features_1TD = model.features(model.convolved(sound, positions_1T), positions_1T)
        semantic_1E = model.wav2sem(sound)
    return features_1TD[0].half().cpu(), semantic_1E[0].cpu()


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
            only_style = config.styles.index(moved.style) if moved.style in config.styles else None
            by_manner = taught.manners(motion.weights(moved), record)
            targets_NTK = np.stack([by_manner[style] for style in config.styles])
            samples_S = speech.samples(record)
            speed = 1.0 if version == 0 else rng.uniform(*config.augmentation.speed)
            for piece_S, piece_NTK in _pieces(samples_S, targets_NTK, config.host.fps):
                changed_S, changed_NTK = change_speed(piece_S, piece_NTK, speed)
                features_TD, semantic_E = listen(model, augment(changed_S), device)
                n_frames = min(len(features_TD), changed_NTK.shape[1])
                example = Example(
                    text=record.text,
                    features_TD=features_TD[:n_frames],
                    semantic_E=semantic_E,
                    targets_NTK=torch.from_numpy(changed_NTK[:, :n_frames]),
                    only_style=only_style,
                )
                examples.append(example)
    return examples


def _speechless(config: FinetuneChannels, model: FaceModel, speech: SpeechStore, device: torch.device) -> list[Example]:
    """Noise and music, to which the mouth rests, in every style."""
    augment = Augmenter(speech, config.augmentation, config.seed)
    examples = []
    for i in range(config.speechless):
        rng = np.random.default_rng([config.seed, i])
        sound_S = augment.speechless(int(SPEECHLESS_S * SAMPLE_RATE_HZ), rng)
        features_TD, semantic_E = listen(model, sound_S, device)
        rest_NTK = torch.zeros(len(config.styles), len(features_TD), len(model.config.channels))
        examples.append(Example(text=None, features_TD=features_TD, semantic_E=semantic_E, targets_NTK=rest_NTK))
    return examples


def _pieces(samples_S: np.ndarray, targets_NTK: np.ndarray, fps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    per_frame = SAMPLE_RATE_HZ / fps
    starts = range(0, max(1, targets_NTK.shape[1] - PIECE_FRAMES // 4), PIECE_FRAMES)
    return [
        (samples_S[int(i * per_frame) : int((i + PIECE_FRAMES) * per_frame)], targets_NTK[:, i : i + PIECE_FRAMES])
        for i in starts
    ]


def change_speed(samples_S: np.ndarray, targets_NTK: np.ndarray, speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Speech and motion `speed` times as fast (and the voice that much higher)."""
    targets_NTK = targets_NTK.astype(np.float32)
    if speed == 1.0:
        return samples_S, targets_NTK
    at_S = np.arange(int(len(samples_S) / speed)) * speed
    n_frames = targets_NTK.shape[1]
    at_T = np.minimum(np.arange(int(n_frames / speed)) * speed, n_frames - 1)
    lower_T = np.minimum(at_T.astype(int), max(0, n_frames - 2))
    share_T1 = (at_T - lower_T)[:, None].astype(np.float32)
    upper_T = np.minimum(lower_T + 1, n_frames - 1)
    moved_NTK = targets_NTK[:, lower_T] * (1 - share_T1) + targets_NTK[:, upper_T] * share_T1
    return np.interp(at_S, np.arange(len(samples_S)), samples_S).astype(np.float32), moved_NTK


def draw(examples: list[list[Example]], config: FinetuneChannels, rng: np.random.Generator) -> list[Crop]:
    """A global batch: crops of equal length, captured and driven by their shares, in random manners."""
    n_driven = round(config.driven_share * config.batch)
    some: list[Example] = []
    for group, count in zip(examples, (config.batch - n_driven, n_driven), strict=False):
        some += [group[i] for i in rng.integers(len(group), size=count)]
    n_frames = min(config.crop_frames, *(len(example.features_TD) for example in some))
    crops = []
    for example in some:
        first = int(rng.integers(len(example.features_TD) - n_frames + 1))
        style_N = torch.from_numpy(draw_style(config, example.only_style, rng))
        part_NTK = example.targets_NTK[:, first : first + n_frames]
        crops.append(
            Crop(
                features_TD=example.features_TD[first : first + n_frames],
                semantic_E=example.semantic_E,
                target_TK=torch.einsum("n,ntk->tk", style_N, part_NTK),
                style_N=style_N,
            )
        )
    return crops


def draw_style(config: FinetuneChannels, only_style: int | None, rng: np.random.Generator) -> np.ndarray:
    """Weights (N,) of the styles: the captured one; or the first, an end of *Articulation*, or a mixture of both."""
    weights_N = np.zeros(len(config.styles), np.float32)
    if only_style is not None:
        weights_N[only_style] = 1
        return weights_N
    end = config.styles.index(config.articulation[int(rng.random() < config.clear_share)])
    kind = rng.random()
    share = 0.0 if kind < 0.5 else 1.0 if kind < 0.75 else rng.random()
    weights_N[0] += 1 - share
    weights_N[end] += share
    return weights_N


def descent(
    config: FinetuneChannels, learner: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser and its schedule."""
    optimiser = torch.optim.AdamW(learner.parameters(), lr=config.peak_lr, weight_decay=0.01)
    return optimiser, cosine_with_warmup(optimiser, config.warmup_steps, config.steps)


def loss_of(crops: list[Crop], config: FinetuneChannels, learner: nn.Module, device: torch.device) -> Tensor:
    """The loss of crops of equal length: a scalar."""
    features_BTD = torch.stack([crop.features_TD for crop in crops]).float().to(device)
    semantic_B1E = torch.stack([crop.semantic_E for crop in crops])[:, None].to(device)
    target_BTK = torch.stack([crop.target_TK for crop in crops]).to(device)
    style_BN = torch.stack([crop.style_N for crop in crops]).to(device)
    return learner(features_BTD, semantic_B1E, style_BN, target_BTK)
