# SPDX-License-Identifier: GPL-3.0-or-later
"""A model folder: config.json and model.safetensors; encoder.onnx and semantic.onnx for the ONNX engine.

config.json holds the sha256 of every other file, so a damaged or mixed-up folder is refused. Reading needs NumPy and
safetensors only.

Format 2 has `host: {kind, settings}` in the model's description. Format 1 had `decoder`, the settings of FaceFormer's
decoder; it is read and migrated in memory.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import MissingFileError, Text, UserError
from ..files import check_ours, replaced_folder
from .hosts import host_class
from .hosts.protocol import Host

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ENCODER_ONNX, SEMANTIC_ONNX = "encoder.onnx", "semantic.onnx"
BASIS_KEY = "basis_KV3"
PUBLISHED = "published."
"""Before tensors that only a file in the released format needs."""
MADE_BY = "an import or export of a model"
NO_FACE = Text("it is a Wav2Sem encoder without a face; fuse it into a face model with `python -m trainer finetune`")
Described = TypeVar("Described")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A transformers encoder: `kind` is "hubert", "wav2vec2" or "wavlm", `config` holds what differs from its base
    size; or "whisper", whose `config` holds the sizes; or "features", see `given_features.py`."""

    kind: str
    config: Mapping[str, Any]

    @property
    def normalised(self) -> bool:
        """Whether it hears samples of zero mean and unit variance. WavLM's base sizes hear them as they are."""
        return self.kind != "wavlm" or self.config.get("feat_extract_norm") == "layer"


@dataclass(frozen=True, kw_only=True)
class Wav2SemConfig:
    """The Wav2Sem encoder (wav2vec 2.0 architecture) and the width of its sentence space.

    A `shared` one reads the features of the phone-level encoder instead of the recording; its `config` is that of
    `nn.wav2sem.FeatureReader`.
    """

    config: Mapping[str, Any]
    target_dim: int
    shared: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that config.json says about a model, apart from the hashes of its files."""

    name: str
    encoder: EncoderConfig
    wav2sem: Wav2SemConfig | None
    host: Host
    channels: tuple[str, ...]
    styles: tuple[str, ...]
    topology: str = "flame"
    basis_unit: str = "m"
    legacy_predict: bool = False
    license: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    articulation: tuple[str, str] | None = None
    """The mumbled and the clear style, if the first style's mixtures with them were trained."""
    phones: tuple[str, ...] = ()
    """What the encoder's phone head tells apart, if it has one."""
    emotion: EncoderConfig | None = None
    """The second encoder of a host that hears the emotion too; of any kind of `encoder`, or "emotion2vec"."""

    @property
    def one_encoder(self) -> bool:
        """Whether phones, sentence vectors and face all read one encoder."""
        return self.encoder.kind == "whisper"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types only."""
        host = {"kind": self.host.KIND, "settings": dataclasses.asdict(self.host)}
        return json.loads(json.dumps({**dataclasses.asdict(self), "host": host}))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Read what `to_json` wrote.

        Raises:
            UserError: A key is unknown or missing, or a value is not of its type: a silent default would be another
                model.
        """
        _check_keys(cls, data, "model.")
        wav2sem = data["wav2sem"]
        host = _described(_HostDescription, data["host"], "model.host.")
        parsed = {
            "encoder": _described(EncoderConfig, data["encoder"], "model.encoder."),
            "wav2sem": None if wav2sem is None else _described(Wav2SemConfig, wav2sem, "model.wav2sem."),
            "host": _described(host_class(host.kind), host.settings, "model.host.settings."),
            "channels": tuple(data["channels"]),
            "styles": tuple(data["styles"]),
            "phones": tuple(data.get("phones", ())),
            "emotion": (
                None if (heard := data.get("emotion")) is None else _described(EncoderConfig, heard, "model.emotion.")
            ),
            "articulation": None if (ends := data.get("articulation")) is None else tuple(ends),
        }
        config = cls(**{**data, **parsed})
        if ends is not None and not (len(ends) == 2 and set(ends) <= set(config.styles)):
            raise UserError(
                "model.articulation is {value}; two of the styles {styles} are needed",
                value=json.dumps(ends),
                styles=json.dumps(data["styles"]),
            )
        return config


