# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model's config.json may say: keys, types and ranges, checked in one place, before anything is built from it.

A description is a dataclass; its annotations say the types. The ranges are wide: no published or plausible model lies
outside, and inside them nothing that is computed from a number alone is large. Whether the weights fit is asked in
`weights_file.py` and by the engines.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeVar

from ..errors import UserError
from .frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES

Described = TypeVar("Described")
_MAX_NAMES, _MAX_NAME = 10_000, 200
_MAX_WIDTH, _MAX_WEIGHT = 16_384, 1e6
_SHOWN = 80

_WRONG_TYPE = "{key} is {value}; its JSON type must be {type}"
_OUT_OF_RANGE = "{key} is {value}; {least:g} to {most:g} is possible"

_RANGES: dict[str, tuple[float, float]] = {
    # Settings of hosts.
    **{"period": (1, 3_000), "fps": (1, 240), "memory_per_frame": (1, 8), "steps": (2, 10_000)},
    **{"layers": (1, 200), "n_layers": (1, 200), "mlp_layers": (0, 200), "blocks": (1, 200), "prior_blocks": (1, 200)},
    **{"codec_blocks": (1, 200), "look_ahead": (0, 300), "window": (1, 1_000), "keys": (1, 10_000)},
    **{"longest": (50, 100_000), "overlap": (0, 10_000), "pairs": (0, 1_000_000), "emotions": (0, 1_000)},
    **{"shape_dim": (0, 1_000), "temperature": (1e-6, 1_000), "scale": (1e-6, 1e6), "sampling_steps": (1, 1_000)},
    # Settings of encoders, as transformers names them.
    **{"num_hidden_layers": (1, 200), "encoder_layers": (1, 200), "prenet_layers": (0, 200), "stride": (1, 64)},
    **{"position_layers": (1, 50), "tokens": (0, 1_000), "n_mels": (1, 512), "layer_norm_eps": (0, 1)},
    **{"target_dim": (1, _MAX_WIDTH), "num_labels": (1, 1_000)},
}
"""Of the numbers of these names, and of those in a list. All other integers are widths, at least 1, or in an encoder
anything; other numbers are weights of a loss. What is named dropout or layerdrop is a share."""


def described(wanted: type[Described], data: Any, name: str) -> Described:
    """A dataclass from JSON.

    Args:
        wanted: Its class.
        data: What the JSON says.
        name: Its place in config.json, with a dot at its end.

    Raises:
        UserError: A key is unknown or missing, or a value has another type or is out of range.
    """
    check_keys(wanted, data, name)
    return wanted(**data)


def check_keys(wanted: type, data: Any, name: str) -> None:
    """Raise UserError where `described` would, for a class that is made of `data` otherwise."""
    if not isinstance(data, dict):
        raise UserError(_WRONG_TYPE, key=name.rstrip(".") or "it", value=_shown(data), type="object")
    known = {field.name: field for field in dataclasses.fields(wanted)}
    for key in data:
        if key not in known:
            raise UserError("unknown key {key}; this release knows {known}", key=name + key, known=", ".join(known))
    for key, field in known.items():
        if key in data:
            _check_value(name + key, data[key], str(field.type))
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise UserError("the key {key} is missing", key=name + key)


def check_encoder(kind: str, config: Mapping[str, Any], name: str) -> None:
    """Check an encoder's settings.

    Args:
        kind: As in `EncoderConfig`, or "reader" for a Wav2Sem that reads the features of another encoder.
        config: What differs from the base size, or all of it for "whisper", "features" and "reader".
        name: Its place in config.json, with a dot at its end.

    Raises:
        UserError: The kind is unknown, a setting is missing, or a value has another type or is out of range.
    """
    if kind not in _NEEDED_BY:
        raise UserError("encoder kind {kind!r}: known are {kinds}", kind=kind, kinds=", ".join(_NEEDED_BY))
    for key in _NEEDED_BY[kind]:
        if key not in config:
            raise UserError("the key {key} is missing", key=name + key)
    for key, value in config.items():
        if key in _ENCODER_TYPES:
            _check_value(name + key, value, _ENCODER_TYPES[key])
        else:
            _check_other(name + key, value)
    if kind in _ON_WAVEFORMS:
        _check_convolutions(kind, config, name)


