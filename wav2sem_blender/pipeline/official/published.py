# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading published checkpoint files: state dicts of tensors, never pickled code; their names, and what does not fit.

Shapes: X = 3V outputs of a head on vertices.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor

from ...errors import MissingFileError, Text, UserError, is_out_of_memory
from ..array_file import is_zip, read_arrays
from ..checkpoint import EncoderConfig, ModelFolder
from ..hosts.protocol import Host, Release
from ..nn.encoders import KINDS
from ..nn.host_network import HostNetwork
from ..restricted_pickle import MAX_GROWTH, ClaimError, EndlessError
from ..stand_ins import refuse_stand_in
from ..weights_file import read_shapes
from . import lightning

BASE_ENCODER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
# Root mean square of the change of the vertices' motion, against the same weights in float32.
ROUNDING_PERCENT = {torch.float16: 0.13, torch.bfloat16: 1.0}
_KEYS_SHOWN = 5
State = dict[str, Tensor]
Names = Sequence[tuple[str, str]]
"""Prefixes of released names, and ours."""
_WEIGHT_NORM_NAMES = (
    ("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    ("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
)
_ARCHITECTURE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feat_extract_norm", "do_stable_layer_norm"),
    *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups"),
)


@dataclass(kw_only=True)
class Source:
    """A published file that is being read.

    Attributes:
        path: The file.
        state: Its tensors in float32, by their released names.
        beside: The further files that were given with it.
        notes: What the user should know.
    """

    path: Path
    state: State
    beside: Sequence[Path] = ()
    notes: list[Text] = field(default_factory=list)

    def take(self, key: str) -> Tensor:
        """A tensor that the file must have; UserError if it is missing."""
        if key not in self.state:
            raise UserError(
                "{file}: the key {key} is missing; this is another model's file", file=self.path.name, key=key
            )
        return self.state[key]

    def second(self, what: str, fits: Callable[[Path], bool]) -> Path:
        """The file among `beside` that `fits`.

        Raises:
            MissingFileError: There is none; the message says `what` is missing.
        """
        for path in self.beside:
            if fits(path):
                return path
        raise MissingFileError(
            "{file}: it needs {what} too; give that file with --with FILE", file=self.path.name, what=what
        )


@dataclass(frozen=True, kw_only=True)
class Published:
    """A face model as its file describes it.

    Attributes:
        encoder: Its speech encoder.
        host: The settings of its host.
        state: State dict of `FaceModel`, without the Wav2Sem.
        n_outputs: Outputs of the host's network, as published: 3V, or the number of its channels.
        styles: Names of its speaking styles.
        topology, basis_unit: As in `Release`.
        legacy_predict: The released code leaves FC out in inference.
        emotion: The encoder that hears the emotion, if there is one.
        prepare: Gives the host's network what its `on_keys` needs beside the weights, such as FLAME.
    """

    encoder: EncoderConfig
    host: Host
    state: State
    n_outputs: int
    styles: tuple[str, ...]
    topology: str
    basis_unit: str
    legacy_predict: bool = False
    emotion: EncoderConfig | None = None
    prepare: Callable[[HostNetwork], None] = lambda network: None

    @classmethod
    def of(cls, release: Release, encoder: EncoderConfig, state: State, **changed: Any) -> Published:
        """As the release says."""
        return cls(
            **{
                "encoder": encoder,
                "host": release.host,
                "state": state,
                "n_outputs": 3 * release.n_vertices,
                "styles": release.styles,
                "topology": release.topology,
                "basis_unit": release.basis_unit,
                **changed,
            }
        )


class Format(Protocol):
    """What a module here offers for the files of its host. `hosts.KIND.RELEASES` lists the kinds of them."""

    PREFIX: str
    """Before every released name, such as "nn_model."; the Wav2Sem beside the host has it too."""

    def recognised(self, state: Mapping[str, Tensor]) -> str | None:
        """The kind of a file with these keys and shapes; None for another host's file."""

    def read(self, kind: str, source: Source) -> Published:
        """The model of a file, whose Wav2Sem has been taken out; UserError where it does not fit the kind."""

    def write(self, model: ModelFolder) -> dict[str, dict[str, Any]]:
        """File name -> what `write_file` is given; the first gets the Wav2Sem, if there is one, from the caller.

        Raises:
            UserError: The model differs from the released architecture.
        """