@dataclass(frozen=True, kw_only=True)
class _HostDescription:
    kind: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _ModelFile:
    format_version: int
    model: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Wav2SemFile:
    format_version: int
    wav2sem: Mapping[str, Any]
    files: Mapping[str, str]


def _described(wanted: type[Described], data: Any, name: str) -> Described:
    """A dataclass from JSON; `name` is its place in config.json, with a dot at its end."""
    _check_keys(wanted, data, name)
    return wanted(**data)


_JSON_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "string"),
    "int": (int, "integer"),
    "float": ((int, float), "number"),
    "bool": (bool, "boolean"),
    "tuple": (list, "array"),
    **dict.fromkeys(("Mapping", "EncoderConfig", "Host"), (dict, "object")),
}
"""A field's annotation, up to its "[" -> the type of its JSON value, and that type's name."""

_WRONG_TYPE = "{key} is {value}; its JSON type must be {type}"


def _check_keys(wanted: type, data: Any, name: str) -> None:
    """Raise UserError where a key is unknown or missing, or its value has the wrong type."""
    if not isinstance(data, dict):
        raise UserError(_WRONG_TYPE, key=name.rstrip("."), value=json.dumps(data), type="object")
    known = {field.name: field for field in dataclasses.fields(wanted)}
    for key in data:
        if key not in known:
            raise UserError("unknown key {key}; this release knows {known}", key=name + key, known=", ".join(known))
    for key, described in known.items():
        if key in data:
            types, type_name = _JSON_TYPES.get(str(described.type).partition("[")[0], (object, ""))
            may_be_null = str(described.type).endswith("| None")
            if not isinstance(data[key], types) and not (may_be_null and data[key] is None):
                raise UserError(_WRONG_TYPE, key=name + key, value=json.dumps(data[key]), type=type_name)
        elif described.default is described.default_factory is dataclasses.MISSING:
            raise UserError("the key {key} is missing", key=name + key)


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """An opened, verified folder with weights."""

    path: Path
    weights_sha256: str
    files: frozenset[str]

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Weights whose names start with `prefix`, without it; half precision becomes float32."""
        from safetensors import safe_open

        with safe_open(self.path / WEIGHTS_FILE, framework="numpy") as file:
            return {
                key[len(prefix) :]: _as_float32(file.get_tensor(key))
                for key in file.keys()  # noqa: SIM118 (a file handle, not a dict)
                if key.startswith(prefix)
            }


@dataclass(frozen=True, kw_only=True)
class Wav2SemFolder(_Folder):
    """A folder with a Wav2Sem encoder and no face."""

    config: Wav2SemConfig


@dataclass(frozen=True, kw_only=True)
class ModelFolder(_Folder):
    """A folder with a model that animates."""

    config: ModelConfig

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """As `open_folder`; UserError for a Wav2Sem alone."""
        folder = open_folder(path)
        if isinstance(folder, Wav2SemFolder):
            raise UserError("{path}: {no_face}", path=path, no_face=NO_FACE)
        return folder

    @property
    def has_onnx(self) -> bool:
        """Whether the ONNX engine can run this model."""
        return ENCODER_ONNX in self.files

    def basis(self) -> np.ndarray | None:
        """The channels' vertex displacements (K, V, 3) in the config's `basis_unit`, or None."""
        return self.tensors(BASIS_KEY).get("")


def open_folder(path: str | Path) -> ModelFolder | Wav2SemFolder:
    """Read and verify the folder of a model, or of a Wav2Sem alone.

    Raises:
        MissingFileError: No model is there, or one of its files is missing.
        UserError: Another format version, an unreadable config, or a file that differs from its hash.
    """
    folder = Path(path)
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise MissingFileError("{folder}: no model here (config.json is missing)", folder=folder)
    try:
        data = json.loads(config_path.read_text(encoding="utf-8"))
        version, is_wav2sem = data["format_version"], "wav2sem" in data
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "{file}: not the description of a Wav2Sem model ({error})", file=config_path, error=error
        ) from error
    if version not in (1, FORMAT_VERSION):
        raise UserError(
            "{file}: format version {version}, this release reads 1 and {newest}; export the model again with a "
            "matching release",
            file=config_path,
            version=version,
            newest=FORMAT_VERSION,
        )
    config: ModelConfig | Wav2SemConfig
    try:
        _check_keys(_Wav2SemFile if is_wav2sem else _ModelFile, data, "")
        files = data["files"]
        if WEIGHTS_FILE not in files:
            raise UserError("the key {key} is missing", key=f"files.{WEIGHTS_FILE}")
        if is_wav2sem:
            config = _described(Wav2SemConfig, data["wav2sem"], "wav2sem.")
        else:
            config = ModelConfig.from_json(_migrated(data["model"]) if version == 1 else data["model"])
    except UserError as error:
        raise UserError("{file}: {error}", file=config_path, error=error.text) from error
    for name, expected in files.items():
        if Path(name).name != name:
            raise UserError(
                "{file}: {name!r} is not in this folder; copy the whole model folder again", file=config_path, name=name
            )
        if not (folder / name).is_file():
            raise MissingFileError("{file}: missing; copy the whole model folder again", file=folder / name)
        if sha256(folder / name) != expected:
            raise UserError("{file}: damaged (its sha256 differs from config.json); copy it again", file=folder / name)
    common: dict[str, Any] = {"path": folder, "weights_sha256": files[WEIGHTS_FILE], "files": frozenset(files)}
    if isinstance(config, Wav2SemConfig):
        return Wav2SemFolder(config=config, **common)
    return ModelFolder(config=config, **common)


def _migrated(description: dict[str, Any]) -> dict[str, Any]:
    """A model's description of format 1, which knew FaceFormer's decoder only, as format 2 has it."""
    if "decoder" not in description:
        return description
    channels = description.get("channels")
    # The keys of a vertex head end with its bias.
    kind = "faceformer" if isinstance(channels, list) and channels[-1:] == ["bias"] else "faceformer_channels"
    others = {key: value for key, value in description.items() if key != "decoder"}
    return {**others, "host": {"kind": kind, "settings": description["decoder"]}}


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(
    folder: str | Path, config: ModelConfig, tensors: Mapping[str, np.ndarray], onnx: Mapping[str, Path] | None = None
) -> ModelFolder:
    """Write a model folder. It replaces a model that is there, once it is complete.

    Args:
        folder: The target; its parent is created.
        config: The model's description.
        tensors: The state dict of `nn.face_model.FaceModel` as NumPy arrays, and `basis_KV3` where there is a basis.
        onnx: File name -> exported file, which is copied.
    """
    _write_folder(Path(folder), {"model": config.to_json()}, tensors, onnx or {})
    return ModelFolder.open(folder)


def save_wav2sem(folder: str | Path, config: Wav2SemConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a folder with a Wav2Sem encoder alone."""
    _write_folder(Path(folder), {"wav2sem": dataclasses.asdict(config)}, tensors, {})


