# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer finetune bundled_forced --data work --out work/steered --prior work/face`

--prior is the run of `finetune bundled`, or the model folder that was exported from it.

What lets an animator force phones: a finished face model, which stays as it is, gets a network that turns phones into
the decoder's memory. It learns from what was said, and from driven clips in which some phones are exchanged, so that
forced phones win over the sound around them.

Shapes: T animation frames, R = T memory frames, P phones, M memory width, N styles, K channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import BASIS_KEY, CONFIG_FILE, ModelFolder
from wav2sem_blender.pipeline.engine_torch import load_state
from wav2sem_blender.pipeline.forced_phones import REACH, covered, phone_shares
from wav2sem_blender.pipeline.nn import host_network
from wav2sem_blender.pipeline.nn.face_loss import FaceLoss
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.forced_phones import PhoneReader
from wav2sem_blender.pipeline.phones import PHONES, SILENCE

from ..motion.curves import MotionStore, paired_records
from ..motion.phoneme_driven import PhonesToMotion, drive, learn_driver
from ..motion.shapes import read_basis
from ..motion.targets import PosedMouth, manners
from ..runs.run import Run, cosine_with_warmup, data_hash
from ..runs.stages import read_run
from ..speech.phones import Timing
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from .export import MODEL, graphs_of, provenance_of, write_model
from .face_recipes import FinetuneForced
from .finetune_channels import MAX_GRADIENT, draw_style, listen

EDITED_FRAMES = 3  # around an exchanged phone, that are forced with it


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A clip to learn from.

    Attributes:
        memory_TM: What the decoder reads of the sound.
        shares_RP: Of the phones, with `REACH` frames of silence at either end.
        targets_NTK: The motion in every style.
        edited_T: 1 where the phones are not those of the sound, and must be forced.
        only_style: As in `finetune_channels.Example`.
    """

    memory_TM: Tensor
    shares_RP: Tensor
    targets_NTK: Tensor
    edited_T: Tensor
    only_style: int | None = None


class ForcedLearner(nn.Module):
    """The trained part and, frozen, the decoder that reads its memory."""

    def __init__(self, reader: PhoneReader, decoder: host_network.HostNetwork) -> None:
        super().__init__()
        self.reader = reader
        self.frozen = [decoder]  # in a list, so that it is not a part of this module

    def forward(
        self, memory_BTM: Tensor, shares_BRP: Tensor, forced_BT: Tensor, style_BN: Tensor, target_BTK: Tensor
    ) -> Tensor:
        """The face's loss."""
        forced_BT1 = forced_BT[..., None]
        mixed_BTM = memory_BTM * (1 - forced_BT1) + self.reader(shares_BRP) * forced_BT1
        return self.frozen[0].loss(host_network.Example(memory_BRM=mixed_BTM, style_BN=style_BN, target_BTX=target_BTK))


def finetune_forced(config: FinetuneForced, data: Path, run: Run, face: Path) -> None:
    """Train, and write RUN/model: the face model with the tensors `forced.*`.

    Raises:
        MissingFileError: The face or the data is missing.
        UserError: The face has no phones or no style to learn, or no clip is long enough.
    """
    torch.manual_seed(config.seed)
    folder = _face(face)
    if folder.config.phones != PHONES or folder.config.styles != config.face.styles:
        raise UserError(
            "{folder}: phones can be forced in a run of `finetune bundled` only, with the styles {styles}",
            folder=face,
            styles=", ".join(config.face.styles),
        )
    motion = MotionStore(data / "motion")
    files = [data / name for name in ("basis.npz", "speech/clips.json", "motion/clips.json", "motion/weights.npy")]
    run.describe(data_sha256=data_hash(files), prior=str(face))
    model = FaceModel(replace(folder.config, steerable=True)).eval()
    model.load_state_dict(load_state(folder), strict=False)
    model.requires_grad_(False)
    model = model.to(run.device)
    reader = model.forced
    assert reader is not None
    reader.requires_grad_(True)
    basis_KV3, gap_K = read_basis(data / "basis.npz", motion.channels)
    model.decoder.criterion = FaceLoss(config.face, basis_KV3, gap_K).to(run.device)
    mouth = PosedMouth(channels=motion.channels, gap_K=gap_K)
    driver = learn_driver(SpeechStore(data / "speech"), motion, FaceLoss(config.face, basis_KV3, gap_K), config.seed)
    spoken = list(_spoken(config, model, data, driver, mouth, run.device))
    spoken = [clip for clip in spoken if len(clip.memory_TM) >= config.crop_frames]
    if not spoken:
        raise UserError(
            "{data}: no training clip with phone times has {n_frames} frames; prepare longer ones",
            data=data,
            n_frames=config.crop_frames,
        )
    optimiser = torch.optim.AdamW(reader.parameters(), lr=config.peak_lr, weight_decay=0.01)
    schedule = cosine_with_warmup(optimiser, config.warmup_steps, config.steps)
    learner = run.learn(ForcedLearner(reader, model.decoder), optimiser, schedule, clip=MAX_GRADIENT)
    for step in run.steps(config.steps):
        rng = run.rng(step)
        crops = [_crop(spoken[i], config, rng) for i in rng.integers(len(spoken), size=config.batch)]
        for part in run.share(crops):
            with run.autocast():
                loss = learner(*(torch.stack(some).float().to(run.device) for some in zip(*part, strict=True)))
            run.backward(loss)
        run.update()
        run.log(step, audio_s=config.batch * config.crop_frames / config.face.host.fps)
    if run.is_main:
        state = model.state_dict()
        described = replace(model.config, provenance={**folder.config.provenance, "forced": provenance_of(run)})
        write_model(run, described, state, folder.tensors(BASIS_KEY)[""], graphs_of(folder))