def read_file(path: Path) -> State:
    """The tensors of a checkpoint, by their released names, as stored.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is truncated, no checkpoint, or holds more than tensors.
    """
    if not path.is_file():
        raise MissingFileError("{file}: no such file", file=path)
    refuse_stand_in(path)
    size = path.stat().st_size
    try:
        loaded = _loaded(path)
    except (ClaimError, EndlessError) as error:
        raise UserError(
            "{file}: {size} bytes that claim to be more than they can hold ({error}); this is no checkpoint",
            file=path.name,
            size=size,
            error=error,
        ) from error
    except UserError as error:
        raise UserError("{file}: no checkpoint, or damaged ({reason})", file=path.name, reason=error.text) from error
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError and RuntimeError
        if is_out_of_memory(error):
            raise
        raise _unreadable(path, size, error) from error
    state = _state_in(loaded)
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise _without_state(path, loaded)
    unlike = next((key for key, value in state.items() if not _is_plain(value)), None)
    if unlike is not None and state is loaded:
        raise _without_state(path, loaded)
    if unlike is not None:
        raise UserError(
            "{file}: {key} is no tensor with values, but a {kind}. {remedy}",
            file=path.name,
            key=unlike,
            kind=type(state[unlike]).__name__.lstrip("_"),
            remedy=_SAVE_WEIGHTS,
        )
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > MAX_GROWTH * size:  # one number that is repeated, or zeros that are packed
        raise UserError(
            "{file}: {size} bytes that claim to be {claimed} bytes of weights; this is no checkpoint",
            file=path.name,
            size=size,
            claimed=claimed,
        )
    state = {_released_name(key): value for key, value in state.items()}
    _check_finite(path, state)
    return state


def _released_name(key: str) -> str:
    """Without what `DataParallel` and `torch.compile` put around a model, in either order, or around a part of it."""
    return key.replace("_orig_mod.", "").removeprefix("module.")


_SAVE_WEIGHTS = Text("Where it was made, save the weights alone: torch.save(model.state_dict(), FILE)")


def _loaded(path: Path) -> Any:
    if path.suffix == ".npz":
        return _arrays_in(path)
    if path.suffix == ".safetensors":
        read_shapes(path)
        return load_safetensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it then refuses, which is told in a sentence
        return lightning.load(path)


def _unreadable(path: Path, size: int, error: Exception) -> UserError:
    """Of a file that torch refuses: why, and what helps."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK") and not is_zip(path):
        return UserError(
            "{file}: {size} bytes, and its end is missing; copy or download it again.", file=path.name, size=size
        )
    if "TorchScript" in str(error):
        return UserError("{file}: it is compiled (TorchScript). {remedy}", file=path.name, remedy=_SAVE_WEIGHTS)
    if type(error).__name__ == "UnpicklingError" and "Weights only load failed" in str(error):
        return UserError(
            "{file}: it holds program objects, which may run anything and are not read. {remedy}",
            file=path.name,
            remedy=_SAVE_WEIGHTS,
        )
    return UserError(
        "{file}: {size} bytes that torch cannot read as weights ({error}); it is another kind of file, or damaged. "
        "Compare its size with that on its page, and copy it again if it differs.",
        file=path.name,
        size=size,
        error=type(error).__name__,
    )


def _without_state(path: Path, loaded: object) -> UserError:
    """Of a file that torch reads, but that is no state dict."""
    if isinstance(loaded, Mapping):
        names = [str(key)[:40] for key in list(loaded)[:_KEYS_SHOWN]]
        return UserError(
            "{file}: no state dict of tensors is in it; its keys are {keys}. {remedy}",
            file=path.name,
            keys=", ".join(map(repr, names)) + (", …" if len(loaded) > _KEYS_SHOWN else "") if names else "none",
            remedy=_SAVE_WEIGHTS,
        )
    return UserError(
        "{file}: it holds a {kind} instead of a state dict of tensors. {remedy}",
        file=path.name,
        kind=type(loaded).__name__.lstrip("_"),
        remedy=_SAVE_WEIGHTS,
    )


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError for a weight that is no number; masks may hold minus infinity."""
    for key, value in state.items():
        if value.is_floating_point() and "mask" not in key and not torch.isfinite(value).all():
            raise UserError(
                "{file}: {key} holds NaN or infinity; the training that wrote it went astray. Take an earlier "
                "checkpoint of it.",
                file=path.name,
                key=key,
            )


