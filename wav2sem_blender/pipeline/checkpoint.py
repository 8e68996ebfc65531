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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingFileError, Text, UserError
from ..files import check_ours, recover_folder, replaced_folder
from ..json_file import read_json
from .forced_phones import reader_shapes
from .hosts import host_class
from .hosts.protocol import Host
from .onnx_file import check_graph
from .stand_ins import refuse_stand_in
from .validation import check_encoder, check_keys, described
from .weights_file import Shapes, check_shapes, read_shapes

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ENCODER_ONNX, SEMANTIC_ONNX = "encoder.onnx", "semantic.onnx"
BASIS_KEY = "basis_KV3"
PUBLISHED = "published."
"""Before tensors that only a file in the released format needs."""
MADE_BY = "an import or export of a model"
NO_FACE = Text("it is a Wav2Sem encoder without a face; fuse it into a face model with `python -m trainer finetune`")


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
    steerable: bool = False
    """Whether phones can be forced (`forced_phones.py`)."""

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
        check_keys(cls, data, "model.")
        wav2sem, heard, ends = data["wav2sem"], data.get("emotion"), data.get("articulation")
        host = described(_HostDescription, data["host"], "model.host.")
        parsed = {
            "encoder": _encoder(data["encoder"], "model.encoder."),
            "wav2sem": None if wav2sem is None else _wav2sem(wav2sem, "model.wav2sem."),
            "host": described(host_class(host.kind), host.settings, "model.host.settings."),
            "channels": tuple(data["channels"]),
            "styles": tuple(data["styles"]),
            "phones": tuple(data.get("phones", ())),
            "emotion": None if heard is None else _encoder(heard, "model.emotion."),
            "articulation": None if ends is None else tuple(ends),
        }
        config = cls(**{**data, **parsed})
        for key, names in (("channels", config.channels), ("styles", config.styles), ("phones", config.phones)):
            if len(set(names)) < len(names) or (key == "channels" and not names):
                raise UserError("{key} must be different names", key=f"model.{key}")
        if ends is not None and not (len(ends) == 2 and set(ends) <= set(config.styles)):
            raise UserError(
                "model.articulation is {value}; two of the styles {styles} are needed",
                value=json.dumps(ends),
                styles=json.dumps(data["styles"]),
            )
        return config


def _encoder(data: Any, name: str) -> EncoderConfig:
    encoder = described(EncoderConfig, data, name)
    check_encoder(encoder.kind, encoder.config, f"{name}config.")
    return encoder


