# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer pretrain-hubert base_mfcc --data LibriSpeech --out work/hubert1`
`python -m trainer pretrain-hubert base_features --data LibriSpeech --out work/hubert2 --hubert work/hubert1`
`python -m trainer pretrain-hubert ear --data work --out work/ear`
`python -m trainer pretrain-hubert ear_languages --data work --out work/ear2 --hubert work/ear`

Trains a speech encoder by prediction of frame labels. The labels are clusters of masked frames, as in HuBERT (Hsu et
al. 2021; first of MFCC, then of the first encoder's hidden states), or aligned phones, of every frame: at the encoder's
own 50 Hz, or at the 30 Hz animation frames where the face model will read the encoder.

Shapes: B batch, S samples, L encoder frames (50 Hz), T animation frames, D features, K clusters, P phones, N masked
frames of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import HubertModel, Wav2Vec2FeatureExtractor, get_linear_schedule_with_warmup

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import replaced_folder
from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, FrameGrid, encoder_frames
from wav2sem_blender.pipeline.nn.encoders import WHISPER, build_backbone, convolve, encode, sound_for

from ..runs.run import Run, choose_attention, cosine_with_warmup, data_hash, unwrap
from ..runs.stages import fitting, read_encoder, read_recogniser
from ..speech.batches import CropSampler, frame_times_s, normalise
from ..speech.phones import BILABIALS, PHONES, frame_labels
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore
from ..speech.whisper import published_whisper
from .clusters import LabelledRecording, LabelledSpeech, cluster_quality, labelled_speech
from .recipes import MaskedClusters, MaskedPhones, PretrainHubert

BILABIAL_LABELS = [PHONES.index(phone) for phone in BILABIALS]
MOST_VALID_RECORDINGS = 500
ORDERED_TO_S = 0.25
CROP_GRID_S = 0.1  # gives lengths with small prime factors, which suit the augmentation's FFTs


class Task(Protocol):
    """The training task for one kind of labels."""

    model: nn.Module

    def batch(self, step: int) -> tuple[Sequence[Any], float]:
        """The global batch of a step, as items for `run.share`, and its seconds of speech."""

    def loss(self, model: nn.Module, items: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of some of a batch's items, and other values to log."""

    def evaluate(self) -> Mapping[str, Any]:
        """Figures on the validation split, of `self.model`."""


def pretrain_hubert(config: PretrainHubert, data: Path, run: Run, hubert: Path | None = None) -> None:
    """Train, then evaluate on held-out speakers.

    Writes `encoder.pt` (`audio_encoder.*` and the head), which the other verbs read, and `encoder/`, which
    `transformers.HubertModel.from_pretrained` reads (unless the front end is a log-mel spectrogram, which it lacks).

    Args:
        config: the experiment.
        data: a folder of recordings (clusters only), or prepared data.
        run: the open run.
        hubert: an earlier run. Experiments with source "features" cluster its hidden states; experiments that learn
            phones start from its weights, or have it as their teacher.

    Raises:
        MissingFileError: there are no recordings, no prepared speech, or no finished run at `hubert`.
        UserError: `hubert` or the recordings do not fit the experiment.
    """
    torch.manual_seed(config.seed)
    task = _task(config, data, run, hubert)
    optimiser = torch.optim.AdamW(
        parameter_groups(task.model, config), betas=(0.9, 0.98), eps=config.adam_eps, weight_decay=0.01
    )
    schedule = schedule_of(config, optimiser)
    model = run.learn(task.model, optimiser, schedule, clip=config.clip)
    for step in run.steps(config.steps):
        items, audio_s = task.batch(step)
        seen: list[dict[str, Tensor]] = []
        for part in run.share(items):
            loss, values = task.loss(model, part)
            run.backward(loss)
            seen.append(values)
        run.update()
        run.log(step, audio_s=audio_s, **{key: sum(values[key] for values in seen) / len(seen) for key in seen[0]})
    task.model = unwrap(model).eval()
    run.save("encoder.pt", task.model.state_dict())
    if run.is_main:
        if config.encoder.kind == "hubert" and "n_mels" not in config.encoder.config:
            normalised = isinstance(config.task, MaskedPhones) or config.task.normalise
            save_encoder(task.model.get_submodule("audio_encoder"), run.folder / "encoder", normalised)
        run.report("valid", task.evaluate())


def _task(config: PretrainHubert, data: Path, run: Run, hubert: Path | None) -> Task:
    if isinstance(config.task, MaskedClusters):
        return ClusterTask(config, labelled_speech(config.task, data, run, hubert), run)
    store = SpeechStore(data / "speech")
    run.describe(data_sha256=data_hash(store.files()))
    teacher = None
    if config.task.teacher_weight:
        if hubert is None:
            raise UserError("this experiment learns from a teacher: name its run by --hubert")
        teacher = read_teacher(hubert)
    task = PhoneTask(config, store, run, teacher)
    if config.pretrained:
        begin_with_whisper(task.recogniser, config.pretrained)
    if hubert is not None:
        if teacher is None:
            begin_with(task.model, hubert)
        run.describe(hubert=str(hubert))
    return task


def read_teacher(run: Path) -> PhoneRecogniser:
    """A finished run that learned phones, in eval mode."""
    teacher = PhoneRecogniser(read_encoder(run)[0])
    teacher.load_state_dict(read_recogniser(run))
    return teacher.eval().requires_grad_(False)


def begin_with_whisper(model: PhoneRecogniser, name: str) -> None:
    """Start from the first layers of a published Whisper encoder."""
    own = model.audio_encoder.state_dict()
    same = fitting(published_whisper(name), own)
    if missing := {key for key in own if not key.startswith("adapter.")} - same.keys():
        raise UserError(
            "{name}: has no {keys} of the experiment's size", name=name, keys=", ".join(sorted(missing)[:3])
        )
    model.audio_encoder.load_state_dict(same, strict=False)


def parameter_groups(model: nn.Module, config: PretrainHubert) -> list[dict[str, Any]]:
    """What the optimiser learns: pretrained layers at their own rate."""
    pretrained: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_new = not config.pretrained or not name.startswith("audio_encoder.") or ".adapter." in name
        (new if is_new else pretrained).append(parameter)
    if config.pretrained and not config.pretrained_rate:
        for parameter in pretrained:
            parameter.requires_grad_(False)
        pretrained = []
    groups = [{"params": new, "lr": config.peak_lr}]
    if pretrained:
        groups.append({"params": pretrained, "lr": config.peak_lr * config.pretrained_rate})
    return groups


def begin_with(model: nn.Module, run: Path) -> None:
    """Start from an earlier run's encoder, and from its head if the labels are the same.

    Raises:
        MissingFileError: the run is not there, or not finished.
        UserError: it has another encoder.
    """
    own = model.state_dict()
    same = fitting(read_recogniser(run), own)
    if {key for key in own if key.startswith("audio_encoder.")} - same.keys():
        raise UserError("--hubert {run}: has another encoder than this experiment; leave --hubert out", run=run)
    model.load_state_dict(same, strict=False)


def schedule_of(config: PretrainHubert, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then `config.decay` to zero at the last step.

    Raises:
        UserError: another decay than "linear" and "cosine".
    """
    schedules = {"linear": get_linear_schedule_with_warmup, "cosine": cosine_with_warmup}
    if config.decay not in schedules:
        raise UserError("decay {decay!r}: choose from {schedules}", decay=config.decay, schedules=", ".join(schedules))
    return schedules[config.decay](optimiser, config.warmup_steps, config.steps)


def save_encoder(encoder: nn.Module, folder: Path, normalised: bool) -> None:
    """Save the encoder as a transformers folder, with the feature extractor that describes the waveform's scaling."""
    assert isinstance(encoder, HubertModel)
    names = ("config.json", "model.safetensors", "preprocessor_config.json")
    with replaced_folder(folder, "a run", lambda _folder: names, names[0]) as new:
        encoder.save_pretrained(new)
        Wav2Vec2FeatureExtractor(do_normalize=normalised).save_pretrained(new)


@dataclass(frozen=True)
class Crop:
    """A part of a recording; `masked_L` is True at the frames to predict."""

    recording: LabelledRecording
    first_sample: int
    n_samples: int
    masked_L: np.ndarray


class ClusterPredictor(nn.Module):
    """HuBERT with its pretraining head: cosines between projected frames and one embedding for each cluster."""

    audio_encoder: HubertModel

    def __init__(self, config: PretrainHubert, settings: MaskedClusters) -> None:
        """Raises UserError if the encoder's convolutions do not give the labels' 50 Hz."""
        super().__init__()
        encoder = build_backbone(config.encoder.kind, config.encoder.config)
        if not isinstance(encoder, HubertModel) or [
            convolve(encoder, torch.zeros(1, n_samples)).shape[1] for n_samples in (16_079, 16_080)
        ] != [49, 50]:
            raise UserError("masked prediction of clusters needs a `hubert` encoder with one frame every 320 samples")
        self.audio_encoder = encoder
        self.projection = nn.Linear(encoder.config.hidden_size, settings.head_dim)
        self.label_embeddings = nn.Parameter(torch.empty(settings.n_clusters, settings.head_dim).uniform_())
        self.settings = settings

    def forward(self, waveform_BS: Tensor, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) of the masked frames, and the mean square of the convolutions' output."""
        encoder = self.audio_encoder
        features_BCL = encoder.feature_extractor(waveform_BS)
        if features_BCL.requires_grad:
            features_BCL.register_hook(lambda gradient: gradient * self.settings.feature_gradient)
        hidden_BLD = encoder.feature_projection(features_BCL.transpose(1, 2))
        hidden_BLD = torch.where(masked_BL[..., None], encoder.masked_spec_embed.to(hidden_BLD.dtype), hidden_BLD)
        hidden_ND = encoder.encoder(hidden_BLD).last_hidden_state[masked_BL]
        with torch.autocast(waveform_BS.device.type, enabled=False):
            projected = F.normalize(self.projection(hidden_ND.float()), dim=-1)
            logits_NK = projected @ F.normalize(self.label_embeddings, dim=-1).T / self.settings.temperature
        return logits_NK, features_BCL.float().square().mean()


class ClusterTask:
    """Predict the clusters of masked frames in random crops of similar length, without padding."""

    model: nn.Module

    def __init__(self, config: PretrainHubert, speech: LabelledSpeech, run: Run) -> None:
        """Raises UserError if every training recording is shorter than the shortest crop."""
        assert isinstance(config.task, MaskedClusters)
        self.settings, self._speech, self._run = config.task, speech, run
        self._shortest, self._longest = (round(s * SAMPLE_RATE_HZ) for s in self.settings.crop_s)
        usable = [recording for recording in speech.recordings if recording.n_samples >= self._shortest]
        self._train = [recording for recording in usable if recording.split == "train"]
        self._valid = [recording for recording in usable if recording.split == "valid"]
        if not self._train:
            raise UserError(
                "{root}: no training recording has at least {crop} s",
                root=speech.source.root,
                crop=self.settings.crop_s[0],
            )
        run.describe(too_short_to_train=len(speech.recordings) - len(usable))
        self._lengths = np.array([recording.n_samples for recording in self._train])
        self._slices = batch_slices(np.sort(self._lengths), self._longest, self.settings.batch_s * SAMPLE_RATE_HZ)
        self._order: tuple[int, np.ndarray] | None = None
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self.model = ClusterPredictor(config, self.settings)

    def batch(self, step: int) -> tuple[list[Crop], float]:
        """An epoch has every recording once; the crops of a batch are as long as its shortest recording allows."""
        epoch, i = divmod(step, len(self._slices))
        chosen = self._ordered(epoch)[self._slices[self._run.rng(1, epoch).permutation(len(self._slices))[i]]]
        n_samples = min(self._longest, int(self._lengths[chosen].min()))
        rng = self._run.rng(2, step)
        # Crops begin at a multiple of the encoder's hop, so that frames and labels coincide.
        firsts = HOP_SAMPLES * rng.integers((self._lengths[chosen] - n_samples) // HOP_SAMPLES + 1)
        masked_BL = self._mask(len(chosen), n_samples, rng)
        rows = zip(chosen, firsts, masked_BL, strict=True)
        crops = [Crop(self._train[c], int(first), n_samples, masked_L) for c, first, masked_L in rows]
        return crops, len(crops) * n_samples / SAMPLE_RATE_HZ

    def _ordered(self, epoch: int) -> np.ndarray:
        """The recordings by length; those of similar length in random order."""
        if self._order is None or self._order[0] != epoch:
            lengths = self._lengths // int(ORDERED_TO_S * SAMPLE_RATE_HZ)
            self._order = epoch, np.lexsort((self._run.rng(0, epoch).random(len(lengths)), lengths))
        return self._order[1]

    def _mask(self, n_crops: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        shape = (n_crops, encoder_frames(n_samples))
        return span_mask(shape, self.settings.mask_share, self.settings.mask_frames, rng)

    def loss(self, model: nn.Module, items: Sequence[Crop]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of the masked frames, and `feature_penalty` times the convolutions' mean square.

        This equals fairseq, which sums the cross-entropy over masked frames, adds the penalty times their number, and
        divides by that number before the update. Every crop of a global batch has the same number of masked frames, so
        the mean of the micro-batches' and processes' means is the global mean.
        """
        waveform_BS = torch.from_numpy(np.stack(list(self._threads.map(self._waveform, items))))
        masked_BL = torch.from_numpy(np.stack([crop.masked_L for crop in items]))
        labels_N = torch.from_numpy(np.concatenate([self._labels(crop)[crop.masked_L] for crop in items]))
        device = self._run.device
        with self._run.autocast():
            logits_NK, energy = model(waveform_BS.to(device), masked_BL.to(device))
        labels_N = labels_N.to(device)
        entropy = F.cross_entropy(logits_NK, labels_N)
        accuracy = (logits_NK.argmax(-1) == labels_N).float().mean()
        values = {"cross_entropy": entropy.detach(), "accuracy": accuracy, "feature_energy": energy.detach()}
        return entropy + self.settings.feature_penalty * energy, values

    def _waveform(self, crop: Crop) -> np.ndarray:
        samples_S = self._speech.samples(crop.recording, crop.first_sample, crop.n_samples)
        if len(samples_S) != crop.n_samples:
            raise UserError(
                "{path} has become shorter since it was labelled; start a new run",
                path=crop.recording.path,
            )
        return normalise(samples_S) if self.settings.normalise else samples_S

    def _labels(self, crop: Crop) -> np.ndarray:
        return self._speech.labels(crop.recording, crop.first_sample // HOP_SAMPLES, len(crop.masked_L))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float | dict[str, float]]:
        """Loss and accuracy on masked frames of held-out speakers, and the accuracy of their most frequent cluster."""
        some = self._valid[:: -(-len(self._valid) // MOST_VALID_RECORDINGS) or 1]
        results: dict[str, float | dict[str, float]] = {"recordings": len(some)}
        counts_K = np.zeros(self.settings.n_clusters)
        sums = np.zeros(2)
        for i, recording in enumerate(some):
            n_samples = min(recording.n_samples, self._longest)
            crop = Crop(recording, 0, n_samples, self._mask(1, n_samples, self._run.rng(3, i))[0])
            values = self.loss(self.model, [crop])[1]
            labels_N = self._labels(crop)[crop.masked_L]
            counts_K += np.bincount(labels_N, minlength=len(counts_K))
            sums += len(labels_N) * np.array([float(values["cross_entropy"]), float(values["accuracy"])])
        if some:
            n_masked = counts_K.sum()
            loss, accuracy = sums / n_masked
            commonest = counts_K.max() / n_masked
            results |= {"masked_loss": loss, "masked_accuracy": accuracy, "commonest_cluster": commonest}
        if quality := cluster_quality(self._speech, self._train + self._valid):
            results["clusters"] = quality
        return results


def batch_slices(lengths_N: np.ndarray, longest: int, batch: float) -> list[slice]:
    """Where to cut recordings, sorted by their `lengths_N`, into batches of `batch` samples or fewer after cropping.

    The last batch is filled with recordings of the one before.
    """
    slices = []
    first = 0
    while first < len(lengths_N):
        count = max(1, int(batch / min(longest, lengths_N[first])))
        slices.append(slice(max(0, min(first, len(lengths_N) - count)), first + count))
        first += count
    return slices


def span_mask(shape: tuple[int, int], share: float, length: int, rng: np.random.Generator) -> np.ndarray:
    """HuBERT's mask, bool (B, L), as fairseq draws it: about share * L / length spans per row (at least two) begin at
    different frames and may overlap; then all rows are thinned to the smallest row's number of masked frames.

    Raises:
        UserError: the rows are too short for two spans.
    """
    n_rows, n_frames = shape
    n_spans = max(2, int(share * n_frames / length + rng.random()))
    n_starts = n_frames - length
    if n_starts < n_spans:
        raise UserError(
            "{n_frames} encoder frames are too few for {n_spans} masked spans; use longer crops",
            n_frames=n_frames,
            n_spans=n_spans,
        )
    starts_BN = rng.random((n_rows, n_starts)).argsort(1)[:, :n_spans]
    masked_BL = np.zeros(shape, bool)
    masked_BL[np.arange(n_rows)[:, None, None], starts_BN[..., None] + np.arange(length)] = True
    ranks_BL = np.where(masked_BL, rng.random(shape), 2.0).argsort(1).argsort(1)
    return ranks_BL < masked_BL.sum(1).min()


class PhoneRecogniser(nn.Module):
    """The encoder and a linear layer to the phones."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        self.kind = encoder.kind
        self.audio_encoder = build_backbone(encoder.kind, encoder.config)
        self.head = nn.Linear(self.audio_encoder.config.hidden_size, len(PHONES))

    def hears(self, samples_BS: np.ndarray) -> Tensor:
        """What the encoder reads of recordings of equal length: their samples, or spectrograms."""
        return torch.from_numpy(np.stack([sound_for(self.kind, samples_S) for samples_S in samples_BS]))

    def forward(self, waveform_BS: Tensor, positions_BT: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """Phone logits (B, T, P) of what `hears` returned."""
        return self.head(encode(self.audio_encoder, waveform_BS, positions_BT, masked_BT=masked_BT)[0])


def random_span_mask(shape: tuple[int, ...], chance: float, length: int, generator: torch.Generator) -> Tensor:
    """Bool (B, T): every frame starts a masked span of `length` frames with probability `chance`."""
    starts_BT = torch.rand(shape, generator=generator) < chance
    return F.max_pool1d(F.pad(starts_BT.float(), (length - 1, 0)), length, 1).bool()


class PhoneTask:
    """Predict the phone at every animation frame in augmented crops of prepared speech."""

    model: nn.Module

    def __init__(
        self, config: PretrainHubert, store: SpeechStore, run: Run, teacher: PhoneRecogniser | None = None
    ) -> None:
        assert isinstance(config.task, MaskedPhones)
        self._teacher = teacher and teacher.to(run.device)
        self.settings, self._store, self._run = config.task, store, run
        self._train = [record for record in store.records if record.split == "train" and record.phones]
        self._sampler = CropSampler(store, self._train, self.settings.corpus_weights, self.settings.augmentation)
        self.recogniser = PhoneRecogniser(config.encoder)
        self.model = self.recogniser
        if config.encoder.kind != WHISPER:
            choose_attention(self.recogniser.audio_encoder, run)

    def batch(self, step: int) -> tuple[list[tuple[int, np.random.Generator]], float]:
        """The common length (samples) and the random numbers of each crop; a process makes only its own crops."""
        settings = self.settings
        hop = int(CROP_GRID_S * SAMPLE_RATE_HZ)
        n_samples = hop * int(self._run.rng(step).uniform(*settings.crop_s) / CROP_GRID_S)
        items = [(n_samples, self._run.rng(step, i)) for i in range(settings.batch)]
        return items, settings.batch * n_samples / SAMPLE_RATE_HZ

    def _mask(self, n_frames: int, rng: np.random.Generator) -> Tensor:
        generator = torch.Generator().manual_seed(int(rng.integers(2**32)))
        return random_span_mask((1, n_frames), self.settings.mask_chance, self.settings.mask_frames, generator)[0]

    def _positions(self, n_samples: int) -> np.ndarray:
        return FrameGrid.at_rate(self.settings.fps).positions(n_samples)

    def loss(
        self, model: nn.Module, items: Sequence[tuple[int, np.random.Generator]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of all frames, masked or not, with the labels and, by its weight, with the teacher."""
        device, settings = self._run.device, self.settings
        positions_T = self._positions(items[0][0])
        crops = [self._sampler.crop(n_samples, positions_T, rng) for n_samples, rng in items]
        masked_BT = torch.stack([self._mask(len(positions_T), rng) for _, rng in items]).to(device)
        target_BT = torch.from_numpy(np.stack([crop.labels_T for crop in crops])).to(device)
        positions_BT = torch.from_numpy(positions_T).float().to(device).expand(len(crops), -1)
        heard = self.recogniser.hears(np.stack([crop.samples_S for crop in crops])).to(device)
        with self._run.autocast():
            logits_BTP = model(heard, positions_BT, masked_BT).float()
        loss = F.cross_entropy(logits_BTP.flatten(0, 1), target_BT.flatten(), label_smoothing=settings.label_smoothing)
        if self._teacher is not None:
            clean = self._teacher.hears(np.stack([crop.clean_S for crop in crops])).to(device)
            with torch.no_grad(), self._run.autocast():
                taught_BTP = self._teacher(clean, positions_BT).float().softmax(-1)
            taught = F.cross_entropy(logits_BTP.flatten(0, 1), taught_BTP.flatten(0, 1))
            loss = (1 - settings.teacher_weight) * loss + settings.teacher_weight * taught
        return loss, {"accuracy": (logits_BTP.argmax(-1) == target_BT).float().mean()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, dict[str, float]]:
        """Per corpus: frame accuracy, and recall and precision of p/b/m as one class, on the validation split."""
        counts: dict[str, np.ndarray] = {}
        for record in self._store.records:
            if record.split != "valid" or not record.phones:
                continue
            predicted_T, labels_T = self._recognise(record)
            said, heard = np.isin(labels_T, BILABIAL_LABELS), np.isin(predicted_T, BILABIAL_LABELS)
            row = [(predicted_T == labels_T).sum(), len(labels_T), (said & heard).sum(), said.sum(), heard.sum()]
            counts[record.corpus] = counts.get(record.corpus, np.zeros(5)) + row
        return {
            corpus: {
                "frame_accuracy": c[0] / c[1],
                "bilabial_recall": c[2] / max(1, c[3]),
                "bilabial_precision": c[2] / max(1, c[4]),
            }
            for corpus, c in counts.items()
        }

    def _recognise(self, record: SpeechRecord) -> tuple[np.ndarray, np.ndarray]:
        samples_S = self._store.samples(record)
        positions_T = self._positions(len(samples_S))
        heard = self.recogniser.hears(normalise(samples_S)[None]).to(self._run.device)
        logits_TP = self.model(heard, torch.from_numpy(positions_T).float()[None].to(self._run.device))[0]
        return logits_TP.argmax(-1).cpu().numpy(), frame_labels(record.phones or [], frame_times_s(positions_T))