def _is_plain(value: object) -> bool:
    """Whether it is a tensor with values of its own: neither sparse, nor quantised, nor a shape alone."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_meta or value.is_quantized)


def _arrays_in(path: Path) -> State:
    """The arrays of an npz file."""
    return {name: torch.from_numpy(value) for name, value in read_arrays(path).items()}


def write_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `Format.write` gives, as the released code reads it: for torch, or as npz."""
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in content.items()})
    else:
        torch.save(content, path)


def _state_in(loaded: object) -> object:
    """The state dict in what was stored: itself, or what is named "state_dict" or "model"."""
    if not isinstance(loaded, Mapping):
        return None
    return next((loaded[name] for name in lightning.STATE_NAMES if isinstance(loaded.get(name), Mapping)), loaded)


def precision_notes(path: Path, state: Mapping[str, Tensor]) -> list[Text]:
    """What the rounding of the file's weights changes, measured on a FaceFormer of random weights."""
    found = {value.dtype for value in state.values()}
    return [
        Text(
            "{file}: its weights are in half precision ({precision}). They are computed in float32 from now on; their "
            "rounding changes the motion by about {percent:g} %.",
            file=path.name,
            precision=str(precision).removeprefix("torch."),
            percent=percent,
        )
        for precision, percent in ROUNDING_PERCENT.items()
        if precision in found
    ]


def renamed(state: Mapping[str, Tensor], names: Names, *, back: bool = False) -> State:
    """The same tensors by our names, or with `back` by the released ones. The first prefix that fits is exchanged."""
    prefixes, parts = ([pair[::-1] for pair in some] if back else some for some in (names, _WEIGHT_NORM_NAMES))

    def name_of(key: str) -> str:
        for old, new in prefixes:
            if key.startswith(old):
                key = new + key.removeprefix(old)
                break
        for old, new in parts:
            key = key.replace(old, new)
        return key

    return {name_of(key): value for key, value in state.items()}


def check_keys(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming the key, unless both have the same keys with the same shapes."""
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    for keys, template in (
        (missing, "{file}: {n_keys} keys are missing, such as {key}; this is another model's file"),
        (unknown, "{file}: {n_keys} keys are unknown, such as {key}; this is another model's file"),
    ):
        if keys:
            raise UserError(template, file=path.name, n_keys=len(keys), key=keys[0])
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise UserError(
                "{file}: {key} has shape {found}, {expected} is expected",
                file=path.name,
                key=key,
                found=tuple(value.shape),
                expected=tuple(expected[key].shape),
            )


def check_rows(source: Source, key: str, kind: str, n_rows: int) -> None:
    """Raise UserError unless a tensor has as many rows as this kind's: V tells VOCASET from BIWI."""
    found = len(source.take(key))
    if found != n_rows:
        raise UserError(
            "{file}: {key} has {n_rows} rows, {kind} has {n_expected}",
            file=source.path.name,
            key=key,
            n_rows=found,
            kind=kind,
            n_expected=n_rows,
        )


def require_architecture(name: str, encoder: EncoderConfig, wanted: EncoderConfig) -> None:
    """Raise UserError unless two encoders are one, defaults included. Shapes do not show head counts or norm orders."""
    found, released = (KINDS[some.kind][0](**some.config).to_dict() for some in (encoder, wanted))
    for key in _ARCHITECTURE:
        if found[key] != released[key]:
            raise UserError(
                "{model}: its encoder has {key} = {found}; the official format has {wanted}",
                model=name,
                key=key,
                found=found[key],
                wanted=released[key],
            )