def _wav2sem(data: Any, name: str) -> Wav2SemConfig:
    wav2sem = described(Wav2SemConfig, data, name)
    check_encoder("reader" if wav2sem.shared else "wav2vec2", wav2sem.config, f"{name}config.")
    return wav2sem


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


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """An opened, verified folder with weights."""

    path: Path
    weights_sha256: str
    files: frozenset[str]

    @cached_property
    def shapes(self) -> Shapes:
        """Of all weights, which `tensors` reads; UserError if the file is damaged."""
        return read_shapes(self.path / WEIGHTS_FILE)

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Weights whose names start with `prefix`, without it; half precision becomes float32.

        Raises:
            UserError: The file is damaged, or a weight is NaN or infinite.
        """
        from safetensors import SafetensorError, safe_open

        file_path = self.path / WEIGHTS_FILE
        try:
            with safe_open(file_path, framework="numpy") as file:
                return {
                    key[len(prefix) :]: _finite_float32(file.get_tensor(key), key, file_path)
                    for key in file.keys()  # noqa: SIM118 (a file handle, not a dict)
                    if key.startswith(prefix)
                }
        except SafetensorError as error:
            raise UserError("{file}: damaged ({error}); copy it again", file=file_path, error=error) from error

    def check_shapes(self, wanted: Shapes, besides: tuple[str, ...] = ("",)) -> None:
        """Compare the weights with what the description makes of them; see `weights_file.check_shapes`."""
        check_shapes(self.path / WEIGHTS_FILE, self.shapes, wanted, besides)


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
    recover_folder(folder)
    if not config_path.is_file():
        raise MissingFileError("{folder}: no model here (config.json is missing)", folder=folder)
    refuse_stand_in(config_path)
    try:
        data = read_json(config_path)
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
        check_keys(_Wav2SemFile if is_wav2sem else _ModelFile, data, "")
        files = data["files"]
        if WEIGHTS_FILE not in files:
            raise UserError("the key {key} is missing", key=f"files.{WEIGHTS_FILE}")
        if is_wav2sem:
            config = _wav2sem(data["wav2sem"], "wav2sem.")
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
            refuse_stand_in(folder / name)
            raise UserError("{file}: damaged (its sha256 differs from config.json); copy it again", file=folder / name)
    common: dict[str, Any] = {"path": folder, "weights_sha256": files[WEIGHTS_FILE], "files": frozenset(files)}
    if isinstance(config, Wav2SemConfig):
        return Wav2SemFolder(config=config, **common)
    opened = ModelFolder(config=config, **common)
    _check_graphs(opened)
    return opened


def _check_graphs(folder: ModelFolder) -> None:
    """Raise UserError where a graph is missing or does more than our export lets one do."""
    if folder.has_onnx and folder.config.wav2sem is not None and SEMANTIC_ONNX not in folder.files:
        raise MissingFileError("{file}: missing; copy the whole model folder again", file=folder.path / SEMANTIC_ONNX)
    for name in sorted(folder.files & {ENCODER_ONNX, SEMANTIC_ONNX}):
        check_graph(folder.path / name)


def check_weights(folder: ModelFolder) -> None:
    """Raise UserError where the weights that NumPy reads are not those of the description.

    An engine that builds torch modules compares theirs.
    """
    config, shapes = folder.config, folder.shapes
    if BASIS_KEY in shapes:
        n_vertices = shapes[BASIS_KEY][1] if len(shapes[BASIS_KEY]) == 3 else 0
        folder.check_shapes({BASIS_KEY: (len(config.channels), n_vertices, 3)})
    if config.host.IN_NUMPY:
        wanted = config.host.shapes(len(config.channels), len(config.styles))
        folder.check_shapes({f"decoder.{name}": shape for name, shape in wanted.items()})
    if config.steerable:
        wanted = reader_shapes(len(config.phones), config.host.memory_width or 0)
        folder.check_shapes({f"forced.{name}": shape for name, shape in wanted.items()})
    if config.one_encoder:
        width, memory = config.encoder.config["hidden_size"], config.host.memory_width
        linear: dict[str, tuple[int, int]] = {"audio_feature_map": (memory or 0, width)}
        if config.wav2sem is not None:
            linear["semantic_feature_map"] = (width, config.wav2sem.target_dim)
        for name, (n_outputs, n_inputs) in linear.items():
            folder.check_shapes({f"fusion.{name}.weight": (n_outputs, n_inputs), f"fusion.{name}.bias": (n_outputs,)})


def _migrated(description: dict[str, Any]) -> dict[str, Any]:
    """A model's description of format 1, which knew FaceFormer's decoder only, as format 2 has it."""
    if "decoder" not in description:
        return description
    channels = description.get("channels")
    # The keys of a vertex head end with its bias.
    kind = "faceformer" if isinstance(channels, list) and channels[-1:] == ["bias"] else "faceformer_channels"
    others = {key: value for key, value in description.items() if key != "decoder"}
    return {**others, "host": {"kind": kind, "settings": description["decoder"]}}


def _finite_float32(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    """Half precision as float32; UserError for a weight that is no number. Masks may hold minus infinity."""
    if array.dtype.kind != "f":
        return array
    array = array.astype(np.float32)
    if "mask" not in key and not np.isfinite(array).all():
        raise UserError(
            "{file}: {key} holds NaN or infinity; the training that wrote it went astray. Take an earlier checkpoint "
            "of it.",
            file=path,
            key=key,
        )
    return array


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
        description = read_json(folder / CONFIG_FILE)
        if "format_version" not in description or not {"model", "wav2sem"} & set(description):
            return ()
        return (CONFIG_FILE, *map(glob.escape, description["files"]))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def check_replaceable(folder: Path) -> None:
    """Raise UserError, before a long conversion, if `folder` holds anything but a model of ours."""
    check_ours(folder, MADE_BY, model_files)
