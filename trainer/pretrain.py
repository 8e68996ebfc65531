# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer pretrain bundled_wav2sem --data work --out work/wav2sem --hubert work/hubert`

Wav2Sem: a whole utterance's audio into the text model's sentence space, by L1 (the paper's loss) and a contrastive term
that keeps it from collapsing onto the mean sentence.

Shapes: B batch, S samples, E sentence space.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem

from .augment import Augmenter
from .batches import normalise
from .experiments import PretrainWav2Sem
from .runs import Run, cosine_with_warmup
from .sentences import default_text_model, text_vectors
from .speech import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore


def pretrain(experiment: PretrainWav2Sem, data: Path, run: Run, start: Path | None) -> None:
    """Train and report against controls on held-out speakers; writes `wav2sem.pt`."""
    torch.manual_seed(experiment.seed)
    rng = np.random.default_rng(experiment.seed)
    store = SpeechStore(data / "speech")
    longest = experiment.longest_s * SAMPLE_RATE_HZ
    records = [record for record in store.records if record.text and record.n_samples <= longest]
    texts = sorted({record.text for record in records if record.text})
    vectors = text_vectors(texts, experiment.text_model or default_text_model(), experiment.target)
    targets = dict(zip(texts, vectors, strict=True))
    train = _by_corpus([record for record in records if record.split == "train"], experiment)
    model = Wav2Sem(experiment.encoder_config, vectors.shape[1]).to(run.device)
    if start is not None:
        print("tensors taken over from the phone encoder:", take_over(model, start))
        model.encoder.feature_extractor.requires_grad_(False)  # it hears already; most of a step's time is its gradient
    augment = Augmenter(store, experiment.augmentation, experiment.seed)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=experiment.peak_lr, weight_decay=0.01)
    schedule = cosine_with_warmup(optimiser, experiment.warmup_steps, experiment.steps)
    corpora = sorted(train)
    for step in run.steps(experiment.steps):
        some = train[corpora[rng.integers(len(corpora))]]
        batch = _similar_lengths(some, experiment.batch, rng)
        waveform_BS, lengths_B = _padded([normalise(augment(store.samples(record))) for record in batch])
        target_BE = torch.stack([targets[record.text] for record in batch if record.text]).to(run.device)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=experiment.bf16):
            vector_BE = model(waveform_BS.to(run.device), lengths_B.to(run.device)).float()
        loss = F.l1_loss(vector_BE, target_BE) + experiment.contrastive * _contrastive(vector_BE, target_BE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        schedule.step()
        run.log(step, audio_s=float(lengths_B.sum()) / SAMPLE_RATE_HZ, loss=loss)
    run.save("wav2sem.pt", model.state_dict())
    run.report("valid", evaluate(model, store, records, targets, run.device))


def take_over(model: Wav2Sem, run: Path) -> int:
    """Start from the phone encoder of a pretrain-hubert run where names and shapes agree; returns how many did."""
    theirs = torch.load(run / "encoder.pt", weights_only=True, map_location="cpu")
    ours = model.encoder.state_dict()
    same = {key: theirs[f"audio_encoder.{key}"] for key in ours if f"audio_encoder.{key}" in theirs}
    same = {key: value for key, value in same.items() if value.shape == ours[key].shape}
    model.encoder.load_state_dict(same, strict=False)
    return len(same)


def _by_corpus(records: list[SpeechRecord], experiment: PretrainWav2Sem) -> dict[str, list[SpeechRecord]]:
    groups: dict[str, list[SpeechRecord]] = {}
    for record in sorted(records, key=lambda record: record.n_samples):
        if record.corpus in experiment.corpora:
            groups.setdefault(record.corpus, []).append(record)
    return groups


def _similar_lengths(records: list[SpeechRecord], size: int, rng: np.random.Generator) -> list[SpeechRecord]:
    """Neighbours in length, each text once: a text cannot be its own counter-example."""
    middle = rng.integers(len(records))
    near = records[max(0, middle - 4 * size) : middle + 4 * size]
    order = rng.permutation(len(near))
    return list({near[i].text: near[i] for i in order}.values())[:size]


def _padded(waveforms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = [len(waveform_S) for waveform_S in waveforms]
    padded_BS = np.stack([np.pad(waveform_S, (0, max(lengths) - len(waveform_S))) for waveform_S in waveforms])
    return torch.from_numpy(padded_BS), torch.tensor(lengths)


def _contrastive(vector_BE: Tensor, target_BE: Tensor) -> Tensor:
    similarity_BB = F.normalize(vector_BE, dim=-1) @ F.normalize(target_BE, dim=-1).T / 0.07
    return F.cross_entropy(similarity_BB, torch.arange(len(similarity_BB), device=similarity_BB.device))


@torch.no_grad()
def evaluate(
    model: Wav2Sem, store: SpeechStore, records: list[SpeechRecord], targets: dict[str, Tensor], device: torch.device
) -> dict[str, dict[str, float]]:
    """Per corpus on the validation split: L1 to the text vector against a constant (the training texts' median), and
    how often the right text is the nearest of the corpus' held-out texts, against chance."""
    model.eval()
    constant_E = torch.stack([targets[r.text] for r in records if r.text and r.split == "train"]).median(0).values
    results: dict[str, dict[str, float]] = {}
    for corpus in sorted({record.corpus for record in records if record.split == "valid"}):
        held_out = [record for record in records if record.split == "valid" and record.corpus == corpus]
        texts = sorted({record.text for record in held_out if record.text})
        waveforms = [torch.from_numpy(normalise(store.samples(record)))[None].to(device) for record in held_out]
        vector_NE = torch.cat([model(waveform).cpu() for waveform in waveforms])
        target_NE = torch.stack([targets[record.text] for record in held_out if record.text])
        nearest_N = (F.normalize(vector_NE, dim=-1) @ torch.stack([targets[text] for text in texts]).T).argmax(1)
        right = [texts[i] == record.text for i, record in zip(nearest_N.tolist(), held_out, strict=True)]
        results[corpus] = {
            "clips": len(held_out),
            "l1": float((vector_NE - target_NE).abs().mean()),
            "l1_of_constant": float((constant_E - target_NE).abs().mean()),
            "retrieval": float(np.mean(right)),
            "chance": 1 / len(texts),
        }
    return results