_CONVOLUTIONS = ("conv_dim", "conv_kernel", "conv_stride")
_ON_WAVEFORMS = ("hubert", "wav2vec2", "wavlm", "emotion2vec")
_NEEDED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_ON_WAVEFORMS, ()),
    "whisper": ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "hidden_size"),
    "features": ("source", "of", "input_size", "hidden_size"),
    "reader": ("feature_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "stride"),
}
_PUBLISHED_CONVOLUTIONS = {
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
}
_ENCODER_TYPES: dict[str, str] = {
    **dict.fromkeys(_CONVOLUTIONS, "tuple[int, ...]"),
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), "int"),
    **dict.fromkeys(("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "n_mels"), "int"),
    **dict.fromkeys(("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"), "int"),
    **dict.fromkeys(("feature_size", "input_size", "stride", "prenet_layers", "tokens"), "int"),
    **dict.fromkeys(("position_layers", "position_kernel", "position_groups", "alibi_layers", "alibi_heads"), "int"),
    **dict.fromkeys(("hidden_act", "feat_extract_norm", "feat_extract_activation", "source", "of"), "str"),
    **dict.fromkeys(("conv_bias", "do_stable_layer_norm", "apply_spec_augment"), "bool"),
    **dict.fromkeys(("dropout", "layerdrop", "hidden_dropout", "attention_dropout"), "float"),
    **dict.fromkeys(("activation_dropout", "feat_proj_dropout", "layer_norm_eps"), "float"),
}


def _check_convolutions(kind: str, config: Mapping[str, Any], name: str) -> None:
    """Frames are counted as if there were 50 a second, each of 400 samples (`frame_timing.py`)."""
    parts = {key: config.get(key, default) for key, default in _PUBLISHED_CONVOLUTIONS.items()}
    widths, kernels, strides = parts.values()
    if not len(widths) == len(kernels) == len(strides) or not widths:
        raise UserError("{keys} differ in length", keys=", ".join(name + key for key in parts))
    hop, reach = (1, 1) if "n_mels" not in config else (HOP_SAMPLES // 2, RECEPTIVE_FIELD_SAMPLES)
    if "n_mels" not in config:
        for kernel, stride in zip(kernels, strides, strict=True):
            reach, hop = reach + (kernel - 1) * hop, hop * stride
    else:
        hop *= prod(strides)
    if (hop, reach) != (HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES):
        raise UserError(
            "{key}: a frame of this encoder has {reach} samples and the next begins after {hop}; {needed_reach} and "
            "{needed_hop} are needed",
            key=name + "conv_stride",
            reach=reach,
            hop=hop,
            needed_reach=RECEPTIVE_FIELD_SAMPLES,
            needed_hop=HOP_SAMPLES,
        )


def _check_value(key: str, value: Any, annotation: str) -> None:
    """Raise UserError unless `value` is what the annotation of a field says, and in range."""
    kind, _, optional = annotation.partition(" | ")
    if value is None and optional == "None":
        return
    is_right, type_name = _TYPES[kind]
    if not is_right(value):
        raise UserError(_WRONG_TYPE, key=key, value=_shown(value), type=type_name)
    if kind in ("int", "float", "tuple[int, ...]"):
        least, most = _range(key.rpartition(".")[2], kind)
        for number in value if isinstance(value, list) else [value]:
            if not least <= number <= most:
                raise UserError(_OUT_OF_RANGE, key=key, value=number, least=least, most=most)


def _range(name: str, kind: str) -> tuple[float, float]:
    if name in _RANGES:
        return _RANGES[name]
    if name.endswith(("dropout", "layerdrop", "share")):
        return 0, 1
    return (1, _MAX_WIDTH) if kind != "float" else (0, _MAX_WEIGHT)


def _check_other(key: str, value: Any) -> None:
    """A setting of transformers that makes no difference here, or one that is not known here: plain values."""
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    if len(items) > _MAX_NAMES:
        raise UserError("{key} has {n_values} values", key=key, n_values=len(items))
    for item in items:
        if isinstance(item, (list, dict)) or (isinstance(item, str) and len(item) > _MAX_NAME):
            raise UserError(_WRONG_TYPE, key=key, value=_shown(item), type="number or short string")
        least, most = _RANGES.get(key.rpartition(".")[2], (-_MAX_WEIGHT, _MAX_WEIGHT))
        if isinstance(item, (int, float)) and not least <= item <= most:
            raise UserError(_OUT_OF_RANGE, key=key, value=item, least=least, most=most)


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME


def _list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= _MAX_NAMES and all(map(is_item, value))


def _is_head(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_name(value[0])
        and _is_integer(value[1])
        and 1 <= value[1] <= _MAX_WIDTH
    )


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "string"),
    "int": (_is_integer, "integer"),
    "float": (_is_number, "number"),
    "bool": (lambda value: isinstance(value, bool), "boolean"),
    "tuple[str, ...]": (_list_of(_is_name), "array of names"),
    "tuple[int, ...]": (_list_of(_is_integer), "array of integers"),
    "tuple[str, str]": (_list_of(_is_name), "array of names"),
    "tuple[tuple[str, int], ...]": (_list_of(_is_head), "array of pairs of name and width"),
    "Mapping[str, str]": (
        lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
        "object of strings",
    ),
    **dict.fromkeys(
        ("Mapping[str, Any]", "EncoderConfig", "Wav2SemConfig", "Host"),
        (lambda value: isinstance(value, dict), "object"),
    ),
}
"""A field's annotation -> the test of its JSON value, and that type's name."""


def _shown(value: Any) -> str:
    """The value as JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
