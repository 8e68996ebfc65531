# SPDX-License-Identifier: GPL-3.0-or-later
"""The encoders that `analyze --model` names (in models, runs, encoder and Wav2Sem folders) and their word vectors.

Shapes: S samples, L encoder frames (50 Hz), N words, D features, E sentence space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.engine_torch import load_state
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES
from wav2sem_blender.pipeline.nn.encoders import KINDS, Backbone, encode, load_backbone, sound_for
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.wav2sem import FeatureReader, Wav2Sem

from ..runs.stages import read_wav2sem
from ..speech.batches import frame_times_s, normalise
from ..speech.prepared import SAMPLE_RATE_HZ
from .ground_truth import AlignedUtterance
from .homophones import DISTANCES, PAIR_KINDS, Token, distances, with_semantics
from .protocol import Analyze

PAIR_COLUMNS = (*PAIR_KINDS, "near / random", "near / same word")


@dataclass(frozen=True, kw_only=True)
class Given:
    """The paths of `--model`, sorted by what they hold."""

    models: dict[str, Path] = field(default_factory=dict)
    encoders: dict[str, Path] = field(default_factory=dict)
    semantics: dict[str, Path] = field(default_factory=dict)
    runs: dict[str, Path] = field(default_factory=dict)
    evaluations: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TestedEncoder:
    """A speech encoder (`kind` "hubert", "wav2vec2", "wavlm" or "whisper"), which hears normalised samples or not, and
    the inner(F_s) added to its features, if any."""

    name: str
    kind: str
    encoder: Backbone
    wav2sem: Wav2Sem | FeatureReader | None
    inner: nn.Module | None
    note: str
    normalised: bool = True


def recognise(names: Sequence[str]) -> Given:
    """Sort the paths; "default" is the bundled model.

    Raises:
        MissingFileError: there is no such folder.
        UserError: a folder holds nothing that can be analysed.
    """
    given = Given()
    for name in names:
        path = DEFAULT_MODEL if name == "default" else Path(name)
        label = name if name == "default" else path.resolve().name
        if any(label in some for some in (given.models, given.encoders, given.semantics, given.runs)):
            label = "/".join(path.resolve().parts[-2:])
        if not path.is_dir():
            raise MissingFileError("{path}: there is no such folder; --model takes default, or folders", path=path)
        config = path / "config.json"
        described = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        if "model" in described:
            given.models[label] = path
        elif "wav2sem" in described:
            given.semantics[label] = path
        elif described.get("model_type") in KINDS:
            given.encoders[label] = path
        elif (path / "run.json").is_file():
            given.runs[label] = path
            for part, found in (("model", given.models), ("encoder", given.encoders)):
                if (path / part / "config.json").is_file():
                    found[label] = path / part
            if (path / "wav2sem.pt").is_file():
                given.semantics[label] = path
        elif (path / "results.json").is_file():
            given.evaluations[label] = path
        else:
            raise UserError(
                "{path}: holds nothing to analyse; --model takes a model folder, a run, a transformers encoder "
                "({kinds}), a Wav2Sem folder, or an evaluation's folder",
                path=path,
                kinds=" or ".join(KINDS),
            )
    return given


def open_encoders(given: Given, device: str) -> tuple[list[TestedEncoder], list[str]]:
    """Every encoder with its own Wav2Sem, or with each given one of its width; and notes on those that fit none."""
    tested_encoders, notes = [], []
    for name, path in given.models.items():
        tested_encoders.append(_from_model(name, ModelFolder.open(path)))
    semantics = {name: _wav2sem(path) for name, path in given.semantics.items()}
    for name, path in given.encoders.items():
        kind = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
        encoder = load_backbone(str(path), kind)
        width = encoder.config.hidden_size
        fitting = {other: wav2sem for other, (wav2sem, target_dim) in semantics.items() if target_dim == width}
        notes += [
            f"{other} is not added to {name}: its F_s is not {width} wide." for other in semantics.keys() - fitting
        ]
        for other, wav2sem in fitting.items():
            note, inner = "F_s added as it is", nn.Identity()
            tested = TestedEncoder(
                name=f"{name} + {other}", kind=kind, encoder=encoder, wav2sem=wav2sem, inner=inner, note=note
            )
            tested_encoders.append(tested)
        if not fitting:
            note = "no Wav2Sem to add"
            tested_encoders.append(
                TestedEncoder(name=name, kind=kind, encoder=encoder, wav2sem=None, inner=None, note=note)
            )
    for tested in tested_encoders:
        for module in (tested.encoder, tested.wav2sem, tested.inner):
            if module is not None:
                module.eval().requires_grad_(False).to(device)
    return tested_encoders, notes


def _from_model(name: str, folder: ModelFolder) -> TestedEncoder:
    model = FaceModel(folder.config)
    model.load_state_dict(load_state(folder))
    inner: nn.Module | None = None
    note = "the model has no Wav2Sem"
    if folder.config.wav2sem is not None:
        width = model.audio_encoder.config.hidden_size
        if folder.config.wav2sem.target_dim == width:
            inner, note = nn.Identity(), "F_s added as it is"
        else:
            inner = model.fusion.semantic_feature_map
            note = f"F_s ({folder.config.wav2sem.target_dim}) added through the trained inner FC to {width} features"
    return TestedEncoder(
        name=name, kind=folder.config.encoder.kind, encoder=model.audio_encoder, wav2sem=model.wav2sem, inner=inner,
        note=note, normalised=folder.config.encoder.normalised,
    )  # fmt: skip


def _wav2sem(path: Path) -> tuple[Wav2Sem, int]:
    config, state = read_wav2sem(path)
    model = Wav2Sem(config.config, config.target_dim)
    model.load_state_dict(state)
    return model, config.target_dim


@torch.inference_mode()
def word_vectors(
    tested: TestedEncoder, utterances: Sequence[AlignedUtterance], tokens: Sequence[Token], slicing: str, device: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean over time of each word's last-layer features (N, D), and inner(F_s) as (N, D) or None without a Wav2Sem.

    Audio slicing: both come from the word's own sound. Feature slicing: the whole utterance goes through the encoders,
    the frames whose middle lies in the word are kept, and F_s is the utterance's.
    """
    features = torch.zeros(len(tokens), tested.encoder.config.hidden_size)
    semantic = torch.zeros_like(features) if tested.wav2sem is not None else None
    spoken: dict[int, list[int]] = {}
    for i, token in enumerate(tokens):
        spoken.setdefault(token.utterance, []).append(i)
    for utterance, rows in tqdm(spoken.items(), desc=f"{tested.name}, {slicing} slicing", unit="clip", leave=False):
        samples_S = utterances[utterance].samples()
        if slicing == "features":
            hidden_LD, added_D = _encoded(tested, samples_S, device)
            times_L = frame_times_s(np.arange(len(hidden_LD)))
        for i in rows:
            start_s, end_s = tokens[i].start_s, tokens[i].end_s
            if slicing == "audio":
                clip_S = samples_S[int(start_s * SAMPLE_RATE_HZ) : int(np.ceil(end_s * SAMPLE_RATE_HZ))]
                hidden_LD, added_D = _encoded(tested, clip_S, device)
                features[i] = hidden_LD.mean(0)
            else:
                inside_L = (times_L >= start_s) & (times_L < end_s)
                inside_L[np.abs(times_L - (start_s + end_s) / 2).argmin()] = True
                features[i] = hidden_LD[torch.from_numpy(inside_L)].mean(0)
            if semantic is not None and added_D is not None:
                semantic[i] = added_D
    return features.numpy(), None if semantic is None else semantic.numpy()


