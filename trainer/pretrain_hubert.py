# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer pretrain-hubert bundled_hubert --data work --out work/hubert`

Teaches the speech encoder what is being said: masked prediction of frame labels (HuBERT's task, with aligned phones as
the labels) on the animation's own 30 Hz grid, where the face model will read it.

Shapes: B batch, S samples, T animation frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2sem_blender.pipeline.grid import encoder_frames, feature_positions
from wav2sem_blender.pipeline.nn.encoders import build_backbone, encode

from .align import BILABIALS, PHONES, frame_labels
from .batches import CropSampler, frame_times_s, normalise
from .experiments import PretrainHubert
from .runs import Run, cosine_with_warmup
from .speech import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore

BILABIAL_LABELS = [PHONES.index(phone) for phone in BILABIALS]


class PhoneRecogniser(nn.Module):
    """The encoder and one linear layer to the phones."""

    def __init__(self, experiment: PretrainHubert) -> None:
        super().__init__()
        self.audio_encoder = build_backbone(experiment.encoder.kind, experiment.encoder.config)
        self.head = nn.Linear(self.audio_encoder.config.hidden_size, len(PHONES))

    def forward(self, waveform_BS: Tensor, positions_BT: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """Phone logits (B, T, P)."""
        return self.head(encode(self.audio_encoder, waveform_BS, positions_BT, masked_BT=masked_BT)[0])


def mask_spans(shape: tuple[int, ...], chance: float, length: int, generator: torch.Generator) -> Tensor:
    """Bool (B, T): every frame starts a masked span of `length` frames with probability `chance`."""
    starts_BT = torch.rand(shape, generator=generator) < chance
    return F.max_pool1d(F.pad(starts_BT.float(), (length - 1, 0)), length, 1).bool()


def pretrain_hubert(experiment: PretrainHubert, data: Path, run: Run) -> None:
    """Train, evaluating on held-out speakers at the end; writes `encoder.pt` into the run folder."""
    torch.manual_seed(experiment.seed)
    store = SpeechStore(data / "speech")
    train = [record for record in store.records if record.split == "train" and record.phones]
    sampler = CropSampler(store, train, experiment.corpus_weights, experiment.augmentation, experiment.seed)
    rng = np.random.default_rng(experiment.seed)
    generator = torch.Generator().manual_seed(experiment.seed)
    model = PhoneRecogniser(experiment).to(run.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=experiment.peak_lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = cosine_with_warmup(optimiser, experiment.warmup_steps, experiment.steps)
    for step in run.steps(experiment.steps):
        n_samples = int(rng.uniform(*experiment.crop_s) * SAMPLE_RATE_HZ)
        positions_T = feature_positions(encoder_frames(n_samples), experiment.fps)
        waveform_BS, labels_BT = sampler.batch(experiment.batch, n_samples, positions_T)
        masked_BT = mask_spans(labels_BT.shape, experiment.mask_chance, experiment.mask_frames, generator)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=experiment.bf16):
            logits_BTP = model(
                torch.from_numpy(waveform_BS).to(run.device),
                torch.from_numpy(positions_T).float().to(run.device).expand(len(labels_BT), -1),
                masked_BT.to(run.device),
            ).float()
        target_BT = torch.from_numpy(labels_BT).to(run.device)
        loss = F.cross_entropy(logits_BTP.flatten(0, 1), target_BT.flatten(), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        accuracy = (logits_BTP.argmax(-1) == target_BT).float().mean()
        run.log(step, audio_s=waveform_BS.size / SAMPLE_RATE_HZ, loss=loss, accuracy=accuracy)
        if (step + 1) % 1000 == 0:
            run.save("encoder.pt", model.state_dict())
    run.save("encoder.pt", model.state_dict())
    run.report("valid", evaluate(model, store, experiment.fps, run.device))


@torch.no_grad()
def evaluate(model: PhoneRecogniser, store: SpeechStore, fps: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Per corpus: frame accuracy, and recall and precision of p/b/m as one class, on the validation split."""
    model.eval()
    counts: dict[str, np.ndarray] = {}
    for record in store.records:
        if record.split != "valid" or not record.phones:
            continue
        predicted_T, labels_T = _recognise(model, store, record, fps, device)
        said, heard = np.isin(labels_T, BILABIAL_LABELS), np.isin(predicted_T, BILABIAL_LABELS)
        row = [(predicted_T == labels_T).sum(), len(labels_T), (said & heard).sum(), said.sum(), heard.sum()]
        counts[record.corpus] = counts.get(record.corpus, np.zeros(5)) + row
    model.train()
    return {
        corpus: {"frame_accuracy": c[0] / c[1], "bilabial_recall": c[2] / c[3], "bilabial_precision": c[2] / c[4]}
        for corpus, c in counts.items()
    }


def _recognise(model, store: SpeechStore, record: SpeechRecord, fps: int, device) -> tuple[np.ndarray, np.ndarray]:
    samples_S = store.samples(record)
    positions_T = feature_positions(encoder_frames(len(samples_S)), fps)
    waveform = torch.from_numpy(normalise(samples_S))[None].to(device)
    logits_TP = model(waveform, torch.from_numpy(positions_T).float()[None].to(device))[0]
    return logits_TP.argmax(-1).cpu().numpy(), frame_labels(record.phones or [], frame_times_s(positions_T))