def _write_folder(
    folder: Path, content: Mapping[str, Any], tensors: Mapping[str, np.ndarray], onnx: Mapping[str, Path]
) -> None:
    from safetensors.numpy import save_file

    with replaced_folder(folder, MADE_BY, model_files, CONFIG_FILE) as new:
        save_file({key: np.asarray(value, order="C") for key, value in tensors.items()}, new / WEIGHTS_FILE)
        (new / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it readable only by its owner
        for name, source in onnx.items():
            shutil.copyfile(source, new / name)
        files = {path.name: sha256(path) for path in sorted(new.iterdir())}
        description = {"format_version": FORMAT_VERSION, **content, "files": files}
        (new / CONFIG_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def copy_folder(source: str | Path, folder: str | Path) -> None:
    """Copy a model folder, or one with a Wav2Sem alone: only the files that its config.json names.

    Raises:
        UserError: As in `open_folder`, for the source or the copy.
    """
    opened = open_folder(source)
    with replaced_folder(Path(folder), MADE_BY, model_files, CONFIG_FILE) as new:
        for name in (*opened.files, CONFIG_FILE):
            shutil.copyfile(opened.path / name, new / name)
        open_folder(new)


def model_files(folder: Path) -> tuple[str, ...]:
    """The files that make a folder one of our models; none unless we wrote its config.json."""
    try:
        description = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if "format_version" not in description or not {"model", "wav2sem"} & set(description):
            return ()
        return (CONFIG_FILE, *map(glob.escape, description["files"]))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def check_replaceable(folder: Path) -> None:
    """Raise UserError, before a long conversion, if `folder` holds anything but a model of ours."""
    check_ours(folder, MADE_BY, model_files)
