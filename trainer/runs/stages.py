# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a face model, from earlier runs, imports and hubs.

Every reader returns a config and a state dict of the bare module, on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, Wav2SemConfig, Wav2SemFolder, open_folder
from wav2sem_blender.pipeline.nn.emotion2vec import EMOTION2VEC
from wav2sem_blender.pipeline.nn.encoders import KINDS, load_backbone
from wav2sem_blender.pipeline.nn.published import own_weights
from wav2sem_blender.pipeline.official.lsf import PRETRAINING, SCALE_KEY, emotion_config
from wav2sem_blender.pipeline.official.published import read_file

from .run import read_run

State = Mapping[str, Tensor]
PRIOR_FILE = "prior.pt"


def read_encoder(run: Path) -> tuple[EncoderConfig, State]:
    """The encoder of a pretrain-hubert run.

    Raises:
        MissingFileError: The run is missing or not finished.
    """
    config = read_run(run)["config"]
    return EncoderConfig(**config["encoder"]), below("audio_encoder.", read_recogniser(run))


def read_recogniser(run: Path) -> State:
    """All weights of a pretrain-hubert run: `audio_encoder.*` and the head.

    Raises:
        MissingFileError: The run is missing or not finished.
    """
    read_run(run, "encoder.pt")
    return torch.load(run / "encoder.pt", weights_only=True, map_location="cpu")


def read_prior(run: Path) -> State:
    """The weights of a pretrain-prior run, or of a published stage-1 file such as CodeTalker's.

    Raises:
        MissingFileError: The run is missing or not finished.
        UserError: The file is no checkpoint.
    """
    if run.is_file():
        return {key: value.float() for key, value in read_file(run).items() if not key.endswith(".pe")}
    read_run(run, PRIOR_FILE)
    return torch.load(run / PRIOR_FILE, weights_only=True, map_location="cpu")


def read_emotion(emotion: EncoderConfig, weights: str, data: Path) -> tuple[EncoderConfig, State]:
    """The encoder that hears emotions: emotion2vec's released file in the folder `data`, or as `read_pretrained`.

    Raises:
        MissingFileError: It is not there.
        UserError: It is another model's.
    """
    if emotion.kind != EMOTION2VEC:
        return read_pretrained(weights, emotion.kind)
    file = data / weights
    if not file.is_file():
        raise MissingFileError(
            "{file} is missing: emotion2vec's released weights, which this host hears emotions with", file=file
        )
    state = own_weights(read_file(file), others=PRETRAINING)
    if SCALE_KEY not in state:
        raise UserError(
            "{file}: the key {key} is missing; these are not emotion2vec's weights", file=file, key=SCALE_KEY
        )
    return emotion_config(state[SCALE_KEY]), {name: value.float() for name, value in state.items()}


def fitting(theirs: State, ours: State) -> dict[str, Tensor]:
    """Their tensors whose name and shape are those of one of ours."""
    return {key: value for key, value in theirs.items() if key in ours and ours[key].shape == value.shape}


def read_wav2sem(path: Path) -> tuple[Wav2SemConfig, State]:
    """The Wav2Sem of a pretrain run, or of a folder that `python -m wav2sem_blender import` wrote.

    Raises:
        MissingFileError: Nothing is there, or the run is not finished.
        UserError: The folder is damaged, or holds another model.
    """
    if (path / "config.json").is_file():
        folder = open_folder(path)
        if not isinstance(folder, Wav2SemFolder):
            raise UserError(
                "{folder}: this is a whole model; --wav2sem takes a pretrain run or an imported Wav2Sem",
                folder=path,
            )
        tensors = {key: torch.from_numpy(value) for key, value in folder.tensors("wav2sem.").items()}
        return folder.config, tensors
    config = read_run(path, "wav2sem.pt")["config"]
    state = torch.load(path / "wav2sem.pt", weights_only=True, map_location="cpu")
    if config.get("shared"):
        return Wav2SemConfig(
            config=config["encoder_config"], target_dim=len(state["projection.bias"]), shared=True
        ), state
    width = len(state["encoder.encoder.layer_norm.bias"])
    target_dim = len(state["projection.bias"]) if "projection.bias" in state else width
    return Wav2SemConfig(config=config["encoder_config"], target_dim=target_dim), state


def read_sentence_space(path: Path) -> dict[str, Any]:
    """The text vectors of a pretrain run: `text_model`, `target` and `normalise_target`; {} for an import, whose text
    model is unknown."""
    if not (path / "run.json").is_file():
        return {}
    run = read_run(path)
    return {"text_model": run["text_model"]} | {key: run["config"][key] for key in ("target", "normalise_target")}


def read_pretrained(folder_or_name: str, kind: str) -> tuple[EncoderConfig, State]:
    """Published weights of `kind` ("wav2vec2" or "hubert"), from a folder or, with a network, from a hub.

    Raises:
        MissingFileError: Neither a folder nor a hub has them.
        UserError: The folder holds another kind of encoder, which would load as noise without an error.
    """
    described = Path(folder_or_name) / "config.json"
    if described.is_file():
        found = json.loads(described.read_text(encoding="utf-8")).get("model_type")
        if found != kind:
            raise UserError(
                "{folder}: a {found} encoder, the experiment asks for {kind}",
                folder=folder_or_name,
                found=found,
                kind=kind,
            )
    try:
        backbone = load_backbone(folder_or_name, kind)
    except OSError as error:
        raise MissingFileError(
            "encoder {name!r}: there is no such folder with config.json and weights, and no hub provides it "
            "({reason}); name a folder in an experiment of your own, or give --hubert RUN",
            name=folder_or_name,
            reason=str(error).splitlines()[0],
        ) from error
    return EncoderConfig(kind=kind, config=_changed(backbone.config, KINDS[kind][0]())), backbone.state_dict()


def _changed(config: Any, base: Any) -> dict[str, Any]:
    """The values of a transformers config that differ from the base size and belong to the architecture."""
    unimportant = {"architectures", "dtype", "transformers_version", "_name_or_path", "apply_spec_augment"}
    base_values = base.to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if key in base_values and value != base_values[key] and key not in unimportant
    }


def below(prefix: str, state: State) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