def _encoded(tested: TestedEncoder, samples_S: np.ndarray, device: str) -> tuple[Tensor, Tensor | None]:
    """Features (L, D) and inner(F_s) (D,) of one piece of sound, on the CPU."""
    reader = tested.wav2sem if isinstance(tested.wav2sem, FeatureReader) else None
    shortest = reader.stride * HOP_SAMPLES if reader else RECEPTIVE_FIELD_SAMPLES
    samples_S = np.pad(samples_S, (0, max(0, shortest - len(samples_S))))
    normal_S = normalise(samples_S)
    heard_S = sound_for(tested.kind, normal_S if tested.normalised else samples_S.astype(np.float32))
    heard_BX = torch.from_numpy(heard_S)[None].to(device)
    hidden_BLD, _ = encode(tested.encoder, heard_BX)
    added_D = None
    if tested.wav2sem is not None and tested.inner is not None:
        read = hidden_BLD if reader else torch.from_numpy(normal_S)[None].to(device)
        added_D = tested.inner(tested.wav2sem(read))[0].cpu()
    return hidden_BLD[0].cpu(), added_D


def word_distances(
    tested: TestedEncoder,
    utterances: Sequence[AlignedUtterance],
    tokens: Sequence[Token],
    draws: Sequence[Mapping[str, np.ndarray]],
    config: Analyze,
    device: str,
) -> list[dict[str, Any]]:
    """One row for each slicing, variant and distance: mean and standard deviation over the seeds, of each kind of pair
    and of the ratios."""
    used = np.unique(np.concatenate([pairs.ravel() for draw in draws for pairs in draw.values()]))
    rows = []
    for slicing in config.slicings:
        features_ND, semantic_ND = word_vectors(tested, utterances, [tokens[i] for i in used], slicing, device)
        owners_N = np.array([tokens[i].utterance for i in used]) if slicing == "features" else used
        measured: dict[tuple[str, str], list[list[float]]] = {}
        for seed, draw in zip(config.seeds, draws, strict=True):
            variants = {"without Wav2Sem": features_ND}
            if semantic_ND is not None:
                variants = with_semantics(features_ND, semantic_ND, owners_N, seed)
            for variant, vectors_ND in variants.items():
                found = {
                    kind: distances(*(vectors_ND[np.searchsorted(used, side)] for side in pairs.T))
                    for kind, pairs in draw.items()
                }
                for distance in DISTANCES:
                    near, random, same = (float(found[kind][distance].mean()) for kind in PAIR_KINDS)
                    measured.setdefault((variant, distance), []).append(
                        [near, random, same, near / random, near / same]
                    )
        for (variant, distance), seeds in measured.items():
            rows.append(_row(tested.name, slicing, variant, distance, np.array(seeds)))
    return rows


def _row(model: str, slicing: str, variant: str, distance: str, seeds_X5: np.ndarray) -> dict[str, Any]:
    values = {
        name: {"mean": float(mean), "sd": float(sd)}
        for name, mean, sd in zip(PAIR_COLUMNS, seeds_X5.mean(0), seeds_X5.std(0), strict=True)
    }
    return {"model": model, "slicing": slicing, "variant": variant, "distance": distance, **values}