def _face(prior: Path) -> ModelFolder:
    """The model of a finished run, or in a model folder, which has the same weights."""
    if (prior / CONFIG_FILE).is_file():
        return ModelFolder.open(prior)
    read_run(prior, f"{MODEL}/config.json")
    return ModelFolder.open(prior / MODEL)


@torch.no_grad()
def _spoken(
    config: FinetuneForced,
    model: FaceModel,
    data: Path,
    driver: PhonesToMotion,
    mouth: PosedMouth,
    device: torch.device,
) -> Iterator[Spoken]:
    """The captured and driven clips as they were said, and the driven ones with exchanged phones."""
    rng = np.random.default_rng(config.seed)
    speech = SpeechStore(data / "speech")
    for name, editions in (("motion", 0), ("driven", config.editions)):
        motion = MotionStore(data / name)
        pairs = [(r, m) for r, m in paired_records(speech, motion) if m.split == "train" and r.phones]
        for record, moved in tqdm(pairs, desc=f"memory of {name} clips", unit="clip"):
            phones, only_style = record.phones or [], None
            if moved.style in config.face.styles:
                only_style = config.face.styles.index(moved.style)
            features_TD, semantic_E = listen(model, speech.samples(record), device)
            memory_1TM = model.fusion(features_TD.float()[None].to(device), semantic_E[None, None].to(device))
            memory_TM = memory_1TM[0].half().cpu()
            yield _example(config, memory_TM, phones, motion.weights(moved), record, mouth, only_style)
            for _ in range(editions):
                edited, spans_s = exchanged(phones, config.exchanged, rng)
                motion_TK = drive(driver, edited, moved.n_frames, mouth)
                yield _example(config, memory_TM, edited, motion_TK, record, mouth, only_style, spans_s)


def _example(
    config: FinetuneForced,
    memory_TM: Tensor,
    phones: list[Timing],
    motion_TK: np.ndarray,
    record: SpeechRecord,
    mouth: PosedMouth,
    only_style: int | None,
    spans_s: list[tuple[float, float]] = [],  # noqa: B006 (never changed)
) -> Spoken:
    fps = config.face.host.fps
    n_frames = min(len(memory_TM), len(motion_TK))
    by_manner = manners(motion_TK[:n_frames], phones, record.n_samples / SAMPLE_RATE_HZ, mouth)
    edited_T = np.zeros(n_frames, np.float32)
    for start_s, end_s in spans_s:
        edited_T[max(0, round(start_s * fps) - EDITED_FRAMES) : round(end_s * fps) + EDITED_FRAMES + 1] = 1
    targets_NTK = np.stack([by_manner[style] for style in config.face.styles])
    return Spoken(
        memory_TM=memory_TM[:n_frames],
        shares_RP=torch.from_numpy(phone_shares(phones, -REACH, n_frames + REACH, fps)).half(),
        targets_NTK=torch.from_numpy(targets_NTK.astype(np.float16)),
        edited_T=torch.from_numpy(edited_T),
        only_style=only_style,
    )


def exchanged(
    phones: list[Timing], share: float, rng: np.random.Generator
) -> tuple[list[Timing], list[tuple[float, float]]]:
    """The phones with a share of them, at least one, exchanged for others, and the spans of these."""
    said = [i for i, (phone, _, _) in enumerate(phones) if phone != SILENCE]
    if not said:
        return phones, []
    changed = rng.choice(said, size=max(1, round(share * len(said))), replace=False)
    edited, spans_s = list(phones), []
    for i in changed.tolist():
        phone, start, end = phones[i]
        others = [other for other in PHONES if other not in (phone, SILENCE)]
        edited[i] = (others[rng.integers(len(others))], start, end)
        spans_s.append((start, end))
    return edited, spans_s


def _crop(clip: Spoken, config: FinetuneForced, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Memory, phones, how far they are forced, style and target, for `ForcedLearner`."""
    n_frames = config.crop_frames
    first = int(rng.integers(len(clip.memory_TM) - n_frames + 1))
    part = slice(first, first + n_frames)
    forced_T = np.maximum(drawn_spans(n_frames, config.whole_share, rng), clip.edited_T[part].numpy())
    style_N = torch.from_numpy(draw_style(config.face, clip.only_style, rng))
    return (
        clip.memory_TM[part],
        clip.shares_RP[first : first + n_frames + 2 * REACH],
        torch.from_numpy(forced_T),
        style_N,
        torch.einsum("n,ntk->tk", style_N, clip.targets_NTK[:, part].float()),
    )


def drawn_spans(n_frames: int, whole_share: float, rng: np.random.Generator) -> np.ndarray:
    """Where phones are forced (T,): everywhere, or in a few spans, whose first and last frames are forced in part."""
    if rng.random() < whole_share:
        return np.ones(n_frames, np.float32)
    forced_T = np.zeros(n_frames, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        start, length = rng.uniform(0, n_frames), rng.uniform(1, 15)
        forced_T = np.maximum(forced_T, covered([(start, start + length)], n_frames, 1.0))  # its times are frames
    return forced_T
